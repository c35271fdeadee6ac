"""Every form of a time of sending comes out as the same moment."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from usms_pipeline.contract.moments import orders, to_utc
from usms_pipeline.contract.setting_types import DateOrder
from usms_pipeline.source import query
from usms_pipeline.source.kinds import Column, Dialect, TimeType

MOMENT = datetime(2024, 8, 1, 9, 30, 15, 123456, tzinfo=UTC)
MICROS = int((MOMENT - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))
SECOND = MOMENT.replace(microsecond=0)
MINUTE = SECOND.replace(second=0)
MIDNIGHT = MINUTE.replace(hour=0, minute=0)


def one(text: object, zone: str = "UTC") -> datetime | None:
    return to_utc(pa.array([text]), zone)[0].as_py()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-08-01T09:30:15.123456Z", MOMENT),
        ("2024-08-01 09:30:15.123456", MOMENT),
        ("2024-08-01 09:30:15.123456789+00:00", MOMENT),
        ("2024-08-01T09:30:15,123456", MOMENT),
        ("2024-08-01 17:30:15.123456+08", MOMENT),
        ("2024-08-01 17:30:15.123456 +0800", MOMENT),
        ("2024-08-01T04:00:15.123456-05:30", MOMENT),
        ("2024-08-01 09:30:15.1", SECOND + timedelta(microseconds=100_000)),
        ("2024-08-01 09:30:15 UTC", SECOND),
        ("2024-08-01t09:30:15z  ", SECOND),
        ("2024-08-01 09:30", MINUTE),
        ("2024-08-01 09:29:60", MINUTE),
        ("2024-08-01", MIDNIGHT),
        ("2024/08/01 09:30:15", SECOND),
        ("20240801", MIDNIGHT),
        ("20240801093015", SECOND),
        (str(MICROS // 10**6), SECOND),
        (str(MICROS // 10**3), MOMENT.replace(microsecond=123_000)),
        (str(MICROS), MOMENT),
        (f"{MICROS}999", MOMENT),
        (f"{MICROS / 10**6:.6f}", MOMENT),
        (f"{MICROS}.0", MOMENT),
        ("1.7225046e9", SECOND - timedelta(seconds=15)),
    ],
)
def test_a_time_is_understood_in_every_form(text: str, moment: datetime) -> None:
    assert one(text) == moment


NOON = datetime(2026, 11, 3, 12, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-3 12:5", "2026/11/3 12:05:00", "2026.11.03 12:05", "2026-11-03T12:05",
        "'2026-11-03 12:05", '="2026-11-03 12:05"', "2026年11月3日 12:05",
        "2026年11月03日12时05分", "2026年11月3日 12时5分0秒", "2026/11/3 下午12:05:00",
        "2026/11/3 PM 12:05", "2026-11-03 12:05 PM", "2026-11-03 12:05:00 p.m.",
        "2026-11-03, 12:05", "2026-11-03\u00a012:05", " 2026-11-03 12:05 ",
        "2026-11-03  12:05:00.000", "20261103T120500Z", "20261103T1205", "20261103 12:05:00",
        "'2026-11-03 12:05'", "2026-11-03 0:05 PM", "2026/11/3 下午0:05", "20261103120500.123",
        "202611031205", "261103120500", "20261103120500000", "2611031205", "20261103120500.0",
        "2026-11-03 20:05 +0800", "2026-11-03T20:05:00.000+8", "2026-11-03 12:05 GMT",
        "2026-11-03 20:05 GMT+8", "2026-11-03 07:05:00 UTC-05:00",
        "2026-11-03 17:35:00.000000001 +0530 IST m=+0.000000001", "2026-11-03 20:05:00 +0800 +08",
        "2026-11-03 12:05:00 +0000 UTC", "2026-11-03 09:05:00 -0300 -03 m=-5.1",
        "2026-11-03T20:05:00+08:00[Asia/Shanghai]", "2026-11-03 20:05:00 +08:00 (CST)",
        "3-Nov-2026 12:05", "03-NOV-26 12.05.00.000000 PM", "03-NOV-26 08.05.00.000 PM +08:00",
        "Nov 3, 2026 12:05:00 PM", "Nov 3, 2026, 12:05\u202fPM", "November 3rd, 2026 at 12:05",
        "Tue, 3 Nov 2026 20:05:00 +0800", "Tue, 03 Nov 2026 12:05:00 GMT", "3. November 2026 12.05",
        "Tue Nov  3 12:05:00 2026", "Tue Nov 3 12:05:00 UTC 2026", "03/Nov/2026:20:05:00 +0800",
        "2026-Nov-03 12:05", "03NOV2026:12:05:00",
    ],
)  # fmt: skip
def test_people_and_programs_write_one_moment_in_many_ways(text: str) -> None:
    read = to_utc(pa.array([text]), "UTC", latest=datetime(2027, 1, 1, tzinfo=UTC))
    assert read.to_pylist() == [NOON]


@pytest.mark.parametrize("hour", range(24))
def test_no_hour_of_a_day_is_lost_whatever_the_half_of_it_is_written_beside(hour: int) -> None:
    moment = datetime(2026, 11, 3, hour, 5, tzinfo=UTC)
    half = "AM" if hour < 12 else "PM"
    for shown in (hour, hour % 12, hour % 12 or 12):
        assert one(f"2026/11/3 {shown}:05 {half}") == moment


@pytest.mark.parametrize(
    ("text", "order", "read"),
    [
        ("3/11/2026 12:05", DateOrder.DAY_FIRST, NOON),
        ("11/3/2026 12:05 PM", DateOrder.MONTH_FIRST, NOON),
        ("03.11.2026 12.05", DateOrder.DAY_FIRST, NOON),
        ("03-11-2026 12.05.00", DateOrder.DAY_FIRST, NOON),
        ("3.11.26, 12:05", DateOrder.DAY_FIRST, NOON),
        ("11/3/26 12:05", DateOrder.MONTH_FIRST, NOON),
        ("23/11/2026", DateOrder.MONTH_FIRST, None),
        ("11/23/2026", DateOrder.DAY_FIRST, None),
        ("3/11/2026 12:05", None, None),
        ("3/11/26", None, None),
        ("23/11/2026", None, datetime(2026, 11, 23, tzinfo=UTC)),
        ("11/23/2026", None, datetime(2026, 11, 23, tzinfo=UTC)),
        ("11.11.2026", None, datetime(2026, 11, 11, tzinfo=UTC)),
    ],
)
def test_day_and_month_are_told_apart_by_the_order_or_not_at_all(
    text: str, order: DateOrder | None, read: datetime | None
) -> None:
    assert to_utc(pa.array([text]), "UTC", order=order).to_pylist() == [read]


@pytest.mark.parametrize(
    ("texts", "shown"),
    [
        (["3/11/2026", "4/11/2026"], {None}),
        (["3/11/2026", "14/11/2026 9:00"], {None, DateOrder.DAY_FIRST}),
        (["3-11-2026", "'11-14-2026"], {None, DateOrder.MONTH_FIRST}),
        (["14.11.2026", "11.14.2026"], {DateOrder.DAY_FIRST, DateOrder.MONTH_FIRST}),
        (["14/11/26"], {None}),
        (["29/11/26 05:09 AM"], {DateOrder.DAY_FIRST}),
        (["14/11/26", "28.11.26"], {None, DateOrder.DAY_FIRST}),
        (["11/29/26", "11/3/26"], {None, DateOrder.MONTH_FIRST}),
        (["26/11/29", "27-1-1"], {None}),
        (["24-Nov-2026"], set()),
        (["2026-11-03", "11/11/2026", "20261103", "soon", None, ""], set()),
    ],
)
def test_a_column_shows_what_its_dates_begin_with(
    texts: list[str | None], shown: set[DateOrder | None]
) -> None:
    assert orders(pa.array(texts), latest_year=2027) == shown


@pytest.mark.parametrize(
    ("digits", "asked", "read"),
    [
        ("1903041122", datetime(2019, 3, 4, 12), datetime(2019, 3, 4, 11, 22)),
        ("2611031205", datetime(2026, 11, 3, 13), datetime(2026, 11, 3, 12, 5)),
        ("180903120816", datetime(2018, 9, 3, 13), datetime(2018, 9, 3, 12, 8, 16)),
        ("201106101530", datetime(2020, 11, 6, 11), datetime(2020, 11, 6, 10, 15, 30)),
        ("201106101530", datetime(2011, 6, 10, 16), datetime(2011, 6, 10, 15, 30)),
        ("1793707500", datetime(2026, 11, 3, 13), datetime(2026, 11, 3, 12, 5)),
        ("2613031205", datetime(2026, 11, 3, 13), None),
        ("2611031205", datetime(2026, 10, 3, 13), None),
        ("4000000000", datetime(2026, 11, 3, 13), None),
    ],
)
def test_digits_mean_what_can_have_been_by_then(
    digits: str, asked: datetime, read: datetime | None
) -> None:
    """An epoch where that is past, else a calendar where that is; each value by its own moment."""
    latest = pa.array([asked.replace(tzinfo=UTC)], pa.timestamp("us", "UTC"))
    wanted = [read and read.replace(tzinfo=UTC)]
    assert to_utc(pa.array([digits]), "UTC", latest=latest).to_pylist() == wanted
    assert to_utc(pa.array([int(digits)]), "UTC", latest=latest).to_pylist() == wanted


@pytest.mark.parametrize(
    "text",
    [
        None, "", "N/A", "0", "-1", "1", "0000-00-00 00:00:00", "2024-00-15", "2024-02-30",
        "2024-13-01", "2024-08-01 24:00", "2024-08-01 09:60", "yesterday",
        "2024-08-01 09:30 Berlin", "9999-12-31", "1969-12-31 23:59:59", "2460000.5",
        "99999999999999999999999", "20240230", "9" * 19, "NaN", "1e99", "٢٠٢٤-٠٨-٠١",
        "2026-11-03 13:05 AM", "2569-11-03 12:05", "2026-11-03 12:05 CST", "2026-11-0312:05",
        "Tue Nov 24 11:15:00 CST 2026", "31-Nov-2026", "24-Now-2026", "may", "Nov 2026",
        "2026-1-123:05", "12:05", "2026-11-03 12:05 +99:00", "32.11.2026", "0/11/2026",
    ],
)  # fmt: skip
def test_a_text_that_is_no_usable_time_is_null(text: str | None) -> None:
    assert to_utc(pa.array([text], pa.string()), "UTC").to_pylist() == [None]


def test_a_naive_time_is_in_the_zone_of_the_source() -> None:
    naive = MOMENT.replace(tzinfo=None)
    for value in (naive, naive.isoformat(), naive.date(), "20240801093015"):
        assert one(value, "Asia/Shanghai") == one(value) - timedelta(hours=8)  # type: ignore[operator]
    assert one(MOMENT, "Asia/Shanghai") == MOMENT
    assert one(date(2024, 8, 1)) == MIDNIGHT


@pytest.mark.parametrize("make", [lambda t: t, str], ids=["timestamp", "text"])
def test_changes_to_and_from_summer_time_are_no_error(make: Callable[[datetime], object]) -> None:
    skipped, twice = datetime(2024, 3, 31, 2, 30), datetime(2024, 10, 27, 2, 30)
    assert one(make(skipped), "Europe/Berlin") == datetime(2024, 3, 31, 1, tzinfo=UTC)
    assert one(make(twice), "Europe/Berlin") == datetime(2024, 10, 27, 0, 30, tzinfo=UTC)


MOMENTS = st.datetimes(datetime(2001, 9, 10), datetime(2199, 12, 30), timezones=st.just(UTC)).map(
    lambda moment: moment.astimezone(UTC)
)
OFFSETS = st.integers(-12 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))
FORMS: dict[str, Callable[[datetime, timezone], object]] = {
    "offset": lambda t, z: t.astimezone(z).isoformat(),
    "space": lambda t, z: t.astimezone(z).isoformat(" "),
    "zulu": lambda t, z: t.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    "naive": lambda t, z: t.strftime("%Y-%m-%d %H:%M:%S.%f"),
    "slashes": lambda t, z: t.strftime("%Y/%m/%d %H:%M:%S.%f"),
    "short": lambda t, z: f"{t.year}-{t.month}-{t.day} {t.hour}:{t:%M:%S.%f}",
    "short slashes": lambda t, z: f"{t.year}/{t.month}/{t.day} {t.hour}:{t:%M:%S.%f}",
    "short day": lambda t, z: f"{t:%Y-%m}-{t.day}T{t:%H:%M:%S.%f}",
    "dots": lambda t, z: t.strftime("%Y.%m.%d %H:%M:%S.%f"),
    "chinese": lambda t, z: f"{t.year}年{t.month}月{t.day}日 {t:%H:%M:%S.%f}",
    "12 hours": lambda t, z: t.strftime("%Y/%m/%d %I:%M:%S.%f %p"),
    "go": lambda t, z: t.astimezone(z).strftime("%Y-%m-%d %H:%M:%S.%f %z CST m=+0.1"),
    "compact ms": lambda t, z: t.strftime("%Y%m%d%H%M%S%f")[:17],
    "s": lambda t, z: f"{Decimal(_micros(t)) / 10**6:f}",
    "ms": lambda t, z: f"{Decimal(_micros(t)) / 10**3:f}",
    "us": lambda t, z: str(_micros(t)),
    "ns": lambda t, z: str(_micros(t) * 1000),
}


def _micros(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@given(moment=MOMENTS, zone=OFFSETS, form=st.sampled_from(sorted(FORMS)))
def test_text_gives_back_the_moment_it_was_made_from(
    moment: datetime, zone: timezone, form: str
) -> None:
    """To the microsecond; a fraction comes as a float, which from some size on is good to one."""
    read = one(FORMS[form](moment, zone))
    assert isinstance(read, datetime)
    is_coarse = form == "ms" or (form == "s" and _micros(moment) >= 2**32 * 10**6)
    most = 999 if form == "compact ms" else 1 if is_coarse else 0
    assert abs(read - moment) <= timedelta(microseconds=most)


@given(
    moment=MOMENTS, zone=OFFSETS, form=st.sampled_from(sorted(FORMS)),
    before=st.timedeltas(timedelta(0), timedelta(days=9)),
    after=st.timedeltas(timedelta(microseconds=1), timedelta(days=9)),
    column=st.sampled_from(["TEXT", "NUMERIC", ""]),
)  # fmt: skip
def test_the_range_in_the_query_never_leaves_a_row_of_the_window_out(
    moment: datetime, zone: timezone, form: str, before: timedelta, after: timedelta, column: str
) -> None:
    """Law of the widened range: what [start, end) holds, the database's comparison holds too."""
    text = FORMS[form](moment, zone)
    time = {"TEXT": TimeType.TEXT, "NUMERIC": TimeType.DYNAMIC, "": TimeType.UNTYPED}[column]
    where = query.window(
        Dialect(query.quoted, lambda sql, c: sql),
        Column("at", column, time), moment - before, moment + after, "UTC",
    )  # fmt: skip
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f'CREATE TABLE t ("at" {column})')
        connection.execute("INSERT INTO t VALUES (?)", [text])
        assert connection.execute(f"SELECT count(*) FROM t WHERE {where}").fetchone() == (1,)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("log", ("log",)),
        ("shop.log", ("shop", "log")),
        ("a.b.c", ("a", "b", "c")),
        ('"a.b"."c ""d"""', ("a.b", 'c "d"')),
        ("`x``y`", ("x`y",)),
    ],
)
def test_a_table_may_be_named_with_schema_and_quotes(name: str, first: tuple[str, ...]) -> None:
    candidates = query.table_candidates(name)
    assert candidates[0] == first
    assert candidates[-1] == (name,)
