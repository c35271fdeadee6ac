"""The source's rows of a window, each with the day that its session belongs to.

A session has one day, that of its earliest row, however its other rows lie around midnight. What a
day is made of has a digest, in whatever order the rows came: a day that reads as it did when its
file was written needs no more than that. Phones are texts here, in memory alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.dataset import Window, day_start
from usms_pipeline.schema import TIME

NOTHING: Final = "0"
"""The digest of a day that nothing was read of."""

MARGIN: Final = timedelta(days=1)
"""How much is read on both sides of a window: of a session at its border, the other rows."""

_EPOCH: Final = date(1970, 1, 1)


@dataclass(frozen=True)
class DayRead:
    """What was read for one day: its rows as the source gave them, and their digest.

    Unless ``is_whole``, only those of sessions that go on in the window, which begins after it.
    ``are_distinct``: each row has a session of its own.
    """

    day: date
    rows: pa.Table
    digest: str
    is_whole: bool = True
    are_distinct: bool = False

    def __repr__(self) -> str:  # not the rows, which hold phone numbers
        return f"DayRead({self.day}, {self.rows.num_rows} rows, {self.digest})"


def counts(rows: pa.Table) -> dict[str, int]:
    """Count the rows read of a day, the recipients they stand for, and those without a session."""
    return {
        "rows": rows.num_rows,
        "recipients": pc.sum(rows["recipients"]).as_py() or 0,
        "without_session": rows["session_no"].null_count,
    }


class Reading:
    """Takes the source's rows in batches, and gives them back by day.

    ``about`` is whatever else decides what a day's file is made of them, for the digest: the names
    of the columns, the zone, the cutoff, the key.
    """

    def __init__(self, window: Window, tz: ZoneInfo, about: Sequence[object]) -> None:
        self._window, self._about = window, repr([*about])
        around = Window(window.first - MARGIN, window.last + 2 * MARGIN).days()
        starts = [pa.scalar(day_start(day, tz), TIME).value for day in around]
        self._days = np.array([(day - _EPOCH).days for day in around], np.int32)
        self._starts = np.array(starts, np.int64)
        self._batches: list[pa.Table] = []
        self._own: list[npt.NDArray[np.int32]] = []  # each row's day
        self.rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Take rows with a ``session_no`` (or NULL), a ``sent_at`` and whatever else."""
        moments = np.asarray(batch["sent_at"].cast(pa.int64()))
        place = np.searchsorted(self._starts, moments, side="right") - 1
        self._own.append(self._days[np.clip(place, 0, None)])
        self._batches.append(pa.table(batch))
        self.rows += batch.num_rows

    def days(self) -> Iterator[DayRead]:
        """Yield what was read for each day of the window, ascending, and of sessions beside it.

        A session that begins on the day before the window and goes on in it is that day's: then
        the day before is yielded too, with such sessions alone.
        """
        if not self._batches:
            return
        rows = pa.concat_tables(self._batches).combine_chunks()
        own = np.concatenate(self._own)
        self._batches, self._own = [], []
        sessions = rows["session_no"].combine_chunks()
        # the usual table has a row a session
        are_distinct = pc.count_distinct(sessions, mode="all").as_py() == len(sessions)
        days = own if are_distinct else _of_sessions(sessions, own)
        first, last = ((one - _EPOCH).days for one in (self._window.first, self._window.last))
        is_within = (own >= first) & (own <= last)
        is_wanted = (days >= first) & (days <= last)
        crossing = is_within & ~is_wanted
        if crossing.any():
            is_wanted |= np.asarray(pc.is_in(sessions, value_set=sessions.filter(crossing)))
        if not is_wanted.all():
            rows, days = rows.filter(pa.array(is_wanted)), days[is_wanted]
        order = np.argsort(days, kind="stable")
        if not np.array_equal(order, np.arange(len(order))):
            rows, days = rows.take(pa.array(order)), days[order]
        edges = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]
        with duckdb.connect() as con:
            for begin, end in pairwise(edges):
                if begin < end:
                    part = rows.slice(begin, end - begin)
                    day = _EPOCH + timedelta(days=int(days[begin]))
                    yield DayRead(
                        day, part, self._digest(con, part), day in self._window, are_distinct
                    )

    def _digest(self, con: duckdb.DuckDBPyConnection, rows: pa.Table) -> str:
        con.register("part", rows)
        [(count, total)] = con.execute(
            "SELECT count(*), sum(hash($about, part))::VARCHAR FROM part", {"about": self._about}
        ).fetchall()
        con.unregister("part")
        return f"{count}-{total}"


def _of_sessions(sessions: pa.Array, own: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Return each row's day: the earliest of its session's, or its own where it has no session."""
    codes = np.asarray(sessions.dictionary_encode().indices.fill_null(-1))
    earliest = np.full(codes.max(initial=0) + 1, np.iinfo(np.int32).max, np.int32)
    has_session = codes >= 0
    np.minimum.at(earliest, codes[has_session], own[has_session])
    return np.where(has_session, earliest[codes], own)
