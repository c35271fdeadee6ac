"""The file of one day: what its footer says, who in it is due, and how it is written whole.

``receipts/sent_date=D/receipts.parquet`` is all that is kept of a day. Its footer says what it was
made of, so that a day where nothing is new and nobody is due costs one read of it.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline import dataset, polling, schema
from usms_pipeline.days.columns import STATE
from usms_pipeline.schema import TEXT, TIME
from usms_pipeline.storage import Store

Micros = npt.NDArray[np.int64]

DUE: Final = pa.schema([("session_no", TEXT), ("unmet_at", TIME)])
"""Sessions that are due, and the polling time of each that was not met."""

_MICROSECOND: Final = timedelta(microseconds=1)
_IN_VAIN_EVERY: Final = polling.IN_VAIN_EVERY // _MICROSECOND
_POLLED: Final = ["session_no", "sent_at", "last_asked_at", "is_final", "is_closed", STATE]


@dataclass(frozen=True)
class Footer:
    """What a day's file says of itself.

    ``version`` is new with every content. ``digest`` is of the source's rows that it has, ``words``
    of the table of status words it was made with. ``buckets`` counts the recipients announced, by
    status; ``open`` all rows that are neither final nor closed. ``next_due_at`` (microseconds): no
    session is due before, at the polling times ``polls`` (microseconds after sending); None: never.
    ``is_purged``: some responses were deleted, so a rebuild keeps what the file knows.
    """

    key: str
    digest: str = ""
    words: str = ""
    cutoff: int = 0
    phones: str = "masked"
    dimensions: list[str] = field(default_factory=list)
    polls: list[int] = field(default_factory=list)
    is_purged: bool = False
    layout: int = schema.VERSION
    version: str = field(default_factory=lambda: uuid.uuid4().hex)
    buckets: dict[str, int] = field(default_factory=dict)
    unannounced: int = 0
    open: int = 0
    next_due_at: int | None = None

    @property
    def rows(self) -> int:
        """Count the rows."""
        return sum(self.buckets.values()) + self.unannounced


def name(day: date) -> str:
    """Return the name of a day's file in the data directory."""
    return dataset.file_name(dataset.RECEIPTS, day)


def sessions(store: Store, day: date) -> pa.Array:
    """Return the session numbers that a day's file has."""
    found = [pa.array([], TEXT)]
    if store.exists(name(day)):
        found += [batch["session_no"] for batch in store.batches(name(day), columns=["session_no"])]
    return pa.concat_arrays(found)


def once(due: pa.Table) -> pa.Table:
    """Return each session of ``DUE`` once, with the oldest polling time that was not met."""
    together = due.group_by("session_no").aggregate([("unmet_at", "min")])
    return together.rename_columns(DUE.names).cast(DUE)


def footer(store: Store, day: date) -> Footer | None:
    """Return what a day's file says of itself; None where there is none."""
    said = store.metadata(name(day))
    return msgspec.convert(json.loads(said["day"]), Footer) if said else None


def rows(store: Store, day: date) -> Iterator[pa.Table]:
    """Yield a day's rows, a row group at a time; none where there is no file."""
    if store.exists(name(day)):
        for batch in store.batches(name(day)):
            yield pa.table(batch)


def write(
    store: Store, day: date, tables: Iterable[pa.Table], names: pa.Schema, of: Footer
) -> Footer:
    """Write a day's file and return its footer: ``of``, with what its rows tell.

    ``tables`` are drawn while it is written, so that a large day is never in memory as a whole.
    """
    tally = _Tally(of)
    batches = (batch for table in tables for batch in tally.counted(table).to_batches())
    reader = pa.RecordBatchReader.from_batches(names, batches)
    store.write(name(day), reader, lambda: {"day": json.dumps(asdict(tally.footer))})
    return tally.footer


def due(store: Store, day: date, now: int, polls: Sequence[int]) -> pa.Table:
    """Return the sessions of a day that are due at ``now`` (microseconds), as ``DUE``."""
    said = footer(store, day)
    if said is None or (said.polls == list(polls) and (said.next_due_at or 2**62) > now):
        return DUE.empty_table()
    found = [DUE.empty_table()]
    for batch in store.batches(name(day), columns=_POLLED):
        waiting = _open(pa.table(batch))
        unmet = next_polls(waiting, polls)
        is_due = pa.array(unmet <= now)
        table = pa.table([waiting["session_no"], pa.array(unmet).cast(TIME)], schema=DUE)
        found.append(table.filter(is_due))
    return once(pa.concat_tables(found))


def next_polls(waiting: pa.Table, polls: Sequence[int]) -> Micros:
    """Return the oldest polling time that each open row has not met, in microseconds."""
    offsets = np.array(polls, np.int64)
    sent = np.asarray(waiting["sent_at"].cast(pa.int64()))
    asked = _last_tries(waiting)
    after = asked - sent
    turn = np.where(asked < 0, 0, np.searchsorted(offsets, after, side="right"))
    offset = offsets[np.minimum(turn, len(offsets) - 1)]
    return np.asarray(sent + np.where(turn < len(offsets), offset, after + _IN_VAIN_EVERY))


def _last_tries(waiting: pa.Table) -> Micros:
    """Return when each row was last asked about, in vain or not; -1 where it never was."""
    asked = np.array(waiting["last_asked_at"].cast(pa.int64()).fill_null(-1))
    is_tried = pc.match_substring(waiting[STATE], '"tried_at"').fill_null(False)
    tried = {  # the first row of a session has the state; the others were asked with it
        row["session_no"]: json.loads(row[STATE])["tried_at"]
        for row in waiting.filter(is_tried).select(["session_no", STATE]).to_pylist()
    }
    if tried:
        is_among = pc.is_in(waiting["session_no"], value_set=pa.array([*tried], TEXT))
        for place in np.flatnonzero(np.asarray(is_among)):
            asked[place] = max(asked[place], tried[waiting["session_no"][int(place)].as_py()])
    return asked


def _open(table: pa.Table) -> pa.Table:
    return table.filter(pc.invert(pc.or_(table["is_final"], table["is_closed"])))


class _Tally:
    """Counts rows as they stream by."""

    def __init__(self, of: Footer) -> None:
        self._of = of
        self._buckets: Counter[str] = Counter()
        self._unannounced = self._open = 0
        self._next_due_at: int | None = None

    def counted(self, table: pa.Table) -> pa.Table:
        announced = table.filter(table["is_announced"])
        for one in pc.value_counts(announced["status"].combine_chunks()).to_pylist():
            self._buckets[one["values"]] += one["counts"]
        self._unannounced += table.num_rows - announced.num_rows
        waiting = _open(table)
        self._open += waiting.num_rows
        if waiting.num_rows and self._of.polls:
            earliest = int(next_polls(waiting, self._of.polls).min())
            known = earliest if self._next_due_at is None else self._next_due_at
            self._next_due_at = min(earliest, known)
        return table

    @property
    def footer(self) -> Footer:
        counted: dict[str, Any] = {"buckets": dict(self._buckets), "unannounced": self._unannounced}
        return msgspec.convert(
            asdict(self._of) | counted | {"open": self._open, "next_due_at": self._next_due_at},
            Footer,
        )
