"""Pieces that several charts are made of: what became of messages, names, room for text.

Rows are plain dicts with fixed keys: a column's name from the data never gets into a chart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from usms_pipeline.contract import wording
from usms_pipeline.figures.charts.style import WIDTH, colour

Row = dict[str, Any]

BARS: Final = 12
"""How many groups a bar chart shows: the largest."""

ENOUGH: Final = 0.2
"""A group or period with less than this share of the typical one's messages makes no headline."""

FEW: Final = 30
"""Fewer messages make no headline, no axis and no comparison: one of 30 is three points."""

_NAME_LIMIT: Final = WIDTH * 2 // 5

FATES: Final = {
    "delivered": "delivered",
    "awaited": "still waiting",
    "unheard": "no final status",
    "lost": "not delivered",
}
"""What became of a message, in the order of the bars, and in words: *no final status* was closed
without one, *not delivered* failed, was rejected or expired."""


def fates(row: Row) -> dict[str, int]:
    """Return how many messages are delivered, still waiting, never reported and lost."""
    lost = row["failed"] + row["rejected"] + row["expired"]
    unheard = row["messages"] - row["delivered"] - row["awaited"] - lost
    return {
        "delivered": row["delivered"],
        "awaited": row["awaited"],
        "unheard": unheard,
        "lost": lost,
    }


def stacked(became: Row, name: str, whole: float) -> list[Row]:
    """Lay what became of a group's messages end to end, in units of ``whole`` messages."""
    parts: list[Row] = []
    at, messages = 0.0, sum(became[fate] for fate in FATES)
    for fate, words in FATES.items():
        number = became[fate]
        share = wording.percent(number / messages)
        parts.append(
            {
                "name": name,
                "from": at,
                "to": at + number / whole,
                "fate": words,
                "tip": f"{name}: {wording.count(number)} {words} ({share})",
            }
        )
        at += number / whole
    return [part for part in parts if part["to"] > part["from"]]


def fate_colour(parts: Sequence[Row]) -> Any:
    """Return the colour channel of ``stacked`` parts, its legend naming only what occurs."""
    import altair as alt

    present = {part["fate"] for part in parts}
    shown = {fate: words for fate, words in FATES.items() if words in present}
    scale = alt.Scale(domain=list(shown.values()), range=[colour(fate) for fate in shown])
    return alt.Color("fate:N", scale=scale, legend=alt.Legend(columns=4))


def name_axis(rows: Sequence[Row]) -> Any:
    """Return the y channel of rows by ``name``, in their order, long names cut."""
    import altair as alt

    names = list(dict.fromkeys(row["name"] for row in rows))
    room = min(_NAME_LIMIT, max(map(_text_width, names)))  # for a viewer whose font is a wide one
    axis = alt.Axis(labelLimit=_NAME_LIMIT, minExtent=room, labelColor=colour("ink"), grid=False)
    return alt.Y("name:N", title=None, sort=names, axis=axis, scale=alt.Scale(paddingInner=0.2))


def count_axis(ticks: int) -> Any:
    """Return an axis of whole numbers."""
    import altair as alt

    return alt.Axis(tickCount=ticks, tickMinStep=1, format=",d")


def plot_width(names: Sequence[str] = (), figures: Sequence[str] = ()) -> int:
    """Return the width left for the plot, in pixels, beside an axis or names and figures."""
    left = min(_NAME_LIMIT, max(map(_text_width, names))) + 10 if names else 62
    return max(120, WIDTH - left - (max(map(_text_width, figures)) + 12 if figures else 12))


def _text_width(text: str) -> int:
    """Estimate the width of a text of 12 pixels; Chinese characters are square."""
    return round(sum(12 if character > "\u2e80" else 7.6 for character in text))


def left_out(found: int) -> str:
    """Return how many of the groups found a bar chart leaves out; empty when none."""
    return f" {found - BARS} smaller ones are not drawn." if found > BARS else ""
