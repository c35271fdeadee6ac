"""PostgreSQL through ADBC: COPY in binary, straight to Arrow."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Final

import adbc_driver_postgresql.dbapi
import pyarrow as pa

from usms_pipeline.contract.errors import SourceError
from usms_pipeline.contract.source_address import Address
from usms_pipeline.source import adbc, query, sentences
from usms_pipeline.source.kinds import Column, Dialect, Source, TimeType

ERRORS: Final = adbc.ERRORS
CONNECT_SECONDS: Final = 10
_BATCH: Final = {"adbc.postgresql.batch_size_hint_bytes": str(4 * 1024 * 1024)}

_TIMES = {
    "timestamptz": TimeType.AWARE,
    "timestamp": TimeType.NAIVE,
    "date": TimeType.DATE,
    **dict.fromkeys(("text", "varchar", "bpchar", "citext"), TimeType.TEXT),
    **dict.fromkeys(("int4", "int8", "numeric", "float4", "float8"), TimeType.NUMBER),
}
_EXACT_BELOW = {"float4": 2**24, "float8": 2**53}
_LIMITS = {
    "statement timeout": "statement_timeout",
    "lock timeout": "lock_timeout",
    "idle-in-transaction timeout": "idle_in_transaction_session_timeout",
    "due to transaction timeout": "transaction_timeout",
}
"""From the server's message about a limit of the role, the limit's name."""
_SETTINGS = (
    "SET TRANSACTION READ ONLY",
    "SET LOCAL TimeZone = 'UTC'",
    "SET LOCAL DateStyle = 'ISO, YMD'",
    "SET LOCAL bytea_output = 'hex'",
    "SET LOCAL standard_conforming_strings = on",  # else a backslash would end our literals
)
"""For this transaction only, so that a connection pool's other users see none of it."""
_TABLES = """
    SELECT CASE WHEN pg_table_is_visible(c.oid) THEN '' ELSE n.nspname || '.' END || c.relname
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
    ORDER BY 1
"""
_COLUMNS = """
    WITH RECURSIVE bases AS (  -- a domain may be over a domain
        SELECT oid AS type, oid AS base FROM pg_type
        UNION ALL
        SELECT b.type, t.typbasetype
        FROM bases b JOIN pg_type t ON t.oid = b.base AND t.typtype = 'd'
    )
    SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), t.typname::text
    FROM pg_attribute a
    JOIN bases b ON b.type = a.atttypid
    JOIN pg_type t ON t.oid = b.base AND t.typtype <> 'd'
    WHERE a.attrelid = to_regclass({table}) AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum
"""


class _PostgreSQL(Source):
    """An open PostgreSQL database, in one transaction that only reads."""

    dialect = Dialect(query.quoted, lambda sql, column: f"CAST({sql} AS text)")

    def columns(self, table: tuple[str, ...]) -> list[Column]:
        """Read the catalog: this needs no right to the table, and sees every kind of one."""
        if len(table) > 2:  # another database: PostgreSQL has no way there
            return []
        name = query.text(query.table_name(self.dialect, table))
        found = adbc.rows(self.connection, _COLUMNS.format(table=name))
        return [
            Column(name, shown, _TIMES.get(base), exact_below=_EXACT_BELOW.get(base))
            for name, shown, base in found
        ]

    def tables(self) -> list[str]:
        return [name for (name,) in adbc.rows(self.connection, _TABLES)]

    def batches(self, sql: str) -> Generator[pa.RecordBatch]:
        """Stream a query: a literal in place of a parameter keeps it a COPY."""
        return adbc.stream(self.connection, sql, **_BATCH)

    def is_scanned(self, sql: str) -> bool:
        with self.connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{"adbc.postgresql.use_copy": "false"})
            cursor.execute(f"EXPLAIN {sql}")
            return any("Seq Scan" in line for (line,) in cursor.fetchall())


@contextmanager
def open_source(address: Address) -> Iterator[Source]:
    """Connect; gives up after ``CONNECT_SECONDS``."""
    url = f"postgresql://{address.url.partition('://')[2]}"
    if "connect_timeout=" not in url:
        url += f"{'&' if '?' in url else '?'}connect_timeout={CONNECT_SECONDS}"
    with adbc_driver_postgresql.dbapi.connect(url) as connection:
        with connection.cursor() as cursor:
            for setting in _SETTINGS:
                cursor.execute(setting)
        yield _PostgreSQL(connection)


def explain(error: Exception, address: Address) -> SourceError:
    """Explain an error by its SQLSTATE, or by libpq's text before there is a connection."""
    text = str(error)
    what, limit = "unreachable", next((name for said, name in _LIMITS.items() if said in text), "")
    if getattr(error, "sqlstate", None) == "42501":
        what = "denied"
    elif limit:
        what = "cut_short"
    elif "Failed to connect" not in text:
        what = "broke_off"
    elif "no pg_hba.conf entry" not in text:
        if any(word in text for word in ("authentication failed", "no password", 'role "')):
            what = "wrong_password"
        elif 'database "' in text:
            what = "no_database"
    limit = f"{limit} (ALTER ROLE … SET {limit})"
    return sentences.error(what, address, _said(text), limit)


def _said(text: str) -> str:
    """Return PostgreSQL's own words, without what the driver puts around them."""
    for mark in ("FATAL: ", "ERROR: ", "failed: ", "Failed to connect: "):
        _, found, rest = text.partition(mark)
        if found:
            return rest.partition(". SQLSTATE")[0].strip()
    return text
