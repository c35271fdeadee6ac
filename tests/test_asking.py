"""While sessions are asked about, what came is kept: in another thread, and within a second."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest

from tests.world_account import WorldAccount
from tests.world_ledger import Message
from tests.world_service import Script, Transport
from usms_pipeline.pipeline import Pipeline

REQUESTS = 6


@pytest.fixture
def account() -> Iterator[WorldAccount]:
    made = WorldAccount(())
    sent_at = made.clock.now - timedelta(hours=1)
    count = REQUESTS * made.settings.batch_size
    made.ledger.messages += [Message(f"s{n}", None, 1, sent_at) for n in range(count)]
    made.write_source()
    yield made
    made.remove()


class Slow(Transport):
    """A service that takes its time; notes what is on disk when the last request comes."""

    def __init__(self, account: WorldAccount) -> None:
        super().__init__(account.service, Script())
        self.account, self.landed = account, set[str]()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.4)
        if self.requests == REQUESTS - 1:
            blocks = self.account.disk.look().blocks.values()
            self.landed = {id_ for rows in blocks for row in rows for id_ in row["ids"]}
        return await super().handle_async_request(request)


def test_a_response_is_on_disk_within_a_second_while_the_run_goes_on(
    account: WorldAccount,
) -> None:
    line = Slow(account)
    Pipeline(account.settings, clock=account.clock, transport=line).refresh()
    assert line.requests == REQUESTS
    assert {*line.given[0].ids} <= line.landed
