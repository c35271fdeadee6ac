"""Damaged files, drawn at random: each is told with its remedy, and no published figure is wrong.

An account whose messages are all settled is damaged in one place: a bit is flipped, the end cut
off, all of it, or the file is gone. Then `usms run` and `usms check` say what to do; it is done as
they say, and the figures are those of before. The service has forgotten all by then, so what is
lost stays lost.
"""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner, Result

from tests.account import variables
from tests.examples import examples
from usms_pipeline.cli import app
from usms_pipeline.cli import simulate as made_up
from usms_pipeline.simulator import Population, Simulator, serve
from usms_pipeline.simulator.faults import Faults
from usms_pipeline.store.storage import Store

KINDS = {
    "day": "receipts/*/receipts.parquet",
    "responses": "responses/*/*.parquet",
    "mark": "responses/open/*.json",
    "quarantine": "quarantine/*/*.parquet",
    "layout": "layout.json",
    "survey": "survey.json",
    "pace": "pace.json",
    "prefixes": "prefixes.json",
    "forgotten": "forgotten.json",
    "warehouse": "usms.duckdb",
    "key": "phone.key",
}
MEMORIES = ("survey", "pace", "prefixes")
WAYS: dict[str, Callable[[random.Random, bytes], bytes | None]] = {
    "flipped": lambda rng, body: _flipped(rng, body),
    "cut": lambda rng, body: body[: rng.randrange(1, len(body))],
    "empty": lambda rng, body: b"",
    "missing": lambda rng, body: None,
}
SPOKEN = re.compile(r"`(usms (?:run|rebuild|forget)[^`…]*)`")


def _flipped(rng: random.Random, body: bytes) -> bytes:
    place = rng.randrange(len(body))
    return body[:place] + bytes([body[place] ^ (1 << rng.randrange(8))]) + body[place + 1 :]


def damages() -> list[tuple[int, str, str]]:
    """Draw 150: a seed, the kind of file, what becomes of it; each pair comes three times."""
    pairs = [(kind, way) for kind in KINDS for way in WAYS]
    drawn = [pairs[n % len(pairs)] for n in range(150)]
    random.Random(22).shuffle(drawn)
    return [(seed, kind, way) for seed, (kind, way) in enumerate(drawn)]


@dataclass
class World:
    """A settled account: its data directory, as it was before anything was damaged."""

    folder: Path
    settings: dict[str, str]
    data: Path
    figures: list[Any]
    erased: str

    def __call__(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, arguments, env=self.settings)


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("damage")
    until = datetime.now(UTC) - timedelta(hours=80)
    table = Population(150, days=2, seed=5, until=until).table()
    made_up.write(table, folder / "shop.sqlite")
    refused = table["session_no"][0].as_py()
    service = Simulator(table, seed=5, faults=Faults(poison_ids=frozenset([refused])))
    with serve(service) as url, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        settings = variables(url, f"sqlite:///{folder}/shop.sqlite", source_table=made_up.TABLE)
        settings["TERMINAL_WIDTH"] = "300"
        world = World(folder, settings, folder / "data", [], "")
        world.erased = table["session_no"][1].as_py()  # before it was asked about: none is emptied
        assert world("forget", "--session", world.erased, "--yes").exit_code == 0
        assert world("run").exit_code == 0
        run = next((folder / "data/responses").glob("2*")).name  # as if it had been killed
        (folder / f"data/responses/open/{run}.json").write_text('{"days": []}')
        store = Store(str(folder / "data"))  # what a larger account would have kept
        store.keep_json("pace.json", {"requests_per_second": 50.0})
        store.keep_json("prefixes.json", {"stamp": "", "prefixes": [[11, "131", "+86131", None]]})
        world.figures = figures(folder / "data/usms.duckdb")
        service.faults = Faults(missing=1.0)
        yield world


@pytest.fixture
def world(settled: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(settled.data, tmp_path / "data")
    return World(tmp_path, settled.settings, tmp_path / "data", settled.figures, settled.erased)


def figures(path: Path) -> list[Any]:
    with duckdb.connect(":memory:") as con:
        con.execute(f"ATTACH '{path}' AS usms (READ_ONLY); USE usms")
        of = "sent_date, country, status, provider_status, is_announced, count(*), max(received_at)"
        return con.execute(f"SELECT {of} FROM receipts GROUP BY ALL ORDER BY ALL").fetchall()


def published(world: World) -> list[Any] | None:
    """Return what is published; None where it can't be opened: then no figure is shown."""
    try:
        return figures(world.data / "usms.duckdb")
    except duckdb.Error:
        return None


def decent(result: Result) -> str:
    said = result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), said
    assert "Unexpected" not in said, said
    assert "Traceback" not in said, said
    return said


@examples(2, ("seed", "kind", "way"), damages())
def test_a_damage_is_told_and_cured_by_what_is_said_and_no_figure_is_wrong(
    seed: int, kind: str, way: str, world: World
) -> None:
    rng = random.Random(seed)
    path = rng.choice(sorted(world.data.glob(KINDS[kind])))
    whole = path.read_bytes()
    body = WAYS[way](rng, whole)
    path.chmod(0o600)
    path.unlink() if body is None else path.write_bytes(body)
    name = str(path.relative_to(world.data))

    results = [world("run"), world("check")]
    said = "\n".join(map(decent, results))
    assert published(world) in (world.figures, None), said
    if kind in MEMORIES:
        assert results[0].exit_code == 0, said
    for _ in range(3):  # a remedy may show the next one
        if results[0].exit_code == results[1].exit_code == 0:
            break
        follow(world, said, path, whole)
        assert published(world) in (world.figures, None), said
        results = [world("run"), world("check")]
        said = "\n".join(map(decent, results))
    assert [one.exit_code for one in results] == [0, 0], f"{name}: {said}"
    assert published(world) == world.figures, f"{name}: {said}"
    assert world.erased not in [row[0] for row in sessions(world)]
    assert decent(world("rates"))


def sessions(world: World) -> list[Any]:
    with duckdb.connect(":memory:") as con:
        return con.execute(
            f"SELECT session_no FROM read_parquet('{world.data}/receipts/*/*.parquet')"
        ).fetchall()


def follow(world: World, said: str, path: Path, whole: bytes) -> None:
    """Do what was said: run the commands named, or restore the file where that is the remedy."""
    commands = [one for one in dict.fromkeys(SPOKEN.findall(said)) if one != "usms run"]
    if commands:
        for command in commands:
            decent(world(*command.split()[1:]))
        return
    assert path.name in said or "USMS_PHONE_KEY" in said, said
    assert re.search(r"backup|the key it was made with", said), said
    path.write_bytes(whole)
