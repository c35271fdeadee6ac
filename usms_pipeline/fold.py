"""Sessions + answers → receipts: the one place where an answer becomes a row.

Folding joins what is known with what was newly answered (``sql/registers.sql``), then matches
numbers to the recipients announced (``sql/receipts.sql``). No clock, no HTTP: the same answers
give the same rows, in any order and however often repeated.
"""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline import dataset, forget, quarantine, schema, scratch, wire
from usms_pipeline import sessions as placed
from usms_pipeline.dataset import (
    RECEIPTS,
    REGISTERS,
    RESPONSES,
    SESSIONS,
    Commit,
    file_name,
)
from usms_pipeline.phones import PhoneBook
from usms_pipeline.settings import Settings
from usms_pipeline.status import BUCKETS, FINAL, canonical, rank
from usms_pipeline.storage import Store

_ANSWERS_AT_ONCE = 200
_BYTES_AT_ONCE = 32_000_000
"""What is decoded at a time, whichever is met first: 200 usual answers are 3 MB."""

_ANSWERS_READ = 8
"""So many are read before their bytes are looked at. A file has 128 MB of them at most."""


@dataclass(frozen=True)
class PartitionCounts:
    """What one partition's receipts are now. ``buckets`` are of announced recipients only."""

    rows: int
    buckets: dict[str, int]
    unannounced: int
    awaited: int
    quarantined_new: int
    is_changed: bool

    @property
    def announced(self) -> int:
        """Count the recipients that the source announces."""
        return sum(self.buckets.values())


@dataclass
class ReceiptsReport:
    """What folding gave. ``rejected`` has the quarantine ids of all that could not be used."""

    partitions: dict[date, PartitionCounts] = field(default_factory=dict)
    rejected: set[str] = field(default_factory=set)
    locked: list[date] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def warnings(self) -> list[str]:
        """Give what a person should look at, in sentences."""
        found = []
        strange = sum(part.buckets.get("unrecognized", 0) for part in self.partitions.values())
        if strange:
            found.append(
                f"{strange:,} recipients have a status word that this version does not know; "
                "`usms rates --by provider_status` shows them. They are not counted as failed."
            )
        extra = sum(part.unannounced for part in self.partitions.values())
        announced = sum(part.announced for part in self.partitions.values())
        if extra > 0.01 * announced:
            found.append(
                f"{extra:,} receipts are for phones that the source does not announce (left out "
                "of the rates). Does one row stand for several recipients? Set "
                "USMS_RECIPIENTS_COLUMN or USMS_PHONE_COLUMN."
            )
        return found


def fold(
    store: Store,
    settings: Settings,
    book: PhoneBook,
    days: Iterable[date],
    *,
    is_anew: bool = False,
) -> ReceiptsReport:
    """Bring the receipts of partitions up to date with their sessions and answers.

    A partition where nothing is new is not written. One that another process holds is left alone
    and named in the report. ``is_anew`` makes them anew from all raw answers; where these were
    purged, from the registers, each status read anew from its word.

    Raises ``KeyMismatch``, ``NewerDataset``, ``StorageError``.
    """
    begun, report = time.monotonic(), ReceiptsReport()
    for day in days:
        with store.lock(f"sent_date={day}") as held:
            if not held:
                report.locked.append(day)
                continue
            counts = _fold_partition(store, settings, book, day, is_anew, report.rejected)
            if counts is not None:
                report.partitions[day] = counts
    report.seconds = time.monotonic() - begun
    return report


def conservation(store: Store, days: Iterable[date]) -> list[str]:
    """Check that every recipient announced is in exactly one bucket; gives what is amiss."""
    amiss = []
    with scratch.database() as con:
        for day in days:
            if not store.exists(file_name(SESSIONS, day)):
                continue
            if not store.exists(file_name(RECEIPTS, day)):
                amiss.append(f"{day}: has sessions but no receipts. Run `usms run --from {day}`.")
                continue
            _register(con, store, "sessions", file_name(SESSIONS, day), _ANNOUNCED)
            _register(con, store, "receipts", file_name(RECEIPTS, day), _BUCKETED)
            expected = scratch.value(con, "SELECT coalesce(sum(recipients), 0) FROM sessions")
            counted = scratch.value(con, "SELECT count(*) FROM receipts WHERE is_announced")
            stray = scratch.value(
                con, f"SELECT count(*) FROM receipts WHERE status NOT IN {BUCKETS}"
            )
            double = scratch.value(
                con,
                "SELECT count(*) FROM (SELECT 1 FROM receipts WHERE session_no IS NOT NULL "
                "GROUP BY session_no, recipient HAVING count(*) > 1)",
            )
            if expected != counted or stray or double:
                amiss.append(
                    f"{day}: {expected:,} recipients announced, {counted:,} counted, {stray:,} in "
                    f"no bucket, {double:,} twice. Run `usms rebuild --from {day} --to {day}`."
                )
    return amiss


def _fold_partition(
    store: Store,
    settings: Settings,
    book: PhoneBook,
    day: date,
    is_anew: bool,
    rejected: set[str],
) -> PartitionCounts | None:
    placed.mask(store, settings, day, book)
    sessions = dataset.checked_metadata(store, file_name(SESSIONS, day), book.fingerprint)
    if not sessions:
        return None
    commit = dataset.read_commit(store, day, book.fingerprint)
    landed = {name.rsplit("/", 1)[1] for name in store.names(f"{RESPONSES}/sent_date={day}")}
    is_from_registers = commit is not None and (not is_anew or commit.is_purged)
    folded = commit.folded if commit and not is_anew else frozenset()
    if commit and not is_anew and _is_current(commit, sessions["token"], landed, settings):
        return _counts(commit, is_changed=False)
    with scratch.database() as con:
        known = commit if commit and is_from_registers else None
        _known_registers(con, store, settings, book, day, known, is_anew)
        quarantined = _observe(con, store, settings, book, day, sorted(landed - folded), rejected)
        con.execute("CREATE TABLE registers AS " + scratch.sql("registers"))
        to_be = Commit(
            sessions=sessions["token"],
            registers=f"{uuid.uuid4().hex}.parquet",
            folded=frozenset(landed),
            dimensions=tuple(map(schema.dimension_name, settings.dimensions)),
            cutoff_hours=settings.cutoff_hours,
            is_purged=commit.is_purged if commit else False,
            phones=settings.phones,
        )
        # first, or a disk that is full now would have one more left with every run
        _tidy(store, day, commit.registers if commit else None)
        new = _write(con, store, settings, day, to_be, book.fingerprint)
    _tidy(store, day, new.registers)
    return dataclasses.replace(_counts(new, is_changed=True), quarantined_new=quarantined)


def _is_current(commit: Commit, sessions: str, landed: set[str], settings: Settings) -> bool:
    return (
        commit.sessions == sessions
        and landed <= commit.folded
        and commit.cutoff_hours == settings.cutoff_hours
        and not _must_mask(commit, settings)
    )


def _must_mask(commit: Commit, settings: Settings) -> bool:
    """Tell whether numbers are shown whole that no longer are to be."""
    return commit.phones == "clear" and settings.phones == "masked"


def _known_registers(
    con: duckdb.DuckDBPyConnection,
    store: Store,
    settings: Settings,
    book: PhoneBook,
    day: date,
    commit: Commit | None,
    is_anew: bool,
) -> None:
    """Fill ``known_registers``; when made anew, each status is read anew from its word."""
    scratch.create(con, "known_registers", schema.REGISTERS)
    if commit is None:
        return
    place = schema.REGISTERS.get_field_index("phone")
    name = file_name(REGISTERS, day, commit.registers)
    dataset.checked_metadata(store, name, book.fingerprint)
    for batch in store.batches(name):
        table = pa.table(batch).cast(schema.REGISTERS)
        if _must_mask(commit, settings):
            table = table.set_column(place, "phone", book.remasked(table["phone"]))
        scratch.insert(con, "known_registers", reread(table) if is_anew else table)


def reread(registers: pa.Table) -> pa.Table:
    """Read every status anew from the raw word, in registers; for words learned since.

    A word that became final moves from ``open`` to ``final``. ``finals_seen`` follows the word of
    the first outcome; of later ones only the status is known, and stays.
    """
    return pa.Table.from_pylist(
        [_reread_row(row) for row in registers.to_pylist()], schema.REGISTERS
    )


def _reread_row(row: dict[str, Any]) -> dict[str, Any]:
    seen = set(row["finals_seen"] or ())
    answers = [answer for answer in (row["final"], row["open"]) if answer is not None]
    for answer in answers:
        if answer["word"] is not None:
            seen.discard(answer["status"])
            answer["status"] = canonical(answer["word"])
            answer["rank"] = rank(answer["status"])
    finals = [answer for answer in answers if answer["status"] in FINAL]
    opens = [answer for answer in answers if answer["status"] not in FINAL]
    return row | {
        "final": min(finals, key=lambda a: a["asked_at"], default=None),
        "open": max(opens, key=lambda a: a["asked_at"], default=None),
        "finals_seen": sorted(seen | {answer["status"] for answer in finals}),
    }


def _observe(
    con: duckdb.DuckDBPyConnection,
    store: Store,
    settings: Settings,
    book: PhoneBook,
    day: date,
    names: list[str],
    rejected: set[str],
) -> int:
    """Decode response files into ``observations``; what can't be used goes to quarantine first."""
    quarantined, forgotten = 0, forget.read(store)
    observations = scratch.Pile(con, "observations", schema.REGISTERS)
    for name in names:
        dataset.checked_metadata(store, file_name(RESPONSES, day, name), None)
        for answers in portions(store.batches(file_name(RESPONSES, day, name), _ANSWERS_READ)):
            decoded = wire.decode(answers, book, settings.receipt_timezone)
            rejected.update(decoded.rejects["id"].to_pylist())
            quarantined += quarantine.add(store, day, decoded.rejects, book.fingerprint)
            kept = forget.without(decoded.observations, forgotten, "number")
            observations.add(kept)
    observations.close()
    return quarantined


def portions(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Put answers together until they are many, or large."""
    part: list[pa.RecordBatch] = []
    for batch in batches:
        part.append(batch)
        is_large = sum(one.nbytes for one in part) >= _BYTES_AT_ONCE
        if is_large or sum(one.num_rows for one in part) >= _ANSWERS_AT_ONCE:
            yield pa.Table.from_batches(part)
            part = []
    if part:
        yield pa.Table.from_batches(part)


def _matched(
    con: duckdb.DuckDBPyConnection, store: Store, settings: Settings, day: date
) -> pa.RecordBatchReader:
    """Stream the receipts that the sessions and the registers make, in the order of sending."""
    layout = schema.sessions_schema(settings.dimensions)
    _register(con, store, "sessions_file", file_name(SESSIONS, day), layout)
    names = [schema.dimension_name(dimension) for dimension in settings.dimensions]
    quoted = [scratch.identifier(name) for name in names]
    renamed = "".join(f", {name} AS dimension_{n}" for n, name in enumerate(quoted))
    plain = ", ".join(name for name in layout.names if name not in names)
    con.execute(f"CREATE TABLE sessions AS SELECT {plain}{renamed} FROM sessions_file")
    carried = "".join(f"dimension_{n} AS {name}, " for n, name in enumerate(quoted))
    query = scratch.sql("receipts", carried=carried, cutoff_seconds=settings.cutoff.total_seconds())
    return scratch.stream(con, query, schema.receipts_schema(settings.dimensions))


class _Counted:
    """Receipts that are counted as they stream by."""

    def __init__(self, rows: pa.RecordBatchReader) -> None:
        self.buckets = dict.fromkeys(BUCKETS, 0)
        self.unannounced = self.awaited = 0
        self.reader = pa.RecordBatchReader.from_batches(rows.schema, map(self._count, rows))

    def _count(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        is_announced = batch["is_announced"]
        for counted in pc.value_counts(batch["status"].filter(is_announced)).to_pylist():
            self.buckets[counted["values"]] += counted["counts"]
        self.unannounced += batch.num_rows - is_announced.true_count
        is_over = pc.or_(batch["is_final"], batch["is_closed"])
        self.awaited += batch.num_rows - is_over.true_count
        return batch


def _write(
    con: duckdb.DuckDBPyConnection,
    store: Store,
    settings: Settings,
    day: date,
    commit: Commit,
    fingerprint: str,
) -> Commit:
    """Write the registers, then the receipts that name them: the second write is the commit.

    Gives the commit with what was counted.
    """
    store.write(
        file_name(REGISTERS, day, commit.registers),
        scratch.stream(con, "SELECT * FROM registers", schema.REGISTERS),
        dataset.stamp(fingerprint),
    )
    counted = _Counted(_matched(con, store, settings, day))

    def whole() -> Commit:
        return dataclasses.replace(
            commit,
            buckets=counted.buckets,
            unannounced=counted.unannounced,
            awaited=counted.awaited,
        )

    store.write(file_name(RECEIPTS, day), counted.reader, lambda: whole().metadata(fingerprint))
    return whole()


def _tidy(store: Store, day: date, current: str | None) -> None:
    """Delete registers that no commit names, and what killed processes left in the partition."""
    for name in store.names(f"{REGISTERS}/sent_date={day}"):
        if not name.endswith(f"/{current}"):
            store.delete(name)
    dataset.sweep(store, day)


def _counts(commit: Commit, is_changed: bool) -> PartitionCounts:
    rows = sum(commit.buckets.values()) + commit.unannounced
    return PartitionCounts(rows, commit.buckets, commit.unannounced, commit.awaited, 0, is_changed)


def _register(
    con: duckdb.DuckDBPyConnection, store: Store, view: str, name: str, layout: pa.Schema
) -> None:
    con.register(view, store.dataset([name], layout))


_ANNOUNCED = pa.schema([("recipients", pa.int32())])
_BUCKETED = pa.schema(
    [
        ("session_no", schema.TEXT),
        ("recipient", schema.TEXT),
        ("status", schema.TEXT),
        ("is_announced", pa.bool_()),
    ]
)
