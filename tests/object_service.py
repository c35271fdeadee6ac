"""An S3-compatible service on loopback: real HTTP, conditions, and what goes wrong on the way."""

from __future__ import annotations

import io
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from tests.account import Account

BUCKET = "messages"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIDOFTHETESTS", "AWS_SECRET_ACCESS_KEY": "s3cret-of-tests"}
_UNKNOWN = b"<Error><Code>NotImplemented</Code><Message>Not implemented</Message></Error>"
_REFUSAL = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"

Refuses = Callable[[str, str, str], bool]


@dataclass
class ObjectService:
    """The service that is up: where it is, what it was asked, and what it refuses.

    ``refuses`` gets the method, the path and the query of each request; so do ``drops``, for
    requests whose connection is cut in the middle of their body, and ``loses``, for those that are
    carried out and whose response is lost, and ``garbles``, for objects that are kept otherwise
    than they were put. ``unmet`` names the objects of refused conditions;
    ``conditions``: what the service does with them.
    """

    url: str = ""
    refuses: Refuses = lambda method, path, query: False
    drops: Refuses = lambda method, path, query: False
    loses: Refuses = lambda method, path, query: False
    garbles: Refuses = lambda method, path, query: False
    conditions: Literal["known", "ignored", "refused"] = "known"
    unmet: list[str] = field(default_factory=list)
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What a user sets to use it."""
        return CREDENTIALS | {"AWS_ENDPOINT_URL": self.url, "AWS_REGION": "eu-west-3"}

    def objects(self, ending: str = "") -> dict[str, bytes]:
        """Every object of the bucket with such a name, as another client sees them."""
        with self._client() as client:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
            keys = [one["Key"] for page in pages for one in page.get("Contents", [])]
            return {
                key: client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
                for key in keys
                if key.endswith(ending)
            }

    def make_bucket(self) -> None:
        where = {"LocationConstraint": "eu-west-3"}
        with self._client() as client:
            client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration=where)

    def upload(self, folder: Path, to: str) -> None:
        """Put all files of a folder below ``to``, as another client does."""
        with self._client() as client:
            for file in folder.rglob("*"):
                if file.is_file():
                    key = f"{to}/{file.relative_to(folder).as_posix()}"
                    client.put_object(Bucket=BUCKET, Key=key, Body=file.read_bytes())

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

    def _carried_out(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Do as S3 does: a body that breaks off counts for nothing, a condition is atomic."""
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        if len(body) < length:
            raise ConnectionResetError
        request = (environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"])
        environ["wsgi.input"] = io.BytesIO(body[::-1] if self.garbles(*request) else body)
        for name in ("HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH"):
            if self.conditions == "refused" and name in environ:
                start_response("501 Not Implemented", [("Content-Type", "application/xml")])
                return [_UNKNOWN]
            if self.conditions == "ignored":
                environ.pop(name, None)

        def started(status: str, *more: Any) -> Any:
            if status.startswith("412"):
                self.unmet.append(environ["PATH_INFO"].rpartition("/")[2])
            return start_response(status, *more)

        with _ONE_AT_A_TIME:
            return [b"".join(_MOTO(environ, started))]

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
        if self.loses(*request):
            self._carried_out(environ, lambda *said: None)
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError
        return self._carried_out(environ, start_response)


_ONE_AT_A_TIME = threading.Lock()
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


def holding(objects: ObjectService, phone: str) -> list[str]:
    """The objects that hold a number, however compressed."""
    found = []
    for key, body in objects.objects().items():
        if key.endswith(".parquet"):
            rows = pq.read_table(pa.BufferReader(body)).to_pylist()
            if phone.lstrip("+")[-8:] in repr(rows):
                found.append(key)
    return found
