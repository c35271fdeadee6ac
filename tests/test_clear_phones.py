"""From whole numbers to masked ones: what is worked on is masked, a rebuild masks the rest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.account import START, Account
from tests.scripted import NOON, OTHER, PHONE, THIRD, Scripted, receipt
from usms_pipeline.days import file
from usms_pipeline.people.phones import PhoneBook
from usms_pipeline.simulator import Population
from usms_pipeline.store.dataset import PRIVATE

SELDOM = {"poll_minutes": "5", "poll_every_hours": 80}
WHOLE = re.compile(rb"\+\d{10,}")
TOLD = "still hold unmasked phone numbers"


def clear_account(folder: Path, simulator: Any, **given: Any) -> Account:
    """Settled days with whole numbers, so old that no run reads their rows again."""
    messages = Population(60, days=3, until=START, group_share=0.3).table()
    given = {"phones": "clear", "source_lookback_days": 1, **SELDOM, **given}
    account = Account(folder, simulator, messages, **given)
    account.run_to_the_end()
    account.clock.turn(days=10)
    account.announce(messages.slice(0, 0))  # the source forgets them, the dataset doesn't
    return account


def clear_places(account: Account) -> set[str]:
    """Return where whole numbers are: look at the bytes, and at what they mean where packed."""
    data, store = account.folder / "data", account.pipeline.store
    found = {"usms.duckdb"} if WHOLE.search((data / "usms.duckdb").read_bytes()) else set()
    for day in file.days(store):
        table = pa.concat_tables(file.rows(store, day))
        if WHOLE.search(str(table.select(["phone", "_state"]).to_pylist()).encode()):
            found.add(str(day))
    return found


def test_numbers_are_shown_as_the_setting_says_whenever_it_changes(tmp_path):
    """Also those that only responses name, and in the states of sessions that are not plain."""
    account = Scripted(tmp_path)
    for session, phone in (("plain", PHONE), ("odd", PHONE), ("odd", OTHER), ("heard", None)):
        account.row(session, NOON, phone)
    account.says = {"plain": receipt(), "odd": receipt("UNDELIV", THIRD), "heard": receipt()}
    account.refresh()
    masked = account.settled()
    for phones, is_shown in (("clear", True), ("masked", False), ("clear", True)):
        account.given["phones"] = phones
        account.refresh()
        shown = str(account.sql("SELECT phone, _state FROM receipts"))
        assert (PHONE in shown, OTHER in shown) == (is_shown, is_shown)
        account.rebuild()
        assert (THIRD in str(account.rows())) == is_shown
        account.settled()
        assert (account.rows() == masked) == (not is_shown)


@pytest.mark.long
def test_a_rebuild_masks_whole_numbers_everywhere(tmp_path, simulator):
    """Also where the responses were purged, and in the free blocks of the published file."""
    account = clear_account(tmp_path, simulator, raw_retention_days=5)
    account.run()
    assert not account.pipeline.store.names("responses")
    days = {str(day) for day in file.days(account.pipeline.store)}
    assert clear_places(account) == {*days, "usms.duckdb"}
    before = account.sql("SELECT * EXCLUDE (phone, _state) FROM receipts ORDER BY ALL")
    account.given["phones"] = "masked"
    account.pipeline.rebuild()
    account.pipeline.publish()
    assert clear_places(account) == set()
    assert account.sql("SELECT * EXCLUDE (phone, _state) FROM receipts ORDER BY ALL") == before
    assert account.pipeline.conservation(account.window.days()) == []
    assert not any(TOLD in warning for warning in account.run().warnings)


@pytest.mark.long
def test_a_run_says_that_whole_numbers_are_left_and_masks_the_days_it_works_on(tmp_path, simulator):
    account = clear_account(tmp_path, simulator)
    account.given["phones"] = "masked"
    first = file.days(account.pipeline.store)[0]
    [said] = [warning for warning in account.pipeline.run().warnings if TOLD in warning]
    assert "usms rebuild" in said
    assert str(first) in said
    account.pipeline.rebuild([first])
    [said] = [warning for warning in account.pipeline.run().warnings if TOLD in warning]
    assert str(first) not in said
    account.run()
    assert clear_places(account) == set()


@pytest.mark.parametrize(
    "text", ["+8613800138000", "+6591234567", "8001", "VIP", "+861380013****", "****0013800138000"]
)
def test_masking_what_was_clear_is_masking_at_once_and_masking_twice_is_masking_once(text):
    key = b"0123456789abcdef"
    clear, masked = PhoneBook(key, "CN", "clear"), PhoneBook(key, "CN", "masked")
    texts = pa.array([text, None])
    once = masked.remasked(clear.describe(texts).field("phone"))
    assert once.to_pylist() == masked.describe(texts).field("phone").to_pylist()
    assert masked.remasked(once).to_pylist() == once.to_pylist()


def test_private_folders_keep_whole_numbers(tmp_path, simulator):
    """Responses are the truth; they are deleted in time, never masked."""
    account = Account(tmp_path, simulator, 20, phones="clear")
    account.run()
    before = {zone: account.pipeline.store.names(zone) for zone in PRIVATE}
    account.given["phones"] = "masked"
    account.pipeline.rebuild()
    assert {zone: account.pipeline.store.names(zone) for zone in PRIVATE} == before
