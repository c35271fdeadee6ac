"""The access key goes to the one host that was named, over TLS that was verified, or nowhere."""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx
import pytest

from usms_pipeline.contract.errors import SettingsError
from usms_pipeline.contract.setting_types import is_loopback
from usms_pipeline.settings import load

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
def test_an_address_that_would_show_the_key_to_others_is_refused(address):
    with pytest.raises(SettingsError) as caught:
        load(base_url=address)
    assert [problem.variable for problem in caught.value.problems] == ["USMS_BASE_URL"]
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("address", ACCEPTED)
def test_the_host_that_is_asked_is_the_host_that_was_checked(address):
    """Two readers of one address agree on its host, and http is for this machine alone."""
    accepted = load(base_url=address).base_url
    sent_to = httpx.URL(accepted)
    assert sent_to.raw_host.decode() == urlsplit(accepted).hostname
    assert sent_to.scheme == "https" or is_loopback(sent_to.host)
    assert not sent_to.userinfo
