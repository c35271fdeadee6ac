"""One query to the service and its answer: the only place that builds a request.

One request, one reply: retries and splitting live in fetch.py, connections in transport.py.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from importlib.metadata import version
from typing import Final
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from usms_pipeline.contract.wording import without_numbers
from usms_pipeline.service import api, careful
from usms_pipeline.service.api import MAX_IDS, Verdict, classify
from usms_pipeline.settings import Settings

MAX_BODY_BYTES: Final = 64_000_000
"""The most that is read of one answer, decompressed. 100 sessions of 1,000 phones are 16 MB."""

KEPT_BYTES: Final = 64_000
"""How much is kept of a larger answer."""

_MESSAGE_CHARACTERS: Final = 200
_MESSAGE_READ: Final = 10_000
"""Characters of a message that are looked through; one of 60 MB would hold up everybody."""

_NO_BODY: Final = httpx.ByteStream(b"")
"""Passed so that httpx does not compute body headers for each request: it saves 16 µs."""

_A_CODE: Final = re.compile(rb'"?\s*([+-]?[0-9]{1,19})\s*"?')
"""A return code, which some servers send as text."""
_UNRESERVED: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
_INT64: Final = range(-(2**63), 2**63)


@dataclass(frozen=True)
class Reply:
    """The result of one request.

    ``http_status`` is None when no whole answer came; ``ret_code`` None when the body has none.
    ``message`` is the service's own, or what went wrong: at most 200 printable characters, without
    ids, phones or credentials. ``is_oversized`` bodies (in bytes, or in the number of their values)
    are cut to their first 64 kB. ``is_late``: nothing came of it in time. ``is_sent``: there was a
    connection to send it through.
    """

    asked_at: datetime
    http_status: int | None
    ret_code: int | None
    message: str
    body: bytes = field(default=b"", repr=False)
    retry_after_seconds: float | None = None
    is_oversized: bool = False
    is_late: bool = False
    is_sent: bool = True

    @cached_property
    def verdict(self) -> Verdict:
        """What to do about it."""
        if self.is_oversized:
            return Verdict.SPLIT
        has_retry_after = self.retry_after_seconds is not None
        return classify(self.http_status, self.ret_code, has_retry_after=has_retry_after)

    @property
    def is_unreadable(self) -> bool:
        """Return whether the service said all is well, in a body that can't be read."""
        is_success = self.http_status in api.SUCCESSES
        return is_success and self.ret_code is None and not self.is_oversized

    @property
    def label(self) -> str:
        """Return the kind of answer by its code."""
        return api.label(self.http_status, self.ret_code)


class Client:
    """Ask the service for receipts through a transport, which the caller closes.

    ``clock`` gives the time (aware UTC) that becomes ``asked_at``.
    """

    def __init__(
        self,
        settings: Settings,
        transport: httpx.AsyncBaseTransport,
        clock: Callable[[], datetime],
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        given = settings.access_key_id, settings.access_key_secret
        key_id, secret = (one.get_secret_value() if one else "" for one in given)
        url = httpx.URL(settings.base_url)
        self._path = urlsplit(settings.base_url).path.rstrip("/") + api.PATH
        self._url = url.copy_with(raw_path=self._path.encode("ascii"))
        host = url.netloc.decode("ascii")
        self._headers = httpx.Headers(
            {
                "Host": host,
                "Authorization": api.authorization(key_id, secret),
                **api.HEADERS,
                "Accept-Encoding": "gzip",
                "User-Agent": f"usms-pipeline/{version('usms-pipeline')}",
            }
        )
        self.address = f"{url.scheme}://{host}"
        sent = {secret, key_id, self._headers["Authorization"].split()[1]} - {""}
        forms = {*sent, *(quote(text, safe="") for text in sent)}  # as a server may repeat them
        self._secrets = sorted(forms, key=len, reverse=True)
        self.seconds = settings.timeout_seconds
        self._timeout = httpx.Timeout(settings.timeout_seconds).as_dict()
        self._transport, self._clock = transport, clock
        self._max_body_bytes = max_body_bytes

    async def ask(self, ids: Sequence[str], seconds: float | None = None) -> Reply:
        """Send one request for 1 to 100 distinct ids. Any result is a ``Reply``.

        ``seconds``: how long to wait for it, the settings' time-out at most.
        Raises ``ValueError`` for ids that must not be sent: none, too many, empty or repeated.
        """
        seconds = self.seconds if seconds is None else min(seconds, self.seconds)
        extensions = {"target": target(self._path, ids), "timeout": self._timeout}
        request = httpx.Request(
            api.METHOD, self._url, headers=self._headers, stream=_NO_BODY, extensions=extensions
        )
        asked_at = self._clock()
        try:
            # The transport's time-outs are for one step each; this is for all of them together.
            async with asyncio.timeout(seconds):
                response = await self._transport.handle_async_request(request)
                assert isinstance(response.stream, httpx.AsyncByteStream)
                try:
                    body = await self._read(response.stream)
                finally:
                    await response.stream.aclose()
        except TimeoutError:
            late = f"no whole answer within {seconds:g} s"
            return Reply(asked_at, None, None, late, is_late=True)
        except (httpx.TransportError, httpx.DecodingError) as error:
            if isinstance(error, httpx.DecodingError):
                # A server that packs an answer wrongly once does so again: ask for it unpacked.
                self._headers["Accept-Encoding"] = "identity"
            is_late, words = isinstance(error, httpx.TimeoutException), str(error)
            unsent = httpx.ConnectTimeout, httpx.ConnectError, httpx.ProxyError
            is_sent = not isinstance(error, unsent)
            return Reply(asked_at, None, None, words, is_late=is_late, is_sent=is_sent)
        return self._reply(asked_at, ids, response, body)

    async def _read(self, stream: httpx.AsyncByteStream) -> bytes:
        """Read a body, or a little more than its limit.

        Not through ``aiter_bytes``: what a transport yields is decompressed, and that would look
        for a decoder and count bytes, for a tenth of a request's CPU.
        """
        pieces, size = [], 0
        async for piece in stream:
            pieces.append(piece)
            size += len(piece)
            if size > self._max_body_bytes:
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _reply(
        self, asked_at: datetime, ids: Sequence[str], response: httpx.Response, body: bytes
    ) -> Reply:
        status = response.status_code
        wait = retry_after_seconds(response.headers.get("Retry-After"), self._clock())
        excess = ""
        if len(body) > self._max_body_bytes:
            excess = f"the answer is larger than {self._max_body_bytes / 1e6:g} MB"
        elif careful.has_too_many_values(body):
            excess = f"the answer holds more than {careful.MOST_VALUES:,} values"
        if excess:
            return Reply(asked_at, status, None, excess, body[:KEPT_BYTES], wait, True)
        ret_code, message = _read_envelope(body)
        message = self._safe(message, ids) if ret_code else message
        return Reply(asked_at, status, ret_code, message, body, wait)

    def _safe(self, message: str, ids: Sequence[str]) -> str:
        """Remove ids, credentials and what may be a phone from a message, and cut it."""
        message = message[:_MESSAGE_READ]
        for secret in self._secrets:
            message = message.replace(secret, "…")
        # Whole words only: an id may be as short as a letter.
        anyone = "|".join(re.escape(one) for one in sorted(ids, key=len, reverse=True))
        message = re.sub(rf"(?<!\w)(?:{anyone})(?!\w)", "…", message)
        message = without_numbers(message)
        message = "".join(c if c.isprintable() else " " for c in message)
        return " ".join(message.split())[:_MESSAGE_CHARACTERS]


def target(path: str, ids: Sequence[str]) -> bytes:
    """Build the request target: the path, then each id as ``id=``, percent-encoded.

    Raises ``ValueError`` unless there are 1 to 100 distinct ids, none of them empty.
    """
    if not 1 <= len(ids) <= MAX_IDS or len(set(ids)) != len(ids) or not all(ids):
        raise ValueError(f"A request takes 1 to {MAX_IDS} distinct, non-empty ids; got {len(ids)}.")
    joined = "".join(ids).encode()
    # Nearly all ids are plain, and to look at them all at once is far cheaper than quoting each.
    if joined.translate(None, _UNRESERVED):
        ids = [quote(session_no, safe="") for session_no in ids]
    name = f"{api.ID_PARAMETER}="
    return f"{path}?{name}{f'&{name}'.join(ids)}".encode("ascii")


def retry_after_seconds(header: str | None, now: datetime) -> float | None:
    """Read a Retry-After header: seconds or an HTTP date; None when there is none to be read."""
    if not header:
        return None
    if re.fullmatch(r"\s*[0-9]{1,15}(\.[0-9]*)?\s*", header):
        return float(header)
    try:
        at = parsedate_to_datetime(header)
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return max(0.0, (at - now).total_seconds())
    except (ValueError, OverflowError):
        return None


def _read_envelope(body: bytes) -> tuple[int | None, str]:
    """Return the code and message; no code where the body can't be read, which the message says.

    The whole body is checked to be JSON and an object, and the data of a success to be a list: what
    can't be read when it is decoded is to be asked again now.
    """
    try:
        envelope = careful.ENVELOPE.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        readable = careful.mended(body)  # what is kept is read the same way
        if readable is None:
            return None, "the answer is not the JSON object it should be"
        envelope = careful.ENVELOPE.decode(readable)
    code = _A_CODE.fullmatch(bytes(envelope.ret_code))
    if code is None or int(code[1]) not in _INT64:
        return None, f"the answer has no {api.ENVELOPE['ret_code']}"
    ret_code = int(code[1])
    if ret_code == api.NO_ERROR and not careful.is_list(envelope.data):
        return None, careful.NO_LIST
    message = ""
    if ret_code and bytes(envelope.message)[:1] == b'"':
        with suppress(msgspec.MsgspecError, ValueError):
            message = str(msgspec.json.decode(envelope.message))
    return ret_code, message
