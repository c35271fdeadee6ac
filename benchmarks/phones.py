"""What it costs to describe phone numbers: CPU of a new phone book in a process of its own.

Alone: ``python -m benchmarks.phones``.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from statistics import median

import pyarrow as pa

from benchmarks.world import PREFIXES
from usms_pipeline.people.phones import PhoneBook
from usms_pipeline.store.storage import Store

_COUNTS = (200, 2_000, 20_000, 200_000)
_ROUNDS = 5


def table() -> Iterator[str]:
    """Return the lines of the table: so many distinct numbers, after all imports but one.

    That one is libphonenumber's table of operators, which is read with the first number; where
    an earlier process has kept the prefixes, it is not read.
    """
    yield "| distinct numbers | CPU ms | CPU ms, prefixes kept | CPU ms, a second time |"
    yield "|---|---|---|---|"
    for count in _COUNTS:
        rounds = [_in_new_processes(count) for _ in range(_ROUNDS)]
        cells = (f"{median(costs):.1f}" for costs in zip(*rounds, strict=True))
        yield f"| {count:,} | {' | '.join(cells)} |"


def _in_new_processes(count: int) -> tuple[float, float, float]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        first, again = _in_new_process(count, folder)
        _in_new_process(_COUNTS[-1], folder)  # for a few are not kept
        return first, _in_new_process(count, folder)[0], again


def _in_new_process(count: int, folder: str) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.phones", str(count), folder]
    first, again = subprocess.run(command, capture_output=True, check=True).stdout.split()
    return float(first), float(again)


def _describe(count: int, folder: str) -> None:
    drawn = random.Random(count)
    numbers: set[str] = set()
    while len(numbers) < count:
        numbers.add(f"+86{drawn.choice(PREFIXES)}{drawn.randrange(10**8):08}")
    texts, book = pa.array(sorted(numbers)), PhoneBook(bytes(32), "CN", "masked", Store(folder))
    for _ in range(2):
        before = time.process_time()
        book.describe(texts)
        print(1e3 * (time.process_time() - before))
    book.keep_prefixes()


if __name__ == "__main__":
    if len(sys.argv) == 3:
        _describe(int(sys.argv[1]), sys.argv[2])
    else:
        print(*table(), sep="\n")
