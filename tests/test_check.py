"""What ``usms check`` says of what is stored: buckets, quarantine, who may read it."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.account import Account
from usms_pipeline import settings
from usms_pipeline.cli import check
from usms_pipeline.contract.errors import KeyMismatch, SettingsError, StorageError, UsmsError
from usms_pipeline.days import file, log, quarantine
from usms_pipeline.simulator import Faults


def last_day(account: Account) -> date:
    """Return the day that most of an account's messages were sent on."""
    store = account.pipeline.store
    return max(file.days(store), key=lambda day: getattr(file.footer(store, day), "rows", 0))


def test_check_counts_every_recipient_and_those_that_wait(tmp_path: Path, simulator: Any) -> None:
    account = Account(tmp_path, simulator, 60)
    account.run()
    [(state, said)] = check._dataset(account.settings)
    [(announced,)] = account.sql("SELECT count(*) FROM receipts WHERE is_announced")
    [(waiting,)] = account.sql("SELECT count(*) FROM receipts WHERE NOT is_final AND NOT is_closed")
    assert (state, said) == (
        "ok", f"{announced} recipients, all accounted for; {waiting} waiting for a receipt"
    )  # fmt: skip


def test_check_names_the_day_of_a_lost_row_and_the_remedy(tmp_path: Path, simulator: Any) -> None:
    account = Account(tmp_path, simulator, 60)
    account.run()
    day, store = last_day(account), account.pipeline.store
    name = file.name(day)
    store.write(name, store.read(name).slice(1), store.metadata(name))
    with pytest.raises(UsmsError, match=f"{day}: .*`usms rebuild --from {day} --to {day}`"):
        list(check._dataset(account.settings))


def test_check_names_the_day_that_is_damaged_and_the_remedy_works(
    tmp_path: Path, simulator: Any
) -> None:
    """As by a disk that gives back other bytes; the end, which is read first, is whole."""
    account = Account(tmp_path, simulator, 60)
    account.run()
    day = last_day(account)
    path = tmp_path / "data" / file.name(day)
    body = path.read_bytes()
    footer = int.from_bytes(body[-8:-4], "little") + 8
    path.write_bytes(body[:4] + bytes(len(body) - 4 - footer) + body[-footer:])
    with pytest.raises(UsmsError, match=f"The file of {day} is damaged.*`usms rebuild --from"):
        list(check._dataset(account.settings))
    account.pipeline.rebuild([day])
    assert [state for state, _ in check._dataset(account.settings)] == ["ok"]


def test_check_tells_of_responses_that_a_killed_run_left(tmp_path: Path, simulator: Any) -> None:
    account = Account(tmp_path, simulator, 60)
    writer = log.Log(account.pipeline.store, account.clock)
    with writer.held():
        writer.add([])
    _, (state, said) = check._dataset(account.settings)
    assert state == "warning"
    assert said.startswith("responses of 1 run are not counted yet: `usms run` counts them")
    account.run()
    assert [state for state, _ in check._dataset(account.settings)] == ["ok"]


def test_check_compares_the_key_and_the_settings_and_makes_nothing(
    tmp_path: Path, simulator: Any
) -> None:
    account = Account(tmp_path, simulator, 60)
    assert "the first run makes" in next(check._key(account.settings))[1]
    assert not (tmp_path / "data").exists()
    account.run()
    assert [state for state, _ in check._key(account.settings)] == ["ok"]
    key_file = tmp_path / "data/phone.key"
    kept = key_file.read_text()
    account.given["phone_key"] = "ab" * 32
    with pytest.raises(KeyMismatch):
        list(check._key(account.settings))
    del account.given["phone_key"]
    key_file.unlink()
    with pytest.raises(StorageError, match="There is no phone key"):
        list(check._key(account.settings))
    assert not key_file.exists()
    key_file.write_text(kept)
    account.given["timezone"] = "Asia/Shanghai"
    with pytest.raises(SettingsError, match="USMS_TIMEZONE"):
        list(check._key(account.settings))


def test_check_tells_how_many_entries_wait_in_quarantine(tmp_path: Path, simulator: Any) -> None:
    account = Account(tmp_path, simulator, 100, options={"faults": Faults(bad_items=0.5)})
    assert [state for state, _ in check._quarantine(account.settings)] == ["ok"]
    account.run()
    [(state, said)] = check._quarantine(account.settings)
    waiting = len(quarantine.entries(account.pipeline.store))
    assert state == "warning"
    assert said.startswith(f"{waiting} entr")
    assert "`usms quarantine list`" in said
    account.pipeline.dismiss()
    assert [state for state, _ in check._quarantine(account.settings)] == ["ok"]


def test_a_dotenv_that_is_no_text_is_a_problem_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_bytes(b"USMS_DATA_DIR=\xff\xfe\n")
    [finding] = check._findings()
    assert (finding.topic, finding.exit_code) == ("settings", 2)
    assert ".env: is not a text file" in finding.text


def test_session_numbers_that_are_phone_numbers_are_told_of(tmp_path: Path, simulator: Any) -> None:
    """They go to the service, and stand in what is published."""
    account = Account(tmp_path, simulator, 60)
    assert not any("phone numbers" in said for said in account.run().warnings)
    assert [state for state, _ in check._source(account.settings)] == ["ok"]
    account.given |= {"session_column": "phone", "phone_column": None}
    account.given["data_dir"] = str(tmp_path / "other")
    assert any("USMS_SESSION_COLUMN" in said for said in account.run().warnings)
    [warned] = [said for state, said in check._source(account.settings) if state == "warning"]
    assert "phone look like phone numbers" in warned


def test_one_column_is_not_both_session_and_phone() -> None:
    with pytest.raises(SettingsError, match="USMS_SESSION_COLUMN: names the same column"):
        settings.load(session_column="phone", phone_column="phone")
