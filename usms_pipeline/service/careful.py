"""Reads one answer at a time, in any shape: liberal, and names what it can't read.

This reading decides: ``decode`` must agree with it wherever that reads many answers at once. Here
too are the form in which a reading is handed on, and the bounds of what is kept of an answer.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, TypeVar

import msgspec
import pyarrow as pa

from usms_pipeline.contract.schema import MOST_CHARACTERS
from usms_pipeline.service import api

_T = TypeVar("_T")
_Rows = list[tuple[Any, ...]]
_INT64: Final = 2**63
_INTEGER: Final = re.compile(r"\s*-?[0-9]{1,19}\s*")
_ABSENT: Final = msgspec.Raw()
_Unreadable: Final = msgspec.ValidationError
"""Raised with a reason that holds no data; never leaves this module."""
_CANNOT_BE_READ: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

MOST_BYTES_KEPT: Final = 64 * 1024
"""How much of an unusable answer or item is kept in quarantine."""

MOST_REJECTS: Final = 100
"""Items of one answer that are quarantined each by itself; the others are counted in one."""

MOST_VALUES: Final = 2_000_000
"""An answer with more commas can't be read. 100 sessions of 1,000 phones have a million."""

ITEMS: Final = pa.schema(
    [
        ("response", pa.int32()),  # the answer's row in the table being decoded
        ("session_no", pa.string()),  # as it was asked
        ("submit_status", pa.string()),
    ]
)
"""One item of an answer that could be read."""

SAID: Final = pa.schema(
    [
        (name, pa.int64() if name in api.WHOLE_NUMBERS else pa.string())
        for name in api.RECEIPT
        if name != "older_word"  # it is read as the word where there is none
    ]
)
"""What a receipt says, as received; all null or empty when it says nothing."""

RECEIPTS: Final = pa.schema([*ITEMS, *SAID])
"""One receipt that says something."""

BAD_ITEM: Final = "bad_item"
UNASKED: Final = "unasked_session"
UNREADABLE: Final = "unreadable_answer"
REFUSED: Final = "refused_id"
UNANSWERED: Final = "unanswered_id"


@dataclass(frozen=True)
class Reject:
    """What could not be used of one answer, and why (a reason that holds no data)."""

    response: int
    kind: str
    reason: str
    session_no: str | None
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Parts:
    """What was read of some answers."""

    items: pa.Table = field(default_factory=ITEMS.empty_table, repr=False)
    receipts: pa.Table = field(default_factory=RECEIPTS.empty_table, repr=False)
    rejects: tuple[Reject, ...] = ()


def _reader(keys: Mapping[str, str]) -> msgspec.json.Decoder[Any]:
    fields = [(ours, msgspec.Raw, _ABSENT) for ours in keys]
    return msgspec.json.Decoder(msgspec.defstruct("Object", fields, rename=dict(keys)))


ENVELOPE: Final = _reader(api.ENVELOPE)
_ITEM: Final = _reader(api.ITEM)
_RECEIPT: Final = _reader(api.RECEIPT)
NO_LIST: Final = f"the answer's {api.ENVELOPE['data']} is not a list"
_NO_DATA: Final = (b"", b"null")
_SESSION_NO, _SUBMIT_STATUS = api.ITEM["session_no"], api.ITEM["submit_status"]
_RAWS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_STRING: Final = msgspec.json.Decoder(str)


def read_bodies(bodies: Iterable[tuple[int, bytes, list[str]]]) -> Parts:
    """Read answers (response, body, ids asked) one by one. Never raises for what they hold."""
    items: _Rows = []
    receipts: _Rows = []
    rejects: list[Reject] = []
    for response, body, ids in bodies:
        try:
            entries = _entries(_text_of(body))
        except _Unreadable as error:
            kept = body[:MOST_BYTES_KEPT]
            rejects.append(Reject(response, UNREADABLE, str(error), None, kept))
            continue
        found: list[Reject] = []
        further = 0
        asked = _Asked(ids, entries)
        for entry in entries:
            problem = _read_item(response, bytes(entry), asked, items, receipts)
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


def is_object(body: Any) -> bool:
    """Return whether bytes are one JSON object, in UTF-8 or not; what is inside may be anything."""
    try:
        ENVELOPE.decode(body)
    except _CANNOT_BE_READ:
        return False
    return True


def is_list(data: msgspec.Raw) -> bool:
    """Return whether the JSON of an answer's data is a list; none at all, or null, is an empty one.

    Not a lone item: where the items are not, nothing tells which of the ids asked it is about, and
    all the others would count as asked.
    """
    text = bytes(data)
    return text in _NO_DATA or text.startswith(b"[")


def has_too_many_values(body: bytes) -> bool:
    """Return whether parsing a body would cost more memory than any answer is worth."""
    return len(body) > MOST_VALUES and body.count(b",") > MOST_VALUES


def cut(text: str | None) -> str | None:
    """Return a text's first ``MOST_CHARACTERS``; "…" ends a cut one, so it is no known word.

    >>> cut("delivered"), len(cut("x" * 5000))
    ('delivered', 1000)
    """
    if text is None or len(text) <= MOST_CHARACTERS:
        return text
    return f"{text[: MOST_CHARACTERS - 1]}…"


def mended(body: bytes) -> bytes | None:
    """Return a body as the JSON object in UTF-8 that it is or was meant to be, or else None."""
    with suppress(_Unreadable):
        text = _text_of(body)
        return text if is_object(text) else None
    return None


class _Asked:
    def __init__(self, ids: list[str], entries: list[msgspec.Raw]) -> None:
        self._ids, self._entries = ids, entries
        self._plain = {one.strip(): one for one in ids} | {one: one for one in ids}

    def meant_by(self, name: str) -> str | None:
        """Return the session of that name, or the only one that it can mean."""
        return self._plain.get(name) or self._plain.get(name.strip()) or self._loose.get(
            _loosely(name)
        )  # fmt: skip

    @cached_property
    def _loose(self) -> dict[str, str]:
        """Sessions by the letters and digits of their numbers, except exact matches."""
        named = set()
        for entry in self._entries:
            with suppress(_Unreadable):
                named.add(_named(_decoded(_ITEM.decode, entry, "")).strip())
        counts = Counter(map(_loosely, self._ids))
        return {
            name: one
            for one in self._ids
            if counts[name := _loosely(one)] == 1 and one.strip() not in named
        }


def _loosely(name: str) -> str:
    """Return a name without case, blanks, marks and leading zeros, which a service may drop."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    return "".join(filter(str.isalnum, plain)).lstrip("0") or name


def _read_item(
    response: int, entry: bytes, asked: _Asked, items: _Rows, receipts: _Rows
) -> tuple[str, str, str | None] | None:
    """Add what one entry of ``Data`` says; return kind, reason and session of what it can't."""
    session = None
    try:
        item = _decoded(_ITEM.decode, entry, "the item is not an object")
        session = _named(item)
        meant = asked.meant_by(session)
        if meant is None:
            return UNASKED, "the answer is about a session that nobody asked about", session
        session = meant
        status = cut(_scalar(item.submit_status, _SUBMIT_STATUS))
        items.append((response, session, status))
        said, problems = _read_receipts(item)
        receipts += [(response, session, status, *values) for values in said]
    except _Unreadable as error:
        problems = [str(error)]
    return (BAD_ITEM, problems[0], session) if problems else None


def _named(item: Any) -> str:
    session = _scalar(item.session_no, _SESSION_NO)
    if session is None or not session.strip():
        raise _Unreadable(f"the item has no {_SESSION_NO}")
    return session


def _read_receipts(item: Any) -> tuple[_Rows, list[str]]:
    said: _Rows = []
    problems: list[str] = []
    for name in ("receipt", "receipt_set"):
        text = bytes(getattr(item, name))
        receipts = [text]
        if text.startswith(b"["):
            receipts = [bytes(one) for one in _RAWS.decode(text) if not _is_absent(one)]
        elif _is_absent(text):
            continue
        elif not text.startswith(b"{"):
            problems.append(f"{api.ITEM[name]} is neither an object nor a list")
            continue
        for receipt in receipts:
            try:
                values = _receipt(receipt)
            except _Unreadable as error:
                problems.append(str(error))
            else:
                if any(value not in (None, "") for value in values):
                    said.append(values)
    return said, problems


def _receipt(text: bytes) -> tuple[Any, ...]:
    receipt = _decoded(_RECEIPT.decode, text, "a receipt is not an object")
    said = {name: _scalar(getattr(receipt, name), key) for name, key in api.RECEIPT.items()}
    older_word = said.pop("older_word")
    if said["word"] is None:
        said["word"] = older_word
    if said["time"] is None and _integer(said["epoch"]) is None:
        said["time"] = said["epoch"]  # a count as text may be a time in words
    return tuple(
        _integer(text) if name in api.WHOLE_NUMBERS else text for name, text in said.items()
    )


def _integer(text: str | None) -> int | None:
    number = int(text) if text and _INTEGER.fullmatch(text) else None
    return number if number is not None and -_INT64 <= number < _INT64 else None


def _scalar(raw: msgspec.Raw, name: str) -> str | None:
    """Return a string's text, or a number's exactly as it is written."""
    text = bytes(raw)
    if text.startswith(b'"'):
        return _decoded(_STRING.decode, text, f"{name} is not text")
    if text[:1] in (b"{", b"["):
        raise _Unreadable(f"{name} is neither text nor a number")
    return None if _is_absent(raw) else text.decode()


def _is_absent(raw: bytes | msgspec.Raw) -> bool:
    return bytes(raw) in (b"", b"null", b'""')


def _entries(body: bytes) -> list[msgspec.Raw]:
    data = _decoded(ENVELOPE.decode, body, "the answer is not a JSON object").data
    if not is_list(data):
        raise _Unreadable(NO_LIST)
    return [] if bytes(data) in _NO_DATA else _decoded(_RAWS.decode, data, NO_LIST)


def _decoded(decode: Callable[[Any], _T], text: bytes | msgspec.Raw, reason: str) -> _T:
    try:
        return decode(text)
    except _CANNOT_BE_READ:
        raise _Unreadable(reason) from None


def _text_of(body: bytes) -> bytes:
    """Return a body as JSON in UTF-8; repair byte-order marks, wrong bytes, surrogates, NaN."""
    if has_too_many_values(body):
        raise _Unreadable("the answer holds more values than any answer needs")
    try:
        str(body, "utf-8")
        if is_object(body):
            return body
    except UnicodeDecodeError:
        pass
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


def _table(rows: _Rows, schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    return pa.table(dict(zip(schema.names, columns, strict=True)), schema=schema)


def joined(parts: list[Parts]) -> Parts:
    """Join readings, in the order of the answers."""
    rejects = [reject for part in parts for reject in part.rejects]
    return Parts(
        in_order([part.items for part in parts]),
        in_order([part.receipts for part in parts]),
        tuple(sorted(rejects, key=lambda reject: reject.response)),
    )


def in_order(tables: list[pa.Table]) -> pa.Table:
    """Join tables of answers' items or receipts (one at least), in the answers' order."""
    filled = [table for table in tables if table.num_rows]
    whole = pa.concat_tables(filled or tables[:1]).combine_chunks()
    return whole.sort_by("response").combine_chunks() if len(filled) > 1 else whole
