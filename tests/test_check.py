"""What ``usms check`` says of what is stored: buckets, quarantine, who may read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.account import Account
from usms_pipeline import dataset, quarantine, settings
from usms_pipeline.cli import check
from usms_pipeline.errors import SettingsError, UsmsError
from usms_pipeline.simulator import Faults


def test_check_counts_every_recipient_in_its_bucket(tmp_path: Path, simulator: Any) -> None:
    account = Account(tmp_path, simulator, 60)
    account.run()
    [(state, said)] = check._dataset(account.settings)
    announced = sum(account.sql("SELECT count(*) FROM receipts WHERE is_announced")[0])
    assert (state, said) == ("ok", f"{announced} recipients announced, each in one bucket")


def test_check_names_the_day_of_a_lost_row_and_the_remedy(tmp_path: Path, simulator: Any) -> None:
    account = Account(tmp_path, simulator, 60)
    account.run()
    store = account.pipeline.store
    name = store.names("receipts")[0]
    store.write(name, store.read(name).slice(1), store.metadata(name))
    with pytest.raises(UsmsError, match=f"{dataset.partition_of(name)}: .*`usms rebuild --from"):
        list(check._dataset(account.settings))


def test_check_names_the_day_whose_receipts_are_damaged(tmp_path: Path, simulator: Any) -> None:
    """As by a disk that gives back other bytes; the end, which is read first, is whole."""
    account = Account(tmp_path, simulator, 60)
    account.run()
    name = account.pipeline.store.names("receipts")[0]
    file = tmp_path / "data" / name
    body = file.read_bytes()
    footer = int.from_bytes(body[-8:-4], "little") + 8
    file.write_bytes(body[:4] + bytes(len(body) - 4 - footer) + body[-footer:])
    day = dataset.partition_of(name)
    with pytest.raises(UsmsError, match=f"{name} is damaged: run `usms rebuild --from {day}"):
        list(check._dataset(account.settings))
    account.pipeline.rebuild([day])
    assert [state for state, _ in check._dataset(account.settings)] == ["ok"]


def test_check_does_not_take_rows_not_asked_about_yet_for_lost_ones(
    tmp_path: Path, simulator: Any
) -> None:
    account = Account(tmp_path, simulator, 60)
    account.pipeline.load_sessions(account.window)
    _, (state, said) = check._dataset(account.settings)
    assert state == "warning"
    assert "not counted yet: `usms run`" in said


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
    told = account.pipeline.load_sessions(account.window).warnings
    assert "USMS_SESSION_COLUMN" in told[0]
    [warned] = [said for state, said in check._source(account.settings) if state == "warning"]
    assert "phone look like phone numbers" in warned


def test_one_column_is_not_both_session_and_phone() -> None:
    with pytest.raises(SettingsError, match="USMS_SESSION_COLUMN: names the same column"):
        settings.load(session_column="phone", phone_column="phone")
