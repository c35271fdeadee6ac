"""More sessions, and more days: what a whole run takes of memory, and of time a session."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.end_to_end import ours
from benchmarks.measure import Cost, run
from benchmarks.server import serving
from benchmarks.world import write_source


def memory(fewer: int, more: int) -> Iterator[str]:
    """Yield the lines of a table: a whole run over new sessions of five days, as a program."""
    yield "| new sessions | peak MB | CPU µs a session |"
    yield "|---|---|---|"
    costs = {sessions: _cost(sessions, 5) for sessions in (fewer, more)}
    yield from (_line(f"{sessions:,}", sessions, cost) for sessions, cost in costs.items())
    yield f"| ratio | {costs[more].peak_mb / costs[fewer].peak_mb:.2f} | |"


def limited(sessions: int, megabytes: int) -> Iterator[str]:
    """Yield the lines of a table: a whole run with a hard limit of memory."""
    yield f"| new sessions, under a hard limit of {megabytes:,} MB | peak MB | CPU µs a session |"
    yield "|---|---|---|"
    yield _line(f"{sessions:,}", sessions, _cost(sessions, 10, megabytes))


def days(sessions: int, counts: Iterable[int]) -> Iterator[str]:
    """Yield the lines of a table: the same sessions in one day, and over so many."""
    yield f"| {sessions:,} new sessions in | peak MB | CPU µs a session |"
    yield "|---|---|---|"
    for count in counts:
        yield _line(f"{count} days" if count > 1 else "one day", sessions, _cost(sessions, count))


def _cost(sessions: int, spread_over: int, most_megabytes: int = 0) -> Cost:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, serving() as url:
        source = Path(folder) / "messages.parquet"
        write_source(source, sessions, days=spread_over)
        return run(ours(source, url), most_megabytes)


def _line(name: str, sessions: int, cost: Cost) -> str:
    return f"| {name} | {cost.peak_mb:.0f} | {cost.cpu_seconds * 1e6 / sessions:.1f} |"
