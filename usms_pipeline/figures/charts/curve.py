"""How fast messages arrive: the share delivered within t."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from usms_pipeline.contract import wording
from usms_pipeline.figures.charts.parts import Row, plot_width
from usms_pipeline.figures.charts.style import Chart, colour, dressed, empty

_CURVE_TICKS: Final = {
    1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min", 3_600: "1 h", 21_600: "6 h",
    86_400: "1 d", 259_200: "3 d",
}  # fmt: skip


def delivery_curve(curve: pa.Table) -> Chart:
    """Draw the share of messages delivered within t, on a logarithmic time axis.

    ``curve`` has a row a time, ascending: ``seconds`` after sending, and ``delivered_share`` (0–1,
    null past the longest watch).
    """
    import altair as alt

    rows = [
        {
            "seconds": max(float(row["seconds"]), 1.0),
            "share": (share := row["delivered_share"]),
            "tip": f"{wording.percent(share)} within {wording.duration(float(row['seconds']))}",
        }
        for row in curve.to_pylist()
        if row["delivered_share"] is not None
    ]
    if not any(row["share"] for row in rows):
        return empty("Nothing is delivered yet")
    last = max(rows[-1]["seconds"], 60)
    ticks = [t for t in _CURVE_TICKS if t <= last]
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X(
            "seconds:Q",
            title="time since sending (logarithmic)",
            scale=alt.Scale(type="log", domain=[1, last], nice=False),
            axis=alt.Axis(values=ticks, labelExpr=f"({_CURVE_TICKS})[datum.value]", grid=True),
        ),
        y=alt.Y(
            "share:Q",
            title="delivered",
            scale=alt.Scale(domain=[0, 1]),
            axis=alt.Axis(format=".0%", tickCount=5),
        ),
    )
    line = base.mark_line(interpolate="step-after", color=colour("delivered"), strokeWidth=2.5)
    spots = base.mark_circle(color=colour("delivered"), size=160, opacity=0)
    return dressed(
        alt.layer(line, spots.encode(description="tip:N", tooltip="tip:N")).properties(
            width=plot_width(), height=220
        ),
        _curve_headline(rows),
        "Share delivered within a time after sending. A message without a final status counts for "
        "as long as it was watched, and no longer.",
    )


def _curve_headline(rows: Sequence[Row]) -> str:
    final = rows[-1]["share"]
    parts = []
    for share, words in ((0.5, "Half of all messages arrive"), (0.9, "90%")):
        reached = next((row["seconds"] for row in rows if row["share"] >= share), None)
        if reached is not None:
            parts.append(f"{words} within {wording.duration(reached)}")
    return ", ".join(parts) if parts else f"{wording.percent(final)} are delivered so far"
