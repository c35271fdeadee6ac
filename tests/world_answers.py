"""What raw answers say, read again in plain Python: for the reference, not with the product's code.

Only the shapes that ``world_service`` tells are known here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from tests.model import Asked, Told
from usms_pipeline.phones import PhoneBook
from usms_pipeline.service.api import canonical

Trouble = tuple[str, str | None, Any]
"""Kind, session, and what else tells one entry of the quarantine from another."""


@dataclass
class Reading:
    """What some answers say, in the order in which they say it."""

    asked: list[Asked] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)


def read(answers: Iterable[dict[str, Any]], book: PhoneBook) -> Reading:
    reading = Reading()
    for answer in answers:
        ids, at = answer["ids"], answer["asked_at"]
        if answer["verdict"] == "refused":
            reading.asked += [Asked(session, at, is_refused=True) for session in ids]
            reading.troubles += [("refused_id", session, at) for session in ids]
        elif answer["verdict"] == "unreadable":
            reading.troubles.append(("unreadable_answer", None, (*ids, answer["body"])))
        else:
            reading.asked += [Asked(session, at) for session in ids]
            for item in json.loads(answer["body"])["Data"]:
                _read_item(item, ids, at, book, reading)
    return reading


def _read_item(item: Any, ids: list[str], at: datetime, book: PhoneBook, into: Reading) -> None:
    text = json.dumps(item)
    if not isinstance(item, dict) or not item.get("SessionNo"):
        into.troubles.append(("bad_item", None, (*ids, text)))
        return
    session = item["SessionNo"]
    if session not in ids:
        into.troubles.append(("unasked_session", session, (text,)))
        return
    shown = [one for key in ("Receipt", "ReceiptSet") for one in _listed(item.get(key))]
    if not all(isinstance(one, dict) for one in shown):
        into.troubles.append(("bad_item", session, (text,)))
    into.told += [
        _told(session, one, at, book)
        for one in shown
        if isinstance(one, dict) and any(v not in (None, "") for v in one.values())
    ]


def _listed(shown: Any) -> Iterator[Any]:
    if isinstance(shown, list):
        yield from shown
    elif shown is not None:
        yield shown


def _told(session: str, shown: dict[str, Any], at: datetime, book: PhoneBook) -> Told:
    word = shown.get("Status", shown.get("ReceiptResult"))
    phone = shown.get("Phone")
    number = book.recipient_id(phone) if phone else ""
    return Told(session, number, at, canonical(word), word, _received(shown))


def _received(shown: dict[str, Any]) -> datetime | None:
    if shown.get("ReceiptTime"):
        return datetime.fromtimestamp(shown["ReceiptTime"], UTC)
    if text := shown.get("ReceiveTime"):
        local = datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(
            tzinfo=ZoneInfo("Asia/Shanghai")
        )
        return local.astimezone(UTC)
    return None
