"""The time column in each database's own types: read right, counted right, and by the index."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.source_tables import Place, literal, values
from usms_pipeline import source
from usms_pipeline.contract.errors import SourceError
from usms_pipeline.source import reading

START = datetime(2024, 8, 1, tzinfo=UTC)
END = START + timedelta(days=2)
TIMES = [START + timedelta(hours=h, seconds=7) for h in range(-60, 108, 12)]
INSIDE = [t for t in TIMES if START <= t < END]

FORMS: dict[str, Any] = {
    "naive": lambda t: t.strftime("%Y-%m-%d %H:%M:%S"),
    "aware": lambda t: t.strftime("%Y-%m-%d %H:%M:%S+00:00"),
    "date": lambda t: t.strftime("%Y-%m-%d"),
    "iso": lambda t: t.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "epoch_s": lambda t: int(t.timestamp()),
    "epoch_ms": lambda t: int(t.timestamp()) * 1000,
    "epoch_us": lambda t: int(t.timestamp()) * 10**6,
    "epoch_ns": lambda t: int(t.timestamp()) * 10**9,
    "yyyymmddhhmmss": lambda t: int(t.strftime("%Y%m%d%H%M%S")),
}
TYPES = {
    "postgresql": [
        ("timestamptz", "aware"), ("timestamp", "naive"), ("timestamp(0)", "naive"),
        ("date", "date"), ("text", "iso"), ("varchar(40)", "iso"), ("char(40)", "iso"),
        ("text", "epoch_ms"), ("int", "epoch_s"), ("bigint", "epoch_ms"), ("bigint", "epoch_ns"),
        ("numeric(20,3)", "epoch_s"), ("double precision", "epoch_us"),
        ("bigint", "yyyymmddhhmmss"),
    ],
    "mariadb": [
        ("timestamp", "naive"), ("datetime", "naive"), ("date", "date"), ("varchar(40)", "iso"),
        ("text", "epoch_s"), ("int unsigned", "epoch_s"), ("bigint", "epoch_ms"),
        ("decimal(20,3)", "epoch_s"), ("double", "epoch_us"), ("bigint", "yyyymmddhhmmss"),
    ],
    "sqlite": [
        ("datetime", "naive"), ("text", "iso"), ("", "iso"), ("", "epoch_s"), ("text", "epoch_ms"),
        ("integer", "epoch_s"), ("timestamp", "epoch_ms"), ("real", "epoch_us"),
        ("date", "date"), ("integer", "yyyymmddhhmmss"),
    ],
    "duckdb": [
        ("timestamptz", "aware"), ("timestamp", "naive"), ("timestamp_ns", "naive"),
        ("timestamp_s", "naive"), ("date", "date"), ("varchar", "iso"), ("int", "epoch_s"),
        ("bigint", "epoch_ns"), ("double", "epoch_s"), ("decimal(20,3)", "epoch_ms"),
    ],
}  # fmt: skip
CASES = [(kind, *case) for kind, cases in TYPES.items() for case in cases]


@pytest.mark.parametrize(
    ("place", "type_", "form"), CASES, indirect=["place"], ids=[" ".join(c) for c in CASES]
)
def test_times_are_read_and_counted_whatever_the_column_type(
    place: Place, type_: str, form: str
) -> None:
    written = [FORMS[form](t) for t in TIMES]
    place.holds(*written, None, type_=type_)
    midnight = {"hour": 0, "second": 0} if form == "date" else {}
    assert place.sent() == [t.replace(**midnight) for t in INSIDE]

    seen = source.survey(place.settings())
    assert (seen.rows, seen.left_out.without_sent_at) == (len(TIMES) + 1, 1)
    assert seen.first_sent_at == TIMES[0].replace(**midnight)
    assert seen.last_sent_at == TIMES[-1].replace(**midnight)
    assert seen.unread.count == 0


@pytest.mark.parametrize("place", ["postgresql", "mariadb", "sqlite", "duckdb"], indirect=True)
def test_a_naive_time_is_read_in_the_zone_of_the_source(place: Place) -> None:
    """Also in the hours that summer time skips or repeats, wherever the window begins."""
    kind = "timestamp" if place.kind in ("postgresql", "duckdb") else "datetime"
    local = ["2024-03-31 01:59:59", "2024-03-31 02:30:00", "2024-03-31 03:00:00",
             "2024-10-27 02:30:00"]  # fmt: skip
    place.holds(*local, type_=kind)
    settings = place.settings(source_timezone="Europe/Berlin")
    change = datetime(2024, 3, 31, 1, tzinfo=UTC)

    def sent(start: datetime, end: datetime) -> list[datetime]:
        return sorted(
            t for b in source.read(settings, start, end) for t in b.column("sent_at").to_pylist()
        )

    hour = timedelta(hours=1)
    assert sent(change - hour, change) == [change - timedelta(seconds=1)]
    assert sent(change, change + hour) == [change, change]
    autumn = datetime(2024, 10, 27, tzinfo=UTC)
    assert sent(autumn, autumn + hour) == [autumn + hour / 2]
    assert sent(autumn + hour, autumn + 2 * hour) == []


@pytest.mark.parametrize("place", ["postgresql", "mariadb", "sqlite", "duckdb"], indirect=True)
def test_unreadable_text_is_counted_and_never_fatal(place: Place) -> None:
    texts = ["2024-08-01T10:00:00Z", "soon", "", "2024-08-01T25:00:00Z", "2024-02-30", None]
    place.holds(*texts)
    assert place.sent() == [START + timedelta(hours=10)]
    seen = source.survey(place.settings())
    assert (seen.rows, seen.left_out.without_sent_at) == (6, 5)


TEXT_FORMS: dict[str, Any] = {
    "short": lambda t: f"{t.year}/{t.month}/{t.day} {t.hour}:{t:%M}",
    "short dashes": lambda t: f"{t.year}-{t.month}-{t.day} {t:%H:%M}",
    "short day": lambda t: f"{t:%Y-%m}-{t.day} {t:%H:%M}",
    "dots": lambda t: t.strftime("%Y.%m.%d %H:%M"),
    "chinese": lambda t: f"{t.year}年{t.month}月{t.day}日 {t:%H:%M}",
    "day first": lambda t: t.strftime("%d/%m/%Y %H:%M"),
    "month first": lambda t: t.strftime("%m/%d/%Y %I:%M %p"),
    "quoted": lambda t: t.strftime("'%Y-%m-%d %H:%M"),
    "yymmddhhmm": lambda t: t.strftime("%y%m%d%H%M"),
    "ms": lambda t: str(int(t.timestamp()) * 1000),
}


@pytest.mark.parametrize("place", ["postgresql", "mariadb", "sqlite", "duckdb"], indirect=True)
@pytest.mark.parametrize("form", TEXT_FORMS)
def test_a_form_that_the_first_rows_do_not_show_is_read_all_the_same(
    place: Place, form: str
) -> None:
    """Two hundred rows of the usual form stand before them, and others after."""
    before = [f"2024-07-{1 + n % 28:02} 10:00:00" for n in range(200)]
    new = [TEXT_FORMS[form](START + timedelta(hours=h)) for h in (0, 3, 30, 47)]
    assert len({*new}) == 4
    after = ["2025-01-01 00:00:00", None]
    if "first" in form:  # what shows their order lies outside the window
        after.append(TEXT_FORMS[form](datetime(2024, 7, 20)))
    place.holds(*before, *new, *after)
    assert place.sent() == [START + timedelta(hours=h) for h in (0, 3, 30, 47)]
    seen = source.survey(place.settings())
    assert (seen.left_out.without_sent_at, seen.unread.count, seen.is_unreadable) == (1, 0, False)


@pytest.mark.parametrize("place", ["postgresql", "mariadb", "sqlite", "duckdb"], indirect=True)
def test_days_of_the_20th_and_21st_alone_hide_between_years_and_are_found(place: Place) -> None:
    texts = ["2019-07-01 10:00:00", *["2024-08-01 10:00:00"] * 150, "21/07/2024", "20/07/2024 1:00",
             "2150-01-01 00:00:00"]  # fmt: skip
    place.holds(*texts)
    july = datetime(2024, 7, 20, tzinfo=UTC)
    batches = source.read(place.settings(), july, july + timedelta(days=2))
    assert sum(batch.num_rows for batch in batches) == 2


@pytest.mark.parametrize("place", ["postgresql", "mariadb", "sqlite", "duckdb"], indirect=True)
def test_an_order_of_day_and_month_that_nothing_shows_is_asked_for(place: Place) -> None:
    place.holds("8/1/2024 9:00", "1/8/2024 9:00", "7/7/2024", None)
    with pytest.raises(SourceError, match="USMS_DATE_ORDER to dmy") as caught:
        place.sent()
    assert "'sent_at' of 't'" in str(caught.value)
    with pytest.raises(SourceError, match="USMS_DATE_ORDER"):
        source.survey(place.settings())
    nine = [START + timedelta(hours=9)]
    assert place.sent(date_order="dmy") == place.sent(date_order="mdy") == nine
    place.execute(f"INSERT INTO t VALUES {values('13/8/2024', '8/14/2024')}")
    with pytest.raises(SourceError, match="others only month first"):
        place.sent()
    assert place.sent(date_order="dmy") == nine
    seen = source.survey(place.settings(date_order="dmy"))
    assert (seen.unread.count, dict(seen.unread.shapes)) == (1, {"9/99/9999": 1})


@pytest.mark.parametrize("place", ["sqlite", "duckdb"], indirect=True)
@pytest.mark.parametrize(
    ("good", "bad", "none", "is_unreadable"),
    [(990, ["2024-08-01 25:61"] * 9, [None, "", "NULL", "0000-00-00 00:00:00", "9999-12-31"],
      False),
     (990, ["soon"] * 11, [None] * 500, True), (0, ["2024-02-31"], [None] * 9, True),
     (0, [], [None, "", "NaT", r"\N"], False), (0, [], [], False)],
)  # fmt: skip
def test_of_the_times_that_are_not_null_one_in_a_hundred_may_be_unreadable(
    place: Place, good: int, bad: list[str], none: list[str | None], is_unreadable: bool
) -> None:
    place.holds(*["2024-08-01 10:00:00"] * good, *bad, *none)
    seen = source.survey(place.settings())
    assert (seen.left_out.without_sent_at, seen.unread.count) == (len(bad) + len(none), len(bad))
    assert seen.is_unreadable is is_unreadable


@pytest.mark.parametrize("place", ["duckdb"], indirect=True)
@pytest.mark.parametrize(
    ("unread", "said"),
    [(["2024-08-01 9h30", "2024-08-03 10h15"],
      "2 of the times are not NULL and can't be read (of 2024-08-01 to 2024-08-03): "
      "1 × 9999-99-99 9a99, 1 × 9999-99-99 99a99"),
     (["13800138000 晚"], "1 × 99999999999 字 (9 is any digit, a any letter, 字 any of another"),
     (["待定"], "1 × 字字 (9 is any digit, a any letter, 字 any of another script)"),
     (["später"], "1 × aaaaaa (9 is any digit, a any letter)"),
     (["soon"], "Understood: 2026-01-31 09:30:00, 2026/1/31 9:30"),
     (["2460523.5"], "They look like Julian days: make a view with (sent_at - 2440587.5) * 86400"),
     (["45505.396"], "days of a spreadsheet: make a view with (sent_at - 25569) * 86400"),
     (["638580942150000000"], ".NET ticks: make a view with (sent_at - 621355968000000000)"),
     (["744197415"], "seconds since 2001: make a view with sent_at + 978307200"),
     (["19936"], "days since 1970: make a view with sent_at * 86400")],
)  # fmt: skip
def test_what_can_not_be_read_is_told_by_its_shape_and_look(
    place: Place, unread: list[str], said: str
) -> None:
    place.holds(*unread)
    settings = place.settings()
    [doubt] = source.survey(settings).doubts(settings, with_forms=True)
    assert said in doubt
    assert "13800" not in doubt
    [brief] = source.survey(settings).doubts(settings)
    assert "Understood" not in brief
    assert "`usms check` lists the forms that are understood" in brief


@pytest.mark.parametrize("place", ["postgresql", "mariadb", "sqlite", "duckdb"], indirect=True)
@pytest.mark.parametrize(
    ("order", "times", "other"),
    [("mdy", ["21/8/2024 9:05", "2/8/2024 9:05"], 1), ("dmy", ["8/21/24", "8/22/2024"], 2),
     ("dmy", ["21/21/2024"], 0), ("mdy", ["2024-08-01 9h30"], 0)],
)  # fmt: skip
def test_an_order_of_day_and_month_that_does_not_fit_is_named(
    place: Place, order: str, times: list[str], other: int
) -> None:
    place.holds(*times)
    settings = place.settings(date_order=order)
    doubts = " ".join(source.survey(settings).doubts(settings, with_forms=True))
    fits = {"dmy": "mdy", "mdy": "dmy"}[order]
    said = f"{other} of them can be where USMS_DATE_ORDER is {fits}: it is {order}"
    assert (said in doubts) == bool(other)
    assert ("Understood" in doubts) != bool(other)


@pytest.mark.parametrize("place", ["postgresql", "mariadb", "sqlite", "duckdb"], indirect=True)
def test_names_of_months_are_read_whatever_stands_first(place: Place) -> None:
    times = ["01-Aug-2024 10:00", "2-AUG-24 09.30.00 PM", "Aug 1, 2024 11:00 PM", "2024-Aug-02"]
    place.holds(*times)
    hours = (10, 23, 24, 45.5)
    assert place.sent() == [START + timedelta(hours=hour) for hour in hours]


@pytest.mark.parametrize("place", ["postgresql", "mariadb", "sqlite", "duckdb"], indirect=True)
@pytest.mark.parametrize(
    ("value", "hour"),
    [("2460524.0", 12), ("45505.75", 18), ("638580672000000000", 0), ("744174000", 3),
     ("133669440000000000", 0)],
)  # fmt: skip
def test_the_view_that_is_advised_makes_a_time_of_the_number(
    place: Place, value: str, hour: int
) -> None:
    kind = "double precision" if "." in value else "bigint"
    place.execute(
        f"CREATE TABLE t (session_no varchar(9), sent_at {kind})",
        f"INSERT INTO t VALUES ('a', {value})",
    )
    [doubt] = source.survey(place.settings()).doubts(place.settings())
    [made] = re.findall(r"a view with (.*) in place of sent_at", doubt)
    place.execute(f"CREATE VIEW v AS SELECT session_no, {made} AS sent_at FROM t")
    seen = source.survey(place.settings(source_table="v"))
    assert seen.first_sent_at == START + timedelta(hours=hour)


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
def test_a_domain_over_a_domain_is_read_as_what_is_below(place: Place) -> None:
    place.execute(
        "CREATE DOMAIN d1 AS timestamptz", "CREATE DOMAIN d2 AS d1 NOT NULL",
        "CREATE DOMAIN d3 AS d2",
        "CREATE DOMAIN n1 AS double precision", "CREATE DOMAIN n2 AS n1",
        "CREATE TABLE t (session_no n2, sent_at d3)",
        "INSERT INTO t VALUES (1e15, '2024-08-01 10:00Z')",
    )  # fmt: skip
    [batch] = source.read(place.settings(), START, END)
    assert batch.to_pydict()["session_no"] == ["1" + "0" * 15]
    assert place.sent() == [START + timedelta(hours=10)]


@pytest.mark.parametrize("place", ["postgresql", "sqlite", "duckdb"], indirect=True)
def test_a_column_whose_form_changed_over_time_is_read_whole(place: Place) -> None:
    """Old rows in seconds, new ones in milliseconds; or text of two forms."""
    written = [int(t.timestamp()) * (1 if t < START + timedelta(days=1) else 1000) for t in TIMES]
    place.holds(*written, type_="bigint")
    assert place.sent() == INSIDE


@pytest.mark.parametrize("place", ["postgresql", "mariadb", "sqlite", "duckdb"], indirect=True)
@pytest.mark.parametrize("type_", ["varchar(40)", "bigint"])
def test_an_empty_table_gives_no_rows(place: Place, type_: str) -> None:
    place.holds(type_=type_)
    assert place.sent() == []
    seen = source.survey(place.settings())
    assert (seen.rows, seen.first_sent_at, seen.last_sent_at) == (0, None, None)


@pytest.mark.parametrize("place", ["mariadb"], indirect=True)
def test_zero_dates_of_mysql_are_unreadable_not_fatal(place: Place) -> None:
    place.execute(
        "CREATE TABLE t (session_no varchar(9), sent_at datetime)",
        "SET SESSION sql_mode = ''",
        "INSERT INTO t VALUES ('a', '0000-00-00 00:00:00'), ('b', '2024-00-00 00:00:00'), "
        "('c', '2024-08-01 10:00:00')",
    )
    assert place.sent() == [START + timedelta(hours=10)]
    settings = place.settings()
    everything = source.read(settings, START - timedelta(days=999), END + timedelta(days=999))
    assert sum(b.num_rows for b in everything) == 1
    assert source.survey(settings).rows == 3
    assert source.survey(settings).left_out.without_sent_at >= 1


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
def test_infinity_is_no_usable_time(place: Place) -> None:
    place.execute(
        "CREATE TABLE t (session_no text, sent_at timestamptz)",
        "INSERT INTO t VALUES ('a', 'infinity'), ('b', '-infinity'), ('c', '9999-12-31'), "
        "('d', '2024-08-01 10:00:00Z')",
    )
    assert place.sent() == [START + timedelta(hours=10)]
    seen = source.survey(place.settings())
    assert (seen.left_out.without_sent_at, seen.last_sent_at) == (3, START + timedelta(hours=10))


def many(place: Place, type_: str, form: str) -> None:
    """100,000 rows over 1,000 days, indexed."""
    first = START - timedelta(days=900)
    times = [first + timedelta(minutes=14 * i) for i in range(100_000)]
    rows = [f"('{i}', {literal(FORMS[form](t))})" for i, t in enumerate(times)]
    place.execute(
        f"CREATE TABLE t (session_no varchar(9), sent_at {type_})",
        *(f"INSERT INTO t VALUES {', '.join(rows[i : i + 10**4])}" for i in range(0, 10**5, 10**4)),
        "CREATE INDEX by_time ON t (sent_at)",
        "ANALYZE TABLE t" if place.kind == "mariadb" else "ANALYZE t",
    )


INDEXED = {
    "postgresql": [
        ("timestamptz", "aware"), ("timestamp", "naive"), ("date", "date"), ("text", "iso"),
        ("bigint", "epoch_ms"), ("numeric", "epoch_s"), ("text", "epoch_s"),
    ],
    "mariadb": [("datetime", "naive"), ("varchar(40)", "iso"), ("bigint", "epoch_ms")],
    "sqlite": [("datetime", "naive"), ("text", "iso"), ("integer", "epoch_s"), ("", "epoch_ms")],
}  # fmt: skip


@pytest.mark.parametrize(
    ("place", "type_", "form"),
    [
        pytest.param(kind, *case, marks=[] if kind == "sqlite" else pytest.mark.long)
        for kind, cases in INDEXED.items()
        for case in cases
    ],
    indirect=["place"],
)
def test_the_window_is_served_from_an_index(place: Place, type_: str, form: str) -> None:
    many(place, type_, form)
    explain = "EXPLAIN QUERY PLAN" if place.kind == "sqlite" else "EXPLAIN"
    with reading._opened(place.settings()) as it:
        sql = reading._statement(it, place.settings(), START, END)
    steps = place.execute(f"{explain} {sql}")
    plan = "\n".join(str(part) for step in steps for part in step)
    if place.kind == "mariadb":
        assert [step[3:6:2] for step in steps] == [("range", "by_time")], plan
    elif place.kind == "sqlite":
        assert "SCAN" not in plan, plan
        assert re.search("USING (COVERING )?INDEX by_time", plan), plan
    else:
        assert "Index Scan" in plan, plan
        assert "Seq Scan" not in plan
