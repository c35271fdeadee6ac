"""What a user reads when the source can't be used: what is wrong, where, and what to correct."""

from __future__ import annotations

import gzip
import shutil
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.mounts import Disk
from tests.services import LOCKED_USER, Database, free_port
from usms_pipeline import source
from usms_pipeline.contract.errors import SourceError, SourceUnavailable
from usms_pipeline.settings import Settings
from usms_pipeline.source import kinds

START = datetime(2024, 8, 1, tzinfo=UTC)
PASSWORD = "hunter2/x"
ENCODED = "hunter2%2Fx"
GOOD = "s3cret%2Fword"


def settings(url: str, **more: Any) -> Settings:
    return Settings(_env_file=None, source_url=url, **{"source_table": "sms_log", **more})


def error_of(url: str, **more: Any) -> SourceError:
    """The error of reading; with no password in it or in anything it drags along."""
    with pytest.raises(SourceError) as caught:
        list(source.read(settings(url, **more), START, START + timedelta(days=1)))
    shown = "".join(traceback.format_exception(caught.value))
    for secret in (PASSWORD, ENCODED, GOOD, "s3cret"):
        assert secret not in shown
    assert caught.value.__cause__ is None
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def sentence(url: str, **more: Any) -> str:
    error = error_of(url, **more)
    assert type(error) is SourceError, error
    return str(error)


def unavailable(url: str, **more: Any) -> str:
    error = error_of(url, **more)
    assert isinstance(error, SourceUnavailable), error
    return str(error)


def as_user(url: str, user: str, password: str) -> str:
    return url.replace("://postgres:@", f"://{user}:{password}@").replace(
        "://root@", f"://{user}:{password}@"
    )


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Database:
    """A database server with a table of two columns."""
    database: Database = request.getfixturevalue(request.param)
    database.execute(
        "CREATE TABLE sms_log (session_no varchar(40), sent_at timestamp NULL, template int)",
        "INSERT INTO sms_log VALUES ('a', '2024-08-01 10:00:00', 7)",
    )
    return database


def test_a_wrong_password_is_told_without_showing_it(server: Database) -> None:
    said = sentence(as_user(server.url, LOCKED_USER, ENCODED))
    assert "refused the user name or password" in said
    assert "USMS_SOURCE_URL" in said
    assert LOCKED_USER in said


def test_an_unknown_database_is_named(server: Database) -> None:
    name = server.url.partition("?")[0].rpartition("/")[2]
    said = sentence(server.url.replace(name, "shpo"))
    assert "There is no database 'shpo'" in said
    assert "USMS_SOURCE_URL" in said


def test_a_missing_table_gets_near_names(server: Database) -> None:
    for name in ("sms_logs", "SMSLOG", "public.sms_lgo"):
        said = sentence(server.url, source_table=name)
        assert f"no table {name!r}" in said
        assert "Did you mean 'sms_log'?" in said
        assert "USMS_SOURCE_TABLE" in said
    assert "Its tables: 'sms_log'" in sentence(server.url, source_table="xyz")


def test_every_missing_column_is_told_at_once_with_near_names(server: Database) -> None:
    said = sentence(
        server.url, session_column="sesion_no", sent_at_column="sent", dimensions=("tmplate",)
    )
    assert "'sesion_no' (USMS_SESSION_COLUMN, did you mean 'session_no'?)" in said
    assert "'sent' (USMS_SENT_AT_COLUMN, did you mean 'sent_at'?)" in said
    assert "'tmplate' (USMS_DIMENSIONS, did you mean 'template'?)" in said
    assert "Its columns: 'session_no', 'sent_at', 'template'." in said


def test_a_missing_right_is_told(server: Database) -> None:
    if server.url.startswith("mysql"):
        name = server.url.partition("?")[0].rpartition("/")[2]
        server.execute(f"CREATE USER IF NOT EXISTS reader IDENTIFIED BY '{PASSWORD}'")
        url = as_user(server.url, "reader", ENCODED)
        said = sentence(url)  # no right to the database at all
        assert "Not allowed" in said
        server.execute("CREATE TABLE other (x int)", f"GRANT SELECT ON {name}.other TO reader")
        assert "no table 'sms_log'" in sentence(url)  # MariaDB hides what one may not see
        server.execute("DROP USER reader")
    else:
        said = sentence(as_user(server.url, LOCKED_USER, GOOD))
        assert "permission denied for table sms_log" in said
    assert "SELECT" in said
    assert "USMS_SOURCE_TABLE" in said


def test_a_column_that_holds_no_time_is_refused(server: Database) -> None:
    server.execute("ALTER TABLE sms_log ADD COLUMN is_sent boolean")
    said = sentence(server.url, sent_at_column="is_sent")
    assert "'is_sent' of 'sms_log' is of type" in said
    assert "USMS_SENT_AT_COLUMN" in said


def test_a_column_that_holds_no_session_numbers_is_refused(server: Database) -> None:
    server.execute("ALTER TABLE sms_log ADD COLUMN day date")
    for column in ("sent_at", "day"):
        said = sentence(server.url, session_column=column)
        assert f"Column {column!r} of 'sms_log' is of type" in said
        assert "can't be used as a session number: name another column in USMS_SESSION_CO" in said


def test_a_read_that_is_given_up_leaves_nothing_behind(server: Database) -> None:
    """Also in the middle of a large result; warnings of open cursors are errors here."""
    batches = source.read(settings(server.url), START, START + timedelta(days=1))
    assert next(batches).num_rows == 1
    batches.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["postgresql", "postgres", "mysql", "mariadb"])
def test_a_host_that_does_not_answer_is_unavailable(kind: str) -> None:
    said = unavailable(f"{kind}://me:{ENCODED}@127.0.0.1:{free_port()}/shop")
    assert "refused" in said
    assert "127.0.0.1" in said
    assert "USMS_SOURCE_URL" in said
    said = unavailable(f"{kind}://me:{ENCODED}@no-such-host.invalid/shop")
    assert "no-such-host.invalid" in said


@pytest.mark.parametrize("kind", ["postgresql", "mysql", "oracle"])
@pytest.mark.parametrize("password", ["p@ss", "p/ss", "p#ss", "p?ss"])
def test_a_password_to_be_encoded_first_is_told_and_not_shown(kind: str, password: str) -> None:
    said = sentence(f"{kind}://me:{password}@127.0.0.1/shop")
    assert "percent-encoded" in said
    assert "ss@" not in said


def test_a_missing_driver_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymysql", None)  # as if it were not installed
    for kind in ("mysql", "mariadb"):
        said = sentence(f"{kind}://me:{ENCODED}@127.0.0.1/shop")
        assert "pip install 'usms-pipeline[mysql]'" in said


@pytest.mark.parametrize(
    "end", ["@127.0.0.1:port/shop", "@127.0.0.1/shop?nosuch=1", "@127.0.0.1/shop?ssl=true"]
)
def test_an_address_that_is_none_is_told(end: str) -> None:
    assert "can't be understood" in sentence(f"mysql://me:{ENCODED}{end}")


def test_an_unknown_kind_of_database_is_told() -> None:
    for url in ("nosuchdb", "mssql+pyodbc", "oracle"):
        told = sentence(f"{url}://me:{ENCODED}@127.0.0.1/shop").lower()
        assert f"{url}://" in told
        assert [kind for kind in kinds.KINDS if kind.strip(".") not in told] == []


def test_a_path_without_a_known_ending_is_told() -> None:
    said = sentence("/data/log.db")
    assert "sqlite:////data/log.db" in said
    assert ".parquet or .csv" in said


@pytest.mark.parametrize("name", ["log.xlsx", "LOG.XLS", "log.ods"])
def test_a_spreadsheet_is_told_to_be_saved_otherwise(name: str) -> None:
    said = sentence(f"/data/{name}")
    assert f"/data/{name}" in said
    assert "save it as CSV in UTF-8, or as Parquet" in said


def test_a_folder_is_told_to_be_written_as_a_pattern(tmp_path: Path) -> None:
    for end in ("", "/"):
        said = sentence(f"{tmp_path}{end}")
        assert f"such as {tmp_path}/*.parquet or {tmp_path}/*.csv" in said
    (tmp_path / "empty.parquet").mkdir()
    assert "There is no file" in sentence(f"{tmp_path}/empty.parquet")


def test_a_file_that_gzip_did_not_write_is_told(tmp_path: Path) -> None:
    (tmp_path / "f.csv.gz").write_text("session_no,sent_at\n")
    assert "it is not what gzip writes" in sentence(str(tmp_path / "f.csv.gz"))
    whole = gzip.compress(b"session_no,sent_at\n" + bytes(range(256)) * 999)
    (tmp_path / "f.csv.gz").write_bytes(whole[:200])
    assert "it is not what gzip writes" in sentence(str(tmp_path / "f.csv.gz"))


def test_a_limit_of_the_role_is_named_with_what_to_do(server: Database) -> None:
    """To run again is no help."""
    sleep, name = "SLEEP(1)", server.url.partition("?")[0].rpartition("/")[2]
    limited = "max_statement_time"
    if server.url.startswith("postgresql"):
        sleep, limited = "pg_sleep(1)::text", "statement_timeout"
        server.execute(f"ALTER ROLE postgres IN DATABASE {name} SET statement_timeout = '100ms'")
        url = server.url
    else:
        server.execute(
            "CREATE USER IF NOT EXISTS hurried WITH MAX_STATEMENT_TIME 0.1",
            f"GRANT SELECT ON {name}.* TO hurried",
        )
        url = server.url.replace("://root@", "://hurried@")
    server.execute(f"CREATE VIEW slow AS SELECT {sleep} AS session_no, sent_at FROM sms_log")
    said = sentence(url, source_table="slow")
    assert f"Raise {limited}" in said
    assert "USMS_SENT_AT_COLUMN" in said
    assert "run again" not in said
    if url != server.url:
        server.execute("DROP USER hurried")


def write_wal(path: Path) -> str:
    """A SQLite file with a write-ahead log, as its last writer leaves it."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("CREATE TABLE sms_log (session_no, sent_at)")
        connection.execute("INSERT INTO sms_log VALUES ('a', '2024-08-01')")
    return f"sqlite:///{path}"


def test_a_sqlite_file_in_wal_mode_is_read_where_nobody_may_write(disk: Disk) -> None:
    url = write_wal(disk.path / "f.db")
    disk.remount("ro")
    [batch] = source.read(settings(url), START, START + timedelta(days=1))
    assert batch["session_no"].to_pylist() == ["a"]


def test_a_log_that_a_sqlite_file_needs_is_told_with_the_right_it_takes(disk: Disk) -> None:
    """What is in it is not in the file: it can't be left out."""
    url = write_wal(disk.path / "f.db")
    with closing(sqlite3.connect(disk.path / "f.db")) as connection:
        connection.execute("INSERT INTO sms_log VALUES ('b', '2024-08-01')")
        connection.commit()
        shutil.copy(disk.path / "f.db-wal", disk.path / "kept")
    (disk.path / "kept").rename(disk.path / "f.db-wal")
    disk.remount("ro")
    said = sentence(url)
    assert "to write there, because a log lies beside it (f.db-wal)" in said
    assert "run again" not in said


def test_a_table_not_named_is_told(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "a.db").close()
    said = sentence(f"sqlite:///{tmp_path}/a.db", source_table=None)
    assert "USMS_SOURCE_TABLE is not set" in said


@pytest.mark.parametrize(
    "url",
    ["sqlite:///{}/no.db", "duckdb:///{}/no.duckdb", "{}/no.parquet", "{}/no.csv", "{}/no*.csv",
     "sqlite:///{}", "duckdb:///{}"],
)  # fmt: skip
def test_a_missing_file_is_told_and_not_made(url: str, tmp_path: Path) -> None:
    said = sentence(url.format(tmp_path))
    assert "There is no file" in said
    assert str(tmp_path) in said
    assert "USMS_SOURCE_URL" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "wanted"),
    [("sqlite:///{}/f.db", "SQLite"), ("duckdb:///{}/f.db", "DuckDB"), ("{}/f.parquet", "Parquet")],
)
def test_a_file_of_another_kind_is_told(url: str, wanted: str, tmp_path: Path) -> None:
    for name in ("f.db", "f.parquet"):
        (tmp_path / name).write_text("hello " * 500)
    assert f"is not a {wanted} file" in sentence(url.format(tmp_path))


def test_a_bad_csv_names_the_line_and_shows_no_phone(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text("session_no,sent_at\na,2024-08-01\n13800138000,2024-08-01,13800138000\n")
    said = sentence(str(path))
    assert "line 3 has 3 columns where the header has 2" in said
    assert "1380013" not in said
    path.write_bytes("session_no,sent_at\n短信,2024-08-01\n".encode("gbk"))
    assert "line 2 is not UTF-8" in sentence(str(path))
    path.write_bytes("会话,sent_at\n短信,2024-08-01\n".encode("gbk"))
    assert "it is not UTF-8" in sentence(str(path))
    path.write_bytes(b"")
    assert "no first line of column names" in sentence(str(path))


def test_files_name_the_missing_column(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("Session,sent_at\na,2024-08-01\n")
    said = sentence(str(tmp_path / "f.csv"), session_column="sesion")
    assert "did you mean 'Session'?" in said


def write_sqlite(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE sms_log (session_no, sent_at)")
    return f"sqlite:///{path}"


def write_duckdb(path: Path) -> str:
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE sms_log (session_no text, sent_at timestamp)")
    return f"duckdb:///{path}"


@pytest.mark.parametrize("make", [write_sqlite, write_duckdb])
def test_a_file_is_opened_for_reading_only(make: Callable[[Path], str], tmp_path: Path) -> None:
    """Its bytes stay as they are, and it may be one that nobody may write."""
    path = tmp_path / "f.db"
    url = make(path)
    path.chmod(0o444)
    before = path.read_bytes()
    assert list(source.read(settings(url), START, START + timedelta(days=1))) == []
    assert "no table 'log'" in sentence(url, source_table="log")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["f.db"]


@contextmanager
def another_program(code: str) -> Iterator[None]:
    """Run Python code in a process of its own, and keep that until the block ends."""
    command = [sys.executable, "-c", f"{code}; print(1, flush=True); import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.communicate(b"")


def test_a_duckdb_file_that_another_program_writes_is_unavailable(tmp_path: Path) -> None:
    url = write_duckdb(tmp_path / "f.db")
    with another_program(f"import duckdb; c = duckdb.connect({str(tmp_path / 'f.db')!r})"):
        assert "open for writing in another program" in unavailable(url)


def test_a_locked_sqlite_file_is_unavailable(tmp_path: Path) -> None:
    url = write_sqlite(tmp_path / "f.db")
    connect = f"sqlite3.connect({str(tmp_path / 'f.db')!r}, isolation_level=None)"
    with another_program(f"import sqlite3; c = {connect}; c.execute('BEGIN EXCLUSIVE')"):
        assert "locked" in unavailable(url)


def test_a_window_without_a_zone_is_a_programming_error(tmp_path: Path) -> None:
    url = write_sqlite(tmp_path / "f.db")
    with pytest.raises(ValueError, match="time zone"):
        list(source.read(settings(url), datetime(2024, 1, 1), START))
