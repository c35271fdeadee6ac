"""Fixtures that several areas share: real parts, started for one test and stopped after it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import hypothesis
import pytest

from tests.mounts import disk
from tests.published import published
from tests.services import mariadb, mariadb_server, postgresql, postgresql_server
from usms_pipeline.simulator import Population, Simulator, serve

if TYPE_CHECKING:
    from tests.plug.world import World

# Started in the background, a shell has Ctrl-C ignored, and so would every process of a test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No test is timed: a machine may be slow.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")

__all__ = ["disk", "mariadb", "mariadb_server", "postgresql", "postgresql_server", "published"]


_SLOWEST = {
    f"test_{name}.py" for name in ("plug", "world_counts", "world_everything", "world_phones")
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take minutes, or one core ends long after the others."""
    items.sort(key=lambda item: item.path.name not in _SLOWEST)


@dataclass(frozen=True)
class Rehearsal:
    """A simulated service that is up: its address, the service itself, the messages it took."""

    url: str
    service: Simulator
    messages: Any


class MakeRehearsal(Protocol):
    """Serve ``messages``: a table, an iterable of rows, or how many to make up."""

    def __call__(self, messages: Any = 500, **options: Any) -> Rehearsal: ...


@pytest.fixture
def simulator() -> Iterator[MakeRehearsal]:
    """Give a factory of services on loopback; ``options`` are those of ``Simulator``."""
    with ExitStack() as running:

        def make(messages: Any = 500, **options: Any) -> Rehearsal:
            if isinstance(messages, int):
                now = options["clock"]() if "clock" in options else None
                messages = Population(messages, seed=options.get("seed", 0), until=now).table()
            service = Simulator(messages, **options)
            return Rehearsal(running.enter_context(serve(service)), service, messages)

        yield make


@pytest.fixture(scope="module")
def plug(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Give commands to pull the plug on."""
    if sys.platform != "linux":
        pytest.skip("needs fork and /proc")
    from tests.plug.world import world  # only now: its messages are of three hours ago

    with world(tmp_path_factory.mktemp("plug")) as made:
        yield made
