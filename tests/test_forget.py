"""Erasing phones and sessions: gone everywhere, for good, and nobody else's data with them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.account import START, Account
from tests.scripted import DAY, NOON, OTHER, PHONE, Scripted, receipt
from usms_pipeline.contract.errors import Busy
from usms_pipeline.days import log
from usms_pipeline.figures import report
from usms_pipeline.people import forget
from usms_pipeline.pipeline import Progress
from usms_pipeline.simulator import Faults
from usms_pipeline.warehouse import connect


@pytest.fixture
def account(tmp_path: Path) -> Scripted:
    """A group of two, and a message of one's own for each of two phones."""
    account = Scripted(tmp_path)
    for session, phone in (("group", PHONE), ("group", OTHER), ("mine", PHONE), ("yours", OTHER)):
        account.row(session, NOON, phone)
    account.says = {
        "group": [receipt("delivered", PHONE), receipt("UNDELIV", OTHER)],
        "mine": receipt("delivered", PHONE),
        "yours": receipt("delivered", OTHER),
    }
    return account


def forgotten(account: Scripted, *phones: str, sessions: tuple[str, ...] = ()) -> list[Any]:
    """Forget somebody; return the sessions and statuses left, once nothing changes them."""
    account.pipeline.forget(phones, sessions)
    left = account.shown("session_no", "status")
    assert account.pipeline.conservation() == []
    account.refresh()
    account.rebuild()
    assert account.shown("session_no", "status") == left
    account.settled()
    return left


def test_others_of_a_session_stay_with_what_is_known_of_them(account):
    """Also in a rebuild: the response with both is emptied, what the day knows is not."""
    account.refresh()
    assert forgotten(account, PHONE) == [("group", "failed"), ("yours", "delivered")]
    assert len(account.asked) == 1


def test_others_that_are_not_heard_of_stay_known_to_have_been_asked_about(account):
    account.says["group"] = receipt("delivered", PHONE)
    account.refresh(hours=73)
    assert ("group", "unknown") in forgotten(account, PHONE)


def test_one_row_for_several_recipients_is_not_the_forgotten_phones_alone(tmp_path):
    account = Scripted(tmp_path, phone_column=None, recipients_column="recipients")
    account.row("group", recipients=3)
    account.says["group"] = [receipt("delivered", one) for one in (PHONE, OTHER)]
    account.refresh()
    account.pipeline.forget([PHONE])
    account.refresh()
    assert account.pipeline.book.recipient_id(PHONE) not in str(account.rows())
    assert account.sql("SELECT DISTINCT session_no FROM receipts") == [("group",)]


def test_without_phones_in_the_source_a_session_of_the_phone_alone_goes_with_it(tmp_path):
    account = Scripted(tmp_path, phone_column=None)
    for session, phone in (("mine", PHONE), ("yours", OTHER)):
        account.row(session)
        account.says[session] = receipt("delivered", phone)
    account.refresh()
    assert forgotten(account, PHONE) == [("yours", "delivered")]


def test_forgetting_a_phone_forgets_its_session_even_without_a_receipt(account):
    """Its number will be in the questions all the same, and stands for the person."""
    account.says.clear()
    account.refresh()
    account.pipeline.forget([PHONE])
    assert forget.read(account.pipeline.store).sessions == {"mine"}


def test_what_a_killed_run_was_told_of_somebody_forgotten_is_folded_without_them(account):
    says, account.says = account.says, {}
    account.refresh()
    account.says = says
    run = account.land(account.told("group", "mine", "yours", hours=1), days=[DAY])
    account.pipeline.forget([PHONE])
    account.refresh()
    assert account.shown("session_no", "status") == [("group", "failed"), ("yours", "delivered")]
    [name] = log.blocks(account.pipeline.store, run)
    kept = account.pipeline.store.read(name).to_pylist()
    assert [(row["verdict"], row["body"]) for row in kept] == [("forgotten", b"")]
    account.settled()


def test_a_late_response_about_somebody_forgotten_says_only_that_the_session_was_asked_about(
    account,
):
    account.says["group"] = []
    account.refresh()
    account.pipeline.forget([PHONE])
    account.says["group"] = [receipt("delivered", PHONE), receipt("delivered", OTHER)]
    account.refresh(hours=49)
    assert account.shown("session_no", "status") == [("group", "delivered"), ("yours", "delivered")]
    bodies = [
        row for run in log.runs(account.pipeline.store)
        for name in log.blocks(account.pipeline.store, run)
        for row in account.pipeline.store.read(name)["body"].to_pylist()
    ]  # fmt: skip
    assert bodies == [b"", b""]
    account.settled()


def test_what_was_interrupted_is_finished_by_the_same_command(account):
    """One day was erased when another run held the other, or a run's responses, or the table."""
    for session, phone in (("mine-old", PHONE), ("yours-old", OTHER)):
        account.row(session, NOON - timedelta(days=1), phone)
    account.run()
    store = account.pipeline.store
    living = log.Log(store, account.clock).held([DAY])
    for held, named in (
        (store.lock(f"sent_date={DAY}"), str(DAY)),
        (living, "its responses"),
        (store.lock("warehouse"), "the warehouse"),
    ):
        with held, pytest.raises(Busy, match=f"{named}.*run the same `usms forget` again"):
            account.pipeline.forget([PHONE])
    account.pipeline.forget([PHONE])
    left = account.sql("SELECT DISTINCT session_no FROM receipts ORDER BY 1")
    assert left == [("group",), ("yours",), ("yours-old",)]


def test_dead_processes_leave_no_numbers_behind(account):
    """A killed process leaves temporary files, with bodies in them; so may a damaged block."""
    killed = account.land(days=[DAY])
    run = account.land(account.told("mine"), days=[DAY])
    data = account.folder / "data"
    left = [
        data / f"responses/{run}/.000002.parquet.abc", data / f"responses/{killed}/.1.parquet.abc",
        data / f"responses/{run}/000009.parquet.damaged-abc", data / f".report.html.{'ab' * 16}",
        data / f"quarantine/{run}/.000001.parquet.abc",
        data / f"receipts/sent_date={DAY}/.receipts.parquet.abc",
    ]  # fmt: skip
    account.refresh()
    account.land(days=[DAY])
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PHONE.encode())
    with account.pipeline.store.lock(f"sent_date={DAY}"), pytest.raises(Busy):
        account.pipeline.forget([PHONE])
    assert left[-1].exists(), "it may be what another process is writing"
    account.pipeline.forget([PHONE])
    assert [path for path in left if path.exists()] == [left[1]], "of no run that is known"


def test_answers_about_others_are_kept_whole_after_a_session_was_forgotten(tmp_path):
    account = Scripted(tmp_path)
    for session in ("1001", "10010", "21001"):
        account.row(session, NOON, OTHER)
        account.says[session] = receipt("delivered", OTHER)
    account._announce()
    account.pipeline.forget(numbers=["1001"])
    account.refresh()
    assert account.asked == [["10010", "21001"]]
    [run] = log.runs(account.pipeline.store)
    [name] = log.blocks(account.pipeline.store, run)
    assert account.pipeline.store.read(name)["verdict"].to_pylist() == ["ok"]
    account.settled()


@pytest.mark.parametrize("phase", ["source", "responses"])
def test_a_phone_forgotten_while_a_run_is_at_work_does_not_come_back(account, phase):
    """Before it holds a day, the run sees it by then; after, the day is named as busy."""
    account.refresh()
    account.row("late", NOON, PHONE)
    account.says["late"] = receipt("delivered", PHONE)
    account._announce()
    told: list[str] = []

    def watch(progress: Progress) -> None:
        if progress.phase == phase and not told:
            try:
                told.append(str(account.pipeline.forget([PHONE])))
            except Busy as error:
                told.append(str(error))

    pipeline = account.pipeline
    pipeline._tell = watch
    pipeline.refresh(pipeline.everything())
    assert [str(DAY) in one and "again" in one for one in told] == [phase == "responses"]
    if phase == "responses":
        account.pipeline.forget([PHONE])
    assert account.shown("session_no") == [("group",), ("yours",)]
    recipient = account.pipeline.book.recipient_id(PHONE)
    for name in account.pipeline.store.names("responses"):
        assert PHONE[3:] not in str(account.pipeline.store.read(name).to_pylist())
    assert recipient not in str(account.rows())


# -- no trace -------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("phones", ["masked", "clear"])
def test_a_forgotten_phone_leaves_a_tombstone_and_nothing_else_in_any_folder(
    tmp_path, simulator, phones
):
    """Not its number, hash or lone session: in no file, free block or report, and none comes back.

    Neither by a rebuild, a replay, another run, nor the row appearing again in the source.
    """
    rows = [("group", PHONE, 0), ("group", OTHER, 0), ("mine-alone", PHONE, 0), ("yours", OTHER, 0),
            ("mine-refused", PHONE, 0), ("theirs-1", OTHER, 1), ("theirs-2", OTHER, 2)]  # fmt: skip
    names = ("session_no", "phone", "sent_at", "country", "template", "purpose", "sender")
    at = START - timedelta(hours=1)
    more = ("CN", "otp", "code", "x")
    made = [(s, phone, at - timedelta(days=days), *more) for s, phone, days in rows]
    table = pa.table([pa.array(column) for column in zip(*made, strict=True)], names)
    account = Account(
        tmp_path, simulator, table.set_column(2, "sent_at", table["sent_at"].cast(TIME)),
        phones=phones, dimensions="template", poll_minutes="5", poll_every_hours=80,
        options={"faults": Faults(poison_ids=frozenset({"mine-refused"}), spellings=0.5)},
    )  # fmt: skip
    account.run()
    pipeline = account.pipeline
    with connect(account.settings.warehouse_path) as con:
        report.build(report.ask(con), pipeline.store, generated_at=START, settings_summary={})
    recipient = pipeline.book.recipient_id(PHONE)
    for again in (None, pipeline.rebuild, pipeline.replay, account.run, account.run_to_the_end):
        if again is None:
            pipeline.forget(phones=[PHONE])
        else:
            again()
            pipeline.publish()
        for path in sorted((tmp_path / "data").rglob("*")):
            if path.is_file() and path.name != forget.TOMBSTONES:
                found = bytes_of(path)
                for trace in (recipient, PHONE[3:], "mine-alone", "mine-refused"):
                    assert trace.encode() not in found, (path.name, trace, again)
    assert not (tmp_path / "data/report.html").exists()
    left = account.sql("SELECT DISTINCT session_no FROM receipts ORDER BY 1")
    assert left == [("group",), ("theirs-1",), ("theirs-2",), ("yours",)]


TIME = pa.timestamp("us", "UTC")


def bytes_of(path: Path) -> bytes:
    """A file as it is, and what it means where it is packed."""
    if path.suffix != ".parquet":
        return path.read_bytes()
    whole = pq.ParquetFile(path)
    return path.read_bytes() + f"{whole.read().to_pylist()}{whole.schema_arrow.metadata}".encode()
