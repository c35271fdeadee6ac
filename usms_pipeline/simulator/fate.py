"""What becomes of a message: a pure function of seed, session, phone and time of sending.

No clock, no requests, no JSON. Times are epoch microseconds, so that all is done in columns.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from statistics import NormalDist
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from usms_pipeline.simulator.faults import Faults
from usms_pipeline.simulator.numbering import Origin, origin

NEVER: Final = int(np.iinfo(np.int64).max)
"""The time of what does not happen."""

SILENT: Final = -1
"""The final status of a message for which the service never has a receipt."""

_SECOND = 1_000_000
_HOUR = 3600 * _SECOND
_LONGEST_HOURS = 60.0
_WORDLESS_AFTER_HOURS = 48

Times = npt.NDArray[np.int64]
Draws = npt.NDArray[np.float64]


class Outcome(NamedTuple):
    """What the service says in the end: our status, its word, code, text; share of all."""

    status: str
    word: str
    code: str
    description: str
    share: float


OUTCOMES: Final = (
    Outcome("failed", "failed", "UNDELIV", "Handset not reachable", 0.014),
    Outcome("failed", "undelivered", "MK:0012", "Number not in service", 0.010),
    Outcome("failed", "failed", "MI:0024", "Subscriber absent", 0.006),
    Outcome("failed", "发送失败", "DB:0119", "关机或停机", 0.004),
    Outcome("failed", "failed", "MB:1042", "Blocked by the subscriber", 0.004),
    Outcome("rejected", "rejected", "SIGNERR", "Signature not approved", 0.006),
    Outcome("rejected", "submitfail", "TPLERR", "Template does not match", 0.004),
    Outcome("rejected", "REJECTD", "BLACKNO", "Number on the platform's block list", 0.002),
    Outcome("expired", "expired", "EXPIRED", "Phone off for the whole validity", 0.009),
    Outcome("expired", "过期", "EXPIRED", "超过有效期", 0.002),
    Outcome("delivered", "delivered", "DELIVRD", "Delivered", 0.84),
    Outcome("delivered", "DELIVRD", "DELIVRD", "", 0.11),
    Outcome("delivered", "发送成功", "0", "发送成功", 0.05),
    Outcome("failed", "failed", "NETERR", "Operator network not available", 0.0),
    Outcome("unknown", "UNKNOW", "", "No report from the carrier", 0.0),
    Outcome("unrecognized", "INTERCEPTED", "", "", 0.0),
    Outcome("unrecognized", "处理中", "", "", 0.0),
)
"""First failures (shares of all), then successes (shares of the rest)."""

_NAMES: Final = tuple(outcome.status for outcome in OUTCOMES)
_TROUBLES = _NAMES.index("delivered")
_DELIVERIES = _NAMES.count("delivered")
_OUTAGE_FAILURE = _TROUBLES + _DELIVERIES
_WORDLESS = _OUTAGE_FAILURE + 1
_UNRECOGNIZED = _WORDLESS + 1


class _Temper(NamedTuple):
    """How a country's networks behave: median delay, share never reported, trouble (CN = 1)."""

    median_seconds: float
    silent_share: float
    trouble: float


_TEMPERS: Final = {
    "CN": _Temper(4, 0.020, 1.0),
    "SG": _Temper(5, 0.010, 0.7),
    "HK": _Temper(5, 0.012, 0.8),
    "US": _Temper(6, 0.015, 0.9),
    "GB": _Temper(7, 0.015, 0.9),
    "DE": _Temper(7, 0.015, 0.8),
    "JP": _Temper(6, 0.010, 0.6),
    "IN": _Temper(15, 0.040, 1.7),
    "BR": _Temper(20, 0.050, 1.9),
    "ID": _Temper(25, 0.050, 1.8),
}
_OTHER = _Temper(12, 0.030, 1.3)


@dataclass(frozen=True)
class Outage:
    """One operator in trouble for some hours: much of what is sent then fails or comes late."""

    start_at: datetime
    hours: float = 6
    country: str = "CN"
    operator: str = "China Unicom"
    failed_share: float = 0.6
    late_share: float = 0.25

    @classmethod
    def before(cls, last_sent_at: datetime) -> Outage:
        """Return the outage of a rehearsal: from 9 to 15 o'clock in China, two days before."""
        china = ZoneInfo("Asia/Shanghai")
        day = last_sent_at.astimezone(china) - timedelta(days=2)
        return cls(day.replace(hour=9, minute=0, second=0, microsecond=0).astimezone(UTC))


class Fates(NamedTuple):
    """One row a recipient: index into ``OUTCOMES`` (or SILENT), and the times or NEVER.

    ``received_us`` is what the receipt says, in whole seconds; ``revealed_us`` is from when on
    the service says it.
    """

    outcome: npt.NDArray[np.int16]
    received_us: Times
    revealed_us: Times


_DRAWN = (
    "silent", "outcome", "normal_a", "normal_b", "tail", "tail_length", "outage", "outage_length",
    "missing", "late", "late_length", "word", "regressing", "conflicting", "form", "segments",
)  # fmt: skip
COLUMN: Final = {name: index for index, name in enumerate(_DRAWN)}


def draws(seed: int, sessions: Sequence[str], phones: Sequence[str], sent_us: Times) -> Draws:
    """Return (recipients, 16) numbers in [0, 1), each row from its own message and seed alone."""
    digests = [
        blake2b(f"{seed}|{session}|{phone}|{sent}".encode("utf-8", "surrogatepass")).digest()
        for session, phone, sent in zip(sessions, phones, sent_us.tolist(), strict=True)
    ]
    words = np.frombuffer(b"".join(digests), dtype="<u4").reshape(-1, len(_DRAWN))
    scaled: Draws = words / 2.0**32
    return scaled


def fates(
    drawn: Draws, phones: Sequence[str], sent_us: Times, outage: Outage | None, faults: Faults
) -> Fates:
    """Return what becomes of each message. ``phones`` in E.164; ``drawn`` from ``draws``."""
    origins = [origin(phone) for phone in phones]
    tempers = np.array([_TEMPERS.get(o.country, _OTHER) for o in origins], float).reshape(-1, 3)
    outcome = _outcomes(drawn, tempers[:, 2] * _days(origins, sent_us, faults.uneven_days))
    own = {one: _drawn_of(*one) for one in {*origins}}
    # each operator has a slowness of its own, 0.7 to 1.6 of its country's median
    paces = np.array([0.7 + 0.9 * own[one] for one in origins], float)
    seconds = _delays(drawn, tempers[:, 0] * paces, outcome)
    if outage is not None:
        outcome, seconds = _under_outage(drawn, origins, sent_us, outcome, seconds, outage)
    # rounded up to what ReceiveTime can say: a receipt is never shown before its time
    received = -(-(sent_us + (seconds * _SECOND).astype(np.int64)) // _SECOND) * _SECOND
    settled = Fates(outcome, received, received.copy())
    _hold_back(origins, settled, faults.nightly)
    _silence(drawn, tempers[:, 1], sent_us, settled)
    _apply(faults, drawn, settled)
    return settled


def _outcomes(drawn: Draws, trouble: Draws) -> npt.NDArray[np.int16]:
    shares = np.array([outcome.share for outcome in OUTCOMES])
    wrong = np.cumsum(shares[:_TROUBLES])
    well = np.cumsum(shares[_TROUBLES : _TROUBLES + _DELIVERIES])
    chosen = np.searchsorted(wrong, drawn[:, COLUMN["outcome"]] / trouble, side="right")
    word = np.searchsorted(well / well[-1], drawn[:, COLUMN["word"]], side="right")
    return np.where(chosen < _TROUBLES, chosen, _TROUBLES + word).astype(np.int16)


def _delays(drawn: Draws, median_seconds: Draws, outcome: npt.NDArray[np.int16]) -> Draws:
    """Log-normal, with a tail of phones that were off; a rejection comes at once."""
    radius = np.sqrt(-2 * np.log1p(-drawn[:, COLUMN["normal_a"]]))
    normal = radius * np.cos(2 * np.pi * drawn[:, COLUMN["normal_b"]])
    seconds = median_seconds * np.exp(1.1 * normal)
    # Ten minutes to forty hours, each order of magnitude alike.
    tail = 600 * 240.0 ** drawn[:, COLUMN["tail_length"]]
    seconds = np.where(drawn[:, COLUMN["tail"]] < 0.025, tail, seconds)
    status = np.array(_NAMES)[outcome]
    seconds = np.where(status == "failed", seconds * 4, seconds)
    seconds = np.where(status == "rejected", 1 + drawn[:, COLUMN["tail_length"]], seconds)
    given_up = 48 * 3600 + 1800 * drawn[:, COLUMN["tail_length"]]
    seconds = np.where(status == "expired", given_up, seconds)
    return np.clip(seconds, 1.0, _LONGEST_HOURS * 3600)


def _days(origins: Sequence[Origin], sent_us: Times, spread: float) -> Draws:
    if not spread:
        return np.ones(len(sent_us))
    keys = list(zip(origins, (sent_us // (24 * _HOUR)).tolist(), strict=True))
    normal = NormalDist(0, spread)
    factors = {key: np.exp(normal.inv_cdf(_drawn_of(*key[0], key[1]))) for key in {*keys}}
    return np.array([factors[key] for key in keys], float)


def _drawn_of(*names: object) -> float:
    """Return a number between 0 and 1 that depends on the names alone."""
    return (zlib.crc32("/".join(map(str, names)).encode()) + 0.5) / 2**32


def _hold_back(origins: Sequence[Origin], settled: Fates, share: float) -> None:
    """Reveal what a share of the operators delivered only at 02:00 in China, all at once."""
    if not share:
        return
    held = {one: _drawn_of("nightly", *one) < share for one in {*origins}}
    rows = np.array([held[one] for one in origins], bool)
    rows &= np.array([name == "delivered" for name in _NAMES])[settled.outcome]
    day, begins = 24 * _HOUR, 18 * _HOUR  # two o'clock there
    settled.revealed_us[rows] = (settled.received_us[rows] - begins) // day * day + day + begins


def _under_outage(
    drawn: Draws,
    origins: Sequence[Origin],
    sent_us: Times,
    outcome: npt.NDArray[np.int16],
    seconds: Draws,
    outage: Outage,
) -> tuple[npt.NDArray[np.int16], Draws]:
    start = int(outage.start_at.timestamp()) * _SECOND
    during = (sent_us >= start) & (sent_us < start + int(outage.hours * _HOUR))
    there = (outage.country, outage.operator)
    struck = during & np.array([there == one for one in origins], bool)
    draw = drawn[:, COLUMN["outage"]]
    fails = struck & (draw < outage.failed_share)
    waits = struck & ~fails & (draw < outage.failed_share + outage.late_share)
    wait_seconds = outage.hours * 3600 * (0.5 + drawn[:, COLUMN["outage_length"]])
    outcome = np.where(fails, _OUTAGE_FAILURE, outcome).astype(np.int16)
    return outcome, np.where(waits, np.maximum(seconds, wait_seconds), seconds)


def _silence(drawn: Draws, share: Draws, sent_us: Times, settled: Fates) -> None:
    """Remove the carrier's report of some; the service says so of half of those."""
    draw = drawn[:, COLUMN["silent"]]
    _remove(draw < share, settled)
    told = draw < share / 2
    settled.outcome[told] = _WORDLESS
    settled.revealed_us[told] = sent_us[told] + _WORDLESS_AFTER_HOURS * _HOUR


def _apply(faults: Faults, drawn: Draws, settled: Fates) -> None:
    reported = settled.received_us != NEVER
    late = reported & (drawn[:, COLUMN["late"]] < faults.late)
    behind = faults.late_hours * (0.2 + 0.8 * drawn[late, COLUMN["late_length"]])
    settled.revealed_us[late] += (behind * _HOUR).astype(np.int64)
    odd = reported & (drawn[:, COLUMN["form"]] < faults.unknown_words)
    settled.outcome[odd] = _UNRECOGNIZED + (drawn[odd, COLUMN["word"]] < 0.5)
    settled.received_us[odd] = NEVER
    _remove(drawn[:, COLUMN["missing"]] < faults.missing, settled)


def _remove(rows: npt.NDArray[np.bool_], settled: Fates) -> None:
    settled.outcome[rows] = SILENT
    settled.received_us[rows] = settled.revealed_us[rows] = NEVER
