"""The data directory on object storage: a real S3-compatible service, real HTTP."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from tests.account import Account
from tests.examples import examples
from tests.processes import sentence, usms
from usms_pipeline import warehouse
from usms_pipeline.contract.errors import StorageError
from usms_pipeline.store.storage import Store

BUCKET = "messages"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIDOFTHETESTS", "AWS_SECRET_ACCESS_KEY": "s3cret-of-tests"}
_REFUSAL = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"

Refuses = Callable[[str, str, str], bool]


@dataclass
class ObjectService:
    """The service that is up: where it is, what it was asked, and what it refuses.

    ``refuses`` gets the method, the path and the query of each request; so does ``drops``, for
    requests whose connection is cut in the middle of their body.
    """

    url: str = ""
    refuses: Refuses = lambda method, path, query: False
    drops: Refuses = lambda method, path, query: False
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What a user sets to use it."""
        return CREDENTIALS | {"AWS_ENDPOINT_URL": self.url, "AWS_REGION": "eu-west-3"}

    def objects(self) -> dict[str, bytes]:
        """Every object of the bucket, as another client sees them."""
        with self._client() as client:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
            keys = [one["Key"] for page in pages for one in page.get("Contents", [])]
            return {key: client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}

    def make_bucket(self) -> None:
        where = {"LocationConstraint": "eu-west-3"}
        with self._client() as client:
            client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration=where)

    @contextmanager
    def _client(self) -> Iterator[Any]:
        import boto3

        client = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="eu-west-3",
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )
        try:
            yield client
        finally:
            client.close()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        request = (environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"])
        self.asked.append(request)
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if self.drops(*request):
            environ["wsgi.input"].read(length // 2)
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError
        if self.refuses(*request):
            environ["wsgi.input"].read(length)
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [_REFUSAL]
        return _MOTO(environ, start_response)


_MOTO = DomainDispatcherApplication(create_backend_app)


@contextmanager
def object_service() -> Iterator[ObjectService]:
    """Serve an empty bucket while the block runs."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    service = ObjectService()
    server = make_server("127.0.0.1", 0, service, threaded=True)
    service.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        service.make_bucket()
        yield service
    finally:
        _reset()
        server.shutdown()
        thread.join()
        server.server_close()


def _reset() -> None:
    from moto.backends import get_backend

    for account in get_backend("s3").values():
        for backend in account.values():
            backend.reset()


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


def holding(objects: ObjectService, phone: str) -> list[str]:
    """The objects that hold a number, however compressed."""
    found = []
    for key, body in objects.objects().items():
        if key.endswith(".parquet"):
            rows = pq.read_table(pa.BufferReader(body)).to_pylist()
            if phone.lstrip("+")[-8:] in repr(rows):
                found.append(key)
    return found


NAME = "receipts/sent_date=2024-03-01/receipts.parquet"
SMALL, LARGE = b"new" * 1000, bytes(25_000_000)


def put(store: Store, body: bytes, name: str = NAME) -> None:
    with store.replacing(name) as path:
        path.write_bytes(body)


def stored(objects: ObjectService) -> dict[str, bytes]:
    """What the service has, but for the markers that pyarrow makes of emptied folders."""
    return {key: body for key, body in objects.objects().items() if not key.endswith("/")}


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


@pytest.mark.long  # the client tries thrice
@pytest.mark.parametrize("way", ["refuses", "drops"])
@pytest.mark.parametrize("what", ["PUT /receipts.parquet ", "uploads", "partNumber=3", "uploadId="])
def test_a_large_upload_that_breaks_off_leaves_the_old_object(what, way, objects, temporary):
    store = Store(DATA_DIR)
    put(store, b"old")

    def is_to_fail(method: str, path: str, query: str) -> bool:
        return what in f"{method} /{path.rsplit('/', 1)[1]} {query}"

    setattr(objects, way, is_to_fail)
    with pytest.raises(StorageError, match="Can't write"):
        put(store, LARGE)
    setattr(objects, way, lambda method, path, query: False)
    assert stored(objects) == {f"{FOLDER}/{NAME}": b"old"}
    assert list(temporary.iterdir()) == []
    put(store, LARGE)
    assert stored(objects) == {f"{FOLDER}/{NAME}": LARGE}


@pytest.mark.long  # the client tries thrice
def test_a_small_file_is_put_in_one_request_whose_end_alone_replaces_the_object(objects):
    store = Store(DATA_DIR)
    objects.asked.clear()
    put(store, b"old")
    assert [method for method, _, _ in objects.asked] == ["PUT"]
    objects.drops = lambda method, path, query: method == "PUT"
    with pytest.raises(StorageError, match="Can't write"):
        put(store, SMALL)
    assert stored(objects) == {f"{FOLDER}/{NAME}": b"old"}


@examples(2, "at", ["PUT", "uploads", "partNumber=1", "partNumber=3", "uploadId="])
def test_an_interrupt_at_any_request_leaves_the_old_object_or_the_new_one_whole(
    at, objects, temporary
):
    store = Store(DATA_DIR)
    put(store, b"old")
    body = SMALL if at == "PUT" else LARGE
    is_sent = threading.Event()

    def interrupts(method: str, path: str, query: str) -> bool:
        if at in f"{method} {query}" and not is_sent.is_set():
            is_sent.set()
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
        return False

    objects.refuses = interrupts
    with pytest.raises(KeyboardInterrupt):
        put(store, body)
    expected = body if body is SMALL else b"old"
    assert stored(objects) == {f"{FOLDER}/{NAME}": expected}
    assert list(temporary.iterdir()) == []


@examples(2, "where", range(5))
def test_an_interrupt_at_any_line_never_puts_an_empty_object(where, objects):
    """A stream that was opened and is closed before it is written to puts one."""
    store = Store(DATA_DIR)
    put(store, b"old")
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.endswith("usms_pipeline/store/storage.py"):
            return None
        if event == "line" and frame.f_code.co_name in ("_upload", "_put"):
            lines += 1
            if lines == where + 1:
                raise KeyboardInterrupt
        return trace

    with suppress(KeyboardInterrupt), store.replacing(NAME) as path:
        path.write_bytes(SMALL)
        sys.settrace(trace)
    sys.settrace(None)
    assert stored(objects)[f"{FOLDER}/{NAME}"] in (b"old", SMALL)


def test_a_killed_upload_leaves_the_old_object(objects, tmp_path):
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
    is_midway = threading.Event()

    def holds(method: str, path: str, query: str) -> bool:
        if "partNumber=3" in query:
            is_midway.set()
            time.sleep(0.2)
        return False

    objects.refuses = holds
    with subprocess.Popen(command, env=environment) as process:
        assert is_midway.wait(30)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert stored(objects) == {f"{FOLDER}/{NAME}": b"old"}


def test_a_damaged_object_is_set_aside(objects):
    store = Store(DATA_DIR)
    put(store, b"damaged")
    aside = store.set_aside(NAME)
    assert re.fullmatch(r"receipts/sent_date=2024-03-01/receipts\.parquet\.damaged-\w{8}", aside)
    assert stored(objects) == {f"{FOLDER}/{aside}": b"damaged"}
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
def test_a_run_whose_upload_fails_is_made_good_by_the_next(tmp_path, simulator, objects):
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
    ran = usms(shop, "run", "--all", "--json")
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
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1", "Could not connect to server"),  # tcpmux: nobody
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
