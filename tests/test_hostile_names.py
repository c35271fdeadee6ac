"""Names and values that try to be SQL stay names and values: of tables, files, columns, folders."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tests.account import START, Account
from tests.services import Database
from usms_pipeline import source
from usms_pipeline.contract.errors import StorageError, UnknownColumn
from usms_pipeline.figures.queries import rates
from usms_pipeline.settings import Settings
from usms_pipeline.warehouse import connect

AT = datetime(2026, 3, 2, 9, tzinfo=UTC)
NAMES = (
    'x"; DROP TABLE victim; --', "x'; DROP TABLE victim; --", "x`; DROP TABLE victim; --",
    'a"b.c', "%s %(x)s :x ? $1", "back\\", "{0} {x}", "$$; DROP TABLE victim; $$", "发送\u202e/*",
)  # fmt: skip
VALUES = (
    "z'; DROP TABLE victim; --", '"; DROP TABLE receipts; --', "\\'; DROP TABLE victim; --",
    "%s", "?", "$1", "{{env.HOME}}", "a&id=b", "a b#c", "../../etc/passwd",
    "x' OR 1=1 --", "`id`", "发送",
)  # fmt: skip
ROLES = ("session", "sent_at", "phone", "template")


def settings(url: str, table: str | None, columns: dict[str, str]) -> Settings:
    return Settings(
        _env_file=None, source_url=url, source_table=table, session_column=columns["session"],
        sent_at_column=columns["sent_at"], phone_column=columns["phone"],
        dimensions=[columns["template"]],
    )  # fmt: skip


def columns_of(name: str) -> dict[str, str]:
    """Every column that is read has a hostile name."""
    return {role: f"{name} {role}" for role in ROLES}


def found(given: Settings) -> list[tuple[Any, ...]]:
    batches = source.read(given, AT - timedelta(days=1), AT + timedelta(days=1))
    rows = [tuple(row.values()) for batch in batches for row in batch.to_pylist()]
    assert source.survey(given).rows == len(rows)
    return sorted((row[0], row[1], row[4]) for row in rows)


EXPECTED = sorted((value, value, value) for value in VALUES)
ROWS = [(value, AT.replace(tzinfo=None), value, value) for value in VALUES]


def quoted(name: str, mark: str = '"') -> str:
    return mark + name.replace(mark, mark * 2) + mark


def made(kind: str, name: str, request: pytest.FixtureRequest, folder: Path) -> Database:
    """Make a table of this name, and columns of such names, beside one that is a victim."""
    mark = "`" if kind == "mariadb" else '"'
    time = {"mariadb": "datetime(6)", "sqlite": "text"}.get(kind, "timestamp")
    columns = ", ".join(
        f"{quoted(column, mark)} {time if role == 'sent_at' else 'varchar(200)'}"
        for role, column in columns_of(name).items()
    )
    tables = ("CREATE TABLE victim (a int)", f"CREATE TABLE {quoted(name, mark)} ({columns})")
    if kind in ("postgresql", "mariadb"):
        database: Database = request.getfixturevalue(kind)
        database.execute(*tables)
        if kind == "postgresql":
            rows = pa.table([*map(pa.array, zip(*ROWS, strict=True))], [*columns_of(name).values()])
            database.execute(ingest=(name, rows))
        else:
            table = quoted(name, mark).replace("%", "%%")
            database.execute(many=(f"INSERT INTO {table} VALUES (%s, %s, %s, %s)", ROWS))
        return database
    path = str(folder / f"shop'; DROP.{kind}")

    def execute(*statements: str, many: Any = ()) -> Any:
        with closing({"sqlite": sqlite3, "duckdb": duckdb}[kind].connect(path)) as con:
            for statement in statements:
                found = con.execute(statement).fetchall()
            for row in many:
                con.execute(f"INSERT INTO {quoted(name)} VALUES (?, ?, ?, ?)", row)
            con.commit()
        return found

    texts = [(a, at.isoformat(" "), b, c) for a, at, b, c in ROWS]
    execute(*tables, many=texts)
    return Database(f"{kind}:///{path}", execute)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["postgresql", "mariadb", "sqlite", "duckdb"])
def test_a_table_and_its_columns_may_have_any_name(kind, name, request, tmp_path):
    database = made(kind, name, request, tmp_path)
    assert found(settings(database.url, name, columns_of(name))) == EXPECTED
    assert [*database.execute("SELECT count(*) FROM victim")] == [(0,)]


def test_postgresql_where_a_backslash_ends_no_literal(postgresql, request, tmp_path):
    """Some databases still read texts as they did before 2010."""
    name = "back\\'; DROP TABLE victim; --"
    made("postgresql", name, request, tmp_path)
    [(database,)] = postgresql.execute("SELECT current_database()")
    postgresql.execute(f"ALTER DATABASE {database} SET standard_conforming_strings = off")
    assert found(settings(postgresql.url, name, columns_of(name))) == EXPECTED
    assert postgresql.execute("SELECT count(*) FROM victim") == [(0,)]


FILES = ("it's [1]", "a*b?c", "{a,b}", "x'); DROP", "50%% off", "new\nline", "**", "发送")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_file_name_with_wildcards_reads_only_that_file(kind, name, tmp_path):
    """Not what its name would fit, taken for a pattern."""
    columns = columns_of(NAMES[kind == "csv"])
    table = pa.table([*map(pa.array, zip(*ROWS, strict=True))], [*columns.values()])
    for one in (name, "it'sX1", "aXXbXc"):
        path = tmp_path / f"{one}.{kind}"
        if kind == "parquet":
            pq.write_table(table, path)
        else:
            pa.csv.write_csv(table, path)
    assert found(settings(str(tmp_path / f"{name}.{kind}"), None, columns)) == EXPECTED


# --- our own files --------------------------------------------------------------------------------

PLACES = ('it\'s "mine"; DROP TABLE x; --', "50% [a-z]*", "{{day}} $HOME", "new\nline", "-rf")
DIMENSION = NAMES[0]


@pytest.fixture
def hostile(tmp_path: Path, simulator: Any) -> Callable[[str], Account]:
    """Make an account in which every name and value is hostile."""

    def make(place: str) -> Account:
        folder = tmp_path / place
        folder.mkdir()
        phones = [f"+86138001380{n:02}" for n in range(len(VALUES))]
        names = ["session_no", "phone", "sent_at", "country", "template", "purpose", "sender"]
        times = pa.array([START - timedelta(hours=2)] * len(VALUES), pa.timestamp("us", "UTC"))
        plain = pa.array(["CN"] * len(VALUES))
        messages = pa.table([list(VALUES), phones, times, plain, plain, plain, plain], names=names)
        account = Account(folder, simulator, messages, dimensions=[DIMENSION])
        account.announce(
            messages.append_column(DIMENSION, pa.array(list(VALUES))).set_column(
                1, "phone", pa.array([*VALUES[:3], *phones[3:]])
            )
        )
        return account

    return make


@pytest.mark.parametrize(
    "place", [PLACES[0], *(pytest.param(one, marks=pytest.mark.long) for one in PLACES[1:])]
)
def test_folders_sessions_phones_and_dimensions_of_any_name_go_the_whole_way(place, hostile):
    account = hostile(place)
    account.run()
    pipeline = account.pipeline
    pipeline.rebuild()
    pipeline.forget(numbers=[VALUES[0]])
    published = pipeline.publish()
    assert pipeline.conservation() == []
    with connect(published.path) as con:
        sessions = con.sql("SELECT DISTINCT session_no FROM receipts").fetchall()
        assert {row[0] for row in sessions} == set(VALUES[1:])
        by = rates(con, DIMENSION).to_arrow_table()
        assert set(by[DIMENSION].to_pylist()) == set(VALUES[1:])
        again = con.sql(f"FROM delivery_rate_by('{DIMENSION}')").to_arrow_table()
        assert sorted(again[DIMENSION].to_pylist()) == sorted(by[DIMENSION].to_pylist())
    made = {path.name for path in account.folder.parent.iterdir()}
    assert made == {place}, "nothing is written beside it"


@pytest.mark.long
def test_a_folder_that_duckdb_cannot_write_to_is_told(hostile):
    """Text after a `?` is no part of a path to it."""
    with pytest.raises(StorageError, match="Can't publish the warehouse"):
        hostile("what?").run()


@pytest.mark.long
@pytest.mark.parametrize(
    "argument",
    ["x') OR (1=1", "*", "x'); DROP TABLE receipts; --", 'status"', "status, phone", "", "phone'"],
)
def test_a_hostile_column_is_no_column(argument, hostile):
    account = hostile("plain")
    account.run()
    with connect(account.settings.warehouse_path) as con:
        with pytest.raises(UnknownColumn):
            rates(con, argument)
        with pytest.raises(duckdb.Error):
            con.execute("FROM delivery_rate_by(?)", [argument]).fetchall()
        quoted_argument = argument.replace("'", "''")
        with pytest.raises(duckdb.Error, match="column"):
            con.execute(f"FROM delivery_rate_by('{quoted_argument}')").fetchall()
        assert con.execute("SELECT count(*) FROM receipts").fetchall() == [(len(VALUES),)]
