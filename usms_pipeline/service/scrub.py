"""Finding forgotten phones and sessions in a raw answer, in any spelling, and cutting them out.

Bodies are edited here and nowhere else. No files here: which bodies, is for ``forget`` to say.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterable
from functools import partial
from html import unescape
from typing import Any, Final

from usms_pipeline.phones import PhoneBook
from usms_pipeline.service import api
from usms_pipeline.service.careful import mended
from usms_pipeline.service.names import Forgotten

_FEWEST_DIGITS: Final = 6
_MOST_DIGITS: Final = 4000
_FEWEST_ANYWHERE: Final = 9
"""So many digits are sought inside longer runs of digits too; fewer would be met by chance."""
_BETWEEN: Final = re.compile(r"[\s()+.\-/_\u00ad\u200b-\u2015\u2060\ufeff]+")
_RUNS: Final = re.compile(r"\+?\(?\+?\d[\d\s()+.\-/\u200b-\u2015\ufeff]{4,24}\d")
_DIGITS: Final = re.compile(r"\+?\d{6,15}")
_DATA: Final = api.ENVELOPE["data"]
_SESSION_NO: Final = api.ITEM["session_no"]
_PHONE: Final = api.RECEIPT["phone"]


def scrub(body: bytes, forgotten: Forgotten, book: PhoneBook, phones: Iterable[str] = ()) -> bytes:
    """Cut forgotten sessions and phones out of a body; emptied if it can't be read and names one.

    ``phones`` are the numbers themselves, where they are known. A body without any of them is given
    back as it is, to the byte; of a readable one, what names somebody else stays. What
    ``careful`` can mend and read is readable here too.
    """
    return Scrubber(forgotten, book, phones).scrub(body)


class Scrubber:
    """What is to be cut out of bodies, and how it is found in them. Linear in a body's size."""

    def __init__(self, forgotten: Forgotten, book: PhoneBook, phones: Iterable[str]) -> None:
        self._forgotten, self._book = forgotten, book
        digits = [(re.sub(r"\D", "", phone), book.national_digits(phone)) for phone in phones]
        self._last = [last for all_, _ in digits if len(last := all_[-8:]) >= _FEWEST_DIGITS]
        whole = [national or all_ for all_, national in digits]
        self._whole = [one for one in whole if len(one) >= _FEWEST_ANYWHERE]

    def scrub(self, body: bytes) -> bytes:
        """Do what the function of this name says."""
        twice: list[tuple[str, Any]] = []
        known: dict[str, bool] = {}
        try:
            answer = json.loads(
                mended(body) or body,
                parse_int=_whole,
                parse_float=_fraction,
                object_pairs_hook=partial(_object, twice=twice),
            )
            edited = self._answer(answer) if isinstance(answer, dict) else answer
            edited = self._blank(edited, "", known)
            text = json.dumps(edited, ensure_ascii=False)
            is_named_twice = any(self._blank(value, key, known) != value for key, value in twice)
        except (ValueError, RecursionError):
            return b"" if self._is_named_in(body) else body
        if edited == answer and not is_named_twice and not self._is_hidden(body, text):
            return body
        return text.encode("utf-8", "surrogatepass")

    def _is_named_in(self, body: bytes) -> bool:
        """Tell whether a body that can't be read names somebody who is forgotten."""
        shown = unescape(body.decode("utf-8", "replace"))
        compact = _compact(shown)
        return (
            any(digits in compact for digits in self._last)
            or self._names_recipient(shown)
            or self._names_session(shown)
        )

    def _is_hidden(self, body: bytes, text: str) -> bool:
        """Tell whether a body names somebody in what was mended away when it was read."""
        shown = body.decode("utf-8", "replace")
        if self._whole:
            before, after = _compact(shown), _compact(text)
            if any(before.count(digits) > after.count(digits) for digits in self._whole):
                return True
        return self._names_session(shown)

    def _answer(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Edit an answer, or a lone item of one."""
        if not isinstance(answer.get(_DATA), list):
            return self._item(answer)
        kept = [
            self._item(item) if isinstance(item, dict) else item
            for item in answer[_DATA]
            if not (isinstance(item, dict) and self._is_session(item.get(_SESSION_NO)))
        ]
        return answer | {_DATA: kept}

    def _item(self, item: dict[str, Any]) -> dict[str, Any]:
        def is_forgotten(receipt: Any) -> bool:
            return isinstance(receipt, dict) and self._is_recipient(receipt.get(_PHONE))

        edited = dict(item)
        for key in (api.ITEM["receipt"], api.ITEM["receipt_set"]):
            receipts = item.get(key)
            if isinstance(receipts, list):
                edited[key] = [receipt for receipt in receipts if not is_forgotten(receipt)]
            elif is_forgotten(receipts):
                edited[key] = None
        return edited

    def _blank(self, value: Any, key: str, known: dict[str, bool]) -> Any:
        """Put null for every text or number that names a forgotten phone or session.

        What has such a name is left out. ``known`` are the names that were judged already.
        """
        if isinstance(value, dict):
            return {
                name: self._blank(one, name, known)
                for name, one in value.items()
                if not self._is_forgotten_name(name, known)
            }
        if isinstance(value, list):
            return [self._blank(one, key, known) for one in value]
        return None if self._is_forgotten_value(value, key) else value

    def _is_forgotten_name(self, name: str, known: dict[str, bool]) -> bool:
        if name not in known:
            known[name] = name not in api.KEYS and (
                self._names_phone(name) or self._names_recipient(name) or self._names_session(name)
            )
        return known[name]

    def _is_forgotten_value(self, value: Any, key: str) -> bool:
        texts = _texts(value)
        if key == _PHONE and self._is_recipient(value):
            return True
        if key == _PHONE and any(self._book.national_digits(text) for text in texts):
            return False  # somebody else's number, though it may end alike
        return any(
            (key != _SESSION_NO and (self._names_phone(text) or self._names_recipient(text)))
            or self._names_session(text)
            for text in texts
        )

    def _is_session(self, value: Any) -> bool:
        return str(value).strip() in self._forgotten.sessions

    def _is_recipient(self, phone: Any) -> bool:
        hashes = self._forgotten.recipients
        return any(self._book.recipient_id(text) in hashes for text in _texts(phone))

    def _names_phone(self, text: str) -> bool:
        """Find a number in any spelling, also where other digits stand right beside it."""
        if not self._last and not self._whole:
            return False
        compact = _compact(text)
        return any(digits in compact for digits in self._whole) or any(
            digits in form and re.search(rf"(?<!\d)\d{{0,7}}{digits}(?!\d)", form)
            for digits in self._last
            for form in (text, compact)
        )

    def _names_recipient(self, text: str) -> bool:
        """Find a number whose hash is forgotten; in answers that come later no digits are known."""
        if not self._forgotten.recipients:
            return False
        tried = {
            one
            for run in _RUNS.findall(text)
            for one in (run, *_DIGITS.findall(run), *re.split(r"[\s/]+", run))
        }
        return any(self._book.recipient_id(one) in self._forgotten.recipients for one in tried)

    def _names_session(self, text: str) -> bool:
        """Find a session number as a word: `1001` is not in `10010`, nor in `a-1001`."""
        return any(
            session in text and re.search(rf"(?<![\w-]){re.escape(session)}(?![\w-])", text)
            for session in self._forgotten.sessions
        )


def _object(pairs: list[tuple[str, Any]], twice: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object, of whose names the last counts; what it overrides goes to ``twice``."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice += [(name, value) for name, value in pairs if found[name] is not value]
    return found


def _compact(text: str) -> str:
    """Take out what may stand between a number's digits; wide digits become plain ones."""
    return _BETWEEN.sub("", text if text.isascii() else unicodedata.normalize("NFKC", text))


def _texts(value: Any) -> list[str]:
    """Give what a text or number may say; a number with a point may be a whole one."""
    if isinstance(value, float):
        return [repr(value), *([str(int(value))] if value.is_integer() else [])]
    is_judged = isinstance(value, str | int) and not isinstance(value, bool)
    return [str(value)] if is_judged else []


def _whole(text: str) -> int | str:
    """Read a number; one of more digits than Python reads stays text."""
    return int(text) if len(text) <= _MOST_DIGITS else text


def _fraction(text: str) -> float | str:
    """Read a number; one that is infinite to Python stays text."""
    number = float(text)
    return number if math.isfinite(number) else text
