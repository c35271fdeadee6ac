from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from usms_pipeline.service.pace import FIRST_PACE, Breaker, BreakerLimits, Governor


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer: an hour takes as long as its events."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(selectors.SelectSelector())
        select = self._selector.select

        def jump(timeout: float | None = None) -> list[Any]:
            self.now += timeout or 0.0
            return select(0)

        self._selector.select = jump

    def time(self) -> float:
        return self.now


def simulate(main: Callable[[SimulatedLoop], Coroutine[Any, Any, Any]]) -> Any:
    loop = SimulatedLoop()
    try:
        return loop.run_until_complete(main(loop))
    finally:
        loop.close()


@dataclass
class TokenBucket:
    """A service that lets ``limit`` requests a second pass, ``burst`` at once."""

    limit: float
    burst: float

    def __post_init__(self) -> None:
        self.tokens, self.at = self.burst, 0.0

    def admits(self, now: float) -> bool:
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.limit)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@dataclass
class FixedWindow:
    """A service that lets ``limit`` requests pass in each second of the clock."""

    limit: float
    counts: dict[int, int] = field(default_factory=dict)

    def admits(self, now: float) -> bool:
        count = self.counts[int(now)] = self.counts.get(int(now), 0) + 1
        return count <= self.limit


@dataclass
class Outcome:
    pace: float
    requests: int = 0
    throttled: int = 0
    good: int = 0

    @property
    def throttled_share(self) -> float:
        return self.throttled / self.requests


def run(
    service: Any,
    seconds: float,
    from_second: float = 60,
    workers: int = 32,
    latency: float = 0.03,
    **options: Any,
) -> Outcome:
    """Ask a service for so long; the result counts from a later second on."""

    async def main(loop: SimulatedLoop) -> Outcome:
        governor = Governor(**options, clock=loop.time, sleep=asyncio.sleep)
        outcome = Outcome(0)

        async def worker() -> None:
            while loop.time() < seconds:
                sent_at = await governor.turn()
                is_good = service.admits(loop.time())
                await asyncio.sleep(latency)
                governor.good(sent_at) if is_good else governor.throttled(sent_at)
                if from_second <= sent_at < seconds:
                    outcome.requests += 1
                    outcome.throttled += not is_good
                    outcome.good += is_good

        await asyncio.gather(*(worker() for _ in range(workers)))
        outcome.pace = governor.pace
        return outcome

    return simulate(main)


@pytest.mark.parametrize("make", [lambda n: TokenBucket(n, max(1, n / 5)), FixedWindow])
@pytest.mark.parametrize("limit", [5, 50, pytest.param(500, marks=pytest.mark.long)])
def test_it_settles_at_a_hidden_limit_and_is_hardly_ever_throttled(limit, make):
    seconds = 180 if limit < 500 else 80
    outcome = run(make(limit), seconds)
    assert 0.8 * limit <= outcome.pace <= 1.2 * limit
    assert outcome.good >= 0.8 * limit * (seconds - 60)
    assert outcome.throttled_share < 0.03


def test_a_settled_pace_is_hardly_throttled_from_the_first_second():
    outcome = run(TokenBucket(50, 10), 60, from_second=0, start=45)
    assert outcome.throttled_share < 0.01
    assert outcome.good >= 0.8 * 50 * 60


def test_without_a_limit_it_grows_to_what_the_workers_can_do_and_knows_no_settled_pace():
    outcome = run(TokenBucket(1e9, 1e9), 10, from_second=5)
    assert outcome.throttled == 0
    assert outcome.good >= 0.9 * 5 * 32 / 0.03  # 32 workers, 30 ms a request
    assert Governor(clock=lambda: 0.0).settled_pace is None


def test_an_unused_pace_does_not_grow():
    """One worker at 10 requests a second says nothing about 1,000 a second."""
    outcome = run(TokenBucket(1e9, 1e9), 120, workers=1, latency=0.1)
    assert FIRST_PACE <= outcome.pace <= 50


@pytest.mark.parametrize("start", [None, 5, 500])
def test_the_ceiling_is_never_exceeded(start):
    outcome = run(TokenBucket(1e9, 1e9), 60, from_second=0, ceiling=20, start=start)
    assert outcome.requests <= 20 * 60 + 1
    assert outcome.requests >= (0.9 if start != 5 else 0.5) * 20 * 60


def test_it_comes_back_within_half_a_minute_after_an_outage():
    """Everything is throttled for ten seconds; the limit before and after is 200 a second."""

    class Outage(TokenBucket):
        def admits(self, now):
            return super().admits(now) and not 100 <= now < 110

    outcome = run(Outage(200, 40), 170, from_second=140)
    assert outcome.good >= 0.5 * 200 * 30


@pytest.mark.long
def test_it_follows_a_limit_that_comes_down():
    class Falling(TokenBucket):
        def admits(self, now):
            self.limit = 200 if now < 100 else 20
            return super().admits(now)

    outcome = run(Falling(200, 10), 220, from_second=130)
    assert 0.8 * 20 <= outcome.pace <= 1.2 * 20
    assert outcome.throttled_share < 0.03


def test_the_pace_is_cut_once_until_the_effect_is_seen():
    now = 0.0
    governor = Governor(100, clock=lambda: now)
    now = 1.0
    for _ in range(10):
        governor.throttled(sent_at=0.9)
    assert governor.pace == pytest.approx(85)
    now = 1.1
    governor.throttled(sent_at=1.05)
    assert governor.pace == pytest.approx(85)
    now = 3.0
    for _ in range(8):
        governor.throttled(sent_at=2.5)
    assert governor.pace < 0.5 * 85, "all of it is throttled"


class Moody(TokenBucket):
    """A service that also throttles a share of requests at random, at any pace."""

    def __init__(self, share, limit=1e9, seed=0):
        super().__init__(limit, limit)
        self.share, self.rng = share, Random(seed)

    def admits(self, now):
        return super().admits(now) and self.rng.random() >= self.share


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("workers", [8, 32])
def test_a_service_that_throttles_at_random_is_asked_as_fast_as_it_answers(share, workers):
    outcome = run(Moody(share), 60, from_second=25, workers=workers, latency=0.1)
    assert outcome.good >= 0.8 * (1 - share) * workers / 0.1 * 35


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.3])
def test_a_limit_is_found_also_where_some_is_throttled_at_random(share):
    outcome = run(Moody(share, limit=50), 160, latency=0.1)
    assert outcome.good >= 0.85 * 50 * (1 - share) * 100
    assert outcome.pace <= 1.7 * 50, "of two paces that bring as much, the slower"


def test_noise_that_ends_is_forgotten_and_the_limit_found_again():
    service = Moody(0.3, limit=50)

    class Ending:
        def admits(self, now):
            service.share = 0.3 if now < 60 else 0.0
            return service.admits(now)

    outcome = run(Ending(), 260, from_second=180, latency=0.1)
    assert outcome.throttled_share < 0.03
    assert outcome.good >= 0.9 * 50 * 80


def test_random_throttling_with_retry_after_does_not_pause_other_requests():
    async def main(loop):
        governor = Governor(20, clock=loop.time, sleep=asyncio.sleep)
        moody, held = Moody(0.2), []
        while loop.time() < 90:
            sent_at = await governor.turn()
            await asyncio.sleep(0.01)
            if moody.admits(loop.time()):
                governor.good(sent_at)
            elif governor.throttled(sent_at, retry_after_seconds=1):
                held.append(loop.time())
        return held

    held = simulate(main)
    assert held
    assert sum(at > 45 for at in held) < 30


def test_two_equal_pauses_hold_everybody_up_once():
    async def main(loop):
        governor = Governor(100, clock=loop.time, sleep=asyncio.sleep)
        governor.throttled(0.0, retry_after_seconds=7)
        governor.throttled(0.0, retry_after_seconds=7)
        return await asyncio.gather(*(governor.turn() for _ in range(3)))

    times = simulate(main)
    assert min(times) == pytest.approx(7)
    assert max(times) < 7.1


def test_a_pause_also_holds_up_who_waits_already():
    async def main(loop):
        governor = Governor(1, clock=loop.time, sleep=asyncio.sleep)
        await governor.turn()
        waiting = asyncio.ensure_future(governor.turn())
        await asyncio.sleep(0.5)
        governor.pause(10)
        return await waiting

    assert simulate(main) == pytest.approx(10.5)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def breaker_after(failures: int, seconds: float, throttled: int = 0) -> Breaker:
    clock = Clock()
    breaker = Breaker(BreakerLimits(), clock)
    for _ in range(failures):
        breaker.bad(0.0)
    for _ in range(throttled):
        breaker.bad(0.0, is_throttled=True)
    clock.now = seconds
    return breaker


@pytest.mark.parametrize(
    ("failures", "seconds", "throttled", "is_open"),
    [
        (12, 20, 0, True),
        (1000, 19, 0, False),  # a short outage under many workers
        (11, 20, 0, False),  # two bad batches
        (2, 60, 0, True),  # two time-outs
        (1, 3600, 0, False),
        (0, 60, 500, False),  # throttling is a sign of life
        (0, 180, 500, True),
    ],
)
def test_the_breaker_opens_after_many_failures_and_some_time(failures, seconds, throttled, is_open):
    assert breaker_after(failures, seconds, throttled).is_open is is_open


def test_one_good_answer_closes_the_breaker():
    breaker = breaker_after(100, 100)
    assert breaker.is_open
    breaker.good()
    assert not breaker.is_open
    assert breaker.silent_seconds == 0
