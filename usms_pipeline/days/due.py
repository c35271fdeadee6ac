"""Which sessions are due: open or new, and a polling time has passed since they were asked about.

What is due is a table of ``DUE``; ``unmet_at`` is the polling time that has passed.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.contract.errors import DamagedDay
from usms_pipeline.contract.schema import TEXT, TIME
from usms_pipeline.days import columns, file
from usms_pipeline.days.held import Day, Held, Part
from usms_pipeline.days.reading import DayRead

DUE: Final = pa.schema([*file.DUE, ("day", pa.int32())])
"""``file.DUE``, with the index of the session's day in the given list."""


def due(held: Held, days: Iterable[date], now: int) -> pa.Table:
    """Return the due sessions of days at ``now`` (microseconds), the longest overdue first."""
    days = [*days]
    found = [DUE.empty_table()]
    for place, day in enumerate(days):
        try:
            table = _due_of(held, held.days[day], now)
        except DamagedDay as error:
            held.outcome.damaged[day] = str(error)
            continue
        if table.num_rows:
            held.outcome.due[day] = table.num_rows
            found.append(_placed(table, place))
    rows = pa.concat_tables(found).combine_chunks()
    # else a session may be in two days' files: a move was interrupted
    are_distinct = all(held.days[day].is_plain_and_new for day in days)
    return file.in_order(rows) if are_distinct else file.once(rows)


def due_of_part(held: Held, part: Part, now: int) -> pa.Table:
    """Return the due sessions of a part of a large new day."""
    table = _due_of(held, Day(part.day.day, None, part.read), now)
    held.outcome.due[part.day.day] = held.outcome.due.get(part.day.day, 0) + table.num_rows
    return _placed(table, 0)


def named(held: Held, sessions: pa.Array) -> pa.Table:
    """Return which of some sessions the days' files have, due or not; holds these days."""
    for day in file.days(held.store):
        if pc.any(pc.is_in(held.names(day), value_set=sessions)).as_py():
            held.take(day)
    found = [DUE.empty_table()]
    for place, day in enumerate(held.days):
        names = held.names(day).unique()
        its = names.filter(pc.is_in(names, value_set=sessions))
        at = pa.array(np.zeros(len(its), np.int64)).cast(TIME)
        found.append(_placed(pa.table([its, at], schema=file.DUE), place))
    return file.once(pa.concat_tables(found))


def _placed(rows: pa.Table, place: int) -> pa.Table:
    return rows.append_column("day", pa.array(np.full(rows.num_rows, place, np.int32)))


def _due_of(held: Held, day: Day, now: int) -> pa.Table:
    found = [file.DUE.empty_table()]
    if day.footer is not None:
        found.append(file.due(held.store, day.day, now, held.polls, day.footer))
    for table in day.arriving:
        tries: dict[str, int] = {}
        file.note_tries(table, tries)
        found.append(file.due_among(file.open_rows(table), now, held.polls, tries))
    if day.read is not None:
        known = [] if day.is_new else [held.names(day.day)]
        known += [one["session_no"] for one in day.arriving]
        found.append(_new(held, day.read.rows, known, now))
        if day.footer is not None:
            found.append(_grown(held, day, day.read, now))
    rows = pa.concat_tables(found)
    rows = rows if day.is_plain_and_new else file.once(rows)
    if others := {*day.leaving, *held.forgotten.sessions}:
        rows = rows.filter(pc.invert(pc.is_in(rows["session_no"], pa.array([*others], TEXT))))
    return rows


def _new(held: Held, rows: pa.Table, stored: list[Any], now: int) -> pa.Table:
    if held.forgotten.recipients:
        rows = held.described(rows)
    names = rows["session_no"].combine_chunks()
    is_new = pc.is_valid(names)
    for known in stored:
        if len(known):
            is_new = pc.and_(is_new, pc.invert(pc.is_in(names, value_set=known)))
    at = np.asarray(rows["sent_at"].cast(pa.int64())) + held.polls[0]
    is_due = pc.and_(is_new, pa.array(at <= now))
    return pa.table([names, pa.array(at).cast(TIME)], schema=file.DUE).filter(is_due)


def _grown(held: Held, day: Day, read: DayRead, now: int) -> pa.Table:
    """Return the sessions with a new phone: due even if all their others have a final status."""
    more = columns.outnumbered(held.names(day.day), read.rows["session_no"].combine_chunks())
    if not len(more):
        return file.DUE.empty_table()
    rows = held.described(read.rows.filter(pc.is_in(read.rows["session_no"], more)))
    rows = rows.filter(pc.is_valid(rows["recipient"])).select(
        ["session_no", "recipient", "sent_at"]
    )
    known = file.asked(held.store, day.day, more)
    fresh = rows.join(known, ["session_no", "recipient"], join_type="left anti")
    asked = known.group_by("session_no").aggregate([("last_asked_at", "max")])
    asked = asked.rename_columns(["session_no", "last_asked_at"])
    fresh = fresh.join(asked, "session_no").combine_chunks()
    return file.due_among(fresh, now, held.polls, {})
