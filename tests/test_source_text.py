"""Session numbers, phones, recipients and dimensions: one text, of any type."""

from __future__ import annotations

import gzip
import sqlite3
import uuid
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.services import Database
from tests.source_tables import Place
from usms_pipeline import source
from usms_pipeline.contract.errors import SourceError
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


@pytest.mark.parametrize("place", ["postgresql", "mariadb", "sqlite", "duckdb"], indirect=True)
def test_floating_numbers_have_no_exponent_and_no_useless_zeros(place: Place) -> None:
    rows = [(a, b) for a, b in zip(*NUMBERS.values(), strict=True) if a != 1e300]
    expected = [(a, b) for a, b in zip(*TEXTS.values(), strict=True) if a is not None]
    values = ", ".join(f"('s', '2024-08-01', {a!r}, {b!r})" for a, b in rows)
    type_ = FLOATS[place.kind]
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


@pytest.mark.parametrize("width", [1, 8])
def test_bit_flags_are_numbers(mariadb: Database, width: int) -> None:
    mariadb.execute(
        f"CREATE TABLE t (session_no varchar(9), sent_at datetime, flag bit({width}))",
        "INSERT INTO t VALUES ('a', '2024-08-01', 1), ('b', '2024-08-01', 0), "
        "('c', '2024-08-01', NULL)",
    )
    assert read(mariadb.url, dimensions=("flag",))["flag"] == ["1", "0", None]


UUIDS = [uuid.UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8"), uuid.UUID(int=2**127 + 1)]
BINARIES = {
    "postgresql": ("bytea", "'\\x{}'::bytea"),
    "mariadb": ("varbinary(16)", "X'{}'"),
    "sqlite": ("blob", "X'{}'"),
    "duckdb": ("blob", "from_hex('{}')"),
}


@pytest.mark.parametrize("place", BINARIES, indirect=True)
def test_binary_session_numbers_are_uuids_or_texts_whatever_the_source(place: Place) -> None:
    raws = [*(one.bytes for one in UUIDS), "by-7/短信".encode(), b"\xff\xfe", None]
    type_, form = BINARIES[place.kind]
    rows = ["(NULL, '2024-08-01')" if raw is None else f"({form.format(raw.hex())}, '2024-08-01')"
            for raw in raws]  # fmt: skip
    place.execute(
        f"CREATE TABLE t (session_no {type_}, sent_at date)",
        f"INSERT INTO t VALUES {', '.join(rows)}",
    )
    found = read(place.url, dimensions=("session_no",))
    assert found["session_no"] == [*map(str, UUIDS), "by-7/短信", None, None]


def test_binaries_of_a_fixed_size_are_the_same(mariadb: Database, tmp_path: Path) -> None:
    raws = [one.bytes for one in UUIDS]
    path = tmp_path / "t.parquet"
    table = {"session_no": pa.array(raws, pa.binary(16)), "sent_at": [START] * 2}
    pq.write_table(pa.table(table), path)
    mariadb.execute(
        "CREATE TABLE t (session_no binary(16), sent_at datetime)",
        *(f"INSERT INTO t VALUES (X'{raw.hex()}', '2024-08-01')" for raw in raws),
        "INSERT INTO t VALUES ('shorter', '2024-08-01')",
    )
    assert read(str(path))["session_no"] == [*map(str, UUIDS)]
    assert read(mariadb.url)["session_no"] == [*map(str, UUIDS), "shorter"]


@pytest.mark.parametrize(
    ("text", "phones"),
    [
        ("13800138000,13900139000", ["13800138000", "13900139000"]),
        ("+86 138 0013 8000; +86 139 0013 9000;", ["+86 138 0013 8000", "+86 139 0013 9000"]),
        ("13800138000、13900139000，13700137000", ["13800138000", "13900139000", "13700137000"]),
        ("138****8000|139****9000", ["138****8000", "139****9000"]),
        ('["+491701234567", "+491707654321"]', ["+491701234567", "+491707654321"]),
        ("{13800138000,13900139000,NULL}", ["13800138000", "13900139000"]),
        ("[13800138000]", ["13800138000"]),
        ("13800138000,", ["13800138000"]),
        ("[]", [None]),
        ("('13800138000', '13900139000')", ["13800138000", "13900139000"]),
        ("13800138000 and 13900139000", ["13800138000", "13900139000"]),
        ("13800138000\t13900139000 & 13700137000", ["13800138000", "13900139000", "13700137000"]),
        ("+8613800138000+4915112345678", ["+8613800138000", "+4915112345678"]),
        ("138****8000 139****9000", ["138****8000", "139****9000"]),
        ("(138)00138000", ["(138)00138000"]),
        ("13800138000/13900139000", ["13800138000", "13900139000"]),
        ("+4915112345678  +4915112345679", ["+4915112345678", "+4915112345679"]),
        ("+49 151 1234 5678", ["+49 151 1234 5678"]),
        ("0151/12345678", ["0151/12345678"]),
        ("Smith, J. 13800138000", ["J. 13800138000"]),
        ("13800138000;13900139000;unknown", ["13800138000", "13900139000"]),
        ("13800138000, N/A", ["13800138000"]),
        ("王五,+65 9123 4567,-", ["+65 9123 4567"]),
        ("{13800138000,none,13900139000}", ["13800138000", "13900139000"]),
        ('["13800138000", "see notes"]', ["13800138000"]),
        ("unknown; none", ["unknown; none"]),
        ("138-0013-8023 / 139-0013-8023", ["138-0013-8023", "139-0013-8023"]),
        ("9123 4567 / 8123 4567", ["9123 4567", "8123 4567"]),
        ("+86 138 0013 8000/+86 139 0013 8000", ["+86 138 0013 8000", "+86 139 0013 8000"]),
        ("138****8000 / 139****8000", ["138****8000", "139****8000"]),
        ("0049 1511/2345678", ["0049 1511/2345678"]),
        ("13800138005(张三),13900139000（Li）", ["13800138005", "13900139000"]),
        ("张三：13800138000", ["13800138000"]),
        ("13800138000 李四；13900139000 (Max)", ["13800138000", "13900139000"]),
        ("(0755) 8888 8888", ["(0755) 8888 8888"]),
        ("010-12345678转123", ["010-12345678转123"]),
        ("张三", ["张三"]),
        ("1,380,013", ["1,380,013"]),
        ('{"phone": "13800138000"}', ['{"phone": "13800138000"}']),
    ],
)
def test_several_phones_in_a_cell_are_as_many_recipients(
    text: str, phones: list[str | None], tmp_path: Path
) -> None:
    rows = [("a", text, 5, "x"), ("b", "13600136000", 2, "y")]
    url = sqlite_table(tmp_path / "t.db", "session_no , phone , n , kind ", *rows)
    more = {"phone_column": "phone", "recipients_column": "n", "dimensions": ("kind",)}
    found = read(url, **more)
    assert found["phone"] == [*phones, "13600136000"]
    assert found["session_no"] == ["a"] * len(phones) + ["b"]
    assert found["kind"] == ["x"] * len(phones) + ["y"]
    assert found["recipients"] == ([1] * len(phones) if len(phones) > 1 else [5]) + [2]


def test_what_rows_do_not_show_of_their_cells_is_counted(tmp_path: Path) -> None:
    cells = ["13800138000,13900139000", "13800138000;x", "a,b", "13700137000", None,
             "13800138000,?,13900139000,13600136000"]  # fmt: skip
    counts = ["2", "0", "-1", "abc", "", "1.5"]
    rows = [(str(n), *pair) for n, pair in enumerate(zip(cells, counts, strict=True))]
    rows += [("y", "13500135000", one) for one in (None, "2,5", " 3 ", "4.0", "100000", "NULL")]
    url = sqlite_table(tmp_path / "t.db", "session_no , phone , n ", *rows)
    settings = Settings(
        _env_file=None, source_url=url, source_table="t", phone_column="phone",
        recipients_column="n",
    )  # fmt: skip
    seen = source.Cells()
    [batch] = source.read(settings, START, START + timedelta(days=1), seen)
    assert seen == source.Cells(rows=12, several=2, phones=5, with_words=2, uncounted=9)
    assert batch.num_rows == 15


@pytest.mark.parametrize(
    ("text", "session_no"),
    [("200000004417.0", "200000004417"), ("7.00", "7"), ("1.5", "1.5"), ("v1.0", "v1.0"),
     ("12.0.0", "12.0.0"), (" 99.0 ", "99"), (".0", ".0")],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["csv", "sqlite", "parquet"])
def test_a_session_number_loses_the_zero_of_a_float_beside_any_other(
    kind: str, text: str, session_no: str, tmp_path: Path
) -> None:
    if kind == "csv":
        found = csv(tmp_path, f"session_no,sent_at\n{text},2024-08-01\nN/A,2024-08-01\n")
    elif kind == "sqlite":
        found = read(sqlite_table(tmp_path / "t.db", "session_no ", (text,), ("N/A",)))
    else:
        path = tmp_path / "t.parquet"
        pq.write_table(pa.table({"session_no": [text, "N/A"], "sent_at": [START] * 2}), path)
        found = read(str(path))
    assert found["session_no"] == [session_no, None]


@pytest.mark.parametrize("kind", ["postgresql", "duckdb", "parquet"])
def test_a_list_of_phones_is_as_many_recipients(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    lists = [["13800138000", "13900139000"], ["+491701234567"], None, []]
    if kind == "parquet":
        url = str(tmp_path / "t.parquet")
        columns = {"session_no": [*"abcd"], "sent_at": [START] * 4, "phones": lists}
        pq.write_table(pa.table(columns), url)
    else:
        place = Place(kind, request, tmp_path)
        arrays = ["NULL" if one is None else f"ARRAY{one}::text[]" for one in lists]
        rows = zip("abcd", arrays, strict=True)
        place.execute(
            "CREATE TABLE t (session_no text, sent_at date, phones text[])",
            *(f"INSERT INTO t VALUES ('{name}', '2024-08-01', {one})" for name, one in rows),
        )
        url = place.url
    found = read(url, phone_column="phones")
    assert found["session_no"] == [*"aabcd"]
    assert found["phone"] == ["13800138000", "13900139000", "+491701234567", None, None]


@pytest.mark.parametrize(
    "word", ["NULL", "null", r"\N", "nan", "NaN", "None", "N/A", "<NA>", "#N/A"]
)
def test_words_for_nothing_are_no_session_and_no_phone(word: str, tmp_path: Path) -> None:
    rows = [(word, word), (f" {word} ", "13800138000"), (f"{word}-1", f"+{word}")]
    url = sqlite_table(tmp_path / "t.db", "session_no , phone ", *rows)
    found = read(url, phone_column="phone")
    assert found["session_no"] == [None, None, f"{word}-1"]
    assert found["phone"] == [None, "13800138000", f"+{word}"]


LOST = ["1.23457E+17", "1.2345678901234568E18", "1.2345678901234568e+18", "1,23457E+11"]
KEPT = ["9007199254740993", "12e5", "E+1", "a-1", None]


@pytest.mark.parametrize("kind", ["postgresql", "mariadb", "sqlite", "duckdb", "csv"])
def test_session_numbers_that_lost_digits_are_counted(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if kind == "csv":
        lines = [f'"{text}",2024-08-01' for text in [*LOST, *KEPT[:-1]]]
        (tmp_path / "t.csv").write_text("\n".join(["session_no,sent_at", *lines]))
        url = str(tmp_path / "t.csv")
    else:
        place = Place(kind, request, tmp_path)
        rows = [f"({'NULL' if one is None else repr(one)}, '2024-08-01')" for one in [*LOST, *KEPT]]
        place.execute(
            "CREATE TABLE t (session_no varchar(40), sent_at date)",
            f"INSERT INTO t VALUES {', '.join(rows)}",
        )
        url = place.url
    settings = Settings(_env_file=None, source_url=url, source_table="t")
    [doubt] = source.survey(settings).doubts(settings)
    assert doubt.startswith("4 session numbers have lost digits in a spreadsheet or a float")
    assert "(session_no)" in doubt
    assert "export that column as text" in doubt


@pytest.mark.parametrize("place", ["postgresql", "mariadb", "sqlite", "duckdb"], indirect=True)
@pytest.mark.parametrize("type_", ["bigint", "varchar(20)"])
@pytest.mark.parametrize(
    ("numbers", "count"),
    [
        ([1582917533873850000 + 10_000 * n for n in range(9)] + [123], 9),
        ([1582917533873852000 + 256 * 100 * n for n in range(9)], 9),
        ([1582917533873852417 + 7 * n for n in range(400)], 0),
        ([1500 + 100 * n for n in range(9)], 0),
    ],
)
def test_long_numbers_that_end_in_zeros_lost_digits(
    place: Place, type_: str, numbers: list[int], count: int
) -> None:  # fmt: skip
    """A spreadsheet keeps fifteen digits, a float some sixteen."""
    rows = ", ".join(f"({number}, '2024-08-01')" for number in numbers)
    place.execute(
        f"CREATE TABLE t (session_no {type_}, sent_at date)", f"INSERT INTO t VALUES {rows}"
    )
    assert source.survey(place.settings()).lost_digits == count


SINGLE = {"postgresql": "real", "mariadb": "float", "duckdb": "float"}


@pytest.mark.parametrize(
    ("place", "type_", "number", "whole"),
    [(kind, type_, 1234567890123456789, 123456789012) for kind, type_ in FLOATS.items()]
    + [(kind, type_, 987654321, 54321) for kind, type_ in SINGLE.items()],
    indirect=["place"],
)
def test_floats_beyond_whole_numbers_lost_digits(
    place: Place, type_: str, number: int, whole: int
) -> None:
    """Those of single precision sooner."""
    place.execute(
        f"CREATE TABLE t (session_no {type_}, sent_at date)",
        f"INSERT INTO t VALUES ({number}, '2024-08-01'), ({whole}, '2024-08-01')",
    )
    assert source.survey(place.settings()).lost_digits == 1


@pytest.mark.parametrize("place", ["postgresql", "mariadb", "duckdb"], indirect=True)
def test_decimals_of_a_number_are_its_types_and_not_the_sessions(place: Place) -> None:
    place.execute(
        "CREATE TABLE t (session_no decimal(20,2), phone decimal(20,3), sent_at date)",
        "INSERT INTO t VALUES (7700123456100, 13800138000, '2024-08-01')",
    )
    found = read(place.url, phone_column="phone")
    assert (found["session_no"], found["phone"]) == (["7700123456100"], ["13800138000"])


@pytest.mark.parametrize(
    ("place", "type_", "value"),
    [("postgresql", "text[]", "'{a}'"), ("postgresql", "jsonb", "'\"a\"'"),
     ("duckdb", "text[]", "['a']"), ("duckdb", "struct(id text)", "{'id': 'a'}"),
     ("duckdb", "json", "'\"a\"'")],
    indirect=["place"],
)  # fmt: skip
def test_a_session_column_of_lists_or_objects_is_named_with_its_type(
    place: Place, type_: str, value: str
) -> None:
    place.execute(
        f"CREATE TABLE t (session_no {type_}, sent_at date)",
        f"INSERT INTO t VALUES ({value}, '2024-08-01')",
    )
    with pytest.raises(SourceError, match=r"'session_no' of 't' is of type .* make a view"):
        read(place.url)


def test_dates_that_no_calendar_has_are_counted_where_they_are_not_read(mariadb: Database) -> None:
    mariadb.execute(
        "SET sql_mode = ''",
        "CREATE TABLE t (session_no int, sent_at datetime)",
        "INSERT INTO t VALUES (1, '2024-08-00 09:00:00'), (2, '2024-00-01 09:00:00'), "
        "(3, '0000-00-00 00:00:00'), (4, '2024-08-01 09:00:00')",
    )
    assert read(mariadb.url)["session_no"] == ["4"]
    settings = Settings(_env_file=None, source_url=mariadb.url, source_table="t")
    assert source.survey(settings).left_out.without_sent_at == 3


@pytest.mark.parametrize("odd", ["22/8/2024 9:00", "1.8.2024", "09-08-2024", "31/08/2024 9:00"])
def test_a_form_of_times_that_hides_between_others_is_read_all_the_same(
    odd: str, tmp_path: Path
) -> None:
    """Neither the least of a column nor the greatest, nor among the first of its rows."""
    path = tmp_path / "t.db"
    plain = [(str(n), f"2024-08-01 10:{n % 60:02}:00") for n in range(300)]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE t (session_no text, sent_at text)")
        some = [("low", "0000-00-00"), *plain, ("odd", odd), ("high", "9999-12-31")]
        connection.executemany("INSERT INTO t VALUES (?, ?)", some)
    settings = Settings(
        _env_file=None, source_url=f"sqlite:///{path}", source_table="t", date_order="dmy"
    )
    batches = source.read(settings, START, START + timedelta(days=31))
    assert "odd" in [one for batch in batches for one in batch["session_no"].to_pylist()]


def test_names_are_found_whatever_their_case_unless_two_differ_by_it(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"Session_NO": ["a"], "Sent_At": [START], "Other": ["x"]}), path)
    found = read(str(path), dimensions=("other",))
    assert found["session_no"] == ["a"]
    assert found["other"] == ["x"]


def test_blanks_around_a_value_make_no_group_of_their_own(tmp_path: Path) -> None:
    rows = [("a", " otp\t"), ("b", "otp"), ("c", "  "), ("d", "\u3000登录 验证\u00a0"), ("e", None)]
    url = sqlite_table(tmp_path / "t.db", "session_no, kind", *rows)
    assert read(url, dimensions=("kind",))["kind"] == ["otp", "otp", "", "登录 验证", None]


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


def test_csv_files_with_columns_in_another_order_are_one_table(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("session_no,sent_at\n007,2024-08-01\n", "utf-8")
    (tmp_path / "2.csv").write_text(
        '\ufeffsent_at\tkind\tsession_no\r\n2024-08-01\t"a\tb"\t8\r\n', "utf-8"
    )
    found = read(str(tmp_path / "*.csv"), dimensions=("kind",))
    assert sorted(found["session_no"]) == ["007", "8"]
    assert set(found["kind"]) == {None, "a\tb"}


def csv(tmp_path: Path, text: str, name: str = "t.csv", **more: Any) -> dict[str, list[Any]]:
    """The columns of a CSV file."""
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.lower()[-3:] == ".gz" else text.encode())
    return read(str(path), **more)


@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize(
    ("line", "mark", "odd"), [("sep=;", ";", "a,b,c,d"), ("SEP=,", ",", "a;b;c;d"),
                              ("sep=|", "|", "a,b,c,d")]
)  # fmt: skip
def test_a_line_that_names_the_delimiter_is_no_header(
    bom: str, line: str, mark: str, odd: str, tmp_path: Path
) -> None:
    """Nor is it needed that the header shows the delimiter."""
    rows = [["session_no", "sent_at", odd], ["x", "2024-08-01", "y"]]
    text = "\r\n".join([bom + line, *(mark.join(row) for row in rows)])
    assert csv(tmp_path, text, dimensions=(odd,))[odd] == ["y"]


def test_whole_numbers_that_a_gap_made_floats_are_whole_again(tmp_path: Path) -> None:
    """By file and by column: one with another value keeps its values as they are."""
    one = (
        "session_no,sent_at,phone,n,v,w\n"
        "1234567890123.0,2024-08-01,13800138000.0,2.0,1.0,1.0\n"
        ",2024-08-01,,,1.5,\n"
        "77.0,2024-08-01,,1.0,2.0,2.0\n"
    )
    two = "session_no,sent_at,phone,n,v,w\n78,2024-08-01,13900139000,3,1.0,1.00\n"
    (tmp_path / "0.csv").write_text(one)
    (tmp_path / "1.csv").write_text(two)
    more = {"phone_column": "phone", "recipients_column": "n", "dimensions": ("v", "w")}
    found = read(str(tmp_path / "*.csv"), **more)
    rows = sorted(zip(*found.values(), strict=True), key=repr)
    assert [(row[0], row[1], *row[3:]) for row in rows] == [
        ("1234567890123", "13800138000", 2, "1.0", "1"),
        ("77", None, 1, "2.0", "2"),
        ("78", "13900139000", 3, "1.0", "1.00"),
        (None, None, 1, "1.5", None),
    ]


@pytest.mark.parametrize(
    ("mark", "point", "nothing"), [(",", ".", "nan"), (",", ".", "<NA>"), (";", ",", "")]
)
def test_floats_are_whole_whatever_stands_for_the_gap_and_the_point(
    mark: str, point: str, nothing: str, tmp_path: Path
) -> None:
    rows = [["session_no", "sent_at", "phone"],
            [f"7700123456100{point}0", "2024-08-01", f"13800138000{point}0"],
            [nothing, "2024-08-01", nothing], [f"78{point}0", "2024-08-01", nothing]]  # fmt: skip
    found = csv(tmp_path, "\n".join(mark.join(row) for row in rows) + "\n", phone_column="phone")
    assert found["session_no"] == ["7700123456100", None, "78"]
    assert found["phone"] == ["13800138000", None, None]


def test_a_csv_whose_lines_end_in_two_ways_is_no_reason_to_run_again(tmp_path: Path) -> None:
    text = "session_no,sent_at\r\na,2024-08-01\nb,2024-08-01\r\n\r\n\nc,2024-08-01"
    with pytest.raises(SourceError, match=r"its lines end in more than one way\. Fix the file"):
        csv(tmp_path, text)


def test_a_float_column_is_known_by_all_its_values(tmp_path: Path) -> None:
    """The beginning of the file shows nothing else. No session number has a fraction."""
    texts = [f"{n}.0" for n in range(20_000)]
    head = "session_no,sent_at,v,w"
    lines = [f"{text},2024-08-01,{text},{text}" for text in texts]
    found = csv(tmp_path, "\n".join([head, *lines, "x.0,2024-08-01,,x"]), dimensions=("v", "w"))
    assert found["session_no"] == [*map(str, range(20_000)), "x.0"]
    assert found["v"] == [*map(str, range(20_000)), None]
    assert found["w"] == [*texts, "x"]


@pytest.mark.parametrize("name", ["t.csv.gz", "T.CSV.GZ"])
def test_a_compressed_csv_is_read(name: str, tmp_path: Path) -> None:
    assert csv(tmp_path, "session_no,sent_at\n007,2024-08-01\n", name)["session_no"] == ["007"]


def test_what_keeps_a_text_whole_in_a_spreadsheet_is_taken_off(tmp_path: Path) -> None:
    text = (
        "session_no;sent_at;phone;n\n"
        '"=""0012""";"=""2024-08-01""";"=""13800138000""";"=""3"""\n'
        "'0034;'2024-08-01;'13900139000;'2\n"
        "O'Neil;2024-08-01;=13700137000;1\n"
    )
    found = csv(tmp_path, text, phone_column="phone", recipients_column="n")
    assert found["session_no"] == ["0012", "0034", "O'Neil"]
    assert found["phone"] == ["13800138000", "13900139000", "=13700137000"]
    assert found["recipients"] == [3, 2, 1]


def test_a_backslash_and_an_n_are_null_in_a_csv(tmp_path: Path) -> None:
    text = 'session_no,sent_at,kind\na,2024-08-01,\\N\nb,2024-08-01,NULL\nc,2024-08-01,"NULL"\n'
    assert csv(tmp_path, text, dimensions=("kind",))["kind"] == [None, None, "NULL"]


@pytest.mark.parametrize("type_", [pa.timestamp("ns", "UTC"), pa.timestamp("ns", "Asia/Tokyo"),
                                   pa.timestamp("ms", "UTC"), pa.timestamp("ns")])  # fmt: skip
def test_times_of_every_unit_and_zone_are_read_from_parquet(
    type_: pa.DataType, tmp_path: Path
) -> None:
    moments = [START, START.replace(hour=23), START - timedelta(seconds=1)]
    times = pa.array([one.replace(tzinfo=None) for one in moments], pa.timestamp("ns")).cast(type_)
    pq.write_table(pa.table({"session_no": [*"abc"], "sent_at": times}), tmp_path / "t.parquet")
    assert read(str(tmp_path / "t.parquet"))["sent_at"] == moments[:2]
    settings = Settings(_env_file=None, source_url=str(tmp_path / "t.parquet"))
    assert source.survey(settings).left_out.without_sent_at == 0


@pytest.mark.parametrize("end", ["", "/"])
def test_a_folder_of_part_files_is_one_table(end: str, tmp_path: Path) -> None:
    folder = tmp_path / "sent[1].parquet"
    for name in ("part-0.snappy.parquet", "day=1/data_0.parquet", "day=2/000000_0"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"session_no": [name], "sent_at": [START]}), folder / name)
    for mark in ("_SUCCESS", "_metadata", ".part-0.crc", "_temporary/part-9.parquet"):
        (folder / mark).parent.mkdir(exist_ok=True)
        (folder / mark).write_bytes(b"no table")
    found = read(f"{folder}{end}")
    assert sorted(found["session_no"]) == [
        "day=1/data_0.parquet", "day=2/000000_0", "part-0.snappy.parquet",
    ]  # fmt: skip
    csvs = tmp_path / "out.csv"
    csvs.mkdir()
    (csvs / "_SUCCESS").touch()
    for n in (1, 2):
        (csvs / f"part-{n}.csv").write_text(f"session_no,sent_at\n{n},2024-08-01\n")
    assert sorted(read(f"{csvs}{end}")["session_no"]) == ["1", "2"]
