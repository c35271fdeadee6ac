"""What the page shows without its script: all messages and days, and what is folded away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from zoneinfo import ZoneInfo

import pyarrow as pa

from usms_pipeline.contract import metrics, wording
from usms_pipeline.contract.status import BUCKETS, STATUSES
from usms_pipeline.contract.wording import count, day, percent
from usms_pipeline.figures import alerts
from usms_pipeline.figures.report.figures import Figures, Row
from usms_pipeline.figures.report.page import (
    Html,
    folded,
    html,
    join,
    paragraph,
    section,
    table,
)
from usms_pipeline.figures.report.texts import listed, said, span

LISTED: Final = 12
"""Rows that a table may have: more are not read."""


def fixed(figures: Figures, zone: ZoneInfo) -> Html:
    """Make the part that is shown where scripts don't run, as in an email preview."""
    if not figures.total["messages"]:
        return section(
            "summary",
            "Summary",
            paragraph(
                "Nothing has been collected yet. Start with usms run; usms check says what is "
                "missing."
            ),
        )
    troubles = [Html(f"<li>{html(alerts.sentence(row, zone))}</li>") for row in figures.alerts]
    told = Html(f'<ul class="warnings">{join(troubles)}</ul>') if troubles else Html("")
    held = f" {wording.held(figures.forecasts)}"
    return join(
        [
            paragraph("Charts and filters need JavaScript, which does not run here."),
            section("summary", "All messages", told, paragraph(_of_all(figures.total), held)),
            section("days", "By day", _days(figures.daily)),
        ]
    )


def folded_away(figures: Figures, checks: Html, settings_summary: Mapping[str, str]) -> Html:
    """Make the sections that begin folded: data checks, completeness, what the words mean."""
    parts = [folded(said("Is the data reliable?"), checks)]
    if figures.total["messages"]:
        fast = said("How fast do receipts arrive, and how complete are the figures?")
        parts.append(folded(fast, _maturity(figures)))
        parts.append(folded(said("Messages by status"), _statuses(figures.total)))
    parts.append(folded(said("What the figures mean"), terms(), settings_table(settings_summary)))
    return join(parts)


def terms() -> Html:
    """Explain every figure but the statuses, in the words of the metric table."""
    entries = "".join(
        f"<dt>{html(said(_title(metric.name)))}</dt><dd>{html(said(metric.description))}</dd>"
        for metric in metrics.METRICS
        if metric.name not in BUCKETS
    )
    return Html(f'<dl class="terms">{entries}</dl>')


def settings_table(settings_summary: Mapping[str, str]) -> Html:
    """Show the settings that the figures depend on."""
    rows = [[variable, value or "–"] for variable, value in settings_summary.items()]
    caption = said("Settings that the figures depend on")
    return table(caption, [said("Setting"), said("Value")], rows, texts=range(2))


def _of_all(total: Row) -> str:
    """Return how many messages there are and their rate, with what it will be and may be."""
    low, high = (percent(total[f"delivery_rate_if_rest_{end}"]) for end in ("failed", "arrived"))
    bounds = (
        f"The rate of all messages can't be below {low} or above {high}, whether none or all of "
        "those without a final status were delivered."
    )
    sent = f"{wording.counted(total['messages'], 'message')} sent"
    if total["awaited"]:
        return f"{sent}. {wording.so_far(total)} {wording.why_less(total)}{bounds}"
    rate, low, high = (percent(total[f"delivery_rate{end}"]) for end in ("", "_ci_low", "_ci_high"))
    sure = f" ({low} – {high} with 95% confidence)" if total["delivery_rate"] else ""
    return f"{sent}, {rate} of those with a final status delivered{sure}. {bounds}"


def _maturity(figures: Figures) -> Html:
    """Show how soon messages arrive, and how complete a group usually is by age."""
    spread = [
        said("{share}% within {span}", share=share, span=span(seconds))
        for share in (50, 90, 99)
        if (seconds := figures.total[f"latency_p{share}_seconds"]) is not None
    ]
    fast = paragraph(
        said("Time to delivery, by the receipts' own times: {spread}.", spread=listed(spread))
        if spread
        else said("Time to delivery: not known yet.")
    )
    rows = [
        [
            span(row["age_seconds"]),
            percent(row["known_share"]),
            percent(row["open_share"]),
            percent(row["delivered_if_open"]),
            percent(row["not_delivered_if_open"]),
        ]
        for row in figures.maturity.to_pylist()
        if row["age_seconds"]
    ]
    if not rows:
        few = said("Too few final statuses yet to show how complete the figures are.")
        return join([fast, paragraph(few)])
    caption = said(
        "From {n} messages of four weeks, by their age. Receipts in: the share of all receipts "
        "that ever come. Later delivered, later failed: shares of those still waiting; the others "
        "never get a receipt.",
        n=count(figures.maturity["messages"][0].as_py()),
    )
    headers = [said("Age"), said("Receipts in"), said("Still waiting"), said("Later delivered"),
               said("Later failed")]  # fmt: skip
    return join([fast, table(caption, headers, rows)])


def _statuses(total: Row) -> Html:
    rows = [
        [said(_title(meaning.status)), count(total[meaning.status]),
         percent(total[meaning.status] / total["messages"]), said(meaning.description)]
        for meaning in STATUSES
    ]  # fmt: skip
    headers = [said("Status"), said("Messages"), said("Share"), said("Meaning")]
    return table(said("All messages by status"), headers, rows, texts=(0, 3))


def _days(daily: pa.Table) -> Html:
    def between(row: Row) -> str:
        if not row["awaited"] or row["expected_rate"] is None:
            return ""
        return f" ({percent(row['expected_rate_low'])} – {percent(row['expected_rate_high'])})"

    rows = [
        [
            day(row["sent_date"]),
            count(row["messages"]),
            percent(row["expected_rate"]) + between(row),
            percent(row["delivery_rate"]),
            f"{percent(row['delivery_rate_if_rest_failed'])} – "
            f"{percent(row['delivery_rate_if_rest_arrived'])}",
            count(row["awaited"]),
        ]
        for row in daily.to_pylist()[: -LISTED - 1 : -1]
    ]
    headers = ["Sent on", "Messages", "Expected", "So far", "At worst – at best", "Waiting"]
    return table(f"The latest {len(rows)} days of sending", headers, rows)


def _title(metric: str) -> str:
    words = metric.removesuffix("_seconds").replace("_ci_", ", interval ").replace("_", " ")
    return words.capitalize()
