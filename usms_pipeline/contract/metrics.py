"""The figures in words: name, unit and meaning of every one, in the order they are shown.

The arithmetic is in ``sql/figures.sql`` and nowhere else. README, column comments, Dagster's
metadata and the tables of the command line take their words from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from usms_pipeline.contract.status import STATUSES

UNANNOUNCED_SHARE: Final = 0.01
"""Receipts of phones that are not in the source, per recipient that is: more are reported."""


@dataclass(frozen=True)
class Metric:
    """A figure of a cohort: ``unit`` is ``messages``, ``share`` (0 to 1) or ``s`` (seconds)."""

    name: str
    unit: str
    description: str


_UNTIL: Final = "NULL while anything is open"

METRICS: Final = (
    Metric("messages", "messages", "messages sent: the recipients in your table"),
    *(Metric(meaning.status, "messages", meaning.description) for meaning in STATUSES),
    Metric("awaited", "messages", "waiting for a receipt: no final status, still polled"),
    Metric("awaited_rate", "share", "awaited / messages: how much of the group is still open"),
    Metric("receipt_coverage", "share", "messages with a final status / messages"),
    Metric("delivery_rate", "share", "delivered / messages with a final status"),
    *(
        Metric(name, "share", f"{end} end of the rate's 95 % Wilson interval; {_UNTIL}")
        for name, end in {"delivery_rate_ci_low": "lower", "delivery_rate_ci_high": "upper"}.items()
    ),
    Metric(
        "delivery_rate_if_rest_failed",
        "share",
        "delivered / messages: the rate if none of those without a receipt were delivered",
    ),
    Metric(
        "delivery_rate_if_rest_arrived",
        "share",
        "1 - (failed + rejected + expired) / messages: the rate if all of those were delivered",
    ),
    Metric(
        "latency_p50_seconds",
        "s",
        "half of the delivered messages arrived within this; receipts dated before the send time "
        "are ignored; NULL while open messages could make it more than a quarter longer",
    ),
    *(
        Metric(
            f"latency_p{n}_seconds",
            "s",
            f"{n} % of the delivered messages arrived within this; NULL as above",
        )
        for n in (90, 99)
    ),
    Metric(
        "first_asked_too_late",
        "messages",
        "no final status, and first polled after the cutoff: a receipt may have existed earlier",
    ),
)
"""The figures that every ``delivery_rate_…`` view, ``delivery_figures`` and ``rates`` give."""

CURVE: Final = (
    Metric("seconds", "s", "time since the message was sent"),
    Metric("at_risk", "messages", "watched that long without an earlier final status"),
    Metric("delivered", "messages", "seen to arrive within that time"),
    Metric("not_delivered", "messages", "seen to fail, be rejected or expire within that time"),
    Metric("delivered_share", "share", "estimated share that arrives within that time"),
    Metric("not_delivered_share", "share", "estimated share that fails within that time"),
)
"""The columns of ``delivery_curve``."""

COSTS: Final = (
    Metric("messages", "messages", "messages sent"),
    Metric("segments", "segments", "billed parts, by your table, else by the service"),
    Metric("cost", "", "what the messages cost, by your table, in their currency"),
    Metric("cost_undelivered", "", "of this, for those that failed, were rejected or expired"),
    Metric("without_cost", "messages", "messages without a cost that is a number"),
)
"""The figures of ``cost_by`` and ``usms costs``: a row for each currency."""

FAILURES: Final = (
    Metric("messages", "messages", "messages with this status and reason"),
    Metric("share", "share", "share of all messages that failed, were rejected or expired"),
    Metric(
        "first_seen_at",
        "UTC",
        "earliest receipt's time (or its response's, if the receipt names none)",
    ),
    Metric(
        "last_seen_at",
        "UTC",
        "latest receipt's time (or its response's, if the receipt names none)",
    ),
)
"""The figures of ``failures``, ``failures_daily`` and ``failures_by``."""

FAILING: Final = (
    Metric("failures", "messages", "failed or expired since the last delivered one"),
    Metric("since", "UTC", "when the first of these was sent"),
    Metric("last_sent_at", "UTC", "when the latest of these was sent"),
    Metric("last_provider_code", "", "the service's code for the latest of these"),
    Metric("last_provider_desc", "", "the service's description of that code"),
)
"""The figures of ``failing_recipients``."""

NOWCAST: Final = (
    Metric("messages", "messages", "messages sent, of the group"),
    Metric("awaited", "messages", "waiting for a receipt: no final status, still polled"),
    Metric("delivery_rate", "share", "so far: delivered / messages with a final status"),
    Metric("known_share", "share", "final statuses known now / final statuses expected in the end"),
    Metric("expected_rate", "share", "expected final delivery rate, once no message is waiting"),
    Metric("expected_rate_low", "share", "lower end of its 95 % interval"),
    Metric("expected_rate_high", "share", "upper end of its 95 % interval"),
)
"""The figures of ``delivery_nowcast_daily``, ``…_hourly`` and ``…_by``."""

RECORD: Final = (
    Metric("sent_from", "UTC", "beginning of the day of sending"),
    Metric("forecast_at", "UTC", "end of that day, when the forecast is made"),
    Metric("messages", "messages", "sent on that day"),
    Metric("awaited", "messages", "of these, without a final status at the day's end"),
    Metric("rate_then", "share", "delivery rate at the day's end"),
    *NOWCAST[4:],
    Metric("delivery_rate", "share", "the final delivery rate"),
    Metric("is_held", "", "the final rate is within the interval"),
)
"""The columns of ``delivery_nowcast_record``."""

ALERTS: Final = (
    Metric(
        "kind",
        "",
        "failing, silent (no receipt in time), or mix (other shares of operators: no trouble)",
    ),
    Metric("by_column", "", "column whose value the group is: operator, country, a dimension"),
    Metric("cohort", "", "the group; an operator is named with its country"),
    Metric("since", "UTC", "first hour of sending that is worse than usual"),
    Metric("until", "UTC", "end of the last such hour"),
    Metric("within_hours", "h", "failed, or had no receipt, within this time of sending"),
    Metric(
        "messages", "messages", "messages of the group in these hours (for a mix: of all groups)"
    ),
    Metric(
        "affected",
        "messages",
        "how many of these failed or were silent (for a mix: are the operator's)",
    ),
    Metric("share", "share", "affected / messages"),
    Metric("usual_share", "share", "share that is usual in these hours"),
    Metric("false_a_year", "", "how often a year chance alone would show as much"),
    Metric("echoes", "", "other groups, and the other kind, in which the same trouble shows"),
)
"""The columns of ``delivery_alerts``."""
