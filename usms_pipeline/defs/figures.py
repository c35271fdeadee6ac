"""What a report of the core looks like on Dagster's page: counts, columns, tables and pictures.

Pure; no secret, phone number or body comes here.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from datetime import date
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
import pyarrow as pa

from usms_pipeline.contract import schema, wording
from usms_pipeline.contract.status import BUCKETS

if TYPE_CHECKING:
    from usms_pipeline.figures import report
    from usms_pipeline.pipeline import Pipeline, Report
    from usms_pipeline.warehouse import WarehouseReport

DAYS_SHOWN: Final = 31
"""Days in the table and the chart of the delivery rates: the latest. Dagster keeps every event."""

Figures = dict[str, Any]


def columns(fields: pa.Schema) -> dg.TableSchema:
    """Return an Arrow schema as Dagster shows it, with the descriptions that it carries."""
    described = [
        (field.name, field.type, (field.metadata or {}).get(b"description", b"").decode() or None)
        for field in fields
    ]
    return dg.TableSchema([dg.TableColumn(name, str(of), said) for name, of, said in described])


def receipts_columns(dimensions: Iterable[str], with_sent_date: bool = False) -> dg.TableSchema:
    """Return the columns of the receipts, in the dataset or, with ``sent_date``, in DuckDB."""
    fields = schema.receipts_fields(dimensions) + ([schema.SENT_DATE] if with_sent_date else [])
    described = [
        (
            field.name,
            field.type,
            f"{field.description} [{field.unit}]" if field.unit else field.description,
        )
        for field in fields
    ]
    return dg.TableSchema([dg.TableColumn(name, str(of), said) for name, of, said in described])


def responses(report: Report) -> Figures:
    """Return what a run asked, over all its days."""
    stats = report.stats
    counted = {name: getattr(stats, name) for name in _COUNTED}
    pace = {"requests_per_second": round(stats.pace, 2)} if stats.pace else {}
    due, seconds = sum(report.due.values()), round(report.seconds_asking, 3)
    return _of_run(sessions_due=due, seconds=seconds, **counted, **pace)


_COUNTED: Final = (
    "requests", "retries", "throttled", "splits", "ids_asked", "ids_answered", "ids_refused",
    "ids_unanswered", "ids_given_up", "unreadable", "bytes_received",
)  # fmt: skip


def responses_of(report: Report, day: date) -> Figures:
    """Return what was asked about one day."""
    return {"sessions_due": report.due.get(day, 0)}


def receipts(report: Report) -> Figures:
    """Return what was read of the source, and what the files of all days of a run say now."""
    warnings = {"warnings": "\n".join(report.warnings)} if report.warnings else {}
    return _of_run(
        partitions=len(report.days),
        partitions_changed=len(report.written),
        rows_read=report.rows_read,
        new_rows=report.new,
        quarantined_new=report.quarantined,
        rows=report.buckets.total() + report.unannounced,
        announced=report.buckets.total(),
        **{name: report.buckets[name] for name in BUCKETS},
        open=report.open,
        unannounced=report.unannounced,
        **warnings,
    )


def receipts_of(report: Report, day: date) -> Figures:
    """Return what a day's file says of itself; nothing where there is none."""
    said = report.days.get(day)
    if said is None:
        return {}
    return {
        "dagster/row_count": said.rows,
        "announced": said.announced,
        **{name: said.buckets.get(name, 0) for name in BUCKETS},
        "open": said.open,
        "unannounced": said.unannounced,
    }


def _of_run(**counts: Any) -> Figures:
    """Name what holds for the run: every partition's event shows it beside its own figures."""
    return {f"run/{name}": value for name, value in counts.items()}


def warehouse(report: WarehouseReport) -> Figures:
    """Return what publishing did."""
    return {
        "dagster/row_count": report.rows,
        "path": dg.MetadataValue.path(str(report.path)),
        "partitions_changed": report.partitions_changed,
        "is_skipped": report.is_skipped,
        "seconds": round(report.seconds, 3),
    }


def delivery_rates(pipeline: Pipeline, asked: report.Figures) -> Figures:
    """Return the figures of everything and by day, the chart as a picture, and make the report.

    ``asked`` is what the published warehouse says. Raises ``StorageError`` where the report can't
    be written.
    """
    from usms_pipeline.days import quarantine
    from usms_pipeline.figures import charts, report

    latest = asked.daily.slice(max(0, asked.daily.num_rows - DAYS_SHOWN))
    path = report.build(
        asked,
        pipeline.store,
        generated_at=pipeline.clock(),
        settings_summary=report.summary(pipeline.settings),
        quarantined=quarantine.open_count(pipeline.store),
        rows_without_sent_at=pipeline.rows_without_sent_at(),
    )
    return {
        "chart": dg.MetadataValue.md(_image(charts.png(charts.rate_over_time(latest), scale=1))),
        "daily": dg.MetadataValue.md(daily_table(latest.to_pylist()[::-1])),
        "report": dg.MetadataValue.path(path),
        **{name: _rounded(value) for name, value in asked.total.items() if value is not None},
    }


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def daily_table(days: list[dict[str, Any]]) -> str:
    """Write rows of the daily figures as a Markdown table."""
    heads = (
        "sent",
        "messages",
        "delivered",
        "expected",
        "so far",
        "at worst – at best",
        "open",
        "half within",
    )
    rows = [
        (
            str(day["sent_date"]),
            wording.count(day["messages"]),
            wording.count(day["delivered"]),
            wording.percent(day["expected_rate"]),
            wording.percent(day["delivery_rate"]),
            f"{wording.percent(day['delivery_rate_if_rest_failed'])} – "
            f"{wording.percent(day['delivery_rate_if_rest_arrived'])}",
            wording.count(day["awaited"]),
            wording.duration(day["latency_p50_seconds"]),
        )
        for day in days
    ]
    rule = ("---", *["---:"] * (len(heads) - 1))
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, rule, *rows))


def _image(png: bytes) -> str:
    return f"![delivery rate by day](data:image/png;base64,{b64encode(png).decode()})"
