"""An S3-compatible service on loopback (moto's), which can be told to refuse or drop requests."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

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
