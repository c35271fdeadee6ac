"""The customer's source rows, placed in the partitions they belong to and kept.

A session belongs to the partition of its earliest row. Rows are merged with what is stored and
never dropped. The source itself is read elsewhere; no HTTP here.
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

_IDENTITY: Final = ("timezone", "source_timezone", "session_column", "sent_at_column")


@dataclass(frozen=True)
class SessionsPartition:
    """What one partition holds now: source rows, recipients announced, rows new in this run."""

    rows: int
    recipients: int
    new_rows: int
    is_changed: bool


@dataclass
class SessionsReport:
    """What reading the source gave."""

    partitions: dict[date, SessionsPartition] = field(default_factory=dict)
    rows_read: int = 0
    rows_without_session: int = 0
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
        if self.torn_sessions:
            found.append(
                f"{len(self.torn_sessions)} sessions are in two partitions (their rows lie more "
                f"than an hour apart over midnight), so they may count twice: "
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
    with scratch.database() as con:
        forgotten = forget.read(store)
        report.rows_read = _take_in(con, batches, book, settings.dimensions, forgotten)
        _place(con, store, window, settings)
        rows = con.execute("SELECT DISTINCT day FROM placed ORDER BY day").fetchall()
        for (day,) in rows:
            if day not in window:
                continue
            with store.lock(f"sent_date={day}") as held:
                if held:
                    report.partitions[day] = _merge(con, store, settings, day, book.fingerprint)
                else:
                    report.locked.append(day)
        report.rows_without_session = scratch.value(
            con, f"SELECT count(*) FROM placed WHERE session_no IS NULL AND {_within(window)}"
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


def _place(
    con: duckdb.DuckDBPyConnection, store: Store, window: Window, settings: Settings
) -> None:
    """Fill table ``placed``: the incoming rows, each with the day its session belongs to."""
    around = Window(window.first - timedelta(days=1), window.last + timedelta(days=1)).days()
    starts = [dataset.day_start(day, settings.zone) for day in around]
    table = pa.table({"day": around, "starts_at": pa.array(starts, schema.TIME)})
    con.register("day_starts", table)
    con.execute("CREATE TABLE days AS FROM day_starts")
    con.execute(
        """
        CREATE TABLE spans AS
        SELECT f.session_no, a.day AS first_day, f.last_at
        FROM (
            SELECT session_no, min(sent_at) AS first_at, max(sent_at) AS last_at
            FROM incoming WHERE session_no IS NOT NULL GROUP BY session_no
        ) AS f
        ASOF JOIN days AS a ON f.first_at >= a.starts_at
        """
    )
    con.execute(
        """
        CREATE TABLE crossing AS
        SELECT s.session_no, s.first_day, d.day AS last_day
        FROM spans AS s ASOF JOIN days AS d ON s.last_at >= d.starts_at
        WHERE d.day <> s.first_day
        """
    )
    con.execute("CREATE TABLE stays (session_no VARCHAR, day DATE)")
    _find_stays(con, store)
    con.execute(
        """
        CREATE TABLE placed AS
        SELECT coalesce(k.day, s.first_day, d.day) AS day, i.*
        FROM incoming AS i
        ASOF JOIN days AS d ON i.sent_at >= d.starts_at
        LEFT JOIN spans AS s ON s.session_no = i.session_no
        LEFT JOIN stays AS k ON k.session_no = i.session_no
        """
    )


def _find_stays(con: duckdb.DuckDBPyConnection, store: Store) -> None:
    """Fill ``stays``: sessions over midnight that were placed before stay where they are."""
    involved = con.execute(
        "SELECT first_day FROM crossing UNION SELECT last_day FROM crossing ORDER BY 1"
    ).fetchall()
    for (day,) in involved:
        if _register_sessions(con, store, day, "placed_before"):
            con.execute(
                """
                INSERT INTO stays
                SELECT DISTINCT c.session_no, ?::DATE
                FROM crossing AS c SEMI JOIN placed_before AS p ON p.session_no = c.session_no
                ANTI JOIN stays AS k ON k.session_no = c.session_no
                """,
                [day],
            )


def _register_sessions(con: duckdb.DuckDBPyConnection, store: Store, day: date, view: str) -> bool:
    """Make a partition's session numbers a view; False when it has none."""
    name = file_name(SESSIONS, day)
    if not store.exists(name):
        return False
    con.register(view, store.dataset([name], pa.schema([("session_no", schema.TEXT)])))
    return True


def _merge(
    con: duckdb.DuckDBPyConnection, store: Store, settings: Settings, day: date, fingerprint: str
) -> SessionsPartition:
    """Merge the rows placed in one day with its file, and write that when something changed."""
    name, layout = file_name(SESSIONS, day), schema.sessions_schema(settings.dimensions)
    metadata = dataset.checked_metadata(store, name, fingerprint)
    _check_identity(settings, metadata, name)
    stored = store.dataset([name], layout) if metadata else layout.empty_table()
    con.register("stored_file", stored)
    con.execute("CREATE OR REPLACE TABLE stored AS SELECT * FROM stored_file")
    had = scratch.value(con, "SELECT count(*) FROM stored")
    if metadata and metadata.get("phone_column") != str(settings.phone_column):
        # The rows read now have, or lack, the phones that the stored ones lack, or have.
        con.execute(
            "DELETE FROM stored WHERE session_no IN (SELECT session_no FROM placed WHERE day = ?)",
            [day],
        )
    columns = [scratch.identifier(column) for column in layout.names]
    carried = [scratch.identifier(schema.dimension_name(d)) for d in settings.dimensions]
    con.execute(
        "CREATE OR REPLACE TABLE merged AS "
        + scratch.sql(
            "sessions",
            dimensions="".join(f"{column}, " for column in carried),
            chosen=", ".join(
                f"CASE WHEN n.ordinal IS NULL THEN s.{c} ELSE n.{c} END AS {c}" for c in columns
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
    return SessionsPartition(rows, recipients, max(rows - had, 0), is_changed)


def _metadata(settings: Settings, fingerprint: str) -> dict[str, str]:
    return dataset.stamp(fingerprint) | {
        "token": uuid.uuid4().hex,
        "phone_column": str(settings.phone_column),
        "identity": json.dumps({name: getattr(settings, name) for name in _IDENTITY}),
    }


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


def _within(window: Window) -> str:
    return f"day BETWEEN DATE '{window.first}' AND DATE '{window.last}'"
