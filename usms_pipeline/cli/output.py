"""How rows are printed: as a table for people, as CSV or JSON for programs. Alike everywhere."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from usms_pipeline.cli.options import Format
from usms_pipeline.cli.shell import echo_json, plain
from usms_pipeline.contract import wording

if TYPE_CHECKING:
    import pyarrow as pa


_UNBOUNDED: Final = 1_000_000

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\n", "＝", "＋", "－", "＠")


def print_rows(rows: pa.Table | Sequence[Any], format_: Format) -> None:
    """Print all rows as CSV or JSON: a table, or dictionaries or dataclasses of one kind."""
    if format_ == Format.JSON:
        echo_json(rows if isinstance(rows, Sequence) else rows.to_pylist())
        return
    write_csv(rows, sys.stdout)


def write_csv(rows: pa.Table | Sequence[Any], to: TextIO) -> None:
    """Write rows as CSV that a spreadsheet may open, with the names first."""
    found = plain(rows if isinstance(rows, Sequence) else rows.to_pylist())
    names = rows.column_names if not isinstance(rows, Sequence) else list(*found[:1])
    writer = csv.writer(to, lineterminator="\n")
    writer.writerows(map(_cell, row) for row in (names, *(row.values() for row in found)) if row)


def _cell(value: Any) -> Any:
    """Keep a spreadsheet from taking a name for a formula, as OWASP has it; JSON has it as it is.

    >>> _cell("=1+1"), _cell("otp"), _cell(-0.5), _cell(["a"])
    ("'=1+1", 'otp', -0.5, '["a"]')
    """
    if isinstance(value, list | dict):
        value = json.dumps(value, ensure_ascii=False)
    text = wording.visible(value) if isinstance(value, str) else value
    return f"'{text}" if isinstance(text, str) and text.startswith(_FORMULA) else text


def rows_table(
    names: Iterable[str],
    rows: Sequence[Sequence[Any]],
    shown: Mapping[str, Callable[[Any], str]] | None = None,
    absent: str = wording.ABSENT,
) -> Table:
    """Lay out rows, numbers to the right; ``shown`` has functions that format some columns."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    writers = []
    for place, name in enumerate(names):
        values = [row[place] for row in rows if row[place] is not None]
        is_number = bool(values) and all(isinstance(one, int | float | Decimal) for one in values)
        table.add_column(escape(name), justify="right" if is_number else "left", overflow="fold")
        writers.append((shown or {}).get(name, _text))
    for row in rows:
        cells = zip(row, writers, strict=True)
        table.add_row(
            *(f"[dim]{absent}[/]" if one is None else escape(write(one)) for one, write in cells)
        )
    return table


def print_table(names: Sequence[str], rows: Sequence[Sequence[Any]], to: Console) -> None:
    """Print rows; if they are much wider than the terminal, side by side, names to the left.

    Folded into columns of two characters nobody could read them.
    """
    table = rows_table(names, rows, absent="NULL")
    needed = Measurement.get(to, to.options.update(max_width=_UNBOUNDED), table).maximum
    if needed <= 1.3 * to.width:  # a name or two folded still reads well
        to.print(table)
        return
    cells = [len(_text(value)) for row in rows for value in row]
    room = (to.width - max(map(len, names)) - 3) // (min(max(cells, default=0), 40) + 3)
    for begin in range(0, len(rows), max(1, room)):
        some = rows[begin : begin + max(1, room)]
        heads = [f"row {n}" for n in range(begin + 1, begin + 1 + len(some))]
        to.print(rows_table(["", *heads], list(zip(names, *some, strict=True)), absent="NULL"))


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat(" ", "seconds")
    return f"{value:.6g}" if isinstance(value, float) else str(value)
