"""A machine's clock that goes back, or ahead and back: nothing is lost, and a sentence tells.

The service's clock goes right all the time.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.account import START, Account, Clock
from tests.processes import outcome
from usms_pipeline.days import log

pytestmark = pytest.mark.long

KEY = "0123456789abcdef" * 2


class Machine:
    """An account on a machine whose clock may be wrong by ``off``."""

    def __init__(self, folder: Path, simulator: Any) -> None:
        folder.mkdir()
        self.right = Clock()
        self.account = Account(folder, simulator, 120, phone_key=KEY)
        self.account.service.clock = self.right

    def run(self, off: timedelta = timedelta()) -> Any:
        self.account.clock.now = self.right.now + off
        report = self.account.pipeline.run(self.account.window)
        assert self.account.pipeline.conservation(self.account.window.days()) == []
        return report

    def run_to_the_end(self) -> list[tuple[Any, ...]]:
        begun = START
        for offset in self.account.settings.poll_offsets:
            self.right.now = max(self.right.now, begun + offset + timedelta(minutes=1))
            self.run()
        return outcome(self.account)


def begun(folder: Path, simulator: Any) -> tuple[Machine, list[tuple[Any, ...]]]:
    """Run a machine once; give it, and what another ends with whose clock is always right."""
    machine, undisturbed = (Machine(folder / name, simulator) for name in ("wrong", "right"))
    undisturbed.run()
    expected = undisturbed.run_to_the_end()
    machine.run()
    return machine, expected


def doubts(report: Any) -> list[str]:
    return [warning for warning in report.warnings if warning.startswith("This machine's clock")]


@pytest.mark.parametrize(
    ("back", "is_told"),
    [
        (timedelta(minutes=4), False),
        (timedelta(days=3), True),
        (START - datetime(1970, 1, 1, 5, tzinfo=UTC), True),
    ],
    ids=["minutes", "days", "1970"],
)
def test_a_clock_that_went_back_loses_nothing_and_goes_on_once_it_is_right(
    back, is_told, tmp_path, simulator
):
    machine, expected = begun(tmp_path, simulator)
    before = outcome(machine.account)
    report = machine.run(off=-back)
    assert bool(doubts(report)) == is_told
    assert report.warehouse.is_skipped
    assert outcome(machine.account) == before
    machine.right.turn(hours=1)
    assert doubts(machine.run()) == []
    assert machine.run_to_the_end() == expected


def test_what_a_clock_ahead_closed_too_early_is_told_and_opened_again_as_the_sentence_says(
    tmp_path, simulator
):
    machine, expected = begun(tmp_path, simulator)
    store = machine.account.pipeline.store
    good = set(log.runs(store))
    assert doubts(machine.run(off=timedelta(days=5))) == []
    closed = "SELECT count(*) FROM receipts WHERE is_closed"
    [(early,)] = machine.account.sql(closed)
    assert early > 0
    (told,) = doubts(machine.run())
    assert "clock says 2 Mar 2026" in told
    assert "responses of 7 Mar 2026" in told
    assert "`usms rebuild`" in told
    for run in set(log.runs(store)) - good:
        assert run.startswith("20260307T")
        log.delete(store, run)
    machine.account.pipeline.rebuild()
    assert machine.account.sql(closed) == [(0,)]
    assert doubts(machine.run()) == []
    assert machine.run_to_the_end() == expected
