"""SQLite through ADBC, opened read-only.

A column holds values of any type, and the driver takes a column's type from its first rows:
so every column is text, and a first row of empty texts is put before the others.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

import adbc_driver_sqlite.dbapi
import pyarrow as pa

from usms_pipeline.contract.errors import SourceError, SourceUnavailable
from usms_pipeline.contract.source_address import Address
from usms_pipeline.source import adbc, query, sentences
from usms_pipeline.source.kinds import Column, Dialect, Source, TimeType

ERRORS: Final = adbc.ERRORS

_TABLES = """
    SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'
    ORDER BY name
"""
_LOOK = "SELECT count(*) FROM sqlite_master"
_UNWRITABLE = ("readonly database", "unable to open")
"""What SQLite says where it can't make the index of a write-ahead log."""
_SCHEMAS = "SELECT name FROM pragma_database_list"
_WHOLE = 9_000_000_000_000_000  # where a float still holds every whole number


def _as_text(sql: str, column: Column) -> str:
    """Cast to text, floats without loss or exponent, declared booleans as words."""
    whole = f"CAST(CAST({sql} AS INTEGER) AS TEXT)"
    real = (
        f"CASE WHEN abs({sql}) >= {_WHOLE} THEN printf('%.0f', {sql}) "
        f"WHEN {sql} = CAST({sql} AS INTEGER) THEN {whole} "
        f"WHEN abs({sql}) >= 1e9 THEN rtrim(printf('%!.6f', {sql}), '0') "
        f"WHEN abs({sql}) < 1e-4 THEN rtrim(printf('%.15f', {sql}), '0') "
        f"ELSE CAST({sql} AS TEXT) END"
    )
    words = f"WHEN {sql} = 1 THEN 'true' WHEN {sql} = 0 THEN 'false'" if column.is_boolean else ""
    raw = f"WHEN typeof({sql}) = 'blob' AND {sql} <> x'' THEN '\\x' || hex({sql})"
    return (
        f"CASE {words} WHEN typeof({sql}) = 'real' THEN {real} {raw} ELSE CAST({sql} AS TEXT) END"
    )


class _SQLite(Source):
    """An open SQLite file."""

    dialect = Dialect(query.quoted, _as_text)

    def columns(self, table: tuple[str, ...]) -> list[Column]:
        """Read the declared types; they say little about the values."""
        *schema, name = table
        if schema and tuple(schema) not in adbc.rows(self.connection, _SCHEMAS):
            return []
        arguments = ", ".join(query.text(part) for part in (name, *schema))
        found = adbc.rows(
            self.connection,
            "SELECT name, coalesce(type, '') || '' FROM pragma_table_xinfo"
            f"({arguments}) WHERE hidden <> 1",
        )
        return [
            Column(name, declared or "untyped", _time(declared.upper()),
                   is_boolean=declared.upper() in ("BOOLEAN", "BOOL"))
            for name, declared in found
        ]  # fmt: skip

    def tables(self) -> list[str]:
        return [name for (name,) in adbc.rows(self.connection, _TABLES)]

    def batches(self, sql: str) -> Generator[pa.RecordBatch]:
        """Stream a query whose columns are all text."""
        with self.connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM ({sql}) LIMIT 0")
            width = len(cursor.description)
        first = ", ".join(["''"] * width)
        stream = adbc.stream(
            self.connection,
            f"SELECT {first} UNION ALL {sql}",
            **{"adbc.sqlite.query.batch_rows": "16384"},
        )
        yield next(stream).slice(1)
        yield from stream

    def is_scanned(self, sql: str) -> bool:
        """Look for a table that is not searched by an index."""
        steps = adbc.rows(self.connection, f"EXPLAIN QUERY PLAN {sql}")
        return any(str(detail).startswith("SCAN") for *_, detail in steps)


@contextmanager
def open_source(address: Address) -> Iterator[Source]:
    """Open a file that is there; never makes one, never writes."""
    path = Path(address.path).expanduser()
    if not path.is_file():
        raise sentences.error("no_file", address)
    uri = f"file:{quote(str(path))}?mode=ro"
    if not _is_readable(uri) and not _has_log(path):
        # in WAL mode, in a folder where the index of the log can't be made; without a log nobody
        # writes, and all of it is in the file
        uri += "&immutable=1"
    with adbc_driver_sqlite.dbapi.connect(uri) as connection:
        adbc.rows(connection, _LOOK)
        yield _SQLite(connection)


def _has_log(path: Path) -> bool:
    log = Path(f"{path}-wal")
    return log.exists() and log.stat().st_size > 0


def _is_readable(uri: str) -> bool:
    try:
        with adbc_driver_sqlite.dbapi.connect(uri) as connection:
            adbc.rows(connection, _LOOK)
    except ERRORS as error:
        return not any(said in str(error) for said in _UNWRITABLE)
    return True


def explain(error: Exception, address: Address) -> SourceError:
    """Explain an error by SQLite's text, which is never translated."""
    text = str(error)
    if "file is not a database" in text or "malformed" in text:
        return sentences.error("bad_file", address, "SQLite")
    if "failed to open" in text or any(said in text for said in _UNWRITABLE):
        path = Path(address.path).expanduser()
        also = f"; and to write there, because a log lies beside it ({path.name}-wal)"
        return SourceError(
            f"Can't open {address.path!r} (USMS_SOURCE_URL): give this user the right to read it "
            f"and its folder{also if _has_log(path) else ''}."
        )
    if "locked" in text or "busy" in text:
        return SourceUnavailable(
            f"{address.path!r} is locked by a program that writes to it; run again."
        )
    return sentences.error("broke_off", address, text)


def _time(declared: str) -> TimeType:
    """Return how a column holds times, by SQLite's rules of affinity."""
    if "INT" not in declared and any(word in declared for word in ("CHAR", "CLOB", "TEXT")):
        return TimeType.TEXT
    return TimeType.DYNAMIC if declared and "BLOB" not in declared else TimeType.UNTYPED
