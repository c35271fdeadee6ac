"""The simulator on a socket: uvicorn in a thread for tests and notebooks, or in the foreground."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from usms_pipeline.contract.errors import UsmsError
from usms_pipeline.simulator.app import HANG_UP, app
from usms_pipeline.simulator.simulator import Simulator

LOOPBACK: Final = "127.0.0.1"
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_PATIENCE_SECONDS: Final = 10.0


@contextmanager
def serve(simulator: Simulator, port: int = 0, host: str = LOOPBACK) -> Iterator[str]:
    """Serve in a thread while the block runs; yields the base URL (port 0: any free one).

    Raises ``UsmsError`` when the port can't be had.
    """
    listener = _listen(host, port)
    url = _url(listener)
    server = _Server(simulator)
    thread = threading.Thread(
        target=server.run, args=([listener],), name="usms-simulator", daemon=True
    )
    thread.start()
    try:
        server.is_up.wait(_PATIENCE_SECONDS)
        if not server.started:
            raise UsmsError(f"The simulator did not start on {url} in {_PATIENCE_SECONDS:g} s.")
        yield url
    finally:
        server.should_exit = True
        thread.join(_PATIENCE_SECONDS)
        listener.close()


def run_server(
    simulator: Simulator,
    port: int = 0,
    host: str = LOOPBACK,
    on_start: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve in the foreground until interrupted; ``on_start`` gets the base URL.

    Raises ``UsmsError`` when the port can't be had.
    """
    listener = _listen(host, port)
    server = _Server(simulator, lambda: on_start(_url(listener)))
    # uvicorn stops in good order, then hands the interrupt on
    with closing(listener), suppress(KeyboardInterrupt):
        server.run([listener])


class _Server(uvicorn.Server):
    def __init__(self, simulator: Simulator, on_start: Callable[[], None] = lambda: None):
        config = uvicorn.Config(
            app(simulator), http=_Protocol, ws="none", lifespan="off", log_config=None,
            log_level="critical", access_log=False, timeout_graceful_shutdown=1,
        )  # fmt: skip
        super().__init__(config)
        self.is_up = threading.Event()
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()
        self._on_start()


class _Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's own protocol, and an extension by which the app hangs up on its client."""

    app: Any

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        inner = self.app

        async def with_hang_up(scope: Any, receive: Any, send: Any) -> None:
            extensions = {**scope.get("extensions", {}), HANG_UP: lambda r: hang_up(transport, r)}
            await inner({**scope, "extensions": extensions}, receive, send)

        self.app = with_hang_up


def hang_up(transport: asyncio.Transport, is_reset: bool) -> None:
    """Close a connection after what was written, or reset it (RST) at once."""
    if not is_reset:
        transport.close()
        return
    raw = transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()


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


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
