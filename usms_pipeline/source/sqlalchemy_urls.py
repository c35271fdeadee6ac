"""Any database that SQLAlchemy has a driver for: rows from a server-side cursor, made Arrow here.

Values come as Python objects, so they become text here rather than in the query.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa
import sqlalchemy as sa

from usms_pipeline.contract.errors import SourceError
from usms_pipeline.contract.source_address import Address
from usms_pipeline.source import sentences
from usms_pipeline.source.clean import text_of_bytes
from usms_pipeline.source.kinds import Column, Dialect, Source, TimeType
from usms_pipeline.source.query import quoter

ERRORS: Final[tuple[type[Exception], ...]] = (
    sa.exc.SQLAlchemyError,
    ImportError,
    OSError,
    UnicodeError,
)
ROWS: Final = 10_000
"""Rows in a batch, and the most that are buffered."""

_SUPPORTED: Final = (
    "Supported are postgresql://, mysql://, mariadb://, sqlite:///, duckdb:/// and paths to "
    "Parquet and CSV files (.parquet, .csv, .csv.gz)."
)
_WITHOUT_TIME_LITERALS = ("mssql", "sqlite")
_WITHOUT_LIMIT = ("mssql", "oracle")
_TIMES: tuple[tuple[type[Any], TimeType], ...] = (
    (sa.Date, TimeType.DATE),
    (sa.String, TimeType.TEXT),
    (sa.Integer, TimeType.NUMBER),
    (sa.Numeric, TimeType.NUMBER),
    (sa.Float, TimeType.NUMBER),
)


class _AnyDatabase(Source):
    """An open database of any kind."""

    def __init__(self, connection: sa.Connection) -> None:
        super().__init__(connection)
        name = connection.dialect.name
        self.dialect = Dialect(
            quoter("[", "]") if name == "mssql" else quoter('"'),
            lambda sql, column: sql,
            has_time_literals=name not in _WITHOUT_TIME_LITERALS,
            has_limit=name not in _WITHOUT_LIMIT,
        )

    def columns(self, table: tuple[str, ...]) -> list[Column]:
        *schema, name = table
        inspector = sa.inspect(self.connection)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", sa.exc.SAWarning)  # types it does not know
                found = inspector.get_columns(name, ".".join(schema) or None)
        except (sa.exc.NoSuchTableError, sa.exc.OperationalError):
            return []
        return [
            Column(column["name"], str(column["type"]), _time(column["type"]),
                   exact_below=2**53 if isinstance(column["type"], sa.Float) else None)
            for column in found
        ]  # fmt: skip

    def tables(self) -> list[str]:
        inspector = sa.inspect(self.connection)
        return sorted([*inspector.get_table_names(), *inspector.get_view_names()])

    def batches(self, sql: str) -> Generator[pa.RecordBatch]:
        yield from stream(self.connection, sql)


def stream(
    connection: sa.Connection, sql: str, give_up: Callable[[Any], None] | None = None
) -> Generator[pa.RecordBatch]:
    """Run a query as it is written, and stream its rows as text, in batches of ``ROWS``.

    ``give_up`` gets the driver's cursor when the read ends early.
    """
    options = connection.execution_options(stream_results=True, max_row_buffer=ROWS)
    # no parameters at all: a % or : in a name must not be taken for one
    result = options.execution_options(no_parameters=True).exec_driver_sql(sql)
    cursor = result.cursor
    names = [f"c{position}" for position in range(len(result.keys()))]
    try:
        for rows in result.partitions(ROWS):
            yield pa.record_batch(
                [pa.array(map(as_text, column), pa.string()) for column in zip(*rows, strict=True)],
                names,
            )
    except BaseException:  # the connection can't be used again: the rest is not read
        if give_up is not None:
            give_up(cursor)
        connection.invalidate()
        raise


def as_text(value: Any) -> str | None:
    """Write a driver's value as the other sources' casts do."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, bytes | bytearray):
        return text_of_bytes(bytes(value))
    return value.isoformat(" ") if isinstance(value, datetime) else str(value)


@contextmanager
def open_source(address: Address) -> Iterator[Source]:
    """Connect with the driver that the URL names."""
    with connected(sa.make_url(address.url)) as connection:
        yield _AnyDatabase(connection)


@contextmanager
def connected(url: sa.URL, **arguments: Any) -> Iterator[sa.Connection]:
    """Connect without a pool."""
    engine = sa.create_engine(
        url, poolclass=sa.NullPool, hide_parameters=True, connect_args=arguments
    )
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def explain(error: Exception, address: Address) -> SourceError:
    """Return what SQLAlchemy and the driver said."""
    if isinstance(error, sa.exc.NoSuchModuleError):
        return SourceError(
            f"USMS_SOURCE_URL begins with {address.scheme}://, which no installed package reads. "
            f"{_SUPPORTED} For another database install its SQLAlchemy dialect."
        )
    if isinstance(error, ImportError):
        found = sentences.error("no_driver", address, f"pip install {error.name or 'it'}")
        return SourceError(f"{found} {_SUPPORTED} Others are read as SQLAlchemy reads them.")
    if isinstance(error, sa.exc.ArgumentError):
        return SourceError("USMS_SOURCE_URL can't be understood as a database URL: correct it.")
    reason = str(getattr(error, "orig", None) or error)
    is_closed = getattr(error, "connection_invalidated", False) or "connect" in reason.lower()
    return sentences.error("unreachable" if is_closed else "broke_off", address, reason)


def _time(kind: sa.types.TypeEngine[Any]) -> TimeType | None:
    if isinstance(kind, sa.DateTime):
        return TimeType.AWARE if kind.timezone else TimeType.NAIVE
    return next((time for type_, time in _TIMES if isinstance(kind, type_)), None)
