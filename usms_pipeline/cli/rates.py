"""``usms rates``, ``failures`` and ``alerts``: the published figures, to be read.

Every figure comes from the warehouse; none is computed here.
"""

from __future__ import annotations

from collections.abc import Callable
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Final

from rich.markup import escape

import usms_pipeline
from usms_pipeline.cli import options
from usms_pipeline.cli.options import Format, period
from usms_pipeline.cli.output import print_rows, rows_table
from usms_pipeline.cli.shell import out, warn, width
from usms_pipeline.cli.tables import is_shaded, rates_table
from usms_pipeline.contract import wording

if TYPE_CHECKING:
    from datetime import date

    import pyarrow as pa
    from rich.table import Table

    from usms_pipeline.figures.queries import Connection

_BILLED: Final = ("segments", "cost")


def _by_columns(meaning: str, query: str, show: Callable[..., None]) -> Callable[..., None]:
    """Return a command that prints a query of ``queries``; ``show`` prints its rows as a table."""

    def command(
        by: options.By = None,
        first: options.From = None,
        last: options.To = None,
        ago: options.Ago = None,
        sort: options.Sort = None,
        limit: options.Limit = None,
        format_: options.Formats = Format.TABLE,
    ) -> None:
        from usms_pipeline.warehouse import bounded

        by = list(dict.fromkeys(by or ()))
        settings = usms_pipeline.settings.load()
        days = period(first, last, ago, settings.zone)
        with bounded(settings.warehouse_path) as con:
            asked = getattr(usms_pipeline.queries, query)(con, by, *days)
            if query == "failures" and format_ == Format.TABLE:
                asked = usms_pipeline.queries.by_code(asked, by)
            found = usms_pipeline.queries.arranged(asked, sort, limit)
            if format_ == Format.TABLE:
                show(found.to_arrow_table(), con, by, *days)
            else:
                print_rows(found.to_arrow_table(), format_)

    command.__doc__ = meaning
    return command


def show_rates(
    found: pa.Table,
    con: Connection,
    by: list[str],
    first: date | None = None,
    last: date | None = None,
) -> None:
    """Print rows of ``queries.rates_expected``, then all together, and how to read them.

    Without days, also print how the last forecasts turned out, and that there are alerts.
    """
    from usms_pipeline.figures import alerts

    queries, console = usms_pipeline.queries, out()
    of_all = queries.rates_expected(con, None, first, last).to_arrow_table() if by else found
    [whole] = of_all.to_pylist()
    if not whole["messages"]:
        console.print("No messages in these days. `usms run` collects, `usms check` finds faults.")
        return
    hint = queries.timezone_hint(con)
    warn([hint] if hint else [])
    table = rates_table(found.to_pylist() if by else [], whole, by, width())
    console.print(table)
    said = _how_to_read(whole, table)
    if whole["awaited"] and not (first or last):
        said += "\n" + wording.held(queries.forecasts(con).to_arrow_table().to_pylist())
    for line in wrap(said.rstrip(), width()):
        console.print(f"[dim]{line}[/]")
    if not (first or last):
        in_short = alerts.in_short(queries.alerts(con).to_arrow_table().to_pylist())
        warn([in_short] if in_short else [])


def _how_to_read(whole: dict[str, Any], table: Table) -> str:
    """Return the rate so far, what it will be once nothing is open, and at worst and at best."""
    low, high = (whole[f"delivery_rate_if_rest_{end}"] for end in ("failed", "arrived"))
    bounds = f"{wording.percent(low)} – {wording.percent(high)}"
    shade = " (░)" if is_shaded(table) else ""
    if not whole["awaited"]:
        return (
            f"Nothing is open any more. Should none, or all, of those that no carrier reported on "
            f"have arrived, {bounds}{shade} of all did."
        )
    return (
        f"{wording.so_far(whole)} {wording.why_less(whole)}"
        f"At worst and at best, {bounds}{shade} of all arrive."
    )


def _show_costs(found: pa.Table, *_: object) -> None:
    if not any(usms_pipeline.settings.load().costs):
        warn(["USMS_COST_COLUMN is not set: name the column of what a message cost."])
    if not found.num_rows or all(found[name].null_count == len(found) for name in _BILLED):
        out().print("Neither cost nor segments of any message of these days are known.")
        return
    rows = [list(row.values()) for row in found.to_pylist()]
    shown = dict.fromkeys(("messages", "segments", "without_cost"), wording.count)
    shown |= dict.fromkeys(("cost", "cost_undelivered"), "{:,.2f}".format)
    out().print(rows_table(found.column_names, rows, shown))


def _show_failures(found: pa.Table, _: Connection, by: list[str], *__: object) -> None:
    if not found.num_rows:
        out().print("[green]✓[/] No message failed in these days.")
        return
    share = "share of group" if by else "share"
    names = [{"share": share}.get(name, name) for name in found.column_names]
    rows = [list(row.values())[:-2] for row in found.to_pylist()]
    out().print(rows_table(names[:-2], rows, {"messages": wording.count, share: wording.percent}))


rates: Final = _by_columns(
    "Print delivery rates: of all messages, or by any columns.", "rates_expected", show_rates
)
failures: Final = _by_columns(
    "Print why messages fail: the service's codes, of all messages or by any columns.",
    "failures",
    _show_failures,
)


costs: Final = _by_columns(
    "Print what messages cost, by currency, of all messages or by any columns.",
    "costs",
    _show_costs,
)


def alerts(format_: options.Formats = Format.TABLE) -> None:
    """Print where more messages fail or get no receipt than usual, in the last 72 hours."""
    from usms_pipeline.warehouse import bounded

    settings = usms_pipeline.settings.load()
    with bounded(settings.warehouse_path) as con:
        found = usms_pipeline.queries.alerts(con).to_arrow_table()
    if format_ != Format.TABLE:
        print_rows(found, format_)
    elif not found.num_rows:
        out().print("[green]✓[/] Nothing fails more than usual in the last 72 hours of sending.")
    else:
        from usms_pipeline.figures.alerts import sentence

        for row in found.to_pylist():
            lines = wrap(sentence(row, settings.zone), width() - 2)
            out().print("[yellow]![/] " + escape("\n  ".join(lines)))
