"""The source's address: the setting in its parts, and texts about it without secrets.

The one place that looks inside ``USMS_SOURCE_URL``. Nothing here connects.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from usms_pipeline.contract.errors import SourceError
from usms_pipeline.contract.wording import without_numbers

_SECRET_OPTIONS = re.compile(r"(?i)(pass(word|wd)?|secret|token|key)$")


@dataclass(frozen=True)
class Address:
    """A database URL or a file path. ``shown`` is safe to print, ``url`` is not."""

    url: str = field(repr=False)
    scheme: str
    """Lower case, with the driver after ``+`` if there is one; empty for a plain path."""
    path: str
    """The path of a file, or the name of a database."""
    shown: str
    secrets: tuple[str, ...] = field(repr=False)

    def clean(self, text: str) -> str:
        """Return the first line of a driver's message without passwords and phone numbers."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return without_numbers(lines[0]) if lines else "no reason given"


def parse(url: str) -> Address:
    """Split ``USMS_SOURCE_URL`` into its parts.

    Raises ``SourceError`` when the user name or password must be percent-encoded first.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        # what stands before an @ is most likely a password, and the scheme was forgotten
        _, at, place = url.rpartition("@")
        shown = f"***@{place}" if at and not Path(url).exists() else url
        return Address(url, "", url, shown, ())
    scheme = scheme.lower()
    if scheme.split("+")[0] in ("sqlite", "duckdb"):
        path = unquote(rest.partition("?")[0]).removeprefix("/")
        return Address(url, scheme, path, f"{scheme}:///{path}", ())
    return _server(url, scheme, rest)


def secrets(url: str) -> tuple[str, ...]:
    """Return the parts of ``USMS_SOURCE_URL`` that must not be shown, the longest first."""
    try:
        return parse(url).secrets
    except SourceError:
        _, _, password = url.partition("://")[2].rpartition("@")[0].partition(":")
        return (url, password) if password else (url,)


def _server(url: str, scheme: str, rest: str) -> Address:
    user, at, _ = rest.rpartition("@")
    if at and re.search(r"[@/?#\s]", user):
        raise SourceError(
            "The user name or password in USMS_SOURCE_URL holds a character that must be "
            "percent-encoded: write @ as %40, / as %2F, # as %23, ? as %3F and % as %25."
        )
    parts = urlsplit(f"x://{rest}")
    name, _, password = user.partition(":")
    host = unquote(parts.netloc.rpartition("@")[2])
    shown = f"{scheme}://{unquote(name)}{at}{host}{parts.path}"
    options = [v for k, v in parse_qsl(parts.query) if _SECRET_OPTIONS.search(k)]
    secrets = {url, password, unquote(password), *options} - {""}
    longest_first = tuple(sorted(secrets, key=len, reverse=True))
    return Address(url, scheme, parts.path.removeprefix("/"), shown, longest_first)
