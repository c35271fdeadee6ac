"""How the pace settles at a hidden limit of the simulated service: ``python -m tests.pace_table``.

In simulated time: five minutes each, of the real client, retry loop, governor and service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import count
from random import Random
from typing import Any, Final

import httpx

from tests.test_pace import SimulatedLoop, simulate
from usms_pipeline.service.client import Client
from usms_pipeline.service.fetch import CollectStats, Fetcher
from usms_pipeline.service.pace import Governor
from usms_pipeline.settings import load
from usms_pipeline.simulator import ACCESS_KEY_ID, ACCESS_KEY_SECRET, Faults, Simulator

SECONDS: Final = 300.0
SETTLED_AFTER: Final = 60.0
LIMITS: Final = (5, 50, 500)
LATENCIES: Final = (0.01, 0.1, 0.4)
NOISES: Final = (0.01, 0.05, 0.1, 0.3)
WORKERS: Final = 8
NOW: Final = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


@dataclass(frozen=True)
class Settled:
    """What came of it; the share and the rate count from the second minute on."""

    pace: float
    throttled_share: float
    good_per_second: float
    paces: tuple[float, ...]  # each second's, after the first minute


class Wire(httpx.AsyncBaseTransport):
    """Carries requests to a simulator without a socket; a reply takes its latency and jitter."""

    def __init__(self, service: Simulator, loop: SimulatedLoop, latency: float, seed: int) -> None:
        self._service, self._loop = service, loop
        self._latency, self._rng = latency, Random(f"latency {seed}")
        self.told: list[tuple[float, bool]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        query = request.extensions["target"].split(b"?", 1)[1]
        there = self._latency * self._rng.uniform(0.4, 0.6)
        await asyncio.sleep(there)
        before = self._service.counters.throttled
        reply = self._service.answer(query, request.headers["Authorization"])
        self.told.append((self._loop.time(), self._service.counters.throttled == before))
        await asyncio.sleep(self._latency * self._rng.uniform(0.4, 0.6) + reply.delay_seconds)
        return httpx.Response(reply.status, headers=reply.headers, content=reply.body)


def settle(
    limit: float,
    latency: float,
    seed: int = 0,
    noise: float = 0.0,
    workers: int = 0,
    then: float = 0.0,
    **more: Any,
) -> Settled:
    """Ask a service that lets ``limit`` requests a second pass (0: all that the workers send).

    ``noise`` throttles at random. ``then`` is its limit from half of the time on; what counts
    begins half a minute later.
    """
    workers = workers or max(8, round(2 * limit * (latency + 0.02)))
    return simulate(partial(_settle, limit, latency, seed, noise, workers, then, more))


async def _settle(
    limit: float,
    latency: float,
    seed: int,
    noise: float,
    workers: int,
    then: float,
    more: dict[str, Any],
    loop: SimulatedLoop,
) -> Settled:
    faults = Faults(rate_limit=limit, throttle=noise, **{"retry_after": "none"} | more)
    service = Simulator(seed=seed, faults=faults, clock=lambda: NOW, monotonic=loop.time)
    wire = Wire(service, loop, latency, seed)
    settings = load(
        base_url="http://127.0.0.1", access_key_id=ACCESS_KEY_ID,
        access_key_secret=ACCESS_KEY_SECRET, _env_file=None,
    )  # fmt: skip
    governor = Governor(clock=loop.time, sleep=asyncio.sleep)
    fetcher = Fetcher(
        Client(settings, wire, lambda: NOW), governor, CollectStats(),
        uniform=Random(f"pauses {seed}").uniform, monotonic=loop.time,
    )  # fmt: skip
    ids, paces = count(), []
    first = SECONDS / 2 + 30 if then else SETTLED_AFTER

    async def worker() -> None:
        while loop.time() < SECONDS:
            await fetcher.fetch((f"id-{next(ids)}",), lambda answer: None)

    async def watch() -> None:
        while loop.time() < SECONDS:
            await asyncio.sleep(1)
            if then and loop.time() >= SECONDS / 2:
                service.faults = replace(faults, rate_limit=then)
            if loop.time() >= first:
                paces.append(governor.pace)

    await asyncio.gather(watch(), *(worker() for _ in range(workers)))
    later = [is_good for at, is_good in wire.told if first <= at < SECONDS]
    return Settled(
        pace=sum(paces) / len(paces),
        throttled_share=1 - sum(later) / len(later),
        good_per_second=sum(later) / (SECONDS - first),
        paces=tuple(paces),
    )


def cases() -> Iterator[tuple[dict[str, Any], float]]:
    """Yield what to settle at, and the good answers a second that are possible."""
    for limit in LIMITS:
        for latency in LATENCIES:
            yield {"limit": limit, "latency": latency}, limit
    for limit in LIMITS[:2]:
        yield {"limit": limit, "latency": 0.1, "retry_after": "seconds"}, limit
    for noise in NOISES:
        all_of_them = WORKERS / 0.1 * (1 - noise)
        yield {"limit": 0, "latency": 0.1, "noise": noise, "workers": WORKERS}, all_of_them
    for noise in NOISES:  # the limit is met first: of what it lets pass some is throttled
        yield {"limit": 50, "latency": 0.1, "noise": noise}, 50 * (1 - noise)
    for limit, then in ((200, 20), (20, 200), (50, 5)):
        yield {"limit": limit, "latency": 0.1, "then": then, "workers": 50}, then


def rows() -> Iterator[str]:
    yield "| limit/s | latency | throttled at random | pace | throttled | good/s | of possible |"
    yield "|---|---|---|---|---|---|---|"
    for case, possible in cases():
        found = settle(**case)
        limit = f"{case['limit']}, then {case['then']}" if "then" in case else case["limit"]
        limit = f"{limit}, Retry-After 1 s" if "retry_after" in case else limit
        yield (
            f"| {limit or '–'} | {case['latency'] * 1000:.0f} ms | {case.get('noise', 0):.0%} | "
            f"{found.pace:.1f} | {found.throttled_share:.1%} | {found.good_per_second:.1f} | "
            f"{found.good_per_second / possible:.0%} |"
        )


if __name__ == "__main__":
    for row in rows():
        print(row, flush=True)
