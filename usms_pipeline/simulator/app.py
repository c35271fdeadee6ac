"""The simulator over ASGI: requests in, replies out, with their delays and bad endings.

Nothing is decided here; ``Simulator.answer`` has said all of it.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterator
from typing import Final

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from usms_pipeline.simulator.replies import Reply
from usms_pipeline.simulator.simulator import PATH, Simulator

HANG_UP: Final = "usms.hang_up"
"""ASGI extension of our server: call it with True to reset the connection, False to close it."""

_BLANKS: Final = b" " * 1_000_000


class Receipts:
    """The one endpoint, as an ASGI application."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = dict(scope["headers"])
        reply = self._simulator.answer(
            scope["query_string"],
            headers.get(b"authorization", b"").decode("latin-1"),
            b"gzip" in headers.get(b"accept-encoding", b""),
        )
        if reply.delay_seconds:
            await asyncio.sleep(reply.delay_seconds)
        if reply.ending == "whole":
            await _send_whole(reply, send)
        else:
            await _break_off(reply, scope, receive, send)


def app(simulator: Simulator) -> Starlette:
    """Return the ASGI application that speaks for a simulator."""
    return Starlette(routes=[Route(PATH, Receipts(simulator), methods=["GET"])])


async def _send_whole(reply: Reply, send: Send) -> None:
    length = None if reply.padding_bytes else len(reply.body)
    await send(_start(reply, length))
    for chunk in _chunks(reply):
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _break_off(reply: Reply, scope: Scope, receive: Receive, send: Send) -> None:
    """Send part of the reply, or nothing, and hang up; then wait until that is done."""
    hang_up: Callable[[bool], None] = scope["extensions"][HANG_UP]
    if reply.ending == "short":
        await send(_start(reply, len(reply.body)))
        half = reply.body[: len(reply.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})
    hang_up(reply.ending == "reset")
    while (await receive())["type"] != "http.disconnect":
        pass


def _start(reply: Reply, length: int | None) -> dict[str, object]:
    headers = [(b"content-type", reply.content_type.encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in reply.headers]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    if reply.is_gzip:
        headers.append((b"content-encoding", b"gzip"))
    return {"type": "http.response.start", "status": reply.status, "headers": headers}


def _chunks(reply: Reply) -> Iterator[bytes]:
    """Return the body in parts, so that a blown-up one is never held whole."""
    if not reply.padding_bytes:
        yield reply.body
        return
    # Sixteen more than the window's bits is zlib's way to ask for gzip.
    packer = zlib.compressobj(1, wbits=zlib.MAX_WBITS + 16) if reply.is_gzip else None
    for part in _padded(reply):
        yield packer.compress(part) if packer else part
    if packer:
        yield packer.flush()


def _padded(reply: Reply) -> Iterator[bytes]:
    yield reply.body
    for sent in range(0, reply.padding_bytes, len(_BLANKS)):
        yield _BLANKS[: reply.padding_bytes - sent]
