"""What the report says of the data itself: each check, what was found, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from usms_pipeline.contract.metrics import UNANNOUNCED_SHARE
from usms_pipeline.contract.wording import count
from usms_pipeline.figures import alerts
from usms_pipeline.figures.report.figures import Figures, Row
from usms_pipeline.figures.report.page import Html, html, join, paragraph, table
from usms_pipeline.figures.report.texts import Said, said, span
from usms_pipeline.source import LeftOut


class Finding(NamedTuple):
    """One check: its name, what was found, what to do where that is needed (else empty)."""

    check: Said
    found: str
    advice: str = ""


def findings(figures: Figures, quarantined: int | None, left_out: LeftOut | None) -> list[Finding]:
    """Judge the data. ``None`` is what was not counted, and is left out."""
    total, quality = figures.total, figures.quality
    troubles, late = len(alerts.troubles(figures.alerts)), total["first_asked_too_late"]
    unrecognized, invalid = total["unrecognized"], total["invalid"]
    made = [
        _counted(
            said("Worse than usual"),
            troubles,
            said("{n} alert" if troubles == 1 else "{n} alerts", n=count(troubles)),
            said("The alerts above say which group, since when, and how many messages."),
        ),
        _time_zones(figures),
        _counted(
            said("First asked too late"),
            late,
            _messages(late),
            said(
                "First polled after the cutoff, so a receipt may have existed earlier. Normal for "
                "messages sent long before the first run; otherwise, schedule runs more often."
            ),
        ),
        _counted(
            said("Polled in time, but closed without a final status"),
            _unreported(total),
            _messages(_unreported(total)),
        ),
        _counted(
            said("Unknown status words"),
            unrecognized,
            said("{messages}: {words}", messages=_messages(unrecognized), words=quality["words"]),
            said("They count as waiting until the cutoff. A newer version may know these words."),
        ),
        _extras(quality["extra_receipts"], total["messages"]),
        _counted(
            said("Unusable session numbers"),
            invalid,
            _messages(invalid),
            said(
                "Blank in your table, or refused by the service; `usms quarantine list` shows the "
                "refused."
            ),
        ),
        _counted(
            said("Conflicting final statuses"),
            quality["conflicting"],
            said("{messages}; the first counts", messages=_messages(quality["conflicting"])),
        ),
    ]
    if left_out is not None:
        made += _of_the_source(left_out)
    if quarantined is not None:
        entries = said("{n} entry" if quarantined == 1 else "{n} entries", n=count(quarantined))
        advice = said(
            "Saved, but in no figure: see `usms quarantine list`, then replay or dismiss."
        )
        made.append(_counted(said("In quarantine"), quarantined, entries, advice))
    return made


def _of_the_source(left_out: LeftOut) -> list[Finding]:
    before = left_out.before_start
    return [
        _counted(
            said("Source rows without a usable time"),
            left_out.without_sent_at,
            count(left_out.without_sent_at),
            said("Without a send time they are in no figure; `usms check` says more."),
        ),
        _counted(
            said("Source rows before USMS_START_DATE"),
            before,
            said("{n}; in no figure", n=count(before)),
        ),
        _counted(
            said("Source rows in the future"),
            left_out.ahead,
            count(left_out.ahead),
            said("They enter the figures when their day comes; `usms check` says more."),
        ),
    ]


def quality_table(found: Sequence[Finding]) -> Html:
    """Show all checks."""
    look = Html(f'<span class="state look">{html(said("! review"))}</span>')
    fine = Html(f'<span class="state">{html(said("✓ OK"))}</span>')
    rows = [
        [one.check, look if one.advice else fine, join([one.found, paragraph(one.advice)])]
        if one.advice
        else [one.check, fine, one.found]
        for one in found
    ]
    headers = [said("Check"), said("State"), said("Found")]
    return table(said("Checks of the data itself"), headers, rows, texts=range(3))


def _counted(check: Said, number: int, found: str, advice: str = "") -> Finding:
    return Finding(check, found, advice) if number else Finding(check, said("none"))


def _messages(number: int) -> Said:
    return said("{n} message" if number == 1 else "{n} messages", n=count(number))


def _time_zones(figures: Figures) -> Finding:
    check, median_seconds = said("Time zones"), figures.total["latency_p50_seconds"]
    before_sent = figures.quality["delivered_before_sent"]
    if median_seconds is None:
        return Finding(check, said("can't be judged yet: too few receipts"))
    found = said("half of the delivered messages arrived within {span}", span=span(median_seconds))
    if before_sent:
        found = said(
            "{found}; {messages} delivered before being sent",
            found=found,
            messages=_messages(before_sent),
        )
    wrong = said(
        "A time zone is probably wrong: check USMS_RECEIPT_TIMEZONE (of the service's receipt "
        "times) and USMS_SOURCE_TIMEZONE (of your table's times)."
    )
    return Finding(check, found, wrong if figures.timezone_hint else "")


def _unreported(total: Row) -> int:
    """Count the closed ones that were asked in time: the carrier never reported."""
    known = total["delivered"] + total["failed"] + total["rejected"] + total["expired"]
    closed = total["messages"] - known - total["awaited"] - total["invalid"]
    return max(0, int(closed - total["first_asked_too_late"]))


def _extras(extras: int, messages: int) -> Finding:
    check = said("Receipts of phones that are not in your table")
    if not extras:
        return Finding(check, said("none"))
    found = said(
        "{n} beside {messages} in your table, left out of the rates",
        n=count(extras),
        messages=count(messages),
    )
    advice = said(
        "Your table lists fewer recipients than were sent to: `usms check` shows how its rows "
        "are read."
    )
    return Finding(check, found, advice if extras > UNANNOUNCED_SHARE * messages else "")
