"""``usms rates`` and ``usms report``: the published figures, as a table or as a page.

Every figure comes from the warehouse; none is computed here.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from usms_pipeline.cli import config
from usms_pipeline.cli.run import From, To
from usms_pipeline.cli.shell import echo_json, out, plain, span, warn, width
from usms_pipeline.cli.tables import is_shaded, rates_table
from usms_pipeline.contract import wording
from usms_pipeline.contract.errors import SourceError, StorageError

if TYPE_CHECKING:
    from datetime import date
    from zoneinfo import ZoneInfo

    import pyarrow as pa
    from rich.table import Table

    from usms_pipeline.figures.queries import Connection as Warehouse
    from usms_pipeline.settings import Settings
    from usms_pipeline.source import LeftOut


_FORMULA = ("=", "+", "-", "@", "\t", "\n", "＝", "＋", "－", "＠")


class Format(StrEnum):
    """How figures are printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


By = Annotated[
    list[str] | None,
    typer.Option("--by", metavar="COLUMN", help="One row for each value of a column. Repeatable."),
]
ReportFile = Annotated[
    Path | None, typer.Option("--to", help="Another file than report.html in USMS_DATA_DIR.")
]
Formats = Annotated[Format, typer.Option("--format", help="How to print.")]


def rates(
    by: By = None, first: From = None, last: To = None, format_: Formats = Format.TABLE
) -> None:
    """Print delivery rates, what is wrong now first: of all messages, or by any columns."""
    from usms_pipeline import warehouse
    from usms_pipeline.figures import queries

    days, by = span(first, last), list(dict.fromkeys(by or ()))
    settings = config.load()
    if format_ == Format.TABLE:
        show_rates(settings, by, *days)
        return
    with warehouse.connect(settings.warehouse_path) as con:
        print_rows(queries.rates_expected(con, by, *days).to_arrow_table(), format_)


def print_rows(table: pa.Table, format_: Format) -> None:
    """Print all rows as CSV or JSON."""
    if format_ == Format.JSON:
        echo_json(table.to_pylist())
    else:
        _write_csv(table.column_names, table.to_pylist())


def show_rates(
    settings: Settings,
    by: str | Sequence[str] | None,
    first: date | None = None,
    last: date | None = None,
) -> None:
    """Print what is wrong now; then the table, all together as its last row, and how to read it.

    What is out of line is said of all days only. All of it is of one published file. Raises
    ``WarehouseMissing``.
    """
    from usms_pipeline import warehouse
    from usms_pipeline.figures import queries

    console = out()
    with warehouse.connect(settings.warehouse_path) as con:
        rows = _read(con, by, first, last)
        whole = _read(con, None, first, last)[0] if by else rows[0]
        if not whole["messages"]:
            console.print(
                "No messages in these days. `usms run` collects, `usms check` finds faults."
            )
            return
        hint = queries.timezone_hint(con)
        warn([hint] if hint else [])
        if not (first or last):
            warn(_out_of_line(con, settings.zone))
        table = rates_table(rows if by else [], whole, by, width())
        console.print(table)
        said = _how_to_read(whole, table)
        if whole["awaited"] and not (first or last):
            said += "\n" + wording.held(queries.forecasts(con).to_arrow_table().to_pylist())
        for line in wrap(said.rstrip(), width()):
            console.print(f"[dim]{line}[/]")


def _how_to_read(whole: dict[str, Any], table: Table) -> str:
    """Say the rate so far, what it will be once nothing is open, and at worst and at best."""
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


def _read(
    con: Warehouse, by: str | Sequence[str] | None, first: date | None, last: date | None
) -> list[dict[str, Any]]:
    """Return the warehouse's figures, one dictionary a cohort."""
    from usms_pipeline.figures import queries

    found = queries.rates_expected(con, by, first, last)
    rows: list[dict[str, Any]] = found.to_arrow_table().to_pylist()
    return rows


def _out_of_line(con: Warehouse, zone: ZoneInfo) -> list[str]:
    from usms_pipeline.figures import alerts, queries

    return alerts.sentences(queries.alerts(con).to_arrow_table().to_pylist(), zone)


def _write_csv(names: list[str], rows: list[dict[str, Any]]) -> None:
    writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    writer.writerow({name: _cell(name) for name in names})
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in plain(rows))


def _cell(value: Any) -> Any:
    """Keep a spreadsheet from taking a name for a formula, as OWASP has it; JSON has it as it is.

    >>> _cell("=1+1"), _cell("otp"), _cell(-0.5)
    ("'=1+1", 'otp', -0.5)
    """
    text = wording.visible(value) if isinstance(value, str) else value
    return f"'{text}" if isinstance(text, str) and text.startswith(_FORMULA) else text


def report(to: ReportFile = None) -> None:
    """Write the report, one HTML page with charts that works offline, and say where it is."""
    from datetime import UTC, datetime

    from usms_pipeline import warehouse
    from usms_pipeline.days import quarantine
    from usms_pipeline.figures import report as page
    from usms_pipeline.store.storage import Store

    settings = config.load()
    store = Store(settings.data_dir)
    if to:
        _check_file(to)
    with warehouse.connect(settings.warehouse_path) as con, _named(to):
        path = page.build(
            page.ask(con, settings.zone),
            to.absolute() if to else store,
            generated_at=datetime.now(UTC),
            settings_summary=page.summary(settings),
            quarantined=quarantine.open_count(store),
            left_out=_left_out(settings),
        )
    out().print(f"[green]✓[/] {escape(path)}", soft_wrap=True)


def _check_file(to: Path) -> None:
    """Refuse a folder, and a file in a folder that is not there: none is made by the way."""
    if to.is_dir():
        raise typer.BadParameter(f"--to {to} is a folder; name a file: {to / 'report.html'}.")
    if not to.absolute().parent.is_dir():
        raise typer.BadParameter(f"--to {to}: there is no folder {to.parent}; make it first.")


@contextmanager
def _named(to: Path | None) -> Iterator[None]:
    """Say ``--to`` of a file that can't be written, where it was given."""
    try:
        yield
    except StorageError as error:
        if to is None:
            raise
        reason = getattr(error.__cause__, "strerror", None) or error.__cause__
        raise StorageError(
            f"Can't write the report to {str(to)!r}: {reason}. Name another file with --to."
        ) from error


def _left_out(settings: Settings) -> LeftOut | None:
    """Count the source's rows that are in no figure; None where it can't be asked just now."""
    from usms_pipeline import source

    try:
        return source.survey(settings).left_out
    except SourceError:
        return None
