"""The source's rows of a window, each with the day that its session belongs to.

A session has one day, that of its earliest row, however its other rows lie around midnight. What a
day is made of has a digest, in any order of the rows: a day that reads as it did when its
file was written needs no more than that. Phones are texts here, in memory alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.contract.schema import TIME
from usms_pipeline.source import in_memory
from usms_pipeline.store.dataset import Window, day_start

NOTHING: Final = "0"
"""The digest of a day without source rows."""

MARGIN: Final = timedelta(days=1)
"""How far beyond a window is read, to find the other rows of a session at its border."""

_EPOCH: Final = date(1970, 1, 1)
_DAY: Final = "usms_day"
"""No dimension is called so (``schema.dimension_name``)."""


@dataclass(frozen=True)
class DayRead:
    """What was read for one day: its rows as the source gave them, and their digest.

    Unless ``is_whole``, the day is before the window, and has only the rows of sessions that go on
    in it.
    ``are_distinct``: each row has a session of its own.
    """

    day: date
    rows: pa.Table
    digest: str
    is_whole: bool = True
    are_distinct: bool = False

    def __repr__(self) -> str:  # not the rows, which hold phone numbers
        return f"DayRead({self.day}, {self.rows.num_rows} rows, {self.digest})"


def parts(read: DayRead, most: int) -> Iterator[DayRead]:
    """Yield a large day in parts of about ``most`` rows, each with sessions of its own."""
    rows = read.rows
    if not read.are_distinct:
        codes = rows["session_no"].combine_chunks().dictionary_encode("encode").indices
        rows = rows.take(pa.array(np.argsort(np.asarray(codes), kind="stable")))
    names = rows["session_no"]
    begin = 0
    while begin < rows.num_rows:
        end = min(begin + most, rows.num_rows)
        while end < rows.num_rows and names[end] == names[end - 1]:
            end += 1
        yield replace(read, rows=rows.slice(begin, end - begin))
        begin = end


class Reading:
    """Collects the source's rows in batches, and yields them by day.

    ``about`` is everything else that decides what a day's file is made of, for the digest: the
    names of the columns, the time zone, the cutoff, the key.
    """

    def __init__(self, window: Window, tz: ZoneInfo, about: Sequence[object]) -> None:
        self._window, self._about = window, repr([*about])
        around = Window(window.first - MARGIN, window.last + 2 * MARGIN).days()
        starts = [pa.scalar(day_start(day, tz), TIME).value for day in around]
        self._days = np.array([(day - _EPOCH).days for day in around], np.int32)
        self._starts = np.array(starts, np.int64)
        self._batches: list[pa.Table] = []
        self._own: list[npt.NDArray[np.int32]] = []  # each row's day
        self._known: npt.NDArray[np.uint64] | None = None
        self.rows = self.within = 0
        self.newest: int | None = None

    def only_known_from_here(self) -> None:
        """From here on, add only rows of sessions that have a row already, compared by hash."""
        sessions = [_hashes(batch) for batch in self._batches]
        self._known = np.sort(np.concatenate([*sessions, np.zeros(1, np.uint64)]))

    def add(self, batch: pa.RecordBatch) -> None:
        """Add rows with a ``session_no`` (or NULL), a ``sent_at`` and any other columns."""
        moments = np.asarray(batch["sent_at"].cast(pa.int64()))
        if len(moments):
            self.newest = max(int(moments.max()), self.newest or 0)
        if self._known is not None:
            hashes = _hashes(pa.table(batch))
            place = np.searchsorted(self._known, hashes, side="right") - 1
            is_known = self._known[place] == hashes
            batch, moments = batch.filter(pa.array(is_known)), moments[is_known]
        place = np.searchsorted(self._starts, moments, side="right") - 1
        self.within += int(np.count_nonzero((place > 0) & (place < len(self._days) - 2)))
        self._own.append(self._days[np.clip(place, 0, None)])
        # a copy in one piece: what a driver hands over may hold half again of what it needs
        self._batches.append(pa.table(pa.ipc.read_record_batch(batch.serialize(), batch.schema)))
        self.rows += batch.num_rows

    def days(self) -> Iterator[DayRead]:
        """Yield what was read for each day of the window, ascending, and of sessions beside it.

        A session that begins on the day before the window and goes on in it is that day's: then
        the day before is yielded too, with such sessions alone.
        """
        if not self._batches:
            return
        # in the pieces that they came in, so that a day's go with it
        rows, own = pa.concat_tables(self._batches), np.concatenate(self._own)
        self._batches, self._own = [], []
        are_distinct = _are_distinct(rows)
        days = own if are_distinct else _of_sessions(rows["session_no"].combine_chunks(), own)
        first, last = ((one - _EPOCH).days for one in (self._window.first, self._window.last))
        is_within = (own >= first) & (own <= last)
        is_wanted = (days >= first) & (days <= last)
        crossing = is_within & ~is_wanted
        if crossing.any():
            sessions = rows["session_no"]
            ours = sessions.filter(pa.array(crossing)).combine_chunks()
            is_wanted |= np.asarray(pc.is_in(sessions, value_set=ours))
        if not is_wanted.all():
            batches, days = rows.to_batches(), days[is_wanted]
            del rows  # batch by batch, so that what is not wanted goes
            rows = pa.Table.from_batches(_wanted(batches, is_wanted), batches[0].schema)
        order = np.argsort(days, kind="stable")
        if not np.array_equal(order, np.arange(len(order))):
            rows, days = rows.take(pa.array(order)), days[order]
        with in_memory.connect() as con:
            con.register("part", rows.append_column(_DAY, pa.array(days)))
            digests = con.execute(
                f"SELECT {_DAY}, count(*) || '-' || sum(hash($about, part)) FROM part GROUP BY 1",
                {"about": self._about},
            ).fetchall()
        digest_of = dict(digests)
        edges = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]
        for begin, end in pairwise(edges):
            if begin < end:
                part = rows.slice(begin, end - begin)
                day = _EPOCH + timedelta(days=int(days[begin]))
                digest = digest_of[int(days[begin])]
                yield DayRead(day, part, digest, day in self._window, are_distinct)


def _wanted(
    batches: list[pa.RecordBatch], is_wanted: npt.NDArray[np.bool_]
) -> Iterator[pa.RecordBatch]:
    """Yield the wanted rows of batches, and empty the list."""
    at = 0
    while batches:
        batch = batches.pop(0)
        yield batch.filter(pa.array(is_wanted[at : at + batch.num_rows]))
        at += batch.num_rows


def _are_distinct(rows: pa.Table) -> bool:
    """Return whether each row has a session of its own, as the usual table has.

    Compares hashes, which is ten times faster. Where two are equal, the caller goes the long way.
    """
    hashes = np.sort(_hashes(rows))
    return not (hashes[1:] == hashes[:-1]).any()


def _hashes(rows: pa.Table) -> npt.NDArray[np.uint64]:
    with in_memory.connect() as con:
        con.register("part", rows)
        hashes, at = np.empty(rows.num_rows, np.uint64), 0
        for batch in con.sql("SELECT hash(session_no) FROM part").to_arrow_reader():
            hashes[at : at + batch.num_rows] = batch[0]
            at += batch.num_rows
    return hashes


def _of_sessions(sessions: pa.Array, own: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Return each row's day: the earliest of its session's, or its own where it has no session."""
    codes = np.asarray(sessions.dictionary_encode().indices.fill_null(-1))
    earliest = np.full(codes.max(initial=0) + 1, np.iinfo(np.int32).max, np.int32)
    has_session = codes >= 0
    np.minimum.at(earliest, codes[has_session], own[has_session])
    return np.where(has_session, earliest[codes], own)
