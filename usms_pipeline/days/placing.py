"""Where a session is: in one day's file, even if its rows are read with other times later.

The source tells the day of a session by its earliest row. A session that a file has already stays
there while one of its rows is of that day, and moves where all were rescheduled. The new place is
written before the old one is left, so that a kill between the two leaves it in both; then the old
one lets go of it at the next reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.contract.schema import TEXT
from usms_pipeline.days.columns import as_one_array
from usms_pipeline.days.reading import DayRead

Some = Any  # an array of texts, in one piece or several
Names = Callable[[date], pa.Array]
"""The session numbers that a day's file has."""

_NONE: Final = pa.array([], TEXT)


def find(
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
        new = pc.unique(_without(sessions, names(day)))
        here = {one: date.fromisoformat(at) for one, at in known.get(day, {}).items()}
        left = new.filter(pc.is_in(new, value_set=pa.array([*here], TEXT)))
        elsewhere = {one: here[one] for one in left.to_pylist()}
        for other in others:
            its = _common(new, names(other)) if other != day else _NONE
            elsewhere |= dict.fromkeys({*its.to_pylist()} - elsewhere.keys(), other)
        if elsewhere:
            found[day] = elsewhere
    return found


def elsewhere(
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
    """Return the names in both, each once; the shorter list is hashed, 0.2 µs each."""
    few, many = sorted((names, others), key=len)
    if not len(few):
        return _NONE
    return as_one_array(
        many.filter(pc.is_in(many, value_set=as_one_array(few))).drop_null().unique()
    )
