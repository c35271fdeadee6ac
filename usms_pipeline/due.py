"""Which sessions to ask about now, in what order, in what batches. Asks nothing itself."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline import dataset, polling, quarantine, schema, scratch
from usms_pipeline.dataset import REGISTERS, SESSIONS, Commit, file_name
from usms_pipeline.service.collect import Batch
from usms_pipeline.settings import Settings
from usms_pipeline.storage import Store

_MICROSECOND = timedelta(microseconds=1)
_IN_VAIN_EVERY = polling.IN_VAIN_EVERY // _MICROSECOND
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ANSWERED = pa.schema([schema.RESPONSES.field(name) for name in ("verdict", "ids", "asked_at")])
_TRIED = pa.schema([("session_no", schema.TEXT), ("asked_at", schema.TIME)])
_DUE = pa.schema([("session_no", schema.TEXT), ("unmet_at", schema.TIME)])


@dataclass(frozen=True)
class _Table:
    """The due sessions of one partition, in the order they are asked about."""

    con: duckdb.DuckDBPyConnection
    name: str
    day: date
    oldest_unmet_at: datetime


@dataclass
class Due:
    """The due sessions of some partitions: how many, since when, and the batches to ask."""

    sessions: dict[date, int] = field(default_factory=dict)
    oldest_unmet_at: datetime | None = None
    _tables: list[_Table] = field(default_factory=list)

    def requests(self, batch_size: int) -> int:
        """Count the requests needed when nothing goes wrong."""
        return sum(-(-count // batch_size) for count in self.sessions.values())

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Stream the batches, the one with the oldest unmet polling time first.

        Each has at most ``batch_size`` distinct sessions of one partition.
        """
        streams = [_batches(table, batch_size) for table in self._tables]
        merged = heapq.merge(*streams, key=lambda item: item[:2])
        return (batch for _, _, batch in merged if batch.ids)


def find(
    store: Store,
    settings: Settings,
    days: Iterable[date],
    now: datetime,
    stack: ExitStack,
    fingerprint: str,
) -> Due:
    """Find what is due at ``now`` in the partitions; ``stack`` owns the scratch space.

    What has landed in a partition must be folded: one without receipts counts as never asked.

    Raises ``KeyMismatch`` and ``OtherLayout``.
    """
    due = Due()
    offsets = [offset // _MICROSECOND for offset in settings.poll_offsets]
    con: duckdb.DuckDBPyConnection | None = None  # for most refreshes find nothing to look at
    for day in days:
        commit = dataset.read_commit(store, day, fingerprint)
        if commit and (not commit.awaited or _is_early(commit, settings, now)):
            continue
        con = con or stack.enter_context(scratch.database())
        # where nothing was answered yet, the sessions say all there is: nobody was asked about
        waiting = file_name(REGISTERS, day, commit.waiting) if commit else file_name(SESSIONS, day)
        con.register("waiting", store.dataset([waiting], schema.WAITING))
        con.register("tried", _tried_in_vain(store, day))
        table = f"due_{day:%Y%m%d}"
        query = f"CREATE TABLE {table} AS {scratch.sql('due')}"
        given = {"offsets": offsets, "now": now, "in_vain_every": _IN_VAIN_EVERY}
        con.execute(query, given)
        summary = f"SELECT count(*), min(unmet_at) FROM {table}"
        [(count, oldest)] = con.execute(summary).fetchall()
        if count:
            due.sessions[day] = count
            due.oldest_unmet_at = min(oldest, due.oldest_unmet_at or oldest)
            due._tables.append(_Table(con, table, day, oldest))
    return due


def _is_early(commit: Commit, settings: Settings, now: datetime) -> bool:
    """Tell whether a partition said, when it was folded, that nothing is due by now."""
    if commit.poll_seconds != seconds(settings.poll_offsets):
        return False
    return commit.next_due_at is None or now < commit.next_due_at


def seconds(offsets: Iterable[timedelta]) -> tuple[float, ...]:
    """Give polling times as a commit notes them."""
    return tuple(offset.total_seconds() for offset in offsets)


class NextDue:
    """The earliest polling time to come of receipts that stream by; the rule is ``sql/due.sql``."""

    def __init__(self, offsets: Iterable[timedelta]) -> None:
        self._offsets = np.array([offset // _MICROSECOND for offset in offsets], np.int64)
        self._earliest: int | None = None

    @property
    def at(self) -> datetime | None:
        """Give the moment; None where nothing will be due."""
        return None if self._earliest is None else _EPOCH + self._earliest * _MICROSECOND

    def add(self, waiting: pa.RecordBatch) -> None:
        """Take receipts that are neither final nor closed."""
        if not waiting.num_rows:
            return
        sent = np.asarray(waiting["sent_at"].cast(pa.int64()), np.int64)
        asked = waiting["last_asked_at"].cast(pa.int64())
        is_asked = np.asarray(asked.is_valid())
        after = np.asarray(asked.fill_null(0), np.int64) - sent
        turn = np.where(is_asked, np.searchsorted(self._offsets, after, side="right"), 0)
        has_turn = turn < len(self._offsets)
        offset = self._offsets[np.minimum(turn, len(self._offsets) - 1)]
        earliest = int((sent + np.where(has_turn, offset, after + _IN_VAIN_EVERY)).min())
        known = earliest if self._earliest is None else self._earliest
        self._earliest = min(earliest, known)


def _tried_in_vain(store: Store, day: date) -> pa.Table:
    """Give when sessions were last asked about whose answer could not be read.

    That is no answer, so nothing else counts it, and it closes nothing; but to ask at every run
    would bring no other.
    """
    if not quarantine.has_kind(store, day, quarantine.UNREADABLE):
        return _TRIED.empty_table()
    answers = store.dataset(dataset.answers(store, day), _ANSWERED)
    rows = answers.to_table(filter=pc.field("verdict") == "unreadable").combine_chunks()
    asked_at = rows["asked_at"].take(pc.list_parent_indices(rows["ids"]))
    return pa.table([pc.list_flatten(rows["ids"]), asked_at], schema=_TRIED)


def _batches(table: _Table, batch_size: int) -> Iterator[tuple[datetime, date, Batch]]:
    """Cut one partition's due sessions into batches, after an empty one that opens nothing.

    So a partition is read when its turn comes, and not while others are.
    """
    yield table.oldest_unmet_at, table.day, Batch(table.day, ())
    left = _DUE.empty_table()
    reader = table.con.cursor().sql(f"FROM {table.name}").to_arrow_reader(100 * batch_size)
    for chunk in reader:
        rows = pa.concat_tables([left, pa.table(chunk).cast(_DUE)]).combine_chunks()
        whole = rows.num_rows - rows.num_rows % batch_size
        yield from _cut(rows.slice(0, whole), table.day, batch_size)
        left = rows.slice(whole)
    yield from _cut(left, table.day, batch_size)


def _cut(rows: pa.Table, day: date, size: int) -> Iterator[tuple[datetime, date, Batch]]:
    for begin in range(0, rows.num_rows, size):
        ids = tuple(rows["session_no"].slice(begin, size).to_pylist())
        yield rows["unmet_at"][begin].as_py(), day, Batch(day, ids)
