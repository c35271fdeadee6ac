"""Times of sending in all their forms, to UTC: timestamps, dates, ISO text, numbers. Pure.

Knows no SQL; ``query`` knows the ranges that each form has in a database.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.contract.schema import TIME

EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
"""A time outside [EARLIEST, LATEST) stands for "none" in somebody's table: not usable."""

_NAIVE = pa.timestamp("us")
_UTC_NAMES = ("UTC", "Etc/UTC", "Etc/GMT", "GMT", "Z", "Zulu", "Etc/UCT", "UCT", "Universal")

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class Shape(StrEnum):
    """How a time is written where the type does not say it."""

    DASHES = "iso"  # 2024-08-01[T ]10:00:00[.f][zone]
    SLASHES = "slashes"  # 2024/08/01 10:00:00
    COMPACT_DAY = "yyyymmdd"
    COMPACT = "yyyymmddhhmmss"
    EPOCH_S = "epoch_s"
    EPOCH_MS = "epoch_ms"
    EPOCH_US = "epoch_us"
    EPOCH_NS = "epoch_ns"


EPOCH_UNITS: Final = {
    Shape.EPOCH_S: 1,
    Shape.EPOCH_MS: 1_000,
    Shape.EPOCH_US: 1_000_000,
    Shape.EPOCH_NS: 1_000_000_000,
}
"""Ticks in a second. Each unit has its own number of digits from September 2001 to 2286."""

NUMBER_RANGES: Final = {
    Shape.COMPACT_DAY: (19700101, 22000101),
    Shape.COMPACT: (19700101000000, 22000101000000),
    **{shape: (10**9 * unit, 73 * 10**8 * unit) for shape, unit in EPOCH_UNITS.items()},
}
"""The values, lower bound included, upper not, by which a number's shape is known."""

_NUMBER = r"^\d{1,19}(\.\d*)?([eE]\+?\d{1,2})?$"
_ISO = (
    r"^(?P<year>\d{4})[-/](?P<month>\d\d)[-/](?P<day>\d\d)"
    r"(?:[Tt ](?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<part>\d{1,6})\d*)?)?)?"
    r" ?(?P<zone>[Zz]|UTC|GMT|(?P<sign>[+-])(?P<zone_hour>\d\d)(?::?(?P<zone_minute>\d\d))?)?$"
)
_STARTS = {Shape.DASHES: r"^\d{4}-\d\d-\d\d", Shape.SLASHES: r"^\d{4}/\d\d/\d\d"}


def to_utc(values: pa.Array, zone: str, shapes: Collection[Shape] = (Shape.DASHES,)) -> pa.Array:
    """Return times as ``timestamp[us, UTC]``; null where there is none or it can't be used.

    ``zone`` is that of times which name none: the earlier of two at the end of summer time,
    the moment of the change where the hour is skipped. Text is read in the given ``shapes``.
    """
    if isinstance(values, pa.DictionaryArray):
        values = values.dictionary_decode()
    if pa.types.is_timestamp(values.type):
        times = _from_timestamps(values, zone)
    elif pa.types.is_date(values.type):
        times = localize(values.cast(_NAIVE), zone)
    else:
        times = _from_text(values.cast(pa.string()), zone, shapes)
    return _usable(times)


def localize(naive: pa.Array, zone: str) -> pa.Array:
    """Return naive local times in UTC; never fails at the change to or from summer time."""
    if zone in _UTC_NAMES:
        return naive.cast(TIME)
    aware = pc.assume_timezone(naive, zone, ambiguous="earliest", nonexistent="latest")
    return aware.cast(TIME)


def shapes_of(values: pa.Array) -> set[Shape]:
    """Tell the shapes that occur among texts; unreadable ones have none."""
    text = pc.utf8_rtrim_whitespace(values.cast(pa.string()))
    found = {
        shape for shape, start in _STARTS.items()
        if pc.any(pc.match_substring_regex(text, start)).as_py()
    }  # fmt: skip
    numbers = _numbers(text)
    for shape, (first, last) in NUMBER_RANGES.items():
        if ((numbers >= first) & (numbers < last)).any():
            found.add(shape)
    return found


def _from_timestamps(values: pa.Array, zone: str) -> pa.Array:
    if values.type.tz is not None:
        return values.cast(TIME, safe=False)
    return localize(values.cast(_NAIVE, safe=False), zone)


def _usable(times: pa.Array) -> pa.Array:
    early = pa.scalar(EARLIEST, TIME)
    late = pa.scalar(LATEST, TIME)
    fits = pc.and_(pc.greater_equal(times, early), pc.less(times, late))
    return pc.if_else(fits, times, pa.scalar(None, TIME))


def _from_text(text: pa.Array, zone: str, shapes: Collection[Shape]) -> pa.Array:
    text = pc.utf8_rtrim_whitespace(text)
    times = pa.nulls(len(text), TIME)
    for shape, start in _STARTS.items():
        if shape in shapes:
            chosen = pc.if_else(pc.match_substring_regex(text, start), text, None)
            times = pc.coalesce(times, _from_iso(chosen, zone))
    if any(shape in NUMBER_RANGES for shape in shapes):
        times = pc.coalesce(times, _from_numbers(text, zone, shapes))
    return times


def _from_iso(text: pa.Array, zone: str) -> pa.Array:
    """Read ISO text, with ``/`` for ``-`` if need be; null where it is not a time."""
    parts = pc.extract_regex(text, _ISO)
    day, is_day = _days(*(_integers(parts, name) for name in ("year", "month", "day")))
    hour, minute, second = (_integers(parts, name) for name in ("hour", "minute", "second"))
    fraction = pc.utf8_rpad(pc.struct_field(parts, "part"), 6, "0")
    micros = _clock(day, hour, minute, second) + _filled(fraction)
    is_time = is_day & (hour < 24) & (minute < 60) & (second <= 60) & _flags(pc.is_valid(parts))
    offset = _integers(parts, "zone_hour") * 60 + _integers(parts, "zone_minute")
    is_west = _flags(pc.equal(pc.struct_field(parts, "sign"), "-"))
    utc = micros - np.where(is_west, -offset, offset) * 60_000_000
    has_zone = _flags(pc.not_equal(pc.struct_field(parts, "zone"), ""))
    local = localize(_times(micros, is_time & ~has_zone, _NAIVE), zone)
    return pc.coalesce(local, _times(utc, is_time & has_zone, TIME))


def _from_numbers(text: pa.Array, zone: str, shapes: Collection[Shape]) -> pa.Array:
    numbers = _numbers(text)
    whole = _whole(text)
    times = pa.nulls(len(text), TIME)
    for shape in shapes:
        if shape not in NUMBER_RANGES:
            continue
        first, last = NUMBER_RANGES[shape]
        fits = (numbers >= first) & (numbers < last)
        if not fits.any():
            continue
        if shape in EPOCH_UNITS:
            found = _times(_epoch_micros(numbers, whole, fits, EPOCH_UNITS[shape]), fits, TIME)
        else:
            found = _from_compact(numbers, fits, shape, zone)
        times = pc.coalesce(times, found)
    return times


def _epoch_micros(numbers: Floats, whole: Integers, fits: Flags, unit: int) -> Integers:
    """Ticks to microseconds: exactly for whole ones, rounded for the others (``whole`` -1)."""
    exact = whole // (unit // 1_000_000) if unit > 1_000_000 else whole * (1_000_000 // unit)
    rounded = np.rint(np.where(fits, numbers, 0) * (1_000_000 / unit)).astype(np.int64)
    return np.where(whole >= 0, exact, rounded)


def _from_compact(numbers: Floats, fits: Flags, shape: Shape, zone: str) -> pa.Array:
    digits = np.where(fits, numbers, 19700101).astype(np.int64)
    day, clock = (digits, digits * 0) if shape is Shape.COMPACT_DAY else divmod(digits, 10**6)
    days, is_day = _days(day // 10_000, day // 100 % 100, day % 100)
    hour, minute, second = clock // 10_000, clock // 100 % 100, clock % 100
    is_time = fits & is_day & (hour < 24) & (minute < 60) & (second <= 60)
    return localize(_times(_clock(days, hour, minute, second), is_time, _NAIVE), zone)


def _days(year: Integers, month: Integers, day: Integers) -> tuple[Integers, Flags]:
    """Days since 1970, and whether the calendar has that day."""
    months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + (day - 1).astype("timedelta64[D]")
    is_day = (month >= 1) & (month <= 12) & (day >= 1) & (days.astype("datetime64[M]") == months)
    return days.astype(np.int64), is_day


def _clock(days: Integers, hour: Integers, minute: Integers, second: Integers) -> Integers:
    micros: Integers = (((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000
    return micros


def _times(micros: Integers, is_time: Flags, kind: pa.DataType) -> pa.Array:
    return pa.array(micros, pa.int64(), mask=~is_time).cast(kind)


def _integers(parts: pa.Array, name: str) -> Integers:
    return _filled(pc.struct_field(parts, name))


def _filled(digits: pa.Array) -> Integers:
    """Digits to integers; 0 where there are none."""
    some = pc.if_else(pc.equal(digits, ""), "0", digits)
    filled: Integers = pc.fill_null(some.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    return filled


def _numbers(text: pa.Array) -> Floats:
    """Numbers of any form; NaN where the text is none."""
    chosen = pc.if_else(pc.match_substring_regex(text, _NUMBER), text, None)
    numbers: Floats = pc.fill_null(chosen.cast(pa.float64()), np.nan).to_numpy(zero_copy_only=False)
    return numbers


def _whole(text: pa.Array) -> Integers:
    """Whole numbers of up to 18 digits, and those of 19 that fit; -1 elsewhere."""
    is_whole = pc.match_substring_regex(text, r"^(\d{1,18}|[1-8]\d{18})$")
    chosen = pc.if_else(is_whole, text, None)
    whole: Integers = pc.fill_null(chosen.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
    return whole


def _flags(values: pa.Array) -> Flags:
    flags: Flags = pc.fill_null(values, False).to_numpy(zero_copy_only=False)
    return flags
