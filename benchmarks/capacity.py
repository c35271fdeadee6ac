"""``python -m benchmarks.capacity``: measure, and write the tables of ``docs/capacity.md``.

Ten minutes on two cores. The costs are of whole runs, in CPU seconds; the schedule is simulated on
the delays that the simulated service has.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks import growth, refreshes
from benchmarks.server import serving
from benchmarks.world import UNTIL, write_source
from tests.readme_tables import put_in, table
from usms_pipeline.contract import polling
from usms_pipeline.settings import Settings
from usms_pipeline.simulator import Faults, Population, fate

PAGE: Final = Path(__file__).parent.parent / "docs/capacity.md"
MESSAGES: Final = tuple(10**power for power in range(5, 10))
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
RUN_EVERY: Final = 10 * _MINUTE
OPEN_DAYS: Final = 4
"""Days of sending that have open messages: today's, and those of the cutoff's 72 hours."""
BUSIEST_HOUR: Final = 0.08
"""Share of a day's messages that are sent in its busiest hour, in the simulated account."""
SMALL, LARGE = 1_000_000, 10_000_000
"""A day's messages: what is measured. Between them memory is a line, and beyond them too."""

MOST: Final = 10 * LARGE
"""Messages a day for one dataset: beyond ten times what was measured nothing is claimed."""

INTERVALS: Final = (10 * _MINUTE, _HOUR, 4 * _HOUR)

Ages = npt.NDArray[np.float64]


class Asked(NamedTuple):
    """What a schedule costs and gives: questions a message, when its final status is known."""

    questions: float
    half_known_seconds: float
    known_late_seconds: float  # of 99 in 100


class Costs(NamedTuple):
    """What was measured."""

    question_us: float  # CPU, from the question to the published row
    row_us: float  # CPU, to read and write a row of a day's file that changes, and publish it
    run_seconds: float  # CPU of a run with nothing to do
    small_mb: float
    large_mb: float
    dataset_bytes: float  # a message
    warehouse_bytes: float
    raw_bytes: float  # a question


def schedules() -> dict[str, list[float]]:
    """Return the ages at which each policy asks, in seconds."""
    ours = [age.total_seconds() for age in polling.offsets(timedelta(hours=72))]
    doubling = [300.0 * 2**step for step in range(10)]
    return {
        "**this one**": ours,
        "every run, ten minutes": [RUN_EVERY * step + 1 for step in range(432)],
        "every hour": [_HOUR * step for step in range(1, 73)],
        "5 minutes, doubled each time": [*doubling, 72 * _HOUR],
        "once a day": [_DAY, 2 * _DAY, 3 * _DAY],
        "once, after 72 hours": [3 * _DAY],
    }


def delays(messages: int = 20_000) -> Ages:
    """Return when the service has each message's final status, in seconds; infinity: never."""
    sent = Population(messages, until=UNTIL).table()
    phones = sent["phone"].to_pylist()
    sent_us = np.asarray(sent["sent_at"].cast("int64"))
    drawn = fate.draws(0, sent["session_no"].to_pylist(), phones, sent_us)
    found = fate.fates(drawn, phones, sent_us, None, Faults())
    final = np.array([one.status in ("delivered", "failed", "rejected", "expired")
                      for one in fate.OUTCOMES])  # fmt: skip
    is_told = (found.revealed_us != fate.NEVER) & final[found.outcome]
    return np.where(is_told, (found.revealed_us - sent_us) / 1e6, np.inf)


def asked(ages: Sequence[float], told: Ages, seed: int = 0) -> Asked:
    """Return what comes of asking at these ages, in the first run that is not before each."""
    begins = np.random.default_rng(seed).uniform(0, RUN_EVERY, (len(told), 1))
    at = begins + np.ceil((np.array(ages) - begins) / RUN_EVERY) * RUN_EVERY
    is_another = np.diff(at, axis=1, prepend=-1.0) > 0  # two ages that one run serves are one
    is_open = np.hstack([np.full((len(told), 1), True), at[:, :-1] < told[:, None]])
    learns = np.where(at >= told[:, None], at, np.inf).min(axis=1)
    is_known = np.isfinite(learns)
    late = learns[is_known] - told[is_known]
    return Asked(
        float((is_another & is_open).sum() / len(told)),
        float(np.quantile(late, 0.5)),
        float(np.quantile(late, 0.99)),
    )


def measured() -> Costs:
    """Return the costs of whole runs, each a process of its own."""
    large = growth._cost(LARGE, 1)
    small = growth._cost(SMALL, 1)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, serving() as url:
        source, data = Path(folder) / "messages.parquet", Path(folder) / "data"
        write_source(source, SMALL, days=1)
        at = UNTIL + timedelta(hours=2)
        said = {}
        refreshes._run_at(at, source, url, data)
        on_disk = {
            name: sum(one.stat().st_size for one in found if one.is_file()) / SMALL
            for name, found in (
                ("dataset", (data / "receipts").rglob("*")),
                ("raw", (data / "responses").rglob("*")),
                ("warehouse", data.glob("*.duckdb")),
            )
        }
        few = at + timedelta(hours=7, minutes=1)
        for name, then in (("many", few - timedelta(minutes=1)), ("few", few), ("none", few)):
            said[name] = refreshes._run_at(then, source, url, data)
    idle = said["none"][1]
    return Costs(
        question_us=(large.cpu_seconds - idle) / LARGE * 1e6,
        row_us=(said["few"][1] - idle) / SMALL * 1e6,
        run_seconds=idle,
        small_mb=small.peak_mb,
        large_mb=large.peak_mb,
        dataset_bytes=on_disk["dataset"],
        warehouse_bytes=on_disk["warehouse"],
        raw_bytes=on_disk["raw"],
    )


def schedule_table(told: Ages) -> str:
    """Return the page's table of policies."""
    found = {name: asked(ages, told) for name, ages in schedules().items()}
    return table(
        ("asked", "questions a message", "requests for 1,000 messages",
         "half are known later than the service knows by", "99 of 100 by"),
        [
            (name, f"{one.questions:.2f}", f"{10 * one.questions:.0f}",
             _time(one.half_known_seconds), _time(one.known_late_seconds))
            for name, one in found.items()
        ],
    )  # fmt: skip


def costs_table(costs: Costs) -> str:
    """Return the page's table of what was measured."""
    return table(
        ("what", "cost"),
        [
            ("to ask about a message, save, count and publish the answer",
             f"{costs.question_us:.0f} µs of CPU"),
            ("a row of a day's file, each time something in that day changes",
             f"{costs.row_us:.1f} µs of CPU"),
            ("a run with nothing due", f"{costs.run_seconds:.1f} s of CPU"),
            (f"memory at the most, a day of {SMALL:,} messages", f"{costs.small_mb:,.0f} MB"),
            (f"memory at the most, a day of {LARGE:,} messages", f"{costs.large_mb:,.0f} MB"),
            ("dataset (`receipts/`)", f"{costs.dataset_bytes:.0f} bytes a message"),
            ("`usms.duckdb`", f"{costs.warehouse_bytes:.0f} bytes a message"),
            ("raw responses, for `USMS_RAW_RETENTION_DAYS`",
             f"{costs.raw_bytes:.0f} bytes an answer about a message"),
        ],
    )  # fmt: skip


def capacity_table(costs: Costs, questions: float) -> str:
    """Return the page's table of sizes; what is said of a machine is of one dataset on it."""
    keep = Settings.model_fields["raw_retention_days"].default
    slope = (costs.large_mb - costs.small_mb) / (LARGE - SMALL)
    rows = []
    for messages in MESSAGES:
        asks, machines = messages * questions, -(-messages // MOST)
        here, pace = messages / machines, BUSIEST_HOUR * asks / 100 / _HOUR
        for interval in INTERVALS:
            refresh = costs.run_seconds + OPEN_DAYS * here * costs.row_us / 1e6
            refresh += here * questions * interval / _DAY * costs.question_us / 1e6
            if refresh < interval / 2:
                break
        memory = _bytes(1e6 * (costs.small_mb + max(0, here - SMALL) * slope))
        disk = 365 * messages * (costs.dataset_bytes + costs.warehouse_bytes)
        disk += keep * asks * costs.raw_bytes
        rows.append(
            (f"{messages:,}", f"{asks / 100:,.0f}", f"{pace:.2f}" if pace < 10 else f"{pace:.0f}",
             f"{machines}", _time(interval), _time(refresh), memory, _bytes(disk))
        )  # fmt: skip
    head = ("messages a day", "requests a day", "requests/s, busiest hour", "machines",
            "run every", "CPU of a run", "memory, at most", "disk, first year")  # fmt: skip
    return table(head, rows)


def _time(seconds: float) -> str:
    for unit, size in (("h", _HOUR), ("min", _MINUTE)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def _bytes(size: float) -> str:
    for unit, one in (("TB", 1e12), ("GB", 1e9)):
        if size >= one:
            return f"{size / one:.2g} {unit}" if size < 10 * one else f"{size / one:.0f} {unit}"
    return f"{size / 1e6:.0f} MB"


def tables() -> Iterator[tuple[str, str]]:
    """Yield the page's tables by name."""
    told = delays()
    yield "schedules", schedule_table(told)
    if "schedules" in sys.argv:  # these take a second
        return
    costs = measured()
    yield "costs", costs_table(costs)
    yield "capacity", capacity_table(costs, asked(schedules()["**this one**"], told).questions)


def main() -> None:
    """Write the page's tables: all, or what is simulated."""
    text = PAGE.read_text("utf-8")
    for name, lines in tables():
        print(f"{lines}\n", flush=True)
        text = put_in(text, name, lines)
    PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
