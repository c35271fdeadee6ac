"""``usms sql``: queries of the published file, opened read-only."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.markup import escape

import usms_pipeline
from usms_pipeline.cli.options import Format, Formats
from usms_pipeline.cli.output import print_rows, print_table
from usms_pipeline.cli.shell import OK, err, out, warn
from usms_pipeline.contract.errors import BadQuery

if TYPE_CHECKING:
    from usms_pipeline.figures.queries import Connection

_MOST_ROWS: Final = 200
"""More are no use on a screen, and take seconds to lay out."""

_LEAVE: Final = ("exit", "quit", "q")

Query = Annotated[
    str | None,
    typer.Argument(
        help="Without it, queries are read from stdin; at a terminal, end each with a semicolon."
    ),
]


def sql(query: Query = None, format_: Formats = Format.TABLE) -> int:
    """Query the published file, read-only: `usms sql "FROM delivery_rate_daily"`."""
    with usms_pipeline.connect(usms_pipeline.settings.load().warehouse_path) as con:
        if query is not None:
            _answer(con, query, format_)
        elif sys.stdin.isatty():
            _converse(con, format_)
        else:
            _answer(con, sys.stdin.read(), format_)
    return OK


def _converse(con: Connection, format_: Format) -> None:
    """Answer queries until the input ends; one that can't be run ends nothing."""
    with suppress(ImportError):
        import readline  # noqa: F401  # gives input() its history

    err().print(
        "[dim]End each query with a semicolon; Ctrl-D quits. SHOW TABLES; lists the tables.[/]"
    )
    lines: list[str] = []
    with suppress(EOFError):
        while (lines or [""])[0].strip(" ;.\\").lower() not in _LEAVE:
            if lines and lines[-1].rstrip().endswith(";"):
                try:
                    _answer(con, "\n".join(lines), format_)
                except BadQuery as error:
                    err().print(f"[bold red]✗[/] {escape(str(error))}")
                lines = []
            lines.append(input("usms> " if not lines else "  ..> "))


def _answer(con: Connection, query: str, format_: Format) -> None:
    is_table = format_ == Format.TABLE
    rows = usms_pipeline.queries.own(con, query, _MOST_ROWS + 1 if is_table else None)
    if rows is None:
        return
    if is_table:
        first = rows.slice(0, _MOST_ROWS)
        columns = (column.to_pylist() for column in first.columns)  # two may have one name
        print_table(first.column_names, list(zip(*columns, strict=True)), out())
        if rows.num_rows > _MOST_ROWS:
            warn([f"These are the first {_MOST_ROWS} rows: --format csv prints all."])
    else:
        print_rows(rows, format_)
