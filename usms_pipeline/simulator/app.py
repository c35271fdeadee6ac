"""The simulator over ASGI: requests in, replies out, with their delays and bad endings.

Nothing is decided here; ``Simulator.answer`` has said all of it.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator
from itertools import chain
from typing import Final

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from usms_pipeline.simulator.replies import Reply
from usms_pipeline.simulator.simulator import PATH, Simulator

HANG_UP: Final = "usms.hang_up"
"""ASGI extension of our server: call it with True to reset the connection, False to close it."""

_BLANKS: Final = b" " * 1_000_000


def app(simulator: Simulator) -> Starlette:
    """Return the ASGI application that speaks for a simulator."""

    class Receipts:
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            headers = dict(scope["headers"])
            key = headers.get(b"authorization", b"").decode("latin-1")
            takes_gzip = b"gzip" in headers.get(b"accept-encoding", b"")
            reply = simulator.answer(scope["query_string"], key, takes_gzip)
            if reply.delay_seconds:
                await asyncio.sleep(reply.delay_seconds)
            await _send(reply, scope, receive, send)

    return Starlette(routes=[Route(PATH, Receipts(), methods=["GET"])])


async def _send(reply: Reply, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a reply; or part of it, or nothing, and hang up, and wait until that is done."""
    headers = [(b"content-type", reply.content_type.encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in reply.headers]
    if not reply.padding_bytes:
        headers.append((b"content-length", str(len(reply.body)).encode()))
    if reply.is_gzip:
        headers.append((b"content-encoding", b"gzip"))
    if reply.ending != "reset":
        start = {"type": "http.response.start", "status": reply.status, "headers": headers}
        await send(start)
    whole = _chunks(reply) if reply.ending == "whole" else [reply.body[: len(reply.body) // 2]]
    for chunk in whole if reply.ending != "reset" else ():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    if reply.ending == "whole":
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    scope["extensions"][HANG_UP](reply.ending == "reset")
    while (await receive())["type"] != "http.disconnect":
        pass


def _chunks(reply: Reply) -> Iterator[bytes]:
    """Yield the body in parts, so that a blown-up one is never held whole."""
    if not reply.padding_bytes:
        yield reply.body
        return
    padding = range(0, reply.padding_bytes, len(_BLANKS))
    parts = chain([reply.body], (_BLANKS[: reply.padding_bytes - sent] for sent in padding))
    if not reply.is_gzip:
        yield from parts
        return
    # Sixteen more than the window's bits is zlib's way to ask for gzip.
    packer = zlib.compressobj(1, wbits=zlib.MAX_WBITS + 16)
    yield from map(packer.compress, parts)
    yield packer.flush()
