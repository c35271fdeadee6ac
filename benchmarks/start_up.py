"""What it costs to start: the command line's help, beside a Python that does nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from benchmarks.measure import Program, in_turn, median


def table() -> Iterator[str]:
    """Give the lines of the table."""
    programs = [
        Program("python -c pass", lambda folder: [sys.executable, "-c", "pass"]),
        Program("usms --help", lambda folder: [sys.executable, "-m", "usms_pipeline", "--help"]),
        Program(
            "usms --version", lambda folder: [sys.executable, "-m", "usms_pipeline", "--version"]
        ),
    ]
    costs = in_turn(programs, rounds=9)
    bare = median(costs["python -c pass"]).wall_seconds
    yield "| command | seconds | more than a bare Python |"
    yield "|---|---|---|"
    for program in programs:
        seconds = median(costs[program.name]).wall_seconds
        yield f"| `{program.name}` | {seconds:.2f} | {seconds - bare:.2f} |"
