"""A large open partition of which little changed: a refresh beside a bare rewrite of its file."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb

from benchmarks.measure import PAIRS
from benchmarks.server import serving
from benchmarks.stages import settings_for
from benchmarks.world import UNTIL, write_source
from usms_pipeline.dataset import RECEIPTS
from usms_pipeline.pipeline import Pipeline, ResponsesReport

_STEP = timedelta(minutes=30)
"""A session is asked about once a day, so between two refreshes a 48th of the open ones is due."""


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


def _asked_once(folder: Path, sessions: int, url: str) -> tuple[Pipeline, _Clock]:
    source = folder / "messages.parquet"
    write_source(source, sessions, days=1)
    clock = _Clock(UNTIL + timedelta(hours=2))
    settings = settings_for(source, url, f"{folder}/data").model_copy(
        update={"poll_minutes": (5,), "poll_every_hours": 24, "timezone": "UTC"}
    )
    pipeline = Pipeline(settings, clock=clock)
    pipeline.load_sessions(pipeline.open_window())
    days = pipeline.dates(pipeline.open_window())
    pipeline.ask(days)
    pipeline.fold(days)
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
