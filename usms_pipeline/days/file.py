"""The file of one day: its footer, its due sessions, and how it is written whole.

``receipts/sent_date=D/receipts.parquet`` is all that is kept of a day. Its footer says what it was
made of, so that a day where nothing is new and nobody is due costs one read of it.
"""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.contract import polling, schema
from usms_pipeline.contract.errors import Changed, DamagedDay, StorageError
from usms_pipeline.contract.schema import TEXT, TIME
from usms_pipeline.contract.status import BUCKETS
from usms_pipeline.days.columns import STATE
from usms_pipeline.service.api import WORDS_DIGEST
from usms_pipeline.store.dataset import check_version
from usms_pipeline.store.storage import ANY, Store

Micros = npt.NDArray[np.int64]

DUE: Final = pa.schema([("session_no", TEXT), ("unmet_at", TIME)])
"""Sessions that are due, and the polling time of each that was not met."""

FOLDER: Final = "receipts"
_NAME: Final = re.compile(r"receipts/sent_date=(\d{4}-\d\d-\d\d)/receipts\.parquet")
_MICROSECOND: Final = timedelta(microseconds=1)
_IN_VAIN_EVERY: Final = polling.IN_VAIN_EVERY // _MICROSECOND
_JUDGED: Final = ["session_no", "recipient", "status", "is_announced"]
_POLLED: Final = ["session_no", "sent_at", "last_asked_at", "is_final", "is_closed", STATE]


@dataclass(frozen=True)
class Footer:
    """The footer of a day's file.

    ``version`` changes with the content. ``digest`` is a hash of the source rows that the file was
    made of; ``edge`` of the rows of its sessions that a reading of later days found; ``words`` of
    the table of status words. ``read`` has counts from the latest reading of the whole day: its
    ``rows`` and ``recipients``; ``copies`` of other rows; rows ``without_session``; stored rows
    that are ``gone`` from the source; and rows ``beside``, which were not read for this day.
    ``elsewhere``: sessions that were read for this day but are in another day's file, and which.

    ``buckets`` counts the recipients in the source, by status; ``open`` all rows that are neither
    final nor closed. ``next_due_at`` (microseconds): no session is due before, at the polling times
    ``polls`` (microseconds after sending); None: never.
    """

    key: str
    digest: str = ""
    edge: str = ""
    words: str = WORDS_DIGEST
    cutoff: int = 0
    phones: str = "masked"
    dimensions: list[str] = field(default_factory=list)
    polls: list[int] = field(default_factory=list)
    read: dict[str, int] = field(default_factory=dict)
    elsewhere: dict[str, str] = field(default_factory=dict)
    layout: int = schema.VERSION
    version: str = field(default_factory=lambda: uuid.uuid4().hex)
    buckets: dict[str, int] = field(default_factory=dict)
    unannounced: int = 0
    open: int = 0
    next_due_at: int | None = None
    tag: str = field(default="", compare=False)
    """The tag of the file (``Store.tag``); it is not in the file."""

    @property
    def announced(self) -> int:
        """Count the recipients that are in the source."""
        return sum(self.buckets.values())

    @property
    def rows(self) -> int:
        """Count the rows."""
        return self.announced + self.unannounced


def name(day: date) -> str:
    """Return the name of a day's file in the data directory."""
    return f"{FOLDER}/sent_date={day}/{FOLDER}.parquet"


def days(store: Store) -> list[date]:
    """List the days that have a file, ascending; files of others don't count."""
    matches = [_NAME.fullmatch(one) for one in store.names(FOLDER)]
    return sorted(date.fromisoformat(match[1]) for match in matches if match)


def footer(store: Store, day: date) -> Footer | None:
    """Return the footer of a day's file; None where there is no file.

    Raises ``DamagedDay`` for a file that can't be read, ``OtherLayout`` for another version's.
    """
    with _translating_errors(day):
        said, tag = store.tagged_metadata(name(day))
        if not tag:
            return None
        if not said:
            raise DamagedDay(day, "it says nothing of itself: something else wrote it")
        try:
            found = json.loads(said["day"])
            check_version(store, name(day), found["layout"])
            return replace(msgspec.convert(found, Footer), tag=tag)
        except (KeyError, ValueError, TypeError, msgspec.ValidationError):
            if said.get("version", "").isdecimal():  # of an older layout
                check_version(store, name(day), int(said["version"]))
            raise DamagedDay(day, "what it says of itself can't be read") from None


def sessions(store: Store, day: date) -> pa.Array:
    """Return the session numbers that a day's file has, one for each row."""
    found = [pa.array([], TEXT)]
    if store.exists(name(day)):
        with _translating_errors(day):
            found += [one["session_no"] for one in store.batches(name(day), columns=["session_no"])]
    return pa.concat_arrays(found)


def asked(store: Store, day: date, names: pa.Array) -> pa.Table:
    """Return the recipients of some sessions, by a day's file, and when these were asked about."""
    wanted = ["session_no", "recipient", "last_asked_at"]
    with _translating_errors(day):
        found = pa.Table.from_batches(store.batches(name(day), columns=wanted))
    return found.filter(pc.is_in(found["session_no"], names))


def rows(store: Store, day: date, names: pa.Schema | None = None) -> Iterator[pa.Table]:
    """Yield a day's rows, a row group at a time; none where there is no file.

    ``names``: the columns to give them; what the file lacks is NULL, what it has beside goes.
    """
    if store.exists(name(day)):
        with _translating_errors(day):
            for batch in store.batches(name(day)):
                yield _as(pa.table(batch), names)


def wrong_counts(store: Store, day: date) -> str | None:
    """Return what is wrong with a day's figures, in a sentence; None where all is well.

    Each recipient in the source has exactly one status, and they are as many as the source's latest
    reading had, copies left out and those counted that are gone from it, or were not read with it.
    """
    try:
        said = footer(store, day)
        tables = [table.select(_JUDGED) for table in rows(store, day)]
    except DamagedDay as error:
        return str(error)
    if said is None or not tables:  # all of its sessions were rescheduled
        return None
    table = pa.concat_tables(tables).combine_chunks()
    announced = table.filter(table["is_announced"])
    stray = pc.sum(pc.invert(pc.is_in(announced["status"], pa.array(BUCKETS)))).as_py() or 0
    named = table.filter(pc.is_valid(table["session_no"]))
    different = named.group_by(["session_no", "recipient"]).aggregate([]).num_rows
    double = named.num_rows - different
    counted, read = announced.num_rows, said.read
    expected = counted
    if read:
        expected = read["recipients"] - read["copies"] + read["gone"] + read["beside"]
    if counted == expected == said.announced and not stray and not double:
        return None
    return (
        f"{day}: {expected:,} recipients in the source, {counted:,} counted, "
        f"{stray:,} without a status, {double:,} twice. Run `usms rebuild --from {day} --to {day}`."
    )


def write(
    store: Store,
    day: date,
    tables: Iterable[pa.Table],
    names: pa.Schema,
    of: Callable[[], Footer | None],
    over: str = ANY,
) -> Footer | None:
    """Write a day's file and return its footer: what ``of`` returns, and counts of the rows.

    ``tables`` are drawn while it is written, so that a large day is never in memory as a whole;
    ``of`` is called when all are. Where it gives None, the file stays as it was. Raises ``Changed``
    where the file that is there has another tag than ``over``.
    """
    tally = _Tally()
    batches = (batch for table in tables for batch in tally.counted(table).to_batches())
    reader = pa.RecordBatchReader.from_batches(names, batches)
    written: list[Footer] = []

    def metadata() -> dict[str, str]:
        said = of()
        if said is None:
            raise _Unchanged
        written.append(tally.footer(said))
        return {"day": json.dumps({k: v for k, v in vars(written[0]).items() if k != "tag"})}

    try:
        with suppress(Changed):  # it may have come, and only the response was lost
            store.write(name(day), reader, metadata, over=over)
    except _Unchanged:
        return None
    there = replace(written[0], tag=ANY) if store.is_local else footer(store, day)
    if there is None or there.version != written[0].version:
        raise Changed(name(day))
    return there


def due(store: Store, day: date, now: int, polls: Sequence[int], said: Footer) -> pa.Table:
    """Return the sessions of a day that are due at ``now`` (microseconds), as ``DUE``.

    A day whose footer (``said``) says that nothing is due is not read.
    """
    is_known = said.polls == list(polls)
    if said.open == 0 or (is_known and (said.next_due_at or 2**62) > now):
        return DUE.empty_table()
    found = [DUE.empty_table()]
    tries: dict[str, int] = {}
    with _translating_errors(day):
        for batch in store.batches(name(day), columns=_POLLED):
            table = pa.table(batch)
            note_tries(table, tries)
            found.append(due_among(open_rows(table), now, polls, tries))
    return once(pa.concat_tables(found))


def due_among(waiting: pa.Table, now: int, polls: Sequence[int], tries: dict[str, int]) -> pa.Table:
    """Return the open rows that are due, as ``DUE``."""
    unmet = next_polls(waiting, polls, tries)
    table = pa.table([waiting["session_no"], pa.array(unmet).cast(TIME)], schema=DUE)
    return table.filter(pa.array(unmet <= now))


def in_order(due: pa.Table) -> pa.Table:
    """Return sessions of ``DUE``, the longest overdue first."""
    order = np.argsort(np.asarray(due["unmet_at"].cast(pa.int64())), kind="stable")
    return due if np.array_equal(order, np.arange(len(order))) else due.take(pa.array(order))


def once(due: pa.Table) -> pa.Table:
    """Return each session of ``DUE`` once, with the oldest polling time that was not met."""
    due = in_order(due).combine_chunks()
    coded = due["session_no"].combine_chunks().dictionary_encode()
    if len(coded.dictionary) == len(coded):
        return due
    first = np.unique(np.asarray(coded.indices), return_index=True)[1]
    return due.take(pa.array(np.sort(first)))


def note_tries(rows: pa.Table, tries: dict[str, int]) -> None:
    """Note the sessions of which no answer was readable, and when they were last asked about.

    The first of a session's rows has its state; the others, which come after it, were asked with
    it, and that one may have a final status.
    """
    if rows[STATE].null_count < rows.num_rows:
        is_tried = pc.match_substring(rows[STATE], '"tried_at"')
        for row in rows.filter(is_tried).select(["session_no", STATE]).to_pylist():
            tries[row["session_no"]] = json.loads(row[STATE])["tried_at"]


def next_polls(waiting: pa.Table, polls: Sequence[int], tries: dict[str, int]) -> Micros:
    """Return the oldest polling time that each open row has not met, in microseconds.

    Past the last polling time, that is a day after it was last tried (``tries``: ``note_tries``).
    """
    offsets = np.array(polls, np.int64)
    sent = np.asarray(waiting["sent_at"].cast(pa.int64()))
    # a copy: of Arrow's own values none can be changed
    asked = np.asarray(waiting["last_asked_at"].cast(pa.int64()).fill_null(-1)).copy()
    among = pc.is_in(waiting["session_no"], value_set=pa.array([*tries], TEXT)) if tries else []
    for place in np.flatnonzero(np.asarray(among)):
        asked[place] = max(asked[place], tries[waiting["session_no"][int(place)].as_py()])
    after = asked - sent
    turn = np.where(asked < 0, 0, np.searchsorted(offsets, after, side="right"))
    offset = offsets[np.minimum(turn, len(offsets) - 1)]
    return np.asarray(sent + np.where(turn < len(offsets), offset, after + _IN_VAIN_EVERY))


def open_rows(table: pa.Table) -> pa.Table:
    """Return the rows that are neither final nor closed."""
    return table.filter(pc.invert(pc.or_(table["is_final"], table["is_closed"])))


def _as(table: pa.Table, names: pa.Schema | None) -> pa.Table:
    if names is None or table.schema.equals(names):
        return table
    columns = [
        table[one.name].cast(one.type) if one.name in table.column_names
        else pa.nulls(table.num_rows, one.type)
        for one in names
    ]  # fmt: skip
    return pa.table(columns, schema=names)


@contextmanager
def _translating_errors(day: date) -> Iterator[None]:
    """Raise ``DamagedDay`` for a damaged file. An error of the system's (with an errno) passes."""
    try:
        yield
    except DamagedDay:
        raise
    except StorageError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno is not None:
            raise
        raise DamagedDay(day, str(cause).splitlines()[0]) from error


class _Unchanged(Exception):
    """There is nothing to write."""


class _Tally:
    def __init__(self) -> None:
        self._buckets: Counter[str] = Counter()
        self._unannounced = self._open = 0
        self._waiting: list[pa.Table] = []
        self._tries: dict[str, int] = {}

    def counted(self, table: pa.Table) -> pa.Table:
        announced = table["status"].filter(table["is_announced"])
        for one in pc.value_counts(announced.combine_chunks()).to_pylist():
            self._buckets[one["values"]] += one["counts"]
        self._unannounced += table.num_rows - len(announced)
        note_tries(table, self._tries)
        waiting = open_rows(table.select(_POLLED))
        self._open += waiting.num_rows
        if waiting.num_rows:
            self._waiting.append(waiting)
        return table

    def footer(self, of: Footer) -> Footer:
        earliest = [
            int(next_polls(one, of.polls, self._tries).min()) for one in self._waiting if of.polls
        ]
        return replace(
            of,
            buckets=dict(self._buckets),
            unannounced=self._unannounced,
            open=self._open,
            next_due_at=min(earliest, default=None),
        )
