"""What a refresh costs that has nothing to do, beside the bare query of the source."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb

from benchmarks.measure import PAIRS
from benchmarks.server import serving
from benchmarks.stages import settings_for
from benchmarks.world import write_source
from usms_pipeline.pipeline import Pipeline


def table(sessions: int) -> Iterator[str]:
    """Give the lines of a table for so many known sessions in the open window."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, serving() as url:
        source = Path(folder) / "messages.parquet"
        now = datetime.now(UTC)
        write_source(source, sessions, days=4, until=now - timedelta(hours=4))
        settings = settings_for(source, url, f"{folder}/data")
        pipeline = Pipeline(settings, clock=lambda: now)  # no polling time passes meanwhile
        pipeline.run()
        files = _files(folder)
        pairs = [
            (_seconds(lambda: _run(pipeline)), _seconds(lambda: _bare(source)))
            for _ in range(PAIRS)
        ]
        is_same = _files(folder) == files
    ours, bare = (statistics.median(one) for one in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    yield f"| {sessions:,} known sessions, nothing due | seconds |"
    yield "|---|---|"
    yield f"| a whole refresh | {ours:.3f} |"
    yield f"| the bare query of the source | {bare:.3f} |"
    yield f"| ratio | {ratio:.1f} |"
    yield f"| files rewritten | {'none' if is_same else 'SOME'} |"


def _run(pipeline: Pipeline) -> None:
    report = pipeline.run()
    assert not report.stats.requests, "something was due"


def _bare(source: Path) -> None:
    with duckdb.connect() as con:
        rows = con.sql(f"SELECT session_no, sent_at, template FROM '{source}'")
        rows.filter("sent_at >= TIMESTAMPTZ '2020-01-01'").to_arrow_table()


def _files(folder: str) -> dict[str, int]:
    found = (Path(folder) / "data").rglob("*")
    return {str(path): path.stat().st_ino for path in found if path.suffix == ".parquet"}


def _seconds(what: Callable[[], object]) -> float:
    started = time.perf_counter()
    what()
    return time.perf_counter() - started
