"""The published file: its bookkeeping, and how the next one is filled.

What belongs in it and when it is published is in ``publish.py``; the SQL text in ``ddl.py``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

import duckdb
import pyarrow as pa

from usms_pipeline.contract.schema import SENT_DATE, TEXT, Field
from usms_pipeline.warehouse import ddl
from usms_pipeline.warehouse.ddl import identifier, literal

BATCH_ROWS: Final = 16_384
_COPIED_AT_ONCE: Final = 1 << 24
_MAX_BLOAT, _SMALL_ROWS, _SMALL_BLOCKS = 1.5, 100_000, 64
"""A file that is half again as large as it needs, past a small size, is built from scratch."""
_INSERTED_AT_ONCE: Final = 16_000_000
"""Bytes of rows, of one day or of hundreds: each INSERT takes 2 ms, however few its rows are."""

_CHANGED: Final = pa.schema([("sent_date", SENT_DATE.type), ("session_no", TEXT)])
_PARTITIONS: Final = pa.schema(
    [
        ("sent_date", SENT_DATE.type),
        ("version", TEXT),
        ("row_count", pa.int64()),
        ("column_names", pa.list_(TEXT)),
        ("is_clear", pa.bool_()),
    ]
)


class Part(NamedTuple):
    """One day in a published file; without a version if its rows are not complete."""

    sent_date: date
    version: str | None
    row_count: int
    column_names: list[str]
    is_clear: bool


@dataclass(frozen=True)
class Published:
    """The bookkeeping of a published file; empty if none can be read.

    ``may_be_copied``: the file has our storage format, few free blocks, and no rows of days that
    its bookkeeping does not list.
    """

    parts: Mapping[date, Part] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    digest: str = ""
    may_be_copied: bool = False

    @property
    def versions(self) -> dict[date, str | None]:
        """Return the version of each day."""
        return {day: part.version for day, part in self.parts.items()}

    def is_like(self, fields: Sequence[Field]) -> bool:
        """Return whether a copy of the file may become one of these columns."""
        return self.may_be_copied and self.columns == tuple(field.name for field in fields)


class Building:
    """The next file while it is filled, in one transaction.

    ``versions`` has the version of each day in it. ``is_copy``: it began as a copy of the published
    file. ``definitions`` are the statements that make its views and macros; they run at once.
    """

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        fields: list[Field],
        versions: dict[date, str | None],
        definitions: str,
        *,
        is_copy: bool,
    ) -> None:
        self._con, self.fields, self.versions, self.is_copy = con, fields, versions, is_copy
        self._layout = pa.schema([(field.name, field.type) for field in fields])
        self._replaced: list[date] = []
        self._changed: list[pa.Table] = []
        self._waiting: dict[date, list[pa.Table]] = {}
        self._bytes = 0
        con.execute("USE usms; BEGIN")
        if not is_copy:
            con.execute(ddl.create_receipts(fields) + ";" + ddl.BOOKKEEPING)
        made_by = con.execute("SELECT digest FROM usms_definitions").fetchall()
        if made_by != [(digest_of(definitions),)]:
            if made_by:  # a new file has none, and to look for them takes 40 ms
                _drop_definitions(con)
            con.execute(definitions)
            con.execute("DELETE FROM usms_definitions")
            con.execute("INSERT INTO usms_definitions VALUES (?)", [digest_of(definitions)])

    def put(
        self,
        day: date,
        version: str | None,
        rows: Iterable[pa.Table],
        sessions: pa.Array | None = None,
    ) -> None:
        """Replace all rows of a day, or those of some sessions.

        Rows are added at the end. The table's order makes it small and quick to read, but is not
        promised.
        """
        if day in self._waiting:  # else what waits would stay, beside its successors
            self._flush()
        self._waiting[day] = []
        if day in self.versions and sessions is not None:
            days = pa.repeat(pa.scalar(day, SENT_DATE.type), len(sessions))
            self._changed.append(pa.table([days, sessions], schema=_CHANGED))
        elif day in self.versions:
            self._replaced.append(day)
        stored = (self._stored(day, table) for table in rows)
        for table in stored:
            self._waiting[day].append(table)
            self._bytes += table.nbytes
            if self._bytes > _INSERTED_AT_ONCE:
                self._flush(stored)
        self.versions[day] = version

    def keep(self, path: Path, columns: Iterable[str], days: Iterable[date]) -> None:
        """Copy days that are not here from the file that is published."""
        if missing := [day for day in days if day not in self.versions]:
            ours = {field.name.casefold() for field in self.fields}
            names = ", ".join(identifier(c) for c in columns if c.casefold() in ours)
            self._con.execute(ddl.attach(path, "READ_ONLY", "present"))
            self._con.execute(
                f"INSERT INTO receipts BY NAME SELECT {names} FROM present.receipts "
                f"WHERE sent_date IN ({_listed(missing)})"
            )

    def close(self, parts: Iterable[Part]) -> None:
        """Write the queued rows and the bookkeeping; make the file durable."""
        self._flush()
        said = pa.Table.from_pylist([part._asdict() for part in parts], _PARTITIONS)
        self._con.execute("DELETE FROM usms_partitions")
        self._insert("usms_partitions", said)
        self._con.execute("COMMIT; CHECKPOINT usms; USE memory; DETACH usms")

    def _stored(self, day: date, table: pa.Table) -> pa.Table:
        """Return a day's rows in the columns of ``receipts``; what the file lacks is NULL."""
        count = table.num_rows
        known = {name.casefold(): table[name] for name in table.column_names}
        known[SENT_DATE.name] = pa.repeat(pa.scalar(day, SENT_DATE.type), count)
        columns = [known.get(one.name.casefold(), pa.nulls(count, one.type)) for one in self.fields]
        return pa.Table.from_arrays(columns, schema=self._layout)

    def _flush(self, more: Iterable[pa.Table] = ()) -> None:
        """Delete what is outdated and insert what waits, of all days at once; then ``more``."""
        if self._replaced:
            days = _listed(self._replaced)
            self._con.execute(f"DELETE FROM receipts WHERE sent_date IN ({days})")
        if self._changed:
            changed = pa.concat_tables(self._changed).combine_chunks()
            days = _listed(changed["sent_date"].unique().to_pylist())
            self._con.register("changed", changed)
            self._con.execute(
                # Not IN: a NULL among the sessions stands for the rows without one.
                f"DELETE FROM receipts WHERE sent_date IN ({days}) AND EXISTS (FROM changed "
                "WHERE changed.sent_date = receipts.sent_date "
                "AND changed.session_no IS NOT DISTINCT FROM receipts.session_no)"
            )
            self._con.unregister("changed")
        if tables := [table for tables in self._waiting.values() for table in tables]:
            # Not the tables one by one: in one piece DuckDB takes hundreds in half the time. Not
            # in batches of half a row group or more, which now and then it writes twice.
            waiting = pa.concat_tables(tables).combine_chunks()
            batches = (t.to_batches(BATCH_ROWS) for t in chain([waiting], more))
            reader = pa.RecordBatchReader.from_batches(self._layout, chain.from_iterable(batches))
            self._insert("receipts", reader)
        self._replaced, self._changed, self._waiting, self._bytes = [], [], {}, 0

    def _insert(self, table: str, rows: pa.Table | pa.RecordBatchReader) -> None:
        self._con.register("chunk", rows)
        self._con.execute(f"INSERT INTO {table} FROM chunk")
        self._con.unregister("chunk")


def digest_of(definitions: str) -> str:
    """Return the hash of the statements that make views and macros."""
    return hashlib.sha256(definitions.encode()).hexdigest()


def look(con: duckdb.DuckDBPyConnection, path: Path) -> Published:
    """Return the bookkeeping of a published file. Raise ``duckdb.Error`` if there is none."""
    con.execute(ddl.attach(path, "READ_ONLY"))
    con.execute("USE usms")
    # 5 ms a million rows: a day's rows stand together, so its date is stored once a row group
    counted = con.execute("SELECT sent_date, count(*) FROM receipts GROUP BY sent_date").fetchall()
    counts: dict[date, int] = dict(counted)
    said = con.execute(
        "SELECT sent_date, version, row_count, column_names, is_clear FROM usms_partitions"
    )
    parts = {
        # Where somebody wrote to the file behind our back, no version fits: it is read again.
        one.sent_date: one if counts.get(one.sent_date, 0) == one.row_count
        else one._replace(version=None)
        for one in map(Part._make, said.fetchall())
    }  # fmt: skip
    digests = con.execute("SELECT digest FROM usms_definitions").fetchall()
    columns = con.execute("DESCRIBE receipts").fetchall()
    is_lean = _is_lean(con, sum(counts.values()))
    con.execute("USE memory; DETACH usms")
    return Published(
        parts,
        tuple(column[0] for column in columns),
        "".join(row[0] for row in digests),
        may_be_copied=is_lean and counts.keys() <= parts.keys(),
    )


def copy(before: Path, after: Path) -> None:
    """Copy a file; at once where the file system lets two share their blocks (XFS, Btrfs)."""
    with before.open("rb") as source, after.open("wb") as target:
        with suppress(OSError, AttributeError):  # not on every system, nor on every file system
            while os.copy_file_range(source.fileno(), target.fileno(), _COPIED_AT_ONCE):
                pass
            if target.seek(0, os.SEEK_END) == os.fstat(source.fileno()).st_size:
                return
        source.seek(0)
        target.truncate(0)
        target.seek(0)
        shutil.copyfileobj(source, target, _COPIED_AT_ONCE)


def _is_lean(con: duckdb.DuckDBPyConnection, rows: int) -> bool:
    found = con.execute(
        "SELECT d.tags['storage_version'], t.estimated_size, s.total_blocks, s.free_blocks "
        "FROM duckdb_databases() AS d JOIN duckdb_tables() AS t USING (database_name) "
        "JOIN pragma_database_size() AS s USING (database_name) "
        "WHERE database_name = 'usms' AND t.table_name = 'receipts'"
    ).fetchall()
    if not found:
        return False
    [(version, stored_rows, blocks, free_blocks)] = found
    return bool(
        str(version).startswith(ddl.STORAGE_VERSION)
        and stored_rows <= _MAX_BLOAT * rows + _SMALL_ROWS
        and blocks <= _MAX_BLOAT * (blocks - free_blocks) + _SMALL_BLOCKS
    )


def _drop_definitions(con: duckdb.DuckDBPyConnection) -> None:
    """Drop the views and macros of another version: it may have had others."""
    found = con.execute(
        """
        SELECT 'VIEW', view_name FROM duckdb_views() WHERE database_name = 'usms' AND NOT internal
        UNION
        SELECT CASE function_type WHEN 'macro' THEN 'MACRO' ELSE 'MACRO TABLE' END, function_name
        FROM duckdb_functions()
        WHERE database_name = 'usms' AND function_type IN ('macro', 'table_macro') AND NOT internal
        """
    )
    for kind, name in found.fetchall():
        con.execute(f"DROP {kind} {identifier(name)}")


def _listed(days: Iterable[date]) -> str:
    return ", ".join(f"DATE {literal(str(day))}" for day in days)
