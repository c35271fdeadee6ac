"""The notebooks: stored clean, and they run from top to bottom on a published warehouse."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.made_receipts import NOW, five_days, message, publish
from tests.processes import bare_environment

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


def cells(notebook: Path, kind: str) -> list[dict[str, Any]]:
    stored = json.loads(notebook.read_text(encoding="utf-8"))
    return [cell for cell in stored["cells"] if cell["cell_type"] == kind]


def run(notebook: Path, data_dir: Path) -> subprocess.CompletedProcess[str]:
    """Run a notebook as ``pytest --nbmake`` does, on a data directory, outside of this project."""
    command = [sys.executable, "-m", "pytest", "--nbmake", "-p", "no:cacheprovider", "-q",
               "-c", os.devnull, "--rootdir", str(notebook.parent), str(notebook)]  # fmt: skip
    given = {"USMS_DATA_DIR": str(data_dir), "USMS_PHONE_KEY": "ab" * 32}
    given |= {"IPYTHONDIR": str(data_dir / ".ipython")}
    env = bare_environment() | given
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_stored_without_outputs_for_the_usual_kernel(notebook):
    for cell in cells(notebook, "code"):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        ast.parse("".join(cell["source"]))
    metadata = json.loads(notebook.read_text(encoding="utf-8"))["metadata"]
    assert metadata["kernelspec"]["name"] == "python3"
    assert "".join(cells(notebook, "markdown")[0]["source"]).startswith("# ")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_begins_with_what_to_look_at_and_ends_open(notebook):
    """The next cell that an analyst adds has a connection."""
    _, period, *others = ("".join(cell["source"]) for cell in cells(notebook, "code"))
    assert "first, last = " in period
    assert any("first, last" in other or "$first" in other for other in others)
    assert not any("con.close()" in other for other in others)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
@pytest.mark.parametrize(
    ("envs", "variable", "opened"),
    [
        ({"": "ours", "demo": "data"}, None, "ours"),
        ({"notebooks": "ours", "": "other", "demo": "data"}, None, "notebooks/ours"),
        ({"demo": "data"}, None, "demo/data"),
        ({"notebooks/demo": "data"}, None, "notebooks/demo/data"),
        ({"": "ours", "demo": "data"}, "elsewhere", "notebooks/elsewhere"),
    ],
)
def test_a_notebook_opens_what_the_settings_name_and_says_its_name_and_age(
    notebook: Path, envs: dict[str, str], variable: str | None, opened: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Wherever a demo lies beside: a .env of one's own comes first, a variable before that."""
    for folder, data_dir in envs.items():
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / ".env").write_text(f"USMS_DATA_DIR={data_dir}\n")
    places = [tmp_path / folder / data_dir for folder, data_dir in envs.items()]
    for place in {*places, tmp_path / opened}:
        place.mkdir(parents=True, exist_ok=True)
        with duckdb.connect(place / "usms.duckdb") as con:
            con.execute("CREATE TABLE receipts (n INT)")
    (tmp_path / "notebooks").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "notebooks")
    if variable:
        monkeypatch.setenv("USMS_DATA_DIR", variable)
    setup = "".join(cells(notebook, "code")[0]["source"])
    for _ in range(2):  # a cell is run again, from where the first time left
        namespace: dict[str, Any] = {}
        exec(setup, namespace)
        namespace["con"].close()
        file, said = capsys.readouterr().out.strip().split(", published ")
        assert Path(file) == tmp_path / opened / "usms.duckdb"
        assert re.fullmatch(r"0:00:\d\d ago", said)


@pytest.mark.long
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_from_top_to_bottom(notebook, tmp_path):
    publish(tmp_path, five_days(timedelta(hours=1)))
    done = run(notebook, tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "1 passed" in done.stdout


@pytest.mark.long
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_on_a_single_message_that_is_still_awaited(notebook, tmp_path):
    publish(tmp_path, [message(1, NOW, "pending", country=None, operator=None)])
    done = run(notebook, tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


@pytest.mark.long
def test_a_notebook_that_fails_would_be_noticed(tmp_path):
    done = run(NOTEBOOKS[0], tmp_path)
    assert done.returncode == 1
    assert "WarehouseMissing" in done.stdout
