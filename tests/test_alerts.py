"""What is out of line: outages are found and named, a year of quiet days is quiet."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from tests.cohorts import receipt, table
from tests.watched_world import CUTOFF, World, fill, warehouse
from usms_pipeline.defs import checks
from usms_pipeline.figures import alerts, queries
from usms_pipeline.simulator.fate import Outage

UTC_ZONE: Final = ZoneInfo("UTC")
STRUCK: Final = datetime(2026, 11, 20, 1, tzinfo=UTC)
SIZES: Final = {"large": (0.6, 0.25), "middle": (0.25, 0.1), "small": (0.1, 0.05)}
"""Outages of six hours: the shares that fail, and that come late."""
AFTER: Final = (2, 4, 6, 9, 12, 24)
"""Hours after an outage began at which somebody looks."""

Row = dict[str, Any]


def row(**given: Any) -> Row:
    since = datetime(2026, 11, 20, 1, tzinfo=UTC)
    return {
        "kind": "failing", "by_column": "operator", "cohort": "China Unicom (CN)",
        "since": since, "until": since + timedelta(hours=6), "messages": 200, "affected": 123,
        "share": 0.615, "usual_share": 0.052, "chance": 1e-30,
    } | given  # fmt: skip


def rows(relation: queries.Relation) -> list[Row]:
    found: list[Row] = relation.to_arrow_table().to_pylist()
    return found


def outage(size: str, hours: float = 6) -> Outage:
    failed, late = SIZES[size]
    return Outage(STRUCK, hours, failed_share=failed, late_share=late)


def looks(size: str, seed: int, a_day: int = 2_000) -> Iterator[tuple[int, list[Row]]]:
    """Give what is out of line at each look after an outage."""
    world = World(16 * a_day, 16, STRUCK + timedelta(hours=26), seed, outage(size))
    with warehouse() as con:
        for hours in AFTER:
            now = STRUCK + timedelta(hours=hours)
            fill(con, world.receipts(now))
            yield hours, rows(queries.alerts(con))


def is_it(found: Row) -> bool:
    return (found["by_column"], found["cohort"]) == ("operator", "China Unicom (CN)")


def found_after(size: str, seed: int, a_day: int = 2_000) -> int | None:
    """Give at which look the operator was named first."""
    for hours, found in looks(size, seed, a_day):
        if any(is_it(one) for one in found):
            return hours
    return None


@pytest.mark.long
@pytest.mark.parametrize("seed", range(5))
def test_a_large_outage_is_named_by_operator_and_hour(seed):
    said = dict(looks("large", seed))
    first = said[12][0]
    assert is_it(first), "the operator is further out of line than its country"
    assert abs(first["since"] - STRUCK) <= timedelta(hours=1)
    assert abs(first["until"] - (STRUCK + timedelta(hours=6))) <= timedelta(hours=1)
    assert any(is_it(one) for one in said[4]), "after four hours at most"
    failing = checks.check_alerts(said[12], UTC_ZONE)[0]
    assert not failing.passed
    assert str(failing.description).startswith("Operator China Unicom (CN), sent from 20 Nov 0")


def quiet_looks(
    days: int, a_day: int, seed: int, swing: float = 0.0
) -> Iterator[tuple[datetime, list[Row], list[Row]]]:
    """Look every two days, so that every hour is looked at, with 30 days of history."""
    until = datetime(2026, 11, 22, tzinfo=UTC)
    world = World((days + 30) * a_day, days + 30, until, seed, swing=swing)
    with warehouse() as con:
        for turn in range(days // 2):
            now = until - timedelta(days=2 * turn)
            fill(con, world.receipts(now, now - timedelta(days=30) - CUTOFF))
            yield (
                now,
                rows(queries.alerts(con)),
                rows(queries.uncovered_days(con, 0.97)),
            )


@pytest.mark.long
@pytest.mark.parametrize("a_day", [30, 1_000])
def test_a_year_of_quiet_days_is_quiet(a_day):
    said = [(now, out, bare) for now, out, bare in quiet_looks(365, a_day, 0) if out or bare]
    assert said == []


@pytest.fixture(scope="module")
def quiet() -> Iterator[duckdb.DuckDBPyConnection]:
    with warehouse() as con:
        fill(con, World(8_000, 8, STRUCK).receipts(STRUCK))
        yield con


def test_quiet_days_are_quiet(quiet):
    assert queries.alerts(quiet).fetchall() == []
    assert all(verdict.passed for verdict in checks.check_alerts([], UTC_ZONE))


def test_when_receipts_stop_coming_it_is_silence():
    """The service says nothing more of what was sent in the last five hours."""
    world = World(16_000, 8, STRUCK)
    with warehouse() as con:
        fill(con, world.receipts(STRUCK))
        con.execute(
            "UPDATE receipts SET status = 'pending', is_final = false, received_at = NULL, "
            "final_at = NULL, delivery_seconds = NULL, last_asked_at = $now WHERE sent_at > $then",
            {"now": STRUCK, "then": STRUCK - timedelta(hours=5)},
        )
        found = rows(queries.alerts(con))
    assert found[0]["kind"] == "silent"
    assert (found[0]["by_column"], found[0]["cohort"]) == ("everything", "all messages")
    assert abs(found[0]["since"] - (STRUCK - timedelta(hours=5))) <= timedelta(hours=1)
    failing, silence = checks.check_alerts(found, UTC_ZONE)
    assert failing.passed
    assert not silence.passed
    assert "had no outcome within an hour" in str(silence.description)


def test_uncovered_days_are_settled_and_below_the_share_beyond_chance():
    world = World(6_000, 8, STRUCK)
    with warehouse() as con:
        fill(con, world.receipts(STRUCK))
        assert queries.uncovered_days(con, 0.97).fetchall() == []
        con.execute(
            "UPDATE receipts SET status = 'unknown', is_final = false, is_closed = true "
            "WHERE sent_date = $day AND hash(session_no) % 10 = 0",
            {"day": (STRUCK - timedelta(days=6)).date()},
        )
        found = rows(queries.uncovered_days(con, 0.97))
        con.execute(
            "INSERT INTO receipts BY NAME "
            "SELECT * EXCLUDE (n) REPLACE (sent_date + n::INTEGER AS sent_date) "
            "FROM (SELECT * REPLACE ('invalid' AS status, false AS is_final, true AS is_closed) "
            "FROM receipts LIMIT 1) CROSS JOIN range(4000, 4009) AS t (n)"
        )
        assert rows(queries.uncovered_days(con, 0.97)) == found, "unusable rows dated far ahead"
    assert [one["sent_date"] for one in found] == [(STRUCK - timedelta(days=6)).date()]
    verdict = checks.check_coverage(found)
    assert not verdict.passed
    assert "2026-11-14" in str(verdict.description)
    assert checks.check_coverage([]).passed


def uncovered(*days: tuple[int, int, int], **given: Any) -> list[int]:
    """Give which are uncovered of days so many days ago, with messages and known outcomes."""
    noon = datetime(2026, 11, 20, 12, tzinfo=UTC)
    closed = {"is_closed": True, "last_asked_at": noon} | given
    made = [
        receipt(**{"sent_at": noon - timedelta(days=ago)} | ({} if n < known else silent))
        for ago, messages, known in days
        for silent in [{"outcome": "unknown"} | closed]
        for n in range(messages)
    ]
    with warehouse() as con:
        con.register("made", table(made))
        con.execute("INSERT INTO receipts BY NAME SELECT *, sent_at::DATE AS sent_date FROM made")
        found = rows(queries.uncovered_days(con, 0.97))
    return [(noon.date() - one["sent_date"]).days for one in found]


@pytest.mark.long
def test_few_outcomes_every_day_are_beyond_chance_together():
    """Each day alone might be chance: 24 of 30; 4,800 of 5,000."""
    assert uncovered((0, 30, 30), *((ago, 30, 24) for ago in range(1, 9))) == list(range(7, 0, -1))
    assert uncovered((0, 30, 30), (1, 30, 24), *((ago, 30, 30) for ago in range(2, 9))) == []
    assert len(uncovered((0, 5_000, 5_000), *((ago, 5_000, 4_800) for ago in range(1, 8)))) == 7
    assert uncovered((0, 30, 30), *((ago, 300, 293) for ago in range(1, 8))) == []


def test_a_day_is_over_though_nothing_usable_was_sent_after_it():
    """A campaign of a month ago; an account whose session numbers are refused, or all blank."""
    assert uncovered((30, 100, 50)) == [30]
    assert uncovered((0, 100, 0)) == []
    week = [(6, 100, 100), *((ago, 100, 0) for ago in range(6))]
    assert uncovered(*week, outcome="invalid") == [5, 4, 3, 2, 1]
    never = {"session_no": None, "first_asked_at": None, "last_asked_at": None}
    assert uncovered(*((ago, 100, 0) for ago in range(4)), outcome="invalid", **never) == [3, 2, 1]


NOW_HOUR: Final = 500_000


def judged(*groups: tuple[str, dict[int, tuple[int, int]]]) -> list[Row]:
    """Judge groups by their messages and those affected, by hours before now."""
    counts = [
        {"by_column": "template", "cohort": name, "hour": NOW_HOUR - ago, "now": NOW_HOUR,
         "kind": "failing", "messages": messages, "affected": affected}
        for name, hours in groups
        for ago, (messages, affected) in hours.items()
    ]  # fmt: skip
    with warehouse() as con:
        con.register("counts", pa.Table.from_pylist(counts))
        return rows(con.sql("FROM usms_alerts('counts')"))


def test_what_is_said_of_the_hours_is_true_of_those_hours():
    """Two bad hours, two and a half days apart: not one span over both with the counts of one."""
    hours = dict.fromkeys(range(72, 600), (20, 1)) | dict.fromkeys(range(72), (20, 1))
    bad = hours | {65: (20, 12), 5: (20, 11)}
    (found,) = judged(("t", bad))
    since, until = (int(found[name].timestamp() // 3600) for name in ("since", "until"))
    within = [bad[NOW_HOUR - hour] for hour in range(since, until)]
    assert found["messages"] == sum(messages for messages, _ in within)
    assert found["affected"] == sum(affected for _, affected in within)
    assert found["affected"] >= 11


def test_what_ended_before_the_last_72_hours_is_no_news():
    """A day that reaches back behind them would be judged against hours of its own."""
    quiet = dict.fromkeys(range(1, 744), (20, 0))
    assert judged(("t", quiet | dict.fromkeys(range(75, 81), (20, 10)))) == []
    (found,) = judged(("t", quiet | dict.fromkeys(range(65, 81), (20, 10))))
    assert int(found["since"].timestamp() // 3600) == NOW_HOUR - 71


def test_of_windows_alike_the_shortest_is_named():
    """Nothing is sent in the hours around: windows of 1 to 12 hours hold the same messages."""
    (found,) = judged(("t", dict.fromkeys(range(79, 700, 24), (50, 2)) | {31: (50, 40)}))
    assert found["until"] - found["since"] == timedelta(hours=1)


def test_a_short_history_proves_little():
    """Sixty new templates that fail at 5 %, as they did before; few of them did so by chance."""
    random = np.random.default_rng(7)
    groups = [
        (
            f"t{n}",
            {100: (120, int(random.binomial(120, 0.05)))}
            | {ago: (100, int(random.binomial(100, 0.05))) for ago in range(1, 31)},
        )
        for n in range(60)
    ]
    assert judged(*groups) == []
    clean = (f"t{60}", {100: (120, 0)} | dict.fromkeys(range(1, 4), (100, 60)))
    assert [one["cohort"] for one in judged(*groups, clean)] == ["t60"]


def test_a_group_without_a_history_is_not_judged():
    assert judged(("new", dict.fromkeys(range(1, 31), (100, 50)) | {100: (99, 0)})) == []


def test_silence_of_ours_is_none_of_the_services():
    """Nobody asked for five hours, and these receipts have no time of their own."""
    with warehouse() as con:
        fill(con, World(16_000, 8, STRUCK).receipts(STRUCK))
        con.execute(
            "UPDATE receipts SET received_at = NULL, delivery_seconds = NULL, "
            "first_asked_at = $late, last_asked_at = $late, final_at = $late "
            "WHERE is_final AND sent_at BETWEEN $then AND $until",
            {
                "late": STRUCK - timedelta(hours=4),
                "then": STRUCK - timedelta(hours=9),
                "until": STRUCK - timedelta(hours=6),
            },
        )
        assert rows(queries.alerts(con)) == []


def test_a_sentence_says_what_where_since_when_and_how_many():
    assert alerts.sentence(row(), ZoneInfo("Asia/Shanghai")) == (
        "operator China Unicom (CN), sent from 20 Nov 09:00 to 15:00 (Asia/Shanghai): "
        "123 of 200 messages with an outcome were not delivered (61.5%; usually 5.2%)."
    )
    hour = datetime(2026, 10, 25, 0, tzinfo=UTC)
    twice = row(since=hour, until=hour + timedelta(hours=1))
    berlin = alerts.sentence(twice, ZoneInfo("Europe/Berlin"))
    assert "sent from 25 Oct 02:00 UTC+0200 to 02:00 UTC+0100 (Europe/Berlin)" in berlin
    silent = alerts.sentence(row(kind="silent", cohort="x\x1b[2J"), UTC_ZONE)
    assert "123 of 200 messages had no outcome within an hour" in silent
    assert "\x1b" not in silent


def test_a_summary_names_the_furthest_and_what_it_shows_in():
    country = row(by_column="country", cohort="CN")
    later = row(cohort="Vivo (BR)", since=row()["until"], until=row()["until"] + timedelta(hours=3))
    said = alerts.summary([row(), country, row(kind="silent"), later], UTC_ZONE, "failing")
    assert said.startswith("Operator China Unicom (CN), sent from 20 Nov 01:00 to 07:00 (UTC):")
    assert "operator Vivo (BR), sent from 20 Nov 07:00 to 10:00 (UTC):" in said
    assert said.endswith("At the same time: country CN (61.5%).")
    assert alerts.summary([row()], UTC_ZONE, "silent") == ""
