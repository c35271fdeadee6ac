"""``usms quarantine``: list what could not be used, try it again, or dismiss it.

Bodies hold phone numbers: they are never printed.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

import usms_pipeline
from usms_pipeline.cli import progress
from usms_pipeline.cli.options import Format, Formats
from usms_pipeline.cli.output import print_rows, rows_table
from usms_pipeline.cli.shell import FELL_SHORT, OK, as_command, out, warn
from usms_pipeline.contract import wording

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from usms_pipeline.days.quarantine import Entry

app = typer.Typer(no_args_is_help=True, help="List, replay or dismiss what could not be processed.")

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Entries, from `list`.")]
All = Annotated[bool, typer.Option("--all", help="Every open entry.")]
_SHOWN = 200


class State(StrEnum):
    """Which entries to list."""

    OPEN = "open"
    REPLAYED = "replayed"
    DISMISSED = "dismissed"
    ALL = "all"


@app.command("list")
@as_command
def list_entries(
    state: Annotated[State, typer.Option(help="Entries to list.")] = State.OPEN,
    format_: Formats = Format.TABLE,
) -> None:
    """List the entries with their reasons, without the bodies, which hold phone numbers."""
    from usms_pipeline.days.quarantine import entries
    from usms_pipeline.store.storage import Store

    settings = usms_pipeline.settings.load()
    found = entries(Store(settings.data_dir), None if state == State.ALL else str(state))
    if format_ != Format.TABLE:
        print_rows(found, format_)
    elif found:
        _show(found, state, settings.zone)
    else:
        out().print(f"[green]✓[/] nothing {'' if state == State.ALL else f'{state} '}in quarantine")


@app.command("replay")
@as_command
def replay(ids: Ids = None, everything: All = False) -> int:
    """Try entries again: read unreadable responses, ask again about refused sessions."""
    chosen = _chosen(ids, everything)
    from usms_pipeline.days.quarantine import open_count
    from usms_pipeline.pipeline import Pipeline

    settings = usms_pipeline.settings.load(["api"])
    with progress.bar() as on_progress:
        pipeline = Pipeline(settings, on_progress=on_progress)
        tried = pipeline.replay(chosen)
    left = open_count(pipeline.store)
    out().print(f"{wording.count(tried)} tried again; {wording.count(left)} open now")
    return _unknown(chosen, tried)


@app.command("dismiss")
@as_command
def dismiss(ids: Ids = None, everything: All = False) -> int:
    """Mark entries as reviewed; their raw bodies are deleted after the retention period."""
    chosen = _chosen(ids, everything)
    from usms_pipeline.pipeline import Pipeline

    dismissed = Pipeline(usms_pipeline.settings.load()).dismiss(chosen)
    out().print(f"{wording.count(dismissed)} dismissed")
    return _unknown(chosen, dismissed)


def _unknown(chosen: list[str] | None, found: int) -> int:
    """Warn of ids that name no open entry; return the exit code."""
    if chosen is None or found >= len(set(chosen)):
        return OK
    warn([f"{len(set(chosen)) - found} of the ids name no open entry: see `usms quarantine list`."])
    return FELL_SHORT


def _chosen(ids: list[str] | None, everything: bool) -> list[str] | None:
    """Return the ids named, or None for every open entry; one of the two must be said."""
    if bool(ids) == everything:
        raise typer.BadParameter("Name the entries (`usms quarantine list`), or say --all.")
    return ids or None


def _show(found: list[Entry], state: State, zone: ZoneInfo) -> None:
    """Print how many there are of each kind, the entries, and what to do about them."""
    from usms_pipeline.days.quarantine import KINDS

    rows = [
        (one.id, f"{one.asked_at.astimezone(zone):%Y-%m-%d %H:%M}", one.session_no, one.reason)
        for one in found[:_SHOWN]
    ]
    console = out()
    for kind, count in Counter(entry.kind for entry in found).most_common():
        console.print(f"{wording.count(count)} × {KINDS.get(kind, kind)}")
    console.print(rows_table(("id", "asked", "session", "reason"), rows))
    if len(found) > _SHOWN:
        console.print(
            f"… and {wording.count(len(found) - _SHOWN)} more (--format json has them all)"
        )
    console.print(
        f"{wording.count(len(found))} {state}. `usms quarantine replay --all` tries them again, "
        "`usms quarantine dismiss --all` leaves them out of this list"
    )
