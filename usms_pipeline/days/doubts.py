"""What is suspicious about rows of the source: one judge for ``check``, ``plan`` and ``run``.

It looks at some rows, before anything is sent to the service or stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.contract import wording
from usms_pipeline.contract.errors import UsmsError
from usms_pipeline.people.phones import MASK, PhoneBook
from usms_pipeline.settings import Settings
from usms_pipeline.source import Cells, phones_in

MOST_ROWS: Final = 20_000
"""Rows that a run judges, in a twentieth of a second."""
_TRIED: Final = 100
"""Texts that are tested for phone numbers: 3 ms."""
_FEWEST: Final = 100
"""Fewest rows of odd sessions that stop a run: a few may be odd."""
_MOST_ODD: Final = 0.9
"""Share of the rows: many may have a text for "not sent", but others have a number."""
_MOST_PHONES: Final = 1_000
"""Most phones that the service accepts in one send call."""
_IS_TIME: Final = r"^\d{4}[-/.]\d{1,2}[-/.]\d{1,2}[T ]\d{1,2}:"
_IS_E164: Final = r"^\+[\d\s().-]{8,20}$"


@dataclass(frozen=True)
class Doubt:
    """A warning: a sentence without a period.

    ``topic``: what ``usms check`` files it under. ``stops``: a run must not go on, or it would
    send, store or publish wrong values.
    """

    topic: str
    text: str
    stops: bool = False


def of_rows(rows: pa.Table, cells: Cells, settings: Settings, book: PhoneBook) -> list[Doubt]:
    """Return the doubts about some rows as ``source.read`` gives them, and about their cells."""
    found = [_of_session_texts(rows, settings, book), _of_sessions(rows, settings)]
    if rows["phone"].null_count < rows.num_rows and not _say_phones(rows, book):
        column = f"{settings.phone_column!r} (USMS_PHONE_COLUMN)"
        text = f"most values of {column} are not phone numbers: is that the right column?"
        found.append(Doubt("phones", text))
    return [doubt for doubt in (*found, *_of_cells(cells, settings)) if doubt is not None]


def notes(doubts: Iterable[Doubt]) -> list[str]:
    """Return the doubts as sentences. Raises ``UsmsError`` where one of them stops."""
    said = []
    for doubt in doubts:
        text = f"{'nothing was asked: ' if doubt.stops else ''}{doubt.text}"
        said.append(f"{text[0].upper()}{text[1:]}{'' if text.endswith('?') else '.'}")
        if doubt.stops:
            raise UsmsError(said[-1])
    return said


def look_like_phones(texts: pa.Array, book: PhoneBook) -> bool:
    """Return whether most of some texts (string) are phone numbers, or lists of them."""
    return _are_phones(_phones_in(_some(texts)), book)


def _are_phones(texts: pa.Array, book: PhoneBook) -> bool:
    return _are_e164(texts) or (len(texts) > 0 and book.are_numbers(texts))


def _phones_in(texts: pa.Array) -> pa.Array:
    found = (phones_in(text)[0] for text in texts.to_pylist())
    return pa.array([phone for some in found for phone in some], pa.string())


def _are_e164(texts: pa.Array) -> bool:
    written_so = pc.sum(pc.match_substring_regex(texts, _IS_E164)).as_py() or 0
    return bool(2 * written_so > len(texts))


def _some(texts: pa.Array) -> pa.Array:
    """Return some of the distinct texts, from all over the rows."""
    distinct = texts.drop_null().unique()
    every = -(-len(distinct) // _TRIED) or 1
    return distinct.take(pa.array(range(0, len(distinct), every), pa.int64()))


def _of_session_texts(rows: pa.Table, settings: Settings, book: PhoneBook) -> Doubt | None:
    texts = _some(rows["session_no"].combine_chunks())
    column = f"{settings.session_column!r} (USMS_SESSION_COLUMN)"
    if texts and 2 * pc.sum(pc.match_substring_regex(texts, _IS_TIME)).as_py() > len(texts):
        return Doubt(
            "rows",
            f"the values of {column} are times, not session numbers: set USMS_SESSION_COLUMN to "
            f"the column of what the send call returned",
            stops=True,
        )
    flat = _phones_in(texts)
    if not _are_phones(flat, book):
        return None
    # Digits alone may be session numbers all the same: where the phones are known, it is no mix-up,
    # and where no column of phones is named, nothing shows that it is one.
    if len(flat) > len(texts) or _are_e164(flat):
        may_be = look_like_phones(rows["phone"].combine_chunks(), book)
    else:
        may_be = settings.phone_column is None or _say_phones(rows, book)
    said = f"the values of {column} look like phone numbers"
    if may_be:
        said += (
            ": they are sent to the service as session numbers and published unmasked. If they "
            "are phones, correct the setting, use another USMS_DATA_DIR and delete this one"
        )
    else:
        said += (
            ", and would be sent to the service as session numbers and published unmasked: set "
            "USMS_SESSION_COLUMN to the column of what the send call returned"
        )
        said += ", or does USMS_PHONE_COLUMN name that one" if settings.phone_column else ""
    return Doubt("rows", said, stops=not may_be)


def _of_sessions(rows: pa.Table, settings: Settings) -> Doubt | None:
    """Warn of sessions with more rows than a send call takes phones, or sent over days."""
    column = repr(settings.session_column)
    named = rows.filter(pc.is_valid(rows["session_no"]))
    its = named.group_by("session_no").aggregate(
        [([], "count_all"), ("sent_at", "min"), ("sent_at", "max")]
    )
    its = its.filter(pc.greater(its["count_all"], 1))
    if not its.num_rows:
        return None
    largest = pc.max(its["count_all"]).as_py()
    ends = (its[f"sent_at_{end}"].cast(pa.int64()) for end in ("max", "min"))
    is_spread = pc.greater(pc.subtract(*ends), timedelta(days=1) // timedelta(microseconds=1))
    is_odd = pc.or_(is_spread, pc.greater(its["count_all"], _MOST_PHONES))
    odd_rows = pc.sum(its.filter(is_odd)["count_all"]).as_py() or 0
    stops = odd_rows >= max(_FEWEST, _MOST_ODD * named.num_rows)
    asks = "does USMS_SESSION_COLUMN name the session numbers?"
    spread = is_spread.combine_chunks().true_count
    if largest > _MOST_PHONES:
        said = (
            f"one value of {column} is in {wording.count(largest)} rows, and one send call takes "
            f"at most {_MOST_PHONES:,} phones"
        )
    elif 2 * spread > its.num_rows:
        said = (
            f"{wording.counted(spread, 'value')} of {column} in rows sent more than a day apart, "
            "but a session number belongs to one send call"
        )
    else:
        return None
    return Doubt("rows", f"{said}: {asks}", stops)


def _say_phones(rows: pa.Table, book: PhoneBook) -> bool:
    """Return whether at least half of the phones, if there are any, are numbers or masks."""
    texts = _some(rows["phone"].combine_chunks())
    said = book.describe(texts)
    is_none = pc.and_(pc.equal(said.field("phone"), MASK), pc.is_null(said.field("mask")))
    return len(texts) > 0 and 2 * (pc.sum(is_none).as_py() or 0) <= len(texts)


def _of_cells(cells: Cells, settings: Settings) -> Iterator[Doubt]:
    if cells.with_words:
        have, them = ("holds", "it") if cells.with_words == 1 else ("hold", "them")
        yield Doubt(
            "phones",
            f"{wording.counted(cells.with_words, 'cell')} of {settings.phone_column!r} {have} "
            f"words beside the numbers: the words in {them} are ignored",
        )
    if cells.uncounted:
        have = "has" if cells.uncounted == 1 else "have"
        asks = ""
        if 2 * cells.uncounted > cells.rows:
            asks = ". Is that the column with the number of recipients per row?"
        yield Doubt(
            "recipients",
            f"{wording.count(cells.uncounted)} of {wording.counted(cells.rows, 'row')} {have} no "
            f"whole number from 1 to 99,999 in {settings.recipients_column!r} "
            f"(USMS_RECIPIENTS_COLUMN): each counts as 1 recipient{asks}",
        )
