"""What raw responses say, read again in plain Python: for the reference, without our own code.

Only the shapes that ``world_service`` tells are known here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from usms_pipeline.people.phones import PhoneBook
from usms_pipeline.service.api import canonical

Trouble = tuple[str, str | None, Any]
"""Kind, session, and what else tells one entry of the quarantine from another."""


class Told(NamedTuple):
    """One receipt in one answer. ``number`` is the hash of the phone named, '' where none is."""

    session_no: str
    number: str
    asked_at: datetime
    status: str
    word: str | None
    received_at: datetime | None = None
    submit_status: str | None = None
    digits: str = ""


class Asked(NamedTuple):
    """A session in an answered question; ``is_refused`` when it was refused alone."""

    session_no: str
    asked_at: datetime
    submit_status: str | None = None
    is_refused: bool = False


@dataclass
class Reading:
    """What some answers say, in their order; ``vain``: who was asked about in vain."""

    asked: list[Asked] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    vain: list[Asked] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)

    @property
    def sessions(self) -> set[str]:
        return {one.session_no for one in (*self.asked, *self.vain)}


def read(answers: Iterable[dict[str, Any]], book: PhoneBook) -> Reading:
    reading = Reading()
    for answer in answers:
        ids, at = answer["ids"], answer["asked_at"]
        if answer["verdict"] == "refused":
            reading.asked += [Asked(session, at, is_refused=True) for session in ids]
            reading.troubles += [("refused_id", session, at) for session in ids]
        elif answer["verdict"] == "unreadable":
            reading.vain += [Asked(session, at) for session in ids]
            reading.troubles.append(("unreadable_answer", None, (*ids, answer["body"].decode())))
        elif answer["verdict"] == "forgotten":
            reading.asked += [Asked(session, at) for session in ids]
        else:
            items = json.loads(answer["body"])["Data"]
            words = _words(items)
            reading.asked += [Asked(session, at, words.get(session)) for session in ids]
            for item in items:
                _read_item(item, ids, at, book, reading)
    return reading


def _words(items: list[Any]) -> dict[str, str]:
    """Return each session's word on its submission."""
    return {one["SessionNo"]: one["Status"] for one in items if "Status" in one}


def trouble(entry: dict[str, Any]) -> Trouble:
    """Return what an entry of the quarantine is about, to compare it with what was read here."""
    kind, session, ids = entry["kind"], entry["session_no"], entry["ids"]
    if kind == "refused_id":
        return kind, session, entry["asked_at"]
    if kind == "unreadable_answer":
        return kind, None, (*ids, entry["body"].decode())
    text = _text(json.loads(entry["body"])) if entry["body"] else ""
    return kind, session, (text,) if session else (*ids, text)


def _text(item: Any) -> str:
    return json.dumps(item, sort_keys=True)


def _read_item(item: Any, ids: list[str], at: datetime, book: PhoneBook, into: Reading) -> None:
    if not isinstance(item, dict) or not item.get("SessionNo"):
        into.troubles.append(("bad_item", None, (*ids, _text(item))))
        return
    session = item["SessionNo"]
    if session not in ids:
        into.troubles.append(("unasked_session", session, (_text(item),)))
        return
    shown = [one for key in ("Receipt", "ReceiptSet") for one in _listed(item.get(key))]
    if not all(isinstance(one, dict) for one in shown):
        into.troubles.append(("bad_item", session, (_text(item),)))
    into.told += [
        _told(item, one, at, book)
        for one in shown
        if isinstance(one, dict) and any(v not in (None, "") for v in one.values())
    ]


def _listed(shown: Any) -> Iterator[Any]:
    if isinstance(shown, list):
        yield from shown
    elif shown is not None:
        yield shown


def _told(item: dict[str, Any], shown: dict[str, Any], at: datetime, book: PhoneBook) -> Told:
    word = shown.get("Status", shown.get("ReceiptResult"))
    phone = shown.get("Phone")
    number = book.recipient_id(phone) if phone else ""
    status, received, submitted = canonical(word), _received(shown), item.get("Status")
    digits = digits_of(phone)
    return Told(item["SessionNo"], number, at, status, word, received, submitted, digits)


def digits_of(phone: str | None) -> str:
    """Return the digits of a number with its country code, which a Chinese one may go without."""
    digits = re.sub(r"\D", "", phone or "").removeprefix("00")
    return f"86{digits}" if len(digits) == 11 and digits.startswith("1") else digits


def _received(shown: dict[str, Any]) -> datetime | None:
    if shown.get("ReceiptTime"):
        return datetime.fromtimestamp(shown["ReceiptTime"], UTC)
    if text := shown.get("ReceiveTime"):
        local = datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(
            tzinfo=ZoneInfo("Asia/Shanghai")
        )
        return local.astimezone(UTC)
    return None
