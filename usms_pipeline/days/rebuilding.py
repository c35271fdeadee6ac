"""Rebuilding rows: of which sessions the log still has everything, as if none were asked yet.

A session of which each response that its row or state names is kept is rebuilt from these. Where
one is gone, by whomever, what the day's file knows stays and is joined with the rest. Not so for
one from the future: it came by a clock that was fast, and was moved away so as not to count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.contract.schema import OBSERVATIONS, TEXT, TIME, as_one_array
from usms_pipeline.days import columns
from usms_pipeline.days.columns import OWN, STATE
from usms_pipeline.days.general import WHO, Session

ANSWERED: Final = pa.schema([("session_no", TEXT), ("asked_at", TIME)])
"""A session, and the time of a question about it whose response is kept."""

_TIMES: Final = ("first_asked_at", "last_asked_at", "last_open_at", "final_at")


def answered(block: pa.Table) -> pa.Table:
    """Return which sessions a block (``schema.RESPONSES``) has responses for, as ``ANSWERED``."""
    verdicts = pa.array(["ok", "refused", "unanswered", "unreadable"])
    kept = pc.is_in(block["verdict"], value_set=verdicts)
    rows = block.filter(kept).combine_chunks()
    ids = rows["ids"].combine_chunks()
    asked_at = rows["asked_at"].combine_chunks().take(pc.list_parent_indices(ids))
    return pa.table([pc.list_flatten(ids), asked_at], schema=ANSWERED)


def in_turn(said: list[tuple[int, pa.Table]]) -> list[pa.Table]:
    """Return the answers of several runs (by number) as tables with one answer per session.

    One after the other they can be put into the rows in columns, as they were when they came.
    """
    whole = pa.concat_tables([OBSERVATIONS.empty_table(), *(table for _, table in said)])
    counts = [table.num_rows for _, table in said]
    number = np.repeat(np.array([number for number, _ in said], np.int64), counts)
    code = np.asarray(as_one_array(whole["session_no"]).dictionary_encode().indices)
    order = np.lexsort((number, code))
    code, number = code[order], number[order]
    is_first = np.append(True, code[1:] != code[:-1])[: len(code)]
    is_next = is_first[1:] | (number[1:] != number[:-1])
    turn = np.append(0, np.cumsum(is_next))[: len(code)]
    turn -= np.maximum.accumulate(np.where(is_first, turn, 0))
    turns = np.empty_like(turn)
    turns[order] = turn
    return [whole.filter(pa.array(turns == n)) for n in range(max(1, turns.max(initial=0) + 1))]


def unasked(
    stored: Iterable[pa.Table],
    answered: Iterable[pa.Table],
    names: pa.Schema,
    cutoff: int,
    now: int,
    missing: set[int],
) -> Iterator[pa.Table]:
    """Yield a day's rows; those of sessions whose answers are all in the log, as if never asked.

    What was asked later than ``now`` was asked by a clock that was wrong: only the log counts.
    ``missing`` is given the times (microseconds) of the responses that rows name and nothing keeps.
    """
    known = pa.concat_tables([ANSWERED.empty_table(), *answered])
    kept: dict[str, list[dict[str, Any]]] = {}
    for table in stored:
        its = known.filter(
            pc.is_in(known["session_no"], value_set=as_one_array(table["session_no"]))
        )
        keys = _keys(its["session_no"], its["asked_at"])
        is_plain = np.asarray(pc.is_null(table[STATE]))
        is_answered = is_plain & np.asarray(pc.is_valid(table["first_asked_at"]))
        for name in _TIMES:
            at = table[name].cast(pa.int64())
            is_kept = pc.is_in(_keys(table["session_no"], table[name]), value_set=keys)
            is_wrong = pc.greater(at, now).fill_null(True)  # or none
            is_fine = np.asarray(pc.or_(is_wrong, is_kept))
            is_answered &= is_fine
            missing.update(at.filter(pa.array(is_plain & ~is_fine)).unique().to_pylist())
        yield table.filter(pa.array(is_plain & ~is_answered))
        yield _blank(table.filter(pa.array(is_answered)))
        for row in columns.python(table.filter(pa.array(~is_plain))):
            kept.setdefault(row["session_no"], []).append(row)
    yield from _general(kept, known, names, cutoff, now, missing)


def _keys(sessions: pa.ChunkedArray, times: pa.ChunkedArray) -> pa.Array:
    return columns.keys_of(sessions, times.cast(pa.int64()).cast(TEXT))


def _blank(rows: pa.Table) -> pa.Table:
    nobody = pa.scalar(None, TEXT)
    sent = rows.select(["session_no", "sent_at", *columns.dimensions_of(rows.schema)])
    for name in ("recipient", *WHO):
        sent = sent.append_column(name, pc.if_else(rows[OWN], rows[name], nobody))
    return columns.unasked(sent, rows.schema)


def _general(
    kept: dict[str, list[dict[str, Any]]],
    answered: pa.Table,
    names: pa.Schema,
    cutoff: int,
    now: int,
    missing: set[int],
) -> Iterator[pa.Table]:
    if not kept:
        return
    dimensions = columns.dimensions_of(names)
    among = answered.filter(pc.is_in(answered["session_no"], value_set=pa.array([*kept], TEXT)))
    times: dict[str, set[int]] = {}
    for row in columns.python(among):
        times.setdefault(row["session_no"], set()).add(row["asked_at"])
    made = []
    for session_no, rows in kept.items():
        known = columns.known_of(rows, dimensions)
        named = _times_of(known)
        lacking = {at for at in named if at <= now} - times.get(session_no, set())
        missing |= lacking
        if named and not lacking:
            unasked = Session(sent=known.sent)
            rows = columns.rows_of(session_no, unasked, names.names, dimensions, cutoff)
        made += rows
    yield columns.table_of(made, names)


def _times_of(known: Session) -> set[int]:
    answers = [one for number in known.numbers.values() for one in (number.final, number.open)]
    found = {one.asked_at for one in answers if one}
    times = (known.first_asked_at, known.last_asked_at, known.last_open_at, known.tried_at)
    return found | {one for one in times if one is not None}
