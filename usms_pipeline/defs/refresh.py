"""The job over all of an account's assets, and the schedule that runs it over the open window.

A tick asks the core whether a run would find anything to do, and starts none where it would not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import dagster as dg

from usms_pipeline.contract import wording
from usms_pipeline.contract.errors import UsmsError
from usms_pipeline.defs import figures
from usms_pipeline.defs.account import RANGE_END, RANGE_START, Account, AccountResource
from usms_pipeline.defs.assets import MADE
from usms_pipeline.defs.attributes import Schedule

if TYPE_CHECKING:
    from dagster import UnresolvedAssetJobDefinition

UNFINISHED: Final = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


def build_job(account: Account) -> UnresolvedAssetJobDefinition:
    """Build the job; it runs in the deployment's executor.

    Its assets are named, not taken by their group: a project may give an asset another group, and
    put assets of its own into ours.
    """
    return dg.define_asset_job(
        account.job_name,
        selection=dg.AssetSelection.assets(*map(account.key, MADE)),
        description="Read the source, collect due receipts, publish, draw.",
    )


def build_schedule(
    account: Account, job: UnresolvedAssetJobDefinition, settings: AccountResource, given: Schedule
) -> dg.ScheduleDefinition:
    """Build the schedule, on or off as the account says."""

    @dg.schedule(
        cron_schedule=given.cron,
        job=job,
        name=f"{account.job_name}_schedule",
        execution_timezone=account.days.timezone,
        default_status=dg.DefaultScheduleStatus[given.status.upper()],
        description="One run over the days that are still open, if there is anything to do; none "
        "while one is under way.",
    )
    def look(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if busy := under_way(context.instance, account):
            return dg.SkipReason(f"Run {busy.run_id[:8]} is still under way.")
        try:
            pipeline = settings.pipeline("source", "api")
            found = pipeline.look()
        except UsmsError:
            return dg.RunRequest()  # which fails with the same error, where people look for it
        if found.to_do:
            window = pipeline.open_window()
            tags = {
                RANGE_START: str(max(window.first, account.days.start.date())),
                RANGE_END: str(window.last),
                "usms/because": "; ".join(found.to_do),
            }
            return dg.RunRequest(tags=tags)
        context.instance.report_runless_asset_event(
            figures.observation(account, found.rows_read, found.newest_sent_at)
        )
        at, next_one = found.next_due_at, "none is waiting"
        if at:
            moment = wording.moment(at, pipeline.settings.zone)
            next_one = f"the next message is due at {moment}"
        return dg.SkipReason(
            f"Nothing to do: no message is due, and the source has nothing new; {next_one}."
        )

    return look


def under_way(instance: dg.DagsterInstance, account: Account) -> dg.DagsterRun | None:
    """Return a run of the account's job that has not ended, if there is one."""
    wanted = dg.RunsFilter(job_name=account.job_name, statuses=list(UNFINISHED))
    return next(iter(instance.get_runs(wanted, limit=1)), None)
