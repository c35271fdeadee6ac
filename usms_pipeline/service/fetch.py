"""A batch of ids to answers: the one retry loop, the splitting, and what is counted.

No HTTP here (client.py) and no threads (collect.py). No other place retries, but that
libcurl asks once more where a connection that was kept open turns out to be closed.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
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

_RECENTLY_SECONDS: Final = 10.0
"""How long a good answer shows that the service is up."""

_ATTEMPTS_ALONE: Final = 3
"""Attempts for one id of a failed batch. A larger part has one: its halves are the others."""

_ATTEMPTS_ODD: Final = 3
"""For a batch with an answer of no known kind, or that would say the key is bad were no other good:
it may be how this service throttles, and then a slower pace is what helps."""

_THROTTLED_OF_ALL: Final = 3
"""How often in a row one batch is throttled by chance; more says nothing of the request rate."""

_THROTTLED_IN_ROW: Final = 20
_THROTTLED_PART: Final = 8
"""How often a batch, or a part of one, is throttled while others pass before it is to blame: by
chance, of a service that throttles 30 % at random, that is one part in 15,000."""

_ASKED_ALONE: Final = 3
"""Requests for one id each that show whether the service is up. Each may be for a bad one."""

_UNHEARD, _UNHEARD_SECONDS = 64, 2.5
"""After this many requests without a good answer only one is sent per pause of this length: a
service that is down for all costs 150 at most until the breaker opens, one that throttles all of
them too."""


Kept = Literal["ok", "refused", "unanswered", "unreadable"]


@dataclass(frozen=True)
class Answer:
    """One answer worth keeping: schema.RESPONSES without the partition.

    ``verdict``: 'ok'; 'refused', for one id that the service won't answer for; 'unanswered', for
    one id that gets no usable answer while others do; 'unreadable', for ids whose answer can't be
    read while no other can: kept to be looked at. ``asked_at``: aware UTC, just before the request.
    """

    ids: tuple[str, ...]
    asked_at: datetime
    http_status: int | None
    ret_code: int | None
    verdict: Kept
    reason: str | None
    body: bytes = field(repr=False)


Land = Callable[[Answer], None]


@dataclass
class CollectStats:
    """What a collection did. At its end ``ids_asked`` = answered + refused + unanswered + given up.

    ``ids_unanswered`` got no usable answer while others did: they are asked again at their next
    polling time. Nothing is known of those given up, and the next run asks about them again.
    ``unreadable`` counts answers that can't be read; they are saved too.
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
    ids_unanswered: int = 0
    ids_given_up: int = 0
    unreadable: int = 0
    bytes_received: int = 0
    pace: float | None = None
    concurrency: int = 0
    seconds: float = 0.0
    problems: dict[str, int] = field(default_factory=dict)

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
    """Limits of retrying: for one batch, between two attempts, and for a silent service.

    Failed attempts are counted; throttled ones are not, as the governor paces them, unless it is
    always this batch; ``batch_seconds`` bounds both. Pauses double from ``first_pause_seconds`` and
    are jittered. At ``most_refusals_alone`` refused ids and not one answered, it is the service or
    a setting, and not the ids.
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

    ``known`` returns a session number that was answered in an earlier run, if there is one.
    ``sleep``, ``uniform`` (a random number between two) and ``monotonic`` touch the world.
    """

    def __init__(
        self,
        client: Client,
        governor: Governor,
        stats: CollectStats,
        patience: Patience | None = None,
        *,
        known: Callable[[], str | None] = lambda: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._governor, self._stats = client, governor, stats
        self.patience = patience or Patience()
        self._breaker = Breaker(self.patience.breaker, monotonic)
        self._sleep, self._uniform, self._monotonic = sleep, uniform, monotonic
        self._in_flight = self._unheard = 0
        self._heard_at = self._alone_at = -math.inf
        self._slowest = 0.0
        self._answered: str | None = None
        self._known, self._alone = known, asyncio.Lock()
        self._put_off: list[tuple[tuple[str, ...], Reply, float, Land]] = []

    async def fetch(self, ids: tuple[str, ...], land: Land) -> None:
        """Ask for a batch, in halves of halves where need be; ``land`` gets each answer at once.

        Raises ``CredentialsRefused`` and ``ServiceDown``.
        """
        self._stats.ids_asked += len(ids)
        parts, began = [(ids, False)], self._monotonic()
        while parts:
            part, is_failing = parts.pop()
            asked = self._monotonic()
            reply = await self._insist(part, is_failing)
            is_good, is_lone = reply.verdict is Verdict.OK, len(part) == 1
            if reply.verdict is Verdict.SPLIT:
                # where all are refused, no bad id is looked for any more, only a good batch
                is_of_all = self._stats.ids_refused >= self.patience.most_refusals_alone
                must_wait = not is_lone and is_of_all and not self._stats.ids_answered
            elif not is_good:
                # What is said of one id is for good: more must speak for it than for a half.
                since = self._recently(asked if is_lone else began)
                must_wait, is_failing = not await self._passes(since, part), True
                if must_wait and reply.verdict is Verdict.DENY and self._answered is None:
                    raise _refused(reply)
            if is_good or (is_lone and not must_wait):
                self._settle(part, reply, land)
            elif not must_wait:
                self._stats.splits += 1
                half = len(part) // 2
                parts += [(part[half:], is_failing), (part[:half], is_failing)]
            elif len(self._put_off) < _MOST_PUT_OFF:
                self._put_off.append((part, reply, self._monotonic(), land))
            else:
                self._give_up(part, reply, land)

    async def finish(self, workers: int = 1) -> None:
        """Ask again about what was put off, if the service has answered since; else give it up."""
        put_off, self._put_off = self._put_off, []

        async def take_up() -> None:
            while put_off:
                part, reply, at, land = one = put_off.pop()
                is_refused = reply.verdict is Verdict.SPLIT
                if self._stats.ids_answered if is_refused else self._heard_at > at:
                    self._stats.ids_asked -= len(part)
                    await self.fetch(part, land)
                else:
                    self._put_off.append(one)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(workers, len(put_off))):
                group.create_task(take_up())
        self._give_up_rest()

    def _give_up_rest(self) -> None:
        """Drop what was put off. Raise ``CredentialsRefused`` if the last of it was denied."""
        rest, self._put_off = self._put_off, []
        for part, reply, _, land in rest:
            self._give_up(part, reply, land)
        if rest and rest[-1][1].verdict is Verdict.DENY:
            raise _refused(rest[-1][1])

    def _recently(self, since: float) -> float:
        """Return the time after which a good answer shows that the service is up."""
        return max(since, self._monotonic() - _RECENTLY_SECONDS)

    async def _passes(self, since: float, ids: tuple[str, ...]) -> bool:
        """Return whether the service answers others since a moment, so that the ids are to blame.

        Where none was answered, one that was answered before is asked about, more than once, for
        some of all may fail; where none was ever, a few of these ids, each alone.
        """
        async with self._alone:
            if self._heard_at < since and self._alone_at < since:
                self._alone_at = self._monotonic()
                known = self._answered or self._known()
                few = random.sample(ids, min(_ASKED_ALONE, len(ids))) if len(ids) > 1 else []
                alone = [known] * _ASKED_ALONE if known else few
                await asyncio.gather(*(self._ask((one,)) for one in alone))
            return self._heard_at >= since

    async def _insist(self, ids: tuple[str, ...], is_failing: bool) -> Reply:
        """Ask until there is a final answer, or the limits of retrying are reached.

        ``is_failing``: the ids are part of a batch that failed while others passed.
        """
        began, failures, throttled = self._monotonic(), 0, 0
        attempts, most_throttled = self.patience.attempts, _THROTTLED_IN_ROW
        seconds = None
        if is_failing:
            attempts = _ATTEMPTS_ALONE if len(ids) == 1 else 1
            most_throttled = _THROTTLED_PART
            if len(ids) > 1:
                # Others are answered in time, and each of seven halvings may get no answer. The
                # last id of it has the whole time again.
                seconds = min(2 * self._slowest + 1, max(1.0, self._client.seconds / 4))
        while True:
            is_of_all = not is_failing and failures + throttled < _THROTTLED_OF_ALL
            reply = await self._ask(ids, seconds, is_of_all)
            verdict = reply.verdict
            if verdict is Verdict.OK or verdict is Verdict.SPLIT:
                return reply
            if self._breaker.is_open:
                later = math.nextafter(self._heard_at, math.inf)  # once for all failures in a row
                if not await self._passes(later, ids):
                    self._give_in(reply)
            is_throttled = verdict is Verdict.THROTTLE
            others_pass = self._heard_at > self._recently(began)
            failures, throttled = failures + (not is_throttled), throttled + is_throttled
            pause = self._pause_seconds(failures, throttled, reply, is_failing)
            if (
                failures >= attempts
                or (throttled >= most_throttled and await self._passes(began, ids))
                or self._monotonic() - began + pause > self.patience.batch_seconds
                or self._is_telling(reply, failures, others_pass or is_failing)
            ):
                return reply
            self._stats.retries += 1
            await self._sleep(pause)

    def _is_telling(self, reply: Reply, failures: int, others_pass: bool) -> bool:
        """Return whether to ask for the halves at once, because repeating would tell no more."""
        if reply.verdict in (Verdict.UNKNOWN, Verdict.DENY):
            # first of all, whether the key and the address are good
            return failures >= _ATTEMPTS_ODD or self._answered is None
        return reply.is_late and others_pass

    async def _ask(
        self, ids: tuple[str, ...], seconds: float | None = None, is_of_all: bool = True
    ) -> Reply:
        """Send one request in its turn, and tell the governor, the breaker and the figures.

        ``is_of_all``: whether that it is throttled may say something of other requests.
        """
        sent_at = await self._governor.turn()
        self._unheard += 1
        if self._unheard > _UNHEARD:
            self._governor.pause(_UNHEARD_SECONDS)
        self._in_flight += 1
        stats = self._stats
        stats.concurrency = max(stats.concurrency, self._in_flight)
        try:
            reply = await self._client.ask(ids, seconds)
        finally:
            self._in_flight -= 1
        stats.requests += 1
        stats.bytes_received += len(reply.body)
        if reply.verdict is Verdict.OK:
            self._answered = ids[0]
        self._take_note(reply, sent_at, is_of_all)
        return reply

    def _take_note(self, reply: Reply, sent_at: float, is_of_all: bool) -> None:
        match reply.verdict:
            case Verdict.OK | Verdict.SPLIT:
                self._unheard, self._heard_at = 0, self._monotonic()
                self._slowest = max(self._slowest, self._heard_at - sent_at)
                self._governor.good(sent_at)
                self._breaker.good()
            case Verdict.STOP:
                raise _refused(reply)
            case Verdict.THROTTLE:
                self._stats.throttled += 1
                if is_of_all:
                    self._governor.throttled(sent_at, self._wait_seconds(reply))
                self._breaker.bad(sent_at, is_throttled=True)
            case verdict:
                if is_of_all and verdict is not Verdict.RETRY:
                    self._governor.throttled(sent_at)
                self._breaker.bad(sent_at)
        self._stats.pace = self._governor.settled_pace

    def _settle(self, ids: tuple[str, ...], reply: Reply, land: Land) -> None:
        if reply.verdict is Verdict.OK:
            self._stats.ids_answered += len(ids)
            land(_answer(ids, reply, "ok"))
        elif reply.verdict is Verdict.SPLIT:
            self._stats.ids_refused += 1
            land(_answer(ids, reply, "refused"))
        else:
            self._stats.ids_unanswered += 1
            land(_answer(ids, reply, "unanswered"))

    def _give_up(self, ids: tuple[str, ...], reply: Reply, land: Land) -> None:
        """Count ids that got no answer; hand over an unreadable body, to be looked at."""
        self._stats.ids_given_up += len(ids)
        self._stats.problem(f"{_reason(reply)}.{_hint(reply, self._client.address)}")
        if reply.is_unreadable:
            self._stats.unreadable += 1
            land(_answer(ids, reply, "unreadable"))

    def _wait_seconds(self, reply: Reply) -> float:
        return min(reply.retry_after_seconds or 0.0, self.patience.retry_after_seconds)

    def _pause_seconds(
        self, failures: int, throttled: int, reply: Reply, is_failing: bool
    ) -> float:
        """Return how long to wait before the next attempt.

        A throttled one goes again at once: the governor paces it. Not so often in a row: then
        it is not the pace.
        """
        patience, jitter = self.patience, self._uniform(0.5, 1.0)
        if reply.verdict is Verdict.THROTTLE:
            pause = patience.first_pause_seconds * min(1.0, 2.0 ** (throttled - 8))
            pause = jitter * pause if throttled > 2 else 0.0
        else:
            pause = patience.first_pause_seconds * 2.0 ** max(0, failures - 1)
            pause = jitter * min(pause, patience.longest_pause_seconds)
        # Others are answered: what the service says of coming back is about this part alone.
        return pause if is_failing else max(pause, self._wait_seconds(reply))

    def _give_in(self, last: Reply) -> NoReturn:
        breaker = self._breaker
        self._give_up_rest()
        if last.verdict is Verdict.DENY:
            raise _refused(last)
        raise ServiceDown(
            f"The service gave no good answer for {breaker.silent_seconds:.0f} s: "
            f"{breaker.failures} requests failed and {breaker.throttled} were throttled, the last "
            f"with {last.label}{f' ({last.message})' if last.message else ''}. Everything received "
            f"is saved; run again later.{_hint(last, self._client.address) or _IF_IT_STAYS}"
        )


def _answer(ids: tuple[str, ...], reply: Reply, verdict: Kept) -> Answer:
    reason = None if verdict == "ok" else _reason(reply)
    codes = reply.http_status, reply.ret_code
    return Answer(ids, reply.asked_at, *codes, verdict, reason, reply.body)


def _reason(reply: Reply) -> str:
    return f"{reply.label}: {reply.message}" if reply.message else reply.label


def nothing_answered(stats: CollectStats) -> ServiceDown | None:
    """Return the error for a service that answered nothing at all, if it did not.

    Few requests are given up one by one before it is plain that the service is down.
    """
    heard = stats.ids_answered, stats.ids_refused, stats.ids_unanswered, stats.unreadable
    if not stats.ids_given_up or any(heard):
        return None
    error = ServiceDown(
        f"The service answered for none of the {stats.ids_given_up:,} session numbers asked about: "
        f"{stats.told} They are asked again in the next run."
        + ("" if "USMS_BASE_URL" in stats.told else _IF_IT_STAYS)
    )
    error.stats = stats
    return error


def nothing_but_refusals(stats: CollectStats, answer: Answer) -> ServiceDown:
    """Return the error for a service that refuses everything; its ids count as given up."""
    stats.ids_given_up, stats.ids_refused = stats.ids_given_up + stats.ids_refused, 0
    return ServiceDown(
        f"The service refused all {stats.ids_given_up:,} session numbers asked about, the last "
        f"with {answer.reason}. None of them counts as invalid, because most likely a setting is "
        f"wrong: check that USMS_SESSION_COLUMN names the session numbers of this account, and "
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


_IF_IT_STAYS: Final = " If this persists, check USMS_BASE_URL and the network."


def _hint(reply: Reply, address: str) -> str:
    if reply.http_status in api.REDIRECTS:
        return " Redirects are not followed, because they would carry the key: check USMS_BASE_URL."
    if reply.http_status == api.NOT_FOUND:
        return f" Check USMS_BASE_URL, the address of the service: it is {address}."
    if reply.http_status is None and not reply.is_sent:
        return (
            f" This machine can't reach {address}: check USMS_BASE_URL and the network, and "
            f"HTTPS_PROXY if you need a proxy."
        )
    return ""
