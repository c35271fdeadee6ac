"""The assets: each reads the run's window of days, calls the core once and returns its counts.

What the counts look like on Dagster's page is in ``figures``. Annotations are not postponed here:
Dagster reads the one of ``context``.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final

import dagster as dg

from usms_pipeline import schema
from usms_pipeline.defs import figures
from usms_pipeline.defs.account import Account, core
from usms_pipeline.defs.checks import (
    COVERED_SHARE,
    check_alerts,
    check_coverage,
    check_fold,
    check_round,
    check_time_zones,
    fold_check_specs,
    rates_check_specs,
    round_check_specs,
)
from usms_pipeline.errors import CredentialsRefused, ServiceDown

Step = Callable[[dg.AssetExecutionContext, Account], "dg.MaterializeResult[Any]"]

_FRESH: Final = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(hours=1), fail_window=timedelta(hours=24)
)

DESCRIPTIONS: Final = {
    "source_table": "Your table of sent messages. Read, never written.",
    "sessions": "What was sent: one row a source row, one file a sent date. A row once seen is "
    "never dropped.",
    "responses": "The service's raw answers, whole, one file a checkpoint. Private: they hold "
    "phone numbers.",
    "receipts": "The dataset: the state of every recipient, exactly one Parquet file a sent date.",
    "warehouse": "The DuckDB file made of the dataset: table `receipts`, views and macros.",
    "delivery_rates": "What share of the messages arrives: figures, chart and HTML report.",
}


def build_assets(account: Account) -> list[dg.AssetSpec | dg.AssetsDefinition]:
    """Build the account's assets, from its source table to its delivery rates."""
    receipts = figures.receipts_columns(account.dimensions)
    published = figures.receipts_columns(account.dimensions, with_sent_date=True)
    return [
        _source_table(account),
        _asset(
            account, "sessions", _load_sessions, deps=["source_table"], kinds={"parquet"},
            personal_data="masked", columns=figures.sessions_columns(account.dimensions),
        ),
        _asset(
            account, "responses", _ask, deps=["sessions"], kinds={"parquet"},
            personal_data="clear", columns=figures.columns(schema.RESPONSES),
            checks=round_check_specs(account),
        ),
        _asset(
            account, "receipts", _fold, deps=["sessions", "responses"], kinds={"parquet"},
            personal_data="masked", columns=receipts, checks=fold_check_specs(account),
        ),
        _asset(
            account, "warehouse", _publish, deps=["receipts"], kinds={"duckdb"},
            personal_data="masked", columns=published, is_partitioned=False,
        ),
        _asset(
            account, "delivery_rates", _draw, deps=["warehouse"], kinds={"duckdb", "html"},
            personal_data="none", checks=rates_check_specs(account), is_partitioned=False,
        ),
    ]  # fmt: skip


def _load_sessions(
    context: dg.AssetExecutionContext, account: Account
) -> "dg.MaterializeResult[Any]":
    with core(context, account, "source") as (pipeline, window):
        report = pipeline.load_sessions(window)
    figures.add_partitions(context, report.partitions, figures.of_sessions)
    figures.warn(context, report)
    return dg.MaterializeResult(metadata=figures.sessions(report))


def _ask(context: dg.AssetExecutionContext, account: Account) -> "dg.MaterializeResult[Any]":
    from usms_pipeline.service.fetch import nothing_answered

    with core(context, account, "api") as (pipeline, window):
        days = pipeline.dates(window)
        pipeline.catch_up(days)
        try:
            report = pipeline.ask(days)
            if nothing := nothing_answered(report.stats):
                raise nothing
        except (CredentialsRefused, ServiceDown):
            pipeline.fold_read(days)  # what landed is not lost for the readers until the next run
            pipeline.publish()
            raise
    figures.add_partitions(context, report.due_sessions, figures.of_due)
    figures.warn(context, report)
    return dg.MaterializeResult(
        metadata=figures.responses(report), check_results=[check_round(report)]
    )


def _fold(context: dg.AssetExecutionContext, account: Account) -> "dg.MaterializeResult[Any]":
    with core(context, account) as (pipeline, window):
        report = pipeline.fold_read(pipeline.dates(window))
    figures.add_partitions(context, report.partitions, figures.of_receipts)
    figures.warn(context, report)
    return dg.MaterializeResult(
        metadata=figures.receipts(report), check_results=check_fold(report.partitions)
    )


def _publish(context: dg.AssetExecutionContext, account: Account) -> "dg.MaterializeResult[Any]":
    with core(context, account) as (pipeline, _):
        report = pipeline.publish()
        pipeline.purge()
    for sentence in report.warnings:
        context.log.warning(sentence)
    return dg.MaterializeResult(metadata=figures.warehouse(report))


def _draw(context: dg.AssetExecutionContext, account: Account) -> "dg.MaterializeResult[Any]":
    from usms_pipeline import queries, report, warehouse

    with core(context, account) as (pipeline, _):
        with warehouse.connect(pipeline.settings.warehouse_path) as con:
            asked = report.ask(con)
            uncovered = queries.uncovered_days(con, COVERED_SHARE).to_arrow_table().to_pylist()
        verdicts = [
            check_time_zones(asked.timezone_hint),
            *check_alerts(asked.alerts, pipeline.settings.zone),
            check_coverage(uncovered),
        ]
        drawn = figures.delivery_rates(pipeline, asked)
    return dg.MaterializeResult(metadata=drawn, check_results=verdicts)


def _source_table(account: Account) -> dg.AssetSpec:
    return dg.AssetSpec(
        account.key("source_table"),
        description=DESCRIPTIONS["source_table"],
        group_name=account.name,
        owners=list(account.owners),
        kinds={"table"},
        tags={"usms/personal_data": "clear"},
    )


def _asset(
    account: Account,
    name: str,
    step: Step,
    *,
    deps: Sequence[str],
    kinds: set[str],
    personal_data: str,
    columns: dg.TableSchema | None = None,
    checks: Sequence[dg.AssetCheckSpec] = (),
    is_partitioned: bool = True,
) -> dg.AssetsDefinition:
    """Make one step of the core an asset; a range of partitions is always one run."""

    # Dagster takes no type argument here
    def compute(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
        return step(context, account)

    return dg.asset(
        key=account.key(name),
        deps=[account.key(dep) for dep in deps],
        description=DESCRIPTIONS[name],
        group_name=account.name,
        owners=list(account.owners),
        kinds=kinds,
        tags={"usms/personal_data": personal_data},
        metadata={"dagster/column_schema": columns} if columns else {},
        partitions_def=account.days if is_partitioned else None,
        backfill_policy=dg.BackfillPolicy.single_run(),
        freshness_policy=_FRESH,
        check_specs=list(checks),
        required_resource_keys={account.name},
        pool=account.name,
    )(compute)
