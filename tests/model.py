"""A small reference: what the rows must be, in plain Python, from all that was ever read and told.

Written from the rules, not from the code: it keeps every answer and looks for the first and the
latest, where the pipeline keeps what is known and joins it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

FINALS = ("delivered", "failed", "rejected", "expired")
ORDER = (*FINALS, "unknown", "pending", "unrecognized", "invalid")
NEVER = datetime.max
ENDINGS = range(15, 7, -1)


@dataclass(frozen=True)
class SourceRow:
    """One recipient that the customer's table announces; ``recipient`` is the hash of its phone."""

    session_no: str | None
    sent_at: datetime
    recipient: str | None = None
    digits: str = ""


@dataclass(frozen=True)
class Told:
    """One receipt in one answer. ``number`` is the hash of the phone named, '' where none is."""

    session_no: str
    number: str
    asked_at: datetime
    status: str
    word: str | None
    received_at: datetime | None = None
    submit_status: str | None = None
    digits: str = ""


@dataclass(frozen=True)
class Asked:
    """A session in an answered question; ``is_refused`` when it was refused alone."""

    session_no: str
    asked_at: datetime
    submit_status: str | None = None
    is_refused: bool = False


# -- the source ---------------------------------------------------------------------------------


def joined(
    stored: Iterable[SourceRow], read: Iterable[SourceRow], first: datetime, last: datetime
) -> tuple[list[SourceRow], list[SourceRow]]:
    """Return a session's rows once it was read again, from ``first`` up to ``last``; and the new.

    Of all pairs of a stored and a read row the best come first, each row in one pair at most.
    """
    old, new = in_order(stored), distinct(read)
    pairs = sorted(
        (rank, n, o)
        for n, row in enumerate(new)
        for o, known in enumerate(old)
        if (rank := _rank(known, row, first <= known.sent_at < last)) is not None
    )
    partner: dict[int, int] = {}
    for _, n, o in pairs:
        if n not in partner and o not in partner.values():
            partner[n] = o
    gone = [known for o, known in enumerate(old) if o not in partner.values()]
    there = [
        row if row.recipient or n not in partner else replace(old[partner[n]], sent_at=row.sent_at)
        for n, row in enumerate(new)
    ]
    return in_order(gone + there), [row for n, row in enumerate(new) if n not in partner]


def _rank(known: SourceRow, row: SourceRow, was_read: bool) -> int | None:
    """Tell how well a row that was read fits a stored one; None where it can't be the same."""
    is_its_time = known.sent_at == row.sent_at
    if row.recipient and known.recipient == row.recipient:
        return (0 if is_its_time else 1) if was_read else 2
    if not was_read:
        return None
    if is_its_time and not row.recipient:
        return 3 if known.recipient else 0
    return 4 if is_its_time and not known.recipient else 5


def joined_lost(
    stored: Iterable[SourceRow], read: Iterable[SourceRow], numbered: Counter[Any]
) -> list[SourceRow]:
    """Return rows without a session; ``numbered``: those that sessions got, by time and phone."""
    before, now = Counter(map(moment, stored)), Counter(map(moment, read))
    gone = before - now
    left = now + (gone - (gone & numbered))
    return in_order(SourceRow(None, *one) for one in left.elements())


def moment(row: SourceRow) -> tuple[datetime, str | None]:
    return row.sent_at, row.recipient


def distinct(rows: Iterable[SourceRow]) -> list[SourceRow]:
    """Return rows in order, of those with one phone the first."""
    kept: list[SourceRow] = []
    for row in in_order(rows):
        if not row.recipient or row.recipient not in [other.recipient for other in kept]:
            kept.append(row)
    return kept


def in_order(rows: Iterable[SourceRow]) -> list[SourceRow]:
    return sorted(rows, key=lambda r: (r.sent_at, r.recipient is None, r.recipient or ""))


# -- the rows -----------------------------------------------------------------------------------


@dataclass
class World:
    """All that is announced and all that was ever answered."""

    rows: list[SourceRow] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)

    def receipts(self, cutoff: timedelta) -> list[dict[str, Any]]:
        """Return the expected rows, in the order of (session, recipient)."""
        numbered = [row.session_no for row in self.rows if row.session_no is not None]
        found = [row for one in dict.fromkeys(numbered) for row in self._session(one, cutoff)]
        found += [
            _row(None, row.recipient or "unheard-1", row.sent_at, True) | LOST
            for row in self.rows
            if row.session_no is None
        ]
        return sorted(found, key=lambda r: (r["session_no"] or "", r["recipient"]))

    def _session(self, session: str, cutoff: timedelta) -> list[dict[str, Any]]:
        slots = distinct(row for row in self.rows if row.session_no == session)
        told = [t for t in self.told if t.session_no == session]
        taken = match(slots, told)
        rows, unheard = [], 0
        for place, slot in enumerate(slots):
            number = taken.get(place)
            name = slot.recipient or number
            if not name:
                unheard += 1
                name = f"unheard-{unheard}"
            heard = [t for t in told if t.number == number]
            if len(slots) == 1 and number != "":
                heard += [t for t in told if not t.number and t.status in FINALS]
            rows.append(self._judge(session, name, heard, slot.sent_at, True, cutoff))
        for number in sorted({t.number for t in told if t.number} - {*taken.values()}):
            heard = [t for t in told if t.number == number]
            rows.append(self._judge(session, number, heard, slots[0].sent_at, False, cutoff))
        return rows

    def _judge(
        self,
        session: str,
        recipient: str,
        heard: list[Told],
        sent_at: datetime,
        is_announced: bool,
        cutoff: timedelta,
    ) -> dict[str, Any]:
        asked = [a.asked_at for a in self.asked if a.session_no == session]
        last = max(asked, default=None)
        row = _row(session, recipient, sent_at, is_announced)
        row |= {"first_asked_at": min(asked, default=None), "last_asked_at": last}
        row |= {"submit_status": self._submit_status(session)}
        finals = sorted((t for t in heard if t.status in FINALS), key=_key)
        if finals:
            others = {t.status for t in finals} - {finals[0].status}
            about = {"is_final": True, "final_at": finals[0].asked_at, "conflicts": sorted(others)}
            return row | _shown(finals[0], row) | about
        latest = max((t for t in heard if t.number and t not in finals), key=_key, default=None)
        of_all = self._of_the_session(session)
        is_refused = of_all is not None and of_all.status == "invalid"
        if latest is None or (is_refused and of_all and of_all.asked_at > latest.asked_at):
            latest = of_all
        if latest is not None:
            row |= _shown(latest, row)
        is_past = last is not None and last >= sent_at + cutoff
        row["is_closed"] = is_past or row["status"] == "invalid"
        if is_past and row["status"] == "pending":
            row["status"] = "unknown"
        return row

    def _submit_status(self, session: str) -> str | None:
        """Return what the latest answer about a session says of its submission."""
        asked = [a for a in self.asked if a.session_no == session]
        last = max((a.asked_at for a in asked), default=None)
        words = [a.submit_status for a in asked if a.asked_at == last]
        return max((word for word in words if word is not None), default=None)

    def _of_the_session(self, session: str) -> Told | None:
        """Return what the latest answer says of a session as a whole, where it is no outcome.

        That it was asked, or refused, or what a receipt without a phone says of it.
        """
        asked = [a for a in self.asked if a.session_no == session]
        last = max((a.asked_at for a in asked), default=None)
        if last is None:
            return None
        refusals = [a for a in asked if a.is_refused and a.asked_at == last]
        said = [Told(session, "", last, "invalid", None) for _ in refusals]
        said += [
            t
            for t in self.told
            if (t.session_no, t.number, t.asked_at) == (session, "", last)
            and t.status not in FINALS
            and (t.word or t.received_at)
        ]
        return max(said, key=_key, default=Told(session, "", last, "pending", None))


def match(slots: list[SourceRow], told: list[Told]) -> dict[int, str]:
    """Return which number each row has: '' is that of receipts without one, dealt last."""
    digits = {t.number: t.digits for t in told if t.number}
    finals = [t for t in told if t.status in FINALS]
    first = {t.number: _key(t) for t in sorted(finals, key=_key, reverse=True)}
    if len(slots) == len(digits) == 1:
        return {0: next(iter(digits))}
    taken = {n: slot.recipient for n, slot in enumerate(slots) if slot.recipient in digits}
    for length in ENDINGS:
        rows = _endings({n: slot.digits for n, slot in enumerate(slots) if n not in taken}, length)
        left = {name: one for name, one in digits.items() if name not in taken.values()}
        names = _endings(left, length)
        taken |= {rows[end]: names[end] for end in rows.keys() & names.keys()}
    free = [n for n, slot in enumerate(slots) if slot.recipient is None]
    named = [name for name in digits if name not in taken.values()]
    named.sort(key=lambda name: (name not in first, first.get(name, ()), name))
    is_dealt = "" in first and len(slots) > 1
    return taken | dict(zip(free, named + [""] * is_dealt, strict=False))


def _endings(digits: dict[Any, str], length: int) -> dict[str, Any]:
    """Return who has which ending, of those that nobody else here has."""
    ends = Counter(one[-length:] for one in digits.values() if len(one) >= length)
    return {
        one[-length:]: who
        for who, one in digits.items()
        if len(one) >= length and ends[one[-length:]] == 1
    }


def _key(told: Told) -> tuple[Any, ...]:
    received = told.received_at.replace(tzinfo=None) if told.received_at else NEVER
    word = (told.word is None, told.word or "")
    submitted = (told.submit_status is None, told.submit_status or "")
    return (told.asked_at, received, ORDER.index(told.status), *word, *submitted)


def _shown(told: Told, row: dict[str, Any]) -> dict[str, Any]:
    """Return what a row shows of an answer; a time that can't be is none."""
    at, earliest = told.received_at, row["sent_at"] - timedelta(days=366)
    is_believed = at is not None and earliest <= at <= told.asked_at + timedelta(minutes=5)
    at = at if is_believed else None
    seconds = (at - row["sent_at"]).total_seconds() if at else None
    return {
        "status": told.status,
        "provider_status": told.word,
        "submit_status": told.submit_status or row["submit_status"],
        "received_at": at,
        "delivery_seconds": seconds if told.status == "delivered" else None,
    }


LOST = {"status": "invalid", "is_closed": True}


def _row(
    session: str | None, recipient: str, sent_at: datetime, is_announced: bool
) -> dict[str, Any]:
    return {
        "session_no": session,
        "recipient": recipient,
        "sent_at": sent_at,
        "is_announced": is_announced,
        "status": "pending",
        "is_final": False,
        "is_closed": False,
        "provider_status": None,
        "submit_status": None,
        "received_at": None,
        "delivery_seconds": None,
        "first_asked_at": None,
        "last_asked_at": None,
        "final_at": None,
        "conflicts": [],
    }


def is_due(
    now: datetime, sent_at: datetime, last_asked_at: datetime | None, offsets: list[timedelta]
) -> bool:
    """A polling time lies after the last question and not after now; past the last, every day."""
    age = now - sent_at
    after = timedelta(-1) if last_asked_at is None else last_asked_at - sent_at
    is_another_day = after >= offsets[-1] and age >= after + timedelta(days=1)
    return is_another_day or any(after < offset <= age for offset in offsets)
