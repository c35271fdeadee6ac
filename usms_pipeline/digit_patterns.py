"""How many leading digits settle whether a pattern of a numbering plan matches.

Knows the small language of such patterns (digits, ``\\d``, classes, groups, bounded repeats), not
phone numbers. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

Sequence = tuple["Atom", ...]
Atom = frozenset[str] | tuple[str, tuple[Sequence, ...], int, int]
"""One digit of a set, or ``("of", options, least, most)``: one of the options, repeated."""
State = frozenset[Sequence]
"""What may still follow, after some digits were read; empty when no match is possible."""

ANY: Final = frozenset("0123456789")
_TOKEN: Final = re.compile(
    r"(?P<any>\\d)|(?P<digit>\d)|\[(?P<set>[\d-]+)\]|(?P<open>\((?:\?:)?)|(?P<close>\))"
    r"|(?P<or>\|)|\{(?P<least>\d+)(?:,(?P<most>\d+))?\}|(?P<maybe>\?)|(?P<end>\$)"
)


def start(patterns: Iterable[str]) -> State:
    """Give the state of several patterns at once, before any digit.

    ``$`` is left out, which can only add matches. Raises ``ValueError`` for a pattern outside the
    language.
    """
    return frozenset(_parse(pattern) for pattern in patterns)


@lru_cache(maxsize=200_000)
def step(state: State, digit: str) -> State:
    """Give the state after one more digit."""
    return frozenset(
        rest for sequence in state for digits, rest in _heads(sequence) if digit in digits
    )


@lru_cache(maxsize=200_000)
def is_settled(state: State) -> bool:
    """Tell whether only the number of the digits that follow matters, not which they are."""
    return all(_is_free(sequence) for sequence in state)


@lru_cache(maxsize=200_000)
def may_end(state: State) -> bool:
    """Tell whether one of the patterns matches the digits read so far, whatever follows."""
    return any(_may_be_empty(sequence) for sequence in state)


@lru_cache(maxsize=200_000)
def _heads(sequence: Sequence) -> tuple[tuple[frozenset[str], Sequence], ...]:
    """Give what can come first, each with what follows it."""
    return tuple(_first(sequence))


def _first(sequence: Sequence) -> Iterator[tuple[frozenset[str], Sequence]]:
    if not sequence:
        return
    head, rest = sequence[0], sequence[1:]
    if isinstance(head, frozenset):
        yield head, rest
        return
    _, options, least, most = head
    if most > 0:
        again: Sequence = (("of", options, max(least - 1, 0), most - 1),) if most > 1 else ()
        for option in options:
            yield from _heads((*option, *again, *rest))
    if least == 0:
        yield from _heads(rest)


def _may_be_empty(sequence: Sequence) -> bool:
    return all(
        not isinstance(atom, frozenset)
        and (atom[2] == 0 or any(_may_be_empty(option) for option in atom[1]))
        for atom in sequence
    )


def _is_free(sequence: Sequence) -> bool:
    return all(
        atom == ANY if isinstance(atom, frozenset) else all(_is_free(o) for o in atom[1])
        for atom in sequence
    )


@lru_cache(maxsize=10_000)
def _parse(pattern: str) -> Sequence:
    groups: list[list[list[Atom]]] = [[[]]]
    position = 0
    for token in _TOKEN.finditer(pattern):
        if token.start() != position:
            break
        position = token.end()
        _read(token, groups)
    if position != len(pattern) or len(groups) != 1:
        raise ValueError("a pattern outside the language")
    return (_of(groups[0]),)


def _read(token: re.Match[str], groups: list[list[list[Atom]]]) -> None:
    kind, current = token.lastgroup, groups[-1][-1]
    if kind == "any":
        current.append(ANY)
    elif kind in ("digit", "set"):
        current.append(_digits(token[kind]))
    elif kind == "open":
        groups.append([[]])
    elif kind == "close":
        group = groups.pop()
        groups[-1][-1].append(_of(group))
    elif kind == "or":
        groups[-1].append([])
    elif kind in ("least", "most", "maybe"):
        least, most = (0, 1) if kind == "maybe" else (int(token["least"]), int(token[kind]))
        current.append(("of", ((current.pop(),),), least, most))


def _of(options: list[list[Atom]]) -> Atom:
    return ("of", tuple(tuple(option) for option in options), 1, 1)


def _digits(text: str) -> frozenset[str]:
    return frozenset(digit for digit in ANY if re.fullmatch(f"[{text}]", digit))
