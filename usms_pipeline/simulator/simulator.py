"""The simulated service: what it was sent, what it answers and when, what it was asked.

No sockets: ``server`` puts it on the network. The clock is an argument.
"""

from __future__ import annotations

import hmac
import math
import threading
import time
import zlib
from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from random import Random
from typing import Any, Final, Literal
from urllib.parse import parse_qsl

import pyarrow as pa

from usms_pipeline.simulator import answers, replies
from usms_pipeline.simulator.fate import Outage
from usms_pipeline.simulator.faults import Faults
from usms_pipeline.simulator.replies import Reply
from usms_pipeline.simulator.roster import Roster, sent_rows
from usms_pipeline.simulator.truth import truth

PATH: Final = "/api/v1/usms/USMSSendReceipt"
ACCESS_KEY_ID: Final = "demo"
ACCESS_KEY_SECRET: Final = "demo-secret"
MAX_IDS: Final = 100
_MAX_ID_LENGTH = 256

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


@dataclass
class Counters:
    """What a simulator was asked, and how it answered, since it was made."""

    requests: int = 0
    answered: int = 0  # with RetCode 0, whole
    refused: int = 0  # parameter errors and credentials
    throttled: int = 0  # HTTP 429 and RetCode 153
    faults: Counter[str] = field(default_factory=Counter)  # useless answers, by fault
    ids_asked: Counter[str] = field(default_factory=Counter)  # times each session was asked about
    asked_after_final: Counter[str] = field(
        default_factory=Counter
    )  # after all final statuses were sent


class _RateLimit:
    """A bucket that fills at a number of requests per second and holds one second's worth."""

    def __init__(self, seconds_now: Callable[[], float]) -> None:
        self._seconds_now, self._at = seconds_now, seconds_now()
        self._room = math.inf

    def allows(self, requests_per_second: float) -> bool:
        now = self._seconds_now()
        filled = self._room + (now - self._at) * requests_per_second
        self._room, self._at = min(max(1.0, requests_per_second), filled), now
        is_allowed = self._room >= 1
        self._room -= is_allowed
        return is_allowed


class Simulator:
    """A USMS service over ``messages`` (see ``roster.sent_rows``) with ``faults``.

    The same seed and messages give the same receipts, in any process and in any order of
    questions. ``outage`` is an ``Outage``, None for none, or "auto": two days before the last
    message. ``receipt_timezone`` is that of ``ReceiveTime``. ``faults`` may be set at any time.
    ``monotonic`` gives the seconds by which the rate limit counts.
    """

    def __init__(
        self,
        messages: Any = (),
        *,
        seed: int = 0,
        faults: Faults | None = None,
        outage: Outage | Literal["auto"] | None = "auto",
        clock: Clock = utc_now,
        access_key_id: str = ACCESS_KEY_ID,
        access_key_secret: str = ACCESS_KEY_SECRET,
        receipt_timezone: str = "Asia/Shanghai",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.seed, self.clock = seed, clock
        self.counters = Counters()
        self._faults = faults or Faults()
        self._outage = outage
        self._credentials = b64encode(f"{access_key_id}:{access_key_secret}".encode())
        self._roster = Roster(seed, receipt_timezone)
        self._limit = _RateLimit(monotonic)
        self._attempts: Counter[int] = Counter()
        self._useless_in_a_row: Counter[int] = Counter()
        self._shown: set[int] = set()
        self._lock = threading.Lock()  # the server answers in one thread, tests add in another
        self.add(messages)

    @property
    def faults(self) -> Faults:
        """The faults in force; setting others changes what becomes of the messages too."""
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        with self._lock:
            self._faults = faults
            self._roster.forget_fates()
            self._roster.settle(self.outage, faults)

    @property
    def outage(self) -> Outage | None:
        """The operator outage in force; None without one, or as long as there is no message."""
        if self._outage == "auto":
            last_sent_at = self._roster.last_sent_at()
            if last_sent_at is None:
                return None
            self._outage = Outage.before(last_sent_at)
        return self._outage

    @property
    def sessions(self) -> list[str]:
        """The session numbers that the service knows."""
        return list(self._roster.recipients_of)

    def add(self, messages: Any) -> None:
        """Accept further messages (see ``roster.sent_rows``)."""
        rows = list(sent_rows(messages))
        with self._lock:
            self._roster.add(rows)
            self._roster.settle(self.outage, self._faults)

    def truth(self, at: datetime) -> pa.Table:
        """Return what a perfect connector knows at ``at``: ``truth.SCHEMA``, a row a recipient."""
        with self._lock:
            return truth(self._roster, _epoch_us(at), self.is_poison)

    def is_poison(self, session_no: str) -> bool:
        """Return whether the service refuses every request that names this session."""
        if session_no in self._faults.poison_ids or len(session_no) > _MAX_ID_LENGTH:
            return True
        share = self._faults.poison
        text = f"{self.seed}|{session_no}".encode("utf-8", "surrogatepass")
        return share > 0 and zlib.crc32(text) < share * 2**32

    def answer(self, query: bytes, authorization: str = "", takes_gzip: bool = False) -> Reply:
        """Return the reply to one GET, by its raw query string and its ``Authorization``."""
        with self._lock:
            self.counters.requests += 1
            # how often this was asked, so that the order of other queries does not matter
            self._attempts[zlib.crc32(query)] += 1
            rng = Random(f"{self.seed}|{self._attempts[zlib.crc32(query)]}|{query!r}")
            reply = self._reply(query, authorization, rng)
            if takes_gzip and reply.status == 200 and rng.random() < self._faults.gzip:
                reply = replies.compressed(reply)
            slow = self._faults.slow_seconds if rng.random() < self._faults.slow else 0.0
            return replace(reply, delay_seconds=self._faults.latency_seconds + slow)

    def _reply(self, query: bytes, authorization: str, rng: Random) -> Reply:
        faults = self._faults
        if rng.random() < faults.down:
            return self._count("down", replies.unreachable(rng))
        scheme, _, given = authorization.partition(" ")
        is_equal = hmac.compare_digest(given.strip().encode(), self._credentials)
        if not is_equal or scheme.casefold() != "basic":
            self.counters.refused += 1
            return replies.unauthorized()
        if rng.random() < faults.auth_failure:
            return self._count("auth_failure", replies.unauthorized(rng))
        if faults.rate_limit and not self._limit.allows(faults.rate_limit):
            self.counters.throttled += 1
            is_plain = rng.random() < 0.3  # services have both answers
            limited = replies.THROTTLED_200 if is_plain else replies.throttled(faults, rng)
            return self._count("rate_limit", limited)
        if faults.uri_limit and len(query) > faults.uri_limit:
            return self._count("uri_limit", replies.page(414, "URI Too Long"))
        return self._about(query, rng)

    def _about(self, query: bytes, rng: Random) -> Reply:
        ids = ids_of(query)
        self.counters.ids_asked.update(ids)
        for session_no in ids:
            recipients = self._roster.recipients_of.get(session_no)
            if recipients and self._shown.issuperset(recipients):
                self.counters.asked_after_final[session_no] += 1
        kind = self._useless(query, rng)
        reply = kind and replies.without_content(kind, self._faults, rng)
        if reply:
            self.counters.throttled += kind in ("throttle", "ret_throttle")
            return reply
        if not ids or len(ids) > MAX_IDS or any(not one or self.is_poison(one) for one in ids):
            self.counters.refused += 1
            code = replies.PARAMETER_ERROR if ids else replies.PARAMETER_MISSING
            return replies.refusal(code, f"{'Invalid' if ids else 'Missing'} parameter [id]")
        said = answers.items(
            self._roster, ids, _epoch_us(self.clock()), self._shown, self._faults, rng
        )
        reply = replies.json_reply(answers.envelope(said, self._faults, rng))
        if kind:
            return replies.spoiled(kind, reply, self._faults)
        self.counters.answered += 1
        self._shown.update(said.finals)
        return reply

    def _useless(self, query: bytes, rng: Random) -> str | None:
        kind = replies.useless_kind(self._faults, rng)
        key = zlib.crc32(query)
        if kind and 0 < self._faults.relent_after <= self._useless_in_a_row[key]:
            kind = None
        if kind is None:
            self._useless_in_a_row.pop(key, None)
            return None
        self._useless_in_a_row[key] += 1
        self.counters.faults[kind] += 1
        return kind

    def _count(self, fault: str, reply: Reply) -> Reply:
        self.counters.faults[fault] += 1
        return reply


def ids_of(query: bytes) -> list[str]:
    """Return the distinct ids of a query string, in order.

    >>> ids_of(b"id=a&id=b%20c&id=a&other=1")
    ['a', 'b c']
    """
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="replace")
    return list(dict.fromkeys(value for name, value in pairs if name == "id"))


def _epoch_us(at: datetime) -> int:
    if at.tzinfo is None:
        raise ValueError("The simulator's times need a time zone; give an aware datetime.")
    return round(at.timestamp() * 1_000_000)
