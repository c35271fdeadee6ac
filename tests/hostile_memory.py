"""What takes most memory, in a process of its own: ``python -m tests.hostile_memory WORK``.

Prints how much memory the process held at most beyond what it began with, in MB.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import resource
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache, partial
from pathlib import Path

import pyarrow as pa

from tests.scripted import DAY, NOON, Scripted, receipt
from tests.test_decode import DELIVERED, decode, item, response
from tests.test_decode import answer as said
from usms_pipeline.service.client import Client, Reply
from usms_pipeline.service.collect import utc_now
from usms_pipeline.service.transport import CurlTransport
from usms_pipeline.settings import load

MB = 1_000_000
DEEP = 1_000_000


def wrapped(receipts: bytes) -> bytes:
    return b'{"RetCode":0,"Data":[{"SessionNo":"a","Receipt":[%b]}]}' % receipts


def written(**fields: object) -> bytes:
    return json.dumps(said(item("a", [DELIVERED | fields]))).encode()


def many() -> Iterator[bytes]:
    """Too many of something."""
    yield b'{"RetCode":0,"Data":[' + b"1," * 1_900_000 + b"1]}"
    yield wrapped(b"{}," * 1_900_000 + b"{}")
    yield wrapped(b"{}," * 20_000_000 + b"{}")
    yield json.dumps(
        said(item("a", [DELIVERED | {"Phone": f"138{n:08}"} for n in range(100_000)]))
    ).encode()


def long() -> Iterator[bytes]:
    """Texts of 10 MB, in every field that is kept; and a word that a thousand receipts share."""
    for name in (*DELIVERED, "ReceiptCode", "ReceiptDesc", "ReceiptResult", "CostCount"):
        yield written(**{name: "1" * 10 * MB})
    yield json.dumps(said(item("a", [DELIVERED] * 1_000, Status="x" * 10 * MB))).encode()
    yield json.dumps(said(item("x" * 10 * MB), item("a", Receipt="x" * 10 * MB))).encode()
    yield written(ReceiptDesc="x" * 63 * MB)


def deep() -> Iterator[bytes]:
    """A million brackets, in every field."""
    for name in (*DELIVERED, "ReceiptTime", "CostCount", "Other"):
        body = written(**{name: "HERE"})
        yield body.replace(b'"HERE"', b"[" * DEEP + b"]" * DEEP)
        yield body.replace(b'"HERE"', b'{"a":' * DEEP)
    for name in ("SessionNo", "Status", "Receipt", "ReceiptSet"):
        body = json.dumps(
            said(item("a", **{name: "HERE"}) if name != "SessionNo" else {name: "HERE"})
        )
        yield body.encode().replace(b'"HERE"', b"[" * DEEP + b"]" * DEEP)


def decoded(bodies: Callable[[], Iterator[bytes]]) -> None:
    good = response(said(item("a", DELIVERED)), ["a"])
    for body in bodies():
        found = decode(good, response(body, ["a"]), good, good, good)
        assert found.observations.num_rows >= 5
        kept = found.observations.nbytes + found.rejects.nbytes
        assert kept < 20 * MB, f"{len(body)} bytes became {kept}"


def landed(folder: str) -> None:
    """What a run that was killed had been told: 480 MB."""
    account = Scripted(Path(folder))
    body = written(ReceiptDesc="x" * 12 * MB)
    account.land(*[account.told("a", body=body)] * 40, days=[DAY])


def folded(folder: str) -> None:
    """It is read a block at a time."""
    account = Scripted(Path(folder))
    account.row("a")
    account.refresh()
    [(status, told)] = account.shown("status", "provider_desc")
    assert (status, len(told)) == ("delivered", 1_000)


def large_day(folder: str, sessions: str) -> None:
    """Long texts beside the messages of a day, which is asked about, and rebuilt."""
    account = Scripted(Path(folder), dimensions="note", poll_every_hours=4)
    names = [f"session-{n:030}" for n in range(int(sessions))]
    times = pa.array([NOON] * int(sessions), pa.timestamp("us", "UTC"))
    phones = pa.nulls(int(sessions), pa.string())
    notes = [8 * name for name in names]
    account.announce(
        pa.table([names, times, phones, notes], ["session_no", "sent_at", "phone", "note"])
    )
    for word in ("sending", "sending", "sending", "delivered"):
        told = receipt(word)
        account.says = dict.fromkeys(names, told)
        account.clock.turn(hours=5)
        shown = account.pipeline.refresh(account.window)
    print("delivered", shown.buckets["delivered"], sep="\t")
    print("delivered", account.pipeline.rebuild([DAY]).buckets["delivered"], sep="\t")


BOMB_MB = 1_000


@cache
def bomb(wbits: int) -> list[bytes]:
    """Return 1 GB of zeros, compressed: about a megabyte."""
    packer = zlib.compressobj(6, wbits=wbits)
    pieces = [packer.compress(bytes(MB)) for _ in range(BOMB_MB)]
    return [*filter(None, pieces), packer.flush()]


def members() -> list[bytes]:
    """Return empty gzip members that inflate to nothing, 200,000 of them."""
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


async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
        await asyncio.start_server(send, "127.0.0.1", 0) as server,
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


def bombs() -> None:
    """Return what becomes of a question about each."""
    for name, reply in asyncio.run(ask_all()).items():
        print(name, reply.verdict.value, len(reply.body), sep="\t")


WORK: dict[str, Callable[..., None]] = {
    "many": partial(decoded, many), "long": partial(decoded, long), "deep": partial(decoded, deep),
    "landed": landed, "folded": folded, "large day": large_day, "bombs": bombs,
}  # fmt: skip


def peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    before = peak_mb()
    WORK[sys.argv[1]](*sys.argv[2:])
    print(peak_mb() - before)
