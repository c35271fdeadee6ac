"""The made-up world of the benchmarks: a source table, and a service that answers for it.

A session number says by itself what became of it, so the service needs no memory: its last
twelve digits are the operator's prefix (2), the subscriber (8) and the outcome (2).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

UNTIL: Final = datetime(2026, 1, 6, tzinfo=UTC)
"""No message is sent later: all are past the cutoff, so one pass ends the work."""

DAYS: Final = 5
_ROWS_AT_ONCE: Final = 100_000
PREFIXES: Final = (
    "130", "131", "132", "133", "134", "135", "136", "137", "138", "139", "150", "151", "152",
    "153", "155", "156", "157", "158", "159", "166", "170", "173", "175", "176", "177", "178",
    "180", "181", "182", "183", "184", "185", "186", "187", "188", "189", "191", "195", "198",
    "199",
)  # fmt: skip
_TEMPLATES: Final = ("otp", "order", "parcel", "offer", "alert", "reminder")


def write_source(
    path: Path, sessions: int, seed: int = 0, days: int = DAYS, until: datetime = UNTIL
) -> None:
    """Write a Parquet file of messages: session_no, sent_at, template; spread over days."""
    with pq.ParquetWriter(path, _SCHEMA) as writer:
        for batch in _batches(sessions, seed, days, until):
            writer.write_batch(batch)


def ids(sessions: int, seed: int = 0) -> list[str]:
    """Return so many session numbers."""
    batches = _batches(sessions, seed, DAYS, UNTIL)
    return [one for batch in batches for one in batch.column(0).to_pylist()]


def _batches(sessions: int, seed: int, days: int, until: datetime) -> Iterator[pa.RecordBatch]:
    random = np.random.default_rng(seed)
    first = until - timedelta(days=days)
    step = timedelta(days=days) / sessions
    for begin in range(0, sessions, _ROWS_AT_ONCE):
        count = min(_ROWS_AT_ONCE, sessions - begin)
        numbers = range(begin, begin + count)
        high = random.integers(0, 2**48, count)
        low = random.integers(0, 2**24, count)
        digits = random.integers(0, 10**10, count)
        prefixes = random.integers(0, len(PREFIXES), count)
        ids = [
            f"{h >> 16:08x}-{h & 0xFFFF:04x}-4{m >> 12:03x}-9{m & 0xFFF:03x}-{p:02d}{d:010d}"
            for h, m, p, d in zip(high, low, prefixes, digits, strict=True)
        ]
        columns = [
            pa.array(ids),
            pa.array([first + step * n for n in numbers], _SCHEMA.field("sent_at").type),
            pa.array([_TEMPLATES[n % len(_TEMPLATES)] for n in numbers]),
        ]
        yield pa.record_batch(columns, schema=_SCHEMA)


_SCHEMA: Final = pa.schema(
    [
        ("session_no", pa.string()),
        ("sent_at", pa.timestamp("us", "UTC")),
        ("template", pa.string()),
    ]
)


def _tail(outcome: int) -> bytes:
    """Return what follows the phone: 95 % delivered, the rest in other words."""
    words = {95: "UNDELIV", 96: "failed", 97: "rejectd", 98: "expired", 99: "unknown"}
    at = UNTIL + timedelta(hours=8, seconds=3 + 7 * outcome)
    return (
        f'","Status":"{words.get(outcome, "delivered")}","ReceiveTime":"{at:%Y-%m-%d %H:%M:%S}"}}}}'
    ).encode()


_TAILS: Final = {b"%02d" % n: _tail(n) for n in range(100)}
_HEADS: Final = {
    b"%02d" % n: b'","Status":"success","Receipt":{"Phone":"%b' % prefix.encode()
    for n, prefix in enumerate(PREFIXES)
}


def answer(query: bytes) -> bytes:
    """Return the body that answers ``id=…&id=…``, as the service words it."""
    items = [
        b'{"SessionNo":"' + one + _HEADS[one[-12:-10]] + one[-10:-2] + _TAILS[one[-2:]]
        for one in query[3:].split(b"&id=")
    ]
    return b'{"RetCode":0,"Message":"success","Data":[' + b",".join(items) + b"]}"
