"""The figures in plain SQL: every engine gives what the warehouse's views do."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from tests import cohorts, portable_sql
from tests.rate_worlds import warehouse
from usms_pipeline.contract import metrics, status
from usms_pipeline.store.storage import Store
from usms_pipeline.warehouse import ddl

Rows = list[dict[str, Any]]
DAYS = [cohorts.DAY + timedelta(days=day) for day in range(6)]
GROUPS = ("sent_date", "country", "operator", "country || operator")
COUNTS = [metric.name for metric in metrics.METRICS if metric.unit == "messages"]


def rows_of(day: date, random: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Yield messages of six countries: one where all is delivered, one with a single message.

    Delays are whole seconds and close together: percentiles are often on the edge of being sure.
    """
    for number in range(400):
        country = ("CN", "SG", "HK", None, "IN")[number % 5] if number else "US"
        shares = [0.7, 0.08, 0.02, 0.02, 0.06, 0.02, 0.05, 0.05]
        outcome = "delivered" if country == "IN" else str(random.choice(status.BUCKETS, p=shares))
        sent_at = cohorts.NOON + (day - cohorts.DAY) + timedelta(seconds=number)
        asked_after = timedelta(hours=72, microseconds=int(random.integers(-1, 2)))
        is_final = outcome in status.FINAL
        yield cohorts.receipt(
            outcome,
            sent_at=sent_at,
            received_at=sent_at + timedelta(seconds=int(random.integers(-1, 6)))
            if is_final and random.random() < 0.95
            else None,
            country=country,
            operator=str(random.choice(["One", "Two"])),
            is_closed=outcome == "invalid" or (not is_final and random.random() < 0.9),
            first_asked_at=sent_at + asked_after if random.random() < 0.5 else None,
            is_announced=random.random() < 0.95,
        )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("portable")
    random = np.random.default_rng(8)
    for day in DAYS:
        cohorts.write(Store(str(folder)), [*rows_of(day, random)], day)
    return folder / "receipts"


def asked(group: str) -> str:
    """Return the page's SQL for another group, changed as it says."""
    page = portable_sql.PAGE.read_text("utf-8")
    assert page.count("sent_date AS cohort") == 1
    return page.replace("sent_date AS cohort", f"{group} AS cohort")


@pytest.fixture(scope="module")
def views(dataset: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield the warehouse's own definitions over the dataset."""
    with warehouse(()) as con:
        columns = ", ".join(field.name for field in ddl.columns([]))
        con.execute(f"INSERT INTO receipts SELECT {columns} FROM '{dataset}/*/*.parquet'")
        yield con


def expected(views: duckdb.DuckDBPyConnection, group: str) -> Rows:
    table = views.sql(f"""
        SELECT cohort, unnest(figures) FROM (
            SELECT {group} AS cohort, delivery_figures(r) AS figures
            FROM receipts AS r WHERE is_announced GROUP BY 1
        )
    """).to_arrow_table()
    return in_arrow(table)


def in_arrow(table: pa.Table) -> Rows:
    rows: Rows = table.to_pylist()
    return rows


def duckdb_rows(dataset: Path, sql: str) -> Rows:
    with duckdb.connect() as con:
        con.execute(f"CREATE VIEW receipts AS FROM '{dataset}/*/*.parquet'")
        return in_arrow(con.sql(sql).to_arrow_table())


def polars_rows(dataset: Path, sql: str) -> Rows:
    import polars as pl

    receipts = pl.scan_parquet(dataset, hive_partitioning=True)
    return in_arrow(pl.SQLContext(receipts=receipts).execute(sql, eager=True).to_arrow())


def clickhouse_rows(dataset: Path, sql: str) -> Rows:
    import chdb

    files = f"file('{dataset}/*/receipts.parquet', Parquet)"
    return in_arrow(chdb.query(sql.replace("FROM receipts ", f"FROM {files} "), "ArrowTable"))


def spark_rows(dataset: Path, sql: str) -> Rows:
    from pyspark.sql import SparkSession

    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.sql.session.timeZone", "Asia/Kolkata")
        .getOrCreate()
    )
    spark.read.parquet(str(dataset)).createOrReplaceTempView("receipts")
    return [row.asDict() for row in spark.sql(sql).collect()]


def keyed(rows: Rows) -> dict[Any, dict[str, Any]]:
    found = {row.pop("cohort"): row for row in rows}
    assert len(found) == len(rows)
    return found


ENGINES = [
    duckdb_rows,
    *(pytest.param(one, marks=pytest.mark.engines)
      for one in (polars_rows, clickhouse_rows, spark_rows)),
]  # fmt: skip


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("ask", ENGINES)
def test_an_engine_counts_what_the_warehouse_does(
    ask: Callable[[Path, str], Rows], group: str, dataset: Path, views: Any
) -> None:
    """Counts to the last digit; a percentile is NULL in the same groups; dates are dates."""
    theirs, ours = keyed(ask(dataset, asked(group))), keyed(expected(views, group))
    assert theirs.keys() == ours.keys()
    for cohort, figures in ours.items():
        assert list(theirs[cohort]) == [metric.name for metric in metrics.METRICS]
        for name, value in figures.items():
            found = theirs[cohort][name]
            is_same = found == value or (
                name not in COUNTS and None not in (found, value) and math.isclose(found, value)
            )
            assert is_same, (cohort, name, found, value)


def test_the_groups_have_figures_that_are_sure_and_others_that_are_not(views: Any) -> None:
    found = [figures for group in GROUPS for figures in expected(views, group)]
    for name in ("delivery_rate_ci_low", "latency_p50_seconds", "latency_p99_seconds"):
        assert {figures[name] is None for figures in found} == {True, False}, name
    assert [name for name in COUNTS if not any(figures[name] for figures in found)] == []


def test_the_page_is_made_from_the_definition() -> None:
    assert portable_sql.PAGE.read_text("utf-8") == portable_sql.made(), (
        "run: python -m tests.readme_tables"
    )


def test_nothing_of_duckdbs_own_is_on_the_page() -> None:
    plain = re.sub(r"--.*", "", portable_sql.PAGE.read_text("utf-8"))
    assert not re.search(r"FILTER|quantile|::|\[|\{|lambda|\busms_", plain)


def test_pandas_and_pyarrow_read_dates_of_sending_as_the_page_says(dataset: Path) -> None:
    days = ds.partitioning(pa.schema([("sent_date", pa.date32())]), flavor="hive")
    table = ds.dataset(dataset, partitioning=days).to_table()
    assert table.schema.field("sent_date").type == pa.date32()
    frame = pd.read_parquet(dataset, partitioning=days)
    assert sorted(set(frame["sent_date"])) == DAYS
