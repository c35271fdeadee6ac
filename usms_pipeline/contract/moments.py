"""Times in all forms that tables and services write, to UTC: the one place that reads them. Pure.

Timestamps and dates as they are; texts as people, databases and programs write them; digits that
are a calendar (20260131093000) or a count since 1970. What can't be a time is null.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.contract.schema import TEXT, TIME
from usms_pipeline.contract.setting_types import DateOrder

EARLIEST: Final = datetime(1970, 1, 1, microsecond=1, tzinfo=UTC)
LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
"""A time outside [EARLIEST, LATEST) means "none" in some tables, as 1970 itself does."""

UNDERSTOOD: Final = (
    "2026-01-31 09:30:00, 2026/1/31 9:30, 31.1.2026 9:30, 2026年1月31日 9:30, 2026/1/31 下午9:30, "
    "1/31/2026 9:30 PM, 31-Jan-2026 9:30, Jan 31, 2026 9:30, each with +08:00 or Z if need be; "
    "20260131093000; seconds, ms, µs or ns since 1970"
)

_NAIVE = pa.timestamp("us")
_UTC_NAMES = ("UTC", "Etc/UTC", "Etc/GMT", "GMT", "Z", "Zulu", "Etc/UCT", "UCT", "Universal")

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


EPOCH_UNITS: Final = (1, 1_000, 1_000_000, 1_000_000_000)
"""Ticks per second of the counts since 1970 that are understood."""
EPOCH_SECONDS: Final = (10**9, 73 * 10**8)
"""A count lies in here, in its unit: each unit then has its own number of digits. From 2001."""
CALENDARS: Final = {
    "%Y%m%d": 8, "%y%m%d%H%M": 10, "%y%m%d%H%M%S": 12, "%Y%m%d%H%M": 12, "%Y%m%d%H%M%S": 14,
    "%Y%m%d%H%M%S000": 17,
}  # fmt: skip
"""Forms of digits that are a date and time -> how many digits."""

_USUAL: Final = (
    r"^[12]\d{3}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])[ T]([01]\d|2[0-3]):[0-5]\d:[0-5]\d$"
)
NO_TIME: Final = (
    r"(?i)^\s*(\\N|null|nan|nat|none|n/?a|<na>|-1|[-0/:. TZ]*|1970[-/.]0?1[-/.]0?1\b.*"
    r"|(0\d{3}|1[0-8]\d\d|19[0-6]\d|2[2-46-9]\d\d|[3-9]\d{3})[-/.].*)\s*$"
)
"""Texts that mean no time: words, zeros, and years in which nobody sends messages.

Not 25…: these are years of the Buddhist calendar, which can't be read, but are meant."""
_NUMBER: Final = r"^\d{1,19}(\.\d*)?([eE]\+?\d{1,2})?$"
_DAY_MONTH: Final = r"(?P<first>\d{1,2})[-/.](?P<second>\d{1,2})[-/.](?P<last>\d{4}|\d\d)"
_WORDS: Final = (
    r"^(?:(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})|" + _DAY_MONTH + ")"
    r"(?:[Tt]|\b,? *)"
    r"(?:(?P<hour>\d{1,2}):(?P<minute>\d{1,2})(?::(?P<rest>\d{1,2})(?:[.,](?P<part>\d{1,6})\d*)?)?"
    r"(?: ?(?P<half>[AaPp])\.?[Mm]\.?)?"
    r"(?: ?(?P<zone>[Zz]|UTC|GMT|"
    r"(?:UTC|GMT)?(?P<sign>[+-])(?P<zone_hour>\d{1,2}):?(?P<zone_minute>\d\d)?)"
    # the offset decides: a name may be that of several zones (CST), m= is a clock of Go's own
    r"(?: \(?[-+\w/ ]{1,40}\)?|\[[-+\w/]+\])?(?: m=[-+][\d.]+)?)?)?$"
)
_SPELLINGS: Final = (
    (r"[\x{a0}\x{202f}\x{3000}]", " "),
    (r"[年月] ?", "-"),
    (r"[日号] ?", " "),
    (r"[时時点點分] ?", ":"),
    (r":?秒|: *$", ""),
    (r"(?:上午|AM) ?(\d+:[\d:]+)", r"\1 AM"),
    (r"(?:下午|PM) ?(\d+:[\d:]+)", r"\1 PM"),
    (r"^(\d{4})(\d\d)(\d\d)[Tt ](\d\d):?(\d\d)", r"\1-\2-\3 \4:\5:"),
    (r" (\d{1,2})\.(\d\d)(?:\.(\d\d))?$", r" \1:\2:\3"),
    (r" (\d{1,2})\.(\d\d)\.(\d\d)([. ].*)$", r" \1:\2:\3\4"),
    (r"::", ":"),
    (r":($|[Zz+-])", r"\1"),
)
"""Spellings to replace, in this order, in a time that can't be read as it is."""
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov",
                  "dec")  # fmt: skip
_MONTH: Final = rf"({'|'.join(_MONTHS)})[a-z]*\.?"
_WEEKDAY: Final = r"(?i)^(?:[a-z]{3,9}\.?,? +)?"
_DAY: Final = r"(\d{1,2})(?:st|nd|rd|th)?"
_NAMED_MONTHS: Final = (
    (rf"{_WEEKDAY}{_DAY}[-/. ]*{_MONTH}[-/., ]*(\d{{4}})(?:[:t ,]+|$)", r"\3-\2-\1 "),
    (rf"{_WEEKDAY}{_DAY}[-/. ]*{_MONTH}[-/., ]*(\d\d)(?:[:t ,]+|$)", r"20\3-\2-\1 "),
    (rf"{_WEEKDAY}{_MONTH} *{_DAY},? +(\d{{4}})(?:,? +(?:at )?|$)", r"\3-\1-\2 "),
    (rf"{_WEEKDAY}{_MONTH} +{_DAY} ([\d:]+) ?(utc|gmt|[-+]\d{{4}})? (\d{{4}})$", r"\5-\1-\2 \3 \4"),
    (rf"(?i)^(\d{{4}})[-/. ]{_MONTH}[-/. ]{_DAY}\b", r"\1-\2-\3"),
)
"""Dates with the name of a month -> the year, that name in three letters, the day."""
_MARKED: Final = r"^(?:=\"(.*)\"|'(.*?)'?)$"
"""Marks that make a spreadsheet keep a text unchanged."""


def to_utc(
    values: pa.Array,
    zone: str,
    *,
    order: DateOrder | None = None,
    latest: datetime | pa.Array | None = None,
) -> pa.Array:
    """Return times as ``timestamp[us, UTC]``; null where there is none or it can't be used.

    ``zone`` is that of times which name none: the earlier of two at the end of summer time,
    the moment of the change where the hour is skipped. Without ``order`` a date such as 03/04/2026
    is null; 03/25/2026 is not. No time can be after ``latest``: digits that would
    be a later count since 1970 are read as a calendar date, or not at all.
    """
    if pa.types.is_timestamp(values.type) and values.type.tz is not None:
        times = values.cast(TIME, safe=False)
    elif pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        times = localize(values.cast(_NAIVE, safe=False), zone)
    elif pa.types.is_integer(values.type):
        whole = pc.fill_null(values.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
        times = _from_numbers(whole.astype(np.float64), whole, zone, latest)
    else:
        times = _from_text(values.cast(TEXT), zone, order, latest)
    return _if(pc.and_(pc.greater_equal(times, EARLIEST), pc.less(times, LATEST)), times)


def localize(naive: pa.Array, zone: str) -> pa.Array:
    """Return naive local times in UTC; never fails at the change to or from summer time."""
    if zone in _UTC_NAMES:
        return naive.cast(TIME)
    aware = pc.assume_timezone(naive, zone, ambiguous="earliest", nonexistent="latest")
    return aware.cast(TIME)


def unmarked(text: pa.Array) -> pa.Array:
    """Return texts without a spreadsheet's marks for text: ``="0012"``, ``'0012``."""
    is_marked = pc.or_(pc.starts_with(text, "="), pc.starts_with(text, "'"))
    if not pc.any(is_marked).as_py():
        return text
    return pc.replace_substring_regex(text, _MARKED, r"\1\2")


def orders(text: pa.Array, latest_year: int = 2099) -> set[DateOrder | None]:
    """Return which orders of day and month some texts show; None where a text leaves it open.

    What a year of two digits ends may begin with the year instead, unless that were after
    ``latest_year``; but then the day is not between.
    """
    text = text.filter(pc.match_substring_regex(text, r"^[\s='\"]*\d{1,2}[-/.]\d"))
    text = unmarked(pc.utf8_trim_whitespace(text))
    parts = pc.extract_regex(text, rf"^{_DAY_MONTH}(?:\D.*)?$").drop_null()
    first, second, last = (_integers(parts, name) for name in ("first", "second", "last"))
    is_short = last < 100
    is_day_first = (first > 12) & (second <= 12) & (~is_short | (first > latest_year % 100))
    is_month_first = (second > 12) & (first <= 12)
    is_same = (first == second) & ~is_short
    shown: dict[DateOrder | None, Flags] = {
        DateOrder.DAY_FIRST: is_day_first,
        DateOrder.MONTH_FIRST: is_month_first,
        None: ~is_day_first & ~is_month_first & ~is_same & (last > 0) & (second <= 12),
    }
    return {one for one, rows in shown.items() if rows.any()}


def _from_text(
    text: pa.Array, zone: str, order: DateOrder | None, latest: datetime | pa.Array | None
) -> pa.Array:
    is_usual = pc.fill_null(pc.match_substring_regex(text, _USUAL), False)
    try:  # the usual form costs a sixth of the others
        if pc.all(is_usual).as_py():
            return localize(text.cast(_NAIVE), zone)
        times = localize(_if(is_usual, text).cast(_NAIVE), zone)
        text = _if(pc.invert(is_usual), text)
    except pa.ArrowInvalid:  # a day that its month doesn't have
        times = pa.nulls(len(text), TIME)
    if text.null_count == len(text):
        return times
    coded = text.dictionary_encode()
    words = unmarked(pc.utf8_trim_whitespace(coded.dictionary))
    is_number = pc.match_substring_regex(words, _NUMBER)
    if pc.any(is_number).as_py():
        digits = _if(is_number, words).take(coded.indices)
        times = pc.coalesce(times, _from_numbers(*_of_text(digits), zone, latest))
        words = _if(pc.invert(is_number), words)
    read = _from_words(words, zone, order)
    if (left := _if(pc.is_null(read), words)).null_count < len(left):
        left = _month_numbers(left)
        for pattern, spelled in _SPELLINGS:
            left = pc.replace_substring_regex(left, pattern, spelled)
        read = pc.coalesce(read, _from_words(left, zone, order))
    return pc.coalesce(times, read.take(coded.indices))


def _month_numbers(text: pa.Array) -> pa.Array:
    if not pc.any(pc.match_substring_regex(text, rf"(?i)\b{_MONTH}|\d{_MONTH}")).as_py():
        return text
    for pattern, dated in _NAMED_MONTHS:
        text = pc.replace_substring_regex(text, pattern, dated)
    text = pc.utf8_upper(text)
    for number, name in enumerate(_MONTHS, 1):
        text = pc.replace_substring(text, f"-{name.upper()}-", f"-{number}-")
    return pc.utf8_trim_whitespace(text)


def _from_words(text: pa.Array, zone: str, order: DateOrder | None) -> pa.Array:
    """Read a date and, if need be, a time of day and an offset; null where it is none."""
    parts = pc.extract_regex(text, _WORDS)
    number = {
        name: _integers(parts, name)
        for name in ("year", "month", "day", "first", "second", "last", "hour", "minute", "rest",
                     "zone_hour", "zone_minute")
    }  # fmt: skip
    day, is_day = _days(*_date(number, order))
    marks, hour = pc.utf8_lower(pc.struct_field(parts, "half")), number["hour"]
    is_morning, is_evening = (_flags(pc.equal(marks, mark)) for mark in ("a", "p"))
    is_hour = (hour < 24) & ~(is_morning & (hour > 12))
    hour = np.where(is_morning & (hour == 12), 0, hour + 12 * (is_evening & (hour < 12)))
    fraction = _filled(pc.utf8_rpad(pc.struct_field(parts, "part"), 6, "0"))
    micros = _clock(day, hour, number["minute"], number["rest"]) + fraction
    is_time = (
        _flags(pc.is_valid(parts)) & is_day & is_hour
        & (number["minute"] < 60) & (number["rest"] <= 60)
        & (number["zone_hour"] <= 15) & (number["zone_minute"] < 60)
    )  # fmt: skip
    offset = number["zone_hour"] * 60 + number["zone_minute"]
    is_west = _flags(pc.equal(pc.struct_field(parts, "sign"), "-"))
    utc = micros - np.where(is_west, -offset, offset) * 60_000_000
    has_zone = _flags(pc.not_equal(pc.struct_field(parts, "zone"), ""))
    local = localize(_times(micros, is_time & ~has_zone, _NAIVE), zone)
    return pc.coalesce(local, _times(utc, is_time & has_zone, TIME))


def _date(
    number: dict[str, Integers], order: DateOrder | None
) -> tuple[Integers, Integers, Integers]:
    """Return year, month and day; the year is 0 where their order can't be told."""
    first, second, last = number["first"], number["second"], number["last"]
    is_short = last < 100
    if order is None:
        is_day_first = first > 12
        is_open = is_short | ((first <= 12) & (second <= 12) & (first != second))
    else:
        is_day_first, is_open = np.full(len(first), order is DateOrder.DAY_FIRST), np.False_
    year = np.where(is_short, last + np.where(last < 70, 2000, 1900), last)
    is_named = number["year"] > 0
    return (
        np.where(is_named, number["year"], np.where(is_open, 0, year)),
        np.where(is_named, number["month"], np.where(is_day_first, second, first)),
        np.where(is_named, number["day"], np.where(is_day_first, first, second)),
    )


def _from_numbers(
    numbers: Floats, whole: Integers, zone: str, latest: datetime | pa.Array | None
) -> pa.Array:
    """Read counts since 1970 and calendars of digits; ``whole`` is -1 where it isn't exact."""
    counted = pa.nulls(len(numbers), TIME)
    for unit in EPOCH_UNITS:
        fits = (numbers >= EPOCH_SECONDS[0] * unit) & (numbers < EPOCH_SECONDS[1] * unit)
        if fits.any():  # whole ones exactly, others (``whole`` is -1) rounded
            exact = whole // (unit // 10**6) if unit > 10**6 else whole * (10**6 // unit)
            rounded = np.rint(np.where(fits, numbers, 0) * (1_000_000 / unit)).astype(np.int64)
            found = _times(np.where(whole >= 0, exact, rounded), fits, TIME)
            counted = pc.coalesce(counted, _not_after(found, latest))
    widths = np.searchsorted(10 ** np.arange(19, dtype=np.int64), whole, side="right")
    dated = pa.nulls(len(numbers), TIME)
    for form, width in CALENDARS.items():
        if (fits := widths == width).any():
            found = _not_after(_from_calendar(whole, fits, form, zone), latest)
            # of two calendars the later is meant, because none is past ``latest``
            later = pc.if_else(pc.greater(found, dated), found, dated)
            dated = pc.coalesce(later, dated, found)
    return pc.coalesce(counted, dated)


def _from_calendar(whole: Integers, fits: Flags, form: str, zone: str) -> pa.Array:
    digits, millis = np.where(fits, whole, 0), np.zeros_like(whole)
    if CALENDARS[form] > 14:
        digits, millis = divmod(digits, 1000)
    has_century = form.startswith("%Y")
    digits = digits * 10 ** max(0, (14 if has_century else 12) - CALENDARS[form])
    day, clock = divmod(digits, 10**6)
    year = day // 10_000
    if not has_century:
        year = year + np.where(year < 70, 2000, 1900)
    days, is_day = _days(year, day // 100 % 100, day % 100)
    hour, minute, second = clock // 10_000, clock // 100 % 100, clock % 100
    is_time = fits & is_day & (hour < 24) & (minute < 60) & (second <= 60)
    micros = _clock(days, hour, minute, second) + millis * 1000
    return localize(_times(micros, is_time, _NAIVE), zone)


def _not_after(times: pa.Array, latest: datetime | pa.Array | None) -> pa.Array:
    return times if latest is None else _if(pc.less_equal(times, latest), times)


def _days(year: Integers, month: Integers, day: Integers) -> tuple[Integers, Flags]:
    months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + (day - 1).astype("timedelta64[D]")
    is_day = (month >= 1) & (month <= 12) & (day >= 1) & (days.astype("datetime64[M]") == months)
    return days.astype(np.int64), is_day & (year >= 1900) & (year < 2300)


def _clock(days: Integers, hour: Integers, minute: Integers, second: Integers) -> Integers:
    micros: Integers = (((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000
    return micros


def _times(micros: Integers, is_time: Flags, kind: pa.DataType) -> pa.Array:
    return pa.array(micros, pa.int64(), mask=~is_time).cast(kind)


def _if(condition: pa.Array, values: pa.Array) -> pa.Array:
    return pc.if_else(condition, values, pa.scalar(None, values.type))


def _integers(parts: pa.Array, name: str) -> Integers:
    return _filled(pc.struct_field(parts, name))


def _filled(digits: pa.Array) -> Integers:
    some = pc.if_else(pc.equal(digits, ""), "0", digits)
    filled: Integers = pc.fill_null(some.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    return filled


def _of_text(text: pa.Array) -> tuple[Floats, Integers]:
    """Return numbers of any form, NaN for none; and the whole ones exactly, -1 for the others.

    ``20240801.0`` is whole. So are nineteen digits where they fit, and the seconds of a calendar.
    """
    numbers: Floats = pc.fill_null(text.cast(pa.float64()), np.nan).to_numpy(zero_copy_only=False)
    digits = pc.replace_substring_regex(text, r"\.0*$|^([12]\d{13})\.\d+$", r"\1")
    is_whole = pc.match_substring_regex(digits, r"^(\d{1,18}|[1-8]\d{18})$")
    chosen = _if(is_whole, digits)
    whole: Integers = pc.fill_null(chosen.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
    return numbers, whole


def _flags(values: pa.Array) -> Flags:
    flags: Flags = pc.fill_null(values, False).to_numpy(zero_copy_only=False)
    return flags
