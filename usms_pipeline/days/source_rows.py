"""Hands the source's rows to the days whose files have their sessions.

The source tells the day of a session by its earliest row. A session that a file has already stays
there while one of its rows is of that day, and moves where all were rescheduled. The new place is
written before the old one is left, so that a kill between the two leaves it in both; then the old
one lets go of it at the next reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline import source
from usms_pipeline.contract.schema import TEXT, as_one_array
from usms_pipeline.days import columns, doubts, file, general
from usms_pipeline.days.file import Footer
from usms_pipeline.days.held import Day, Held
from usms_pipeline.days.reading import MARGIN, NOTHING, DayRead, Reading
from usms_pipeline.store.dataset import Window, day_start

_ONE_DAY: Final = timedelta(days=1)
MOST_ROWS: Final = 4_000_000
"""How many rows are read at once, if they are not all of one day: about 60 bytes each."""

Some = Any  # an array of texts, in one piece or several
Names = Callable[[date], pa.Array]
"""The session numbers that a day's file has."""

_NONE: Final = pa.array([], TEXT)
_HASHED_AT_ONCE: Final = 500_000


class SourceRows:
    """The rows of a window, and the times of sending that were read: rows within may be gone.

    ``first`` and ``last`` are in microseconds since 1970, the margins included; ``count`` has the
    rows that were read.
    """

    def __init__(self, held: Held) -> None:
        self._held = held
        self.first, self.last = 0, 2**62
        self.count = 0
        self.window = Window(date.max, date.min)
        self._read_for: dict[date, pa.ChunkedArray] = {}

    def read(self, window: Window, tell: Callable[[int], None], *, is_alone: bool = False) -> bool:
        """Read a window; hold its days where they are not as their files say they were read.

        Returns False, with nothing done, where its days have too many rows to be read at once.
        ``is_alone``: of the days beside it, only the rows of its own sessions are held, at the
        price of two more queries. ``tell`` is called with the number of rows read so far.

        Raises ``UsmsError`` where the rows can't be those of sent messages (``doubts``); the first
        are looked at.
        """
        held, settings = self._held, self._held.settings
        start = day_start(window.first, settings.zone) - MARGIN
        end = day_start(window.last + _ONE_DAY, settings.zone) + MARGIN
        self.first, self.last = (int(one.timestamp() * 1_000_000) for one in (start, end))
        self.window = window
        rows = Reading(window, settings.zone, self._about)
        cells = source.Cells()
        judged = source.schema(settings.dimensions).empty_table()
        own = (start + MARGIN, end - MARGIN)
        spans = [own, (start, own[0]), (own[1], end)] if is_alone else [(start, end)]
        for span in spans:
            for batch in source.read(settings, *span, cells):
                rows.add(batch)
                if judged.num_rows < doubts.MOST_ROWS:
                    judged = pa.concat_tables([judged, pa.table(batch)])
                tell(rows.rows)
                if rows.rows > MOST_ROWS and window.first < window.last:
                    return False
            if span is own:
                rows.only_known_from_here()
        self.count = rows.rows
        judged = judged.slice(0, doubts.MOST_ROWS)
        found = doubts.notes(doubts.of_rows(judged, cells, settings, held.book))
        held.outcome.notes += [] if held.outcome.rows_read else found
        held.outcome.rows_read += rows.within
        newest = (rows.newest, held.outcome.newest_sent_at)
        held.outcome.newest_sent_at = max(filter(None, newest), default=None)
        self._read_for = {}
        for read in rows.days():
            self._read_for[read.day] = read.rows["session_no"]
            self._keep_if_new(read)
            held.outcome.repeats |= not read.are_distinct
        for day in held.files:
            if day in window and day not in self._read_for:
                empty = source.schema(settings.dimensions).empty_table()
                self._keep_if_new(DayRead(day, empty, NOTHING))
        return True

    def _keep_if_new(self, read: DayRead) -> None:
        day = self._held.take(read.day)
        if day is None:
            return
        before = day.footer or Footer("")
        is_new = read.digest != (before.digest if read.is_whole else before.edge)
        # some of its sessions were in a day's file that is gone
        homes = {date.fromisoformat(one) for one in before.elsewhere.values()}
        if is_new or not homes <= {*file.days(self._held.store)}:
            day.read = read

    @cached_property
    def _about(self) -> list[object]:
        """What decides a day's file beside the source's rows.

        The secret is there for the hidden digits of a phone: who reads the file could try them all.
        """
        settings, forgotten = self._held.settings, self._held.forgotten
        return [
            self._held.book.recipient_id("of the digest"), self._held.dimensions,
            settings.timezone, settings.cutoff_hours, settings.phones,
            sorted(forgotten.recipients), sorted(forgotten.sessions),
        ]  # fmt: skip

    # -- sessions in another day than they were read for ------------------------------------------

    def place(self) -> None:
        """Hand each session that was read to the day whose file has it, or move it."""
        held, window = self._held, self.window
        for day in [day for day, one in held.days.items() if one.read]:
            held.names_if_whole(day)
        changed = {day: one.read for day, one in held.days.items() if one.read}
        stored = {*held.files}
        sides = {window.first - _ONE_DAY: window.first, window.last + _ONE_DAY: window.last}
        near = [side for side, day in sides.items() if day in changed and side in stored]
        # what was put off to a day that was not read then counts as gone, until it is found there
        said = {day: one.footer for day, one in held.days.items() if one.footer}
        near += [day for day, one in said.items() if one.read.get("gone")]
        twice, once = _elsewhere(changed, self._read_for, held.names)
        for day in twice:
            held.days[day].leaving |= twice[day]
            held.days[day].beside |= once[day]
        known = {day: one.elsewhere for day, one in said.items()}
        found = _find(changed, self._read_for, known, near, held.names_if_whole)
        for day, elsewhere in found.items():
            for home in sorted({*elsewhere.values()}):
                its = [session for session, at in elsewhere.items() if at == home]
                self._settle(held.days[day], home, pa.array(its, TEXT))
        self._read_for = {}
        held.drop_names()

    def _settle(self, here: Day, at: date, sessions: pa.Array) -> None:
        """Leave sessions that were read for ``here`` in the file of day ``at``, or move them."""
        assert here.read is not None
        home = self._held.take(at)
        is_its = pc.is_in(here.read.rows["session_no"], value_set=sessions)
        rows, others = here.read.rows.filter(is_its), here.read.rows.filter(pc.invert(is_its))
        if home is None:  # looked at again by the next run
            here.read = replace(here.read, rows=others, digest="")
            return
        stored = [
            table.filter(pc.is_in(table["session_no"], value_set=sessions))
            for table in self._held.rows(home)
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
        coming = columns.sent_of(self._held.described(read), self._held.dimensions)
        zone, moving = self._held.settings.zone, set()
        for session_no, rows in columns.grouped(stored).items():
            session = columns.known_of(rows, self._held.dimensions)
            general.announce(session.sent, coming.get(session_no, []), self.first, self.last)
            times = (datetime.fromtimestamp(one.sent_at / 1_000_000, zone) for one in session.sent)
            if all(one.date() != at for one in times):
                moving.add(session_no)
        return moving


def _find(
    changed: Mapping[date, DayRead],
    read_for: Mapping[date, pa.ChunkedArray],
    known: Mapping[date, Mapping[str, str]],
    near: Iterable[date],
    names: Names,
) -> dict[date, dict[str, date]]:
    """Return, by the day read for, the sessions that another day's file has, and which.

    ``changed``: days that were read and are not as they were; ``read_for``: the sessions read for
    each day, changed or not; ``known``: what each day's file knows to be elsewhere; ``near``: days
    beside the window, where a session of its first or last day may be.
    """
    found: dict[date, dict[str, date]] = {}
    others = [day for day in sorted({*changed, *near}) if len(names(day))]
    for day in changed:
        if not {*others} - {day} and not known.get(day):
            continue
        sessions = read_for.get(day, _NONE)  # none where all left the source
        new = _without(sessions, names(day))
        new = new if changed[day].are_distinct else new.unique()
        here = {one: date.fromisoformat(at) for one, at in known.get(day, {}).items()}
        left = new.filter(pc.is_in(new, value_set=pa.array([*here], TEXT)))
        elsewhere = {one: here[one] for one in left.to_pylist()}
        for other in others:
            its = _common(new, names(other)) if other != day else _NONE
            elsewhere |= dict.fromkeys({*its.to_pylist()} - elsewhere.keys(), other)
        if elsewhere:
            found[day] = elsewhere
    return found


def _elsewhere(
    changed: Iterable[date], read_for: Mapping[date, pa.ChunkedArray], names: Names
) -> tuple[dict[date, set[str]], dict[date, set[str]]]:
    """Return, by day, the sessions that its file has and that were read for another day.

    First those that the other's file has too: a move was interrupted between its two writings.
    """
    twice: dict[date, set[str]] = {}
    once: dict[date, set[str]] = {}
    for day in changed:
        unread = _without(names(day), read_for.get(day, _NONE))
        if not len(unread):
            continue
        for other, sessions in read_for.items():
            if other == day:
                continue
            moved = _common(unread, sessions)
            if len(moved):
                both = pc.is_in(moved, value_set=names(other))
                twice.setdefault(day, set()).update(moved.filter(both).to_pylist())
                once.setdefault(day, set()).update(moved.filter(pc.invert(both)).to_pylist())
    return twice, once


def _without(names: Some, others: Some) -> pa.Array:
    """Return the names that are not NULL and not among others."""
    if not len(names):
        return _NONE
    names = names.drop_null()
    common = _common(names, others)
    left = names.filter(pc.invert(pc.is_in(names, value_set=common))) if len(common) else names
    return as_one_array(left)


def _common(names: Some, others: Some) -> pa.Array:
    """Return the names in both, each once; the shorter list is hashed, 0.2 µs each.

    A part at a time: a hash table of millions of names would take several times their memory.
    """
    few, many = sorted((names, others), key=len)
    if not len(few):
        return _NONE
    hashed, is_common = as_one_array(few), np.zeros(len(many), np.bool_)
    for begin in range(0, len(hashed), _HASHED_AT_ONCE):
        part = hashed.slice(begin, _HASHED_AT_ONCE)
        is_common |= np.asarray(pc.is_in(many, value_set=part))
    return as_one_array(many.filter(pa.array(is_common)).drop_null().unique())
