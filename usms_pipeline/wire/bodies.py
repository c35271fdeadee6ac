"""One answer at a time, in whatever shape it comes: liberal, and names what it can't read.

The reading that decides; ``blocks`` must agree with it wherever it answers at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeVar

import msgspec
import pyarrow as pa

from usms_pipeline.wire.bounds import MOST_BYTES_KEPT, MOST_REJECTS, cut, has_too_many_values
from usms_pipeline.wire.parts import (
    BAD_ITEM,
    ITEMS,
    PLACES_AN_ITEM,
    RECEIPTS,
    UNASKED_SESSION,
    UNREADABLE_ANSWER,
    Parts,
    Reject,
)

_T = TypeVar("_T")
_INT64: Final = 2**63
_INTEGER: Final = re.compile(r"\s*-?[0-9]{1,19}\s*")
_ABSENT: Final = msgspec.Raw()


class Envelope(msgspec.Struct):
    """The whole answer."""

    Data: msgspec.Raw = _ABSENT


class _Item(msgspec.Struct):
    SessionNo: msgspec.Raw = _ABSENT
    Status: msgspec.Raw = _ABSENT
    Receipt: msgspec.Raw = _ABSENT
    ReceiptSet: msgspec.Raw = _ABSENT


class _Receipt(msgspec.Struct):
    """Both of the service's forms of a receipt in one; a name of either is understood in both."""

    Phone: msgspec.Raw = _ABSENT
    Status: msgspec.Raw = _ABSENT
    ReceiptResult: msgspec.Raw = _ABSENT
    ReceiveTime: msgspec.Raw = _ABSENT
    ReceiptTime: msgspec.Raw = _ABSENT
    ReceiptCode: msgspec.Raw = _ABSENT
    ReceiptDesc: msgspec.Raw = _ABSENT
    CostCount: msgspec.Raw = _ABSENT


_Unreadable: Final = msgspec.ValidationError
"""Raised here with a reason in words that hold no data; never leaves this module."""


def read_bodies(bodies: Iterable[tuple[int, bytes, list[str]]]) -> Parts:
    """Read answers (response, body, ids asked) one by one. Never raises for what they hold."""
    items: list[tuple[Any, ...]] = []
    receipts: list[tuple[Any, ...]] = []
    rejects: list[Reject] = []
    for response, body, ids in bodies:
        asked = {session.strip(): session for session in ids} | {
            session: session for session in ids
        }
        try:
            entries = _entries(_text_of(body))
        except _Unreadable as error:
            kept = body[:MOST_BYTES_KEPT]
            rejects.append(Reject(response, UNREADABLE_ANSWER, str(error), None, kept))
            continue
        found: list[Reject] = []
        further = 0
        for number, entry in enumerate(entries):
            head = (response, number * PLACES_AN_ITEM)
            problem = _read_item(head, bytes(entry), asked, items, receipts)
            if problem is not None and len(found) < MOST_REJECTS:
                found.append(Reject(response, *problem, bytes(entry)))
            elif problem is not None:
                further += 1
        rejects += found
        if further:
            words = f"{further:,} further items of the answer could not be used"
            kept = body[:MOST_BYTES_KEPT]
            rejects.append(Reject(response, found[-1].kind, words, None, kept))
    return Parts(_table(items, ITEMS), _table(receipts, RECEIPTS), tuple(rejects))


def is_well_formed(body: bytes) -> bool:
    """Tell whether a body is one JSON object in UTF-8; what is inside may be anything."""
    if has_too_many_values(body):
        return False
    try:
        str(body, "utf-8")
        _ENVELOPE.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def mended(body: bytes) -> bytes | None:
    """Give a body as the JSON object in UTF-8 that it is or was meant to be; None if it is none."""
    try:
        text = _text_of(body)
        _decoded(_ENVELOPE.decode, text, "the answer is not a JSON object")
    except _Unreadable:
        return None
    return text


def _read_item(
    head: tuple[int, int],
    entry: bytes,
    asked: dict[str, str],
    items: list[tuple[Any, ...]],
    receipts: list[tuple[Any, ...]],
) -> tuple[str, str, str | None] | None:
    """Add what one entry of ``Data`` says; give kind, reason and session of what it can't."""
    session = None
    try:
        item = _decoded(_ITEM.decode, entry, "the item is not an object")
        session = _named(item)
        if session not in asked and session.strip() not in asked:
            return UNASKED_SESSION, "the answer is about a session that nobody asked about", session
        session = asked[session if session in asked else session.strip()]
        status = cut(_scalar(item.Status, "Status"))
        items.append((*head, session, status))
        for number, said in enumerate(_said(item)):
            receipts.append((head[0], head[1] + number, session, status, *said))
        problems = [*_problems(item)]
    except _Unreadable as error:
        problems = [str(error)]
    return (BAD_ITEM, problems[0], session) if problems else None


def _named(item: _Item) -> str:
    session = _scalar(item.SessionNo, "SessionNo")
    if session is None or not session.strip():
        raise _Unreadable("the item has no SessionNo")
    return session


def _said(item: _Item) -> Iterator[tuple[Any, ...]]:
    """Give what each readable receipt of an item says, leaving out those that say nothing."""
    for receipt in (*_receipts(item.Receipt), *_receipts(item.ReceiptSet)):
        try:
            said = _receipt(receipt)
        except _Unreadable:
            continue
        if any(value not in (None, "") for value in said):
            yield said


def _problems(item: _Item) -> Iterator[str]:
    for name in ("Receipt", "ReceiptSet"):
        raw = getattr(item, name)
        if not _is_absent(raw) and bytes(raw)[:1] not in (b"{", b"["):
            yield f"{name} is neither an object nor a list"
        for receipt in _receipts(raw):
            try:
                _receipt(receipt)
            except _Unreadable as error:
                yield str(error)


def _receipts(raw: msgspec.Raw) -> list[bytes]:
    text = bytes(raw)
    if text.startswith(b"["):
        return [bytes(one) for one in _RAWS.decode(text) if not _is_absent(one)]
    return [text] if text.startswith(b"{") else []


def _receipt(text: bytes) -> tuple[Any, ...]:
    receipt = _decoded(_RECEIPT.decode, text, "a receipt is not an object")
    word, other_word = _scalar(receipt.Status, "Status"), _scalar(receipt.ReceiptResult, "Result")
    time, epoch = _moment(receipt)
    return (
        _scalar(receipt.Phone, "Phone"),
        other_word if word is None else word,
        time,
        epoch,
        _scalar(receipt.ReceiptCode, "ReceiptCode"),
        _scalar(receipt.ReceiptDesc, "ReceiptDesc"),
        _integer(_scalar(receipt.CostCount, "CostCount")),
    )


def _moment(receipt: _Receipt) -> tuple[str | None, int | None]:
    """Give the time as text and as a count since 1970, either of them None."""
    time = _scalar(receipt.ReceiveTime, "ReceiveTime")
    other = _scalar(receipt.ReceiptTime, "ReceiptTime")
    epoch = _integer(other)
    return (other if time is None and epoch is None else time), epoch


def _integer(text: str | None) -> int | None:
    number = int(text) if text and _INTEGER.fullmatch(text) else None
    return number if number is not None and abs(number) < _INT64 else None


def _scalar(raw: msgspec.Raw, name: str) -> str | None:
    """Give a string's text, or a number's exactly as it is written."""
    text = bytes(raw)
    if text.startswith(b'"'):
        return _decoded(_STRING.decode, text, f"{name} is not text")
    if text[:1] in (b"{", b"["):
        raise _Unreadable(f"{name} is neither text nor a number")
    return None if _is_absent(raw) else text.decode()


def _is_absent(raw: msgspec.Raw) -> bool:
    return bytes(raw) in (b"", b"null", b'""')


def _entries(body: bytes) -> list[msgspec.Raw]:
    data = bytes(_decoded(_ENVELOPE.decode, body, "the answer is not a JSON object").Data)
    if data in (b"", b"null"):
        return []
    return (
        _decoded(_RAWS.decode, data, "Data is not a list")
        if data.startswith(b"[")
        else [msgspec.Raw(data)]
    )


def _decoded(decode: Callable[[bytes], _T], text: bytes, reason: str) -> _T:
    try:
        return decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _Unreadable(reason) from None


def _text_of(body: bytes) -> bytes:
    """Mend what can be: a byte-order mark, bytes that are no UTF-8, lone surrogates, NaN."""
    if is_well_formed(body):
        return body
    if has_too_many_values(body):
        raise _Unreadable("the answer holds more values than any answer needs")
    text = body.decode("utf-8-sig", "replace")
    try:
        mended = json.loads(
            text, strict=False, parse_constant=lambda _: None, parse_int=str, parse_float=str
        )
        return json.dumps(mended, ensure_ascii=False).encode("utf-8", "replace")
    except ValueError:
        raise _Unreadable("the answer is not JSON") from None
    except RecursionError:
        raise _Unreadable("the answer is nested too deeply") from None


def _table(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)],
        schema=schema,
    )


_ENVELOPE: Final = msgspec.json.Decoder(Envelope)
_ITEM: Final = msgspec.json.Decoder(_Item)
_RECEIPT: Final = msgspec.json.Decoder(_Receipt)
_RAWS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_STRING: Final = msgspec.json.Decoder(str)
