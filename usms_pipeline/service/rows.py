"""What was read of answers to observations in columns (``schema.OBSERVATIONS``). No JSON here.

Words become buckets, times become UTC, and phone numbers leave the texts. What is no time becomes
null and costs nothing else. Pure.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.contract import status, wording
from usms_pipeline.contract.schema import MOST_CHARACTERS, OBSERVATIONS, TEXT, TIME
from usms_pipeline.people.phones import PhoneBook
from usms_pipeline.service import api
from usms_pipeline.service.careful import cut

_TEXT_WITH_A_NUMBER: Final = r"\p{Nd}([^\pL\p{Nd}\n]{0,3}\p{Nd}){6}"
_SEVEN_DIGITS: Final = re.compile(r"(?:\d[^\d\n]*){7}")
"""What has a number has these; to look for them costs less than to make the pattern above."""
_CODE_WITH_DIGITS: Final = r"\d{7}"
_LONGEST_CODE: Final = 10
"""Digits in a row that may be a carrier's code; more are a phone number."""

_FINAL: Final = pa.array(status.FINAL, pa.string())

_LOCAL: Final = pa.timestamp("us")
_USUAL: Final = (
    r"^[12]\d{3}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])[ T]([01]\d|2[0-3]):[0-5]\d:[0-5]\d$"
)
_COUNT: Final = re.compile(r"([0-9]{9,19})(\.[0-9]*)?")
_COMPACT: Final = re.compile(r"(19|20)[0-9]{12}")
_SLASHES: Final = re.compile(r"([0-9]{4})/([0-9]{1,2})/([0-9]{1,2})(?=$|[ T])")
_YEAR_9999: Final = 253_370_764_800_000_000
"""In microseconds. Later ones are no times, and readers written in Python can't show them."""
_MOST_SECONDS: Final = 10**11
"""A count since 1970 from here on is in milliseconds; a thousand times that, microseconds…"""


def session_rows(
    sessions: pa.Array,
    asked_at: pa.Array,
    submit_status: pa.Array,
    bucket: str | None,
    code: pa.Array | None = None,
    description: pa.Array | None = None,
) -> pa.Table:
    """Return a row for each session that was asked about: number ``''``, open, in one bucket.

    None is no bucket: it was asked in vain.
    """
    count = len(sessions)
    return _observations(
        count,
        session_no=sessions,
        number=pa.repeat(pa.scalar(""), count),
        asked_at=asked_at,
        status=pa.repeat(pa.scalar(bucket, TEXT), count),
        code=code,
        description=description,
        session_submit_status=_without_numbers(submit_status),
    )


def receipt_rows(
    receipts: pa.Table, asked_at: pa.Array, submit_status: pa.Array, book: PhoneBook, zone: str
) -> pa.Table:
    """Return one row a receipt, final where its word is an outcome.

    ``receipts`` is of ``careful.RECEIPTS``, ``asked_at`` the time of each one's answer,
    ``submit_status`` the word of its session there.
    """
    column = {name: _whole(receipts[name]) for name in receipts.column_names}
    said = book.describe(column["phone"], with_digits=True)
    described = {name: pc.struct_field(said, name) for name in said.type.names}
    described["phone"] = cut_array(described["phone"])
    number, masks = described.pop("recipient"), described.pop("mask")
    if masks.null_count < len(masks):
        # several of one send are told apart by what their masks show
        number = pc.coalesce(number, book.masked_recipients(column["session_no"], masks))
    word = cut_array(column["word"])  # what is kept decides, so that it can be read anew
    return _observations(
        receipts.num_rows,
        session_no=column["session_no"],
        number=pc.fill_null(number, ""),
        **described,
        asked_at=asked_at,
        received_at=received_at(column["time"], column["epoch"], zone),
        code=_codes(cut_array(column["code"]), column["phone"]),
        word=_without_numbers(word),
        status=canonical_array(word),
        description=_without_numbers(cut_array(column["description"])),
        submit_status=_without_numbers(column["submit_status"]),
        segments=_segments(column["segments"]),
        session_submit_status=_without_numbers(submit_status),
    )


def _observations(count: int, **columns: pa.Array | None) -> pa.Table:
    said = {name: column for name, column in columns.items() if column is not None}
    is_outcome = pc.is_in(said["status"], value_set=_FINAL)
    said["is_final"] = pc.if_else(pc.is_valid(said["status"]), is_outcome, None)
    arrays = [
        said[field.name].cast(field.type) if field.name in said else pa.nulls(count, field.type)
        for field in OBSERVATIONS
    ]
    return pa.Table.from_arrays(arrays, schema=OBSERVATIONS)


def _codes(codes: pa.Array, phones: pa.Array) -> pa.Array:
    """Take out of codes what is too long for one, and the receipt's own number."""
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
    """Take phone numbers out of the service's words: these are published as they are."""
    coded = texts.dictionary_encode()  # few words, in many receipts
    words = coded.dictionary
    if not _SEVEN_DIGITS.search("\n".join(words.to_pylist())):
        return texts
    found = pc.match_substring_regex(words, _TEXT_WITH_A_NUMBER)
    plain = [wording.without_numbers(word) for word in words.filter(found).to_pylist()]
    words = pc.replace_with_mask(words, found, pa.array(plain, TEXT))
    return words.take(coded.indices)


def _segments(counts: pa.Array) -> pa.Array:
    is_usable = pc.and_(pc.greater_equal(counts, 0), pc.less(counts, 2**31))
    return pc.if_else(is_usable, counts, pa.scalar(None, pa.int64())).cast(pa.int32())


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks()


def canonical_array(words: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return ``canonical`` of every word (string, nulls allowed); one lookup a distinct word."""
    if isinstance(words, pa.ChunkedArray):
        words = words.combine_chunks()
    encoded = pc.dictionary_encode(words, null_encoding="encode")
    mapped = pa.array([api.canonical(word) for word in encoded.dictionary.to_pylist()], TEXT)
    return mapped.take(encoded.indices)


def cut_array(texts: pa.Array) -> pa.Array:
    """Return ``careful.cut`` of every text (string, nulls allowed)."""
    most_bytes = pc.max(pc.binary_length(texts)).as_py() or 0
    if most_bytes <= MOST_CHARACTERS:
        return texts
    return pa.array([cut(text) for text in texts.to_pylist()], TEXT)


def received_at(texts: pa.Array, counts: pa.Array, zone: str) -> pa.Array:
    """Return the time (UTC) of every text (string), or else of the count beside it (int64).

    A text is ``YYYY-MM-DD HH:MM:SS`` in ``zone``; ISO 8601 forms with an offset, fractions or
    ``T`` and counts since 1970 are understood too. Of a local hour that the clock shows twice, the
    first is meant; one that it skips is taken as the moment of the skip. Not after 1970, or not
    before 9999: null.
    """
    is_usual = pc.fill_null(pc.match_substring_regex(texts, _USUAL), False)
    if pc.all(is_usual).as_py():
        local, known = _cast(texts), None
    else:
        rest = pc.if_else(is_usual, None, texts)
        local, known = _read_rest(rest)
        local = pc.coalesce(_cast(pc.if_else(is_usual, texts, None)), local)
    moments = pc.assume_timezone(local, zone, ambiguous="earliest", nonexistent="latest")
    moments = moments.cast(TIME)
    counted = _scaled(counts)
    every = pc.coalesce(moments, counted) if known is None else pc.coalesce(moments, known, counted)
    first, last = (pa.scalar(moment, TIME) for moment in (0, _YEAR_9999))
    is_usable = pc.and_(pc.greater(every, first), pc.less(every, last))
    return pc.if_else(is_usable, every, pa.scalar(None, TIME))


def _cast(texts: pa.Array) -> pa.Array:
    """Cast texts that look right; a day its month doesn't have (02-30) takes the slow way."""
    try:
        return texts.cast(_LOCAL)
    except pa.ArrowInvalid:
        return _read_rest(texts)[0]


def _read_rest(texts: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Read texts one by one, each distinct one once: local times and known moments."""
    encoded = pc.dictionary_encode(texts)
    read = [_read(text) for text in encoded.dictionary.to_pylist()]
    local = pa.array([moment if moment and not moment.tzinfo else None for moment in read], _LOCAL)
    known = pa.array([moment if moment and moment.tzinfo else None for moment in read], TIME)
    return local.take(encoded.indices), known.take(encoded.indices)


def _read(text: str) -> datetime | None:
    """Return a local time without zone, a moment in UTC, or None."""
    text = text.strip()
    count = _COUNT.fullmatch(text)
    try:
        if _COMPACT.fullmatch(text):
            return datetime.strptime(text, "%Y%m%d%H%M%S")
        if count:
            return _scaled(pa.array([int(count[1])], pa.int64()))[0].as_py()  # type: ignore[no-any-return]
        moment = datetime.fromisoformat(_SLASHES.sub(_with_dashes, text))
        return moment.astimezone(UTC) if moment.tzinfo else moment
    except (ValueError, OverflowError, pa.ArrowInvalid):
        return None


def _with_dashes(found: re.Match[str]) -> str:
    return f"{found[1]}-{found[2]:0>2}-{found[3]:0>2}"


def _scaled(counts: pa.Array) -> pa.Array:
    """Return the moment of counts of seconds, milli-, micro- or nanoseconds since 1970, by size."""
    if counts.null_count == len(counts):
        return pa.nulls(len(counts), TIME)
    by_size = pc.make_struct(*(pc.less(counts, _MOST_SECONDS * 10**n) for n in (0, 3, 6)))
    micros = pc.case_when(
        by_size,
        pc.multiply(counts, 1_000_000),
        pc.multiply(counts, 1_000),
        counts,
        pc.divide(counts, 1_000),
    )
    return micros.cast(TIME)
