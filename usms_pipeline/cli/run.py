"""``usms run`` and ``usms plan``: one pass of the pipeline, or what it would do."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.markup import escape

import usms_pipeline
from usms_pipeline.cli import demo, lean, progress
from usms_pipeline.cli.options import Format, Formats, From, To, span
from usms_pipeline.cli.output import print_rows, rows_table
from usms_pipeline.cli.shell import OK, echo_json, fell_short, out, plain, warn
from usms_pipeline.cli.tables import facts_grid
from usms_pipeline.contract import wording

if TYPE_CHECKING:
    from datetime import date

    from rich.table import Table

    from usms_pipeline.pipeline import Pipeline, Plan, Report
    from usms_pipeline.service.collect import CollectStats
    from usms_pipeline.settings import Settings
    from usms_pipeline.store.dataset import Window

Everything = Annotated[bool, typer.Option("--all", help="Every day since USMS_START_DATE.")]

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only warnings and errors.")]
_UNREADABLE = (
    "Too many times in the column that USMS_SENT_AT_COLUMN names can't be read: see above."
)
_MOST_DAYS: Final = 31
_SAID_OF_A_DAY = ("buckets", "unannounced", "open", "read")


def run(
    first: From = None,
    last: To = None,
    everything: Everything = False,
    format_: Formats = Format.TABLE,
    quiet: Quiet = False,
) -> int:
    """Collect receipts and publish the figures; by default of all days still open."""
    days = _days(first, last, everything)
    lean.load_pipeline()
    from usms_pipeline.pipeline import Pipeline

    settings = usms_pipeline.settings.load(["source", "api"])
    demo.check_service(settings)
    with nullcontext() if quiet else progress.bar() as on_progress:
        pipeline = Pipeline(settings, on_progress=on_progress)
        report = pipeline.run(_window(pipeline, days, everything))
    warn(report.warnings)
    if format_ == Format.JSON:
        echo_json(_as_json(report) | {"warnings": report.warnings})
    elif format_ == Format.CSV:
        days_said = _as_json(report)["days"].items()
        print_rows(
            [{"sent_date": day} | said.pop("buckets") | said for day, said in days_said], format_
        )
    elif not quiet:
        _show_run(report, settings if everything else None)
    if not report.fell_short:
        return OK
    return fell_short(_shortfall(report))


def _as_json(report: Report) -> dict[str, Any]:
    """Return the report as plain JSON; of what a day's file says, what is about its messages."""
    days = {
        str(day): {name: getattr(said, name) for name in _SAID_OF_A_DAY}
        for day, said in report.days.items()
    }
    found: dict[str, Any] = plain(report)
    return found | {"days": days, "fell_short": report.fell_short}


def _shortfall(report: Report) -> str:
    """Return what was asked for and not got; the warnings name each damaged day and its remedy."""
    if report.unheard:
        return report.unheard
    if report.is_unreadable:
        return _UNREADABLE
    if not report.stats.ids_given_up:
        return f"{wording.counted(len(report.damaged), 'damaged day')} left out: see above."
    given_up = wording.counted(report.stats.ids_given_up, "session")
    return f"No usable response for {given_up}. They stay due. Run again, or see `usms check`."


def plan(
    first: From = None,
    last: To = None,
    everything: Everything = False,
    format_: Formats = Format.TABLE,
) -> int:
    """Show how many sessions a run would ask about and how long it would take; no API calls."""
    days = _days(first, last, everything)
    lean.load_pipeline()
    from usms_pipeline.pipeline import Pipeline

    settings = usms_pipeline.settings.load(["source"])
    with progress.bar() as on_progress:
        pipeline = Pipeline(settings, on_progress=on_progress)
        found = pipeline.plan(_window(pipeline, days, everything))
    warn(found.warnings)
    if format_ == Format.CSV:
        due = sorted(found.due_sessions.items())
        print_rows([{"sent_date": day, "due_sessions": count} for day, count in due], format_)
    elif format_ == Format.JSON:
        derived = {"seconds_at_pace": found.seconds_at_pace, "can_keep_up": found.can_keep_up}
        echo_json(plain(found) | derived)
    else:
        _show_plan(found)
    return fell_short(_UNREADABLE) if found.is_unreadable else OK


def _days(first: str | None, last: str | None, everything: bool) -> tuple[date | None, date | None]:
    if everything and (first or last):
        raise typer.BadParameter("--all already means every day; leave out --from and --to.")
    return span(first, last)


def _window(
    pipeline: Pipeline, days: tuple[date | None, date | None], everything: bool
) -> Window | None:
    """Return the days asked for; None, the pipeline's own open window, when none were."""
    from usms_pipeline.store.dataset import Window

    if not everything and days == (None, None):
        return None
    whole = pipeline.everything()
    first, last = days[0] or whole.first, days[1] or whole.last
    if first > last:
        raise typer.BadParameter(
            f"No day from {first} to {last}: without --from it begins at USMS_START_DATE, without "
            "--to it ends today."
        )
    return Window(first, last)


def _show_run(report: Report, whole: Settings | None) -> None:
    """Print what a run did, a line for each step. ``whole``: the settings, if --all was given."""
    from usms_pipeline.contract.status import BUCKETS

    new = wording.counted(report.new, "new recipient")
    source = f"{wording.counted(report.rows_read, 'row')} read, {new}"
    if whole and report.left_out.before_start:
        before = wording.counted(report.left_out.before_start, "row")
        source += f"; {before} before USMS_START_DATE ({whole.start_date}) left out"
    facts = [("source", source), ("asked", _asked(report.stats, report.seconds_asking))]
    if report.locked and not report.days:
        facts.append(("receipts", "left to the other run, which holds all of these days"))
    else:  # which days: a run seldom works on all of them
        sums = report.buckets
        held = [f"{one} {wording.count(sums[one])}" for one in BUCKETS if sums[one]]
        waiting = "none of these days: every message is final or closed"
        if report.open:
            waiting = f"{wording.count(report.open)} for a receipt; "
            waiting += "later runs ask about each as it falls due"
        facts += [
            (f"receipts of {wording.counted(len(report.days), 'day')}", ", ".join(held) or "none"),
            ("waiting", waiting),
        ]
    facts += [("warehouse", _published(report)), ("next", "usms rates --by sent_date")]
    out().print(facts_grid(*facts))


def _asked(stats: CollectStats, seconds: float) -> str:
    if not stats.requests:
        return "nothing was due"
    retried = f", {wording.count(stats.retries)} retried" if stats.retries else ""
    return (
        f"{wording.counted(stats.ids_asked, 'session')} in "
        f"{wording.counted(stats.requests, 'request')}{retried}, {wording.duration(seconds)}"
    )


def _published(report: Report) -> str:
    warehouse = report.warehouse
    assert warehouse is not None
    path = escape(str(warehouse.path))
    if warehouse.is_locked:
        return f"{path} (another run is publishing it)"
    if warehouse.is_skipped:
        return f"{path}, unchanged"
    return (
        f"{path}: {wording.counted(warehouse.rows, 'row')}, "
        f"{wording.counted(warehouse.partitions_changed, 'day')} changed"
    )


def _show_plan(found: Plan) -> None:
    settled = "the rate of the last run"
    assumed = "the rate a run begins with; it adapts to the service's limit"
    facts = [
        ("due", wording.counted(sum(found.due_sessions.values()), "session")),
        ("requests", wording.count(found.requests)),
        (
            "time",
            f"{wording.duration(found.seconds_at_pace)} at {found.pace:.1f} requests a second, "
            f"{settled if found.is_pace_known else assumed}",
        ),
        ("backlog", _backlog(found)),
    ]
    if found.unfolded_runs:
        told = f"responses of {wording.counted(found.unfolded_runs, 'run')}, unless one is under "
        told += "way: the next run counts them first, and fewer may be due"
        facts.append(("uncounted", told))
    console = out()
    console.print(facts_grid(*facts))
    if found.due_sessions:
        console.print(_due_table(found))


def _due_table(found: Plan) -> Table:
    """Lay out what is due by day; by month, where there are more days than a month has."""
    by_day, is_long = found.due_sessions, len(found.due_sessions) > _MOST_DAYS
    due: Counter[str] = Counter()
    for day in sorted(by_day):
        due[f"{day:%Y-%m}" if is_long else day.isoformat()] += by_day[day]
    head = ("month sent" if is_long else "sent date", "sessions due")
    return rows_table(head, list(due.items()), {"sessions due": wording.count})


def _backlog(found: Plan) -> str:
    """Return how late the oldest unmet polling time is, and whether the pace can keep up."""
    if found.oldest_unmet_at is None:
        return "none"
    keeps_up = "this rate is enough" if found.can_keep_up else (
        "[yellow]this rate is not enough[/]: raise USMS_MAX_CONCURRENCY or "
        "USMS_MAX_REQUESTS_PER_SECOND, or poll less often (USMS_POLL_EVERY_HOURS)"
    )  # fmt: skip
    return f"the oldest check is {wording.duration(found.behind_seconds)} overdue; {keeps_up}"
