"""Runs over the days' files, with all that the source, the service and the disk may do to them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.account import START, Account
from tests.examples import examples
from tests.scripted import DAY, NOON, OTHER, PHONE, THIRD, Scripted, receipt
from usms_pipeline import warehouse
from usms_pipeline.contract.errors import DamagedDay, StorageError
from usms_pipeline.contract.schema import dimension_name
from usms_pipeline.days import file, log, quarantine, run
from usms_pipeline.service import api
from usms_pipeline.service.collect import Patience
from usms_pipeline.simulator import Population
from usms_pipeline.store.dataset import Window, day_start

NEXT, BEFORE = DAY + timedelta(days=1), DAY - timedelta(days=1)
MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def account(tmp_path: Path) -> Scripted:
    return Scripted(tmp_path)


# -- a table that changes -------------------------------------------------------------------------

Phones = tuple[str | None, ...]


def test_a_row_that_gets_its_session_number_later_is_one_row(account):
    """Many tables hold a row before the service has accepted it."""
    first = account.row(None, NOON, PHONE)
    account.row(None, NOON, OTHER)
    account.refresh()
    first["session_no"] = "s1"
    account.refresh()
    assert account.shown("session_no", "status") == [("s1", "pending"), (None, "invalid")]
    account.settled()


def test_a_new_session_does_not_take_the_place_of_a_row_without_one(account):
    account.row(None)
    account.refresh()
    account.row("s1")
    account.refresh()
    assert len(account.settled()) == 2


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((PHONE, OTHER), (None, None)),
        ((None, None), (PHONE, OTHER)),
        ((PHONE, OTHER), (None, OTHER)),
    ],
)
@pytest.mark.parametrize("is_heard", [False, True])
def test_a_phone_blanked_or_filled_in_later_makes_no_second_row(account, before, after, is_heard):
    """Tables are often anonymised after a while; `usms run --all` reads the old rows again."""
    if is_heard:
        account.says["s1"] = [receipt("UNDELIV", OTHER), receipt("delivered", PHONE)]
    rows = [account.row("s1", NOON, phone) for phone in before]
    account.refresh()
    for row, phone in zip(rows, after, strict=True):
        row["phone"] = phone
    account.refresh()
    book = account.pipeline.book
    outcome = {PHONE: "delivered", OTHER: "failed"} if is_heard else {}
    expected = [(book.recipient_id(one), outcome.get(one, "pending")) for one in (PHONE, OTHER)]
    assert account.shown("recipient", "status") == sorted(expected)
    account.settled()


@pytest.mark.parametrize("columns", [(None, "phone"), ("phone", None)])
def test_the_phone_column_may_come_and_go(account, columns):
    account.says["s1"] = receipt("delivered", PHONE)
    for name in ("s1", "s2"):
        account.row(name, NOON, PHONE)
    for column in columns:
        account.given["phone_column"] = column
        account.refresh()
    assert account.shown("session_no", "status") == [("s1", "delivered"), ("s2", "pending")]
    account.settled()


def test_a_recipients_column_set_later_counts_for_the_rows_read(account):
    account.row("s1", recipients=3)
    account.refresh()
    account.given["recipients_column"] = "recipients"
    report = account.refresh()
    assert (report.written, report.buckets) == ([DAY], {"pending": 3})
    account.settled()


def test_copies_count_once_and_are_told(account):
    account.says["s1"] = receipt("delivered", PHONE)
    for phone in (PHONE, PHONE, "138-0013-8000"):
        account.row("s1", NOON, phone)
    report = account.refresh()
    assert account.shown("status") == [("delivered",)]
    assert any("each phone counts once" in one for one in report.warnings)
    account.settled()


def test_what_is_gone_from_the_source_is_kept_and_told(account):
    for name in ("s1", "s2", None):
        account.row(name, NOON, PHONE)
    account.refresh()
    del account.table[1:]
    assert any(
        one.startswith("2 rows") and "counts twice" in one for one in account.refresh().warnings
    )
    assert len(account.settled()) == 3
    account.row("s4", NOON - timedelta(days=1))
    account.refresh()
    account.table.clear()
    assert any(one.startswith("4 rows") for one in account.refresh().warnings)
    assert len(account.settled()) == 4


@pytest.mark.parametrize("is_odd", [False, True])
def test_dimensions_may_come_change_and_go(account, is_odd):
    """Also for sessions with a state of their own, and rows that the source has no more."""
    for name in ("s1", "gone"):
        for phone in (PHONE, OTHER)[: 1 + is_odd]:
            account.row(name, NOON, phone, template="otp", 用途="验证码")
    account.refresh()
    account.table = [row for row in account.table if row["session_no"] != "gone"]
    for names, shown in (
        ("template,用途", "template, 用途"),
        ("用途", "用途"),
        ("用途,template", "用途, template"),
    ):
        account.given["dimensions"] = names
        account.refresh()
        expected = tuple({"template": "otp", "用途": "验证码"}[one] for one in names.split(","))
        found = account.sql(f"SELECT DISTINCT {shown} FROM receipts WHERE session_no = 's1'")
        assert found == [expected]
        account.settled()
    account.table[0]["template"] = "code"
    account.refresh()
    assert ("s1", "code") in account.shown("session_no", "template")
    account.settled()


@examples(
    4, "name", ["day", "own", "mask", "ends", "digits", 'quo"te', "it's", "用途", "select", "a b"]
)
def test_a_dimension_may_have_any_name(tmp_path, name):
    account = Scripted(tmp_path, dimensions=f'["{name}"]'.replace('quo"', 'quo\\"'))
    account.row("s1", NOON, PHONE, **{name: "x"})
    account.row("s2", NOON, PHONE, **{name: None})
    account.refresh()
    quoted = dimension_name(name).replace('"', '""')
    assert account.shown("session_no", f'"{quoted}"') == [("s1", "x"), ("s2", None)]
    account.settled()


# -- over midnight --------------------------------------------------------------------------------

BOTH, FIRST, LAST = (BEFORE, DAY), (BEFORE, BEFORE), (DAY, DAY)


@pytest.mark.parametrize("windows", [[BOTH], [FIRST, LAST], [LAST, LAST], [LAST, FIRST, BOTH]])
def test_a_send_at_midnight_is_in_one_day_however_it_is_read(account, windows):
    account.says["s1"] = [receipt("delivered", PHONE), receipt("UNDELIV", OTHER)]
    account.row("s1", MIDNIGHT - MINUTE, PHONE)
    account.row("s1", MIDNIGHT + MINUTE, OTHER)
    for window in [*windows, *windows]:
        account.refresh(Window(*window))
    assert account.shown("sent_date", "status") == [(BEFORE, "delivered"), (BEFORE, "failed")]
    assert account.asked == [["s1"]]
    account.refresh()
    account.settled()


def test_a_row_before_midnight_that_comes_late_joins_its_session(account):
    account.row("s1", MIDNIGHT + MINUTE, PHONE)
    account.refresh(Window(DAY, DAY))
    account.row("s1", MIDNIGHT - MINUTE, OTHER)
    account.row("s2", MIDNIGHT - MINUTE, OTHER)
    for window in (BOTH, FIRST, LAST):
        account.refresh(Window(*window))
    assert account.shown("session_no", "sent_date") == [
        ("s1", DAY), ("s1", DAY), ("s2", BEFORE),
    ]  # fmt: skip
    account.row("s3", MIDNIGHT - MINUTE, OTHER)
    account.refresh()
    assert len(account.settled()) == 4


@pytest.mark.parametrize("is_odd", [False, True])
@pytest.mark.parametrize("is_heard", [False, True])
@pytest.mark.parametrize("to", [NEXT, BEFORE - timedelta(days=3)])
def test_a_session_that_was_rescheduled_moves_with_what_is_known_of_it(
    account, to, is_heard, is_odd
):
    account.clock.turn(days=2)
    if is_heard:
        account.says["s1"] = [receipt("delivered", one) for one in (PHONE, OTHER)[: 1 + is_odd]]
    account.row("s2", NOON, PHONE)
    rows = [account.row("s1", NOON, one) for one in (PHONE, OTHER)[: 1 + is_odd]]
    account.refresh()
    for row in rows:
        row["sent_at"] += to - DAY
    account.refresh(hours=49)
    status = "delivered" if is_heard else "unknown"
    assert account.shown("session_no", "sent_date", "status") == sorted(
        [("s2", DAY, "unknown"), *[("s1", to, status)] * len(rows)]
    )
    assert sum("s1" in ids for ids in account.asked) == 2 - is_heard
    account.settled()


def cannot_write(patch: pytest.MonkeyPatch, day: date, error: BaseException) -> None:
    """Let the writing of a day's file end with an error."""
    write = file.write

    def fails(store: Any, written: date, *rest: Any) -> Any:
        if written == day:
            raise error
        return write(store, written, *rest)

    patch.setattr(file, "write", fails)


@pytest.mark.parametrize("to", [NEXT, BEFORE])
def test_a_move_that_was_killed_between_its_two_writings_is_finished(account, monkeypatch, to):
    """The new place is written first, so that nothing is lost; then the old one lets go."""
    account.clock.turn(days=2)
    account.says["s1"] = receipt("delivered", PHONE)
    account.row("s2", NOON, OTHER)
    row = account.row("s1", NOON, PHONE)
    account.refresh()
    row["sent_at"] += to - DAY
    cannot_write(monkeypatch, DAY, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        account.refresh()
    monkeypatch.undo()
    both = sorted([("s1", to), ("s1", DAY), ("s2", DAY)])
    assert account.shown("session_no", "sent_date") == both
    account.refresh()
    assert account.shown("session_no", "sent_date") == [("s1", to), ("s2", DAY)]
    account.settled()


@pytest.mark.parametrize("to", [NEXT, BEFORE])
def test_a_session_stays_where_it_is_if_its_new_day_cannot_be_written(account, monkeypatch, to):
    account.clock.turn(days=2)
    account.says["s1"] = receipt("delivered", PHONE)
    account.row("s2", NOON + (to - DAY), OTHER)
    row = account.row("s1", NOON, PHONE)
    account.refresh()
    row["sent_at"] += to - DAY
    cannot_write(monkeypatch, to, DamagedDay(to, "it is cut off"))
    assert [*account.refresh().damaged] == [to]
    monkeypatch.undo()
    assert ("s1", DAY, "delivered") in account.shown("session_no", "sent_date", "status")
    account.refresh(hours=73)
    assert account.shown("session_no", "sent_date", "status") == [
        ("s1", to, "delivered"), ("s2", to, "unknown"),
    ]  # fmt: skip
    account.settled()


@pytest.mark.parametrize("to", [NEXT, BEFORE])
def test_a_moved_session_keeps_the_answer_that_a_killed_run_received(account, to):
    account.clock.turn(days=2)
    row = account.row("s1", NOON, PHONE)
    account.refresh()
    account.says["s1"] = receipt("delivered", PHONE)
    account.land(account.told("s1", hours=48.5))
    row["sent_at"] += to - DAY
    account.refresh(minutes=1)
    assert account.shown("sent_date", "status") == [(to, "delivered")]
    assert account.asked == [["s1"]]
    account.settled()


@pytest.mark.parametrize(
    ("day", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25), (date(2026, 7, 1), 24)]
)
def test_days_are_the_zones_own_where_clocks_change(tmp_path, day, hours):
    account = Scripted(tmp_path, timezone="Europe/Berlin")
    account.clock.turn(days=300)
    start = day_start(day, account.settings.zone)
    for number in range(-1, hours + 1):
        account.row(f"s{number}", start + timedelta(hours=number), PHONE)
    account.refresh(Window(day, day))
    assert account.sql("SELECT DISTINCT sent_date, count(*) FROM receipts GROUP BY 1") == [
        (day, hours)
    ]
    assert account.refresh(Window(day, day)).written == []


# -- what is told, and when -----------------------------------------------------------------------


@pytest.mark.parametrize("hours", [(1, 2), (2, 1)])
def test_the_first_outcome_stays_and_a_later_one_is_a_conflict(account, hours):
    """Two runs that overlapped have answers; either may be folded first."""
    account.row("s1", NOON, PHONE)
    account.refresh(Window(BEFORE, BEFORE))
    for hour in hours:
        account.says["s1"] = receipt({1: "delivered", 2: "UNDELIV"}[int(hour)], PHONE)
        account.land(account.told("s1", hours=hour))
        account.refresh(hours=1)
    [(status, conflicts, at)] = account.shown("status", "conflicts", "final_at")
    assert (status, conflicts, at) == ("delivered", ["failed"], START + timedelta(hours=1))
    assert account.asked == []
    account.settled()


def test_a_recipient_without_a_receipt_is_closed_with_its_session(account):
    for _ in range(2):
        account.row("s1", NOON)
    account.says["s1"] = receipt("delivered", PHONE)
    account.refresh()
    assert account.shown("status", "is_closed") == [("delivered", False), ("pending", False)]
    account.refresh(hours=73)
    assert account.shown("status", "is_closed") == [("delivered", False), ("unknown", True)]
    account.says["s1"] = [receipt("delivered", one) for one in (PHONE, OTHER, THIRD)]
    account.land(account.told("s1", hours=74))
    report = account.refresh(hours=2)
    assert (report.buckets, report.unannounced) == ({"delivered": 2}, 1)
    account.settled()


def test_a_session_whose_response_can_not_be_read_is_asked_about_at_its_polling_times(
    account: Scripted,
) -> None:
    """Not at every run: each costs five attempts. Another is asked to see that it is the session's
    fault, and so it closes as others do."""
    account.given |= {"poll_minutes": "60", "poll_every_hours": 30, "batch_size": 1}
    account.patience = Patience(first_pause_seconds=0.0)
    account.row("s1", START, PHONE)
    account.row("s2", START, OTHER)
    account.garbled, account.says = {"s1"}, {"s2": receipt("delivered", OTHER)}

    def asked(**turn: float) -> set[str]:
        before = len(account.asked)
        account.refresh(**turn)
        return {one for ids in account.asked[before:] for one in ids}

    assert asked(hours=1) == {"s1", "s2"}
    assert asked(hours=29.9) == set()
    assert asked(hours=0.1) == {"s1", "s2"}
    assert asked(hours=41.9) == {"s1", "s2"}, "61 h and the cutoff"
    assert account.shown("session_no", "status") == [("s1", "unknown"), ("s2", "delivered")]
    assert asked(hours=48) == set()
    account.settled()
    [entry] = quarantine.entries(account.pipeline.store)
    assert (entry.kind, entry.session_no) == (quarantine.UNANSWERED, "s1"), "one for all times"
    assert account.pipeline.replay() == 1
    assert len(quarantine.entries(account.pipeline.store)) == 1, "it is not answered yet"
    account.garbled, account.says = set(), {"s1": receipt("failed", PHONE)}
    assert account.pipeline.replay() == 1
    assert quarantine.entries(account.pipeline.store) == []
    assert account.shown("session_no", "status") == [("s1", "failed"), ("s2", "delivered")]


def test_a_session_that_gets_no_readable_response_while_no_other_does_is_not_closed(
    account: Scripted,
) -> None:
    """It may be the service: it is asked about every day, until it can be read."""
    account.given |= {"poll_minutes": "60", "poll_every_hours": 30}
    account.patience = Patience(first_pause_seconds=0.0)
    account.row("s1", START, PHONE)
    account.garbled = {"s1"}

    def asked(**turn: float) -> int:
        before = len(account.asked)
        account.refresh(**turn)
        return len(account.asked) - before

    assert asked(hours=75) == 5
    assert account.shown("status", "is_closed") == [("pending", False)]
    assert asked(hours=23.9) == 0
    assert asked(hours=0.1) == 5
    account.garbled = set()
    assert asked(hours=24) == 1
    assert account.shown("status", "is_closed") == [("unknown", True)]
    account.settled()


# -- settings that change -------------------------------------------------------------------------


@pytest.mark.parametrize("is_odd", [False, True])
def test_a_cutoff_changed_between_runs_closes_and_opens_again(account, is_odd):
    account.given["poll_every_hours"] = 100
    for phone in (PHONE, OTHER)[: 1 + is_odd]:
        account.row("s1", START, phone)
    account.refresh(hours=50)
    for hours, status in ((72, "pending"), (48, "unknown"), (72, "pending")):
        account.given["cutoff_hours"] = hours
        account.refresh()
        assert account.shown("status", "is_closed") == [(status, status == "unknown")] * (
            1 + is_odd
        )
    account.settled()


@pytest.mark.parametrize("is_odd", [False, True])
@pytest.mark.parametrize("is_kept", [False, True])
def test_a_word_that_this_version_knows_is_an_outcome_with_the_next_run(
    account, monkeypatch, is_odd, is_kept
):
    phones = (PHONE, OTHER)[: 1 + is_odd]
    for phone in phones:
        account.row("s1", NOON, phone)
    account.says["s1"] = [receipt("ZUGESTELLT", phone) for phone in phones]
    account.refresh()
    assert set(account.shown("status", "is_final")) == {("unrecognized", False)}
    if not is_kept:
        drop_responses(account)
    monkeypatch.setitem(api._BUCKET_OF, "zugestellt", "delivered")
    monkeypatch.setattr(api, "WORDS_DIGEST", "another")
    account.refresh()
    assert set(account.shown("status", "is_final")) == {("delivered", True)}
    assert account.sql("SELECT count(*) FROM receipts WHERE final_at IS NULL") == [(0,)]
    account.settled()


def drop_responses(account: Scripted, *runs: str) -> None:
    """Delete the responses of some runs, or all, as another hand or time may."""
    for name in runs or log.runs(account.pipeline.store):
        log.delete(account.pipeline.store, name)


# -- runs that were killed ------------------------------------------------------------------------


def delivered(account: Scripted, *names: str, sent_at: datetime = NOON) -> None:
    """Send sessions that are delivered by the time somebody asks."""
    for name in names:
        account.row(name, sent_at, PHONE)
        account.says[name] = receipt("delivered", PHONE)


def test_what_a_killed_run_was_told_is_not_asked_again(account):
    """Also of sessions that are in no file yet: it asks before it writes."""
    delivered(account, "s1", "s2")
    run_ = account.land(account.told("s1"))
    account.refresh()
    assert account.asked == [["s2"]]
    assert log.open_runs(account.pipeline.store) == []
    assert run_ in log.runs(account.pipeline.store)
    assert not list((account.folder / "data/.locks").rglob(f"{run_}*"))
    account.settled()


def test_what_a_killed_run_was_told_waits_for_the_day_that_another_holds(account):
    delivered(account, "s1")
    delivered(account, "s2", sent_at=NOON - timedelta(days=1))
    account.land(account.told("s1", "s2"), days=(BEFORE, DAY))
    with account.pipeline.store.lock(f"sent_date={DAY}"):
        assert account.refresh().locked == [DAY]
    assert account.shown("session_no", "status") == [("s2", "delivered")]
    assert len(log.open_runs(account.pipeline.store)) == 1
    account.refresh()
    assert account.asked == []
    account.settled()


def test_what_a_killed_run_was_told_waits_for_the_day_that_is_read_later(account):
    """It went over all days; the run after it reads the last ones alone."""
    delivered(account, "s1", sent_at=NOON - timedelta(days=9))
    delivered(account, "s2")
    account.land(account.told("s1", "s2"), days=(DAY - timedelta(days=9), DAY))
    report = account.refresh(Window(DAY, DAY))
    assert (account.asked, report.quarantined) == ([], 0)
    account.refresh()
    assert (account.asked, log.open_runs(account.pipeline.store)) == ([], [])
    account.settled()


def test_a_run_killed_before_its_first_block_leaves_nothing(account):
    run_ = account.land()
    left = account.folder / f"data/responses/{run_}/.000001.parquet.abc"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(PHONE.encode())
    account.refresh()
    assert not left.parent.exists()
    assert log.open_runs(account.pipeline.store) == []


@pytest.mark.parametrize("name", ["pace.json", "prefixes.json"])
def test_what_a_run_killed_at_its_very_end_left_is_swept_by_one_with_nothing_to_do(account, name):
    account.row("s1")
    account.refresh()
    left = account.folder / f"data/.{name}.{'0' * 32}"
    left.touch()
    with account.pipeline.store.lock(name.removesuffix(".json")):
        account.refresh()
        assert left.exists()  # another process is writing it
    account.refresh()
    assert not left.exists()


def test_a_session_that_nobody_knows_is_set_aside_and_replayed_once_it_is_known(account):
    delivered(account, "s1", "gone")
    later = account.table.pop()
    account.land(account.told("s1"), account.told("gone"))
    assert account.refresh().quarantined == 1
    [entry] = quarantine.entries(account.pipeline.store)
    assert (entry.kind, entry.session_no) == ("unasked_session", "gone")
    assert account.pipeline.replay() == 1
    assert len(quarantine.entries(account.pipeline.store)) == 1, "still nobody's"
    account.says.clear()
    account.table.append(later)
    account.refresh()
    account.pipeline.replay()
    assert quarantine.entries(account.pipeline.store) == []
    assert account.shown("status") == [("delivered",)] * 2


# -- what is damaged or gone ----------------------------------------------------------------------


def damage(account: Scripted, name: str, is_footer: bool = False) -> None:
    """Overwrite a file's pages, or its footer, with zeros."""
    path = account.folder / "data" / name
    body = path.read_bytes()
    footer = len(body) - 8 - int.from_bytes(body[-8:-4], "little")
    parts = (body[:footer], bytes(len(body) - footer)) if is_footer else (
        body[:4], bytes(footer - 4), body[footer:],
    )  # fmt: skip
    path.write_bytes(b"".join(parts))


def three_days(account: Scripted) -> list[tuple[Any, ...]]:
    """Have three settled days, one session of which is in another day than it is read for."""
    account.says |= {"open": receipt("sending", OTHER), "late": receipt("delivered", PHONE)}
    account.row("late", MIDNIGHT + MINUTE, PHONE)
    for name, days in (("s0", 0), ("s1", 1), ("s2", 2)):
        delivered(account, name, sent_at=NOON - timedelta(days=days))
    account.row("open", NOON - timedelta(days=1), PHONE)
    account.row("open", NOON - timedelta(days=1), OTHER)
    account.refresh()
    account.row("late", MIDNIGHT - MINUTE, THIRD)
    account.refresh()
    return account.settled()


@examples(1, "is_footer", [False, True])
@examples(1, "days", [[DAY], [BEFORE], [DAY, BEFORE - timedelta(days=1)]])
def test_a_damaged_day_is_made_anew_from_the_responses_and_the_source(account, is_footer, days):
    before = three_days(account)
    for day in days:
        damage(account, file.name(day), is_footer)
    delivered(account, "new", sent_at=NOON - timedelta(days=4))
    delivered(account, *(f"more of {day}" for day in days), sent_at=NOON - (DAY - days[0]))
    report = account.refresh()
    assert {*report.damaged} <= {*days}, "a footer alone may be all that a run reads"
    assert DAY - timedelta(days=4) in report.written
    assert any(f"{DAY} --to {DAY}" in one for one in account.pipeline.conservation()) == (
        DAY in days
    )
    asked = len(account.asked)
    report = account.rebuild(*days)
    assert sorted(name.split("/")[1] for name in report.aside) == sorted(
        f"sent_date={day}" for day in days
    )
    assert [row for row in account.rows() if row[0] in {one[0] for one in before}] == before
    account.refresh()
    assert len(account.asked) == asked + 1
    account.settled()


def test_a_rebuild_leaves_a_damaged_day_that_another_holds(account):
    three_days(account)
    damage(account, file.name(DAY))
    with account.pipeline.store.lock(f"sent_date={DAY}"):
        report = account.rebuild()
    assert (report.locked, report.aside) == ([DAY], [])


def test_what_a_killed_run_was_told_waits_until_a_damaged_day_is_made_anew(account):
    delivered(account, "s1", "s2")
    account.says["s1"] = []
    account.refresh()
    damage(account, file.name(DAY), is_footer=True)
    account.says["s1"] = receipt("delivered", PHONE)
    account.land(account.told("s1", hours=1))
    assert account.refresh().quarantined == 0
    account.rebuild(DAY)
    assert account.shown("session_no", "status") == [("s1", "delivered"), ("s2", "delivered")]
    account.refresh()
    assert log.open_runs(account.pipeline.store) == []
    account.settled()


@pytest.mark.parametrize("step", ["refresh", "rebuild"])
def test_a_damaged_block_stops_nothing_else(account, step):
    """What only it said is asked again where it is due; what a day's file knows stays."""
    delivered(account, "s1", "s2")
    runs = [account.land(account.told(name)) for name in ("s1", "s2")]
    if step == "rebuild":
        account.refresh()
    damage(account, f"responses/{runs[0]}/000001.parquet")
    report = getattr(account, step)()
    assert len(report.aside) == 1
    assert any("set aside" in one for one in report.warnings)
    assert account.asked == [["s1"]][: step == "refresh"]
    assert account.shown("status") == [("delivered",)] * 2
    account.settled()


def test_a_rebuild_says_how_many_responses_it_could_not_read_again(account):
    delivered(account, "s1", "s2", "s3")
    runs = [account.land(account.told(f"s{n}", hours=-n / 10)) for n in (1, 2, 3)]
    account.refresh()
    drop_responses(account, *runs[:2])
    [said] = [one for one in account.rebuild().warnings if "no longer kept" in one]
    assert said.startswith("2 responses could not be read again")
    damage(account, file.name(DAY))
    [said] = [one for one in account.rebuild().warnings if "No response is kept" in one]
    assert "of 2 messages" in said


def test_a_published_day_that_is_gone_is_not_begun_anew_but_by_a_rebuild(account):
    delivered(account, "s0", sent_at=NOON - timedelta(days=1))
    delivered(account, "s1", "s2")
    account.run()
    account.row("s3", NOON, PHONE)
    path = account.folder / "data" / file.name(DAY)
    path.unlink()
    account.says.clear()
    report = account.run()
    assert (report.written, [*report.damaged], report.fell_short) == ([], [DAY], True)
    assert report.warehouse.rows == 3
    assert not path.exists()
    [said] = account.pipeline.conservation()
    assert said == report.damaged[DAY]
    account.rebuild(DAY)
    assert account.shown("session_no", "status") == [
        ("s0", "delivered"), ("s1", "delivered"), ("s2", "delivered"), ("s3", "pending")
    ]  # fmt: skip
    assert account.run().damaged == {}


def test_whoever_starts_over_in_another_data_directory_publishes_over_what_was(tmp_path):
    given = {"warehouse": str(tmp_path / "usms.duckdb")}
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
        account = Scripted(tmp_path / name, **given)
        delivered(account, "s1", name)
        assert account.run().written == [DAY]
        with warehouse.connect(given["warehouse"]) as con:
            found = con.execute("SELECT session_no FROM receipts ORDER BY 1").fetchall()
        assert found == sorted([("s1",), (name,)])


@examples(2, "gone", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("is_odd", [False, True])
def test_a_rebuild_keeps_what_only_the_day_knows_whichever_responses_are_gone(
    account, gone, is_odd
):
    phones = (PHONE, OTHER)[: 1 + is_odd]
    for name in ("s1", "s2", "s3"):
        for phone in phones:
            account.row(name, NOON, phone)
    for name, words in {"s1": ("sending", "delivered"), "s2": ("delivered", "UNDELIV")}.items():
        for hour, word in enumerate(words):
            account.says[name] = [receipt(word, phone) for phone in phones]
            account.land(account.told(name, hours=hour))
            account.refresh(minutes=30)
    account.refresh(hours=72)
    before = account.settled()
    runs = log.runs(account.pipeline.store)
    drop_responses(account, *(runs[place] for place in gone))
    account.rebuild()
    assert account.rows() == before
    account.settled()


def test_a_rebuild_keeps_an_unanswered_question_whose_response_was_deleted(account):
    account.row("s1", NOON, PHONE)
    account.refresh()
    account.garbled = {"s1"}
    account.refresh(hours=47)
    before = account.settled()
    drop_responses(account, log.runs(account.pipeline.store)[1])
    account.rebuild()
    assert account.rows() == before
    account.settled()


@pytest.mark.parametrize("is_read_first", [False, True])
def test_a_receipt_matches_its_row_in_another_spelling_beside_an_extra_number(
    account, is_read_first
):
    """Also where the source was read before, and reads as it did; and after a rebuild."""
    account.given["poll_every_hours"] = 1
    account.row("s1", NOON, "+525512345678")
    if is_read_first:
        account.refresh()
    account.says["s1"] = [receipt("delivered", "+5215512345678"), receipt("UNDELIV", THIRD)]
    account.refresh(hours=1)
    account.refresh(hours=1)
    assert account.shown("status", "is_announced") == [("delivered", True), ("failed", False)]
    account.settled()


def test_a_day_whose_file_was_deleted_during_the_run_stops_it(account):
    delivered(account, "s1")
    account.refresh()
    delivered(account, "s2")
    pipeline, path = account.pipeline, account.folder / "data" / file.name(DAY)
    account._announce()
    pipeline._tell = lambda progress: progress.phase == "responses" and path.unlink(missing_ok=True)
    with pytest.raises(StorageError, match="removed, or its disk unmounted"):
        pipeline.refresh()


@examples(1, "several", [False, True])
def test_a_large_day_is_asked_about_in_parts_to_the_same_rows(
    several, tmp_path, simulator, monkeypatch
):
    """Of sessions with one row or several, and of some with unreadable answers at first."""
    messages = Population(90, days=1, until=START, group_share=0.5 * several).table()
    found = []
    for name, most in (("whole", 10**6), ("parts", 7)):
        monkeypatch.setattr(run, "_ROWS_AT_ONCE", most)
        (tmp_path / name).mkdir()
        account = Account(tmp_path / name, simulator, messages, phone_key="0123456789abcdef" * 2)
        account.run_to_the_end()
        assert account.pipeline.conservation() == []
        assert account.run().written == []
        found.append(account.rows())
    assert found[0] == found[1]


def test_a_row_that_joins_a_session_whose_others_have_their_outcome_is_asked_about_at_once(account):
    account.row("s1", NOON, PHONE)
    account.row("s2", NOON, PHONE)
    account.says = dict.fromkeys(("s1", "s2"), receipt("delivered", PHONE))
    account.refresh(Window(BEFORE, DAY))
    account.row("s1", NOON, OTHER)
    account.row("s2", NOON, PHONE)  # a copy
    account.says["s1"] = [receipt("delivered", PHONE), receipt("UNDELIV", OTHER)]
    account.clock.turn(hours=50)
    account.refresh()
    assert account.asked[1:] == [["s1"]]
    assert sorted(account.shown("session_no", "status")) == [
        ("s1", "delivered"), ("s1", "failed"), ("s2", "delivered"),
    ]  # fmt: skip
    account.settled()
