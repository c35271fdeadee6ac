"""What the report asks of the warehouse: small tables, by SQL. No HTML here."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

import pyarrow as pa

from usms_pipeline.contract.schema import dimensions_among
from usms_pipeline.figures import queries
from usms_pipeline.warehouse.quoting import identifier, literal

Row = dict[str, Any]
Warehouse = Any
"""A DuckDB connection; DuckDB is not imported here, only asked."""

DAYS: Final = 92
"""Days in the table and the chart over time: the latest."""

GROUPS: Final = 30
"""Rows in a table of groups: the largest."""

CHANGES: Final = 8
"""Groups of a column in the table of changes: those that changed most."""

HOURS: Final = 72
"""Hours in the chart by the hour: the latest."""


_LATEST_DAYS: Final = f"""
    SELECT r.*, n.expected_rate, n.expected_rate_low, n.expected_rate_high
    FROM (FROM delivery_rate_daily ORDER BY sent_date DESC LIMIT {DAYS}) AS r
    JOIN delivery_nowcast_daily AS n USING (sent_date)
    ORDER BY sent_date
"""

_LATEST_HOURS: Final = f"""
    SELECT r.*, n.expected_rate, n.expected_rate_low, n.expected_rate_high
    FROM delivery_rate_hourly AS r JOIN delivery_nowcast_hourly AS n USING (sent_hour)
    WHERE sent_hour > (SELECT max(sent_hour) FROM delivery_rate_hourly) - INTERVAL {HOURS} HOURS
    ORDER BY sent_hour
"""


@dataclass(frozen=True)
class Group:
    """The figures of one column's groups: the largest, and how many there are in all."""

    column: str
    rates: pa.Table
    groups: int


@dataclass(frozen=True)
class Changes:
    """The groups of one column that changed by more than weeks do, and how many there are."""

    column: str
    rates: pa.Table
    groups: int


@dataclass(frozen=True)
class Figures:
    """Everything that the report shows, as it stood in one warehouse.

    ``change`` is of all messages, in one row; none where there are no two settled weeks.
    """

    total: Row
    quality: Row
    alerts: list[Row]
    change: list[Row]
    changes: list[Changes]
    forecasts: list[Row]
    maturity: pa.Table
    daily: pa.Table
    hourly: pa.Table
    curve: pa.Table
    groups: list[Group]
    failures: pa.Table
    timezone_hint: str | None


def ask(con: Warehouse) -> Figures:
    """Ask a published warehouse, open as ``connect()`` gives it, for the report's figures."""
    query = files("usms_pipeline.warehouse").joinpath("sql/report_quality.sql")
    quality = _row(con, query.read_text())
    return Figures(
        total=_total(con),
        quality=quality,
        alerts=_table(con, "FROM delivery_alerts").to_pylist(),
        change=_table(con, "FROM delivery_rate_change_by('is_announced')").to_pylist(),
        changes=[_changes(con, column) for column in ("country", "operator", *dimensions(con))],
        forecasts=_table(con, "FROM delivery_nowcast_record").to_pylist(),
        maturity=_table(con, "FROM maturity()"),
        daily=_table(con, _LATEST_DAYS),
        hourly=_table(con, _LATEST_HOURS),
        curve=_table(con, "FROM delivery_curve()"),
        groups=[
            _group(con, "country", "delivery_rate_by_country"),
            _group(con, "operator", "delivery_rate_by_operator"),
            *(_group(con, name, f"delivery_rate_by({literal(name)})") for name in dimensions(con)),
        ],
        failures=_table(con, "FROM failures"),
        timezone_hint=_hint(con),
    )


def _total(con: Warehouse) -> Row:
    """Return the figures of all messages, with what their rate will be."""
    row: Row = queries.rates_expected(con).to_arrow_table().to_pylist()[0]
    return row


def dimensions(con: Warehouse) -> list[str]:
    """Name the columns of ``receipts`` that came from the customer's table to group by."""
    return dimensions_among(_table(con, "FROM receipts LIMIT 0").column_names)


def _hint(con: Warehouse) -> str | None:
    """Ask on a cursor: an answer read in part would leave DuckDB 2.0's connection busy."""
    database = _row(con, "SELECT current_database() AS name")["name"]
    with con.cursor() as own:
        own.execute(f"USE {identifier(database)}")
        return queries.timezone_hint(own)


def _group(con: Warehouse, column: str, relation: str) -> Group:
    counted = _row(con, f"SELECT count(*) AS groups FROM {relation}")["groups"]
    order = f"messages DESC, {identifier(column)}"
    largest = _table(con, f"FROM {relation} ORDER BY {order} LIMIT {GROUPS}")
    return Group(column, largest, counted)


def _changes(con: Warehouse, column: str) -> Changes:
    relation = f"delivery_rate_change_by({literal(column)})"
    counted = _row(con, f"SELECT count(*) AS groups FROM {relation}")["groups"]
    changed = _table(
        con,
        f"FROM {relation} WHERE change_low > 0 OR change_high < 0 "
        f"ORDER BY abs(change) DESC, cohort LIMIT {CHANGES}",
    )
    return Changes(column, changed, counted)


def _row(con: Warehouse, query: str) -> Row:
    row: Row = _table(con, query).to_pylist()[0]
    return row


def _table(con: Warehouse, query: str) -> pa.Table:
    return queries.ask(con, query).to_arrow_table()
