"""What the page on capacity says, and that large views stay as small as they were made."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import numpy as np
import pytest

from benchmarks import capacity, views
from tests.readme_tables import put_in


def test_the_pages_schedules_are_what_the_simulation_gives() -> None:
    text = capacity.PAGE.read_text("utf-8")
    lines = capacity.schedule_table(capacity.delays())
    assert put_in(text, "schedules", lines) == text, "run: python -m benchmarks.capacity schedules"


def test_a_message_is_asked_about_until_its_final_status_is_known() -> None:
    told = np.array([60.0, 3 * 3600.0, np.inf])
    found = capacity.asked([1800.0, 7200.0, 14_400.0], told)
    assert found.questions == pytest.approx((1 + 3 + 3) / 3)
    assert 1800 - 60 <= found.half_known_seconds <= found.known_late_seconds <= 3600 + 600


def test_polling_times_between_two_runs_cost_one_question() -> None:
    assert capacity.asked([1.0, 2.0, 3600.0], np.full(1000, 3000.0)).questions < 2.1


@pytest.mark.long
def test_the_largest_views_need_no_more_memory_than_they_were_brought_down_to(
    tmp_path: Path,
) -> None:
    """With 40 operators and 20 templates, and nowhere to spill to."""
    path = tmp_path / "usms.duckdb"
    views._write(path, 200_000)
    with duckdb.connect(path, read_only=True) as con:
        con.execute("SET threads = 1; SET TimeZone = 'UTC'; SET temp_directory = ''")
        for view, megabytes in (("delivery_nowcast_record", 150), ("delivery_alerts", 330)):
            con.execute(f"SET memory_limit = '{megabytes}MB'")
            con.execute(f"FROM {view}").fetchall()


def test_every_view_and_macro_that_returns_rows_is_measured(tmp_path: Path) -> None:
    views._write(tmp_path / "usms.duckdb", 4)
    with duckdb.connect(tmp_path / "usms.duckdb") as con:
        named = con.execute(
            "SELECT view_name FROM duckdb_views() WHERE NOT internal UNION ALL "
            "SELECT DISTINCT function_name FROM duckdb_functions() "
            "WHERE function_type = 'table_macro' AND NOT internal"
        ).fetchall()
    asked = set(re.findall(r"\w+", " ".join(views.QUERIES)))
    assert {name for (name,) in named if not name.startswith("usms_")} <= asked
