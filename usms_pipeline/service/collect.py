"""Batches of due sessions to answers: workers on an event loop in a thread of its own.

Everything of the caller's (the batches, the sink, the progress) runs in the caller's thread;
nothing here knows what an answer means or where it is kept.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Final

from usms_pipeline.contract.errors import CredentialsRefused, ServiceDown
from usms_pipeline.service.client import Client
from usms_pipeline.service.fetch import (
    Answer,
    CollectStats,
    Fetcher,
    Patience,
    nothing_but_refusals,
)
from usms_pipeline.service.pace import Governor
from usms_pipeline.settings import Settings

if TYPE_CHECKING:
    import httpx

__all__ = ["Answer", "Batch", "CollectStats", "Patience", "collect"]

_PROGRESS_SECONDS: Final = 0.2
_SLOW_DRAW_SECONDS: Final = 0.05
_WAITING_BYTES: Final = 64_000_000
"""How much may wait for the sink; a small answer counts as 250 kB, so that is 256 of them."""


@dataclass(frozen=True)
class Batch:
    """Up to 100 distinct session numbers, and the number that their answers come back with."""

    number: int
    ids: tuple[str, ...]


LATER: Final = Batch(-1, ())
"""Stands for a batch when there is none now but may be one soon."""

Sink = Callable[[int, Answer], None]
_NOTHING: Final = CollectStats()


def utc_now() -> datetime:
    """Return the time now, aware, in UTC."""
    return datetime.now(UTC)


def collect(
    batches: Iterable[Batch],
    sink: Sink,
    settings: Settings,
    *,
    clock: Callable[[], datetime] = utc_now,
    transport: httpx.AsyncBaseTransport | None = None,
    start_pace: float | None = None,
    on_progress: Callable[[CollectStats], None] | None = None,
    patience: Patience | None = None,
    known: Callable[[], str | None] = lambda: None,
    so_far: CollectStats = _NOTHING,
) -> CollectStats:
    """Ask the service for every batch, and give each answer to ``sink`` as it comes.

    Synchronous; works inside a running event loop, because it starts its own in a thread.
    ``batches`` are drawn a little ahead of the workers, so a lazy iterator stays lazy; they, the
    ``sink`` and ``on_progress`` (every 0.2 s or so, and at the end) are called in this thread, one
    at a time. ``start_pace``: requests a second, from the last run's ``CollectStats.pace``. The
    ``transport`` is closed at the end. ``so_far``: the figures of the same run's earlier
    collections, which this one adds to. Where there is nothing to ask, no progress is reported.

    Raises ``CredentialsRefused`` and ``ServiceDown``, with ``.stats``, and what the caller's
    own parts raise, KeyboardInterrupt included: always after the workers have ended, and the sink
    has all that was received, unless it was the sink that failed.
    """
    start_pace = so_far.pace or start_pace
    stats = replace(so_far, pace=start_pace, problems=dict(so_far.problems))
    governor = Governor(start_pace, settings.max_requests_per_second)
    if transport is None:
        drawn = iter(batches)
        if (first := next(drawn, None)) is None:  # a client for nothing would be a seventh of a run
            return stats
        batches = chain([first], drawn)
        from usms_pipeline.service.transport import CurlTransport

        transport = CurlTransport()
    client = Client(settings, transport, clock)
    fetcher = Fetcher(client, governor, stats, patience, known=known)
    workers = _Workers(fetcher, transport, settings.max_concurrency, stats)
    caller = _Caller(workers, iter(batches), sink, stats, on_progress)
    try:
        caller.serve()
    except (CredentialsRefused, ServiceDown) as error:
        error.stats = caller.figures()
        raise
    return caller.figures()


class _Workers:
    def __init__(
        self, fetcher: Fetcher, transport: httpx.AsyncBaseTransport, count: int, stats: CollectStats
    ) -> None:
        self.landed: deque[tuple[int, Answer]] = deque()
        self.news = threading.Event()  # a batch was taken, an answer came, or all has ended
        self.taken = 0
        self.ahead = 32 + 4 * count
        self.failure: BaseException | None = None
        self.is_done = False
        self._fetcher, self._transport, self._count = fetcher, transport, count
        self._stats = stats
        self._refused: list[tuple[int, Answer]] = []  # held until there is a first good answer
        self._queue: asyncio.Queue[Batch | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._waiting_bytes = 0
        self._ready = threading.Event()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="usms-collect", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._ready.wait()

    def tell(self, what: Callable[..., object], *arguments: object) -> None:
        """Do something on the loop, from the caller's thread; nothing if it has ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(what, *arguments)

    def put(self, batches: list[Batch | None]) -> None:
        for batch in batches:  # None: there are no more
            self._queue.put_nowait(batch)

    def make_room(self, size: int) -> None:
        """Note that answers of this weight have gone to the sink."""
        self._waiting_bytes -= size
        if self._waiting_bytes < _WAITING_BYTES:
            self._room.set()

    def stop(self) -> None:
        """Cancel what is under way; from the caller's thread, and wait until it has ended."""
        if self._task is not None:
            self.tell(self._task.cancel)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._work())
        except asyncio.CancelledError:
            pass
        except BaseExceptionGroup as group:  # of these, the one that says most
            exceptions = [*group.exceptions]
            self.failure = min(exceptions, key=lambda one: not isinstance(one, CredentialsRefused))
        except BaseException as error:  # raised again in the caller's thread
            self.failure = error
        finally:
            self.is_done = True
            self._ready.set()
            self.news.set()

    async def _work(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._room.set()
        self._ready.set()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._count):
                    group.create_task(self._worker())
            await self._fetcher.finish(self._count)
            if len(self._refused) >= self._fetcher.patience.most_refusals_alone:
                raise nothing_but_refusals(self._stats, self._refused[-1][1])
            self._release()
        finally:
            await self._transport.aclose()

    async def _worker(self) -> None:
        while (batch := await self._queue.get()) is not None:
            self.taken += 1
            self.news.set()
            await self._room.wait()
            await self._fetcher.fetch(batch.ids, partial(self._land, batch.number))
        self._queue.put_nowait(None)  # for the next worker

    def _land(self, number: int, answer: Answer) -> None:
        if answer.verdict == "refused" and not self._stats.ids_answered:
            self._refused.append((number, answer))
            return
        if answer.verdict == "ok":
            self._release()
        self._hand_over([(number, answer)])

    def _release(self) -> None:
        held, self._refused = self._refused, []
        self._hand_over(held)

    def _hand_over(self, answers: list[tuple[int, Answer]]) -> None:
        self.landed.extend(answers)
        self._waiting_bytes += sum(_weight(answer) for _, answer in answers)
        if self._waiting_bytes >= _WAITING_BYTES:
            self._room.clear()
        self.news.set()


class _Caller:
    def __init__(
        self,
        workers: _Workers,
        batches: Iterator[Batch],
        sink: Sink,
        stats: CollectStats,
        on_progress: Callable[[CollectStats], None] | None,
    ) -> None:
        self._workers, self._batches, self._sink = workers, batches, sink
        self._stats, self._on_progress = stats, on_progress
        self._shown = time.monotonic()
        self._started = self._shown - stats.seconds
        self._given = 0
        self._has_more = True
        self._is_sink_broken = False

    def serve(self) -> None:
        """Serve the workers until they have ended; raises what any side raised."""
        workers = self._workers
        try:
            workers.start()
            while not workers.is_done:
                self._feed()
                workers.news.wait(_PROGRESS_SECONDS)
                workers.news.clear()
                self._drain()
                self._show()
            self._drain()
        except BaseException:
            workers.stop()
            if not self._is_sink_broken:
                self._drain()
            raise
        if workers.failure is not None:
            raise workers.failure
        self._show(is_last=True)

    def figures(self) -> CollectStats:
        """Return the figures as they are now, as a copy that stays as it is."""
        seconds = time.monotonic() - self._started
        return replace(self._stats, seconds=seconds, problems=dict(self._stats.problems))

    def _feed(self) -> None:
        drawn: list[Batch | None] = []
        started = time.monotonic()
        while self._has_more and self._given - self._workers.taken < self._workers.ahead:
            batch = next(self._batches, None)
            if batch is LATER:
                break
            drawn.append(batch)
            self._given += 1
            self._has_more = batch is not None
            if time.monotonic() - started > _SLOW_DRAW_SECONDS:
                break
        if drawn:
            self._workers.tell(self._workers.put, drawn)

    def _drain(self) -> None:
        """Hand the sink what was received. What it did not accept stays for the next call."""
        landed, size = self._workers.landed, 0
        for _ in range(len(landed)):
            try:
                self._sink(*landed[0])
            except Exception:
                self._is_sink_broken = True
                raise
            size += _weight(landed.popleft()[1])
        if size:
            self._workers.tell(self._workers.make_room, size)

    def _show(self, is_last: bool = False) -> None:
        now = time.monotonic()
        if self._on_progress and (is_last or now - self._shown >= _PROGRESS_SECONDS):
            self._shown = now
            self._on_progress(self.figures())


def _weight(answer: Answer) -> int:
    return max(len(answer.body), _WAITING_BYTES // 256)
