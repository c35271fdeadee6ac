"""A customer's table of sent messages, made up: the same rows from the same seed.

Nothing here knows what becomes of a message.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

import numpy as np
import pyarrow as pa

from usms_pipeline.simulator.numbering import PLANS

SCHEMA: Final = pa.schema(
    [
        ("session_no", pa.string()),
        ("phone", pa.string()),  # E.164
        ("country", pa.string()),  # ISO 3166-1 alpha-2
        ("template", pa.string()),
        ("purpose", pa.string()),  # code, notice or marketing
        ("sender", pa.string()),
        ("sent_at", pa.timestamp("us", tz="UTC")),  # whole milliseconds
    ]
)


class Template(NamedTuple):
    """One kind of message and its share of all."""

    name: str
    purpose: str
    sender: str
    share: float


TEMPLATES: Final = (
    Template("otp_login", "code", "ACME", 0.42),
    Template("otp_payment", "code", "ACME", 0.12),
    Template("order_notice", "notice", "ACME-SHOP", 0.18),
    Template("delivery_notice", "notice", "ACME-SHOP", 0.12),
    Template("spring_sale", "marketing", "ACME-NEWS", 0.16),
)

_SHARES_BY_HOUR_IN_CHINA = np.array(
    [1.0, 0.6, 0.4, 0.3, 0.3, 0.5, 1.2, 2.6, 4.2, 5.6, 6.4, 6.0,
     5.4, 5.0, 5.2, 5.4, 5.6, 5.8, 6.2, 7.0, 7.4, 6.6, 4.4, 2.2]
)  # fmt: skip
_SHARES_BY_WEEKDAY = np.array([1.0, 1.0, 1.02, 1.03, 1.1, 0.8, 0.68])  # from Monday on
_FIRST_WEEKDAY = 3  # of 1970: a Thursday
_CHINA_AHEAD_MINUTES = 8 * 60


@dataclass(frozen=True)
class Population:
    """``messages`` rows over ``days`` days up to ``until`` (aware; now if None).

    ``group_share`` of the rows are in sessions of 2 to ``group_size`` recipients, which share
    session number, template and time. They go to ``customers`` people, drawn at random, so that
    one can be in a session twice; to one of its own each, if None. All but ``sent_at`` depends on
    the other arguments only.
    """

    messages: int = 50_000
    days: float = 5
    seed: int = 0
    until: datetime | None = None
    group_share: float = 0.0
    group_size: int = 20
    customers: int | None = None

    def table(self) -> pa.Table:
        """Make the rows (``SCHEMA``), ordered by ``sent_at``."""
        rng = np.random.default_rng(self.seed)
        grouped = round(self.messages * self.group_share)
        sizes = [1] * (self.messages - grouped)
        while grouped > 0:
            sizes.append(min(int(rng.integers(2, self.group_size + 1)), grouped))
            grouped -= sizes[-1]
        shuffled = rng.permutation(np.array(sizes, dtype=np.int64))
        session_of_row = np.repeat(np.arange(len(sizes)), shuffled)
        count = int(session_of_row[-1]) + 1 if self.messages else 0
        countries, phones = _phones(rng, self.customers or self.messages)
        if self.customers is not None:
            chosen = rng.integers(0, self.customers, self.messages)
            countries, phones = countries.take(chosen), phones.take(chosen)
        kinds = rng.choice(len(TEMPLATES), count, p=[kind.share for kind in TEMPLATES])
        raw = rng.bytes(16 * count)
        numbers = [str(UUID(bytes=raw[at : at + 16], version=4)) for at in range(0, len(raw), 16)]
        columns = [
            pa.array(numbers, pa.string()).take(session_of_row),
            phones,
            countries,
            *(
                pa.array([kind[field] for kind in TEMPLATES]).take(kinds[session_of_row])
                for field in range(3)
            ),
            pa.array(self._sent_us(rng, count)[session_of_row]).cast(SCHEMA.field("sent_at").type),
        ]
        return pa.Table.from_arrays(columns, schema=SCHEMA)

    def _sent_us(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Draw times in the rhythm of days and weeks, ascending, as epoch microseconds."""
        until = self.until or datetime.now(UTC)
        first_minute = int((until - timedelta(days=self.days)).timestamp()) // 60
        minutes = first_minute + np.arange(max(1, int(self.days * 24 * 60)))
        hours = (minutes + _CHINA_AHEAD_MINUTES) // 60
        weekdays = (hours // 24 + _FIRST_WEEKDAY) % 7
        weight = _SHARES_BY_HOUR_IN_CHINA[hours % 24] * _SHARES_BY_WEEKDAY[weekdays]
        edges = np.concatenate([[0.0], np.cumsum(weight)])
        drawn = np.sort(rng.random(count)) * edges[-1]
        at_minutes = first_minute + np.interp(drawn, edges, np.arange(len(edges)))
        sent: np.ndarray = (at_minutes * 60_000).astype(np.int64) * 1000
        return sent


def _phones(rng: np.random.Generator, count: int) -> tuple[pa.Array, pa.Array]:
    """Draw countries and phones of as many people, by the shares of ``PLANS``."""
    names = list(PLANS)
    drawn = rng.choice(len(names), count, p=[plan.share for plan in PLANS.values()])
    prefix = rng.integers(0, 2**31, count)
    digits = rng.integers(0, 10**9, count)
    countries, phones = [names[index] for index in drawn.tolist()], []
    for country, place, number in zip(countries, prefix.tolist(), digits.tolist(), strict=True):
        plan = PLANS[country]
        beginning = plan.prefixes[place % len(plan.prefixes)]
        phones.append(f"+{plan.code}{beginning}{number:09d}"[: 1 + len(plan.code) + plan.digits])
    return pa.array(countries, pa.string()), pa.array(phones, pa.string())
