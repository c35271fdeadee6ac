"""The HTTP answers as values, the useless ones included.

Pure: the app sends what is written here. No message and no receipt is known here.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from math import ceil
from random import Random
from typing import Any, Final, Literal

import msgspec

from usms_pipeline.simulator.faults import RETRY_AFTER, Faults

PARAMETER_ERROR, PARAMETER_MISSING, SERVER_ERROR, THROTTLED = 215392, 215397, 215400, 153

Ending = Literal["whole", "short", "reset"]


@dataclass(frozen=True)
class Reply:
    """One HTTP answer: ``short`` breaks off before its Content-Length, ``reset`` says nothing.

    ``padding_bytes`` of blanks follow the body, compressed where the body is.
    """

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    ending: Ending = "whole"
    is_gzip: bool = False
    padding_bytes: int = 0
    delay_seconds: float = 0.0


RESET: Final = Reply(ending="reset")
_ENCODE = msgspec.json.Encoder().encode
_PAGE = "<html><head><title>{0}</title></head><body><h1>{0}</h1><hr>gateway</body></html>"


def json_reply(content: Any, status: int = 200) -> Reply:
    """Return a reply with a JSON body."""
    return Reply(status, _ENCODE(content))


def refusal(ret_code: int, message: str, status: int = 200) -> Reply:
    """Return a refusal by RetCode, inside HTTP 200 as documented."""
    return json_reply({"RetCode": ret_code, "Message": message}, status)


def page(status: int, title: str) -> Reply:
    """Return a web page, as gateways do."""
    return Reply(status, _PAGE.format(title).encode(), "text/html")


def throttled(faults: Faults, rng: Random) -> Reply:
    """Return HTTP 429, with the Retry-After that the faults ask for."""
    reply = refusal(THROTTLED, "Too many requests", 429)
    form = faults.retry_after if faults.retry_after != "any" else rng.choice(RETRY_AFTER[1:])
    if form == "none":
        return reply
    value = str(ceil(faults.retry_after_seconds))
    if form == "date":
        # The header counts whole seconds of the real clock, not of the rehearsed time.
        at = datetime.now(UTC) + timedelta(seconds=ceil(faults.retry_after_seconds))
        value = format_datetime(at.replace(microsecond=0), usegmt=True)
    return replace(reply, headers=(("Retry-After", value),))


def failing(rng: Random) -> Reply:
    """Return a 5xx, with JSON, with a web page or with nothing."""
    status = rng.choice((500, 502, 503, 504))
    kind = rng.randrange(3)
    if kind == 0:
        return refusal(SERVER_ERROR, "Internal error", status)
    return page(status, "Bad Gateway") if kind == 1 else Reply(status)


def unreachable(rng: Random) -> Reply:
    """Return what a client gets from a service that is down."""
    return RESET if rng.random() < 0.3 else page(503, "Service Unavailable")


def unauthorized(rng: Random | None = None) -> Reply:
    """Refuse the credentials: by RetCode as documented, or with ``rng`` in any likely form."""
    return rng.choice(_UNAUTHORIZED) if rng else _UNAUTHORIZED[0]


_UNAUTHORIZED: Final = (
    refusal(215393, "Authentication failed"),
    refusal(215394, "Signature error"),
    refusal(171, "Signature VerifyAC Error"),
    refusal(215393, "Authentication failed", 401),
    page(403, "Forbidden"),
)


def useless_kind(faults: Faults, rng: Random) -> str | None:
    """Draw at most one of the faults that make an answer useless."""
    draw = rng.random()
    for name in _USELESS:
        draw -= getattr(faults, name)
        if draw < 0:
            return name
    return None


THROTTLED_200: Final = refusal(THROTTLED, "Request was throttled")
_USELESS: Final = {
    "throttle": None,
    "ret_throttle": THROTTLED_200,
    "server_error": None,
    "ret_server_error": refusal(SERVER_ERROR, "Server error"),
    "reset": RESET,
    **dict.fromkeys(("truncated", "cut_json")),
    "html": page(200, "Welcome"),
    "oversized": None,
}
"""The useless kinds, and the replies that are always the same."""


def without_content(kind: str, faults: Faults, rng: Random) -> Reply | None:
    """Return the useless reply of a kind that needs no receipts; None for ``spoiled`` kinds."""
    if kind == "throttle":
        return throttled(faults, rng)
    if kind == "server_error":
        return failing(rng)
    return _USELESS[kind]


def spoiled(kind: str, reply: Reply, faults: Faults) -> Reply:
    """Spoil a good reply: break it off, cut its JSON, or blow it up."""
    if kind == "truncated":
        return replace(reply, ending="short")
    if kind == "cut_json":
        return replace(reply, body=reply.body[: max(1, len(reply.body) * 2 // 3)])
    return replace(reply, padding_bytes=int(faults.oversized_mb * 1_000_000))


def compressed(reply: Reply) -> Reply:
    """Compress a reply's body; padding is compressed while it is sent."""
    body = reply.body if reply.padding_bytes else gzip.compress(reply.body, 1)
    return replace(reply, body=body, is_gzip=True)
