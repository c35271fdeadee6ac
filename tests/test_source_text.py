"""Session numbers, phones, recipients and dimensions: one text, whatever type they had."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.services import Database
from tests.test_source_sent_at import Place
from usms_pipeline import source
from usms_pipeline.settings import Settings

START = datetime(2024, 8, 1, tzinfo=UTC)


def read(url: str, **more: Any) -> dict[str, list[Any]]:
    """The columns of everything in table t."""
    settings = Settings(_env_file=None, source_url=url, **{"source_table": "t", **more})
    batches = list(source.read(settings, START, START + timedelta(days=1)))
    return pa.Table.from_batches(batches).to_pydict()


def sqlite_table(path: Path, columns: str, *rows: tuple[Any, ...]) -> str:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"CREATE TABLE t (sent_at text DEFAULT '2024-08-01', {columns})")
        names = ", ".join(one.split()[0] for one in columns.split(", "))
        marks = ", ".join("?" * (columns.count(", ") + 1))
        connection.executemany(f"INSERT INTO t ({names}) VALUES ({marks})", rows)
    return f"sqlite:///{path}"


UNUSABLE = [None, "", "  \t", "a\nb", "a\x00b", "x" * 257, "\x85y\x85z"]
USABLE = {" a-1 ": "a-1", "\tb\n": "b", "短信": "短信", "x" * 256: "x" * 256, "A b": "A b"}


def test_an_unusable_session_number_is_null_and_its_row_stays(tmp_path: Path) -> None:
    texts = [*UNUSABLE, *USABLE]
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"session_no": texts, "sent_at": [START] * len(texts)}), path)
    found = read(str(path))
    assert found["session_no"] == [None] * len(UNUSABLE) + list(USABLE.values())
    assert found["phone"] == [None] * len(texts)
    assert found["recipients"] == [1] * len(texts)


def test_bytes_that_are_no_text_are_null_not_fatal(tmp_path: Path) -> None:
    rows = [(b"\xff\xfe", b"\xff"), (b"ok", b"x"), ("plain", None), (12, 1.5)]
    url = sqlite_table(tmp_path / "t.db", "session_no , extra ", *rows)
    found = read(url, dimensions=("extra",))
    assert found["session_no"] == [None, "ok", "plain", "12"]
    assert found["extra"] == [None, "x", None, "1.5"]


def test_a_sqlite_column_may_begin_with_any_number_of_nulls_and_numbers(tmp_path: Path) -> None:
    rows = [(None,)] * 20_000 + [(7,)] * 20_000 + [("text",)]
    url = sqlite_table(tmp_path / "t.db", "session_no ", *rows)
    assert read(url)["session_no"] == [None] * 20_000 + ["7"] * 20_000 + ["text"]


@pytest.mark.parametrize(
    ("given", "count"),
    [(1, 1), ("3", 3), (" 12 ", 12), ("4.00", 4), (2.0, 2), ("0007", 7),
     (99_999, 99_999), (100_000, 1),
     (None, 1), ("", 1), (0, 1), (-5, 1), ("many", 1), (10**12, 1), (2.5, 1)],
)  # fmt: skip
def test_recipients_is_a_count_and_one_where_it_can_not_be(
    given: Any, count: int, tmp_path: Path
) -> None:
    url = sqlite_table(tmp_path / "t.db", "session_no , n ", ("a", given))
    assert read(url, recipients_column="n")["recipients"] == [count]


def test_phones_are_trimmed_and_blank_ones_are_none(tmp_path: Path) -> None:
    rows = [(" 13800138000 ",), (13800138000,), (13800138000.0,), ("",), (None,), ("+86 138",)]
    url = sqlite_table(tmp_path / "t.db", "session_no ", *rows)
    found = read(url, phone_column="session_no")["phone"]
    assert found == ["13800138000"] * 3 + [None, None, "+86 138"]


NUMBERS = {
    "whole": [123.0, 1e15, 1e20, 1e300, -4.0, 0.0],
    "broken": [0.5, 123.25, 1e-7, -2.75, 0.1, 1234567.89],
}
TEXTS = {
    "whole": ["123", "1" + "0" * 15, "1" + "0" * 20, None, "-4", "0"],
    "broken": ["0.5", "123.25", "0.0000001", "-2.75", "0.1", "1234567.89"],
}
FLOATS = {
    "postgresql": "double precision",
    "mariadb": "double",
    "sqlite": "real",
    "duckdb": "double",
}


@pytest.mark.parametrize("kind", ["postgresql", "mariadb", "sqlite", "duckdb"])
def test_floating_numbers_have_no_exponent_and_no_useless_zeros(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    rows = [(a, b) for a, b in zip(*NUMBERS.values(), strict=True) if a != 1e300]
    expected = [(a, b) for a, b in zip(*TEXTS.values(), strict=True) if a is not None]
    values = ", ".join(f"('s', '2024-08-01', {a!r}, {b!r})" for a, b in rows)
    type_ = FLOATS[kind]
    place = Place(kind, request, tmp_path)
    place.execute(
        f"CREATE TABLE t (session_no varchar(9), sent_at date, a {type_}, b {type_})",
        f"INSERT INTO t VALUES {values}",
    )
    found = read(place.url, dimensions=("a", "b"))
    assert list(zip(found["a"], found["b"], strict=True)) == expected


def test_what_pandas_made_a_float_is_a_whole_number_again(tmp_path: Path) -> None:
    """A column of numbers with a gap: pandas stores 13800138000.0 and NaN."""
    path = tmp_path / "t.parquet"
    columns = {"session_no": [1234567890123.0, float("nan")], "p": [13800138000.0, None]}
    pq.write_table(pa.table({**columns, "sent_at": [START] * 2}), path)
    found = read(str(path), phone_column="p")
    assert found["session_no"] == ["1234567890123", None]
    assert found["phone"] == ["13800138000", None]


def test_types_of_the_source_become_the_same_text(postgresql: Database, tmp_path: Path) -> None:
    """Booleans are true and false, uuids lower case, decimals keep their zeros."""
    types = "id uuid, flag boolean, price decimal(12,4), day date, moment timestamptz"
    create = f"CREATE TABLE t (session_no bigint, sent_at timestamp, {types})"
    rows = (
        "(123, '2024-08-01', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', true, 0.0001, '2024-01-02', "
        "'2024-01-02 08:00:00+08'), (9007199254740993, '2024-08-01', NULL, false, NULL, NULL, NULL)"
    )
    postgresql.execute(create, f"INSERT INTO t VALUES {rows}")
    with duckdb.connect(str(tmp_path / "t.duckdb")) as connection:
        connection.execute(create)
        connection.execute(f"INSERT INTO t VALUES {rows}")
    names = ("id", "flag", "price", "day", "moment")
    found = read(postgresql.url, dimensions=names)
    assert found == read(f"duckdb:///{tmp_path}/t.duckdb", dimensions=names)
    assert found["session_no"] == ["123", "9007199254740993"]
    assert found["id"] == ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", None]
    assert found["flag"] == ["true", "false"]
    assert found["price"] == ["0.0001", None]
    assert found["day"] == ["2024-01-02", None]
    assert found["moment"] == ["2024-01-02 00:00:00+00", None]


def test_declared_booleans_of_sqlite_are_true_and_false(tmp_path: Path) -> None:
    url = sqlite_table(tmp_path / "t.db", "session_no , flag boolean", *((1, v) for v in (1, 0, 2)))
    assert read(url, dimensions=("flag",))["flag"] == ["true", "false", "2"]


def test_bits_and_binaries_of_mariadb_are_not_fatal(mariadb: Database) -> None:
    mariadb.execute(
        "CREATE TABLE t (session_no binary(2), sent_at datetime, flag tinyint(1), length time)",
        "INSERT INTO t VALUES (X'fffe', '2024-08-01', 1, '10:00:00')",
        "INSERT INTO t VALUES ('ok', '2024-08-01', 3, NULL)",
    )
    found = read(mariadb.url, dimensions=("flag", "length"))
    assert found["session_no"] == [None, "ok"]
    assert found["flag"] == ["1", "3"]  # a tinyint(1) is a number: 3 would be no boolean
    assert found["length"] == ["10:00:00", None]


def test_names_are_found_whatever_their_case_unless_two_differ_by_it(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"Session_NO": ["a"], "Sent_At": [START], "Other": ["x"]}), path)
    found = read(str(path), dimensions=("other",))
    assert found["session_no"] == ["a"]
    assert found["other"] == ["x"]


def test_a_dimension_with_a_name_of_ours_is_told_apart(tmp_path: Path) -> None:
    url = sqlite_table(tmp_path / "t.db", "session_no , status , country ", ("a", "sent", "CN"))
    found = read(url, dimensions=("status", "country"))
    assert (found["source_status"], found["source_country"]) == (["sent"], ["CN"])


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_schemas_views_and_dots_in_names_are_found(
    kind: str, request: pytest.FixtureRequest
) -> None:
    database: Database = request.getfixturevalue(kind)
    here = "public" if kind == "postgresql" else database.url.partition("?")[0].rpartition("/")[2]
    mark = '"' if kind == "postgresql" else "`"
    for name in ("plain", "my.log", "Odd %s:x"):
        database.execute(
            f"CREATE TABLE {mark}{name}{mark} (session_no varchar(20), sent_at timestamp)",
            f"INSERT INTO {mark}{name}{mark} VALUES ('{name}', '2024-08-01 10:00:00')",
        )
    database.execute("CREATE VIEW v AS SELECT * FROM plain")
    for table, name in (
        ("v", "plain"), (f"{here}.plain", "plain"), ("my.log", "my.log"),
        (f"{here}.my.log", "my.log"), (f'"{here}"."my.log"', "my.log"), ("Odd %s:x", "Odd %s:x"),
    ):  # fmt: skip
        assert read(database.url, source_table=table)["session_no"] == [name]


def test_any_other_database_of_sqlalchemy_is_read(tmp_path: Path) -> None:
    url = sqlite_table(
        tmp_path / "t.db", "session_no text, day date, n numeric, f float",
        ("a", "2024-08-01", 2, 1e20), ("b", None, None, 0.5),
    )  # fmt: skip
    other = url.replace("sqlite://", "sqlite+pysqlite://")
    found = read(other, dimensions=("f",), recipients_column="n")
    assert found["session_no"] == ["a", "b"]
    assert found["f"] == ["1" + "0" * 20, "0.5"]
    assert found["recipients"] == [2, 1]
    settings = Settings(_env_file=None, source_url=other, source_table="t", sent_at_column="day")
    assert source.survey(settings).rows_without_sent_at == 1


def test_csv_files_with_columns_in_another_order_are_one_table(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("session_no,sent_at\n007,2024-08-01\n", "utf-8")
    (tmp_path / "2.csv").write_text(
        '\ufeffsent_at\tkind\tsession_no\r\n2024-08-01\t"a\tb"\t8\r\n', "utf-8"
    )
    found = read(str(tmp_path / "*.csv"), dimensions=("kind",))
    assert sorted(found["session_no"]) == ["007", "8"]
    assert set(found["kind"]) == {None, "a\tb"}
