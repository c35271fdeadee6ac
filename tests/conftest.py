"""Fixtures that several areas share: real parts, started for one test and stopped after it."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import hypothesis
import pytest

from tests import begun
from tests.account import START, Account, served
from tests.mounts import disk
from tests.services import mariadb, mariadb_server, postgresql, postgresql_server
from tests.source_tables import Place
from usms_pipeline.simulator import Population, Simulator, serve
from usms_pipeline.warehouse.publish import Publishing

if TYPE_CHECKING:
    from tests.plug.world import World

# Started in the background, a shell has Ctrl-C ignored, and so would every process of a test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No test is timed: a machine may be slow. In CI a failure is shown as it was found: to shrink it
# takes minutes, and the person who fixes it shrinks it at home.
_PHASES = [*hypothesis.Phase]
if os.environ.get("CI") == "true":
    _PHASES.remove(hypothesis.Phase.shrink)
for _name, _examples in (("quick", 20), ("all", 100)):
    hypothesis.settings.register_profile(
        _name,
        max_examples=_examples,
        deadline=None,
        phases=_PHASES,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )

__all__ = ["disk", "mariadb", "mariadb_server", "postgresql", "postgresql_server"]

_SERVICES = frozenset({"browser", "mariadb", "mariadb_server", "postgresql", "postgresql_server"})
"""Fixtures that start a program; a test that takes one is marked ``services``."""

_DURABLE = frozenset({"test_plug", "test_plug_power", "test_plug_stop", "test_unwritable"})
"""Modules about what the disk has after a kill or a power cut. Elsewhere fsync does nothing, and a
new warehouse is a copy of an empty one."""

_SLOWEST = {
    f"test_{name}.py"
    for name in (
        "plug",
        "worlds",
        "laws",
        "cli",
        "cli_errors",
        "report",
        "rates",
        "dagster",
        "forget",
    )
}
"""Begun first, or one process ends long after the others."""


_SEED = "TESTS_DRAW_SEED"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--draw",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="of the tests marked long, run this share, drawn at random (0 to 1)",
    )
    parser.addoption("--draw-seed", type=int, metavar="N", help="repeat a draw: its seed")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        seed = config.option.draw_seed
        drawn = random.SystemRandom().randrange(10_000) if seed is None else seed
        os.environ[_SEED] = str(drawn)  # which the worker processes get, unlike options set here
    config.option.draw_seed = int(os.environ[_SEED])
    is_quick = "not long" in config.option.markexpr
    hypothesis.settings.load_profile("quick" if is_quick else "all")


def pytest_report_header(config: pytest.Config) -> str | None:
    if config.option.draw >= 1:
        return None
    return f"of the long tests: --draw {config.option.draw} --draw-seed {config.option.draw_seed}"


@pytest.hookimpl(tryfirst=True)  # before -m is applied
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what needs servers, draw from the long ones, and begin with those that take minutes."""
    for item in items:
        if _SERVICES & _takes(item):
            item.add_marker("services")
    if "engines" not in config.option.markexpr:  # what they need is not installed
        wanted = [item for item in items if not item.get_closest_marker("engines")]
        config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
        items[:] = wanted
    if config.option.draw < 1:
        rng = random.Random(config.option.draw_seed)
        drawn = {item: rng.random() < config.option.draw for item in items}
        left_out = [i for i in items if i.get_closest_marker("long") and not drawn[i]]
        config.hook.pytest_deselected(items=left_out)
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]
    items.sort(key=lambda item: item.path.name not in _SLOWEST)


def _takes(item: pytest.Item) -> set[object]:
    """Return a test's fixtures and parameters: a parameter may name a fixture taken at run time."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    names = (one for one in parameters if isinstance(one, str))
    return {*getattr(item, "fixturenames", ()), *names}


@pytest.fixture(autouse=True)
def _fast_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait for the disk, or for new views, but the tests that are about them."""
    module = request.module.__name__.rpartition(".")[2]
    if module not in _DURABLE:
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    if module not in {*_DURABLE, "test_warehouse"}:
        monkeypatch.setattr(Publishing, "_begin", begun.begin)


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
    """Yield a factory of services on loopback; ``options`` are those of ``Simulator``."""
    with ExitStack() as running:

        def make(messages: Any = 500, **options: Any) -> Rehearsal:
            if isinstance(messages, int):
                now = options["clock"]() if "clock" in options else None
                messages = Population(messages, seed=options.get("seed", 0), until=now).table()
            service = Simulator(messages, **options)
            return Rehearsal(running.enter_context(serve(service)), service, messages)

        yield make


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield a folder whose ``data/`` is what one run left, for the tests that only read."""
    folder = tmp_path_factory.mktemp("published")
    messages = Population(600, days=3, until=START).table()
    with served(messages) as simulator:
        Account(folder, simulator, messages, dimensions="template,purpose").run()
        yield folder


@pytest.fixture(scope="module")
def plug(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Yield commands to pull the plug on."""
    if sys.platform != "linux":
        pytest.skip("needs fork and /proc")
    from tests.plug.world import world  # only now: its messages are of three hours ago

    with world(tmp_path_factory.mktemp("plug")) as made:
        yield made


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place for a table, in the kind of database that is the parameter."""
    return Place(request.param, request, tmp_path)


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """An S3-compatible service with an empty bucket (``object_service.ObjectService``)."""
    from tests.object_service import object_service

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with object_service() as service:
        for name, value in service.environment.items():
            monkeypatch.setenv(name, value)
        yield service
