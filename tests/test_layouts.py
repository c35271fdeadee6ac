"""A data directory of another layout than today's, older or newer, is left as it is and told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.account import START, Account, Clock, served
from usms_pipeline.cli import app
from usms_pipeline.contract import schema
from usms_pipeline.contract.errors import DamagedDay, OtherLayout, SettingsError, StorageError
from usms_pipeline.days import file
from usms_pipeline.pipeline import Pipeline
from usms_pipeline.settings import Settings
from usms_pipeline.simulator import Faults, Population
from usms_pipeline.store import dataset
from usms_pipeline.store.storage import Store

OLDER, NEWER = schema.VERSION - 1, schema.VERSION + 1
REMEDIES = {OLDER: "Start over in another USMS_DATA_DIR", NEWER: "Upgrade usms-pipeline"}
COMMANDS = (
    "run --all", "plan --all", "rebuild", "forget --session x --yes", "quarantine replay --all",
    "quarantine dismiss --all", "check",
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A data directory, and the settings that it was made with."""

    given: dict[str, Any]

    @property
    def store(self) -> Store:
        return Store(self.given["data_dir"])

    @property
    def mark(self) -> Path:
        return Path(self.given["data_dir"], dataset.LAYOUT)

    def pipeline(self, **given: Any) -> Pipeline:
        return Pipeline(Settings(_env_file=None, **self.given | given), clock=Clock())

    def run(self, **given: Any) -> Any:
        pipeline = self.pipeline(**given)
        return pipeline.run(pipeline.everything())

    def usms(self, command: str) -> Any:
        env = {f"USMS_{name.upper()}": str(value) for name, value in self.given.items()}
        return CliRunner().invoke(app, command.split(), env=env)

    def state(self) -> dict[str, bytes]:
        """Every file, to the byte; locks apart."""
        files = [p for p in self.mark.parent.rglob("*") if p.is_file() and ".locks" not in p.parts]
        return {str(path): path.read_bytes() for path in files}

    @property
    def day(self) -> date:
        return file.days(self.store)[0]

    def change(self, name: str, **said: str) -> None:
        """Let a file say this of itself, and nothing else."""
        self.store.write(name, self.store.read(name), said)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """What one run left, with a file in every zone."""
    messages = Population(40, days=0.8, until=START).table()
    refused = frozenset({messages["session_no"][3].as_py()})
    with served(messages, faults=Faults(poison_ids=refused)) as simulator:
        account = Account(tmp_path_factory.mktemp("made"), simulator, messages)
        account.run()
        yield account


@pytest.fixture
def place(made: Account, tmp_path: Path) -> Place:
    shutil.copytree(made.folder / "data", tmp_path / "data")
    return Place(made.given | {"data_dir": str(tmp_path / "data")})


@pytest.mark.parametrize("version", [OLDER, NEWER])
@pytest.mark.parametrize("command", COMMANDS)
def test_another_layout_is_refused_by_every_command_before_anything_changes(
    place, command, version
):
    place.mark.write_text(f'{{"version": {version}}}')
    before = place.state()
    result = place.usms(command)
    assert result.exit_code == 2, result.output
    said = " ".join(result.output.split())
    assert f"has layout {version}, but this version reads only layout {schema.VERSION}" in said
    assert REMEDIES[version] in said
    assert place.state() == before


@pytest.mark.parametrize("said", ["before", "now"])
@pytest.mark.parametrize("version", [OLDER, NEWER])
def test_a_day_of_another_layout_is_refused_and_left_as_it_is(place, version, said):
    """Where the mark of the whole is missing or wrong, every day says it of itself."""
    name = file.name(place.day)
    metadata = place.store.metadata(name)
    day = json.loads(metadata["day"]) | {"layout": version}
    place.change(name, **{"day": json.dumps(day)} if said == "now" else {"version": str(version)})
    before = place.state()
    for step in (place.run, place.pipeline().rebuild, place.pipeline().conservation):
        with pytest.raises(OtherLayout, match=REMEDIES[version]) as caught:
            step()
        assert str(caught.value).startswith(f"{name} in ")
        assert place.state() == before


@pytest.mark.parametrize("said", [{}, {"day": "{"}, {"day": "{}"}, {"version": "one"}])
def test_a_day_that_says_nothing_of_itself_is_damaged_and_others_go_on(place, said):
    """It was rewritten by something else; taken for none, it would be overwritten."""
    name = file.name(place.day)
    place.change(name, **said)
    before = place.store.read(name)
    with pytest.raises(DamagedDay, match="usms rebuild"):
        file.footer(place.store, place.day)
    assert place.run().damaged.keys() == {place.day}
    assert place.store.read(name).equals(before)


@pytest.mark.parametrize("text", ["", "[]", '{"version": "x"}', '{"versio": 1}'])
def test_a_damaged_mark_of_the_layout_is_told(place, text):
    place.mark.write_text(text)
    with pytest.raises(StorageError, match=r"layout\.json"):
        place.pipeline().rebuild()


@pytest.mark.parametrize("left", [None, {"version": schema.VERSION}])
def test_a_lost_mark_of_the_layout_is_told_with_what_to_write(place, left):
    """A run that made it up would take rows for others, had the settings changed as well."""
    before = place.mark.read_text()
    place.mark.unlink()
    if left is not None:
        place.mark.write_text(json.dumps(left))
    state = place.state()
    with pytest.raises(StorageError, match="missing or incomplete") as caught:
        place.run()
    assert place.state() == state
    told = str(caught.value).rsplit("write this into it: ", 1)[1]
    assert json.loads(before) == json.loads(told) | {"crc32": json.loads(before)["crc32"]}
    place.mark.write_text(told)
    with pytest.raises(SettingsError, match="USMS_TIMEZONE"):
        place.run(timezone="Europe/Berlin")
    place.run()
