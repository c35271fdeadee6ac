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
    "1 conservation: one session in twenty is lost": (
        "fold.py",
        "FROM {matched} ORDER BY",
        "FROM {matched} WHERE hash(session_no) % 20 <> 0 ORDER BY",
    ),
    "2 join: the last evidence counts": (
        "sql/registers.sql",
        "min(final) AS final",
        "max(final) AS final",
        "test_fold.py",
    ),
    "3 rebuilt: the responses are not read again": (
        "fold.py",
        "commit.folded if commit and not is_anew else",
        "commit.folded if commit else",
    ),
    "4 durable: responses are written at the end": (
        "responses.py",
        "every_responses: int = 200,\n        every_seconds: float = 5.0",
        "every_responses: int = 10**9,\n        every_seconds: float = 10**6",
    ),
    "5 readers: the published file is written over": (
        "warehouse/publish.py",
        "publish_file(temporary, path)",
        "shutil.copyfile(temporary, path)",
    ),
    "6 cost: a day is written though nothing changed": (
        "fold.py",
        "    return (\n        commit.sessions == sessions\n",
        "    return False and (\n        commit.sessions == sessions\n",
    ),
    "7 bad input: a batch with a bad id is given up": (
        "service/api.py",
        "(215392, 215396, 215397), Verdict.SPLIT",
        "(215392, 215396, 215397), Verdict.SKIP",
    ),
    "8 evidence: what nobody reported has failed": (
        "sql/receipts.sql",
        "is_done AND word_status = 'pending' THEN 'unknown'",
        "is_done AND word_status = 'pending' THEN 'failed'",
    ),
}
"""File in the package, what stands there, what is put in its place; who notices, if not the laws.

As in CI, where what hypothesis found is not shrunk: that takes minutes.
"""


@pytest.mark.parametrize("law", BREAKS)
def test_what_is_to_be_broken_is_there(law: str) -> None:
    name, old, *_ = BREAKS[law]
    text = (ROOT / "usms_pipeline" / name).read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} is not in {name} any more: break the law in another way"


@pytest.mark.long
@pytest.mark.parametrize("law", BREAKS)
def test_a_broken_law_is_noticed(law: str, tmp_path: Path) -> None:
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
