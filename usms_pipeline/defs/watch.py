"""Reports what no run does: accounts without a recent check, and days changed outside Dagster.

A sensor tells both. It costs a read of the days' footers, and an event only where something is new.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import date
from typing import TYPE_CHECKING, Final

import dagster as dg

from usms_pipeline.contract.errors import UsmsError
from usms_pipeline.defs import checks, figures
from usms_pipeline.defs.account import Account, AccountResource
from usms_pipeline.defs.attributes import Freshness
from usms_pipeline.defs.refresh import under_way

if TYPE_CHECKING:
    from usms_pipeline.days.file import Footer

_EVERY_SECONDS: Final = 900
_LATEST: Final = 20
"""How many observations to search for our last one: a project may observe the table, too."""


def build_watch(
    account: Account, settings: AccountResource, freshness: Freshness | None
) -> dg.SensorDefinition:
    """Build the sensor. Its cursor holds the versions of days and the last verdict."""

    @dg.sensor(
        name=f"{account.name}_watch",
        minimum_interval_seconds=_EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reports days that `usms run` changed, and when no run has checked the source "
        "for long.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        if run := under_way(context.instance, account):
            return dg.SkipReason(
                f"Run {run.run_id[:8]} is in progress, and reports its own changes."
            )
        try:
            footers = settings.pipeline().footers()
        except UsmsError as error:
            return dg.SkipReason(account.in_its_words(str(error)))
        known = json.loads(context.cursor or "{}")
        versions = {str(day): said.version for day, said in footers.items()}
        new = {
            day: said
            for day, said in footers.items()
            if known.get("versions", {}).get(str(day)) != said.version
        }
        events: list[dg.AssetMaterialization | dg.AssetCheckEvaluation] = [
            *_changed(context.instance, account, new)
        ]
        verdict = _looked(context.instance, account, freshness) if freshness else None
        if verdict and verdict.description != known.get("verdict"):
            events.append(verdict)
        cursor = {"versions": versions, "verdict": verdict.description if verdict else None}
        return dg.SensorResult(asset_events=events, cursor=json.dumps(cursor))

    return watch


def _changed(
    instance: dg.DagsterInstance, account: Account, new: Mapping[date, Footer]
) -> Iterator[dg.AssetMaterialization]:
    """Yield events of the days whose present version no event has reported."""
    key, told = account.key("receipts"), {}
    if new:
        of = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[str(day) for day in new])
        found = instance.fetch_materializations(of, limit=_LATEST * len(new)).records
        for record in found:  # the latest first
            made = record.asset_materialization
            if made is not None and made.partition not in told:
                told[made.partition] = figures.version_of(made)
    for day, said in sorted(new.items()):
        if told.get(str(day)) != said.version:
            metadata = figures.of_day(said) | {
                "usms/changed_by": "`usms run`, or a run that failed"
            }
            yield dg.AssetMaterialization(key, metadata=metadata, partition=str(day))


def _looked(
    instance: dg.DagsterInstance, account: Account, freshness: Freshness
) -> dg.AssetCheckEvaluation | None:
    """Judge when a run last checked for due messages; None if none ever did."""
    found = instance.fetch_observations(account.key("source_table"), limit=_LATEST).records
    ours = [one.timestamp for one in found if figures.is_ours(one.asset_observation)]
    if not ours:
        return None
    from usms_pipeline.service.collect import utc_now

    verdict = checks.check_looked((utc_now().timestamp() - max(ours)) / 3600, freshness)
    return dg.AssetCheckEvaluation(
        asset_key=account.key("responses"),
        check_name=verdict.check_name or "",
        passed=verdict.passed,
        severity=verdict.severity,
        description=verdict.description,
    )
