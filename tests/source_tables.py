"""Tables of messages in every kind of source: the same rows, each in the source's own types."""

from __future__ import annotations

import random
import sqlite3
import uuid
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.services import Database
from usms_pipeline import source
from usms_pipeline.settings import Settings

SESSION = 'session "no"'
SENT_AT = "发送 时间"
PHONE = "phone`%s"
RECIPIENTS = "how many: n"
DIMENSIONS = ("select", "a.b", "50%% off:now", "back\\slash 'quoted'")
NAMES = (SESSION, SENT_AT, PHONE, RECIPIENTS, *DIMENSIONS)

FIRST = datetime(2024, 8, 1, tzinfo=UTC)
LAST = FIRST + timedelta(days=4)

Row = tuple[Any, ...]


def rows(count: int = 10_000) -> list[Row]:
    """Messages spread over four days; some without a session, a phone, a template."""
    some = random.Random(7)
    step = (LAST - FIRST) / count
    return [
        (
            str(uuid.UUID(int=some.getrandbits(128), version=4)) if i % 97 else None,
            FIRST + i * step + timedelta(microseconds=i % 1000),
            13_800_000_000 + some.randrange(10**8) if i % 5 and i > 3000 else None,
            1 + i % 3,
            some.choice(["验证码", "naïve", "", "O'Brien", None]),
            some.choice([12, 345, None]),
            Decimal(some.randrange(100)) + Decimal("0.25"),
            some.choice(["a\\b", "%s", ":x"]),
        )
        for i in range(count)
    ]


def settings(url: str, **more: Any) -> Settings:
    """Settings for the odd table at a URL."""
    given = {
        "source_table": "sms.log 短信", "session_column": SESSION, "sent_at_column": SENT_AT,
        "phone_column": PHONE, "recipients_column": RECIPIENTS, "dimensions": DIMENSIONS,
    }  # fmt: skip
    return Settings(_env_file=None, source_url=url, **{**given, **more})


def read_all(
    settings: Settings, start: datetime = FIRST, end: datetime = LAST
) -> list[dict[str, Any]]:
    """Every row of a window, in the order of its text."""
    batches = list(source.read(settings, start, end))
    found = [row for batch in batches for row in batch.to_pylist()]
    return sorted(found, key=repr)


def columns(types: Iterable[str], mark: str = '"') -> str:
    """The column list of a CREATE TABLE."""
    quoted = (f"{mark}{name.replace(mark, mark * 2)}{mark}" for name in NAMES)
    return ", ".join(f"{name} {kind}" for name, kind in zip(quoted, types, strict=True))


def arrow(some: list[Row]) -> pa.Table:
    """The rows as an Arrow table, with times in UTC."""
    types = (
        pa.string(), pa.timestamp("us", "UTC"), pa.int64(), pa.int32(),
        pa.string(), pa.int32(), pa.decimal128(10, 2), pa.string(),
    )  # fmt: skip
    arrays = [pa.array(v, t) for v, t in zip(zip(*some, strict=True), types, strict=True)]
    return pa.table(arrays, names=list(NAMES))


def in_postgresql(database: Database, some: list[Row]) -> str:
    table = '"sms.log 短信"'
    kinds = ("uuid", "timestamptz", "bigint", "int", "text", "int", "numeric(10,2)", "varchar(9)")
    database.execute(
        f"CREATE TABLE {table} ({columns(kinds)})",
        f'CREATE INDEX by_time ON {table} ("{SENT_AT}")',
        "CREATE TABLE staged AS SELECT * FROM " + table,
        f"ALTER TABLE staged ALTER COLUMN {columns(kinds).split(' uuid')[0]} TYPE text",
        'ALTER TABLE staged ALTER COLUMN "50%% off:now" TYPE text',
    )
    plain = arrow(some)
    position = plain.schema.get_field_index("50%% off:now")
    plain = plain.set_column(position, "50%% off:now", plain.column(position).cast(pa.string()))
    database.execute(ingest=("staged", plain))
    chosen = ", ".join(
        f'"{n.replace(chr(34), chr(34) * 2)}"::{k}' for n, k in zip(NAMES, kinds, strict=True)
    )
    database.execute(f"INSERT INTO {table} SELECT {chosen} FROM staged", f"ANALYZE {table}")
    return database.url


def in_mariadb(database: Database, some: list[Row]) -> str:
    kinds = (
        "uuid", "datetime(6)", "bigint", "int", "text", "int", "decimal(10,2)", "varchar(9)",
    )  # fmt: skip
    database.execute(
        f"CREATE TABLE `sms.log 短信` ({columns(kinds, '`')}, KEY by_time (`{SENT_AT}`))",
        many=(
            f"INSERT INTO `sms.log 短信` VALUES ({', '.join(['%s'] * 8)})",
            [(one[0], one[1].replace(tzinfo=None), *one[2:]) for one in some],
        ),
    )
    return database.url


def in_sqlite(folder: Path, some: list[Row]) -> str:
    path = folder / "odd #1%20.db"
    kinds = ("", "datetime", "integer", "int", "text", "int", "decimal(10,2)", "text")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f'CREATE TABLE "sms.log 短信" ({columns(kinds)})')
        connection.execute(f'CREATE INDEX by_time ON "sms.log 短信" ("{SENT_AT}")')
        connection.executemany(
            f'INSERT INTO "sms.log 短信" VALUES ({", ".join("?" * 8)})',
            [(*one[:1], one[1].isoformat(" "), *one[2:6], float(one[6]), one[7]) for one in some],
        )
    return f"sqlite:///{str(path).replace('%', '%25').replace('#', '%23')}"


def in_duckdb(folder: Path, some: list[Row]) -> str:
    path = folder / "it's.duckdb"
    kinds = ("uuid", "timestamp", "bigint", "int", "text", "int", "decimal(10,2)", "text")
    with duckdb.connect(str(path)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f'CREATE TABLE "sms.log 短信" ({columns(kinds)})')
        connection.register("messages", arrow(some))
        connection.execute('INSERT INTO "sms.log 短信" SELECT * FROM messages')
    return f"duckdb:///{path}"


def in_parquet(folder: Path, some: list[Row]) -> str:
    half = len(some) // 2
    for part, few in enumerate((some[:half], some[half:])):
        pq.write_table(arrow(few), folder / f"part {part}.parquet")
    return str(folder / "part *.parquet")


def in_csv(folder: Path, some: list[Row]) -> str:
    path = folder / "log[1].csv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        file.write(_csv_line(NAMES))
        file.writelines(
            _csv_line([one[0], one[1].isoformat().replace("+00:00", "Z"), *one[2:]]) for one in some
        )
    return str(path)


def _csv_line(values: Iterable[Any]) -> str:
    """Quote what is there; nothing at all stands for NULL."""
    quoted = ("" if v is None else '"' + str(v).replace('"', '""') + '"' for v in values)
    return ";".join(quoted) + "\n"


class Place:
    """One way to make a table, in any kind of database."""

    def __init__(self, kind: str, request: pytest.FixtureRequest, folder: Path) -> None:
        self.kind = kind
        self.path = folder / "file.db"
        server: Database | None = (
            request.getfixturevalue(kind) if kind in ("postgresql", "mariadb") else None
        )
        self._server = server
        self.url = server.url if server else f"{kind}:///{self.path}"

    def execute(self, *statements: str) -> Any:
        if self._server:
            return self._server.execute(*statements)
        if self.kind == "sqlite":
            with closing(sqlite3.connect(self.path)) as connection, connection:
                return [connection.execute(one).fetchall() for one in statements][-1]
        with duckdb.connect(str(self.path)) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            return [connection.execute(one).fetchall() for one in statements][-1]

    def holds(self, *times: Any, type_: str = "varchar(40)") -> None:
        """Make the table ``t`` of these times of sending."""
        self.execute(f"CREATE TABLE t (session_no varchar(9), sent_at {type_} NULL)")
        if times:
            self.execute(f"INSERT INTO t VALUES {values(*times)}")

    def settings(self, **more: Any) -> Settings:
        return Settings(_env_file=None, source_url=self.url, **{"source_table": "t", **more})

    def sent(self, start: datetime = FIRST, days: int = 2, **more: Any) -> list[datetime]:
        """Return the times of sending that are read of some days."""
        batches = source.read(self.settings(**more), start, start + timedelta(days=days))
        return sorted(t for batch in batches for t in batch.column("sent_at").to_pylist())


def literal(value: Any) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return "NULL" if value is None else str(value)


def values(*some: Any) -> str:
    return ", ".join(f"('{i}', {literal(v)})" for i, v in enumerate(some))
