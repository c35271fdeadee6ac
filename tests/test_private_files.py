"""What holds whole numbers is its owner's alone, from the first byte on, over any earlier file."""

from __future__ import annotations

import os
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from tests.account import Account
from tests.cohorts import receipt
from tests.cohorts import write as write_receipts
from tests.examples import examples
from usms_pipeline.cli import check
from usms_pipeline.contract.errors import StorageError
from usms_pipeline.people.phone_key import load_key
from usms_pipeline.pipeline import Pipeline
from usms_pipeline.settings import Settings
from usms_pipeline.simulator import Faults
from usms_pipeline.store.dataset import PRIVATE
from usms_pipeline.store.storage import Store
from usms_pipeline.warehouse import reconcile

NOBODY = 65534
BLOCK = "responses/20260101T000000.000000-00000000/000001.parquet"
ROWS = pa.table({"session_no": ["s"], "body": [b"13800138000"]})
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to give files away")


@pytest.fixture
def umask_of_none() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path | str) -> int:
    return stat.S_IMODE(Path(path).stat().st_mode)


def private(data: Path) -> list[Path]:
    return [path for zone in PRIVATE for path in [data / zone, *(data / zone).rglob("*")]]


def open_to_others(paths: list[Path]) -> list[str]:
    return [f"{path} {mode(path):o}" for path in paths if mode(path) & 0o077]


@pytest.mark.usefixtures("umask_of_none")
def test_private_zones_and_the_key_are_the_owners_alone_whatever_the_umask(tmp_path, simulator):
    """Seen at every moment of a run: files under way, locks, spill and all."""
    account = Account(tmp_path, simulator, 200, options={"faults": Faults(bad_items=0.5)})
    data, seen, is_over = tmp_path / "data", set(), threading.Event()

    def watch() -> None:
        while not is_over.wait(0.001):
            for path in [*private(data), data / "phone.key"]:
                try:
                    seen.add((path.name.startswith("."), mode(path) & 0o077))
                except FileNotFoundError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        account.run()
    finally:
        is_over.set()
        watcher.join()
    assert {open_bits for _, open_bits in seen} == {0}
    files = [path for path in private(data) if path.is_file()]
    assert {path.relative_to(data).parts[0] for path in files} == set(PRIVATE)
    assert open_to_others([*private(data), data / "phone.key"]) == []


@pytest.mark.usefixtures("umask_of_none")
def test_a_private_file_is_private_while_it_is_written(tmp_path):
    store = Store(str(tmp_path))
    with store.replacing(BLOCK, private=True) as temporary:
        temporary.write_bytes(b"13800138000")
        assert mode(temporary) == 0o600
        assert mode(temporary.parent) == mode(temporary.parent.parent) == 0o700


def test_a_private_zone_that_stood_open_is_closed(tmp_path):
    for folder in (tmp_path / "responses", (tmp_path / BLOCK).parent):
        folder.mkdir()
        folder.chmod(0o777)
    Store(str(tmp_path)).write(BLOCK, ROWS, private=True)
    assert open_to_others(list((tmp_path / "responses").rglob("*"))) == []
    assert mode(tmp_path / "responses") == 0o700


def test_a_private_zone_may_be_a_link_of_ones_own(tmp_path):
    elsewhere = tmp_path / "large disk"
    elsewhere.mkdir(mode=0o755)
    (tmp_path / "responses").symlink_to(elsewhere)
    Store(str(tmp_path)).write(BLOCK, ROWS, private=True)
    assert mode(elsewhere) == 0o700


@as_root
def test_a_private_zone_that_belongs_to_another_account_is_refused():
    with tempfile.TemporaryDirectory() as place:
        zone = Path(place, "responses")
        zone.mkdir()
        for folder in (zone, zone.parent):
            folder.chmod(0o777)
        os.seteuid(NOBODY)
        try:
            with pytest.raises(StorageError, match="belongs to another account"):
                Store(place).write(BLOCK, ROWS, private=True)
        finally:
            os.seteuid(0)
        assert list(zone.rglob("*.parquet")) == []


@as_root
@pytest.mark.parametrize(
    ("made", "told"),
    [
        (0o700, "belongs to another account"),
        (0o777, "belongs to another account"),
        ("a link", "a link that another account made"),
    ],
)
def test_root_also_refuses_a_private_folder_of_another_account(tmp_path, made, told):
    zone, elsewhere = tmp_path / "responses", tmp_path / "elsewhere"
    elsewhere.mkdir()
    if isinstance(made, int):
        zone.mkdir()
        zone.chmod(made)
    else:
        zone.symlink_to(elsewhere)
    os.lchown(zone, NOBODY, NOBODY)
    with pytest.raises(StorageError, match=told):
        Store(str(tmp_path)).write(BLOCK, ROWS, private=True)
    assert list(tmp_path.rglob("*.parquet")) == []


@pytest.mark.usefixtures("umask_of_none")
def test_what_waits_for_its_upload_is_in_a_folder_of_the_owners_alone(tmp_path):
    store = Store(str(tmp_path))
    store.is_local = False  # as on object storage, but for the upload
    with store.replacing("x", private=True) as path:
        path.write_bytes(b"13800138000")
        assert mode(path.parent) == 0o700
        assert mode(path) == 0o600
    assert not path.exists()


@examples(1, "umask", [0o027, 0o022, 0o077])
def test_the_umask_says_who_may_read_what_is_published(umask, tmp_path, monkeypatch):
    settings = Settings(_env_file=None, data_dir=str(tmp_path))
    before = os.umask(umask)
    try:
        write_receipts(Store(str(tmp_path)), [receipt()])
        reconcile(Store(str(tmp_path)), settings)
        reconcile(Store(str(tmp_path)), settings, is_from_scratch=True)
        Pipeline(settings).store.keep_json("pace.json", {"requests_per_second": 1.0})
    finally:
        os.umask(before)
    assert mode(settings.warehouse_path) == 0o444 & ~umask
    assert mode(tmp_path / "pace.json") == 0o666 & ~umask


def test_check_tells_of_a_key_that_others_may_read(tmp_path):
    """As after a copy was put back from a backup."""
    settings = Settings(_env_file=None, data_dir=str(tmp_path))
    assert len(load_key(settings)) == 32
    assert {state for state, _ in check._key(settings)} == {"ok"}
    (tmp_path / "phone.key").chmod(0o644)
    [(state, said), *_] = check._key(settings)
    assert state == "warning"
    assert "chmod 600" in said


def test_check_tells_of_responses_that_others_may_read(tmp_path):
    settings = Settings(_env_file=None, data_dir=str(tmp_path))
    Store(str(tmp_path)).write(BLOCK, ROWS, private=True)
    assert {state for state, _ in check._data_dir(settings)} == {"ok"}
    (tmp_path / "responses").chmod(0o755)
    said = [said for state, said in check._data_dir(settings) if state == "warning"]
    assert said == [f"other accounts can read the responses: chmod 700 {tmp_path}/responses"]


def test_check_tells_of_an_env_file_with_a_secret_that_others_may_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = tmp_path / ".env"
    env.write_text("USMS_TIMEZONE=UTC\n")
    env.chmod(0o644)

    def told() -> list[tuple[str, int]]:
        found = check._findings()
        return [(one.state, one.exit_code) for one in found if "chmod 600 .env" in one.text]

    assert told() == []
    env.write_text("USMS_ACCESS_KEY_SECRET=hush\n")
    assert told() == [("warning", 0)]
    env.chmod(0o600)
    assert told() == []
