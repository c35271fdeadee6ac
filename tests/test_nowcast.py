"""What the rate will be: against known truth, at six ages; and where there is little to go by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from tests.cohorts import NOON, receipt, table
from tests.watched_world import CUTOFF, World, fill, warehouse

HOURS: Final = (0.25, 2, 4, 12, 24, 48)
"""Ages of a cohort: an hour of sending, so long after its end; no two overlap."""
SEEDS, NOWS = 20, 10
SWINGS: Final = (0.0, 0.06)
"""Days that differ by chance alone; and by 3.6 points of the rate beyond it, and in their pace."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """What was said of a cohort at an age, and what became of it."""

    age: float
    awaited: int
    naive: float
    expected: float
    low: float
    high: float
    truth: float


@cache
def cohorts(swing: float = 0.0) -> list[Seen]:
    """Look at 200 cohorts at each age, with 14 days of history before each.

    ``swing``: by how much days differ beyond chance (``World.swing``).
    """
    return [one for seed in range(SEEDS) for one in _of_world(seed, swing)]


def _of_world(seed: int, swing: float) -> list[Seen]:
    until = datetime(2026, 11, 22, tzinfo=UTC) + timedelta(hours=5 * seed)
    world = World(36_000, 24, until, seed, swing=swing)
    found = []
    with warehouse() as con:
        for turn in range(NOWS):
            now = until - timedelta(hours=11 * turn)
            rows = world.receipts(now, now - timedelta(days=14) - CUTOFF)
            fill(con, _labelled(rows, now))
            said = con.execute("FROM delivery_nowcast_by('template', history_days := 14)").df()
            for age, row in said.set_index("cohort").iterrows():
                if age != "none":
                    figures = row[["delivery_rate", "expected_rate"]].tolist()
                    bounds = row[["expected_rate_low", "expected_rate_high"]].tolist()
                    truth = _truth(world, now, float(str(age)))
                    awaited = int(row["awaited"])
                    found.append(Seen(float(str(age)), awaited, *figures, *bounds, truth))
    return found


def _hour(now: datetime, age: float) -> tuple[datetime, datetime]:
    return now - timedelta(hours=age + 1), now - timedelta(hours=age)


def _labelled(rows: pa.Table, now: datetime) -> pa.Table:
    """Name each message's cohort in place of its template."""
    sent = np.asarray(rows["sent_at"].cast(pa.int64()))
    names = np.full(len(sent), "none", dtype=object)
    for age in HOURS:
        first, last = (int(moment.timestamp() * 1e6) for moment in _hour(now, age))
        names[(sent >= first) & (sent < last)] = str(age)
    return rows.set_column(rows.column_names.index("template"), "template", pa.array(names))


def _truth(world: World, now: datetime, age: float) -> float:
    first, last = (int(moment.timestamp() * 1e6) for moment in _hour(now, age))
    is_there = (world.sent_us >= first) & (world.sent_us < last) & world.is_final
    return float(world.is_delivered[is_there].mean())


@dataclass(frozen=True)
class Error:
    """Of a rate, said minus true: mean, its standard error; the usual size, and in the square."""

    bias: float
    bias_error: float
    median: float
    root_mean_square: float

    @classmethod
    def of(cls, errors: Floats) -> Error:
        """Sum up errors; those of nothing said (NaN) are left out."""
        said = errors[~np.isnan(errors)]
        bias_error = said.std(ddof=1) / math.sqrt(len(said))
        sizes = np.median(np.abs(said)), np.sqrt((said**2).mean())
        return cls(float(said.mean()), float(bias_error), *map(float, sizes))


@dataclass(frozen=True)
class Errors:
    """Of the cohorts at an age that still awaited something; ``cohorts`` and ``held`` of all."""

    cohorts: int
    held: int
    open: int
    open_held: int
    naive: Error
    expected: Error
    width: float


def errors(age: float, swing: float = 0.0) -> Errors:
    """Compare what was said at an age with what became of it."""
    seen = [one for one in cohorts(swing) if one.age == age and not np.isnan(one.truth)]
    held = [one.low - 1e-9 <= one.truth <= one.high + 1e-9 for one in seen]
    young = [one for one in seen if one.awaited]
    return Errors(
        cohorts=len(seen),
        held=sum(held),
        open=len(young),
        open_held=sum(is_held for one, is_held in zip(seen, held, strict=True) if one.awaited),
        naive=Error.of(np.array([one.naive - one.truth for one in young])),
        expected=Error.of(np.array([one.expected - one.truth for one in young])),
        width=float(np.median([one.high - one.low for one in young])),
    )


@pytest.mark.long
@pytest.mark.parametrize("swing", SWINGS)
@pytest.mark.parametrize("age", HOURS)
def test_the_interval_holds_the_final_rate_of_nine_cohorts_in_ten(age, swing):
    found = errors(age, swing)
    assert found.cohorts >= 195, "nearly every hour has messages"
    assert found.open >= 100, "and most of them await something"
    assert found.held >= 0.9 * found.cohorts
    assert found.open_held >= 0.9 * found.open, "not only those that await nothing"
    assert found.width < 0.08, "the interval says something"
    assert abs(found.expected.bias) < 0.005, "right on average, where the rate so far is not:"
    assert found.naive.bias > 0.005
    assert found.expected.root_mean_square < found.naive.root_mean_square


def test_with_nothing_awaited_the_nowcast_is_the_rate():
    with warehouse() as con:
        fill(con, table([*[receipt() for _ in range(3)], receipt("failed")], ("template",)))
        ((rate, expected, low, high),) = _figures(con)
    assert rate == expected == low == high == 0.75


def test_without_history_nothing_is_guessed():
    with warehouse() as con:
        fill(con, table([receipt(), receipt("pending")], ("template",)))
        assert _figures(con) == [(1.0, None, None, None)]


def test_a_cohort_of_one_awaited_message_has_a_wide_interval_up_to_all():
    old = [
        receipt(sent_at=NOON - timedelta(hours=6 * n), **_as_asked(NOON - timedelta(hours=6 * n)))
        for n in range(12, 40)
    ]
    young = receipt("pending", first_asked_at=None, last_asked_at=None)
    with warehouse() as con:
        fill(con, table([*old, young], ("template",)))
        found = con.execute(
            "SELECT delivery_rate, expected_rate, expected_rate_low, expected_rate_high "
            "FROM delivery_nowcast_by('sent_date') WHERE awaited = 1"
        ).fetchall()
    ((rate, expected, low, high),) = found
    assert rate is None
    assert 0.9 < expected <= 1
    assert low < expected - 0.1
    assert high == 1


def test_a_history_without_any_outcome_tells_nothing():
    old = [
        receipt(
            "unknown",
            is_closed=True,
            sent_at=NOON - timedelta(hours=6 * n),
            last_asked_at=NOON,
        )
        for n in range(13, 40)
    ]
    with warehouse() as con:
        fill(con, table([*old, receipt("pending")], ("template",)))
        query = "SELECT expected_rate FROM delivery_nowcast_by('is_announced')"
        assert con.execute(query).fetchall() == [(None,)]


def test_an_unusable_row_dated_far_ahead_leaves_the_history_as_it_is():
    ahead = receipt("invalid", sent_at=NOON + timedelta(days=4000), first_asked_at=None)
    with warehouse() as con:
        said = []
        for more in ([], [ahead]):
            fill(con, table([receipt(), receipt("failed"), *more], ("template",)))
            said.append(con.execute("FROM maturity()").fetchall())
    assert said[0] == said[1] != []


def test_a_first_run_over_old_messages_has_a_history():
    """All were asked about for the first time just now, most of them long after the cutoff."""
    world = World(8_000, 8, NOON)
    with warehouse() as con:
        fill(con, world.receipts(NOON))
        con.execute(
            "UPDATE receipts SET first_asked_at = $now, last_asked_at = $now", {"now": NOON}
        )
        con.execute("UPDATE receipts SET final_at = $now WHERE is_final", {"now": NOON})
        ((rate, expected),) = con.execute(
            "SELECT delivery_rate, expected_rate FROM delivery_nowcast_by('is_announced')"
        ).fetchall()
    truth = world.is_delivered[world.is_final].mean()
    assert abs(expected - truth) < abs(rate - truth)


def _as_asked(sent_at: datetime) -> dict[str, datetime]:
    asked = sent_at + timedelta(minutes=5)
    return {
        "received_at": sent_at + timedelta(seconds=8),
        "first_asked_at": asked,
        "last_asked_at": asked,
        "final_at": asked,
    }


def test_what_was_shown_late_counts_from_when_it_was_shown():
    """Dated at 8 s, found not at 5 min but at 1 h: the service kept it back."""
    sent = NOON
    held_back = receipt(
        received_at=sent + timedelta(seconds=8),
        first_asked_at=sent + timedelta(minutes=5),
        last_asked_at=sent + timedelta(hours=1),
        final_at=sent + timedelta(hours=1),
    )
    with warehouse() as con:
        fill(con, table([held_back, receipt()], ("template",)))
        query = "SELECT usms_shown_after(r) FROM receipts AS r ORDER BY 1"
        assert con.execute(query).fetchall() == [(8.0,), (3600.0,)]


def _figures(con: duckdb.DuckDBPyConnection) -> list[tuple[float | None, ...]]:
    return con.execute(
        "SELECT delivery_rate, expected_rate, expected_rate_low, expected_rate_high "
        "FROM delivery_nowcast_daily"
    ).fetchall()
