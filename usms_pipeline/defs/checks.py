"""The asset checks: blocking ones for what must hold, warnings for what to look at.

The steps answer them. Each verdict is a pure function of what the core said; nothing is repaired
here. Times are seconds, shares 0–1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import dagster as dg

from usms_pipeline.contract import wording
from usms_pipeline.contract.metrics import UNANNOUNCED_SHARE
from usms_pipeline.defs.account import Account
from usms_pipeline.defs.attributes import Freshness
from usms_pipeline.figures import alerts

if TYPE_CHECKING:
    from usms_pipeline.days.quarantine import Entry
    from usms_pipeline.pipeline import Report

COVERED_SHARE: Final = 0.97
"""Share of a settled day's messages with a final status, below which the check warns."""
HELD_SHARE, _FEWEST_FORECASTS = 0.7, 7
"""Fewest days with a forecast, and the share of them that should hold, or the check warns."""
_FASTER: Final = (
    " That is too slow: raise USMS_MAX_CONCURRENCY or USMS_MAX_REQUESTS_PER_SECOND, or poll less "
    "often (USMS_POLL_EVERY_HOURS)."
)
_AGAIN: Final = (
    " They are asked again in the next run; if this persists, check USMS_BASE_URL and the network."
)
_NAMED: Final = 20

DESCRIBED: Final[Mapping[str, Mapping[str, str]]] = {
    "responses": {
        "polling_behind": "Everything due was asked, before the next round begins.",
        "looked_in_time": "A run or the schedule has checked for due messages within the hours "
        "that `freshness` says.",
    },
    "receipts": {
        "conservation": "Every recipient in your table has exactly one of the eight statuses.",
        "open_quarantine": "Quarantine is empty.",
        "unrecognized_words": "Every status word is a known one.",
        "unannounced_receipts": f"No more than {UNANNOUNCED_SHARE:.0%} receipts are for phones "
        "that are not in your table.",
    },
    "warehouse": {},
    "delivery_rates": {
        "time_zones": "Send times and receipt times are in the time zones of the settings.",
        "out_of_line": "No operator, country or dimension fails, or has no receipt, more than it "
        "usually does, in the last 72 hours of sending.",
        "forecasts": f"The forecasts of at least {HELD_SHARE:.0%} of the latest days held.",
        "coverage": f"Every settled day has a final status for {COVERED_SHARE:.0%} of its "
        "messages, or does not differ significantly from that.",
    },
}
"""The checks of each asset, with their descriptions."""


def specs(account: Account, *assets: str) -> list[dg.AssetCheckSpec]:
    """Return the checks of assets. ``conservation`` blocks publishing if a row was lost."""
    return [
        dg.AssetCheckSpec(
            name, asset=account.key(asset), description=said, blocking=name == "conservation"
        )
        for asset in assets
        for name, said in DESCRIBED[asset].items()
    ]


def check_report(report: Report) -> list[dg.AssetCheckResult]:
    """Judge what a run asked, and what its days' files say now."""
    return [_polling_behind(report), _unrecognized_words(report), _unannounced_receipts(report)]


def check_looked(hours: float, freshness: Freshness | None) -> dg.AssetCheckResult:
    """Judge how long ago a run last checked for due messages."""
    limits = (freshness.fail_hours, freshness.warn_hours) if freshness else ()
    limit = next((limit for limit in limits if hours >= limit), None)
    return _verdict(
        "looked_in_time",
        limit is None,
        "Checked in time."
        if limit is None
        else f"No run has checked for due messages for more than {limit:g} hours: is the schedule "
        "on, and do its runs succeed?",
        limits[:1] == (limit,),
    )


def check_conservation(amiss: list[str]) -> dg.AssetCheckResult:
    """Judge the core's conservation check, which returns one sentence per wrong partition."""
    said = " ".join(amiss[:_NAMED]) or "Every recipient in your table has one status."
    return _verdict("conservation", not amiss, said, True, partitions_at_fault=len(amiss))


def check_quarantine(entries: Iterable[Entry]) -> dg.AssetCheckResult:
    """Judge the open entries of the quarantine, counted by kind."""
    from usms_pipeline.days.quarantine import KINDS

    kinds = Counter(entry.kind for entry in entries)
    listed = "; ".join(f"{count:,} × {KINDS.get(kind, kind)}" for kind, count in kinds.items())
    return _verdict(
        "open_quarantine",
        not kinds,
        f"{kinds.total():,} entries in quarantine ({listed}): `usms quarantine list`."
        if kinds
        else "Quarantine is empty.",
        open_entries=kinds.total(),
        **kinds,
    )


def check_time_zones(hint: str | None) -> dg.AssetCheckResult:
    """Judge the warehouse's hint at a wrong time zone, if it has one."""
    well = "Receipts are dated after their messages, as they should be."
    return _verdict("time_zones", hint is None, hint or well)


def check_alerts(rows: Sequence[Mapping[str, Any]], zone: ZoneInfo) -> dg.AssetCheckResult:
    """Judge the rows of the view ``delivery_alerts``: who fails, or stays silent, since when."""
    troubles = alerts.troubles(rows)
    return _verdict(
        "out_of_line",
        not troubles,
        " ".join(alerts.sentence(row, zone) for row in rows)
        or "Nothing fails or is silent more than usual.",
        alerts=len(troubles),
        messages=max((row["affected"] for row in troubles), default=0),
    )


def check_forecasts(days: Sequence[Mapping[str, Any]]) -> dg.AssetCheckResult:
    """Judge the rows of ``delivery_nowcast_record``: what was expected of days, and their rate."""
    held = sum(row["is_held"] for row in days)
    passed = len(days) < _FEWEST_FORECASTS or held >= HELD_SHARE * len(days)
    remedy = (
        " Forecasts for recent days are less certain than their intervals say: carriers, or what "
        'is sent, have changed. `usms sql "FROM delivery_nowcast_record"` has the days.'
    )
    return _verdict(
        "forecasts",
        passed,
        (wording.held(days) or "No day has been forecast yet.") + ("" if passed else remedy),
        days=len(days),
        held=held,
    )


def check_coverage(days: Sequence[Mapping[str, Any]]) -> dg.AssetCheckResult:
    """Judge settled days (``sent_date``, ``messages``, ``with_evidence``) below the usual share."""
    without = {day["sent_date"]: day["messages"] - day["with_evidence"] for day in days}
    count, messages = sum(without.values()), sum(day["messages"] for day in days)
    return _verdict(
        "coverage",
        not days,
        f"No final status is known for {count:,} of {messages:,} messages{_in(without)}, and "
        "polling has stopped. `usms rates --by operator` shows where; the report shows since "
        "when they were asked."
        if days
        else "No settled day has a final status for significantly fewer.",
        without_final_status=count,
    )


def _polling_behind(report: Report) -> dg.AssetCheckResult:
    from usms_pipeline.pipeline import REFRESH_EVERY

    left, seconds = report.stats.ids_given_up, report.seconds_asking
    is_slow = seconds > REFRESH_EVERY.total_seconds()
    return _verdict(
        "polling_behind",
        not left and not is_slow and not report.unheard,
        f"{left:,} of {sum(report.due.values()):,} sessions due got no usable answer, in "
        f"{seconds:,.0f} s."
        + (f" {report.stats.told}{_AGAIN}" if left else "")
        + (_FASTER if is_slow else "")
        + (f" {report.unheard}" if report.unheard else ""),
        sessions_left=left,
        seconds=round(seconds, 3),
    )


def _unrecognized_words(report: Report) -> dg.AssetCheckResult:
    strange = {day: said.buckets.get("unrecognized", 0) for day, said in report.days.items()}
    count = sum(strange.values())
    return _verdict(
        "unrecognized_words",
        not count,
        f"{wording.counted(count, 'recipient')} with a status word that this version does not "
        f"know{_in(strange)}, not counted as failed: see `usms rates --by provider_status`."
        if count
        else "Every word is known.",
        recipients=count,
    )


def _unannounced_receipts(report: Report) -> dg.AssetCheckResult:
    extra = {day: said.unannounced for day, said in report.days.items()}
    count, announced = report.unannounced, report.buckets.total()
    passed = count <= UNANNOUNCED_SHARE * announced
    return _verdict(
        "unannounced_receipts",
        passed,
        f"{count:,} receipts are for phones that are not in your table, beside "
        f"{announced:,} recipients that are"
        + ("." if passed else f"{_in(extra)}. {report.remedy}"),
        unannounced=count,
        announced=announced,
    )  # fmt: skip


def _verdict(
    name: str, passed: bool, sentence: str, is_grave: bool = False, /, **counted: Any
) -> dg.AssetCheckResult:
    """Return a verdict; only a grave one is an error, any other a warning."""
    return dg.AssetCheckResult(
        passed=passed,
        check_name=name,
        severity=dg.AssetCheckSeverity.ERROR if is_grave else dg.AssetCheckSeverity.WARN,
        description=sentence,
        metadata=counted,
    )


def _in(counts: Mapping[date, int]) -> str:
    """Return the first of the partitions that are part of a count."""
    days = [day.isoformat() for day, count in sorted(counts.items()) if count]
    return f", in {', '.join(days[:_NAMED])}{' …' if len(days) > _NAMED else ''}"
