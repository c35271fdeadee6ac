"""Accounts that the figures are tried on: receipts as known at a moment, and the truth.

A carrier that reports at night, weekdays, days with a luck of their own, a new country, growth,
silence, outages, pauses: what the simulated service has not. In columns, without HTTP or files:
400,000 messages in about a second.

    account = world("nightly lots", seed=7)
    fill(con, account.receipts(account.end))     # what is known then; con = warehouse()
    account.truth(account.end)                   # beside each of these rows: what came of it
    account.oracle(account.end, groups)          # the best forecast that can be made of it
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Final, NamedTuple

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.special import ndtr

from tests import begun
from tests.cohorts import CUTOFF
from usms_pipeline.contract import polling, schema
from usms_pipeline.warehouse import ddl

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_SECOND: Final = 1_000_000
_HOUR: Final = 3_600 * _SECOND
_DAY: Final = 24 * _HOUR
_TICK: Final = 900 * _SECOND
"""The pipeline runs each quarter of an hour, and asks about all that is due."""
_CUTOFF: Final = CUTOFF // timedelta(microseconds=1)
_OFFSETS: Final = np.array([o // timedelta(microseconds=1) for o in polling.offsets(CUTOFF)])
_NEVER: Final = 1 << 60
_LOT: Final = 2 * _HOUR
"""Time of the day (UTC) at which a carrier that reports in lots reports."""


class Operator(NamedTuple):
    """A carrier: its share of the messages, and what usually becomes of one.

    ``delivered`` is a share of the messages with a final status, ``silent`` of all messages;
    ``refused`` (by the platform, at once) and ``expired`` are shares of those not delivered.
    ``pace`` in seconds: half of the quick deliveries take no longer.
    """

    name: str
    country: str
    share: float
    delivered: float
    pace: float = 6.0
    slow: float = 0.12
    refused: float = 0.15
    expired: float = 0.3
    silent: float = 0.01


OPERATORS: Final = (
    Operator("China Mobile", "CN", 0.30, 0.955),
    Operator("China Unicom", "CN", 0.17, 0.94, pace=8),
    Operator("China Telecom", "CN", 0.11, 0.95),
    Operator("Vivo", "BR", 0.10, 0.90, pace=12, slow=0.2),
    Operator("Claro", "BR", 0.07, 0.92, pace=12),
    Operator("Telkomsel", "ID", 0.09, 0.88, pace=15, slow=0.2),
    Operator("Singtel", "SG", 0.06, 0.97, pace=4, slow=0.05),
    Operator("Verizon", "US", 0.10, 0.96, pace=4, refused=0.5),
)
NEWCOMERS: Final = (Operator("MTN", "NG", 0.6, 0.82, 20, 0.3), Operator("Glo", "NG", 0.4, 0.75, 40))
"""Of a country that nothing was sent to before."""

_KINDS: Final = np.array(["delivered", "delivered", "rejected", "failed", "expired", "unknown"])
_SIGMA: Final = np.array([0.8, 1.6, 0.5, 1.5, 0.003, 0.0])
"""Of the logarithm of the seconds until a final status is reported, by kind; as ``_medians``."""
_SLOW, _REFUSED, _FAILED, _EXPIRED = 1_500.0, 2.0, 1_800.0, 48 * 3_600.0


@dataclass(frozen=True)
class Trouble:
    """A carrier's bad hours: a share of the messages fails at once, or is reported late (12 h).

    It begins its hours before the account's ``end``.
    """

    operator: str
    begins: float
    hours: float
    share: float
    kind: str = "fail"  # or "late"


@dataclass(frozen=True)
class World:
    """An account: ``per_day`` messages over ``days`` days up to ``end``, the same for one seed.

    ``weekdays``, ``nights``: at weekends and at night less is sent, more fails, all is slower.
    ``days_differ``, ``hours_differ``: standard deviation, in logits, of the share delivered of an
    operator's day or hour; with days the pace differs too. ``mix_differs``: of a day's
    operators' shares, in logarithms. ``lots``: operators that report at 02:00 alone.
    ``campaign``, ``slower_since``: hours before the end since when two messages in five go to a
    new country, or carriers are four times slower. ``doubles``: days in which the volume doubles
    (0: never); ``drift``: logits a day. ``rate``: of every operator, in place of its own.
    ``mute``: share of the volume of carriers that never report. ``holidays``: days before the
    end, each with a third of the messages and slower carriers. ``pauses``: (hours before the end
    at which the pipeline stopped, for how many hours). ``until``: the end, in place of a drawn one.
    """

    seed: int
    per_day: float = 3_000
    days: float = 31
    weekdays: bool = False
    nights: bool = False
    days_differ: float = 0.0
    hours_differ: float = 0.0
    mix_differs: float = 0.0
    lots: Sequence[str] = ()
    campaign: float = 0.0
    slower_since: float = 0.0
    doubles: float = 0.0
    drift: float = 0.0
    rate: float | None = None
    mute: float = 0.0
    holidays: Sequence[float] = ()
    pauses: Sequence[tuple[float, float]] = ()
    is_dated: bool = True
    troubles: Sequence[Trouble] = ()
    until: datetime | None = None
    operators: Sequence[Operator] = field(default=OPERATORS, repr=False)

    # -- what was sent --------------------------------------------------------------------------

    @cached_property
    def end(self) -> datetime:
        """Return the moment up to which the account is made: another minute for each seed."""
        minutes = int(self._random(0).integers(0, 7 * 24 * 60))
        return self.until or datetime(2026, 11, 16, tzinfo=UTC) + timedelta(minutes=minutes)

    @cached_property
    def _carriers(self) -> list[Operator]:
        found = [*self.operators, *(NEWCOMERS if self.campaign else ())]
        if self.mute:
            found += [
                Operator("Mute", "CN", 0.5, 0.9, silent=1),
                Operator("Dumb", "BR", 0.5, 0.9, silent=1),
            ]
        return [o if self.rate is None else o._replace(delivered=self.rate) for o in found]

    @cached_property
    def sent_us(self) -> Ints:
        """Return the times of sending, ascending, in microseconds since 1970."""
        random, end = self._random(1), micros(self.end)
        begin = end - int(self.days * _DAY)
        hours = np.arange(begin // _HOUR, end // _HOUR + 1) * _HOUR
        weight = np.ones(len(hours))
        if self.nights:
            weight *= 1 + 0.8 * np.cos((hours // _HOUR % 24 - 12) / 12 * np.pi)
        if self.weekdays:
            weight *= np.where(_is_weekend(hours), 0.5, 1.2)
        if self.doubles:
            weight *= 2.0 ** ((hours - end) / _DAY / self.doubles)
        for before in self.holidays:
            weight *= np.where(self._is_holiday(hours, before), 0.33, 1)
        counts = random.poisson(weight * self.per_day / 24)
        sent = np.repeat(hours, counts) + random.integers(0, _HOUR, counts.sum())
        return np.sort(sent[(sent >= begin) & (sent < end)])

    @cached_property
    def _operator(self) -> Ints:
        """Return the place of each message's operator among the carriers."""
        random, sent = self._random(2), self.sent_us
        own = len(self.operators)
        shares = np.array([o.share for o in self._carriers[:own]])
        day = sent // _DAY - sent[0] // _DAY if len(sent) else sent
        of_day = shares * np.exp(
            random.normal(0, self.mix_differs, (int(day.max(initial=0)) + 1, own))
        )
        steps = (of_day.cumsum(1) / of_day.sum(1, keepdims=True))[:, :-1]
        luck, place = random.random(len(sent)), np.zeros(len(sent), np.int64)
        for step in steps.T:
            place += luck > step[day]
        if self.campaign:
            is_new = (sent >= self._before(self.campaign)) & (random.random(len(sent)) < 0.4)
            place = np.where(is_new, own + (random.random(len(sent)) > NEWCOMERS[0].share), place)
        if self.mute:
            is_mute = random.random(len(sent)) < self.mute
            place = np.where(
                is_mute, len(self._carriers) - 1 - random.integers(0, 2, len(sent)), place
            )
        return place

    # -- what becomes of it ---------------------------------------------------------------------

    @cached_property
    def _chances(self) -> tuple[Floats, Floats]:
        """Return of each message each kind's chance, and the median seconds until it is told."""
        random, sent, place = self._random(3), self.sent_us, self._operator
        table = {n: np.array([getattr(o, n) for o in self._carriers]) for n in Operator._fields[3:]}
        own = {name: values[place] for name, values in table.items()}
        logit, pace = np.log(own["delivered"] / (1 - own["delivered"])), np.ones(len(sent))
        first = int(sent[0]) // _HOUR if len(sent) else 0
        hour = sent // _HOUR - first
        day = sent // _DAY - first // 24
        sizes = len(self._carriers), int(hour.max(initial=0)) + 1
        if self.days_differ:
            logit += random.normal(0, self.days_differ, sizes)[place, day]
            pace *= np.exp(random.normal(0, self.days_differ, sizes))[place, day]
        if self.hours_differ:
            logit += random.normal(0, self.hours_differ, sizes)[place, hour]
        if self.weekdays:
            logit -= np.where(_is_weekend(sent), 0.3, 0)
            pace *= np.where(_is_weekend(sent), 1.5, 1)
        if self.nights:
            is_night = sent // _HOUR % 24 < 6
            logit -= np.where(is_night, 0.3, 0)
            pace *= np.where(is_night, 2.0, 1)
        if self.slower_since:
            pace *= np.where(sent >= self._before(self.slower_since), 4, 1)
        for before in self.holidays:
            pace *= np.where(self._is_holiday(sent, before), 1.3, 1)
        logit += self.drift * (sent - micros(self.end)) / _DAY
        good = 1 / (1 + np.exp(-logit))
        known, bad = 1 - own["silent"], 1 - good
        chances = np.stack([
            known * good * (1 - own["slow"]), known * good * own["slow"],
            known * bad * own["refused"], known * bad * (1 - own["refused"] - own["expired"]),
            known * bad * own["expired"], own["silent"],
        ], axis=1)  # fmt: skip
        one = np.ones(len(sent))
        medians = np.stack([
            own["pace"] * pace, _SLOW * pace, _REFUSED * one, _FAILED * pace, _EXPIRED * one, one,
        ], axis=1)  # fmt: skip
        return chances, medians

    @cached_property
    def _fates(self) -> tuple[Ints, Ints, Ints]:
        """Return of each message the kind, when the carrier dates it, and when it is told."""
        random, sent = self._random(4), self.sent_us
        chances, medians = self._chances
        luck, kind = random.random(len(sent)), np.zeros(len(sent), np.int64)
        for step in chances.cumsum(axis=1)[:, :-1].T:
            kind += luck > step
        rows = np.arange(len(sent))
        seconds = medians[rows, kind] * np.exp(_SIGMA[kind] * random.normal(0, 1, len(sent)))
        dated = sent + (np.minimum(seconds, 1e7) * 1e6).astype(np.int64)
        dated = np.where(kind == 5, _NEVER, dated)
        for one in self.troubles:
            hit = self._is_hit(one) & (kind != 5) & (random.random(len(sent)) < one.share)
            if one.kind == "fail":
                quick = sent + (_REFUSED * 1e6 * np.exp(random.normal(0, 0.5, len(sent)))).astype(
                    int
                )
                kind, dated = np.where(hit, 3, kind), np.where(hit, quick, dated)
            else:
                dated = np.where(hit, dated + 12 * _HOUR, dated)
        return kind, dated, np.where(self._in_lots & (kind != 2) & (kind != 5), _lot(dated), dated)

    @cached_property
    def _in_lots(self) -> Bools:
        return np.array([o.name in self.lots for o in self._carriers])[self._operator]

    def _is_hit(self, one: Trouble) -> Bools:
        names = np.array([o.name for o in self._carriers])[self._operator]
        begin = self._before(one.begins)
        is_then = (self.sent_us >= begin) & (self.sent_us < begin + int(one.hours * _HOUR))
        hit: Bools = is_then & (names == one.operator)
        return hit

    # -- what the pipeline knows ------------------------------------------------------------------

    def _asked(self, sent: Ints, nth: Ints) -> Ints:
        """Return when a message is asked about for the n-th time (0: first) or a pause ends."""
        at = _up(sent + _OFFSETS[np.minimum(nth, len(_OFFSETS) - 1)])
        for begin, end in self._paused:
            at = np.where((at >= begin) & (at < end), end, at)
        return at

    @cached_property
    def _paused(self) -> list[tuple[int, int]]:
        spans = [(self._before(b), self._before(b - length)) for b, length in self.pauses]
        return [(int(_up(np.int64(b))), int(_up(np.int64(e)))) for b, e in spans]

    def _questions_by(self, sent: Ints, moment: Ints | int) -> Ints:
        """Count the polling times up to a moment (as the runs at quarters of an hour keep them)."""
        at = np.asarray(moment) // _TICK * _TICK
        for begin, end in self._paused:
            at = np.where((at >= begin) & (at < end), begin - _TICK, at)
        return np.searchsorted(_OFFSETS, at - sent, side="right")

    def _span(self, now: datetime, since: datetime | None) -> slice:
        begin = 0 if since is None else int(np.searchsorted(self.sent_us, micros(since)))
        return slice(begin, int(np.searchsorted(self.sent_us, micros(now))))

    def receipts(self, now: datetime | None = None, since: datetime | None = None) -> pa.Table:
        """Return the receipts of what was sent from ``since`` up to ``now``, as known at ``now``.

        The columns are the published ones, with the dimension ``template``; ascending in time.
        """
        part = self._span(now or self.end, since)
        sent = self.sent_us[part]
        kind, dated, _ = (one[part] for one in self._fates)
        asked = self._questions_by(sent, micros(now or self.end))
        is_final, final_at = self._known(part, asked)
        final_at = np.where(is_final, final_at, 0)
        # the last question that found nothing: the latest before the one with the final status
        until = np.where(is_final, self._questions_by(sent, final_at - _TICK), asked)
        open_at = self._asked(sent, np.maximum(until - 1, 0))
        last_at = np.where(is_final, final_at, open_at)
        is_asked = asked > 0
        is_closed = ~is_final & is_asked & (last_at >= sent + _CUTOFF)
        status = np.where(is_final, _KINDS[kind], np.where(is_closed, "unknown", "pending"))
        is_told = is_final & self.is_dated
        numbers = pa.array(np.arange(part.start, part.stop)).cast(pa.string())
        made: dict[str, Any] = {
            "session_no": numbers,
            "recipient": numbers,
            "country": self._names([o.country for o in self._carriers], self._operator[part]),
            "operator": self._names([o.name for o in self._carriers], self._operator[part]),
            "sent_at": _times(sent, np.ones(len(sent), np.bool_)),
            "template": self._names(["otp", "order", "offer"], self._template[part]),
            "status": pa.array(status),
            "is_final": pa.array(is_final),
            "is_closed": pa.array(is_closed),
            "received_at": _times(dated, is_told),
            "delivery_seconds": pa.array(
                (dated - sent) / _SECOND, mask=~(is_told & (_KINDS[kind] == "delivered"))
            ),
            "first_asked_at": _times(self._asked(sent, np.zeros(len(sent), np.int64)), is_asked),
            "last_asked_at": _times(last_at, is_asked),
            "last_open_at": _times(open_at, is_asked & (until > 0)),
            "final_at": _times(final_at, is_final),
            "is_announced": pa.array(np.ones(len(sent), np.bool_)),
        }
        layout = schema.receipts_schema(("template",))
        nothing = {name: pa.nulls(len(sent), layout.field(name).type) for name in layout.names}
        return pa.table({**nothing, **made}).select(layout.names).cast(layout)

    def _known(self, part: slice, asked: Ints) -> tuple[Bools, Ints]:
        """Return which final statuses are known after n questions, and since which of them."""
        sent, (kind, _, told) = self.sent_us[part], (one[part] for one in self._fates)
        nth = self._questions_by(sent, _up(told) - _TICK)  # how many found nothing
        is_final: Bools = (kind != 5) & (nth < np.minimum(asked, len(_OFFSETS)))
        return is_final, self._asked(sent, nth)

    def truth(
        self, now: datetime | None = None, since: datetime | None = None
    ) -> tuple[Bools, Bools]:
        """Return, beside each row of ``receipts``: has evidence in the end; is delivered."""
        part = self._span(now or self.end, since)
        sent = self.sent_us[part]
        is_final, _ = self._known(part, np.full(len(sent), len(_OFFSETS)))
        return is_final, is_final & (_KINDS[self._fates[0][part]] == "delivered")

    @cached_property
    def _template(self) -> Ints:
        return self._random(5).choice(3, len(self.sent_us), p=[0.6, 0.3, 0.1])

    def _names(self, names: list[str], places: Ints) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(places.astype(np.int32)), names).cast(
            pa.string()
        )

    # -- the best that can be said --------------------------------------------------------------

    def oracle(
        self,
        now: datetime,
        rows: pa.Table,
        groups: Sequence[Bools],
        level: float = 0.95,
        draws: int = 1000,
    ) -> list[tuple[float, float, float]]:
        """Return (expected, low, high) of the final rate of each group of ``receipts``' rows.

        It knows the chances and the pace of each message, of today too; not what was drawn.
        ``rows`` are ``receipts(now)``, whole; ``groups`` masks of them.
        """
        part = self._span(now, None)
        sent = self.sent_us[part]
        is_final = np.asarray(rows["is_final"])
        is_open = ~is_final & ~np.asarray(rows["is_closed"])
        is_good = np.asarray(rows["status"].combine_chunks().cast(pa.string())) == "delivered"
        at = np.flatnonzero(is_open)
        watched = np.asarray(rows["last_asked_at"].cast(pa.int64()).fill_null(0))
        good, bad = self._hopes(part.start + at, np.maximum(watched[at], sent[at]))
        place, random, found = np.full(len(sent), -1), self._random(6), []
        place[at] = np.arange(len(at))
        for group in groups:
            k, n = int((is_good & group).sum()), int((is_final & group).sum())
            here = place[group & is_open]
            p, q = good[here], bad[here]
            expected = (k + p.sum()) / (n + (p + q).sum()) if n + (p + q).sum() else np.nan
            if not len(here):
                found.append((expected, expected, expected))
                continue
            rates = []
            for _ in range(max(1, draws * len(here) // 2_000_000)):  # so much memory at once
                size = min(draws, max(1, 2_000_000 // len(here)))
                luck = random.random((size, len(here)), dtype=np.float32)
                more, less = (luck < p).sum(1), ((luck >= p) & (luck < p + q)).sum(1)
                rates.append((k + more) / np.maximum(n + more + less, 1))
            rate = np.concatenate(rates)
            tail = (1 - level) / 2
            found.append((
                expected,
                float(np.quantile(rate, tail, method="lower")),
                float(np.quantile(rate, 1 - tail, method="higher")),
            ))  # fmt: skip
        return found

    def _hopes(self, at: Ints, watched: Ints) -> tuple[Floats, Floats]:
        """Return the chances of messages open when last watched: to be delivered, or not."""
        sent, chances, medians = self.sent_us[at], self._chances[0][at], self._chances[1][at]
        in_lots = self._in_lots[at]
        last = self._asked(sent, np.full(len(at), len(_OFFSETS) - 1))
        kinds = [*range(5)]
        told_late = np.zeros(len(at), np.float64)
        for one in self.troubles:
            told_late = np.maximum(
                told_late, self._is_hit(one)[at] * one.share * (one.kind == "late")
            )
        later = np.zeros((len(at), 6))
        later[:, 5] = chances[:, 5]
        for k in kinds:
            for shift, weight in ((0, 1 - told_late), (12 * _HOUR, told_late)):
                span = [w - shift for w in (watched, last)]
                if k != 2:  # told at night what is dated by then
                    span = [np.where(in_lots, _lot_before(w), w) - shift for w in (watched, last)]
                seconds = [np.maximum(w - sent, 1) / _SECOND for w in span]
                seen = [ndtr(np.log(s / medians[:, k]) / _SIGMA[k]) for s in seconds]
                later[:, k] += weight * chances[:, k] * np.maximum(0, seen[1] - seen[0])
                later[:, 5] += weight * chances[:, k] * (1 - seen[1])  # past the cutoff
        whole = np.maximum(later.sum(axis=1), 1e-12)
        return later[:, :2].sum(axis=1) / whole, later[:, 2:5].sum(axis=1) / whole

    # -- small things ---------------------------------------------------------------------------

    def _random(self, nth: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, nth])

    def _before(self, hours: float) -> int:
        return micros(self.end) - int(hours * _HOUR)

    def _is_holiday(self, moments: Ints, before: float) -> Bools:
        day: Bools = moments // _DAY == (micros(self.end) - int(before * _DAY)) // _DAY
        return day


WORLDS: Final[dict[str, dict[str, Any]]] = {
    "stable": {},
    "weekdays and hours": {"weekdays": True, "nights": True},
    "days differ": {"days_differ": 0.25},
    "days and hours differ": {"days_differ": 0.25, "hours_differ": 0.25},
    "real life": {
        "lots": ("Vivo",), "weekdays": True, "nights": True, "days_differ": 0.2,
    },
    "nightly lots": {"lots": ("Vivo", "Telkomsel")},
    "new campaign": {"campaign": 30.0},
    "slower since 36 h": {"slower_since": 36.0},
    "growing": {"doubles": 7.0, "drift": -0.03},
    "rate 5 %": {"rate": 0.05},
    "rate 99.8 %": {"rate": 0.998},
    "mute carriers": {"mute": 0.6},
    "outage in history": {"troubles": (Trouble("China Unicom", 11 * 24.0, 24.0, 0.5),)},
    "pipeline paused 8 h": {"pauses": ((10.0, 8.0),)},
    "receipts undated": {"is_dated": False},
    "first days": {"per_day": 1_500},
    "300 a day": {"per_day": 300},
    "30 a day": {"per_day": 30},
    "large": {"per_day": 40_000, "days": 16, "days_differ": 0.2},
    "holiday": {"holidays": (1.0,), "nights": True},
}  # fmt: skip
"""What each account differs in from a stable one of 3,000 messages a day over 31 days."""


def world(name: str, seed: int, **given: Any) -> World:
    """Return an account by its name in ``WORLDS``; what is given beats what belongs to the name.

    Of an account in its first days the seed draws the age: 0.7 to 6 days.
    """
    known = dict(WORLDS[name])
    if name == "first days":
        known["days"] = float(np.random.default_rng([seed, 9]).uniform(0.7, 6))
    return World(seed, **(known | given))


def with_trouble(account: World, *troubles: Trouble) -> World:
    """Return the account with more trouble; what is not hit stays as it is."""
    return replace(account, troubles=(*account.troubles, *troubles))


# -- a warehouse of it ----------------------------------------------------------------------------


def warehouse(
    dimensions: Sequence[str] = ("template",), zone: str = "UTC"
) -> duckdb.DuckDBPyConnection:
    """Open a warehouse in memory, with our definitions and without receipts."""
    fields = ddl.columns(dimensions, dimensions)
    path = begun.empty(fields, ddl.definitions(fields, CUTOFF))
    con = duckdb.connect(":memory:")
    con.execute(f"SET TimeZone = '{zone}'; ATTACH '{path}' AS empty (READ_ONLY)")
    con.execute("COPY FROM DATABASE empty TO memory; DETACH empty")
    return con


def fill(con: duckdb.DuckDBPyConnection, rows: pa.Table) -> None:
    """Put these receipts in place of those that are there; their day is the one in UTC."""
    con.execute("TRUNCATE receipts")
    con.register("incoming", rows)
    con.execute("INSERT INTO receipts BY NAME SELECT *, sent_at::DATE AS sent_date FROM incoming")
    con.unregister("incoming")


def micros(moment: datetime) -> int:
    """Return a time in microseconds since 1970."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _times(moments: Ints, is_there: Bools) -> pa.Array:
    return pa.array(moments, mask=~is_there).cast(schema.TIME)


def _up(moments: Any) -> Any:
    """Return the next quarter of an hour."""
    return -(-moments // _TICK) * _TICK


def _lot(moments: Ints) -> Ints:
    """Return the first 02:00 that is not before each moment."""
    return np.where(moments >= _NEVER, _NEVER, -(-(moments - _LOT) // _DAY) * _DAY + _LOT)


def _lot_before(moments: Ints) -> Ints:
    """Return the last 02:00 that is not after each moment."""
    return (moments - _LOT) // _DAY * _DAY + _LOT


def _is_weekend(moments: Ints) -> Bools:
    weekend: Bools = (moments // _DAY + 3) % 7 >= 5  # 1 January 1970 was a Thursday
    return weekend
