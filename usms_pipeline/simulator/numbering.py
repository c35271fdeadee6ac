"""Phone numbers as the simulated service sees them: E.164, country, operator, spellings.

Pure, and the same in every process. Nothing here knows of messages.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

import phonenumbers

HOME: Final = "CN"
"""Country of a number written without a country code, as the service has it."""


class Origin(NamedTuple):
    """Where a number is from: ISO 3166-1 alpha-2 country ('ZZ' if unknown) and operator or ''."""

    country: str
    operator: str


class Plan(NamedTuple):
    """Mobile numbers of one country: share of a population, code, national prefixes, digits."""

    share: float
    code: str
    prefixes: tuple[str, ...]
    digits: int


_CHINA_MOBILE = (
    "134", "135", "136", "137", "138", "139", "150", "151", "152", "157", "158", "159", "182",
    "183", "187", "188", "198",
)  # fmt: skip
_CHINA_UNICOM = ("130", "131", "132", "155", "156", "166", "185", "186")
_CHINA_TELECOM = ("133", "153", "173", "177", "180", "181", "189", "199")

PLANS: Final[dict[str, Plan]] = {
    "CN": Plan(0.62, "86", _CHINA_MOBILE + _CHINA_UNICOM + _CHINA_TELECOM, 11),
    "SG": Plan(0.08, "65", ("811", "812", "901", "911", "967", "968", "984", "988"), 8),
    "US": Plan(0.08, "1", ("2124", "3103", "4043", "4154", "5124", "6464", "7024", "9174"), 10),
    "HK": Plan(0.06, "852", ("61", "63", "64", "65", "94", "96", "97"), 8),
    "IN": Plan(0.05, "91", ("9810", "9811", "9820", "9840", "9890", "9910", "9930", "9980"), 10),
    "GB": Plan(0.04, "44", ("7400", "7415", "7500", "7540", "7710", "7780", "7960", "7970"), 10),
    "BR": Plan(0.03, "55", ("1197", "1198", "1199", "2197", "2198", "2199", "3199", "8199"), 11),
    "JP": Plan(0.015, "81", ("8020", "8030", "9010", "9020", "9090", "7020"), 10),
    "ID": Plan(0.015, "62", ("811", "812", "813", "821", "855", "857", "878"), 11),
    "DE": Plan(0.01, "49", ("1511", "1520", "1573", "1590"), 11),
}
"""Chosen so that the number is valid with any digits after it."""

_E164 = re.compile(r"\+[1-9]\d{6,14}")
_MARKED = re.compile(r"\((?:00)?([1-9]\d{0,2})\)")
_HIDDEN = re.compile(r"[*#xX]")
_MASK = re.compile(r"\+?[\d*#xX]{5,15}")
_KEYED_DIGITS = 8  # a plus sign and seven digits: as fine as numbers are dealt to operators


def to_e164(text: str) -> str:
    """Return a phone number in E.164 form, or the trimmed text where it is no number.

    >>> to_e164("(86)13800138000"), to_e164("13800138000"), to_e164("00852 6123 4567")
    ('+8613800138000', '+8613800138000', '+85261234567')
    """
    text = text.strip()
    if _E164.fullmatch(text):
        return text
    compact = re.sub(r"[()\s-]", "", _MARKED.sub(r"+\1", text, count=1))
    try:
        number = phonenumbers.parse(compact, HOME)
    except phonenumbers.NumberParseException:
        return text
    if not phonenumbers.is_possible_number(number):
        return text
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def unmasked(text: str, key: str) -> str | None:
    """Return a mask with made-up digits, the same for the same key; None if it is no mask.

    >>> unmasked("138****8000", "a") == unmasked("138-XXXX-8000", "a")
    True
    >>> unmasked("138****8000", "a") == unmasked("138****8000", "b")
    False
    """
    shown = re.sub(r"[\s().-]", "", text)
    if not _HIDDEN.search(shown) or not _MASK.fullmatch(shown):
        return None
    number = int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest())
    digits = iter(f"{number:020}"[::-1])
    return _HIDDEN.sub(lambda _: next(digits), shown)


def origin(e164: str) -> Origin:
    """Return country and operator by a number's first digits and its length."""
    return _origin(e164[:_KEYED_DIGITS], len(e164))


@lru_cache(maxsize=100_000)
def _origin(beginning: str, length: int) -> Origin:
    from phonenumbers import carrier

    if not beginning.startswith("+"):
        return Origin("ZZ", "")
    filled = (beginning + "23456789")[:length]
    try:
        number = phonenumbers.parse(filled)
    except phonenumbers.NumberParseException:
        return Origin("ZZ", "")
    code = number.country_code or 0
    regions = phonenumbers.COUNTRY_CODE_TO_REGION_CODE.get(code, ("ZZ",))
    country = phonenumbers.region_code_for_number(number) or regions[0]
    return Origin(country, carrier.name_for_valid_number(number, "en"))


def spelled(e164: str) -> str:
    """Return a number as the service usually writes it.

    >>> spelled("+8613800138000"), spelled("+85261234567")
    ('13800138000', '(852)61234567')
    """
    code, national = _split(e164)
    if not code:
        return e164
    return national if code == "86" else f"({code}){national}"


def spellings(e164: str) -> tuple[str, ...]:
    """Return every way the service is known to write a number."""
    code, national = _split(e164)
    if not code:
        return (e164,)
    marked = (f"({code}){national}", f"(00{code}){national}", f"00{code}{national}", e164)
    return (*marked, national, f"86{national}") if code == "86" else marked


def _split(e164: str) -> tuple[str, str]:
    if not e164.startswith("+"):
        return "", e164
    for digits in (1, 2, 3):
        code = e164[1 : 1 + digits]
        if code.isdigit() and int(code) in phonenumbers.COUNTRY_CODE_TO_REGION_CODE:
            return code, e164[1 + digits :]
    return "", e164
