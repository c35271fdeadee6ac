"""Streaming from an ADBC driver, shared by the sources that have one."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

import adbc_driver_manager.dbapi
import pyarrow as pa

ERRORS: Final[tuple[type[Exception], ...]] = (
    adbc_driver_manager.Error,
    pa.ArrowException,
    OSError,
    UnicodeError,
)


def stream(connection: Any, sql: str, **options: str) -> Generator[pa.RecordBatch]:
    """Run a query and stream its rows as the driver hands them out; ``options`` are its own."""
    with connection.cursor() as cursor:
        cursor.adbc_statement.set_options(**options)
        cursor.execute(sql)
        with cursor.fetch_record_batch() as reader:
            yield from reader


def rows(connection: Any, sql: str) -> list[tuple[Any, ...]]:
    """Run a small query and return its rows."""
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())
