"""One raw Arrow batch of a source to the columns that the rest of the package works on. Pure.

The same text comes out of every kind of source.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.contract.moments import to_utc, unmarked
from usms_pipeline.contract.schema import TEXT, TIME, dimension_name
from usms_pipeline.contract.setting_types import DateOrder
from usms_pipeline.source.kinds import Column, TimeType

MAX_SESSION_CHARACTERS: Final = 256
_FIRST_PLAIN, _LAST_PLAIN = 0x21, 0x7E
"""Printable ASCII but for the blank."""
_ONE: Final = pa.scalar(1, pa.int32())
NOTHING: Final = r"(?i:\\N|null|nan|none|nat|<na>|n/a|#n/a)"
"""What programs write for NULL; none has more than four characters."""
_BYTES: Final = r"^\\x([0-9A-Fa-f]{2})+$"
"""How the sources write bytes."""
_SEVERAL: Final = (
    r"[,;|\n，；、\[{]|[\d*]{8}([^\d*]+|\+)[\d*]{8}|"
    r"(?:[\d*][^\d/]{0,3}){7}/(?:[^\d/]{0,3}[\d*]){7}"
)
_BETWEEN: Final = re.compile(r"[,;|\n，；、]|(?<=[\d*]{8})(?:[^\d*+(]+|(?=\+))(?=[+(]*[\d*]{8})")
"""A blank and a slash stand inside a number as well, but no number has sixteen digits."""
_SOME_DIGITS: Final = re.compile(r"(?:[\d*xX#][^\d*xX#]{0,3}){5}")
"""What a phone has, and no part of ``1,380,013``."""
_NAMES: Final = (
    (r"[(（][^()（）\d]*[^()（）\dxX*#+\s][^()（）\d]*[)）]", ""),
    (r"(^|[,;|\n，；、])\s*\p{Han}+[\s:：]*([+(（]?\d)", r"\1\2"),
    (r"(\d)[\s:：]*\p{Han}+\s*($|[,;|\n，；、/])", r"\1\2"),
)
"""Whose number it is, beside the number: ``13800138000(张三)``, ``张三: 13800138000``."""
_WHOLE_FLOAT: Final = r"^(\d+)\.0+$"


@dataclass(frozen=True)
class Layout:
    """Which source column is which; a batch holds ``sent_at`` first, then ``others``."""

    sent_at: Column
    session: Column
    phone: Column | None
    recipients: Column | None
    dimensions: tuple[Column, ...]
    zone: str
    """Time zone of a ``sent_at`` that names none."""
    order: DateOrder | None

    @property
    def others(self) -> list[Column]:
        """Return the columns after ``sent_at``, in the order in which they are asked for."""
        optional = [column for column in (self.phone, self.recipients) if column is not None]
        return [self.session, *optional, *self.dimensions]


@dataclass
class Cells:
    """Counts of what ``clean`` met in the rows of a table, and its result no longer shows."""

    rows: int = 0
    several: int = 0
    """Cells with several phones, and how many ``phones`` these hold."""
    phones: int = 0
    with_words: int = 0
    """Cells with words beside the numbers: they are left out."""
    uncounted: int = 0
    """Rows whose number of recipients is not from 1 to 99,999: it counts as 1."""


def schema(dimensions: Sequence[str]) -> pa.Schema:
    """Return the Arrow schema of what ``read`` yields."""
    ours = {"session_no": TEXT, "phone": TEXT, "sent_at": TIME, "recipients": pa.int32()}
    return pa.schema([*ours.items(), *((dimension_name(name), TEXT) for name in dimensions)])


def clean(
    raw: pa.RecordBatch,
    layout: Layout,
    dimensions: Sequence[str],
    start: datetime,
    end: datetime,
    latest: datetime,
    cells: Cells,
) -> pa.RecordBatch:
    """Return the rows of [start, end) with a usable ``sent_at``, as ``schema`` has them.

    A row whose phone cell holds several phones becomes a row for each. ``cells`` is added to.
    """
    times = to_utc(raw.column(0), layout.zone, order=layout.order, latest=latest)
    inside = pc.and_(
        pc.greater_equal(times, pa.scalar(start, TIME)), pc.less(times, pa.scalar(end, TIME))
    )
    if inside.true_count < len(raw):
        raw, times = raw.filter(inside), times.filter(inside)
    texts = [_text(raw.column(i + 1), column) for i, column in enumerate(layout.others)]
    session, *rest = texts
    session = _whole(session, layout.session)
    phone = pa.nulls(len(raw), TEXT)
    if layout.phone:
        phone = _phone(_whole(rest.pop(0), layout.phone))
    cells.rows += len(raw)
    recipients = pa.repeat(_ONE, len(raw))
    if layout.recipients:
        counts = _recipients(rest.pop(0))
        cells.uncounted += counts.null_count
        recipients = pc.fill_null(counts, _ONE)
    trimmed = [pc.utf8_trim_whitespace(text) for text in rest]  # "otp " is no group of its own
    columns = [_session(session), phone, times, recipients, *trimmed]
    return _one_phone_a_row(pa.record_batch(columns, schema=schema(dimensions)), cells)


def _one_phone_a_row(rows: pa.RecordBatch, cells: Cells) -> pa.RecordBatch:
    are_several = pc.fill_null(pc.match_substring_regex(rows["phone"], _SEVERAL), False)
    if not pc.any(are_several).as_py():
        return rows
    phones: list[list[str | None]] = [[text] for text in rows["phone"].to_pylist()]
    for place in np.flatnonzero(are_several):
        phones[place], has_words = phones_in(rows["phone"][int(place)].as_py())
        cells.with_words += has_words
        if len(phones[place]) > 1:
            cells.several += 1
            cells.phones += len(phones[place])
    counts = [len(some) for some in phones]
    split = rows.take(pa.array(np.repeat(np.arange(len(rows)), counts)))
    flat = pa.array([phone for some in phones for phone in some], TEXT)
    is_lone = pa.array(np.repeat(np.array(counts) == 1, counts))
    recipients = pc.if_else(is_lone, split["recipients"], _ONE)
    return split.set_column(1, "phone", flat).set_column(3, "recipients", recipients)


def phones_in(text: str) -> tuple[list[str | None], bool]:
    """Return the phones in a text, and whether there are words beside them.

    Lists are written ``138…,139…``, ``[138…, 139…]`` or ``{138…,139…}``. An empty list is one
    unknown phone (None). A text that is no list is one phone, even if it is not a number.
    """
    is_list = text[0] + text[-1] in ("[]", "{}", "()") and ":" not in text
    lists = _BETWEEN.split(text[1:-1] if is_list else text)
    parts = [part.strip(" \t\"'") for one in lists for part in _at_slashes(one)]
    found = [part for part in parts if part and part.casefold() != "null"]
    if is_list and not found:
        return [None], False
    numbers: list[str | None] = [part for part in found if _SOME_DIGITS.search(part)]
    return (numbers, len(numbers) < len(found)) if numbers else ([text], False)


def _at_slashes(text: str) -> list[str]:
    parts = text.split("/")
    fewest = 7 if text.count(" / ") == len(parts) - 1 else 10
    digits = (sum(one.isdecimal() or one == "*" for one in part) for part in parts)
    return parts if min(digits) >= fewest else [text]


def text_of_bytes(raw: bytes) -> str | None:
    """Return bytes as the text that they are, or as a UUID; None where they are neither."""
    try:
        text = raw.rstrip(b"\0").decode()  # MySQL fills a BINARY(16) up with NULs
        if text.isprintable():
            return text
    except UnicodeDecodeError:
        pass
    return str(uuid.UUID(bytes=raw)) if len(raw) == 16 else None


def _text(values: pa.Array, column: Column) -> pa.Array:
    text = _readable(values.cast(TEXT) if values.type != TEXT else values)
    if pc.any(pc.starts_with(text, "\\x")).as_py():
        are_bytes = pc.fill_null(pc.match_substring_regex(text, _BYTES), False)
        raws = [bytes.fromhex(one[2:]) for one in text.filter(are_bytes).to_pylist()]
        texts = pa.array([text_of_bytes(raw) for raw in raws], TEXT)
        text = pc.replace_with_mask(text, are_bytes, texts)
    return _plain(text) if column.exact_below else text


def _whole(text: pa.Array, column: Column) -> pa.Array:
    """Return 123 for a 123.00 of a decimal column: the type adds the zeros."""
    is_number = column.time is TimeType.NUMBER
    return pc.replace_substring_regex(text, r"\.0+$", "") if is_number else text


def _readable(text: pa.Array) -> pa.Array:
    """Return null for bytes that are not UTF-8: some databases let them into a text column."""
    try:
        if not _is_plain(text):
            text.validate(full=True)
    except pa.ArrowInvalid:
        texts: list[str | None] = []
        for raw in text.cast(pa.binary()).to_pylist():
            try:
                texts.append(raw and raw.decode())
            except UnicodeDecodeError:
                texts.append(None)
        return pa.array(texts, TEXT)
    return text


def _plain(text: pa.Array) -> pa.Array:
    """Write floating numbers as people do: 123 for 123.0, no exponent, null for NaN."""
    text = pc.replace_substring_regex(text, r"^(-?\d+)\.0*$", r"\1")
    if not pc.any(pc.match_substring_regex(text, r"[a-zA-Z]")).as_py():
        return text
    coded = text.dictionary_encode()
    plain = pa.array([_without_exponent(one) for one in coded.dictionary.to_pylist()], TEXT)
    return plain.take(coded.indices)


def _without_exponent(text: str) -> str | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return text
    if not number.is_finite():
        return None
    plain = f"{number:f}"
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def _session(text: pa.Array) -> pa.Array:
    """Trim; null where blank, longer than a session number can be, or with control characters.

    A float's ``.0`` goes, which pandas writes beside a gap: no session number has one.
    """
    text = _named(unmarked(text))
    is_plain = _is_plain(text)
    text = text if is_plain else pc.utf8_trim_whitespace(text)
    if (_bytes(text) == ord(".")).any():
        text = pc.replace_substring_regex(text, _WHOLE_FLOAT, r"\1")
    length = pc.binary_length(text) if is_plain else pc.utf8_length(text)
    fits = pc.and_(pc.greater(length, 0), pc.less_equal(length, MAX_SESSION_CHARACTERS))
    if not is_plain and pc.any(has_controls := pc.match_substring_regex(text, r"\p{Cc}")).as_py():
        fits = pc.and_(fits, pc.invert(has_controls))
    return _where(fits, text)


def _is_plain(text: pa.Array) -> bool:
    """Return whether all is printable ASCII without a blank: nothing to trim, to fix or to refuse.

    Looks at the bytes of all texts at once, which is far cheaper than to look at each.
    """
    data = _bytes(text)
    least, most = data.min(initial=_LAST_PLAIN), data.max(initial=_FIRST_PLAIN)
    return bool(least >= _FIRST_PLAIN and most <= _LAST_PLAIN)


def _bytes(text: pa.Array) -> npt.NDArray[np.uint8]:
    return np.frombuffer(text.buffers()[2] or b"", np.uint8)


def _phone(text: pa.Array) -> pa.Array:
    text = _named(unmarked(pc.utf8_trim_whitespace(text)))
    if not _is_plain(text):
        for pattern, kept in _NAMES:
            text = pc.replace_substring_regex(text, pattern, kept)
    return _where(pc.not_equal(text, ""), text)


def _named(text: pa.Array) -> pa.Array:
    if not pc.any(pc.less_equal(pc.binary_length(text), 4)).as_py():
        return text
    is_nothing = pc.match_substring_regex(pc.utf8_trim_whitespace(text), f"^{NOTHING}$")
    return _where(pc.invert(is_nothing), text)


def _recipients(text: pa.Array) -> pa.Array:
    """Return the number of recipients; null where there is none of 1 to 99,999.

    The service takes up to 1,000 phones a call; a stray number must not become a million rows.
    """
    digits = pc.replace_substring_regex(unmarked(pc.utf8_trim_whitespace(text)), r"\.0*$", "")
    usable = pc.match_substring_regex(digits, r"^0*[1-9]\d{0,4}$")
    return _where(usable, digits).cast(pa.int32())


def _where(usable: pa.Array, text: pa.Array) -> pa.Array:
    if usable.true_count == len(text):
        return text
    return pc.if_else(usable, text, pa.scalar(None, TEXT))
