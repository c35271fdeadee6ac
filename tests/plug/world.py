"""One experiment: a command on a fresh copy of its folder, the plug pulled, the command again."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.plug import disk, verdict
from tests.plug.commands import Commands, Ended, commands
from tests.plug.scenarios import Scenario, Scenarios
from usms_pipeline.contract.errors import UsmsError
from usms_pipeline.simulator import serve


@dataclass(frozen=True)
class Undisturbed:
    """What a command does and leaves when nobody disturbs it."""

    steps: list[dict[str, Any]]
    seen: verdict.Seen
    seconds: float

    def moments(self, what: str) -> list[int]:
        """Return the steps after which something differs on disk.

        ``what``: in the ``tree`` as it is, in what is ``shown`` of it (hidden files apart), or in
        what a power cut would have ``left`` of it.
        """
        states = [step[what] for step in self.steps]
        return [n for n, state in enumerate(states, 1) if n == 1 or state != states[n - 2]]


@dataclass
class World:
    """The scenarios, what runs their commands, and what was found out so far."""

    scenarios: Scenarios
    commands: Commands
    root: Path
    kills: int = 0
    _made: dict[str, Scenario] = field(default_factory=dict)
    _undisturbed: dict[str, Undisturbed] = field(default_factory=dict)

    def scenario(self, name: str) -> Scenario:
        """Return a scenario, made once."""
        if name not in self._made:
            self._made[name] = getattr(self.scenarios, name)()
        return self._made[name]

    def undisturbed(self, name: str) -> Undisturbed:
        """Run a scenario's command to its end, once, and look at all it does."""
        if name not in self._undisturbed:
            scenario = self.scenario(name)
            begun = time.monotonic()
            ended = self._run(scenario, scenario.copied(self.root), is_learning=True)
            seconds = time.monotonic() - begun
            assert ended.code == 0, ended.stderr
            seen = verdict.seen(self.root, scenario.has_own_key)
            assert verdict.problems(self.root, seen, scenario) == []
            self._undisturbed[name] = Undisturbed(ended.steps, seen, seconds)
        return self._undisturbed[name]

    def killed(self, name: str, **how: Any) -> list[str]:
        """Kill the command as ``how`` (of ``Job``) says, run it again; return what is wrong."""
        scenario, expected = self.scenario(name), self.undisturbed(name)
        before = verdict.landed(scenario.copied(self.root))
        ended = self._run(scenario, self.root, **how)
        if ended.code != -signal.SIGKILL:
            assert ended.code == 0, ended.stderr
            assert "at" not in how, "it ended before its step"
            return []
        self.kills += 1
        return self._told(scenario, ended, self._recovered(scenario, expected, before))

    def cut(self, name: str, **how: Any) -> list[str]:
        """Do the same, and take from the disk what was not durable when the command was killed."""
        scenario, expected = self.scenario(name), self.undisturbed(name)
        before = verdict.landed(scenario.copied(self.root))
        ended = self._run(scenario, self.root, **how)
        assert ended.code == -signal.SIGKILL, ended.stderr
        self.kills += 1
        disk.cut(ended.beside / "durable")
        if how["at"] == len(expected.steps):  # it had ended: there is nothing to repeat
            amiss = verdict.lost(self.root, expected.seen, scenario)
        else:
            amiss = self._recovered(scenario, expected, before)
        return self._told(scenario, ended, amiss)

    def stopped(self, name: str, number: int, **how: Any) -> tuple[Ended, list[str]]:
        """Send a signal that can be caught, run the command again."""
        scenario, expected = self.scenario(name), self.undisturbed(name)
        before = verdict.landed(scenario.copied(self.root))
        ended = self._run(scenario, self.root, number=number, **how)
        return ended, self._told(scenario, ended, self._recovered(scenario, expected, before))

    def steps(self, name: str, **how: Any) -> list[dict[str, Any]]:
        """Return the steps of a command that nobody disturbs, run as ``how`` says."""
        scenario = self.scenario(name)
        return self._run(scenario, scenario.copied(self.root), **how).steps

    def _recovered(
        self, scenario: Scenario, expected: Undisturbed, before: dict[str, set[str]]
    ) -> list[str]:
        scenario.service.set_back()
        try:
            new = verdict.landed(self.root)
        except UsmsError as error:
            return [str(error)]
        landed = {one for name, ids in new.items() if name not in before for one in ids}
        again = self._run(scenario, self.root)
        amiss = [f"exit code {again.code}: {again.stderr}"] if again.code else []
        asked_again = scenario.service.asked & landed
        if asked_again and not scenario.asks_again:
            amiss.append(f"asked again though their answers had landed: {asked_again}")
        return amiss + verdict.problems(self.root, expected.seen, scenario)

    def _run(self, scenario: Scenario, root: Path, **how: Any) -> Ended:
        return self.commands(root, scenario.env, scenario.argv, **how)

    def _told(self, scenario: Scenario, ended: Ended, amiss: list[str]) -> list[str]:
        last = ended.steps[-1] if ended.steps else {"when": "before", "what": "all", "paths": []}
        paths = [path.removeprefix(str(self.root)) for path in last["paths"]]
        moment = f"{scenario.name}, {last['when']} {last['what']} {' → '.join(paths)}"
        return [f"{moment}: {one}" for one in amiss]


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """Set the stage below ``folder``."""
    with ExitStack() as running:
        (folder / "scenarios").mkdir()
        scenarios = Scenarios(
            folder / "scenarios", lambda service: running.enter_context(serve(service))
        )
        yield World(scenarios, running.enter_context(commands(folder)), folder / "root")
