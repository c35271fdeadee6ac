"""What a text says as a phone number: E.164 form, country, operator, kind of line.

The answers are libphonenumber's. One answer serves all numbers that share the digits which settle
it, so that a million numbers of one country cost a few hundred questions. No hashing, no masking.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final, NamedTuple

import phonenumbers
from phonenumbers import (
    COUNTRY_CODE_TO_REGION_CODE,
    PhoneMetadata,
    PhoneNumber,
    PhoneNumberFormat,
    PhoneNumberType,
    ValidationResult,
)

from usms_pipeline import digit_patterns


@dataclass(frozen=True, eq=False)
class Line:
    """What numbers alike have in common; ``country`` is ISO 3166-1 alpha-2, None where unknown."""

    country_code: int
    is_valid: bool
    country: str | None
    operator: str | None
    number_type: str | None


class Number(NamedTuple):
    """One number, which its ``repr`` does not show."""

    e164: str
    line: Line

    def __repr__(self) -> str:
        return f"Number({self.line!r})"


class Answer(NamedTuple):
    """What holds for all texts of one length and beginning: ``lead + text[dropped:]``."""

    lead: str
    dropped: int
    line: Line

    def __repr__(self) -> str:  # the lead may be all of a number
        return f"Answer(dropped={self.dropped}, {self.line!r})"


_PLAIN: Final = re.compile(r"\+?[0-9]{5,15}")
_SEPARATORS: Final = re.compile(r"[\s\-.\u2010-\u2015\u200b\ufeff/]")
_IN_BRACKETS: Final = re.compile(r"\(\+?(?:00)?([1-9]\d{0,2})\)(\d+)")
_CHINESE_MOBILE: Final = re.compile(r"1\d{10}")
_MOST_ANSWERS: Final = 200_000
_NO_ANSWERS: Final[dict[int, dict[str, Answer]]] = {}
_KINDS: Final = (
    "fixed_line", "mobile", "toll_free", "premium_rate", "shared_cost", "personal_number",
    "voip", "pager", "uan", "voicemail",
)  # fmt: skip


class NumberingPlan:
    """Reads phone numbers as they are written in one region (ISO 3166-1 alpha-2)."""

    def __init__(self, region: str) -> None:
        self._region = region.upper()
        self._answers: dict[int, dict[int, dict[str, Answer]]] = {}
        self._size = 0

    def read(self, text: str) -> Number | None:
        """Give the number that a text says, or None when it says none.

        Understood: E.164, the region's own way of writing, a leading ``00``, a country code
        without ``+`` or in brackets, separators and full-width digits.
        """
        if text.isascii() and (text.isdecimal() or _PLAIN.fullmatch(text)) and text[:2] != "00":
            return self._plain(text)
        text = _tidied(text)
        for international in _as_international(text):
            number = self._plain(international)
            if number is not None and number.line.is_valid:
                return number
        return self._plain(text.replace("(", "").replace(")", ""))

    def answer(self, text: str, number: Number) -> tuple[int, Answer] | None:
        """Give the answer that holds for all plain texts like this one, which says ``number``.

        Alike are those of the same length and the same first characters, so many as the integer
        says. None where nothing shorter than the text settles it.
        """
        lead = f"+{number.line.country_code}"
        dropped = len(text) - (len(number.e164) - len(lead))
        settled = settling_length(text, self._region)
        if settled is None or dropped < 0 or lead + text[dropped:] != number.e164:
            return None
        length = max(settled, dropped + _operator_length(number))
        return (length, Answer(lead, dropped, number.line)) if length < len(text) else None

    def _plain(self, text: str) -> Number | None:
        for length, answers in self._answers.get(len(text), _NO_ANSWERS).items():
            answer = answers.get(text[:length])
            if answer is not None and _PLAIN.fullmatch(text):
                lead, dropped, line = answer
                return Number(lead + text[dropped:], line)
        number = read_slowly(text, self._region)
        if number is not None and _PLAIN.fullmatch(text):
            self._remember(text, number)
        return number

    def _remember(self, text: str, number: Number) -> None:
        found = self.answer(text, number)
        if found is None:
            return
        if self._size >= _MOST_ANSWERS:
            self._answers, self._size = {}, 0
        self._size += 1
        by_length = self._answers.setdefault(len(text), {})
        by_length.setdefault(found[0], {})[text[: found[0]]] = found[1]


def read_slowly(text: str, region: str) -> Number | None:
    """Ask libphonenumber about one tidy text; ``NumberingPlan`` gives the same, faster.

    Without a plus the region's reading comes first and one with a country code second: a valid
    number before a possible one, and a number that can get messages before a fixed line.
    """
    if text.startswith("+"):
        number = _parsed(text, None)
        return _described(number) if number is not None and _is_possible(number) else None
    if _is_chinese_mobile(text, region):
        return _described(_parsed(f"+86{text}", None))
    readings = [_parsed(text, region)]
    if text.isdecimal():
        readings.append(_parsed(f"+{text}", None))
    candidates = [number for number in readings if number is not None]
    for is_good in (_can_get_messages, phonenumbers.is_valid_number, _is_possible):
        for number in candidates:
            if is_good(number):
                return _described(number)
    return None


def _is_chinese_mobile(text: str, region: str) -> bool:
    """Tell what has one reading by default, though its digits could be another country's."""
    return region == "CN" and _CHINESE_MOBILE.fullmatch(text) is not None


def settling_length(text: str, region: str) -> int | None:
    """Give how many leading characters settle every question ``read_slowly`` asks of the digits.

    The rest matters by its length alone: each pattern of the numbering plans concerned has, after
    those characters, either no way to match or no choice of digits left. None: no such length.
    """
    start = 1 if text.startswith("+") else 0
    digits = text[start:]
    lengths: list[int | None] = []
    if not start:
        own = phonenumbers.country_code_for_region(region)
        offsets = {0, len(str(own))} if digits.startswith(str(own)) else {0}
        lengths.append(_settled(digits, offsets, region, own))
    code = _country_code(digits)
    if _is_chinese_mobile(text, region):
        pass  # read in this one way only
    elif code is None:
        lengths.append(3)
    else:
        main = COUNTRY_CODE_TO_REGION_CODE[code][0]
        lengths.append(_settled(digits, {len(str(code))}, main, code))
    known = [length for length in lengths if length is not None]
    return start + max(3, *known) if len(known) == len(lengths) else None


def _settled(digits: str, offsets: set[int], region: str, code: int) -> int | None:
    """Settle one region's reading, with and without its country code and national prefix."""
    plan = _plan(region, code)
    if plan is None:
        return None
    matching, stripping, literal = plan
    pending, ends = sorted(offsets), [0]
    while pending:
        offset = pending.pop()
        if literal and digits.startswith(literal, offset):
            pending.append(offset + len(literal))
            ends.append(offset + len(literal))
        for state, must_miss in ((matching, False), (stripping, True)):
            end = _walk(state, digits, offset, must_miss)
            if end is None:
                return None
            ends.append(end)
        ends.append(offset + len(literal))
    return max(ends)


def _walk(state: digit_patterns.State, digits: str, offset: int, must_miss: bool) -> int | None:
    """Give where a state is settled; a pattern that must miss and does not, never is."""
    for end in range(offset, len(digits) + 1):
        if must_miss and digit_patterns.may_end(state):
            return None
        if not state or (not must_miss and digit_patterns.is_settled(state)):
            return end
        if end < len(digits):
            state = digit_patterns.step(state, digits[end])
    return None


@cache
def _plan(region: str, code: int) -> tuple[digit_patterns.State, digit_patterns.State, str] | None:
    """Give what decides: patterns that may match, ones that may strip, a plain national prefix."""
    metadata = _metadata(code, region)
    prefix = metadata.national_prefix_for_parsing or ""
    literal = prefix if prefix.isdecimal() else ""
    stripping = [metadata.international_prefix, None if literal else prefix]
    matching = [
        pattern
        for other in COUNTRY_CODE_TO_REGION_CODE[code]
        for pattern in _patterns(_metadata(code, other))
    ]
    try:
        return (
            digit_patterns.start(matching),
            digit_patterns.start(pattern for pattern in stripping if pattern),
            literal,
        )
    except ValueError:
        return None


def _metadata(code: int, region: str) -> Any:
    return PhoneMetadata.metadata_for_region_or_calling_code(code, region)


def _patterns(metadata: Any) -> Iterator[str]:
    for kind in ("general_desc", *_KINDS):
        described = getattr(metadata, kind)
        if described is not None and described.national_number_pattern:
            yield described.national_number_pattern
    if metadata.leading_digits:
        yield metadata.leading_digits


def _country_code(digits: str) -> int | None:
    codes = (int(digits[:length]) for length in (1, 2, 3))
    return next((code for code in codes if code in COUNTRY_CODE_TO_REGION_CODE), None)


def _operator_length(number: Number) -> int:
    """Give how many digits of the national number settle the operator."""
    digits, code = number.e164[1:], str(number.line.country_code)
    open_ones = _open_to_operators(code)
    known = next((end for end in range(len(digits)) if digits[:end] not in open_ones), len(digits))
    return max(known - len(code), 0)


@cache
def _open_to_operators(code: str) -> frozenset[str]:
    """Give every beginning of a number of one country that leaves its operator open."""
    from phonenumbers.carrierdata import CARRIER_DATA

    names = {prefix: said.get("en") for prefix, said in CARRIER_DATA.items()}
    own = {prefix: name for prefix, name in names.items() if prefix.startswith(code)}
    beginnings = {prefix[:end] for prefix in own for end in range(len(code), len(prefix) + 1)}
    found = {code[:end] for end in range(len(code))}  # the country is not known yet
    _names_below(code, None, own, beginnings, found)
    return frozenset(found)


def _names_below(
    beginning: str,
    inherited: str | None,
    own: Mapping[str, str | None],
    beginnings: set[str],
    open_ones: set[str],
) -> set[str | None]:
    """Give the operators of all numbers that begin so; with more than one it is open."""
    name = own.get(beginning, inherited)
    longer = [beginning + digit for digit in "0123456789"]
    known = [one for one in longer if one in beginnings]
    found = {name} if len(known) < len(longer) else set()
    for one in known:
        found |= _names_below(one, name, own, beginnings, open_ones)
    if len(found) > 1:
        open_ones.add(beginning)
    return found


def _tidied(text: str) -> str:
    return _SEPARATORS.sub("", unicodedata.normalize("NFKC", text))


def _as_international(text: str) -> Iterator[str]:
    if text.startswith("00"):
        yield f"+{text[2:]}"
    bracketed = _IN_BRACKETS.fullmatch(text)
    if bracketed:
        yield f"+{bracketed[1]}{bracketed[2]}"


def _parsed(text: str, region: str | None) -> PhoneNumber | None:
    try:
        return phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None


def _is_possible(number: PhoneNumber) -> bool:
    reason = phonenumbers.is_possible_number_with_reason(number)
    return bool(reason == ValidationResult.IS_POSSIBLE)


def _can_get_messages(number: PhoneNumber) -> bool:
    kind = phonenumbers.number_type(number)
    return kind in (PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE_OR_MOBILE)


def _described(number: PhoneNumber | None) -> Number | None:
    if number is None or number.country_code is None:
        return None
    from phonenumbers import carrier

    kind = phonenumbers.number_type(number)
    country = phonenumbers.region_code_for_number(number)
    line = Line(
        country_code=number.country_code,
        is_valid=phonenumbers.is_valid_number(number),
        country=country if country and country.isalpha() else None,
        operator=carrier.name_for_number(number, "en") or None,
        number_type=_type_names().get(kind),
    )
    return Number(phonenumbers.format_number(number, PhoneNumberFormat.E164), line)


@lru_cache(maxsize=1)
def _type_names() -> dict[int, str]:
    names = {name: getattr(PhoneNumberType, name.upper()) for name in _KINDS}
    names["fixed_line_or_mobile"] = PhoneNumberType.FIXED_LINE_OR_MOBILE
    return {kind: name for name, kind in names.items()}
