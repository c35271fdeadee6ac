"""The page on upkeep, followed line by line: what is backed up, moved and upgraded is whole."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from tests.account import variables
from tests.object_service import BUCKET, object_service
from tests.processes import old_messages
from tests.test_docs import ROOT, blocks, commands
from usms_pipeline.cli import app

PAGE = (ROOT / "docs/upkeep.md").read_text("utf-8")


def section(heading: str) -> list[str]:
    """Return the blocks of commands below a heading."""
    return blocks("console", re.split(r"^## ", PAGE.split(f"## {heading}\n")[1], flags=re.M)[0])


@pytest.fixture
def home(tmp_path: Path, simulator: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home folder with an account in ``sms``, after its first run."""
    (tmp_path / "sms").mkdir()
    service = simulator(old_messages(200))
    pq.write_table(service.messages, tmp_path / "sms/sent.parquet")
    given = variables(service.url, "sent.parquet", dimensions="template")
    lines = [f"{name}={value}\n" for name, value in given.items()]
    (tmp_path / "sms/.env").write_text("".join(lines))
    (tmp_path / "sms/.env").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "sms")
    asked("run", "--all")
    return tmp_path


def asked(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, f"{arguments}: {done.output}"
    return done.output


def follow(shown: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the lines of a page's blocks, each in the folder it names."""
    for words in commands(shown):
        if words[0] == "cd":
            monkeypatch.chdir(Path(words[1]).expanduser())
        elif words[0] == "usms":
            asked(*words[1:])
        else:
            line = " ".join(re.sub(r"^~", "$HOME", word) for word in words)
            line = shlex.join(words) if words[0] == "python3" else line
            subprocess.run(["bash", "-ec", line], check=True, capture_output=True)


def figures(folder: Path = Path("data")) -> list[tuple[Any, ...]]:
    """Return every published row but when it was asked about."""
    with duckdb.connect(str(folder / "usms.duckdb"), read_only=True) as con:
        return con.execute(
            "SELECT session_no, recipient, phone, sent_date, template, status, received_at "
            "FROM receipts ORDER BY ALL"
        ).fetchall()


def test_what_was_backed_up_is_restored_and_shows_the_same_figures(home, monkeypatch):
    before = figures()
    follow(section("Back up"), monkeypatch)
    (home / "sms/data").rename(home / "lost")
    follow(section("Restore"), monkeypatch)
    assert figures() == before
    assert not (home / "sms/data/responses").exists(), "nothing was asked again"
    asked("rebuild")
    asked("run")
    assert figures() == before, "though no response is kept"


@pytest.mark.long
def test_a_backup_holds_no_phone_number_and_no_key(home, monkeypatch):
    follow(section("Back up"), monkeypatch)
    (home / "out").mkdir()
    subprocess.run(["tar", "-xzf", home / "backup/sms.tar.gz", "-C", home / "out"], check=True)
    phones = pq.read_table("sent.parquet")["phone"].to_pylist()
    held = [path for path in (home / "out").rglob("*") if path.is_file()]
    assert {path.name for path in held} >= {"layout.json", "receipts.parquet"}
    texts = b"".join(path.read_bytes() for path in held)
    for path in held:
        if path.suffix == ".parquet":
            texts += str(pq.ParquetFile(path).read().to_pylist()).encode()
    key = (home / "sms/data/phone.key").read_bytes().strip()
    assert key not in texts
    assert [phone for phone in phones if phone.encode() in texts] == []


@pytest.mark.long
def test_who_was_erased_after_the_backup_is_erased_again_before_the_run(home, monkeypatch):
    follow(section("Back up"), monkeypatch)
    phone = pq.read_table("sent.parquet")["phone"][0].as_py()
    asked("forget", "--phone", phone, "--yes")
    without = figures()
    (home / "sms/data").rename(home / "lost")
    [restore] = section("Restore")
    first, last = restore.split("$ usms run")
    follow([first], monkeypatch)
    asked("forget", "--phone", phone, "--yes")
    follow([f"$ usms run{last}"], monkeypatch)
    assert figures() == without


@pytest.mark.long
def test_a_moved_folder_goes_on(home, monkeypatch):
    before = figures()
    follow(section("Move"), monkeypatch)
    assert Path.cwd() == home / "new-sms"
    assert figures() == before


@pytest.mark.long
def test_what_was_moved_to_object_storage_goes_on(home, monkeypatch):
    before, key = figures(), (home / "sms/data/phone.key").read_text().strip()
    with object_service() as service:
        for name, value in service.environment.items():
            monkeypatch.setenv(name, value)
        (home / "moved").mkdir()
        (home / "sms/data/receipts").rename(home / "moved/receipts")
        (home / "sms/data/layout.json").rename(home / "moved/layout.json")
        service.upload(home / "moved", "sms")
        monkeypatch.setenv("USMS_DATA_DIR", f"s3://{BUCKET}/sms")
        monkeypatch.setenv("USMS_PHONE_KEY", key)
        monkeypatch.setenv("USMS_WAREHOUSE", str(home / "usms.duckdb"))
        asked("check")
        assert "asked" not in asked("run", "-q")
    assert figures(home) == before


@pytest.mark.long
def test_an_installed_version_is_upgraded_and_uninstalled_as_the_page_says(home):
    """In an environment of its own, from a clone whose origin gets a new version."""
    environment = {name: value for name, value in os.environ.items() if "USMS" not in name}
    environment |= {"PATH": f"{home}/venv/bin:{environment['PATH']}", "PIP_NO_INPUT": "1"}
    environment.pop("PYTHONPATH", None)

    def shell(line: str, folder: Path = home) -> str:
        done = subprocess.run(
            ["bash", "-ec", line], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        return done.stdout

    def says(shown: list[str]) -> str:
        return "\n".join(re.sub(r"^\$ ", "", block, flags=re.M) for block in shown)

    author = "git -c user.name=us -c user.email=us@example.org commit -qam"
    shell(f"git clone -q {ROOT} origin && {sys.executable} -m venv venv")
    libraries = next((home / "venv/lib").glob("python*/site-packages"))
    (libraries / "ours.pth").write_text("\n".join(one for one in sys.path if "site-pack" in one))
    views = home / "origin/usms_pipeline/warehouse/sql/views.sql"
    new = views.read_text("utf-8")
    views.write_text(new.replace("delivery figures by local day", "figures by local day"))
    shell(f"{author} older", home / "origin")
    shell("git clone -q origin usms-pipeline && pip install -q --no-deps -e usms-pipeline")
    shell("usms run --all", home / "sms")
    comment = 'usms sql "SELECT comment FROM duckdb_views() WHERE view_name = '
    comment += "'delivery_rate_daily'\" --format csv"
    assert shell(comment, home / "sms").split("\n")[1] == "figures by local day of sending"
    before = figures(home / "sms/data")

    views.write_text(new)
    shell(f"{author} newer", home / "origin")
    shell(says(section("Upgrade")))
    assert shell(comment, home / "sms").split("\n")[1] == "delivery figures by local day of sending"
    assert figures(home / "sms/data") == before

    shell(says(section("Uninstall")))
    assert not (home / "venv/bin/usms").exists()
    assert {path.name for path in (home / "sms").iterdir()} == {"sent.parquet"}
