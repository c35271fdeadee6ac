"""What the simulator's messages come to, as a pipeline that polls on time holds it at any moment.

In columns, without HTTP or files: a year of messages in seconds. The truth beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tests.cohorts import CUTOFF
from tests.rate_worlds import fill, warehouse
from usms_pipeline.contract import polling, schema
from usms_pipeline.simulator import fate
from usms_pipeline.simulator.fate import Outage
from usms_pipeline.simulator.faults import Faults
from usms_pipeline.simulator.numbering import origin
from usms_pipeline.simulator.population import Population

__all__ = ["CUTOFF", "World", "fill", "warehouse"]

_SECOND = 1_000_000
_TICK = 900 * _SECOND
_VALIDITY = 48 * 3600
_OPEN = len(fate.OUTCOMES)
_STATUSES = np.array([outcome.status for outcome in fate.OUTCOMES] + ["pending"])
_FAILED = list(_STATUSES).index("failed")
_IS_FINAL = np.isin(_STATUSES, ["delivered", "failed", "rejected", "expired"])

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class World:
    """``count`` messages over ``days`` days up to ``until``, ascending; asked about as scheduled.

    Each run is at a quarter of an hour, and asks about all that is due. With ``swing``, days differ
    by more than chance: of a day's deliveries a share fails that is drawn for the day, the size of
    a normal number with this standard deviation, and the carriers' reports take longer or shorter.
    """

    messages: int
    days: float
    until: datetime
    seed: int = 0
    outage: Outage | None = None
    swing: float = 0.0

    @cached_property
    def sent(self) -> pa.Table:
        """Return the customer's table."""
        return Population(self.messages, self.days, self.seed, self.until).table()

    @cached_property
    def sent_us(self) -> Ints:
        """Return the times of sending, microseconds since 1970."""
        return np.asarray(self.sent["sent_at"].cast(pa.int64()), np.int64)

    @cached_property
    def _fates(self) -> fate.Fates:
        sessions, phones = (self.sent[name].to_pylist() for name in ("session_no", "phone"))
        drawn = fate.draws(self.seed, sessions, phones, self.sent_us)
        fates = fate.fates(drawn, phones, self.sent_us, self.outage, Faults())
        return self._swung(fates) if self.swing else fates

    def _swung(self, fates: fate.Fates) -> fate.Fates:
        """Return each day, of 24 hours up to ``until``, a luck and a pace of its own."""
        chance = np.random.default_rng(self.seed)
        day = (_micros(self.until) - self.sent_us) // (24 * 3600 * _SECOND)
        failing = np.abs(chance.normal(0, self.swing, day.max() + 1))[day]
        slowness = np.exp(chance.normal(0, 0.3, day.max() + 1))[day]
        is_lost = self._is_delivered(fates) & (chance.random(len(day)) < failing)
        is_told = fates.received_us < fate.NEVER
        seconds = np.where(is_told, fates.received_us - self.sent_us, 0) / _SECOND
        swung = np.minimum(np.where(is_lost, 4, 1) * slowness * seconds, _VALIDITY)
        seconds = np.ceil(np.where(seconds < _VALIDITY, swung, seconds)).astype(np.int64)
        received = np.where(is_told, self.sent_us + seconds * _SECOND, fate.NEVER)
        return fate.Fates(
            np.where(is_lost, _FAILED, fates.outcome).astype(np.int16),
            received,
            np.where(is_told, received, fates.revealed_us),
        )

    @cached_property
    def is_delivered(self) -> npt.NDArray[np.bool_]:
        """Return which messages are delivered in the end."""
        return self._is_delivered(self._fates)

    def _is_delivered(self, fates: fate.Fates) -> npt.NDArray[np.bool_]:
        delivered: npt.NDArray[np.bool_] = (_STATUSES == "delivered")[fates.outcome]
        return delivered

    @cached_property
    def is_final(self) -> npt.NDArray[np.bool_]:
        """Return which messages have a final status by the cutoff."""
        shown = self._fates.revealed_us < self.sent_us + CUTOFF // timedelta(microseconds=1)
        return _IS_FINAL[self._fates.outcome] & shown

    @cached_property
    def _asked_us(self) -> Ints:
        """Return when each message is asked about: (messages, polling times)."""
        offsets = [o // timedelta(microseconds=1) for o in polling.offsets(CUTOFF)]
        return -(-(self.sent_us[:, None] + np.array(offsets)) // _TICK) * _TICK

    @cached_property
    def _named(self) -> dict[str, pa.Array]:
        origins = [origin(phone) for phone in self.sent["phone"].to_pylist()]
        return {
            "session_no": self.sent["session_no"],
            "recipient": self.sent["session_no"],
            "country": pa.array([o.country for o in origins], pa.string()),
            "operator": pa.array([o.operator or None for o in origins], pa.string()),
            "sent_at": self.sent["sent_at"],
            "template": self.sent["template"],
        }

    def receipts(self, now: datetime, since: datetime | None = None) -> pa.Table:
        """Return the receipts of what was sent from ``since`` on, as they are held at ``now``."""
        now_us = _micros(now)
        begin = np.searchsorted(self.sent_us, 0 if since is None else _micros(since))
        part = slice(int(begin), int(np.searchsorted(self.sent_us, now_us)))
        sent, asked, shown = self.sent_us[part], self._asked_us[part], self._fates.revealed_us[part]
        outcome = self._fates.outcome[part]
        answers = _IS_FINAL[outcome, None] & (asked >= shown[:, None]) & (asked <= now_us)
        is_final = answers.any(axis=1)
        final_at = asked[np.arange(len(sent)), answers.argmax(axis=1)]
        last = (asked <= now_us).sum(axis=1)
        last_at = np.where(is_final, final_at, asked[np.arange(len(sent)), np.maximum(last - 1, 0)])
        is_closed = ~is_final & (last_at >= sent + CUTOFF // timedelta(microseconds=1))
        status = np.where(is_final, _STATUSES[outcome], np.where(is_closed, "unknown", "pending"))
        received = self._fates.received_us[part]
        asked_at_all = last > 0
        in_vain = asked <= np.where(is_final, final_at - 1, now_us)[:, None]
        open_at = np.where(in_vain, asked, 0).max(axis=1)
        columns: dict[str, Any] = {
            name: column.slice(part.start, part.stop - part.start)
            for name, column in self._named.items()
        } | {
            "status": pa.array(status),
            "is_final": pa.array(is_final),
            "is_closed": pa.array(is_closed),
            "received_at": _times(received, is_final),
            "delivery_seconds": pa.array(
                (received - sent) / _SECOND, mask=~(is_final & (status == "delivered"))
            ),
            "first_asked_at": _times(asked[:, 0], asked_at_all),
            "last_asked_at": _times(last_at, asked_at_all),
            "last_open_at": _times(open_at, open_at > 0),
            "final_at": _times(final_at, is_final),
            "is_announced": pa.array(np.ones(len(sent), np.bool_)),
        }
        layout = schema.receipts_schema(("template",))
        nothing = {name: pa.nulls(len(sent), layout.field(name).type) for name in layout.names}
        return pa.table({**nothing, **columns}).select(layout.names).cast(layout)


def _times(micros: Ints, is_there: npt.NDArray[np.bool_]) -> pa.Array:
    return pa.array(micros, mask=~is_there).cast(schema.TIME)


def _micros(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
