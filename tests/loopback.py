"""A real HTTP/1.1 server on loopback, in a thread, that answers as a test tells it to."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Seen:
    """One request as it came over the wire; ``connection`` counts connections from 0."""

    target: str
    headers: dict[str, str]
    connection: int

    @property
    def ids(self) -> list[str]:
        query = urlsplit(self.target).query
        return [unquote(part.removeprefix("id=")) for part in query.split("&") if part]


@dataclass(frozen=True)
class Response:
    """An answer; ``cut`` sends only that many bytes of the body, ``is_reset`` then resets."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    is_reset: bool = False
    delay_seconds: float = 0.0
    trickle_seconds: float = 0.0  # between single bytes of the body


def ok(ids: list[str]) -> Response:
    """Answer as the service does for delivered messages."""
    receipt = {"Phone": "13800138000", "Status": "delivered", "ReceiveTime": "2024-01-01 12:00:00"}
    data = [{"SessionNo": i, "Status": "success", "Receipt": receipt} for i in ids]
    return code(0, "success", Data=data)


def code(ret_code: Any, message: str = "", status: int = 200, **more: Any) -> Response:
    body = json.dumps({"RetCode": ret_code, "Message": message, **more}).encode()
    return Response(body, status, {"Content-Type": "application/json"})


Handler = Callable[[Seen], Response]


class Server:
    def __init__(self, handler: Handler, tls: ssl.SSLContext | None = None) -> None:
        self.handler = handler
        self.seen: list[Seen] = []
        self.connections = 0
        self._tls = tls
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        number, self.connections = self.connections, self.connections + 1
        try:
            while await self._exchange(reader, writer, number):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> bool:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(": ") for line in lines[1:] if line)
        headers = {name.lower(): value for name, _, value in pairs}
        seen = Seen(lines[0].split(" ")[1], headers, number)
        self.seen.append(seen)
        response = self.handler(seen)
        if response.delay_seconds:
            await asyncio.sleep(response.delay_seconds)
        length = {"Content-Length": str(len(response.body))}
        head = "".join(f"{k}: {v}\r\n" for k, v in {**length, **response.headers}.items())
        writer.write(f"HTTP/1.1 {response.status} X\r\n{head}\r\n".encode())
        if response.trickle_seconds:
            for byte in response.body:
                writer.write(bytes([byte]))
                await asyncio.sleep(response.trickle_seconds)
            return True
        writer.write(response.body[: response.cut])
        await writer.drain()
        if response.is_reset:
            _reset(writer)
        return response.cut is None and not response.is_reset


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a TCP reset in place of an orderly end."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextmanager
def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    server = Server(handler, tls)
    server.start()
    try:
        yield server
    finally:
        server.stop()
