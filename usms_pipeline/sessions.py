"""The customer's source rows, placed in the partitions they belong to and kept.

A session that begins in the last hour of a day belongs there with the rest of it, after midnight.
Rows are merged with what is stored and never dropped. The source itself is read elsewhere; no
HTTP here.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Final, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline import dataset, forget, schema, scratch, seen
from usms_pipeline.dataset import SESSIONS, Window, file_name
from usms_pipeline.errors import SettingProblem, SettingsError, StorageError
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
_HELD_BYTES: Final = 128_000_000
"""What is held of the source's rows until it is known which days changed."""
_HELD_LATER_BYTES: Final = 16_000_000
"""The same once they were too many: then all pass, so many at a time."""
_NOT_READ: Final = ("ordinal", "changed_in")
"""Columns that are ours, not the source's."""
_TOKEN: Final = re.compile(r"([0-9a-f]{32})-([0-9]+)")
_STORED_ONE: Final = (
    "n.ordinal IS NULL",
    "n.ordinal IS NULL OR (n.recipient IS NULL AND s.recipient IS NOT NULL)",
)
_SAME: Final = """
    SELECT (SELECT count(*) FROM merged) = (SELECT count(*) FROM stored)
        AND NOT EXISTS (
            SELECT * EXCLUDE (changed_in) FROM merged
            EXCEPT ALL SELECT * EXCLUDE (changed_in) FROM stored
        )
"""


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

    @property
    def figures(self) -> list[int]:
        """Give what stays true while the source has the same rows."""
        return [self.rows, self.recipients, self.gone_rows]

    @classmethod
    def recalled(cls, figures: list[int]) -> SessionsPartition:
        """Make from ``figures`` what there is to say of a partition that did not change."""
        rows, recipients, gone_rows = figures
        return cls(rows, recipients, 0, False, gone_rows)


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
    notes: list[str] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        """Give what a person should look at, in sentences."""
        found = list(self.notes)
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
    Raises ``KeyMismatch``, ``OtherLayout``, ``SettingsError``, ``StorageError``.
    """
    begun, report = time.monotonic(), SessionsReport()
    _check_account(store, settings, book.fingerprint)
    dataset.mark_layout(store, book.fingerprint, _identity(settings))
    with scratch.database() as con:
        forgotten = forget.read(store)
        memory = seen.Memory(store, _account(settings, book.fingerprint, forgotten))
        rows = _Rows(con, settings, book, window, forgotten)
        for batch in batches:
            rows.add(batch)
        rows.read()
        reading = rows.reading
        _recall(store, window, book.fingerprint, memory, reading, report)
        rows.close(unless=report.partitions)
        _place(con, store, window)
        rows.drop()
        placed = con.execute("SELECT DISTINCT sent_date FROM placed ORDER BY 1").fetchall()
        for day in [day for (day,) in placed if day not in report.partitions]:
            with store.lock(f"sent_date={day}") as held:
                if held:
                    _leave_out(con, forget.read(store))
                    mask(store, settings, day, book)
                    merged = _merge(con, store, settings, window, day, book.fingerprint)
                    report.partitions[day] = merged
                    token = store.metadata(file_name(SESSIONS, day)).get("token", "")
                    memory.note(day, reading.digest(day, window), token, merged.figures)
                else:
                    report.locked.append(day)
        memory.keep(report.partitions)
        report.rows_read = reading.rows
        report.rows_gone = _gone(store, window, report)
        report.rows_without_session = sum(
            count for day, count in reading.without_session.items() if day in window
        )
        report.torn_sessions = _torn(con, store, report)
    report.seconds = time.monotonic() - begun
    return report


def _account(settings: Settings, fingerprint: str, forgotten: forget.Forgotten) -> list[Any]:
    """Give all that decides, beside the rows read, what is made of them."""
    buried = sorted(forgotten.recipients), sorted(forgotten.sessions)
    names = schema.sessions_schema(settings.dimensions).names
    return [schema.VERSION, fingerprint, settings.phones, names, _identity(settings), *buried]


def _recall(
    store: Store,
    window: Window,
    fingerprint: str,
    memory: seen.Memory,
    reading: seen.Reading,
    report: SessionsReport,
) -> None:
    """Report on the days of which the same rows were read as before: nothing is to be done."""
    for day in reading.whole:
        metadata = dataset.checked_metadata(store, file_name(SESSIONS, day), fingerprint)
        digest = reading.digest(day, window)
        figures = memory.figures(day, digest, metadata.get("token", ""))
        if figures is not None:
            report.partitions[day] = SessionsPartition.recalled(figures)


class _Rows:
    """The rows read, on their way into ``incoming``; each with its own day.

    While they are few they are held as they are, and of days that did not change they go no
    further. Only in memory: what is written, be it to a temporary file, has hashes for numbers.
    """

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        settings: Settings,
        book: PhoneBook,
        window: Window,
        forgotten: forget.Forgotten,
    ) -> None:
        self.reading = seen.Reading()
        self._con, self._book, self._forgotten = con, book, forgotten
        self._days = Days(window, settings)
        self._names = {o: theirs for o, theirs in _columns(settings) if o not in _NOT_READ}
        layout = schema.sessions_schema(settings.dimensions)
        named = [pa.field(ours, layout.field(name).type) for ours, name in self._names.items()]
        self._layout = pa.schema([("own_date", pa.date32()), ("is_late", pa.bool_()), *named])
        self._incoming = scratch.Pile(con, "incoming", self._layout)
        self._held: list[pa.Table] = []
        self._held_bytes = 0
        self._most_held, self._are_all_held = _HELD_BYTES, True

    def add(self, batch: pa.RecordBatch) -> None:
        """Take rows as the source gave them."""
        given = dict(zip(batch.schema.names, batch.columns, strict=True))
        columns = {ours: given[theirs] for ours, theirs in self._names.items() if theirs in given}
        columns |= {"phone": given["phone"]} | self._days.of(given["sent_at"])
        self._held.append(pa.table(columns))
        self._held_bytes += self._held[-1].nbytes
        if self._held_bytes > self._most_held:
            self.read()
            self._most_held, self._are_all_held = _HELD_LATER_BYTES, False
            self._let_pass(None)

    def read(self) -> None:
        """Take note of what is held, in ``reading``; all at once, for a query has its own cost."""
        if self._held:
            rows = pa.concat_tables(self._held)
            plain = [name for name in rows.column_names if name not in ("own_date", "is_late")]
            self.reading.add(self._con, rows, plain)

    def close(self, unless: Collection[date]) -> None:
        """Let pass what is held, but for days that no partition needs but those named."""
        wanted = {
            day + timedelta(days=n)
            for day in self.reading.whole
            if day not in unless
            for n in (-1, 0, 1)
        }
        is_all = not self._are_all_held or wanted >= self.reading.whole.keys()
        self._let_pass(None if is_all else pa.array(wanted, pa.date32()))
        self._incoming.close()

    def drop(self) -> None:
        """Let go of ``incoming``, whose rows are placed."""
        self._incoming.drop()

    def _let_pass(self, days: pa.Array | None) -> None:
        held, self._held, self._held_bytes = deque(self._held), [], 0
        while held:  # let go one by one: what becomes of them takes as much
            rows = held.popleft()
            self._describe(rows if days is None else rows.filter(pc.is_in(rows["own_date"], days)))

    def _describe(self, rows: pa.Table) -> None:
        described = self._book.describe(rows["phone"])
        fields = range(described.type.num_fields)
        columns = dict(zip(rows.column_names, rows.columns, strict=True))
        columns |= {described.type.field(n).name: described.field(n) for n in fields}
        chunk = pa.table({name: columns[name] for name in self._layout.names})
        self._incoming.add(forget.without(chunk, self._forgotten))


def _columns(settings: Settings) -> list[tuple[str, str]]:
    """Give each column's name in here and in the file.

    In here dimensions are ``dimension_0`` …, so that no name of the customer's meets one of ours.
    """
    names = [schema.dimension_name(name) for name in settings.dimensions]
    ours = {name: f"dimension_{n}" for n, name in enumerate(names)}
    layout = schema.sessions_schema(settings.dimensions)
    return [(ours.get(name, name), name) for name in layout.names]


class Days:
    """The local days around a window, and which of them a moment is in."""

    def __init__(self, window: Window, settings: Settings) -> None:
        around = Window(window.first - timedelta(days=1), window.last + timedelta(days=2)).days()
        self._days = pa.array(around, pa.date32())
        starts = [dataset.day_start(day, settings.zone) for day in around]
        self._starts = np.array([pa.scalar(one, schema.TIME).value for one in starts], np.int64)

    def of(self, moments: pa.Array) -> dict[str, pa.Array]:
        """Give each moment's day, and whether it is in that day's last hour."""
        micros = np.asarray(moments.cast(pa.int64()))
        place = np.searchsorted(self._starts, micros, side="right") - 1
        ends = self._starts[np.minimum(place + 1, len(self._starts) - 1)]
        return {
            "own_date": self._days.take(pa.array(place)),
            "is_late": pa.array(micros >= ends - MARGIN // timedelta(microseconds=1)),
        }


def _leave_out(con: duckdb.DuckDBPyConnection, forgotten: forget.Forgotten) -> None:
    """Drop what was forgotten since the rows were read."""
    if not forgotten:
        return
    con.execute(
        "DELETE FROM placed WHERE recipient IN (SELECT unnest($recipients::VARCHAR[]))"
        " OR session_no IN (SELECT unnest($sessions::VARCHAR[]))",
        {"recipients": list(forgotten.recipients), "sessions": list(forgotten.sessions)},
    )


def _place(con: duckdb.DuckDBPyConnection, store: Store, window: Window) -> None:
    """Fill table ``placed``: the incoming rows of the window, each with its session's partition.

    That is the row's own day, or the day before where the session has a row in the last hour of
    that day: the margin is read with every window, so the place does not hang on the window.
    """
    con.execute(
        """
        CREATE TABLE crossing AS
        SELECT DISTINCT session_no, own_date AS first_day, own_date + 1 AS last_day
        FROM incoming
        WHERE session_no IS NOT NULL AND is_late
        """
    )
    con.execute("CREATE TABLE stays (session_no VARCHAR, last_day DATE, sent_date DATE)")
    _find_stays(con, store)
    # Wanted are the rows of the window's days, wherever they belong, and of what belongs there.
    con.execute(
        """
        CREATE TABLE placed AS
        SELECT
            coalesce(k.sent_date, c.first_day, j.sent_date, i.own_date) AS sent_date,
            i.* EXCLUDE (own_date, is_late)
        FROM incoming AS i
        LEFT JOIN crossing AS c ON c.session_no = i.session_no AND c.last_day = i.own_date
        LEFT JOIN stays AS k ON k.session_no = i.session_no AND k.last_day = i.own_date
        LEFT JOIN stays AS j ON j.session_no = i.session_no AND j.last_day = i.own_date + 1
        WHERE i.own_date BETWEEN $first AND $last
            OR coalesce(k.sent_date, c.first_day, j.sent_date, i.own_date)
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
    if not store.metadata(name):  # names a damaged file, which DuckDB would not
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
    """Merge the rows placed in one day with its file, and write that when something changed.

    Where the very same rows were read as when the file was made, there is nothing to merge.
    """
    name = file_name(SESSIONS, day)
    metadata = dataset.checked_metadata(store, name, fingerprint)
    _show_stored(con, store, settings, name if metadata else None)
    had = has = _figures(con, settings, window, day)
    read = _digest(con, settings, day, fingerprint)
    is_changed = read != metadata.get("read") and _write_merged(
        con, store, settings, day, metadata, _metadata(settings, fingerprint, read)
    )
    if is_changed:
        _show_stored(con, store, settings, name)
        has = _figures(con, settings, window, day)
    return SessionsPartition(
        has.rows, has.recipients, max(has.rows - had.rows, 0), is_changed, has.unread
    )


def _show_stored(
    con: duckdb.DuckDBPyConnection, store: Store, settings: Settings, name: str | None
) -> None:
    """Make a partition's file the view ``stored``; an empty one where there is none."""
    layout = schema.sessions_schema(settings.dimensions)
    con.register("file", store.dataset([name], layout) if name else layout.empty_table())
    shown = ", ".join(
        f"{scratch.identifier(theirs)} AS {ours}" for ours, theirs in _columns(settings)
    )
    con.execute(f"CREATE OR REPLACE TEMP VIEW stored AS SELECT {shown} FROM file")


def _digest(con: duckdb.DuckDBPyConnection, settings: Settings, day: date, fingerprint: str) -> str:
    """Give what tells one set of rows read for a day from another, whatever their order."""
    columns = [ours for ours, _ in _columns(settings) if ours not in _NOT_READ]
    query = (
        "SELECT count(*) || '-' || coalesce(sum(hash($salt, " + ", ".join(columns) + ")), 0) "
        "FROM placed WHERE sent_date = $day"
    )
    salt = f"{fingerprint} {schema.sessions_schema(settings.dimensions).names}"
    return str(con.execute(query, {"salt": salt, "day": day}).fetchall()[0][0])


def _write_merged(
    con: duckdb.DuckDBPyConnection,
    store: Store,
    settings: Settings,
    day: date,
    before: Mapping[str, str],
    after: dict[str, str],
) -> bool:
    """Merge ``stored`` with the rows placed in a day, and write them if that made a difference."""
    columns = [ours for ours, _ in _columns(settings) if ours != "changed_in"]
    filled_in = {
        "columns": ", ".join(columns),
        "alike": ", ".join(name for name in columns if name != "ordinal"),
        "dimensions": "".join(f"dimension_{n}, " for n in range(len(settings.dimensions))),
        "chosen": ", ".join(
            f"CASE WHEN {_STORED_ONE[c in _KEPT]} THEN s.{c} ELSE n.{c} END AS {c}" for c in columns
        ),
    }
    token, version = _next(before.get("token", ""))
    read = scratch.sql("sessions_read", **filled_in)
    con.execute(f"CREATE OR REPLACE TABLE read_now AS {read}", {"day": day, "version": version})
    merged = "read_now"
    if before:
        query = scratch.sql("sessions", **filled_in)
        con.execute(f"CREATE OR REPLACE TABLE merged AS {query}", {"version": version})
        merged = "merged"
        if scratch.value(con, _SAME):
            return False
    named = ", ".join(
        f"{ours} AS {scratch.identifier(theirs)}" for ours, theirs in _columns(settings)
    )
    ordered = f"SELECT {named} FROM {merged} ORDER BY sent_at, session_no, recipient"
    rows = scratch.stream(con, ordered, schema.sessions_schema(settings.dimensions))
    store.write(file_name(SESSIONS, day), rows, after | {"token": token})
    return True


def _next(token: str) -> tuple[str, int]:
    """Give a new version's token and number; where the present one was edited, a new count."""
    counted = _TOKEN.fullmatch(token)
    lineage, version = (counted[1], int(counted[2]) + 1) if counted else (uuid.uuid4().hex, 1)
    return f"{lineage}-{version}", version


def changed_since(before: str, now: str) -> int | None:
    """Tell from two tokens which sessions changed: those ``changed_in`` a later version than this.

    None where any may have.
    """
    then, this = _TOKEN.fullmatch(before), _TOKEN.fullmatch(now)
    return int(then[2]) if then and this and then[1] == this[1] else None


class _Figures(NamedTuple):
    rows: int
    recipients: int
    unread: int


def _figures(
    con: duckdb.DuckDBPyConnection, settings: Settings, window: Window, day: date
) -> _Figures:
    """Count what is ``stored``, and what of it the source should have given now and did not.

    Every row read is stored at its time; those outside the window are not always read.
    """
    span = [
        dataset.day_start(edge, settings.zone)
        for edge in (window.first, window.last + timedelta(days=1))
    ]
    counted = con.execute(
        "SELECT count(*), coalesce(sum(recipients), 0)::BIGINT, "
        "count(*) FILTER (sent_at >= $start AND sent_at < $end) - (SELECT count(*) FROM placed "
        "WHERE sent_date = $day AND sent_at >= $start AND sent_at < $end) FROM stored",
        {"start": span[0], "end": span[1], "day": day},
    ).fetchall()
    return _Figures(*counted[0])


def _gone(store: Store, window: Window, report: SessionsReport) -> int:
    """Count the rows read before and not now; of a day without any, all that are stored."""
    gone = sum(part.gone_rows for part in report.partitions.values())
    read = {*report.partitions, *report.locked}
    for day in dataset.days(store, SESSIONS):
        if day in window and day not in read:
            gone += store.dataset([file_name(SESSIONS, day)], pa.schema([])).count_rows()
    return gone


def _metadata(settings: Settings, fingerprint: str, read: str) -> dict[str, str]:
    return dataset.stamp(fingerprint) | {
        "read": read,
        "phones": settings.phones,
    }


def _identity(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in _IDENTITY}


def _check_account(store: Store, settings: Settings, fingerprint: str) -> None:
    """Refuse another key, and settings that take stored rows for others, before anything is done.

    Raises ``KeyMismatch``, ``SettingsError``, and ``StorageError`` where nothing says which they
    were.
    """
    if not dataset.days(store, SESSIONS):
        return
    said = store.read_json(dataset.LAYOUT)
    if not said.keys() >= {"key", "identity"}:
        mark = json.dumps(dataset.layout_mark(fingerprint, _identity(settings)))
        raise StorageError(
            f"{dataset.LAYOUT} in {store.data_dir!r} is missing or says too little: with which "
            "key and settings were the days there begun? Restore it from a backup; or, if with "
            f"those of now, write there: {mark}"
        )
    dataset.check_key(store, dataset.LAYOUT, said["key"], fingerprint)
    _check_identity(settings, said["identity"])


def mask(store: Store, settings: Settings, day: date, book: PhoneBook) -> None:
    """Mask the numbers of a partition that was read when ``phones`` was clear, if it no longer is.

    The caller holds the partition. Raises ``KeyMismatch`` and ``OtherLayout``.
    """
    name = file_name(SESSIONS, day)
    metadata = dataset.checked_metadata(store, name, book.fingerprint)
    if settings.phones == "clear" or metadata.get("phones") != "clear":
        return
    layout = store.schema(name)
    place = layout.get_field_index("phone")
    parts = (
        batch.set_column(place, layout.field(place), book.remasked(batch.column(place)))
        for batch in store.batches(name)
    )
    # without a digest: what is read next is merged, and shown as the settings say then
    said = metadata | {"phones": "masked", "token": uuid.uuid4().hex, "read": ""}
    store.write(name, pa.RecordBatchReader.from_batches(layout, parts), said)


def _check_identity(settings: Settings, before: Mapping[str, Any]) -> None:
    """Refuse settings under which the stored rows would be taken for other rows."""
    problems = [
        SettingProblem(
            f"USMS_{setting.upper()}",
            f"was {value!r} when this data directory was begun and is "
            f"{getattr(settings, setting)!r} now: messages would count twice. Set it back, or "
            "start over in another USMS_DATA_DIR",
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
