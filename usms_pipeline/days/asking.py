"""Asks about due sessions while answers are logged, decoded and folded, each in its own thread.

The service is asked on the event loop of ``collect``; one thread logs and decodes; one finishes the
days of which all has come. Blocks of responses are durable before anybody reads them. What is due
is drawn in rounds, and a round begins once all of the one before the last is written: so two of
them are in memory at most, and the service never waits for the end of one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import datetime
from queue import SimpleQueue
from threading import Semaphore
from typing import Any, Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.contract.schema import TEXT
from usms_pipeline.days import log
from usms_pipeline.service.collect import LATER, Answer, Batch, CollectStats, Patience, collect
from usms_pipeline.settings import Settings

_BLOCK_ANSWERS: Final = 200
_BLOCK_SECONDS: Final = 1.0
"""A kill loses the answers of one second at most: they are asked again."""
_BLOCK_BYTES: Final = 16_000_000
_MOST_BLOCKS_WAITING: Final = 4
_MOST_ROWS: Final = 900_000
"""Rows of one day held before it is written, 250 bytes each: more than a round asks about."""

OnProgress = Callable[[CollectStats, int], None]
Codes = npt.NDArray[np.int32]
T = TypeVar("T")


class Round:
    """Sessions to ask about together: ``due`` (``due.DUE``), of days or parts of a large one.

    ``due["day"]`` is a place in ``targets``; each of these has a list ``said``, which gets tables
    of what responses say (``schema.OBSERVATIONS``), each with a number to sort them by.
    """

    def __init__(self, targets: list[Any], due: pa.Table) -> None:
        self.targets = targets
        self.names = due["session_no"].combine_chunks()
        self.codes: Codes = np.asarray(due["day"])
        self.batches, self.rows = np.zeros((2, len(targets)), np.int64)
        self.finishing: dict[int, Future[None]] = {}


class _Asked:
    """A batch in flight: which target its ids belong to, and how many have no answer yet."""

    def __init__(self, round_: Round, begin: int, size: int) -> None:
        self.round, self.codes = round_, round_.codes[begin : begin + size]
        self.ids = tuple(round_.names.slice(begin, size).to_pylist())
        self.left = len(self.ids)

    def codes_of(self, ids: tuple[str, ...]) -> Codes:
        """Return the targets of all ids, or of those of a part that was split off."""
        is_all = len(ids) == len(self.ids)
        return self.codes if is_all else self.codes[[self.ids.index(one) for one in ids]]


class Asking:
    """Asks about the sessions of ``rounds``, which are drawn while others are asked about.

    ``decoded`` reads a block (its name, what is in it); ``finish`` writes a target when all its
    answers are there.
    """

    def __init__(
        self,
        rounds: Iterable[Round],
        writer: log.Log,
        decoded: Callable[[str, pa.Table], pa.Table],
        finish: Callable[[Any], None],
        settings: Settings,
    ) -> None:
        self._rounds, self._writer, self._settings = rounds, writer, settings
        self._decoded, self._finish = decoded, finish
        self._asked: dict[int, _Asked] = {}
        self._due = 0
        self._waiting: list[tuple[int, Answer]] = []
        self._bytes, self._since = 0, time.monotonic()
        self._scribe = ThreadPoolExecutor(1, "usms-decode")
        self._finisher = ThreadPoolExecutor(1, "usms-finish")
        self._writing: deque[Future[None]] = deque()
        self._finishing: deque[Future[None]] = deque()

    def _end(self) -> None:
        try:
            self._flush()
            while self._writing:
                self._writing.popleft().result()
            while self._finishing:
                self._finishing.popleft().result()
        finally:
            self._scribe.shutdown(cancel_futures=True)
            self._finisher.shutdown(cancel_futures=True)

    def ask(
        self,
        clock: Callable[[], datetime],
        transport: Any,
        pace: float | None,
        patience: Patience | None,
        on_progress: OnProgress,
        known: Callable[[], str | None],
        so_far: CollectStats,
    ) -> CollectStats:
        """Ask, and return the figures once all answers are on disk, and their targets written.

        Arguments and errors are those of ``collect``.
        """

        before = so_far.ids_answered + so_far.ids_refused

        def tell(stats: CollectStats) -> None:
            self._flush_in_time()
            on_progress(stats, before + self._due)

        try:
            return collect(
                self._batches(), self._land, self._settings, clock=clock, transport=transport,
                start_pace=pace, on_progress=tell, patience=patience, known=known, so_far=so_far,
            )  # fmt: skip
        finally:
            self._end()

    # -- in the caller's thread -----------------------------------------------------------------

    def _batches(self) -> Iterator[Batch]:
        size, number = self._settings.batch_size, 0
        before: Round | None = None
        for round_ in self._rounds:
            begins = range(0, len(round_.names), size)
            for begin in begins:
                round_.batches[_distinct(round_.codes[begin : begin + size])] += 1
            for code in np.flatnonzero(round_.batches == 0):
                self._finish_soon(round_, int(code))  # nobody is due, but there are new rows
            self._due += len(round_.names)
            for begin in begins:
                self._asked[number] = _Asked(round_, begin, size)
                yield Batch(number, self._asked[number].ids)
                number += 1
            if before is not None:
                yield from self._seen_off(before)
            before = round_

    def _seen_off(self, round_: Round) -> Iterator[Batch]:
        """Yield ``LATER`` until a round is written, with the answers that are there by now.

        It must not block: answers that arrive meanwhile would not be on disk within a second.
        """
        for code in range(len(round_.targets)):
            if code not in round_.finishing:
                self._finish_soon(round_, code)
        for finished in [*round_.finishing.values()]:
            while not finished.done():
                yield LATER
            finished.result()

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
        """Hand the waiting answers to the thread that logs them; wait if it is far behind."""
        if self._waiting:
            self._writing.append(self._scribe.submit(self._keep, self._waiting))
            self._waiting, self._bytes = [], 0
        while len(self._writing) > _MOST_BLOCKS_WAITING or (
            self._writing and self._writing[0].done()
        ):
            self._writing.popleft().result()
        while self._finishing and self._finishing[0].done():
            self._finishing.popleft().result()

    def _finish_soon(self, round_: Round, code: int) -> None:
        finishing = self._finisher.submit(self._finish, round_.targets[code])
        round_.finishing[code] = finishing
        self._finishing.append(finishing)

    # -- in the thread that logs and decodes ------------------------------------------------------

    def _keep(self, landed: list[tuple[int, Answer]]) -> None:
        landed.sort(key=lambda one: one[0])
        name, block = self._writer.add([answer for _, answer in landed])
        self._deal(self._decoded(name, block), landed)
        for number, answer in landed:
            asked = self._asked[number]
            asked.left -= len(answer.ids)
            if asked.left:
                continue
            del self._asked[number]
            for code in _distinct(asked.codes):
                asked.round.batches[code] -= 1
                if not asked.round.batches[code]:
                    self._finish_soon(asked.round, code)

    def _deal(self, said: pa.Table, landed: list[tuple[int, Answer]]) -> None:
        codes = [self._asked[number].codes_of(answer.ids) for number, answer in landed]
        ids = pa.array([one for _, answer in landed for one in answer.ids], TEXT)
        if said["session_no"].combine_chunks().equals(ids):  # one row each, as they were asked
            at = 0
            for begin, end in _runs(self._asked, [number for number, _ in landed]):
                its = np.concatenate(codes[begin:end])
                number = landed[begin][0]
                self._hand(self._asked[number].round, its, said.slice(at, len(its)), number)
                at += len(its)
            return
        places = np.asarray(pc.index_in(said["session_no"], value_set=ids))
        of_answer = np.repeat(np.arange(len(landed)), [len(one) for one in codes])[places]
        of_row = np.concatenate(codes)[places]
        rounds = [self._asked[number].round for number, _ in landed]
        for round_ in dict.fromkeys(rounds):
            is_its = np.array([one is round_ for one in rounds])[of_answer]
            its = said if is_its.all() else said.filter(pa.array(is_its))
            self._hand(round_, of_row[is_its], its, landed[0][0])

    def _hand(self, round_: Round, codes: Codes, said: pa.Table, number: int) -> None:
        for code in _distinct(codes):
            its = said if (codes == code).all() else said.filter(pa.array(codes == code))
            round_.targets[code].said.append((number, its))
            round_.rows[code] += its.num_rows
            if round_.rows[code] >= _MOST_ROWS:  # a large day is written several times
                round_.rows[code] = 0
                self._finish_soon(round_, code)


class Stream(Generic[T]):
    """Hands items to a function that draws them, as they come, in a thread of its own."""

    def __init__(self, draw: Callable[[Iterator[T]], None]) -> None:
        self._given: SimpleQueue[T | None] = SimpleQueue()
        self._taken = Semaphore(0)
        self._is_abandoned = False
        pool = ThreadPoolExecutor(1, "usms-write")
        self._drawing = pool.submit(draw, self._items())
        self._drawing.add_done_callback(lambda _: self._taken.release())
        pool.shutdown(wait=False)

    def _items(self) -> Iterator[T]:
        while (item := self._given.get()) is not None:
            yield item
            self._taken.release()
        if self._is_abandoned:
            raise RuntimeError("abandoned")

    def put(self, item: T) -> None:
        """Hand over one item, and wait until the function wants the next. Raise what it raised."""
        self._given.put(item)
        self._taken.acquire()
        if self._drawing.done():
            self._drawing.result()

    def close(self) -> None:
        """End the stream, and wait until the function is done. Raise what it raised."""
        self._given.put(None)
        self._drawing.result()

    def abandon(self) -> None:
        """Make the function fail where it waits, and wait for that; do nothing once it is done."""
        self._is_abandoned = True
        self._given.put(None)
        wait([self._drawing])


def _distinct(codes: Codes) -> list[int]:
    first = int(codes[0])
    return [first] if (codes == first).all() else np.unique(codes).tolist()


def _runs(asked: dict[int, _Asked], numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Yield where runs of successive batches of a round begin and end among ``numbers``."""
    begin = 0
    for end in range(1, len(numbers) + 1):
        is_over = end == len(numbers) or numbers[end] != numbers[end - 1] + 1
        if is_over or asked[numbers[end]].round is not asked[numbers[begin]].round:
            yield begin, end
            begin = end
