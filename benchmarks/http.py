"""Requests a second and their CPU: httpx as it is used here, and as its documentation uses it."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import UTC, datetime

import httpx

from benchmarks.measure import PAIRS
from benchmarks.server import serving
from benchmarks.world import ids
from usms_pipeline.service.client import Client
from usms_pipeline.service.transport import CurlTransport
from usms_pipeline.settings import Settings

_AT_A_TIME, _BATCH = 16, 100
_OURS, _THEIRS = 5_000, 500
"""Requests of each: so many that a run takes about a second."""

Ask = Callable[[list[str]], Awaitable[object]]
Cost = tuple[float, float]
"""Requests a second, and CPU µs a request: of this process, for the server has its own."""


def table() -> Iterator[str]:
    """Yield the lines of the table."""
    known = ids(_BATCH * 200)
    batches = [known[begin : begin + _BATCH] for begin in range(0, len(known), _BATCH)]
    with serving() as url:
        pairs = [
            (asyncio.run(_ours(url, batches)), asyncio.run(_documented(url, batches)))
            for _ in range(PAIRS)
        ]
    yield f"| {_BATCH} ids a request, {_AT_A_TIME} at a time | requests/s | CPU µs a request |"
    yield "|---|---|---|"
    yield f"| here: libcurl, a prepared target | {_shown(ours for ours, _ in pairs)} |"
    yield (
        f"| `httpx.AsyncClient().get(url, params=…)` | {_shown(theirs for _, theirs in pairs)} |"
    )
    rate = statistics.median(ours[0] / theirs[0] for ours, theirs in pairs)
    cpu = statistics.median(theirs[1] / ours[1] for ours, theirs in pairs)
    yield f"| ratio | {rate:.1f} | {cpu:.1f} |"


def _shown(costs: Iterable[Cost]) -> str:
    rates, cpu = zip(*costs, strict=True)
    return f"{statistics.median(rates):,.0f} | {statistics.median(cpu):,.0f}"


async def _ours(url: str, batches: list[list[str]]) -> Cost:
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            _env_file=None,
            base_url=url,
            access_key_id="key",
            access_key_secret="secret",
            data_dir=folder,
        )
        async with CurlTransport() as transport:
            client = Client(settings, transport, lambda: datetime.now(UTC))
            return await _cost(client.ask, batches, _OURS)


async def _documented(url: str, batches: list[list[str]]) -> Cost:
    async with httpx.AsyncClient(auth=("key", "secret")) as client:

        async def ask(batch: list[str]) -> object:
            response = await client.get(f"{url}/api/v1/usms/USMSSendReceipt", params={"id": batch})
            return response.raise_for_status().content

        return await _cost(ask, batches, _THEIRS)


async def _cost(ask: Ask, batches: list[list[str]], requests: int) -> Cost:
    left = iter(range(requests))

    async def work() -> None:
        for number in left:
            await ask(batches[number % len(batches)])

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work() for _ in range(_AT_A_TIME)))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return requests / wall, cpu / requests * 1e6
