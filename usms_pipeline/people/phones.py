"""Phone numbers as personal data: the keyed hash of one, and the mask that may be shown.

libphonenumber decides which number a text is (``ask``). Its answer for one number holds for all
that share the leading digits it depends on: these prefixes are learnt, and kept for the next
process, so that few numbers have to be asked about. A text that hides digits (``138****8000``) is
a mask and no number: nobody can tell whose it is, so it counts only within its own session. No
number is ever logged.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import astuple, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import phonenumbers
import pyarrow as pa
import pyarrow.compute as pc
from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneNumber, PhoneNumberType

from usms_pipeline.contract.errors import StorageError
from usms_pipeline.contract.schema import as_one_array
from usms_pipeline.days.general import LONGEST_ENDING, SHORTEST_ENDING, Ends
from usms_pipeline.people.phone_key import fingerprint

if TYPE_CHECKING:
    from usms_pipeline.store.storage import Store

DESCRIPTION: Final = pa.struct(
    [
        ("recipient", pa.string()),
        ("phone", pa.string()),
        ("country", pa.string()),
        ("operator", pa.string()),
        ("number_type", pa.string()),
        ("mask", pa.string()),  # how a mask begins and ends, as ``mask_ends``; null of all others
        ("digits", pa.string()),
    ]
)
"""What ``PhoneBook.describe`` says of a text. Of a mask only ``phone`` and ``mask`` are known.

``digits`` are for memory and not for disk: the E.164 form without ``+``, or 8 to 17 digits as they
are written, where they say no number.
"""

MASK: Final = "****"
PREFIX_FILE: Final = "prefixes.json"
_MASKED: Final = r"^(\+\d{1,6}|\d{1,3})?\*{4}\d{0,2}$"
_HASH_BLOCK_BYTES: Final = 64
_RECIPIENT_DIGITS: Final = 32
_END_DIGITS: Final = 16
_HEAD, _TAIL, _OF_A_SESSION = "HEAD", "TAIL", "MASK"
"""Prefixes of hashed texts that are no recipients: recipients are E.164 or have no capitals."""

_FEW: Final = 250
"""Numbers that are asked about one by one, at 30 µs each, before any prefix is learnt: what it
takes to learn the first one of a country (patterns are compiled) costs as much as 250 answers."""

_LEFT_OPEN: Final = 4
"""Fewest digits that a prefix leaves open: 10,000 numbers share it, so a file may hold it."""

_MOST_PREFIXES: Final = 20_000
"""With more, all are dropped. All operators of India have 3,258; the file is 2 MB at most."""

_FORMAT: Final = 2
"""To be raised when ``ask`` reads a text in another way, or the file has another form."""

_TRIED: Final = 500
"""Texts that are read one by one, then twice as many, before prefixes are tried again."""

_AT_ONCE: Final = 20_000
"""How many texts share the memory of those before: 200,000 at once take 0.1 s more, most of
it for page faults."""

_PLAIN: Final = re.compile(r"\+?[0-9]{5,15}")
_SEPARATORS: Final = re.compile(r"[\s\-.\u2010-\u2015\u200b\ufeff/]")
_IN_BRACKETS: Final = re.compile(r"\(\+?(?:00)?([1-9]\d{0,2})\)(\d+)")
_CHINESE_MOBILE: Final = re.compile(r"1\d{10}")
_HIDING: Final = re.compile(r"[*#xX\uff0a\uff03\uff38\uff58]")
_HIDDEN: Final = re.compile(r"(\+?)([0-9]*)([*#x][0-9*#x]*?)([0-9]*)")
_BARE: Final = re.compile(r"(?:\+|00)?([0-9]{8,17})")
"""Most digits: two more than a phone number, because machines' numbers may have a code first."""
_LONGEST_MASK: Final = 40
"""Most characters. Longer texts are no numbers, and would only take time."""
_TOKEN: Final = re.compile(r"\{\d+(?:,\d+)?\}|\\d|\[[\d-]+\]|\d")
_ANY, _SOME = "x", "y"
_KINDS: Final = (
    "fixed_line", "mobile", "toll_free", "premium_rate", "shared_cost", "personal_number",
    "voip", "pager", "uan", "voicemail",
)  # fmt: skip
_TYPES: Final = {
    getattr(PhoneNumberType, name.upper()): name for name in (*_KINDS, "fixed_line_or_mobile")
}
_GETS_MESSAGES: Final = (PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE_OR_MOBILE)
_HAS_OPERATOR: Final = (*_GETS_MESSAGES, PhoneNumberType.PAGER)


class PhoneBook:
    """Describes phone numbers under one key (16 bytes or more) and one default region.

    Texts that say the same number in different ways get the same ``recipient``. With a ``store``,
    what was learnt of prefixes is found there, and kept by ``keep_prefixes``.
    """

    def __init__(
        self,
        key: bytes,
        region: str,
        mode: Literal["masked", "clear"],
        store: Store | None = None,
    ) -> None:
        self._reader = _Reader(region.upper(), store)
        self._is_clear = mode == "clear"
        short = key if len(key) <= _HASH_BLOCK_BYTES else hashlib.sha256(key).digest()
        padded = short.ljust(_HASH_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))
        self.fingerprint = fingerprint(key)

    def recipient_id(self, phone: str) -> str:
        """Return the hash that stands for a number: HMAC-SHA-256 of its E.164 form, 32 hex digits.

        Of a text that says no number, the hash of the text, trimmed and casefolded.
        """
        text = phone.strip()
        return self._hashed([self._reader.read(text)[0] or text.casefold()])[0]

    def national_digits(self, phone: str) -> str | None:
        """Return a number's digits without its country code; None if the text is no number."""
        e164, facts = self._reader.read(phone.strip())
        return None if facts is None else e164[1 + len(str(facts.country_code)) :]

    def e164(self, texts: pa.Array) -> pa.Array:
        """Return the E.164 form of every text (string); NULL if it is no number."""
        coded = pc.dictionary_encode(texts.cast(pa.string()))
        said = self._reader.read_all(coded.dictionary)[0]
        return pc.if_else(pc.equal(said, ""), None, said).take(coded.indices)

    def are_numbers(self, texts: pa.Array) -> bool:
        """Return whether most of the texts (string) are valid numbers of mobile phones."""
        types = self.describe(texts).field("number_type").drop_null().to_pylist()
        mobile = sum("mobile" in one for one in types)
        return bool(2 * mobile > len(texts) - texts.null_count)

    def ends(self, texts: list[str], with_heads: bool) -> list[Ends | None]:
        """Return how numbers begin and end, to match two spellings of one; None without digits.

        Digits that say no number have ends too: yesterday's numbers (Mexico's 521, Benin's eight
        digits) and those of things are none to libphonenumber, and met all the same.

        Where a number is compared with masks it needs its ``with_heads``: its beginnings, in
        international and national digits, and its ends of less than ``SHORTEST_ENDING`` digits.
        Texts are read as ``describe`` reads them: put a ``+`` before what it gave as ``digits``.
        """
        return [self._ends(text.strip(), with_heads) for text in texts]

    def _ends(self, text: str, with_heads: bool) -> Ends | None:
        e164, facts = self._reader.read(text)
        digits = e164[1:] or _bare_digits(text)
        if digits is None:
            return None
        first = 1 if with_heads else SHORTEST_ENDING
        lengths = range(first, min(len(digits), LONGEST_ENDING) + 1)
        tails = [""] * first + self._hashed_ends(_TAIL, (digits[-n:] for n in lengths))
        if not with_heads:
            return Ends(tails=tails if len(lengths) else [])
        national = digits[len(str(facts.country_code)) :].lstrip("0") if facts else ""
        begun = dict.fromkeys(form[:n] for form in (digits, national) for n in range(1, len(form)))
        return Ends(self._hashed_ends(_HEAD, begun), tails)

    def mask_ends(self, text: str) -> str | None:
        """Return how a mask begins and ends, as hashes with ``*`` between; None if it is no mask.

        A mask is of digits and ``*``, ``X`` or ``#``. Each hash is among the ``Ends`` of a number
        that the mask may be of; there is none at an end that shows nothing.
        """
        mask = _mask_in(text.strip())
        if mask is None:
            return None
        # trunk zeros say only that the number is national
        shown = ((_HEAD, mask.head.lstrip("0")), (_TAIL, mask.tail))
        return "*".join("".join(self._hashed_ends(of, [end] if end else [])) for of, end in shown)

    def masked_recipients(self, sessions: pa.Array, masks: pa.Array) -> pa.Array:
        """Return the recipients of numbers of which only a mask is known, unique within a session.

        The same mask in another session may be another person. NULL where ``masks`` are.
        """
        pairs = zip(sessions.to_pylist(), masks.to_pylist(), strict=True)
        hashed = self._hashed([f"{_OF_A_SESSION} {mask} {of}" for of, mask in pairs])
        return pc.if_else(masks.is_valid(), pa.array(hashed, pa.string()), None)

    def _hashed_ends(self, of: str, ends: Iterable[str]) -> list[str]:
        return [one[:_END_DIGITS] for one in self._hashed([f"{of} {end}" for end in ends])]

    def describe(self, texts: pa.Array | pa.ChunkedArray) -> pa.StructArray:
        """Return ``DESCRIPTION`` of every text (string); all null where it is null or blank."""
        texts = as_one_array(texts)
        if len(texts) > _AT_ONCE:
            parts = (texts.slice(at, _AT_ONCE) for at in range(0, len(texts), _AT_ONCE))
            return pa.concat_arrays([self.describe(part) for part in parts])
        if texts.null_count == len(texts):
            return pa.nulls(len(texts), DESCRIPTION)
        coded = pc.dictionary_encode(texts.cast(pa.string()))
        distinct = coded.dictionary
        said, places, all_facts = self._reader.read_all(distinct)
        phones = said if self._is_clear else _all_masked(said, places, all_facts)
        digits, masks = pc.utf8_slice_codeunits(said, 1), pa.nulls(len(said), pa.string())
        if None in all_facts:  # some say no number
            is_none = pa.array(places == all_facts[None])
            odd = [text.strip() for text in distinct.filter(is_none).to_pylist()]
            shown = distinct.filter(is_none) if self._is_clear else map(_masked_text, odd)
            said, phones, digits, masks = (
                pc.replace_with_mask(column, is_none, pa.array(values, pa.string()))
                for column, values in (
                    (said, [text.casefold() for text in odd]),
                    (phones, [one if text else None for one, text in zip(shown, odd, strict=True)]),
                    (digits, map(_bare_digits, odd)),
                    (masks, map(self.mask_ends, odd)),
                )
            )
        is_named = pc.and_(pc.is_valid(phones), pc.is_null(masks))
        columns = [pc.if_else(is_named, self._hashed_array(said), None), phones]
        for name in ("country", "operator", "number_type"):
            values = pa.array([getattr(facts, name, None) for facts in all_facts], pa.string())
            columns.append(values.take(pa.array(places)))
        columns += [masks, digits]
        if len(distinct) < len(coded):
            columns = [column.take(coded.indices) for column in columns]
        return pa.StructArray.from_arrays(
            columns, fields=[*DESCRIPTION], mask=pc.is_null(columns[1])
        )

    def keep_prefixes(self) -> None:
        """Store what was learnt of prefixes for the next process, if anything was."""
        self._reader.keep()

    def remasked(self, shown: pa.Array | pa.ChunkedArray) -> pa.Array:
        """Mask numbers that ``describe`` returned whole; keep those that are masked."""
        shown = as_one_array(shown)
        is_masked = pc.match_substring_regex(shown, _MASKED)
        whole = pc.if_else(pc.fill_null(is_masked, True), None, shown)
        return pc.coalesce(self.describe(whole).field("phone"), shown)

    def _hashed(self, texts: list[str]) -> list[str]:
        whole = self._hashes([text.encode("utf-8", "surrogatepass") for text in texts])
        return [
            whole[at : at + _RECIPIENT_DIGITS] for at in range(0, len(whole), _RECIPIENT_DIGITS)
        ]

    def _hashed_array(self, texts: pa.Array) -> pa.Array:
        """Return ``_hashed`` of an array; one text at a time would take half as long again."""
        whole = self._hashes(texts.cast(pa.binary()).to_pylist()).encode()
        ends = pa.array(np.arange(0, len(whole) + 1, _RECIPIENT_DIGITS, dtype=np.int32))
        return pa.StringArray.from_buffers(len(texts), ends.buffers()[1], pa.py_buffer(whole))

    def _hashes(self, texts: list[bytes]) -> str:
        # Copied contexts, 0.7 µs each: hmac.digest sets the key up again each time and takes 1.8.
        begun, ended, found = self._inner.copy, self._outer.copy, []
        for text in texts:
            inner, outer = begun(), ended()
            inner.update(text)
            outer.update(inner.digest())
            found.append(outer.digest()[: _RECIPIENT_DIGITS // 2])
        return b"".join(found).hex()


def masked(e164: str, country_code: int) -> str:
    """Hide the middle of a number; at most half of the national digits stay.

    >>> masked("+8613800138000", 86), masked("+6591234567", 65)
    ('+86138****00', '+6591****67')
    """
    head, tail = _kept(country_code, len(e164))
    return f"{e164[:head]}{MASK}{e164[len(e164) - tail :]}"


def _all_masked(
    e164: pa.Array, places: npt.NDArray[np.int64], all_facts: Iterable[Facts | None]
) -> pa.Array:
    """Return ``masked`` of every E.164 form; ``places`` are those of their facts."""
    codes = np.array([0 if facts is None else facts.country_code for facts in all_facts])[places]
    lengths = np.asarray(pc.binary_length(e164))
    kinds = codes * 64 + lengths
    shown = e164
    for kind in np.unique(kinds).tolist():
        code, length = divmod(kind, 64)
        is_its = pa.array(kinds == kind)
        its = e164.filter(is_its)
        head, tail = _kept(code, length)
        ends = pc.utf8_slice_codeunits(its, 0, head), pc.utf8_slice_codeunits(its, length - tail)
        hidden = pc.binary_join_element_wise(ends[0], MASK, ends[1], "")
        shown = pc.replace_with_mask(shown, is_its, hidden)
    return shown


def _masked_text(text: str) -> str:
    """Return what is shown of a trimmed text that is no number: a mask, or nothing."""
    mask = _mask_in(text)
    return MASK if mask is None else mask.shown


def _kept(country_code: int, length: int) -> tuple[int, int]:
    """Return how many characters stay at both ends of an E.164 form of ``length`` characters."""
    start = 1 + len(str(country_code))
    head, tail = _shown(length - start)
    return start + head, tail


def _shown(digits: int) -> tuple[int, int]:
    most = digits // 2
    tail = min(2, most // 2)
    return min(3, most - tail), tail


def _bare_digits(text: str) -> str | None:
    """Return the digits of a text that is no known number, if they may be one.

    Without ``+`` or ``00``, so that they end as they would in E.164.
    """
    found = _BARE.fullmatch(_bare(text)) if len(text) <= _LONGEST_MASK else None
    return found[1] if found else None


def _tidy(text: str) -> str:
    """Return a text without separators, wide digits made plain."""
    return _SEPARATORS.sub("", unicodedata.normalize("NFKC", text))


def _bare(text: str) -> str:
    return _tidy(text).replace("(", "").replace(")", "")


class _Mask(NamedTuple):
    """A mask: the digits before, the number of hidden characters, the digits after.

    ``is_international``: it begins with ``+`` or ``00``, neither of which is in ``head``.
    """

    is_international: bool
    head: str
    hidden: int
    tail: str

    @property
    def shown(self) -> str:
        """The mask, with no more digits than are shown of a number of that length."""
        code = ""
        if self.is_international:
            codes = (self.head[:size] for size in (1, 2, 3) if len(self.head) >= size)
            code = next((one for one in codes if int(one) in COUNTRY_CODE_TO_REGION_CODE), "")
        begin = len(code)
        head, tail = _shown(len(self.head) - begin + self.hidden + len(self.tail))
        lead = f"+{code}" if code else ""
        # not tail[-n:], which is all of it where n is 0
        end = self.tail[max(0, len(self.tail) - tail) :]
        return f"{lead}{self.head[begin : begin + head]}{MASK}{end}"


def _mask_in(text: str) -> _Mask | None:
    """Return a trimmed text as a mask, if it is one.

    Letters but ``X`` are in none: ``Max`` is a text, and ``x#y`` too.
    """
    if len(text) > _LONGEST_MASK or not _HIDING.search(text):
        return None
    found = _HIDDEN.fullmatch(_bare(text).lower())
    if found is None:
        return None
    plus, head, hidden, tail = found.groups()
    is_international = bool(plus) or head.startswith("00")
    return _Mask(is_international, head.removeprefix("00"), len(hidden), tail)


@dataclass(frozen=True, eq=False)  # by identity, which takes a third of the time to look up
class Facts:
    """What numbers with one prefix have in common; an invalid number has no type.

    ``country`` is ISO 3166-1 alpha-2, None where unknown: of a number that is valid nowhere, though
    it was read in the default region's way.
    """

    country_code: int
    country: str | None
    operator: str | None
    number_type: str | None


_Number = tuple[str, Facts | None]
"""The E.164 form, and the rest; or ``_NO_NUMBER``."""
_NO_NUMBER: Final[_Number] = ("", None)
_NOTHING: Final[tuple[tuple[int, ...], dict[str, _Number]]] = ((), {})


class _Reader:
    """Reads phone numbers as they are written in one region (ISO 3166-1 alpha-2)."""

    def __init__(self, region: str, store: Store | None) -> None:
        self._region, self._store = region, store
        self._is_recalled = False
        # Length of a text → how long its prefixes are, and of each prefix: what the E.164 form
        # begins with instead, and the facts (None: it is no number).
        self._learnt: dict[int, tuple[tuple[int, ...], dict[str, _Number]]] = {}
        self._few: dict[str, _Number] = {}  # what was asked about one by one
        self._asked: Counter[int] = Counter()  # of each country code
        self._size = self._kept = 0

    def read(self, text: str) -> _Number:
        """Return what a trimmed text says.

        Understood: E.164, the region's own way of writing, a leading ``00``, a country code
        without ``+`` or in brackets, separators and full-width digits, and ``.0`` behind digits
        alone, which a spreadsheet or a float leaves there.
        """
        if text.endswith(".0") and text[:-2].isdecimal():
            text = text[:-2]
        # before libphonenumber sees it, to which X is a 9
        if _mask_in(text):
            return _NO_NUMBER
        tidy = _tidy(text)
        spelled = [f"+{tidy[2:]}"] if tidy.startswith("00") else []
        spelled += [f"+{one[1]}{one[2]}"] if (one := _IN_BRACKETS.fullmatch(tidy)) else []
        readings = [self._plain(one) for one in (*spelled, _bare(tidy))]
        valid = (one for one in readings if one[1] is not None and one[1].number_type is not None)
        first, code = readings[0][1], _IN_BRACKETS.match(tidy)
        is_code = code is not None and first is not None and code[1] == str(first.country_code)
        # Of numbers that are valid nowhere, as mistyped ones are
        default = readings[0] if is_code and not _has_brackets(self._region) else readings[-1]
        return next(valid, default)

    def known(self, text: str) -> _Number | None:
        """Return the reading of a text, if a prefix that was learnt settles it."""
        sizes, prefixes = self._learnt.get(len(text), _NOTHING)
        for size in sizes:
            prefix = prefixes.get(text[:size])
            if prefix is not None and (tail := text[size:]).isdecimal() and tail.isascii():
                begun, facts = prefix
                return _NO_NUMBER if facts is None else (begun + tail, facts)
        return None

    def read_all(
        self, texts: pa.Array
    ) -> tuple[pa.Array, npt.NDArray[np.int64], dict[Facts | None, int]]:
        """Return the E.164 forms of texts ('' of no number), the places of their facts, and these.

        What prefixes settle is done in columns (0.2 µs a text, else 1).
        """
        if not self._is_recalled:
            self._recall()
        said = pa.nulls(len(texts), pa.string())
        places = np.full(len(texts), -1)
        all_facts: dict[Facts | None, int] = {}
        lengths = np.asarray(pc.binary_length(texts))
        known, some = -1, _TRIED
        one_by_one: list[tuple[int, str]] = []
        left = np.arange(len(texts))
        while len(left):
            if known != self._size:  # something was learnt that may settle the others
                known = self._size
                said = self._put_in_known(texts, lengths, said, places, all_facts)
                left = left[places[left] < 0]
            tried, left = left[:some], left[some:]
            some *= 2
            some_texts = texts.take(pa.array(tried)).to_pylist()
            for place, text in zip(tried.tolist(), some_texts, strict=True):
                tidy = text.strip()
                e164, facts = self.known(tidy) or self.read(tidy)
                one_by_one.append((place, e164))
                places[place] = all_facts.setdefault(facts, len(all_facts))
        if one_by_one:
            at, values = zip(*sorted(one_by_one), strict=True)
            mask = np.zeros(len(texts), np.bool_)
            mask[[*at]] = True
            said = pc.replace_with_mask(said, mask, pa.array(values, pa.string()))
        return said, places, all_facts

    def _put_in_known(
        self,
        texts: pa.Array,
        lengths: npt.NDArray[np.int64],
        said: pa.Array,
        places: npt.NDArray[np.int64],
        all_facts: dict[Facts | None, int],
    ) -> pa.Array:
        """Fill in what the learnt prefixes say of texts that have no place yet."""
        # copies: another thread may be learning
        for length, (sizes, known) in [*self._learnt.items()]:
            for size in sizes:
                at = np.flatnonzero((lengths == length) & (places < 0))
                prefixes = {text: one for text, one in [*known.items()] if len(text) == size}
                some = texts.take(pa.array(at))
                heads, tails = (pc.utf8_slice_codeunits(some, *ends)
                                for ends in ((0, size), (size,)))  # fmt: skip
                of = pc.index_in(heads, pa.array([*prefixes], pa.string()))
                of = pc.if_else(pc.ascii_is_decimal(tails), of, None)
                is_found = np.asarray(of.is_valid())
                if not is_found.any():
                    continue
                at, of, tails = at[is_found], of.drop_null(), tails.filter(pa.array(is_found))
                begun, facts = zip(*prefixes.values(), strict=True)
                e164 = pc.binary_join_element_wise(pa.array(begun, pa.string()).take(of), tails, "")
                is_number = pa.array([one is not None for one in facts]).take(of)
                code = np.array([all_facts.setdefault(one, len(all_facts)) for one in facts])
                places[at] = code[np.asarray(of)]
                mask = np.zeros(len(texts), np.bool_)
                mask[at] = True
                said = pc.replace_with_mask(said, mask, pc.if_else(is_number, e164, ""))
        return said

    def _plain(self, text: str) -> _Number:
        if not self._is_recalled:
            self._recall()
        known = self.known(text) or self._few.get(text)
        if known is not None:
            return known
        number = ask(text, self._region)
        code = 0 if number[1] is None else number[1].country_code
        self._asked[code] += 1
        if self._asked[code] <= _FEW:
            self._few[text] = number
        elif _PLAIN.fullmatch(text) and not text.startswith("00"):
            self._learn(text, number)
        return number

    def _learn(self, text: str, number: _Number) -> None:
        (said, facts), begun = number, ""
        size = settling(text, self._region)
        if size is None:
            return
        if facts is not None:
            lead = f"+{facts.country_code}"
            dropped = len(text) - len(said) + len(lead)
            if not 0 <= dropped <= size or lead + text[dropped:] != said:
                return
            shown, _ = _kept(facts.country_code, len(said))
            begun = lead + text[dropped:size]
            while len(begun) < shown or (size < len(text) and _is_open(begun)):
                begun += text[size]
                size += 1
        if len(text) - size >= _LEFT_OPEN:
            self._add(len(text), text[:size], begun, facts)

    def _add(self, length: int, prefix: str, e164: str, facts: Facts | None) -> None:
        if self._size >= _MOST_PREFIXES:
            self._learnt, self._size, self._kept = {}, 0, 0
        sizes, prefixes = self._learnt.get(length, ((), {}))
        prefixes[prefix] = (e164, facts)
        self._learnt[length] = (tuple(sorted({*sizes, len(prefix)})), prefixes)
        self._size += 1

    def _recall(self) -> None:
        """Learn what an earlier process kept, if it is whole and of this region and library."""
        self._is_recalled = True
        if self._store is None:
            return
        said = self._store.recall(PREFIX_FILE)
        if said.get("stamp") == self._stamp(said.get("prefixes")):
            for length, prefix, e164, facts in said["prefixes"]:
                self._add(length, prefix, e164, facts and Facts(*facts))
        self._kept = self._size

    def keep(self) -> None:
        """Write what was learnt, if that is more than the file has."""
        if self._store is None or self._size == self._kept:
            return
        prefixes = [
            (length, prefix, e164, facts and astuple(facts))
            for length, (_, known) in list(self._learnt.items())
            for prefix, (e164, facts) in list(known.items())
        ]
        self._kept = self._size
        with suppress(StorageError):
            said = {"stamp": self._stamp(prefixes), "prefixes": prefixes}
            self._store.keep_json(PREFIX_FILE, said, private=True)

    def _stamp(self, prefixes: object) -> str:
        said = json.dumps([_FORMAT, phonenumbers.__version__, self._region, prefixes])
        return hashlib.sha256(said.encode()).hexdigest()


@cache
def _has_brackets(region: str) -> bool:
    """Return whether a region's own numbers are written with a code in brackets: (11) 2345-6789.

    Not (011) 2345…: a country code never begins with a zero. Only some countries do, Brazil,
    Russia and North America among them.
    """
    code = phonenumbers.country_code_for_region(region)
    formats = _metadata(code, COUNTRY_CODE_TO_REGION_CODE[code][0]).number_format
    forms = (form for one in formats for form in (one.format, one.national_prefix_formatting_rule))
    return any("(\\1)" in form for form in forms if form)


# -- libphonenumber, and how many digits its answer depends on -------------------------------------


def ask(text: str, region: str) -> _Number:
    """Return what libphonenumber says of a tidy text.

    Without a plus the region's reading comes first and one with a country code second: a valid
    number before a possible one, and a number that can get messages before a fixed line.
    """
    if _is_chinese_mobile(text, region):
        text = f"+86{text}"
    if text.startswith("+"):
        number = _parsed(text, None)
        return _described(number) if number is not None and _is_possible(number) else _NO_NUMBER
    readings = [_parsed(text, region), _parsed(f"+{text}", None) if text.isdecimal() else None]
    for is_good in (
        lambda number: phonenumbers.number_type(number) in _GETS_MESSAGES,
        phonenumbers.is_valid_number,
        _is_possible,
    ):
        for number in readings:
            if number is not None and is_good(number):
                return _described(number)
    return _NO_NUMBER


def _is_chinese_mobile(text: str, region: str) -> bool:
    """Return whether a text has one reading, though its digits could be another country's."""
    return region == "CN" and _CHINESE_MOBILE.fullmatch(text) is not None


def _parsed(text: str, region: str | None) -> PhoneNumber | None:
    try:
        return phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None


def _is_possible(number: PhoneNumber) -> bool:
    reason = phonenumbers.is_possible_number_with_reason(number)
    return bool(reason == phonenumbers.ValidationResult.IS_POSSIBLE)


def _described(number: PhoneNumber) -> _Number:
    kind = phonenumbers.number_type(number)
    # Of an invalid number libphonenumber gives the only country of the country code, which may be
    # the default region's.
    is_valid = kind != PhoneNumberType.UNKNOWN
    country = phonenumbers.region_code_for_number(number) if is_valid else None
    operator = None
    if kind in _HAS_OPERATOR:
        from phonenumbers import carrier  # 20 ms, and not needed where all prefixes are known

        operator = carrier.name_for_valid_number(number, "en") or None
    facts = Facts(
        country_code=number.country_code or 0,
        country=country if country and country.isalpha() else None,
        operator=operator,
        number_type=_TYPES.get(kind),
    )
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164), facts


def settling(text: str, region: str) -> int | None:
    """Return how many leading characters of a plain text settle what ``ask`` says of it.

    It says the same of all texts of that length and beginning, but for the digits that follow.
    None: so long that fewer than ``_LEFT_OPEN`` are left, or not known.

    ``ask`` looks at digits by their number and by libphonenumber's patterns alone. So each of the
    patterns that it may reach is tried on the digits that are known and a sign for each other one:
    ``_ANY`` matches where the pattern accepts every digit, ``_SOME`` where it accepts some. A
    pattern that matches with both signs, or with neither, gives one answer for all digits.
    """
    start = 1 if text.startswith("+") else 0
    digits = text[start:]
    readings: list[tuple[str, int, int]] = []  # whose plan, its country code, where it begins
    if not start:
        own = phonenumbers.country_code_for_region(region)
        readings.append((region, own, 0))
        if digits.startswith(str(own)):
            readings.append((region, own, len(str(own))))
    codes = (int(digits[:size]) for size in (1, 2, 3) if digits[0] != "0")
    code = next((one for one in codes if one in COUNTRY_CODE_TO_REGION_CODE), None)
    if code is not None and not _is_chinese_mobile(text, region):
        readings.append((COUNTRY_CODE_TO_REGION_CODE[code][0], code, len(str(code))))
    size: int | None = 3  # digits that decide the country code
    for region_of, code_of, offset in readings:
        size = size and _settled(digits, size, _plan(region_of, code_of), offset)
    return size and start + size


class _Plan(NamedTuple):
    """How numbers of a country code are read: what is asked of the digits."""

    patterns: tuple[tuple[re.Pattern[str], bool], ...]  # each: may it match? Else it strips digits
    prefixes: tuple[str, ...]  # what is always stripped: "0"


def _settled(digits: str, size: int, plan: _Plan | None, offset: int) -> int | None:
    if plan is None:
        return None
    offsets = [offset]
    for offset in offsets:  # grows on the way
        for prefix in plan.prefixes:
            size = max(size, offset + len(prefix))
            if digits.startswith(prefix, offset):
                offsets.append(offset + len(prefix))
        for pattern, may_match in plan.patterns:
            while (left := len(digits) - size) >= _LEFT_OPEN:
                known = digits[offset:size]
                if not pattern.fullmatch(known + _SOME * left):
                    break
                if may_match and pattern.fullmatch(known + _ANY * left):
                    break
                size += 1
            else:
                return None
    return size


@cache
def _plan(region: str, code: int) -> _Plan | None:
    regions = [_metadata(code, one) for one in COUNTRY_CODE_TO_REGION_CODE[code]]
    own = _metadata(code, region)
    prefixes: set[str] = set()
    stripping = {own.international_prefix}
    for one in (own, regions[0]):  # what the country code's main region strips, goes as well
        prefix = one.national_prefix_for_parsing or ""
        is_plain = prefix.isdecimal() and not one.national_prefix_transform_rule
        (prefixes if is_plain else stripping).add(prefix)
    kinds = (getattr(one, kind) for one in regions for kind in ("general_desc", *_KINDS))
    matching = {kind.national_number_pattern for kind in kinds if kind is not None}
    leading = {one.leading_digits for one in regions}
    try:
        patterns = [
            *((_opened(pattern, "begins"), False) for pattern in stripping if pattern),
            *((_opened(pattern, "begins"), True) for pattern in leading if pattern),
            *((_opened(pattern, "is"), True) for pattern in matching if pattern),
        ]
    except ValueError:
        return None
    return _Plan(tuple(patterns), tuple(prefixes))


def _metadata(code: int, region: str) -> Any:
    return phonenumbers.PhoneMetadata.metadata_for_region_or_calling_code(code, region)


def _opened(pattern: str, of: Literal["begins", "is"]) -> re.Pattern[str]:
    """Compile a pattern for unknown digits. Raise ``ValueError`` if it has an unknown form.

    Only what is listed here is understood: with a negation, what matches more digits could match
    fewer numbers.
    """
    if not re.fullmatch(rf"(?:{_TOKEN.pattern}|\(\?:|[()|?$])*", pattern):
        raise ValueError("not a pattern of digits, sets, groups and repeats")
    opened = _TOKEN.sub(_open_token, pattern)
    return re.compile(opened if of == "is" else rf"(?:{opened})[\d{_ANY}{_SOME}]*")


def _open_token(token: re.Match[str]) -> str:
    text = token[0]
    if text.startswith("{"):
        return text
    return rf"[\d{_ANY}{_SOME}]" if text == r"\d" else f"[{text.strip('[]')}{_SOME}]"


def _is_open(e164: str) -> bool:
    """Return whether the operator depends on the digits after this prefix."""
    prefixes, beginning = _operator_prefixes(), e164[1:]
    at = bisect_right(prefixes, beginning)
    return at < len(prefixes) and prefixes[at].startswith(beginning)


@cache
def _operator_prefixes() -> list[str]:
    from phonenumbers.carrierdata import CARRIER_DATA

    return sorted(CARRIER_DATA)
