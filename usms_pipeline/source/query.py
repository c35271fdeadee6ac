"""The SQL that reads a source: names quoted, bounds as literals, the bare column compared.

Pure: text in, text out. Every literal of a time comes from ``literal``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.contract import moments
from usms_pipeline.contract.errors import SourceError
from usms_pipeline.source.kinds import Column, Dialect, TimeType

_ZONE_CHANGE: Final = timedelta(hours=3)
"""Margin: more than any change to or from summer time. The exact bounds are applied later."""
_WEST, _EAST = timedelta(hours=12), timedelta(hours=14)
"""The widest offsets from UTC that a text may name."""
_DAYS: Final = (*(f"{day:02}" for day in range(1, 10)), *map(str, range(1, 32)))
_MOST_TEXT_DAYS: Final = timedelta(days=62)
"""Beyond this, ranges by month are no better than by year."""
_ORDERED: Final = rf"^\d{{4}}[-/.年] ?\d|^\d{{8,19}}(\.\d*)?$|{moments.NO_TIME}"
TYPED: Final = (TimeType.AWARE, TimeType.NAIVE, TimeType.DATE)
"""Times that the column's type says how to read."""


def quoted(name: str, mark: str = '"') -> str:
    """Quote any name."""
    if "\0" in name:
        raise SourceError("A name in the USMS_… settings holds a NUL character.")
    return f"{mark}{name.replace(mark, mark * 2)}{mark}"


def text(value: str) -> str:
    """Write a text as a literal of standard SQL; a backslash is one."""
    return "'" + value.replace("'", "''") + "'"


def table_name(dialect: Dialect, parts: Sequence[str]) -> str:
    """Return a table's name, quoted."""
    return ".".join(dialect.quote(part) for part in parts)


def table_candidates(name: str) -> list[tuple[str, ...]]:
    """Return the ways to understand ``USMS_SOURCE_TABLE``: split at dots first, then whole.

    A dot may separate a schema, or be part of a name; quotes may say which.
    """
    if quoted := _quoted_parts(name):
        return [quoted, (name,)]
    dots = name.split(".")
    splits = [tuple(dots)] if len(dots) <= 3 else []
    splits += [(".".join(dots[:i]), ".".join(dots[i:])) for i in range(1, len(dots))]
    return list(dict.fromkeys([*splits, (name,)]))


def select(
    dialect: Dialect, table: str, sent_at: Column, others: Sequence[Column] = (), where: str = ""
) -> str:
    """Return the query of ``sent_at`` as c0, as it is if it is a time, and the others as text."""
    name = dialect.quote(sent_at.name)
    first = name if sent_at.time in TYPED else dialect.as_text(name, sent_at)
    texts = [dialect.as_text(dialect.quote(column.name), column) for column in others]
    listed = ", ".join(f"{text} AS c{position}" for position, text in enumerate([first, *texts]))
    return f"SELECT {listed} FROM {table}{' WHERE ' if where else ''}{where}"


def window(dialect: Dialect, column: Column, start: datetime, end: datetime, zone: str) -> str:
    """Return the condition on the bare column that holds for every row in [start, end).

    It may hold for a few more rows: where the column has no time zone, or holds text. Of texts it
    knows those alone of which ``is_ordered`` holds.
    """
    start, end = max(start, moments.EARLIEST), min(end, moments.LATEST)
    name = dialect.quote(column.name)
    pairs = _bounds(column, start, end, zone) if start < end else []
    ranges = [f"({name} >= {first} AND {name} < {last})" for first, last in pairs]
    return f"({' OR '.join(ranges)})" if ranges else "1 = 0"


def is_ordered(texts: pa.Array) -> bool:
    """Return whether times in some texts have the order of the texts: a year or digits first."""
    known = texts.drop_null()
    return not pc.any(pc.invert(pc.match_substring_regex(known, _ORDERED))).as_py()


def literal(time: TimeType, moment: datetime) -> str:
    """Write a time as a text, which SQL takes for a time beside a column of times."""
    if time is TimeType.DATE:
        return f"'{moment:%Y-%m-%d}'"
    return f"'{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond:06d}'"


def sample(dialect: Dialect, table: str, column: Column) -> str:
    """Return the query of the least, the greatest and the first values of a column, as text.

    And of one that begins with a day or a month, which may lie between the least and the greatest.
    """
    name = dialect.quote(column.name)
    some = [f"SELECT {end}({name}) AS v FROM {table}" for end in ("min", "max")]
    some.append(f"SELECT {name} AS v FROM {table} WHERE {name} IS NOT NULL LIMIT 100")
    if column.time is not TimeType.NUMBER:
        days = " OR ".join(f"({name} >= '{d}' AND {name} < '{d}0')" for d in _DAYS)
        some.append(f"SELECT {name} AS v FROM {table} WHERE {days} LIMIT 1")
    shown = dialect.as_text("v", column)
    return " UNION ALL ".join(
        f"SELECT {shown} AS c0 FROM ({one}) AS some_{i}" for i, one in enumerate(some)
    )


def odd_texts(dialect: Dialect, table: str, column: Column) -> str:
    """Return the query of the texts that may begin with a day or a month, and of others."""
    name = dialect.quote(column.name)
    return select(dialect, table, column, where=f"{name} NOT LIKE '____-%'")


def count(
    dialect: Dialect, table: str, column: Column, marks: Sequence[datetime], zone: str
) -> str:
    """Return the query of all rows, rows with a usable time, how many of those lie at each of
    ``marks`` (UTC) or later, and the first and last of them. The column has a type of time.
    """
    name = dialect.quote(column.name)
    usable = window(dialect, column, moments.EARLIEST, moments.LATEST, "UTC")
    usable += dialect.is_day.format(name)
    later = (f"{usable} AND {name} >= {_from(column, mark, zone)}" for mark in marks)
    counts = _counts(dialect, "1 = 1", usable, *later)
    ends = (f"{end}(CASE WHEN {usable} THEN {name} END) AS {end}_at" for end in ("min", "max"))
    return f"SELECT {', '.join((*counts, *ends))} FROM {table}"


def _from(column: Column, moment: datetime, zone: str) -> str:
    assert column.time is not None
    if column.time is not TimeType.AWARE:
        moment = moment.astimezone(ZoneInfo(zone))
    if column.time is TimeType.DATE and moment.time() != time():
        moment += timedelta(days=1)  # its days begin at midnight
    return literal(column.time, moment)


def lost_digits(dialect: Dialect, table: str, column: Column) -> str:
    """Return the query that counts values which went through a float, long ones, and those with 00.

    A float is exact to 2^53 or less; a text such as 1.23457E+17, or 1.23457E17, went through one.
    So did whole numbers of more than sixteen digits that end in zeros, if most of them do.
    """
    name = dialect.quote(column.name)
    shown = dialect.as_text(name, column)
    is_lossy = "1 = 0"
    if column.exact_below:
        is_lossy = f"abs({name}) >= {column.exact_below}"
    elif column.time in (TimeType.TEXT, TimeType.DYNAMIC, TimeType.UNTYPED):
        is_lossy = " OR ".join(f"{name} LIKE '{form}'" for form in ("_%E+_%", "_%e+_%", "_._%E__"))
    is_long = f"{shown} LIKE '{'_' * 17}%'"
    counts = _counts(dialect, is_lossy, is_long, f"{is_long} AND {shown} LIKE '%00'")
    return f"SELECT {', '.join(counts)} FROM {table}"


def _counts(dialect: Dialect, *conditions: str) -> list[str]:
    """Return what selects how many rows meet each condition, as text: c0, c1 and so on."""
    number = Column("", "", None)
    counts = (f"count(CASE WHEN {one} THEN 1 END)" for one in conditions)
    return [f"{dialect.as_text(one, number)} AS c{n}" for n, one in enumerate(counts)]


def _bounds(column: Column, start: datetime, end: datetime, zone: str) -> list[tuple[str, str]]:
    if column.time is TimeType.AWARE:
        return [(literal(column.time, start), literal(column.time, end))]
    if column.time in (TimeType.NAIVE, TimeType.DATE):
        first = (start - _ZONE_CHANGE).astimezone(ZoneInfo(zone))
        last = (end + _ZONE_CHANGE).astimezone(ZoneInfo(zone))
        if column.time is TimeType.DATE:
            last += timedelta(days=1)
        return [(literal(column.time, first), literal(column.time, last))]
    numbers, texts = _number_bounds(start, end), []
    if column.time in (TimeType.TEXT, TimeType.DYNAMIC, TimeType.UNTYPED):
        texts = _text_bounds(start, end)
    texts += numbers if column.time in (TimeType.TEXT, TimeType.UNTYPED) else []
    numbers = [] if column.time is TimeType.TEXT else numbers
    return [
        *((str(int(first)), str(int(last))) for first, last in numbers),
        *((text(first), text(last)) for first, last in texts),
    ]


def _number_bounds(start: datetime, end: datetime) -> list[tuple[str, str]]:
    found = []
    for unit in moments.EPOCH_UNITS:
        lowest, highest = (second * unit for second in moments.EPOCH_SECONDS)
        first, last = int(start.timestamp()) * unit, (int(end.timestamp()) + 1) * unit
        found.append((max(first, lowest), min(last, highest)))
    bounds = [(str(first), str(last)) for first, last in found if first < last]
    first_day, last_day = _days_around(start, end)
    for form, width in moments.CALENDARS.items():
        if form.startswith("%y") and first_day.year // 100 < last_day.year // 100:
            bounds.append(("0" * width, "9" * width))
        else:
            bounds.append((first_day.strftime(form), last_day.strftime(form)))
    return bounds


def _text_bounds(start: datetime, end: datetime) -> list[tuple[str, str]]:
    """Bound texts that begin with a year, in the order of their characters."""
    first_day, last_day = _days_around(start, end)
    years = range(first_day.year, last_day.year + 1)
    if last_day - first_day > _MOST_TEXT_DAYS:
        return [(f"{years[0]}-", f"{years[-1] + 1}-")]
    bounds = [(f"{first_day:%Y-%m-%d}", f"{last_day:%Y-%m-%d}")]
    # All of the year: after "-" come "." and "/", then digits, then 年. Not "2026." to "2027":
    # these are numbers to a column of SQLite's that prefers numbers.
    bounds += [(f"{year}./", f"{year + 1}-") for year in years]
    days = [first_day + timedelta(days=n) for n in range((last_day - first_day).days + 1)]
    for year, month in dict.fromkeys((day.year, day.month) for day in days):
        if month < 10:
            bounds.append((f"{year}-{month}-", f"{year}-{month}."))
        short = [day.day for day in days if (day.year, day.month) == (year, month) and day.day < 10]
        if short:
            after = f"-{short[-1] + 1}" if short[-1] < 9 else "."
            bounds.append((f"{year}-{month:02}-{short[0]}", f"{year}-{month:02}{after}"))
    return bounds


def _days_around(start: datetime, end: datetime) -> tuple[datetime, datetime]:
    first, last = start - _WEST, end + _EAST + timedelta(days=1)
    return first.replace(hour=0, minute=0, second=0), last.replace(hour=0, minute=0, second=0)


def _quoted_parts(name: str) -> tuple[str, ...]:
    """Split ``"a"."b"`` or backticks; return nothing where the name is not written so."""
    for mark in ('"', "`"):
        if len(name) > 2 and name[0] == mark and name[-1] == mark:
            inner = name[1:-1].replace(mark * 2, "\0")
            parts = inner.split(f"{mark}.{mark}")
            if not any(mark in part for part in parts):
                return tuple(part.replace("\0", mark) for part in parts)
    return ()
