"""Hands the source's rows to the days whose files have their sessions."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline import source
from usms_pipeline.contract.schema import TEXT
from usms_pipeline.days import columns, doubts, file, general, placing
from usms_pipeline.days.file import Footer
from usms_pipeline.days.held import Day, Held
from usms_pipeline.days.reading import MARGIN, NOTHING, DayRead, Reading
from usms_pipeline.store.dataset import Window, day_start

_ONE_DAY: Final = timedelta(days=1)


class SourceRows:
    """The rows of a window, and the times of sending that were read: rows within may be gone.

    ``first`` and ``last`` are in microseconds since 1970, the margins included.
    """

    def __init__(self, held: Held) -> None:
        self._held = held
        self.first, self.last = 0, 2**62
        self.window = Window(date.max, date.min)
        self._read_for: dict[date, pa.ChunkedArray] = {}

    def read(self, window: Window, tell: Any = lambda rows: None) -> None:
        """Read a window; hold its days where they are not as their files say they were read.

        ``tell`` is called with the number of rows read so far. Raises ``UsmsError`` where the rows
        can't be those of sent messages (``doubts``).
        """
        held, settings = self._held, self._held.settings
        start = day_start(window.first, settings.zone) - MARGIN
        end = day_start(window.last + _ONE_DAY, settings.zone) + MARGIN
        self.first, self.last = (int(one.timestamp() * 1_000_000) for one in (start, end))
        self.window = window
        rows = Reading(window, settings.zone, self._about)
        cells = source.Cells()
        judged = source.schema(settings.dimensions).empty_table()
        for batch in source.read(settings, start, end, cells):
            rows.add(batch)
            if judged.num_rows < doubts.MOST_ROWS:
                judged = pa.concat_tables([judged, pa.table(batch)])
            tell(rows.rows)
        judged = judged.slice(0, doubts.MOST_ROWS)
        held.outcome.notes += doubts.notes(doubts.of_rows(judged, cells, settings, held.book))
        held.outcome.rows_read = cells.rows
        held.outcome.newest_sent_at = rows.newest
        self._read_for = {}
        for read in rows.days():
            self._read_for[read.day] = read.rows["session_no"]
            self._keep_if_new(read)
            held.outcome.repeats |= not read.are_distinct
        for day in held.files:
            if day in window and day not in self._read_for:
                empty = source.schema(settings.dimensions).empty_table()
                self._keep_if_new(DayRead(day, empty, NOTHING))

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
        twice, once = placing.elsewhere(changed, self._read_for, held.names)
        for day in twice:
            held.days[day].leaving |= twice[day]
            held.days[day].beside |= once[day]
        known = {day: one.elsewhere for day, one in said.items()}
        found = placing.find(changed, self._read_for, known, near, held.names_if_whole)
        for day, elsewhere in found.items():
            for home in sorted({*elsewhere.values()}):
                its = [session for session, at in elsewhere.items() if at == home]
                self._settle(held.days[day], home, pa.array(its, TEXT))
        self._read_for = {}

    def _settle(self, here: Day, at: date, sessions: pa.Array) -> None:
        """Let sessions read for one day stay in the file that has them, or move to that day."""
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
        known = columns.sessions_of(stored, self._held.dimensions)
        coming = columns.sent_of(self._held.described(read), self._held.dimensions)
        zone, moving = self._held.settings.zone, set()
        for session_no, session in known.items():
            general.announce(session.sent, coming.get(session_no, []), self.first, self.last)
            times = (datetime.fromtimestamp(one.sent_at / 1_000_000, zone) for one in session.sent)
            if all(one.date() != at for one in times):
                moving.add(session_no)
        return moving
