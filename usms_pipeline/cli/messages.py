"""Made-up messages as a customer's table: SQLite, Parquet or CSV. No figures, no service."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

if TYPE_CHECKING:
    import pyarrow as pa

TABLE: Final = "sms_log"
KINDS: Final = (".sqlite", ".parquet", ".csv")


def customers(messages: int) -> int:
    """Return how many customers these made-up messages go to: two or three each, mostly."""
    return max(1, messages * 2 // 5)


def write(messages: pa.Table, path: Path) -> None:
    """Write the messages to a file by its ending; an SQLite file has them in table ``sms_log``.

    Raises a usage error for another ending.
    """
    if path.suffix == ".sqlite":
        _write_sqlite(messages, path)
    elif path.suffix == ".parquet":
        from pyarrow import parquet

        parquet.write_table(messages, path)
    elif path.suffix == ".csv":
        from pyarrow import csv

        csv.write_csv(messages, path)
    else:
        raise typer.BadParameter(f"{path} must end in one of: {', '.join(KINDS)}.")


def _write_sqlite(messages: pa.Table, path: Path) -> None:
    """Write the messages as most applications keep them: times as naive text, in UTC."""
    import sqlite3

    import pyarrow.compute as pc

    path.unlink(missing_ok=True)
    sent_at = pc.strftime(messages["sent_at"], format="%Y-%m-%d %H:%M:%S")
    index = messages.schema.get_field_index("sent_at")
    rows = zip(
        *(column.to_pylist() for column in messages.set_column(index, "sent_at", sent_at).columns),
        strict=True,
    )
    columns = ", ".join(messages.schema.names)
    marks = ", ".join("?" * messages.num_columns)
    with closing(sqlite3.connect(path)) as con, con:
        con.execute(f"DROP TABLE IF EXISTS {TABLE}")
        con.execute(f"CREATE TABLE {TABLE} ({columns})")
        con.executemany(f"INSERT INTO {TABLE} VALUES ({marks})", rows)
        con.execute(f"CREATE INDEX {TABLE}_sent_at ON {TABLE} (sent_at)")
