"""What analysts ask of the published file, each as one line that they would type."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pexpect
import pytest
from typer.testing import CliRunner

from tests import cohorts
from tests.cohorts import NOON, receipt
from tests.examples import examples
from usms_pipeline.cli import app
from usms_pipeline.cli.options import period
from usms_pipeline.figures import queries
from usms_pipeline.settings import Settings
from usms_pipeline.store.storage import Store
from usms_pipeline.warehouse import connect, reconcile

DIMENSIONS = ("template", "cost")

ROWS = [
    receipt("delivered", recipient="twice", template="otp", cost="0.045"),
    receipt("delivered", recipient="twice", sent_at=NOON + timedelta(minutes=2), template="otp"),
    receipt("delivered", country="SG", operator="Singtel", template="promo", cost="0.03"),
    receipt("failed", provider_code="E1", provider_desc="absent", template="promo", cost="0.045"),
    receipt("failed", provider_code="E2", provider_desc="barred", template="otp"),
    receipt("expired", provider_code="E1", provider_desc="absent", template="promo"),
]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    store = Store(str(folder))
    settings = Settings(data_dir=str(folder), dimensions=DIMENSIONS)
    cohorts.write(store, ROWS, dimensions=DIMENSIONS)
    return reconcile(store, settings).path


@pytest.fixture
def con(file: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with connect(file) as opened:
        yield opened


@pytest.fixture
def attached(file: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection with the file attached under another name, as dbt and DBeaver do."""
    with duckdb.connect() as opened:
        opened.execute(f"ATTACH '{file}' AS x (READ_ONLY)")
        yield opened


def rows(con: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = con.sql(query).to_arrow_table().to_pylist()
    return found


def test_a_question_is_one_line_of_sql(con):
    [again] = rows(
        con,
        "SELECT recipient, sent_at FROM receipts QUALIFY sent_at - lag(sent_at) OVER "
        "(PARTITION BY recipient ORDER BY sent_at) < INTERVAL 5 MINUTE",
    )
    assert again["recipient"] == "twice"
    [worst] = rows(
        con,
        "SELECT template, operator, delivery_figures(r).delivery_rate AS rate "
        "FROM receipts AS r GROUP BY ALL ORDER BY rate LIMIT 1",
    )
    assert (worst["template"], worst["operator"], worst["rate"]) == ("promo", "China Mobile", 0)
    costs = con.sql("SELECT country, sum(cost::DECIMAL(18, 6)) FROM receipts GROUP BY ALL")
    assert {country: float(cost) for country, cost in costs.fetchall()} == {"CN": 0.09, "SG": 0.03}


def test_rates_take_a_first_and_a_last_day(con):
    asked = "SELECT messages FROM delivery_rate_by('sent_date', {})"
    for days, found in {
        "first := '2024-03-01', last := '2024-03-01'": [(6,)],
        "first := DATE '2024-03-02'": [],
        "last := '2024-02-29'": [],
    }.items():
        assert con.sql(asked.format(days)).fetchall() == found


def test_failures_by_a_column_have_shares_of_its_value(con):
    found = con.sql(
        "SELECT cohort, provider_code, status, messages, share FROM failures_by('template')"
    )
    assert sorted(found.fetchall()) == [
        ("otp", "E2", "failed", 1, 1.0),
        ("promo", "E1", "expired", 1, 0.5),
        ("promo", "E1", "failed", 1, 0.5),
    ]
    assert con.sql("FROM failures_by('status', first := '2024-03-02')").fetchall() == []


def test_failures_by_day_are_those_of_all_days_together(con):
    daily = "SELECT sent_date, sum(messages), sum(share) FROM failures_daily GROUP BY ALL"
    assert con.sql(daily).fetchall() == [(cohorts.DAY, 3, 1.0)]


@pytest.mark.parametrize(
    "asked",
    [
        "delivery_rate_by('tempalte')",
        "failures_by('tempalte')",
        "delivery_curve_by('tempalte')",
        "delivery_nowcast_by('tempalte')",
        "delivery_rate_change_by('tempalte')",
    ],
)
def test_a_misspelt_column_is_named_with_those_that_there_are(con, asked):
    with pytest.raises(duckdb.Error, match=r"no column 'tempalte'. Name one of: .*, template,"):
        con.sql(f"FROM {asked}").fetchall()


VIEWS = (
    "receipts", "delivery_rate_daily", "delivery_rate_hourly", "delivery_rate_by_country",
    "delivery_rate_by_operator", "failures", "failures_daily", "failing_recipients",
    "delivery_alerts", "delivery_nowcast_daily", "delivery_nowcast_hourly",
    "delivery_nowcast_record",
)  # fmt: skip
MACROS = (
    "delivery_rate_by('country')", "failures_by('country')", "delivery_rate_change_by('country')",
    "delivery_curve()", "delivery_curve_by('country')", "delivery_nowcast_by('country')",
    "maturity()", "as_of(now())",
    "(SELECT x.delivery_figures(r) FROM x.receipts AS r)", "(SELECT x.wilson_low(1, 2))",
)  # fmt: skip


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_works_under_another_name(attached, view):
    attached.sql(f"FROM x.{view}").fetchall()


@pytest.mark.parametrize("macro", MACROS)
def test_every_macro_works_under_another_name_that_is_on_the_search_path(attached, macro):
    """What a view names DuckDB seeks in its own file, what a macro names where the caller is."""
    attached.execute("SET search_path = 'memory,x'")
    attached.sql(f"FROM {macro if macro.startswith('(') else f'x.{macro}'}").fetchall()
    assert attached.sql("SELECT current_database()").fetchall() == [("memory",)]


def test_these_are_all_views_and_every_column_of_them_is_explained(con):
    found = con.sql(
        "SELECT table_name, column_name, comment FROM duckdb_columns() "
        "WHERE database_name = 'usms' AND NOT starts_with(table_name, 'usms_')"
    ).fetchall()
    assert {table for table, _, _ in found} == set(VIEWS)
    assert [(table, column) for table, column, comment in found if not comment] == []


# -- as commands ------------------------------------------------------------------------------


def usms(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def approximately(value: Any) -> Any:
    return round(value, 9) if isinstance(value, float) else value


@pytest.fixture
def here(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(published)


@examples(
    1,
    "command",
    [
        "rates --by template --by operator --sort delivery_rate --limit 1",
        "rates --by template --last 1000d",
        "failures --by template",
        "failures --by sent_date",
        "failures --last 24h",
        "alerts",
    ],
)
def test_each_command_prints_the_same_as_table_csv_and_json(here, command):
    assert usms(*command.split())
    rows, again = (json.loads(usms(*command.split(), *how)) for how in (["--format", "json"],) * 2)
    # a forecast is a sum over threads, so its last digits may differ
    assert [list(map(approximately, row.values())) for row in rows] == [
        list(map(approximately, row.values())) for row in again
    ]
    read = list(csv.DictReader(io.StringIO(usms(*command.split(), "--format", "csv"))))
    assert [list(row) for row in read] == [list(row) for row in rows]


def test_rows_are_sorted_and_cut_as_asked(here):
    by_country = ("rates", "--by", "country", "--format", "json")
    counts = [row["messages"] for row in json.loads(usms(*by_country, "--sort", "messages"))]
    assert counts == sorted(counts)
    best = json.loads(usms(*by_country, "--sort", "-delivery_rate", "--limit", "1"))
    rates = [row["delivery_rate"] for row in json.loads(usms(*by_country))]
    assert [row["delivery_rate"] for row in best] == [max(rates)]


@pytest.mark.parametrize("by", [[], ["--by", "country"]])
def test_days_without_messages_are_no_error(here, by):
    assert "No messages in these days" in usms("rates", "--from", "2030-01-01", *by)
    assert "No message failed" in usms("failures", "--from", "2030-01-01", *by)


def test_the_table_of_failures_has_a_row_for_each_code_with_its_texts(tmp_path, monkeypatch):
    texts = [*["absent"] * 3, "absent: 17", "absent: 18", "absent: 19", None]
    failed = [receipt("failed", provider_code="E1", provider_desc=text) for text in texts]
    cohorts.write(Store(str(tmp_path)), failed)
    settings = Settings(data_dir=str(tmp_path))
    with connect(reconcile(Store(str(tmp_path)), settings).path) as con:
        [row] = queries.by_code(queries.failures(con)).to_arrow_table().to_pylist()
        assert row["provider_desc"] == "absent · absent: 17 · absent: 18 · …"
        assert (row["messages"], row["share"]) == (7, 1.0)
        by_text = queries.failures(con, "provider_desc")
        assert queries.by_code(by_text, ["provider_desc"]).fetchall() == by_text.fetchall()
    monkeypatch.setenv("USMS_DATA_DIR", str(tmp_path))
    shown = usms("failures", "--by", "country", "--limit", "1")
    assert shown.count("E1") == 1
    assert "share of group" in shown


def test_a_column_to_sort_by_that_is_not_there_is_named_with_near_ones(here):
    result = CliRunner().invoke(app, ["failures", "--sort", "mesages"])
    assert result.exit_code == 2
    assert "no column 'mesages' to sort by. Try 'messages'" in result.stderr


def test_a_misspelt_column_in_sql_is_told_in_a_sentence(here):
    result = CliRunner().invoke(app, ["sql", "FROM delivery_rate_by('tempalte')"])
    assert "can't be run: There is no column 'tempalte'. Name one of: session" in result.stderr
    result = CliRunner().invoke(app, ["sql", "FROM delivery_rate_by(template)"])
    assert "The column's name goes in single quotes: 'template'." in result.stderr


def test_the_last_days_include_today_and_hours_are_hours():
    zone = ZoneInfo("Asia/Shanghai")
    today, now = datetime.now(zone).date(), datetime.now(UTC)
    assert period(None, None, "7d", zone) == (today - timedelta(days=6), None)
    assert period(None, None, "1w", zone) == period(None, None, "7D", zone)
    since, _ = period(None, None, "24h", zone)
    assert now - timedelta(hours=24) <= since <= now - timedelta(hours=23)


def test_failures_by_columns_are_those_of_the_macro(con):
    ours = queries.failures(con, "template").fetchall()
    assert sorted(ours) == sorted(con.sql("FROM failures_by('template')").fetchall())
    both = queries.failures(con, ["template", "provider_code"]).columns
    assert both[:3] == ["template", "provider_code", "provider_desc"]
    assert queries.failures(con, last=cohorts.DAY - timedelta(days=1)).fetchall() == []
    assert len(queries.failures(con, first=NOON).fetchall()) == 3
    assert queries.failures(con, first=NOON + timedelta(hours=1)).fetchall() == []


@examples(1, "end", [lambda it: it.sendeof(), lambda it: it.sendline("exit")])
def test_sql_at_a_terminal_answers_each_query_up_to_its_semicolon(published, end):
    terminal = pexpect.spawn(
        sys.executable, ["-m", "usms_pipeline", "sql"], cwd=str(published), encoding="utf-8",
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "NO_COLOR": "1"},
        timeout=30,
    )  # fmt: skip
    for line, answer in {
        "SELECT count(*) AS messages": "  ..",
        "FROM receipts;": "600",
        "FROM reciepts;": "reciepts does not exist",
        "DELETE FROM receipts;": "read-only",
        "SELECT 6 * 7;": "42",
    }.items():
        terminal.expect_exact("> ")
        terminal.sendline(line)
        terminal.expect_exact(answer)
    terminal.expect_exact("usms> ")
    end(terminal)
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
