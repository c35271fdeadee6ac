"""Whether a raw answer names somebody who is forgotten: a phone or a session, in any spelling.

A body that does is emptied whole, because cutting out one part leaves the question what else in
it is about the person. So this only says whether, and when in doubt it says yes. No files here.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from html import unescape
from typing import Any, Final

from usms_pipeline.people.phones import PhoneBook
from usms_pipeline.service import api

_FEWEST_DIGITS: Final = 6
_FEWEST_ANYWHERE: Final = 9
"""This many digits are sought inside longer runs of digits too; fewer would be met by chance."""
_BETWEEN: Final = re.compile(r"[\s()+.\-/_\u00ad\u200b-\u2015\u2060\ufeff]+")
_RUNS: Final = re.compile(r"\+?\(?\+?\d[\d\s()+.\-/\u200b-\u2015\ufeff]{4,24}\d")
_DIGITS: Final = re.compile(r"\+?\d{6,15}")
_A_DIGIT: Final = re.compile(r"\d")
_WORD: Final = re.compile(r"[\w-]+")
_SESSION_NO: Final = api.ITEM["session_no"]
_PHONE: Final = api.RECEIPT["phone"]
_KEYS: Final = frozenset(key.casefold() for key in api.KEYS)
_READ: Final = object()
"""Stands for a parsed object: its names and values are noted while parsing."""


@dataclass(frozen=True)
class Forgotten:
    """What must not come back: recipient hashes and session numbers."""

    recipients: frozenset[str] = frozenset()
    sessions: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.recipients or self.sessions)

    def __or__(self, other: Forgotten) -> Forgotten:
        return Forgotten(self.recipients | other.recipients, self.sessions | other.sessions)


class Names:
    """What must not be in a body, and how it is found there. Linear in a body's size.

    ``phones`` are the numbers themselves, where they are known; of who was forgotten earlier only
    the hash is. Digits find a number also within other digits, and in what is no JSON.
    """

    def __init__(self, forgotten: Forgotten, book: PhoneBook, phones: Iterable[str] = ()) -> None:
        self.forgotten = forgotten
        self._recipients, self._book = forgotten.recipients, book
        # An answer may name a session in another case, and is matched with it all the same.
        sessions = {one.casefold() for one in forgotten.sessions}
        self._words = {one for one in sessions if _WORD.fullmatch(one)}
        self._other_sessions = [
            (session, re.compile(rf"(?<![\w-]){re.escape(session)}(?![\w-])"))
            for session in sorted(sessions - self._words)
        ]
        digits = [(re.sub(r"\D", "", phone), book.national_digits(phone)) for phone in phones]
        last = {last for all_, _ in digits if len(last := all_[-8:]) >= _FEWEST_DIGITS}
        self._last = [(one, re.compile(rf"(?<!\d)\d{{0,7}}{one}(?!\d)")) for one in sorted(last)]
        whole = {national or all_ for all_, national in digits}
        self._whole = sorted(one for one in whole if len(one) >= _FEWEST_ANYWHERE)

    def any_in(self, body: bytes) -> bool:
        """Return whether a body names somebody."""
        shown = body.decode("utf-8-sig", "replace")
        # In the body as it is too, for what is overridden or escaped when it is read. There a
        # session called like one of the service's own keys would be in every answer.
        if self._names_session(shown, self._words - _KEYS):
            return True
        said = _Said()
        is_answer = False
        with suppress(ValueError, RecursionError):
            is_answer = said.read(shown) is _READ  # a JSON object, or what was meant to be one
        if not is_answer:
            said = _Said()
            with suppress(ValueError, RecursionError):  # in another encoding, or a list
                said.note(None, said.read(body))
        if any(self._is_named_by(*pair) for pair in {*said.pairs}):
            return True
        return not is_answer and self._is_named_in(shown)

    def _is_named_in(self, text: str) -> bool:
        text = unescape(text)
        compact = _compact(text)
        return (
            any(digits in compact for digits, _ in self._last)
            or self._names_recipient(text)
            or self._names_session(text, self._words)
        )

    def _is_named_by(self, key: str | None, text: str) -> bool:
        """Return whether a value under its key, or a name (its key is None), names somebody."""
        if self._names_session(text, self._words):
            return True
        if key == _SESSION_NO or not (_A_DIGIT.search(text) or not text.isascii()):
            return key == _PHONE and self._is_recipient(text)
        if key == _PHONE:
            if self._is_recipient(text):
                return True
            if self._book.national_digits(text):
                return False  # somebody else's number, though it may end alike
        return self._names_phone(text) or self._names_recipient(text)

    def _is_recipient(self, text: str) -> bool:
        return bool(self._recipients) and self._book.recipient_id(text) in self._recipients

    def _names_phone(self, text: str) -> bool:
        """Find a number in any spelling, also where other digits stand right beside it."""
        if not self._last and not self._whole:
            return False
        compact = _compact(text)
        return any(digits in compact for digits in self._whole) or any(
            digits in form and alone.search(form)
            for digits, alone in self._last
            for form in (text, compact)
        )

    def _names_recipient(self, text: str) -> bool:
        """Find a number whose hash is forgotten; in answers that come later no digits are known."""
        if not self._recipients:
            return False
        tried = {
            one
            for run in _RUNS.findall(text)
            for one in (run, *_DIGITS.findall(run), *re.split(r"[\s/]+", run))
        }
        return any(map(self._is_recipient, tried))

    def _names_session(self, text: str, words: frozenset[str] | set[str]) -> bool:
        """Find a session number as a word: `1001` is not in `10010`, nor in `a-1001`."""
        if not words and not self._other_sessions:
            return False
        text = text.casefold()
        return not words.isdisjoint(_WORD.findall(text) if words else ()) or any(
            session in text and alone.search(text) for session, alone in self._other_sessions
        )


class _Said:
    """Every text and number of a JSON, with its key, and every key that is not the API's.

    Also those that a later one of the same name overrides.
    """

    def __init__(self) -> None:
        self.pairs: list[tuple[str | None, str]] = []

    def read(self, text: str | bytes) -> Any:
        return json.loads(
            text, strict=False, parse_constant=str, parse_int=str, parse_float=_Fraction,
            object_pairs_hook=self._take,
        )  # fmt: skip

    def _take(self, pairs: list[tuple[str, Any]]) -> object:
        last = dict(pairs)
        for name, value in pairs:
            if name not in api.KEYS:
                self.pairs.append((None, name))
            # what is overridden stands nowhere: it is a text like any other
            self.note(name if last[name] is value else None, value)
        return _READ

    def note(self, key: str | None, value: Any) -> None:
        if isinstance(value, list):
            for one in value:
                self.note(key, one)
        elif isinstance(value, str):
            self.pairs += [(key, text) for text in _texts(value)]


class _Fraction(str):
    """A number with a point or an exponent, as it is written."""


def _texts(value: str) -> Iterator[str]:
    """Yield what a text or number may say; a number with a point may be a whole one."""
    yield str(value)
    if isinstance(value, _Fraction) and math.isfinite(number := float(value)):
        yield repr(number)
        if number.is_integer():
            yield str(int(number))


def _compact(text: str) -> str:
    """Remove what may stand between a number's digits; wide digits become plain ones."""
    return _BETWEEN.sub("", text if text.isascii() else unicodedata.normalize("NFKC", text))
