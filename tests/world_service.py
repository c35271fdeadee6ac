"""A scripted service in the client's transport: what it says of each session, and how it fails.

It answers in the process, without sockets, so that thousands of runs are cheap.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import httpx

STRAYS: tuple[Any, ...] = (
    {"SessionNo": "stranger", "Receipt": {"Phone": "13800138000", "Status": "delivered"}},
    {"Receipt": {"Phone": "13800138001", "Status": "delivered"}},
    "odd",
)
"""Items that no answer should hold: of a session nobody asked about, of none, of no shape."""


class Killed(BaseException):
    """No `except Exception` may hold it up, as none holds up a SIGKILL."""


@dataclass(frozen=True)
class Given:
    """One good answer or refusal as it left the service."""

    ids: tuple[str, ...]
    body: bytes


@dataclass
class Service:
    """The service's side of the world, the same for every run."""

    sheets: dict[str, list[Any]] = field(default_factory=dict)
    poison: set[str] = field(default_factory=set)
    garbled: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    is_stray: bool = False

    def answer(self, ids: list[str]) -> bytes:
        if self.poison.intersection(ids):
            return coded(215392, "Invalid parameter [id]")
        if self.garbled.intersection(ids):
            return b"<html>busy</html>"
        told = [i for i in ids if i not in self.silent]
        data = [item for session in told for item in self.sheets.get(session, [unheard(session)])]
        return coded(0, "success", Data=data + list(STRAYS) * self.is_stray)

    def verdict(self, session: str) -> str:
        """Return what becomes of a question about one session."""
        if session in self.poison:
            return "refused"
        return "unreadable" if session in self.garbled else "ok"


@dataclass
class Script:
    """How one run goes: ``breaks`` says what happens from the ``after``-th request on."""

    breaks: str | None = None
    after: int = 0
    is_stuttering: bool = False
    meanwhile: Callable[[], None] = lambda: None


class Transport(httpx.AsyncBaseTransport):
    """One run's connection to the service; keeps what was asked and what was answered."""

    def __init__(self, service: Service, script: Script) -> None:
        self.service, self.script = service, script
        self.requests = 0
        self.given: list[Given] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        if self.requests == 1:
            await asyncio.to_thread(self.script.meanwhile)
        target = request.extensions["target"].decode()
        ids = [unquote(part.removeprefix("id=")) for part in target.partition("?")[2].split("&")]
        if self.script.is_stuttering and self.requests % 2:
            return httpx.Response(503)
        if self.script.breaks and self.requests > self.script.after:
            return self._break()
        body = self.service.answer(ids)
        if len(ids) == 1 or body.startswith(b'{"RetCode":0,'):
            self.given.append(Given(tuple(ids), body))
        return httpx.Response(200, content=body)

    def _break(self) -> httpx.Response:
        if self.script.breaks == "killed":
            raise Killed
        if self.script.breaks == "credentials":
            return httpx.Response(200, content=coded(215393, "no such key"))
        return httpx.Response(503)


def unheard(session: str) -> dict[str, Any]:
    return {"SessionNo": session, "Status": "success", "Receipt": None}


def coded(code: int, message: str, **more: Any) -> bytes:
    answer = {"RetCode": code, "Message": message, **more}
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()
