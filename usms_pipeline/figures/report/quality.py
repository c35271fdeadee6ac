"""What the report says of the data itself: each check, what was found, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from usms_pipeline.contract import wording
from usms_pipeline.contract.metrics import UNANNOUNCED_SHARE
from usms_pipeline.figures import alerts
from usms_pipeline.figures.report.figures import Figures, Row
from usms_pipeline.figures.report.page import Html, html, table
from usms_pipeline.source import LeftOut


class Finding(NamedTuple):
    """One check: its name, what was found, what to do where that is needed (else empty)."""

    check: str
    found: str
    advice: str = ""


def findings(figures: Figures, quarantined: int | None, left_out: LeftOut | None) -> list[Finding]:
    """Judge the data. ``None`` is what was not counted, and is left out."""
    total, quality = figures.total, figures.quality
    troubles, late = len(alerts.troubles(figures.alerts)), total["first_asked_too_late"]
    made = [
        _counted(
            "Worse than usual",
            troubles,
            wording.counted(troubles, "alert"),
            "The alerts above say which group, since when, and how many messages.",
        ),
        _time_zones(figures),
        _counted(
            "First asked too late",
            late,
            _messages(late),
            "First polled after the cutoff, so a receipt may have existed earlier. Normal for "
            "messages sent long before the first run; otherwise, schedule runs more often.",
        ),
        Finding("Polled in time, but closed without a final status", _messages(_unreported(total))),
        _counted(
            "Unknown status words",
            total["unrecognized"],
            f"{_messages(total['unrecognized'])}: {quality['words']}",
            "They count as waiting until the cutoff. A newer version may know these words.",
        ),
        _extras(quality["extra_receipts"], total["messages"]),
        _counted(
            "Unusable session numbers",
            total["invalid"],
            _messages(total["invalid"]),
            "Blank in your table, or refused by the service; `usms quarantine list` shows the "
            "refused.",
        ),
        Finding(
            "Conflicting final statuses", f"{_messages(quality['conflicting'])}; the first counts"
        ),
    ]
    if left_out is not None:
        made += _of_the_source(left_out)
    if quarantined is not None:
        advice = "Saved, but in no figure: see `usms quarantine list`, then replay or dismiss."
        made.append(
            _counted("In quarantine", quarantined, f"{wording.count(quarantined)} entries", advice)
        )
    return made


def _of_the_source(left_out: LeftOut) -> list[Finding]:
    advice = "Without a send time they are in no figure; `usms check` says more."
    without, ahead = left_out.without_sent_at, left_out.ahead
    before = left_out.before_start
    return [
        _counted("Source rows without a usable time", without, wording.count(without), advice),
        Finding(
            "Source rows before USMS_START_DATE",
            f"{wording.count(before)}; in no figure" if before else "none",
        ),
        _counted(
            "Source rows in the future",
            ahead,
            wording.count(ahead),
            "They enter the figures when their day comes; `usms check` says more.",
        ),
    ]


def quality_table(found: Sequence[Finding]) -> Html:
    """Show all checks."""
    look = Html('<span class="state look">! review</span>')
    fine = Html('<span class="state">✓ OK</span>')
    rows = [
        [one.check, look if one.advice else fine, one.found, _code(one.advice)] for one in found
    ]
    return table(
        "Checks of the data itself", ["Check", "State", "Found", "What to do"], rows, texts=range(4)
    )


def _code(text: str) -> Html:
    """Set what stands between backticks as code."""
    parts = text.split("`")
    return Html(
        "".join(f"<code>{html(p)}</code>" if n % 2 else html(p) for n, p in enumerate(parts))
    )


def _counted(check: str, count: int, found: str, advice: str) -> Finding:
    return Finding(check, found, advice) if count else Finding(check, "none")


def _messages(count: int) -> str:
    return wording.counted(count, "message")


def _time_zones(figures: Figures) -> Finding:
    median_seconds = figures.total["latency_p50_seconds"]
    before_sent = figures.quality["delivered_before_sent"]
    if median_seconds is None:
        return Finding("Time zones", "can't be judged yet: nothing was delivered")
    found = f"half of the delivered messages arrived within {wording.duration(median_seconds)}"
    if before_sent:
        found += f"; {_messages(before_sent)} delivered before being sent"
    return Finding("Time zones", found, figures.timezone_hint or "")


def _unreported(total: Row) -> int:
    """Count the closed ones that were asked in time: the carrier never reported."""
    known = total["delivered"] + total["failed"] + total["rejected"] + total["expired"]
    closed = total["messages"] - known - total["awaited"] - total["invalid"]
    return max(0, int(closed - total["first_asked_too_late"]))


def _extras(extras: int, messages: int) -> Finding:
    is_many = extras > UNANNOUNCED_SHARE * messages
    beside = f"beside {wording.count(messages)} in your table, left out of the rates"
    advice = (
        "Your table lists fewer recipients than were sent to: `usms check` shows how its rows "
        "are read."
    )
    check = "Receipts of phones that are not in your table"
    found = f"{wording.count(extras)} {beside}" if extras else "none"
    return Finding(check, found, advice if is_many else "")
