"""TLS and the environment's proxy on the fast path: real certificates, a real tunnel."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.loopback import Server, ok, serving
from tests.services import free_port
from usms_pipeline.service.api import Verdict
from usms_pipeline.service.client import Client, Reply
from usms_pipeline.service.collect import utc_now
from usms_pipeline.service.transport import CurlTransport
from usms_pipeline.settings import load

SECRET = "theVerySecretHalf"


class Tunnel(Server):
    """An HTTP proxy that knows CONNECT alone, and keeps what is sent to it and through it."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> None:
        super().__init__(lambda seen: ok(seen.ids))
        self.heads: list[bytes] = []
        self.carried, self._answer = b"", answer

    def __enter__(self) -> Tunnel:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.current_task())
        writers = [writer]
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self._answer)
            if b" 200 " in self._answer:
                host, _, port = self.heads[-1].split()[1].decode().rpartition(":")
                there, back = await asyncio.open_connection(host, int(port))
                writers.append(back)
                await asyncio.gather(self._pump(reader, back, True), self._pump(there, writer))
        finally:
            for one in writers:
                one.close()
                with suppress(OSError, asyncio.CancelledError):
                    await one.wait_closed()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, is_out: bool = False
    ) -> None:
        with suppress(OSError):
            while piece := await source.read(65_536):
                self.carried += piece if is_out else b""
                sink.write(piece)
        sink.close()


def openssl(*arguments: str) -> None:
    try:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs the openssl command")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority of one's own."""
    folder = tmp_path_factory.mktemp("tls")
    openssl(
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=authority",
        "-keyout", f"{folder}/ca.key", "-out", f"{folder}/ca.pem",
    )  # fmt: skip
    return folder


def certificate(folder: Path, name: str = "IP:127.0.0.1", days: int = 2) -> ssl.SSLContext:
    """Make a server's certificate that the authority vouches for."""
    extensions = folder / "extensions"
    extensions.write_text(f"subjectAltName={name}\n")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=server",
            "-keyout", f"{folder}/key", "-out", f"{folder}/request")  # fmt: skip
    openssl("x509", "-req", "-in", f"{folder}/request", "-CA", f"{folder}/ca.pem",
            "-CAkey", f"{folder}/ca.key", "-out", f"{folder}/cert", "-set_serial", "7",
            "-extfile", str(extensions), "-days", str(days))  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert", folder / "key")
    return context


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    """The service over TLS."""
    with serving(lambda seen: ok(seen.ids), certificate(folder)) as server:
        yield server


@pytest.fixture
def trusted(folder: Path) -> Path:
    return folder / "ca.pem"


@contextmanager
def environment(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Iterator[None]:
    with monkeypatch.context() as patch:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
            patch.delenv(name, raising=False)
            patch.delenv(name.lower(), raising=False)
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


def ask(url: str, cafile: Path | None = None) -> Reply:
    async def main() -> Reply:
        settings = load(base_url=url, access_key_id="key", access_key_secret=SECRET)
        async with CurlTransport() as transport:
            return await Client(settings, transport, utc_now).ask(["a"])

    with pytest.MonkeyPatch.context() as patch:
        if cafile is not None:
            patch.setenv("SSL_CERT_FILE", str(cafile))
        return asyncio.run(main())


def test_a_certificate_from_an_unknown_ca_is_refused(server, trusted):
    refused = ask(server.url)
    assert refused.verdict is Verdict.RETRY
    assert "certificate" in refused.message
    assert server.seen == []
    assert ask(server.url, trusted).verdict is Verdict.OK


@pytest.mark.parametrize(("name", "days"), [("DNS:api.uspeedo.com", 2), ("IP:127.0.0.1", -1)])
def test_a_certificate_for_another_host_or_an_expired_one_is_refused(folder, trusted, name, days):
    with serving(lambda seen: ok(seen.ids), certificate(folder, name, days)) as server:
        reply = ask(server.url, trusted)
        assert server.seen == [], "nothing is sent before it is verified"
    assert reply.http_status is None
    assert "certificate" in reply.message


@pytest.mark.long
def test_a_private_ca_in_ssl_cert_file_is_trusted(server, trusted):
    code = "import sys, tests.test_proxy as t; print(t.ask(sys.argv[1]).verdict.name)"
    for authority, verdict in ((trusted, "OK"), (trusted / "none", "RETRY")):
        done = subprocess.run(
            [sys.executable, "-c", code, server.url],
            env=os.environ | {"SSL_CERT_FILE": str(authority), "NO_PROXY": "*"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == verdict


def test_https_goes_through_the_environments_proxy_which_sees_no_credentials(
    server, trusted, monkeypatch
):
    with Tunnel() as tunnel:
        proxy = f"http://someone:hidden@127.0.0.1:{tunnel.port}"
        with environment(monkeypatch, HTTPS_PROXY=proxy):
            assert ask(server.url, trusted).verdict is Verdict.OK
            assert "certificate" in ask(server.url).message
    assert len(server.seen) == 1
    assert "proxy-authorization" not in server.seen[0].headers
    assert len(tunnel.heads) == 2
    assert all(head.startswith(b"CONNECT 127.0.0.1:") for head in tunnel.heads)
    assert all(b"\r\nAuthorization" not in head for head in tunnel.heads)
    assert tunnel.carried
    assert b"USMSSendReceipt" not in tunnel.carried


def test_a_host_in_no_proxy_and_plain_http_go_straight(server, trusted, monkeypatch):
    dead = f"http://127.0.0.1:{free_port()}"
    with environment(monkeypatch, HTTPS_PROXY=dead, NO_PROXY="127.0.0.1"):
        assert ask(server.url, trusted).verdict is Verdict.OK
    with serving(lambda seen: ok(seen.ids)) as plain:
        every = {"HTTP_PROXY": dead, "HTTPS_PROXY": dead, "ALL_PROXY": dead}
        with environment(monkeypatch, **every):
            assert ask(plain.url).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("http://someone:hidden@127.0.0.1:{dead}", "no connection to the proxy (HTTPS_PROXY"),
        ("someone:hidden@127.0.0.1:{dead}", "no connection to the proxy (HTTPS_PROXY"),
        ("http://someone:hidden@127.0.0.1:{refusing}", "the proxy (HTTPS_PROXY or ALL_PROXY) answ"),
        ("socks5://someone:hidden@127.0.0.1:{dead}", "a proxy of kind 'socks5'"),
    ],
)
def test_a_proxy_that_is_no_use_is_named_without_its_password(kind, words, server, monkeypatch):
    with Tunnel(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n") as refusing:
        proxy = kind.format(dead=free_port(), refusing=refusing.port)
        with environment(monkeypatch, HTTPS_PROXY=proxy):
            reply = ask(server.url)
    assert reply.verdict is Verdict.RETRY
    assert words in reply.message
    assert "hidden" not in reply.message
    assert server.seen == []
