"""How fast to ask, and when to stop asking: the governor and the circuit breaker.

No HTTP and no retries. The clock and the sleep are arguments, so that time can be simulated.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

FIRST_PACE: Final = 40.0
"""Requests a second to begin with where no settled pace is known."""

_SLOWER: Final = 0.85
_PROBE: Final = 0.05
_MAX_PROBE: Final = 0.5
_PATIENT_PROBES: Final = 4
_RECOVERY: Final = 1.5
_RAMP: Final = 2.0
_RAMP_SECONDS: Final = 0.05
_FLOOR: Final = 0.1
_SLACK_SECONDS: Final = 0.01  # timers are late by so much; what was missed is caught up
_IS_USED: Final = 0.5  # a pace that is not used to this share says nothing about a higher one


class Governor:
    """One pace for all workers, in requests a second.

    Without ``start`` it doubles once a round trip (50 ms at least) until the service throttles,
    and takes the last doubling back; then, or from a given ``start``, it holds and probes: 5 % more
    after every clean hold of 5 to 20 s. After several clean probes in a row the limit is evidently
    elsewhere: the steps double. Throttling takes 15 % off, at most once a round trip (only requests
    sent since the last cut count), and not below the rate of good answers, which shows what the
    service does let pass. After an outage it returns to half of the limit it knew in quick steps.
    ``ceiling`` is never exceeded.
    """

    def __init__(
        self,
        start: float | None = None,
        ceiling: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._ceiling = ceiling or float("inf")
        self._is_ramp = start is None
        self.pace = max(_FLOOR, min(start or FIRST_PACE, self._ceiling))
        self._line = asyncio.Lock()
        self._next_at = self._cut_at = clock()
        self._good_answers = RecentRate(clock())
        self._limit_met = 0.0
        self._clean_probes = self._patient_probes = 0
        self._hold()

    @property
    def settled_pace(self) -> float | None:
        """The pace to begin the next run with; None when no limit has been met."""
        return None if self._is_ramp else self.pace

    async def turn(self) -> float:
        """Wait until a request may be sent; give the time it is sent at, by this clock."""
        async with self._line:  # first come, first served; a change of pace counts at once
            while (wait := self._next_at - self._clock()) > 0:
                await self._sleep(wait)
            now = self._clock()
            self._next_at = max(self._next_at, now - _SLACK_SECONDS) + 1 / self.pace
            self._sent += 1
            return now

    def good(self, sent_at: float) -> None:
        """Take note that a request sent at this time was answered without throttling."""
        now = self._clock()
        self._good_answers.count(now)
        if sent_at < self._since or now < self._hold_until:
            return
        if self._sent >= _IS_USED * self.pace * (now - self._since):
            self._clean_probes += 1
            self.pace = min(self._ceiling, self.pace * self._growth())
        self._hold()

    def throttled(self, sent_at: float, retry_after_seconds: float | None = None) -> None:
        """Take note that a request sent at this time was throttled."""
        if retry_after_seconds:
            self.pause(retry_after_seconds)
        if sent_at < self._cut_at:
            return
        if self._clean_probes:  # it was growth that met the limit, not a limit that came down
            self._limit_met = self.pace
        self._cut_at = self._clock()
        slower = 1 / _RAMP if self._is_ramp else _SLOWER
        self._is_ramp, self._clean_probes, self._patient_probes = False, 0, _PATIENT_PROBES
        passing = _SLOWER * self._good_answers.per_second(self._cut_at)
        self.pace = max(_FLOOR, self.pace * slower, min(self.pace, passing))
        self._hold()

    def pause(self, seconds: float) -> None:
        """Let nobody send for so many seconds: the service has said when to come back."""
        self._next_at = max(self._next_at, self._clock() + seconds)

    @property
    def _is_recovering(self) -> bool:
        return 2 * self.pace < self._limit_met

    def _growth(self) -> float:
        if self._is_ramp:
            return _RAMP
        if self._is_recovering:
            return _RECOVERY
        doublings = max(0, self._clean_probes - 1 - self._patient_probes)
        return 1 + min(_MAX_PROBE, _PROBE * 2.0**doublings)

    def _hold(self) -> None:
        self._since, self._sent = self._clock(), 0
        if self._is_ramp:
            seconds = _RAMP_SECONDS
        elif self._is_recovering:
            seconds = min(5.0, max(1.0, 5 / self.pace))
        else:
            seconds = min(20.0, max(5.0, 30 / self.pace))
        self._hold_until = self._since + seconds


class RecentRate:
    """Events a second, over the last one to two seconds."""

    def __init__(self, now: float) -> None:
        self._since, self._before, self._count = now, 0, 0

    def count(self, now: float) -> None:
        """Count one event."""
        self._turn_over(now)
        self._count += 1

    def per_second(self, now: float) -> float:
        """Return the rate."""
        self._turn_over(now)
        return (self._before + self._count) / (1 + now - self._since)

    def _turn_over(self, now: float) -> None:
        if now - self._since >= 1:
            self._before = self._count if now - self._since < 2 else 0
            self._since, self._count = now, 0


@dataclass(frozen=True)
class BreakerLimits:
    """When the breaker opens: no good answer for so long, after so many failures.

    Single failed requests are counted, not batches given up, so that a dead service is noticed
    while the first batches are still retried. Twelve is more than two batches fail in all their
    attempts, so two bad batches do not end a run; the seconds keep a short outage from ending it.
    A service that only throttles is alive, and gets the longest time.
    """

    failures: int = 12
    seconds: float = 20.0
    slow_failures: int = 2  # time-outs: few, and each of them long
    slow_seconds: float = 60.0
    throttled_seconds: float = 180.0


class Breaker:
    """Says when the service is down: nothing good has come back for too long."""

    def __init__(
        self,
        limits: BreakerLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits, self._clock = limits or BreakerLimits(), clock
        self.failures = 0
        self.throttled = 0
        self._since: float | None = None

    @property
    def silent_seconds(self) -> float:
        """Return the time since the first of the failures in a row was sent; 0 if all is well."""
        return 0.0 if self._since is None else self._clock() - self._since

    def good(self) -> None:
        """Take note of any answer that shows the service alive."""
        self.failures = self.throttled = 0
        self._since = None

    def bad(self, sent_at: float, is_throttled: bool = False) -> None:
        """Take note of a request, sent at this time, that failed or was throttled."""
        self._since = sent_at if self._since is None else min(self._since, sent_at)
        if is_throttled:
            self.throttled += 1
        else:
            self.failures += 1

    @property
    def is_open(self) -> bool:
        """Return whether it is time to stop asking."""
        limits, silent = self._limits, self.silent_seconds
        if self.failures >= limits.failures and silent >= limits.seconds:
            return True
        if self.failures >= limits.slow_failures and silent >= limits.slow_seconds:
            return True
        return self.failures + self.throttled >= 2 and silent >= limits.throttled_seconds
