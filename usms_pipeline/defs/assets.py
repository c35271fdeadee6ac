"""The assets and the three steps that make them; each step calls the core once.

What a report of the core looks like on Dagster's page is in ``figures``. Annotations are not
postponed here: Dagster reads the one of ``context``.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import dagster as dg

from usms_pipeline.contract import schema
from usms_pipeline.defs import checks, figures
from usms_pipeline.defs.account import Account, core

if TYPE_CHECKING:
    from usms_pipeline.pipeline import Report

Results = Iterator["dg.MaterializeResult[Any]"]
Step = Callable[[dg.AssetExecutionContext, Account], Results]


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
        "The dataset: the state of every recipient, exactly one Parquet file a sent date, written "
        "when all that was asked about the day has come.",
        ("source_table", "responses"), {"parquet"}, "masked",
    ),
    "warehouse": _Asset(
        "The DuckDB file made of the dataset: table `receipts`, views and macros.",
        ("receipts",), {"duckdb"}, "masked",
    ),
    "delivery_rates": _Asset(
        "What share of the messages arrives: figures, chart and HTML report.",
        ("warehouse",), {"duckdb", "html"}, "none",
    ),
}  # fmt: skip
MADE: Final = tuple(name for name in ASSETS if name != "source_table")
"""The assets that a run makes, in this order."""

_FRESH: Final = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(hours=1), fail_window=timedelta(hours=24)
)
_NO_EVENTS: Final = "__source_asset_observation__"
"""Dagster's own mark in a result's metadata: the step has logged the partitions' events itself.
There is no public one, and an unmarked result makes an event for every partition of a range."""


def build_assets(account: Account) -> list[dg.AssetSpec | dg.AssetsDefinition]:
    """Build the account's assets, from its source table to its delivery rates."""
    columns = {
        "responses": figures.columns(schema.RESPONSES),
        "receipts": figures.receipts_columns(account.dimensions),
        "warehouse": figures.receipts_columns(account.dimensions, with_sent_date=True),
    }
    of = {name: _spec(account, name, columns.get(name)) for name in ASSETS}
    return [
        of["source_table"],
        _made(account, "collect", _collect, [of["responses"], of["receipts"]], account.days),
        _made(account, "warehouse", _publish, [of["warehouse"]]),
        _made(account, "delivery_rates", _draw, [of["delivery_rates"]]),
    ]


def _collect(context: dg.AssetExecutionContext, account: Account) -> Results:
    """Make responses and receipts; what came before an error is in the days' files."""
    from usms_pipeline.days import quarantine
    from usms_pipeline.service.fetch import nothing_answered

    with core(context, account, "source", "api") as (pipeline, window):
        report = pipeline.refresh(window)
        if nothing := nothing_answered(report.stats):
            raise nothing
        judged = [
            *checks.check_report(report),
            checks.check_conservation(pipeline.conservation(report.days)),
            checks.check_quarantine(quarantine.entries(pipeline.store)),
        ]
    for sentence in report.warnings:
        context.log.warning(sentence)
    for asset, of_run, of_day in (
        ("responses", figures.responses, figures.responses_of),
        ("receipts", figures.receipts, figures.receipts_of),
    ):
        told = _days_told(context, account.key(asset), report, of_run(report), of_day)
        yield _result(account, asset, told, judged)


def _publish(context: dg.AssetExecutionContext, account: Account) -> Results:
    with core(context, account) as (pipeline, _):
        report = pipeline.publish()
        pipeline.purge()
    for sentence in report.warnings:
        context.log.warning(sentence)
    yield _result(account, "warehouse", figures.warehouse(report))


def _draw(context: dg.AssetExecutionContext, account: Account) -> Results:
    from usms_pipeline import warehouse
    from usms_pipeline.figures import queries, report

    with core(context, account) as (pipeline, _):
        with warehouse.connect(pipeline.settings.warehouse_path) as con:
            asked = report.ask(con)
            uncovered = queries.uncovered_days(con, checks.COVERED_SHARE)
            without = uncovered.to_arrow_table().to_pylist()
        judged = [
            checks.check_time_zones(asked.timezone_hint),
            checks.check_alerts(asked.alerts, pipeline.settings.zone),
            checks.check_forecasts(asked.forecasts),
            checks.check_coverage(without),
        ]
        drawn = figures.delivery_rates(pipeline, asked)
    yield _result(account, "delivery_rates", drawn, judged)


def _days_told(
    context: dg.AssetExecutionContext,
    key: dg.AssetKey,
    report: "Report",
    of_run: figures.Figures,
    of_day: Callable[["Report", date], figures.Figures],
) -> figures.Figures:
    """Tell each day's figures, and return what the asset's result is to have as metadata.

    A result makes an event for each day of the range. A day beside the range (it still had open
    messages) gets one of its own. A day left alone, for another run holds it or its file is
    damaged, gets none: it would count as made and as fresh. Where there is one in the range, each
    of the others is logged by itself.
    """
    is_ranged = context.has_partition_key or context.has_partition_key_range
    ranged = {date.fromisoformat(one) for one in context.partition_keys} if is_ranged else set()
    left_alone = {*report.locked, *report.damaged}
    for day in sorted({*report.days, *ranged} - left_alone):
        told = of_day(report, day)
        if day in ranged and not ranged & left_alone:
            context.add_asset_metadata(told, asset_key=key, partition_key=str(day))
        else:
            told = of_run | told if day in ranged else told
            event = dg.AssetMaterialization(key, metadata=told, partition=str(day))
            context.log_event(event)
    return of_run | ({_NO_EVENTS: True} if ranged & left_alone else {})


def _result(
    account: Account,
    asset: str,
    metadata: figures.Figures,
    judged: Sequence[dg.AssetCheckResult] = (),
) -> "dg.MaterializeResult[Any]":
    """Return an asset's result, with the verdicts that are about it."""
    key = account.key(asset)
    its = [
        one._replace(asset_key=key) for one in judged if one.check_name in checks.DESCRIBED[asset]
    ]
    return dg.MaterializeResult(asset_key=key, metadata=metadata, check_results=its)


def _spec(account: Account, name: str, columns: dg.TableSchema | None) -> dg.AssetSpec:
    said = ASSETS[name]
    return dg.AssetSpec(
        account.key(name),
        deps=[account.key(dep) for dep in said.deps],
        description=said.description,
        group_name=account.name,
        owners=list(account.owners),
        kinds=said.kinds,
        tags={"usms/personal_data": said.personal_data},
        metadata={"dagster/column_schema": columns} if columns else {},
        freshness_policy=_FRESH if name in MADE else None,
    )


def _made(
    account: Account,
    name: str,
    step: Step,
    specs: list[dg.AssetSpec],
    days: dg.DailyPartitionsDefinition | None = None,
) -> dg.AssetsDefinition:
    """Make one step of the core the maker of these assets; a range of partitions is one run."""

    # Dagster takes no type argument here
    def compute(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]
        yield from step(context, account)

    return dg.multi_asset(
        name=f"{account.name}__{name}",
        specs=specs,
        check_specs=checks.specs(account, *(spec.key.path[-1] for spec in specs)),
        partitions_def=days,
        backfill_policy=dg.BackfillPolicy.single_run(),
        required_resource_keys={account.name},
        pool=account.name,
    )(compute)
