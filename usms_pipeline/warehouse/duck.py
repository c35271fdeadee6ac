"""What is needed around DuckDB: its limits, names and values in SQL, and the SQL files."""

from __future__ import annotations

from typing import Any, Final

import duckdb
import pyarrow as pa

THREADS: Final = 2
"""Whatever the machine has, for each one holds memory that can't spill: DuckDB's guide to such
errors says to take fewer. With eight, 329,000 messages with long texts did not fit."""
BATCH_ROWS: Final = 16_384


def limits(memory_limit: str, folder: str) -> dict[str, Any]:
    """Give the configuration of a DuckDB that spills to a folder what it has no memory for."""
    return {"memory_limit": memory_limit, "temp_directory": folder, "threads": str(THREADS)}


def drop(con: duckdb.DuckDBPyConnection, found_by: str) -> None:
    """Drop all that a query gives the kind and the name of."""
    for kind, name in con.execute(found_by).fetchall():
        con.execute(f"DROP {kind} {identifier(name)}")


def insert(con: duckdb.DuckDBPyConnection, table: str, rows: pa.Table) -> None:
    """Append Arrow rows to a table with the same columns in the same order."""
    con.register("chunk", rows)
    con.execute(f"INSERT INTO {table} SELECT * FROM chunk")
    con.unregister("chunk")


def identifier(name: str) -> str:
    """Quote a name for DuckDB, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a text value for DuckDB, where it can't be a parameter."""
    return "'" + text.replace("'", "''") + "'"
