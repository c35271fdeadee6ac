"""Today's program goes on from what older ones left; an older one leaves a newer one's alone."""

from __future__ import annotations

import json
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.make_old_dataset import GIVEN, UNTIL, WHERE, figures
from usms_pipeline import dataset, quarantine, schema
from usms_pipeline.cli import app
from usms_pipeline.dataset import QUARANTINE, RECEIPTS, REGISTERS, RESPONSES, SESSIONS
from usms_pipeline.errors import NewerDataset, StorageError
from usms_pipeline.pipeline import Pipeline
from usms_pipeline.settings import Settings
from usms_pipeline.storage import Store

pytestmark = pytest.mark.long

VERSIONS = [place.name for place in sorted(WHERE.glob("version-*"))]
ZONES = (SESSIONS, RESPONSES, REGISTERS, RECEIPTS, QUARANTINE)
NOBODY = "http://127.0.0.1:9"
NEWER = str(schema.VERSION + 1)


def settings(folder: Path) -> Settings:
    return Settings(
        _env_file=None, base_url=NOBODY, access_key_id="x", access_key_secret="x",
        source_url=str(folder / "source.parquet"), phone_column="phone", start_date="2026-02-20",
        data_dir=str(folder / "data"), poll_every_hours=24, **GIVEN,
    )  # fmt: skip


@pytest.fixture(params=VERSIONS)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a dataset of an older version, and of the source that it was made of."""
    return Path(shutil.copytree(WHERE / request.param, tmp_path / "old"))


def pipeline(folder: Path) -> Pipeline:
    return Pipeline(settings(folder), clock=lambda: UNTIL)


def expected(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "figures.json").read_text("utf-8"))  # type: ignore[no-any-return]


def known_then(said: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Leave out the figures that came with a later version."""
    names = {name for rows in before.values() for row in rows for name in row}
    return {
        by: [{name: value for name, value in row.items() if name in names} for row in rows]
        for by, rows in said.items()
    }


def test_there_is_a_dataset_of_every_version_of_the_layout() -> None:
    assert [f"version-{n}" for n in range(1, schema.VERSION + 1)] == VERSIONS
    size = sum(path.stat().st_size for path in WHERE.rglob("*") if path.is_file())
    assert size < 200_000 * schema.VERSION


def test_an_old_dataset_is_published_with_the_same_figures(old: Path) -> None:
    report = pipeline(old).publish()
    assert known_then(figures(report.path), expected(old)) == expected(old)


def test_an_old_dataset_is_gone_on_with(old: Path) -> None:
    """A run finds all that was done, and asks nothing again."""
    today = pipeline(old)
    report = today.run(today.everything())
    assert report.responses.stats.requests == 0
    assert known_then(figures(report.warehouse.path), expected(old)) == expected(old)
    assert today.conservation(today.everything().days()) == []


def test_an_old_dataset_is_rebuilt_with_the_same_figures(old: Path) -> None:
    today = pipeline(old)
    entries = quarantine.entries(today.store)
    assert {entry.kind for entry in entries} >= {"bad_item", "refused_id"}
    today.rebuild()
    assert known_then(figures(today.publish().path), expected(old)) == expected(old)
    assert quarantine.entries(today.store) == entries


# --- newer than this program ----------------------------------------------------------------------


def state(folder: Path) -> dict[str, bytes]:
    """Every file, to the byte; locks and warehouses apart."""
    files = [p for p in folder.rglob("*") if p.is_file() and ".locks" not in p.parts]
    return {str(path): path.read_bytes() for path in files}


COMMANDS = (
    "run --all", "plan --all", "rebuild", "forget --session x --yes", "quarantine replay --all",
    "quarantine dismiss --all", "check",
)  # fmt: skip


@pytest.fixture
def today(tmp_path: Path) -> Path:
    return Path(shutil.copytree(WHERE / VERSIONS[-1], tmp_path / "today"))


def usms(folder: Path, command: str) -> Any:
    given = settings(folder).model_dump(exclude_unset=True)
    env = {f"USMS_{name.upper()}": _text(value) for name, value in given.items()}
    return CliRunner().invoke(app, command.split(), env=env)


def _text(value: Any) -> str:
    value = value.get_secret_value() if hasattr(value, "get_secret_value") else value
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_newer_layout_is_refused_by_every_command_before_anything_changes(
    today: Path, command: str
) -> None:
    (today / "data" / dataset.LAYOUT).write_text(f'{{"version": {NEWER}}}')
    before = state(today)
    result = usms(today, command)
    assert result.exit_code == 2, result.output
    assert f"says layout {NEWER}" in " ".join(result.output.split())
    assert "pgrade usms-pipeline" in " ".join(result.output.split())
    assert state(today) == before


@pytest.mark.parametrize("zone", ZONES)
def test_a_newer_file_is_refused_in_every_zone(today: Path, zone: str) -> None:
    """Where the mark of the whole is missing or behind, every file says it of itself."""
    store = Store(str(today / "data"))
    [name, *_] = store.names(zone)
    said = store.metadata(name) | {"version": NEWER}
    store.write(name, store.read(name), said, private=zone in dataset.PRIVATE)
    with pytest.raises(NewerDataset, match=name.replace("/", ".")):
        touch(today, zone, dataset.partition_of(name))
    assert store.metadata(name) == said


def touch(folder: Path, zone: str, day: date) -> None:
    """Do what reads a file of the zone."""
    if zone == REGISTERS:  # read where something is new; a rebuild starts from the raw answers
        store = Store(str(folder / "data"))
        name = dataset.file_name(SESSIONS, day)
        store.write(name, store.read(name), store.metadata(name) | {"token": "new"})
        pipeline(folder).fold([day])
    else:
        pipeline(folder).rebuild([day])


@pytest.mark.parametrize("zone", [SESSIONS, RECEIPTS, QUARANTINE])
@pytest.mark.parametrize("version", [None, "", "one", "-1"])
def test_a_file_with_no_version_or_a_damaged_one_is_told_and_left_alone(
    today: Path, zone: str, version: str | None
) -> None:
    """It was rewritten by something else; taken for none, it would be overwritten."""
    store = Store(str(today / "data"))
    [name, *_] = store.names(zone)
    said = {} if version is None else store.metadata(name) | {"version": version}
    store.write(name, store.read(name), said, private=zone in dataset.PRIVATE)
    before = store.read(name)
    with pytest.raises(StorageError, match=r"says (no|an odd) version: something else"):
        pipeline(today).rebuild()
    assert store.read(name).equals(before)
    result = usms(today, "rebuild")
    assert result.exit_code == 1
    assert name in result.output


@pytest.mark.parametrize("text", ["", "[]", '{"version": "x"}', '{"versio": 1}'])
def test_a_damaged_mark_of_the_layout_is_told(today: Path, text: str) -> None:
    (today / "data" / dataset.LAYOUT).write_text(text)
    with pytest.raises(StorageError, match=r"layout\.json"):
        pipeline(today).rebuild()


def test_a_data_directory_from_before_the_mark_gets_one(today: Path) -> None:
    (today / "data" / dataset.LAYOUT).unlink()
    it = pipeline(today)
    it.run(it.everything())
    said = json.loads((today / "data" / dataset.LAYOUT).read_text())
    assert said["version"] == schema.VERSION
