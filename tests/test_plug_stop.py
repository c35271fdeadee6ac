"""SIGTERM and Ctrl-C in every phase: one sentence, the exit code, what was received is saved."""

from __future__ import annotations

import signal
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from tests.plug.world import World

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}
PHASES = {
    "asking": ("/responses/",),
    "folding": ("/receipts/", "/quarantine/"),
    "publishing": ("/.usms.duckdb.",),
}
MOMENTS = 3
"""In each phase."""


def steps_of(steps: list[dict[str, Any]], phase: str) -> list[int]:
    """Return the steps of a phase, by the files it works on."""
    return [
        n
        for n, step in enumerate(steps, 1)
        if any(place in path for place in PHASES[phase] for path in step["paths"])
    ]


def check(plug: World, number: int, **how: Any) -> list[str]:
    """Stop a run, run it again; return what is wrong."""
    ended, amiss = plug.stopped("later_run", number, **how)
    if "at" not in how and "a moment" not in [step["what"] for step in ended.steps]:
        return amiss  # it had ended before
    lines = ended.stderr.splitlines()
    if "at" not in how:  # it may have been about to end, and to tell how it went
        lines = [line for line in lines if not line.startswith("! ")]
    is_told = len(lines) == 1 and lines[0].startswith("✗ Stopped. What was received is kept")
    if ended.code != CODES[signal.Signals(number)] or not is_told:
        amiss.append(f"{how}: exit code {ended.code}, said {ended.stderr!r}")
    return amiss


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("phase", PHASES)
def test_stopped_in_any_phase_it_says_so_in_a_sentence_and_goes_on_from_there(plug, phase, number):
    steps = steps_of(plug.undisturbed("later_run").steps, phase)
    for at in Random(phase).sample(steps, MOMENTS):
        assert check(plug, number, at=at) == []


@pytest.mark.parametrize("number", CODES)
def test_stopped_at_any_moment_it_says_so_in_a_sentence_and_goes_on_from_there(plug, number):
    seconds = plug.undisturbed("later_run").seconds
    draw = Random(number)
    for _ in range(4):
        assert check(plug, number, after_seconds=draw.uniform(0.0, 0.4 * seconds)) == []
