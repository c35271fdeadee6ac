"""The asset checks: what must hold (blocking) and what a person should look at (a warning).

Each verdict is a pure function of the core's counts; nothing is repaired here. Annotations are not
postponed: Dagster reads the one of ``context``.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import dagster as dg

from usms_pipeline import alerts
from usms_pipeline.defs.account import Account, core
from usms_pipeline.metrics import UNANNOUNCED_SHARE

if TYPE_CHECKING:
    from usms_pipeline.fold import PartitionCounts
    from usms_pipeline.pipeline import ResponsesReport

COVERED_SHARE: Final = 0.97
"""Messages of a settled day with an outcome, below which the warning is given (0–1)."""
ROUND_SECONDS: Final = 900.0
"""How long a round of questions may take: the schedule starts the next one after as long."""
_FASTER: Final = (
    " That is too slow: raise USMS_MAX_CONCURRENCY or USMS_MAX_REQUESTS_PER_SECOND, or poll less "
    "often (USMS_POLL_EVERY_HOURS)."
)
_AGAIN: Final = (
    " They are asked again in the next run; if it stays so check USMS_BASE_URL and the network."
)
_NAMED: Final = 20


def build_checks(account: Account) -> list[dg.AssetChecksDefinition]:
    """Build the checks that look at the data directory by themselves, at any time."""
    return [_conservation(account), _open_quarantine(account)]


def fold_check_specs(account: Account) -> list[dg.AssetCheckSpec]:
    """Give the checks that the receipts asset answers itself, from its own counts."""
    key = account.key("receipts")
    return [
        dg.AssetCheckSpec(
            "unrecognized_words", asset=key, description="Every status word is a known one."
        ),
        dg.AssetCheckSpec(
            "unannounced_receipts",
            asset=key,
            description=f"No more than {UNANNOUNCED_SHARE:.0%} receipts are for phones that the "
            "source does not announce.",
        ),
    ]


def round_check_specs(account: Account) -> list[dg.AssetCheckSpec]:
    """Give the check that the responses asset answers itself."""
    return [
        dg.AssetCheckSpec(
            "polling_behind",
            asset=account.key("responses"),
            description="Everything due was asked, before the next round begins.",
        )
    ]


def rates_check_specs(account: Account) -> list[dg.AssetCheckSpec]:
    """Give the checks that the delivery rates answer themselves."""
    described = {
        "time_zones": "Times of sending and of receipt are in the zones that the settings say.",
        "failing_more": "No operator, country or dimension fails beyond chance, against its own "
        "28 days before the last 72 hours.",
        "silence": "Outcomes come as soon as they usually do, for every operator, country and "
        "dimension.",
        "coverage": f"An outcome is known of {COVERED_SHARE:.0%} of the messages of settled "
        "days, but for chance.",
    }
    return [
        dg.AssetCheckSpec(name, asset=account.key("delivery_rates"), description=description)
        for name, description in described.items()
    ]


def check_fold(partitions: Mapping[date, "PartitionCounts"]) -> list[dg.AssetCheckResult]:
    """Judge what the fold counted, by partition."""
    return [_unrecognized_words(partitions), _unannounced_receipts(partitions)]


def check_conservation(amiss: list[str]) -> dg.AssetCheckResult:
    """Judge the sentences of the core's conservation check: one a partition at fault."""
    return dg.AssetCheckResult(
        passed=not amiss,
        severity=dg.AssetCheckSeverity.ERROR,
        description=" ".join(amiss[:_NAMED]) or "Every recipient announced is in one bucket.",
        metadata={"partitions_at_fault": len(amiss)},
    )


def check_round(report: "ResponsesReport") -> dg.AssetCheckResult:
    """Judge one round of questions: was everything that was due asked, in time for the next."""
    left, is_slow = report.stats.ids_given_up, report.seconds > ROUND_SECONDS
    return _verdict(
        not left and not is_slow,
        f"{left:,} of {sum(report.due_sessions.values()):,} sessions due got no usable answer, in "
        f"{report.seconds:,.0f} s."
        + (f" {report.stats.told}{_AGAIN}" if left else "")
        + (_FASTER if is_slow else ""),
        "polling_behind",
        sessions_left=left,
        seconds=round(report.seconds, 3),
    )


def check_time_zones(hint: str | None) -> dg.AssetCheckResult:
    """Judge the warehouse's hint at a wrong time zone, if it has one."""
    return _verdict(
        hint is None, hint or "Receipts come after sendings, as they should.", "time_zones"
    )


def check_alerts(rows: Sequence[Mapping[str, Any]], zone: ZoneInfo) -> list[dg.AssetCheckResult]:
    """Judge the rows of the view ``delivery_alerts``: who fails, and who stays silent."""
    found = {kind: [row for row in rows if row["kind"] == kind] for kind in alerts.KINDS}
    names = {"failing": "failing_more", "silent": "silence"}
    quiet = {
        "failing": "No group fails beyond chance.",
        "silent": "Outcomes come as soon as they usually do.",
    }
    return [
        _verdict(
            not found[kind],
            alerts.summary(rows, zone, kind) or quiet[kind],
            names[kind],
            groups=len(found[kind]),
            messages=max((row["affected"] for row in found[kind]), default=0),
        )
        for kind in alerts.KINDS
    ]


def check_coverage(days: Sequence[Mapping[str, Any]]) -> dg.AssetCheckResult:
    """Judge settled days (``sent_date``, ``messages``, ``with_evidence``) below the usual share."""
    without = {day["sent_date"]: day["messages"] - day["with_evidence"] for day in days}
    count, messages = sum(without.values()), sum(day["messages"] for day in days)
    return _verdict(
        not days,
        f"No outcome is known of {count:,} of {messages:,} messages{_in(without)}, and none is "
        "awaited any more. `usms rates --by operator` shows where, the report's page since when "
        "they were asked."
        if days
        else "Of settled days the outcomes are known, but for what chance leaves out.",
        "coverage",
        messages_without=count,
    )


def check_quarantine(open_by_day: Mapping[date, int]) -> dg.AssetCheckResult:
    """Judge the open entries of the quarantine, counted by partition."""
    count = sum(open_by_day.values())
    return _verdict(
        not count,
        f"{count:,} entries wait for a decision{_in(open_by_day)}: `usms quarantine list`."
        if count
        else "Nothing waits for a decision.",
        open_entries=count,
    )


def _conservation(account: Account) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=account.key("receipts"),
        blocking=True,
        description="Every recipient announced is in exactly one of the eight buckets.",
        required_resource_keys={account.name},
        pool=account.name,
    )
    def conservation(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        with core(context, account) as (pipeline, window):
            return check_conservation(pipeline.conservation(pipeline.dates(window)))

    return conservation


def _open_quarantine(account: Account) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=account.key("receipts"),
        description="No answer waits in the quarantine for someone to replay or dismiss it.",
        required_resource_keys={account.name},
    )
    def open_quarantine(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        from usms_pipeline import quarantine

        with core(context, account) as (pipeline, _):
            found = Counter(entry.sent_date for entry in quarantine.entries(pipeline.store))
        return check_quarantine(found)

    return open_quarantine


def _unrecognized_words(partitions: Mapping[date, "PartitionCounts"]) -> dg.AssetCheckResult:
    strange = {day: part.buckets.get("unrecognized", 0) for day, part in partitions.items()}
    count = sum(strange.values())
    return _verdict(
        not count,
        f"{count:,} recipients have a status word that this version does not know{_in(strange)}. "
        "They are not counted as failed. `usms rates --by provider_status` shows the words."
        if count
        else "Every word is known.",
        "unrecognized_words",
        recipients=count,
    )


def _unannounced_receipts(partitions: Mapping[date, "PartitionCounts"]) -> dg.AssetCheckResult:
    extra = {day: part.unannounced for day, part in partitions.items()}
    count, announced = sum(extra.values()), sum(part.announced for part in partitions.values())
    passed = count <= UNANNOUNCED_SHARE * announced
    return _verdict(
        passed,
        f"{count:,} receipts are for phones that the source does not announce, beside "
        f"{announced:,} recipients that it does"
        + ("." if passed else f"{_in(extra)}. Does one row stand for several recipients? Set "
           "USMS_RECIPIENTS_COLUMN or USMS_PHONE_COLUMN."),
        "unannounced_receipts",
        unannounced=count,
        announced=announced,
    )  # fmt: skip


def _verdict(
    passed: bool, sentence: str, check_name: str | None = None, **figures: Any
) -> dg.AssetCheckResult:
    """Give a verdict that never stops a run."""
    return dg.AssetCheckResult(
        passed=passed,
        check_name=check_name,
        severity=dg.AssetCheckSeverity.WARN,
        description=sentence,
        metadata=figures,
    )


def _in(counts: Mapping[date, int]) -> str:
    """Name the partitions that have a part in a count, the first of them."""
    days = [day.isoformat() for day, count in sorted(counts.items()) if count]
    return f", in {', '.join(days[:_NAMED])}{' …' if len(days) > _NAMED else ''}"
