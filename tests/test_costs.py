"""What messages cost: from the customer's table to a sum in each currency, and never across two."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner

from tests.cohorts import NOON, receipt, write
from usms_pipeline import source
from usms_pipeline.cli import app
from usms_pipeline.contract import metrics
from usms_pipeline.contract.errors import SourceError
from usms_pipeline.figures import queries, report
from usms_pipeline.settings import Settings
from usms_pipeline.store.storage import Store
from usms_pipeline.warehouse import connect, reconcile

ROWS = [
    receipt("delivered", country="CN", price="0.045", cur="CNY", segments=1, source_segments="2"),
    receipt("failed", country="CN", price="0.045", cur="CNY", segments=1),
    receipt("expired", country="FR", price="0.05", cur="EUR", segments=3),
    receipt("delivered", country="FR", price="free", cur="EUR", source_segments="two", segments=4),
    receipt("pending", country="CN", price="0.1", cur=" CNY "),
]
NAMED = {"segments_column": "segments", "cost_column": "price", "currency_column": "cur"}


def published(folder: Path, **given: str) -> Settings:
    settings = Settings(data_dir=str(folder), _env_file=None, **given)
    store = Store(settings.data_dir)
    write(store, ROWS, date(2024, 3, 1), Settings(_env_file=None, **NAMED).dimensions)
    reconcile(store, settings)
    return settings


@pytest.fixture
def con(tmp_path: Path) -> duckdb.DuckDBPyConnection:
    return connect(published(tmp_path, **NAMED).warehouse_path)


def test_costs_are_summed_in_each_currency_and_what_is_no_number_is_counted(con):
    found = queries.costs(con).to_arrow_table().to_pylist()
    assert [list(row.values()) for row in found] == [
        ["CNY", 3, 3, Decimal("0.19"), Decimal("0.045"), 0],
        ["EUR", 2, 7, Decimal("0.05"), Decimal("0.05"), 1],
    ]
    assert list(found[0]) == ["currency", *(one.name for one in metrics.COSTS)]
    by_country = queries.costs(con, "country").fetchall()
    assert by_country == con.sql("FROM cost_by('country')").fetchall()
    assert [row[:2] for row in by_country] == [("CN", "CNY"), ("FR", "EUR")]
    assert queries.costs(con, first=date(2024, 3, 2)).fetchall() == []


def test_without_columns_of_cost_there_are_the_services_segments_alone(tmp_path):
    con = connect(published(tmp_path).warehouse_path)
    assert queries.costs(con).fetchall() == [(None, 5, 9, None, None, 5)]


def test_nobody_groups_by_a_price_but_by_a_currency(con):
    asked = report.ask(con)
    assert asked.periods is not None
    assert asked.periods.columns == ["country", "operator", "cur"]
    assert [row["currency"] for row in asked.periods.costs if row["period"] == 7] == ["CNY", "EUR"]
    query = "SELECT macro_definition FROM duckdb_functions() WHERE function_name = 'usms_counts'"
    [[counts]] = con.sql(query).fetchall()
    assert "'cur'" in counts
    assert "'price'" not in counts


def test_the_page_says_what_those_not_delivered_cost(con, tmp_path):
    path = report.build(
        report.ask(con), tmp_path / "report.html", generated_at=NOON, settings_summary={}
    )
    held = Path(path).read_text("utf-8").split('id="figures">')[1].split("</script>")[0]
    assert json.loads(held)["costs"]["7"] == ["0.04 CNY", "0.05 EUR"]


def test_the_columns_come_along_and_a_misspelt_one_is_named_with_its_setting(tmp_path):
    table = tmp_path / "sent.csv"
    table.write_text("session_no,sent_at,price,segments\na,2024-03-01 12:00,0.045,2\n")
    given = {"source_url": str(table), "segments_column": "segments", "_env_file": None}
    settings = Settings(**given, cost_column="price", dimensions="Price")
    assert settings.dimensions == ("Price", "segments")
    window = datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 3, 2, tzinfo=UTC)
    settings = Settings(**given, cost_column="price")
    (batch,) = source.read(settings, *window)
    assert batch.to_pylist()[0] | {"price": "0.045", "source_segments": "2"} == batch.to_pylist()[0]
    with pytest.raises(SourceError, match="USMS_COST_COLUMN"):
        list(source.read(Settings(**given, cost_column="prise"), *window))


def test_the_command_prints_them(tmp_path, monkeypatch):
    published(tmp_path, **NAMED)
    for name, value in NAMED.items():
        monkeypatch.setenv(f"USMS_{name.upper()}", value)
    monkeypatch.setenv("USMS_DATA_DIR", str(tmp_path))
    shown = CliRunner().invoke(app, ["costs", "--by", "country"])
    assert "0.19" in shown.stdout
    rows = json.loads(CliRunner().invoke(app, ["costs", "--format", "json"]).stdout)
    assert rows[0]["cost"] == 0.19
    monkeypatch.delenv("USMS_COST_COLUMN")
    monkeypatch.delenv("USMS_SEGMENTS_COLUMN")
    monkeypatch.delenv("USMS_CURRENCY_COLUMN")
    assert "USMS_COST_COLUMN is not set" in CliRunner().invoke(app, ["costs"]).stderr
    none = CliRunner().invoke(app, ["costs", "--from", "2030-01-01"])
    assert none.stdout == "Neither cost nor segments of any message of these days are known.\n"
