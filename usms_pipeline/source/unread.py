"""What unreadable times look like: their shapes, their days, and what they may be.

A shape has 9 for each digit, a for each Latin letter and 字 for any other: so a column of phones
that is named by mistake is not shown.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.contract.moments import NO_TIME, UNDERSTOOD, to_utc, unmarked
from usms_pipeline.contract.schema import TEXT
from usms_pipeline.contract.setting_types import DateOrder
from usms_pipeline.settings import Settings

_MOST_SHAPES: Final = 3
_LONGEST_SHAPE: Final = 40
_LOOKS: Final = (
    (2_440_588, 2_524_594, "Julian days", "({0} - 2440587.5) * 86400"),
    (29_221, 73_051, "days of a spreadsheet", "({0} - 25569) * 86400"),
    (10_957, 29_221, "days since 1970", "{0} * 86400"),
    (3 * 10**8, 10**9, "seconds since 2001", "{0} + 978307200"),
    (36 * 10**8, 45 * 10**8, "seconds since 1900", "{0} - 2208988800"),
    (125 * 10**14, 16 * 10**15, "microseconds since 1601", "{0} / 1000000 - 11644473600"),
    (125 * 10**15, 16 * 10**16, "100 ns since 1601", "({0} - 116444736000000000) / 10000000"),
    (62 * 10**16, 66 * 10**16, ".NET ticks", "({0} - 621355968000000000) / 10000000"),
    (66 * 10**16, 10**18, "nanoseconds since 2001", "{0} / 1000000000 + 978307200"),
)
"""From a range of numbers, what they may be, and the SQL for seconds since 1970."""


@dataclass
class Unread:
    """Times that are not NULL and can't be read, except texts that mean no time."""

    count: int = 0
    shapes: Counter[str] = field(default_factory=Counter)
    looks: Counter[int] = field(default_factory=Counter)
    first: datetime | None = None
    """The first and the ``last`` of those that begin with a readable day."""
    last: datetime | None = None
    of_other_order: int = 0
    """Those that can be read with day and month swapped."""

    def add(self, values: pa.Array, order: DateOrder | None) -> None:
        """Count values that could not be read as times with this order of day and month."""
        texts = unmarked(pc.utf8_trim_whitespace(values.cast(TEXT).drop_null()))
        texts = texts.filter(pc.invert(pc.match_substring_regex(texts, NO_TIME)))
        self.count += len(texts)
        if order is not None:
            other = to_utc(texts, "UTC", order=order.other)
            self.of_other_order += len(texts) - other.null_count
        for one in texts.value_counts().to_pylist():
            self.shapes[_shape(one["values"])] += one["counts"]
            self.looks.update(dict.fromkeys(_looks_of(one["values"]), one["counts"]))
        days = pc.extract_regex(texts, r"^(?P<day>\d{4}[-/.]\d{1,2}[-/.]\d{1,2})\b").drop_null()
        ends = pc.min_max(to_utc(pc.struct_field(days, "day"), "UTC")).as_py().values()
        known = [one for one in (self.first, self.last, *ends) if one is not None]
        self.first, self.last = min(known, default=None), max(known, default=None)

    def said(self, settings: Settings, *, with_forms: bool) -> str:
        """Return the end of a sentence: how many, of which days, their shapes, what they may be.

        Empty if there are none.
        """
        if not self.count:
            return ""
        shapes = ", ".join(f"{n:,} × {shape}" for shape, n in self.shapes.most_common(_MOST_SHAPES))
        shapes += ", …" if len(self.shapes) > _MOST_SHAPES else ""
        signs = "9 is any digit, a any letter" + (", 字 any of another script" * ("字" in shapes))
        days = ""
        if self.first and self.last:
            first, last = (f"{one:%Y-%m-%d}" for one in (self.first, self.last))
            days = f" (of {first})" if first == last else f" (of {first} to {last})"
        are = "is" if self.count == 1 else "are"
        said = (
            f". {self.count:,} of the times {are} not NULL and can't be read{days}: {shapes} "
            f"({signs})"
        )
        if self.of_other_order and settings.date_order:
            return (
                f"{said}. {self.of_other_order:,} of them can be where USMS_DATE_ORDER is "
                f"{settings.date_order.other.value}: it is {settings.date_order.value}"
            )
        forms = f". Understood: {UNDERSTOOD}" if with_forms else ""
        return f"{said}{forms}{self._look(settings.sent_at_column)}" + (
            "" if with_forms else ". `usms check` lists the forms that are understood"
        )

    def _look(self, column: str) -> str:
        if not self.looks:
            return ""
        _, _, name, seconds = _LOOKS[self.looks.most_common(1)[0][0]]
        return (
            f". They look like {name}: make a view with {seconds.format(column)} in place of "
            f"{column} (it is then in UTC) and name it in USMS_SOURCE_TABLE; of a file, write the "
            "times"
        )


def _shape(text: str) -> str:
    shape = re.sub(r"[^\W\d_A-Za-zÀ-ɏ]", "字", re.sub(r"\d", "9", text))
    shape = re.sub(r"[A-Za-zÀ-ɏ]", "a", shape)
    return shape if len(shape) <= _LONGEST_SHAPE else shape[: _LONGEST_SHAPE - 1] + "…"


def _looks_of(text: str) -> list[int]:
    try:
        number = float(text)
    except ValueError:
        return []
    return [place for place, (low, high, *_) in enumerate(_LOOKS) if low <= number < high]
