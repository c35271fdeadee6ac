"""The assets and the three steps that make them; each step calls the core once.

What a report of the core looks like on Dagster's page is in ``figures``. Annotations are not
postponed here: Dagster reads the one of ``context``.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import dagster as dg

from usms_pipeline.contract import schema
from usms_pipeline.contract.errors import SourceError
from usms_pipeline.contract.metrics import METRICS
from usms_pipeline.defs import checks, figures
from usms_pipeline.defs.account import Account, core
from usms_pipeline.defs.lineage import lineage

if TYPE_CHECKING:
    from usms_pipeline.pipeline import Report

Results = Iterator["dg.MaterializeResult[Any]"]


class Step(NamedTuple):
    """One step of a run: its name and its function."""

    name: str
    run: Callable[[dg.AssetExecutionContext], Results]


Execute = Callable[[dg.AssetExecutionContext, Step], Results]
Translate = Callable[[dg.AssetSpec], dg.AssetSpec]


class _Asset(NamedTuple):
    description: str
    deps: tuple[str, ...]
    kinds: set[str]
    personal_data: str


ASSETS: Final = {
    "source_table": _Asset(
        "Your table of sent messages. Read, never written.", (), {"table"}, "clear"
    ),
    "responses": _Asset(
        "The service's responses, whole. Made in one step with the receipts: it reads session "
        "numbers from the source table, and asks about those that are due, in batches. Private: "
        "responses hold phone numbers.",
        ("source_table",), {"parquet"}, "clear",
    ),
    "receipts": _Asset(
        "The dataset: the state of every recipient, exactly one Parquet file per day of sending, "
        "written when all answers about the day are in.",
        ("source_table", "responses"), {"parquet"}, "masked",
    ),
    "warehouse": _Asset(
        "The DuckDB file made of the dataset: table `receipts`, views and macros.",
        ("receipts",), {"duckdb"}, "masked",
    ),
    "delivery_rates": _Asset(
        "What share of the messages is delivered: figures, chart and HTML report.",
        ("warehouse",), {"duckdb", "html"}, "none",
    ),
}  # fmt: skip
MADE: Final = tuple(name for name in ASSETS if name != "source_table")
"""The assets that a run makes, in this order."""

_NO_EVENTS: Final = {"__source_asset_observation__": True}
"""Dagster's own mark in a result's metadata: make no event of it. The step has logged events for
the changed days itself, or nothing changed. There is no public mark. An unmarked result makes an
event for every partition of a range, and its metadata is kept once more, as the step's output."""
_BACKFILL: Final = "dagster/backfill"


def build_assets(
    account: Account,
    translate: Translate,
    execute: Execute,
    source_asset: str | None,
) -> tuple[Account, list[dg.AssetSpec | dg.AssetsDefinition]]:
    """Build the account's assets, from its source table to its delivery rates.

    Returns the account with the keys that ``translate`` gave them, too. ``execute`` does a step.
    ``source_asset`` is the key of the project's own asset for the source table; else we make one.
    """
    theirs = dg.AssetKey.from_user_string(source_asset) if source_asset else None
    seen = {name: translate(_spec(account, name)) for name in ASSETS}
    keys = {name: spec.key for name, spec in seen.items()}
    keys["source_table"] = theirs or keys["source_table"]
    renamed = {account.key(name): key for name, key in keys.items()}
    account = replace(account, keys=keys)

    def with_final_keys(spec: dg.AssetSpec) -> dg.AssetSpec:
        deps = [
            one._replace(asset_key=renamed.get(one.asset_key, one.asset_key)) for one in spec.deps
        ]
        return spec.replace_attributes(deps=deps)

    of = {name: with_final_keys(spec) for name, spec in seen.items()}
    made = [
        _made(
            account,
            Step(name, partial(run, account=account)),
            execute,
            {asset: of[asset] for asset in assets},
            days,
        )
        for name, run, assets, days in (
            ("collect", _collect, ("responses", "receipts"), account.days),
            ("warehouse", _publish, ("warehouse",), None),
            ("delivery_rates", _draw, ("delivery_rates",), None),
        )
    ]
    return account, [*([] if theirs else [of["source_table"]]), *made]


def _collect(context: dg.AssetExecutionContext, account: Account) -> Results:
    """Make responses and receipts; what came before an error is in the days' files."""
    from usms_pipeline.days import quarantine
    from usms_pipeline.service.fetch import nothing_answered

    with core(context, account, "source", "api") as (pipeline, window):
        report = pipeline.refresh(window)
        if nothing := nothing_answered(report.stats):
            raise nothing
        if report.is_unreadable:
            raise SourceError(
                "Too many times in the column that USMS_SENT_AT_COLUMN names can't be read, so no "
                f"figure would be whole. {' '.join(report.notes)}"
            )
        judged = [
            *checks.check_report(report),
            checks.check_looked(0, None),
            checks.check_conservation(pipeline.conservation(report.days)),
            checks.check_quarantine(quarantine.entries(pipeline.store)),
        ]
    for sentence in report.warnings:
        context.log.warning(account.in_its_words(sentence))
    context.log_event(figures.observation(account, report.rows_read, report.newest))
    for asset, changed, of_day, of_run in (
        ("responses", report.due, figures.responses_of, figures.responses),
        ("receipts", report.written, figures.receipts_of, figures.receipts),
    ):
        _tell_days(context, account, asset, report, {*changed}, of_day)
        yield _result(account, asset, of_run(report) | _NO_EVENTS, judged)


def _publish(context: dg.AssetExecutionContext, account: Account) -> Results:
    with core(context, account) as (pipeline, _):
        report = pipeline.publish()
        pipeline.purge()
    for sentence in report.warnings:
        context.log.warning(account.in_its_words(sentence))
    if not report.is_skipped:
        _tell(context, account, "warehouse", figures.warehouse(report))
    yield _result(account, "warehouse", _NO_EVENTS)


def _draw(context: dg.AssetExecutionContext, account: Account) -> Results:
    from usms_pipeline import warehouse
    from usms_pipeline.figures import queries, report

    with core(context, account) as (pipeline, _):
        with warehouse.bounded(pipeline.settings.warehouse_path) as con:
            is_drawn = figures.is_drawn(pipeline)
            asked = report.ask(
                con,
                pipeline.settings.zone,
                fast_seconds=pipeline.settings.target_seconds,
                with_periods=not is_drawn,
            )
            uncovered = queries.uncovered_days(con, checks.COVERED_SHARE)
            without = uncovered.to_arrow_table().to_pylist()
            copies = queries.copies_hint(con)
        judged = [
            checks.check_time_zones(asked.timezone_hint),
            checks.check_alerts(asked.alerts, pipeline.settings.zone),
            checks.check_forecasts(asked.forecasts),
            checks.check_coverage(without),
        ]
        told = {"warnings": f"{copies}."} if copies else {}
        if not is_drawn:
            its = figures.delivery_rates(pipeline, asked)
            _tell(context, account, "delivery_rates", its | told)
    if copies:
        context.log.warning(f"{copies}.")
    yield _result(account, "delivery_rates", told | _NO_EVENTS, judged)


def _tell(
    context: dg.AssetExecutionContext, account: Account, asset: str, told: figures.Figures
) -> None:
    told = told | {"dagster/column_lineage": lineage(account)[asset]}
    context.log_event(dg.AssetMaterialization(account.key(asset), metadata=told))


def _tell_days(
    context: dg.AssetExecutionContext,
    account: Account,
    asset: str,
    report: "Report",
    changed: set[date],
    of_day: Callable[["Report", date], figures.Figures],
) -> None:
    """Log an event for each day that changed, in the range or beside it.

    Also for those of the range that never had one, or that a backfill asks for: it waits for them.
    A day left alone (another run holds it, or its file is damaged) gets none: it would count as
    made and as fresh. The page takes the columns' lineage from the last event alone.
    """
    key = account.key(asset)
    is_ranged = context.has_partition_key or context.has_partition_key_range
    ranged = {date.fromisoformat(one) for one in context.partition_keys} if is_ranged else set()
    if _BACKFILL in context.run.tags:
        changed |= ranged
    elif ranged - changed:
        known = context.instance.get_materialized_partitions(key)
        changed |= {day for day in ranged if day.isoformat() not in known}
    days = sorted(changed - {*report.locked, *report.damaged})
    for day in days:
        told = of_day(report, day)
        if day == days[-1]:
            told["dagster/column_lineage"] = lineage(account)[asset]
        context.log_event(dg.AssetMaterialization(key, metadata=told, partition=str(day)))


def _result(
    account: Account,
    asset: str,
    metadata: figures.Figures,
    judged: Sequence[dg.AssetCheckResult] = (),
) -> "dg.MaterializeResult[Any]":
    """Return an asset's result, with its check results."""
    key = account.key(asset)
    its = [
        one._replace(asset_key=key, description=account.in_its_words(one.description or ""))
        for one in judged
        if one.check_name in checks.DESCRIBED[asset]
    ]
    return dg.MaterializeResult(asset_key=key, metadata=metadata, check_results=its)


def _spec(account: Account, name: str) -> dg.AssetSpec:
    said = ASSETS[name]
    receipts = schema.receipts_fields(account.known.dimensions)
    columns = {
        "responses": figures.described(schema.RESPONSE_FIELDS),
        "receipts": figures.described(receipts),
        "warehouse": figures.described([*receipts, schema.SENT_DATE]),
        "delivery_rates": figures.described(METRICS),
    }
    metadata: dict[str, Any] = {"dagster/column_schema": columns[name]} if name in columns else {}
    if name in ("receipts", "warehouse"):
        metadata["dagster/table_name"] = f"{account.known.warehouse_path.stem}.main.receipts"
    if name == "receipts":
        metadata["partition_expr"] = schema.SENT_DATE.name  # for DuckDB's I/O managers
    return dg.AssetSpec(
        account.key(name),
        deps=[account.key(dep) for dep in said.deps],
        description=said.description,
        group_name=account.name,
        owners=list(account.owners),
        kinds=said.kinds,
        tags={"usms/personal_data": said.personal_data},
        metadata=metadata,
    )


def _made(
    account: Account,
    step: Step,
    execute: Execute,
    specs: dict[str, dg.AssetSpec],
    days: dg.DailyPartitionsDefinition | None,
) -> dg.AssetsDefinition:
    """Build the op that makes these assets by one step of the core; a range is one run."""
    op = account.op

    # Dagster takes no type argument here
    def compute(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]
        try:
            yield from execute(context, step)
        except dg.Failure as failure:
            # the page shows the trace below the sentence: 15 lines of ours would say nothing more
            raise failure.with_traceback(None) from None

    return dg.multi_asset(
        name=f"{account.name}__{step.name}",
        specs=list(specs.values()),
        check_specs=checks.specs(account, *specs),
        partitions_def=days,
        backfill_policy=dg.BackfillPolicy.multi_run(op.max_partitions_per_run)
        if op.max_partitions_per_run
        else dg.BackfillPolicy.single_run(),
        required_resource_keys={account.resource},
        op_tags=op.tags,
        retry_policy=op.retry.policy() if op.retry else None,
        pool=op.pool or account.resource,
    )(compute)
