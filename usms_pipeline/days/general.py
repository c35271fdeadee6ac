"""What is known of one session, and the rows that show it: the rule, in plain Python.

Everything that happens to a session is one of two things. The source is read (``announce``), or a
response says something (``observe``). Both only ever add to what is known, so that their order and
their repetition make no difference; ``rows`` is a pure function of what is known. Most sessions
are plain: their rows, read back (``session_of``), say all that is known of them. ``columns`` does
these without this module, with the same result.

No clock, no disk, no Arrow. Times are microseconds since 1970, in UTC.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import timedelta
from operator import attrgetter
from typing import Any, Final

import msgspec

from usms_pipeline.contract.polling import CLOCKS_DIFFER
from usms_pipeline.contract.status import BUCKETS, FINAL
from usms_pipeline.service.api import canonical

WHO: Final = ("phone", "country", "operator", "number_type")
"""What is known of a number beside its hash."""

NO_NUMBER: Final = ""
"""The recipient in a response that names no number."""

UNHEARD: Final = "unheard-"
"""Prefix of a ``recipient`` whose number is not known: ``unheard-1``, ``unheard-2``."""

LONGEST_ENDING, SHORTEST_ENDING = 15, 8
"""Digits by which two ways to write one number are matched. No number has more than fifteen; of
fewer than eight, two different numbers of one send may well be alike."""

Moment = tuple[int, str | None]
"""The send time of a row, and the hash of its phone."""

_KEY: Final = attrgetter("key")
_LATEST_RECEIPT: Final = CLOCKS_DIFFER // timedelta(microseconds=1)
"""How much later than its response a receipt may be."""
_EARLIEST_RECEIPT: Final = 366 * 86_400 * 1_000_000
"""A receipt a year older than the message is of another message, or no time at all."""


COLUMN_OF: Final = {
    "received_at": "received_at",
    "code": "provider_code",
    "word": "provider_status",
    "description": "provider_desc",
    "submit_status": "submit_status",
    "segments": "segments",
}
"""What an ``Answer`` says beside its status, in the order of its ``key``, and the column that shows
it. In ``schema.OBSERVATIONS`` it has the answer's name."""


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one response said of one number, or of the session as a whole.

    ``word`` is ``''`` where a number is named without one. NULL: the number was not named.
    """

    asked_at: int
    status: str
    word: str | None = None
    received_at: int | None = None
    code: str | None = None
    description: str | None = None
    submit_status: str | None = None
    segments: int | None = None

    @property
    def is_final(self) -> bool:
        """Return whether it has a final status."""
        return self.status in FINAL

    @property
    def says_nothing(self) -> bool:
        """Return whether it says nothing but when it was asked."""
        said = (getattr(self, name) for name in COLUMN_OF if name != "submit_status")
        return self.status == "pending" and not any(said)

    @property
    def key(self) -> tuple[tuple[bool, Any], ...]:
        """The order of answers: total, so that no two different ones are equal. NULL is last."""
        received_at, *more = (getattr(self, name) for name in COLUMN_OF)
        order = (self.asked_at, received_at, BUCKETS.index(self.status), *more)
        return tuple((one is None, 0 if one is None else one) for one in order)


class Number(msgspec.Struct, omit_defaults=True):
    """All that is known of one number.

    ``final`` is its first answer with a final status, ``open`` its latest other answer, and
    ``seen`` lists every status that was reported.
    """

    final: Answer | None = None
    open: Answer | None = None
    seen: list[str] = []
    phone: str | None = None
    country: str | None = None
    operator: str | None = None
    number_type: str | None = None
    ends: Ends | None = None


class Ends(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a number begins and ends, as keyed hashes: ``tails[n]`` is of its last n digits.

    ``heads`` are of all its beginnings, in international and national digits: only where it may be
    compared with a mask, and only there ``tails`` has ends shorter than ``SHORTEST_ENDING``.
    """

    heads: list[str] = []
    tails: list[str] = []


class Sent(msgspec.Struct, omit_defaults=True):
    """One recipient in the source: a source row, or one of several it stands for.

    ``recipient`` is the hash of the phone that the row names. ``mask`` is what a masked phone
    shows: its first digits, ``*``, its last.
    """

    sent_at: int
    recipient: str | None = None
    phone: str | None = None
    country: str | None = None
    operator: str | None = None
    number_type: str | None = None
    dimensions: list[str | None] = []
    mask: str | None = None
    ends: Ends | None = None

    @property
    def moment(self) -> Moment:
        """Distinguishes rows that have no session number."""
        return self.sent_at, self.recipient

    @property
    def key(self) -> tuple[Any, ...]:
        """The order of the rows of a session."""
        named = (self.recipient is None, self.recipient or "")
        return (self.sent_at, *named, [(one is None, one or "") for one in self.dimensions])


class Session(msgspec.Struct, omit_defaults=True):
    """All that is known of a session. As JSON it is the ``_state`` of one that is not plain.

    ``last_open_at`` is the latest response that left something open; ``submit_status`` the word
    of the latest response; ``tried_at`` when it was last asked with an unreadable answer.
    """

    sent: list[Sent] = []
    numbers: dict[str, Number] = {}
    first_asked_at: int | None = None
    last_asked_at: int | None = None
    last_open_at: int | None = None
    submit_status: str | None = None
    tried_at: int | None = None


# -- a response says something ----------------------------------------------------------------


def observe(session: Session, number: str, answer: Answer, who: Mapping[str, Any]) -> None:
    """Add to a session what one response says of one number (``NO_NUMBER``: of none).

    ``who`` has what is known of the number: ``phone``, ``country``, ``operator``, ``number_type``,
    and ``submit_status``, the word on the submission of the whole session.
    """
    asked_at, word = answer.asked_at, who.get("submit_status")
    if session.last_asked_at is None or asked_at > session.last_asked_at:
        session.submit_status = word
    elif asked_at == session.last_asked_at:
        session.submit_status = max(session.submit_status, word, key=lambda one: one or "")
    session.first_asked_at = _least(session.first_asked_at, asked_at)
    session.last_asked_at = _most(session.last_asked_at, asked_at)
    if not answer.is_final:
        session.last_open_at = _most(session.last_open_at, asked_at)
    if number == NO_NUMBER and answer.says_nothing:
        return
    if number != NO_NUMBER and answer.word is None:
        answer = msgspec.structs.replace(answer, word="")
    known = session.numbers.setdefault(number, Number())
    _put(known, answer)
    for name in WHO:
        setattr(known, name, _least(getattr(known, name), who.get(name)))


def _put(known: Number, answer: Answer) -> None:
    if answer.is_final:
        known.final = min(known.final or answer, answer, key=_KEY)
        known.seen = sorted({*known.seen, answer.status})
    else:
        known.open = max(known.open or answer, answer, key=_KEY)


def tried(session: Session, at: int) -> None:
    """Note that a session was asked about, and the body could not be read."""
    session.tried_at = _most(session.tried_at, at)


def prune(session: Session) -> None:
    """Drop what no row can show any more, so that any order of answers gives the same state."""
    own = {sent.recipient for sent in session.sent}
    for number, known in [*session.numbers.items()]:
        if number == NO_NUMBER:  # a word on the whole session ends with the next response
            if known.open and known.open.asked_at < session.last_asked_at:  # type: ignore[operator]
                known.open = None
        elif known.final:
            known.open = None
        if known.final is known.open is None:
            del session.numbers[number]
    if session.tried_at is not None and session.tried_at <= (session.last_asked_at or -1):
        session.tried_at = None
    for row in session.sent:
        if row.recipient in session.numbers:  # else another number may come, again or later
            row.ends = None
    for number, known in session.numbers.items():
        if number in own or not _is_matched_by_ends(session):
            known.ends = None


def without_ends(session: Session) -> tuple[list[Sent], dict[str, Number]]:
    """Return the rows and numbers whose ends are needed for matching but unknown."""
    if not _is_matched_by_ends(session):
        return [], {}
    own = {sent.recipient for sent in session.sent}
    rows_ = [
        one for one in session.sent
        if one.recipient and one.ends is None and one.recipient not in session.numbers
    ]  # fmt: skip
    numbers = {
        name: known for name, known in session.numbers.items()
        if name != NO_NUMBER and known.ends is None and name not in own
    }  # fmt: skip
    return rows_, numbers


def _is_matched_by_ends(session: Session) -> bool:
    """Return whether numbers may have to be matched by how they end, because none is equal."""
    if len(session.sent) > 1 or any(one.mask for one in session.sent):
        return True
    return all(one.recipient for one in session.sent) and has_strangers(session)


def has_strangers(session: Session) -> bool:
    """Return whether the service named a number that is no row's own as it is."""
    own = {one.recipient for one in session.sent}
    return not session.numbers.keys() <= {NO_NUMBER, *own}


def reread(session: Session) -> None:
    """Read each status from its word again, because the meaning of words has changed.

    Of final statuses that lost to an earlier one only their status is known: they stay as they are.
    """
    for known in session.numbers.values():
        said = [one for one in (known.final, known.open) if one]
        known.final = known.open = None
        for one in said:
            status = one.status if one.status == "invalid" else canonical(one.word)
            answer = msgspec.structs.replace(one, status=status)
            if one.status != status:
                known.seen = [other for other in known.seen if other != one.status]
            if one.is_final and not answer.is_final:
                session.last_open_at = _most(session.last_open_at, one.asked_at)
            if answer.is_final and not one.is_final:
                _left_nothing_open(session, one.asked_at)
            _put(known, answer)


def _left_nothing_open(session: Session, asked_at: int) -> None:
    """Correct ``last_open_at``: the response of this time left nothing open.

    Of the responses before it, only the first is known.
    """
    if session.last_open_at == asked_at:
        is_first = session.first_asked_at == asked_at
        session.last_open_at = None if is_first else session.first_asked_at


# -- the source is read -----------------------------------------------------------------------


def announce(
    stored: list[Sent], read: Iterable[Sent], first: int, last: int
) -> tuple[int, list[Sent]]:
    """Join the rows read of a session into the stored ones, in place.

    Return how many stored rows are gone from the source, and which of those read are new.

    A phone is one message, at any time. Each stored row with a time from ``first`` up to
    ``last`` (what was read) is paired with one read row at most, which counts from now on. A read
    row without a pair is new; a stored one without is gone from the source, and stays.
    """
    coming = without_copies(read)
    left = sorted((one for one in stored if first <= one.sent_at < last), key=_KEY)
    outside = [one for one in stored if not first <= one.sent_at < last]
    joined: list[Sent] = []
    for among, is_same in (
        (left, lambda old, new: old.key == new.key and old.mask == new.mask),
        (left, _have_one_phone),
        (outside, _have_one_phone),
        # the phone was blanked, or filled in: of several, one whose dimensions stayed too
        (left, lambda old, new: _are_alike(old, new) and not _names(new)),
        (left, lambda old, new: old.sent_at == new.sent_at and not _names(new)),
        (left, lambda old, new: _are_alike(old, new) and not _names(old)),
        (left, lambda old, new: old.sent_at == new.sent_at and not _names(old)),
        (left, lambda old, new: True),  # edited in another way: the next in order
    ):
        for new in [*coming]:
            old = next((one for one in among if is_same(one, new)), None)
            if old is not None:
                among.remove(old)
                coming.remove(new)
                if not _names(new):  # it keeps the phone that was blanked in the source
                    said = {"sent_at": new.sent_at, "dimensions": new.dimensions}
                    new = msgspec.structs.replace(old, **said)
                joined.append(new)
    stored[:] = sorted([*outside, *joined, *left, *coming], key=_KEY)
    return len(left), coming


def announce_without_session(
    stored: Iterable[Sent], read: Iterable[Sent], numbered: Counter[Moment], first: int, last: int
) -> tuple[list[Sent], int]:
    """Join rows without a usable session number; return those there are now, and how many are gone.

    They are told apart by time and phone, and counted. ``numbered`` has how many rows of sessions
    are new by time and phone: as many of the stored ones got their number since, and go.
    """
    groups: dict[Moment, tuple[list[Sent], list[Sent]]] = {}
    for side, rows_ in enumerate((stored, read)):
        for one in rows_:
            groups.setdefault(one.moment, ([], []))[side].append(one)
    kept, gone = [], 0
    for moment, (old, new) in groups.items():
        surplus = max(len(old) - len(new), 0)
        surplus -= min(surplus, numbered[moment])
        others = sorted(old, key=_KEY)
        for one in new:
            if one in others:
                others.remove(one)
        kept += [*new, *others[:surplus]]
        gone += surplus if first <= moment[0] < last else 0
    return kept, gone


def without_copies(read: Iterable[Sent]) -> list[Sent]:
    """Return rows in order, of those with one phone the first."""
    phones: set[str | None] = set()
    kept = []
    for one in sorted(read, key=_KEY):
        if one.recipient is None or one.recipient not in phones:
            kept.append(one)
        phones.add(one.recipient)
    return kept


def _names(sent: Sent) -> bool:
    return sent.recipient is not None or sent.mask is not None


def _have_one_phone(old: Sent, new: Sent) -> bool:
    return old.recipient is not None and old.recipient == new.recipient


def _are_alike(old: Sent, new: Sent) -> bool:
    return old.sent_at == new.sent_at and old.dimensions == new.dimensions


# -- the rows ---------------------------------------------------------------------------------


def rows(session_no: str, session: Session, cutoff: int) -> list[dict[str, Any]]:
    """Return a session's rows: its recipients in the source, in order, then all other numbers.

    ``cutoff``: microseconds after sending from which on a session that was asked about is closed.
    """
    sent = sorted(session.sent, key=_KEY)
    dealt = match(sent, session.numbers)
    made, unheard = [], 0
    for place, one in enumerate(sent):
        number = dealt.get(place)
        recipient = one.recipient or number or None
        if recipient is None:
            unheard += 1
            recipient = f"{UNHEARD}{unheard}"
        speaks = [session.numbers[number]] if number is not None else []
        if len(sent) == 1 and number != NO_NUMBER and NO_NUMBER in session.numbers:
            speaks.append(session.numbers[NO_NUMBER])  # there is nobody else whom it could be about
        made.append(_row(session_no, session, one, recipient, speaks, cutoff))
    nobody = Sent(sent[0].sent_at, dimensions=sent[0].dimensions)
    for number in sorted(session.numbers.keys() - {NO_NUMBER} - set(dealt.values())):
        row = _row(session_no, session, nobody, number, [session.numbers[number]], cutoff)
        made.append(row | {"is_announced": False})
    return made


def match(sent: list[Sent], numbers: Mapping[str, Number]) -> dict[int, str]:
    """Return the number matched to each row (by its place), where there is one.

    Equal numbers; one row with one number; the same ending, of fifteen digits down to eight, where
    no other row or number left has it; what a mask shows, where one number alone is like it; then
    rows without a phone take the numbers left, in the order of their evidence, so that a final
    status shown never goes to another row because one more number came.
    """
    dealt = {place: one.recipient for place, one in enumerate(sent) if one.recipient in numbers}
    finals = {name: one.final for name, one in numbers.items() if name != NO_NUMBER}
    heard = sorted(finals, key=lambda name: ((0, one.key) if (one := finals[name]) else (1,), name))
    if len(sent) == len(heard) == 1:
        return {0: heard[0]}
    taken = {*dealt.values()}
    left = [name for name in heard if name not in taken]
    free = [place for place in range(len(sent)) if place not in dealt]
    for length in range(LONGEST_ENDING, SHORTEST_ENDING - 1, -1):
        tails = {place: _tail(sent[place].ends, length) for place in free}
        ends = {name: _tail(numbers[name].ends, length) for name in left}
        for place, tail in tails.items():
            places = [one for one, other in tails.items() if other == tail]
            names = [one for one, other in ends.items() if other == tail]
            if tail is not None and len(places) == len(names) == 1:
                dealt[place] = names[0]
                free.remove(place)
                left.remove(names[0])
    for place in [place for place in free if sent[place].mask]:
        alike = [name for name in left if _is_shown(sent[place].mask, numbers[name].ends)]
        if len(alike) == 1:
            dealt[place] = alike[0]
            free.remove(place)
            left.remove(alike[0])
    speaker = numbers.get(NO_NUMBER)
    if speaker is not None and speaker.final and len(sent) > 1:
        left.append(NO_NUMBER)  # dealt last: any recipient without a number may be meant
    phoneless = [place for place in free if not _names(sent[place])]
    return dealt | dict(zip(phoneless, left, strict=False))  # type: ignore[return-value]


def _tail(ends: Ends | None, length: int) -> str | None:
    return ends.tails[length] if ends is not None and length < len(ends.tails) else None


def _is_shown(mask: str | None, ends: Ends | None) -> bool:
    """Return whether a number begins and ends like a mask (here of hashes)."""
    if mask is None or ends is None:
        return False
    head, _, tail = mask.partition("*")
    return (not head or head in ends.heads) and (not tail or tail in ends.tails)


def _row(
    session_no: str, session: Session, sent: Sent, recipient: str, speaks: list[Number], cutoff: int
) -> dict[str, Any]:
    final = min((one.final for one in speaks if one.final), key=_KEY, default=None)
    own = speaks[0].open if speaks else None
    whole = session.numbers[NO_NUMBER].open if NO_NUMBER in session.numbers else None
    is_refused = bool(whole and own and whole.status == "invalid" and whole.asked_at > own.asked_at)
    answer = final or (whole if own is None or is_refused else own)
    status = answer.status if answer else "pending"
    is_past = session.last_asked_at is not None and session.last_asked_at >= sent.sent_at + cutoff
    is_closed = final is None and (is_past or status == "invalid")
    received = answer.received_at if answer else None
    if answer and received is not None and not is_believed(received, sent.sent_at, answer.asked_at):
        received = None
    delay = None
    if status == "delivered" and received is not None:
        delay = (received - sent.sent_at) / 1e6
    conflicts = {word for one in speaks for word in one.seen} - {status}
    return {
        "session_no": session_no,
        "recipient": recipient,
        **{name: next(filter(None, (getattr(one, name) for one in (sent, *speaks))), None)
           for name in WHO},
        "sent_at": sent.sent_at,
        "dimensions": sent.dimensions,
        "status": "unknown" if is_closed and status == "pending" else status,
        "is_final": final is not None,
        "is_closed": is_closed,
        **{column: getattr(answer, name, None) for name, column in COLUMN_OF.items()},
        "submit_status": (answer.submit_status if answer else None) or session.submit_status,
        "received_at": received,
        "delivery_seconds": delay,
        "first_asked_at": session.first_asked_at,
        "last_asked_at": session.last_asked_at,
        "final_at": final.asked_at if final else None,
        "conflicts": sorted(conflicts) if final else [],
        "is_announced": True,
        "_own": sent.recipient is not None,
        "last_open_at": session.last_open_at,
    }  # fmt: skip


def is_believed(received_at: Any, sent_at: Any, asked_at: Any) -> Any:
    """Return whether the carrier can have reported then: of numbers, or of arrays of them.

    Not later than the response that told it (five minutes of clocks that differ are allowed), and
    not a year before the sending.
    """
    is_told = received_at <= asked_at + _LATEST_RECEIPT
    return is_told & (received_at >= sent_at - _EARLIEST_RECEIPT)


# -- what a row says of its session -----------------------------------------------------------


def state_of(session: Session) -> str:
    """Return the state of a session as JSON; equal states give equal texts."""
    return msgspec.json.encode(session, order="deterministic").decode()


def session_from(state: str) -> Session:
    """Return what ``state_of`` wrote."""
    return msgspec.json.decode(state, type=Session)


def session_of(rows_: list[dict[str, Any]]) -> Session:
    """Return the state of a plain session, from its rows."""
    first = rows_[0]
    session = Session(
        first_asked_at=first["first_asked_at"],
        last_asked_at=first["last_asked_at"],
        last_open_at=first["last_open_at"],
        submit_status=first["submit_status"],
    )
    for row in rows_:
        who = {name: row[name] for name in WHO}
        own = {"recipient": row["recipient"], **who} if row["_own"] else {}
        session.sent.append(Sent(row["sent_at"], dimensions=row["dimensions"], **own))
        if row["last_asked_at"] is not None:
            _hear(session, row, who)
    session.sent.sort(key=_KEY)
    return session


def _hear(session: Session, row: Mapping[str, Any], who: dict[str, Any]) -> None:
    status = row["status"]
    if not row["is_final"] and status != "invalid":
        status = canonical(row["provider_status"])  # closed, a pending one is shown as unknown
    answer = Answer(
        asked_at=row["final_at"] if row["is_final"] else row["last_asked_at"],
        status=status,
        **{name: row[column] for name, column in COLUMN_OF.items()},
    )
    number = NO_NUMBER
    if not row["recipient"].startswith(UNHEARD) and status != "invalid":
        number = row["recipient"]
    if answer.says_nothing and (number == NO_NUMBER or answer.word is None):
        return
    if answer.is_final:
        known = Number(final=answer, seen=sorted({status, *row["conflicts"]}))
        if not row["is_final"]:  # its word has become one that is known
            _left_nothing_open(session, answer.asked_at)
    else:
        known = Number(open=answer)
    for name, value in who.items() if number != NO_NUMBER else ():
        setattr(known, name, value)
    session.numbers[number] = known


def _least(old: Any, new: Any) -> Any:
    return new if old is None else old if new is None else min(old, new)


def _most(old: Any, new: Any) -> Any:
    return new if old is None else old if new is None else max(old, new)
