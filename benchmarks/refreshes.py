"""First runs and refreshes of data in several shapes, each a process of its own: CPU seconds."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import duckdb

from benchmarks.end_to_end import ours
from benchmarks.measure import environment
from benchmarks.server import serving
from benchmarks.world import UNTIL, write_source
from usms_pipeline.days import file

_POLLS = timedelta(hours=7)
"""After so long each open session is due again."""


def shapes(shapes_: list[tuple[int, int]]) -> Iterator[str]:
    """Yield the lines of a table: for (sessions, days), a first run and the runs after it.

    The first is two hours after the last message was sent, so one in fifty of the last three days'
    is still open; all of these are due seven hours later, some 20 after 36 seconds more.
    """
    yield "| sessions | days | run | asked about | CPU s | seconds |"
    yield "|---|---|---|---|---|---|"
    for sessions, days in shapes_:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, serving() as url:
            source = Path(folder) / "messages.parquet"
            write_source(source, sessions, days=days)
            first = UNTIL + timedelta(hours=2)
            few = timedelta(hours=6) * 20 / (sessions / days * 3 / 50)
            for name, at in (
                ("first", first),
                ("many due", first + _POLLS),
                ("few due", first + _POLLS + few),
                ("nothing due", first + _POLLS + few),
            ):
                said, cpu, wall = _run_at(at, source, url, Path(folder) / "data")
                asked = said["asked"]
                yield f"| {sessions:,} | {days} | {name} | {asked:,} | {cpu:.2f} | {wall:.2f} |"


def open_day(sessions: int) -> Iterator[str]:
    """Yield the lines of a table: a refresh of one large open day, beside a rewrite of its file."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, serving() as url:
        source, data = Path(folder) / "messages.parquet", Path(folder) / "data"
        write_source(source, sessions, days=1)
        first = UNTIL + timedelta(hours=2)
        _run_at(first, source, url, data)
        soon = timedelta(hours=6) * 1_000 / (sessions / 50)
        said, cpu, wall = _run_at(first + _POLLS + soon, source, url, data)
        said, cpu, wall = _run_at(first + _POLLS + 2 * soon, source, url, data)
        [path] = (data / file.FOLDER).rglob("*.parquet")
        before, started = _cpu(), time.perf_counter()
        with duckdb.connect() as con:
            con.execute(
                f"COPY (FROM '{path}') TO '{folder}/rewritten.parquet' "
                "(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)"
            )
        bare_wall = time.perf_counter() - started
    yield f"| one open day of {sessions:,}, {said['asked']:,} asked about | seconds | CPU s |"
    yield "|---|---|---|"
    yield f"| the whole refresh | {wall:.2f} | {cpu:.2f} |"
    bare = f"{bare_wall:.2f} | {_cpu() - before:.2f}"
    yield f"| DuckDB rewrites the file, and nothing else | {bare} |"
    yield f"| ratio | {wall / bare_wall:.2f} | |"


def _run_at(
    at: datetime, source: Path, url: str, data: Path
) -> tuple[dict[str, int], float, float]:
    """Run once; return what it did, its CPU seconds and its seconds."""
    env = environment() | ours(source, url).settings(data) | {"USMS_TIMEZONE": "UTC"}
    command = [sys.executable, "-m", "benchmarks.at", at.isoformat()]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return json.loads(done.stdout.splitlines()[-1]), cpu, wall


def _cpu() -> float:
    return time.process_time()
