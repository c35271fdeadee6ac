"""What could not be used: kept until it was used or dismissed, told once, replayed honestly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.account import Account
from tests.scripted import DAY, NOON, PHONE, Scripted, receipt
from usms_pipeline.contract import schema
from usms_pipeline.contract.errors import Busy
from usms_pipeline.days import log, quarantine
from usms_pipeline.days.quarantine import Entry, Quarantine
from usms_pipeline.simulator import Faults


@pytest.fixture
def account(tmp_path: Path) -> Scripted:
    """A session about which the service says nothing that makes sense."""
    account = Scripted(tmp_path, poll_minutes="5,60,120,180,200")
    account.row("s1", NOON, PHONE)
    account.says["s1"] = "nonsense"
    return account


def entries(account: Account, state: str | None = quarantine.OPEN) -> list[Entry]:
    return quarantine.entries(account.pipeline.store, state)


def test_the_same_bad_item_in_every_response_is_one_entry(account):
    for _ in range(3):
        account.refresh(hours=49)
    assert len(account.asked) == 2, "at once and at the cutoff"
    assert [entry.kind for entry in entries(account)] == ["bad_item"]


def test_two_responses_that_cannot_be_read_are_two_entries(account):
    """Two batches asked in the same moment may get the same page of an error."""
    odd = {"verdict": "unreadable", "body": b"<html>", "reason": "not JSON", "ret_code": None}
    account.row("s2", NOON, PHONE)
    account.land(*(replace(account.told(name), **odd) for name in ("s1", "s2")))
    account.refresh()
    assert sorted(entry.ids for entry in entries(account)) == [("s1",), ("s2",)]


def test_what_is_still_bad_stays_open_after_a_replay(account):
    account.refresh()
    assert account.pipeline.replay() == 1
    assert [entry.kind for entry in entries(account)] == ["bad_item"]


def test_what_can_be_read_now_is_replayed(account):
    """As with a version that reads what an older one could not."""
    account.says["s1"] = receipt()
    account.refresh()
    store = account.pipeline.store
    [run] = log.runs(store)
    row = dict.fromkeys(schema.QUARANTINE.names) | {
        "id": "old", "kind": "bad_item", "asked_at": NOON, "ids": ["s1"], "body": b"{}",
        "state": "open",
    }  # fmt: skip
    Quarantine(store).add(log.blocks(store, run)[0], pa.Table.from_pylist([row], schema.QUARANTINE))
    assert account.pipeline.replay() == 1
    assert entries(account) == []
    assert [entry.state for entry in entries(account, None)] == ["replayed"]


def test_what_is_found_in_a_block_later_stands_beside_what_was(account):
    """Two blocks have the same trouble; the one that reported it is deleted in time."""
    account.row("s2", NOON, PHONE)
    first = account.land(account.told("s1"))
    account.refresh()
    account.says["s2"] = "nonsense, too"
    account.land(account.told("s1", "s2"))
    account.refresh()
    store = account.pipeline.store
    assert len(entries(account)) == 2
    account.pipeline.dismiss([e.id for e in entries(account) if first in e.block])
    log.delete(store, first)
    quarantine.delete(store, first)
    account.rebuild()
    assert {e.session_no for e in entries(account)} == {"s1", "s2"}


def test_a_replay_says_that_another_process_publishes(account):
    account.refresh()
    with (
        account.pipeline.store.lock("warehouse"),
        pytest.raises(Busy, match="publishing the warehouse"),
    ):
        account.pipeline.replay()
    assert account.pipeline.replay() == 1


def test_an_entry_of_a_day_that_is_held_stays_open(account):
    """The session of which the service refused the number."""
    account.refused, account.says["s1"] = {"s1"}, receipt()
    account.row("s2", NOON, PHONE)
    account.refresh()
    with (
        account.pipeline.store.lock(f"sent_date={DAY}"),
        pytest.raises(Busy, match=str(DAY)),
    ):
        account.pipeline.replay()
    assert len(entries(account)) == 1
    with account.pipeline.store.lock("quarantine"), pytest.raises(Busy, match="quarantine"):
        account.pipeline.dismiss()
    account.refused = set()
    assert account.pipeline.replay() == 1
    assert entries(account) == []


def test_dismissed_is_for_good(account):
    account.refresh()
    assert account.pipeline.dismiss() == 1
    account.refresh(hours=49)
    account.rebuild()
    assert entries(account) == []
    assert len(entries(account, quarantine.DISMISSED)) == 1


def test_what_was_dismissed_stays_so_when_its_response_is_laid_out_in_another_way(account):
    body = json.loads(account.body(["s1"]))
    account.refresh()
    account.pipeline.dismiss()
    account.land(account.told("s1", hours=1, body=json.dumps(body, indent=2).encode()))
    account.refresh()
    assert entries(account) == []


def poisoned(folder: Path, simulator: Any) -> Account:
    account = Account(folder, simulator, 60)
    poison = frozenset({account.service.sessions[7]})
    account.service.faults = replace(Faults(), poison_ids=poison)
    account.clock.turn(days=4)
    account.run()
    return account


def test_a_refused_session_that_gets_no_answer_stays_open(tmp_path, simulator):
    account = poisoned(tmp_path, simulator)
    account.given["base_url"] += "/nowhere"
    account.pipeline.replay()
    assert len(entries(account)) == 1


def test_a_response_to_a_replay_that_was_killed_is_folded_by_the_next_run(
    tmp_path, simulator, monkeypatch
):
    """The day is settled and long out of the window: nothing but the open log tells."""
    account = poisoned(tmp_path, simulator)
    account.service.faults = Faults()
    account.clock.turn(days=30)

    def killed(*given: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("usms_pipeline.days.file.write", killed)
    with pytest.raises(KeyboardInterrupt):
        account.pipeline.replay()
    monkeypatch.undo()
    account.pipeline.run()
    assert account.sql("SELECT count(*) FROM receipts WHERE status = 'invalid'") == [(0,)]


def test_a_run_tells_of_what_it_set_aside_once(tmp_path, simulator):
    """Refused sessions have a sentence of their own."""
    account = Account(tmp_path, simulator, 100, options={"faults": Faults(bad_items=0.5)})
    report = account.run()
    [told] = [said for said in report.warnings if "quarantine" in said]
    assert told.startswith(f"{len(entries(account))} ")
    assert "could not be used" in told
    account.service.faults = Faults(poison_ids=frozenset(account.service.sessions[:2]))
    assert [said for said in account.run().warnings if "went into quarantine" in said] == []
