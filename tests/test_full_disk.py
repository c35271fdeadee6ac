"""A full disk costs a sentence: nothing is lost or left over, and with room the next run goes on.

The disk grows a page (or a file) at a time, so that every write of a run has its turn to fail.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import usms_pipeline
from tests.account import Account
from tests.mounts import Disk
from tests.processes import account_now, old_messages, outcome, sentence, undisturbed, usms
from usms_pipeline.contract.errors import StorageError
from usms_pipeline.days import quarantine
from usms_pipeline.simulator import Faults

NO_ROOM = "No space left on device"
_NAMED = re.compile(r"Can't .*? '(?P<name>[^']+)'")


def refused(account: Account) -> Account:
    """Let the service refuse some of the account's sessions, for the quarantine to have some."""
    poison = frozenset(account.service.sessions[7:40:8])
    account.service.faults = replace(Faults.none(), poison_ids=poison)
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
    """Name what could not be written."""
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
