"""``usms rebuild`` and ``usms forget``: making days again, and erasing people from them."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.markup import escape

import usms_pipeline
from usms_pipeline.cli import progress
from usms_pipeline.cli.options import From, To, span
from usms_pipeline.cli.shell import OK, fell_short, out, warn
from usms_pipeline.contract import wording

Phones = Annotated[
    list[str] | None,
    typer.Option(
        "--phone",
        metavar="NUMBER",
        help="Number to erase, with the sessions sent to no other number; `-` reads stdin.",
    ),
]
Sessions = Annotated[
    list[str] | None,
    typer.Option("--session", metavar="NO", help="Session to erase; `-` reads stdin."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask for confirmation.")]


def rebuild(first: From = None, last: To = None) -> int:
    """Rebuild days from the stored responses; makes no API calls."""
    begin, end = span(first, last)
    from usms_pipeline.pipeline import Pipeline

    settings = usms_pipeline.settings.load()
    with progress.bar() as on_progress:
        pipeline = Pipeline(settings, on_progress=on_progress)
        named = [day for day in pipeline.all_days() if (begin or day) <= day <= (end or day)]
        report = pipeline.rebuild(named)
        published = pipeline.publish()
    warn(report.warnings)
    rows = sum(said.rows for said in report.days.values())
    out().print(
        f"[green]✓[/] {wording.counted(len(report.days), 'day')} rebuilt, "
        f"{wording.counted(rows, 'row')}, in {escape(str(published.path))}"
    )
    if report.locked:
        return fell_short(
            f"Another run holds {', '.join(map(str, report.locked))}: not rebuilt. Run the same "
            "`usms rebuild` again when it has ended."
        )
    if published.is_locked:
        return fell_short(
            "Another run is publishing the warehouse: what was rebuilt is not in it. Run the same "
            "`usms rebuild` again when that has ended."
        )
    if report.fell_short:
        return fell_short(f"{wording.counted(len(report.damaged), 'day')} not rebuilt: see above.")
    return OK


def forget(phone: Phones = None, session: Sessions = None, yes: Yes = False) -> None:
    """Erase phones or sessions everywhere, for good; no rebuild brings them back."""
    phones, sessions = _named(phone), _named(session)
    if not phones and not sessions:
        raise typer.BadParameter("Say what to erase: --phone NUMBER or --session NO.")
    from usms_pipeline.people.forget import strangers
    from usms_pipeline.pipeline import REPORT, Pipeline

    pipeline = Pipeline(usms_pipeline.settings.load())
    if odd := strangers(pipeline.store, pipeline.book, phones):
        # one may be a mistyped number
        shown = ", ".join(repr(wording.without_numbers(text)) for text in odd)
        are, it = ("is", "it") if len(odd) == 1 else ("are", "them")
        raise typer.BadParameter(f"{shown} {are} no phone number, and no row contains {it}.")
    if not yes:
        named = {"phone": phones, "session": sessions}
        counted = (wording.counted(len(these), of) for of, these in named.items() if these)
        typer.confirm(f"Erase {' and '.join(counted)} for good?", abort=True, err=True)
    had_report = pipeline.store.exists(REPORT)
    changed = pipeline.forget(phones, sessions)
    where = "[yellow]![/] in none of the days"
    if changed:
        where = f"[green]✓[/] erased from {wording.counted(len(changed), 'day')}"
    them = "it" if len(phones) + len(sessions) == 1 else "them"
    out().print(f"{where}; later responses about {them} are dropped")
    if had_report:
        out().print(f"{REPORT}, which may have shown {them}, is deleted: `usms report` makes it")


def _named(values: list[str] | None) -> list[str]:
    """Return what an option names, with ``-`` replaced by the lines of stdin."""
    lines = [line for v in values or () for line in (sys.stdin if v == "-" else [v])]
    return [line.strip() for line in lines if line.strip()]
