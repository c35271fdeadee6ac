"""The delivery figures against plain Python and ``statsmodels``: rates, latency, curve, as_of."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import stdtrit
from statsmodels.stats.proportion import proportion_confint

from tests import cohorts, quiet_weeks, rate_worlds
from tests.cohorts import CUTOFF, DAY, NOON, receipt
from usms_pipeline.contract import metrics, schema, status
from usms_pipeline.contract.errors import UnknownColumn
from usms_pipeline.days.general import COLUMN_OF
from usms_pipeline.figures import queries
from usms_pipeline.figures.queries import timezone_hint
from usms_pipeline.store.storage import Store
from usms_pipeline.warehouse import connect, ddl, reconcile

Row = dict[str, Any]
RATE_NAMES = [metric.name for metric in metrics.METRICS]

MIXED = [
    receipt("delivered", session_no="a", country="CN", operator="Unicom"),
    receipt("delivered", session_no="b", received_at=NOON + timedelta(seconds=40)),
    receipt("failed", session_no="c", provider_code="E1", provider_desc="absent"),
    receipt("rejected", session_no="d", provider_code="E1", country="SG", conflicts=["delivered"]),
    receipt("expired", session_no="e", country=None, operator=None),
    receipt("unknown", session_no="f", is_closed=True, first_asked_at=NOON + 2 * CUTOFF),
    receipt("pending", session_no="g", first_asked_at=None, last_asked_at=None),
    receipt("unrecognized", session_no="h"),
    receipt("invalid", session_no=None),
    receipt("delivered", session_no="extra", is_announced=False),
]
QUERIES = [
    "FROM delivery_rate_daily",
    "FROM delivery_rate_hourly",
    "FROM delivery_rate_by_country",
    "FROM delivery_rate_by_operator",
    "FROM failures",
    "FROM failures_daily",
    "FROM failures_by('operator', first := '2024-03-01')",
    "FROM failing_recipients",
    "FROM delivery_rate_by('number_type', last := '2024-03-01')",
    "FROM delivery_rate_by('operator')",
    "FROM delivery_curve()",
    "FROM delivery_curve(seconds := [30, 3600], first := '2024-03-01', last := '2024-03-01')",
    "FROM delivery_curve_by('country')",
    "FROM maturity()",
    "FROM delivery_nowcast_daily",
    "FROM delivery_nowcast_record",
    "FROM delivery_nowcast_by('country')",
    "FROM delivery_rate_change_by('operator')",
    "FROM delivery_alerts",
    "FROM delivery_nowcast_hourly",
    "SELECT * FROM as_of('2024-03-01 12:00:10+00') ORDER BY session_no, recipient",
    "SELECT unnest(delivery_figures(r)) FROM as_of('2024-03-01 12:30:00+00') AS r",
]
"""Every view and macro, as a user would write them."""


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with rate_worlds.warehouse((), "Asia/Kolkata") as made:  # figures must not hang on the zone
        yield made


def fill(con: duckdb.DuckDBPyConnection, rows: Sequence[Row]) -> None:
    rate_worlds.fill(con, cohorts.table(rows))


def rates(con: duckdb.DuckDBPyConnection, *by: str, **days: date) -> pa.Table:
    return queries.rates(con, *by, **days).to_arrow_table()


def dicts(con: duckdb.DuckDBPyConnection, query: str, *values: Any) -> list[Row]:
    found = con.execute(query, values)
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


# -- the same figures, in plain Python --------------------------------------------------------


def share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def wilson(k: int, n: int) -> dict[str, float | None]:
    low, high = proportion_confint(k, n, method="wilson") if n else (None, None)
    return {"delivery_rate_ci_low": low, "delivery_rate_ci_high": high}


def percentile(values: list[float], q: float) -> float | None:
    """Interpolate linearly between the two nearest ranks."""
    if not values:
        return None
    ordered, place = sorted(values), q * (len(values) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low if low == high else low + (high - low) * (place - math.floor(place))


def surely(values: list[float], longest: list[float], q: float) -> float | None:
    """Leave out what the longest times could make more than a quarter longer."""
    value, most = percentile(values, q), percentile(longest, q)
    return value if value is not None and most is not None and most <= 1.25 * value else None


def expected(rows: Sequence[Row]) -> Row:
    ours = [row for row in rows if row["is_announced"]]
    count = {bucket: sum(row["status"] == bucket for row in ours) for bucket in status.BUCKETS}
    evidence = sum(row["is_final"] for row in ours)
    awaited = sum(not row["is_final"] and not row["is_closed"] for row in ours)
    not_delivered = count["failed"] + count["rejected"] + count["expired"]
    seconds = [
        row["delivery_seconds"]
        for row in ours
        if row["status"] == "delivered"
        and (row.get("delivery_seconds") or 0) >= 0
        and row.get("delivery_seconds") is not None
    ]
    return {
        "messages": len(ours),
        **count,
        "awaited": awaited,
        "awaited_rate": share(awaited, len(ours)),
        "receipt_coverage": share(evidence, len(ours)),
        "delivery_rate": share(count["delivered"], evidence),
        **wilson(count["delivered"], 0 if awaited else evidence),
        "delivery_rate_if_rest_failed": share(count["delivered"], len(ours)),
        "delivery_rate_if_rest_arrived": share(len(ours) - not_delivered, len(ours)),
        **{
            f"latency_p{q}_seconds": surely(seconds, seconds + [math.inf] * awaited, q / 100)
            for q in (50, 90, 99)
        },
        "first_asked_too_late": sum(
            not row["is_final"]
            and row["status"] != "invalid"
            and row["first_asked_at"] is not None
            and row["first_asked_at"] > row["sent_at"] + CUTOFF
            for row in ours
        ),
    }


@st.composite
def messages(draw: st.DrawFn) -> Row:
    outcome = draw(st.sampled_from(status.BUCKETS))
    is_final = outcome in status.FINAL
    sent_at = NOON + timedelta(minutes=draw(st.integers(0, 100)))
    ages = st.integers(0, 100).map(lambda hours: sent_at + timedelta(hours=hours))
    asked = sorted(draw(st.lists(ages, min_size=1 if is_final else 0, max_size=2)))
    delay = timedelta(seconds=draw(st.integers(-2, 60)))
    is_dated = is_final and draw(st.integers(0, 4)) > 0
    is_open = asked and (len(asked) > 1 or not is_final) and not is_dated
    return receipt(
        outcome,
        sent_at=sent_at,
        country=draw(st.sampled_from(["CN", "SG", None])),
        operator=draw(st.sampled_from(["One", "Two"])),
        is_closed=not is_final and (outcome == "invalid" or draw(st.booleans())),
        is_announced=draw(st.integers(0, 4)) > 0,
        received_at=sent_at + delay if is_dated else None,
        first_asked_at=asked[0] if asked else None,
        last_asked_at=asked[-1] if asked else None,
        last_open_at=asked[0] if is_open else None,
        final_at=asked[-1] if is_final else None,
    )


many = st.lists(messages(), max_size=12)
quick = settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


# -- figures ----------------------------------------------------------------------------------


@quick
@given(rows=many)
def test_the_total_is_what_plain_python_counts(con, rows):
    fill(con, rows)
    (total,) = rates(con).to_pylist()
    assert list(total) == RATE_NAMES
    assert total == pytest.approx(expected(rows))


def named_operator(row: Row) -> str | None:
    """Return an operator's name with its country, as what groups by a column named has it."""
    suffix = f" ({row['country']})" if row["country"] else ""
    return f"{row['operator']}{suffix}" if row["operator"] else None


@pytest.mark.long
@quick
@given(rows=many)
def test_every_view_groups_the_same_figures(con, rows):
    fill(con, rows)
    hour = {id(row): row["sent_at"].replace(minute=0) for row in rows}
    keys = {
        "delivery_rate_daily": lambda row: (DAY,),
        "delivery_rate_hourly": lambda row: (hour[id(row)],),
        "delivery_rate_by_country": lambda row: (row["country"],),
        "delivery_rate_by_operator": lambda row: (row["country"], row["operator"]),
        "delivery_rate_by('operator')": lambda row: (named_operator(row),),
        "delivery_rate_by('is_closed')": lambda row: (row["is_closed"],),
    }
    for relation, key_of in keys.items():
        found = dicts(con, f"FROM {relation}")
        groups = {key_of(row) for row in rows if row["is_announced"]}
        assert len(found) == len(groups)
        for figures in found:
            width = len(figures) - len(RATE_NAMES)
            key, names = tuple(figures.values())[:width], list(figures)[width:]
            assert names == RATE_NAMES
            wanted = expected([row for row in rows if key_of(row) == key])
            assert {name: figures[name] for name in names} == pytest.approx(wanted)


def test_operators_of_one_name_in_two_countries_are_two(con):
    fill(con, [
        receipt("delivered", country="FR", operator="Orange"),
        receipt("failed", country="PL", operator="Orange"),
        receipt("failed", country=None, operator="Orange"),
    ])  # fmt: skip
    wanted = {"Orange (FR)", "Orange (PL)", "Orange"}
    for relation in ("delivery_rate_by", "delivery_nowcast_by", "delivery_curve_by"):
        found = con.sql(f"FROM {relation}('operator')").fetchall()
        assert {row[0] for row in found} == wanted, relation
    asked = queries.rates(con, "operator").fetchall()
    assert {row[0] for row in asked} == wanted


def test_first_asked_too_late_is_past_the_cutoff_to_the_microsecond_and_without_evidence(con):
    at, after = NOON + CUTOFF, NOON + CUTOFF + timedelta(microseconds=1)
    fill(con, [
        receipt("unknown", is_closed=True, first_asked_at=at),
        receipt("unknown", is_closed=True, first_asked_at=after),
        receipt("delivered", first_asked_at=after),
        receipt("pending", first_asked_at=None),
        receipt("invalid", is_closed=True, first_asked_at=after),
    ])  # fmt: skip
    assert rates(con).column("first_asked_too_late").to_pylist() == [1]


def test_known_share_is_null_where_no_receipts_are_expected(con):
    """NaN would be above every number: a group that nobody reports on would pass for known."""
    rows = [receipt(sent_at=NOON + timedelta(hours=hour)) for hour in range(200)]
    silent = receipt("unknown", is_closed=True, operator="Silent")
    fill(con, [*rows, silent])
    found = con.sql("SELECT known_share FROM delivery_nowcast_by('operator') ORDER BY messages")
    assert [share for (share,) in found.fetchall()] == [None, 1]


def test_a_group_that_awaits_something_has_no_confidence_and_no_percentile_that_may_move(con):
    """Twenty arrive within 20 s; what is awaited may take for ever."""
    arrived = [receipt(received_at=NOON + timedelta(seconds=n)) for n in range(1, 21)]
    percentiles = [f"latency_p{q}_seconds" for q in (50, 90, 99)]
    for awaited, wanted in [(0, [10.5, 18.1, 19.81]), (3, [10.5, None, None]), (6, [None] * 3)]:
        fill(con, [*arrived, *(receipt("pending") for _ in range(awaited))])
        (total,) = rates(con).to_pylist()
        assert [total[name] for name in percentiles] == pytest.approx(wanted)
        assert (total["delivery_rate_ci_low"] is None) == (awaited > 0)
        assert (total["delivery_rate_ci_high"] is None) == (awaited > 0)


def test_figures_of_nothing_are_zero_or_null_and_there_are_no_groups(con):
    fill(con, [])
    (total,) = rates(con).to_pylist()
    for metric in metrics.METRICS:
        assert total[metric.name] == (0 if metric.unit == "messages" else None), metric.name
    for query in QUERIES[:-1]:
        assert con.execute(query).fetchall() == []


NAMES = ("usms_hour", "USMS_Now", "usms_is_watched", "everything", "figures", "r", "Cohort", "hour",
         "last_day", "kind", "m", 'qu"ote', "Operators", "n", "age", "it's", "客户", "order", "a;b",
         "Status", "known")  # fmt: skip


@pytest.mark.long
def test_a_dimension_may_be_called_as_our_sql_calls_something(tmp_path):
    store, ours = Store(str(tmp_path)), cohorts.settings(tmp_path, dimensions=NAMES)
    shown = [schema.dimension_name(name) for name in NAMES]
    rows = [receipt(**dict.fromkeys(shown, value)) for value in ("a", "b")]
    cohorts.write(store, rows, dimensions=NAMES)
    reconcile(store, ours)
    with connect(ours.warehouse_path) as con:
        for name in shown:
            assert {row[name] for row in rates(con, name).to_pylist()} == {"a", "b"}
            expected = queries.nowcast(con, name).to_arrow_table()
            assert set(expected["cohort"].to_pylist()) == {"a", "b"}
            by = con.execute("FROM delivery_rate_by(?)", [name]).fetchall()
            assert {row[0] for row in by} == {"a", "b"}
            assert queries.change(con, name).fetchall() == []
        assert queries.alerts(con).fetchall() == []
        assert con.execute("SELECT count(*) FROM as_of('2025-01-01')").fetchone() == (2,)


def test_the_week_is_settled_whole_and_not_stopped_by_a_straggler(con):
    def sent(day: int, outcome: str = "delivered", **given: Any) -> Row:
        return receipt(outcome, sent_at=NOON + timedelta(days=day), **given)

    asked = NOON + timedelta(days=20)
    today = NOON + timedelta(days=14)
    first = [sent(n) for n in range(14)]
    newest = sent(20, "pending", last_asked_at=asked)
    straggler = sent(3, "pending", last_asked_at=NOON + timedelta(days=3))
    unusable = [sent(n, "invalid", last_asked_at=today) for n in (3999, 4000)]
    week = [(date(2024, 3, 8), date(2024, 3, 14))]
    for rows, days in [
        ([*first, newest], week),
        ([*first, straggler, newest], week),
        ([*first[1:], newest], []),
        (first, []),
        ([*first, sent(14), *unusable], week),
        ([*first, sent(13, "unknown", is_closed=True, last_asked_at=asked)], week),
        ([*first, sent(18, "pending", last_asked_at=asked), newest], week),
    ]:
        fill(con, rows)
        query = "SELECT first_day, last_day FROM delivery_rate_change_by('is_announced')"
        assert con.execute(query).fetchall() == days


def weeks_of(random: np.random.Generator, days: Sequence[int], a_day: int) -> list[Row]:
    """Return receipts of some of the 14 days up to the 14th of March, and one a day later."""
    newest = NOON + timedelta(days=20)
    return [
        receipt(
            "delivered" if random.random() < 0.8 else "failed",
            sent_at=NOON + timedelta(days=day - 1),
        )
        for day in days
        for _ in range(random.integers(1, a_day))
    ] + [receipt("pending", sent_at=newest, last_asked_at=newest)]


@pytest.mark.parametrize(
    "days", [range(1, 15), [1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 14], [1, 2, 7, 8, 9, 13, 14]]
)
def test_the_change_is_the_mean_of_same_weekdays_and_as_sure_as_they_are_alike(con, days):
    """The t interval of the weighted mean, by scipy; a weekday that one week lacks is left out."""
    rows = weeks_of(np.random.default_rng(len(days)), days, 40)
    fill(con, rows)
    by_day: dict[int, list[bool]] = {}
    for row in rows[:-1]:
        by_day.setdefault((row["sent_at"] - NOON).days + 1, []).append(row["status"] == "delivered")
    pairs = [(by_day[day], by_day[day + 7]) for day in range(1, 8) if {day, day + 7} <= {*by_day}]
    gaps = np.array([np.mean(after) - np.mean(before) for before, after in pairs])
    weights = np.array([len(a) * len(b) / (len(a) + len(b)) for a, b in pairs])
    mean = np.average(gaps, weights=weights)
    error = math.sqrt(np.average((gaps - mean) ** 2, weights=weights) / (len(pairs) - 1))
    reach = stdtrit(len(pairs) - 1, 0.975) * error
    (found,) = dicts(con, "FROM delivery_rate_change_by('is_announced')")
    assert (found["change_low"], found["change"], found["change_high"]) == pytest.approx(
        (mean - reach, mean, mean + reach), abs=1e-4
    )
    before, after = ([d for day, d in by_day.items() for d in d if (day > 7) == late]
                     for late in (False, True))  # fmt: skip
    assert found["delivery_rate"] == pytest.approx(np.mean(after))
    assert found["delivery_rate_before"] == pytest.approx(np.mean(before))


def test_a_change_of_one_or_two_weekdays_has_no_interval(con):
    day = date(2024, 3, 14)
    given = [
        {"cohort": cohort, "sent_date": day - timedelta(days=ago), "last_day": day,
         "messages": 10, "n": 10, "k": 9}
        for cohort, weekdays in (("two", 2), ("three", 3))
        for ago in (*range(weekdays), *range(7, 7 + weekdays))
    ]  # fmt: skip
    con.register("given", pa.Table.from_pylist(given))
    found = {row["cohort"]: row for row in dicts(con, "FROM usms_changes('given')")}
    assert (found["two"]["change"], found["two"]["change_low"]) == (0, None)
    assert (found["three"]["change_low"], found["three"]["change_high"]) == (0, 0)


@pytest.mark.parametrize("swing", quiet_weeks.SWINGS)
def test_one_quiet_week_in_twenty_is_said_to_have_changed_however_unlike_its_days(con, swing):
    given = quiet_weeks.counts(np.random.default_rng(5), 2_000, 10_000, swing)
    assert 0.03 < quiet_weeks.said_to_change(con, given) < 0.07


def test_who_fails_again_and_again_since_the_last_that_arrived(con):
    def sent(recipient: str, *outcomes: str) -> list[Row]:
        times = [NOON + timedelta(hours=n) for n in range(len(outcomes))]
        return [
            receipt(outcome, recipient=recipient, sent_at=time, provider_desc=f"{time:%H}")
            for outcome, time in zip(outcomes, times, strict=True)
        ]

    fill(con, [
        *sent("never", "failed", "expired", "failed"),
        *sent("since", "failed", "delivered", "failed", "failed"),
        *sent("again", "failed", "failed", "delivered"),
        *sent("once", "failed", "pending"),
        *sent("refused", "rejected", "rejected"),
        *sent("unheard-1", "failed", "failed"),
    ])  # fmt: skip
    found = dicts(con, "FROM failing_recipients")
    assert [(row["recipient"], row["failures"]) for row in found] == [("never", 3), ("since", 2)]
    assert [row["since"] for row in found] == [NOON, NOON + timedelta(hours=2)]
    assert [row["last_provider_desc"] for row in found] == ["14", "15"]


@quick
@given(rows=many)
def test_failures_count_what_did_not_arrive_by_reason(con, rows):
    rows = [{**row, "provider_code": row["country"]} for row in rows]
    fill(con, rows)
    bad = [
        r for r in rows if r["is_announced"] and r["status"] in ("failed", "rejected", "expired")
    ]
    found = dicts(con, "FROM failures")
    assert {(r["provider_code"], r["status"]) for r in bad} == {
        (f["provider_code"], f["status"]) for f in found
    }
    for failure in found:
        same = [
            row["received_at"] or row["final_at"]
            for row in bad
            if (row["provider_code"], row["status"])
            == (failure["provider_code"], failure["status"])
        ]
        assert failure["messages"] == len(same)
        assert failure["share"] == pytest.approx(len(same) / len(bad))
        assert (failure["first_seen_at"], failure["last_seen_at"]) == (min(same), max(same))
        assert list(failure)[3:] == [metric.name for metric in metrics.FAILURES]


# -- rates(con, by, first, last) --------------------------------------------------------------


def test_rates_take_days_from_first_to_last_both_included(tmp_path):
    store, ours = Store(str(tmp_path)), cohorts.settings(tmp_path)
    days = [DAY + timedelta(days=n) for n in range(4)]
    for n, day in enumerate(days):
        rows = [receipt(sent_at=NOON + timedelta(days=n)) for _ in range(n + 1)]
        cohorts.write(store, rows, day)
    reconcile(store, ours)
    with connect(ours.warehouse_path) as published:
        daily = rates(published, "sent_date", first=days[1], last=days[2])
        assert daily.column_names == ["sent_date", *RATE_NAMES]
        assert daily.column("sent_date").to_pylist() == days[1:3]
        assert daily.column("messages").to_pylist() == [2, 3]
        assert rates(published, first=days[3]).column("messages").to_pylist() == [4]
        assert rates(published, last=days[0]).column("messages").to_pylist() == [1]
        largest_first = rates(published, "session_no", first=days[0], last=days[0])
        assert largest_first.num_rows == 1


def test_groups_come_largest_first_and_days_in_order(con):
    fill(con, [receipt(country=c) for c in ("SG", "CN", "CN", None, None, None)])
    assert rates(con, "country").column("country").to_pylist() == [
        None,
        "CN",
        "SG",
    ]
    times = [NOON + timedelta(hours=n) for n in (3, 1, 1, 2)]
    fill(con, [receipt(sent_at=time) for time in times])
    assert rates(con, "sent_at").column("messages").to_pylist() == [2, 1, 1]


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("contry", "'country'"), ("Country", "'country'"), ("count.*", "'country'"), ("zz", "status")],
)
def test_a_column_that_is_not_there_is_named_with_near_ones(con, wrong, near):
    with pytest.raises(UnknownColumn) as raised:
        rates(con, wrong)
    assert repr(wrong) in str(raised.value)
    assert near in str(raised.value)
    assert raised.value.exit_code == 2


# -- the curve --------------------------------------------------------------------------------


def left_after(row: Row) -> float | None:
    if not row["is_announced"] or row["status"] == "invalid":
        return None
    left = row["last_asked_at"]
    if row["is_final"]:
        is_dated = row["received_at"] is not None and row["received_at"] >= row["sent_at"]
        left = row["received_at"] if is_dated else row["final_at"]
    return None if left is None else max(0, math.ceil((left - row["sent_at"]).total_seconds()))


def is_unseen(row: Row, seconds: float) -> bool:
    """Return whether a receipt without a time of its own may have come by then, unseen."""
    is_dated = row["received_at"] is not None and row["received_at"] >= row["sent_at"]
    if not row["is_final"] or is_dated:
        return False
    opened = row.get("last_open_at") or row["sent_at"]
    return (opened - row["sent_at"]).total_seconds() <= seconds < (left_after(row) or 0)


def aalen_johansen(rows: Sequence[Row], seconds: float) -> Row:
    """Walk through the moments one by one, as the textbooks do."""
    left = [(after, row) for row in rows if (after := left_after(row)) is not None]
    still_open, delivered, failed = 1.0, 0.0, 0.0
    for moment in sorted({after for after, _ in left if after <= seconds}):
        at_risk = sum(after >= moment for after, _ in left)
        here = [row["status"] for after, row in left if after == moment and row["is_final"]]
        delivered += still_open * here.count("delivered") / at_risk
        failed += still_open * (len(here) - here.count("delivered")) / at_risk
        still_open *= 1 - len(here) / at_risk
    at_risk = sum(after >= seconds for after, _ in left)
    by_then = [row["status"] for after, row in left if after <= seconds and row["is_final"]]
    unseen = sum(is_unseen(row, seconds) for _, row in left)
    is_unknown = unseen > 0.01 * len(left) or (at_risk == 0 and still_open > 0)
    return {
        "seconds": seconds,
        "at_risk": at_risk,
        "delivered": by_then.count("delivered"),
        "not_delivered": len(by_then) - by_then.count("delivered"),
        "delivered_share": None if is_unknown else delivered,
        "not_delivered_share": None if is_unknown else failed,
    }


@quick
@given(rows=many)
def test_the_curve_is_the_aalen_johansen_estimate(con, rows):
    fill(con, rows)
    moments = [0, 1, 8, 30, 7_200, 400_000]
    query = f"FROM delivery_curve(seconds := {moments})"
    watched = [row for row in rows if left_after(row) is not None]
    wanted = [aalen_johansen(watched, moment) for moment in moments] if watched else []
    found = dicts(con, query)
    assert [list(row) for row in found] == [[m.name for m in metrics.CURVE]] * len(wanted)
    assert found == [pytest.approx(row) for row in wanted]
    by_country = dicts(con, f"FROM delivery_curve_by('country', seconds := {moments})")
    for row in by_country:
        cohort = row.pop("cohort")
        same = [one for one in watched if one["country"] == cohort]
        assert row == pytest.approx(aalen_johansen(same, row["seconds"]))


def test_the_curve_says_nothing_of_moments_at_which_outcomes_without_a_time_came_unseen(con):
    """Found at the first question, after 300 s, or at one of the later ones."""

    def found(after: int, first: int = 300, **given: Any) -> Row:
        asked, then = (NOON + timedelta(seconds=s) for s in (first, after))
        return receipt(**{"received_at": None, "first_asked_at": asked, "last_asked_at": then,
                          "last_open_at": asked if asked < then else None, "final_at": then,
                          **given})  # fmt: skip

    seconds = [60, 299, 300, 599, 600]
    query = f"SELECT delivered_share FROM delivery_curve(seconds := {seconds})"
    dated = [found(300, received_at=NOON + timedelta(seconds=8)) for _ in range(99)]
    for rows, shares in [
        ([found(300)] * 9 + [found(600)], [None, None, None, None, 1]),
        ([found(300)] * 100 + [found(600)], [None, None, 100 / 101, 100 / 101, 1]),
        ([*dated, found(300)], [0.99, 0.99, 1, 1, 1]),
        ([*dated, found(300), found(300)], [None, None, 1, 1, 1]),
        ([*dated, found(300, received_at=NOON - timedelta(seconds=9))] * 2, [0.99, 0.99, 1, 1, 1]),
    ]:
        fill(con, [row | {"session_no": str(n)} for n, row in enumerate(rows)])
        assert [share for (share,) in con.execute(query).fetchall()] == pytest.approx(shares)


@pytest.mark.parametrize("name", ["nightly lots", "stable"])
def test_the_curve_of_yesterday_is_not_low_for_what_is_told_at_night(name):
    """Two operators in five tell at 02:00 what came hours before; theirs is left out till then."""
    account = rate_worlds.world(name, 3, per_day=3_000, days=9)
    with rate_worlds.warehouse() as con:
        rows = account.receipts()
        rate_worlds.fill(con, rows)
        day = (account.end - timedelta(days=1)).date()
        query = f"SELECT delivered_share FROM delivery_curve(seconds := [60], first := '{day}')"
        ((share,),) = con.execute(query).fetchall()
        rate_worlds.fill(con, account.receipts(account.end, account.end - timedelta(days=7)))
        now = account.end - timedelta(days=4)  # what was sent before is told by now
        truth = (
            f"SELECT avg((coalesce(delivery_seconds, 1e9) <= 60)::INT) FROM receipts "
            f"WHERE sent_at < '{now}'"
        )
        ((usual,),) = con.execute(truth).fetchall()
    assert share == pytest.approx(usual, abs=0.035)


def test_wilsons_interval_is_the_librarys(con):
    for k, n in [(0, 1), (1, 1), (0, 40), (8, 10), (39, 40), (961_234, 1_000_000)]:
        found = con.execute(f"SELECT wilson_low({k}, {n}), wilson_high({k}, {n})").fetchall()
        assert found[0] == pytest.approx(proportion_confint(k, n, method="wilson"), abs=1e-6)
    assert con.execute("SELECT wilson_low(0, 0), wilson_high(0, 0)").fetchall() == [(None,) * 2]


@pytest.mark.parametrize("freedom", [2, 3, 4, 5, 6, 7, 29, 89])
def test_students_quantile_is_the_librarys_within_a_hundredth(con, freedom):
    ((ours,),) = con.execute(f"SELECT usms_student({freedom})").fetchall()
    assert float(ours) == pytest.approx(stdtrit(freedom, 0.975), rel=0.01)


def test_no_two_macros_have_one_name():
    """The later one would stand in for the earlier without a word."""
    names = re.findall(
        r"CREATE OR REPLACE (?:MACRO|VIEW) (\w+)", ddl.definitions(ddl.columns([]), CUTOFF)
    )
    assert len(names) > 50
    assert [name for name, count in Counter(names).items() if count > 1] == []


# -- as_of ------------------------------------------------------------------------------------

Answer = tuple[timedelta, str]


def known(history: Sequence[Answer], until: datetime) -> Row:
    """Fold the answers up to a time as the dataset does: the first evidence, else the latest."""
    asked = [(NOON + age, word) for age, word in history if NOON + age <= until]
    evidence = [(at, word) for at, word in asked if word in status.FINAL]
    is_closed = not evidence and any(at >= NOON + CUTOFF for at, _ in asked)
    latest = asked[-1][1] if asked else "pending"
    return {
        "status": evidence[0][1] if evidence else ("unknown" if is_closed else latest),
        "is_final": bool(evidence),
        "is_closed": is_closed,
        "first_asked_at": asked[0][0] if asked else None,
        "last_asked_at": asked[-1][0] if asked else None,
        "final_at": evidence[0][0] if evidence else None,
        "received_at": evidence[0][0] if evidence else None,
        "provider_code": "E" if evidence else None,
    }


histories = st.lists(
    st.tuples(
        st.integers(0, 100).map(lambda hours: timedelta(hours=hours)),
        st.sampled_from(["delivered", "failed", "pending", "pending", "unrecognized"]),
    ),
    max_size=4,
    unique_by=lambda answer: answer[0],
).map(sorted)


@quick
@given(history=histories, hours=st.integers(-1, 101))
def test_as_of_says_what_the_answers_up_to_then_said(con, history, hours):
    """Exactly, for evidence; for the rest as far as the first and the latest question tell."""
    then = NOON + timedelta(hours=hours)
    today, truth = known(history, NOON + timedelta(days=9)), known(history, then)
    fill(con, [receipt(today["status"], **{"delivery_seconds": None, **today})])
    (seen,) = dicts(con, "FROM as_of($1::TIMESTAMPTZ)", then)
    assert seen["is_final"] == truth["is_final"]
    assert seen["final_at"] == truth["final_at"]
    assert (seen["received_at"], seen["provider_code"]) == (
        truth["received_at"], truth["provider_code"],
    )  # fmt: skip
    assert seen["first_asked_at"] == truth["first_asked_at"]
    assert not (seen["is_closed"] and seen["is_final"])
    is_remembered = len(history) < 3 or truth["last_asked_at"] == today["last_asked_at"]
    if truth["is_final"]:
        assert seen["status"] == truth["status"]
    elif is_remembered:
        assert seen["is_closed"] == truth["is_closed"]
    else:
        assert seen["is_closed"] <= truth["is_closed"]
    if truth["last_asked_at"] == today["last_asked_at"]:
        assert seen["status"] == truth["status"]
        assert seen["last_asked_at"] == truth["last_asked_at"]
    assert seen["last_asked_at"] is None or seen["last_asked_at"] <= then


def test_as_of_today_is_the_table(con):
    fill(con, MIXED)
    order = "ORDER BY session_no, recipient"
    today = dicts(con, f"SELECT * FROM as_of('2030-01-01') {order}")
    assert today == dicts(con, f"SELECT * FROM receipts {order}")


def test_as_of_takes_back_all_that_a_later_answer_said(con):
    """With any columns: a new one of the service's is not shown before its time."""
    texts = dict.fromkeys(COLUMN_OF.values(), "said")
    said = texts | {"received_at": NOON, "segments": 2}
    fill(con, [receipt("delivered", **said, delivery_seconds=3.0, conflicts=["failed"])])
    (seen,) = dicts(con, f"FROM as_of('{NOON}')")
    own = {"session_no", "recipient", "phone", "country", "operator", "number_type"}
    own |= {"sent_at", "sent_date", "is_announced", "template"}
    assert {name for name, value in seen.items() if value not in (None, [], False)} <= {
        *own, "status",
    }  # fmt: skip


# -- time zones -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (-8 * 3600 + 5, "8 h or more before"),
        (8 * 3600 + 20, "8 h or more after"),
        (3600, "1 h or more after"),
        (-90, "90 s or more before"),
    ],
)
def test_receipts_in_another_time_zone_are_noticed(con, seconds, told):
    delays = [seconds - 3, seconds, seconds + 4]
    fill(con, [receipt(received_at=NOON + timedelta(seconds=s)) for s in delays])
    hint = timezone_hint(con)
    assert hint is not None
    assert told in hint
    assert "USMS_RECEIPT_TIMEZONE" in hint
    assert "USMS_SOURCE_TIMEZONE" in hint


@pytest.mark.parametrize("seconds", [[], [0], [5, 9, 300], [5, 6, -28_800], [5_400], [600, 1_500]])
def test_ordinary_delays_give_no_hint(con, seconds):
    fill(con, [receipt(received_at=NOON + timedelta(seconds=s)) for s in seconds])
    assert timezone_hint(con) is None
