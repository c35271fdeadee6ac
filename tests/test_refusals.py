"""A service that refuses everything: a setting is wrong, and nothing is `invalid` for ever."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.account import Account
from tests.examples import examples
from usms_pipeline.contract.errors import ServiceDown
from usms_pipeline.days import quarantine
from usms_pipeline.service.collect import Patience
from usms_pipeline.simulator import Faults


def account_refusing(folder: Path, simulator: Any, share: float) -> tuple[Account, int]:
    account = Account(folder, simulator, 600, max_concurrency=1, batch_size=20)
    account.clock.turn(days=4)
    numbers = list(account.service.sessions)
    bad = frozenset(numbers[: int(len(numbers) * share)])
    account.service.faults = replace(Faults(), poison_ids=bad)
    return account, len(bad)


def test_nothing_but_refusals_stops_the_run_and_nothing_of_it_counts(
    tmp_path: Path, simulator: Any
) -> None:
    account, count = account_refusing(tmp_path, simulator, 1.0)
    with pytest.raises(ServiceDown, match=f"all {count:,} session.*USMS_SESSION_COLUMN") as caught:
        account.run()
    stats = caught.value.stats
    assert (stats.ids_refused, stats.ids_answered, stats.ids_given_up) == (0, 0, count)
    assert stats.requests < count, "it went on looking for the bad ids"
    assert account.sql("SELECT DISTINCT status FROM receipts") == [("pending",)]
    assert quarantine.entries(account.pipeline.store) == []


@examples(1, "share", [0.02, 0.5])
def test_many_bad_numbers_among_good_ones_are_invalid_at_last(
    tmp_path: Path, simulator: Any, share: float
) -> None:
    """Also where the oldest are all bad, so that no good answer comes before them."""
    account, count = account_refusing(tmp_path, simulator, share)
    for _ in range(20):
        if not account.run().fell_short:
            break
    query = "SELECT count(DISTINCT session_no) FROM receipts WHERE status = 'invalid'"
    assert account.sql(query) == [(count,)]
    assert account.sql("SELECT count(*) FROM receipts WHERE status = 'pending'") == [(0,)]


def test_a_replay_asks_about_nothing_but_refused_numbers(tmp_path: Path, simulator: Any) -> None:
    """That all of them are refused still is no sign of a wrong setting; the rest is tried too."""
    account, count = account_refusing(tmp_path, simulator, 0.1)
    while account.run().fell_short:
        pass
    assert count > Patience().most_refusals_alone
    store = account.pipeline.store
    before = {entry.id for entry in quarantine.entries(store)}
    account.clock.turn(hours=1)
    assert account.pipeline.replay() == count
    after = {entry.id for entry in quarantine.entries(store)}
    assert len(after) == count
    assert not after & before, "a refusal is the answer to a question of its own"
    account.service.faults = Faults()
    assert account.pipeline.replay() == count
    assert quarantine.entries(store) == []
