"""Every message the simulated service accepted, in columns: read from any customer's table.

It holds what was sent and what becomes of it; ``answers`` decides how and when that is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.simulator import fate
from usms_pipeline.simulator.fate import NEVER, Outage
from usms_pipeline.simulator.faults import Faults
from usms_pipeline.simulator.numbering import spelled, to_e164

TIME: Final = pa.timestamp("us", tz="UTC")
RECEIVE_TIME: Final = "%Y-%m-%d %H:%M:%S"


class Sent(NamedTuple):
    """One row of a customer's table; without a phone the service has its own of ``recipients``."""

    session_no: str
    phone: str | None
    sent_us: int
    recipients: int = 1


class Roster:
    """The recipients in the order they came, one entry a list each, and the sessions they are of.

    ``add`` takes further rows; ``settle`` says what becomes of those not settled yet.
    """

    def __init__(self, seed: int, receipt_timezone: str) -> None:
        self.seed, self.receipt_timezone = seed, receipt_timezone
        self.recipients_of: dict[str, list[int]] = {}
        self.session_no: list[str] = []
        self.phone: list[str] = []
        self.spelled: list[str] = []
        self.sent_us: list[int] = []
        self.forget_fates()

    def forget_fates(self) -> None:
        """Drop every recipient's final status, to draw it with another outage or other faults."""
        self.outcome: list[int] = []
        self.received_us: list[int] = []
        self.received_text: list[str | None] = []
        self.revealed_us: list[int] = []
        self.drawn = np.empty((0, len(fate.COLUMN)))

    def add(self, rows: Iterable[Sent]) -> None:
        """Add rows; a session counts from its earliest, a phone counts once in a session."""
        rows = list(rows)
        sent_us: dict[str, int] = {}
        for row in rows:
            sent_us[row.session_no] = min(sent_us.get(row.session_no, NEVER), row.sent_us)
        for row in rows:
            phones = [to_e164(row.phone)] if row.phone and row.phone.strip() else []
            for _ in range(max(1, row.recipients) - len(phones)):
                ordinal = len(self.recipients_of.get(row.session_no, ())) + len(phones)
                key = f"{self.seed}|{row.session_no}|{ordinal}".encode("utf-8", "surrogatepass")
                made_up = int.from_bytes(blake2b(key, digest_size=8).digest()) % 10**8
                phones.append(f"+86138{made_up:08d}")
            for phone in phones:
                self._enter(row.session_no, phone, sent_us[row.session_no])

    def settle(self, outage: Outage | None, faults: Faults) -> None:
        """Draw the final statuses of what was added since."""
        start = len(self.outcome)
        phones = self.phone[start:]
        sent_us = np.array(self.sent_us[start:], dtype=np.int64)
        drawn = fate.draws(self.seed, self.session_no[start:], phones, sent_us)
        settled = fate.fates(drawn, phones, sent_us, outage, faults)
        self.drawn = np.concatenate([self.drawn, drawn])
        self.outcome += settled.outcome.tolist()
        self.received_us += settled.received_us.tolist()
        self.revealed_us += settled.revealed_us.tolist()
        self.received_text += pc.strftime(
            times(settled.received_us).cast(pa.timestamp("s", tz=self.receipt_timezone)),
            format=RECEIVE_TIME,
        ).to_pylist()

    def last_sent_at(self) -> datetime | None:
        """Return the time of the latest message, None when there is none."""
        if not self.sent_us:
            return None
        return datetime.fromtimestamp(max(self.sent_us) / 1e6, UTC)

    def _enter(self, session_no: str, phone: str, sent_us: int) -> None:
        known = self.recipients_of.setdefault(session_no, [])
        if any(self.phone[index] == phone for index in known):
            return
        known.append(len(self.phone))
        self.session_no.append(session_no)
        self.phone.append(phone)
        self.spelled.append(spelled(phone))
        self.sent_us.append(sent_us)


def times(epoch_us: Any) -> pa.Array:
    """Return epoch microseconds as UTC timestamps; NEVER is null."""
    values = np.asarray(epoch_us, dtype=np.int64)
    return pa.array(values, mask=values == NEVER).cast(TIME)


def sent_rows(messages: Any) -> Iterator[Sent]:
    """Yield a customer's messages, read from an Arrow table, reader, batches or tuples.

    Columns are ``session_no`` and ``sent_at``, and optionally ``phone`` and ``recipients``. Tuples
    are (session_no, phone or None, aware sent_at). Rows without a session number or a time are left
    out: the service never knew them. A naive ``sent_at`` is UTC.
    """
    for part in [messages] if isinstance(messages, pa.Table | pa.RecordBatch) else messages:
        if isinstance(part, pa.Table | pa.RecordBatch):
            yield from _arrow_rows(part)
        else:
            session_no, phone, sent_at = part
            yield Sent(session_no, phone, round(sent_at.timestamp() * 1e6))


def _arrow_rows(rows: pa.Table | pa.RecordBatch) -> Iterator[Sent]:
    names = rows.schema.names
    sessions = rows.column("session_no").cast(pa.string()).to_pylist()
    sent = rows.column("sent_at").cast(TIME).cast(pa.int64()).to_pylist()
    absent = [None] * len(sessions)
    phones = rows.column("phone").cast(pa.string()).to_pylist() if "phone" in names else absent
    dealt = rows.column("recipients").to_pylist() if "recipients" in names else absent
    for session_no, phone, sent_us, recipients in zip(sessions, phones, sent, dealt, strict=True):
        if session_no and session_no.strip() and sent_us is not None:
            yield Sent(session_no.strip(), phone, sent_us, recipients or 1)
