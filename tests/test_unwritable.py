"""A data directory that can't be written, or goes away: a sentence, and nothing is lost."""

from __future__ import annotations

import shutil

import pytest

from tests import processes
from tests.loopback import Response, Seen, code, serving
from tests.mounts import without_the_rights_of_root
from tests.processes import (
    account_now,
    old_messages,
    outcome,
    sentence,
    undisturbed,
    usms,
)
from usms_pipeline.contract.errors import StorageError


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


def test_a_data_directory_that_goes_away_in_a_run_is_told_and_nothing_is_published(
    tmp_path, simulator
):
    messages = old_messages(20)
    account = account_now(tmp_path / "account", simulator, messages)
    account.given["warehouse"] = str(tmp_path / "elsewhere.duckdb")
    account.announce(messages.slice(0, 10))
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
