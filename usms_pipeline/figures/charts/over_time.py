"""The delivery rate over time, and what became of each period's messages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, time, timedelta
from statistics import median
from typing import Any, Final
from zoneinfo import ZoneInfo

import pyarrow as pa

from usms_pipeline.contract import wording
from usms_pipeline.figures.charts.parts import (
    ENOUGH,
    FEW,
    Row,
    count_axis,
    fate_colour,
    fates,
    plot_width,
    stacked,
)
from usms_pipeline.figures.charts.style import WIDTH, Chart, colour, dressed, empty

YOUNG_SHARE: Final = 0.02
"""A period is young, and drawn so, when more than this share of it is still waiting."""

_NOTABLE_DIP: Final = 0.01


def rate_over_time(
    rates: pa.Table,
    time_column: str = "sent_date",
    zone: ZoneInfo | None = None,
) -> Chart:
    """Draw the delivery rate by day or hour, between its bounds, over what became of the messages.

    ``rates`` has a row a period: ``time_column`` (a date, or the aware start of an hour, shown in
    ``zone``, default UTC) and the metric columns of the warehouse's views. Periods still waiting
    look it: hollow points on a dashed line, a wide band, yellow in the bars below; and, where there
    are the columns ``expected_rate``, ``…_low`` and ``…_high``, what their rate will be.
    """
    import altair as alt

    zone = zone or ZoneInfo("UTC")
    rows = [_period(row, row[time_column], zone) for row in rates.to_pylist() if row["messages"]]
    rows.sort(key=lambda row: row["at"])
    if not rows:
        return empty("No messages in this period")
    is_daily, guessed = rows[0]["is_daily"], ""
    if any(row["expected"] is not None for row in rows):
        guessed = " Diamond: what we expect in the end, with its 95% interval."
    panels = alt.vconcat(
        _rate_panel(rows, _time_axis(rows, None)),
        _fates_panel(rows, _time_axis(rows, None if is_daily else zone.key)),
        spacing=12,
    )
    return dressed(
        panels,
        _time_headline(rows),
        "Delivered, of the messages with a final status. Band: from “none of the others arrives” "
        f"to “all of them do”. Hollow point, dashed line: more than {YOUNG_SHARE:.0%} are still "
        f"waiting.{guessed}{_left_out(rows)}",
    )


def _period(row: Row, at: Any, zone: ZoneInfo) -> Row:
    """Make one period's row; local times are written as if they were UTC, which Vega then shows."""
    is_daily = not isinstance(at, datetime)
    start = datetime.combine(at, time()) if is_daily else at.astimezone(zone).replace(tzinfo=None)
    length = timedelta(days=1) if is_daily else timedelta(hours=1)
    name = wording.day(start) if is_daily else wording.hour(start)
    is_young = row["awaited"] > YOUNG_SHARE * row["messages"]
    figure = wording.percent(row["delivery_rate"])
    low, high = row["delivery_rate_if_rest_failed"], row["delivery_rate_if_rest_arrived"]
    expected = row.get("expected_rate") if is_young else None
    return {
        "at": start,
        "is_daily": is_daily,
        "name": name,
        "start": _stamp(start + length * 0.1),
        "middle": _stamp(start + length / 2),
        "end": _stamp(start + length * 0.9),
        "rate": row["delivery_rate"],
        "settled": None if is_young else row["delivery_rate"],
        "low": low,
        "high": high,
        "is_young": is_young,
        "expected": expected,
        "expected_low": None if expected is None else row["expected_rate_low"],
        "expected_high": None if expected is None else row["expected_rate_high"],
        "messages": row["messages"],
        "is_few": row["messages"] < FEW,
        **fates(row),
        "tip": f"{name}: {figure} delivered, between {wording.percent(low)} "
        f"and {wording.percent(high)}; {wording.count(row['awaited'])} of "
        f"{wording.count(row['messages'])} still waiting"
        + (f"; will be about {wording.percent(expected)}" if expected is not None else ""),
    }


def _rate_panel(rows: Sequence[Row], axis: Any) -> Any:
    import altair as alt

    floor = _floor(rows)
    scale = alt.Scale(domain=[floor, 1], nice=False)
    y = alt.Y(
        "rate:Q", title="delivery rate", scale=scale, axis=alt.Axis(format=".0%", tickCount=5)
    )
    # named as in the panel below: two panels are zoomed together by the name of their field
    plain = [
        {k: v for k, v in row.items() if k not in ("at", "is_daily")} | {"start": row["middle"]}
        for row in rows
    ]
    base = alt.Chart(alt.InlineData(values=plain)).encode(x=alt.X("start:T", **axis))
    blue = colour("delivered")
    look: dict[str, Any] = {"color": colour("band"), "clip": True, "aria": False}
    area = base.mark_area(**look) if len(rows) > 1 else base.mark_rule(strokeWidth=6, **look)
    band = area.encode(y=alt.Y("low:Q", scale=scale), y2="high:Q")
    dashed = base.mark_line(color=blue, strokeDash=[4, 3], strokeWidth=1.5, clip=True).encode(y=y)
    solid = base.mark_line(color=blue, strokeWidth=2.5, clip=True).encode(
        y=alt.Y("settled:Q", scale=scale)
    )
    # a few messages of an hour may lie below the axis, which is made without them
    points = (
        base.transform_filter(f"datum.rate >= {floor}")
        .mark_point(filled=True, stroke=blue, strokeWidth=1.5)
        .encode(
            y=y,
            size=alt.condition("datum.is_young", alt.value(80), alt.value(36)),
            fill=alt.condition("datum.is_young", alt.value(colour("page")), alt.value(blue)),
            opacity=alt.condition("datum.is_few", alt.value(0.3), alt.value(1)),
            description="tip:N",
            tooltip="tip:N",
        )
    )
    guessed = base.transform_filter("datum.expected !== null")
    whiskers = guessed.mark_rule(color=colour("ink"), strokeWidth=2, clip=True, aria=False).encode(
        y=alt.Y("expected_low:Q", scale=scale), y2="expected_high:Q"
    )
    guesses = guessed.mark_point(
        shape="diamond", filled=True, color=colour("ink"), size=32, opacity=1, clip=True
    ).encode(y=alt.Y("expected:Q", scale=scale), description="tip:N", tooltip="tip:N")
    layers = [band, dashed, solid, points, whiskers, guesses]
    return alt.layer(*layers).properties(width=plot_width(), height=210)


def _fates_panel(rows: Sequence[Row], axis: Any) -> Any:
    import altair as alt

    parts = [
        {"start": row["start"], "end": row["end"], **part}
        for row in rows
        for part in stacked(row, row["name"], 1)
    ]
    bars = alt.Chart(alt.InlineData(values=parts)).mark_rect().encode(
        x=alt.X("start:T", **axis),
        x2="end:T",
        y=alt.Y("from:Q", title="messages", axis=count_axis(3)),
        y2="to:Q",
        color=fate_colour(parts),
        description="tip:N", tooltip="tip:N",
    )  # fmt: skip
    return bars.properties(width=plot_width(), height=80)


def _time_axis(rows: Sequence[Row], zone: str | None) -> dict[str, Any]:
    """Return the time axis: a label a day, or hours with the day at midnight."""
    import altair as alt

    scale = alt.Scale(type="utc", domain=[rows[0]["start"], rows[-1]["end"]])
    if rows[0]["is_daily"]:
        # all days, so that there are some wherever one zooms to: of those that touch every second
        days = [row["middle"] for row in rows]
        axis = alt.Axis(
            values=days, format="%-d %b", grid=False, labelOverlap="parity", labelSeparation=24
        )
        return {"scale": scale, "axis": axis, "title": None}
    expr = (
        "utchours(datum.value) ? utcFormat(datum.value, '%H:%M') : utcFormat(datum.value, '%-d %b')"
    )
    axis = alt.Axis(labelExpr=expr, tickCount=WIDTH // 90, labelOverlap=True)
    return {"scale": scale, "axis": axis, "title": zone}


def _time_headline(rows: Sequence[Row]) -> str:
    unit = "day" if rows[0]["is_daily"] else "hour"
    rated, settled, worth, sunk = _rated(rows)
    if not settled:
        return f"No final status is known yet in any {unit}"
    if not worth:
        return f"No {unit} has the {FEW} messages that a rate takes"
    usual = median(row["rate"] for row in worth)
    worst = min([*worth, *sunk], key=lambda row: row["rate"])
    best = max(worth, key=lambda row: row["rate"])
    where = "" if settled == rated else f" in settled {unit}s"
    so_far = " so far" if worst in sunk else ""
    if len(worth) > 2 and usual - worst["rate"] >= _NOTABLE_DIP:
        return (
            f"Usually {wording.percent(usual)} are delivered{where}; at worst "
            f"{wording.percent(worst['rate'])}{so_far} ({worst['name']})"
        )
    if wording.percent(worst["rate"]) == wording.percent(best["rate"]):
        return f"{wording.percent(usual)} are delivered{where}"
    return (
        f"Between {wording.percent(worst['rate'])} and {wording.percent(best['rate'])} are "
        f"delivered{where or f', by {unit}'}"
    )


def _rated(rows: Sequence[Row]) -> tuple[list[Row], list[Row], list[Row], list[Row]]:
    """Return the periods with a rate, and of them the settled ones, all if none is.

    The headline is made of the large ones among these, and of young ones as large that stay below
    them even if all arrive: the third and the fourth. Large is said of all with a rate: the settled
    ones alone may be the nights.
    """
    rated = [row for row in rows if row["rate"] is not None]
    settled = [row for row in rated if not row["is_young"]] or rated
    enough = max(FEW, ENOUGH * median([row["messages"] for row in rated] or [0]))
    worth = [row for row in settled if row["messages"] >= enough]
    least = min((row["rate"] for row in worth), default=0.0)
    young = [row for row in rated if row not in settled and row["messages"] >= enough]
    return rated, settled, worth, [row for row in young if row["high"] < least]


def _left_out(rows: Sequence[Row]) -> str:
    """Return how many settled points the headline does not speak of."""
    _, settled, worth, _ = _rated(rows)
    left = len(settled) - len(worth)
    if not left:
        return ""
    periods = wording.counted(left, "day" if rows[0]["is_daily"] else "hour")
    return f" Too few messages for the headline: {periods}."


def _floor(rows: Sequence[Row]) -> float:
    """Return where the rate axis begins: below what the headline is made of, and its bounds."""
    _, _, worth, sunk = _rated(rows)
    seen = [row["rate"] for row in (*worth, *sunk)]
    seen += [row["low"] for row in worth if not row["is_young"]]
    seen += [row["expected"] for row in rows if row["expected"] is not None and not row["is_few"]]
    return wording.floor(seen)


def _stamp(local: datetime) -> str:
    return f"{local:%Y-%m-%dT%H:%M:%S}Z"
