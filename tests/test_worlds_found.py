"""What the hostile world found: one fact each, in as few steps as it takes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from tests.world_account import WorldAccount
from tests.world_laws import Laws
from tests.world_ledger import Message
from tests.world_service import Script


@pytest.fixture
def account() -> Iterator[WorldAccount]:
    made = WorldAccount(("phone",))
    yield made
    made.remove()


def announce(account: WorldAccount, session: str | None, *phones: str | None, hours: float) -> None:
    """Announce a send of so many hours ago."""
    sent_at = account.clock.now - timedelta(hours=hours)
    account.ledger.messages += [Message(session, phone, 1, sent_at) for phone in phones]
    account.write_source()


def rows(account: WorldAccount) -> list[dict[str, Any]]:
    found = [row for its in account.disk.look().days.values() for row in its]
    return sorted(
        found, key=lambda row: (row["sent_at"], row["session_no"] or "", row["recipient"])
    )


def run(account: WorldAccount, script: Script | None = None, **given: Any) -> Any:
    pipeline, line = account.connect(script)
    pipeline.run(**given)
    return line


def test_a_send_to_several_that_was_asked_about_in_vain_is_asked_again_in_time(account):
    announce(account, "alpha", None, None, hours=1)
    account.service.garbled = {"alpha"}
    run(account)
    assert run(account).requests == 0
    account.clock.turn(hours=4)
    assert run(account).requests > 0


def test_what_is_set_aside_anew_of_a_block_leaves_what_was_set_aside_of_it(account):
    announce(account, "alpha", None, hours=1)
    announce(account, "bravo", None, hours=1)
    bad = {"SessionNo": "alpha", "Receipt": "nonsense"}
    account.service.sheets["alpha"] = [bad]
    run(account)
    account.connect()[0].dismiss()
    account.clock.turn(hours=3)  # the same trouble again, and one more
    account.service.sheets["bravo"] = [{"SessionNo": "bravo", "Receipt": "nonsense"}]
    run(account)
    account.connect()[0].dismiss()
    account.clock.turn(hours=22.5)
    run(account)
    [newer] = {name.split("/")[1] for name in account.disk.files() if name.startswith("quarantine")}
    assert len(account.disk.look().entries) == 1, "the first run's retention is over"
    account.connect()[0].rebuild()
    assert {one[1] for one in account.disk.look().entries} == {"alpha", "bravo"}, newer


def test_the_last_row_without_a_session_that_gets_one_is_published_once(account):
    announce(account, None, None, hours=1)
    run(account)
    account.ledger.messages[0].session_no = "alpha"
    account.write_source()
    run(account)
    assert [row["session_no"] for row in rows(account)] == ["alpha"]
    laws = Laws(account)
    laws.now = account.disk.look()
    laws.published()


def test_who_is_forgotten_is_missed_by_nobody_while_the_source_still_has_them(account):
    announce(account, "alpha", "+8613800138001", "+8613800138002", hours=1)
    announce(account, None, "+8613800138001", hours=1)
    run(account)
    account.connect()[0].forget(["13800138001"])
    assert len(rows(account)) == 1
    assert account.connect()[0].conservation() == []
    run(account)
    assert len(rows(account)) == 1
    assert account.connect()[0].conservation() == []


def test_what_can_not_be_used_and_names_who_is_forgotten_is_not_set_aside(account):
    account.connect()[0].forget(["13800138001"])
    announce(account, "alpha", None, None, hours=1)
    receipt = {"Phone": "13800138001", "Status": "delivered"}
    account.service.sheets["alpha"] = [{"SessionNo": "alpha", "Receipt": [receipt, "nonsense"]}]
    run(account)
    assert not [name for name, text in account.disk.texts().items() if "13800138001" in text]
    assert [row["status"] for row in rows(account)] == ["pending", "pending"]


def test_a_session_read_for_another_day_as_before_is_not_gone_from_its_own(account):
    account.clock.turn(hours=-8)
    announce(account, "alpha", "+8613800138001", "+8613800138002", hours=1)
    run(account)
    account.ledger.messages[0].sent_at -= timedelta(hours=1)  # before midnight
    account.write_source()
    run(account)
    announce(account, "bravo", None, hours=0)
    pipeline, _ = account.connect()
    report = pipeline.run()
    assert pipeline.conservation() == []
    assert not [said for said in report.warnings if "no longer in the source" in said]


def test_a_message_put_off_to_tomorrow_is_one_message_there(account):
    announce(account, "alpha", "+8613800138001", hours=1)
    announce(account, "bravo", None, hours=1)
    run(account)
    account.ledger.messages[0].sent_at += timedelta(hours=24)
    account.write_source()
    run(account)  # which reads today alone
    account.clock.turn(hours=24)
    run(account)
    assert [row["session_no"] for row in rows(account)] == ["bravo", "alpha"]
    assert account.connect()[0].conservation() == []


def test_a_session_in_two_days_files_is_asked_about_once(account):
    """It was put off so far that nobody looked for it where it was."""
    announce(account, "alpha", None, hours=1)
    run(account)
    account.ledger.messages[0].sent_at += timedelta(hours=70)
    account.write_source()
    account.clock.turn(hours=70.5)
    line = run(account)
    assert [given.ids for given in line.given] == [("alpha",)]
    assert account.connect()[0].conservation() == []
