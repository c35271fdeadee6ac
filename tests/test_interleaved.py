"""Another command between any two steps of a run where it holds no day.

Each step of a run tells of itself as it begins; there the other command does all of its work.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.account import START, Account
from usms_pipeline.contract.errors import Busy
from usms_pipeline.pipeline import Pipeline, Progress
from usms_pipeline.simulator import Population

KEY = "0123456789abcdef" * 2
MOST_STEPS = 40
HELD = ("responses", "receipts")
"""Phases in which the days are held: see test_at_once.py."""


@pytest.fixture
def begun(tmp_path: Path, simulator: Any) -> Account:
    """An account with a third of its messages collected, all of them past the cutoff."""
    messages = Population(45, days=1, until=START, group_share=0.1).table()
    account = Account(tmp_path, simulator, messages, phone_key=KEY, raw_retention_days=1)
    account.announce(messages.take(list(range(0, 45, 3))))
    account.clock.turn(days=10)
    account.run()
    account.clock.turn(days=2)
    account.announce(messages)
    return account


def copied(begun: Account, name: str) -> Account:
    """The same account once more, on data of its own."""
    account = copy.copy(begun)
    account.folder = begun.folder / name
    shutil.copytree(begun.folder / "data", account.folder / "data")
    account.given = begun.given | {"data_dir": str(account.folder / "data")}
    return account


def run(account: Account) -> None:
    """Its purge has something to delete too."""
    account.run()


def rebuild(account: Account) -> None:
    account.pipeline.rebuild()
    account.pipeline.publish()


def erase(account: Account) -> None:
    """One that was collected before, and one that was not."""
    sessions = [account.service.sessions[n] for n in (0, 1)]
    try:
        account.pipeline.forget([], sessions)
    except Busy:  # as it says: while another publishes, the dataset alone is changed
        account.pipeline.publish()


def outcome(account: Account) -> list[Any]:
    moments = "first_asked_at, last_asked_at, final_at"
    return account.sql(f"SELECT * EXCLUDE ({moments}) FROM receipts ORDER BY ALL")


@pytest.mark.long
@pytest.mark.parametrize("other", [run, rebuild, erase])
def test_a_command_between_any_two_steps_of_a_run_changes_nothing_of_its_end(
    other: Callable[[Account], None], begun: Account
) -> None:
    whole = copied(begun, "whole")
    whole.run()
    other(whole)
    expected, places = outcome(whole), 0
    for step in range(1, MOST_STEPS):
        account, where = copied(begun, str(step)), f"{other.__name__} at step {step}"
        before = begun.service.counters.ids_asked.copy()
        phase = run_with(account, other, step)
        if phase is None:
            break
        if phase in HELD:
            continue
        places += 1
        assert outcome(account) == expected, where
        assert account.pipeline.conservation(account.window.days()) == [], where
        assert account.pipeline.publish().is_skipped, f"{where}: the published file has it all"
        asked = begun.service.counters.ids_asked - before
        assert set(asked.values()) == {1}, where
    assert places >= 2


def run_with(account: Account, other: Callable[[Account], None], step: int) -> str | None:
    """Run, and let another command work where the run tells for the n-th time; gives the phase."""
    told = []

    def watch(progress: Progress) -> None:
        told.append(progress.phase)
        if len(told) == step and progress.phase not in HELD:
            other(account)

    Pipeline(account.settings, clock=account.clock, on_progress=watch).run(account.window)
    return told[step - 1] if len(told) >= step else None
