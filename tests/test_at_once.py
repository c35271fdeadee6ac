"""Two commands at once, as real processes: one waits for nobody, none damages what the other does.

Each pair ends where one undisturbed run ends, at the latest after one run more.
"""

from __future__ import annotations

import os
import signal
import socket

import pyarrow as pa
import pytest

from tests.account import Account
from tests.processes import (
    account_now,
    ended,
    old_messages,
    outcome,
    started,
    undisturbed,
    usms,
    wait_until,
)
from usms_pipeline.simulator import Faults

SLOW = "latency_seconds=0.15"


def settled(account: Account) -> None:
    """Run once more, alone; the dataset is whole then, and the published file says the same."""
    account.service.faults = Faults()
    account.run()
    assert account.pipeline.conservation(account.window.days()) == []
    published = account.folder / "data/usms.duckdb"
    assert published.exists()


@pytest.fixture
def messages() -> pa.Table:
    return old_messages(200)


@pytest.mark.long
def test_two_runs_at_once_from_nothing_make_one_key_and_ask_about_each_session_once(
    tmp_path, simulator, messages
):
    account = account_now(tmp_path / "account", simulator, messages, batch_size=10)
    del account.given["phone_key"]
    account.service.faults = Faults.parse(SLOW)
    both = [started(account, "run", "--all") for _ in range(2)]
    assert [one.code for one in map(ended, both)] == [0, 0]
    settled(account)
    key = (account.folder / "data/phone.key").read_text().strip()
    assert outcome(account) == undisturbed(tmp_path / "whole", simulator, messages, phone_key=key)
    assert set(account.service.counters.ids_asked.values()) == {1}


@pytest.mark.long
@pytest.mark.parametrize(
    "beside",
    [("rebuild",), ("run", "--from", "{first}", "--to", "{first}"), ("report",)],
    ids=lambda words: words[0] if len(words) == 1 else "backfill",
)
def test_a_run_beside_another_command_ends_as_if_alone(beside, tmp_path, simulator, messages):
    account = account_now(tmp_path / "account", simulator, messages, batch_size=10)
    account.announce(messages.slice(0, 100))
    account.run()
    account.announce(messages)
    account.service.faults = Faults.parse("latency_seconds=1.5")
    first = messages["sent_at"][0].as_py().date()
    words = [word.format(first=first) for word in beside]
    asked = account.service.counters.requests
    with started(account, "run", "--all", max_concurrency="1") as run:
        wait_until(lambda: account.service.counters.requests > asked)
        other = usms(account, *words)
        account.service.faults = Faults()
        ran = ended(run)
    assert ran.code == 0, ran
    if beside == ("rebuild",):  # asked for whole: what it had to leave out is its shortfall
        assert other.code == 1, other
        told = other.said.splitlines()[-1]
        assert "Another run holds" in told
        assert "`usms rebuild` again" in told
    else:
        assert other.code == 0, other
        assert ("skipped." in other.said) == ("run" in beside)
    settled(account)
    assert outcome(account) == undisturbed(tmp_path / "whole", simulator, messages)
    assert set(account.service.counters.ids_asked.values()) == {1}


@pytest.mark.long
def test_a_stopped_run_holds_its_days_and_the_next_one_leaves_them_to_it(
    tmp_path, simulator, messages
):
    """And a killed one holds nothing, even if it or another host left lock files."""
    account = account_now(tmp_path / "account", simulator, messages, batch_size=10)
    account.service.faults = Faults.parse("latency_seconds=1")
    with started(account, "run", "--all", max_concurrency="1") as run:
        wait_until(lambda: account.service.counters.requests)
        run.send_signal(signal.SIGSTOP)
        second = usms(account, "run", "--all")
        run.kill()
    assert second.code == 0, second
    assert "another run is working on" in second.said
    assert "skipped." in second.said
    account.service.faults = Faults()
    for lock in (account.folder / "data/.locks").rglob("*.lock"):
        lock.write_text(f"{os.getpid()}\nanother-host-{socket.gethostname()}\n")
    third = usms(account, "run", "--all")
    assert (third.code, third.said) == (0, "")
    assert outcome(account) == undisturbed(tmp_path / "whole", simulator, messages)
