"""The load server: one core, prepared answers, a latency if wanted. Not the bottleneck.

``python -m benchmarks.server [latency_seconds]`` prints its address and serves until it is ended.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from benchmarks.world import answer

_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"


class _Answering(asyncio.Protocol):
    def __init__(self, latency_seconds: float) -> None:
        self._latency_seconds = latency_seconds
        self._loop = asyncio.get_running_loop()
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while (end := self._pending.find(b"\r\n\r\n")) >= 0:
            request, self._pending = self._pending[:end], self._pending[end + 4 :]
            query = request.split(b" ", 2)[1].partition(b"?")[2]
            body = answer(query)
            reply = _HEAD % (len(body), body)
            if self._latency_seconds:
                self._loop.call_later(self._latency_seconds, self._transport.write, reply)
            else:
                self._transport.write(reply)


@contextmanager
def serving(latency_seconds: float = 0.0) -> Iterator[str]:
    """Serve in a process of its own while the block runs; yields the base URL."""
    command = [sys.executable, "-m", "benchmarks.server", str(latency_seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


async def _serve(latency_seconds: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Answering(latency_seconds), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve(float(sys.argv[1]) if len(sys.argv) > 1 else 0.0))
