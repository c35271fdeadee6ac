"""The customer's source rows, placed in the partitions they belong to and kept.

A session that begins in the last hour of a day belongs there with the rest of it, after midnight.
Rows are merged with what is stored and never dropped. The source itself is read elsewhere; no
HTTP here.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Final

import duckdb
import pyarrow as pa

from usms_pipeline import dataset, forget, schema, scratch
from usms_pipeline.dataset import SESSIONS, Window, file_name
from usms_pipeline.errors import SettingProblem, SettingsError
from usms_pipeline.phones import PhoneBook
from usms_pipeline.settings import Settings
from usms_pipeline.storage import Store

MARGIN: Final = timedelta(hours=1)
"""How much of the neighbouring days is read, so that one send at midnight is not torn."""

_IDENTITY: Final = (
    "timezone",
    "source_timezone",
    "session_column",
    "sent_at_column",
    "default_region",  # the hash of a number without a country code hangs on it
)
_KEPT: Final = ("recipient", "phone", "country", "operator", "number_type", "ordinal")
"""What stays as it is stored when the phone was blanked in the source."""
_STORED_ONE: Final = (
    "n.ordinal IS NULL",
    "n.ordinal IS NULL OR (n.recipient IS NULL AND s.recipient IS NOT NULL)",
)


@dataclass(frozen=True)
class SessionsPartition:
    """What one partition holds now: source rows, recipients announced, rows new in this run.

    ``gone_rows`` were read before and are not in the source any more.
    """

    rows: int
    recipients: int
    new_rows: int
    is_changed: bool
    gone_rows: int = 0


@dataclass
class SessionsReport:
    """What reading the source gave."""

    partitions: dict[date, SessionsPartition] = field(default_factory=dict)
    rows_read: int = 0
    rows_without_session: int = 0
    rows_gone: int = 0
    torn_sessions: list[str] = field(default_factory=list)
    locked: list[date] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def warnings(self) -> list[str]:
        """Give what a person should look at, in sentences."""
        found = []
        if self.rows_without_session:
            found.append(
                f"{self.rows_without_session:,} source rows have no usable session number: they "
                "count as invalid. Check USMS_SESSION_COLUMN."
            )
        if self.rows_gone:
            found.append(
                f"{self.rows_gone:,} rows that were read before are no longer in the source. They "
                "are kept and counted, as is right where old rows are archived. Not so where a "
                "row's time of sending, session number or phone was changed (it counts twice now), "
                "or where USMS_SOURCE_URL or USMS_SOURCE_TABLE names another table."
            )
        if self.torn_sessions:
            found.append(
                f"{len(self.torn_sessions)} sessions are in two partitions (their rows lie more "
                f"than an hour apart over midnight): each row counts in its own day, and the "
                "receipts of the other's phones may show there as unannounced: "
                f"{', '.join(self.torn_sessions[:5])}"
            )
        return found


def load(
    store: Store,
    settings: Settings,
    window: Window,
    batches: Iterable[pa.RecordBatch],
    book: PhoneBook,
) -> SessionsReport:
    """Merge the rows read for ``window`` (and the margin around it) into its partitions.

    A partition that another process holds is left alone and named in the report.
    Raises ``KeyMismatch``, ``NewerDataset``, ``SettingsError``, ``StorageError``.
    """
    begun, report = time.monotonic(), SessionsReport()
    dataset.mark_layout(store)
    with scratch.database() as con:
        forgotten = forget.read(store)
        report.rows_read = _take_in(con, batches, book, settings.dimensions, forgotten)
        _place(con, store, window, settings)
        rows = con.execute("SELECT DISTINCT sent_date FROM placed ORDER BY 1").fetchall()
        for (day,) in rows:
            with store.lock(f"sent_date={day}") as held:
                if held:
                    _leave_out(con, forget.read(store))
                    mask(store, settings, day, book)
                    merged = _merge(con, store, settings, window, day, book.fingerprint)
                    report.partitions[day] = merged
                else:
                    report.locked.append(day)
        report.rows_gone = _gone(store, window, report)
        report.rows_without_session = scratch.value(
            con, "SELECT count(*) FROM placed WHERE session_no IS NULL"
        )
        report.torn_sessions = _torn(con, store, report)
    report.seconds = time.monotonic() - begun
    return report


def _take_in(
    con: duckdb.DuckDBPyConnection,
    batches: Iterable[pa.RecordBatch],
    book: PhoneBook,
    dimensions: tuple[str, ...],
    forgotten: forget.Forgotten,
) -> int:
    """Fill table ``incoming``; phone numbers become hashes here and are not kept."""
    layout = pa.schema([f for f in schema.sessions_schema(dimensions) if f.name != "ordinal"])
    scratch.create(con, "incoming", layout)
    rows = 0
    for batch in batches:
        columns = {name: batch.column(name) for name in batch.schema.names if name != "phone"}
        described = book.describe(batch.column("phone"))
        columns |= {
            described.type.field(i).name: described.field(i)
            for i in range(described.type.num_fields)
        }
        chunk = pa.table({name: columns[name] for name in layout.names})
        scratch.insert(con, "incoming", forget.without(chunk, forgotten, "recipient"))
        rows += batch.num_rows
    return rows


def _leave_out(con: duckdb.DuckDBPyConnection, forgotten: forget.Forgotten) -> None:
    """Drop what was forgotten since the rows were read."""
    if not forgotten:
        return
    con.execute(
        "DELETE FROM placed WHERE recipient IN (SELECT unnest($recipients::VARCHAR[]))"
        " OR session_no IN (SELECT unnest($sessions::VARCHAR[]))",
        {"recipients": list(forgotten.recipients), "sessions": list(forgotten.sessions)},
    )


def _place(
    con: duckdb.DuckDBPyConnection, store: Store, window: Window, settings: Settings
) -> None:
    """Fill table ``placed``: the incoming rows of the window, each with its session's partition.

    That is the row's own day, or the day before where the session has a row in the last hour of
    that day: the margin is read with every window, so the place does not hang on the window.
    """
    around = Window(window.first - timedelta(days=1), window.last + timedelta(days=2)).days()
    starts = [dataset.day_start(day, settings.zone) for day in around]
    ends = [*starts[1:], starts[-1]]
    layout = pa.schema(
        [("sent_date", pa.date32()), ("starts_at", schema.TIME), ("ends_at", schema.TIME)]
    )
    con.register("day_starts", pa.table([around, starts, ends], schema=layout))
    con.execute("CREATE TABLE days AS FROM day_starts")
    con.execute(
        """
        CREATE TABLE crossing AS
        SELECT DISTINCT i.session_no, d.sent_date AS first_day, d.sent_date + 1 AS last_day
        FROM incoming AS i ASOF JOIN days AS d ON i.sent_at >= d.starts_at
        WHERE i.session_no IS NOT NULL AND i.sent_at >= d.ends_at - to_microseconds($margin)
        """,
        {"margin": MARGIN // timedelta(microseconds=1)},
    )
    con.execute("CREATE TABLE stays (session_no VARCHAR, last_day DATE, sent_date DATE)")
    _find_stays(con, store)
    # Wanted are the rows of the window's days, wherever they belong, and of what belongs there.
    con.execute(
        """
        CREATE TABLE placed AS
        SELECT coalesce(k.sent_date, c.first_day, j.sent_date, d.sent_date) AS sent_date, i.*
        FROM incoming AS i
        ASOF JOIN days AS d ON i.sent_at >= d.starts_at
        LEFT JOIN crossing AS c ON c.session_no = i.session_no AND c.last_day = d.sent_date
        LEFT JOIN stays AS k ON k.session_no = i.session_no AND k.last_day = d.sent_date
        LEFT JOIN stays AS j ON j.session_no = i.session_no AND j.last_day = d.sent_date + 1
        WHERE d.sent_date BETWEEN $first AND $last
            OR coalesce(k.sent_date, c.first_day, j.sent_date, d.sent_date)
                BETWEEN $first AND $last
        """,
        {"first": window.first, "last": window.last},
    )


def _find_stays(con: duckdb.DuckDBPyConnection, store: Store) -> None:
    """Fill ``stays``: sessions at midnight that were placed before stay where they are."""
    involved = con.execute(
        "SELECT first_day FROM crossing UNION SELECT last_day FROM crossing ORDER BY 1"
    ).fetchall()
    for (day,) in involved:
        if _register_sessions(con, store, day, "placed_before"):
            con.execute(
                """
                INSERT INTO stays
                SELECT c.session_no, c.last_day, $day::DATE
                FROM crossing AS c SEMI JOIN placed_before AS p ON p.session_no = c.session_no
                ANTI JOIN stays AS k ON k.session_no = c.session_no AND k.last_day = c.last_day
                WHERE $day IN (c.first_day, c.last_day)
                """,
                {"day": day},
            )


def _register_sessions(con: duckdb.DuckDBPyConnection, store: Store, day: date, view: str) -> bool:
    """Make a partition's session numbers a view; False when it has none."""
    name = file_name(SESSIONS, day)
    if not store.exists(name):
        return False
    con.register(view, store.dataset([name], pa.schema([("session_no", schema.TEXT)])))
    return True


def _merge(
    con: duckdb.DuckDBPyConnection,
    store: Store,
    settings: Settings,
    window: Window,
    day: date,
    fingerprint: str,
) -> SessionsPartition:
    """Merge the rows placed in one day with its file, and write that when something changed."""
    name, layout = file_name(SESSIONS, day), schema.sessions_schema(settings.dimensions)
    metadata = dataset.checked_metadata(store, name, fingerprint)
    _check_identity(settings, metadata, name)
    stored = store.dataset([name], layout) if metadata else layout.empty_table()
    con.register("stored_file", stored)
    con.execute("CREATE OR REPLACE TABLE stored AS SELECT * FROM stored_file")
    had = scratch.value(con, "SELECT count(*) FROM stored")
    columns = [scratch.identifier(column) for column in layout.names]
    carried = [scratch.identifier(schema.dimension_name(d)) for d in settings.dimensions]
    con.execute(
        "CREATE OR REPLACE TABLE merged AS "
        + scratch.sql(
            "sessions",
            dimensions="".join(f"{column}, " for column in carried),
            chosen=", ".join(
                f"CASE WHEN {_STORED_ONE[name in _KEPT]} THEN s.{c} ELSE n.{c} END AS {c}"
                for name, c in zip(layout.names, columns, strict=True)
            ),
        ),
        {"day": day},
    )
    rows = scratch.value(con, "SELECT count(*) FROM merged")
    recipients = scratch.value(con, "SELECT sum(recipients) FROM merged")
    other = "SELECT count(*) FROM (FROM merged EXCEPT ALL SELECT * FROM stored_file)"
    is_changed = not metadata or rows != had or bool(scratch.value(con, other))
    if is_changed:
        ordered = f"SELECT {', '.join(columns)} FROM merged ORDER BY sent_at, session_no, recipient"
        store.write(name, scratch.stream(con, ordered, layout), _metadata(settings, fingerprint))
    con.unregister("stored_file")
    gone = _unread(con, settings, window, day)
    return SessionsPartition(rows, recipients, max(rows - had, 0), is_changed, gone)


def _unread(con: duckdb.DuckDBPyConnection, settings: Settings, window: Window, day: date) -> int:
    """Count the rows of ``merged`` that the source should have given for the window, and did not.

    Every row read is one of them, at its time; those outside the window are not always read.
    """
    span = [
        dataset.day_start(edge, settings.zone)
        for edge in (window.first, window.last + timedelta(days=1))
    ]
    counted = con.execute(
        "SELECT (SELECT count(*) FROM merged WHERE sent_at >= $start AND sent_at < $end) - "
        "(SELECT count(*) FROM placed WHERE sent_date = $day AND sent_at >= $start "
        "AND sent_at < $end)",
        {"start": span[0], "end": span[1], "day": day},
    ).fetchall()
    return int(counted[0][0])


def _gone(store: Store, window: Window, report: SessionsReport) -> int:
    """Count the rows read before and not now; of a day without any, all that are stored."""
    gone = sum(part.gone_rows for part in report.partitions.values())
    read = {*report.partitions, *report.locked}
    for day in dataset.days(store, SESSIONS):
        if day in window and day not in read:
            gone += store.dataset([file_name(SESSIONS, day)], pa.schema([])).count_rows()
    return gone


def _metadata(settings: Settings, fingerprint: str) -> dict[str, str]:
    return dataset.stamp(fingerprint) | {
        "token": uuid.uuid4().hex,
        "phones": settings.phones,
        "identity": json.dumps({name: getattr(settings, name) for name in _IDENTITY}),
    }


def mask(store: Store, settings: Settings, day: date, book: PhoneBook) -> None:
    """Mask the numbers of a partition that was read when ``phones`` was clear, if it no longer is.

    The caller holds the partition. Raises ``KeyMismatch`` and ``NewerDataset``.
    """
    name = file_name(SESSIONS, day)
    metadata = dataset.checked_metadata(store, name, book.fingerprint)
    if settings.phones == "clear" or metadata.get("phones", "masked") == "masked":
        return
    layout = store.schema(name)
    place = layout.get_field_index("phone")
    parts = (
        batch.set_column(place, layout.field(place), book.remasked(batch.column(place)))
        for batch in store.batches(name)
    )
    said = metadata | {"phones": "masked", "token": uuid.uuid4().hex}
    store.write(name, pa.RecordBatchReader.from_batches(layout, parts), said)


def _check_identity(settings: Settings, metadata: Mapping[str, str], name: str) -> None:
    """Refuse settings under which the stored rows would be taken for other rows."""
    before = json.loads(metadata.get("identity", "{}"))
    problems = [
        SettingProblem(
            f"USMS_{setting.upper()}",
            f"was {value!r} when {name} was read and is {getattr(settings, setting)!r} now: "
            "messages would count twice. Set it back, or start over in another USMS_DATA_DIR",
            str(value),
        )
        for setting, value in before.items()
        if getattr(settings, setting) != value
    ]
    if problems:
        raise SettingsError(problems)


def _torn(con: duckdb.DuckDBPyConnection, store: Store, report: SessionsReport) -> list[str]:
    """Name the sessions of the changed partitions that a neighbouring day has as well."""
    torn: set[str] = set()
    for day in [day for day, part in report.partitions.items() if part.new_rows]:
        _register_sessions(con, store, day, "here")
        for neighbour in (day - timedelta(days=1), day + timedelta(days=1)):
            if _register_sessions(con, store, neighbour, "there"):
                query = "SELECT DISTINCT session_no FROM here SEMI JOIN there USING (session_no)"
                torn |= {session for (session,) in con.execute(query).fetchall()}
    return sorted(torn)
