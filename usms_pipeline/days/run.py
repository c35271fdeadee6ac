"""One run over the days' files: read the source, catch up, ask, and write each day that changed.

A day is this process's from the moment it is looked at until the run ends. What was told is durable
before it counts, and a day is written once all that was asked about it has come, while others are
still asked about.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline import source
from usms_pipeline.contract import schema
from usms_pipeline.contract.errors import CredentialsRefused, DamagedDay, ServiceDown, StorageError
from usms_pipeline.contract.schema import TEXT, TIME
from usms_pipeline.contract.status import FINAL
from usms_pipeline.days import columns, file, general, log, placing, reading, rebuilding
from usms_pipeline.days.asking import Asking, Round, Stream
from usms_pipeline.days.columns import Fold
from usms_pipeline.days.file import Footer
from usms_pipeline.days.quarantine import UNANSWERED, Quarantine
from usms_pipeline.days.reading import MARGIN, NOTHING, DayRead, Reading
from usms_pipeline.people import forget
from usms_pipeline.people.phones import PhoneBook
from usms_pipeline.service.api import WORDS_DIGEST
from usms_pipeline.service.collect import CollectStats, Patience
from usms_pipeline.service.decode import decode
from usms_pipeline.service.names import Names
from usms_pipeline.settings import Settings
from usms_pipeline.store import dataset
from usms_pipeline.store.dataset import Window, day_start
from usms_pipeline.store.storage import Store
from usms_pipeline.warehouse import Change

CLOCK_MAY_STEP: Final = timedelta(minutes=5)
"""What two clocks may differ; past it, one of them is wrong."""
_MICROSECOND: Final = timedelta(microseconds=1)
_ONE_DAY: Final = timedelta(days=1)
_FEW: Final = 1_000
_ROWS_TRIED: Final = 100
_ROWS_AT_ONCE: Final = 200_000
"""What is asked about in one round, and held in memory until it is written; two rounds are."""
_ROWS_DEALT: Final = 500_000
_MOST_SHARE: Final = 0.1
"""Where more than this share of a day changed, and not few, publishing loads the whole day."""

DUE: Final = pa.schema([*file.DUE, ("day", pa.int32())])
"""``file.DUE``, with the place of the session's day among the run's."""


@dataclass(frozen=True)
class Progress:
    """How far a step is: ``phase`` is its name, ``total`` None where it isn't known."""

    phase: str
    done: int
    total: int | None = None
    stats: CollectStats | None = None


OnProgress = Callable[[Progress], None]


@dataclass
class Outcome:
    """What a run did. ``aside`` names damaged files that were put out of the way.

    ``receipts`` counts those in the answers, of whatever word.
    """

    stats: CollectStats = field(default_factory=CollectStats)
    seconds_asking: float = 0.0
    rows_read: int = 0
    new: int = 0
    due: dict[date, int] = field(default_factory=dict)
    written: list[date] = field(default_factory=list)
    locked: list[date] = field(default_factory=list)
    damaged: dict[date, str] = field(default_factory=dict)
    aside: list[str] = field(default_factory=list)
    quarantined: int = 0
    times_in_doubt: int = 0
    rejected: set[str] = field(default_factory=set)
    answered: set[str] = field(default_factory=set)
    receipts: int = 0
    notes: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list, repr=False)


@dataclass
class _Day:
    """A day that this run holds: what its file says, and what is to be put into it."""

    day: date
    footer: Footer | None
    read: DayRead | None = None
    said: list[tuple[int, pa.Table]] = field(default_factory=list, repr=False)
    arriving: list[pa.Table] = field(default_factory=list, repr=False)
    leaving: set[str] = field(default_factory=set, repr=False)
    elsewhere: dict[str, str] = field(default_factory=dict, repr=False)
    beside: set[str] = field(default_factory=set, repr=False)
    """Sessions that were read for another day, as they were before."""
    came: int = 0
    left: int = 0
    """How many rows came from other days, and went to others."""
    after: set[date] = field(default_factory=set)
    is_remade: bool = False
    told: list[pa.Table] = field(default_factory=list, repr=False)
    is_rebuilt: bool = False
    """Of a rebuild: when the log has each session asked about (``rebuilding.TOLD``)."""
    parts: list[_Part] = field(default_factory=list, repr=False)
    """Of a large new day."""
    stream: Stream[_Part] | None = None

    @property
    def has_news(self) -> bool:
        return bool(self.read or self.said or self.arriving or self.leaving or self.is_remade)


@dataclass(eq=False)
class _Part:
    """A part of a large new day: asked about, folded and written apart, into the same file."""

    day: _Day
    read: DayRead
    said: list[tuple[int, pa.Table]] = field(default_factory=list, repr=False)
    is_written: bool = False


class Run:
    """One run for one account; make a new one for the next. Use it as a context: it holds days.

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
        holds: bool = True,
    ) -> None:
        self._holds = holds
        self._store, self._settings, self._book, self._clock = store, settings, book, clock
        self._transport, self._patience, self._pace = transport, patience, pace
        self._tell, self._on_written = tell, on_written
        self._dimensions = [schema.dimension_name(name) for name in settings.dimensions]
        self._layout = columns.layout(settings.dimensions)
        self._polls = [offset // _MICROSECOND for offset in settings.poll_offsets]
        self._cutoff = settings.cutoff // _MICROSECOND
        self._forgotten = forget.read(store)
        self._watched: set[str] = set()
        self._quarantine = Quarantine(store)
        self._held = ExitStack()
        self._days: dict[date, _Day] = {}
        self._names: dict[date, pa.Array] = {}
        self._naming: list[str] = []
        self._first, self._last = 0, 2**62
        self._window = Window(date.max, date.min)
        self.outcome = Outcome()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        for day in self._days.values():
            if day.stream is not None:
                day.stream.abandon()
        self._held.close()

    # -- the days ---------------------------------------------------------------------------

    def look_at(self, window: Window, *, reaches_today: bool) -> None:
        """Read the source's rows of a window, and take the days that it and the clock concern.

        Days before the window are taken where something is open in them, if ``reaches_today``.
        """
        self._read(window)
        for day in self._file_days:
            if day in window or (reaches_today and day < window.first and self._is_open(day)):
                self._take(day)
        self._place(window)

    @cached_property
    def _file_days(self) -> list[date]:
        """The days that had a file when the run began."""
        return file.days(self._store)

    def _is_open(self, day: date) -> bool:
        with suppress(DamagedDay):
            said = file.footer(self._store, day)
            return said is not None and said.open > 0
        return True

    def _take(self, day: date) -> _Day | None:
        """Hold a day; None where another process does, or its file is damaged."""
        if day in self._days:
            return self._days[day]
        if day in self.outcome.locked or day in self.outcome.damaged:
            return None
        is_ours = not self._holds or self._held.enter_context(self._store.lock(f"sent_date={day}"))
        if not is_ours:
            self.outcome.locked.append(day)
            return None
        try:
            said = file.footer(self._store, day)
        except DamagedDay as error:
            self.outcome.damaged[day] = str(error)
            return None
        if said is not None:
            dataset.check_key(self._store, file.name(day), said.key, self._book.fingerprint)
        self._days[day] = _Day(day, said)
        if said is not None and self._must_be_made_again(said):
            self._days[day].is_remade = True
        return self._days[day]

    def _must_be_made_again(self, said: Footer) -> bool:
        return (
            said.cutoff != self._cutoff
            or said.words != WORDS_DIGEST
            or (said.phones == "clear" and self._settings.phones == "masked")
        )

    def _stored(self, day: date) -> pa.Array:
        """Return the session numbers that a day's file has, NULL for rows without one."""
        if day not in self._names:
            self._names[day] = file.sessions(self._store, day)
        return self._names[day]

    def _stored_if_whole(self, day: date) -> pa.Array:
        """Return ``_stored``; a day whose file turns out to be damaged is left out of this run."""
        try:
            return self._stored(day)
        except DamagedDay as error:
            self.outcome.damaged[day] = str(error)
            self._days.pop(day, None)
            self._names[day] = pa.array([], TEXT)
            return self._names[day]

    # -- the source -------------------------------------------------------------------------

    def _read(self, window: Window) -> None:
        zone = self._settings.zone
        start = day_start(window.first, zone) - MARGIN
        end = day_start(window.last + _ONE_DAY, zone) + MARGIN
        self._first, self._last = (int(one.timestamp() * 1_000_000) for one in (start, end))
        self._window = window
        rows = Reading(window, zone, self._about)
        for batch in source.read(self._settings, start, end):
            if not rows.rows:
                self.outcome.notes += doubts_about_sessions(batch, self._settings, self._book)
            rows.add(batch)
            self._tell(Progress("source", rows.rows))
        self.outcome.rows_read = rows.rows
        self._read_for: dict[date, pa.ChunkedArray] = {}
        for read in rows.days():
            self._read_for[read.day] = read.rows["session_no"]
            self._keep_if_new(read)
        for day in self._file_days:
            if day in window and day not in self._read_for:
                empty = source.schema(self._settings.dimensions).empty_table()
                nothing = DayRead(day, empty, NOTHING)
                self._keep_if_new(nothing)

    def _keep_if_new(self, read: DayRead) -> None:
        day = self._take(read.day)
        if day is None:
            return
        before = day.footer or Footer("")
        is_new = read.digest != (before.digest if read.is_whole else before.edge)
        # some of its sessions were in a day's file that is gone
        homes = {*before.elsewhere.values()}
        if is_new or not all(self._store.exists(file.name(date.fromisoformat(d))) for d in homes):
            day.read = read

    @cached_property
    def _about(self) -> list[object]:
        """What else decides, beside the source's rows, what a day's file is made of.

        The secret is there for the hidden digits of a phone: who reads the file could try them all.
        """
        settings = self._settings
        secret = self._book.recipient_id("of the digest")
        buried = sorted(self._forgotten.recipients), sorted(self._forgotten.sessions)
        return [
            secret, self._dimensions, settings.timezone, settings.cutoff_hours, settings.phones,
            *buried,
        ]  # fmt: skip

    def _described(self, rows: pa.Table) -> pa.Table:
        described = self._book.describe(rows["phone"], with_digits=True)
        rows = rows.drop_columns("phone")
        for place, one in enumerate(described.type):
            rows = rows.append_column(one.name, described.field(place))
        return forget.without(rows, self._forgotten)

    # -- sessions in another day than they were read for ---------------------------------------

    def _place(self, window: Window) -> None:
        for day in [day for day, one in self._days.items() if one.read]:
            self._stored_if_whole(day)
        changed = {day: one.read for day, one in self._days.items() if one.read}
        stored = {*self._file_days}
        near = [
            beside
            for day, beside in (
                (window.first, window.first - _ONE_DAY), (window.last, window.last + _ONE_DAY)
            )
            if day in changed and beside in stored
        ]  # fmt: skip
        # what was put off to a day that was not read then counts as gone, until it is found there
        said = {day: one.footer for day, one in self._days.items() if one.footer}
        near += [day for day, one in said.items() if one.read.get("gone")]
        twice, once = placing.elsewhere(changed, self._read_for, self._stored)
        for day in twice:
            self._days[day].leaving |= twice[day]
            self._days[day].beside |= once[day]
        known = {day: one.elsewhere for day, one in said.items()}
        found = placing.find(changed, self._read_for, known, near, self._stored_if_whole)
        for day, elsewhere in found.items():
            for home in sorted({*elsewhere.values()}):
                its = [session for session, at in elsewhere.items() if at == home]
                self._settle(self._days[day], home, pa.array(its, TEXT))
        self._read_for = {}

    def _settle(self, here: _Day, at: date, sessions: pa.Array) -> None:
        """Let sessions read for one day stay in the file that has them, or move to that day."""
        assert here.read is not None
        home = self._take(at)
        is_its = pc.is_in(here.read.rows["session_no"], value_set=sessions)
        rows, others = here.read.rows.filter(is_its), here.read.rows.filter(pc.invert(is_its))
        if home is None:  # looked at again by the next run
            here.read = replace(here.read, rows=others, digest="")
            return
        stored = [
            table.filter(pc.is_in(table["session_no"], value_set=sessions))
            for table in self._rows_of(home)
        ]
        moving = self._moving(stored, rows, at)
        leaves = pc.is_in(rows["session_no"], value_set=pa.array([*moving], TEXT))
        staying = rows.filter(pc.invert(leaves))
        if staying.num_rows:
            read = home.read or DayRead(at, rows.slice(0, 0), "", is_whole=False)
            rows_ = pa.concat_tables([read.rows, staying])
            home.read = replace(read, rows=rows_, are_distinct=False)
            here.elsewhere |= {one: str(at) for one in staying["session_no"].unique().to_pylist()}
        here.read = replace(here.read, rows=pa.concat_tables([others, rows.filter(leaves)]))
        if moving:
            its = pa.array([*moving], TEXT)
            here.arriving += [one.filter(pc.is_in(one["session_no"], its)) for one in stored]
            home.leaving |= moving
            home.after.add(here.day)

    def _moving(self, stored: list[pa.Table], read: pa.Table, at: date) -> set[str]:
        """Return the sessions with no row of a day, once they are joined with what was read."""
        known = columns.sessions_of(stored, self._dimensions)
        coming = columns.sent_of(self._described(read), self._dimensions)
        moving = set()
        for session_no, session in known.items():
            general.announce(session.sent, coming.get(session_no, []), self._first, self._last)
            if all(self._day_of(one.sent_at) != at for one in session.sent):
                moving.add(session_no)
        return moving

    def _day_of(self, sent_at: int) -> date:
        moment = datetime.fromtimestamp(sent_at / 1_000_000, UTC)
        return moment.astimezone(self._settings.zone).date()

    # -- what was told and not folded -----------------------------------------------------------

    def catch_up(self) -> None:
        """Fold what runs that were killed had been told, so that nothing is asked twice."""
        self._forgotten = forget.read(self._store)
        log.sweep(self._store)
        for run in log.open_runs(self._store):
            with log.taken(self._store, run) as is_ours:
                if not is_ours:
                    continue
                self._quarantine.sweep(run)
                blocks = log.blocks(self._store, run)
                unread = [day for day in log.days_of(self._store, run) if not self._is_read(day)]
                if self.fold_again(blocks, unread):
                    log.seal(self._store, run)

    def _is_read(self, day: date) -> bool:
        """Return whether this run knows all sessions of a day, those that no file has too."""
        is_left = day in self.outcome.locked or day in self.outcome.damaged
        return day in self._window and not is_left

    def fold_again(self, blocks: list[str], unread: Collection[date] = ()) -> bool:
        """Fold blocks of responses; return whether all that they say is in the days' files now.

        ``unread``: days that may have sessions of theirs which only the source knows.
        """
        said = {}
        for name in blocks:
            with suppress(_DamagedBlock):
                said[name] = self._decoded(name, self._block(name))
        left = pa.concat_tables([schema.OBSERVATIONS.empty_table(), *said.values()])
        left = left.combine_chunks()
        is_all = True
        for day in sorted({*file.days(self._store), *self._days}):
            left, is_dealt = self._deal(day, left)
            is_all &= is_dealt
        is_all &= self.finish(self._days)
        if left.num_rows and (self.outcome.damaged or unread):
            is_all = False  # they may be of these
        elif left.num_rows:
            strays = left["session_no"].unique()
            for name, rows in said.items():
                self._set_aside(name, rows.filter(pc.is_in(rows["session_no"], strays)))
        if is_all:
            self._empty_named()
        return is_all

    def _block(self, name: str) -> pa.Table:
        """Read a block; one that is damaged is set aside, and its sessions are due as before."""
        try:
            block = self._store.read(name)
        except StorageError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno is not None:
                raise
        else:
            if block.schema.equals(schema.RESPONSES):
                return block
        self.outcome.aside.append(self._store.set_aside(name))
        raise _DamagedBlock

    def _deal(self, day: date, said: pa.Table) -> tuple[pa.Table, bool]:
        """Hand a day what is said of its sessions; return the rest, and whether it was held."""
        if not said.num_rows:
            return said, True
        try:
            one = self._days.get(day)
            known = self._sessions_of(one) if one else self._stored(day)
        except DamagedDay as error:
            self.outcome.damaged.setdefault(day, str(error))
            return said, False
        is_here = pc.is_in(said["session_no"], value_set=known)
        if not pc.any(is_here).as_py():
            return said, True
        one = self._take(day)
        if one is not None:
            one.said.append((0, said.filter(is_here)))
        return said.filter(pc.invert(is_here)), one is not None

    def _set_aside(self, block: str, strays: pa.Table) -> None:
        """Quarantine that a block told of sessions which are in no day's file."""
        from usms_pipeline.service.decode import entry_id

        found = []
        for row in strays.select(["session_no", "asked_at"]).to_pylist():
            session_no, asked_at = row["session_no"], row["asked_at"]
            about: dict[str, Any] = {"session_no": session_no, "asked_at": asked_at, "body": b""}
            entry = entry_id("unasked_session", session_no, [session_no], asked_at, b"")
            about |= {"id": entry, "kind": "unasked_session", "ids": [session_no], "state": "open"}
            found.append(about | {"reason": "the session is in no day's file", "http_status": None})
        self.outcome.rejected.update(row["id"] for row in found)
        rejects = pa.Table.from_pylist(found, schema.QUARANTINE)
        self.outcome.quarantined += self._quarantine.add(block, rejects)

    def _decoded(self, name: str, block: pa.Table) -> pa.Table:
        """Return what a block says; what can't be used goes into quarantine first."""
        decoded = decode(block, self._book, self._settings.receipt_timezone)
        rejects = decoded.rejects
        if self._forgotten and rejects.num_rows:
            rejects = forget.without_entries(rejects, Names(self._forgotten, self._book))
        self.outcome.rejected.update(rejects["id"].to_pylist())
        self.outcome.quarantined += self._quarantine.add(name, rejects)
        self.outcome.times_in_doubt += decoded.times_in_doubt
        said = decoded.observations
        self.outcome.receipts += said.num_rows - said["word"].null_count
        if self._watched:
            answered = said.filter(pc.is_valid(said["status"]))["session_no"].to_pylist()
            in_vain = rejects.filter(pc.equal(rejects["kind"], UNANSWERED))[
                "session_no"
            ].to_pylist()
            self.outcome.answered |= self._watched.intersection(answered).difference(in_vain)
        if self._forgotten:
            self._naming.append(name)
        return forget.without_answers(said, self._forgotten)

    # -- making days anew ---------------------------------------------------------------------

    def rebuild(self, days: list[date]) -> None:
        """Make days anew from the responses that are kept, and what is damaged from the source too.

        Of a session with all its responses kept, what the file knows is left out of account; of
        others it is joined with them, each status read again from its word.
        """
        for day in days:
            self._take(day)
        damaged = [
            day for day in days
            if day not in self.outcome.locked
            and (day in self.outcome.damaged or self._is_damaged(day))
        ]  # fmt: skip
        if damaged:
            self._begin_anew(damaged)
        for some in self._rounds([day for day in days if day in self._days]):
            for day in some:
                self._days[day].is_remade = self._days[day].is_rebuilt = True
            self._tell_again(some)
            self.finish(some)

    def _is_damaged(self, day: date) -> bool:
        try:
            for _ in file.rows(self._store, day):
                pass
        except DamagedDay:
            return True
        return False

    def _begin_anew(self, days: list[date]) -> None:
        """Set the files of days aside, which are held, and read these days of the source."""
        for day in days:
            self.outcome.damaged.pop(day, None)
            self.outcome.aside.append(self._store.set_aside(file.name(day)))
            self._days[day] = _Day(day, None)
            self._names.pop(day, None)
        window = Window(min(days), max(days))
        self._read(window)
        self._place(window)

    def _rounds(self, days: list[date]) -> Iterator[list[date]]:
        """Cut days into rounds, of what can be held in memory."""
        some: list[date] = []
        rows = 0
        for day in days:
            if some and rows + self._size(day) > _ROWS_AT_ONCE:
                yield some
                some, rows = [], 0
            some.append(day)
            rows += self._size(day)
        if some:
            yield some

    def _size(self, day: date) -> int:
        its = self._days[day]
        read: int = its.read.rows.num_rows if its.read else 0
        return max(read, its.footer.rows if its.footer else 0)

    def _tell_again(self, days: list[date]) -> None:
        """Hand days what all blocks that are kept say of their sessions."""
        said: list[tuple[int, pa.Table]] = []
        told: list[pa.Table] = []
        rows = 0
        for number, run in enumerate(log.runs(self._store)):
            for name in log.blocks(self._store, run):
                with suppress(_DamagedBlock):
                    block = self._block(name)
                    # what was emptied had been folded: that nothing is left of it is no response
                    block = block.filter(pc.not_equal(block["verdict"], forget.FORGOTTEN))
                    said.append((number, self._decoded(name, block)))
                    told.append(rebuilding.told(block))
                    rows += said[-1][1].num_rows
                if rows >= _ROWS_DEALT:
                    self._deal_again(days, said, told)
                    said, told, rows = [], [], 0
        if said:
            self._deal_again(days, said, told)

    def _deal_again(
        self, days: list[date], said: list[tuple[int, pa.Table]], told: list[pa.Table]
    ) -> None:
        for day in days:
            its = self._days[day]
            known = self._sessions_of(its)
            is_its = pc.is_in(pa.concat_tables(one for _, one in said)["session_no"], known)
            at = 0
            for number, one in said:
                its.said.append((number, one.filter(is_its.slice(at, one.num_rows))))
                at += one.num_rows
            its.told.append(_of(pa.concat_tables(told), known))

    def _sessions_of(self, day: _Day) -> pa.Array:
        """Return the sessions that a day's file is to have, so that what is said of them is its."""
        known = self._stored(day.day)
        if day.leaving:
            known = known.filter(pc.invert(pc.is_in(known, pa.array([*day.leaving], TEXT))))
        if day.read is None:
            return known
        return pa.concat_arrays([known, day.read.rows["session_no"].combine_chunks()])

    # -- asking -------------------------------------------------------------------------------

    def due(self, days: list[date] | None = None) -> pa.Table:
        """Return the sessions to ask about now (``DUE``), the longest overdue first.

        ``days``: of these alone; else of all that this run holds.
        """
        now = int(self._clock().timestamp() * 1_000_000)
        found = [DUE.empty_table()]
        for place, day in enumerate(self._days if days is None else days):
            try:
                table = self._due_of(self._days[day], now)
            except DamagedDay as error:
                self.outcome.damaged[day] = str(error)
                continue
            if table.num_rows:
                self.outcome.due[day] = table.num_rows
                code = pa.array(np.full(table.num_rows, place, np.int32))
                found.append(table.append_column("day", code))
        due = pa.concat_tables(found).combine_chunks()
        order = np.argsort(np.asarray(due["unmet_at"].cast(pa.int64())), kind="stable")
        due = due if np.array_equal(order, np.arange(len(order))) else due.take(pa.array(order))
        is_read_alone = all(self._is_read_alone(day) for day in (days or self._days))
        return due if is_read_alone else _once(due)

    def _is_read_alone(self, day: date) -> bool:
        """Return whether all that may be due of a day was read, each session in one row."""
        its = self._days[day]
        return its.footer is None and not its.arriving and bool(its.read and its.read.are_distinct)

    def _due_of_part(self, part: _Part) -> pa.Table:
        now = int(self._clock().timestamp() * 1_000_000)
        due = self._new_and_due(part.read.rows, [], now)
        due = due if part.read.are_distinct else file.once(due)
        due = _without(due, self._forgotten.sessions)
        day = part.day.day
        self.outcome.due[day] = self.outcome.due.get(day, 0) + due.num_rows
        return due.append_column("day", pa.array(np.zeros(due.num_rows, np.int32)))

    def due_anyway(self, sessions: pa.Array) -> pa.Table:
        """Return sessions to ask about (``DUE``), due or not; ``outcome.answered`` has who was."""
        self._watched |= {*sessions.to_pylist()}
        for day in file.days(self._store):
            if pc.any(pc.is_in(self._stored(day), value_set=sessions)).as_py():
                self._take(day)
        found = [DUE.empty_table()]
        for place, day in enumerate(self._days):
            names = self._stored(day).unique()
            its = names.filter(pc.is_in(names, value_set=sessions))
            at = pa.array(np.zeros(len(its), np.int64)).cast(TIME)
            code = pa.array(np.full(len(its), place, np.int32))
            found.append(pa.table([its, at, code], schema=DUE))
        return _once(pa.concat_tables(found).combine_chunks())

    def _due_of(self, day: _Day, now: int) -> pa.Table:
        found = [file.DUE.empty_table()]
        if day.footer is not None:
            found.append(file.due(self._store, day.day, now, self._polls, day.footer))
        for table in day.arriving:
            tries = file.Tries()
            tries.add(table)
            found.append(file.due_among(file.open_rows(table), now, self._polls, tries))
        if day.read is not None:
            stored = [self._stored(day.day), *(one["session_no"] for one in day.arriving)]
            found.append(self._new_and_due(day.read.rows, stored, now))
            if day.footer is not None:
                found.append(self._grown_and_due(day, day.read, now))
        due = pa.concat_tables(found)
        due = due if self._is_read_alone(day.day) else file.once(due)
        return _without(due, {*day.leaving, *self._forgotten.sessions})

    def _new_and_due(self, rows: pa.Table, stored: list[Any], now: int) -> pa.Table:
        """Return the sessions of rows that are due and not stored."""
        if self._forgotten.recipients:
            rows = self._described(rows)
        names = rows["session_no"].combine_chunks()
        is_new = pc.is_valid(names)
        for known in stored:
            if len(known):
                is_new = pc.and_(is_new, pc.invert(pc.is_in(names, value_set=known)))
        at = np.asarray(rows["sent_at"].cast(pa.int64())) + self._polls[0]
        is_due = pc.and_(is_new, pa.array(at <= now))
        return pa.table([names, pa.array(at).cast(TIME)], schema=file.DUE).filter(is_due)

    def _grown_and_due(self, day: _Day, read: DayRead, now: int) -> pa.Table:
        """Return the sessions that got a phone since: due though all others have an outcome."""
        stored = self._stored(day.day)
        more = columns.outnumbered(stored, read.rows["session_no"].combine_chunks())
        if not len(more):
            return file.DUE.empty_table()
        rows = self._described(read.rows.filter(pc.is_in(read.rows["session_no"], more)))
        rows = rows.filter(pc.is_valid(rows["recipient"])).select(
            ["session_no", "recipient", "sent_at"]
        )
        known = file.asked(self._store, day.day, more)
        fresh = rows.join(known, ["session_no", "recipient"], join_type="left anti")
        asked = known.group_by("session_no").aggregate([("last_asked_at", "max")])
        asked = asked.rename_columns(["session_no", "last_asked_at"])
        fresh = fresh.join(asked, "session_no").combine_chunks()
        return file.due_among(fresh, now, self._polls, file.Tries())

    def ask(self) -> None:
        """Ask about all that is due, in rounds of days, and write each day when all of it has come.

        What came before the service refused or failed is folded first, then the error is raised.
        """
        rounds = self._rounds_to_ask()
        # what moves is written with the day it comes from, perhaps before its own turn
        is_moving = any(day.after for day in self._days.values())
        self._ask([*rounds] if is_moving else rounds)

    def _rounds_to_ask(self) -> Iterator[Round]:
        for days in self._rounds([*self._days]):
            day = self._days[days[0]]
            if (
                day.read is None
                or day.footer
                or day.arriving
                or self._size(day.day) <= _ROWS_AT_ONCE
            ):
                yield Round([self._days[one] for one in days], self.due(days))
                continue
            parts = [_Part(day, one) for one in reading.parts(day.read, _ROWS_AT_ONCE)]
            day.parts, day.read = parts, _emptied(day.read)
            for part in parts:
                yield Round([part], self._due_of_part(part))

    def ask_about(self, sessions: pa.Array) -> int:
        """Ask about some sessions, due or not; return how many there are in the days' files."""
        due = self.due_anyway(sessions)
        self._ask([Round([*self._days.values()], due)])
        return int(due.num_rows)

    def _ask(self, rounds: Iterable[Round]) -> None:
        started, damaged = time.monotonic(), {*self.outcome.damaged}
        with ExitStack() as stack:
            writer = log.Log(self._store, self._clock)

            def logged() -> Iterator[Round]:
                for one in rounds:
                    if len(one.names) and not writer.is_open:
                        stack.enter_context(writer.held(self._days))
                        # from here on, `usms forget` finds this run open
                        self._forgotten = forget.read(self._store)
                    yield one

            try:
                with Asking(
                    logged(), writer, self._decoded, self._finish, self._settings
                ) as asking:
                    stats = asking.ask(
                        self._clock, self._transport, self._pace, self._patience, self._told,
                        self._answered_before,
                    )  # fmt: skip
                self.outcome.stats = self.outcome.stats.plus(stats)
                self._pace = stats.pace
            except (CredentialsRefused, ServiceDown) as error:
                if error.stats:
                    error.stats = self.outcome.stats = self.outcome.stats.plus(error.stats)
                self.finish(self._days)
                raise
            finally:
                self.outcome.seconds_asking = time.monotonic() - started
            self.finish(self._days)
            if damaged == {*self.outcome.damaged}:  # of others, nobody was asked about
                self._empty_named()
                writer.is_folded = True

    def _answered_before(self) -> str | None:
        """Return a session of which the service has told an outcome: it can be asked again."""
        for day, one in sorted(self._days.items(), reverse=True):
            buckets = one.footer.buckets if one.footer else {}
            if not any(buckets.get(status) for status in FINAL):
                continue
            with suppress(StorageError):
                for batch in self._store.batches(
                    file.name(day), columns=["session_no", "is_final"]
                ):
                    if (place := pc.index(batch["is_final"], True).as_py()) >= 0:
                        return str(batch["session_no"][place])
        return None

    def _empty_named(self) -> None:
        """Empty the responses that name somebody forgotten, once what they say is folded."""
        if self._naming:
            names = Names(self._forgotten, self._book)
            for block in self._naming:
                forget.empty(self._store, block, names)
            self._naming.clear()

    def _told(self, stats: CollectStats, due: int) -> None:
        before = self.outcome.stats  # of the rounds before this one
        done = before.plus(stats)
        total = before.ids_asked + due
        self._tell(Progress("responses", done.ids_answered + done.ids_refused, total, stats))
        self._tell(Progress("receipts", len({*self.outcome.written}), self._to_write()))

    def _to_write(self) -> int:
        return len({*self.outcome.written, *(d.day for d in self._days.values() if d.has_news)})

    @property
    def footers(self) -> dict[date, Footer]:
        """What the files of the days that this run holds say now."""
        return {day: one.footer for day, one in sorted(self._days.items()) if one.footer}

    # -- writing ------------------------------------------------------------------------------

    def finish(self, days: Iterable[date]) -> bool:
        """Write days that there is something new about; return whether none is left out."""
        before, total = len(self.outcome.damaged), self._to_write()
        for day in sorted(days):
            self._finish(self._days[day])
            self._tell(Progress("receipts", len({*self.outcome.written}), total))
        return len(self.outcome.damaged) == before

    def _finish(self, day: _Day | _Part) -> None:
        if isinstance(day, _Part):
            self._finish_part(day)
            return
        for part in day.parts:
            self._finish_part(part)
        for other in sorted(day.after):
            self._finish(self._days[other])
        if not day.has_news:
            return
        try:
            self._write(day)
        except DamagedDay as error:
            self.outcome.damaged[day.day] = str(error)
        finally:
            day.read, day.arriving, day.leaving = None, [], set()
            day.after, day.told, day.beside = set(), [], set()
            day.came = day.left = 0
            day.is_remade = day.is_rebuilt = False

    def _finish_part(self, part: _Part) -> None:
        """Write a part of a day, and the end of its file after the last."""
        day = part.day
        if part.is_written:
            while part.said:  # what came since then is put in like what comes another time
                day.said.append(part.said.pop(0))
            return
        if day.stream is None:
            day.stream = Stream(lambda parts: self._write(day, parts))
        day.stream.put(part)
        part.is_written = True
        if all(one.is_written for one in day.parts):
            day.stream.close()
            day.stream = day.read = None

    def _write(self, day: _Day, parts: Iterator[_Part] | None = None) -> None:
        before = day.footer
        if before is not None and not self._store.exists(file.name(day.day)):
            raise vanished(self._store, [day.day])
        self._store.sweep(f"{file.FOLDER}/sent_date={day.day}")
        # read again: who was forgotten before this day was held is not to come back
        self._forgotten = forget.read(self._store)
        folds: list[Fold] = []
        made: list[pa.Table] = []
        if parts is not None:
            rows = self._folded_parts(parts, folds)
        elif before is None:
            rows = _noted(self._folded(day, folds), made)
        else:
            rows = self._folded(day, folds)
        after = file.write(
            self._store, day.day, rows, self._layout, lambda: self._footer(day, folds)
        )
        pa.default_memory_pool().release_unused()
        self.outcome.new += sum(fold.new for fold in folds)
        if after is None:
            return
        day.footer = after
        self._names.pop(day.day, None)
        self.outcome.written.append(day.day)
        if before is None or before.version != after.version:
            change = _change(day, before, after, folds[0])
            if made:  # of a new day all rows, which nobody has to read again to publish them
                change = Change(
                    day.day, "", after.version, pa.array([], TEXT), pa.concat_tables(made)
                )
            elif change is not None:
                self.outcome.changes.append(change)
            self._on_written(day.day, change)

    def _folded(self, day: _Day, folds: list[Fold]) -> Iterator[pa.Table]:
        """Yield a day's rows as they are now; ``folds`` gets what made them."""
        read, before = day.read, day.footer
        heard, *later = self._heard(day.said, day.is_rebuilt)
        sent = self._described(read.rows) if read else None
        fold = Fold(
            self._stored_rows(day), sent, heard, self._layout, self._cutoff,
            self._first, self._last,
            is_whole=read is not None and read.is_whole,
            elsewhere=day.beside,
            are_distinct=read is not None and read.are_distinct and not day.arriving,
            is_remade=day.is_remade,
            ends=self._book.ends,
            most=int(max(_FEW, _MOST_SHARE * before.rows)) if before else 0,
            are_many=bool(later),
        )  # fmt: skip
        folds.append(fold)
        for more in later:
            folds.append(
                Fold(
                    folds[-1], None, more, self._layout, self._cutoff, ends=self._book.ends, most=0
                )
            )
        yield from folds[-1]

    def _folded_parts(self, parts: Iterator[_Part], folds: list[Fold]) -> Iterator[pa.Table]:
        """Yield the rows of a large new day, a part at a time, each as soon as it is given."""
        for part in parts:
            [heard] = self._heard(part.said)
            fold = Fold(
                (), self._described(part.read.rows), heard, self._layout, self._cutoff,
                self._first, self._last,
                are_distinct=part.read.are_distinct, ends=self._book.ends, most=0,
            )  # fmt: skip
            yield from fold
            # not a slice of no rows, which would keep all of them in memory
            fold.sent, fold.said = None, schema.OBSERVATIONS.empty_table()
            part.read = _emptied(part.read)
            folds.append(fold)

    def _heard(self, said: list[tuple[int, pa.Table]], is_rebuilt: bool = False) -> list[pa.Table]:
        """Take what was said of a day: tables to be put in one after the other.

        One is enough but for a rebuild: with many answers of each session the general way would
        take the memory and the time for all of them.
        """
        # one by one: the thread that decodes may be putting in more
        taken = [said.pop(0) for _ in range(len(said))]
        taken.sort(key=lambda one: one[0])
        tables = [schema.OBSERVATIONS.empty_table(), *(one for _, one in taken)]
        heard = rebuilding.in_turn(taken) if is_rebuilt else [pa.concat_tables(tables)]
        return [forget.without_answers(one, self._forgotten).combine_chunks() for one in heard]

    def _stored_rows(self, day: _Day) -> Iterator[pa.Table]:
        masks = day.footer and day.footer.phones == "clear" and self._settings.phones == "masked"
        gone = pa.array([*day.leaving], TEXT)
        stored = self._rows_of(day)
        if day.is_rebuilt:
            now = int((self._clock() + CLOCK_MAY_STEP).timestamp() * 1_000_000)
            stored = rebuilding.unasked(stored, day.told, self._layout, self._cutoff, now)
        for table in stored:
            if len(gone):
                day.left += _announced(table)
                table = table.filter(pc.invert(pc.is_in(table["session_no"], gone)))
                day.left -= _announced(table)
            yield self._masked(table) if masks else table
        day.came += sum(map(_announced, day.arriving))
        yield from day.arriving

    def _rows_of(self, day: _Day) -> Iterator[pa.Table]:
        """Yield what a day's file has, with the dimensions of now: in states they have no names."""
        stored = file.rows(self._store, day.day, self._layout)
        before = list(day.footer.dimensions) if day.footer else []
        now = list(self._settings.dimensions)
        if before == now:
            return stored
        places = [before.index(name) if name in before else None for name in now]

        def arranged(known: general.Session) -> None:
            for one in known.sent:
                old = one.dimensions
                one.dimensions = [None if place is None else old[place] for place in places]

        return (columns.with_states(table, arranged) for table in stored)

    def _masked(self, rows: pa.Table) -> pa.Table:
        """Return rows with the phones masked that were shown whole, in their states too."""
        place = rows.schema.get_field_index("phone")
        rows = rows.set_column(place, "phone", self._book.remasked(rows["phone"]))
        return columns.with_states(rows, self._mask)

    def _mask(self, known: general.Session) -> None:
        people: list[Any] = [*known.sent, *known.numbers.values()]
        shown = self._book.remasked(pa.array([one.phone for one in people], TEXT)).to_pylist()
        for one, phone in zip(people, shown, strict=True):
            one.phone = phone

    def _footer(self, day: _Day, folds: list[Fold]) -> Footer | None:
        """Return what the file is to say; None where it says so already, and no row changed."""
        before, read, settings = day.footer, day.read, self._settings
        same = before or Footer("", version="")
        masks = same.phones == "clear" and settings.phones == "masked"
        made: dict[str, Any] = {
            "key": self._book.fingerprint,
            "words": WORDS_DIGEST,
            "cutoff": self._cutoff,
        }
        made |= {"phones": settings.phones, "polls": self._polls}
        made |= {"dimensions": list(settings.dimensions)}
        if read is not None and read.digest:
            made |= {"digest" if read.is_whole else "edge": read.digest}
        elif any(one.lacks_ends for one in folds):
            made |= {"digest": "", "edge": ""}  # read again by the next run, it will know them
        if read is not None and read.is_whole:
            counted: Counter[str] = Counter()
            for fold in folds:
                counted.update(fold.counts)
            made |= {"read": dict(counted), "elsewhere": day.elsewhere}
        elif same.read:
            back = min(day.left, same.read["gone"])  # what moved from here was not gone
            more = same.read["beside"] + folds[0].more + day.came - day.left + back
            made |= {"read": same.read | {"beside": more, "gone": same.read["gone"] - back}}
        is_changed = (
            any(fold.is_changed for fold in folds)
            or bool(day.arriving or day.leaving)
            or masks
            or same.dimensions != list(settings.dimensions)
        )
        said = replace(same, **made)
        if before is not None and not is_changed:
            return None if said == before else said
        return replace(said, version=Footer("").version)


def _change(day: _Day, before: Footer | None, after: Footer, fold: Fold) -> Change | None:
    """Return what changed of a day, where it is little enough to be published by itself."""
    if before is None or fold.are_many or before.dimensions != after.dimensions:
        return None
    if before.phones != after.phones:
        return None
    rows = pa.concat_tables([*day.arriving, *fold.changed]) if fold.changed else None
    if day.arriving or rows is None:
        return None
    sessions = pa.concat_arrays(
        [rows["session_no"].combine_chunks(), pa.array([*day.leaving], TEXT)]
    ).unique()
    return Change(day.day, before.version, after.version, sessions, rows)


def _of(rows: pa.Table, sessions: pa.Array) -> pa.Table:
    return rows.filter(pc.is_in(rows["session_no"], value_set=sessions))


def _without(rows: pa.Table, sessions: Collection[str]) -> pa.Table:
    if not sessions:
        return rows
    return rows.filter(pc.invert(pc.is_in(rows["session_no"], pa.array([*sessions], TEXT))))


def _noted(tables: Iterable[pa.Table], noted: list[pa.Table]) -> Iterator[pa.Table]:
    for table in tables:
        noted.append(table)
        yield table


def _emptied(read: DayRead) -> DayRead:
    return replace(read, rows=read.rows.schema.empty_table())


def _once(due: pa.Table) -> pa.Table:
    """Return each session once: it may be in two days' files, where a move was interrupted."""
    names = due["session_no"].combine_chunks()
    if pc.count_distinct(names).as_py() == len(names):
        return due
    codes = np.asarray(names.dictionary_encode().indices)
    return due.take(pa.array(np.sort(np.unique(codes, return_index=True)[1])))


def _announced(rows: pa.Table) -> int:
    return pc.sum(rows["is_announced"]).as_py() or 0


def vanished(store: Store, days: list[date]) -> StorageError:
    """Return the error for days that are gone from the data directory while it is worked in."""
    return StorageError(
        f"What this run had read of {', '.join(map(str, sorted(days)))} is gone from the data "
        f"directory {store.data_dir!r}: was it removed, or its disk unmounted? Put it back and run "
        "again. Nothing was published."
    )


def doubts_about_sessions(batch: Any, settings: Settings, book: PhoneBook) -> list[str]:
    """Return when most session numbers of some rows of the source are phone numbers."""
    if not batch.num_rows or not book.are_numbers(batch["session_no"].slice(0, _ROWS_TRIED)):
        return []
    return [
        f"The session numbers in {settings.session_column} look like phone numbers: they are sent "
        "as session numbers, and published whole. Check USMS_SESSION_COLUMN; to take back what is "
        "stored, set it right, use another USMS_DATA_DIR and delete this one."
    ]


class _DamagedBlock(Exception):
    """It was set aside; others go on."""
