"""The access key goes to the one host that was named, over TLS that was verified, or nowhere."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.loopback import ok, serving
from usms_pipeline.errors import SettingsError
from usms_pipeline.service.client import Client, Reply
from usms_pipeline.service.transport import CurlTransport
from usms_pipeline.setting_types import is_loopback
from usms_pipeline.settings import Settings, load

REFUSED = (
    "http://127.0.0.1.evil.com", "http://localhost.evil.com", "http://evil.com/127.0.0.1",
    "http://evil.com#127.0.0.1", "http://127.0.0.1#.evil.com", "http://127.0.0.1?.evil.com",
    "http://127.0.0.1@evil.com", "http://127.0.0.1:80@evil.com", "http://localhost@evil.com",
    "http://user:secret@127.0.0.1", "https://user@api.example", "https://user:pw@api.example",
    "http://127.0.0.1\\.evil.com", "http://127.0.0.1\\@evil.com", "https://a.example\\@evil.com",
    "http://127.0.0.1\t.evil.com", "http://127.0.0.1\n.evil.com", "http://127.0.0.1 .evil.com",
    "https://api.example/\r\nHost: evil.com", "https://api.example/a b",
    "http://localhost.", "http://0.0.0.0", "http://10.0.0.1", "http://[::]", "http://[fe80::1]",
    "http://2130706433", "http://0x7f.1", "http://127.1", "http://ⓛocalhost", "http://１27.0.0.1",
    "https://exämple.com", "https://api.example/ä", "HTTP://EVIL.COM", "//127.0.0.1",
    "https://", "https:///path", "https://:443", "ws://127.0.0.1", "file:///etc/passwd",
    "https://api.example?Action=x", "https://api.example/#x", "https://[::1", "https://a:b",
)  # fmt: skip
ACCEPTED = (
    "https://api.example", "HTTPS://API.EXAMPLE", "https://api.example:8443/base/",
    "https://xn--exmple-cua.com", "http://127.0.0.1:8765", "http://127.9.9.9", "http://[::1]:80",
    "http://localhost:1", "HTTP://LOCALHOST",
)  # fmt: skip


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_that_would_show_the_key_to_others_is_refused(address: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(base_url=address)
    assert [problem.variable for problem in caught.value.problems] == ["USMS_BASE_URL"]
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("address", ACCEPTED)
def test_who_is_asked_is_who_was_checked(address: str) -> None:
    """Two readers of one address agree on its host, and http is for this machine alone."""
    accepted = load(base_url=address).base_url
    sent_to = httpx.URL(accepted)
    assert sent_to.raw_host.decode() == urlsplit(accepted).hostname
    assert sent_to.scheme == "https" or is_loopback(sent_to.host)
    assert not sent_to.userinfo


# --- TLS ------------------------------------------------------------------------------------------


def openssl(*arguments: str) -> None:
    try:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs the openssl command")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority that the client trusts in these tests."""
    folder = tmp_path_factory.mktemp("tls")
    openssl(
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=authority",
        "-keyout", f"{folder}/ca.key", "-out", f"{folder}/ca.pem",
    )  # fmt: skip
    return folder


def certificate(folder: Path, name: str, *validity: str) -> ssl.SSLContext:
    """Make a server's certificate that the authority vouches for."""
    extensions = folder / "extensions"
    extensions.write_text(f"subjectAltName={name}\n")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=server",
            "-keyout", f"{folder}/key", "-out", f"{folder}/request")  # fmt: skip
    openssl("x509", "-req", "-in", f"{folder}/request", "-CA", f"{folder}/ca.pem",
            "-CAkey", f"{folder}/ca.key", "-out", f"{folder}/cert", "-set_serial", "7",
            "-extfile", str(extensions), *validity)  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert", folder / "key")
    return context


def ask(url: str, authority: Path) -> Reply:
    settings = Settings(
        _env_file=None, base_url=url, access_key_id="id", access_key_secret="key", timeout_seconds=9
    )

    async def main() -> Reply:
        async with CurlTransport(authority / "ca.pem") as transport:
            return await Client(settings, transport, lambda: datetime.now(UTC)).ask(["a"])

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("name", "validity", "reason"),
    [
        ("IP:127.0.0.1", ("-days", "2"), None),
        ("DNS:api.uspeedo.com", ("-days", "2"), "certificate"),
        ("IP:127.0.0.1", ("-days", "-1"), "certificate"),
    ],
    ids=["as it should be", "for another host", "expired"],
)
def test_a_certificate_for_another_host_or_an_expired_one_is_refused(
    authority: Path, name: str, validity: tuple[str, ...], reason: str | None
) -> None:
    with serving(lambda seen: ok(seen.ids), certificate(authority, name, *validity)) as server:
        reply = ask(server.url, authority)
        assert len(server.seen) == (reason is None), "nothing is sent before it is verified"
    if reason is None:
        assert reply.ret_code == 0
    else:
        assert reply.http_status is None
        assert reason in reply.message
