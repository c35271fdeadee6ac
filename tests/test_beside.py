"""Beside other tools: dbt and dagster-duckdb read the published file, polars the days' files."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from tests.processes import environment_with

pytestmark = pytest.mark.engines

ROOT = Path(__file__).parent.parent


def test_dbt_builds_the_example_with_every_macro(published: Path, tmp_path: Path):
    """In an environment of dbt's own, as its README says; its metrics are parsed, too."""
    wanted = str(ROOT / "deploy/dbt/requirements.txt")
    dbt = environment_with(tmp_path / "venv", "-r", wanted) / "dbt"
    project = shutil.copytree(ROOT / "deploy/dbt", tmp_path / "project")
    warehouse = str(published / "data/usms.duckdb")
    done = subprocess.run(
        [str(dbt), "build", "--profiles-dir", "."],
        cwd=project,
        env=os.environ | {"USMS_WAREHOUSE": warehouse},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    with duckdb.connect(str(project / "own.duckdb"), read_only=True) as con:
        rows = dict(con.sql("FROM every_macro").fetchall())
        con.sql(f"ATTACH '{warehouse}' AS usms (READ_ONLY)")
        differing = con.sql("""
            SELECT sent_date, avg(is_delivered::INTEGER) FILTER (is_final) AS rate
            FROM messages GROUP BY sent_date
            EXCEPT SELECT sent_date, delivery_rate FROM usms.delivery_rate_daily
        """).fetchall()
    reference = (ROOT / "docs/reference/sql.md").read_text("utf-8")
    assert set(rows) == {*re.findall(r"^\| macro \| `(\w+)", reference, re.MULTILINE)}
    of_two_weeks = "delivery_rate_change_by"
    assert [macro for macro, n in rows.items() if not n and macro != of_two_weeks] == []
    assert differing == []
    parsed = json.loads((project / "target/semantic_manifest.json").read_text("utf-8"))
    assert "delivery_rate" in {metric["name"] for metric in parsed["metrics"]}


def test_the_pages_asset_reads_the_days_with_polars(published: Path, monkeypatch):
    monkeypatch.chdir(published)
    page = (ROOT / "docs/dagster.md").read_text("utf-8")
    [code] = (one for one in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "polars" in one)
    names = {"__name__": "theirs"}
    exec(code, names)
    result = dg.materialize([names["messages_by_country"]], instance=dg.DagsterInstance.ephemeral())
    made = result.output_for_node("messages_by_country")
    with duckdb.connect("data/usms.duckdb", read_only=True) as con:
        counted = con.sql("SELECT country, count(*) FROM receipts GROUP BY ALL").fetchall()
    assert dict(made.iter_rows()) == dict(counted)


def test_an_io_manager_of_dagster_duckdb_loads_one_day(published: Path, tmp_path: Path):
    """In an environment of its own, as the page says, with the page's own definitions."""
    python = environment_with(tmp_path / "venv", "dagster-duckdb-pandas") / "python"
    page = (ROOT / "docs/dagster.md").read_text("utf-8")
    [code] = (one for one in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "duckdb" in one)
    with duckdb.connect(str(published / "data/usms.duckdb"), read_only=True) as con:
        days = con.sql("SELECT sent_date::TEXT, count(*) FROM receipts GROUP BY ALL").fetchall()
    [(day, count), *_] = sorted(days)
    given = code.replace("2026-01-01", day)
    asked = f"""
both = [receipts, one_day]
made = dg.materialize(both, selection=[one_day], partition_key={day!r}, resources=resources)
print(made.output_for_node("one_day"))
"""
    done = subprocess.run(
        [str(python), "-c", given + asked],
        cwd=published, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == (f"{count}\n", 0), done.stderr[-3000:]
