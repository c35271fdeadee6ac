"""What is worse than usual: outages are found and named, a year of quiet days is quiet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest

from tests import alert_looks
from tests.cohorts import receipt, table
from tests.examples import examples
from tests.rate_worlds import Trouble, World, fill, warehouse, with_trouble, world
from usms_pipeline.contract import metrics
from usms_pipeline.defs import checks
from usms_pipeline.figures import alerts, queries

UTC_ZONE: Final = ZoneInfo("UTC")
STRUCK: Final = datetime(2026, 11, 20, 1, tzinfo=UTC)

Row = dict[str, Any]


def row(**given: Any) -> Row:
    since = datetime(2026, 11, 20, 1, tzinfo=UTC)
    return {
        "kind": "failing", "by_column": "operator", "cohort": "China Unicom (CN)",
        "since": since, "until": since + timedelta(hours=6), "within_hours": 1, "messages": 200,
        "affected": 123, "share": 0.615, "usual_share": 0.052, "false_a_year": 1e-30, "echoes": [],
    } | given  # fmt: skip


def rows(relation: queries.Relation) -> list[Row]:
    found: list[Row] = relation.to_arrow_table().to_pylist()
    return found


def said_of(account: Any, now: datetime | None = None) -> list[Row]:
    """Return the alerts of an account as it stands at a moment, or in the end."""
    with warehouse() as con:
        fill(con, account.receipts(now))
        return rows(queries.alerts(con))


# -- what is found, and what is not -----------------------------------------------------------


@examples(1, "kind", ["fail", "late"])
def test_an_outage_is_named_by_operator_and_hours_two_hours_after_it_began(kind):
    account = world("weekdays and hours", 8, per_day=4_000)
    begins = alert_looks.hour_of(account.end) - 20
    ago = (account.end - alert_looks.at(begins)) / timedelta(hours=1)
    struck = with_trouble(account, Trouble("China Mobile", ago, 1, 0.8, kind))
    (found,) = said_of(struck, alert_looks.at(begins + 2))
    assert (found["by_column"], found["cohort"]) == ("operator", "China Mobile (CN)")
    assert found["kind"] == {"fail": "failing", "late": "silent"}[kind]
    assert found["since"] == alert_looks.at(begins)
    assert found["until"] == alert_looks.at(begins + 1)
    assert list(found) == [metric.name for metric in metrics.ALERTS]
    assert {echo["by_column"] for echo in found["echoes"]} <= {"country", "everything", "template"}
    verdict = checks.check_alerts([found], UTC_ZONE)
    assert not verdict.passed
    assert str(verdict.description).startswith("Operator China Mobile (CN), sent from ")


@pytest.mark.long
def test_what_fails_and_what_is_late_are_one_alert():
    """Six hours of the second largest operator."""
    account = world("stable", 3, per_day=5_000)
    begins = (account.end - alert_looks.at(alert_looks.hour_of(account.end) - 9)) / timedelta(
        hours=1
    )
    struck = with_trouble(
        account,
        Trouble("China Unicom", begins, 6, 0.6, "fail"),
        Trouble("China Unicom", begins, 6, 0.25, "late"),
    )
    (found,) = said_of(struck)
    assert found["until"] - found["since"] == timedelta(hours=6)
    said = alerts.sentence(found, UTC_ZONE)
    assert "came late or not at all (usually" in said
    assert "It shows in country CN" in said


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    ["stable", "weekdays and hours", "nightly lots", "holiday", "growing", "pipeline paused 8 h",
     "receipts undated"],
)  # fmt: skip
@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_said_where_nothing_fails(name, seed):
    account = world(name, seed, per_day=4_000)
    for hours in (0, 5, 30):
        assert said_of(account, account.end - timedelta(hours=hours)) == []


def test_a_new_country_is_no_trouble_but_another_mix():
    account = world("new campaign", 5)
    found = said_of(account)
    assert [(one["kind"], one["cohort"]) for one in found] == [
        ("mix", "MTN (NG)"), ("mix", "Glo (NG)"),
    ]  # fmt: skip
    assert [one["usual_share"] for one in found] == [0, 0]
    assert sum(one["share"] for one in found) == pytest.approx(0.4, abs=0.05)
    assert checks.check_alerts(found, UTC_ZONE).passed
    said = alerts.sentence(found[0], UTC_ZONE)
    assert said.startswith("Operator MTN (NG) has 2")
    assert "what all messages do may change by that alone" in said


@pytest.mark.long
def test_an_outage_is_found_as_well_ten_days_after_another():
    first = Trouble(alert_looks.STRUCK, 240, 24, 0.5)
    for seed in range(3):
        found = alert_looks.Struck(seed, 6_000, first).strike("fail", 0.5)
        assert (found.after, found.is_named, found.is_timed) == (2, True, True)


@pytest.mark.parametrize("name", ["real life", "pipeline paused 8 h"])
def test_the_counts_of_an_hour_do_not_change_later(name):
    account = world(name, 4, per_day=2_000, days=9, **(
        {"pauses": ((100.0, 8.0),)} if name != "real life" else {}))  # fmt: skip
    columns = "by_column, cohort, carrier, hour, kind, age, messages, affected, missed"
    with warehouse() as con:
        kept = []
        for ago in (90, 40, 0):
            fill(con, account.receipts(account.end - timedelta(hours=ago)))
            query = f"WITH c AS (FROM usms_counts()) SELECT {columns} FROM usms_kinds(c)"
            kept.append({tuple(one[:6]): one for one in con.sql(query).fetchall()})
    for early in kept[:2]:
        asked = {key: one for key, one in early.items() if one[-1] == 0}
        assert len(asked) > 0.9 * len(early) > 2_000
        assert asked == {key: kept[-1][key] for key in asked}


def test_a_day_has_24_hours_in_every_time_zone_of_the_reader():
    """Last asked 24 and a half hours after sending; New York's day of 1 November 2026 has 25."""
    sent_at = datetime(2026, 11, 1, 1, tzinfo=UTC)
    pending = receipt(
        "pending",
        sent_at=sent_at,
        first_asked_at=sent_at + timedelta(minutes=5),
        last_asked_at=sent_at + timedelta(hours=24.5),
    )
    watched = []
    with warehouse() as con:
        fill(con, table([pending], ("template",)))
        for zone in ("UTC", "America/New_York"):
            con.execute(f"SET TimeZone = '{zone}'")
            query = "SELECT usms_watched_a_day FROM usms_lately(['operator', 'country'])"
            watched += con.sql(query).fetchall()
    assert watched == [(1,), (1,)]


def test_when_receipts_stop_coming_it_is_silence():
    """The service says nothing more of what was sent in the last five hours."""
    world = World(1, 2_000, 8, until=STRUCK)
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
    assert abs(found[0]["since"] - (STRUCK - timedelta(hours=5))) <= timedelta(hours=2)
    verdict = checks.check_alerts(found, UTC_ZONE)
    assert not verdict.passed
    assert "had no final status within an hour" in str(verdict.description)
    assert checks.check_alerts([], UTC_ZONE).passed


# -- days without final statuses --------------------------------------------------------------


def test_uncovered_days_are_settled_and_below_the_share_beyond_chance():
    world = World(1, 750, 8, until=STRUCK)
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
    """Return the days ago that are uncovered, of (days ago, messages, final statuses)."""
    noon = datetime(2026, 11, 20, 12, tzinfo=UTC)
    closed = {"is_closed": True, "last_asked_at": noon} | given
    made = [
        receipt(**{"sent_at": noon - timedelta(days=ago)} | ({} if n < known else silent))
        for ago, messages, known in days
        for silent in [{"outcome": "unknown"} | closed]
        for n in range(messages)
    ]
    with warehouse() as con:
        fill(con, table(made))
        found = rows(queries.uncovered_days(con, 0.97))
    return [(noon.date() - one["sent_date"]).days for one in found]


@pytest.mark.long
def test_days_with_too_few_final_statuses_are_judged_together():
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


# -- what is judged, by counts ----------------------------------------------------------------

NOW_HOUR: Final = 500_000


def judged(*groups: tuple[str, dict[int, tuple[int, int]]], missed: Any = frozenset()) -> list[Row]:
    """Judge operators by their messages and those affected, by hours before now.

    In the hours ``missed`` half of the messages were not asked about in time.
    """
    counts = [
        {"by_column": column, "cohort": cohort, "carrier": name, "hour": NOW_HOUR - ago,
         "now": NOW_HOUR, "kind": "failing", "age": 1, "messages": messages, "affected": affected,
         "missed": messages if ago in missed else 0}
        for name, hours in groups
        for ago, (messages, affected) in hours.items()
        for column, cohort in (("operator", name), ("everything", "all messages"))
    ]  # fmt: skip
    with warehouse() as con:
        con.register("counts", pa.Table.from_pylist(counts))
        return rows(con.sql("FROM usms_alerts('counts')"))


def test_what_is_said_of_the_hours_is_true_of_those_hours():
    """Two bad hours, two and a half days apart: not one span over both with the counts of one."""
    bad = dict.fromkeys(range(1, 600), (20, 1)) | {65: (20, 12), 5: (20, 11)}
    (found,) = judged(("t", bad))
    since, until = (int(found[name].timestamp() // 3600) for name in ("since", "until"))
    within = [bad[NOW_HOUR - hour] for hour in range(since, until)]
    assert found["messages"] == sum(messages for messages, _ in within)
    assert found["affected"] == sum(affected for _, affected in within)
    assert found["affected"] >= 11
    assert found["usual_share"] == pytest.approx(0.05, rel=0.2)


def test_what_ended_before_the_last_72_hours_is_no_news():
    """A day that reaches back behind them would be judged against hours of its own."""
    quiet = dict.fromkeys(range(1, 744), (20, 0))
    assert judged(("t", quiet | dict.fromkeys(range(75, 81), (20, 10)))) == []
    (found,) = judged(("t", quiet | dict.fromkeys(range(65, 81), (20, 10))))
    assert int(found["since"].timestamp() // 3600) >= NOW_HOUR - 71


def test_of_windows_with_the_same_messages_the_shortest_is_reported():
    """Nothing is sent in the hours around: windows of 1 to 12 hours hold the same messages."""
    (found,) = judged(("t", dict.fromkeys(range(79, 700, 24), (50, 2)) | {31: (50, 40)}))
    assert found["until"] - found["since"] == timedelta(hours=1)


def test_a_short_history_proves_little():
    """Sixty new operators that fail at 5 %, as they did before; few of them did so by chance."""
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
    clean = ("t60", {100: (120, 0)} | dict.fromkeys(range(1, 4), (100, 60)))
    found = judged(*groups, clean)
    assert found[0]["cohort"] == "t60"
    assert {echo["by_column"] for one in found for echo in one["echoes"]} <= {"everything"}


def test_a_group_without_a_history_is_not_judged():
    assert judged(("new", dict.fromkeys(range(1, 31), (100, 50)) | {100: (99, 0)})) == []


def test_hours_that_nobody_asked_about_in_time_are_not_judged():
    """Of those only what came at once is known: rejections."""
    hours = dict.fromkeys(range(1, 744), (40, 2)) | dict.fromkeys(range(3, 11), (20, 12))
    assert judged(("t", hours), missed=frozenset(range(3, 11))) == []
    assert len(judged(("t", hours))) == 1


@pytest.mark.parametrize(
    "usual", [lambda hour: hour % 24 < 8, lambda hour: hour // 24 % 7 in (2, 3)]
)
def test_hours_of_the_day_and_weekdays_have_a_usual_of_their_own(usual):
    """Half fail at night, or on two days of the week; on another it is an alert."""
    random = np.random.default_rng(11)
    hours = {
        ago: (60, int(random.binomial(60, 0.5 if usual(NOW_HOUR - ago) else 0.05)))
        for ago in range(1, 744)
    }
    assert judged(("t", hours)) == []
    struck = min(ago for ago in range(2, 72) if not usual(NOW_HOUR - ago))
    (found,) = judged(("t", hours | {struck: (60, 30)}))
    assert int(found["since"].timestamp() // 3600) == NOW_HOUR - struck


def test_days_that_differ_have_to_stand_out_more():
    """The same bad day is an alert where days are alike, and none where they are not."""
    random = np.random.default_rng(2)

    def days(spread: float) -> dict[int, tuple[int, int]]:
        rates = 0.05 * np.exp(random.normal(0, spread, 40))
        rates[0:2] = 0.05
        return {ago: (50, int(random.binomial(50, rates[ago // 24]))) for ago in range(1, 744)}

    bad = {ago: (50, 5 if ago % 2 else 4) for ago in range(24, 48)}
    assert judged(("t", days(0.6) | bad)) == []
    assert len(judged(("t", days(0.0) | bad))) == 1


def test_an_outage_before_is_not_usual():
    quiet = dict.fromkeys(range(1, 744), (40, 2))
    before = quiet | dict.fromkeys(range(240, 264), (40, 30))
    for hours in (quiet, before):
        (found,) = judged(("t", hours | {5: (40, 15)}))
        assert found["usual_share"] == pytest.approx(0.05, rel=0.1)


def test_two_operators_alike_at_once_are_one_alert_and_at_other_hours_two():
    quiet = dict.fromkeys(range(1, 744), (40, 2))
    struck = {hour: quiet | {hour: (40, 25)} for hour in (5, 30)}
    (found,) = judged(("a", struck[5]), ("b", struck[5]), ("c", quiet), ("d", quiet))
    assert (found["cohort"], {echo["cohort"] for echo in found["echoes"]}) == (
        "all messages", {"a", "b"},
    )  # fmt: skip
    found, other = judged(("a", struck[5]), ("b", struck[30]), ("c", quiet), ("d", quiet))
    assert {found["cohort"], other["cohort"]} == {"a", "b"}


def test_another_mix_of_operators_is_no_trouble_of_all_messages():
    """The one that fails more sends ten times as much since yesterday."""
    good = dict.fromkeys(range(1, 744), (100, 2))
    poor = dict.fromkeys(range(1, 744), (10, 4)) | dict.fromkeys(range(1, 25), (100, 40))
    assert judged(("good", good), ("poor", poor)) == []


def test_hours_we_did_not_poll_are_no_silence_of_the_service():
    """Nobody asked for five hours, and these receipts have no time of their own."""
    with warehouse() as con:
        fill(con, World(1, 2_000, 8, until=STRUCK).receipts(STRUCK))
        con.execute(
            "UPDATE receipts SET received_at = NULL, delivery_seconds = NULL, last_open_at = NULL, "
            "first_asked_at = $late, last_asked_at = $late, final_at = $late "
            "WHERE is_final AND sent_at BETWEEN $then AND $until",
            {
                "late": STRUCK - timedelta(hours=4),
                "then": STRUCK - timedelta(hours=9),
                "until": STRUCK - timedelta(hours=6),
            },
        )
        assert rows(queries.alerts(con)) == []


# -- in words ---------------------------------------------------------------------------------


def echo(**given: Any) -> Row:
    return {
        "kind": "failing", "by_column": "country", "cohort": "CN", "messages": 900,
        "affected": 130, "share": 0.144, "usual_share": 0.05,
    } | given  # fmt: skip


def test_a_sentence_says_what_where_since_when_and_how_many():
    assert alerts.sentence(row(), ZoneInfo("Asia/Shanghai")) == (
        "Operator China Unicom (CN), sent from 20 Nov 09:00 to 15:00 (Asia/Shanghai): "
        "123 of 200 messages failed within an hour (61.5%; usually 5.2%). Seen nowhere else."
    )
    hour = datetime(2026, 10, 25, 0, tzinfo=UTC)
    twice = row(since=hour, until=hour + timedelta(hours=1))
    berlin = alerts.sentence(twice, ZoneInfo("Europe/Berlin"))
    assert "sent from 25 Oct 02:00 UTC+0200 to 02:00 UTC+0100 (Europe/Berlin)" in berlin
    silent = alerts.sentence(row(kind="silent", cohort="x\x1b[2J", within_hours=24), UTC_ZONE)
    assert "123 of 200 messages had no final status within a day" in silent
    assert "\x1b" not in silent


def test_a_sentence_names_the_other_kind_and_where_it_shows():
    also = echo(kind="silent", by_column="operator", cohort="China Unicom (CN)", share=0.25)
    all_messages = echo(by_column="everything", cohort="all messages", share=0.08)
    said = alerts.sentence(row(echoes=[also, echo(), all_messages]), UTC_ZONE)
    assert said.endswith(
        "(61.5%; usually 5.2%), and 25.0% came late or not at all (usually 5.0%). It shows in "
        "country CN (14.4%), all messages (8.0%)."
    )
