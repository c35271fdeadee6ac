"""A batch of ids to answers: the one retry loop, the splitting, and what is counted.

No HTTP here (client.py) and no threads (collect.py). No other place retries, but that
libcurl asks once more where a connection that was kept open turns out to be closed.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Literal, NoReturn

from usms_pipeline.contract.errors import CredentialsRefused, ServiceDown
from usms_pipeline.service import api
from usms_pipeline.service.api import Verdict
from usms_pipeline.service.client import Client, Reply
from usms_pipeline.service.pace import Breaker, BreakerLimits, Governor

_MAX_PROBLEMS: Final = 50  # distinct sentences; a service may put anything into its messages
_OTHER: Final = "further problems of other kinds"
_MOST_TOLD: Final = 5
_MOST_PUT_OFF: Final = 1000  # batches


@dataclass(frozen=True)
class Answer:
    """One answer worth keeping: schema.RESPONSES without the partition.

    ``verdict``: 'ok'; 'refused', for one id that the service won't answer for; 'unreadable', for
    one id whose answer stays unreadable. ``asked_at``: aware UTC, just before the request.
    """

    ids: tuple[str, ...]
    asked_at: datetime
    http_status: int | None
    ret_code: int | None
    verdict: Literal["ok", "refused", "unreadable"]
    reason: str | None
    body: bytes = field(repr=False)


@dataclass
class CollectStats:
    """What a collection did. At its end ``ids_asked`` = answered + refused + given up.

    ``unreadable`` counts answers; their ids are given up, like those of failed batches: nothing
    is known of them, and they are asked again by the next run, or at their next polling time.
    ``pace``: requests a second to begin the next run with, None when no limit was met.
    ``concurrency``: most requests in flight at once. ``problems``: a sentence for each kind of
    failure, with how often it happened.
    """

    requests: int = 0
    retries: int = 0
    throttled: int = 0
    splits: int = 0
    ids_asked: int = 0
    ids_answered: int = 0
    ids_refused: int = 0
    ids_given_up: int = 0
    unreadable: int = 0
    bytes_received: int = 0
    pace: float | None = None
    concurrency: int = 0
    seconds: float = 0.0
    problems: dict[str, int] = field(default_factory=dict)

    def plus(self, other: CollectStats) -> CollectStats:
        """Return the figures of both, one after the other."""
        summed = (
            "requests", "retries", "throttled", "splits", "ids_asked", "ids_answered",
            "ids_refused", "ids_given_up", "unreadable", "bytes_received", "seconds",
        )  # fmt: skip
        found = {name: getattr(self, name) + getattr(other, name) for name in summed}
        problems = Counter(self.problems) + Counter(other.problems)
        concurrency = max(self.concurrency, other.concurrency)
        return replace(other, problems=dict(problems), concurrency=concurrency, **found)

    def problem(self, sentence: str) -> None:
        """Count a problem under its sentence."""
        known = sentence in self.problems or len(self.problems) < _MAX_PROBLEMS
        key = sentence if known else _OTHER
        self.problems[key] = self.problems.get(key, 0) + 1

    @property
    def told(self) -> str:
        """Return the most frequent problems in one line."""
        most = sorted(self.problems.items(), key=lambda one: -one[1])[:_MOST_TOLD]
        return " ".join(f"{count:,} × {problem}" for problem, count in most)


@dataclass(frozen=True)
class Patience:
    """How long to insist: on one batch, between two attempts, and on a silent service.

    Failed attempts are counted; throttled ones are not, for the governor paces them, but
    ``batch_seconds`` bounds both. Pauses double from ``first_pause_seconds`` and are jittered. At
    ``most_refusals_alone`` refused ids and not one answered, it is the service or a setting, and
    not the ids.
    """

    attempts: int = 5
    batch_seconds: float = 120.0
    first_pause_seconds: float = 1.0
    longest_pause_seconds: float = 20.0
    retry_after_seconds: float = 60.0
    breaker: BreakerLimits = field(default_factory=BreakerLimits)
    most_refusals_alone: float = 50


class Fetcher:
    """Ask for batches until they are answered, refused or given up, for all workers together.

    ``sleep``, ``uniform`` (a random number between two) and ``monotonic`` touch the world.
    """

    def __init__(
        self,
        client: Client,
        governor: Governor,
        stats: CollectStats,
        patience: Patience | None = None,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._governor, self._stats = client, governor, stats
        self.patience = patience or Patience()
        self._breaker = Breaker(self.patience.breaker, monotonic)
        self._sleep, self._uniform, self._monotonic = sleep, uniform, monotonic
        self._in_flight = 0
        self._put_off: list[tuple[tuple[str, ...], Reply, Callable[[Answer], None]]] = []

    async def fetch(self, ids: tuple[str, ...], land: Callable[[Answer], None]) -> None:
        """Ask for a batch, in halves of halves where need be; ``land`` gets each answer at once.

        Raises ``CredentialsRefused`` and ``ServiceDown``.
        """
        self._stats.ids_asked += len(ids)
        parts = [(ids, self.patience.attempts)]
        while parts:
            part, attempts = parts.pop()
            reply = await self._insist(part, attempts)
            is_divisible = reply.verdict is Verdict.SPLIT or reply.is_unreadable
            if self._only_refuses(reply) and len(part) > 1 and len(self._put_off) < _MOST_PUT_OFF:
                self._put_off.append((part, reply, land))
                continue
            if not is_divisible or len(part) == 1 or self._only_refuses(reply):
                self._settle(part, reply, land)
                continue
            self._stats.splits += 1
            # What no repetition made readable is not passing: its parts get one second chance.
            fewer = min(attempts, 2) if reply.is_unreadable else attempts
            half = len(part) // 2
            parts += [(part[half:], fewer), (part[:half], fewer)]

    async def finish(self) -> None:
        """Take up what was put off, if the service has answered since; else it is given up."""
        put_off, self._put_off = self._put_off, []
        for part, reply, land in put_off:
            if self._stats.ids_answered:
                self._stats.ids_asked -= len(part)
                await self.fetch(part, land)
            else:
                self._settle(part, reply, land)

    def _only_refuses(self, reply: Reply) -> bool:
        """Return when to look no longer for the bad ids of a batch, but only for a good batch."""
        return (
            reply.verdict is Verdict.SPLIT
            and not self._stats.ids_answered
            and self._stats.ids_refused >= self.patience.most_refusals_alone
        )

    async def _insist(self, ids: tuple[str, ...], attempts: int) -> Reply:
        """Ask until there is an answer that repeating can't change, or patience is at its end."""
        started, failures, tries = self._monotonic(), 0, 0
        while True:
            reply = await self._ask(ids)
            if reply.verdict not in (Verdict.RETRY, Verdict.THROTTLE):
                return reply
            is_throttled = reply.verdict is Verdict.THROTTLE
            failures, tries = failures + (not is_throttled), tries + 1
            pause = self._pause_seconds(0 if is_throttled else failures)
            waited = self._monotonic() - started + pause
            if failures >= attempts or waited > self.patience.batch_seconds:
                return reply
            self._stats.retries += 1
            await self._sleep(pause)

    async def _ask(self, ids: tuple[str, ...]) -> Reply:
        """Send one request in its turn, and tell the governor, the breaker and the figures."""
        sent_at = await self._governor.turn()
        self._in_flight += 1
        self._stats.concurrency = max(self._stats.concurrency, self._in_flight)
        try:
            reply = await self._client.ask(ids)
        finally:
            self._in_flight -= 1
        self._stats.requests += 1
        self._stats.bytes_received += len(reply.body)
        self._take_note(reply, sent_at)
        return reply

    def _take_note(self, reply: Reply, sent_at: float) -> None:
        wait = min(reply.retry_after_seconds or 0.0, self.patience.retry_after_seconds)
        match reply.verdict:
            case Verdict.STOP:
                raise _refused(reply)
            case Verdict.THROTTLE:
                self._stats.throttled += 1
                self._governor.throttled(sent_at, wait)
                self._breaker.bad(sent_at, is_throttled=True)
            case Verdict.RETRY:
                self._governor.pause(wait)
                self._breaker.bad(sent_at)
            case _:
                self._governor.good(sent_at)
                self._breaker.good()
        self._stats.pace = self._governor.settled_pace
        if self._breaker.is_open:
            self._give_in(reply)

    def _settle(self, ids: tuple[str, ...], reply: Reply, land: Callable[[Answer], None]) -> None:
        """Hand over what is worth keeping, and count every id once."""
        reason = f"{reply.label}: {reply.message}" if reply.message else reply.label
        facts = (ids, reply.asked_at, reply.http_status, reply.ret_code)
        if reply.verdict is Verdict.OK:
            self._stats.ids_answered += len(ids)
            land(Answer(*facts, "ok", None, reply.body))
        elif reply.verdict is Verdict.SPLIT and len(ids) == 1:
            self._stats.ids_refused += len(ids)
            land(Answer(*facts, "refused", reason, reply.body))
        else:
            self._stats.ids_given_up += len(ids)
            self._stats.problem(f"{reason}.{_hint(reply)}")
            if reply.is_unreadable:
                self._stats.unreadable += 1
                land(Answer(*facts, "unreadable", reason, reply.body))

    def _pause_seconds(self, failures: int) -> float:
        patience = self.patience
        pause = patience.first_pause_seconds * 2.0 ** max(0, failures - 1)
        return self._uniform(0.5, 1.0) * min(pause, patience.longest_pause_seconds)

    def _give_in(self, last: Reply) -> NoReturn:
        breaker = self._breaker
        raise ServiceDown(
            f"The service gave no good answer for {breaker.silent_seconds:.0f} s: "
            f"{breaker.failures} requests failed and {breaker.throttled} were throttled, the last "
            f"with {last.label}{f' ({last.message})' if last.message else ''}. What had landed is "
            "kept; run again later, and if it stays so check USMS_BASE_URL and the network."
        )


def nothing_answered(stats: CollectStats) -> ServiceDown | None:
    """Make the error for a service that answered nothing at all, where it did not.

    Few requests are given up one by one before it is plain that the service is down.
    """
    if not stats.ids_given_up or stats.ids_answered or stats.ids_refused or stats.unreadable:
        return None
    error = ServiceDown(
        f"The service answered for none of the {stats.ids_given_up:,} session numbers asked about: "
        f"{stats.told} They are asked again in the next run; if it stays so check USMS_BASE_URL "
        "and the network."
    )
    error.stats = stats
    return error


def nothing_but_refusals(stats: CollectStats, answer: Answer) -> ServiceDown:
    """Make the error for a service that refuses everything; its ids count as given up."""
    stats.ids_given_up, stats.ids_refused = stats.ids_given_up + stats.ids_refused, 0
    return ServiceDown(
        f"The service refused all {stats.ids_given_up:,} session numbers asked about, the last "
        f"with {answer.reason}. None of them counts as invalid, for more likely a setting is "
        "wrong: check that USMS_SESSION_COLUMN names the session numbers of this account, and "
        "USMS_BASE_URL; else run again later."
    )


def _refused(reply: Reply) -> CredentialsRefused:
    words = f" ({reply.message})" if reply.message else ""
    if reply.ret_code == api.WRONG_CLOCK:
        remedy = "Set this machine's clock right, then check {}."
    else:
        remedy = "Check {}, and that the key may be used for USMS from this machine's address."
    settings = "USMS_ACCESS_KEY_ID and USMS_ACCESS_KEY_SECRET"
    return CredentialsRefused(
        f"The service refused the access key with {reply.label}{words}. {remedy.format(settings)}"
    )


def _hint(reply: Reply) -> str:
    if reply.http_status in api.REDIRECTS:
        return (
            " Redirects are not followed, for they would carry the access key: check USMS_BASE_URL."
        )
    return " Check USMS_BASE_URL." if reply.http_status == api.NOT_FOUND else ""
