"""Each law broken on purpose, in a copy of the code: `make test` must notice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BREAKS = {
    "1 conservation: the first row of every table is lost": (
        "days/file.py",
        "tally.counted(table).to_batches()",
        "tally.counted(table.slice(1)).to_batches()",
    ),
    "2 join: the last evidence counts": (
        "days/general.py",
        "known.final = min(known.final or answer, answer, key=_KEY)",
        "known.final = max(known.final or answer, answer, key=_KEY)",
        "test_general.py",
    ),
    "2 join: an outcome is taken back by a later answer": (
        "days/columns.py",
        'fits &= ~np.asarray(here["is_final"])',
        "fits &= True",
        "test_columns.py",
    ),
    "3 rebuilt: what no response is kept of is forgotten": (
        "days/rebuilding.py",
        "is_fine = np.asarray(pc.or_(is_wrong, is_kept))",
        "is_fine = np.asarray(pc.is_valid(is_kept))",
    ),
    "4 durable: responses are written at the end": (
        "days/asking.py",
        "_BLOCK_ANSWERS: Final = 200\n_BLOCK_SECONDS: Final = 1.0",
        "_BLOCK_ANSWERS: Final = 10**9\n_BLOCK_SECONDS: Final = 10.0**6",
        "test_asking.py",
    ),
    "4 durable: what a killed run was told is not folded": (
        "days/run.py",
        "for run in log.open_runs(self._store):",
        "for run in ():",
    ),
    "4 durable: a session leaves its day before it is in the other": (
        "days/writing.py",
        "for other in sorted(day.after):",
        "for other in ():",
        "test_days_run.py",
    ),
    "5 readers: the published file is written over": (
        "warehouse/publish.py",
        "publish_file(self._temporary, self._path)",
        "__import__('shutil').copyfile(self._temporary, self._path)",
    ),
    "6 cost: who has an outcome is asked about": (
        "days/file.py",
        'return table.filter(pc.invert(pc.or_(table["is_final"], table["is_closed"])))',
        'return table.filter(pc.invert(table["is_closed"]))',
    ),
    "7 bad input: a batch with a bad id is given up": (
        "service/fetch.py",
        "elif not must_wait:",
        "elif must_wait is None:",
    ),
    "8 evidence: what nobody reported has failed": (
        "days/general.py",
        '"unknown" if is_closed and status == "pending" else status',
        '"failed" if is_closed and status == "pending" else status',
    ),
}
"""File in the package, what stands there, what is put in its place; who notices, if not the laws.

As in CI, where what hypothesis found is not shrunk: that takes minutes.
"""


@pytest.mark.parametrize("law", BREAKS)
def test_the_code_that_each_break_replaces_exists_once(law):
    name, old, *_ = BREAKS[law]
    text = (ROOT / "usms_pipeline" / name).read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} is not in {name} any more: break the law in another way"


@pytest.mark.long
@pytest.mark.parametrize("law", BREAKS)
def test_a_broken_law_is_noticed(law, tmp_path):
    for folder in ("usms_pipeline", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "data")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    name, old, new, *guard = BREAKS[law]
    file = tmp_path / "usms_pipeline" / name
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(old, new), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-m", "not long and not services", f"tests/{(guard or ['test_laws.py'])[0]}"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "CI": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-1000:]
    print(law, *[line for line in done.stdout.splitlines() if line.startswith("FAILED")], sep="\n")
