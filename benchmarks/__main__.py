"""``python -m benchmarks``: run everything and write ``RESULTS.md``. An hour on two cores.

``python -m benchmarks quick`` takes a few minutes and prints only. Titles of parts, as in
``python -m benchmarks Growth``, run these again, on the day and with the versions of the rest.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks import (
    end_to_end,
    growth,
    http,
    latency,
    phones,
    recipients,
    refreshes,
    start_up,
    views,
    warehouse,
)

_RESULTS = Path(__file__).parent / "RESULTS.md"
_PACKAGES = ("usms-pipeline", "duckdb", "pyarrow", "pycurl", "httpx", "uvloop", "dlt", "pandas")


def main() -> None:
    """Run all, or what is quick."""
    is_quick = "quick" in sys.argv
    parts = _parts(is_quick)
    wanted = [title for title in parts if title in sys.argv] or list(parts)
    head = _head()
    written = {} if is_quick or len(wanted) == len(parts) else _written(head)
    print(head)
    for title in wanted:
        print(f"\n## {title}\n")
        lines = []
        for line in _lines(parts[title]):
            print(line, flush=True)
            lines.append(line)
        written[title] = "\n".join(lines)
        told = [f"## {title}\n\n{written[title]}" for title in parts if title in written]
        if not is_quick:  # after every part: a later one may fail
            _RESULTS.write_text("\n\n".join([head, *told]) + "\n", "utf-8")


def _written(head: str) -> dict[str, str]:
    """Return the parts that were run before, on this day and with these versions."""
    text = _RESULTS.read_text("utf-8") if _RESULTS.exists() else ""
    before, *parts = text.strip().split("\n\n## ")
    if before != head:
        sys.exit(f"{_RESULTS} is of another day, machine or version: run all parts.")
    return dict(part.split("\n\n", 1) for part in parts)


def _head() -> str:
    return (
        f"# Results\n\n{datetime.now(UTC):%Y-%m-%d}, `make bench`. {os.cpu_count()} cores, "
        f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}; "
        + ", ".join(_versions())
        + ".\nMedians of runs in turn; read the ratios, for the machine's speed drifts."
    )


def _versions() -> Iterator[str]:
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):  # what is quick needs no other tool
            yield f"{name} {version(name)}"


def _lines(tables: list[Iterator[str]]) -> Iterator[str]:
    for number, table in enumerate(tables):
        if number:
            yield ""
        yield from table


def _parts(is_quick: bool) -> dict[str, list[Iterator[str]]]:
    few, rounds = 50_000, 1
    if is_quick:
        return {
            "End to end": [end_to_end.table(few, ["script", "sockets"], rounds)],
            "Phone numbers": [phones.table()],
            "Refreshes": [refreshes.shapes([(20_000, 10), (few, 5)]), refreshes.open_day(few)],
            "Several phones": [recipients.table(few)],
            "Publishing": [warehouse.table((100_000, 1_000_000)), warehouse.shared(100_000)],
            "Figures": [views.table(100_000)],
            "HTTP": [http.table()],
            "Growth": [
                growth.memory(few, 4 * few),
                growth.limited(few, 1024),
                growth.days(few, (1, 25)),
            ],
            "Start-up": [start_up.table()],
        }
    peers = ["dlt", "dlt-page", "script", "sockets"]
    return {
        "End to end": [end_to_end.table(200_000, peers), end_to_end.table(1_000_000, peers)],
        "A slow service": [
            latency.table(200_000),
            end_to_end.table(200_000, ["dlt", "dlt-page"], latency_seconds=0.05),
        ],
        "Phone numbers": [phones.table()],
        "Refreshes": [
            refreshes.shapes([(36_500, 365), (40_000, 20), (1_000_000, 5)]),
            refreshes.open_day(5_000_000),
        ],
        "Several phones": [recipients.table(1_000_000)],
        "Publishing": [
            warehouse.table((1_000_000, 10_000_000, 100_000_000)),
            warehouse.shared(10_000_000),
        ],
        "Figures": [views.table(10_000_000)],
        "HTTP": [http.table()],
        "Growth": [
            growth.memory(500_000, 5_000_000),
            growth.limited(10_000_000, 1024),
            growth.days(500_000, (1, 50, 365)),
        ],
        "Start-up": [start_up.table()],
    }


if __name__ == "__main__":
    main()
