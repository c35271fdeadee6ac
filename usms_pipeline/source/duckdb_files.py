"""DuckDB files, Parquet and CSV, all read by DuckDB; a DuckDB file is attached read-only."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa

from usms_pipeline.contract.errors import SourceError, SourceUnavailable
from usms_pipeline.contract.source_address import Address
from usms_pipeline.source import csv_files, in_memory, query, sentences
from usms_pipeline.source.kinds import Column, Dialect, Source, TimeType

ERRORS: Final[tuple[type[Exception], ...]] = (duckdb.Error, pa.ArrowException, OSError)
ROWS: Final = 65_536
"""Rows in a batch."""

_EXACT_BELOW = {"FLOAT": 2**24, "DOUBLE": 2**53}
_NUMBERS: Final = itertools.count()
"""Of views: all connections see them."""

_NUMBERS_OF = ("INTEGER", "UINTEGER", "BIGINT", "UBIGINT", "HUGEINT", "DECIMAL", "DOUBLE", "FLOAT")
_TIMES = {
    "TIMESTAMP WITH TIME ZONE": TimeType.AWARE,
    "TIMESTAMPTZ": TimeType.AWARE,
    "TIMESTAMP": TimeType.NAIVE,
    "DATE": TimeType.DATE,
    "VARCHAR": TimeType.TEXT,
    **dict.fromkeys(_NUMBERS_OF, TimeType.NUMBER),
}
"""The first prefix of a type's name that matches. ``TIMESTAMP_NS`` and the like are naive."""


def _as_text(sql: str, column: Column) -> str:
    return f"'\\x' || hex({sql})" if column.type == "BLOB" else f"CAST({sql} AS VARCHAR)"


class _DuckDB(Source):
    """An open DuckDB file, or files that DuckDB reads as one table."""

    dialect = Dialect(query.quoted, _as_text, has_indexes=False)

    def __init__(self, connection: duckdb.DuckDBPyConnection, only_table: str | None) -> None:
        super().__init__(connection)
        self.only_table = only_table

    def columns(self, table: tuple[str, ...]) -> list[Column]:
        name = query.table_name(self.dialect, table)
        try:
            found = self.connection.execute(f"DESCRIBE SELECT * FROM {name}").fetchall()
        except (duckdb.CatalogException, duckdb.BinderException):
            return []
        return [
            Column(column, kind, _time(kind), exact_below=_EXACT_BELOW.get(kind))
            for column, kind, *_ in found
        ]

    def tables(self) -> list[str]:
        found = self.connection.execute(
            "SELECT CASE table_schema WHEN 'main' THEN '' ELSE table_schema || '.' END "
            "|| table_name FROM information_schema.tables "
            "WHERE table_catalog = current_database() ORDER BY 1"
        ).fetchall()
        return [name for (name,) in found]

    def batches(self, sql: str) -> Generator[pa.RecordBatch]:
        with self.connection.cursor() as cursor:
            # a cursor starts without the connection's USE and time zone
            cursor.execute("SET TimeZone = 'UTC'")
            if self.only_table is None:
                cursor.execute("USE source")
            yield from cursor.sql(sql).to_arrow_reader(ROWS)


@contextmanager
def open_source(address: Address) -> Iterator[Source]:
    """Open what is there. A DuckDB file is attached to a database of its own, and so let go."""
    if not address.scheme:
        with in_memory.connect() as connection:
            view = f"source_file_{next(_NUMBERS)}"
            connection.execute(f"CREATE VIEW {view} AS {_relation(connection, address)}")
            try:
                yield _DuckDB(connection, view)
            finally:
                connection.execute(f"DROP VIEW {view}")
        return
    path = Path(address.path).expanduser()
    if not path.is_file():
        raise sentences.error("no_file", address)
    with in_memory.begin() as connection:
        connection.execute(f"ATTACH {query.text(str(path))} AS source (READ_ONLY)")
        connection.execute("USE source")
        yield _DuckDB(connection, None)


def explain(error: Exception, address: Address) -> SourceError:
    """Explain an error by DuckDB's text, without a CSV's lines: they may hold phone numbers."""
    text = str(error)
    if "not a valid DuckDB database file" in text:
        return sentences.error("bad_file", address, "DuckDB")
    if "newer version of DuckDB" in text:
        return SourceError(
            f"{address.path!r} was written by a newer DuckDB than the one installed "
            f"({duckdb.__version__}): pip install --upgrade duckdb."
        )
    if "Could not set lock" in text or "Conflicting lock" in text:
        return SourceUnavailable(
            f"{address.path!r} is open for writing in another program: close it there, or run "
            "again later."
        )
    if "Permission denied" in text:
        return SourceError(f"Can't open {address.path!r}: give this user the right to read it.")
    if "magic bytes" in text or "too small to be a Parquet file" in text:
        return sentences.error("bad_file", address, "Parquet")
    if any(said in text for said in ("CSV Error on Line", "not utf-8 encoded", "CSV Parser")):
        return csv_files.explain(text, address.path)
    return sentences.error("broke_off", address, text)


def _relation(connection: duckdb.DuckDBPyConnection, address: Address) -> str:
    """Return a query of everything in a path, in a folder of part files, or a pattern of paths."""
    place = Path(address.path).expanduser()
    if place.is_dir():  # what Spark, Dask or DuckDB wrote into ``name.parquet/``, not their marks
        found_there = (path for path in sorted(place.rglob("*")) if path.is_file())
        paths = [str(path) for path in found_there
                 if not any(part[0] in "._" for part in path.relative_to(place).parts)]  # fmt: skip
    else:
        pattern = csv_files.as_pattern(str(place)) if place.is_file() else str(place)
        found = connection.execute(f"SELECT file FROM glob({query.text(pattern)}) ORDER BY file")
        paths = [path for (path,) in found.fetchall()]
    if not paths:
        raise sentences.error("no_file", address)
    if ".csv" in place.name.lower():
        return csv_files.relation(paths, lambda sql: connection.execute(sql).fetchall())
    listed = ", ".join(query.text(csv_files.as_pattern(path)) for path in paths)
    return f"SELECT * FROM read_parquet([{listed}], union_by_name = true)"


def _time(kind: str) -> TimeType | None:
    return next((time for start, time in _TIMES.items() if kind.startswith(start)), None)
