"""The page's own data: what its script reads, as JSON and as packed counts."""

from __future__ import annotations

import base64
import json
import zlib
from array import array
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa

from usms_pipeline.contract import wording
from usms_pipeline.figures import alerts, charts
from usms_pipeline.figures.charts.parts import FEW
from usms_pipeline.figures.report.periods import (
    DAYS,
    HOURLY_DAYS,
    PERIODS,
    Periods,
)
from usms_pipeline.figures.report.reasons import FAMILIES, OTHER, family
from usms_pipeline.figures.report.texts import CHINESE


def data(
    periods: Periods,
    alerted: Iterable[alerts.Row],
    zone: ZoneInfo,
    days: int,
    target: float | None = None,
) -> tuple[str, str]:
    """Return what the page's script draws: JSON that may stand inside HTML, and packed counts.

    ``days`` is the period that it begins with, ``target`` the delivery rate that is aimed at (%).
    The counts are column after column, as their layout says, deflated and in base64.
    """
    names = [wording.apart(["all others", *map(wording.name, known)]) for known in periods.values]
    said = {
        "zone": zone.key,
        "lastDay": periods.last_day.isoformat(),
        "days": DAYS,
        "hourlyDays": HOURLY_DAYS,
        "periods": PERIODS,
        "period": days,
        "fastSeconds": periods.fast_seconds,
        "target": target and target / 100,
        "zh": CHINESE,
        "floor": FEW,
        "columns": [
            {
                "name": column,
                "label": wording.visible(column.replace("_", " ")),
                "values": known,
                "unknown": values.index(None) + 1 if None in values else -1,
            }
            for column, known, values in zip(periods.columns, names, periods.values, strict=True)
        ],
        "tables": {
            "counts": _layout(periods.counts),
            "failures": _layout(periods.failures),
        },
        "guesses": _by_cohort(periods.guesses, "value", "low", "high", "chance_low", "chance_high"),
        "daily": _by_cohort(periods.daily, "value", "low", "high"),
        "changes": _by_cohort(periods.changes, "value", "low", "high"),
        "costs": {
            days: [
                f"{row['cost_undelivered'] or 0:,.2f}"
                + (f" {wording.name(row['currency'])}" if row["currency"] else "")
                for row in periods.costs
                if row["period"] == days
            ]
            for days in PERIODS
        },
        "reasons": [
            [charts.reason(row), family(row["provider_code"], row["provider_desc"])]
            for row in periods.reasons
        ],
        "families": [
            {"name": f.name, "meaning": f.meaning, "whose": f.whose, "remedy": f.remedy}
            for f in (*FAMILIES, OTHER)
        ],
        "alerts": [_alert(row, periods, zone) for row in alerted],
    }
    # "<" would end the script element that holds it
    text = json.dumps(said, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    raw = b"".join(
        array("I", column.to_pylist()).tobytes()  # deflated, the zeros of four bytes cost nothing
        for part in (periods.counts, periods.failures)
        for column in part.columns
    )
    return text, base64.b64encode(zlib.compress(raw)).decode()


def _layout(part: pa.Table) -> dict[str, Any]:
    return {"rows": part.num_rows, "columns": part.column_names}


def _by_cohort(rows: list[dict[str, Any]], *names: str) -> dict[str, list[float | None]]:
    return {
        row["cohort"]: [None if row[name] is None else round(row[name], 5) for name in names]
        for row in rows
    }


def _alert(row: alerts.Row, periods: Periods, zone: ZoneInfo) -> dict[str, Any]:
    """Return an alert for its card; ``column`` and ``place`` are what a click filters by."""
    column, place = -1, 0
    if row["by_column"] in periods.columns:
        column = periods.columns.index(row["by_column"])
        known = periods.values[column]
        place = known.index(row["cohort"]) + 1 if row["cohort"] in known else 0
    return {
        "kind": row["kind"],
        "by": wording.visible(row["by_column"].replace("_", " ")),
        "name": wording.name(row["cohort"]),
        "share": row["share"],
        "usual": row["usual_share"],
        "messages": row["messages"],
        "affected": row["affected"],
        "extra": round(row["affected"] - row["usual_share"] * row["messages"]),
        "column": column,
        "place": place,
        "from": _hour(row["since"], periods.last_day, zone),
        "to": _hour(row["until"], periods.last_day, zone),
    }


def _hour(moment: datetime, last_day: date, zone: ZoneInfo) -> float:
    """Return the local hour since the page's first day, as its counts have it."""
    first = datetime.combine(last_day - timedelta(days=DAYS - 1), datetime.min.time(), UTC)
    local = moment.astimezone(zone).replace(tzinfo=UTC)
    return (local - first) / timedelta(hours=1)
