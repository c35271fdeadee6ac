"""The time column in each database's own types: read right, counted right, and by the index."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.services import Database
from usms_pipeline import source
from usms_pipeline.settings import Settings
from usms_pipeline.source.reading import statement

START = datetime(2024, 8, 1, tzinfo=UTC)
END = START + timedelta(days=2)
TIMES = [START + timedelta(hours=h, seconds=7) for h in range(-60, 108, 12)]
INSIDE = [t for t in TIMES if START <= t < END]

FORMS: dict[str, Any] = {
    "naive": lambda t: t.strftime("%Y-%m-%d %H:%M:%S"),
    "aware": lambda t: t.strftime("%Y-%m-%d %H:%M:%S+00:00"),
    "date": lambda t: t.strftime("%Y-%m-%d"),
    "iso": lambda t: t.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "epoch_s": lambda t: int(t.timestamp()),
    "epoch_ms": lambda t: int(t.timestamp()) * 1000,
    "epoch_us": lambda t: int(t.timestamp()) * 10**6,
    "epoch_ns": lambda t: int(t.timestamp()) * 10**9,
    "yyyymmddhhmmss": lambda t: int(t.strftime("%Y%m%d%H%M%S")),
}
TYPES = {
    "postgresql": [
        ("timestamptz", "aware"), ("timestamp", "naive"), ("timestamp(0)", "naive"),
        ("date", "date"), ("text", "iso"), ("varchar(40)", "iso"), ("char(40)", "iso"),
        ("text", "epoch_ms"), ("int", "epoch_s"), ("bigint", "epoch_ms"), ("bigint", "epoch_ns"),
        ("numeric(20,3)", "epoch_s"), ("double precision", "epoch_us"),
        ("bigint", "yyyymmddhhmmss"),
    ],
    "mariadb": [
        ("timestamp", "naive"), ("datetime", "naive"), ("date", "date"), ("varchar(40)", "iso"),
        ("text", "epoch_s"), ("int unsigned", "epoch_s"), ("bigint", "epoch_ms"),
        ("decimal(20,3)", "epoch_s"), ("double", "epoch_us"), ("bigint", "yyyymmddhhmmss"),
    ],
    "sqlite": [
        ("datetime", "naive"), ("text", "iso"), ("", "iso"), ("", "epoch_s"), ("text", "epoch_ms"),
        ("integer", "epoch_s"), ("timestamp", "epoch_ms"), ("real", "epoch_us"),
        ("date", "date"), ("integer", "yyyymmddhhmmss"),
    ],
    "duckdb": [
        ("timestamptz", "aware"), ("timestamp", "naive"), ("timestamp_ns", "naive"),
        ("timestamp_s", "naive"), ("date", "date"), ("varchar", "iso"), ("int", "epoch_s"),
        ("bigint", "epoch_ns"), ("double", "epoch_s"), ("decimal(20,3)", "epoch_ms"),
    ],
}  # fmt: skip
CASES = [(kind, *case) for kind, cases in TYPES.items() for case in cases]


class Place:
    """One way to make a table, whatever the kind of database."""

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

    def settings(self, **more: Any) -> Settings:
        return Settings(_env_file=None, source_url=self.url, **{"source_table": "t", **more})

    def sent(self, **more: Any) -> list[datetime]:
        batches = source.read(self.settings(**more), START, END)
        return sorted(t for batch in batches for t in batch.column("sent_at").to_pylist())


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(request.param, request, tmp_path)


def literal(value: Any) -> str:
    return "NULL" if value is None else f"'{value}'" if isinstance(value, str) else str(value)


def values(*some: Any) -> str:
    return ", ".join(f"('{i}', {literal(v)})" for i, v in enumerate(some))


@pytest.mark.parametrize(
    ("place", "type_", "form"), CASES, indirect=["place"], ids=[" ".join(c) for c in CASES]
)
def test_times_are_read_and_counted_whatever_the_column_type(
    place: Place, type_: str, form: str
) -> None:
    written = [FORMS[form](t) for t in TIMES]
    place.execute(
        f"CREATE TABLE t (session_no varchar(9), sent_at {type_} NULL)",
        f"INSERT INTO t VALUES {values(*written, None)}",
    )
    midnight = {"hour": 0, "second": 0} if form == "date" else {}
    assert place.sent() == [t.replace(**midnight) for t in INSIDE]

    seen = source.survey(place.settings())
    assert (seen.rows, seen.rows_without_sent_at) == (len(TIMES) + 1, 1)
    assert seen.first_sent_at == TIMES[0].replace(**midnight)
    assert seen.last_sent_at == TIMES[-1].replace(**midnight)
    assert seen.unread.count == 0


@pytest.mark.parametrize("place", ["postgresql", "mariadb", "sqlite", "duckdb"], indirect=True)
def test_a_naive_time_is_read_in_the_zone_of_the_source(place: Place) -> None:
    """Also in the hours that summer time skips or repeats, wherever the window begins."""
    kind = "timestamp" if place.kind in ("postgresql", "duckdb") else "datetime"
    local = ["2024-03-31 01:59:59", "2024-03-31 02:30:00", "2024-03-31 03:00:00",
             "2024-10-27 02:30:00"]  # fmt: skip
    place.execute(
        f"CREATE TABLE t (session_no varchar(9), sent_at {kind})",
        f"INSERT INTO t VALUES {values(*local)}",
    )
    settings = place.settings(source_timezone="Europe/Berlin")
    change = datetime(2024, 3, 31, 1, tzinfo=UTC)

    def sent(start: datetime, end: datetime) -> list[datetime]:
        return sorted(
            t for b in source.read(settings, start, end) for t in b.column("sent_at").to_pylist()
        )

    hour = timedelta(hours=1)
    assert sent(change - hour, change) == [change - timedelta(seconds=1)]
    assert sent(change, change + hour) == [change, change]
    autumn = datetime(2024, 10, 27, tzinfo=UTC)
    assert sent(autumn, autumn + hour) == [autumn + hour / 2]
    assert sent(autumn + hour, autumn + 2 * hour) == []


@pytest.mark.parametrize("place", ["postgresql", "mariadb", "sqlite", "duckdb"], indirect=True)
def test_unreadable_text_is_counted_and_never_fatal(place: Place) -> None:
    texts = ["2024-08-01T10:00:00Z", "soon", "", "2024-08-01T25:00:00Z", "2024-02-30", None]
    place.execute(
        "CREATE TABLE t (session_no varchar(9), sent_at varchar(40))",
        f"INSERT INTO t VALUES {values(*texts)}",
    )
    assert place.sent() == [START + timedelta(hours=10)]
    seen = source.survey(place.settings())
    assert (seen.rows, seen.rows_without_sent_at) == (6, 5)


@pytest.mark.parametrize("place", ["postgresql", "sqlite", "duckdb"], indirect=True)
def test_a_column_whose_form_changed_over_time_is_read_whole(place: Place) -> None:
    """Old rows in seconds, new ones in milliseconds; or text of two forms."""
    written = [int(t.timestamp()) * (1 if t < START + timedelta(days=1) else 1000) for t in TIMES]
    place.execute(
        "CREATE TABLE t (session_no varchar(9), sent_at bigint)",
        f"INSERT INTO t VALUES {values(*written)}",
    )
    assert place.sent() == INSIDE


@pytest.mark.parametrize("place", ["postgresql", "mariadb", "sqlite", "duckdb"], indirect=True)
@pytest.mark.parametrize("type_", ["varchar(40)", "bigint"])
def test_an_empty_table_gives_no_rows(place: Place, type_: str) -> None:
    place.execute(f"CREATE TABLE t (session_no varchar(9), sent_at {type_})")
    assert place.sent() == []
    seen = source.survey(place.settings())
    assert (seen.rows, seen.first_sent_at, seen.last_sent_at) == (0, None, None)


@pytest.mark.parametrize("place", ["mariadb"], indirect=True)
def test_zero_dates_of_mysql_are_unreadable_not_fatal(place: Place) -> None:
    place.execute(
        "CREATE TABLE t (session_no varchar(9), sent_at datetime)",
        "SET SESSION sql_mode = ''",
        "INSERT INTO t VALUES ('a', '0000-00-00 00:00:00'), ('b', '2024-00-00 00:00:00'), "
        "('c', '2024-08-01 10:00:00')",
    )
    assert place.sent() == [START + timedelta(hours=10)]
    settings = place.settings()
    everything = source.read(settings, START - timedelta(days=999), END + timedelta(days=999))
    assert sum(b.num_rows for b in everything) == 1
    assert source.survey(settings).rows == 3
    assert source.survey(settings).rows_without_sent_at >= 1


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
def test_infinity_is_no_usable_time(place: Place) -> None:
    place.execute(
        "CREATE TABLE t (session_no text, sent_at timestamptz)",
        "INSERT INTO t VALUES ('a', 'infinity'), ('b', '-infinity'), ('c', '9999-12-31'), "
        "('d', '2024-08-01 10:00:00Z')",
    )
    assert place.sent() == [START + timedelta(hours=10)]
    seen = source.survey(place.settings())
    assert (seen.rows_without_sent_at, seen.last_sent_at) == (3, START + timedelta(hours=10))


def many(place: Place, type_: str, form: str) -> None:
    """100,000 rows over 1,000 days, indexed."""
    first = START - timedelta(days=900)
    times = [first + timedelta(minutes=14 * i) for i in range(100_000)]
    rows = [f"('{i}', {literal(FORMS[form](t))})" for i, t in enumerate(times)]
    place.execute(
        f"CREATE TABLE t (session_no varchar(9), sent_at {type_})",
        *(f"INSERT INTO t VALUES {', '.join(rows[i : i + 10**4])}" for i in range(0, 10**5, 10**4)),
        "CREATE INDEX by_time ON t (sent_at)",
        "ANALYZE TABLE t" if place.kind == "mariadb" else "ANALYZE t",
    )


INDEXED = {
    "postgresql": [
        ("timestamptz", "aware"), ("timestamp", "naive"), ("date", "date"), ("text", "iso"),
        ("bigint", "epoch_ms"), ("numeric", "epoch_s"), ("text", "epoch_s"),
    ],
    "mariadb": [("datetime", "naive"), ("varchar(40)", "iso"), ("bigint", "epoch_ms")],
    "sqlite": [("datetime", "naive"), ("text", "iso"), ("integer", "epoch_s"), ("", "epoch_ms")],
}  # fmt: skip


@pytest.mark.parametrize(
    ("place", "type_", "form"),
    [
        pytest.param(kind, *case, marks=[] if kind == "sqlite" else pytest.mark.long)
        for kind, cases in INDEXED.items()
        for case in cases
    ],
    indirect=["place"],
)
def test_the_window_is_served_from_an_index(place: Place, type_: str, form: str) -> None:
    many(place, type_, form)
    explain = "EXPLAIN QUERY PLAN" if place.kind == "sqlite" else "EXPLAIN"
    steps = place.execute(f"{explain} {statement(place.settings(), START, END)}")
    plan = "\n".join(str(part) for step in steps for part in step)
    if place.kind == "mariadb":
        assert [step[3:6:2] for step in steps] == [("range", "by_time")], plan
    elif place.kind == "sqlite":
        assert "SCAN" not in plan, plan
        assert re.search("USING (COVERING )?INDEX by_time", plan), plan
    else:
        assert "Index Scan" in plan, plan
        assert "Seq Scan" not in plan
