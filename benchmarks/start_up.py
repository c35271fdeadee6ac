"""What it costs to start: the command line's help beside a bare Python, and the smallest runs."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.end_to_end import ours
from benchmarks.measure import Program, in_turn, median
from benchmarks.server import serving
from benchmarks.world import DAYS, write_source

_MESSAGES = 100


def table() -> Iterator[str]:
    """Return the lines of the table.

    CPU seconds are of both cores, as a run has several threads. Its data directory is new.
    """
    programs = [
        Program("python -c pass", lambda folder: [sys.executable, "-c", "pass"]),
        Program("usms --help", lambda folder: [sys.executable, "-m", "usms_pipeline", "--help"]),
        Program(
            "usms --version", lambda folder: [sys.executable, "-m", "usms_pipeline", "--version"]
        ),
    ]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, serving() as url:
        programs += [_run(Path(folder), url, days) for days in (1, DAYS)]
        costs = in_turn(programs, rounds=9)
    bare = median(costs["python -c pass"])
    yield "| command | seconds | more than a bare Python | CPU seconds | more |"
    yield "|---|---|---|---|---|"
    for program in programs:
        cost = median(costs[program.name])
        yield (
            f"| `{program.name}` | {cost.wall_seconds:.2f} "
            f"| {cost.wall_seconds - bare.wall_seconds:.2f} "
            f"| {cost.cpu_seconds:.2f} | {cost.cpu_seconds - bare.cpu_seconds:.2f} |"
        )


def _run(folder: Path, url: str, days: int) -> Program:
    source = folder / f"{days}.parquet"
    write_source(source, _MESSAGES, days=days)
    return replace(ours(source, url), name=f"usms run: {_MESSAGES} messages, days: {days}")
