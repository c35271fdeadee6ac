"""A small reference for the fold: what the rows must be, in plain Python, from all answers at once.

Written from the laws, not from the SQL: it keeps every answer and looks for the first and the
latest, where the pipeline keeps registers and joins them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

FINALS = ("delivered", "failed", "rejected", "expired")
ORDER = (*FINALS, "unknown", "pending", "unrecognized", "invalid")
LATEST = datetime.max


@dataclass(frozen=True)
class SourceRow:
    """One row of the customer's table; ``recipient`` is the hash of its phone."""

    session_no: str | None
    sent_at: datetime
    recipient: str | None = None
    recipients: int = 1


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


@dataclass(frozen=True)
class Asked:
    """A session in an answered question; ``is_refused`` when it was refused alone."""

    session_no: str
    asked_at: datetime
    submit_status: str | None = None
    is_refused: bool = False


@dataclass
class World:
    """All that was announced and all that was ever answered."""

    rows: list[SourceRow] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)

    def receipts(self, cutoff: timedelta) -> list[dict[str, Any]]:
        """Give the expected rows, in the order of (session, recipient)."""
        numbered = [row.session_no for row in self.rows if row.session_no is not None]
        found = [
            row for session in dict.fromkeys(numbered) for row in self._session(session, cutoff)
        ]
        lost = [row for row in self.rows if row.session_no is None for _ in range(row.recipients)]
        found += [_row(None, None, row.sent_at, True, "invalid", closed=True) for row in lost]
        return sorted(found, key=lambda r: (r["session_no"] or "", r["recipient"] or ""))

    def _session(self, session: str, cutoff: timedelta) -> list[dict[str, Any]]:
        slots = self._slots(session)
        told = [t for t in self.told if t.session_no == session]
        numbers = sorted({t.number for t in told if t.number})
        phoneless = [t for t in told if not t.number and t.status in FINALS]
        taken = _match(slots, numbers, is_one_dealt=bool(phoneless) and len(slots) > 1)
        rows = []
        unheard = 0
        for slot, (recipient, sent_at) in enumerate(slots):
            number = taken.get(slot)
            name = number if recipient in (None, "twin") else recipient
            if not name:
                unheard += 1
                name = f"unheard-{unheard}"
            heard = [t for t in told if number and t.number == number]
            if number == "" or len(slots) == 1:
                heard += phoneless
            rows.append(self._judge(session, name, heard, sent_at, True, cutoff))
        for number in numbers:
            if number not in taken.values():
                heard = [t for t in told if t.number == number]
                rows.append(self._judge(session, number, heard, slots[0][1], False, cutoff))
        return rows

    def _slots(self, session: str) -> list[tuple[str | None, datetime]]:
        slots: list[tuple[str | None, datetime]] = []
        rows = [row for row in self.rows if row.session_no == session]
        for row in sorted(rows, key=lambda r: r.sent_at):
            is_twin = row.recipient in [recipient for recipient, _ in slots]
            slots.append(("twin" if is_twin and row.recipient else row.recipient, row.sent_at))
            slots += [(None, row.sent_at)] * (row.recipients - 1)
        return slots

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
        closed = last is not None and last >= sent_at + cutoff
        finals = sorted((t for t in heard if t.status in FINALS), key=_first)
        row = _row(session, recipient, sent_at, is_announced, "pending")
        row |= {"first_asked_at": min(asked, default=None), "last_asked_at": last}
        row |= {"submit_status": self._submit_status(session)}
        if finals:
            first = finals[0]
            return row | {
                "status": first.status,
                "is_final": True,
                "provider_status": first.word,
                "submit_status": first.submit_status or row["submit_status"],
                "received_at": first.received_at,
                "final_at": first.asked_at,
                "conflicts": sorted({t.status for t in finals} - {first.status}),
            }
        latest = max((t for t in heard if t.status not in FINALS), key=_latest, default=None)
        of_all = self._of_the_session(session)
        is_refused = of_all is not None and of_all.status == "invalid"
        if latest is None or (is_refused and of_all.asked_at > latest.asked_at):
            latest = of_all
        if latest is None:
            return row
        is_closed = closed or latest.status == "invalid"
        is_silent = is_closed and latest.status == "pending"
        return row | {
            "status": "unknown" if is_silent else latest.status,
            "is_closed": is_closed,
            "provider_status": latest.word,
            "submit_status": latest.submit_status or row["submit_status"],
            "received_at": latest.received_at,
        }

    def _submit_status(self, session: str) -> str | None:
        """Give what the latest answer about a session says of its submission."""
        asked = [a for a in self.asked if a.session_no == session]
        last = max((a.asked_at for a in asked), default=None)
        words = [a.submit_status for a in asked if a.asked_at == last]
        return None if None in words else max(words, default=None, key=str)

    def _of_the_session(self, session: str) -> Told | None:
        """Give the latest that is known of a session as a whole, where it is no outcome.

        That it was asked, or refused, or what a receipt without a phone says of it.
        """
        said = [
            t
            for t in self.told
            if t.session_no == session and not t.number and t.status not in FINALS
        ]
        spoken = {t.asked_at for t in said}
        for asked in (a for a in self.asked if a.session_no == session):
            if asked.is_refused or asked.asked_at not in spoken:
                status = "invalid" if asked.is_refused else "pending"
                said.append(Told(session, "", asked.asked_at, status, None))
        return max(said, key=_latest, default=None)


def _match(
    slots: list[tuple[str | None, datetime]], numbers: list[str], is_one_dealt: bool
) -> dict[int, str]:
    """Equal numbers; one row with one number; the rest of the phoneless rows by order.

    ``is_one_dealt``: a receipt without a phone is dealt too, after the numbers, as ``''``.
    """
    taken = {n: recipient for n, (recipient, _) in enumerate(slots) if recipient in numbers}
    if len(slots) == 1 and len(numbers) == 1:
        return {0: numbers[0]}
    left = [number for number in numbers if number not in taken.values()]
    free = [n for n, (recipient, _) in enumerate(slots) if recipient is None]
    return taken | dict(zip(free, left + [""] * is_one_dealt, strict=False))


def _first(told: Told) -> tuple[Any, ...]:
    received = told.received_at.replace(tzinfo=None) if told.received_at else LATEST
    submitted = (told.submit_status is None, told.submit_status or "")
    return (told.asked_at, received, ORDER.index(told.status), told.word or "", submitted)


def _latest(told: Told) -> tuple[Any, ...]:
    return _first(told)


def _row(
    session: str | None,
    recipient: str | None,
    sent_at: datetime,
    is_announced: bool,
    status: str,
    closed: bool = False,
) -> dict[str, Any]:
    return {
        "session_no": session,
        "recipient": recipient,
        "sent_at": sent_at,
        "is_announced": is_announced,
        "status": status,
        "is_final": False,
        "is_closed": closed,
        "provider_status": None,
        "submit_status": None,
        "received_at": None,
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
