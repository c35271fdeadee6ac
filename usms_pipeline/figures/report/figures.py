"""What the report asks of the warehouse: small tables, by SQL. No HTML here."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final
from zoneinfo import ZoneInfo

import pyarrow as pa

from usms_pipeline.contract.schema import dimensions_among
from usms_pipeline.figures import queries
from usms_pipeline.figures.report import periods
from usms_pipeline.figures.report.periods import Periods
from usms_pipeline.warehouse.quoting import identifier

Row = dict[str, Any]
Warehouse = Any
"""A DuckDB connection; DuckDB is not imported here, only asked."""

UTC: Final = ZoneInfo("UTC")

DAYS: Final = 92
"""Days in the chart over time: the latest."""

_LATEST_DAYS: Final = f"""
    SELECT r.*, n.expected_rate, n.expected_rate_low, n.expected_rate_high
    FROM (FROM delivery_rate_daily ORDER BY sent_date DESC LIMIT {DAYS}) AS r
    JOIN delivery_nowcast_daily AS n USING (sent_date)
    ORDER BY sent_date
"""


@dataclass(frozen=True)
class Figures:
    """Everything that the report shows, as it stood in one warehouse."""

    total: Row
    quality: Row
    alerts: list[Row]
    forecasts: list[Row]
    maturity: pa.Table
    daily: pa.Table
    periods: Periods | None
    timezone_hint: str | None


def ask(con: Warehouse, zone: ZoneInfo = UTC) -> Figures:
    """Ask a published warehouse, open as ``connect()`` gives it, for the report's figures.

    ``zone`` is the one whose days the warehouse has (USMS_TIMEZONE): the page shows its hours.
    """
    query = files("usms_pipeline.warehouse").joinpath("sql/report_quality.sql")
    return Figures(
        total=_total(con),
        quality=_row(con, query.read_text()),
        alerts=_table(con, "FROM delivery_alerts").to_pylist(),
        forecasts=_table(con, "FROM delivery_nowcast_record").to_pylist(),
        maturity=_table(con, "FROM maturity()"),
        daily=_table(con, _LATEST_DAYS),
        periods=periods.ask(con, ["country", "operator", *dimensions(con)], zone),
        timezone_hint=_hint(con),
    )


def _total(con: Warehouse) -> Row:
    """Return the figures of all messages, with what their rate will be."""
    row: Row = queries.rates_expected(con).to_arrow_table().to_pylist()[0]
    return row


def dimensions(con: Warehouse) -> list[str]:
    """List the columns of ``receipts`` that came from the customer's table to group by."""
    return dimensions_among(_table(con, "FROM receipts LIMIT 0").column_names)


def _hint(con: Warehouse) -> str | None:
    """Ask on a cursor: an answer read in part would leave DuckDB 2.0's connection busy."""
    database = _row(con, "SELECT current_database() AS name")["name"]
    with con.cursor() as own:
        own.execute(f"USE {identifier(database)}")
        return queries.timezone_hint(own)


def _row(con: Warehouse, query: str) -> Row:
    row: Row = _table(con, query).to_pylist()[0]
    return row


def _table(con: Warehouse, query: str) -> pa.Table:
    return queries.ask(con, query).to_arrow_table()
