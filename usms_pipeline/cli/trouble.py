"""``usms alerts`` and ``usms failures``: what goes wrong now, and why messages fail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from usms_pipeline.cli import config, options
from usms_pipeline.cli.options import Format, chosen, period
from usms_pipeline.cli.output import print_rows, rows_table
from usms_pipeline.cli.shell import out
from usms_pipeline.contract import wording

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from rich.table import Table

_KINDS: Final = {
    "failing": "failed within {} h",
    "silent": "no final status within {} h",
    "mix": "of all messages (no trouble)",
}


def alerts(format_: options.Formats = Format.TABLE, as_json: options.Json = False) -> None:
    """Print what fails or stays silent more than usual, in the last 72 hours of sending."""
    from usms_pipeline import warehouse
    from usms_pipeline.figures import queries

    settings, format_ = config.load(), chosen(format_, as_json)
    with warehouse.connect(settings.warehouse_path) as con:
        found = queries.alerts(con).to_arrow_table()
    if format_ != Format.TABLE:
        print_rows(found, format_)
    elif not found.num_rows:
        out().print("[green]✓[/] Nothing fails more than usual in the last 72 hours of sending.")
    else:
        out().print(_alerts_table(found.to_pylist(), settings.zone))


def _alerts_table(rows: Iterable[Mapping[str, Any]], zone: ZoneInfo) -> Table:
    from usms_pipeline.figures.alerts import group, span

    names = ("group", "sent", "messages", "share", "usually", "what", "also seen in")
    cells = []
    for row in rows:
        what = _KINDS[row["kind"]].format(row["within_hours"])
        also = [one for one in dict.fromkeys(map(group, row["echoes"])) if one != group(row)]
        figures = (row["messages"], row["share"], row["usual_share"])
        cells.append((group(row), span(row, zone), *figures, what, ", ".join(also[:3])))
    shown = {"messages": wording.count, "share": wording.percent, "usually": wording.percent}
    return rows_table(names, cells, shown)


def failures(
    by: options.By = None,
    first: options.From = None,
    last: options.To = None,
    ago: options.Ago = None,
    sort: options.Sort = None,
    limit: options.Limit = None,
    format_: options.Formats = Format.TABLE,
    as_json: options.Json = False,
) -> None:
    """Print why messages fail: the service's codes, of all messages or by any columns."""
    from usms_pipeline import warehouse
    from usms_pipeline.figures import queries

    settings, format_ = config.load(), chosen(format_, as_json)
    days = period(first, last, ago, settings.zone)
    with warehouse.connect(settings.warehouse_path) as con:
        asked = queries.failures(con, list(by or ()), *days)
        found = queries.arranged(asked, sort, limit).to_arrow_table()
    if format_ != Format.TABLE:
        print_rows(found, format_)
    elif not found.num_rows:
        out().print("[green]✓[/] No message failed in these days.")
    else:
        rows = [list(row.values())[:-2] for row in found.to_pylist()]
        figures = {"messages": wording.count, "share": wording.percent}
        out().print(rows_table(found.column_names[:-2], rows, figures))
