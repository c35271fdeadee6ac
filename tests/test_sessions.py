"""Source rows placed and kept: read again, late, changed, at midnight; never twice, never lost."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from usms_pipeline import dataset, forget, schema, scratch, sessions
from usms_pipeline.dataset import Window
from usms_pipeline.errors import KeyMismatch, SettingsError, StorageError
from usms_pipeline.phones import PhoneBook
from usms_pipeline.sessions import SessionsReport
from usms_pipeline.settings import Settings
from usms_pipeline.storage import Store

DAY = date(2026, 3, 1)
NEXT = date(2026, 3, 2)
MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = b"0123456789abcdef"
PHONE, OTHER = "+8613800138000", "+8618612345678"


class Source:
    """A source table in memory, read into a data directory as the pipeline reads it."""

    def __init__(self, folder: Path, **given: Any) -> None:
        self.given: dict[str, Any] = {"data_dir": str(folder), "phone_column": "phone"} | given
        self.store = Store(str(folder))
        self.rows: list[dict[str, Any]] = []

    @property
    def settings(self) -> Settings:
        return Settings(_env_file=None, **self.given)

    def row(self, session: str | None, sent_at: datetime, phone: str | None = None, **more: Any):  # type: ignore[no-untyped-def]
        found = {"session_no": session, "sent_at": sent_at, "phone": phone, "recipients": 1} | more
        self.rows.append(found)
        return found

    def load(self, first: date = DAY, last: date = NEXT, key: bytes = KEY) -> SessionsReport:
        given = self.settings
        start = dataset.day_start(first, given.zone) - sessions.MARGIN
        end = dataset.day_start(last + timedelta(days=1), given.zone) + sessions.MARGIN
        names = [schema.dimension_name(name) for name in given.dimensions]
        layout = pa.schema(
            [
                ("session_no", schema.TEXT),
                ("phone", schema.TEXT),
                ("sent_at", schema.TIME),
                ("recipients", pa.int32()),
                *((name, schema.TEXT) for name in names),
            ]
        )
        inside = [row for row in self.rows if start <= row["sent_at"] < end]
        batches = [pa.RecordBatch.from_pylist(inside, layout)] if inside else []
        book = PhoneBook(key, given.default_region, given.phones)
        return sessions.load(self.store, given, Window(first, last), batches, book)

    def stored(self, day: date | None = None) -> list[dict[str, Any]]:
        days = dataset.days(self.store, dataset.SESSIONS) if day is None else [day]
        names = [dataset.file_name(dataset.SESSIONS, one) for one in days]
        return [
            row for n in names if self.store.exists(n) for row in self.store.read(n).to_pylist()
        ]

    def recipients(self) -> int:
        return sum(row["recipients"] for row in self.stored())


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path)


def test_rows_read_again_are_not_written_again(source: Source) -> None:
    source.row("s1", NOON, PHONE)
    source.row(None, NOON)
    source.row(None, NOON)
    assert source.load().partitions[DAY].new_rows == 3
    again = source.load()
    assert (again.partitions[DAY].new_rows, again.partitions[DAY].is_changed) == (0, False)
    assert source.recipients() == 3


def test_a_row_that_gets_its_session_number_later_is_one_row(source: Source) -> None:
    """Many tables hold a row before the service has accepted it."""
    first = source.row(None, NOON, PHONE)
    source.row(None, NOON, OTHER)
    source.load()
    first["session_no"] = "s1"
    source.load()
    assert {row["session_no"] for row in source.stored()} == {None, "s1"}
    source.load()
    assert source.recipients() == 2


def test_a_new_session_does_not_take_the_place_of_a_row_without_one(source: Source) -> None:
    source.row(None, NOON)
    source.load()
    source.row("s1", NOON)
    source.load()
    assert source.recipients() == 2


def test_rows_of_one_moment_that_changed_into_each_other_are_one_too_many_and_it_is_told(
    source: Source,
) -> None:
    """A limit: one is now as another was, so the other is taken for a new one; none is lost."""
    bare, numbered, filled_in = (source.row(None, NOON, phone) for phone in (None, PHONE, None))
    source.load()
    bare["session_no"] = numbered["session_no"] = "alpha"
    filled_in["phone"] = PHONE
    report = source.load()
    stored = [(row["session_no"], row["phone"]) for row in source.stored()]
    shown = "+86138****00"
    assert sorted(stored, key=str) == sorted(
        [("alpha", None), ("alpha", shown), (None, shown), (None, None)], key=str
    )
    assert report.rows_gone == 1
    assert any("it counts twice now" in one for one in report.warnings)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((PHONE, OTHER), (None, None)),
        ((None, None), (PHONE, OTHER)),
        ((PHONE, OTHER), (None, OTHER)),
    ],
)
def test_a_phone_blanked_or_filled_in_later_makes_no_second_row(
    source: Source, before: tuple[str | None, ...], after: tuple[str | None, ...]
) -> None:
    """Tables are often anonymised after a while; `usms run --all` reads the old rows again."""
    rows = [source.row("s1", NOON, phone) for phone in before]
    source.load()
    for row, phone in zip(rows, after, strict=True):
        row["phone"] = phone
    assert source.load().rows_gone == source.load().rows_gone == 0
    book = PhoneBook(KEY, "CN", "masked")
    expected = sorted(book.recipient_id(phone) for phone in (PHONE, OTHER))
    assert sorted(row["recipient"] for row in source.stored()) == expected


@pytest.mark.parametrize("before", [None, "phone"])
def test_the_phone_column_may_come_and_go(tmp_path: Path, before: str | None) -> None:
    source = Source(tmp_path, phone_column=before)
    row = source.row("s1", NOON, PHONE if before else None)
    source.row("s2", NOON)
    source.load()
    source.given["phone_column"] = None if before else "phone"
    row["phone"] = None if before else PHONE
    source.load()
    source.load()
    assert source.recipients() == 2


def test_a_recipients_column_set_later_counts_for_the_rows_read(source: Source) -> None:
    row = source.row("s1", NOON)
    source.load()
    row["recipients"] = 500
    assert source.load().partitions[DAY].is_changed
    assert source.recipients() == 500


def test_dimensions_may_change_between_runs(source: Source) -> None:
    source.row("s1", NOON, PHONE, template="otp", 用途="验证码")
    source.load()
    source.given["dimensions"] = ("template", "用途")
    source.load()
    [row] = source.stored()
    assert (row["template"], row["用途"]) == ("otp", "验证码")
    source.given["dimensions"] = ("用途",)
    source.load()
    [row] = source.stored()
    assert row["用途"] == "验证码"


NAMES = ("day", "n", "s", "placed", "first_day", "key", "own_date", "is_late", "copy",
         "dimension_1", 'quo"te', "it's", "用途", "select", "a b")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_dimension_may_have_any_name(tmp_path: Path, name: str) -> None:
    source = Source(tmp_path, dimensions=(name,))
    source.row("s1", NOON, PHONE, **{name: "x"})
    source.row("s2", NOON, PHONE, **{name: None})
    source.load()
    source.load()
    assert [row[name] for row in source.stored()] == ["x", None]


# -- over midnight --------------------------------------------------------------------------------

MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize("windows", [[(DAY, NEXT)], [(DAY, DAY), (NEXT, NEXT)], [(NEXT, NEXT)] * 2])
def test_a_send_at_midnight_is_in_one_partition_however_it_is_read(
    source: Source, windows: list[tuple[date, date]]
) -> None:
    source.row("s1", MIDNIGHT - MINUTE, PHONE)
    source.row("s1", MIDNIGHT + MINUTE, OTHER)
    for window in [*windows, *windows]:
        report = source.load(*window)
        assert report.torn_sessions == []
    everything = source.load()
    assert everything.torn_sessions == []
    assert source.recipients() == 2
    assert len({row["recipient"] for row in source.stored()}) == 2


@pytest.mark.parametrize(
    ("before", "after", "windows"),
    [
        (2, 2, [(DAY, NEXT), (NEXT, NEXT)]),  # the first row is not read any more
        (1 / 60, 3, [(DAY, DAY), (NEXT, NEXT), (NEXT, NEXT), (DAY, NEXT)]),
    ],
)
def test_a_long_send_over_midnight_counts_once_when_the_window_moves_on(
    source: Source, before: float, after: float, windows: list[tuple[date, date]]
) -> None:
    source.row("s1", MIDNIGHT - timedelta(hours=before), PHONE)
    source.row("s1", MIDNIGHT + timedelta(hours=after), OTHER)
    for number, window in enumerate(windows):
        source.load(*window)
        assert source.recipients() == (1 if window == (DAY, DAY) else 2), number


def test_a_row_before_midnight_that_comes_late_joins_its_session(source: Source) -> None:
    source.row("s1", MIDNIGHT + MINUTE, PHONE)
    source.load(NEXT, NEXT)
    source.row("s1", MIDNIGHT - MINUTE, OTHER)
    source.load(DAY, NEXT)
    source.load(DAY, DAY)
    assert source.recipients() == 2
    assert len(source.stored(NEXT)) == 2


@pytest.mark.parametrize(
    ("day", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25), (date(2026, 7, 1), 24)]
)
def test_days_are_the_zones_own_where_clocks_change(tmp_path: Path, day: date, hours: int) -> None:
    source = Source(tmp_path, timezone="Europe/Berlin")
    start = dataset.day_start(day, source.settings.zone)
    for number in range(-1, hours + 1):
        source.row(f"s{number}", start + timedelta(hours=number), PHONE)
    source.load(day, day)
    assert len(source.stored(day)) == hours
    assert source.load(day, day).partitions[day].is_changed is False


# -- what must stop a run -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value"), [("timezone", "Asia/Shanghai"), ("default_region", "HK")]
)
def test_a_setting_that_would_double_rows_is_refused(
    source: Source, setting: str, value: str
) -> None:
    source.row("s1", NOON, "13800138000")
    source.load()
    source.given[setting] = value
    with pytest.raises(SettingsError, match=f"USMS_{setting.upper()}.*count twice"):
        source.load()


def test_an_empty_source_and_an_empty_window_give_nothing(source: Source) -> None:
    assert source.load().partitions == {}
    assert source.load(NEXT, DAY).partitions == {}


def test_a_phone_forgotten_while_the_source_was_read_does_not_come_back(source: Source) -> None:
    source.row("s1", NOON, PHONE)
    source.row("s2", NOON, OTHER)
    recipient = PhoneBook(KEY, "CN", "masked").recipient_id(PHONE)
    given, book = source.settings, PhoneBook(KEY, "CN", "masked")

    def batches() -> Any:
        layout = pa.schema(
            [
                ("session_no", schema.TEXT),
                ("phone", schema.TEXT),
                ("sent_at", schema.TIME),
                ("recipients", pa.int32()),
            ]
        )
        yield pa.RecordBatch.from_pylist(source.rows, layout)
        forget.bury(source.store, forget.Forgotten(frozenset({recipient})))

    sessions.load(source.store, given, Window(DAY, NEXT), batches(), book)
    assert [row["session_no"] for row in source.stored()] == ["s2"]


def test_of_rows_alike_the_one_that_is_archived_is_not_overwritten_by_the_other(
    source: Source,
) -> None:
    """Alike in session, phone and time; each keeps its place whatever becomes of the others."""
    source.given["dimensions"] = "template"
    first = source.row("s1", NOON, template="a")
    source.row("s1", NOON, template="b", recipients=3)
    source.load()
    source.rows.remove(first)
    source.row("s1", NOON, template="c", recipients=2)
    source.row("s1", NOON, template="c", recipients=2)
    source.load()
    before = source.stored()
    assert source.recipients() == 1 + 3 + 2 + 2 - 1, "of the new rows one takes the place of `a`"
    source.rows.append(source.rows.pop(0))
    source.load()
    assert source.stored() == before


def test_a_session_says_in_which_version_of_the_file_it_changed(source: Source) -> None:
    source.given["dimensions"] = "template"
    source.row("s1", NOON, PHONE, template="a")
    source.row("s2", NOON, PHONE, template="a")
    changing = source.row("s3", NOON, PHONE, template="a")
    source.load()
    changing["template"] = "b"
    source.row("s2", NOON, OTHER, template="a")
    source.load()
    assert {row["session_no"]: row["changed_in"] for row in source.stored(DAY)} == {
        "s1": 1,
        "s2": 2,
        "s3": 2,
    }


@pytest.mark.parametrize(
    ("setting", "other"), [("timezone", "Asia/Shanghai"), ("default_region", "US")]
)
def test_other_settings_are_refused_before_a_day_without_a_file_is_written(
    source: Source, setting: str, other: str
) -> None:
    """What is read now may all lie in days that are not stored yet."""
    source.row("s1", NOON, PHONE)
    source.load()
    usual = getattr(source.settings, setting)
    source.rows.clear()
    source.row("s0", NOON - timedelta(days=1), PHONE)
    source.given[setting] = other
    with pytest.raises(SettingsError, match="when this data directory was begun"):
        source.load(date(2026, 2, 28), date(2026, 2, 28))
    source.given[setting] = usual
    source.load(date(2026, 2, 28), date(2026, 2, 28))
    assert {row["session_no"] for row in source.stored()} == {"s0", "s1"}


def test_another_key_is_refused_before_a_day_without_a_file_is_written(source: Source) -> None:
    source.row("s1", NOON, PHONE)
    source.load()
    source.row("s0", NOON - timedelta(days=1), PHONE)
    with pytest.raises(KeyMismatch):
        source.load(date(2026, 2, 28), key=b"another key, quite another")
    assert dataset.days(source.store, dataset.SESSIONS) == [DAY]
    source.load(date(2026, 2, 28))


def test_an_emptied_data_directory_may_be_begun_anew_with_other_settings(source: Source) -> None:
    source.row("s1", NOON, PHONE)
    source.load()
    for name in source.store.names(dataset.SESSIONS):
        source.store.delete(name)
    source.given["timezone"] = "Asia/Shanghai"
    source.load()
    with pytest.raises(KeyMismatch):
        source.load(key=b"another key, quite another")


def test_numbers_are_shown_whole_again_when_the_setting_says_so_again(source: Source) -> None:
    source.row("s1", NOON, PHONE)
    for phones, shown in (("clear", PHONE), ("masked", "+86138****00"), ("clear", PHONE)):
        source.given["phones"] = phones
        source.load()
        assert [row["phone"] for row in source.stored()] == [shown]


def test_a_damaged_neighbour_of_a_session_at_midnight_is_named(tmp_path: Path) -> None:
    store, day = Store(str(tmp_path)), date(2026, 3, 1)
    name = dataset.file_name(dataset.SESSIONS, day)
    with store.replacing(name) as path:
        path.write_bytes(b"PAR1" + bytes(96))
    with scratch.database() as con, pytest.raises(StorageError, match=name):
        sessions._register_sessions(con, store, day, "placed_before")


def test_a_day_of_which_the_same_was_read_is_left_alone_and_counted_all_the_same(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.row("s1", NOON, PHONE)
    source.row("s2", MIDNIGHT + timedelta(hours=3), PHONE)
    gone = source.row("s3", NOON, OTHER)
    source.load()
    source.rows.remove(gone)
    first = source.load()
    assert (first.rows_gone, first.partitions[DAY].gone_rows) == (1, 1)
    merged: list[date] = []
    merge = sessions._merge

    def watched(con: Any, store: Any, given: Any, window: Any, day: date, key: str) -> Any:
        merged.append(day)
        return merge(con, store, given, window, day, key)

    monkeypatch.setattr(sessions, "_merge", watched)
    again = source.load()
    assert merged == []
    assert (again.rows_read, again.rows_gone, again.partitions) == (
        first.rows_read,
        first.rows_gone,
        first.partitions,
    )
    source.row("s4", MIDNIGHT + timedelta(hours=5), PHONE)
    assert source.load().partitions[NEXT].new_rows == 1
    assert merged == [DAY, NEXT], "what began late on the first day might belong there"
    merged.clear()
    source.given["phones"] = "clear"
    source.load()
    assert merged == [DAY, NEXT]
    name = dataset.file_name(dataset.SESSIONS, NEXT)
    source.store.delete(name)
    merged.clear()
    source.load()
    assert merged == [NEXT]


def test_rows_that_are_too_many_to_be_held_are_taken_in_all_the_same(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_HELD_BYTES", 0)
    source.row("s1", NOON, PHONE)
    for _ in range(2):
        report = source.load()
        assert report.partitions[DAY].rows == 1
    assert source.recipients() == 1
