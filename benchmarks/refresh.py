"""Open partitions of which little changed: a refresh, and beside it a bare rewrite of a file."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import duckdb

from benchmarks.measure import PAIRS
from benchmarks.server import serving
from benchmarks.stages import settings_for
from benchmarks.world import DAYS, UNTIL, write_source
from usms_pipeline.pipeline import Pipeline, ResponsesReport
from usms_pipeline.store.dataset import RECEIPTS

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
        days = pipeline.dates(pipeline.open_window())
        rows = [_refreshed(pipeline, clock, days, Path(folder)) for _ in range(rounds)]
    due, ask, fold, bare = (statistics.median(one) for one in zip(*rows, strict=True))
    ratio = statistics.median((ask + fold) / bare for _, ask, fold, bare in rows)
    yield f"| {sessions:,} receipts in one open partition, {due:,.0f} due | seconds |"
    yield "|---|---|"
    yield f"| find what is due, ask | {ask:.2f} |"
    yield f"| fold the answers in | {fold:.2f} |"
    yield f"| DuckDB rewrites the file, and nothing else | {bare:.2f} |"
    yield f"| refresh ÷ rewrite | {ratio:.2f} |"


def few_due(sessions: int, rounds: int = PAIRS) -> Iterator[str]:
    """Give the lines of a table: whole runs with some twenty due, of so many known in five days."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, serving() as url:
        pipeline, clock = _asked_once(Path(folder), sessions, url, DAYS)
        step = timedelta(days=1) * _DUE / sum(_run(pipeline)[1])
        costs = []
        for _ in range(rounds + 1):  # the first publish after a build also settles the file
            clock.now += step
            costs.append(_run(pipeline)[0])
    yield f"| {sessions:,} known in {DAYS} days, some {_DUE} due | CPU s |"
    yield "|---|---|"
    for name in costs[0]:
        yield f"| {name} | {statistics.median(cost[name] for cost in costs[1:]):.2f} |"


def _run(pipeline: Pipeline) -> tuple[dict[str, float], list[int]]:
    """Run once; give the CPU seconds of each step and of all, and how many each day awaits."""
    costs, begun = {}, time.process_time()
    steps = ("load_sessions", "ask", "fold_read", "publish")
    with ExitStack() as patched:
        for name in steps:
            whole = getattr(pipeline, name)

            def timed(*given: Any, name: str = name, whole: Callable[..., Any] = whole) -> Any:
                started = time.process_time()
                try:
                    return whole(*given)
                finally:
                    costs[name] = time.process_time() - started

            patched.enter_context(patch.object(pipeline, name, timed))
        report = pipeline.run()
    costs["the whole run, without the imports"] = time.process_time() - begun
    return costs, [counts.awaited for counts in report.receipts.partitions.values()]


def _asked_once(folder: Path, sessions: int, url: str, days: int = 1) -> tuple[Pipeline, _Clock]:
    source = folder / "messages.parquet"
    write_source(source, sessions, days=days)
    clock = _Clock(UNTIL + timedelta(hours=2))
    settings = settings_for(source, url, f"{folder}/data").model_copy(
        update={"poll_minutes": (5,), "poll_every_hours": 24, "timezone": "UTC"}
    )
    pipeline = Pipeline(settings, clock=clock)
    pipeline.load_sessions(pipeline.open_window())
    dates = pipeline.dates(pipeline.open_window())
    pipeline.ask(dates)
    pipeline.fold(dates)
    return pipeline, clock


def _refreshed(
    pipeline: Pipeline, clock: _Clock, days: list[date], folder: Path
) -> tuple[int, float, float, float]:
    """Refresh half an hour later; give the sessions due, and the seconds of each step."""
    clock.now += _STEP
    reports: list[ResponsesReport] = []
    ask = _seconds(lambda: reports.append(pipeline.ask(days)))
    fold = _seconds(lambda: pipeline.fold(days))
    return sum(reports[0].due_sessions.values()), ask, fold, _seconds(lambda: _rewrite(folder))


def _rewrite(folder: Path) -> None:
    """Rewrite the largest file of receipts, and nothing else."""
    files = (folder / "data" / RECEIPTS).rglob("receipts.parquet")
    largest = max(files, key=lambda file: file.stat().st_size)
    with duckdb.connect() as con:
        con.execute(
            f"COPY (FROM '{largest}') TO '{folder}/rewritten.parquet' "
            "(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)"
        )


def _seconds(what: Callable[[], object]) -> float:
    started = time.perf_counter()
    what()
    return time.perf_counter() - started
