"""What could not be used: kept until it was used or dismissed, told once, replayed honestly."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.account import Account
from tests.test_fold import DAY, NOON, Place, answer, one_session
from usms_pipeline import pipeline, quarantine, schema, storage
from usms_pipeline.errors import Busy
from usms_pipeline.simulator import Faults


def bad_items(place: Place, hour: int) -> None:
    at = NOON + timedelta(hours=hour)
    place.land([answer(at, [{"SessionNo": "s1", "Receipt": "nonsense"}], ["s1"])])


def replay(place: Place) -> int:
    return pipeline.Pipeline(place.settings).replay()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = Place(tmp_path, phone_key=b"0123456789abcdef".hex())
    found.book = pipeline.Pipeline(found.settings).book
    one_session(found)
    return found


def test_the_same_bad_item_in_every_answer_is_one_entry(place: Place) -> None:
    for hour in range(5):
        bad_items(place, hour)
        place.fold()
    assert len(quarantine.entries(place.store)) == 1


def test_two_answers_that_cannot_be_read_are_two_entries(place: Place) -> None:
    """Two batches asked in the same moment may get the same page of an error."""
    odd = {"verdict": "unreadable", "body": b"<html>", "reason": "not JSON"}
    place.land([answer(NOON, [], [session]) | odd for session in ("s1", "s2")])
    place.fold()
    assert sorted(e.ids for e in quarantine.entries(place.store)) == [("s1",), ("s2",)]


def test_what_is_still_bad_stays_open_after_a_replay(place: Place) -> None:
    bad_items(place, 1)
    place.fold()
    replay(place)
    [entry] = quarantine.entries(place.store)
    assert entry.kind == "bad_item"


def test_what_can_be_read_now_is_replayed(place: Place) -> None:
    """As with a version that reads what an older one could not."""
    place.land([answer(NOON, [], ["s1"])])
    place.fold()
    row = dict.fromkeys(schema.QUARANTINE.names) | {
        "id": "old", "kind": "bad_item", "asked_at": NOON, "ids": ["s1"], "body": b"{}",
        "state": "open",
    }  # fmt: skip
    table = pa.Table.from_pylist([row], schema.QUARANTINE)
    quarantine.add(place.store, DAY, table, place.book.fingerprint)
    assert replay(place) == 1
    assert quarantine.entries(place.store) == []
    assert [entry.state for entry in quarantine.entries(place.store, None)] == ["replayed"]


def test_a_replay_says_that_another_process_publishes(place: Place) -> None:
    bad_items(place, 1)
    place.fold()
    with place.store.lock("warehouse"), pytest.raises(Busy, match="publishing the warehouse"):
        replay(place)
    assert replay(place) == 1


def test_a_replay_that_is_killed_loses_no_entry(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad_items(place, 1)
    place.fold()
    before = quarantine.entries(place.store)
    publish, calls = storage.publish_file, 0

    class Killed(BaseException):
        pass

    for last in range(1, 20):
        calls = 0

        def die(temporary: Path, final: Path, last: int = last) -> None:
            nonlocal calls
            calls += 1
            if calls == last:
                raise Killed
            publish(temporary, final)

        monkeypatch.setattr(storage, "publish_file", die)
        try:
            replay(place)
            break
        except Killed:
            assert quarantine.entries(place.store) == before
    assert last > 2, "nothing was written"


def test_an_entry_of_a_partition_that_is_held_stays_open(place: Place) -> None:
    bad_items(place, 1)
    place.fold()
    with place.store.lock(f"sent_date={DAY}"):
        with pytest.raises(Busy, match=str(DAY)):
            replay(place)
        with pytest.raises(Busy, match=str(DAY)):
            pipeline.Pipeline(place.settings).dismiss()
    assert len(quarantine.entries(place.store)) == 1


def test_dismissed_is_for_good(place: Place) -> None:
    bad_items(place, 1)
    place.fold()
    pipeline.Pipeline(place.settings).dismiss()
    bad_items(place, 2)
    place.fold()
    place.fold(is_anew=True)
    assert quarantine.entries(place.store) == []


def poisoned(folder: Path, simulator: Any) -> Account:
    account = Account(folder, simulator, 60)
    poison = frozenset({account.service.sessions[7]})
    account.service.faults = replace(Faults.none(), poison_ids=poison)
    account.clock.turn(days=4)
    account.run()
    return account


def test_a_refused_session_that_gets_no_answer_stays_open(tmp_path: Path, simulator: Any) -> None:
    account = poisoned(tmp_path, simulator)
    account.given["base_url"] += "/nowhere"
    account.pipeline.replay()
    assert len(quarantine.entries(account.pipeline.store)) == 1


def test_a_session_refused_again_stays_open_and_is_one_entry(
    tmp_path: Path, simulator: Any
) -> None:
    account = poisoned(tmp_path, simulator)
    for _ in range(2):
        account.clock.turn(hours=1)
        account.pipeline.replay(entry for entry in ids(account))
        assert len(ids(account)) == 1


def ids(account: Account) -> list[str]:
    return [entry.id for entry in quarantine.entries(account.pipeline.store)]


def test_an_answer_to_a_replay_that_was_killed_is_folded_by_the_next_run(
    tmp_path: Path, simulator: Any
) -> None:
    """The partition is settled and long out of the window: nothing but the new file tells."""
    account = poisoned(tmp_path, simulator)
    account.service.faults = Faults.none()
    account.clock.turn(days=30)
    killed = account.pipeline
    killed.fold = killed.rebuild = None  # type: ignore[assignment, method-assign]
    with pytest.raises(TypeError):
        killed.replay()
    account.pipeline.run()
    assert account.sql("SELECT count(*) FROM receipts WHERE status = 'invalid'") == [(0,)]


def test_a_run_tells_of_what_it_set_aside_once(tmp_path: Path, simulator: Any) -> None:
    """Refused sessions have a sentence of their own."""
    account = Account(tmp_path, simulator, 100, options={"faults": Faults(bad_items=0.5)})
    report = account.run()
    entries = len(quarantine.entries(account.pipeline.store))
    [told] = [said for said in report.warnings if "quarantine" in said]
    assert told.startswith(f"{entries} ")
    assert "could not be used" in told
    account.service.faults = Faults(poison_ids=frozenset(account.service.sessions[:2]))
    assert [said for said in account.run().warnings if "went into quarantine" in said] == []


def test_a_run_tells_of_what_a_killed_one_had_landed(tmp_path: Path, simulator: Any) -> None:
    account = Account(tmp_path, simulator, 100, options={"faults": Faults(bad_items=0.5)})
    killed = account.pipeline
    killed.load_sessions(killed.open_window())
    killed.ask(killed.dates(killed.open_window()))
    [told] = [said for said in account.run().warnings if "quarantine" in said]
    assert told.startswith(f"{len(quarantine.entries(account.pipeline.store))} ")
