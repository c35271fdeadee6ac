"""A report of the core as Dagster's page shows it: counts, columns, tables and pictures.

Pure; no secret, phone number or body comes here.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from usms_pipeline.contract import schema, wording
from usms_pipeline.contract.metrics import Metric
from usms_pipeline.contract.status import BUCKETS

if TYPE_CHECKING:
    from usms_pipeline.days.file import Footer
    from usms_pipeline.defs.account import Account
    from usms_pipeline.figures import report
    from usms_pipeline.pipeline import Pipeline, Report
    from usms_pipeline.warehouse import WarehouseReport

DAYS_DRAWN: Final = 31
"""Days in the chart of the delivery rates: the latest."""
DAYS_LISTED: Final = 7
"""Days in their table, which Dagster keeps three times for each event, for ever."""

Figures = dict[str, Any]


def described(fields: Iterable[schema.Field | Metric]) -> dg.TableSchema:
    """Return our columns or figures as Dagster shows them, with their units."""
    return dg.TableSchema(
        [
            dg.TableColumn(
                one.name,
                str(getattr(one, "type", "number")),
                f"{one.description} [{one.unit}]" if one.unit else one.description,
            )
            for one in fields
        ]
    )


def responses(report: Report) -> Figures:
    """Return what a run asked, over all its days; what was counted never is left out."""
    stats = report.stats
    counted = {
        name.replace("ids_", "sessions_"): count
        for name in _COUNTED
        if (count := getattr(stats, name))
    }
    pace = {"requests_per_second": round(stats.pace, 2)} if stats.pace else {}
    due, seconds = sum(report.due.values()), round(report.seconds_asking, 3)
    return {"sessions_due": due, "seconds": seconds, **counted, **pace}


_COUNTED: Final = (
    "requests", "retries", "throttled", "splits", "ids_asked", "ids_answered", "ids_refused",
    "ids_unanswered", "ids_given_up", "unreadable", "bytes_received",
)  # fmt: skip


def responses_of(report: Report, day: date) -> Figures:
    """Return what was asked about one day."""
    return {"sessions_due": report.due.get(day, 0)}


def receipts(report: Report) -> Figures:
    """Return counts of the source rows, and of the files of all days of a run."""
    return {
        "partitions": len(report.days),
        "partitions_changed": len(report.written),
        "rows_read": report.rows_read,
        "new_rows": report.new,
        "quarantined_new": report.quarantined,
        "rows": report.buckets.total() + report.unannounced,
        **_by_status(report),
        **({"warnings": "\n".join(report.warnings)} if report.warnings else {}),
    }


def receipts_of(report: Report, day: date) -> Figures:
    """Return the counts in a day's footer; nothing where there is no file."""
    said = report.days.get(day)
    return {} if said is None else of_day(said)


def of_day(said: Footer) -> Figures:
    """Return the counts in a day's footer."""
    return {
        "dagster/partition_row_count": said.rows,
        **_by_status(said),
        _VERSION: said.version,
    }


def _by_status(said: Footer | Report) -> Figures:
    counts = {name: said.buckets.get(name) for name in BUCKETS}
    counts |= {"open": said.open, "unannounced": said.unannounced}
    return {name: count for name, count in counts.items() if count}


_VERSION: Final = "usms/version"


def version_of(made: dg.AssetMaterialization) -> str | None:
    """Return the version of the day's file that an event reports."""
    value = made.metadata.get(_VERSION)
    return None if value is None else str(value.value)


def warehouse(report: WarehouseReport) -> Figures:
    """Return what publishing did."""
    return {
        "dagster/row_count": report.rows,
        "path": dg.MetadataValue.path(str(report.path)),
        "partitions_changed": report.partitions_changed,
        "seconds": round(report.seconds, 3),
    }


def delivery_rates(pipeline: Pipeline, asked: report.Figures) -> Figures:
    """Return the figures of everything and by day; make the report, and a chart beside it.

    ``asked`` is what the published warehouse says. Raises ``StorageError`` where they can't be
    written.
    """
    from usms_pipeline.days import quarantine
    from usms_pipeline.figures import charts, report
    from usms_pipeline.pipeline import CHART

    latest = asked.daily.slice(max(0, asked.daily.num_rows - DAYS_DRAWN))
    listed = latest.slice(max(0, latest.num_rows - DAYS_LISTED)).to_pylist()[::-1]
    with pipeline.store.replacing(CHART) as temporary:
        temporary.write_bytes(charts.png(charts.rate_over_time(latest), scale=1))
    path = report.build(
        asked,
        pipeline.store,
        generated_at=pipeline.clock(),
        settings_summary=report.summary(pipeline.settings),
        quarantined=quarantine.open_count(pipeline.store),
        left_out=pipeline.left_out(),
    )
    return {
        "daily": dg.MetadataValue.md(daily_table(listed)),
        "report": dg.MetadataValue.path(path),
        "chart": dg.MetadataValue.path(pipeline.store.path(CHART)),
        **{
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in asked.total.items()
            if value is not None
        },
    }


def is_drawn(pipeline: Pipeline) -> bool:
    """Return whether report and chart are there, and later than the published file."""
    from usms_pipeline.pipeline import CHART, REPORT

    drawn = [pipeline.store.written_at(name) for name in (REPORT, CHART)]
    published = pipeline.settings.warehouse_path.stat().st_mtime
    return all(at is not None and at.timestamp() >= published for at in drawn)


def observation(account: Account, rows: int | None, newest: datetime | None) -> dg.AssetObservation:
    """Return that the source was read: its rows around the window, and the last time of sending."""
    counted: Figures = {} if rows is None else {"rows_read": rows}
    if newest is not None:
        counted["newest_sent_at"] = dg.MetadataValue.timestamp(newest)
    return dg.AssetObservation(account.key("source_table"), metadata=counted)


def is_ours(seen: dg.AssetObservation | None) -> bool:
    """Return whether an observation is one of this package, not of the project."""
    return seen is not None and "rows_read" in seen.metadata


def daily_table(days: list[dict[str, Any]]) -> str:
    """Write rows of the daily figures as a Markdown table, no cell of which needs a second line."""
    heads = ("sent", "messages", "expected", "so far", "at worst", "at best", "open", "half within")
    rows = [
        (
            wording.day(day["sent_date"]),
            wording.count(day["messages"]),
            wording.percent(day["expected_rate"]),
            wording.percent(day["delivery_rate"]),
            wording.percent(day["delivery_rate_if_rest_failed"]),
            wording.percent(day["delivery_rate_if_rest_arrived"]),
            wording.count(day["awaited"]),
            wording.duration(day["latency_p50_seconds"]),
        )
        for day in days
    ]
    cells = [[cell.replace(" ", "\u00a0") for cell in row] for row in rows]
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, rule, *cells))
