"""What must lie in the data directory, worked out from everything that ever happened.

Kept here is what the pipeline may have deleted by now: rows that left the source, answers purged.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from tests import world_answers
from tests.model import SourceRow, World, is_due
from tests.world_answers import Reading, Trouble
from tests.world_disk import Day
from usms_pipeline.dataset import Window
from usms_pipeline.phones import PhoneBook

CUTOFF = timedelta(hours=72)
COMPARED = (
    "session_no", "recipient", "sent_at", "is_announced", "status", "is_final", "is_closed",
    "provider_status", "received_at", "first_asked_at", "last_asked_at", "final_at", "conflicts",
)  # fmt: skip
Rows = dict[int, SourceRow]
Answers = dict[str, list[dict[str, Any]]]


@dataclass
class Message:
    """One row of the customer's table, as it stands there now."""

    session_no: str | None
    phone: str | None
    recipients: int
    sent_at: datetime
    is_gone: bool = False
    mended: str = ""
    """What was done to it. Nothing more is: two changes at once would make it another row."""


@dataclass
class Ledger:
    """The customer's table, and what was taken from it and from the service, by partition."""

    book: PhoneBook
    messages: list[Message] = field(default_factory=list)
    stored: dict[date, Rows] = field(default_factory=dict)
    versions: dict[str, list[SourceRow]] = field(default_factory=dict)
    answers: dict[date, Answers] = field(default_factory=dict)
    folded: dict[date, set[str]] = field(default_factory=dict)
    purged: dict[date, set[str]] = field(default_factory=dict)
    marks: dict[tuple[date, Trouble], str] = field(default_factory=dict)
    phones_forgotten: set[str] = field(default_factory=set)
    digits_forgotten: set[str] = field(default_factory=set)
    sessions_forgotten: set[str] = field(default_factory=set)
    _readings: dict[tuple[date, str], Reading] = field(default_factory=dict)

    # -- rows -------------------------------------------------------------------------------------

    def read_now(self, window: Window) -> dict[date, Rows]:
        """Give what the window's partitions hold once the source was read."""
        found = {day: dict(rows) for day, rows in self.stored.items() if day in window}
        for uid, message in enumerate(self.messages):
            day = message.sent_at.date()
            row = self._row(message)
            if day in window and not message.is_gone and not self._is_forgotten(row):
                found.setdefault(day, {})[uid] = row
        return found

    def may_be_mended(self, message: Message, how: str) -> bool:
        """Tell whether it can be told afterwards which of the rows of its moment was changed.

        Not where one was changed in another way and not read since: with a phone filled in, it may
        be as the other was, and the other, with a number now, counts as a new one: a limit of the
        pipeline's, which ``test_sessions`` shows.
        """
        changed = {
            other.mended
            for uid, other in enumerate(self.messages)
            if other.sent_at == message.sent_at
            and self.stored.get(other.sent_at.date(), {}).get(uid) not in (None, self._row(other))
        }
        return not message.mended and changed <= {how}

    def _row(self, message: Message) -> SourceRow:
        recipient = self.book.recipient_id(message.phone) if message.phone else None
        return SourceRow(message.session_no, message.sent_at, recipient, message.recipients)

    def _is_forgotten(self, row: SourceRow) -> bool:
        return row.session_no in self.sessions_forgotten or row.recipient in self.phones_forgotten

    # -- answers ----------------------------------------------------------------------------------

    def reading(self, day: date, names: Iterable[str]) -> Reading:
        """Give what some response files of a partition say, without what was forgotten."""
        whole = Reading()
        for name in names:
            if (day, name) not in self._readings:
                answers = self.answers[day][name]
                self._readings[day, name] = world_answers.read(answers, self.book)
            said = self._readings[day, name]
            whole.asked += said.asked
            whole.told += [t for t in said.told if t.number not in self.phones_forgotten]
            whole.troubles += said.troubles
        gone = self.sessions_forgotten
        whole.asked = [a for a in whole.asked if a.session_no not in gone]
        whole.told = [t for t in whole.told if t.session_no not in gone]
        whole.troubles = [t for t in whole.troubles if t[1] not in gone]
        return whole

    def receipts(
        self, day: date, rows: Iterable[SourceRow], names: Iterable[str]
    ) -> list[dict[str, Any]]:
        """Give the rows that a partition must have by these source rows and response files."""
        said = self.reading(day, names)
        return compared(World(list(rows), said.asked, said.told).receipts(CUTOFF))

    def due(self, day: date, rows: Rows, now: datetime, offsets: list[timedelta]) -> set[str]:
        """Give the sessions to ask about now, by the rows and all that ever landed."""
        tried = self._tried_in_vain(day)
        return {
            row["session_no"]
            for row in self.receipts(day, rows.values(), self.answers.get(day, {}))
            if not row["is_final"]
            and not row["is_closed"]
            and is_due(
                now,
                row["sent_at"],
                max(
                    filter(None, (row["last_asked_at"], tried.get(row["session_no"]))), default=None
                ),
                offsets,
            )
        }

    def _tried_in_vain(self, day: date) -> dict[str, datetime]:
        """Give when sessions were last asked about whose answer could not be read."""
        tried: dict[str, datetime] = {}
        for name, answers in self.answers.get(day, {}).items():
            for answer in answers if name not in self.purged.get(day, ()) else ():
                if answer["verdict"] == "unreadable":
                    for session in answer["ids"]:
                        tried[session] = max(
                            answer["asked_at"], tried.get(session, answer["asked_at"])
                        )
        return tried

    # -- quarantine -------------------------------------------------------------------------------

    def troubles(self, day: date, found: Day) -> dict[Trouble, str]:
        """Give the entries that a partition's present answers call for, each with its state."""
        entries: dict[Trouble, str] = {}
        for key in self.reading(day, found.answers).troubles:
            entries.setdefault(self._cut(key), self.marks.get((day, self._cut(key)), "open"))
        return entries

    def _cut(self, trouble: Trouble) -> Trouble:
        """Give a trouble as it is once what was forgotten is cut out of it."""
        kind, session, rest = trouble
        if kind == "refused_id":
            return trouble
        *ids, body = rest
        kept = (i for i in ids if i not in self.sessions_forgotten)
        return kind, session, (*kept, body if kind == "unreadable_answer" else self._item(body))

    def _item(self, text: str) -> str:
        item = json.loads(text)
        shown = item.get("Receipt") if isinstance(item, dict) else None
        if isinstance(shown, list):
            item["Receipt"] = [one for one in shown if not self._names_forgotten(one)]
        elif self._names_forgotten(shown):
            item["Receipt"] = None
        return json.dumps(item, sort_keys=True)

    def _names_forgotten(self, receipt: Any) -> bool:
        phone = receipt.get("Phone") if isinstance(receipt, dict) else None
        return bool(phone) and self.book.recipient_id(phone) in self.phones_forgotten

    def mark(self, day: date, keys: Iterable[Trouble], state: str) -> None:
        self.marks |= {(day, key): state for key in keys}

    def unmark(self, day: date) -> None:
        """The entries are gone with the answers that they came from."""
        self.marks = {key: state for key, state in self.marks.items() if key[0] != day}

    # -- forgetting -------------------------------------------------------------------------------

    def forget(self, phones: set[str], sessions: set[str]) -> None:
        """Forget, with the sessions of which only a forgotten phone was ever heard."""
        recipients = {self.book.recipient_id(phone) for phone in phones}
        self.digits_forgotten |= {re.sub(r"\D", "", phone)[-8:] for phone in phones}
        lone = {session for day in self.stored for session in self._lone(day, recipients)}
        self.phones_forgotten |= recipients
        self.sessions_forgotten |= sessions | lone
        self.marks = {(day, self._cut(key)): state for (day, key), state in self.marks.items()}
        for day, rows in self.stored.items():
            kept = {uid: row for uid, row in rows.items() if not self._is_forgotten(row)}
            self.stored[day] = kept

    def forgotten_words(self) -> set[str]:
        """Give what must not be found in any file: numbers, their hashes, session numbers."""
        return self.phones_forgotten | self.sessions_forgotten | self.digits_forgotten

    def _lone(self, day: date, recipients: set[str]) -> set[str]:
        announced: Counter[str | None] = Counter()
        for row in self.stored[day].values():
            announced[row.session_no] += row.recipients
        heard: dict[str, set[str]] = {}
        for told in self.reading(day, self.folded.get(day, ())).told:
            if told.number:
                heard.setdefault(told.session_no, set()).add(told.number)
        return {
            session
            for session, numbers in heard.items()
            if numbers <= recipients and announced[session] <= 1
        }


def compared(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give the columns of the reference, in its order.

    Recipients not heard of are told apart by a number alone, whose order means nothing.
    """
    kept = [{name: row[name] for name in COMPARED} for row in rows]
    for row in kept:
        if row["session_no"] is None or row["recipient"].startswith("unheard-"):
            row["recipient"] = None
    return sorted(kept, key=lambda r: str([r[name] for name in COMPARED]))


def as_stored(rows: Iterable[SourceRow]) -> Counter[tuple[Any, ...]]:
    return Counter((r.session_no, r.recipient, r.sent_at, r.recipients) for r in rows)


def as_found(rows: Iterable[dict[str, Any]]) -> Counter[tuple[Any, ...]]:
    return Counter((r["session_no"], r["recipient"], r["sent_at"], r["recipients"]) for r in rows)
