"""From whole numbers to masked ones: a rebuild masks what was kept, and until then it is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.account import START, Account
from usms_pipeline import dataset
from usms_pipeline.dataset import PRIVATE, RECEIPTS, REGISTERS, SESSIONS
from usms_pipeline.phones import PhoneBook
from usms_pipeline.simulator import Population

pytestmark = pytest.mark.long

SELDOM = {"poll_minutes": "5", "poll_every_hours": 80}
WHOLE = re.compile(rb"\+\d{10,}")
TOLD = "still hold whole phone numbers"


def clear_account(folder: Path, simulator: Any, **given: Any) -> Account:
    """Settled days with whole numbers, so old that no run reads their rows again."""
    folder.mkdir(exist_ok=True)
    messages = Population(60, days=3, until=START, group_share=0.3).table()
    given = {"phones": "clear", "source_lookback_days": 1, **SELDOM, **given}
    account = Account(folder, simulator, messages, **given)
    account.run_to_the_end()
    account.clock.turn(days=10)
    account.announce(messages.slice(0, 0))  # the source forgets them, the dataset doesn't
    return account


def zones_with_whole_numbers(account: Account) -> set[str]:
    """Look at the bytes, and at what they mean where they are packed."""
    data, store = account.folder / "data", account.pipeline.store
    found = {"usms.duckdb"} if WHOLE.search((data / "usms.duckdb").read_bytes()) else set()
    for zone in (SESSIONS, REGISTERS, RECEIPTS):
        tables = [store.read(name) for name in store.names(zone)]
        shown = [table["phone"] for table in tables if "phone" in table.column_names]
        phones = [phone for column in shown for phone in column.to_pylist()]
        assert phones
        if any(WHOLE.match((phone or "").encode()) for phone in phones):
            found.add(zone)
    return found


def test_a_rebuild_masks_whole_numbers_in_every_zone(tmp_path: Path, simulator: Any) -> None:
    """Also where the raw answers were purged, and in the free blocks of the published file."""
    account = clear_account(tmp_path, simulator, raw_retention_days=5)
    assert account.pipeline.store.names("responses")
    account.run()
    assert not account.pipeline.store.names("responses"), "a rebuild starts from the registers"
    assert zones_with_whole_numbers(account) == {SESSIONS, REGISTERS, RECEIPTS, "usms.duckdb"}
    before = account.sql("SELECT * EXCLUDE (phone) FROM receipts ORDER BY ALL")
    account.given["phones"] = "masked"
    account.pipeline.rebuild()
    account.pipeline.publish()
    assert zones_with_whole_numbers(account) == set()
    assert account.sql("SELECT * EXCLUDE (phone) FROM receipts ORDER BY ALL") == before
    assert account.pipeline.conservation(account.window.days()) == []
    assert not any(TOLD in warning for warning in account.run().warnings)


def test_a_run_says_that_whole_numbers_are_left_and_masks_the_days_it_works_on(
    tmp_path: Path, simulator: Any
) -> None:
    account = clear_account(tmp_path, simulator)
    account.given["phones"] = "masked"
    days = dataset.days(account.pipeline.store, RECEIPTS)
    report = account.pipeline.run()
    [said] = [warning for warning in report.warnings if TOLD in warning]
    assert "usms rebuild" in said
    assert str(days[0]) in said
    account.pipeline.rebuild([days[0]])
    [said] = [warning for warning in account.pipeline.run().warnings if TOLD in warning]
    assert str(days[0]) not in said
    account.pipeline.fold(days)
    assert zones_with_whole_numbers(account) == {"usms.duckdb"}
    account.pipeline.publish()
    assert zones_with_whole_numbers(account) == set()


def test_check_says_that_whole_numbers_are_left(tmp_path: Path, simulator: Any) -> None:
    from usms_pipeline.cli import check

    account = clear_account(tmp_path, simulator)
    assert not [text for _, text in check._key(account.settings) if TOLD in text]
    account.given["phones"] = "masked"
    assert [text for _, text in check._key(account.settings) if TOLD in text]
    account.pipeline.rebuild()
    assert not [text for _, text in check._key(account.settings) if TOLD in text]


def test_one_partition_masked_leaves_nothing_in_free_blocks(tmp_path: Path, simulator: Any) -> None:
    """Where most days stay as they are, the published file is mended as a copy."""
    account = clear_account(tmp_path, simulator)
    days = dataset.days(account.pipeline.store, RECEIPTS)
    phones = {
        day: account.sql(f"SELECT phone FROM receipts WHERE sent_date = DATE '{day}'")
        for day in days
    }
    account.given["phones"] = "masked"
    account.pipeline.rebuild(days[:1])
    account.pipeline.publish()
    raw = (account.folder / "data/usms.duckdb").read_bytes()
    others = {phone for day in days[1:] for (phone,) in phones[day]}
    gone = {phone for (phone,) in phones[days[0]]} - others
    assert gone
    assert [phone for phone in gone if phone.encode() in raw] == []


@pytest.mark.parametrize(
    "text", ["+8613800138000", "+6591234567", "8001", "VIP", "+861380013****", "****0013800138000"]
)
def test_masking_what_was_clear_is_masking_at_once_and_masking_twice_is_masking_once(
    text: str,
) -> None:
    key = b"0123456789abcdef"
    clear, masked = PhoneBook(key, "CN", "clear"), PhoneBook(key, "CN", "masked")
    texts = pa.array([text, None])
    once = masked.remasked(clear.describe(texts).field("phone"))
    assert once.to_pylist() == masked.describe(texts).field("phone").to_pylist()
    assert masked.remasked(once).to_pylist() == once.to_pylist()


def test_private_zones_keep_whole_numbers(tmp_path: Path, simulator: Any) -> None:
    """Raw answers are the truth; they are deleted in time, never masked."""
    account = Account(tmp_path, simulator, 20, phones="clear")
    account.run()
    before = {zone: account.pipeline.store.names(zone) for zone in PRIVATE}
    account.given["phones"] = "masked"
    account.pipeline.rebuild()
    assert {zone: account.pipeline.store.names(zone) for zone in PRIVATE} == before
