"""Turns parsed answers into observations in columns (``schema.OBSERVATIONS``). No JSON here.

Words become buckets, times become UTC, and phone numbers leave the texts. What is no time becomes
null and costs nothing else. Pure.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.contract import moments, status, wording
from usms_pipeline.contract.polling import CLOCKS_DIFFER
from usms_pipeline.contract.schema import MOST_CHARACTERS, OBSERVATIONS, TEXT
from usms_pipeline.people.phones import PhoneBook
from usms_pipeline.service import api
from usms_pipeline.service.careful import cut

_TEXT_WITH_A_NUMBER: Final = r"\p{Nd}([^\pL\p{Nd}\n]{0,3}\p{Nd}){6}"
_SEVEN_DIGITS: Final = re.compile(r"(?:\d[^\d\n]*){7}")
"""What a text with a number has; looking for these first is cheaper than the pattern above."""
_CODE_WITH_DIGITS: Final = r"\d{7}"
_LONGEST_CODE: Final = 10
"""Most digits in a row of a carrier's code; more are a phone number."""

_FINAL: Final = pa.array(status.FINAL, TEXT)

_MISREAD: Final = pa.scalar(timedelta(days=1))
"""Digits that are misread give a time that is later by far more."""


def times_in_doubt(receipts: pa.Table, rows: pa.Table) -> int:
    """Count the receipts with a time that can't be read, or is later than its response.

    ``rows`` are what ``receipt_rows`` made of them.
    """
    latest = pc.add(rows["asked_at"], pa.scalar(CLOCKS_DIFFER))
    is_right = pc.fill_null(pc.less_equal(rows["received_at"], latest), False)
    others = receipts.select(["time", "epoch"]).filter(pc.invert(is_right))
    says_none = pc.match_substring_regex(pc.fill_null(others["time"], ""), moments.NO_TIME)
    is_told = pc.or_(pc.invert(says_none), pc.greater(pc.fill_null(others["epoch"], 0), 0))
    return int(pc.sum(is_told).as_py() or 0)


def session_rows(
    sessions: pa.Array, asked_at: pa.Array, bucket: str | None, **said: pa.Array
) -> pa.Table:
    """Return a row for each session that was asked about: number ``''``, open, with one status.

    None is no status: there was no readable answer. ``said``: other columns of ``OBSERVATIONS``.
    """
    number = pa.repeat(pa.scalar(""), len(sessions))
    status = pa.repeat(pa.scalar(bucket, TEXT), len(sessions))
    return _observations(
        session_no=sessions, number=number, asked_at=asked_at, status=status, **said
    )


def receipt_rows(
    receipts: pa.Table, asked_at: pa.Array, submit_status: pa.Array, book: PhoneBook, zone: str
) -> pa.Table:
    """Return one row a receipt, final where its word is a final status.

    ``receipts`` is of ``careful.RECEIPTS``, ``asked_at`` the time of each one's answer,
    ``submit_status`` the word of its session there.
    """
    column = {name: receipts[name].combine_chunks() for name in receipts.column_names}
    said = book.describe(column["phone"])
    described = {name: pc.struct_field(said, name) for name in said.type.names}
    described["phone"] = cut_array(described["phone"])
    number, masks = described.pop("recipient"), described.pop("mask")
    if masks.null_count < len(masks):
        # several of one send are told apart by what their masks show
        number = pc.coalesce(number, book.masked_recipients(column["session_no"], masks))
    is_int32 = pc.and_(pc.greater_equal(column["segments"], 0), pc.less(column["segments"], 2**31))
    word = cut_array(column["word"])  # what is kept decides, so that it can be read again
    return _observations(
        session_no=column["session_no"],
        number=pc.fill_null(number, ""),
        **described,
        asked_at=asked_at,
        received_at=received_at(column["time"], column["epoch"], asked_at, zone),
        code=_codes(cut_array(column["code"]), column["phone"]),
        word=_without_numbers(word),
        status=canonical_array(word),
        description=_without_numbers(cut_array(column["description"])),
        submit_status=_without_numbers(column["submit_status"]),
        segments=pc.if_else(is_int32, column["segments"], None),
        session_submit_status=submit_status,
    )


def _observations(status: pa.Array, **said: pa.Array) -> pa.Table:
    is_final = pc.if_else(status.is_valid(), pc.is_in(status, value_set=_FINAL), None)
    said |= {"status": status, "is_final": is_final}
    if (word := said.get("session_submit_status")) is not None:
        said["session_submit_status"] = _without_numbers(word)
    arrays = [
        pa.nulls(len(status), field.type)
        if (column := said.get(field.name)) is None
        else column.cast(field.type)
        for field in OBSERVATIONS
    ]
    return pa.Table.from_arrays(arrays, schema=OBSERVATIONS)


def _codes(codes: pa.Array, phones: pa.Array) -> pa.Array:
    found = pc.fill_null(pc.match_substring_regex(codes, _CODE_WITH_DIGITS), False)
    if not pc.any(found).as_py():
        return codes
    pairs = zip(codes.filter(found).to_pylist(), phones.filter(found).to_pylist(), strict=True)
    return pc.replace_with_mask(codes, found, pa.array([_code(*pair) for pair in pairs], TEXT))


def _code(code: str, phone: str | None) -> str:
    own = re.sub(r"\D", "", phone or "")[-7:]
    is_own = len(own) == 7 and own in re.sub(r"\D", "", code)
    is_long = re.search(rf"\d{{{_LONGEST_CODE + 1}}}", code)
    return wording.without_numbers(code) if is_own or is_long else code


def _without_numbers(texts: pa.Array) -> pa.Array:
    """Remove phone numbers from the service's words: these are published as they are."""
    coded = texts.dictionary_encode()  # few words, in many receipts
    words = coded.dictionary
    if not _SEVEN_DIGITS.search("\n".join(words.to_pylist())):
        return texts
    found = pc.match_substring_regex(words, _TEXT_WITH_A_NUMBER)
    plain = [wording.without_numbers(word) for word in words.filter(found).to_pylist()]
    words = pc.replace_with_mask(words, found, pa.array(plain, TEXT))
    return words.take(coded.indices)


def canonical_array(words: pa.Array) -> pa.Array:
    """Return ``canonical`` of every word (string, nulls allowed); one lookup a distinct word."""
    encoded = pc.dictionary_encode(words, null_encoding="encode")
    mapped = pa.array([api.canonical(word) for word in encoded.dictionary.to_pylist()], TEXT)
    return mapped.take(encoded.indices)


def cut_array(texts: pa.Array) -> pa.Array:
    """Return ``careful.cut`` of every text (string, nulls allowed)."""
    most_bytes = pc.max(pc.binary_length(texts)).as_py() or 0
    if most_bytes <= MOST_CHARACTERS:
        return texts
    return pa.array([cut(text) for text in texts.to_pylist()], TEXT)


def received_at(texts: pa.Array, counts: pa.Array, asked_at: pa.Array, zone: str) -> pa.Array:
    """Return the time (UTC) of every text (string), or else of the count beside it (int64).

    A time without a zone is in ``zone``. Digits are never read as a time that lies after the answer
    (``asked_at``) which told them.
    """
    latest = pc.add(asked_at, _MISREAD)
    said = moments.to_utc(texts, zone, latest=latest)
    if counts.null_count == len(counts):
        return said
    return pc.coalesce(said, moments.to_utc(counts, zone, latest=latest))
