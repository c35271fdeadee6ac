"""Opening the published file and asking it for the delivery figures.

Nothing here writes, and no figure is computed here: see ``sql/``.
"""

from __future__ import annotations

import difflib
from datetime import date
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from usms_pipeline import scratch
from usms_pipeline import settings as config
from usms_pipeline.errors import StorageError, UnknownColumn, WarehouseMissing
from usms_pipeline.warehouse import ddl

_NEAR_SECONDS: Final = 300


def connect(path: Path | str | None = None, **given: Any) -> duckdb.DuckDBPyConnection:
    """Open the newest published warehouse, read-only, as the current database ``usms``.

    ``path`` is the file; without one the settings say where it is (``given`` beats the
    environment). Times are shown in UTC. The connection keeps what it opened, however often the
    pipeline publishes; connect again to see news. Nothing is ever blocked by it.

    Raises ``WarehouseMissing`` where there is no such file or it can't be opened, ``StorageError``
    where its folder can't be read, and ``SettingsError``.
    """
    file = Path(path) if path is not None else config.load(**given).warehouse_path
    if not _is_there(file):
        raise WarehouseMissing(
            f"No warehouse is published at {str(file)!r} yet. Run `usms run` to make it from your "
            "table, or `usms demo` to see one with made-up messages."
        )
    con = duckdb.connect(":memory:")
    try:
        con.execute(ddl.attach(file.absolute(), "READ_ONLY"))
        con.execute("USE usms; SET TimeZone = 'UTC'")
    except duckdb.Error as error:
        con.close()
        raise WarehouseMissing(
            f"The warehouse {str(file)!r} can't be opened: {ddl.first_line(error)} "
            "Close what writes to it, or run `usms run` to publish it again."
        ) from error
    return con


def _is_there(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError as error:
        raise StorageError(
            f"Can't look for the warehouse {str(file)!r}: {error.strerror}. Check that this "
            "account may read the folder (USMS_DATA_DIR, USMS_WAREHOUSE)."
        ) from error


def rates(
    con: duckdb.DuckDBPyConnection,
    by: str | None = None,
    first: date | None = None,
    last: date | None = None,
) -> pa.Table:
    """Give the delivery figures by a column of ``receipts``, or of everything (one row).

    ``first`` and ``last`` are local days of sending, both included. Columns: ``by`` if given, then
    those of ``metrics.METRICS``. Days and times ascend; other groups come largest first.

    Raises ``UnknownColumn``, with names near to it.
    """
    types = _column_types(con)  # also ends a result of `con` that was left half read
    key, order = "", ""
    if by is not None:
        is_time = _known(types, by).startswith(("DATE", "TIMESTAMP"))
        key = f"r.{scratch.identifier(by)}"
        order = f"GROUP BY {key} ORDER BY {'' if is_time else 'count(*) DESC, '}{key}"
    days = [
        f"AND r.sent_date {sign} DATE {scratch.literal(day.isoformat())}"
        for sign, day in ((">=", first), ("<=", last))
        if day is not None
    ]
    return con.sql(
        f"SELECT {key + ',' if key else ''} unnest(delivery_figures(r)) FROM receipts AS r "
        f"WHERE r.is_announced {' '.join(days)} {order}"
    ).to_arrow_table()


def timezone_hint(con: duckdb.DuckDBPyConnection) -> str | None:
    """Tell, in a sentence, that receipts and sendings seem to be in different time zones.

    They do where the median of ``received_at - sent_at`` is negative, or within five minutes of a
    whole number of hours other than none. None where all is well or nothing was received.
    """
    query = "SELECT median(epoch(received_at - sent_at)) FROM receipts WHERE is_announced"
    ((seconds,),) = con.execute(query).fetchall()
    if seconds is None:
        return None
    hours = round(seconds / 3600)
    is_whole_hours = hours != 0 and abs(seconds - hours * 3600) <= _NEAR_SECONDS
    if seconds >= 0 and not is_whole_hours:
        return None
    span = f"{abs(hours)} h" if is_whole_hours else f"{abs(seconds):.0f} s"
    return (
        f"Half of the receipts are dated {span} or more {'before' if seconds < 0 else 'after'} "
        "their message was sent: a time zone is probably wrong. Check USMS_RECEIPT_TIMEZONE (of "
        "the service's receipt times) and USMS_SOURCE_TIMEZONE (of your table's times)."
    )


def alerts(con: duckdb.DuckDBPyConnection) -> pa.Table:
    """Give what is out of line in the last 48 hours of sending: the rows of ``delivery_alerts``."""
    return con.sql("FROM delivery_alerts").to_arrow_table()


def uncovered_days(con: duckdb.DuckDBPyConnection, share: float, days: int = 7) -> pa.Table:
    """Give those of the latest settled days (nothing is awaited) with too few outcomes.

    ``share`` (0 to 1) of the messages should have one; a day has too few where even the upper end
    of the 95 % interval lies below. Columns: ``sent_date``, ``messages``, ``with_evidence``.
    """
    return con.sql(
        """
        WITH settled AS (
            SELECT sent_date, messages, delivered + failed + rejected + expired AS with_evidence
            FROM delivery_rate_daily
            WHERE awaited = 0
            ORDER BY sent_date DESC
            LIMIT $days
        )
        FROM settled WHERE wilson_high(with_evidence, messages) < $share ORDER BY sent_date
        """,
        params={"share": share, "days": days},
    ).to_arrow_table()


def _column_types(con: duckdb.DuckDBPyConnection) -> dict[str, str]:
    return {row[0]: str(row[1]) for row in con.execute("DESCRIBE receipts").fetchall()}


def _known(types: dict[str, str], column: str) -> str:
    """Give the column's type; raises ``UnknownColumn`` where there is none of that very name."""
    if column not in types:
        folded = {name.casefold(): name for name in types}
        near = difflib.get_close_matches(column.casefold(), folded, n=3)
        named = " or ".join(repr(folded[one]) for one in near) or f"one of {', '.join(types)}"
        raise UnknownColumn(f"The receipts have no column {column!r} to group by. Try {named}.")
    return types[column]
