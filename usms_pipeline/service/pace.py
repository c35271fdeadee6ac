"""How fast to ask, and when to stop asking: the governor and the circuit breaker.

No HTTP and no retries. The clock and the sleep are arguments, so that time can be simulated.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

FIRST_PACE: Final = 40.0
"""Requests a second to begin with where no settled pace is known."""

_SLOWER: Final = 0.85
_NEARLY: Final = 0.95  # of a pace that was found to be too fast
_LEAST_LEFT: Final = 0.3  # of a pace, after one cut
_LEAST_KNOWN: Final = 0.02  # of the limit that is known, where hardly anything passes
_PROBE: Final = 0.05
_MAX_PROBE: Final = 0.5
_PATIENT_PROBES: Final = 4
_RECOVERY: Final = 1.5
_RAMP: Final = 2.0
_RAMP_SECONDS: Final = 0.05
_FLOOR: Final = 0.1
_SLACK_SECONDS: Final = 0.01  # timers are late by so much; what was missed is caught up
_IS_USED: Final = 0.5  # a pace that is not used to this share says nothing about a higher one

_SETTLING_SECONDS: Final = 1.0
"""Wait after a cut: a limit per second keeps throttling until the second is over."""

_FEW, _ENOUGH, _PLENTY = 8, 50, 100
_ENOUGH_THROTTLED: Final = 4
_LONGEST_LOOK_SECONDS: Final = 5.0
"""How many answers tell the share of throttled ones: more where these are few, and quickly had."""

_NO_LOWER: Final = 0.5
"""From this part of the share before the cut on, a share is not lower."""

_MOST_NOISE, _HARDLY_NOISE = 0.6, 0.85
"""A share above this is a limit, not noise. With few answers, it takes more."""

_MEMORY: Final = 0.9

_DOUBT_SECONDS: Final = 45.0
"""How often noise is measured again, at a rate at which nothing else is throttled."""


class Governor:
    """One pace for all workers, in requests a second: the slowest that brings most good answers.

    Without ``start`` it doubles once a round trip (50 ms at least) until the service throttles,
    and takes the last doubling back; then, or from a given ``start``, it holds and probes: 5 % more
    after every clean hold of 5 to 20 s. After several clean probes in a row the limit is evidently
    elsewhere: the steps double. After an outage it returns to half of the limit it knew in quick
    steps. ``ceiling`` is never exceeded.

    Where more is throttled than a service does at random, 15 % are cut off. If it goes on, the pace
    is cut again, to below the rate of good answers: that much does pass, so what is throttled even
    then is not throttled for the pace's sake. If that share is as high as before, the cuts were no
    remedy: they are taken back, and such a share (``noise``) is no reason to cut any more.
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
        self._next_at = clock()
        self._cut: _Cut | None = None
        self._doubt_at = 0.0
        self._noisy, self._heard = 0.0, 1.0
        self._limit_met = 0.0
        self._clean_probes = self._patient_probes = 0
        self._hold()

    @property
    def settled_pace(self) -> float | None:
        """The pace to begin the next run with; None when no limit has been met."""
        return None if self._is_ramp else self.pace

    @property
    def noise(self) -> float:
        """The share of requests that are throttled at any pace."""
        return self._noisy / self._heard

    async def turn(self) -> float:
        """Wait until a request may be sent; return the time it is sent at, by this clock."""
        async with self._line:  # first come, first served; a change of pace counts at once
            while (wait := self._next_at - self._clock()) > 0:
                await self._sleep(wait)
            now = self._clock()
            self._next_at = max(self._next_at, now - _SLACK_SECONDS) + 1 / self.pace
            self._sent += now >= self._since
            return now

    def good(self, sent_at: float) -> None:
        """Note that a request sent at this time was answered without throttling."""
        if sent_at < self._since:
            return
        self._good += 1
        now = self._clock()
        if self._cut:
            self._judge(self._cut, now)
        elif now >= self._hold_until:
            self._grow(now)

    def throttled(self, sent_at: float, retry_after_seconds: float | None = None) -> bool:
        """Note that a request sent at this time was throttled.

        Returns whether all requests pause for the Retry-After; they don't if the pace is not the
        cause.
        """
        if sent_at >= self._since:
            self._throttled += 1
            if self._cut:
                self._judge(self._cut, self._clock())
            elif self._is_excessive:
                if self._clean_probes:  # it was growth that met the limit, not one that came down
                    self._limit_met = self.pace
                self._cut = _Cut(self.pace, self._is_ramp)
                self._clean_probes, self._patient_probes = 0, _PATIENT_PROBES
                self._slow_down(self.pace / _RAMP if self._is_ramp else _SLOWER * self.pace)
                self._is_ramp = False
        if self._cut and retry_after_seconds:
            self.pause(retry_after_seconds)
        return self._cut is not None

    def pause(self, seconds: float) -> None:
        """Send nothing for ``seconds``: the service has said when to come back."""
        self._next_at = max(self._next_at, self._clock() + seconds)

    @property
    def _is_excessive(self) -> bool:
        expected = self.noise * (self._good + self._throttled)
        margin = 1 + 2.5 * math.sqrt(expected) if expected else 0
        return self._throttled > expected + margin

    def _judge(self, cut: _Cut, now: float) -> None:
        count = self._good + self._throttled
        share, seconds = self._throttled / count, now - self._since
        is_plain = self._throttled >= _ENOUGH_THROTTLED
        is_over = share > _HARDLY_NOISE or seconds >= _LONGEST_LOOK_SECONDS
        if count < (_FEW if is_over else _ENOUGH if is_plain else _PLENTY):
            return
        passing = (1 - share) * min(self.pace, self._sent / seconds if seconds else self.pace)
        if share > _MOST_NOISE or (cut.share is None and self._is_excessive):
            least, lower = _LEAST_LEFT * self.pace, _SLOWER * passing / (1 - self.noise)
            if share > _HARDLY_NOISE:  # an outage, mostly: when it is over is to be seen soon
                least = max(least, _LEAST_KNOWN * self._limit_met)
            most = passing if math.isnan(cut.passing) else max(cut.passing, passing)
            self._cut = replace(cut, share=share if lower >= least else None, passing=most)
            self._slow_down(max(least, min(lower, _SLOWER * self.pace)))
            return
        self._cut = None
        if cut.share is not None:
            self._doubt_at = now + _DOUBT_SECONDS
        if cut.share is None:
            self._learn()
            found = _NEARLY * cut.pace if math.isnan(cut.passing) else cut.passing
            self.pace = self.pace if cut.was_ramp else max(self.pace, found)
        elif share >= _NO_LOWER * cut.share:
            self._noisy, self._heard = float(self._throttled), float(count)
            found = min(cut.pace, cut.passing / (1 - self.noise) / _SLOWER)
            self.pace, self._is_ramp = max(self.pace, found), cut.was_ramp
        else:
            if share < _NO_LOWER * self.noise:
                self._noisy, self._heard = 0.0, 1.0
            self._learn()
            found = min(_NEARLY * cut.pace, cut.passing / (1 - self.noise))
            self.pace = max(self.pace, found)
        self._hold()

    def _learn(self) -> None:
        self._noisy = _MEMORY * self._noisy + self._throttled
        self._heard = _MEMORY * self._heard + self._good + self._throttled

    def _slow_down(self, pace: float) -> None:
        self.pace = max(_FLOOR, pace)
        self._hold()
        self._since += _SETTLING_SECONDS

    def _grow(self, now: float) -> None:
        count = self._good + self._throttled
        expected = self.noise * count
        if self._throttled < expected - 2 * math.sqrt(expected):
            self._learn()
        if self.noise > _PROBE and now >= self._doubt_at:
            share, rate = self._throttled / count, self._sent / (now - self._since)
            passing = (1 - share) * min(self.pace, rate)
            self._cut = _Cut(self.pace, self._is_ramp, share, passing)
            self._slow_down(_SLOWER * passing)
            return
        is_used = self._sent >= _IS_USED * self.pace * (now - self._since)
        if self._is_ramp and (not is_used or (self.noise and count < _ENOUGH)):
            return  # goes on counting
        if is_used:
            self._clean_probes += 1
            doublings = min(9, max(0, self._clean_probes - 1 - self._patient_probes))
            probe = 1 + min(_MAX_PROBE, _PROBE * 2.0**doublings)
            growth = _RAMP if self._is_ramp else _RECOVERY if self._is_recovering else probe
            self.pace = min(self._ceiling, self.pace * growth)
        self._hold()

    @property
    def _is_recovering(self) -> bool:
        return 2 * self.pace < self._limit_met

    def _hold(self) -> None:
        self._since, self._sent = self._clock(), 0
        self._good = self._throttled = 0
        if self._is_ramp:
            seconds = _RAMP_SECONDS
        elif self._is_recovering:
            seconds = min(5.0, max(1.0, 5 / self.pace))
        else:
            seconds = min(20.0, max(5.0, 30 / self.pace))
        self._hold_until = self._since + seconds


@dataclass(frozen=True)
class _Cut:
    """The pace before a cut; after it, the share throttled and the good answers a second."""

    pace: float
    was_ramp: bool
    share: float | None = None
    passing: float = math.nan


@dataclass(frozen=True)
class BreakerLimits:
    """When the breaker opens: no good answer for so long, after too many failures.

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
        self, limits: BreakerLimits | None = None, clock: Callable[[], float] = time.monotonic
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
        """Note any answer that shows the service alive."""
        self.failures = self.throttled = 0
        self._since = None

    def bad(self, sent_at: float, is_throttled: bool = False) -> None:
        """Note a request, sent at this time, that failed or was throttled."""
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
