"""The SQL text that a warehouse is made of: table, bookkeeping, views, macros, comments.

Pure: it gives text and runs none. What the views and macros say is in ``sql/`` beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

import pyarrow as pa

from usms_pipeline.contract import metrics, polling, schema
from usms_pipeline.contract.metrics import Metric
from usms_pipeline.contract.schema import SENT_DATE, TEXT, TIME, Field
from usms_pipeline.warehouse.quoting import identifier, literal

STORAGE_VERSION: Final = "v1.5.0"
"""Storage format of the published file: DuckDB 1.5 is the oldest that opens it."""

BOOKKEEPING: Final = """
CREATE TABLE usms_partitions (
    sent_date DATE, version VARCHAR, row_count BIGINT, column_names VARCHAR[],
    is_clear BOOLEAN
);
CREATE TABLE usms_definitions (digest VARCHAR);
COMMENT ON TABLE usms_partitions IS 'which version of each day''s file was read';
COMMENT ON TABLE usms_definitions IS 'hash of the statements that made the views and macros';
"""

_SQL_FILES: Final = (
    "figures", "views", "nowcast", "as_of", "delivery_curve", "change", "alerts",
)  # fmt: skip
_TYPES: Final = {
    TEXT: "VARCHAR",
    TIME: "TIMESTAMP WITH TIME ZONE",
    SENT_DATE.type: "DATE",
    pa.bool_(): "BOOLEAN",
    pa.int32(): "INTEGER",
    pa.float64(): "DOUBLE",
    pa.list_(TEXT): "VARCHAR[]",
}
_RATE_VIEWS: Final = (
    "delivery_rate_daily",
    "delivery_rate_hourly",
    "delivery_rate_by_country",
    "delivery_rate_by_operator",
)


def columns(in_files: Iterable[str], dimensions: Sequence[str] = ()) -> list[Field]:
    """Return the columns of ``receipts``: ours, and every dimension that some file has.

    ``dimensions`` (names in your table) come first, in their order; those that only older files
    have follow by name. SQL can't tell ``City`` from ``city``: the first one met stands for both.
    """
    ours = {field.name.casefold() for field in [*schema.receipts_fields(), SENT_DATE]}
    set_now = [schema.dimension_name(name) for name in dimensions]
    extra: dict[str, str] = {}
    for name in [*set_now, *sorted(set(in_files))]:
        if name.casefold() not in ours:
            extra.setdefault(name.casefold(), name)
    fields = schema.receipts_fields()
    after = [field.name for field in fields].index("sent_at") + 1
    carried = [Field(name, TEXT, f"`{name}` of your table, as text") for name in extra.values()]
    return [*fields[:after], SENT_DATE, *carried, *fields[after:]]


def create_receipts(fields: Sequence[Field]) -> str:
    """Return the statement that makes the empty table."""
    typed = ", ".join(f"{identifier(field.name)} {_TYPES[field.type]}" for field in fields)
    return f"CREATE TABLE receipts ({typed})"


def definitions(fields: Sequence[Field], cutoff: timedelta, polls: Sequence[timedelta] = ()) -> str:
    """Return every statement that makes the views, macros and comments; same in, same out.

    ``polls`` are the ages at which a message is asked about; where none are given, the usual ones.
    """
    seconds = cutoff.total_seconds()
    ages = ", ".join(f"{age.total_seconds():g}" for age in polls or polling.offsets(cutoff))
    return "\n".join(
        [
            f"CREATE OR REPLACE MACRO usms_cutoff() AS to_microseconds({round(seconds * 1e6)});",
            f"CREATE OR REPLACE MACRO usms_polls() AS [{ages}]::DOUBLE[];",
            *((_SQL / f"{name}.sql").read_text(encoding="utf-8") for name in _SQL_FILES),
            _alerts(fields),
            "COMMENT ON TABLE receipts IS 'one row per recipient, with its status and receipt';",
            *_comments("receipts", [(field.name, _meaning(field)) for field in fields]),
            *(line for view in _RATE_VIEWS for line in _explained(view, metrics.METRICS)),
            *_explained("failures", metrics.FAILURES),
            *_explained("delivery_alerts", metrics.ALERTS),
        ]
    )


def attach(path: Path, options: str, name: str = "usms") -> str:
    """Return the statement that attaches a file under a name."""
    return f"ATTACH {literal(str(path))} AS {name} ({options})"


def _alerts(fields: Sequence[Field]) -> str:
    """Return the view ``delivery_alerts``: all, operators, countries and each dimension."""
    dimensions = schema.dimensions_among(field.name for field in fields)
    counts = " UNION ALL ".join(
        f"FROM usms_counts_by({literal(column)})"
        for column in ("usms_everything", "operator", "country", *dimensions)
    )
    return (
        f"CREATE OR REPLACE VIEW delivery_alerts AS WITH counts AS MATERIALIZED ({counts}) "
        "FROM usms_alerts(counts);\n"
        "COMMENT ON VIEW delivery_alerts IS "
        "'what fails or stays silent more than usual in the last 72 hours of sending';"
    )


def _explained(view: str, figures: Iterable[Metric]) -> list[str]:
    return _comments(view, [(one.name, _meaning(one)) for one in figures])


def _meaning(field: Field | Metric) -> str:
    return f"{field.description} ({field.unit})" if field.unit else field.description


def _comments(table: str, meanings: Iterable[tuple[str, str]]) -> list[str]:
    return [
        f"COMMENT ON COLUMN {table}.{identifier(name)} IS {literal(meaning)};"
        for name, meaning in meanings
    ]


_SQL = Path(__file__).parent / "sql"


def first_line(error: BaseException) -> str:
    """Return DuckDB's reason as one sentence, without the part that points into our SQL."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".") + "."
