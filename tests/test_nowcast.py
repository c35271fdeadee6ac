"""What the rate will be: against known truth, at six ages; and where there is little to go by."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from tests.cohorts import NOON, receipt, table
from tests.watched_world import CUTOFF, World, fill, warehouse

HOURS: Final = (0.25, 1, 4, 12, 24, 48)
"""Ages of a cohort: an hour of sending, so long after its end."""
SEEDS, NOWS = 20, 10


@dataclass(frozen=True)
class Seen:
    """What was said of a cohort at an age, and what became of it."""

    age: float
    naive: float
    expected: float
    low: float
    high: float
    truth: float


@cache
def cohorts() -> list[Seen]:
    """Look at 200 cohorts at each age, with 14 days of history before each."""
    return [one for seed in range(SEEDS) for one in _of_world(seed)]


def _of_world(seed: int) -> list[Seen]:
    until = datetime(2026, 11, 22, tzinfo=UTC) + timedelta(hours=5 * seed)
    world = World(36_000, 24, until, seed)
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
                    found.append(Seen(float(str(age)), *figures, *bounds, truth))
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


def errors(age: float) -> tuple[int, float, float, float, float]:
    """Give how many, the mean error of both rates, the interval's coverage and its mean width."""
    seen = [one for one in cohorts() if one.age == age and not np.isnan(one.truth)]
    naive = np.nanmean([abs(one.naive - one.truth) for one in seen])
    ours = np.mean([abs(one.expected - one.truth) for one in seen])
    held = np.mean([one.low - 1e-9 <= one.truth <= one.high + 1e-9 for one in seen])
    width = np.mean([one.high - one.low for one in seen])
    return len(seen), float(naive), float(ours), float(held), float(width)


@pytest.mark.long
@pytest.mark.parametrize("age", HOURS)
def test_the_interval_holds_the_final_rate_of_nine_cohorts_in_ten(age: float) -> None:
    count, naive, ours, held, width = errors(age)
    assert count >= 195, "nearly every hour has messages"
    assert held >= 0.9
    assert ours < naive, "the guess is nearer to the truth than the rate so far"
    assert width < 0.2, "the interval says something"


def test_with_nothing_awaited_the_nowcast_is_the_rate() -> None:
    with warehouse() as con:
        fill(con, table([*[receipt() for _ in range(3)], receipt("failed")], ("template",)))
        ((rate, expected, low, high),) = _figures(con)
    assert rate == expected == low == high == 0.75


def test_without_history_nothing_is_guessed() -> None:
    with warehouse() as con:
        fill(con, table([receipt(), receipt("pending")], ("template",)))
        assert _figures(con) == [(1.0, None, None, None)]


def test_a_cohort_of_one_awaited_message_may_end_either_way() -> None:
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
    assert low < 0.5
    assert high == 1


def _as_asked(sent_at: datetime) -> dict[str, datetime]:
    asked = sent_at + timedelta(minutes=5)
    return {
        "received_at": sent_at + timedelta(seconds=8),
        "first_asked_at": asked,
        "last_asked_at": asked,
        "final_at": asked,
    }


def test_what_was_shown_late_counts_from_when_it_was_shown() -> None:
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


if __name__ == "__main__":  # prints the table of docs/rates.md
    print("| age | cohorts | the rate so far is off by | our guess is off by | width | held |")
    print("|---|---|---|---|---|---|")
    for hours in HOURS:
        number, naive_error, our_error, coverage, mean_width = errors(hours)
        shown = f"{hours * 60:g} min" if hours < 1 else f"{hours:g} h"
        print(
            f"| {shown} | {number} | {naive_error:.2%} | {our_error:.2%} | {mean_width:.2%} "
            f"| {coverage:.1%} |"
        )
