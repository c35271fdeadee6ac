"""The data directory on object storage: a real S3-compatible service, real HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.account import Account
from tests.object_service import BUCKET, CREDENTIALS, ObjectService, object_service
from usms_pipeline import warehouse
from usms_pipeline.errors import StorageError
from usms_pipeline.storage import Store

FOLDER = "短信 receipts/of %41 shop"
DATA_DIR = f"s3://{BUCKET}/{FOLDER}"
KEY = "07" * 32


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ObjectService]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with object_service() as service:
        for name, value in service.environment.items():
            monkeypatch.setenv(name, value)
        yield service


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of temporary files, to see what is left in it."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def account(tmp_path: Path, simulator: Any, messages: int = 200, **given: Any) -> Account:
    return Account(
        tmp_path,
        simulator,
        messages,
        **{
            "data_dir": DATA_DIR,
            "warehouse": str(tmp_path / "usms.duckdb"),
            "phone_key": KEY,
            "dimensions": "template",
            **given,
        },
    )


def published(of: Account) -> list[tuple[Any, ...]]:
    with warehouse.connect(of.settings.warehouse_path) as con:
        return con.execute("FROM receipts ORDER BY ALL").fetchall()


@pytest.mark.long
def test_a_whole_run_and_a_second_asks_nothing_and_rebuilt_is_equal(
    tmp_path: Path, simulator: Any, objects: ObjectService, temporary: Path
) -> None:
    shop = account(tmp_path, simulator)
    shop.clock.turn(days=4)
    report = shop.run()
    expected = Counter(
        "unknown" if word == "pending" else word
        for word in shop.service.truth(shop.clock.now)["status"].to_pylist()
    )
    first = published(shop)
    with warehouse.connect(shop.settings.warehouse_path) as con:
        counted = con.execute("SELECT status, count(*) FROM receipts GROUP BY 1").fetchall()
    assert Counter(dict(counted)) == expected
    assert shop.pipeline.conservation(shop.window.days()) == []

    requests = shop.service.counters.requests
    objects.asked.clear()
    again = shop.run()
    assert len(objects.asked) < 40 * len(report.receipts.partitions), "round trips, when idle"
    assert shop.service.counters.requests == requests
    assert again.warehouse.is_skipped
    assert report.responses.stats.requests > 0

    (tmp_path / "usms.duckdb").unlink()
    shop.pipeline.rebuild()
    shop.pipeline.publish()
    assert published(shop) == first
    assert list(temporary.iterdir()) == []
    assert not (tmp_path / "data").exists()


@pytest.mark.long
def test_forget_erases_from_every_object(
    tmp_path: Path, simulator: Any, objects: ObjectService
) -> None:
    shop = account(tmp_path, simulator, phones="clear")
    shop.clock.turn(days=4)
    shop.run()
    column = [row[2] for row in published(shop)]
    phone = next(text for text in column if text and column.count(text) == 1)
    assert holding(objects, phone)
    changed = shop.pipeline.forget([phone])
    assert len(changed) == 1
    assert phone not in [row[2] for row in published(shop)]
    assert len(published(shop)) == len(column) - 1
    assert holding(objects, phone) == []
    shop.pipeline.rebuild()
    assert len(published(shop)) == len(column) - 1


def holding(objects: ObjectService, phone: str) -> list[str]:
    """The objects that hold a number, however compressed."""
    found = []
    for key, body in objects.objects().items():
        if key.endswith(".parquet"):
            rows = pq.read_table(pa.BufferReader(body)).to_pylist()
            if phone.lstrip("+")[-8:] in repr(rows):
                found.append(key)
    return found


@pytest.mark.parametrize("what", ["partNumber=", "uploads", "uploadId="])
def test_an_upload_that_fails_leaves_the_old_object_and_no_temporary_file(
    what: str, objects: ObjectService, temporary: Path
) -> None:
    store = Store(DATA_DIR)
    name = "receipts/sent_date=2024-03-01/receipts.parquet"
    store.write(name, pa.table({"a": [1, 2]}), {"token": "first"})
    before = objects.objects()
    objects.refuses = lambda method, path, query: what in query
    with pytest.raises(StorageError, match=r"Can't write .*AWS_ACCESS_KEY_ID") as caught:
        store.write(name, pa.table({"a": [3]}), {"token": "second"})
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)
    objects.refuses = lambda method, path, query: False
    assert objects.objects() == before
    assert store.read(name)["a"].to_pylist() == [1, 2]
    assert store.metadata(name) == {"token": "first"}
    assert list(temporary.iterdir()) == []


def test_an_error_while_writing_leaves_the_old_object_and_no_temporary_file(
    objects: ObjectService, temporary: Path
) -> None:
    store = Store(DATA_DIR)
    with store.replacing("pace.json") as path:
        path.write_text("{}")
    with pytest.raises(ZeroDivisionError), store.replacing("pace.json") as path:
        path.write_text("1" * (1 // 0))
    assert objects.objects() == {f"{FOLDER}/pace.json": b"{}"}
    assert list(temporary.iterdir()) == []


def test_an_object_larger_than_one_part_arrives_whole(objects: ObjectService) -> None:
    store = Store(DATA_DIR)
    body = os.urandom(12_000_000)
    with store.replacing("report.html") as path:
        path.write_bytes(body)
    assert objects.objects() == {f"{FOLDER}/report.html": body}
    with store.replacing("report.html") as path:
        path.write_bytes(b"")
    assert objects.objects() == {f"{FOLDER}/report.html": b""}


@pytest.mark.long
def test_names_lists_finished_objects_only_and_over_several_pages(objects: ObjectService) -> None:
    store = Store(DATA_DIR)
    wanted = [f"responses/sent_date=2024-03-01/{n:04}.parquet" for n in range(1010)]
    with objects._client() as client:
        for name in [*wanted, "responses/.x.parquet", "responses/x.txt", "responses/empty/"]:
            client.put_object(Bucket=BUCKET, Key=f"{FOLDER}/{name}", Body=b"")
    assert store.names("responses") == wanted
    assert store.names("receipts") == []
    store.delete(wanted[0])
    store.delete(wanted[0])
    assert store.names("responses") == wanted[1:]


@pytest.mark.long
def test_a_run_whose_upload_fails_is_made_good_by_the_next(
    tmp_path: Path, simulator: Any, objects: ObjectService
) -> None:
    shop = account(tmp_path, simulator)
    shop.clock.turn(days=4)
    objects.refuses = lambda method, path, query: "/receipts/" in path and method == "PUT"
    with pytest.raises(StorageError, match="receipts"):
        shop.run()
    objects.refuses = lambda method, path, query: False
    shop.run()
    assert shop.pipeline.conservation(shop.window.days()) == []
    assert shop.service.counters.ids_asked
    assert set(shop.service.counters.ids_asked.values()) == {1}


def usms(folder: Path, given: dict[str, Any], *arguments: str) -> Any:
    environment = {f"USMS_{name.upper()}": str(value) for name, value in given.items()}
    return subprocess.run(
        [sys.executable, "-m", "usms_pipeline", *arguments],
        cwd=folder, env=os.environ | environment, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.long
def test_the_commands_work_on_object_storage(
    tmp_path: Path, simulator: Any, objects: ObjectService
) -> None:
    shop = account(tmp_path, simulator, 100)
    given = shop.given
    checked = usms(tmp_path, given, "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"✓ data dir: {DATA_DIR} is writable" in checked.stdout
    ran = usms(tmp_path, given, "run", "--all", "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["warehouse"]["rows"] == 100
    report = usms(tmp_path, given, "report")
    assert report.stdout == f"✓ {DATA_DIR}/report.html\n"
    assert objects.objects()[f"{FOLDER}/report.html"].startswith(b"<!DOCTYPE html>")
    assert "Traceback" not in checked.stderr + ran.stderr + report.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1", "Could not connect to server"),  # tcpmux: nobody
        ("USMS_DATA_DIR", "s3://massages/data", "bucket does not exist"),
    ],
)
def test_what_cannot_be_reached_is_told_in_a_sentence(
    variable: str, value: str, said: str, tmp_path: Path, simulator: Any, objects: ObjectService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    shop = account(tmp_path, simulator, 20)
    given = {k: v for k, v in shop.given.items() if f"USMS_{k.upper()}" != variable}
    monkeypatch.setenv(variable, value)
    told = usms(tmp_path, given, "run", "--all")
    assert told.returncode == 1
    assert told.stderr.startswith("✗ Can't ")
    assert said in told.stderr
    assert "AWS_ENDPOINT_URL" in told.stderr
    assert len(told.stderr.splitlines()) == 1
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in told.stderr
