"""A service that sends bombs over real HTTP: ``python -m tests.hostile_server`` asks it for each.

Prints what became of each question, and how much memory the asking took at most, in MB.
"""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Callable
from functools import cache

from tests.hostile_memory import peak_mb
from usms_pipeline.service.client import Client, Reply
from usms_pipeline.service.collect import utc_now
from usms_pipeline.service.transport import CurlTransport
from usms_pipeline.settings import load

MB = 1_000_000
BOMB_MB = 1_000


@cache
def bomb(wbits: int) -> list[bytes]:
    """Give 1 GB of zeros, compressed: about a megabyte."""
    packer = zlib.compressobj(6, wbits=wbits)
    pieces = [packer.compress(bytes(MB)) for _ in range(BOMB_MB)]
    return [*filter(None, pieces), packer.flush()]


def members() -> list[bytes]:
    """Give empty gzip members that inflate to nothing, 200,000 of them."""
    return [gzip.compress(b"") * 10_000] * 20


ENCODED: dict[str, tuple[str, Callable[[], list[bytes]]]] = {
    "gzip": ("gzip", lambda: bomb(31)),
    "deflate": ("deflate", lambda: bomb(15)),
    "nested": ("gzip", lambda: [gzip.compress(b"".join(bomb(31)))]),
    "twice": ("gzip, gzip", lambda: [gzip.compress(b"".join(bomb(31)))]),
    "members": ("gzip", members),
}
CHUNKED, ENDLESS, HEADER, HEADERS = "chunked", "endless", "header", "headers"
ALL = (*ENCODED, CHUNKED, ENDLESS, HEADER, HEADERS)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send the bomb that the one id names, until the client has had enough."""
    try:
        line = await reader.readuntil(b"\r\n\r\n")
        name = line.split(b"id=")[1].split(b" ")[0].decode()
        async for piece in sent(name):
            writer.write(piece)
            await writer.drain()
    except (ConnectionError, asyncio.CancelledError):
        pass
    finally:
        writer.close()


async def sent(name: str) -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    if name in ENCODED:
        encoding, make = ENCODED[name]
        yield b"Content-Encoding: %b\r\n\r\n" % encoding.encode()
        for piece in make():
            yield piece
    elif name == HEADER:
        yield b"X: " + b"x" * 10 * MB + b"\r\n\r\n{}"
    elif name == HEADERS:
        for number in range(200_000):
            yield b"X-%d: %b\r\n" % (number, b"x" * 40)
        yield b"\r\n{}"
    else:
        yield b"Transfer-Encoding: chunked\r\n\r\n"
        while True:
            yield b"10000\r\n" + b"[" * 65536 + b"\r\n" if name == CHUNKED else b"1\r\n{\r\n"
            await asyncio.sleep(0 if name == CHUNKED else 0.001)


async def ask_all() -> dict[str, Reply]:
    async with (
        await asyncio.start_server(answer, "127.0.0.1", 0) as server,
        CurlTransport() as transport,
    ):
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        settings = load(
            base_url=url, access_key_id="id", access_key_secret="secret", timeout_seconds=20
        )
        hasty = settings.model_copy(update={"timeout_seconds": 1.0})
        return {
            name: await Client(hasty if name == ENDLESS else settings, transport, utc_now).ask(
                [name]
            )
            for name in ALL
        }


if __name__ == "__main__":
    before = peak_mb()
    for name, reply in asyncio.run(ask_all()).items():
        print(name, reply.verdict.value, len(reply.body), reply.message, sep="\t")
    print(peak_mb() - before)
