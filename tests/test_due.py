"""Which sessions are due, in which days, in what order, and with whose dataset."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import test_days
from tests.scripted import DAY, NOON, PHONE, Scripted
from tests.test_days import POLLS, SECOND, folded, said, sent
from usms_pipeline.contract import polling
from usms_pipeline.contract.schema import TEXT, TIME
from usms_pipeline.days import file
from usms_pipeline.store.dataset import Window
from usms_pipeline.store.storage import Store


@pytest.fixture
def account(tmp_path: Path) -> Scripted:
    return Scripted(tmp_path, batch_size=2)


def test_the_longest_overdue_is_asked_first_in_batches_of_distinct_sessions(account):
    account.given["max_concurrency"] = 1
    for name, days in (("s1", 0), ("s2", 2), ("s3", 1), ("s3", 1), (None, 9)):
        account.row(name, NOON - timedelta(days=days))
    account.refresh()
    assert account.asked == [["s2", "s3"], ["s1"]]


def test_windows_in_the_past_ask_about_their_own_days_alone(account):
    days = [DAY - timedelta(days=n) for n in (2, 1, 0)]
    for n, day in enumerate(days):
        account.row(f"s{n}", NOON - (DAY - day), PHONE)
    account.refresh(Window(days[0], days[0]), days=4)
    assert (account.asked, file.days(account.pipeline.store)) == ([["s0"]], days[:1])
    long_ago = date(2026, 2, 20)
    assert account.refresh(Window(long_ago, long_ago)).stats.requests == 0
    account.refresh(Window(days[2], account.window.last))
    assert account.asked == [["s0"], ["s2"]], "of the day before, nobody has heard yet"


def test_days_asked_about_before_and_new_ones_are_found_together(account):
    """Those that are open before the window too, where it reaches today."""
    account.row("s1", NOON - timedelta(days=1), PHONE)
    account.refresh(Window(DAY - timedelta(days=1), DAY - timedelta(days=1)))
    account.row("s2", NOON, PHONE)
    report = account.refresh(Window(DAY, DAY + timedelta(days=1)), hours=25)
    assert report.due == {DAY - timedelta(days=1): 1, DAY: 1}


@given(
    st.lists(
        st.tuples(
            st.integers(0, 90), st.none() | st.integers(0, 5_000) | st.integers(4_320, 5_000)
        ),
        min_size=1,
        max_size=8,
    )
)
def test_what_a_footer_says_is_due_next_is_when_something_is(tmp_path_factory, drawn):
    """Nothing is due before that moment, and something is at it."""
    store, at = Store(str(tmp_path_factory.mktemp("due"))), int(NOON.timestamp()) * SECOND
    names = [f"s{n}" for n in range(len(drawn))]
    folded(store, sent(names, at), said([], 0))
    for name, (_, asked) in zip(names, drawn, strict=True):
        if asked is not None:
            found = folded(store, None, said([name], at + asked * 60 * SECOND))
    footer = file.footer(store, test_days.DAY)
    assert footer is not None
    if footer.next_due_at is None:
        assert file.due(store, test_days.DAY, 2**61, POLLS, footer).num_rows == 0
        return
    for now, is_due in ((footer.next_due_at - 1, False), (footer.next_due_at, True)):
        found = file.due(store, test_days.DAY, now, POLLS, footer)
        assert bool(found.num_rows) == is_due


SENT = datetime(2024, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WAITING = pa.schema([("session_no", TEXT), ("sent_at", TIME), ("last_asked_at", TIME)])
SCHEDULE = polling.offsets(timedelta(hours=72))

ages = st.integers(0, 200 * 3600).map(lambda seconds: timedelta(seconds=seconds))
asked = st.none() | ages
schedules = st.builds(
    polling.offsets,
    st.integers(1, 100 * 60).map(lambda minutes: minutes * MINUTE),
    st.lists(st.integers(1, 6000).map(lambda minutes: minutes * MINUTE), max_size=8),
    st.integers(10, 3000).map(lambda minutes: minutes * MINUTE),
)


def next_poll_at(sent_at, last_asked_at, schedule):
    row = {"session_no": "s", "sent_at": sent_at, "last_asked_at": last_asked_at}
    waiting = pa.Table.from_pylist([row], WAITING)
    polls = [offset // timedelta.resolution for offset in schedule]
    [found] = file.next_polls(waiting, polls, {})
    return EPOCH + int(found) * timedelta.resolution


def is_due(now, sent_at, last_asked_at, schedule):
    return next_poll_at(sent_at, last_asked_at, schedule) <= now


def test_the_schedule_is_early_then_every_six_hours_then_the_cutoff():
    minutes = [offset // MINUTE for offset in SCHEDULE]
    assert minutes[:9] == [5, 10, 20, 40, 60, 120, 240, 600, 960]
    assert minutes[-1] == 72 * 60
    assert {b - a for a, b in pairwise(minutes[6:-1])} == {360}


@given(schedules)
def test_polling_times_ascend_and_end_at_the_cutoff(schedule):
    assert schedule == sorted(set(schedule))
    assert schedule[0] > timedelta()


@given(ages, asked, schedules)
def test_due_is_a_polling_time_after_the_last_question_and_not_after_now(age, last, schedule):
    after = timedelta(-1) if last is None else last
    is_another_day = after >= schedule[-1] and age >= after + timedelta(days=1)
    expected = is_another_day or any(after < offset <= age for offset in schedule)
    assert is_due(SENT + age, SENT, None if last is None else SENT + last, schedule) == expected


@given(schedules, st.lists(ages, max_size=200))
def test_a_session_is_asked_at_most_once_a_polling_time(schedule, wakes):
    last, questions = None, 0
    for wake in sorted(wakes):
        if is_due(SENT + wake, SENT, last, schedule):
            last, questions = SENT + wake, questions + 1
        if wake >= schedule[-1]:
            break
    assert questions <= len(schedule)


def test_a_polling_interval_of_zero_counts_as_one_minute():
    schedule = polling.offsets(timedelta(hours=1), [MINUTE], timedelta())
    assert schedule == [minutes * MINUTE for minutes in range(1, 61)]
