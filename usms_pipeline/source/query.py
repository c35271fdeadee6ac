"""The SQL that reads a source: names quoted, bounds as literals, the bare column compared.

Pure: text in, text out. Every literal of a time comes from ``literal``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from usms_pipeline.contract.errors import SourceError
from usms_pipeline.source.kinds import Column, Dialect, TimeType
from usms_pipeline.source.moments import EARLIEST, EPOCH_UNITS, LATEST, NUMBER_RANGES, Shape

_ZONE_CHANGE: Final = timedelta(hours=3)
"""More than any change to or from summer time; the exact bounds are applied afterwards."""
_WEST, _EAST = timedelta(hours=12), timedelta(hours=14)
"""The widest offsets from UTC that a text may name."""
_TYPED = (TimeType.AWARE, TimeType.NAIVE, TimeType.DATE)


def quoter(opening: str = '"', closing: str | None = None) -> Callable[[str], str]:
    """Return a function that quotes a name, whatever it holds."""
    end = closing or opening

    def quote(name: str) -> str:
        if "\0" in name:
            raise SourceError("A name in the USMS_… settings holds a NUL character.")
        return f"{opening}{name.replace(end, end * 2)}{end}"

    return quote


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
    first = name if sent_at.time in _TYPED else dialect.as_text(name, sent_at)
    texts = [dialect.as_text(dialect.quote(column.name), column) for column in others]
    listed = ", ".join(f"{text} AS c{position}" for position, text in enumerate([first, *texts]))
    return f"SELECT {listed} FROM {table}{' WHERE ' if where else ''}{where}"


def window(
    dialect: Dialect,
    column: Column,
    start: datetime,
    end: datetime,
    zone: str,
    shapes: Collection[Shape] = (),
) -> str:
    """Return the condition on the bare column that holds for every row in [start, end).

    It may hold for a few more rows: where the column has no time zone, or holds text.
    """
    start, end = max(start, EARLIEST), min(end, LATEST)
    name = dialect.quote(column.name)
    pairs = _bounds(dialect, column, start, end, zone, shapes)
    ranges = [f"({name} >= {first} AND {name} < {last})" for first, last in pairs]
    return f"({' OR '.join(ranges)})" if ranges else "1 = 0"


def literal(dialect: Dialect, time: TimeType, moment: datetime) -> str:
    """Write a time as SQL: a UTC moment for AWARE columns, a local one for the others."""
    if time is TimeType.DATE:
        day = f"'{moment:%Y-%m-%d}'"
        return f"DATE {day}" if dialect.has_time_literals else day
    text = f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond:06d}"
    if not dialect.has_time_literals:
        return f"'{text}'"
    if time is TimeType.AWARE and dialect.has_time_zones:
        return f"TIMESTAMP WITH TIME ZONE '{text}+00:00'"
    return f"TIMESTAMP '{text}'"


def sample(dialect: Dialect, table: str, column: Column, rows: int = 100) -> str:
    """Return the query of the least, the greatest and the first values of a column, as text."""
    name = dialect.quote(column.name)
    some = [f"SELECT {end}({name}) AS v FROM {table}" for end in ("min", "max")]
    if dialect.has_limit:
        some.append(f"SELECT {name} AS v FROM {table} WHERE {name} IS NOT NULL LIMIT {rows}")
    text = dialect.as_text("v", column)
    return " UNION ALL ".join(
        f"SELECT {text} AS c0 FROM ({one}) AS some_{i}" for i, one in enumerate(some)
    )


def count(dialect: Dialect, table: str, column: Column) -> str:
    """Return the query of all rows, rows with a usable time, and the first and last of those."""
    name = dialect.quote(column.name)
    usable = window(dialect, column, EARLIEST, LATEST, "UTC")
    number = Column("", "", None)
    rows = dialect.as_text("count(*)", number)
    good = dialect.as_text(f"count(CASE WHEN {usable} THEN 1 END)", number)
    ends = ", ".join(f"{end}(CASE WHEN {usable} THEN {name} END)" for end in ("min", "max"))
    return f"SELECT {rows}, {good}, {ends} FROM {table}"


def _bounds(
    dialect: Dialect, column: Column, start: datetime, end: datetime, zone: str,
    shapes: Collection[Shape],
) -> list[tuple[str, str]]:  # fmt: skip
    if column.time is TimeType.AWARE:
        return [(literal(dialect, column.time, start), literal(dialect, column.time, end))]
    if column.time in (TimeType.NAIVE, TimeType.DATE):
        first = (start - _ZONE_CHANGE).astimezone(ZoneInfo(zone))
        last = (end + _ZONE_CHANGE).astimezone(ZoneInfo(zone))
        if column.time is TimeType.DATE:
            last += timedelta(days=1)
        return [(literal(dialect, column.time, first), literal(dialect, column.time, last))]
    pairs = [pair for shape in shapes for pair in _shape_bounds(column, shape, start, end)]
    return list(dict.fromkeys(pairs))


def _shape_bounds(
    column: Column, shape: Shape, start: datetime, end: datetime
) -> list[tuple[str, str]]:
    first_day, last_day = start - _WEST, end + _EAST + timedelta(days=1)
    if shape in (Shape.DASHES, Shape.SLASHES):
        form = "'%Y-%m-%d'" if shape is Shape.DASHES else "'%Y/%m/%d'"
        return [(first_day.strftime(form), last_day.strftime(form))]
    if shape in EPOCH_UNITS:
        first, last = _epoch_bounds(shape, start, end)
    else:
        form = "%Y%m%d" if shape is Shape.COMPACT_DAY else "%Y%m%d000000"
        first, last = int(first_day.strftime(form)), int(last_day.strftime(form))
    as_numbers, as_text = (str(first), str(last)), (f"'{first}'", f"'{last}'")
    if column.time is TimeType.TEXT:
        return [as_text]
    return [as_numbers, as_text] if column.time is TimeType.UNTYPED else [as_numbers]


def _epoch_bounds(shape: Shape, start: datetime, end: datetime) -> tuple[int, int]:
    """Whole seconds around the window, in the shape's unit and with its number of digits."""
    unit = EPOCH_UNITS[shape]
    lowest, highest = NUMBER_RANGES[shape]
    first, last = int(start.timestamp()) * unit, (int(end.timestamp()) + 1) * unit
    return max(first, lowest), min(max(last, lowest), highest)


def _quoted_parts(name: str) -> tuple[str, ...]:
    """Take ``"a"."b"`` or backticks apart; empty where the name is not written so."""
    for mark in ('"', "`"):
        if len(name) > 2 and name[0] == mark and name[-1] == mark:
            inner = name[1:-1].replace(mark * 2, "\0")
            parts = inner.split(f"{mark}.{mark}")
            if not any(mark in part for part in parts):
                return tuple(part.replace("\0", mark) for part in parts)
    return ()
