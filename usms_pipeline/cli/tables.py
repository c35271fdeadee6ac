"""How delivery rates look in a terminal, 80 columns or more. Rows in, rich tables out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from usms_pipeline.contract import wording

_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
_YOUNG: Final = "░"
_SHORTEST_BAR: Final = 8
_NAME_WIDTH: Final = 10
_BOUNDS: Final = "worst – best"
_STYLES: Final = {"expected": "bold", "so far": "bold", _BOUNDS: "dim"}


def rates_table(
    rows: list[dict[str, Any]],
    whole: dict[str, Any],
    by: str | Sequence[str] | None,
    width: int = 80,
) -> Table:
    """Lay out one cohort a row, the values of ``by`` first, and ``whole``, all of them, last.

    ``width`` is the terminal's, in columns: the wider, the longer the bars. In a narrow one figures
    are left out, never the names: the bar first, then the median, then the bounds. The rate that is
    expected stands beside the one so far, unless nothing is open.
    """
    cohorts, keys = [*rows, whole], [by] if isinstance(by, str) else list(by or [""])
    bar_width = min(max(width - 72, _SHORTEST_BAR), 30)
    least = wording.floor(row["delivery_rate_if_rest_failed"] for row in cohorts)
    axis = f"{least:.0%}{'100%':>{bar_width - len(f'{least:.0%}')}}"
    figures: dict[str, list[Any]] = {
        "messages": [wording.count(row["messages"]) for row in cohorts],
        "expected": [percent(row["expected_rate"]) for row in cohorts],
        "so far": [percent(row["delivery_rate"]) for row in cohorts],
        _BOUNDS: [
            bounds(row["delivery_rate_if_rest_failed"], row["delivery_rate_if_rest_arrived"])
            for row in cohorts
        ],
        axis: [
            bar(row["delivery_rate_if_rest_failed"], row["delivery_rate_if_rest_arrived"],
                bar_width, least)
            for row in cohorts
        ],
        "median": [wording.duration(row["latency_p50_seconds"]) for row in cohorts],
        "open": [
            wording.count(row["awaited"]) if row["awaited"] else wording.ABSENT for row in cohorts
        ],
    }  # fmt: skip
    if not any(row["awaited"] for row in cohorts):
        del figures["expected"]
    for dropped in (axis, "median", _BOUNDS):
        widest = (max(map(cell_len, (name, *map(str, cells)))) for name, cells in figures.items())
        # with a blank at both ends, and two between columns
        if len(keys) * (_NAME_WIDTH + 2) + sum(2 + one for one in widest) > width:
            del figures[dropped]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for key in keys:
        head = escape(key.replace("_", " "))
        table.add_column(head, overflow="fold", min_width=_NAME_WIDTH, max_width=28)
    for name in figures:
        is_text = name in (axis, _BOUNDS)
        table.add_column(
            name,
            justify="left" if is_text else "right",
            no_wrap=True,
            style=_STYLES.get(name, ""),
            header_style="dim" if name == axis else "",
        )
    ends = ["[bold]all[/]", *[""] * (len(keys) - 1)]
    names = [
        [*_names([list(row.values())[place] for row in rows]), end]
        for place, end in enumerate(ends)
    ]
    for n, cells in enumerate(zip(*names, *figures.values(), strict=True)):
        table.add_row(*cells, end_section=n == len(rows) - 1)
    return table


def is_shaded(table: Table) -> bool:
    """Return whether a bar of the table has a part that may still turn out delivered."""
    cells = [cell for column in table.columns for cell in column.cells]
    return any(isinstance(cell, Text) and _YOUNG in cell.plain for cell in cells)


def _names(values: list[Any]) -> list[str]:
    distinct = {repr(value): value for value in values}  # of several columns, one may come again
    shown = wording.apart(map(wording.whole_name, distinct.values()))
    names = dict(zip(distinct, map(escape, shown), strict=True))
    return [
        f"[dim]{names[repr(value)]}[/]" if value is None or value == "" else names[repr(value)]
        for value in values
    ]


def percent(rate: float | None) -> str:
    """Write a rate with one decimal, so that a column of them lines up."""
    return wording.ABSENT if rate is None else f"{rate:.1%}"


def bounds(low: float | None, high: float | None) -> str:
    """Write the bounds of a rate; nothing where they meet, for then the rate is settled."""
    if low is None or high is None or f"{low:.1%}" == f"{high:.1%}":
        return ""
    return f"({low * 100:.1f} – {high * 100:.1f})"


def bar(low: float | None, high: float | None, width: int, least: float = 0.0) -> Text:
    """Draw a rate from ``least`` to 1: solid what is delivered, shaded what may still turn out so.

    >>> bar(0.5, 0.75, 8).plain, bar(0.9, 0.95, 8, least=0.8).plain
    ('████░░  ', '████░░  ')
    """
    if low is None or high is None:
        return Text(" " * width)
    low, high = ((rate - least) / (1 - least) for rate in (low, high))
    eighths = round(low * width * 8)
    solid = "█" * (eighths // 8)
    part = _EIGHTHS[eighths % 8] if eighths % 8 else ""
    shaded = _YOUNG * (round(high * width) - len(solid) - len(part))
    drawn = Text.assemble((solid + part, "green"), (shaded, "yellow"))
    drawn.append(" " * (width - len(drawn)))
    return drawn


def facts_grid(*facts: tuple[str, str]) -> Table:
    """Return a borderless grid of names and figures."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    for fact in facts:
        table.add_row(*fact)
    return table
