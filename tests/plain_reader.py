"""A second reader of answers, written from the service's documentation: slow, plain and strict.

It counts what an answer holds, for tests that nothing of it is lost. JSON that is none, or that
is nested deeper than Python's own reader goes, is not for it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

RECEIPT = (
    "Phone", "Status", "ReceiptResult", "ReceiveTime", "ReceiptTime", "ReceiptCode", "ReceiptDesc",
)  # fmt: skip


class Number(str):
    """A number as it is written."""


class Bad(Exception):
    """Something is of a type that it can't have."""


class Held(NamedTuple):
    """What an answer holds: receipts that say something, by session and word; useless items.

    Data that is no list is one useless thing.
    """

    receipts: Counter[tuple[str, str | None]]
    useless: int


def held_by(body: bytes, ids: Iterable[str]) -> Held | None:
    """Count what an answer about ``ids`` holds; None for what is no JSON object."""
    try:
        answer = json.loads(
            body.decode(), parse_int=Number, parse_float=Number, parse_constant=_refuse
        )
    except (ValueError, RecursionError, Bad):
        return None
    if not isinstance(answer, dict):
        return None
    data = answer.get("Data")
    receipts: Counter[tuple[str, str | None]] = Counter()
    if data is not None and not isinstance(data, list):
        return Held(receipts, 1)
    useless = sum(not _is_useful(entry, set(ids), receipts) for entry in data or ())
    return Held(receipts, useless)


def _refuse(word: str) -> None:
    raise Bad(word)


def _is_useful(entry: Any, asked: set[str], receipts: Counter[tuple[str, str | None]]) -> bool:
    """Count an entry's receipts; tells if there was nothing wrong with it."""
    try:
        session = _text(entry.get("SessionNo")) if isinstance(entry, dict) else None
        if session is not None and session not in asked:
            session = session.strip()
        if session not in asked:
            return False
        _text(entry.get("Status"))
    except Bad:
        return False
    is_useful = True
    for name in ("Receipt", "ReceiptSet"):
        said = entry.get(name)
        for one in said if isinstance(said, list) else [said]:
            try:
                word = _word(one)
            except Bad:
                is_useful = False
            else:
                receipts.update([] if word is Ellipsis else [(session, word)])
    return is_useful


def _word(receipt: Any) -> Any:
    """Give a receipt's status word, or an ellipsis where it says nothing at all."""
    if receipt is None or receipt == "":
        return ...
    if not isinstance(receipt, dict):
        raise Bad
    said = {name: _text(receipt.get(name)) for name in RECEIPT}
    count = _text(receipt.get("CostCount"))
    if not any(said.values()) and not _is_count(count):
        return ...
    return said["ReceiptResult"] if said["Status"] is None else said["Status"]


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        raise Bad
    return value.encode("utf-8", "replace").decode()  # half a surrogate pair costs a character


def _is_count(text: str | None) -> bool:
    digits = (text or "").strip().removeprefix("-")
    is_number = digits.isascii() and digits.isdecimal() and len(digits) < 20
    return is_number and abs(int(digits)) < 2**63
