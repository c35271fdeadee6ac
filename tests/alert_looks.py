"""How often alerts are false, and what they find: the tables in docs/rates.md.

`python -m tests.alert_looks` draws a seed, looks at accounts of `tests/rate_worlds.py` by the real
macros, writes the tables in and prints the seed; another number after it is taken for the seed.

What is counted of an hour of sending is the same at every later look (`test_alerts.py` holds that),
so a year's hours are counted once, a month of receipts at a time, and looked at day by day.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import duckdb
import numpy as np

from tests.rate_worlds import Trouble, World, fill, micros, with_trouble, world

HOUR: Final = timedelta(hours=1)
HISTORY: Final = 31 * 24
COLUMNS: Final = ("usms_everything", "operator", "country", "template")

Row = dict[str, Any]


def hour_of(moment: datetime) -> int:
    """Return the hour since 1970 that a moment lies in."""
    return micros(moment) // (3_600 * 1_000_000)


def keep_counts(con: duckdb.DuckDBPyConnection, account: World, first: int, last: int) -> None:
    """Count the hours of sending from first to last, both included, into the table ``kept``.

    A month at a time, each as it stands four days after it, or at the account's end.
    """
    con.execute(
        "CREATE TABLE IF NOT EXISTS kept (by_column VARCHAR, cohort VARCHAR, carrier VARCHAR, "
        "hour BIGINT, now BIGINT, kind VARCHAR, age INT, messages BIGINT, affected BIGINT, "
        "missed BIGINT)"
    )
    counts = " UNION ALL ".join(f"FROM usms_counts_by('{column}')" for column in COLUMNS)
    step = 26 * 24
    for begin in range(first, last + 1, step):
        end = min(begin + step, last + 1)
        now = min(at(end + 4 * 24), account.end)
        fill(con, account.receipts(now, at(begin)))
        con.execute(f"INSERT INTO kept FROM ({counts}) WHERE hour >= {begin} AND hour < {end}")


def at(hour: int) -> datetime:
    """Return the moment an hour since 1970 begins at."""
    return datetime.fromtimestamp(hour * 3_600, tz=UTC)


def look(con: duckdb.DuckDBPyConnection, now: int) -> list[Row]:
    """Return what a look in the hour ``now`` finds, of what is kept."""
    found: list[Row] = con.sql(f"""
        WITH counts AS MATERIALIZED (
            SELECT * REPLACE ({now} AS now) FROM kept
            WHERE hour > {now} - {HISTORY} AND hour < {now} - age
        )
        FROM usms_alerts(counts)
    """).to_arrow_table().to_pylist()
    return found
