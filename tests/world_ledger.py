"""What must lie in the data directory, worked out from everything that ever happened.

Session by session, all at once, by the rule alone (``days/general.py``). Kept here is what the
pipeline may have deleted by now: rows that left the source, answers purged.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from tests import world_disk
from tests.test_general import ends
from tests.world_disk import Asked, Reading, Trouble, digits_of
from usms_pipeline.days import general
from usms_pipeline.days.general import NO_NUMBER, UNHEARD, Answer, Sent, Session
from usms_pipeline.people.phones import PhoneBook
from usms_pipeline.store.dataset import Window

CUTOFF = timedelta(hours=72)
US, EPOCH = timedelta.resolution, datetime(1970, 1, 1, tzinfo=UTC)
ALWAYS = (0, 2**62)
TIMES = ("sent_at", "received_at", "first_asked_at", "last_asked_at", "final_at")
DAY = timedelta(days=1)
COMPARED = (
    "session_no", "recipient", "sent_at", "is_announced", "status", "is_final", "is_closed",
    "provider_status", "submit_status", "received_at", "delivery_seconds", "first_asked_at",
    "last_asked_at", "final_at", "conflicts",
)  # fmt: skip
LOST = {"is_announced": True, "status": "invalid", "is_final": False, "is_closed": True,
        "conflicts": []}  # fmt: skip
Table = dict[date, dict[str | None, list[Sent]]]
"""Source rows by the day whose file has them, and session; NULL has those without a session."""


@dataclass
class Message:
    """One row of the customer's table, as it stands there now."""

    session_no: str | None
    phone: str | None
    recipients: int
    sent_at: datetime
    is_gone: bool = False


@dataclass
class Ledger:
    """The customer's table, and what was taken from it and from the service."""

    book: PhoneBook
    messages: list[Message] = field(default_factory=list)
    stored: Table = field(default_factory=dict)
    said: dict[str, Reading] = field(default_factory=dict)
    """By block of responses, whether it is still there or not."""
    folded: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """By session, the blocks that its rows are made of."""
    strays: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """By session, the blocks that had it while it was in no day's file."""
    marks: dict[Trouble, str] = field(default_factory=dict)
    phones_forgotten: set[str] = field(default_factory=set)
    digits_forgotten: set[str] = field(default_factory=set)
    sessions_forgotten: set[str] = field(default_factory=set)

    # -- rows -------------------------------------------------------------------------------------

    def day_of(self, session: str) -> date | None:
        """Return the day whose file has a session; None where none has."""
        return next((day for day, its in self.stored.items() if session in its), None)

    def read_now(self, window: Window, held: date | None) -> Table:
        """Return what the days' files hold once a window was read, but for a day that is held."""
        first, last = (micros(moment) for moment in _read(window))
        after = {day: dict(its) for day, its in self.stored.items()}
        new: dict[date, Counter[Any]] = defaultdict(Counter)
        lost: dict[date, list[Sent]] = defaultdict(list)
        for day, session, rows in self.readings(window):
            kept = [row for row in rows if not self._is_forgotten(session, row)]
            if session is None:
                lost[day] += kept
            elif kept and day != held:
                self._join(after, day, session, kept, held, new, (first, last))
        for day in {*after, *lost} - {held}:
            its = after.setdefault(day, {})
            stored = its.get(None, [])
            its[None], _ = general.announce_without_session(stored, lost[day], new[day], *ALWAYS)
            its[None].sort(key=lambda row: (row.moment[0], row.recipient or ""))
        return tidy(after)

    def readings(self, window: Window) -> Iterator[tuple[date, str | None, list[Sent]]]:
        """Yield the rows that a window's run reads, by the day they are read for, and session."""
        first, last = _read(window)
        sessions: dict[str, list[Sent]] = defaultdict(list)
        for message in self.messages:
            if message.is_gone or not first <= message.sent_at < last:
                continue
            rows, day = self._rows(message), message.sent_at.date()
            if message.session_no is not None:
                sessions[message.session_no] += rows
            elif day in window:
                yield day, None, rows
        for session, rows in sessions.items():
            if any(day_of(row) in window for row in rows):
                yield min(map(day_of, rows)), session, rows

    def _join(
        self,
        after: Table,
        day: date,
        session: str,
        rows: list[Sent],
        held: date | None,
        new: dict[date, Counter[Any]],
        read: tuple[int, int],
    ) -> None:
        """Put a session into the file that has it, or where all its rows are by now."""
        homes = [one for one in after if session in after[one]]
        home = day if day in homes or not homes else homes[0]
        if held in homes:
            return
        before = after.get(home, {}).get(session, [])
        for one in homes:  # in two where a move was interrupted
            del after[one][session]
        union = [*before]
        _, arrived = general.announce(union, rows, *read)
        is_there = not before or any(day_of(row) == home for row in union)
        place = home if is_there else day
        after.setdefault(place, {})[session] = union
        new[place] += Counter(row.moment for row in arrived)

    def _rows(self, message: Message) -> list[Sent]:
        phone = message.phone
        recipient = self.book.recipient_id(phone) if phone else None
        at, tails = micros(message.sent_at), ends(digits_of(phone)) if phone else None
        others = [Sent(at) for _ in range(message.recipients - 1)]
        return [Sent(at, recipient, ends=tails), *others]

    def _is_forgotten(self, session: str | None, row: Sent) -> bool:
        return session in self.sessions_forgotten or row.recipient in self.phones_forgotten

    # -- answers ----------------------------------------------------------------------------------

    def land(self, block: str, answers: list[dict[str, Any]]) -> None:
        self.said[block] = world_disk.read(answers, self.book)

    def about(self, session: str) -> set[str]:
        """Return the blocks that say something of a session, or that it was asked about."""
        return {block for block, said in self.said.items() if session in said.sessions}

    def receipts(
        self, session: str | None, rows: list[Sent], blocks: Iterable[str]
    ) -> list[dict[str, Any]]:
        """Return the rows that a session must have by these source rows and blocks."""
        known = Session(sent=[copy(row) for row in rows])
        for said in (self.said[block] for block in blocks):
            for asked in (one for one in said.asked if one.session_no == session):
                self._observe(known, asked, said)
        general.prune(known)
        made = general.rows(session, known, CUTOFF // US) if session else lost(rows)
        return [row | {name: moment(row[name]) for name in TIMES} for row in made]

    def _observe(self, known: Session, asked: Asked, said: Reading) -> None:
        at, who = micros(asked.asked_at), {"submit_status": asked.submit_status}
        told = [t for t in said.told if (t.session_no, t.asked_at) == asked[:2]]
        told = [t for t in told if t.number not in self.phones_forgotten]
        for t in told:
            received = t.received_at and micros(t.received_at)
            answer = Answer(at, t.status, t.word, received, submit_status=t.submit_status)
            general.observe(known, t.number, answer, who)
            if t.number:
                known.numbers[t.number].ends = ends(t.digits)
        if not told:
            status = "invalid" if asked.is_refused else "pending"
            general.observe(known, NO_NUMBER, Answer(at, status), who)

    def as_known(self, after: Table) -> Table:
        """Return rows with those of a session as they were stored: a change counts from then on.

        What is due is found before days are written, unless there was something to catch up with.
        """
        stored = {one: rows for its in self.stored.values() for one, rows in its.items()}
        return {
            day: {one: stored.get(one, rows) for one, rows in its.items()}
            for day, its in after.items()
        }

    def grown(self, after: Table) -> set[str]:
        """Return the sessions that have a phone more than they had."""
        stored = {one: rows for its in self.stored.values() for one, rows in its.items()}
        return {
            session
            for its in after.values()
            for session, rows in its.items()
            if session in stored
            and not {row.recipient for row in rows} <= {row.recipient for row in stored[session]}
            and session is not None
        }

    def due(self, table: Table, now: datetime, offsets: list[timedelta]) -> dict[date, set[str]]:
        """Return the sessions to ask about now, by these source rows and all answers so far."""
        return {
            day: {
                session
                for session, rows in its.items()
                if session is not None and self._is_due(session, rows, now, offsets)
            }
            for day, its in table.items()
        }

    def _is_due(
        self, session: str, rows: list[Sent], now: datetime, offsets: list[timedelta]
    ) -> bool:
        blocks = self.about(session) - self.strays[session]
        tried = [a.asked_at for b in blocks for a in self.said[b].vain if a.session_no == session]
        for row in self.receipts(session, rows, blocks):
            last = max(filter(None, (row["last_asked_at"], *tried)), default=None)
            age = now - row["sent_at"]
            after = timedelta(-1) if last is None else last - row["sent_at"]
            is_another_day = after >= offsets[-1] and age >= after + DAY
            is_time = is_another_day or any(after < offset <= age for offset in offsets)
            if is_time and not row["is_final"] and not row["is_closed"]:
                return True
        return False

    # -- forgetting -------------------------------------------------------------------------------

    def forget(self, phones: set[str], sessions: set[str]) -> None:
        """Forget, with the sessions of which only forgotten phones are known."""
        recipients = {self.book.recipient_id(phone) for phone in phones}
        shown = {
            (session, day): self.receipts(session, rows, self.folded[session])
            for day, its in self.stored.items()
            for session, rows in its.items()
            if session is not None
        }
        self.phones_forgotten |= recipients
        self.digits_forgotten |= {digits_of(phone)[-10:] for phone in phones}
        gone = self.phones_forgotten
        lone = {one for (one, _), rows in shown.items() if {r["recipient"] for r in rows} <= gone}
        self.sessions_forgotten |= sessions | lone
        for (session, day), rows in shown.items():
            kept = [] if session in self.sessions_forgotten else self._kept(session, day, rows)
            self.stored[day][session] = kept
        for its in self.stored.values():
            if None in its:
                its[None] = [row for row in its[None] if not self._is_forgotten(None, row)]
        self.stored = tidy(self.stored)

    def _kept(self, session: str, day: date, shown: list[dict[str, Any]]) -> list[Sent]:
        """Return the source rows whose recipient is not forgotten, by what was shown of them.

        A row without a phone goes with the number that it was matched to.
        """
        gone = self.phones_forgotten
        theirs = Counter(
            row["sent_at"] for row in shown if row["is_announced"] and row["recipient"] in gone
        )
        kept = [row for row in self.stored[day][session] if row.recipient not in gone]
        theirs -= Counter(
            moment(r.sent_at) for r in self.stored[day][session] if r.recipient in gone
        )
        for row in [row for row in kept if row.recipient is None]:
            if theirs[moment(row.sent_at)]:
                theirs[moment(row.sent_at)] -= 1
                kept.remove(row)
        return kept

    def names_forgotten(self, trouble: Trouble) -> bool:
        text = str(trouble)
        digits = re.sub(r"[^0-9]", "", text)
        return any(one in text for one in self.sessions_forgotten) or any(
            one in digits for one in self.digits_forgotten
        )

    def forgotten_words(self) -> set[str]:
        """Return what must not be found in any file: numbers, their hashes, session numbers."""
        return self.phones_forgotten | self.sessions_forgotten | self.digits_forgotten


def tidy(table: Table) -> Table:
    """Return a table without what is empty."""
    return {day: {one: rows for one, rows in its.items() if rows} for day, its in table.items()}


def compared(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the columns of the reference, in its order.

    Recipients without a number are told apart by a number alone, whose order means nothing.
    """
    kept = [{name: row[name] for name in COMPARED} for row in rows]
    for row in kept:
        if row["recipient"].startswith("unheard-"):
            row["recipient"] = None
    return sorted(kept, key=lambda r: str([r[name] for name in COMPARED]))


def _read(window: Window) -> tuple[datetime, datetime]:
    """Return from when to when a window's run reads."""
    first, last = (datetime.combine(day, time(), UTC) for day in (window.first, window.last))
    return first - DAY, last + 2 * DAY


def lost(rows: list[Sent]) -> list[dict[str, Any]]:
    """Return the rows of source rows without a session."""
    return [
        dict.fromkeys(COMPARED) | LOST | {"sent_at": r.sent_at, "recipient": r.recipient or UNHEARD}
        for r in rows
    ]


def micros(moment: datetime) -> int:
    return (moment - EPOCH) // US


def moment(us: Any) -> Any:
    return us if us is None else EPOCH + us * US


def day_of(row: Sent) -> date:
    return moment(row.sent_at).date()
