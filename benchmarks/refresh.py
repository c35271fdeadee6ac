"""Open days of which little changed: a refresh, and beside it a bare rewrite of a file."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import duckdb

from benchmarks.measure import PAIRS
from benchmarks.server import serving
from benchmarks.stages import settings_for
from benchmarks.world import DAYS, UNTIL, write_source
from usms_pipeline.days import file
from usms_pipeline.pipeline import Pipeline, Report

_STEP = timedelta(minutes=30)
"""A session is asked about once a day, so between two refreshes a 48th of the open ones is due."""
_DUE = 20


class _Clock:
    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def table(sessions: int, rounds: int = PAIRS) -> Iterator[str]:
    """Give the lines of a table for so many sessions of one day, 1 % of them open."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, serving() as url:
        pipeline, clock = _asked_once(Path(folder), sessions, url)
        rows = [_refreshed(pipeline, clock, Path(folder)) for _ in range(rounds)]
    due, refresh, bare = (statistics.median(one) for one in zip(*rows, strict=True))
    ratio = statistics.median(refresh / bare for _, refresh, bare in rows)
    yield f"| {sessions:,} receipts in one open day, {due:,.0f} due | seconds |"
    yield "|---|---|"
    yield f"| a refresh: the source read, what is due asked and folded in | {refresh:.2f} |"
    yield f"| DuckDB rewrites the file, and nothing else | {bare:.2f} |"
    yield f"| refresh ÷ rewrite | {ratio:.2f} |"


def few_due(sessions: int, rounds: int = PAIRS) -> Iterator[str]:
    """Give the lines of a table: whole runs with some twenty due, of so many known in five days."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, serving() as url:
        pipeline, clock = _asked_once(Path(folder), sessions, url, DAYS)
        step = timedelta(days=1) * _DUE / _run(pipeline)[1]
        costs = []
        for _ in range(rounds + 1):  # the first publish after a build also settles the file
            clock.now += step
            costs.append(_run(pipeline)[0])
    yield f"| {sessions:,} known in {DAYS} days, some {_DUE} due | CPU s |"
    yield "|---|---|"
    for name in costs[0]:
        yield f"| {name} | {statistics.median(cost[name] for cost in costs[1:]):.2f} |"


def _run(pipeline: Pipeline) -> tuple[dict[str, float], int]:
    """Run once; return the CPU seconds of each step, and how many recipients are waiting."""
    begun = time.process_time()
    report = pipeline.refresh()
    refreshed = time.process_time()
    pipeline.publish()
    ended = time.process_time()
    costs = {"refresh": refreshed - begun, "publish": ended - refreshed, "both": ended - begun}
    return costs, report.open


def _asked_once(folder: Path, sessions: int, url: str, days: int = 1) -> tuple[Pipeline, _Clock]:
    source = folder / "messages.parquet"
    write_source(source, sessions, days=days)
    clock = _Clock(UNTIL + timedelta(hours=2))
    settings = settings_for(source, url, f"{folder}/data").model_copy(
        update={"poll_minutes": (5,), "poll_every_hours": 24, "timezone": "UTC"}
    )
    pipeline = Pipeline(settings, clock=clock)
    pipeline.refresh()
    return pipeline, clock


def _refreshed(pipeline: Pipeline, clock: _Clock, folder: Path) -> tuple[int, float, float]:
    """Refresh half an hour later; return the sessions due, and the seconds of each."""
    clock.now += _STEP
    reports: list[Report] = []
    seconds = _seconds(lambda: reports.append(pipeline.refresh()))
    return sum(reports[0].due.values()), seconds, _seconds(lambda: _rewrite(folder))


def _rewrite(folder: Path) -> None:
    """Rewrite the largest file of receipts, and nothing else."""
    files = (folder / "data" / file.FOLDER).rglob("receipts.parquet")
    largest = max(files, key=lambda path: path.stat().st_size)
    with duckdb.connect() as con:
        con.execute(
            f"COPY (FROM '{largest}') TO '{folder}/rewritten.parquet' "
            "(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)"
        )


def _seconds(what: Callable[[], object]) -> float:
    started = time.perf_counter()
    what()
    return time.perf_counter() - started
