"""When a session is due: the polling times, and which of them comes next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from usms_pipeline.contract import polling
from usms_pipeline.contract.schema import TEXT, TIME
from usms_pipeline.days import file

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
    [found] = file.next_polls(waiting, polls, file.Tries())
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


def test_a_session_is_not_due_before_its_first_polling_time_and_is_due_at_it():
    assert not is_due(SENT + 5 * MINUTE - timedelta.resolution, SENT, None, SCHEDULE)
    assert is_due(SENT + 5 * MINUTE, SENT, None, SCHEDULE)


def test_what_a_look_at_or_past_the_cutoff_did_not_close_is_due_every_day():
    for last in (SENT + timedelta(hours=72), SENT + timedelta(days=900)):
        assert next_poll_at(SENT, last, SCHEDULE) == last + timedelta(days=1)


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


def test_a_late_step_of_nothing_does_not_loop_for_ever():
    schedule = polling.offsets(timedelta(hours=1), [MINUTE], timedelta())
    assert schedule == [minutes * MINUTE for minutes in range(1, 61)]
