"""The simulator over HTTP: uvicorn in a thread, and the ASGI application that it runs.

Nothing is decided here: ``Simulator.answer`` says what is sent, after which delay, and how it ends.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import chain
from typing import Any, Final

import uvicorn

from usms_pipeline.contract.errors import UsmsError
from usms_pipeline.simulator.replies import Reply, page
from usms_pipeline.simulator.simulator import PATH, Simulator

LOOPBACK: Final = "127.0.0.1"
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_STOP_SECONDS: Final = 10.0
_BLANKS: Final = b" " * 1_000_000


@contextmanager
def serve(simulator: Simulator, port: int = 0, host: str = LOOPBACK) -> Iterator[str]:
    """Serve in a thread while the block runs; yields the base URL (port 0: any free one).

    Raises ``UsmsError`` if it can't listen on the port.
    """
    with closing(_listen(host, port)) as listener:
        config = uvicorn.Config(
            _app(simulator), ws="none", lifespan="off", log_config=None, log_level="critical",
            access_log=False, timeout_graceful_shutdown=1,
        )  # fmt: skip
        server = uvicorn.Server(config)
        thread = threading.Thread(
            target=server.run, args=([listener],), name="usms-simulator", daemon=True
        )
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        try:
            host, port = listener.getsockname()[:2]
            yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        finally:
            server.should_exit = True
            thread.join(_STOP_SECONDS)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsmsError(
            f"The simulator can't listen on {host}:{port}: {reason}. Give another port, or 0 "
            "for any free one."
        ) from error


def _app(simulator: Simulator) -> Callable[..., Any]:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != PATH:
            reply = page(404, "Not Found")
        elif scope["method"] != "GET":
            reply = page(405, "Method Not Allowed")
        else:
            headers = dict(scope["headers"])
            key = headers.get(b"authorization", b"").decode("latin-1")
            takes_gzip = b"gzip" in headers.get(b"accept-encoding", b"")
            reply = simulator.answer(scope["query_string"], key, takes_gzip)
        if reply.delay_seconds:
            await asyncio.sleep(reply.delay_seconds)
        await _send(reply, receive, send)

    return answer


async def _send(reply: Reply, receive: Any, send: Any) -> None:
    if reply.ending == "reset":
        transport = send.__self__.transport  # uvicorn's own: ASGI can't reset a connection
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    headers = [(b"content-type", reply.content_type.encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in reply.headers]
    if not reply.padding_bytes:
        headers.append((b"content-length", str(len(reply.body)).encode()))
    if reply.is_gzip:
        headers.append((b"content-encoding", b"gzip"))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    whole = _chunks(reply) if reply.ending == "whole" else [reply.body[: len(reply.body) // 2]]
    for chunk in whole:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    if reply.ending == "whole":  # else uvicorn closes the connection
        await send({"type": "http.response.body", "body": b""})


def _chunks(reply: Reply) -> Iterator[bytes]:
    """Yield the body in parts, so that an oversized one is never in memory whole."""
    padding = range(0, reply.padding_bytes, len(_BLANKS))
    parts = chain([reply.body], (_BLANKS[: reply.padding_bytes - sent] for sent in padding))
    if not (reply.is_gzip and reply.padding_bytes):  # a body without padding is compressed already
        yield from parts
        return
    # Sixteen more than the window's bits is zlib's way to ask for gzip.
    packer = zlib.compressobj(1, wbits=zlib.MAX_WBITS + 16)
    yield from map(packer.compress, parts)
    yield packer.flush()
