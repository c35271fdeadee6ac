"""Where a session is: in one day's file, whatever its rows say at the next reading.

The source tells the day of a session by its earliest row. A session that a file has already stays
there while one of its rows is of that day, and moves where all were rescheduled. The new place is
written before the old one is left, so that a kill between the two leaves it in both; then the old
one lets go of it at the next reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.days.reading import DayRead
from usms_pipeline.schema import TEXT

Names = Callable[[date], pa.Array]
"""The session numbers that a day's file has."""


def find(
    changed: Mapping[date, DayRead],
    read_for: Mapping[date, pa.Array],
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
        sessions = read_for.get(day, pa.array([], TEXT))  # none where all left the source
        new = pc.unique(_without(sessions, names(day)))
        here = {one: date.fromisoformat(at) for one, at in known.get(day, {}).items()}
        elsewhere = {
            one: here[one]
            for one in new.filter(pc.is_in(new, value_set=pa.array([*here], TEXT))).to_pylist()
        }
        for other in others:
            if other == day or not len(new):
                continue
            both = new.filter(pc.is_in(new, value_set=names(other)))
            for one in both.to_pylist():
                elsewhere.setdefault(one, other)
        if elsewhere:
            found[day] = elsewhere
    return found


def twice(
    changed: Iterable[date], read_for: Mapping[date, pa.Array], names: Names
) -> dict[date, set[str]]:
    """Return, by day, the sessions that it still has though they were read for, and are in, another.

    A move was interrupted between its two writings.
    """
    found: dict[date, set[str]] = {}
    for day in changed:
        unread = _without(names(day), read_for.get(day, pa.array([], TEXT)))
        if not len(unread):
            continue
        for other, sessions in read_for.items():
            if other == day:
                continue
            moved = unread.filter(pc.is_in(unread, value_set=sessions))
            if len(moved):
                moved = moved.filter(pc.is_in(moved, value_set=names(other)))
                found.setdefault(day, set()).update(moved.to_pylist())
    return {day: sessions for day, sessions in found.items() if sessions}


def _without(names: pa.Array, others: pa.Array) -> pa.Array:
    """Return the names that are not NULL and not among others."""
    names = names.drop_null()
    return names.filter(pc.invert(pc.is_in(names, value_set=others))) if len(others) else names
