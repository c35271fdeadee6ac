"""The transport by itself: what libcurl would take for whole, keep, or send to others."""

from __future__ import annotations

import asyncio
import gzip
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from usms_pipeline.service import transport as transport_module
from usms_pipeline.service.transport import CurlTransport

HEAD = b"HTTP/1.1 200 OK\r\n"
WHOLE = HEAD + b"Content-Length: 2\r\n\r\n{}"
SECRET = "Basic c2VjcmV0"


@asynccontextmanager
async def answering(answer: bytes, seconds: float = 0) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Answer each request with these bytes and close; yields the URL and the heads received."""
    heads: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            await asyncio.sleep(seconds)
            writer.write(answer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads


async def get(
    transport: CurlTransport, url: str, **extensions: object
) -> tuple[int, dict[str, str], bytes]:
    """Send one request; return the status, the headers and the body."""
    given = {"target": b"/?id=private"} | extensions
    request = httpx.Request("GET", url, headers={"Authorization": SECRET}, extensions=given)
    response = await transport.handle_async_request(request)
    assert isinstance(response.stream, httpx.AsyncByteStream)
    body = b"".join([piece async for piece in response.stream])
    return response.status_code, dict(response.headers), body


def got(answer: bytes, **extensions: object) -> tuple[int, dict[str, str], bytes]:
    async def main() -> tuple[int, dict[str, str], bytes]:
        async with answering(answer) as (url, _), CurlTransport() as transport:
            return await get(transport, url, **extensions)

    return asyncio.run(main())


# What came back


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 20",
        HEAD + b"A: b\r\n",  # libcurl takes this one for an answer with an empty body
        HEAD + b"Content-Length: 9\r\n\r\n{}",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n9\r\n{}",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    ],
)
def test_an_answer_that_ends_early_is_none_wherever_it_ends(answer: bytes) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="closed before the answer ended") as caught:
        got(answer)
    assert (caught.value.__context__, caught.value.__cause__) == (None, None)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n",
        HEAD + b"no colon\r\n\r\n",
        HEAD + b"A: \0\r\n\r\n",
        HEAD + b"Content-Length: -2\r\n\r\n{}",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}",
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    ],
)
def test_what_is_not_http_is_called_so(answer: bytes) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="the answer is not HTTP"):
        got(answer)


def test_headers_are_those_of_the_answer_itself() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nRetry-After: 9\r\n\r\n"
    late = b"0\r\nRetry-After: 9\r\nContent-Encoding: gzip\r\n\r\n"
    chunked = b"Transfer-Encoding: chunked\r\nX: \xe9\r\n\r\n2\r\n{}\r\n"
    assert got(early + HEAD + chunked + late) == (200, {"x": "é"}, b"{}")


def test_a_header_may_be_long_but_not_without_end() -> None:
    status, headers, _ = got(HEAD + b"X: %b\r\nContent-Length: 0\r\n\r\n" % (b"x" * 90_000))
    assert (status, len(headers["x"])) == (200, 90_000)
    for many in (b"X: %b\r\n" % (b"x" * 200_000), b"X: y\r\n" * 50_000):
        with pytest.raises(httpx.RemoteProtocolError, match="headers of the answer are too large"):
            got(HEAD + many + b"\r\n")


@pytest.mark.parametrize("kind", ["plain", "gzip"])
def test_a_body_is_received_up_to_a_cap_and_is_never_taken_for_whole(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(transport_module, "_MOST_RAW_BYTES", 300_000)
    text = os.urandom(1_000_000)
    body, head = (text, HEAD) if kind == "plain" else (gzip.compress(text), None)
    head = head or HEAD + b"Content-Encoding: gzip\r\n"
    read = b""

    async def main() -> None:
        nonlocal read
        async with answering(head + b"\r\n" + body) as (url, _), CurlTransport() as transport:
            response = await transport.handle_async_request(httpx.Request("GET", url))
            assert isinstance(response.stream, httpx.AsyncByteStream)
            async for piece in response.stream:
                read += piece

    with pytest.raises(httpx.RemoteProtocolError, match="larger than 64 MB"):
        asyncio.run(main())
    assert 299_000 < len(read) < 500_000
    assert text.startswith(read)


def test_others_have_their_turn_while_a_bomb_is_decompressed() -> None:
    """All of it is in memory by then, so nothing else would let a time-out strike."""
    turns, sizes = 0, 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def main() -> None:
        nonlocal turns, sizes
        packed = HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(20_000_000))
        async with answering(packed) as (url, _), CurlTransport() as transport:
            response = await transport.handle_async_request(httpx.Request("GET", url))
            assert isinstance(response.stream, httpx.AsyncByteStream)
            other, turns = asyncio.create_task(count()), 0
            async for piece in response.stream:
                assert len(piece) <= 1 << 18
                sizes += len(piece)
            other.cancel()

    asyncio.run(main())
    assert sizes == 20_000_000
    assert turns >= 4


# What is sent


@pytest.mark.parametrize(
    ("method", "url", "headers", "target"),
    [
        ("POST", "http://127.0.0.1:1", {}, b"/"),
        ("GET", "ftp://127.0.0.1:1", {}, b"/"),
        ("GET", "http://127.0.0.1:1", {"A": "b\r\nC: d"}, b"/"),
        ("GET", "http://127.0.0.1:1", {}, b"/ HTTP/1.1\r\nA: b"),
    ],
)
def test_what_it_does_not_send_is_refused_before_it_connects(
    method: str, url: str, headers: dict[str, str], target: bytes
) -> None:
    request = httpx.Request(method, url, headers=headers, extensions={"target": target})

    async def main() -> None:
        async with CurlTransport() as transport:
            await transport.handle_async_request(request)

    with pytest.raises((httpx.UnsupportedProtocol, httpx.LocalProtocolError)):
        asyncio.run(main())


def test_what_a_request_says_last_is_sent_and_nothing_of_the_one_before() -> None:
    async def main() -> list[bytes]:
        async with answering(WHOLE) as (url, heads), CurlTransport() as transport:
            for headers, target in (({"A": "1", "B": ""}, b"/a?id=%20"), ({"C": "2"}, None)):
                extensions = {"target": target} if target else {}
                request = httpx.Request("GET", f"{url}/b", headers=headers, extensions=extensions)
                await transport.handle_async_request(request)
        return heads

    first, second = asyncio.run(main())
    assert first.startswith(b"GET /a?id=%20 HTTP/1.1\r\n")
    assert b"\r\nA: 1\r\nB:" in first
    assert second.startswith(b"GET /b HTTP/1.1\r\n")
    assert b"\r\nC: 2\r\n" in second
    assert b"\r\nA:" not in second


def test_a_netrc_file_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login someone password hidden\n")
    monkeypatch.setenv("HOME", str(tmp_path))

    async def main() -> list[bytes]:
        async with answering(WHOLE) as (url, heads), CurlTransport() as transport:
            await transport.handle_async_request(httpx.Request("GET", url))
        return heads

    [head] = asyncio.run(main())
    assert b"Authorization" not in head


# Failures


def test_a_connection_that_takes_too_long() -> None:
    """One that is accepted, and then nobody speaks TLS."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"

        async def main() -> None:
            async with CurlTransport() as transport:
                await get(transport, url, timeout={"connect": 0.05})

        with pytest.raises(httpx.ConnectTimeout, match="the connection took too long"):
            asyncio.run(main())


@pytest.mark.long
def test_an_answer_that_takes_too_long() -> None:
    async def main() -> None:
        async with answering(WHOLE, seconds=30) as (url, _), CurlTransport() as transport:
            await get(transport, url, timeout={"connect": 9, "read": 0.5})

    with pytest.raises(httpx.ReadTimeout, match="the answer took too long"):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:9", "no connection: Connection refused"),
        ("http://private.invalid", "no connection: Could not resolve hostname"),
    ],
)
def test_a_failure_says_why_and_nothing_of_what_was_asked(url: str, words: str) -> None:
    async def main() -> None:
        async with CurlTransport() as transport:
            await get(transport, url)

    with pytest.raises(httpx.ConnectError) as caught:
        asyncio.run(main())
    assert str(caught.value) == words
    assert (caught.value.__context__, caught.value.__cause__) == (None, None)


# What stays behind


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


async def cancelled(transport: CurlTransport, url: str) -> None:
    """Send a request and cancel it while it waits for its answer."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await get(transport, url)


def test_a_cancelled_request_leaves_nothing_and_others_go_on() -> None:
    async def main() -> None:
        async with (
            answering(WHOLE, seconds=30) as (slow, _),
            answering(WHOLE) as (url, _),
            CurlTransport() as transport,
        ):
            await get(transport, url)
            before = descriptors()
            await asyncio.gather(*(cancelled(transport, slow) for _ in range(50)))
            assert transport._multi is not None
            assert transport._multi.futures() == ()
            assert transport._idle == []  # their handles are closed, not kept
            for _ in range(3):
                assert (await get(transport, url))[2] == b"{}"
            await asyncio.sleep(0.05)  # for the server to see that they are gone
            assert descriptors() <= before + 50  # the server's own

    asyncio.run(main())


def test_a_thousand_requests_leave_no_descriptor_open() -> None:
    async def main() -> tuple[int, int]:
        async with answering(WHOLE) as (url, _):
            before = descriptors()
            async with CurlTransport() as transport:

                async def some() -> None:
                    for _ in range(50):
                        await get(transport, url)

                await asyncio.gather(*(some() for _ in range(20)))
            await asyncio.sleep(0.05)
            return before, descriptors()

    before, after = asyncio.run(main())
    assert after == before


def test_it_serves_another_loop_once_it_is_closed() -> None:
    transport = CurlTransport()

    async def main() -> bytes:
        async with answering(WHOLE) as (url, _), transport:
            return (await get(transport, url))[2]

    assert [asyncio.run(main()), asyncio.run(main())] == [b"{}", b"{}"]


def test_closing_it_cancels_what_is_under_way() -> None:
    async def main() -> list[object]:
        async with answering(WHOLE, seconds=30) as (url, _):
            transport = CurlTransport()
            tasks = [asyncio.create_task(get(transport, url)) for _ in range(3)]
            await asyncio.sleep(0.05)
            await transport.aclose()
            return await asyncio.gather(*tasks, return_exceptions=True)

    assert [type(one) for one in asyncio.run(main())] == [asyncio.CancelledError] * 3


FORGOTTEN = """
import asyncio, sys
from tests.test_transport import WHOLE, CurlTransport, answering, get
async def main():
    async with answering(WHOLE, seconds=30) as (slow, _), answering(WHOLE) as (url, _):
        transport = CurlTransport()
        print(await get(transport, url))
        kept.extend([transport, asyncio.create_task(get(transport, slow))])
        await asyncio.sleep(0.05)
kept = []
asyncio.run(main(), debug=True)
"""


def test_a_process_ends_cleanly_that_never_closed_it() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", FORGOTTEN],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
