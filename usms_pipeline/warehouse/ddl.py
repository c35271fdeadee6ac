"""The SQL text that a warehouse is made of: table, bookkeeping, views, macros, comments.

Pure: it gives text and runs none. What the views and macros say is in ``sql/`` beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

import pyarrow as pa

from usms_pipeline.contract import metrics, polling, schema
from usms_pipeline.contract.metrics import Metric
from usms_pipeline.contract.schema import SENT_DATE, TEXT, TIME, Field

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
    "figures", "costs", "views", "nowcast", "as_of", "delivery_curve", "change", "alerts",
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
_VIEWS: Final[dict[str, tuple[str, tuple[Metric, ...]]]] = {
    "delivery_rate_daily": ("sent_date", metrics.METRICS),
    "delivery_rate_hourly": ("sent_hour", metrics.METRICS),
    "delivery_rate_by_country": ("country", metrics.METRICS),
    "delivery_rate_by_operator": ("country operator", metrics.METRICS),
    "failures": ("provider_code provider_desc status", metrics.FAILURES),
    "failures_daily": ("sent_date provider_code provider_desc status", metrics.FAILURES),
    "failing_recipients": ("recipient phone country operator", metrics.FAILING),
    "delivery_nowcast_daily": ("sent_date", metrics.NOWCAST),
    "delivery_nowcast_hourly": ("sent_hour", metrics.NOWCAST),
    "delivery_nowcast_record": ("", metrics.RECORD),
    "delivery_alerts": ("", metrics.ALERTS),
}
"""Each view's keys and figures, which are all of its columns."""


def identifier(name: str) -> str:
    """Quote a name for DuckDB: any text is safe."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a text value for DuckDB, where it can't be a parameter."""
    return "'" + text.replace("'", "''") + "'"


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


def definitions(
    fields: Sequence[Field],
    cutoff: timedelta,
    polls: Sequence[timedelta] = (),
    costs: Sequence[str | None] = (None, None, None),
) -> str:
    """Return every statement that makes the views, macros and comments; same in, same out.

    ``polls`` are the ages at which a message is asked about; where none are given, the usual ones.
    ``costs`` name the columns of segments, cost and currency in your table.
    """
    micros = cutoff // timedelta(microseconds=1)
    names = {field.name.casefold(): field.name for field in fields}
    carried = [one and names.get(schema.dimension_name(one).casefold()) for one in costs]
    ages = ", ".join(f"{age.total_seconds():g}" for age in polls or polling.offsets(cutoff))
    return "\n".join(
        [
            f"CREATE OR REPLACE MACRO usms_cutoff() AS to_microseconds({micros});",
            _column(fields),
            *_costs(carried),
            f"CREATE OR REPLACE MACRO usms_polls() AS [{ages}]::DOUBLE[];",
            *((_SQL / f"{name}.sql").read_text(encoding="utf-8") for name in _SQL_FILES),
            _alerts([field for field in fields if field.name not in carried[:2]]),
            "COMMENT ON TABLE receipts IS 'one row per recipient, with its status and receipt';",
            *_comments(fields),
        ]
    )


def _costs(carried: Sequence[str | None]) -> Iterator[str]:
    """Yield what reads the columns of cost, which are texts; and which nobody groups by."""
    values = [f"r.{identifier(name)}" if name else "NULL" for name in carried]
    for name, value in zip(("segments", "cost", "currency"), values, strict=True):
        yield f"CREATE OR REPLACE MACRO usms_{name}(r) AS nullif(trim({value}::VARCHAR), '');"
    listed = ", ".join(literal(name) for name in carried[:2] if name)
    yield f"CREATE OR REPLACE MACRO usms_ungrouped() AS [{listed}]::VARCHAR[];"


def attach(path: Path, options: str, name: str = "usms") -> str:
    """Return the statement that attaches a file under a name."""
    return f"ATTACH {literal(str(path))} AS {name} ({options})"


def _alerts(fields: Sequence[Field]) -> str:
    dimensions = schema.dimensions_among(field.name for field in fields)
    columns = [literal(name) for name in ("operator", "country", *dimensions)]
    counts = " UNION ALL ".join(
        f"FROM usms_counts_by(lately, {column})" for column in ("'usms_everything'", *columns)
    )
    return (
        "CREATE OR REPLACE MACRO usms_counts() AS TABLE "
        f"WITH lately AS MATERIALIZED (FROM usms_lately([{', '.join(columns)}])) {counts};\n"
        "CREATE OR REPLACE VIEW delivery_alerts AS "
        "WITH counts AS MATERIALIZED (FROM usms_counts()), "
        "kinds AS NOT MATERIALIZED (FROM usms_kinds(counts)) FROM usms_alerts(kinds);\n"
        "COMMENT ON VIEW delivery_alerts IS "
        "'groups that fail or get no receipt more than usual, in the last 72 hours of sending';"
    )


def _column(fields: Sequence[Field]) -> str:
    """Return the macro that takes a column's name and gives it back, for COLUMNS([…]) alone.

    Not error() for a name that is not there: COLUMNS takes nothing with a side effect. So the name
    becomes the sentence, and DuckDB says that it finds no such column.
    """
    names = [field.name for field in fields]
    listed = ", ".join(map(literal, names))
    there = literal(f"'. Name one of: {', '.join(names)}.")
    return (
        f"CREATE OR REPLACE MACRO usms_column(name) AS CASE WHEN list_contains([{listed}], name) "
        "THEN name ELSE 'There is no column ''' || coalesce(name, 'NULL') || "
        f"{there} END;"
    )


def _comments(fields: Sequence[Field]) -> Iterator[str]:
    keys = {field.name: _meaning(field) for field in (*fields, SENT_DATE)}
    keys["sent_hour"] = "beginning of the hour of sending (UTC)"
    tables = {"receipts": {field.name: keys[field.name] for field in fields}}
    for view, (named, figures) in _VIEWS.items():
        tables[view] = {name: keys[name] for name in named.split()}
        tables[view] |= {one.name: _meaning(one) for one in figures}
    for table, meanings in tables.items():
        for name, meaning in meanings.items():
            yield f"COMMENT ON COLUMN {table}.{identifier(name)} IS {literal(meaning)};"


def _meaning(field: Field | Metric) -> str:
    return f"{field.description} ({field.unit})" if field.unit else field.description


_SQL = Path(__file__).parent / "sql"


def first_line(error: BaseException) -> str:
    """Return DuckDB's reason as one sentence, without the part that points into our SQL."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".") + "."
