"""When the carrier reported: the service's text without a zone, or its count since 1970, to UTC.

What is no time becomes null and costs nothing else. Pure.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.schema import TIME

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


def received_at(texts: pa.Array, counts: pa.Array, zone: str) -> pa.Array:
    """Give the time (UTC) of every text (string), or else of the count beside it (int64).

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
    """Give a local time without zone, a moment in UTC, or None."""
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
    """Give the moment of counts of seconds, milli-, micro- or nanoseconds since 1970, by size."""
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
