"""Bars: what became of the messages of each group, and why messages were lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import pyarrow as pa

from usms_pipeline.contract import wording
from usms_pipeline.figures.charts.parts import (
    BARS,
    ENOUGH,
    FEW,
    Row,
    count_axis,
    fate_colour,
    fates,
    left_out,
    name_axis,
    plot_width,
    stacked,
)
from usms_pipeline.figures.charts.style import Chart, colour, dressed, empty


def rate_by(rates: pa.Table, column: str) -> Chart:
    """Draw what became of the messages of each group, the largest first, and its delivery rate.

    ``rates`` has a row a group: ``column`` (text or null) and the metric columns. The end of the
    blue is the rate's lower bound, the start of the orange its upper one, the tick between them the
    rate.
    """
    noun = wording.visible(column.replace("_", " "))
    found = [row for row in rates.to_pylist() if row["messages"]]
    found.sort(key=lambda row: -row["messages"])
    if not found:
        return empty("No messages in this period")
    names = wording.apart(group_name(row, column) for row in found[:BARS])
    rows = [{**row, "name": name} for row, name in zip(found, names, strict=False)]
    return dressed(
        _share_bars(rows),
        _group_headline(rows, noun) + (f", of the {BARS} largest" if len(found) > BARS else ""),
        f"What became of all messages, by {noun}. Tick and figure: the delivery rate, of those "
        "with a final status." + left_out(len(found)),
    )


def failures_by_reason(failures: pa.Table) -> Chart:
    """Draw how many messages were lost for each reason, the most frequent first.

    ``failures`` has a row a reason: ``provider_code``, ``provider_desc`` (text or null) and
    ``messages``; rows alike in both are added up.
    """
    import altair as alt

    counts: Counter[str] = Counter()
    for row in failures.to_pylist():
        counts[reason(row)] += row["messages"]
    if not counts:
        return empty("No failures")
    total, ranked = counts.total(), sorted(counts.items(), key=lambda kv: (-kv[1], kv[0]))
    rows: list[Row] = [
        {
            "name": name,
            "messages": number,
            "label": f"{wording.count(number)} · {wording.percent(number / total)}",
            "tip": f"{name}: {wording.count(number)} messages",
        }
        for name, number in ranked[:BARS]
    ]
    room = alt.Scale(domain=[0, ranked[0][1]], nice=False)  # for the labels
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        y=name_axis(rows),
        x=alt.X("messages:Q", title="messages", axis=count_axis(4), scale=room),
        description="tip:N",
        tooltip="tip:N",
    )
    bars = base.mark_bar(color=colour("lost"), height=16)
    labels = base.mark_text(align="left", dx=6, aria=False).encode(text="label:N")
    return dressed(
        alt.layer(bars, labels).properties(
            width=plot_width([r["name"] for r in rows], [r["label"] for r in rows]),
            height=alt.Step(28),
        ),
        f"“{rows[0]['name']}” is {wording.percent(ranked[0][1] / total)} of "
        f"{wording.count(total)} failures",
        "Messages failed, rejected or expired, by the reason that the service gave."
        + left_out(len(ranked)),
    )


def group_name(row: Mapping[str, Any], column: str) -> str:
    """Write a group's name; an operator's with its country, for two countries can share a name.

    >>> group_name({"operator": "Orange", "country": "FR"}, "operator")
    'Orange (FR)'
    >>> group_name({"template_id": None}, "template_id")
    'not known'
    """
    name = wording.name(row[column])
    country = row.get("country") if column == "operator" else None
    return f"{name} ({wording.name(country)})" if country else name


def reason(row: Mapping[str, Any]) -> str:
    """Write the reason of a failure from its ``provider_desc`` and ``provider_code``."""
    said = (row.get("provider_desc"), row.get("provider_code"))
    return " · ".join(wording.name(part) for part in said if part) or "no reason given"


def _share_bars(rows: Sequence[Row]) -> Any:
    import altair as alt

    def figure(row: Row) -> str:
        rate, became = wording.percent(row["delivery_rate"]), fates(row)
        known = wording.count(became["delivered"] + became["lost"])
        return f"{rate} of {known}"

    parts = [part for row in rows for part in stacked(fates(row), row["name"], row["messages"])]
    y = name_axis(rows)
    bars = alt.Chart(alt.InlineData(values=parts)).mark_bar(height=16).encode(
        y=y,
        x=alt.X("from:Q", title=None, scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format=".0%", values=[0, 0.2, 0.4, 0.6, 0.8, 1])),
        x2="to:Q",
        color=fate_colour(parts),
        description="tip:N", tooltip="tip:N",
    )  # fmt: skip
    figures = [
        {"name": row["name"], "rate": row["delivery_rate"], "edge": 1, "label": figure(row)}
        for row in rows
    ]
    base = alt.Chart(alt.InlineData(values=figures)).encode(y=y)
    tick = base.mark_tick(color=colour("ink"), thickness=2, size=22, opacity=1, aria=False)
    text = base.mark_text(align="left", dx=8, aria=False).encode(x="edge:Q", text="label:N")
    inner = plot_width([f["name"] for f in figures], [f["label"] for f in figures])
    layers = alt.layer(bars, tick.encode(x="rate:Q"), text)
    return layers.properties(width=inner, height=alt.Step(28))


def _group_headline(rows: Sequence[Row], noun: str) -> str:
    enough = max(FEW, ENOUGH * median(row["messages"] for row in rows))
    rated = [r for r in rows if r["delivery_rate"] is not None and r["messages"] >= enough]
    if not rated:
        has_rates = any(row["delivery_rate"] is not None for row in rows)
        few = f"No {noun} has the {FEW} messages that a rate takes"
        return few if has_rates else f"No final status is known yet for any {noun}"
    worst = min(rated, key=lambda row: row["delivery_rate"])
    best = max(rated, key=lambda row: row["delivery_rate"])
    low, high = (wording.percent(row["delivery_rate"]) for row in (worst, best))
    if len(rated) == 1:
        return f"{low} are delivered for {worst['name']}"
    if low == high:
        return f"{low} are delivered for every {noun}"
    return f"From {low} for {worst['name']} to {high} for {best['name']} are delivered"
