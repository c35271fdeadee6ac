"""How long raw answers are kept, wherever they lie."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.account import Account
from usms_pipeline import quarantine
from usms_pipeline.simulator import Faults


def settled_with_a_refused_session(folder: Path, simulator: Any) -> Account:
    account = Account(folder, simulator, 60)
    poison = frozenset({account.service.sessions[7]})
    account.service.faults = replace(Faults.none(), poison_ids=poison)
    account.run_to_the_end()
    return account


def test_what_was_dismissed_is_deleted_with_the_raw_answers(tmp_path: Path, simulator: Any) -> None:
    account = settled_with_a_refused_session(tmp_path, simulator)
    account.pipeline.dismiss()
    store, rows = account.pipeline.store, account.rows()
    assert store.names("quarantine")
    account.clock.turn(days=31)
    account.run()
    assert store.names("responses") + store.names("quarantine") == []
    assert account.rows() == rows


def test_an_open_entry_keeps_its_partition_s_raw_answers(tmp_path: Path, simulator: Any) -> None:
    account = settled_with_a_refused_session(tmp_path, simulator)
    [day] = {entry.sent_date for entry in quarantine.entries(account.pipeline.store)}
    account.clock.turn(days=31)
    account.run()
    kept = [*account.pipeline.store.names("responses"), *account.pipeline.store.names("quarantine")]
    assert kept
    assert all(f"sent_date={day}" in name for name in kept)
