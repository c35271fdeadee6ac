"""What the report asks of the warehouse: small tables, by SQL. No HTML here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from zoneinfo import ZoneInfo

import pyarrow as pa

from usms_pipeline.contract.schema import dimensions_among
from usms_pipeline.figures import queries
from usms_pipeline.figures.report import periods
from usms_pipeline.figures.report.periods import FAST_SECONDS, Periods

Row = dict[str, Any]

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
    """Everything that the report shows, as it stood in one warehouse; see ``ask`` for periods."""

    total: Row
    quality: Row
    alerts: list[Row]
    forecasts: list[Row]
    maturity: pa.Table
    daily: pa.Table
    periods: Periods | None
    timezone_hint: str | None


def ask(
    con: queries.Connection,
    zone: ZoneInfo = UTC,
    *,
    with_periods: bool = True,
    fast_seconds: float = FAST_SECONDS,
) -> Figures:
    """Ask a published warehouse, open as ``connect()`` gives it, for the report's figures.

    ``zone`` is the one whose days the warehouse has (USMS_TIMEZONE): the page shows its hours.
    ``fast_seconds`` is how soon a message should arrive (USMS_TARGET_SECONDS). The periods take
    longest: who draws no page needs none.
    """
    columns = ["country", "operator"]
    [[ungrouped]] = queries.ask(con, "SELECT usms_ungrouped()").fetchall()
    carried = dimensions_among(queries.ask(con, "FROM receipts LIMIT 0").columns)
    columns += [name for name in carried if name not in ungrouped]
    return Figures(
        total=_rows(queries.rates_expected(con))[0],
        quality=_rows(queries.ask(con, queries.written("report_quality")))[0],
        alerts=_rows(queries.alerts(con)),
        forecasts=_rows(queries.forecasts(con)),
        maturity=queries.maturity(con).to_arrow_table(),
        daily=queries.ask(con, _LATEST_DAYS).to_arrow_table(),
        periods=periods.ask(con, columns, zone, fast_seconds) if with_periods else None,
        timezone_hint=queries.timezone_hint(con),
    )


def _rows(relation: queries.Relation) -> list[Row]:
    rows: list[Row] = relation.to_arrow_table().to_pylist()
    return rows
