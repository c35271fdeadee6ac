"""An account whose rows and receipts a test makes by hand; its service answers in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pyarrow as pa

from tests.account import START, Account
from tests.loopback import Seen
from usms_pipeline.days import log
from usms_pipeline.pipeline import Pipeline, Report
from usms_pipeline.service.fetch import Answer, Patience

DAY = START.date()
NOON = datetime(2026, 3, 2, 6, tzinfo=UTC)
"""When messages are sent unless a test says otherwise: three and a half hours before ``START``."""
PHONE, OTHER, THIRD = "+8613800138000", "+8618612345678", "+85255311111"
_COLUMNS = {"sent_at": pa.timestamp("us", "UTC"), "recipients": pa.int64()}

Rows = list[dict[str, Any]]


def receipt(word: str = "delivered", phone: str | None = PHONE, **more: Any) -> dict[str, Any]:
    """Return one receipt as the service tells it."""
    return {"Phone": phone, "Status": word, "ReceiveTime": ""} | more


class Scripted(Account):
    """An account that ``row`` and ``says`` fill: the source's rows, and receipts by session.

    ``refused`` sessions are refused by the service, the response for ``garbled`` ones is a page of
    HTML; ``asked`` has the sessions of each request.
    """

    def __init__(self, folder: Path, **given: Any) -> None:
        self.table: Rows = []
        self.says: dict[str, Any] = {}
        self.refused: set[str] = set()
        self.garbled: set[str] = set()
        self.asked: list[list[str]] = []
        given = {"patience": Patience(first_pause_seconds=0.0)} | given
        super().__init__(folder, self._served, pa.table({"session_no": []}), **given)

    def _served(self, messages: pa.Table, clock: Any) -> Any:
        return SimpleNamespace(url="http://127.0.0.1:9", service=self)

    @property
    def pipeline(self) -> Pipeline:
        transport = httpx.MockTransport(self._answer)
        return Pipeline(
            self.settings, clock=self.clock, patience=self.patience, transport=transport
        )

    def _answer(self, request: httpx.Request) -> httpx.Response:
        ids = Seen(request.extensions["target"].decode(), {}, 0).ids
        self.asked.append(ids)
        if self.garbled.intersection(ids):
            return httpx.Response(200, content=b"<html>")
        if self.refused.intersection(ids):
            return httpx.Response(200, json={"RetCode": 215392, "Message": "Invalid [id]"})
        return httpx.Response(200, content=self.body(ids))

    def body(self, ids: Iterable[str]) -> bytes:
        """Return what the service says of some sessions."""
        items = [
            {"SessionNo": one, "Status": "success", "Receipt": self.says[one]}
            for one in ids
            if one in self.says
        ]
        return json.dumps({"RetCode": 0, "Message": "success", "Data": items}).encode()

    def row(
        self, session: str | None, sent_at: datetime = NOON, phone: str | None = None, **more: Any
    ) -> dict[str, Any]:
        """Add a row to the source; the test may change it later."""
        self.table.append({"session_no": session, "sent_at": sent_at, "phone": phone} | more)
        return self.table[-1]

    def _announce(self) -> None:
        names = {"session_no", "sent_at", "phone", *(name for row in self.table for name in row)}
        names |= {*self.settings.dimensions}
        columns = {
            name: pa.array([row.get(name) for row in self.table], _COLUMNS.get(name, pa.string()))
            for name in sorted(names)
        }
        self.announce(pa.table(columns))

    def refresh(self, *window: Any, **turn: float) -> Report:
        """Let time pass, and refresh a window (all days) without publishing."""
        self._announce()
        self.clock.turn(**turn)
        pipeline = self.pipeline
        return pipeline.refresh(*window or [pipeline.everything()])

    def run(self) -> Any:
        self._announce()
        return super().run()

    def rebuild(self, *days: Any) -> Report:
        """Rebuild days (all)."""
        self._announce()
        return self.pipeline.rebuild([*days] or None)

    def told(self, *ids: str, hours: float = 0.0, body: bytes | None = None) -> Answer:
        """Return a response of so long after ``START``, of what the service says now."""
        said = self.body(ids) if body is None else body
        at = START + timedelta(hours=hours)
        return Answer(ids, at, 200, 0, "ok", None, said)

    def land(self, *answers: Answer, days: Iterable[date] = ()) -> str:
        """Log responses as a run that was killed before it folded them; return its name."""
        run = log.Log(self.pipeline.store, self.clock)
        with run.held(days):
            mark = (self.folder / f"data/responses/open/{run.run}.json").read_text()
            for answer in answers:
                run.add([answer])
        (self.folder / f"data/responses/open/{run.run}.json").write_text(mark)
        return run.run

    def shown(self, *names: str) -> list[tuple[Any, ...]]:
        """Return some columns of the rows, in order."""
        return self.sql(f"SELECT {', '.join(names)} FROM receipts ORDER BY ALL")

    def settled(self) -> list[tuple[Any, ...]]:
        """Return the rows, once nothing changes them: neither another run nor a rebuild."""
        before = self.rows()
        asked = len(self.asked)
        again = self.refresh()
        assert (again.written, again.new, len(self.asked)) == ([], 0, asked), again
        assert self.rows() == before
        self.rebuild()
        assert self.rows() == before
        assert self.pipeline.conservation() == []
        return before
