"""Whether a raw answer names somebody who is forgotten: a phone or a session, in any spelling.

A body that does is emptied whole, because cutting out one part leaves the question what else in
it is about the person. So this only says whether, and when in doubt it says yes: it searches the
text of the body, whether or not that is JSON. No files here.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from html import unescape
from typing import Final

from usms_pipeline.people.phones import PhoneBook
from usms_pipeline.service import api

_FEWEST_DIGITS: Final = 6
_FEWEST_ANYWHERE: Final = 9
"""This many digits are sought inside longer runs of digits too; fewer would be met by chance."""
_BETWEEN: Final = re.compile(r"[\s()+.\-/_\u00ad\u200b-\u2015\u2060\ufeff]+")
_RUNS: Final = re.compile(r"\+?\(?\+?\d[\d\s()+.\-/\u200b-\u2015\ufeff]{4,24}\d")
_DIGITS: Final = re.compile(r"\+?\d{6,15}")
_WORD: Final = re.compile(r"[\w-]+")
_ESCAPES: Final = re.compile(r'(?:\\(?:u[0-9a-fA-F]{4}|["\\/bfnrt]))+')
_EXPONENT: Final = re.compile(r"\d(?:\.\d+)?[eE]\+?1?\d(?!\d)")  # 1.3800138e10
_TEXT: Final = r'"((?:[^"\\]++|\\.)*+)"'  # the marks ++ and *+: linear in a long text
_KEY: Final = re.compile(rf'"(?:{"|".join(sorted(api.KEYS))})"\s*:')
_SESSION: Final = re.compile(rf'"{api.ITEM["session_no"]}"\s*:\s*{_TEXT}')
_PHONE: Final = re.compile(rf'"{api.RECEIPT["phone"]}"\s*:\s*(?:{_TEXT}|(\d+))')


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
    the hash is. Another number that ends with the same eight digits counts as named too.
    """

    def __init__(self, forgotten: Forgotten, book: PhoneBook, phones: Iterable[str] = ()) -> None:
        self.forgotten, self._book = forgotten, book
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
        raw = body.decode(json.detect_encoding(body), "replace")
        # As it is written, too: a session may be called a&amp;b; or like a key of the service's.
        if any(self._names_session(_KEY.sub(" ", text)) for text in {raw, unescape(_plain(raw))}):
            return True
        text = unescape(_plain(_SESSION.sub(" ", raw)))  # digits there are no phone
        text = _EXPONENT.sub(lambda found: f"{float(found[0]):.0f}", text)
        # a phone may be no number, and have a hash all the same
        phones = {_plain(one) or digits for one, digits in _PHONE.findall(raw)}
        return self._names_phone(text) or self._names_recipient(text, phones)

    def _names_phone(self, text: str) -> bool:
        """Find a number in any spelling, also where other digits stand right beside it."""
        if not self._last and not self._whole:
            return False
        text = text if text.isascii() else unicodedata.normalize("NFKC", text)
        compact = _BETWEEN.sub("", text)
        return any(digits in compact for digits in self._whole) or any(
            digits in form and alone.search(form)
            for digits, alone in self._last
            for form in (text, compact)
        )

    def _names_recipient(self, text: str, phones: set[str]) -> bool:
        """Find a number whose hash is forgotten; in answers that come later no digits are known."""
        recipients = self.forgotten.recipients
        if not recipients:
            return False
        tried = phones | {
            one
            for run in {*_RUNS.findall(text)}
            for one in (run, *_DIGITS.findall(run), *re.split(r"[\s/]+", run))
        }
        return any(self._book.recipient_id(one) in recipients for one in tried)

    def _names_session(self, text: str) -> bool:
        """Find a session number as a word: `1001` is not in `10010`, nor in `a-1001`."""
        text = text.casefold()
        return not self._words.isdisjoint(_WORD.findall(text) if self._words else ()) or any(
            session in text and alone.search(text) for session, alone in self._other_sessions
        )


def _plain(text: str) -> str:
    """Return a text with what JSON escapes in it as it is meant."""
    return _ESCAPES.sub(lambda found: str(json.loads(f'"{found[0]}"')), text)
