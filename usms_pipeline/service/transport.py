"""httpx's transport interface over libcurl: a twentieth of what httpx's own costs (``make bench``).

That one walks a URL of 100 ids character by character, looks through all connections for each
request, and parses HTTP in Python. Two means that httpx documents take this out: a transport, and
the extension ``target``. Connections, TLS, proxies and HTTP/1.1 are libcurl's.

Bytes and connections only: no addresses, no credentials, no retries, no meaning.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import math
import os
import ssl
import urllib.request
import zlib
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from itertools import count
from typing import Any, Final

import httpx
import pycurl

_MOST_RAW_BYTES: Final = 64_000_000
"""The most that is received of one body: it is held in memory, and the client reads no more."""

_MOST_IDLE: Final = 256
"""Connections kept open: one for each request that settings allow at a time. libcurl's own limit
follows the number of requests just now, and would close what the next moment needs."""

_PIECE_BYTES: Final = 1 << 18
"""The most that one step may yield, so that a reader can stop in time."""

_STEPS_A_TURN: Final = 16
"""How much to read before other tasks and time-outs get their turn: 4 MB."""

_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32
_GZIP_MARK: Final = b"\x1f\x8b"
_MOST_LAYERS: Final = 3
_CONTROLS: Final = bytes({*range(32)} - {*b"\t\n\r"})
_ABOUT_WIRE: Final = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})
"""Headers that speak of the bytes on the wire, which the reader never sees."""

_OPTIONS: Final[dict[int, Any]] = {
    pycurl.NOSIGNAL: 1,  # a signal would reach the main thread, and this runs in others
    pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
    pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_1_1,
    pycurl.FOLLOWLOCATION: 0,
    pycurl.NETRC: pycurl.NETRC_IGNORED,
    pycurl.NOPROXY: "",  # not None: then libcurl would read NO_PROXY itself, in a way of its own
    pycurl.SSLVERSION: pycurl.SSLVERSION_TLSv1_2,
    pycurl.SSL_VERIFYPEER: 1,
    pycurl.SSL_VERIFYHOST: 2,
    pycurl.LOW_SPEED_LIMIT: 1,
    pycurl.BUFFERSIZE: 1 << 17,  # an answer for 100 ids comes in one piece
    pycurl.MAXAGE_CONN: 60,  # many servers drop a connection that was idle for longer
}

_TOO_LARGE: Final = 100
"""An error of libcurl's that pycurl has no name for."""

_CERTIFICATE: Final = (pycurl.E_PEER_FAILED_VERIFICATION, pycurl.E_SSL_CACERT_BADFILE)
_OF_OPENSSL: Final = (pycurl.E_SSL_CONNECT_ERROR, pycurl.E_RECV_ERROR, pycurl.E_SEND_ERROR)
"""Errors whose text may be OpenSSL's. That of others may hold the proxy's address and password."""

_PROXY: Final = "the proxy (HTTPS_PROXY or ALL_PROXY)"
_NO_CONNECTION: Final = httpx.ConnectError, "no connection: {reason}"
_BROKE: Final = httpx.ReadError, "the connection broke: {reason}"
_CLOSED: Final = httpx.RemoteProtocolError, "the connection was closed before the answer ended"
_NOT_HTTP: Final = httpx.RemoteProtocolError, "the answer is not HTTP"
_NOT_TRUSTED: Final = "the TLS certificate was refused: "
_NO_AUTHORITIES: Final = f"{_NOT_TRUSTED}the authorities (SSL_CERT_FILE) can't be read"
_Failure = tuple[type[httpx.TransportError], str]
_FAILURES: Final[dict[int, _Failure]] = {
    pycurl.E_COULDNT_RESOLVE_HOST: _NO_CONNECTION,
    pycurl.E_COULDNT_CONNECT: _NO_CONNECTION,
    pycurl.E_SSL_CONNECT_ERROR: (httpx.ConnectError, "no connection: TLS: {reason}"),
    pycurl.E_PEER_FAILED_VERIFICATION: (httpx.ConnectError, f"{_NOT_TRUSTED}{{reason}}"),
    pycurl.E_SSL_CACERT_BADFILE: (httpx.ConnectError, _NO_AUTHORITIES),
    pycurl.E_SEND_ERROR: _BROKE,
    pycurl.E_RECV_ERROR: _BROKE,
    pycurl.E_PARTIAL_FILE: _CLOSED,
    pycurl.E_GOT_NOTHING: _CLOSED,
    pycurl.E_UNSUPPORTED_PROTOCOL: _NOT_HTTP,  # as libcurl sees it: HTTP/0.9
    pycurl.E_FTP_WEIRD_SERVER_REPLY: _NOT_HTTP,  # its old name; today it is of any protocol
    pycurl.E_BAD_CONTENT_ENCODING: _NOT_HTTP,  # a Transfer-Encoding that nobody asked for
    _TOO_LARGE: (httpx.RemoteProtocolError, "the headers of the answer are too large"),
}
"""What is said for each of libcurl's errors, without an address, the target or a header."""


class CurlTransport(httpx.AsyncBaseTransport):
    """Send GET requests through libcurl, in the event loop that the first of them runs in.

    The request extension ``target`` (bytes: path and query, percent-encoded) is sent as it is,
    in place of the URL's own. The extension ``timeout`` gives ``connect`` seconds and ``read``
    seconds without a byte; these are whole seconds, rounded up.
    A response is there when its body is, or the first 64 MB of it. A compressed one is decompressed
    while it is read, in pieces of at most 256 kB, however large it grows: count, and stop. What it
    begins with decides: proxies unpack and leave the label, or pack what is packed.
    TLS certificates are verified: against what ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` name, else
    against the system's. Redirects are not followed; cookies and .netrc are not used. The proxy
    that the environment names (``HTTPS_PROXY``, ``ALL_PROXY``, ``NO_PROXY``) carries https alone,
    through a tunnel that it can't look into: the requests hold credentials.

    Raises ``httpx.TransportError``, and ``httpx.DecodingError`` while a body is read that can't be
    decompressed; their texts never hold the target or a header.
    """

    def __init__(self) -> None:
        self._authorities = _authorities()
        self._multi: pycurl.AsyncCurlMulti | None = None
        self._idle: list[_Exchange] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request and receive its answer; the body is still to be decompressed."""
        if self._multi is None:
            self._multi = pycurl.AsyncCurlMulti()
            self._multi.setopt(pycurl.M_MAXCONNECTS, _MOST_IDLE)
        multi, failure = self._multi, None
        exchange = self._idle.pop() if self._idle else _Exchange(self._authorities)
        try:
            exchange.prepare(request)
            await multi.add_handle(exchange.curl)
        except pycurl.error as error:
            # Raised below, not here: libcurl's texts hold the host's name, and a chained
            # exception would carry them along.
            failure = exchange.failure(*error.args)
        except BaseException:
            # Cancelled, mostly. A handle goes back only when libcurl is done with it.
            with suppress(RuntimeError):  # where it has left already
                multi.remove_handle(exchange.curl)
            exchange.curl.close()
            raise
        self._idle.append(exchange)
        if failure is not None:
            raise failure
        return exchange.response()

    async def aclose(self) -> None:
        """Close all connections. A request that is under way is cancelled."""
        if self._multi is not None:
            await self._multi.aclose()
            self._multi = None
        while self._idle:
            self._idle.pop().curl.close()


class _Exchange:
    """A handle of libcurl's and what it received last. It serves one request after the other."""

    def __init__(self, authorities: dict[int, Any]) -> None:
        self.curl = pycurl.Curl()
        self._prepared_for: object = None
        self._lines: list[bytes] = []
        self._body = bytearray()  # not a list: chunks of a byte or two would take 20 times as much
        for option, value in (_OPTIONS | authorities).items():
            self.curl.unsetopt(option) if value is None else self.curl.setopt(option, value)
        self.curl.setopt(pycurl.HEADERFUNCTION, self._lines.append)
        self.curl.setopt(pycurl.WRITEFUNCTION, self._write)

    def prepare(self, request: httpx.Request) -> None:
        """Set what to send."""
        url, headers, timeout = request.url, request.headers.raw, request.extensions.get("timeout")
        wanted = (request.method, url.raw_scheme, url.netloc, headers, timeout)
        if wanted != self._prepared_for:  # from one request to the next only the target changes
            self._prepared_for = None
            for option, value in _request_options(request).items():
                self.curl.setopt(option, value)
            self._prepared_for = wanted
        target = request.extensions.get("target") or url.raw_path
        self.curl.setopt(pycurl.REQUEST_TARGET, _single_line(target))

    def _write(self, piece: bytes) -> int | None:
        self._body += piece
        return 0 if len(self._body) > _MOST_RAW_BYTES else None  # 0 ends the transfer

    def _taken(self) -> tuple[list[bytes], bytearray]:
        lines, body = self._lines.copy(), self._body
        self._lines.clear()
        self._body = bytearray()
        return lines, body

    def response(self) -> httpx.Response:
        """Return what was received; raises ``httpx.RemoteProtocolError`` if it isn't whole."""
        lines, body = self._taken()
        status = self.curl.getinfo(pycurl.RESPONSE_CODE)
        if status < 100:
            raise _error(_NOT_HTTP)
        encoding, headers = b"", []
        for name, value in _last_head(lines):
            if (kind := name.lower()) not in _ABOUT_WIRE:
                headers.append((name, value))
            elif kind == b"content-encoding":
                encoding = value.lower()
        stream = _Body(body, has_label=encoding not in (b"", b"identity"))
        return httpx.Response(status, headers=headers, stream=stream)

    def failure(self, code: int, text: str) -> httpx.TransportError | None:
        """Return httpx's exception for an error of libcurl's; None where it was told to stop."""
        if len(self._body) > _MOST_RAW_BYTES:
            return None
        self._taken()
        info = self.curl.getinfo
        is_sent = info(pycurl.REQUEST_SIZE) > 0  # to the service: a CONNECT doesn't count
        proxy_status, system = info(pycurl.HTTP_CONNECTCODE), info(pycurl.OS_ERRNO)
        if code == pycurl.E_OPERATION_TIMEDOUT:
            if is_sent:
                return httpx.ReadTimeout("the answer took too long")
            return httpx.ConnectTimeout("the connection took too long")
        reason = _reason(code, text, system)
        if proxy_status >= 300:
            return httpx.ProxyError(f"{_PROXY} answered HTTP {proxy_status}")
        is_at_proxy = info(pycurl.USED_PROXY) and not (is_sent or proxy_status)
        if is_at_proxy and code not in _CERTIFICATE:
            return httpx.ProxyError(f"no connection to {_PROXY}: {reason}")
        if code == pycurl.E_RECV_ERROR and not system:
            # No error of the system's: of what was read, or of TLS, where some close rudely.
            return _error(_CLOSED if "unexpected eof" in text else _NOT_HTTP)
        return _error(
            _FAILURES.get(code, (httpx.NetworkError, "the connection failed: {reason}")), reason
        )


class _Body(httpx.AsyncByteStream):
    """A body to be decompressed; ``has_label``: the answer says that it is compressed."""

    def __init__(self, raw: bytearray, has_label: bool) -> None:
        self._raw, self._has_label = raw, has_label

    async def __aiter__(self) -> AsyncIterator[bytes]:
        is_cut = len(self._raw) > _MOST_RAW_BYTES
        try:
            file = _unpacked(self._raw, self._has_label)
            for step in count(1):
                if not (piece := file.read1(_PIECE_BYTES)):
                    break
                yield piece
                if step % _STEPS_A_TURN == 0:
                    await asyncio.sleep(0)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            if not is_cut:
                raise httpx.DecodingError(
                    "the compressed answer is corrupt or ends early"
                ) from None
        if is_cut:
            raise httpx.RemoteProtocolError("the answer is larger than 64 MB")


def _unpacked(raw: bytearray, has_label: bool) -> io.BytesIO | gzip.GzipFile:
    """Return a file of what a body is once gzip or zlib is taken off, as often as it was put on.

    Not libcurl: it takes a stream that ends early for whole. Reading the file raises ``EOFError``,
    ``BadGzipFile`` or ``zlib.error`` for one that does or is corrupt.
    """
    head = raw[:64]
    is_zlib = has_label and len(head) > 1 and head[0] & 15 == 8  # a text may begin so too
    is_zlib = is_zlib and int.from_bytes(head[:2], "big") % 31 == 0
    is_known = is_zlib or head.startswith(_GZIP_MARK)
    if has_label and not is_known and head.translate(None, _CONTROLS) != head:
        raise httpx.DecodingError("the answer is compressed in a way that was not asked for")
    if is_known:
        stream = zlib.decompressobj(_GZIP_OR_ZLIB)
        unpacked = stream.decompress(raw, _MOST_RAW_BYTES + 1 if is_zlib else _PIECE_BYTES)
        if is_zlib and not stream.eof and len(unpacked) <= _MOST_RAW_BYTES:
            raise EOFError
        # one gzip member of a piece at most is the common case: GzipFile takes 20 µs more
        if is_zlib or (stream.eof and not stream.unused_data):
            raw = bytearray(unpacked)
    file: io.BytesIO | gzip.GzipFile = io.BytesIO(raw)
    begin = bytes(raw[:2])
    for _ in range(_MOST_LAYERS):
        if begin != _GZIP_MARK:
            break
        file = gzip.GzipFile(fileobj=file, mode="rb")
        begin = file.peek(2)[:2]
    return file


def _request_options(request: httpx.Request) -> dict[int, Any]:
    url, seconds = request.url, request.extensions.get("timeout") or {}
    if request.method != "GET" or url.scheme not in ("http", "https"):
        raise httpx.UnsupportedProtocol("only GET is sent, and over http or https alone")
    headers = [b"%b: %b" % pair if pair[1] else b"%b;" % pair[0] for pair in request.headers.raw]
    return {
        pycurl.URL: b"%b://%b/" % (url.raw_scheme, url.netloc),
        pycurl.HTTPHEADER: [_single_line(header) for header in headers],
        # Not unset: then libcurl would read the variables itself, those for http too.
        pycurl.PROXY: _proxy_for(url.host) if url.scheme == "https" else "",
        pycurl.CONNECTTIMEOUT_MS: math.ceil(1000 * (seconds.get("connect") or 0)),
        pycurl.LOW_SPEED_TIME: math.ceil(seconds.get("read") or 0),
    }


def _single_line(text: bytes) -> bytes:
    if b"\r" in text or b"\n" in text:
        raise httpx.LocalProtocolError("a line break in the target or a header")
    return text


def _last_head(lines: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
    """Return the headers of the last response: not those of a proxy or of 1xx, and no trailers.

    Raises ``httpx.RemoteProtocolError`` for a head that ends early: libcurl takes it for whole.
    """
    headers: list[tuple[bytes, bytes]] = []
    is_open = False
    for line in lines:
        name, colon, value = line.partition(b":")
        if not is_open and line.startswith(b"HTTP/"):
            headers, is_open = [], True
        elif is_open and colon:
            headers.append((name, value.strip()))
        elif not line.strip():
            is_open = False
    if is_open:
        raise _error(_CLOSED)
    return headers


def _authorities() -> dict[int, Any]:
    """Return the options with the trusted authorities, for the service and the proxy.

    Without them, the wheel of pycurl looks in places of its own and knows no variables.
    """
    known = ssl.get_default_verify_paths()
    if not (known.cafile or known.capath):
        return {}
    files = dict.fromkeys((pycurl.CAINFO, pycurl.PROXY_CAINFO), known.cafile)
    return files | dict.fromkeys((pycurl.CAPATH, pycurl.PROXY_CAPATH), known.capath)


def _proxy_for(host: str) -> str:
    """Return the proxy to go through, or ""; raises ``httpx.ProxyError`` for one of no use."""
    known = urllib.request.getproxies()
    proxy = known.get("https") or known.get("all")
    if not proxy or urllib.request.proxy_bypass(host):
        return ""
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    scheme = proxy.partition("://")[0].lower()
    if scheme not in ("http", "https"):
        raise httpx.ProxyError(
            f"the environment names a proxy of kind {scheme!r} (HTTPS_PROXY or ALL_PROXY): give "
            "one of http:// or https://, or name the host in NO_PROXY"
        )
    if not proxy.isascii():
        raise httpx.ProxyError(f"{_PROXY} is not plain ASCII: percent-encode it")
    return proxy


def _error(failure: _Failure, reason: str = "") -> httpx.TransportError:
    kind, words = failure
    return kind(words.format(reason=reason))


def _reason(code: int, text: str, system: int) -> str:
    words = ""
    if code in _CERTIFICATE:
        is_of_another = "match" in text
        words = "it is for another host" if is_of_another else text.partition(": ")[2]
    elif system:
        words = os.strerror(system)
    elif code in _OF_OPENSSL:  # "error:0A00010B:SSL routines::wrong version number"
        words = text.rpartition("::")[2] if "::" in text else ""
    return words or str(pycurl.easy_strerror(code))
