"""A data directory that can't be written, is full or goes away: a sentence, and nothing is lost.

A small disk grows a page (or a file) at a time, so that every write of a run has its turn to fail.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import usms_pipeline
from tests import processes
from tests.account import Account
from tests.examples import examples
from tests.loopback import Response, Seen, code, serving
from tests.mounts import Disk, without_the_rights_of_root
from tests.processes import account_now, old_messages, outcome, sentence, undisturbed, usms
from usms_pipeline.contract.errors import StorageError
from usms_pipeline.days import quarantine
from usms_pipeline.simulator import Faults


@pytest.mark.long
def test_a_folder_that_can_not_be_written_is_named_and_once_it_can_the_run_goes_on(
    tmp_path, simulator, monkeypatch
):
    messages = old_messages(40)
    account = account_now(tmp_path / "account", simulator, messages)
    monkeypatch.setattr(processes, "USMS", without_the_rights_of_root(processes.USMS))
    day = messages["sent_at"][-1].as_py().date()
    data = tmp_path / "account/data"
    for folder in (
        ".",
        ".locks",
        "responses",
        "responses/open",
        f"receipts/sent_date={day}",
    ):
        place = data / folder
        place.mkdir(parents=True, exist_ok=True)
        mode = place.stat().st_mode
        place.chmod(0o500)
        told = sentence(usms(account, "run", "--all"))
        assert "Permission denied" in told
        assert "USMS_DATA_DIR" in told
        assert ("Can't lock" if folder == ".locks" else folder.removeprefix(".")) in told
        place.chmod(mode)
    assert usms(account, "run", "--all").code == 0
    assert outcome(account) == undisturbed(tmp_path / "whole", simulator, messages)


@pytest.mark.long
@pytest.mark.parametrize("command", [["rates"], ["report"], ["check"], ["run"], ["plan"]])
def test_a_folder_that_can_not_be_read_is_told_in_a_sentence(
    command, tmp_path, simulator, monkeypatch
):
    account = account_now(tmp_path / "account", simulator, old_messages(5))
    monkeypatch.setattr(processes, "USMS", without_the_rights_of_root(processes.USMS))
    data = tmp_path / "account/data"
    data.mkdir(mode=0)
    told = usms(account, *command)
    data.chmod(0o700)
    assert told.code == 1
    assert "Unexpected" not in told.said + told.out
    assert "USMS_DATA_DIR" in told.said + told.out
    assert "Permission denied" in told.said + told.out


@pytest.mark.long
@pytest.mark.parametrize("command", [["rates"], ["check"]])
def test_settings_that_can_not_be_read_are_told_in_a_sentence(
    command, tmp_path, simulator, monkeypatch
):
    account = account_now(tmp_path / "account", simulator, old_messages(5))
    monkeypatch.setattr(processes, "USMS", without_the_rights_of_root(processes.USMS))
    (tmp_path / "account/.env").touch(mode=0)
    told = usms(account, *command)
    assert told.code == 2
    assert ".env: can't be read: Permission denied" in told.said + told.out


@pytest.mark.long
def test_a_disk_that_became_read_only_is_told_and_read_on(tmp_path, simulator, disk):
    messages = old_messages(40)
    account = account_now(disk.path, simulator, messages.slice(0, 30))
    assert usms(account, "run", "--all").code == 0
    rates = usms(account, "rates")
    account.announce(messages)
    disk.remount("ro")
    assert "Read-only file system" in sentence(usms(account, "run", "--all"))
    assert usms(account, "rates") == rates
    disk.remount("rw")
    account.service.add(messages.slice(30))
    assert usms(account, "run", "--all").code == 0
    assert account.pipeline.conservation(account.window.days()) == []
    assert account.sql("SELECT count(*) FROM receipts") == [(40,)]


@examples(1, "is_another_day", [False, True])
def test_a_data_directory_that_goes_away_in_a_run_is_told_and_nothing_is_published(
    tmp_path, simulator, is_another_day
):
    """Also where the days that this run writes are new, and could be written in another place."""
    messages = old_messages(20, days=0.5)
    first, last = (messages.slice(n, 10) for n in (0, 10))
    if is_another_day:
        at = pc.subtract(first["sent_at"], pa.scalar(timedelta(days=3)))
        first = first.set_column(6, "sent_at", at.cast(first["sent_at"].type))
    messages = pa.concat_tables([first, last])
    account = account_now(tmp_path / "account", simulator, messages)
    account.given["warehouse"] = str(tmp_path / "elsewhere.duckdb")
    account.announce(first)
    account.run()
    published = (tmp_path / "elsewhere.duckdb").read_bytes()
    account.announce(messages)

    def goes_away(seen: Seen) -> Response:
        (tmp_path / "account/data").rename(tmp_path / "aside")
        return code(215393, "no")

    with serving(goes_away) as server:
        real, account.given["base_url"] = account.given["base_url"], server.url
        with pytest.raises(StorageError, match="is gone from the data directory"):
            account.run()
    assert (tmp_path / "elsewhere.duckdb").read_bytes() == published
    shutil.rmtree(tmp_path / "account/data", ignore_errors=True)
    (tmp_path / "aside").rename(tmp_path / "account/data")
    account.given["base_url"] = real
    account.run()
    assert outcome(account) == undisturbed(tmp_path / "whole", simulator, messages)


NO_ROOM = "No space left on device"
_NAMED = re.compile(r"Can't .*? '(?P<name>[^']+)'")


def refused(account: Account) -> Account:
    """Let the service refuse some of the account's sessions, for the quarantine to have some."""
    poison = frozenset(account.service.sessions[7:40:8])
    account.service.faults = replace(Faults(), poison_ids=poison)
    return account


def told_while_it_grows(
    disk: Disk, account: Account, sizes: Iterable[int], hold: Callable[[int], None]
) -> list[str]:
    """Run on a disk that grows until a run ends well; gives what each failure said."""
    said, readable = [], 0
    for size in sizes:
        hold(size)
        landed = account.pipeline.store.names("responses")
        try:
            account.run()
        except StorageError as error:
            said.append(str(error))
        else:
            return said
        assert [name for name in disk.files if "/." in name] == [], f"left over at {size}"
        assert set(landed) <= set(account.pipeline.store.names("responses"))
        before, readable = readable, rows(account)
        assert before <= readable, "what could be read still can"
        assert account.pipeline.conservation() == []
    raise AssertionError(f"never enough room: {said[-1]}")


def rows(account: Account) -> int:
    files = (Path(account.given["data_dir"]) / "receipts").glob("*/*.parquet")
    return sum(pq.read_table(file, partitioning=None).num_rows for file in files)


def phase(said: str) -> str:
    """Return what could not be written."""
    match = _NAMED.match(said)
    assert match, said
    return match["name"].split("/")[-1 if match["name"].startswith("/") else 0]


@pytest.mark.long
def test_wherever_the_disk_gets_full_a_sentence_says_so_and_with_room_the_run_goes_on(
    tmp_path, simulator, disk
):
    messages = old_messages(60)
    whole = refused(account_now(tmp_path / "whole", simulator, messages))
    whole.run()
    small = refused(account_now(disk.path, simulator, messages))
    said = told_while_it_grows(disk, small, [*range(1, 60), *range(60, 900, 40)], disk.hold_pages)
    assert outcome(small) == outcome(whole)
    assert len(quarantine.entries(small.pipeline.store)) == len(
        quarantine.entries(whole.pipeline.store)
    )
    assert all(NO_ROOM in one and "has room (USMS_" in one for one in said)
    assert {"receipts", "responses", "usms.duckdb"} <= set(map(phase, said))


@pytest.mark.long
def test_wherever_the_disk_can_hold_no_more_files_a_sentence_says_so_and_the_run_goes_on(
    tmp_path, simulator, disk
):
    """The key, the locks and the folders take no page, but a file each."""
    messages = old_messages(20)
    small = account_now(disk.path, simulator, messages)
    del small.given["phone_key"]
    said = told_while_it_grows(disk, small, range(1, 99), disk.hold_files)
    key = (disk.path / "data/phone.key").read_text().strip()
    assert outcome(small) == undisturbed(tmp_path, simulator, messages, phone_key=key)
    assert all(NO_ROOM in one for one in said)
    assert {"phone.key", "sent_date=", "receipts", "responses"} <= {
        re.sub(r"\d.*", "", phase(one)) for one in said
    }


@pytest.mark.long
def test_on_a_full_disk_every_command_says_so_and_what_is_published_can_be_read(
    tmp_path, simulator, disk
):
    account = refused(account_now(disk.path, simulator, old_messages(40)))
    account.run()
    session = account.service.sessions[0]
    before, rates = disk.files, usms(account, "rates")
    disk.hold_pages(0)
    for command, name in {
        ("report",): "report.html",
        ("rebuild",): "receipts/",
        ("quarantine", "dismiss", "--all"): "quarantine/",
        ("forget", "--yes", "--session", session): "forgotten.json",
    }.items():
        told = sentence(usms(account, *command))
        assert f"Can't write '{name}" in told
        assert NO_ROOM in told
        assert "USMS_DATA_DIR" in told
        assert disk.files == before
    assert usms(account, "rates") == rates
    assert usms(account, "run", "--all").code == 0, "nothing to write, nothing to complain about"
    with usms_pipeline.connect(data_dir=account.given["data_dir"]) as con:
        assert con.execute("SELECT count(*) FROM receipts").fetchall() == [(40,)]
