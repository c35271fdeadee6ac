"""A data directory with a published warehouse, made once for the tests that only read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.account import START, Account
from usms_pipeline.simulator import Population, Simulator, serve


class _Served:
    def __init__(self, url: str, service: Simulator) -> None:
        self.url, self.service = url, service


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a folder whose ``data/`` is what one run over 600 messages left."""
    folder = tmp_path_factory.mktemp("published")
    messages = Population(600, days=3, until=START).table()
    service = Simulator(messages)
    with serve(service) as url:

        def simulator(messages: object, clock: object, **options: object) -> _Served:
            service.clock = clock  # type: ignore[assignment]
            return _Served(url, service)

        Account(folder, simulator, messages, dimensions="template,purpose").run()
        yield folder
