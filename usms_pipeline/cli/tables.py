"""How delivery rates look in a terminal, 80 columns or more. Rows in, rich tables out."""

from __future__ import annotations

from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from usms_pipeline import wording

_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
_YOUNG: Final = "░"


def rates_table(
    rows: list[dict[str, Any]], whole: dict[str, Any], by: str | None, width: int = 80
) -> Table:
    """Lay out one cohort a row, the value of ``by`` first, and ``whole``, all of them, last.

    ``width`` is the terminal's, in columns: the wider, the longer the bars.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column(
        escape((by or "").replace("_", " ")), overflow="fold", min_width=10, max_width=28
    )
    table.add_column("messages", justify="right", no_wrap=True)
    table.add_column("delivered", justify="right", no_wrap=True)
    table.add_column("bounds", no_wrap=True, style="dim")
    table.add_column("", no_wrap=True)
    table.add_column("median", justify="right", no_wrap=True)
    table.add_column("awaited", justify="right", no_wrap=True)
    bar_width = min(max(width - 72, 8), 30)
    for row in rows:
        table.add_row(_name(next(iter(row.values()))), *_figures(row, bar_width))
    if rows:
        table.add_section()
    table.add_row("[bold]all[/]", *_figures(whole, bar_width))
    return table


def _figures(row: dict[str, Any], bar_width: int) -> list[Text | str]:
    low, high = row["delivery_rate_low"], row["delivery_rate_high"]
    return [
        wording.count(row["messages"]),
        f"[bold]{percent(row['delivery_rate'])}[/]",
        bounds(low, high),
        bar(low, high, bar_width),
        wording.duration(row["latency_p50_seconds"]),
        wording.count(row["awaited"]) if row["awaited"] else wording.ABSENT,
    ]


def _name(value: Any) -> str:
    return "[dim](none)[/]" if value is None else escape(str(value))


def percent(rate: float | None) -> str:
    """Write a rate with one decimal, so that a column of them lines up."""
    return wording.ABSENT if rate is None else f"{rate:.1%}"


def bounds(low: float | None, high: float | None) -> str:
    """Write the bounds of a rate; nothing where they meet, for then the rate is settled."""
    if low is None or high is None or f"{low:.1%}" == f"{high:.1%}":
        return ""
    return f"({low * 100:.1f} – {high * 100:.1f})"


def bar(low: float | None, high: float | None, width: int) -> Text:
    """Draw a rate: solid what is delivered, shaded what may still turn out so.

    >>> bar(0.5, 0.75, 8).plain
    '████░░  '
    """
    if low is None or high is None:
        return Text(" " * width)
    eighths = round(low * width * 8)
    solid = "█" * (eighths // 8)
    part = _EIGHTHS[eighths % 8] if eighths % 8 else ""
    shaded = _YOUNG * (round(high * width) - len(solid) - len(part))
    drawn = Text.assemble((solid + part, "green"), (shaded, "yellow"))
    drawn.append(" " * (width - len(drawn)))
    return drawn


def facts_grid() -> Table:
    """Give a borderless grid of names and figures."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    return table
