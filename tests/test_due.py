"""Which sessions are due, in which partitions, and with whose dataset."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from usms_pipeline.due import NextDue

from tests.account import START, Account
from tests.test_fold import BOOK, DAY, NOON, Place, answer
from usms_pipeline import due, fold, schema, scratch
from usms_pipeline.dataset import Window
from usms_pipeline.errors import KeyMismatch
from usms_pipeline.phones import PhoneBook
from usms_pipeline.settings import Settings
from usms_pipeline.simulator import Faults

OTHER_BOOK = PhoneBook(b"fedcba9876543210", "CN", "masked")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, poll_minutes="60", poll_every_hours=24)


def found(place: Place, hours: float, book: PhoneBook = BOOK) -> list[tuple[str, ...]]:
    with ExitStack() as stack:
        now = NOON + timedelta(hours=hours)
        here = due.find(place.store, place.settings, [DAY], now, stack, book.fingerprint)
        return [batch.ids for batch in here.batches(2)]


def test_the_longest_overdue_is_asked_first_in_batches_of_distinct_sessions(place: Place) -> None:
    place.announce(
        [
            {"session_no": name, "sent_at": NOON - timedelta(hours=late), "recipients": 2}
            for name, late in (("s1", 0), ("s2", 2), ("s3", 1), (None, 9))
        ]
    )
    place.fold()
    assert found(place, 5) == [("s2", "s3"), ("s1",)]


def test_asked_is_not_due_until_the_next_polling_time(place: Place) -> None:
    place.announce([{"session_no": "s1", "sent_at": NOON}])
    place.land([answer(NOON + timedelta(hours=1), [], ["s1"])])
    place.fold()
    second = place.settings.poll_offsets[1] / timedelta(hours=1)
    assert found(place, second - 0.1) == []
    assert found(place, second) == [("s1",)]


def unreadable(hours: float, body: bytes = b"<html>") -> dict[str, Any]:
    odd = {"verdict": "unreadable", "reason": "not JSON", "body": body, "ret_code": None}
    return answer(NOON + timedelta(hours=hours), [], ["s1"]) | odd


def test_an_answer_that_can_not_be_read_is_asked_for_again_at_the_next_polling_time(
    place: Place,
) -> None:
    """Not at every run: each costs five attempts. It is no answer, so the message stays pending."""
    place.announce([{"session_no": name, "sent_at": NOON} for name in ("s1", "s2")])
    second = place.settings.poll_offsets[1] / timedelta(hours=1)
    for hours in (1, 2):  # the same page twice is one entry in quarantine
        place.land([unreadable(hours)])
        place.fold()
    assert found(place, second - 0.1) == [("s2",)]
    assert found(place, second) == [("s2", "s1")]
    [row, _] = place.receipts()
    assert (row["status"], row["is_closed"], row["last_asked_at"]) == ("pending", False, None)


def test_an_answer_that_could_not_be_read_past_the_cutoff_is_asked_for_every_day(
    place: Place,
) -> None:
    """Nobody knows, so the message stays open; nothing closes but an answer."""
    place.announce([{"session_no": "s1", "sent_at": NOON}])
    place.land([unreadable(72.1)])
    place.fold()
    assert found(place, 96) == []
    assert found(place, 96.2) == [("s1",)]
    place.land([unreadable(96.2)])
    place.fold()
    assert found(place, 120.1) == []
    assert found(place, 1_000) == [("s1",)]
    [row] = place.receipts()
    assert (row["status"], row["is_closed"]) == ("pending", False)
    place.land([answer(NOON + timedelta(hours=1_000), [], ["s1"])])
    place.fold()
    assert [row["status"] for row in place.receipts()] == ["unknown"]
    assert found(place, 2_000) == []


def test_another_key_is_refused_before_anything_is_asked(place: Place) -> None:
    place.announce([{"session_no": "s1", "sent_at": NOON}])
    place.fold()
    with pytest.raises(KeyMismatch):
        found(place, 5, OTHER_BOOK)
    with pytest.raises(KeyMismatch):
        fold.fold(place.store, place.settings, OTHER_BOOK, [DAY])


def test_a_late_row_of_an_old_settled_day_is_worked_on_though_its_run_was_killed(
    tmp_path: Path, simulator: Any
) -> None:
    """`usms run --from … --to …` was killed after the sessions were written."""
    account = Account(tmp_path, simulator, 60)
    account.run_to_the_end()
    account.clock.turn(days=30)
    rows = account.service.truth(account.clock.now)
    source = pa.parquet.read_table(account.source)
    late = source.slice(0, 1).set_column(0, "session_no", pa.array(["late"]))
    account.announce(pa.concat_tables([source, late]))
    day = START.date()
    account.pipeline.load_sessions(Window(day - timedelta(days=3), day))
    account.pipeline.run()
    assert account.sql("SELECT count(*) FROM receipts WHERE is_announced") == [(rows.num_rows + 1,)]
    assert account.pipeline.conservation(account.window.days()) == []


def test_windows_in_the_past_ask_about_their_own_days_alone(tmp_path: Path, simulator: Any) -> None:
    account = Account(tmp_path, simulator, 60)
    days = sorted(
        {value.date() for value in pa.parquet.read_table(account.source)["sent_at"].to_pylist()}
    )
    account.clock.turn(days=4)
    account.pipeline.run(Window(days[0], days[0]))
    assert account.sql("SELECT DISTINCT sent_date FROM receipts") == [(days[0],)]
    report = account.pipeline.run(Window(days[0] - timedelta(days=9), days[0] - timedelta(days=9)))
    assert report.responses.stats.requests == 0


def test_a_cutoff_changed_between_runs_closes_and_opens_again(place: Place) -> None:
    place.announce([{"session_no": "s1", "sent_at": NOON}])
    place.land([answer(NOON + timedelta(hours=50), [], ["s1"])])
    place.fold()
    [row] = place.receipts()
    assert (row["status"], row["is_closed"]) == ("pending", False)
    place.settings = place.settings.model_copy(update={"cutoff_hours": 48.0})
    place.fold()
    [row] = place.receipts()
    assert (row["status"], row["is_closed"]) == ("unknown", True)
    place.settings = place.settings.model_copy(update={"cutoff_hours": 72.0})
    place.fold()
    [row] = place.receipts()
    assert (row["status"], row["is_closed"]) == ("pending", False)


def test_days_asked_about_before_and_new_ones_are_found_together(
    tmp_path: Path, simulator: Any
) -> None:
    account = Account(tmp_path, simulator, options={"faults": Faults.parse("missing=1")})
    first = account.service.truth(START)["sent_at"][0].as_py().date()
    account.pipeline.run(Window(first, first))
    assert account.sql("SELECT DISTINCT sent_date FROM receipts") == [(first,)]
    account.clock.turn(hours=25)
    report = account.run()
    assert first in report.responses.due_sessions
    assert len(report.responses.due_sessions) > 1


@pytest.mark.long
@given(
    st.lists(
        st.tuples(
            st.integers(0, 90),
            st.none() | st.integers(0, 5_000) | st.integers(4_320, 5_000),
        ),
        max_size=12,
    )
)
def test_what_a_commit_says_is_due_next_is_when_something_is(
    drawn: list[tuple[int, int | None]],
) -> None:
    """Nothing is due before that moment, and something is at it; by the rule in SQL."""
    offsets = Settings(_env_file=None, poll_minutes="5,60", poll_every_hours=24).poll_offsets
    rows = [
        {
            "session_no": f"s{n}",
            "sent_at": NOON + timedelta(minutes=sent),
            "last_asked_at": None if asked is None else NOON + timedelta(minutes=sent + asked),
        }
        for n, (sent, asked) in enumerate(drawn)
    ]
    waiting = pa.Table.from_pylist(rows, schema.WAITING)
    next_due = NextDue(offsets)
    for batch in waiting.to_batches(5):
        next_due.add(batch)
    at = next_due.at
    if at is not None:
        assert count_due(waiting, offsets, at) > 0
        assert count_due(waiting, offsets, at - timedelta(microseconds=1)) == 0
    else:
        assert count_due(waiting, offsets, NOON + timedelta(days=365)) == 0


def count_due(waiting: pa.Table, offsets: Any, now: datetime) -> int:
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.register("waiting", waiting)
        con.register("tried", due._TRIED.empty_table())
        micros = [offset // timedelta(microseconds=1) for offset in offsets]
        query = f"SELECT count(*) FROM ({scratch.sql('due')})"
        given = {"offsets": micros, "now": now, "in_vain_every": due._IN_VAIN_EVERY}
        return int(con.execute(query, given).fetchall()[0][0])
