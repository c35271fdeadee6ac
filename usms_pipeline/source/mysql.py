"""MySQL and MariaDB through PyMySQL, with a server-side cursor.

Values come as Python objects, so they become text here rather than in the query.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import pyarrow as pa

from usms_pipeline.contract.errors import SourceError
from usms_pipeline.contract.source_address import Address
from usms_pipeline.source import sentences
from usms_pipeline.source.clean import text_of_bytes
from usms_pipeline.source.kinds import Column, Dialect, Source, TimeType
from usms_pipeline.source.query import quoted


def _of_driver() -> tuple[type[Exception], ...]:
    with suppress(ImportError):  # ``open_source`` says how it is installed
        from pymysql import Error

        return (Error,)
    return ()


ERRORS: Final = (*_of_driver(), ImportError, OSError, RuntimeError, UnicodeError)
CONNECT_SECONDS: Final = 10
ROWS: Final = 10_000
"""Rows in a batch."""

_TIMES = {
    "timestamp": TimeType.AWARE,  # kept in UTC, and our session shows it so
    "datetime": TimeType.NAIVE,
    "date": TimeType.DATE,
    **dict.fromkeys(("char", "varchar", "tinytext", "text", "mediumtext", "longtext"),
                    TimeType.TEXT),
    **dict.fromkeys(("int", "bigint", "decimal", "float", "double"), TimeType.NUMBER),
}  # fmt: skip
_EXACT_BELOW = {"float": 10**6, "double": 2**53}  # of a float six digits are shown
_SETTINGS = (
    "SET SESSION time_zone = '+00:00'",
    "SET SESSION TRANSACTION READ ONLY",
    # the server must not hang up while a batch is worked on
    "SET SESSION net_write_timeout = 3600",
)
_TABLES = (
    "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() ORDER BY 1"
)
_COLUMNS = (
    "SELECT column_name, data_type, column_type FROM information_schema.columns "
    "WHERE table_schema = coalesce(%s, DATABASE()) AND table_name = %s "
    "ORDER BY ordinal_position"
)
_MEANINGS = {
    **dict.fromkeys((1045, 1698), "wrong_password"),
    1049: "no_database",
    **dict.fromkeys((1044, 1142, 1143, 1227, 1370), "denied"),
    **dict.fromkeys((1969, 3024), "cut_short"),
    **dict.fromkeys((1040, 1129, 1130, 2002, 2003, 2005), "unreachable"),
}
"""An error's number -> its sentence."""
_LIMITS = {3024: "max_execution_time", 1969: "max_statement_time"}


class _MySQL(Source):
    """An open MySQL or MariaDB database; its session is in UTC and only reads."""

    dialect = Dialect(
        lambda name: quoted(name, "`"),
        lambda sql, column: f"{sql} + 0" if column.type.startswith("bit(") else sql,
        is_day=" AND day({0}) > 0 AND month({0}) > 0",
    )

    def columns(self, table: tuple[str, ...]) -> list[Column]:
        """Read the information schema, which shows what the user may read."""
        if len(table) > 2:
            return []
        schema = table[0] if len(table) == 2 else None
        return [
            Column(name, shown, _TIMES.get(kind), _EXACT_BELOW.get(kind))
            for name, kind, shown in (
                (name, kind.lower(), shown)
                for name, kind, shown in self._rows(_COLUMNS, schema, table[-1])
            )
        ]

    def tables(self) -> list[str]:
        return [name for (name,) in self._rows(_TABLES)]

    def _rows(self, sql: str, *values: str | None) -> list[list[str]]:
        """Return rows of the catalog, of which MySQL 8 gives some texts as bytes."""
        with self.connection.cursor() as cursor:
            cursor.execute(sql, values)
            return [[v.decode() if isinstance(v, bytes) else v for v in row] for row in cursor]

    def batches(self, sql: str) -> Generator[pa.RecordBatch]:
        from pymysql.cursors import SSCursor

        cursor = SSCursor(self.connection)
        try:
            cursor.execute(sql)
            names = [f"c{position}" for position in range(len(cursor.description))]
            while rows := cursor.fetchmany(ROWS):
                columns = zip(*rows, strict=True)
                yield pa.record_batch(
                    [pa.array(map(_text, c), pa.string()) for c in columns], names
                )
        except BaseException:  # closing the cursor would read the result to its end
            if cursor._result is not None:
                cursor._result.unbuffered_active = False
            cursor.connection = None
            self.connection.close()
            raise
        cursor.close()

    def is_scanned(self, sql: str) -> bool:
        from pymysql.cursors import DictCursor

        with self.connection.cursor(DictCursor) as cursor:
            cursor.execute(f"EXPLAIN {sql}")
            return any(row["type"] == "ALL" for row in cursor)


def _text(value: Any) -> str | None:
    """Write a driver's value as the other sources' casts do."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, bytes):
        return text_of_bytes(value)
    return value.isoformat(" ") if isinstance(value, datetime) else str(value)


@contextmanager
def open_source(address: Address) -> Iterator[Source]:
    """Connect; gives up after ``CONNECT_SECONDS``."""
    import pymysql

    try:
        parts = urlsplit(f"x://{address.url.partition('://')[2]}")
        given = {
            "host": parts.hostname, "port": parts.port, "database": unquote(parts.path[1:]),
            "user": unquote(parts.username or ""), "password": unquote(parts.password or ""),
        }  # fmt: skip
        options = {name: _option(text) for name, text in parse_qsl(parts.query)}
        connection = pymysql.connect(
            **{name: value for name, value in given.items() if value},
            **{"charset": "utf8mb4", "connect_timeout": CONNECT_SECONDS} | options,
        )
    except (ValueError, TypeError, AttributeError):  # a port, an option, or its form
        raise SourceError(
            "USMS_SOURCE_URL can't be understood as a database URL: correct it."
        ) from None
    try:
        with connection.cursor() as cursor:
            for setting in _SETTINGS:
                cursor.execute(setting)
        connection.commit()
        yield _MySQL(connection)
    finally:
        if connection.open:  # not given up in the middle of a result
            connection.close()


def _option(text: str) -> str | int | bool:
    """Return an option of the URL as PyMySQL takes it: ``ssl_verify_cert=true``."""
    words = {"true": True, "false": False}
    return int(text) if text.isdecimal() else words.get(text.lower(), text)


def explain(error: Exception, address: Address) -> SourceError:
    """Know an error by its number."""
    if isinstance(error, ImportError) or "'cryptography' package is required" in str(error):
        return sentences.error("no_driver", address, "pip install 'usms-pipeline[mysql]'")
    number = error.args[0] if len(error.args) > 1 else 0
    said = str(error.args[1]) if number else str(error)
    what = _MEANINGS.get(number, "broke_off")
    return sentences.error(what, address, said, _LIMITS.get(number, ""))
