"""What the page's filters and periods are answered from: counts by hour and group, and forecasts.

Rates of any selection are ratios of these counts, made in the page. What is more than a ratio
(forecast, change, interval) is asked of the SQL macros, for each period and each single value.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any, Final
from zoneinfo import ZoneInfo

import pyarrow as pa

from usms_pipeline.figures import queries
from usms_pipeline.warehouse.ddl import identifier, literal

Row = dict[str, Any]

PERIODS: Final = (1, 7, 30, 90)
"""In days; the first is the last 24 hours. Each is set beside as much time before it."""

DAYS: Final = 2 * PERIODS[-1]
"""Days of sending that the page holds: the longest period and the one before it."""

HOURLY_DAYS: Final = 30
"""The latest days, of which it holds hours; of the others, days."""

FAST_SECONDS: Final = 30
"""Who waits for a code gives up soon after."""

VALUES: Final = (40, 12, 4, 1)
"""Values of a column that have a name of their own, the most frequent: as many as keep the page
under ``MOST`` rows of counts, which is 2 MB."""

MOST: Final = 300_000


@dataclass(frozen=True)
class Periods:
    """The latest days by hour and group, of one warehouse.

    ``counts`` has ``hour`` (since the first of ``DAYS`` days), a column ``v<n>`` for each of
    ``columns``, the place of a value in ``values[n]`` from 1 on (0: any other), and
    ``messages``, ``delivered``, ``lost``, ``waiting`` and ``fast`` (delivered in
    ``fast_seconds``);
    ``failures`` the same of ``messages`` for a ``reason``, a place in ``reasons``. ``guesses`` and
    ``changes`` are by period (days), ``is_before``, column (-1: all) and place.
    """

    last_day: date
    fast_seconds: float
    columns: list[str]
    values: list[list[str | None]]
    counts: pa.Table
    reasons: list[Row]
    failures: pa.Table
    guesses: list[Row]
    daily: list[Row]
    changes: list[Row]
    costs: list[Row]


def ask(
    con: queries.Connection,
    columns: list[str],
    zone: ZoneInfo,
    fast_seconds: float = FAST_SECONDS,
    most_rows: int = MOST,
) -> Periods | None:
    """Ask for the latest days; None where nothing was sent. Hours are of the days in ``zone``."""
    newest = "SELECT max(sent_date) AS day FROM receipts WHERE is_announced"
    usable = f"coalesce(({newest} AND status <> 'invalid'), ({newest}))"
    last = queries.ask(con, f"SELECT {usable} AS day").to_arrow_table()["day"][0].as_py()
    if last is None:
        return None
    keys = "".join(f", v{n}" for n in range(len(columns)))
    for most in VALUES:
        values = [_values(con, column, last, most) for column in columns]
        members = _members(columns, values, last, zone)
        counts = _table(con, _COUNTED.format(members=members, keys=keys, fast=fast_seconds))
        if counts.num_rows <= most_rows:
            break
    failures = _table(con, _FAILED.format(members=members, keys=keys))
    reasons, failures = _reasons(failures)
    last_hour = max(counts["hour"].to_pylist())
    asked = _asked(con, members, columns, last, last_hour)
    kinds: dict[str, list[Row]] = {"guess": [], "day": [], "change": []}
    for row in asked.to_pylist():
        kinds[row.pop("kind")].append(row)
    return Periods(
        last, fast_seconds, columns, values, counts, reasons, failures,
        kinds["guess"], kinds["day"], kinds["change"], _costs(con, members, last_hour),
    )  # fmt: skip


def _values(con: queries.Connection, column: str, last: date, most: int) -> list[str | None]:
    """List the most frequent values of a column in these days; an empty text is none."""
    found = _table(
        con,
        f"""
        SELECT nullif({identifier(column)}::VARCHAR, '') AS value
        FROM usms_named()
        WHERE is_announced AND sent_date > DATE '{last}' - {DAYS}
        GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT {most}
        """,
    )
    return list(found["value"].to_pylist())


def _members(columns: list[str], values: list[list[str | None]], last: date, zone: ZoneInfo) -> str:
    """Return the query of the latest days' messages, with hour and places of their values."""
    places = "".join(
        f", coalesce(list_position([{', '.join(literal(one or '') for one in known)}], "
        f"coalesce(r.{identifier(column)}::VARCHAR, '')), 0)::USMALLINT AS v{n}"
        for n, (column, known) in enumerate(zip(columns, values, strict=True))
    )
    day = f"({DAYS - 1} + date_diff('day', DATE '{last}', r.sent_date))"
    hour = f"hour(r.sent_at AT TIME ZONE {literal(zone.key)})"
    return f"""
        SELECT r.*, {day} AS usms_day,
            24 * {day} + CASE WHEN {day} >= {DAYS - HOURLY_DAYS} THEN {hour} ELSE 0 END AS hour
            {places}
        FROM usms_named() AS r
        WHERE r.is_announced AND r.sent_date BETWEEN DATE '{last}' - {DAYS - 1} AND DATE '{last}'
    """


_COUNTED: Final = """
    WITH members AS ({members})
    SELECT hour {keys},
        count(*) AS messages,
        count(*) FILTER (status = 'delivered') AS delivered,
        count(*) FILTER (status IN ('failed', 'rejected', 'expired')) AS lost,
        count(*) FILTER (NOT is_final AND NOT is_closed) AS waiting,
        count(*) FILTER (
            status = 'delivered' AND delivery_seconds BETWEEN 0 AND {fast}
        ) AS fast
    FROM members
    GROUP BY ALL
    ORDER BY ALL
"""

_FAILED: Final = """
    WITH members AS ({members})
    SELECT hour {keys}, provider_code, provider_desc, count(*) AS messages
    FROM members
    WHERE status IN ('failed', 'rejected', 'expired')
    GROUP BY ALL
    ORDER BY ALL
"""

_REASONS: Final = 200
"""Reasons with a name of their own; descriptions may be made up for each message."""


def _reasons(failures: pa.Table) -> tuple[list[Row], pa.Table]:
    """Return the reasons' texts, and the rows with their places instead."""
    keys = ["provider_code", "provider_desc"]
    totals = failures.group_by(keys).aggregate([("messages", "sum")]).to_pylist()
    totals.sort(key=lambda row: (-row["messages_sum"], *(str(row[key]) for key in keys)))
    reasons = [{key: row[key] for key in keys} for row in totals[:_REASONS]]
    place = {tuple(reason.values()): n for n, reason in enumerate(reasons)}
    if len(totals) > len(reasons):
        reasons.append(dict.fromkeys(keys) | {"provider_desc": "Rarer reasons"})
    given = zip(*(failures[key].to_pylist() for key in keys), strict=True)
    places = pa.array([place.get(one, _REASONS) for one in given], pa.uint16())
    return reasons, failures.drop_columns(keys).append_column("reason", places)


def _asked(
    con: queries.Connection, members: str, columns: list[str], last: date, last_hour: int
) -> pa.Table:
    """Ask for the forecasts of periods and days, and for changes, of all and each single value.

    A group is written ``period:is_before:column:place``, or ``day:<n>:column:place``.
    """
    windows = [
        "'day:' || usms_day",
        "usms_recent",
        *(
            f"CASE WHEN usms_day >= {DAYS - days} THEN '{days}:0' "
            f"WHEN usms_day >= {DAYS - 2 * days} THEN '{days}:1' END"
            for days in PERIODS[1:]
        ),
    ]
    keys = "".join(f", v{n}" for n in range(len(columns)))
    parts = ["'-1:0'", *(f"'{n}:' || v{n}" for n in range(len(columns)))]
    changes = " UNION ALL ".join(
        f"SELECT 'change', '{days}:0:' || cohort, change, change_low, change_high, NULL, NULL "
        f"FROM usms_changes(daily_{days}, days := {days})"
        for days in PERIODS[1:]
    )
    dailies = ", ".join(
        f"daily_{days} AS (SELECT * FROM daily WHERE sent_date > last_day - {2 * days})"
        for days in PERIODS[1:]
    )
    query = queries.written("report_forecasts").format(
        members=members, keys=keys, last=last, a_day_ago=last_hour - 24,
        two_days_ago=last_hour - 48, parts=", ".join(parts), windows=", ".join(windows),
        dailies=dailies, changes=changes,
    )  # fmt: skip
    return _table(con, query)


def _costs(con: queries.Connection, members: str, last_hour: int) -> list[Row]:
    """Ask what those that were not delivered cost, by period and currency."""
    parts = (
        f"""
        SELECT {days} AS period, usms_currency(r) AS currency, unnest(cost_figures(r))
        FROM members AS r
        WHERE {f"hour > {last_hour - 24}" if days == 1 else f"usms_day >= {DAYS - days}"}
        GROUP BY usms_currency(r)
        """
        for days in PERIODS
    )
    query = f"WITH members AS ({members}) {' UNION ALL '.join(parts)} ORDER BY period, cost DESC"
    return [row for row in _table(con, query).to_pylist() if row["cost"] is not None]


def _table(con: queries.Connection, query: str) -> pa.Table:
    return queries.ask(con, query).to_arrow_table()
