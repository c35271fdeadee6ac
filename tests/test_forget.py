"""Erasing phones and sessions: gone everywhere, for good, and nobody else's data with them."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.account import START, Account
from tests.test_fold import DAY, NOON, Place, answer
from usms_pipeline import dataset, forget, quarantine, report
from usms_pipeline.dataset import RECEIPTS, REGISTERS, RESPONSES, SESSIONS
from usms_pipeline.errors import Busy
from usms_pipeline.forget import Forgotten, scrub
from usms_pipeline.phones import PhoneBook
from usms_pipeline.pipeline import Pipeline
from usms_pipeline.simulator import Faults
from usms_pipeline.warehouse import connect

BOOK = PhoneBook(b"0123456789abcdef", "CN", "masked")
PHONE, OTHER = "+8613800138000", "+8618612345678"
AT = START - timedelta(hours=1)


def table(rows: list[tuple[str, str | None]]) -> pa.Table:
    sessions, phones = zip(*rows, strict=True)
    return pa.table(
        {
            "session_no": list(sessions),
            "phone": pa.array(phones, pa.string()),
            "country": ["CN"] * len(rows),
            "template": ["otp"] * len(rows),
            "purpose": ["code"] * len(rows),
            "sender": ["x"] * len(rows),
            "sent_at": pa.array([AT] * len(rows), pa.timestamp("us", "UTC")),
        }
    )


@pytest.fixture
def account(tmp_path: Path, simulator: Any) -> Account:
    """A group of two, and a message of one's own for each of two phones."""
    rows = [("group", PHONE), ("group", OTHER), ("mine", PHONE), ("yours", OTHER)]
    return Account(tmp_path, simulator, table(rows))


def test_others_of_a_session_stay_though_only_the_forgotten_was_heard_of(
    tmp_path: Path, simulator: Any
) -> None:
    account = Account(tmp_path, simulator, table([("group", PHONE), ("group", OTHER)]))
    account.run()
    day, store = AT.date(), account.pipeline.store
    other = account.pipeline.book.recipient_id(OTHER)
    for name in store.names(f"{REGISTERS}/sent_date={day}"):
        heard = store.read(name)
        if "number" in heard.column_names:
            kept = heard.filter(pc.not_equal(heard["number"], other))
            store.write(name, kept, store.metadata(name))
    account.pipeline.forget(phones=[PHONE])
    assert account.sql("SELECT recipient FROM receipts") == [(other,)]


def test_that_others_of_a_session_were_asked_about_stays(tmp_path: Path) -> None:
    """They were told of by nothing but the receipt that is gone."""
    place = Place(tmp_path)
    hashed = [BOOK.recipient_id(phone) for phone in (PHONE, OTHER)]
    place.announce([{"session_no": "s1", "sent_at": NOON, "recipient": one} for one in hashed])
    told = {"Phone": PHONE, "Status": "delivered"}
    shown = {"SessionNo": "s1", "Status": "accepted", "Receipt": told}
    place.land([answer(NOON, [shown], ["s1"])])
    place.fold()
    forgotten = Forgotten(frozenset(hashed[:1]), frozenset())
    forget.bury(place.store, forgotten)
    assert forget.erase(place.store, DAY, forgotten, [PHONE], BOOK)
    for name in dataset.answers(place.store, DAY):  # so that the registers are all there is
        place.store.delete(name)
    place.fold()
    [row] = place.receipts()
    assert (row["recipient"], row["status"], row["last_asked_at"]) == (hashed[1], "pending", NOON)
    assert row["submit_status"] == "accepted"


def test_of_a_late_answer_about_somebody_forgotten_stays_that_the_session_was_asked_about(
    tmp_path: Path,
) -> None:
    place = Place(tmp_path)
    place.announce([{"session_no": "s1", "sent_at": NOON, "recipients": 2}])
    forget.bury(place.store, Forgotten(frozenset({BOOK.recipient_id(PHONE)}), frozenset()))
    told = {"Phone": PHONE, "Status": "delivered"}
    place.land([answer(NOON, [{"SessionNo": "s1", "Status": "sent", "Receipt": told}], ["s1"])])
    place.fold()
    shown = ("recipient", "status", "last_asked_at", "submit_status")
    assert [tuple(row[name] for name in shown) for row in place.receipts()] == [
        ("unheard-1", "pending", NOON, "sent"),
        ("unheard-2", "pending", NOON, "sent"),
    ]


def test_one_row_for_several_recipients_is_not_the_forgotten_phones_alone(
    tmp_path: Path, simulator: Any
) -> None:
    rows = table([("group", PHONE), ("group", OTHER)])
    account = Account(tmp_path, simulator, rows, phone_column=None, recipients_column="several")
    account.announce(rows.slice(0, 1).append_column("several", pa.array([3])))
    account.run_to_the_end()
    account.pipeline.forget(phones=[PHONE])
    assert account.sql("SELECT count(*) FROM receipts WHERE session_no = 'group'") == [(3,)]
    assert account.pipeline.book.recipient_id(PHONE) not in str(account.rows())


def test_without_phones_in_the_source_a_session_of_the_phone_alone_goes_with_it(
    tmp_path: Path, simulator: Any
) -> None:
    rows = [("mine", PHONE), ("yours", OTHER)]
    account = Account(tmp_path, simulator, table(rows), phone_column=None)
    account.run_to_the_end()
    account.pipeline.forget(phones=[PHONE])
    account.run()
    assert account.sql("SELECT session_no FROM receipts") == [("yours",)]


def test_what_was_interrupted_is_finished_by_the_same_command(account: Account) -> None:
    """The first partition was erased but not made anew when another run held the second."""
    rows = table([("mine", PHONE), ("yours", OTHER)])
    late = pc.add(rows["sent_at"], pa.scalar(timedelta(days=-1)))
    older = rows.set_column(6, "sent_at", late).set_column(
        0, "session_no", pa.array(["mine-old", "yours-old"])
    )
    account.announce(pa.concat_tables([rows, older]))
    account.run()
    with (
        account.pipeline.store.lock(f"sent_date={AT.date()}"),
        pytest.raises(Busy, match="run the same `usms forget` again"),
    ):
        account.pipeline.forget(phones=[PHONE])
    account.pipeline.forget(phones=[PHONE])
    assert account.sql("SELECT DISTINCT session_no FROM receipts ORDER BY 1") == [
        ("yours",),
        ("yours-old",),
    ]


def test_a_dead_process_leaves_no_numbers_behind(account: Account) -> None:
    """A killed process leaves temporary files, with bodies in them."""
    account.run()
    left = account.folder / f"data/{RESPONSES}/sent_date={AT.date()}/.x.parquet.abc"
    left.write_bytes(PHONE.encode())
    fresh = left.with_name(".y.parquet.abc")
    fresh.write_bytes(PHONE.encode())
    os.utime(left, (0, 0))
    account.pipeline.forget(phones=[PHONE])
    assert not left.exists()
    assert not fresh.exists(), "nobody else writes in a partition that is held"


def test_what_dead_processes_left_goes_where_nothing_was_finished_too(account: Account) -> None:
    """A day whose first file never got its name, and a report that did not."""
    account.run()
    data, day = account.folder / "data", "sent_date=2026-02-21"
    left = [data / f"{SESSIONS}/{day}/.{SESSIONS}.parquet.abc", data / f".report.html.{'ab' * 16}"]
    for file in left:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(PHONE.encode())
    with account.pipeline.store.lock(day), pytest.raises(Busy, match="2026-02-21"):
        account.pipeline.forget(phones=[PHONE])
    account.pipeline.forget(phones=[PHONE])
    assert [file for file in left if file.exists()] == []


@pytest.mark.long
@pytest.mark.parametrize("phones", ["masked", "clear"])
def test_a_forgotten_phone_leaves_a_tombstone_and_nothing_else_in_any_zone(
    tmp_path: Path, simulator: Any, phones: str
) -> None:
    """Not its number, hash or lone session: in no file, free block or report, and none comes back.

    Neither by a rebuild, a replay, another run, nor the row appearing again in the source.
    """
    rows = table([("group", PHONE), ("group", OTHER), ("mine-alone", PHONE), ("yours", OTHER)])
    refused = table([("mine-refused", PHONE)])
    others = table([("theirs-1", OTHER), ("theirs-2", OTHER)])
    earlier = pa.array([AT - timedelta(days=n) for n in (1, 2)], pa.timestamp("us", "UTC"))
    others = others.set_column(6, "sent_at", earlier)  # days that stay as they are
    account = Account(
        tmp_path, simulator, pa.concat_tables([rows, refused, others]), phones=phones,
        dimensions="template", poll_minutes="5", poll_every_hours=80,
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


def bytes_of(path: Path) -> bytes:
    """A file as it is, and what it means where it is packed."""
    if path.suffix != ".parquet":
        return path.read_bytes()
    file = pa.parquet.ParquetFile(path)
    return path.read_bytes() + f"{file.read().to_pylist()}{file.schema_arrow.metadata}".encode()


def test_a_session_that_nobody_was_heard_of_in_is_forgotten_with_its_only_phone(
    account: Account,
) -> None:
    """Its number will be in the questions all the same, and stands for the person."""
    days = account.pipeline.load_sessions(account.window).partitions
    account.pipeline.fold(days)
    account.pipeline.forget(phones=[PHONE])
    assert forget.read(account.pipeline.store).sessions == {"mine"}


def test_of_a_late_answer_that_is_broken_nothing_is_left_if_it_names_the_forgotten() -> None:
    forgotten = Forgotten(frozenset({BOOK.recipient_id(PHONE)}))
    assert scrub(b'{"broken: 138 0013 8000', forgotten, BOOK) == b""
    kept = b'{"broken: 186 1234 5678'
    assert scrub(kept, forgotten, BOOK) == kept


def test_what_was_dismissed_stays_so_when_others_are_cut_out_of_its_answer(tmp_path: Path) -> None:
    """Erasing writes an answer anew: the same bad item in it must not be taken for another."""
    place = Place(tmp_path, phone_key=b"0123456789abcdef".hex())
    place.book = Pipeline(place.settings).book
    several = {"sent_at": NOON, "recipients": 2}
    place.announce([{"session_no": name} | several for name in ("s1", "s2", "s3")])
    odd = {"SessionNo": "s1", "Receipt": [{"Phone": OTHER, "Status": "sent"}, "nonsense"]}
    strange = {"Receipt": "nothing", "说": "无"}
    told = answer(NOON, [odd, strange, item("s2", PHONE)], ["s1", "s2", "s3"])
    told["body"] = json.dumps(json.loads(told["body"]), separators=(",", ":")).encode()
    place.land([told])
    place.fold()
    pipeline = Pipeline(place.settings)
    assert pipeline.dismiss() == 2
    pipeline.forget(phones=[OTHER], numbers=["s2"])
    assert [entry.state for entry in quarantine.entries(place.store, None)] == ["dismissed"] * 2
    pipeline.replay()
    assert quarantine.entries(place.store) == []


# -- bodies ---------------------------------------------------------------------------------------


def body(*items: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"RetCode": 0, "Message": "success", "Data": list(items)} | more).encode()


def item(session: str, phone: str) -> dict[str, Any]:
    return {"SessionNo": session, "Receipt": [{"Phone": phone, "Status": "delivered"}]}


def test_a_session_whose_number_is_part_of_anothers_takes_nobody_along() -> None:
    whole = body(item("1001", PHONE), item("10010", OTHER), item("a-1001", OTHER))
    left = json.loads(scrub(whole, Forgotten(sessions=frozenset({"1001"})), BOOK))
    assert [item["SessionNo"] for item in left["Data"]] == ["10010", "a-1001"]


def test_a_session_number_that_holds_the_digits_of_a_phone_takes_nobody_along() -> None:
    whole = body(item("200138000-13800138000-77", OTHER), item("mine", PHONE))
    forgotten = Forgotten(frozenset({BOOK.recipient_id(PHONE)}), frozenset({"mine"}))
    left = json.loads(scrub(whole, forgotten, BOOK, ["00138000"]))
    assert [item["SessionNo"] for item in left["Data"]] == ["200138000-13800138000-77"]


@pytest.mark.parametrize("phones", [["00138000"], []], ids=["forgotten now", "before"])
@pytest.mark.parametrize(
    "shown",
    ["13800138000", "+86 138-0013-8000", 13800138000, "tel:8613800138000", f"to {PHONE}",
     "no such user: 13800138000.", "(86) 138-0013-8000"],
)  # fmt: skip
def test_a_phone_in_an_odd_place_of_a_readable_body_is_blanked_alone(
    shown: object, phones: list[str]
) -> None:
    """Of one forgotten before only the hash is known by then."""
    odd = {"SessionNo": "odd", "Receipt": "none", "Extra": {"To": [shown]}}
    told = {"SessionNo": "group", "Receipt": {"Phone": OTHER, "ReceiptDesc": shown}}
    whole = body(odd, told, item("yours", OTHER))
    forgotten = Forgotten(frozenset({BOOK.recipient_id(PHONE)}))
    left = json.loads(scrub(whole, forgotten, BOOK, phones))
    assert left["Data"][0]["Extra"] == {"To": [None]}
    assert left["Data"][1]["Receipt"] == {"Phone": OTHER, "ReceiptDesc": None}
    assert left["Data"][2] == item("yours", OTHER)


@pytest.mark.parametrize("phones", [[PHONE], []], ids=["forgotten now", "before"])
@pytest.mark.parametrize(
    "odd",
    [
        '"By": {"13800138000": "queued"}',
        '"By": {"+86 138-0013-8000": {"x": 1}}',
        '"By": [{"mine": "queued"}]',
        '"To": 13800138000.0',
        '"To": 1.3800138e10',
        '"To": "13800138000", "To": "x"',
        '"To": {"x": {"Phone": "13800138000"}}, "To": {}',
        '"To": "138/0013/8000"',
        '"To": "138\\u00a00013\\u00a08000"',
        '"To": "１３８００１３８０００"',
        '"To": "2026-03-02 13800138000 17"',
        '"To": "13800138000,18612345678"',
        '"Receipt": {"Phone": 13800138000.0, "Status": "sent"}',
        '"Receipt": {"Phone": "tel 13800138000;phone-context=x", "Status": "sent"}',
    ],
)
def test_no_spelling_of_a_phone_or_session_is_left_and_nobody_elses_is_lost(
    odd: str, phones: list[str]
) -> None:
    forgotten = Forgotten(frozenset({BOOK.recipient_id(PHONE)}), frozenset({"mine"}))
    whole = body(item("yours", OTHER)).decode().replace('"Data": [', f'"Data": [{{{odd}}}, ')
    left = scrub(whole.encode(), forgotten, BOOK, phones).decode()
    shown = re.sub(r"[^0-9a-z]", "", unicodedata.normalize("NFKC", left))
    assert "13800138000" not in shown
    assert "1380013810" not in shown
    assert "mine" not in shown
    assert json.loads(left)["Data"][1] == item("yours", OTHER)


@pytest.mark.parametrize("odd", ['"1380013800018612345678"', 'NaN, "To": "13800138000", "To": 1'])
def test_a_number_within_more_digits_or_mended_away_is_not_left_when_it_is_forgotten(
    odd: str,
) -> None:
    forgotten = Forgotten(frozenset({BOOK.recipient_id(PHONE)}))
    whole = body(item("yours", OTHER)).decode().replace('"Data": [', f'"To": {odd}, "Data": [')
    left = scrub(whole.encode(), forgotten, BOOK, [PHONE])
    assert b"13800138000" not in left
    assert json.loads(left)["Data"] == [item("yours", OTHER)]


def test_names_of_the_services_own_and_other_numbers_that_end_alike_stay() -> None:
    """A session may be called like a field; and eight digits are all that some countries have."""
    forgotten = Forgotten(frozenset({BOOK.recipient_id("+6591234567")}), frozenset({"Status"}))
    whole = body(item("yours", "+8613991234567"), item("x", "+6591234567"))
    left = json.loads(scrub(whole, forgotten, BOOK, ["+6591234567"]))
    assert left["Data"] == [item("yours", "+8613991234567"), {"SessionNo": "x", "Receipt": []}]


@pytest.mark.parametrize(
    "text",
    ['{"Phone": "138 0013 8000", "Sta', "tel 13800138000.", "<p>138&nbsp;0013&nbsp;8000"],
)
def test_a_body_that_cannot_be_read_is_emptied_when_it_names_the_phone(text: str) -> None:
    assert scrub(text.encode(), Forgotten(frozenset({"x"})), BOOK, ["00138000"]) == b""


@pytest.mark.parametrize("text", ["<html>busy</html>", '{"Data": [{"SessionNo": "10010"'])
def test_a_body_that_names_nobody_is_kept_to_the_byte(text: str) -> None:
    forgotten = Forgotten(frozenset({"x"}), frozenset({"1001"}))
    assert scrub(text.encode(), forgotten, BOOK, ["00138000"]) == text.encode()


def test_answers_about_others_are_kept_whole_after_a_session_was_forgotten(
    tmp_path: Path, simulator: Any
) -> None:
    rows = [("1001", PHONE), ("10010", OTHER), ("21001", OTHER)]
    account = Account(tmp_path, simulator, table(rows))
    account.pipeline.load_sessions(account.window)
    account.pipeline.forget(numbers=["1001"])
    account.run_to_the_end()
    bodies = [
        body
        for name in account.pipeline.store.names(RESPONSES)
        for body in account.pipeline.store.read(name)["body"].to_pylist()
    ]
    assert bodies
    assert all(bodies)
    zones = [account.pipeline.store.names(zone) for zone in (SESSIONS, RECEIPTS)]
    assert all(dataset.partition_of(name) == AT.date() for names in zones for name in names)
    assert account.sql("SELECT DISTINCT session_no FROM receipts ORDER BY 1") == [
        ("10010",),
        ("21001",),
    ]


def test_nothing_is_called_erased_while_the_warehouse_still_holds_it(account: Account) -> None:
    account.run_to_the_end()
    with account.pipeline.store.lock("warehouse"), pytest.raises(Busy, match="the warehouse"):
        account.pipeline.forget(phones=[PHONE])
    account.pipeline.forget(phones=[PHONE])
    assert account.sql("SELECT session_no FROM receipts ORDER BY 1") == [("group",), ("yours",)]


def test_a_day_that_a_run_takes_in_meanwhile_is_not_missed(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.run()
    look = forget.lone_sessions

    def slow(*given: Any) -> set[str]:
        found = look(*given)
        monkeypatch.undo()
        account.clock.turn(hours=24)
        late = [{"session_no": "late", "phone": PHONE, "sent_at": account.clock.now}]
        messages = pq.read_table(account.source)
        account.announce(pa.concat_tables([messages, pa.Table.from_pylist(late, messages.schema)]))
        account.clock.turn(hours=1)
        account.run()
        return found

    monkeypatch.setattr(forget, "lone_sessions", slow)
    account.pipeline.forget(phones=[PHONE])
    assert account.sql("SELECT count(*) FROM receipts WHERE session_no = 'late'") == [(0,)]


def test_a_day_that_a_run_is_about_to_write_is_named_as_busy(account: Account) -> None:
    """It read the tombstones before there was this one."""
    account.run()
    with account.pipeline.store.lock("sent_date=2026-03-09"), pytest.raises(Busy, match="03-09"):
        account.pipeline.forget(phones=[PHONE])
