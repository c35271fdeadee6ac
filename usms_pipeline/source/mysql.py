"""MySQL and MariaDB through PyMySQL, with a server-side cursor."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pyarrow as pa
import sqlalchemy as sa

from usms_pipeline.contract.errors import SourceError
from usms_pipeline.contract.source_address import Address
from usms_pipeline.source import sentences, sqlalchemy_urls
from usms_pipeline.source.kinds import Column, Dialect, Source, TimeType
from usms_pipeline.source.query import quoter

ERRORS: Final = (*sqlalchemy_urls.ERRORS, RuntimeError)
CONNECT_SECONDS: Final = 10

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
_TABLES = sa.text(
    "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() ORDER BY 1"
)
_COLUMNS = sa.text(
    "SELECT column_name, data_type, column_type FROM information_schema.columns "
    "WHERE table_schema = coalesce(:schema, DATABASE()) AND table_name = :name "
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
        quoter("`"),
        lambda sql, column: f"{sql} + 0" if column.type.startswith("bit(") else sql,
        has_time_zones=False,
        is_day=" AND day({0}) > 0 AND month({0}) > 0",
    )

    def columns(self, table: tuple[str, ...]) -> list[Column]:
        """Read the information schema, which shows what the user may read."""
        if len(table) > 2:
            return []
        schema = table[0] if len(table) == 2 else None
        found = self.connection.execute(_COLUMNS, {"schema": schema, "name": table[-1]})
        return [
            Column(name, shown, _TIMES.get(kind), _EXACT_BELOW.get(kind))
            for name, kind, shown in ((n, k.lower(), s) for n, k, s in _as_rows(found))
        ]

    def tables(self) -> list[str]:
        return [name for (name,) in _as_rows(self.connection.execute(_TABLES))]

    def batches(self, sql: str) -> Generator[pa.RecordBatch]:
        yield from sqlalchemy_urls.stream(self.connection, sql, _give_up)

    def is_scanned(self, sql: str) -> bool:
        options = self.connection.execution_options(no_parameters=True)
        found = options.exec_driver_sql(f"EXPLAIN {sql}")
        return any(row["type"] == "ALL" for row in found.mappings())


@contextmanager
def open_source(address: Address) -> Iterator[Source]:
    """Connect; gives up after ``CONNECT_SECONDS``."""
    driver = address.scheme.partition("+")[2] or "pymysql"
    url = sa.make_url(address.url).set(drivername=f"mysql+{driver}")
    if "charset" not in url.query:
        url = url.update_query_dict({"charset": "utf8mb4"})
    arguments = {"connect_timeout": CONNECT_SECONDS} if driver == "pymysql" else {}
    with sqlalchemy_urls.connected(url, **arguments) as connection:
        for setting in _SETTINGS:
            connection.exec_driver_sql(setting)
        connection.commit()
        yield _MySQL(connection)


def explain(error: Exception, address: Address) -> SourceError:
    """Know an error by its number."""
    reason = getattr(error, "orig", None) or error
    if isinstance(error, ImportError) or "'cryptography' package is required" in str(reason):
        return sentences.error("no_driver", address, "pip install 'usms-pipeline[mysql]'")
    told: tuple[Any, ...] = reason.args
    if len(told) < 2 or not isinstance(told[0], int) or not told[0]:
        return sqlalchemy_urls.explain(error, address)
    number, said = told[0], str(told[1])
    what = _MEANINGS.get(number, "broke_off")
    return sentences.error(what, address, said, _LIMITS.get(number, ""))


def _give_up(cursor: Any) -> None:
    """Leave the rest of a result unread: closing PyMySQL's cursor would read it to its end."""
    result = getattr(cursor, "_result", None)
    if result is not None:
        result.unbuffered_active = False
    cursor.connection = None


def _as_rows(found: sa.CursorResult[Any]) -> list[list[str]]:
    """MySQL 8 gives some of the catalog's texts as bytes."""
    return [[v.decode() if isinstance(v, bytes) else v for v in row] for row in found]
