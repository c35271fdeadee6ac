"""``usms report`` and ``usms serve``: the same page, as a file and on loopback."""

from __future__ import annotations

import io
import re
import threading
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import parse_qs, urlsplit

import typer
from rich.markup import escape

import usms_pipeline
from usms_pipeline.cli import options
from usms_pipeline.cli.output import write_csv
from usms_pipeline.cli.shell import err, out
from usms_pipeline.contract.errors import StorageError, UnknownColumn, UsmsError

if TYPE_CHECKING:
    from usms_pipeline.figures.report import Figures
    from usms_pipeline.settings import Settings

PORT: Final = 8766

_PERSONAL: Final = ("session_no", "recipient", "phone")
"""Columns that name a message or a person, which neither the page nor ``/api`` shows."""

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

Open = Annotated[bool, typer.Option("--open", help="Open the page in your browser.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes any free one.")]
ReportFile = Annotated[
    Path | None, typer.Option("--to", help="File to write (default: report.html in USMS_DATA_DIR).")
]
Last = Annotated[
    str | None,
    typer.Option("--last", metavar="PERIOD", help="Open with the last 24h, 7d, 30d or 90d."),
]


def report(to: ReportFile = None, last: Last = None, is_opened: Open = False) -> None:
    """Write the report: one HTML page with charts, which works offline."""
    from usms_pipeline.figures import report as page
    from usms_pipeline.store.storage import Store

    settings, days = usms_pipeline.settings.load(), _days(last)
    if to:
        options.check_file("--to", to)
    with err().status("Drawing the report"):
        figures, given = _asked(settings, days)
        try:
            path = page.build(figures, to.absolute() if to else Store(settings.data_dir), **given)
        except StorageError as error:
            if to is None:
                raise
            reason = getattr(error.__cause__, "strerror", None) or error.__cause__
            raise StorageError(
                f"Can't write the report to {str(to)!r}: {reason}. Name another file with --to."
            ) from error
    out().print(f"[green]✓[/] {escape(path)}", soft_wrap=True)
    if is_opened:
        typer.launch(path)


def serve(port: Port = PORT, last: Last = None, is_opened: Open = False) -> None:
    """Show the report on this machine, always of the newest figures, until Ctrl-C."""
    try:
        server = Server(port, usms_pipeline.settings.load(), _days(last))
    except OSError as error:
        raise UsmsError(
            f"Port {port} can't be had: {error.strerror}. Another program may use it; name another "
            "with --port, or let `--port 0` take any free one."
        ) from error
    url = f"http://127.0.0.1:{server.server_port}/"
    out().print(f"[green]✓[/] [bold]{url}[/], for this machine only. Ctrl-C stops it.")
    if is_opened:
        typer.launch(url)
    with server, suppress(KeyboardInterrupt):
        server.serve_forever()


def _days(last: str | None) -> int:
    from usms_pipeline.figures.report import PERIODS

    known = {"24h" if days == 1 else f"{days}d": days for days in PERIODS}
    if last is not None and last not in known:
        raise typer.BadParameter(f"--last {last!r}: the page has {', '.join(known)}.")
    return known[last or "7d"]


def _asked(settings: Settings, days: int) -> tuple[Figures, dict[str, Any]]:
    """Return the newest figures, and what else the page is drawn of."""
    from usms_pipeline.days import quarantine
    from usms_pipeline.figures import report as page
    from usms_pipeline.pipeline import Pipeline
    from usms_pipeline.store.storage import Store
    from usms_pipeline.warehouse import bounded

    with bounded(settings.warehouse_path) as con:
        figures = page.ask(con, settings.zone, fast_seconds=settings.target_seconds)
    return figures, {
        "generated_at": datetime.now(UTC),
        "settings_summary": page.summary(settings),
        "quarantined": quarantine.open_count(Store(settings.data_dir)),
        "left_out": Pipeline(settings).left_out(),
        "days": days,
    }


class Server(ThreadingHTTPServer):
    """Serves the page, ``/healthz`` and ``/api/rates.csv`` on loopback; port 0 is any free one."""

    def __init__(self, port: int, settings: Settings, days: int = 7) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self._settings, self._days = settings, days
        self._lock = threading.Lock()
        self._made: tuple[object, str] = (None, "")

    def answer(self, address: str) -> tuple[HTTPStatus, str, str]:
        """Return the status, type and text of what is asked for."""
        asked = urlsplit(address)
        try:
            match asked.path:
                case "/":
                    return HTTPStatus.OK, "text/html", self._page()
                case "/healthz":
                    file = self._settings.warehouse_path
                    usms_pipeline.connect(file).close()
                    published = datetime.fromtimestamp(file.stat().st_mtime, UTC).isoformat()
                    return HTTPStatus.OK, "text/plain", f"published {published}\n"
                case "/api/rates.csv":
                    return HTTPStatus.OK, "text/csv", self._rates(parse_qs(asked.query))
            return HTTPStatus.NOT_FOUND, "text/plain", "There is /, /healthz, /api/rates.csv.\n"
        except (typer.BadParameter, UnknownColumn) as error:
            return HTTPStatus.BAD_REQUEST, "text/plain", f"{error}\n"
        except UsmsError as error:
            return HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", f"{error}\n"
        except Exception as error:
            said = f"Unexpected {type(error).__name__}: `usms --debug report` shows more.\n"
            return HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", said

    def handle_error(self, *_: object) -> None:
        """Ignore a failed connection: the client has gone."""

    def _page(self) -> str:
        from usms_pipeline import warehouse
        from usms_pipeline.figures import report as page

        file = self._settings.warehouse_path
        with self._lock:  # two that ask at once wait for one page, instead of making two
            published = warehouse.identity(file) if file.is_file() else None
            if published is None or self._made[0] != published:
                figures, given = _asked(self._settings, self._days)
                self._made = published, page.draw(figures, **given)
            return self._made[1]

    def _rates(self, query: dict[str, list[str]]) -> str:
        """Return what ``usms rates --format csv`` prints of the same groups and days."""
        from usms_pipeline.warehouse import bounded

        by = list(dict.fromkeys(query.pop("by", [])))
        first, last, ago = (query.pop(name, [None])[-1] for name in ("from", "to", "last"))
        if query:
            raise typer.BadParameter(f"{min(query)!r} is none of by, from, to, last.")
        if personal := sorted({*_PERSONAL} & {*by}):
            raise typer.BadParameter(f"{personal[0]!r} is of single messages or people.")
        days = options.period(first, last, ago, self._settings.zone)
        text = io.StringIO()
        with bounded(self._settings.warehouse_path) as con:
            write_csv(usms_pipeline.queries.rates_expected(con, by, *days).to_arrow_table(), text)
        return text.getvalue()


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = 30

    def do_GET(self) -> None:
        host = re.sub(r":\d*$", "", self.headers.get("Host", "")).strip("[]")
        # in a browser here, a site elsewhere could give its name this machine's address, and read
        status, kind, text = HTTPStatus.FORBIDDEN, "text/plain", "Ask for http://127.0.0.1.\n"
        if usms_pipeline.settings.is_loopback(host):
            status, kind, text = self.server.answer(self.path)
        body = text.encode()
        self.send_response(status)
        length = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body))}
        for name, value in (_HEADERS | length).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815  # the names are http.server's

    def log_message(self, *_: object) -> None:
        """Log no request: it may name a customer's groups."""
