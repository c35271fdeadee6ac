"""The data directory on object storage: a real S3-compatible service, real HTTP."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pyarrow as pa
import pytest

from tests.account import Account
from tests.examples import examples
from tests.object_service import (
    BUCKET,
    CREDENTIALS,
    DATA_DIR,
    FOLDER,
    account,
    holding,
)
from tests.processes import sentence, usms
from usms_pipeline import warehouse
from usms_pipeline.contract.errors import StorageError
from usms_pipeline.store.storage import Store


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of temporary files, to see what is left in it."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def published(of: Account) -> list[tuple[Any, ...]]:
    with warehouse.connect(of.settings.warehouse_path) as con:
        return con.execute("FROM receipts ORDER BY ALL").fetchall()


@pytest.mark.long
def test_a_whole_run_and_a_second_asks_nothing_and_rebuilt_is_equal(
    tmp_path, simulator, objects, temporary
):
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
    assert len(objects.asked) < 10 * len(report.days), "round trips, when idle"
    assert shop.service.counters.requests == requests
    assert again.warehouse.is_skipped
    assert report.stats.requests > 0

    (tmp_path / "usms.duckdb").unlink()
    shop.pipeline.rebuild()
    shop.pipeline.publish()
    assert published(shop) == first
    assert list(temporary.iterdir()) == []
    assert not (tmp_path / "data").exists()


@pytest.mark.long
def test_forget_erases_from_every_object(tmp_path, simulator, objects):
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


NAME = "receipts/sent_date=2024-03-01/receipts.parquet"
SMALL, LARGE = b"new" * 1000, bytes(25_000_000)


def put(store: Store, body: bytes, name: str = NAME) -> None:
    with store.replacing(name) as path:
        path.write_bytes(body)


def test_an_upload_that_fails_leaves_the_old_object_and_no_temporary_file(objects, temporary):
    store = Store(DATA_DIR)
    store.write(NAME, pa.table({"a": [1, 2]}), {"token": "first"})
    objects.refuses = lambda method, path, query: method == "PUT"
    with pytest.raises(StorageError, match=r"Can't write .*AWS_ACCESS_KEY_ID") as caught:
        store.write(NAME, pa.table({"a": [3]}), {"token": "second"})
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)
    objects.refuses = lambda method, path, query: False
    assert store.read(NAME)["a"].to_pylist() == [1, 2]
    assert store.metadata(NAME) == {"token": "first"}
    assert list(temporary.iterdir()) == []


def test_what_waits_for_upload_is_in_no_folder(objects, temporary):
    store = Store(DATA_DIR)
    with store.replacing(NAME) as path:
        path.write_bytes(LARGE)
        assert list(temporary.iterdir()) == [], "a kill leaves nothing"
    with store._opened(NAME) as source:
        assert list(temporary.iterdir()) == []
        assert source.size() == len(LARGE)


@pytest.mark.long  # the client tries six times
@pytest.mark.parametrize("way", ["refuses", "drops"])
@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
def test_one_request_puts_a_file_and_its_end_alone_replaces_the_object(
    body, way, objects, temporary
):
    store = Store(DATA_DIR)
    put(store, b"old")
    setattr(objects, way, lambda method, path, query: method == "PUT")
    with pytest.raises(StorageError, match="Can't write"):
        put(store, body)
    setattr(objects, way, lambda method, path, query: False)
    assert objects.objects() == {f"{FOLDER}/{NAME}": b"old"}
    assert list(temporary.iterdir()) == []
    objects.asked.clear()
    put(store, body)
    assert [method for method, _, _ in objects.asked] == ["PUT"]
    assert objects.objects() == {f"{FOLDER}/{NAME}": body}


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
def test_an_interrupt_waits_until_the_new_object_is_whole(body, objects, temporary):
    store = Store(DATA_DIR)
    put(store, b"old")
    is_sent = threading.Event()

    def interrupts(method: str, path: str, query: str) -> bool:
        if method == "PUT" and not is_sent.is_set():
            is_sent.set()
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
        return False

    objects.refuses = interrupts
    with pytest.raises(KeyboardInterrupt):
        put(store, body)
    assert objects.objects() == {f"{FOLDER}/{NAME}": body}
    assert list(temporary.iterdir()) == []


@examples(2, "where", range(9))
def test_an_interrupt_at_any_line_never_puts_an_empty_object(where, objects):
    store = Store(DATA_DIR)
    put(store, b"old")
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.endswith("usms_pipeline/store/objects.py"):
            return None
        if event == "line" and frame.f_code.co_name == "put":
            lines += 1
            if lines == where + 1:
                raise KeyboardInterrupt
        return trace

    with suppress(KeyboardInterrupt), store.replacing(NAME) as path:
        path.write_bytes(SMALL)
        sys.settrace(trace)
    sys.settrace(None)
    assert objects.objects()[f"{FOLDER}/{NAME}"] in (b"old", SMALL)


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM], ids=lambda kill: kill.name)
def test_a_process_killed_in_the_middle_of_a_put_leaves_the_old_object(kill, objects, tmp_path):
    store = Store(DATA_DIR)
    put(store, b"old")
    script = (
        "import os, sys\n"
        "from usms_pipeline.store.storage import Store\n"
        "with Store(sys.argv[1]).replacing(sys.argv[2]) as path:\n"
        "    path.write_bytes(bytes(25_000_000))\n"
    )
    command = [sys.executable, "-c", script, DATA_DIR, NAME]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    is_midway, is_dead = threading.Event(), threading.Event()

    def holds(method: str, path: str, query: str) -> bool:
        if method == "PUT":
            is_midway.set()
            is_dead.wait(30)
        return False

    objects.refuses = holds
    with subprocess.Popen(command, env=environment) as process:
        assert is_midway.wait(30)
        process.send_signal(kill)
        assert process.wait(30) == -kill
        is_dead.set()
    assert objects.objects() == {f"{FOLDER}/{NAME}": b"old"}


def test_credentials_may_be_those_of_a_profile(objects, tmp_path, monkeypatch):
    keys = "\n".join(f"{name.lower()}={value}" for name, value in CREDENTIALS.items())
    (tmp_path / "none").write_text(f"[shop]\n{keys}\n")
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", "shop")
    Store(DATA_DIR).write_json("x.json", {"a": 1})
    assert Store(DATA_DIR).read_json("x.json") == {"a": 1}
    monkeypatch.setenv("AWS_PROFILE", "sop")
    with pytest.raises(StorageError, match=r"profile \(sop\) could not be found"):
        Store(DATA_DIR)


def test_a_damaged_object_is_set_aside(objects):
    store = Store(DATA_DIR)
    put(store, b"damaged")
    aside = store.set_aside(NAME)
    assert re.fullmatch(r"receipts/sent_date=2024-03-01/receipts\.parquet\.damaged-\w{8}", aside)
    assert objects.objects() == {f"{FOLDER}/{aside}": b"damaged"}
    assert store.names("receipts") == []
    with pytest.raises(StorageError, match="Can't set aside"):
        store.set_aside(NAME)


@pytest.mark.long
def test_names_lists_finished_objects_only_and_over_several_pages(objects):
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
def test_the_next_run_repairs_a_failed_upload_without_asking_again(tmp_path, simulator, objects):
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


@pytest.mark.long
def test_the_commands_work_on_object_storage(tmp_path, simulator, objects):
    shop = account(tmp_path, simulator, 100)
    checked = usms(shop, "check")
    assert checked.code == 0, checked
    assert f"✓ data dir: {DATA_DIR} is writable" in checked.out
    ran = usms(shop, "run", "--all", "--format", "json")
    assert ran.code == 0, ran
    assert json.loads(ran.out)["warehouse"]["rows"] == 100
    report = usms(shop, "report")
    assert report.out == f"✓ {DATA_DIR}/report.html\n"
    assert objects.objects()[f"{FOLDER}/report.html"].startswith(b"<!DOCTYPE html>")
    assert "Traceback" not in checked.said + ran.said + report.said


@pytest.mark.long
@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1", "error sending request"),  # tcpmux: nobody
        ("USMS_DATA_DIR", "s3://massages/data", "bucket does not exist"),
    ],
)
def test_what_cannot_be_reached_is_told_in_a_sentence(
    variable, value, said, tmp_path, simulator, objects, monkeypatch
):
    shop = account(tmp_path, simulator, 20)
    if variable == "USMS_DATA_DIR":
        shop.given["data_dir"] = value
    monkeypatch.setenv(variable, value)
    told = sentence(usms(shop, "run", "--all"))
    assert told.startswith("✗ Can't ")
    assert said in told
    assert "AWS_ENDPOINT_URL" in told
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in told
