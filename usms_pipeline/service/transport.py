"""httpx's transport interface over aiohttp: a tenth of what httpx's own costs (``make bench``).

That one walks a URL of 100 ids character by character, looks through all connections for each
request, and parses HTTP in Python. Two means that httpx documents take this out: a transport, and
the extension ``target``. uvloop would take off a seventh of what is left, which is 3 % of a run
against a service that takes no time, and nothing against a real one: no dependency for that.

Bytes and connections only: no addresses, no credentials, no retries, no meaning.
"""

from __future__ import annotations

import errno
import os
import ssl
import urllib.request
import zlib
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final

import aiohttp
import httpx
from yarl import URL

_PIECE_BYTES: Final = 1 << 18
"""The most that one step of decompression may yield, so that a reader can stop in time."""

_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32
_COMPRESSED: Final = frozenset({"gzip", "x-gzip", "deflate"})
_FAILURES: Final = (aiohttp.ClientError, TimeoutError, OSError, zlib.error)


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Send requests through one aiohttp session, made on first use in the running loop.

    The request extension ``target`` (bytes: path and query, percent-encoded) is sent as it is,
    in place of the URL's own. The extension ``timeout`` gives ``connect`` and ``read`` seconds.
    Bodies come decompressed, in pieces of at most 256 kB, whatever they grow to: count, and stop.
    TLS certificates are verified. Redirects are not followed; cookies and .netrc are not used. The
    proxy that the environment names (``HTTPS_PROXY``, ``ALL_PROXY``, ``NO_PROXY``) carries https
    alone, through a tunnel that it can't look into: the requests hold credentials.

    Raises ``httpx.TransportError``; its text never holds the target or a header.
    """

    def __init__(self, ssl_context: ssl.SSLContext | None = None) -> None:
        self._ssl = ssl_context
        self._session: aiohttp.ClientSession | None = None
        self._proxies: dict[str, str | None] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; the response's body is still to be read."""
        failure: httpx.TransportError
        try:
            response = await self._opened().request(
                request.method,
                _url(request),
                headers=_headers(request),
                allow_redirects=False,
                timeout=_timeout(request),
                proxy=self._proxy(request.url),
            )
        except _FAILURES as error:
            # Raised below, not here: aiohttp's errors hold the request's headers, and a chained
            # exception would carry them along.
            failure = _translated(error)
        else:
            encoding = response.headers.get("Content-Encoding", "").strip().lower()
            return httpx.Response(
                response.status,
                headers=[pair for pair in response.raw_headers if not _is_about_wire(pair[0])],
                stream=_Body(response, encoding in _COMPRESSED),
            )
        raise failure

    async def aclose(self) -> None:
        """Close the session and its connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _proxy(self, url: httpx.URL) -> str | None:
        """Give the proxy to go through; raises ``httpx.ProxyError`` where it can't be used."""
        if url.scheme != "https":
            return None
        if url.host not in self._proxies:
            self._proxies[url.host] = _proxy_for(url.host)
        return self._proxies[url.host]

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            # No limit here: the number of workers is the limit, and one queue is enough.
            connector = aiohttp.TCPConnector(limit=0, ssl=self._ssl or True, keepalive_timeout=60)
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                raise_for_status=False,
            )
        return self._session

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: aiohttp.ClientResponse, is_compressed: bool) -> None:
        self._response = response
        self._is_compressed = is_compressed

    async def __aiter__(self) -> AsyncIterator[bytes]:
        failure: httpx.TransportError | None = None
        try:
            chunks = self._response.content.iter_any()
            async for piece in _inflated(chunks) if self._is_compressed else chunks:
                yield piece
        except _FAILURES as error:
            failure = _translated(error)
        if failure is not None:
            raise failure

    async def aclose(self) -> None:
        # A body read to its end has given its connection back already; this drops the others.
        self._response.close()


async def _inflated(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Decompress gzip (also of several members) or zlib in bounded pieces.

    Raises ``zlib.error`` for a stream that is corrupt or ends early.
    """
    member = zlib.decompressobj(_GZIP_OR_ZLIB)
    is_empty = True
    async for chunk in chunks:
        is_empty = False
        rest = chunk
        while rest:
            if member.eof:
                member = zlib.decompressobj(_GZIP_OR_ZLIB)
            piece = member.decompress(rest, _PIECE_BYTES)
            rest = member.unused_data if member.eof else member.unconsumed_tail
            if piece:
                yield piece
    while piece := member.decompress(member.unconsumed_tail, _PIECE_BYTES):
        yield piece
    if not (member.eof or is_empty):
        raise zlib.error("the compressed body ends early")


def _url(request: httpx.Request) -> URL:
    target = request.extensions.get("target", request.url.raw_path)
    host = request.url.raw_host.decode("ascii")
    origin = f"{request.url.scheme}://{f'[{host}]' if ':' in host else host}"
    port = f":{request.url.port}" if request.url.port is not None else ""
    return URL(f"{origin}{port}{target.decode('ascii')}", encoded=True)


def _proxy_for(host: str) -> str | None:
    known = urllib.request.getproxies()
    proxy = known.get("https") or known.get("all")
    if not proxy or urllib.request.proxy_bypass(host):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    scheme = proxy.partition("://")[0].lower()
    if scheme not in ("http", "https"):
        raise httpx.ProxyError(
            f"the environment names a proxy of kind {scheme!r} (HTTPS_PROXY or ALL_PROXY): give "
            "one of http:// or https://, or name the host in NO_PROXY"
        )
    return proxy


def _headers(request: httpx.Request) -> list[tuple[str, str]]:
    # Only what the request says: aiohttp adds nothing of its own that matters here.
    return [(name.decode("ascii"), value.decode("latin-1")) for name, value in request.headers.raw]


def _timeout(request: httpx.Request) -> aiohttp.ClientTimeout:
    seconds = request.extensions.get("timeout", {})
    return aiohttp.ClientTimeout(
        total=None, sock_connect=seconds.get("connect"), sock_read=seconds.get("read")
    )


def _is_about_wire(name: bytes) -> bool:
    """Tell whether a header speaks of the bytes on the wire, which the reader never sees."""
    return name.lower() in (b"content-encoding", b"content-length", b"transfer-encoding")


def _translated(error: Exception) -> httpx.TransportError:
    """Give httpx's exception for one of aiohttp's, with a text that holds no address or header."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            return httpx.ConnectTimeout("the connection took too long")
        case TimeoutError():
            return httpx.ReadTimeout("the answer took too long")
        case aiohttp.ClientConnectorCertificateError():
            return httpx.ConnectError(f"the TLS certificate was refused: {_reason(error)}")
        case aiohttp.ClientProxyConnectionError():
            return httpx.ProxyError(
                f"no connection to the proxy (HTTPS_PROXY or ALL_PROXY): {_reason(error.os_error)}"
            )
        case aiohttp.ClientHttpProxyError():
            return httpx.ProxyError(
                f"the proxy (HTTPS_PROXY or ALL_PROXY) answered HTTP {error.status}"
            )
        case aiohttp.ClientConnectorError():
            return httpx.ConnectError(f"no connection: {_reason(error.os_error)}")
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError():
            return httpx.RemoteProtocolError("the connection was closed before the answer ended")
        case aiohttp.ClientResponseError():
            return httpx.RemoteProtocolError("the answer is not HTTP")
        case zlib.error():
            return httpx.RemoteProtocolError("the compressed answer is corrupt or ends early")
        case OSError():
            return httpx.ReadError(f"the connection broke: {_reason(error)}")
    return httpx.NetworkError(f"the connection failed: {type(error).__name__}")


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        error = error.certificate_error
    code = getattr(error, "errno", None)
    if isinstance(code, int) and code in errno.errorcode:
        return os.strerror(code)  # asyncio's own text shows a Python tuple
    verify = getattr(error, "verify_message", None)
    return str(verify or getattr(error, "strerror", None) or type(error).__name__)
