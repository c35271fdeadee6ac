"""How figures are written for people, and how text from outside is made safe to show.

The same in charts, report and terminal. Pure: no HTML here, no data access.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from difflib import get_close_matches
from typing import Any, Final
from zoneinfo import ZoneInfo

ABSENT: Final = "–"
"""Shown for a figure that does not exist (a division by zero)."""


COMMANDING: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufffe\uffff]"
)
"""Characters that a terminal obeys and XML refuses: control characters except tab and line
feed, and marks that change the direction of writing."""


def visible(text: str) -> str:
    r"""Escape the characters of a text from outside that a terminal would obey.

    >>> print(visible("\x1b[2J\u202egnp"))
    \x1b[2J\u202egnp
    """
    return COMMANDING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


_LONGEST_NAME: Final = 80


def whole_name(value: object) -> str:
    r"""Write a value that messages are grouped by, on one line.

    >>> whole_name("otp\tlogin"), whole_name(""), whole_name(None)
    ('otp login', 'empty', 'not known')
    """
    return "not known" if value is None else " ".join(visible(str(value)).split()) or "empty"


def name(value: object) -> str:
    """Write such a value in at most 80 characters: a longer one is cut in the middle.

    >>> name("otp_login"), len(name("a" * 300))
    ('otp_login', 80)
    """
    text, half = whole_name(value), _LONGEST_NAME // 2
    return text if len(text) <= _LONGEST_NAME else f"{text[: half - 1]}…{text[-half:]}"


def apart(names: Iterable[str]) -> list[str]:
    """Return the names with a number added to each that came before, so that all differ.

    >>> apart(["a", "b", "a", "a (2)"])
    ['a', 'b', 'a (3)', 'a (2)']
    """
    given = list(names)
    taken, told = set(given), dict.fromkeys(given, 0)
    shown = []
    for name in given:
        told[name] += 1
        one = name
        while told[name] > 1 and one in taken:
            one = f"{name} ({told[name]})"
            told[name] += one in taken
        taken.add(one)
        shown.append(one)
    return shown


def near(name: str, names: Iterable[str]) -> list[str]:
    """Return up to three names that look like this one, in any case.

    >>> near("Sesion", ["phone", "session"])
    ['session']
    """
    by_folded = {there.casefold(): there for there in names}
    return [by_folded[one] for one in get_close_matches(name.casefold(), by_folded)]


def rows_left_out(rows: int, column: str) -> str:
    """Return a sentence, without its period: how many rows have no usable time in a column.

    >>> rows_left_out(1, "sent_at")
    '1 row has no usable time in sent_at: no run reads it, and no figure counts it'
    """
    have, them = ("has", "it") if rows == 1 else ("have", "them")
    return (
        f"{counted(rows, 'row')} {have} no usable time in {column}: no run reads {them}, and no "
        f"figure counts {them}"
    )


_SEPARATORS: Final = r"[ \t\u00a0\u2000-\u200b\u2010-\u2015\u202f\u3000().\-/_]{0,3}"
_MANY_DIGITS: Final = re.compile(rf"\+?\(?\d(?:{_SEPARATORS}\d){{6,}}")


def without_numbers(text: str) -> str:
    """Remove what may be a phone number, however it is spelled; network addresses stay.

    >>> without_numbers("no such user: (86) 138.0013-8000 at 192.168.100.200")
    'no such user: … at 192.168.100.200'
    """

    def shown(found: re.Match[str]) -> str:
        try:
            return found[0] if ipaddress.ip_address(found[0]) else "…"
        except ValueError:
            return "…"

    return _MANY_DIGITS.sub(shown, text)


def count(number: float | None) -> str:
    """Write a whole number with thousands separators.

    >>> count(48211), count(None)
    ('48,211', '–')
    """
    return ABSENT if number is None else f"{number:,.0f}"


def counted(number: int, noun: str) -> str:
    """Write a number of things, with the noun in the singular or the plural.

    >>> counted(1, "day"), counted(48211, "session")
    ('1 day', '48,211 sessions')
    """
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def percent(rate: float | None) -> str:
    """Write a rate (0–1) in percent; 0 and 100 only where they are exact.

    >>> percent(0.9634), percent(0.99999), percent(1.0), percent(0.0001), percent(None)
    ('96.3%', '>99.9%', '100%', '<0.1%', '–')
    """
    if rate is None:
        return ABSENT
    if rate in (0, 1):
        return f"{rate:.0%}"
    if 0.9995 <= rate < 1:
        return ">99.9%"
    if 0 < rate < 0.0005:
        return "<0.1%"
    return f"{rate:.1%}"


def floor(rates: Iterable[float | None]) -> float:
    """Return the rate at which an axis begins: a round one below all, at most 0.9.

    >>> floor([0.93, None]), floor([0.61])
    (0.9, 0.5)
    """
    return max(
        0.0, min([0.9, *(int((rate - 0.02) * 10) / 10 for rate in rates if rate is not None)])
    )


def so_far(row: Mapping[str, Any]) -> str:
    """Return a rate so far, and what it will be once the open messages have a final status.

    ``row`` is one of ``queries.rates_expected`` with ``awaited`` above 0.

    >>> print(so_far({"delivery_rate": 0.938, "awaited": 920, "expected_rate": 0.934,
    ...               "expected_rate_low": 0.932, "expected_rate_high": 0.935}))
    So far 93.8%. When the 920 still open are in, expect 93.4% (19 times in 20: 93.2% – 93.5%).
    >>> print(so_far({"delivery_rate": 0.938, "awaited": 9, "expected_rate": 0.9371,
    ...               "expected_rate_low": 0.9369, "expected_rate_high": 0.9372}))
    So far 93.8%. When the 9 still open are in, expect 93.7% (give or take less than 0.1 points).
    """
    awaited = row["awaited"]
    still = "one still open is" if awaited == 1 else f"{count(awaited)} still open are"
    said = f"So far {percent(row['delivery_rate'])}."
    if row["expected_rate"] is None:
        return f"{said} The {still} not in yet, and there is no history yet to forecast them from."
    low, high = percent(row["expected_rate_low"]), percent(row["expected_rate_high"])
    sure = "give or take less than 0.1 points" if low == high else f"19 times in 20: {low} – {high}"
    expected = f"{percent(row['expected_rate'])} ({sure})"
    return f"{said} When the {still} in, expect {expected}."


def why_less(row: Mapping[str, Any]) -> str:
    """Return why less is expected than there is so far; nothing where it is not less."""
    rate, expected = row["delivery_rate"], row["expected_rate"]
    is_less = rate is not None and expected is not None and expected < rate
    return "Failures are reported later than deliveries. " * is_less


def held(forecasts: Sequence[Mapping[str, Any]]) -> str:
    """Return how many forecasts of the latest days held, of rows of ``queries.forecasts``.

    Empty where there are none.

    >>> held([{"is_held": True}] * 13 + [{"is_held": False}])
    "Of the last 14 days' forecasts, each made as the day ended, 13 held."
    """
    if not forecasts:
        return ""
    days = "day's forecast" if len(forecasts) == 1 else f"{len(forecasts)} days' forecasts"
    count_held = sum(row["is_held"] for row in forecasts)
    return f"Of the last {days}, each made as the day ended, {count_held} held."


def duration(seconds: float | None) -> str:
    """Write a span with the unit that suits it, two significant parts at most.

    >>> duration(4.24), duration(95), duration(7200), duration(93600), duration(-3)
    ('4.2 s', '1 min 35 s', '2 h', '1 d 2 h', '−3 s')
    """
    if seconds is None:
        return ABSENT
    if seconds < 0:
        return f"−{duration(-seconds)}"
    if seconds < 10:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        if whole >= size or (parts and len(parts) < 2 and whole):
            parts.append(f"{whole // size} {unit}")
            whole %= size
        elif parts:
            break
    return " ".join(part for part in parts[:2] if not part.startswith("0 "))


_BEFORE_UNIT: Final = re.compile(r"(?<=\d) (?=(?:s|min|h|d)\b)")


def unbroken(text: str) -> str:
    """Keep every duration's number and unit on one line, where lines are broken at blanks.

    >>> unbroken("90% within 2 min 1 s").replace("\u00a0", "~")
    '90% within 2~min 1~s'
    """
    return _BEFORE_UNIT.sub("\u00a0", text)


def day(value: date) -> str:
    """Write a day without its year.

    >>> day(date(2026, 11, 3))
    '3 Nov'
    """
    return f"{value.day} {_MONTHS[value.month - 1]}"


def hour(value: datetime) -> str:
    """Write a day and time of day, without zone.

    >>> hour(datetime(2026, 11, 3, 14, 0))
    '3 Nov 14:00'
    """
    return f"{day(value)} {value:%H:%M}"


def moment(value: datetime | None, zone: ZoneInfo) -> str:
    """Write an aware time in a zone, with the zone's name.

    >>> from datetime import timezone
    >>> moment(datetime(2026, 11, 3, 14, tzinfo=timezone.utc), ZoneInfo("Asia/Shanghai"))
    '3 Nov 2026 22:00 (Asia/Shanghai)'
    """
    if value is None:
        return ABSENT
    local = value.astimezone(zone)
    return f"{day(local)} {local.year} {local:%H:%M} ({zone.key})"


def days(first: date, last: date) -> str:
    """Write a range of days, both included.

    >>> days(date(2026, 11, 3), date(2026, 11, 7)), days(date(2026, 11, 3), date(2026, 11, 3))
    ('3 Nov – 7 Nov 2026', '3 Nov 2026')
    """
    if first == last:
        return f"{day(last)} {last.year}"
    year = "" if first.year == last.year else f" {first.year}"
    return f"{day(first)}{year} – {day(last)} {last.year}"


_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun",
                  "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")  # fmt: skip
