"""Temporary folders: one's own alone, and what a dead process leaves in them is soon gone."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from usms_pipeline.store.temp_folders import temp_folder

KILLED = """
import os, signal
from usms_pipeline.store.temp_folders import temp_folder
with temp_folder() as folder:
    (folder / "x").write_text("13800138000")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def folders(place: Path) -> list[str]:
    return sorted(one.name for one in place.iterdir())


def test_what_a_killed_process_left_is_gone_with_the_next_folder(place):
    command = [sys.executable, "-c", KILLED]
    done = subprocess.run(command, env=os.environ | {"TMPDIR": str(place)}, check=False)
    assert done.returncode < 0
    [left] = folders(place)
    assert (place / left / "x").read_text() == "13800138000"
    with temp_folder():
        assert left not in folders(place)


def test_a_folder_in_use_is_left_alone_and_gone_at_the_end(place):
    with temp_folder() as first, temp_folder() as second:
        assert folders(place) == sorted((first.name, second.name))
        (first / "x").write_text("x")
    assert folders(place) == []


def test_many_at_once_keep_what_is_theirs(place):
    def work(nth: int) -> bool:
        with temp_folder() as folder:
            (folder / "x").write_text(str(nth))
            return (folder / "x").read_text() == str(nth)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(400)))
    assert folders(place) == []


def test_folders_of_others_stay(place, tmp_path):
    """Without our file in them, or open to others, who may have put links there."""
    for name in ("usms-work-notes", "usms-data"):
        (place / name).mkdir(mode=0o700)
        (place / name / "x").write_text("x")
    (place / "usms-work-open").mkdir()
    (place / "usms-work-open").chmod(0o777)
    (place / "usms-work-open/in-use").touch()
    (place / "usms-work-link").symlink_to(tmp_path)
    before = folders(place)
    with temp_folder():
        pass
    assert folders(place) == before
