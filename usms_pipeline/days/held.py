"""The days that a run holds: each is this process's from its first look at it until the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.contract import schema
from usms_pipeline.contract.errors import DamagedDay
from usms_pipeline.contract.schema import TEXT
from usms_pipeline.days import columns, file
from usms_pipeline.days.asking import Stream
from usms_pipeline.days.file import Footer
from usms_pipeline.days.reading import DayRead
from usms_pipeline.people import forget
from usms_pipeline.people.phones import PhoneBook
from usms_pipeline.service import api
from usms_pipeline.service.collect import CollectStats
from usms_pipeline.settings import Settings
from usms_pipeline.store import dataset
from usms_pipeline.store.storage import Store
from usms_pipeline.warehouse import Change


@dataclass
class Outcome:
    """What a run did. ``aside`` names damaged files that were put out of the way.

    ``missing``: the times (microseconds) of responses that a rebuild was to read again, and that
    are not kept.

    ``due`` counts the sessions that were due, by day; ``locked`` names the days that another run
    holds; ``receipts`` counts those in the answers, with any status word. Of the rows read,
    ``newest_sent_at`` is in microseconds, and ``repeats`` says whether some share a session.
    """

    stats: CollectStats = field(default_factory=CollectStats)
    seconds_asking: float = 0.0
    rows_read: int = 0
    newest_sent_at: int | None = None
    repeats: bool = False
    new: int = 0
    due: dict[date, int] = field(default_factory=dict)
    written: list[date] = field(default_factory=list)
    locked: list[date] = field(default_factory=list)
    damaged: dict[date, str] = field(default_factory=dict)
    aside: list[str] = field(default_factory=list)
    missing: set[int] = field(default_factory=set, repr=False)
    quarantined: int = 0
    times_in_doubt: int = 0
    rejected: set[str] = field(default_factory=set, repr=False)
    answered: set[str] = field(default_factory=set, repr=False)
    receipts: int = 0
    notes: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list, repr=False)


@dataclass
class Day:
    """A day that a run holds: its file's footer, and what is to be merged into it."""

    day: date
    footer: Footer | None
    read: DayRead | None = None
    said: list[tuple[int, pa.Table]] = field(default_factory=list, repr=False)
    arriving: list[pa.Table] = field(default_factory=list, repr=False)
    leaving: set[str] = field(default_factory=set, repr=False)
    elsewhere: dict[str, str] = field(default_factory=dict, repr=False)
    beside: set[str] = field(default_factory=set, repr=False)
    """Sessions that this day's file has, and that were read for another day before too."""
    came: int = 0
    left: int = 0
    """How many rows came from other days, and went to others."""
    after: set[date] = field(default_factory=set)
    """Days that are written before this one, because sessions move from here to there."""
    is_remade: bool = False
    answered: list[pa.Table] = field(default_factory=list, repr=False)
    is_rebuilt: bool = False
    """Of a rebuild: when the log has each session asked about (``rebuilding.ANSWERED``)."""
    parts: list[Part] = field(default_factory=list, repr=False)
    """Of a large new day."""
    stream: Stream[Part] | None = None

    @property
    def has_news(self) -> bool:
        """Return whether its file may have to be written."""
        return bool(self.read or self.said or self.arriving or self.leaving or self.is_remade)

    @property
    def is_new(self) -> bool:
        """Return whether the whole day was just read from the source."""
        return self.read is not None and self.footer is None and not self.arriving

    @property
    def is_plain_and_new(self) -> bool:
        """Return ``is_new``, where each session is in one row."""
        return self.read is not None and self.is_new and self.read.are_distinct

    @property
    def size(self) -> int:
        """How many of the day's rows are in memory while it is worked on."""
        read = self.read.rows.num_rows if self.read else 0
        return max(read, self.footer.rows if self.footer else 0)

    def is_written(self) -> None:
        """Drop what has been merged into the file."""
        self.read, self.arriving, self.leaving = None, [], set()
        self.after, self.answered, self.beside = set(), [], set()
        self.came = self.left = 0
        self.is_remade = self.is_rebuilt = False


@dataclass(eq=False)
class Part:
    """A part of a large new day: asked about, folded and written apart, into the same file."""

    day: Day
    read: DayRead
    said: list[tuple[int, pa.Table]] = field(default_factory=list, repr=False)
    is_written: bool = False


class Held:
    """The days that a run holds, by date, what it works with, and what it has done so far.

    ``locks``: whether days are locked; else nothing is to be written.
    """

    def __init__(self, store: Store, settings: Settings, book: PhoneBook, *, locks: bool) -> None:
        self.store, self.settings, self.book = store, settings, book
        self.days: dict[date, Day] = {}
        self.outcome = Outcome()
        self.dimensions = [schema.dimension_name(name) for name in settings.dimensions]
        self.layout = columns.layout(settings.dimensions)
        self.polls = [offset // timedelta(microseconds=1) for offset in settings.poll_offsets]
        self.cutoff = settings.cutoff // timedelta(microseconds=1)
        self.forgotten = forget.read(store)
        self._locks = locks
        self._stack = ExitStack()
        self._names: dict[date, pa.Array] = {}

    def release(self) -> None:
        """Release all days; a large one that is being written is discarded."""
        for day in self.days.values():
            if day.stream is not None:
                day.stream.abandon()
        self._stack.close()

    def let_go(self) -> None:
        """Release all days, to hold others."""
        self.release()
        self.days.clear()
        self._names.clear()
        del self.files
        pa.default_memory_pool().release_unused()

    @cached_property
    def files(self) -> list[date]:
        """The days that had a file when the run began to hold days."""
        return file.days(self.store)

    @property
    def left_out(self) -> set[date]:
        """The days that are left to another run, or damaged."""
        return {*self.outcome.locked, *self.outcome.damaged}

    def take(self, day: date) -> Day | None:
        """Hold a day; None where another process does, or its file is damaged."""
        if day in self.days:
            return self.days[day]
        if day in self.left_out:
            return None
        if self._locks and not self._stack.enter_context(self.store.lock(f"sent_date={day}")):
            self.outcome.locked.append(day)
            return None
        try:
            said = file.footer(self.store, day)
        except DamagedDay as error:
            self.outcome.damaged[day] = str(error)
            return None
        self.days[day] = Day(day, said)
        if said is not None:
            dataset.check_key(self.store, file.name(day), said.key, self.book.fingerprint)
            self.days[day].is_remade = (
                said.cutoff != self.cutoff
                or said.words != api.WORDS_DIGEST
                or (said.phones == "clear" and self.settings.phones == "masked")
            )
        return self.days[day]

    def begin_anew(self, day: date) -> None:
        """Set the damaged file of a day that is held aside, if it is not gone."""
        self.outcome.damaged.pop(day, None)
        if self.store.exists(file.name(day)):
            self.outcome.aside.append(self.store.set_aside(file.name(day)))
        self.days[day] = Day(day, None)
        self._names.pop(day, None)

    def has_open(self, day: date) -> bool:
        """Return whether something is open in a day's file, if that is known."""
        with suppress(DamagedDay):
            said = file.footer(self.store, day)
            return said is not None and said.open > 0
        return True

    def names(self, day: date) -> pa.Array:
        """Return the session numbers that a day's file has, NULL for rows without one."""
        if day not in self._names:
            self._names[day] = file.sessions(self.store, day)
        return self._names[day]

    def drop_names(self) -> None:
        """Drop the session numbers of days that were looked at and are not held."""
        for day in self._names.keys() - self.days.keys():
            del self._names[day]

    def names_if_whole(self, day: date) -> pa.Array:
        """Return ``names``; a day whose file turns out to be damaged is left out of this run."""
        try:
            return self.names(day)
        except DamagedDay as error:
            self.outcome.damaged[day] = str(error)
            self.days.pop(day, None)
            self._names[day] = pa.array([], TEXT)
            return self._names[day]

    def sessions(self, day: Day) -> pa.Array:
        """Return the sessions that belong to a day's file."""
        known = self.names(day.day)
        if day.leaving:
            known = known.filter(pc.invert(pc.is_in(known, pa.array([*day.leaving], TEXT))))
        if day.read is None:
            return known
        return pa.concat_arrays([known, day.read.rows["session_no"].combine_chunks()])

    def rows(self, day: Day) -> Iterator[pa.Table]:
        """Yield what a day's file has, with the dimensions of now: in states they have no names."""
        stored = file.rows(self.store, day.day, self.layout)
        before = list(day.footer.dimensions) if day.footer else []
        now = list(self.settings.dimensions)
        if before == now:
            return stored
        places = [before.index(name) if name in before else None for name in now]

        def arranged(known: Any) -> None:
            for one in known.sent:
                old = one.dimensions
                one.dimensions = [None if place is None else old[place] for place in places]

        return (columns.with_states(table, arranged) for table in stored)

    def described(self, rows: pa.Table) -> pa.Table:
        """Return rows of the source without the people forgotten, phones as they are published."""
        described = self.book.describe(rows["phone"])
        rows = rows.drop_columns("phone")
        for place, one in enumerate(described.type):
            rows = rows.append_column(one.name, described.field(place))
        return forget.without(rows, self.forgotten)

    def is_rewritten(self, day: Day, footer: Footer) -> None:
        """Note what the new file of a day says."""
        self.is_read(day, footer)
        self.outcome.written.append(day.day)

    def is_read(self, day: Day, footer: Footer | None) -> None:
        """Note what the file of a day says."""
        day.footer = footer
        self._names.pop(day.day, None)
