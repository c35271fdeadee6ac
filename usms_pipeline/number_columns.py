"""A whole column of texts read as phone numbers, without a step of Python for each of them.

The answers are ``NumberingPlan``'s, asked once for all numbers that share the digits which settle
them; here they are only looked up and put together. No hashing, no masking.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.numbering import Answer, Line, Number, NumberingPlan

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NO_LINE: Final = 0
_FEWEST, _MOST = 5, 15
"""Digits of a number that may be read here: what ``NumberingPlan`` calls a plain text."""
_FIRST_LOOK: Final = 3
_PLUS, _ZERO = ord("+"), ord("0")
POWERS: Final = np.array([10**n for n in range(19)], np.int64)


class Numbers(NamedTuple):
    """What each text of a column says.

    ``digits``: the E.164 form without its plus, as an integer; 0 where the text says no number.
    ``line``: a place in ``lines``; place 0 is no line.
    """

    digits: Ints
    line: Ints
    lines: list[Line | None]

    def __repr__(self) -> str:
        return f"Numbers({len(self.digits)} texts, {len(self.lines) - 1} lines)"


@dataclass
class _Answers:
    """What is known of texts of one form: so many digits, with a plus or without."""

    # length → prefix → answer
    prefixes: dict[int, dict[int, int]] = field(default_factory=dict, repr=False)
    # what no prefix settles
    exact: dict[int, int] = field(default_factory=dict, repr=False)


class NumberColumns:
    """Reads columns of texts under one plan, and keeps what it has learned for the next column."""

    def __init__(self, plan: NumberingPlan) -> None:
        self._plan = plan
        self._lines: list[Line | None] = [None]
        self._line_places: dict[tuple[object, ...], int] = {}
        # Of each answer: its lead (digits before the text's own), the digits dropped, its line.
        self._leads, self._dropped, self._line_of = [0], [0], [NO_LINE]
        self._forms: dict[tuple[int, bool], _Answers] = {}

    def read(self, texts: pa.StringArray) -> Numbers:
        """Read every text (string, no matter how many chunks it had); null says no number."""
        digits = np.zeros(len(texts), np.int64)
        line = np.zeros(len(texts), np.int64)
        is_left = np.ones(len(texts), np.bool_)
        for count, has_plus, places, values in _plain(texts):
            answers = self._answers(count, has_plus, values)
            digits[places] = self._e164(answers, values, count)
            line[places] = np.array(self._line_of)[answers]
            is_left[places] = False
        self._read_odd(texts, np.flatnonzero(is_left), digits, line)
        return Numbers(digits, line, self._lines)

    def _read_odd(self, texts: pa.StringArray, places: Ints, digits: Ints, line: Ints) -> None:
        """Read what is written in another way one by one, each distinct text once."""
        coded = pc.dictionary_encode(texts.take(pa.array(places)))
        read = [self._numbered(text) for text in coded.dictionary.to_pylist()]
        known = np.array([*read, (0, NO_LINE)], np.int64)
        found = known[np.asarray(coded.indices.fill_null(len(read)))]
        digits[places], line[places] = found[:, 0], found[:, 1]

    def _numbered(self, text: str) -> tuple[int, int]:
        number = self._plan.read(text.strip()) if text.strip() else None
        return (0, NO_LINE) if number is None else (int(number.e164[1:]), self._placed(number.line))

    def _answers(self, count: int, has_plus: bool, values: Ints) -> Ints:
        """Give each number's answer; asks the plan about one of those that nothing settles yet.

        Ever longer beginnings tell apart which ones to ask about, so that the questions are as
        few as the answers, and each round leaves fewer numbers open.
        """
        form = self._forms.setdefault((count, has_plus), _Answers())
        answers = np.full(len(values), -1, np.int64)
        open_ones = _settle(form, count, values, answers, np.arange(len(values)))
        for length in range(_FIRST_LOOK, count + 1):
            if not len(open_ones):
                return answers
            heads = values[open_ones] // POWERS[count - length]
            for value in values[open_ones[np.unique(heads, return_index=True)[1]]].tolist():
                self._ask(form, count, has_plus, value)
            open_ones = _settle(form, count, values, answers, open_ones)
        return answers

    def _ask(self, form: _Answers, count: int, has_plus: bool, value: int) -> None:
        """Learn what settles a number, or the answer to it alone."""
        text = f"{'+' if has_plus else ''}{value:0{count}d}"
        number = self._plan.read(text)
        found = None if number is None else self._plan.answer(text, number)
        if found is None:
            form.exact[value] = self._kept(_alone(number, count, has_plus), has_plus)
            return
        length, answer = found
        kept = form.prefixes.setdefault(length - has_plus, {})
        kept[value // 10 ** (count - (length - has_plus))] = self._kept(answer, has_plus)

    def _kept(self, answer: Answer | None, has_plus: bool) -> int:
        if answer is None:
            return 0
        self._leads.append(int(answer.lead[1:] or 0))
        self._dropped.append(answer.dropped - has_plus)
        self._line_of.append(self._placed(answer.line))
        return len(self._leads) - 1

    def _placed(self, line: Line) -> int:
        content = tuple(vars(line).values())
        if content not in self._line_places:
            self._line_places[content] = len(self._lines)
            self._lines.append(line)
        return self._line_places[content]

    def _e164(self, answers: Ints, values: Ints, count: int) -> Ints:
        tail = POWERS[count - np.array(self._dropped, np.int64)[answers]]
        digits = np.array(self._leads, np.int64)[answers] * tail + values % tail
        return np.where(answers == 0, 0, digits)


def _alone(number: Number | None, count: int, has_plus: bool) -> Answer | None:
    """Give an answer that holds for one text only: all of the number is its lead."""
    return None if number is None else Answer(number.e164, count + has_plus, number.line)


def _settle(form: _Answers, count: int, values: Ints, answers: Ints, places: Ints) -> Ints:
    """Put in the answers that are known; gives the places that stay open."""
    for length, known in form.prefixes.items():
        places = _look_up(known, values // POWERS[count - length], answers, places)
    return _look_up(form.exact, values, answers, places)


def _look_up(known: dict[int, int], keys: Ints, answers: Ints, places: Ints) -> Ints:
    if not known or not len(places):
        return places
    found = pc.index_in(pa.array(keys[places]), value_set=pa.array(known, pa.int64()))
    index = np.asarray(found.fill_null(-1), np.int64)
    is_known = index >= 0
    answers[places[is_known]] = np.fromiter(known.values(), np.int64)[index[is_known]]
    return places[~is_known]


def _plain(texts: pa.StringArray) -> Iterator[tuple[int, bool, Ints, Ints]]:
    """Give the texts of digits alone, by form: how many, with a plus?, places, their values.

    A leading ``00`` stands for a plus and is left to the plan.
    """
    offsets, data = _buffers(texts)
    if not len(data):
        return
    starts, sizes = offsets[:-1], np.diff(offsets)
    is_plus = data[np.minimum(starts, len(data) - 1)] == _PLUS
    counts = np.where(sizes > 0, sizes - is_plus, 0)
    for has_plus in (False, True):
        for count in np.unique(counts[is_plus == has_plus]).tolist():
            if not _FEWEST <= count <= _MOST:
                continue
            places = np.flatnonzero((counts == count) & (is_plus == has_plus))
            values, is_number = _values(data, starts[places] + has_plus, count)
            if not has_plus:
                is_number &= values >= POWERS[count - 2]
            if texts.null_count:
                is_number &= np.asarray(texts.is_valid())[places]
            yield count, has_plus, places[is_number], values[is_number]


def _values(data: npt.NDArray[np.uint8], starts: Ints, count: int) -> tuple[Ints, Bools]:
    """Read so many digits from each start; tells which are digits all."""
    values = np.zeros(len(starts), np.int64)
    is_number = np.ones(len(starts), np.bool_)
    for place in range(count):
        digit = data[starts + place] - np.uint8(_ZERO)
        is_number &= digit <= 9
        values *= 10
        values += digit
    return values, is_number


def _buffers(texts: pa.StringArray) -> tuple[Ints, npt.NDArray[np.uint8]]:
    _, offsets, data = texts.buffers()
    if offsets is None or not len(texts):
        return np.zeros(1, np.int64), np.zeros(0, np.uint8)
    begin = texts.offset
    places = np.frombuffer(offsets, np.int32)[begin : begin + len(texts) + 1].astype(np.int64)
    return places, np.frombuffer(data if data is not None else b"", np.uint8)
