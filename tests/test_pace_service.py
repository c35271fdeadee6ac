"""The whole of asking against the simulated service: its hidden limit is found and kept.

In simulated time (see ``pace_table``, which prints the figures), and for seconds over real HTTP.
"""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.pace_table import settle
from tests.test_collect import settings as address
from tests.test_pace import SimulatedLoop, simulate
from usms_pipeline.contract.errors import CredentialsRefused, ServiceDown
from usms_pipeline.service.client import Client
from usms_pipeline.service.collect import utc_now
from usms_pipeline.service.fetch import CollectStats, Fetcher
from usms_pipeline.service.pace import Governor

LONG = pytest.mark.long
CASES = [
    *((5, latency, 1) for latency in (0.01, 0.1, 0.4)),
    *(pytest.param(50, latency, 2, marks=LONG) for latency in (0.01, 0.1, 0.4)),
    pytest.param(500, 0.1, 1, marks=LONG),
]
"""Limit a second, latency, how many seeds: what is long has thousands of requests, or seeds."""


@pytest.mark.parametrize(("limit", "latency", "seeds"), CASES)
def test_the_pace_settles_within_a_fifth_of_the_limit_and_is_hardly_throttled(
    limit: int, latency: float, seeds: int
) -> None:
    for seed in range(seeds):
        found = settle(limit, latency, seed)
        assert 0.8 * limit <= found.pace <= 1.2 * limit
        assert found.good_per_second >= 0.9 * limit
        assert found.throttled_share < 0.03


@pytest.mark.parametrize("limit", [5, pytest.param(50, marks=LONG)])
def test_a_retry_after_is_waited_for_and_costs_hardly_any_of_the_limit(limit: int) -> None:
    found = settle(limit, 0.1, retry_after="seconds")
    assert 0.8 * limit <= found.pace <= 1.2 * limit
    assert found.good_per_second >= 0.9 * limit
    assert found.throttled_share < 0.03


OUTAGES = {
    "503": (503, ""), "522": (522, "<h1>timed out</h1>"), "405": (405, "<h1>blocked</h1>"),
    "403": (403, "<h1>blocked</h1>"), "a code nobody knows": (200, '{"RetCode": 8087}'),
    "a web page": (200, "<html>busy</html>"), "429": (429, ""), "silence": None,
    "refused connections": None,
}  # fmt: skip


class Down(httpx.AsyncBaseTransport):
    """Answers as an outage does, after ``good`` good answers."""

    def __init__(self, outage: str, good: int) -> None:
        self.outage, self.good, self.asked = outage, good, 0
        self.sizes: set[int] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        self.sizes.add(request.extensions["target"].count(b"id="))
        await asyncio.sleep(0.05)
        if self.asked <= self.good:
            return httpx.Response(200, json={"RetCode": 0, "Data": []})
        if self.outage == "silence":
            await asyncio.sleep(1e9)
        said = OUTAGES[self.outage]
        if said is None:
            raise httpx.ConnectError("refused")
        return httpx.Response(said[0], text=said[1])


@pytest.mark.parametrize(("good", "known"), [(0, None), (30, None), (0, "answered before")])
@pytest.mark.parametrize("outage", OUTAGES)
def test_an_outage_costs_few_requests_with_the_settings_as_they_are(
    outage: str, good: int, known: str | None
) -> None:
    """Of a hundred sessions each, eight at once, until the run ends.

    Of a service that hangs: within 60 s of silence, told by the time-out (30 s) and the pause that
    are under way then.
    """

    service = Down(outage, good)

    async def main(loop: SimulatedLoop) -> tuple[float, BaseException]:
        fetcher = Fetcher(
            Client(address("http://127.0.0.1"), service, utc_now),
            Governor(clock=loop.time, sleep=asyncio.sleep), CollectStats(),
            known=lambda: known, monotonic=loop.time,
        )  # fmt: skip
        work = iter([tuple(f"{n}-{i}" for i in range(100)) for n in range(1_000)])

        async def worker() -> None:
            for ids in work:
                await fetcher.fetch(ids, lambda answer: None)

        async def all_of_them() -> None:
            async with asyncio.TaskGroup() as group:
                for _ in range(8):
                    group.create_task(worker())

        with pytest.raises(ExceptionGroup) as caught:
            await all_of_them()
        return loop.time(), caught.value.exceptions[0]  # each worker that sees it may say so

    seconds, error = simulate(main)
    assert service.asked - good <= 150
    # what was under way when it went down may have been divided: others had passed
    assert good or service.sizes <= {100, 1}, "it was divided"
    assert isinstance(error, CredentialsRefused if outage == "403" else ServiceDown)
    if outage == "silence":
        assert 60 <= seconds <= 60 + 30 + 20
        assert "no whole answer within 30 s" in str(error)
        assert "Everything received is saved; run again later" in str(error)
