"""One run over the days' files: read the source, catch up, ask, and write each day that changed.

An answer is durable before it counts, and a day is written once all that was asked about it has
been answered, while others are still asked about.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.contract import wording
from usms_pipeline.contract.errors import CredentialsRefused, DamagedDay, ServiceDown, StorageError
from usms_pipeline.contract.polling import CLOCKS_DIFFER
from usms_pipeline.contract.status import FINAL
from usms_pipeline.days import due, file, log, quarantine, reading, source_rows
from usms_pipeline.days.asking import Asking, Round
from usms_pipeline.days.block_reader import BlockReader
from usms_pipeline.days.file import Footer
from usms_pipeline.days.held import Held, Part
from usms_pipeline.days.source_rows import SourceRows
from usms_pipeline.days.writing import Writing, emptied
from usms_pipeline.people import forget
from usms_pipeline.people.phones import PhoneBook
from usms_pipeline.service.collect import CollectStats, Patience
from usms_pipeline.settings import Settings
from usms_pipeline.store.dataset import Window
from usms_pipeline.store.storage import Store
from usms_pipeline.warehouse import Change

_LONGEST_RUN: Final = timedelta(days=1)
_ROWS_AT_ONCE: Final = 200_000
"""What is asked about in one round, and held in memory until it is written; two rounds are."""

_PHASES: Final = {
    "source": ("Reading table", "row"),
    "responses": ("Asking service", "session"),
    "receipts": ("Writing days", "day"),
    "warehouse": ("Publishing", ""),
}
"""What each phase of the pipeline is called on screen, and what it counts."""


@dataclass(frozen=True)
class Progress:
    """The progress of a step: ``phase`` is its name, ``total`` None where it isn't known."""

    phase: str
    done: int
    total: int | None = None
    stats: CollectStats | None = None

    @property
    def title(self) -> str:
        """Return what the phase is called on screen."""
        return _PHASES[self.phase][0]

    @property
    def counted(self) -> str:
        """Return what is done, in the phase's own unit, and of how much where some is left."""
        unit = _PHASES[self.phase][1]
        if not unit:
            return ""
        if self.total is None or self.done >= self.total:
            return wording.counted(self.done, unit)
        return f"{wording.count(self.done)}/{wording.counted(self.total, unit)}"


OnProgress = Callable[[Progress], None]


class Run:
    """One run for one account; make a new one for the next. Use it in a ``with`` block: it holds
    days.

    Without ``holds`` it writes nothing, not even locks, and is only to be asked what is ``due``.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        book: PhoneBook,
        clock: Callable[[], datetime],
        *,
        transport: Any = None,
        patience: Patience | None = None,
        pace: float | None = None,
        tell: OnProgress = lambda progress: None,
        on_written: Callable[[date, Change | None], None] = lambda day, change: None,
        published: Callable[[], Collection[date]] = frozenset,
        holds: bool = True,
    ) -> None:
        self._store, self._settings, self._clock, self._tell = store, settings, clock, tell
        self._transport, self._patience, self._pace = transport, patience, pace
        self._published = published
        self._held = Held(store, settings, book, locks=holds)
        self._window = Window(date.max, date.min)  # what was read so far
        self._let_go: dict[date, Footer] = {}
        self._rows = SourceRows(self._held)
        self._blocks = BlockReader(self._held)
        self._writing = Writing(self._held, self._rows, self._latest, on_written)
        self._days, self.outcome = self._held.days, self._held.outcome

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self._held.release()

    @property
    def footers(self) -> dict[date, Footer]:
        """What the files of the days say that this run worked on."""
        held = {day: one.footer for day, one in self._days.items() if one.footer}
        return dict(sorted((self._let_go | held).items()))

    @property
    def changed_days(self) -> list[date]:
        """The days to write: their rows, or what the files are made by, differ from before."""
        return sorted(day for day, one in self._days.items() if one.has_news)

    # -- what is read, and what was told and not folded -------------------------------------------

    def pieces(self, window: Window, *, reaches_today: bool) -> Iterator[Window]:
        """Read the source's rows of a window, and yield while the days they affect are held.

        All at once, where they fit into memory; else in pieces of whole days: what comes of one is
        to be written before the next is drawn, which lets its days go, so that the end is that of
        runs over the pieces, one after the other. If ``reaches_today``, the last also holds earlier
        days with open messages.
        """
        first, most = window.first, len(window)
        while first <= window.last:
            piece = Window(first, min(first + timedelta(days=most - 1), window.last))
            if not self._read(piece, is_alone=most == 1 < len(window)):
                most = -(-len(piece) // 2)
                continue
            if self._rows.count < source_rows.MOST_ROWS // 4:
                most *= 2
            self._window = Window(window.first, piece.last)
            is_last = piece.last == window.last
            for day in self._held.files:
                is_before = reaches_today and is_last and day < window.first
                if day in piece or (is_before and self._held.has_open(day)):
                    self._held.take(day)
            for day, said in self._let_go.items():
                if said.read.get("gone"):  # put off, perhaps, to a day of this piece
                    self._held.take(day)
            self._leave_out_what_is_gone()
            self._rows.place()
            yield piece
            first = piece.last + timedelta(days=1)
            if not is_last:
                self._let_go = self.footers
                self._held.let_go()

    def _leave_out_what_is_gone(self) -> None:
        """Leave out a published day whose file is gone: a new one would lose what was known."""
        if new := {day for day, one in self._days.items() if one.footer is None}:
            gone = new.intersection(self._published())
            for day in gone.difference(file.days(self._store)):  # or another run began it meanwhile
                self._days.pop(day)
                self.outcome.damaged[day] = str(DamagedDay(day, "it is gone"))

    def _read(self, window: Window, *, is_alone: bool = False) -> bool:
        def tell(rows: int) -> None:
            self._tell(Progress("source", rows))

        is_read = self._rows.read(window, tell, is_alone=is_alone)
        pa.default_memory_pool().release_unused()
        return is_read

    def catch_up(self) -> None:
        """Fold the responses of killed runs, so that nothing is asked twice."""
        self._held.forgotten = forget.read(self._store)
        log.sweep(self._store)
        for run in log.open_runs(self._store):
            with log.taken(self._store, run) as is_ours:
                if not is_ours:
                    continue
                self._store.sweep(f"{quarantine.FOLDER}/{run}")
                is_whole = all(map(self._is_read, log.days_of(self._store, run)))
                blocks = log.blocks(self._store, run)
                if self.fold_again(blocks, is_whole and not self._may_live(run)):
                    log.seal(self._store, run, blocks)

    def _may_live(self, run: str) -> bool:
        """Return whether a run's process may be alive: on object storage no lock can tell."""
        is_young = self._clock() - log.written_at(run) < _LONGEST_RUN
        return is_young and not self._store.is_local

    def _is_read(self, day: date) -> bool:
        """Return whether this run has read a day's source rows, and can write its file."""
        return day in self._window and day not in self._held.left_out

    def fold_again(self, blocks: list[str], is_whole: bool = True) -> bool:
        """Fold blocks of responses; return whether all that they say is in the days' files now.

        Unless ``is_whole``, some of their sessions may be in no day's file yet.
        """
        strays, is_all = self._blocks.hand_out(blocks)
        is_all &= self.finish(self._days)
        if strays and (self.outcome.damaged or not is_whole):
            is_all = False  # they may be of these
        else:
            for name, rows in strays.items():
                self._blocks.set_aside(name, rows)
        if is_all:
            self._blocks.empty_named()
        return is_all

    # -- rebuilding days --------------------------------------------------------------------------

    def rebuild(self, days: list[date]) -> None:
        """Rebuild days from the stored responses, and what is damaged from the source too.

        A session whose responses are all kept is rebuilt from these alone. For another, they are
        joined with what the file knows, and each status is read again from its word.
        """
        for day in days:
            self._held.take(day)
        damaged = [
            day for day in days
            if day not in self.outcome.locked
            and (day in self.outcome.damaged or self._is_damaged(day))
        ]  # fmt: skip
        for day in damaged:
            self._held.begin_anew(day)
        for day in damaged:
            self._read(Window(day, day))
            self._rows.place()
        for some in self._rounds([day for day in days if day in self._days]):
            for day in some:
                self._days[day].is_remade = self._days[day].is_rebuilt = True
            self._blocks.hand_out_all(some)
            self.finish(some)
        self._tell_what_is_lost(damaged)

    def _tell_what_is_lost(self, rebuilt: list[date]) -> None:
        if count := len(self.outcome.missing):
            self.outcome.notes.append(
                f"{wording.counted(count, 'response')} could not be read again: no longer "
                "kept. What the days' files knew of them stays."
            )
        unasked = 0
        for day in rebuilt:
            names = ["session_no", "first_asked_at"]
            for batch in self._store.batches(file.name(day), columns=names):
                asked = pc.and_(batch[names[1]].is_null(), batch[names[0]].is_valid())
                unasked += asked.true_count
        if unasked:
            self.outcome.notes.append(
                f"No response is kept of {wording.counted(unasked, 'message')} of the rebuilt "
                "days: what was known of them is lost, and they are asked about again where that "
                "is still due."
            )

    def _is_damaged(self, day: date) -> bool:
        with suppress(DamagedDay):
            for _ in file.rows(self._store, day):
                pass
            return not self._store.exists(file.name(day))
        return True

    def _rounds(self, days: list[date]) -> Iterator[list[date]]:
        some: list[date] = []
        rows = 0
        for day in days:
            if some and rows + self._days[day].size > _ROWS_AT_ONCE:
                yield some
                some, rows = [], 0
            some.append(day)
            rows += self._days[day].size
        if some:
            yield some

    # -- asking -----------------------------------------------------------------------------------

    def due(self) -> pa.Table:
        """Return the sessions to ask about now (``due.DUE``), the longest overdue first."""
        return due.due(self._held, self._days, self._now())

    def _now(self) -> int:
        return int(self._clock().timestamp() * 1_000_000)

    def _latest(self) -> int:
        return self._now() + CLOCKS_DIFFER // timedelta(microseconds=1)

    def ask(self) -> None:
        """Ask about all that is due, in rounds of days, and write each day when all of it has come.

        If the service refuses or fails, what it answered until then is folded before the error is
        raised.
        """
        rounds = self._rounds_to_ask()
        # what moves is written with the day it comes from, perhaps before its own turn
        is_moving = any(day.after for day in self._days.values())
        self._ask([*rounds] if is_moving else rounds)

    def _rounds_to_ask(self) -> Iterator[Round]:
        for days in self._rounds([*self._days]):
            first = self._days[days[0]]
            if first.read is None or not first.is_new or first.size <= _ROWS_AT_ONCE:
                found = due.due(self._held, days, self._now())
                yield Round([self._days[one] for one in days], found)
                continue
            parts = [Part(first, one) for one in reading.parts(first.read, _ROWS_AT_ONCE)]
            first.parts, first.read = parts, emptied(first.read)
            for part in parts:
                yield Round([part], due.due_of_part(self._held, part, self._now()))

    def ask_about(self, sessions: pa.Array) -> int:
        """Ask about some sessions, due or not; return how many there are in the days' files.

        ``outcome.answered`` has those that were answered.
        """
        self._blocks.watched |= {*sessions.to_pylist()}
        named = due.named(self._held, sessions)
        self._ask([Round([*self._days.values()], named)])
        return int(named.num_rows)

    def _ask(self, rounds: Iterable[Round]) -> None:
        started, left_out = time.monotonic(), self._held.left_out
        with ExitStack() as stack:
            writer = log.Log(self._store, self._clock)

            def logged() -> Iterator[Round]:
                for one in rounds:
                    if len(one.names) and not writer.is_open:
                        stack.enter_context(writer.held(self._days))
                        # from here on, `usms forget` finds this run open
                        self._held.forgotten = forget.read(self._store)
                    yield one

            try:
                asking = Asking(
                    logged(), writer, self._blocks.decoded, self._writing.finish, self._settings
                )
                self.outcome.stats = asking.ask(
                    self._clock, self._transport, self._pace, self._patience,
                    self._tell_how_far, self._answered_before, self.outcome.stats,
                )  # fmt: skip
            except (CredentialsRefused, ServiceDown) as error:
                self.outcome.stats = error.stats or self.outcome.stats
                self.finish(self._days)
                raise
            finally:
                self.outcome.seconds_asking += time.monotonic() - started
            self.finish(self._days)
            if left_out == self._held.left_out:  # of others, nobody was asked about
                self._blocks.empty_named()
                writer.is_folded = True

    def _answered_before(self) -> str | None:
        """Return a session with a final status from the service: it can be asked again."""
        for day, one in sorted(self._days.items(), reverse=True):
            buckets = one.footer.buckets if one.footer else {}
            if not any(buckets.get(status) for status in FINAL):
                continue
            columns = ["session_no", "is_final"]
            with suppress(StorageError):
                for batch in self._store.batches(file.name(day), columns=columns):
                    if (place := pc.index(batch["is_final"], True).as_py()) >= 0:
                        return str(batch["session_no"][place])
        return None

    def finish(self, days: Iterable[date]) -> bool:
        """Write days that there is something new about; return whether none is left out."""
        before, total = self._held.left_out, self._to_write()
        for day in sorted(days):
            self._writing.finish(self._days[day])
            self._tell(Progress("receipts", len({*self.outcome.written}), total))
        return self._held.left_out == before

    def _tell_how_far(self, stats: CollectStats, due: int) -> None:
        self._tell(Progress("responses", stats.ids_answered + stats.ids_refused, due, stats))
        self._tell(Progress("receipts", len({*self.outcome.written}), self._to_write()))

    def _to_write(self) -> int:
        return len({*self.outcome.written, *self.changed_days})
