"""Requests a second: httpx as it is used here, and as its documentation uses it."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime

import httpx

from benchmarks.measure import PAIRS
from benchmarks.server import serving
from benchmarks.world import ids
from usms_pipeline.client import Client
from usms_pipeline.settings import Settings
from usms_pipeline.transport import CurlTransport

_AT_A_TIME, _BATCH = 16, 100
_OURS, _THEIRS = 5_000, 500
"""Requests of each: so many that a run takes about a second."""

Ask = Callable[[list[str]], Awaitable[object]]


def table() -> Iterator[str]:
    """Give the lines of the table."""
    known = ids(_BATCH * 200)
    batches = [known[begin : begin + _BATCH] for begin in range(0, len(known), _BATCH)]
    with serving() as url:
        pairs = [
            (asyncio.run(_ours(url, batches)), asyncio.run(_documented(url, batches)))
            for _ in range(PAIRS)
        ]
    ours, theirs = (statistics.median(one) for one in zip(*pairs, strict=True))
    yield f"| {_BATCH} ids a request, {_AT_A_TIME} at a time | requests/s |"
    yield "|---|---|"
    yield f"| here: a transport over aiohttp, a prepared target | {ours:,.0f} |"
    yield f"| `httpx.AsyncClient().get(url, params=…)` | {theirs:,.0f} |"
    yield f"| ratio | {statistics.median(a / b for a, b in pairs):.1f} |"


async def _ours(url: str, batches: list[list[str]]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            _env_file=None,
            base_url=url,
            access_key_id="key",
            access_key_secret="secret",
            data_dir=folder,
        )
        transport = CurlTransport()
        client = Client(settings, transport, lambda: datetime.now(UTC))
        try:
            return await _rate(client.ask, batches, _OURS)
        finally:
            await transport.aclose()


async def _documented(url: str, batches: list[list[str]]) -> float:
    async with httpx.AsyncClient(auth=("key", "secret")) as client:

        async def ask(batch: list[str]) -> object:
            response = await client.get(f"{url}/api/v1/usms/USMSSendReceipt", params={"id": batch})
            return response.raise_for_status().content

        return await _rate(ask, batches, _THEIRS)


async def _rate(ask: Ask, batches: list[list[str]], requests: int) -> float:
    left = iter(range(requests))

    async def work() -> None:
        for number in left:
            await ask(batches[number % len(batches)])

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(_AT_A_TIME)))
    return requests / (time.perf_counter() - started)
