"""Options that several commands have: which days, which groups, in which order, how printed."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import typer


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


From = Annotated[
    str | None,
    typer.Option("--from", "--since", metavar="DAY", help="First day sent, as 2026-01-31."),
]
To = Annotated[
    str | None, typer.Option("--to", "--until", metavar="DAY", help="Last day sent (included).")
]
Ago = Annotated[
    str | None,
    typer.Option("--last", metavar="PERIOD", help="Sent in this last period: 24h, 7d or 4w."),
]
By = Annotated[
    list[str] | None,
    typer.Option("--by", metavar="COLUMN", help="One row for each value of a column. Repeatable."),
]
Sort = Annotated[
    str | None,
    typer.Option(
        "--sort",
        metavar="COLUMN",
        help="Sort by a column of --format csv; -COLUMN for the largest first.",
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Print at most n rows.")]
Formats = Annotated[Format, typer.Option("--format", help="Output format.")]


def check_file(option: str, path: Path) -> None:
    """Raise a usage error where an option's file can't be made: its folder is not made either."""
    if path.is_dir():
        raise typer.BadParameter(f"{option} {path} is a folder; name a file in it.")
    if not path.absolute().parent.is_dir():
        raise typer.BadParameter(
            f"{option} {path}: there is no folder {path.parent}; make it first."
        )


def day(text: str | None) -> date | None:
    """Read a ``YYYY-MM-DD`` option; raises a usage error that shows the form."""
    if text is None:
        return None
    from usms_pipeline.contract.setting_types import FIRST_DAY, LAST_DAY, usable_day

    try:
        return usable_day(date.fromisoformat(text))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a day from {FIRST_DAY} to {LAST_DAY}; write it as 2026-01-31."
        ) from None


def span(first: str | None, last: str | None) -> tuple[date | None, date | None]:
    """Read ``--from`` and ``--to``, both included; raises a usage error if they cross."""
    start, end = day(first), day(last)
    if start and end and start > end:
        raise typer.BadParameter(f"--from {start} lies after --to {end}.")
    return start, end


def period(
    first: str | None, last: str | None, ago: str | None, zone: ZoneInfo
) -> tuple[date | datetime | None, date | None]:
    """Read ``--from`` and ``--to``, or ``--last``: whole days of a zone up to today, or hours.

    The first is a ``datetime`` if hours were asked for, else a day; both are None if nothing was.
    """
    if ago is None:
        return span(first, last)
    if first or last:
        raise typer.BadParameter("--last already says which days; leave out --from and --to.")
    found = re.fullmatch(r"([1-9]\d{0,3})([hdw])", ago.strip().lower())
    if not found:
        raise typer.BadParameter(f"--last {ago!r} is not a period; write it as 24h, 7d or 4w.")
    count, now = int(found[1]), datetime.now(UTC)
    if found[2] == "h":
        return now - timedelta(hours=count), None
    days = count * (7 if found[2] == "w" else 1)
    return now.astimezone(zone).date() - timedelta(days=days - 1), None
