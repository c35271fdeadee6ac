"""What a report of the core looks like on Dagster's page: counts, columns, tables and pictures.

Pure but for the log and the metadata of the context; no secret, phone number or body comes here.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, Final, Protocol

import dagster as dg
import pyarrow as pa

from usms_pipeline import schema, wording
from usms_pipeline.status import BUCKETS

if TYPE_CHECKING:
    from usms_pipeline import report
    from usms_pipeline.fold import PartitionCounts, ReceiptsReport
    from usms_pipeline.pipeline import Pipeline, ResponsesReport
    from usms_pipeline.sessions import SessionsPartition, SessionsReport
    from usms_pipeline.warehouse import WarehouseReport

DAYS_SHOWN: Final = 31
"""Days in the table and the chart of the delivery rates: the latest. Dagster keeps every event."""

Figures = dict[str, Any]


class _Report(Protocol):
    @property
    def locked(self) -> list[date]: ...
    @property
    def warnings(self) -> list[str]: ...
    @property
    def seconds(self) -> float: ...


def columns(fields: pa.Schema) -> dg.TableSchema:
    """Give an Arrow schema as Dagster shows it, with the descriptions that it carries."""
    return dg.TableSchema(
        [
            dg.TableColumn(
                field.name,
                str(field.type),
                (field.metadata or {}).get(b"description", b"").decode() or None,
            )
            for field in fields
        ]
    )


def sessions_columns(dimensions: Iterable[str]) -> dg.TableSchema:
    """Give the columns of the sessions."""
    return columns(schema.sessions_schema(dimensions))


def receipts_columns(dimensions: Iterable[str], with_sent_date: bool = False) -> dg.TableSchema:
    """Give the columns of the receipts, in the dataset or, with ``sent_date``, in DuckDB."""
    fields = schema.receipts_fields(dimensions) + ([schema.SENT_DATE] if with_sent_date else [])
    return dg.TableSchema(
        [
            dg.TableColumn(
                field.name,
                str(field.type),
                f"{field.description} [{field.unit}]" if field.unit else field.description,
            )
            for field in fields
        ]
    )


def sessions(report: SessionsReport) -> Figures:
    """Give the counts of a read of the source, over all its partitions."""
    parts = report.partitions.values()
    return _of_run(
        report,
        partitions=len(parts),
        rows_read=report.rows_read,
        rows_without_session=report.rows_without_session,
        rows=sum(part.rows for part in parts),
        new_rows=sum(part.new_rows for part in parts),
        recipients=sum(part.recipients for part in parts),
    )


def of_sessions(part: SessionsPartition) -> Figures:
    """Give the counts of one partition of the sessions."""
    return {
        "dagster/row_count": part.rows,
        "recipients": part.recipients,
        "new_rows": part.new_rows,
    }


def responses(report: ResponsesReport) -> Figures:
    """Give the counts of a round of questions, over all its partitions."""
    stats = report.stats
    counted = {name: getattr(stats, name) for name in _COUNTED}
    pace = {"requests_per_second": round(stats.pace, 2)} if stats.pace else {}
    return _of_run(
        report,
        partitions=len(report.due_sessions),
        sessions_due=sum(report.due_sessions.values()),
        **counted,
        **pace,
    )


_COUNTED: Final = (
    "requests", "retries", "throttled", "splits", "ids_asked", "ids_answered", "ids_refused",
    "ids_given_up", "unreadable", "bytes_received",
)  # fmt: skip


def of_due(due: int) -> Figures:
    """Give the count of one partition's questions."""
    return {"sessions_due": due}


def receipts(report: ReceiptsReport) -> Figures:
    """Give the buckets of a fold, over all its partitions."""
    parts = list(report.partitions.values())
    every = [of_receipts(part) for part in parts]
    return _of_run(
        report,
        partitions=len(parts),
        partitions_changed=sum(part.is_changed for part in parts),
        rows=sum(part.rows for part in parts),
        **{name: sum(one[name] for one in every) for name in _FOLDED},
    )


_FOLDED: Final = ("announced", *BUCKETS, "awaited", "unannounced", "quarantined_new")


def of_receipts(part: PartitionCounts) -> Figures:
    """Give the buckets of one partition."""
    return {
        "dagster/row_count": part.rows,
        "announced": part.announced,
        **{name: part.buckets.get(name, 0) for name in BUCKETS},
        "awaited": part.awaited,
        "unannounced": part.unannounced,
        "quarantined_new": part.quarantined_new,
    }


def warehouse(report: WarehouseReport) -> Figures:
    """Give what publishing did."""
    return {
        "dagster/row_count": report.rows,
        "path": dg.MetadataValue.path(str(report.path)),
        "partitions_changed": report.partitions_changed,
        "is_skipped": report.is_skipped,
        "seconds": round(report.seconds, 3),
    }


def delivery_rates(pipeline: Pipeline, asked: report.Figures) -> Figures:
    """Give the figures of everything and by day, the chart as a picture, and make the report.

    ``asked`` is what the published warehouse says. Raises ``StorageError`` where the report can't
    be written.
    """
    from usms_pipeline import charts, quarantine, report

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
        "delivery rate",
        "between",
        "still awaited",
        "half within",
    )
    rows = [
        (
            str(day["sent_date"]),
            wording.count(day["messages"]),
            wording.count(day["delivered"]),
            wording.percent(day["delivery_rate"]),
            f"{wording.percent(day['delivery_rate_low'])} – "
            f"{wording.percent(day['delivery_rate_high'])}",
            wording.count(day["awaited"]),
            wording.duration(day["latency_p50_seconds"]),
        )
        for day in days
    ]
    rule = ("---", *["---:"] * (len(heads) - 1))
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, rule, *rows))


def _image(png: bytes) -> str:
    return f"![delivery rate by day](data:image/png;base64,{b64encode(png).decode()})"


def add_partitions(
    context: dg.AssetExecutionContext, parts: Mapping[date, Any], of: Callable[[Any], Figures]
) -> None:
    """Add each partition's counts: to the run's own event, or as one of its own beside the range.

    An open window may reach back to older partitions that still await receipts.
    """
    keys = set(context.partition_keys) if context.has_partition_key_range else set()
    for day, part in sorted(parts.items()):
        key = day.isoformat()
        if key in keys:
            context.add_asset_metadata(of(part), partition_key=key)
        else:
            context.log_event(
                dg.AssetMaterialization(context.asset_key, metadata=of(part), partition=key)
            )


def warn(context: dg.AssetExecutionContext, report: _Report) -> None:
    """Put the report's warnings into the log."""
    for sentence in report.warnings:
        context.log.warning(sentence)
    if report.locked:
        context.log.warning(f"Left alone, another process works on them: {_days(report.locked)}.")


def _of_run(report: _Report, **counts: Any) -> Figures:
    """Give what holds for the run: every partition's event shows it beside its own counts."""
    said = {"warnings": "\n".join(report.warnings), "locked": _days(report.locked)}
    counts |= {"seconds": round(report.seconds, 3), **{k: v for k, v in said.items() if v}}
    return {f"run/{name}": value for name, value in counts.items()}


def _days(days: Iterable[date]) -> str:
    return ", ".join(day.isoformat() for day in sorted(days))
