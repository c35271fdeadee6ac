"""Killed at random moments, alone or beside another run: nothing lost, nothing double.

Real ``usms run`` processes over several days of a table that grows on the way. SIGKILL may come
while they ask, log, fold and publish at once, which ``test_plug``'s kills, step by step, are too
small for. Afterwards a run to the end leaves what an undisturbed one does.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.account import Account
from tests.plug import verdict
from tests.processes import account_now, ended, old_messages, started, usms
from usms_pipeline.days import log
from usms_pipeline.simulator import Faults
from usms_pipeline.simulator.simulator import ids_of

pytestmark = pytest.mark.long

KILLS = int(os.environ.get("KILLS", "6"))
SEED = int(os.environ.get("KILLS_SEED", SystemRandom().randrange(10_000)))
"""Draws the table and the moments of the kills; where a process is by then, it can't repeat."""

MESSAGES = 10_000
LOST_SECONDS = 1.2
"""What a kill may lose: the answers of a block that is not on disk yet, and those in flight."""
_TOGETHER = 0.25
"""In this share of the turns another run goes on beside the one that is killed."""
_AT_FIRST = 0.5
"""This share of the sessions is in the table when a data directory is begun."""
_STARTING_SECONDS = 0.3
_SHARE = 0.6
"""Within this share of what an undisturbed run takes the kill comes: half of the table is there."""


@dataclass
class Heard:
    """What the service was asked about, and when; and when a process was killed."""

    asked: list[tuple[float, tuple[str, ...]]] = field(default_factory=list)
    kills: list[float] = field(default_factory=list)

    def listen_to(self, service: Any) -> None:
        """Write down from now on what a simulator is asked."""
        answer = service.answer

        def heard(query: bytes, *more: Any) -> Any:
            self.asked.append((time.monotonic(), tuple(ids_of(query))))
            return answer(query, *more)

        service.answer = heard

    @property
    def again(self) -> int:
        """Count the times that a session was asked about once more."""
        times = Counter(one for _, ids in self.asked for one in ids)
        return times.total() - len(times)

    @property
    def allowed(self) -> int:
        """Count what was asked in the last moments before the kills."""
        return sum(
            len(ids)
            for killed in self.kills
            for at, ids in self.asked
            if killed - LOST_SECONDS <= at <= killed
        )


@dataclass
class Turns:
    """An account whose runs are killed, and what that came to."""

    account: Account
    messages: pa.Table
    rng: Random
    heard: Heard
    seconds: float = 0.0
    """What an undisturbed run takes."""
    killed: int = 0
    beside: int = 0
    directories: int = 0
    again: int = 0
    allowed: int = 0

    @property
    def data(self) -> Path:
        return self.account.folder / "data"

    def undisturbed(self) -> verdict.Seen:
        """Run once over the whole table."""
        self.account.announce(self.messages)
        begun = time.monotonic()
        assert usms(self.account, "run", "--all").code == 0
        self.seconds = time.monotonic() - begun
        assert self.heard.again == 0
        return self._looked_at()

    def one_directory(self, most: int, expected: verdict.Seen) -> None:
        """Begin anew, kill runs until two of them came to their ends, and compare."""
        shutil.rmtree(self.data)
        self.heard.asked.clear()
        self.heard.kills.clear()
        self.directories += 1
        for table in (_some(self.messages, self.rng), self.messages):
            self.account.announce(table)
            while len(self.heard.kills) < most and self._is_killed():
                pass
        last = usms(self.account, "run", "--all")
        assert last.code == 0, last
        found = self._looked_at()
        assert found.rows == expected.rows
        assert found.buckets == expected.buckets
        assert found.told == expected.told
        self.again += self.heard.again
        self.allowed += self.heard.allowed
        assert self.heard.again <= self.heard.allowed

    def _is_killed(self) -> bool:
        """Take a turn; return whether its run was killed before it ended."""
        runs = [started(self.account, "run", "--all")]
        if self.rng.random() < _TOGETHER:
            time.sleep(self.rng.uniform(0, 1))
            runs.append(started(self.account, "run", "--all"))
            self.rng.shuffle(runs)
        victim, *others = runs
        is_killed = self._killed(victim)
        for other in others:
            it = ended(other)
            assert it.code == 0, it
        self.beside += is_killed and bool(others)
        return is_killed

    def _killed(self, victim: subprocess.Popen[str]) -> bool:
        try:
            victim.wait(self.rng.uniform(_STARTING_SECONDS, _SHARE * self.seconds))
        except subprocess.TimeoutExpired:
            victim.kill()
        at, it = time.monotonic(), ended(victim)
        if it.code == -signal.SIGKILL:
            self.heard.kills.append(at)
            self.killed += 1
            return True
        assert it.code == 0, it
        return False

    def _looked_at(self) -> verdict.Seen:
        """Return what the dataset and the published file have; all else must be in order."""
        pipeline = self.account.pipeline
        assert usms(self.account, "check", "--json").code == 0
        assert pipeline.conservation() == []
        found = verdict.seen(self.account.folder)
        assert found.published == found.all_rows
        assert found.quarantine == Counter()
        assert log.open_runs(pipeline.store) == []
        assert verdict.hidden(self.data) == []
        assert list(self.data.glob(".locks/responses/*")) == []
        return found


@pytest.fixture
def turns(tmp_path: Path, simulator: Any) -> Turns:
    rng = Random(SEED)
    messages = _table(rng)
    account = account_now(
        tmp_path / "account", simulator, messages, batch_size=10, max_concurrency=12
    )
    account.service.faults = Faults.parse("latency_seconds=0.1,missing=0.05,unknown_words=0.02")
    heard = Heard()
    heard.listen_to(account.service)
    return Turns(account, messages, rng, heard)


def test_killed_at_random_moments_it_ends_as_if_undisturbed(turns):
    print(f"KILLS={KILLS} KILLS_SEED={SEED}")
    begun = time.monotonic()
    expected = turns.undisturbed()
    while turns.killed < KILLS:
        turns.one_directory(KILLS - turns.killed, expected)
    print(
        f"{turns.killed} kills, {turns.beside} of them beside another run, in "
        f"{turns.directories} data directories of {len(turns.messages):,} messages "
        f"({time.monotonic() - begun:.0f} s, undisturbed {turns.seconds:.1f} s); asked again "
        f"{turns.again:,}, at most {turns.allowed:,}"
    )


def _table(rng: Random) -> pa.Table:
    """Return messages of several days, some in sessions of several; a few name no phone."""
    messages = old_messages(
        MESSAGES, days=4.5, seed=rng.randrange(1000), group_share=0.3, group_size=5
    )
    is_blank = np.random.default_rng(rng.randrange(1000)).random(len(messages)) < 0.05
    phones = pc.if_else(pa.array(is_blank), pa.scalar(None, pa.string()), messages["phone"])
    return messages.set_column(messages.schema.get_field_index("phone"), "phone", phones)


def _some(messages: pa.Table, rng: Random) -> pa.Table:
    """Return the rows of some sessions, drawn at random."""
    sessions = messages["session_no"].unique().to_pylist()
    drawn = pa.array(rng.sample(sessions, int(_AT_FIRST * len(sessions))))
    return messages.filter(pc.is_in(messages["session_no"], value_set=drawn))
