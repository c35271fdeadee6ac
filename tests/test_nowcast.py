"""What the rate will be: in worlds whose truth is known; and where there is little to go by."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import pytest

from tests import forecasts_measured
from tests.cohorts import NOON, receipt, table
from tests.examples import examples
from tests.forecasts_measured import Seen, figures
from tests.rate_worlds import World, fill, warehouse, world
from usms_pipeline.defs import checks

SEEDS = range(30)


def seen(name: str) -> list[Seen]:
    return [one for seed in SEEDS for one in forecasts_measured.looks(name, None, seed)]


@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["stable", "real life", "nightly lots", "new campaign", "first days", "rate 99.8 %"]
)
def test_the_interval_holds_what_comes_and_is_hardly_wider_than_it_must_be(name):
    found = seen(name)
    of_days = figures([one for one in found if one.kind != "hour"], 0)
    of_hours = figures([one for one in found if one.kind == "hour"], 0)
    whole, best = figures(found, 0), figures(found, 1)
    assert whole.said == whole.cohorts > 100, "of each something is said"
    assert of_days.held >= 0.85
    assert of_hours.held >= 0.9
    so_far = np.mean([abs(one.rate - one.truth) for one in found if one.rate is not None])
    error = np.mean([abs(one.said[0][0] - one.truth) for one in found])
    assert error < max(so_far, 0.002), "nearer than the rate so far, where that is far off"
    assert whole.width < best.width * (1.5 if name == "new campaign" else 1.25)


@pytest.mark.long
def test_it_says_in_which_days_it_was_wrong():
    """Carriers four times slower since ten days: the first days of it turn out otherwise."""
    seeds = range(3, 8)
    of_all = 14 * len(seeds)
    assert sum(held(world("stable", seed, days=30)) for seed in seeds) >= 0.9 * of_all
    slower = (World(seed, days=30, slower_since=10 * 24) for seed in seeds)
    assert sum(map(held, slower)) < 0.82 * of_all


def held(account: World) -> int:
    """How many of the latest 14 settled days' forecasts held."""
    with warehouse() as con:
        fill(con, account.receipts())
        return sum(row[-1] for row in record(con))


def record(con: duckdb.DuckDBPyConnection) -> list[tuple]:
    return con.execute("FROM delivery_nowcast_record").fetchall()


@examples(1, "name", ["pipeline paused 8 h", "real life", "receipts undated"])
def test_the_record_has_what_was_said_then(name):
    """Of each of the days: what the warehouse that stood at its end said of it."""
    account = world(name, 8, per_day=1_500, days=18)
    if name == "pipeline paused 8 h":
        account = World(8, per_day=1_500, days=18, pauses=((6 * 24, 8),))
    with warehouse() as con:
        fill(con, account.receipts())
        told = record(con)
        assert len(told) >= 12
        for day, forecast_at, *figures_then, _, _ in (told[4], told[-1]):
            # the run at midnight itself was not over yet
            fill(con, account.receipts(forecast_at - timedelta(seconds=1)))
            (said,) = con.execute(
                "SELECT messages, awaited, delivery_rate, expected_rate, expected_rate_low, "
                "expected_rate_high FROM delivery_nowcast_daily WHERE sent_date = ?",
                [day.date()],
            ).fetchall()
            assert figures_then[:3] == pytest.approx(list(said[:3]))
            a_little = 0.2 * (said[5] - said[4])
            assert figures_then[3:] == pytest.approx(list(said[3:]), abs=a_little)


def test_the_record_reads_no_column_that_it_does_not_need():
    """A whole row handed to a macro behind a join is read whole: gigabytes of texts."""
    with warehouse() as con:
        fill(con, world("stable", 1, per_day=50, days=5).receipts())
        ((_, plan),) = con.execute("EXPLAIN (FORMAT json) FROM delivery_nowcast_record").fetchall()
    assert "last_open_at" in plan
    assert not set(re.findall(r"\w+", plan)) & {"session_no", "recipient", "phone", "provider_desc"}


def test_the_record_is_of_days_that_are_over_and_settled():
    account = world("stable", 4, per_day=300, days=9)
    with warehouse() as con:
        fill(con, account.receipts())
        days = [row[0] for row in record(con)]
        open_days = con.execute(
            "SELECT DISTINCT date_trunc('day', sent_at) FROM receipts "
            "WHERE NOT is_final AND NOT is_closed"
        ).fetchall()
    assert days
    assert not {day for (day,) in open_days} & set(days)
    assert max(days) < datetime(account.end.year, account.end.month, account.end.day, tzinfo=UTC)


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
        for n in range(12, 60)
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
    assert low < expected - 0.05
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
    account = world("stable", 6, per_day=1_000, days=8)
    is_final, is_delivered = account.truth()
    with warehouse() as con:
        fill(con, account.receipts())
        con.execute(
            "UPDATE receipts SET first_asked_at = $now, last_asked_at = $now, "
            "last_open_at = CASE WHEN NOT is_final THEN $now END",
            {"now": account.end},
        )
        con.execute("UPDATE receipts SET final_at = $now WHERE is_final", {"now": account.end})
        ((rate, expected),) = con.execute(
            "SELECT delivery_rate, expected_rate FROM delivery_nowcast_by('is_announced')"
        ).fetchall()
        assert record(con) == [], "nothing was said then, as nothing was known"
    truth = is_delivered.sum() / is_final.sum()
    assert abs(expected - truth) < abs(rate - truth)


def _as_asked(sent_at: datetime) -> dict[str, datetime]:
    asked = sent_at + timedelta(minutes=5)
    return {
        "received_at": sent_at + timedelta(seconds=8),
        "first_asked_at": asked,
        "last_asked_at": asked,
        "final_at": asked,
    }


def test_a_receipt_held_back_by_the_service_counts_from_the_last_empty_query():
    """Dated at 8 s, found not at 5 min, nor at 20 min, but at 1 h: the service kept it back."""
    held_back = receipt(
        received_at=NOON + timedelta(seconds=8),
        first_asked_at=NOON + timedelta(minutes=5),
        last_open_at=NOON + timedelta(minutes=20),
        last_asked_at=NOON + timedelta(hours=1),
        final_at=NOON + timedelta(hours=1),
    )
    undated = receipt(received_at=None)
    with warehouse() as con:
        fill(con, table([held_back, undated, receipt()], ("template",)))
        query = "SELECT usms_exit_after(r) FROM receipts AS r ORDER BY 1"
        assert con.execute(query).fetchall() == [(0.0,), (8.0,), (1200.0,)]


def test_a_carrier_that_reports_at_night_is_not_taken_for_one_that_fails():
    """At noon it has but what the platform refused; its rate is that of the nights before."""
    account = world("nightly lots", 12, per_day=4_000, days=12)
    is_final, is_delivered = account.truth()
    rows = account.receipts()
    is_vivo = np.array([one == "Vivo" for one in rows["operator"].to_pylist()])
    truth = is_delivered[is_vivo].sum() / is_final[is_vivo].sum()
    with warehouse() as con:
        fill(con, rows)
        con.execute(
            "DELETE FROM receipts WHERE \"operator\" <> 'Vivo' OR sent_at < "
            "(SELECT max(sent_at) FROM receipts) - INTERVAL 9 DAYS"
        )
        ((rate, expected),) = con.execute(
            "SELECT delivery_rate, expected_rate FROM delivery_nowcast_daily "
            "ORDER BY sent_date DESC LIMIT 1"
        ).fetchall()
    assert abs(expected - truth) < 0.03
    assert rate is None or abs(expected - truth) < abs(rate - truth)


def _figures(con: duckdb.DuckDBPyConnection) -> list[tuple[float | None, ...]]:
    return con.execute(
        "SELECT delivery_rate, expected_rate, expected_rate_low, expected_rate_high "
        "FROM delivery_nowcast_daily"
    ).fetchall()


def test_the_check_warns_where_fewer_than_seven_in_ten_forecasts_held():
    held, missed = {"is_held": True}, {"is_held": False}
    assert checks.check_forecasts([held] * 10 + [missed] * 4).passed
    verdict = checks.check_forecasts([held] * 9 + [missed] * 5)
    assert not verdict.passed
    assert "9 held" in verdict.description
    assert checks.check_forecasts([missed] * 3).passed, "too few to tell"
    assert checks.check_forecasts([]).passed
