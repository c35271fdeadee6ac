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
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

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


class Turns:
    """An account whose runs are killed: what its service was asked and when, and the kills."""

    def __init__(self, folder: Path, simulator: Any) -> None:
        self.rng = Random(SEED)
        self.messages = _table(self.rng)
        self.account = account_now(
            folder, simulator, self.messages, batch_size=10, max_concurrency=12
        )
        self.data, service = folder / "data", self.account.service
        service.faults = Faults.parse("latency_seconds=0.1,missing=0.05,unknown_words=0.02")
        self.asked: list[tuple[float, list[str]]] = []
        self.kills: list[float] = []
        self.tally = Counter[str]()
        answer = service.answer

        def heard(query: bytes, *more: Any) -> Any:
            self.asked.append((time.monotonic(), ids_of(query)))
            return answer(query, *more)

        service.answer = heard

    def undisturbed(self) -> verdict.Seen:
        """Run once over the whole table."""
        begun = time.monotonic()
        assert usms(self.account, "run", "--all").code == 0
        self.seconds = time.monotonic() - begun
        assert self._again() == 0
        return self._looked_at()

    def one_directory(self, most: int, expected: verdict.Seen) -> None:
        """Start over, kill runs until two of them came to their ends, and compare."""
        shutil.rmtree(self.data)
        self.asked, self.kills = [], []
        for table in (_some(self.messages, self.rng), self.messages):
            self.account.announce(table)
            while len(self.kills) < most and self._is_killed():
                pass
        last = usms(self.account, "run", "--all")
        assert last.code == 0, last
        again = self._again()  # before check asks the service whether it knows some sessions
        found = self._looked_at()
        for name in ("rows", "buckets", "told"):
            assert getattr(found, name) == getattr(expected, name)
        allowed = sum(
            len(ids)
            for killed in self.kills
            for at, ids in self.asked
            if killed - LOST_SECONDS <= at <= killed
        )
        assert again <= allowed
        self.tally += Counter(kills=len(self.kills), directories=1, again=again, allowed=allowed)

    def _again(self) -> int:
        """Count the times that a session was asked about once more."""
        times = Counter(one for _, ids in self.asked for one in ids)
        return times.total() - len(times)

    def _is_killed(self) -> bool:
        """Play a turn; return whether its run was killed before it ended."""
        runs = [started(self.account, "run", "--all")]
        if self.rng.random() < _TOGETHER:
            time.sleep(self.rng.uniform(0, 1))
            runs.append(started(self.account, "run", "--all"))
            self.rng.shuffle(runs)
        victim, *others = runs
        try:
            victim.wait(self.rng.uniform(_STARTING_SECONDS, _SHARE * self.seconds))
        except subprocess.TimeoutExpired:
            victim.kill()
        at, *codes = time.monotonic(), *(ended(one).code for one in (victim, *others))
        assert codes[0] in (0, -signal.SIGKILL)
        assert not any(codes[1:])
        if codes[0] == 0:
            return False
        self.kills.append(at)
        self.tally["beside"] += len(others)
        return True

    def _looked_at(self) -> verdict.Seen:
        """Return what the dataset and the published file have; all else must be in order."""
        pipeline = self.account.pipeline
        assert usms(self.account, "check", "--format", "json").code == 0
        assert pipeline.conservation() == []
        found = verdict.seen(self.account.folder)
        assert found.published == found.all_rows
        assert found.quarantine == Counter()
        assert log.open_runs(pipeline.store) == []
        assert verdict.hidden(self.data) == []
        assert list(self.data.glob(".locks/responses/*")) == []
        return found


def test_killed_at_random_moments_it_ends_as_if_undisturbed(tmp_path, simulator):
    print(f"KILLS={KILLS} KILLS_SEED={SEED}")
    turns = Turns(tmp_path / "account", simulator)
    expected = turns.undisturbed()
    while turns.tally["kills"] < KILLS:
        turns.one_directory(KILLS - turns.tally["kills"], expected)
    print(dict(turns.tally))


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
