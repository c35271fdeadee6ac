"""Opens the published file read-only, without blocking publishing. What to ask: ``queries``."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any, Final

import duckdb
from filelock import FileLock

from usms_pipeline import settings as config
from usms_pipeline.contract.errors import StorageError, UsmsError, WarehouseMissing
from usms_pipeline.warehouse import ddl

MEMORY_TO_ASK: Final = "500MB"
"""What this project's own questions hold in memory before they spill to disk. DuckDB's default is
80 % of the machine's: a report over 10 million rows took 18 GB of 24."""
THREADS: Final = 2
"""Threads, even on a larger machine: each one holds memory that can't spill. With 32, `usms rates`
over 10 million rows ran out of those 500 MB."""
_SPILLED, _SECONDS_TO_LOCK = "usms-spilled-", 60
_MOST_TRIES: Final = 10
_OTHER_FILES: Final = {b"SQLite format 3": "an SQLite database", b"PAR1": "a Parquet file",
                       b"PK": "a ZIP archive or spreadsheet"}  # fmt: skip
"""The first bytes of other kinds of files, which must not be replaced."""
_NAMED: Final = 5


def connect(path: Path | str | None = None, **given: Any) -> duckdb.DuckDBPyConnection:
    """Open the newest published warehouse, read-only, as the current database ``usms``.

    ``path`` is the file; without one the settings say where it is (``given`` beats the
    environment). Times are shown in UTC. The connection keeps the version that it opened, however
    often the pipeline publishes; connect again to load newer data. It never blocks the pipeline.

    Raises ``WarehouseMissing`` where there is no such file or it can't be opened, ``StorageError``
    where its folder can't be read, and ``SettingsError``.
    """
    file = Path(path) if path is not None else config.load(**given).warehouse_path
    if not _is_there(file):
        folder = "" if file.is_absolute() else config.no_file("Settings are read from .env: {}.")
        raise WarehouseMissing(
            f"No warehouse is published at {str(file)!r} yet. Run `usms run` to make it from your "
            f"table, or `usms demo` to see one with made-up messages.{folder}"
        )
    con = duckdb.connect(":memory:")
    try:
        for _ in range(_MOST_TRIES):  # DuckDB may open one file and read on in the next
            con.execute("DETACH DATABASE IF EXISTS usms")
            before = identity(file)
            con.execute(ddl.attach(file.absolute(), "READ_ONLY"))
            if identity(file) == before:
                break
        con.execute("USE usms; SET TimeZone = 'UTC'")
    except (duckdb.Error, OSError) as error:
        con.close()
        raise WarehouseMissing(
            f"The warehouse {str(file)!r} can't be opened: {ddl.first_line(error)} "
            "Close what writes to it, or run `usms run` to publish it again."
        ) from error
    return con


@contextmanager
def bounded(file: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield ``connect(file)`` with bounded memory.

    Raises as that does, and ``UsmsError`` for a question that needs more.
    """
    with _spill_folder() as folder, connect(file) as con:
        con.execute(f"SET memory_limit = '{MEMORY_TO_ASK}'; SET threads = {THREADS}")
        con.execute(f"SET temp_directory = {ddl.literal(folder)}")
        try:
            yield con
        except duckdb.OutOfMemoryException as error:
            raise UsmsError(
                f"This takes more than {MEMORY_TO_ASK} of memory: ask about fewer days, or by "
                "columns of fewer values. `usms sql` may take all memory."
            ) from error


@contextmanager
def _spill_folder() -> Iterator[str]:
    """Yield a private temporary folder, and remove those that killed processes left.

    A process holds the lock on its own while it lives. Raises ``StorageError``.
    """
    for left in Path(gettempdir()).glob(f"{_SPILLED}*"):
        with suppress(OSError):  # also of a lock that is held
            if time.time() - left.stat().st_mtime > _SECONDS_TO_LOCK:
                with FileLock(left / "lock", blocking=False):
                    shutil.rmtree(left, ignore_errors=True)
    try:
        made = TemporaryDirectory(prefix=_SPILLED)
    except OSError as error:
        raise StorageError(
            f"Can't make a temporary folder: {error.strerror}. Set TMPDIR to a folder that is "
            "writable and has room."
        ) from error
    with made as folder, FileLock(Path(folder) / "lock", thread_local=False):
        yield folder


def days(file: Path) -> set[date]:
    """Return the days that are published; none where nothing is that can be read."""
    with suppress(duckdb.Error, UsmsError), connect(file) as con:
        return {day for (day,) in con.execute("SELECT sent_date FROM usms_partitions").fetchall()}
    return set()


def check_place(file: Path) -> None:
    """Refuse to publish over what somebody else keeps: raise ``StorageError``.

    A damaged file, or one with a table ``receipts``, is an earlier one of ours.
    """
    if not file.is_file() or not file.stat().st_size:
        return
    what = None
    with suppress(OSError), file.open("rb") as opened:
        begun = opened.read(16)
        what = next((what for it, what in _OTHER_FILES.items() if begun.startswith(it)), None)
    if what is None:
        with suppress(duckdb.Error), duckdb.connect(":memory:") as con:
            con.execute(ddl.attach(file.absolute(), "READ_ONLY"))
            found = con.execute(
                "SELECT table_name FROM duckdb_tables() WHERE database_name = 'usms' ORDER BY 1"
            ).fetchall()
            names = [name for (name,) in found]
            if names and "receipts" not in names:
                shown = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
                what = f"a DuckDB file of another use (its tables: {shown})"
    if what is not None:
        raise StorageError(
            f"{str(file)!r} is {what}, and publishing would replace it: name another file in "
            "USMS_WAREHOUSE. Nothing was published."
        )


def to_open(file: Path) -> str:
    """Return the command that opens a published file: DuckDB must be told that it is read-only."""
    return f"duckdb -readonly {shlex.quote(str(file))}"


def identity(file: Path) -> tuple[int, int]:
    """Return what distinguishes one published file from the next of the same name."""
    found = file.stat()
    return found.st_ino, found.st_mtime_ns


def _is_there(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError as error:
        raise StorageError(
            f"Can't look for the warehouse {str(file)!r}: {error.strerror}. Check that this "
            "account may read the folder (USMS_DATA_DIR, USMS_WAREHOUSE)."
        ) from error
