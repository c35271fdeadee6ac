"""Publishing the rows of changed sessions alone: the table is always what the files say."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests import cohorts
from tests.account import Account
from tests.cohorts import DAY, NOON, receipt
from tests.examples import examples
from usms_pipeline.days import file
from usms_pipeline.settings import Settings
from usms_pipeline.store.storage import Store
from usms_pipeline.warehouse import Change, Publishing, connect, reconcile

Row = dict[str, Any]
DIMENSIONS = ("template",)


def check(settings: Settings) -> None:
    """The published rows are those of the files, and the bookkeeping says which and how many."""
    store = Store(settings.data_dir)
    days = file.days(store)
    with connect(settings.warehouse_path) as con:
        names = ", ".join(f'"{row[0]}"' for row in con.execute("DESCRIBE receipts").fetchall())
        con.execute(
            f"CREATE TEMP TABLE files AS SELECT {names} FROM read_parquet("
            f"'{settings.data_dir}/receipts/*/receipts.parquet', hive_partitioning = true, "
            "hive_types = {'sent_date': DATE}, union_by_name = true)"
        )
        for left, right in (("receipts", "files"), ("files", "receipts")):
            more = f"SELECT {names} FROM {left} EXCEPT ALL SELECT {names} FROM {right}"
            assert con.execute(more).fetchall() == [], f"{left} has more than {right}"
        counts = dict(con.execute("SELECT sent_date, count(*) FROM files GROUP BY ALL").fetchall())
        said = con.execute("SELECT sent_date, version, row_count FROM usms_partitions ORDER BY 1")
        assert said.fetchall() == [
            (day, file.footer(store, day).version, counts.get(day, 0)) for day in days
        ]


class Days:
    """Some days of receipts in a data directory, changed by hand as a fold changes them."""

    def __init__(self, folder: Path) -> None:
        self.settings = cohorts.settings(folder, dimensions=DIMENSIONS)
        self.store = Store(str(folder))
        self.rows: dict[date, list[Row]] = {}
        self.versions: dict[date, str] = {}

    def write(self, day: date, rows: list[Row], sessions: Iterable[str | None] = ()) -> Change:
        """Write a day again, as changed in some sessions."""
        before, touched = self.versions.get(day, ""), set(sessions)
        in_order = sorted(rows, key=lambda r: (r["sent_at"], r["session_no"] or "~"))
        self.rows[day] = rows
        self.versions[day] = cohorts.write(self.store, in_order, day, DIMENSIONS).version
        now = cohorts.stored((r for r in rows if r["session_no"] in touched), DIMENSIONS)
        return Change(day, before, self.versions[day], pa.array(touched, pa.string()), now)

    def replace(self, day: date, sessions: set[str | None], rows: Iterable[Row] = ()) -> Change:
        """Put rows in the place of those of some sessions."""
        kept = [row for row in self.rows[day] if row["session_no"] not in sessions]
        return self.write(day, [*kept, *rows], sessions)

    def publish(self, *changes: Change) -> None:
        reconcile(self.store, self.settings, changes=changes)
        check(self.settings)

    def places(self, day: date = DAY) -> list[str | None]:
        return cohorts.places(self.settings.warehouse_path, day)


def rows(*sessions: str | None, **given: Any) -> list[Row]:
    """One recipient a name, sent in this order."""
    return [
        receipt(session_no=name, sent_at=NOON + timedelta(minutes=n), **given)
        for n, name in enumerate(sessions)
    ]


@pytest.fixture
def days(tmp_path: Path) -> Days:
    """Two sessions, one of two recipients, and two rows without a session."""
    days = Days(tmp_path)
    days.write(DAY, rows("a", "b", "b", None, None))
    days.publish()
    return days


# -- one fact each --------------------------------------------------------------------------------


def test_the_other_sessions_stay_where_they_are(days):
    days.publish(days.replace(DAY, {"a"}, rows("a", template="otp")))
    assert days.places() == ["b", "b", None, None, "a"]


def test_changes_of_several_folds_lead_from_one_to_the_next(days):
    first = days.replace(DAY, {"a"}, rows("a"))
    second = days.replace(DAY, {"a", "new"}, rows("a", "new"))
    days.publish(first, second)
    assert days.places() == ["b", "b", None, None, "a", "new"]


@examples(1, "lost", [0, 1, 2])
def test_a_day_with_a_missing_change_is_loaded_completely(days, lost):
    changes = [days.replace(DAY, {name}, rows(name)) for name in ("a", "b", "c")]
    del changes[lost]
    days.publish(*changes)
    assert days.places() == sorted(days.places(), key=lambda name: name or "~")


def test_the_rows_of_a_change_are_loaded_and_no_file_is_read(days, monkeypatch):
    first = days.replace(DAY, {"a", None}, rows("a", "a", None))
    second = days.replace(DAY, {"a", "b"}, rows("a"))
    monkeypatch.setattr(Store, "batches", None)
    reconcile(days.store, days.settings, changes=[first, second])
    assert days.places() == [None, "a"], "of a session in both, the later rows"


def test_the_first_change_of_a_day_brings_all_of_it(days, monkeypatch):
    new = days.write(DAY + timedelta(days=1), rows("a", None), ["a", None])
    monkeypatch.setattr(Store, "batches", None)
    reconcile(days.store, days.settings, changes=[new])
    assert days.places(new.day) == ["a", None]


def test_changed_sessions_of_every_day_need_no_building_from_scratch(tmp_path):
    days = Days(tmp_path)
    three = [DAY + timedelta(days=n) for n in range(3)]
    for day in three:
        days.write(day, rows("a", "b"))
    days.publish()
    days.publish(*[days.replace(day, {"a"}, rows("a")) for day in three])
    assert [days.places(day) for day in three] == [["b", "a"]] * 3


# -- any sequence ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 2, 3))])
def test_after_random_folds_and_lost_changes_the_table_equals_the_files(tmp_path, seed):
    chance, days = random.Random(seed), Days(tmp_path)
    names = [DAY + timedelta(days=n) for n in range(4)]
    for day in names:
        days.write(day, some_rows(chance))
    kept: list[Change] = []
    for _ in range(9):
        publishing = Publishing(days.store, days.settings)
        for _ in range(chance.randrange(4)):
            day = chance.choice(names)
            sessions = set(chance.sample(SESSIONS, chance.randrange(1, 4)))
            new = [row for row in some_rows(chance) if row["session_no"] in sessions]
            change = days.replace(day, sessions, new)
            if chance.random() < 0.8:
                kept.append(change)  # else the report of this fold is lost
            if chance.random() < 0.5:
                publishing.load(day, change if chance.random() < 0.7 else None)
        if chance.random() < 0.2:
            days.write(chance.choice(names), some_rows(chance))  # a rebuild: it tells no sessions
        if chance.random() < 0.2:
            publishing.close()
        chosen = kept if chance.random() < 0.8 else chance.sample(kept, len(kept) // 2)
        publishing.finish(chosen)
        check(days.settings)
        if chance.random() < 0.8:
            kept.clear()  # else another process has them, and publishes later


SESSIONS: list[Any] = [*"abcdefgh", None]


def some_rows(chance: random.Random) -> list[Row]:
    return rows(
        *chance.choices(SESSIONS, k=12),
        template=chance.choice([None, "otp", "order"]),
        submit_status=chance.choice(["success", "accepted"]),
    )


# -- with real folds ------------------------------------------------------------------------------


@pytest.mark.long
def test_a_run_writes_the_changed_sessions_alone(tmp_path, simulator):
    account = Account(tmp_path, simulator, 120, poll_every_hours=1)
    account.run()
    account.clock.turn(minutes=61)
    path = account.settings.warehouse_path
    before, asked = cohorts.places(path), account.service.counters.ids_asked.copy()
    account.run()
    changed = set(account.service.counters.ids_asked - asked)
    assert 0 < len(changed) < 120
    stayed = [session for session in before if session not in changed]
    assert cohorts.places(path)[: len(stayed)] == stayed
    assert len(stayed) < len(before)
