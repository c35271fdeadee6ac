"""Any answer: no crash, nothing lost, and no other rows affected."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from random import Random
from typing import Any, NamedTuple

import pytest

from tests.hostile_bodies import IDS, bodies
from tests.test_decode import as_set, check_ways, decode, response
from usms_pipeline.people.phones import PhoneBook
from usms_pipeline.service.careful import Parts
from usms_pipeline.service.client import _read_envelope
from usms_pipeline.service.decode import Answer
from usms_pipeline.service.names import Forgotten, Names

# A second reader, written from the service's documentation: slow, plain and strict.

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
    names = {_trimmed(name) for entry in data or () if (name := _session(entry)) is not None}
    useless = sum(not _is_useful(entry, {*ids}, names, receipts) for entry in data or ())
    return Held(receipts, useless)


def _refuse(word: str) -> None:
    raise Bad(word)


def _is_useful(
    entry: Any, asked: set[str], names: set[str], receipts: Counter[tuple[str, str | None]]
) -> bool:
    """Count an entry's receipts; tells if there was nothing wrong with it."""
    try:
        session = _meant(_session(entry), asked, names)
        if session is None:
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


def _session(entry: Any) -> str | None:
    with suppress(Bad):
        return _text(entry.get("SessionNo")) if isinstance(entry, dict) else None
    return None


def _trimmed(name: str) -> str:
    return re.sub(r"^[\s\ufeff\u200b]+|[\s\ufeff\u200b]+$", "", name)


def _bare(name: str) -> str:
    plain = unicodedata.normalize("NFKC", name).casefold()
    return re.sub(r"[\W_]", "", plain).lstrip("0") or name


def _meant(name: str | None, asked: set[str], names: set[str]) -> str | None:
    """Return the session of that name, or the only one of its letters that has no other."""
    if name is None or name in asked:
        return name
    if _trimmed(name) in asked:
        return _trimmed(name)
    alike = [one for one in asked if _bare(one) == _bare(name)]
    return alike[0] if len(alike) == 1 and alike[0] not in names else None


def _word(receipt: Any) -> Any:
    """Return a receipt's status word, or an ellipsis where it says nothing at all."""
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


AT_ONCE = 50
BOOK = PhoneBook(bytes(32), "CN", "masked")
GONE = Forgotten(frozenset({BOOK.recipient_id("13800138000")}), frozenset({"b"}))
FINDS = [Names(GONE, BOOK, phones) for phones in (["+8613800138000"], [])]


def check_counts(made: list[bytes], parts: Parts) -> int:
    """What was read of a body is what the plain reader finds in it; gives how many it could read"""
    of = parts.receipts
    found: dict[int, Counter[Any]] = {}
    told = zip(*(of[c].to_pylist() for c in ("response", "session_no", "word")), strict=True)
    for number, session, word in told:
        found.setdefault(number, Counter())[session, word] += 1
    rejected = Counter(reject.response for reject in parts.rejects)
    compared = 0
    for number, body in enumerate(made):
        held = held_by(body, IDS)
        if held is not None:
            compared += 1
            assert found.get(number, Counter()) == held.receipts, body
            assert rejected[number] == held.useless, body
    return compared


def check_rows(made: list[bytes], parts: Parts, is_thorough: bool) -> None:
    """Every receipt is a row, and every id asked without one, beside all others in the block."""
    rows = [response(body, IDS) for body in made]
    decoded = decode(*rows)
    names = (parts.receipts[name].to_pylist() for name in ("response", "session_no"))
    told = list(zip(*names, strict=True))
    silent = {(number, session) for number in range(len(made)) for session in IDS} - set(told)
    expected = sorted(session for _, session in (*told, *silent))
    assert sorted(decoded.observations["session_no"].to_pylist()) == expected
    assert decoded.rejects.num_rows == len(parts.rejects)
    assert max(map(len, decoded.rejects["body"].to_pylist()), default=0) <= 64 * 1024
    if is_thorough:
        shuffled = Random(len(made)).sample(rows, len(rows))
        assert as_set(decode(*shuffled)) == as_set(decoded)
        alone = [line for row in rows for line in as_set(decode(row))]
        assert sorted(alone) == as_set(decoded)


def check_names(made: list[bytes], parts: Parts) -> None:
    """A forgotten person is found in every text that their receipt is read from."""
    named = [
        response
        for response, session, phone in zip(
            *(parts.receipts[c].to_pylist() for c in ("response", "session_no", "phone")),
            strict=True,
        )
        if session in GONE.sessions or BOOK.recipient_id(phone or "") in GONE.recipients
    ]
    for names in FINDS:
        is_found = [names.any_in(body) for body in made]
        assert [made[n] for n in named if not is_found[n]] == []


def fuzz(seed: Any, count: int) -> int:
    """Read ``count`` bodies; return how many of them the plain reader could read too."""
    source, compared = bodies(seed), 0
    for turn in range(count // AT_ONCE):
        made = list(islice(source, AT_ONCE))
        numbered = [Answer(number, body, list(IDS)) for number, body in enumerate(made)]
        parts = check_ways(numbered)
        compared += check_counts(made, parts)
        check_rows(made, parts, is_thorough=turn % 40 == 0)
        for body in made:
            _read_envelope(body)
        check_names(made, parts)
    return compared


def test_nothing_is_lost_of_what_a_hostile_service_may_send():
    assert fuzz("few", 2_000) > 500


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_lost_of_ten_thousand_hostile_answers(seed):
    assert fuzz(seed, 10_000) > 2_500
