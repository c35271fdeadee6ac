"""Asking about what is due while what came is logged, decoded and folded, each in its own thread.

The service is asked on the event loop of ``collect``; one thread logs and decodes; one finishes the
days of which all has come. Blocks of responses are durable before anybody reads them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.contract.schema import TEXT
from usms_pipeline.days import log
from usms_pipeline.service.collect import Answer, Batch, CollectStats, Patience, collect
from usms_pipeline.settings import Settings

_BLOCK_ANSWERS: Final = 200
_BLOCK_SECONDS: Final = 1.0
"""A kill loses the answers of one second at most: they are asked again."""
_BLOCK_BYTES: Final = 16_000_000
_MOST_BLOCKS_WAITING: Final = 4
_MOST_ROWS: Final = 900_000
"""What is held of one day before it is written, 250 bytes each: more than a round asks about."""

Told = Callable[[CollectStats, int], None]


class Asking:
    """Asks about the sessions of ``due`` (``run.DUE``), whose days are in ``days``.

    ``decoded`` reads a block (its name, what is in it), ``finish`` writes a day of which all has
    come. Leaving the context waits until what came is durable and decoded.
    """

    def __init__(
        self,
        due: pa.Table,
        days: list[Any],
        writer: log.Log,
        decoded: Callable[[str, pa.Table], pa.Table],
        finish: Callable[[Any], None],
        settings: Settings,
    ) -> None:
        self._names = due["session_no"].combine_chunks()
        self._codes = np.asarray(due["day"])
        self._days, self._writer, self._settings = days, writer, settings
        self._decoded, self._finish = decoded, finish
        self._size = settings.batch_size
        batches = -(-len(self._names) // self._size)
        self._left = [self._ids_of(number) for number in range(batches)]
        self._batches_of_day = np.zeros(len(days), np.int64)
        for number in range(batches):
            self._batches_of_day[self._days_of(number)] += 1
        self._rows = np.zeros(len(days), np.int64)
        self._waiting: list[tuple[int, Answer]] = []
        self._bytes, self._since = 0, time.monotonic()
        self._scribe = ThreadPoolExecutor(1, "usms-decode")
        self._finisher = ThreadPoolExecutor(1, "usms-finish")
        self._writing: deque[Future[None]] = deque()
        self._finishing: list[Future[None]] = []

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._flush()
            while self._writing:
                self._writing.popleft().result()
            for finished in self._finishing:
                finished.result()
        finally:
            self._scribe.shutdown(cancel_futures=True)
            self._finisher.shutdown(cancel_futures=True)

    def ask(
        self,
        clock: Callable[[], datetime],
        transport: Any,
        pace: float | None,
        patience: Patience | None,
        told: Told,
    ) -> CollectStats:
        """Ask, and return what it took. Raises what ``collect`` does."""

        def tell(stats: CollectStats) -> None:
            self._flush_in_time()
            told(stats, len(self._names))

        return collect(
            self._batches(), self._land, self._settings, clock=clock, transport=transport,
            start_pace=pace, on_progress=tell, patience=patience,
        )  # fmt: skip

    def _batches(self) -> Iterator[Batch]:
        for number in range(len(self._left)):
            begin = number * self._size
            yield Batch(number, tuple(self._names.slice(begin, self._size).to_pylist()))

    def _ids_of(self, number: int) -> int:
        return min(self._size, len(self._names) - number * self._size)

    def _days_of(self, number: int) -> Any:
        return np.unique(self._codes[number * self._size : (number + 1) * self._size])

    # -- in the caller's thread -----------------------------------------------------------------

    def _land(self, number: int, answer: Answer) -> None:
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.append((number, answer))
        self._bytes += len(answer.body)
        if len(self._waiting) >= _BLOCK_ANSWERS or self._bytes >= _BLOCK_BYTES:
            self._flush()
        else:
            self._flush_in_time()

    def _flush_in_time(self) -> None:
        if self._waiting and time.monotonic() - self._since >= _BLOCK_SECONDS:
            self._flush()

    def _flush(self) -> None:
        """Hand over what is waiting; waits itself where too much is under way."""
        if self._waiting:
            self._writing.append(self._scribe.submit(self._keep, self._waiting))
            self._waiting, self._bytes = [], 0
        while len(self._writing) > _MOST_BLOCKS_WAITING or (
            self._writing and self._writing[0].done()
        ):
            self._writing.popleft().result()

    # -- in the thread that logs and decodes ------------------------------------------------------

    def _keep(self, landed: list[tuple[int, Answer]]) -> None:
        """Log answers, decode them, and give each day what is its own."""
        landed.sort(key=lambda one: one[0])
        name, block = self._writer.add([answer for _, answer in landed])
        self._deal(self._decoded(name, block), landed)
        for number, answer in landed:
            self._left[number] -= len(answer.ids)
            if not self._left[number]:
                self._complete(number)

    def _complete(self, number: int) -> None:
        for code in self._days_of(number):
            self._batches_of_day[code] -= 1
            if not self._batches_of_day[code]:
                day = self._days[code]
                self._finishing.append(self._finisher.submit(self._finish, day))

    def _deal(self, said: pa.Table, landed: list[tuple[int, Answer]]) -> None:
        """Return each day what is said of its sessions, with the number of the batch to sort by."""
        codes = [self._codes_of(number, answer) for number, answer in landed]
        ids = pa.array([one for _, answer in landed for one in answer.ids], TEXT)
        if said["session_no"].combine_chunks().equals(ids):  # one row each, as they were asked
            at = 0
            for (number, answer), its in zip(landed, codes, strict=True):
                self._give(its, said.slice(at, len(answer.ids)), number)
                at += len(answer.ids)
            return
        of_row = np.concatenate(codes)[np.asarray(pc.index_in(said["session_no"], value_set=ids))]
        self._give(of_row, said, landed[0][0])

    def _give(self, codes: Any, said: pa.Table, number: int) -> None:
        for code in np.unique(codes):
            its = said if (codes == code).all() else said.filter(pa.array(codes == code))
            self._days[code].said.append((number, its))
            self._rows[code] += its.num_rows
            if self._rows[code] >= _MOST_ROWS:  # a large day is written several times
                self._rows[code] = 0
                self._finishing.append(self._finisher.submit(self._finish, self._days[code]))

    def _codes_of(self, number: int, answer: Answer) -> Any:
        begin, size = number * self._size, self._ids_of(number)
        codes = self._codes[begin : begin + size]
        if len(answer.ids) == size:
            return codes
        ids = self._names.slice(begin, size)
        places = pc.index_in(pa.array(answer.ids, TEXT), value_set=ids)
        return codes[np.asarray(places)]
