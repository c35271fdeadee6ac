"""Run whole programs in turn and compare them pair by pair, for the machine's speed drifts."""

from __future__ import annotations

import compileall
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

PAIRS = 5
_LAUNCH: Final = Path(__file__).with_name("launch.py")


@dataclass(frozen=True)
class Cost:
    """What one run of a program took: seconds, seconds of both cores together, megabytes."""

    wall_seconds: float
    cpu_seconds: float
    peak_mb: float


@dataclass(frozen=True)
class Program:
    """A program to run: its words, given a folder to work in, and what to add to its settings."""

    name: str
    command: Callable[[Path], Sequence[str]]
    settings: Callable[[Path], Mapping[str, str]] = lambda folder: {}


@cache
def environment() -> dict[str, str]:
    """Return this process's environment for programs that find all modules compiled.

    So they are where the package is installed. A machine for development may have switched it off,
    and would compile them in each process again: 0.15 s of a run.
    """
    package = importlib.util.find_spec("usms_pipeline")
    assert package is not None
    for folder in package.submodule_search_locations or ():
        compileall.compile_dir(folder, quiet=1)
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def run(program: Program, most_megabytes: int = 0) -> Cost:
    """Run a program once in an empty folder, under a limit of memory or none (0).

    Raises ``RuntimeError`` where it fails.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder, costs = Path(name) / "work", Path(name) / "costs.json"
        folder.mkdir()
        launch = [sys.executable, "-S", str(_LAUNCH), str(costs), str(most_megabytes)]
        done = subprocess.run(
            [*launch, *program.command(folder)],
            env=environment() | program.settings(folder),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if "-v" not in sys.argv else None,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{program.name} ended with {done.returncode}; -v shows why")
        return Cost(*json.loads(costs.read_text()))


def in_turn(programs: Sequence[Program], rounds: int = PAIRS) -> dict[str, list[Cost]]:
    """Run all programs, again and again in turn; each has one warm-up that does not count."""
    costs: dict[str, list[Cost]] = {program.name: [] for program in programs}
    for turn in range(rounds + 1):
        for program in programs:
            cost = run(program)
            if turn:
                costs[program.name].append(cost)
            print(f"{program.name:24} {cost.wall_seconds:7.2f} s", file=sys.stderr, flush=True)
    return costs


def median(costs: Sequence[Cost]) -> Cost:
    """Return the median of each figure."""
    return Cost(
        statistics.median(cost.wall_seconds for cost in costs),
        statistics.median(cost.cpu_seconds for cost in costs),
        statistics.median(cost.peak_mb for cost in costs),
    )


def ratio(
    ours: Sequence[Cost], theirs: Sequence[Cost], figure: str = "wall_seconds"
) -> tuple[float, float, float]:
    """Return how many times ours goes into theirs, pair by pair: least, median, most."""
    each = sorted(
        getattr(b, figure) / getattr(a, figure) for a, b in zip(ours, theirs, strict=True)
    )
    return each[0], statistics.median(each), each[-1]
