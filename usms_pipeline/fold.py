"""Sessions + answers → receipts: the one place where an answer becomes a row.

Folding joins what is known with what was newly answered (``sql/registers.sql``), then matches
numbers to the recipients announced (``sql/receipts.sql``). No clock, no HTTP: the same answers
give the same rows, in any order and however often repeated.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline import (
    affected,
    dataset,
    due,
    forget,
    quarantine,
    registers,
    schema,
    scratch,
)
from usms_pipeline import sessions as placed
from usms_pipeline.affected import Change
from usms_pipeline.dataset import RECEIPTS, RESPONSES, SESSIONS, Commit, file_name
from usms_pipeline.due import NextDue
from usms_pipeline.metrics import UNANNOUNCED_SHARE
from usms_pipeline.phones import PhoneBook
from usms_pipeline.registers import Registers
from usms_pipeline.service.decode import decode
from usms_pipeline.settings import Settings
from usms_pipeline.status import BUCKETS
from usms_pipeline.storage import Store

_ANSWERS_AT_ONCE = 200
_BYTES_AT_ONCE = 32_000_000
"""What is decoded at a time, whichever is met first: 200 usual answers are 3 MB."""

_OBSERVED = schema.OBSERVATIONS.remove(schema.OBSERVATIONS.get_field_index("digits"))
_ROWS_JOINED = 330_000
"""Sessions and what is known of them, joined at a time: some 200 MB."""

_MANY_RECIPIENTS = 200_000
"""Of more, the tables are in a file from the start (``scratch.database``)."""

_MEMORY_LIMIT = "448MB"
"""What is joined at a time, and the registers, while they are in memory."""

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
    """What folding gave. ``rejected`` has the quarantine ids of all that could not be used.

    ``changes`` are for ``warehouse.reconcile``, in the order they were made; not for people.
    """

    partitions: dict[date, PartitionCounts] = field(default_factory=dict)
    rejected: set[str] = field(default_factory=set)
    locked: list[date] = field(default_factory=list)
    seconds: float = 0.0
    changes: list[Change] = field(default_factory=list, repr=False)

    @property
    def quarantined_new(self) -> int:
        """Count the entries that went into quarantine."""
        return sum(part.quarantined_new for part in self.partitions.values())

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
        if extra > UNANNOUNCED_SHARE * announced:
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

    Raises ``KeyMismatch``, ``OtherLayout``, ``StorageError``.
    """
    begun, report = time.monotonic(), ReceiptsReport()
    with scratch.Reused(_MEMORY_LIMIT) as reused:
        for day in days:
            with store.lock(f"sent_date={day}") as held:
                if not held:
                    report.locked.append(day)
                    continue
                counts = _fold_partition(store, settings, book, reused, day, is_anew, report)
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
    reused: scratch.Reused,
    day: date,
    is_anew: bool,
    report: ReceiptsReport,
) -> PartitionCounts | None:
    placed.mask(store, settings, day, book)
    sessions = dataset.checked_metadata(store, file_name(SESSIONS, day), book.fingerprint)
    if not sessions:
        return None
    commit = dataset.read_commit(store, day, book.fingerprint)
    landed = {name.rsplit("/", 1)[1] for name in dataset.answers(store, day)}
    if commit and not is_anew and _is_current(commit, sessions["token"], landed, settings):
        return _counts(commit, is_changed=False)
    folded = commit.folded if commit and not is_anew else frozenset()
    layout = schema.sessions_schema(settings.dimensions)
    announced = store.dataset([file_name(SESSIONS, day)], layout)
    recipients = pc.sum(announced.to_table(columns=["recipients"])["recipients"]).as_py() or 0
    is_large = recipients > _MANY_RECIPIENTS
    with (
        scratch.database(scratch.LARGE_LIMIT, is_large=True) if is_large else reused.database()
    ) as con:
        con.register("sessions_file", announced)
        new_names = sorted(landed - folded)
        quarantined = _observe(con, store, settings, book, day, new_names, report.rejected)
        masks = commit is not None and _must_mask(commit, settings)
        known = Registers(con, store, book, day, reads_anew=is_anew, masks=masks)
        part = None
        if commit and not is_anew:
            part = affected.find(con, store, settings, day, commit, sessions["token"])
        if commit and part:
            known.load_some(commit, part)
            some = store.select(file_name(SESSIONS, day), "session_no", part.sessions)
            con.register("sessions_file", some.select(layout.names))
        elif commit and (not is_anew or commit.is_purged):
            known.load(commit.registers)
        matched = _match(con, settings)
        to_be = Commit(
            sessions=sessions["token"],
            settled_registers=commit.settled_registers if commit and part else (),
            open_registers="",  # named, as those who wait, when it is written
            waiting="",
            folded=frozenset(landed),
            dimensions=tuple(map(schema.dimension_name, settings.dimensions)),
            cutoff_hours=settings.cutoff_hours,
            is_purged=commit.is_purged if commit else False,
            phones=settings.phones,
            poll_seconds=due.seconds(settings.poll_offsets),
        )
        # first, or a disk that is full now would have more left with every run
        registers.tidy(store, day, commit.files if commit else ())
        in_order = f"FROM {matched} ORDER BY sent_at, session_no, recipient"
        receipts = scratch.stream(con, in_order, schema.receipts_schema(settings.dimensions))
        if part:
            receipts = part.among(store.batches(file_name(RECEIPTS, day)), receipts)
        counted = _Counted(receipts, settings.poll_offsets)
        new = _write(store, known, day, counted, to_be, book.fingerprint)
    if commit and part:
        report.changes.append(Change(day, commit.token, new.token, part.sessions))
    registers.tidy(store, day, new.files)
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


def _observe(
    con: duckdb.DuckDBPyConnection,
    store: Store,
    settings: Settings,
    book: PhoneBook,
    day: date,
    names: list[str],
    rejected: set[str],
) -> int:
    """Decode response files into ``observed``; what can't be used goes to quarantine first."""
    quarantined, forgotten = 0, forget.read(store)
    observations = scratch.Pile(con, "observations", _OBSERVED)
    for name in names:
        dataset.checked_metadata(store, file_name(RESPONSES, day, name), None)
        for answers in portions(store.batches(file_name(RESPONSES, day, name), _ANSWERS_READ)):
            decoded = decode(answers, book, settings.receipt_timezone)
            rejected.update(decoded.rejects["id"].to_pylist())
            quarantined += quarantine.add(store, day, decoded.rejects, book.fingerprint)
            said = decoded.observations.select(_OBSERVED.names)
            said = said.filter(pc.is_valid(said["status"]))  # to ask in vain is no answer
            observations.add(forget.without_receipts(said, forgotten))
    observations.settle()
    con.execute(f"CREATE VIEW observed AS {scratch.sql('observed')}")
    return quarantined


def portions(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Put answers together until they are many, or large."""
    part: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        part.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= _ANSWERS_AT_ONCE or size >= _BYTES_AT_ONCE:
            yield pa.Table.from_batches(part)
            part, rows, size = [], 0, 0
    if part:
        yield pa.Table.from_batches(part)


def _match(con: duckdb.DuckDBPyConnection, settings: Settings) -> str:
    """Return what to read the receipts of the ``sessions_file`` from; makes ``registers`` too.

    The sessions are dealt into parts that can be joined in memory.
    """
    # Behind a hash the planner's guesses of sizes are far off: it would hold the largest side of a
    # join in memory, twice what this takes, and not all of that can spill.
    con.execute("SET disabled_optimizers = 'build_side_probe_side'")
    layout = schema.sessions_schema(settings.dimensions)
    names = [schema.dimension_name(dimension) for dimension in settings.dimensions]
    quoted = [scratch.identifier(name) for name in names]
    renamed = "".join(f", {name} AS dimension_{n}" for n, name in enumerate(quoted))
    plain = ", ".join(name for name in layout.names if name not in (*names, "changed_in"))
    con.execute(f"CREATE TABLE sessions AS SELECT {plain}{renamed} FROM sessions_file")
    tables = ("sessions", "known_registers", "observations")
    rows = sum(scratch.value(con, f"SELECT count(*) FROM {table}") for table in tables)
    parts = 1 + rows // _ROWS_JOINED
    filled_in = {
        "parts": parts,
        "carried": "".join(f"dimension_{n} AS {name}, " for n, name in enumerate(quoted)),
        "cutoff_seconds": settings.cutoff.total_seconds(),
    }
    # where nothing was heard of twice, as on a first run, there is nothing to join, nor to keep
    is_heard_once = not scratch.value(con, _HEARD_AGAIN)
    kind, joined = ("VIEW", _HEARD_ONCE) if is_heard_once else ("TABLE", scratch.sql("registers"))
    if parts == 1:
        filled_in |= {"part": 0, "registers": "registers"}
        con.execute(f"CREATE {kind} registers AS {scratch.filled(joined, **filled_in)}")
        # not a view: to make one costs as much as to read it, when they are few
        return f"({scratch.sql('receipts', **filled_in)})"
    if is_heard_once:
        con.execute(f"CREATE VIEW registers AS {_EVERYTHING}")
    else:
        scratch.create(con, "registers", schema.REGISTERS)
    scratch.create(con, "receipts", schema.receipts_schema(settings.dimensions))
    for part in range(parts):
        filled_in |= {"part": part, "registers": "some_registers"}
        some = scratch.filled(joined, **filled_in)
        con.execute(f"CREATE OR REPLACE {kind} some_registers AS {some}")
        con.execute(f"INSERT INTO receipts {scratch.sql('receipts', **filled_in)}")
        if not is_heard_once:
            con.execute("INSERT INTO registers BY NAME FROM some_registers")
    return "receipts"


_EVERYTHING = "FROM known_registers UNION ALL BY NAME FROM observed"
_HEARD_ONCE = f"FROM ({_EVERYTHING}) WHERE hash(session_no) % {{{{parts}}}} = {{{{part}}}}"
_HEARD_AGAIN = f"""
    SELECT count(*)
    FROM (SELECT 1 FROM ({_EVERYTHING}) GROUP BY hash(session_no, number) HAVING count(*) > 1)
"""


class _Counted:
    """Receipts that are counted as they stream by; who is still asked about is kept."""

    def __init__(self, rows: pa.RecordBatchReader, offsets: Iterable[timedelta]) -> None:
        self.next_due = NextDue(offsets)
        self.buckets = dict.fromkeys(BUCKETS, 0)
        self.unannounced = 0
        self._waiting: list[pa.RecordBatch] = []
        self.reader = pa.RecordBatchReader.from_batches(rows.schema, map(self._count, rows))

    @property
    def waiting(self) -> pa.Table:
        """Give the rows that are neither final nor closed, as ``schema.WAITING``."""
        return pa.Table.from_batches(self._waiting, schema.WAITING)

    def _count(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        is_announced = batch["is_announced"]
        for counted in pc.value_counts(batch["status"].filter(is_announced)).to_pylist():
            self.buckets[counted["values"]] += counted["counts"]
        self.unannounced += batch.num_rows - is_announced.true_count
        is_over = pc.or_(batch["is_final"], batch["is_closed"])
        waiting = batch.filter(pc.invert(is_over))
        self.next_due.add(waiting)
        self._waiting.append(waiting.select(schema.WAITING.names).cast(schema.WAITING))
        return batch


def _write(
    store: Store,
    known: Registers,
    day: date,
    counted: _Counted,
    commit: Commit,
    fingerprint: str,
) -> Commit:
    """Write the receipts and, before they get their name, the registers that they name.

    The file of receipts is the commit. Gives the commit with what was counted.
    """
    done = commit

    def metadata() -> dict[str, str]:
        nonlocal done
        waiting = counted.waiting
        settled, still_open, beside = known.write(commit.settled_registers, waiting)
        done = dataclasses.replace(
            commit,
            settled_registers=settled,
            open_registers=still_open,
            waiting=beside,
            buckets=counted.buckets,
            unannounced=counted.unannounced,
            awaited=waiting.num_rows,
            next_due_at=counted.next_due.at,
        )
        return done.metadata(fingerprint)

    store.write(file_name(RECEIPTS, day), counted.reader, metadata)
    return done


def _counts(commit: Commit, is_changed: bool) -> PartitionCounts:
    return PartitionCounts(
        commit.rows, commit.buckets, commit.unannounced, commit.awaited, 0, is_changed
    )


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
