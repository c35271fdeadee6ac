"""What a start loads: `usms run` and `usms --help` as real processes that say so as they end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from tests.processes import KEY, old_messages
from usms_pipeline.simulator import ACCESS_KEY_ID, ACCESS_KEY_SECRET

HEAVY = {"pandas", "altair", "vl_convert", "dagster", "httpx._main", "click", "pygments"}
CORE = {"pyarrow", "duckdb", "httpx", "numpy", "pydantic", "usms_pipeline.pipeline"}

PROGRAM = """
import atexit, sys
atexit.register(lambda: print("loaded:", *sys.modules))
from usms_pipeline.cli import main
main()
"""


def loaded_by(folder: Path, *arguments: str, **settings: str) -> set[str]:
    """Run ``usms`` in an empty environment; gives every module there is at its end."""
    environment = {name: value for name, value in os.environ.items() if "USMS_" not in name}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=folder,
        env=environment | {f"USMS_{name.upper()}": value for name, value in settings.items()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.rpartition("loaded:")[2].split())


def test_a_run_loads_neither_pandas_nor_the_command_line_of_httpx(tmp_path, simulator):
    service = simulator(old_messages(100))
    pq.write_table(service.messages, tmp_path / "messages.parquet")
    modules = loaded_by(
        tmp_path, "run", "--all",
        base_url=service.url, access_key_id=ACCESS_KEY_ID, access_key_secret=ACCESS_KEY_SECRET,
        source_url="messages.parquet", data_dir="data", phone_key=KEY,
    )  # fmt: skip
    assert (tmp_path / "data" / "usms.duckdb").exists()
    assert modules >= CORE
    assert modules & HEAVY == set()


def test_help_loads_nothing_that_it_does_not_show(tmp_path):
    modules = loaded_by(tmp_path, "--help")
    assert "typer" in modules
    # pygments it has by way of typer, which draws its help with rich.markdown
    assert modules & (HEAVY - {"pygments"} | CORE) == set()


def test_pandas_works_if_loaded_after_the_lean_start():
    """As a driver of somebody's database might."""
    program = """
import sys
from usms_pipeline.cli import lean
lean.load_pipeline()
assert "pandas" not in sys.modules
import pyarrow as pa
frame = pa.table({"a": pa.array([1, 2])}).to_pandas()
assert pa.table(frame)["a"].to_pylist() == [1, 2]
assert pa.array(frame["a"].astype("float").shift()).to_pylist() == [None, 1.0]
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_was_loaded_before_is_left_as_it_is():
    program = """
import gc, sys
import httpx, pandas, pyarrow as pa
command_line, path = httpx.main, list(sys.meta_path)
from usms_pipeline.cli import lean
lean.load_pipeline()
assert httpx.main is command_line
assert pa.table(pandas.DataFrame({"a": [1]})).num_rows == 1
assert sys.meta_path == path and gc.isenabled()
"""
    subprocess.run([sys.executable, "-c", program], check=True)
