"""The fold against a small reference: any answers, in any order, folded in any portions."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.model import Asked, SourceRow, Told, World
from usms_pipeline import dataset, fold, registers, schema
from usms_pipeline.phones import PhoneBook
from usms_pipeline.service.api import canonical
from usms_pipeline.settings import Settings
from usms_pipeline.storage import Store

DAY = date(2026, 3, 1)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
BOOK = PhoneBook(b"0123456789abcdef", "CN", "masked")
PHONES = ("13800138000", "8618612345678", "+85255311111")
WORDS = ("delivered", "UNDELIV", "rejectd", "过期", "sending", "unknow", "", "NO_SUCH_WORD")
SESSIONS = ("s1", "s2", "s3")
CUTOFF_HOURS = 72.0
COMPARED = (
    "session_no", "recipient", "sent_at", "is_announced", "status", "is_final", "is_closed",
    "provider_status", "submit_status", "received_at", "first_asked_at", "last_asked_at",
    "final_at", "conflicts",
)  # fmt: skip


def answer(asked_at: datetime, items: list[dict[str, Any]], ids: Iterable[str]) -> dict[str, Any]:
    body = {"RetCode": 0, "Message": "success", "Data": items}
    return {
        "asked_at": asked_at,
        "ids": list(ids),
        "http_status": 200,
        "ret_code": 0,
        "verdict": "ok",
        "reason": None,
        "body": json.dumps(body, ensure_ascii=False).encode(),
    }


def refusal(asked_at: datetime, session: str) -> dict[str, Any]:
    return answer(asked_at, [], [session]) | {
        "verdict": "refused",
        "ret_code": 215392,
        "reason": "Invalid parameter [id]",
        "body": b'{"RetCode": 215392, "Message": "Invalid parameter [id]"}',
    }


def receipt(phone: str, word: str, received_at: datetime | None = None) -> dict[str, Any]:
    local = received_at.astimezone(ZoneInfo("Asia/Shanghai")) if received_at else None
    text = local.strftime("%Y-%m-%d %H:%M:%S") if local else ""
    return {"Phone": phone, "Status": word, "ReceiveTime": text}


class Place:
    """A data directory with one partition, filled by hand."""

    def __init__(self, folder: Path | str, **given: Any) -> None:
        self.settings = Settings(
            _env_file=None, data_dir=str(folder), cutoff_hours=CUTOFF_HOURS, **given
        )
        self.store = Store(str(folder))
        self.files = self.versions = 0

    def announce(self, rows: list[dict[str, Any]]) -> None:
        layout = schema.sessions_schema(self.settings.dimensions)
        self.versions += 1
        usual = {"recipients": 1, "ordinal": 0, "changed_in": self.versions}
        full = [dict.fromkeys(layout.names) | usual | row for row in rows]
        stamp = dataset.stamp(BOOK.fingerprint) | {"token": f"{0:032}-{self.versions}"}
        name = dataset.file_name(dataset.SESSIONS, DAY)
        self.store.write(name, pa.Table.from_pylist(full, layout), stamp)

    def land(self, answers: list[dict[str, Any]]) -> None:
        self.files += 1
        name = f"20260301T120000.{self.files:06}-00000000.parquet"
        table = pa.Table.from_pylist(answers, schema.RESPONSES)
        name = dataset.file_name(dataset.RESPONSES, DAY, name)
        self.store.write(name, table, dataset.stamp(BOOK.fingerprint), private=True)

    def fold(self, is_anew: bool = False) -> fold.PartitionCounts:
        report = fold.fold(self.store, self.settings, BOOK, [DAY], is_anew=is_anew)
        return report.partitions[DAY]

    def receipts(self) -> list[dict[str, Any]]:
        return self.store.read(dataset.file_name(dataset.RECEIPTS, DAY)).to_pylist()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def compared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The columns of the reference, in its order; rows without a session have no identity."""
    kept = [{name: row[name] for name in COMPARED} for row in rows]
    for row in kept:
        if row["session_no"] is None:
            row["recipient"] = None
    return sorted(kept, key=lambda r: (r["session_no"] or "", r["recipient"] or "", r["sent_at"]))


# -- against the reference ------------------------------------------------------------------------

hours = st.sampled_from([1, 2, 30, 71, 72, 80])
receipts = st.tuples(
    st.sampled_from([None, 0, 0, 1, 1, 2, 2]), st.sampled_from(WORDS), st.sampled_from([None, 1, 5])
)
items = st.tuples(
    st.sampled_from(SESSIONS),
    st.sampled_from([None, "accepted", "success"]),
    st.lists(receipts, max_size=3),
)
answers = st.one_of(
    st.tuples(st.just("ok"), hours, st.lists(items, max_size=4)),
    st.tuples(st.just("refused"), hours, st.sampled_from(SESSIONS)),
)
sources = st.lists(
    st.tuples(
        st.sampled_from((*SESSIONS, None)),
        st.one_of(st.none(), st.integers(0, 2)),
        st.integers(1, 3),
    ),
    min_size=1,
    max_size=6,
)


cases = st.lists(st.tuples(sources, st.lists(answers, max_size=6)), min_size=12, max_size=12)
"""A fold costs the same for one case as for twelve: their sessions have names of their own."""


def announced(rows: list[tuple[str | None, int | None, int]], case: int = 0) -> list[SourceRow]:
    """Rows a minute apart, so that their order is theirs."""
    return [
        SourceRow(
            session and f"{case}-{session}",
            NOON + timedelta(minutes=n),
            None if phone is None else BOOK.recipient_id(PHONES[phone]),
            recipients,
        )
        for n, (session, phone, recipients) in enumerate(rows)
    ]


def told(world: World, drawn: tuple[Any, ...], case: int = 0, turn: int = 0) -> dict[str, Any]:
    """Add one drawn answer to the reference, and give it as the service would.

    One with a receipt without a phone is the ``turn``-th of its case, and alone in its moment: of
    several in one moment the tie-break decides which speaks for the session, not the laws.
    """
    kind, hour, what = drawn
    asked_at = NOON + timedelta(hours=hour)
    if kind == "ok" and any(phone is None for *_, heard in what for phone, *_ in heard):
        asked_at += timedelta(minutes=1 + turn)
    if kind == "refused":
        world.asked.append(Asked(f"{case}-{what}", asked_at, is_refused=True))
        return refusal(asked_at, f"{case}-{what}")
    asked = [f"{case}-{session}" for session in SESSIONS]
    submitted = {
        session: min(
            (word for name, word, _ in what if session == f"{case}-{name}" and word), default=None
        )
        for session in asked
    }
    world.asked += [Asked(session, asked_at, submitted[session]) for session in asked]
    data = []
    for name, submit_status, heard in what:
        session, shown = f"{case}-{name}", []
        for phone, word, after in heard:
            received = NOON + timedelta(seconds=after) if after else None
            number = "" if phone is None else BOOK.recipient_id(PHONES[phone])
            shown.append(receipt("" if phone is None else PHONES[phone], word, received))
            if phone is not None or word or received:  # else it says nothing
                told = Told(
                    session, number, asked_at, canonical(word), word, received, submit_status
                )
                world.told.append(told)
        data.append({"SessionNo": session, "Status": submit_status, "Receipt": shown})
    return answer(asked_at, data, asked)


@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(cases, st.randoms(use_true_random=False))
def test_the_fold_gives_what_the_reference_gives_whatever_the_order(
    drawn: list[Any], random: Any
) -> None:
    world, landed = World(), []
    for case, (source, said) in enumerate(drawn):
        world.rows += announced(source, case)
        landed += [told(world, one, case, turn) for turn, one in enumerate(said)]
    expected = compared(world.receipts(timedelta(hours=CUTOFF_HOURS)))
    with TemporaryDirectory() as folder:
        place = Place(folder)
        place.announce(
            [
                {
                    "session_no": row.session_no,
                    "recipient": row.recipient,
                    "sent_at": row.sent_at,
                    "recipients": row.recipients,
                }
                for row in world.rows
            ]
        )
        random.shuffle(landed)
        arriving = [*landed, *landed[: len(landed) // 3]]  # some answers arrive twice
        size = max(1, len(arriving) // 4)
        for begin in range(0, len(arriving), size):
            place.land(arriving[begin : begin + size])
            if random.random() < 0.5:
                place.fold()
        counts = place.fold()
        incremental = place.receipts()
        assert compared(incremental) == expected
        place.fold(is_anew=True)
        assert place.receipts() == incremental
        assert fold.conservation(place.store, [DAY]) == []
        assert counts.announced == sum(row.recipients for row in world.rows)


# -- one fact each --------------------------------------------------------------------------------


def one_session(place: Place, **more: Any) -> None:
    place.announce([{"session_no": "s1", "sent_at": NOON} | more])


def item(session: str, shown: Any) -> dict[str, Any]:
    return {"SessionNo": session, "Status": "success", "Receipt": shown}


def test_one_row_and_one_receipt_match_whatever_the_numbers_form(place: Place) -> None:
    one_session(place, recipient="hash-of-a-masked-number", phone="138****8000")
    place.land([answer(NOON, [item("s1", receipt(PHONES[0], "delivered"))], ["s1"])])
    place.fold()
    [row] = place.receipts()
    assert (row["recipient"], row["status"]) == ("hash-of-a-masked-number", "delivered")
    assert row["country"] == "CN"  # what the source's form does not tell, the receipt's does


def test_receipts_are_dealt_to_the_rows_of_a_session_until_they_run_out(place: Place) -> None:
    rows = [{"session_no": "s1", "sent_at": NOON, "ordinal": n} for n in range(3)]
    place.announce(rows)
    shown = [receipt(phone, "delivered") for phone in PHONES[:2]]
    place.land([answer(NOON, [item("s1", shown)], ["s1"])])
    assert place.fold().buckets["delivered"] == 2
    assert sorted(row["status"] for row in place.receipts()) == [
        "delivered",
        "delivered",
        "pending",
    ]
    assert [r["recipient"] for r in place.receipts() if r["status"] == "pending"] == ["unheard-1"]


def test_who_was_not_heard_of_was_asked_about_with_the_others_of_the_session(place: Place) -> None:
    """No row of the registers says it: the answer had a receipt of the session, for another."""
    place.announce([{"session_no": "s1", "sent_at": NOON, "ordinal": n} for n in range(2)])
    later = NOON + timedelta(hours=CUTOFF_HOURS)
    place.land([refusal(NOON, "s1")])
    for asked_at, word in ((later, "accepted"), (NOON + timedelta(hours=1), "queued")):
        shown = item("s1", receipt(PHONES[0], "delivered")) | {"Status": word}
        place.land([answer(asked_at, [shown], ["s1"])])
    place.fold()
    [unheard] = [row for row in place.receipts() if row["recipient"].startswith("unheard")]
    assert (unheard["status"], unheard["is_closed"]) == ("unknown", True), "no longer refused"
    assert (unheard["first_asked_at"], unheard["last_asked_at"]) == (NOON, later)
    assert unheard["submit_status"] == "accepted", "that of the latest answer"


def test_a_receipt_for_a_phone_nobody_announced_is_a_row_of_its_own(tmp_path: Path) -> None:
    place = Place(tmp_path, dimensions=("template", "final"))
    hashed = BOOK.recipient_id(PHONES[0])
    one_session(place, recipient=hashed, template="otp", final="kept")
    shown = [receipt(phone, "delivered") for phone in PHONES[:2]]
    place.land([answer(NOON, [item("s1", shown)], ["s1"])])
    counts = place.fold()
    extra = next(row for row in place.receipts() if not row["is_announced"])
    assert (counts.announced, counts.unannounced) == (1, 1)
    assert (extra["template"], extra["final"], extra["sent_at"]) == ("otp", "kept", NOON)
    assert extra["recipient"] == BOOK.recipient_id(PHONES[1])


def test_a_receipt_without_a_phone_speaks_for_the_only_recipient(place: Place) -> None:
    one_session(place)
    place.land([answer(NOON, [item("s1", {"Status": "delivered"})], ["s1"])])
    assert place.fold().buckets["delivered"] == 1


@pytest.mark.parametrize("received_at", [None, NOON])
@pytest.mark.parametrize(("word", "status"), [("unknow", "unknown"), ("HUH", "unrecognized")])
def test_a_word_without_a_phone_that_is_no_outcome_is_shown(
    place: Place, received_at: datetime | None, word: str, status: str
) -> None:
    """The same answer says that the session was asked; that must not hide what it says of it."""
    one_session(place)
    shown = {**receipt("", word, received_at), "Phone": None}
    place.land([answer(NOON, [item("s1", shown)], ["s1"])])
    place.fold()
    [row] = place.receipts()
    assert (row["status"], row["provider_status"]) == (status, word)
    place.land([answer(NOON + timedelta(hours=1), [], ["s1"])])
    place.fold()
    [row] = place.receipts()
    assert (row["status"], row["provider_status"]) == ("pending", None), "the latest answer counts"


def test_the_first_outcome_stays_and_a_later_one_is_a_conflict(place: Place) -> None:
    one_session(place)
    place.land([answer(NOON, [item("s1", receipt(PHONES[0], "delivered"))], ["s1"])])
    later = NOON + timedelta(hours=1)
    place.land([answer(later, [item("s1", receipt(PHONES[0], "failed"))], ["s1"])])
    place.fold()
    [row] = place.receipts()
    assert (row["status"], row["conflicts"], row["final_at"]) == ("delivered", ["failed"], NOON)


def test_delivery_seconds_are_from_sent_to_received(place: Place) -> None:
    one_session(place)
    received = NOON + timedelta(seconds=42)
    shown = receipt(PHONES[0], "delivered", received)
    place.land([answer(NOON + timedelta(hours=1), [item("s1", shown)], ["s1"])])
    place.fold()
    assert [row["delivery_seconds"] for row in place.receipts()] == [42.0]


def test_a_partition_where_nothing_is_new_is_not_written(place: Place) -> None:
    one_session(place)
    assert place.fold().is_changed
    written = place.store.metadata(dataset.file_name(dataset.RECEIPTS, DAY))["token"]
    assert not place.fold().is_changed
    assert place.store.metadata(dataset.file_name(dataset.RECEIPTS, DAY))["token"] == written


def test_a_partition_keeps_only_the_registers_it_names(place: Place) -> None:
    one_session(place)
    for hour in range(3):
        place.land([answer(NOON + timedelta(hours=hour), [], ["s1"])])
        place.fold()
        commit = dataset.read_commit(place.store, DAY)
        assert commit is not None
        names = [dataset.file_name("registers", DAY, name) for name in commit.files]
        assert place.store.names("registers") == sorted(names)


def test_a_rebuild_without_raw_answers_reads_the_words_anew(place: Place) -> None:
    """After a purge the registers are the truth; a word learned since becomes an outcome."""
    row = {
        "session_no": "s1",
        "number": "n",
        "final": None,
        "open": {"asked_at": NOON, "rank": 6, "status": "unrecognized", "word": "DELIVRD"},
        "finals_seen": [],
    }
    table = pa.Table.from_pylist([row], schema.REGISTERS)
    [again] = registers.reread(table).to_pylist()
    assert again["open"] is None
    assert (again["final"]["status"], again["finals_seen"]) == ("delivered", ["delivered"])


@pytest.mark.parametrize("joined_at_once", [500_000, 1_000])
def test_what_is_folded_in_later_gives_what_a_rebuild_gives(
    place: Place, monkeypatch: pytest.MonkeyPatch, joined_at_once: int
) -> None:
    """Few sessions are looked at again, the others' rows stay; in the order of sending."""
    monkeypatch.setattr(fold, "_ROWS_JOINED", joined_at_once)
    names = [f"s{n:04}" for n in range(3_000)]
    place.announce(
        [
            {"session_no": name, "sent_at": NOON + n * timedelta(seconds=1)}
            for n, name in enumerate(names)
        ]
    )
    parts = [names[n : n + 100] for n in range(0, 3_000, 100)]
    place.land([heard(NOON, part, "sending") for part in parts])
    place.fold()
    registers_files = []
    for hour, some in enumerate((names[::50], names[:40], names[-1:], names[::50]), start=1):
        word = "sending" if hour == 1 else "delivered"
        place.land([heard(NOON + timedelta(hours=hour), some, word)])
        place.fold()
        registers_files.append(len(place.store.names("registers")))
    assert registers_files == [2, 3, 4, 5], "the settled ones are added to"
    stepwise = place.receipts()
    assert stepwise == sorted(stepwise, key=lambda row: row["sent_at"])
    assert sum(row["status"] == "delivered" for row in stepwise) == 100
    place.fold(is_anew=True)
    assert place.receipts() == stepwise


def heard(asked_at: datetime, sessions: list[str], word: str) -> dict[str, Any]:
    items = [item(one, receipt(PHONES[0], word)) for one in sessions]
    return answer(asked_at, items, sessions)


@pytest.mark.long
def test_settled_registers_are_put_together_when_they_are_many(place: Place) -> None:
    names = [f"s{n:02}" for n in range(60)]
    place.announce([{"session_no": name, "sent_at": NOON} for name in names])
    counts = []
    for hour, name in enumerate(names):
        place.land([heard(NOON + timedelta(hours=hour), [name], "delivered")])
        place.fold()
        counts.append(len(place.store.names("registers")))
    assert max(counts) <= 18
    stepwise = place.receipts()
    place.fold(is_anew=True)
    assert place.receipts() == stepwise


def test_a_settled_session_that_is_heard_of_again_is_joined_with_what_was_known(
    place: Place,
) -> None:
    place.announce([{"session_no": name, "sent_at": NOON} for name in ("s1", "s2")])
    place.land([heard(NOON + timedelta(hours=1), ["s1"], "delivered")])
    place.fold()
    place.land([heard(NOON + timedelta(hours=2), ["s1"], "UNDELIV")])
    place.fold()
    [row] = [row for row in place.receipts() if row["session_no"] == "s1"]
    assert (row["status"], row["conflicts"]) == ("delivered", ["failed"])


def test_rows_that_tie_in_time_are_dealt_the_same_way_at_every_fold(place: Place) -> None:
    """Two rows for two recipients each, and a number that neither announces."""
    hashes = [BOOK.recipient_id(phone) for phone in PHONES[:2]]
    rows = [
        {"session_no": f"s{n:03}", "sent_at": NOON, "recipient": one, "recipients": 2}
        for n in range(500)
        for one in hashes
    ]
    place.announce(rows)
    names = [f"s{n:03}" for n in range(500)]
    items = [item(one, receipt(PHONES[2], "delivered")) for one in names]
    place.land([answer(NOON, items, names)])
    place.fold()
    first = place.receipts()
    for _ in range(3):
        place.fold(is_anew=True)
        assert place.receipts() == first


def test_a_row_that_got_its_session_number_is_no_longer_there_without_it(place: Place) -> None:
    """It was the only one of those: none of the rows there now says that one is gone."""
    other = {"session_no": "s2", "sent_at": NOON}
    place.announce([{"session_no": None, "sent_at": NOON}, other])
    place.fold()
    place.announce([{"session_no": "s1", "sent_at": NOON}, other | {"changed_in": 1}])
    place.fold()
    assert [row["session_no"] for row in place.receipts()] == ["s1", "s2"]
