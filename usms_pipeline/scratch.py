"""A bounded, throw-away DuckDB to work in, and the SQL files. Knows nothing of the dataset."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.resources import files
from typing import Any, Final

import duckdb
import pyarrow as pa

from usms_pipeline.errors import StorageError
from usms_pipeline.temp_folders import temp_folder

MEMORY_LIMIT: Final = "224MB"
"""What a step may hold in memory before it spills to disk."""
LARGE_LIMIT: Final = "256MB"
"""The same where the tables are in a file: they need to be in memory only while they are used."""
THREADS: Final = 2
"""Whatever the machine has, for each one holds memory that can't spill: DuckDB's guide to such
errors says to take fewer. With eight, 329,000 messages with long texts did not fit."""
BATCH_ROWS: Final = 16_384
PILE_BYTES: Final = 64_000_000
"""What is held as Arrow before it goes into a table, which can spill."""


@contextmanager
def database(
    memory_limit: str = MEMORY_LIMIT, *, is_large: bool = False
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database in memory that spills to a temporary folder, removed at the end.

    ``is_large``: its tables are in a file there from the start. That costs a fifth more, and holds
    what nested rows in memory would not leave room for, spilled or not.

    Raises ``StorageError`` where that folder can't be made, or has not the room that is needed.
    """
    with _folder() as folder, _told(folder, memory_limit):
        con = duckdb.connect(
            f"{folder}/scratch.duckdb" if is_large else ":memory:",
            config=limits(memory_limit, folder),
        )
        try:
            _set(con)
            con.execute("PRAGMA disable_checkpoint_on_shutdown")  # nothing is kept
            yield con
        finally:
            con.close()


class Reused:
    """A database in memory for one use after another: opening one takes longer than a small use.

    Opened when it is first wanted; closed, and its folder removed, at the end of the context.
    """

    def __init__(self, memory_limit: str = MEMORY_LIMIT) -> None:
        self._memory_limit, self._stack = memory_limit, ExitStack()
        self._con: duckdb.DuckDBPyConnection | None = None

    def __enter__(self) -> Reused:
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._stack.__exit__(*error)

    @contextmanager
    def database(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Lend it, empty and set as at first; after an error it is not to be used again."""
        if self._con is None:
            self._con = self._stack.enter_context(database(self._memory_limit))
        with self._con.cursor() as con:  # has its own registered rows
            _set(con)
            yield con
        self._con.execute("RESET disabled_optimizers")  # which all its cursors share
        drop(
            self._con,
            """
            SELECT 'VIEW', view_name FROM duckdb_views() WHERE NOT internal
            UNION ALL
            SELECT 'TABLE', table_name FROM duckdb_tables() WHERE NOT internal
            """,
        )


def limits(memory_limit: str, folder: str) -> dict[str, Any]:
    """Give the configuration of a DuckDB that spills to a folder what it has no memory for."""
    return {"memory_limit": memory_limit, "temp_directory": folder, "threads": str(THREADS)}


def _set(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("SET TimeZone = 'UTC'")
    con.execute("SET python_enable_replacements = false")
    con.execute("SET enable_progress_bar = false")


@contextmanager
def _folder() -> Iterator[str]:
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(temp_folder())
        except OSError as error:
            raise StorageError(
                f"Can't make a folder for temporary files: {error.strerror}"
                f"{f' ({error.filename})' if error.filename else ''}. Make room there, or set "
                "TMPDIR to a folder that is writable and has room."
            ) from error
        yield str(folder)


@contextmanager
def _told(folder: str, memory_limit: str) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        is_ours = (
            isinstance(error, duckdb.OutOfMemoryException)
            or "failed to allocate" in str(error)  # of what it could not write out
            or (isinstance(error, duckdb.IOException) and folder in str(error))
        )
        if not is_ours:
            raise
        raise StorageError(
            f"A step needs more than {memory_limit} of memory, and there is too little room for "
            f"the rest in {folder!r}: {str(error).splitlines()[0]} Make room there, or set TMPDIR "
            "to a folder on a larger disk. Nothing is lost: run again."
        ) from error


def drop(con: duckdb.DuckDBPyConnection, found_by: str) -> None:
    """Drop all that a query gives the kind and the name of."""
    for kind, name in con.execute(found_by).fetchall():
        con.execute(f"DROP {kind} {identifier(name)}")


def value(con: duckdb.DuckDBPyConnection, query: str) -> int:
    """Give a query's one figure; 0 for NULL. Reads to the end, for an open result blocks."""
    return int(con.execute(query).fetchall()[0][0] or 0)


def stream(con: duckdb.DuckDBPyConnection, query: str, layout: pa.Schema) -> pa.RecordBatchReader:
    """Stream a query's rows as ``layout``, on a cursor of its own."""
    batches = con.cursor().sql(query).to_arrow_reader(BATCH_ROWS)
    return pa.RecordBatchReader.from_batches(layout, (batch.cast(layout) for batch in batches))


def insert(con: duckdb.DuckDBPyConnection, table: str, rows: pa.Table) -> None:
    """Append Arrow rows to a table with the same columns in the same order."""
    con.register("chunk", rows)
    con.execute(f"INSERT INTO {table} SELECT * FROM chunk")
    con.unregister("chunk")


class Pile:
    """Rows on their way into a table: in memory while they are few, in a table when they are many.

    ``name`` is a view of all of them once the pile is closed, a table once it is settled. Nested
    rows cost a table several times what they cost Arrow.
    """

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        name: str,
        layout: pa.Schema,
        most_bytes: int = PILE_BYTES,
    ) -> None:
        self._con, self._name, self._layout, self._most_bytes = con, name, layout, most_bytes
        self._rows: list[pa.Table] = []
        self._bytes = 0
        create(con, f"{name}_spilled", layout)

    def add(self, rows: pa.Table) -> None:
        """Take rows with the columns of the layout."""
        self._rows.append(rows.cast(self._layout))
        self._bytes += self._rows[-1].nbytes
        if self._bytes > self._most_bytes:
            insert(self._con, f"{self._name}_spilled", pa.concat_tables(self._rows))
            self._rows, self._bytes = [], 0

    def close(self) -> None:
        """Make the view of what was taken; nothing can be added after."""
        rows = pa.concat_tables([self._layout.empty_table(), *self._rows])
        self._con.register(f"{self._name}_recent", rows)
        self._con.execute(
            f"CREATE VIEW {self._name} AS "
            f"FROM {self._name}_spilled UNION ALL FROM {self._name}_recent"
        )
        self._rows = []

    def settle(self) -> None:
        """Make the table of what was taken, in place of the view: a cursor sees it too."""
        if self._rows:  # at once, for each insert into a table in a file may write it all anew
            insert(self._con, f"{self._name}_spilled", pa.concat_tables(self._rows))
        self._con.execute(f"ALTER TABLE {self._name}_spilled RENAME TO {self._name}")
        self._rows = []

    def drop(self) -> None:
        """Let go of the rows and of the view, once they are read."""
        self._con.execute(f"DROP VIEW {self._name}; DROP TABLE {self._name}_spilled")
        self._con.unregister(f"{self._name}_recent")


def create(con: duckdb.DuckDBPyConnection, table: str, layout: pa.Schema) -> None:
    """Create an empty table with the columns of an Arrow schema."""
    con.register("layout", layout.empty_table())
    con.execute(f"CREATE TABLE {table} AS SELECT * FROM layout")
    con.unregister("layout")


def sql(name: str, **filled_in: object) -> str:
    """Read ``sql/<name>.sql``; ``{{word}}`` becomes the argument of that name, as it is."""
    text = files("usms_pipeline").joinpath("sql", f"{name}.sql").read_text("utf-8")
    return filled(text, **filled_in)


def filled(text: str, **filled_in: object) -> str:
    """Put arguments in place of ``{{word}}``, as they are."""
    for word, value in filled_in.items():
        text = text.replace("{{" + word + "}}", str(value))
    return text


def identifier(name: str) -> str:
    """Quote a name for DuckDB, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a text value for DuckDB, where it can't be a parameter."""
    return "'" + text.replace("'", "''") + "'"
