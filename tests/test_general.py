"""The rule for one session: any order, any repetition, the same rows; no row lost or doubled.

Worlds are drawn from a seed, which a failure names: ``GENERAL_SEED=n`` draws them again.
"""

from __future__ import annotations

import os
import random
from copy import deepcopy
from typing import Any

import pytest

from usms_pipeline.contract.schema import OBSERVATIONS, TEXT
from usms_pipeline.days import general
from usms_pipeline.days.general import COLUMN_OF, NO_NUMBER, Answer, Ends, Sent, Session

CUTOFF = 72
SEED = int(os.environ.get("GENERAL_SEED", random.SystemRandom().randrange(10**6)))
WORDS = {
    "delivered": "delivered", "UNDELIV": "failed", "expired": "expired", "unknow": "unknown",
    "sending": "pending", "": "pending", "NO_SUCH_WORD": "unrecognized",
}  # fmt: skip
Said = tuple[str, Answer, dict[str, Any]]
How = pytest.mark.parametrize("many", [500, pytest.param(100_000, marks=pytest.mark.long)])


def drawn_detail(rng: random.Random, name: str) -> Any:
    """Draw any answer."""
    is_text = OBSERVATIONS.field(name).type == TEXT
    return rng.choice([None, "E1", "E2"] if is_text else [None, 1, 2])


def said(rng: random.Random, numbers: str) -> Said:
    """Draw what a response says: of a number, of the session, nothing, or that it is refused."""
    asked_at = rng.choice([1, 1, 2, 3, 5, 80])
    submitted = {"submit_status": rng.choice(["success", "success", None])}
    kind = rng.choice(["silent", "refused", "whole", *["number"] * 6])
    if kind in ("silent", "refused"):
        return NO_NUMBER, Answer(asked_at, "invalid" if kind == "refused" else "pending"), submitted
    word = rng.choice([*WORDS])
    details = {name: drawn_detail(rng, name) for name in COLUMN_OF}
    details |= {"word": word or None, "submit_status": rng.choice(["success", None])}
    answer = Answer(asked_at, WORDS[word], **details)
    if kind == "whole":
        return NO_NUMBER, answer, submitted
    return (number := rng.choice(numbers)), answer, {"phone": f"+{number}****", **submitted}


def test_no_two_different_answers_are_equal_in_their_order():
    assert {"asked_at", "status", *COLUMN_OF} == {*Answer.__struct_fields__}
    for name in COLUMN_OF:
        value = "said" if OBSERVATIONS.field(name).type == TEXT else 1
        assert Answer(1, "failed").key != Answer(1, "failed", **{name: value}).key, name


def row(rng: random.Random, phones: str) -> Sent:
    phone = rng.choice([None, *phones])
    named = {} if phone is None else {"recipient": phone, "phone": f"+{phone}****"}
    return Sent(rng.choice([0, 0, 1, 2]), dimensions=[rng.choice([None, "otp"])], **named)


def stored(session: Session) -> list[dict[str, Any]]:
    """Return the rows as a day's file has them: with the state where it is not plain."""
    general.prune(session)
    made = general.rows("s", session, CUTOFF)
    state = None if made and general.session_of(made) == session else general.state_of(session)
    return [one | {"_state": state} for one in made]


def read_back(made: list[dict[str, Any]]) -> Session:
    state = made[0]["_state"]
    return general.session_from(state) if state else general.session_of(made)


def all_at_once(sent: list[Sent], heard: list[Said]) -> list[dict[str, Any]]:
    session = Session(sent=deepcopy(sent))
    for one in heard:
        general.observe(session, *one)
        if digits := one[2].get("digits"):
            session.numbers[one[0]].ends = ends(digits)
    return stored(session)


@How
def test_answers_folded_one_by_one_and_all_at_once_in_any_order_give_the_same_rows(many):
    rng = random.Random(SEED)
    for world in range(many):
        sent: list[Sent] = []
        general.announce(sent, [row(rng, "PQR") for _ in range(rng.choice([1, 1, 1, 2, 3]))], 0, 99)
        heard = [said(rng, "PQM") for _ in range(rng.choice([1, 2, 3, 4, 6]))]
        expected = all_at_once(sent, heard)
        arriving = [*heard, *heard[: len(heard) // 2]]
        rng.shuffle(arriving)
        made = all_at_once(sent, [])
        for one in arriving:
            session = read_back(made)
            general.observe(session, *one)
            made = stored(session)
        assert made == expected, f"seed {SEED}, world {world}: {sent} {arriving}"


@How
def test_every_row_announced_is_in_one_bucket_and_no_number_is_in_two(many):
    rng = random.Random(SEED)
    for world in range(many):
        sent: list[Sent] = []
        general.announce(sent, [row(rng, "PQR") for _ in range(rng.choice([1, 2, 3]))], 0, 99)
        heard = [said(rng, "PQMN") for _ in range(rng.choice([0, 2, 4, 6]))]
        made = all_at_once(sent, heard)
        assert sum(one["is_announced"] for one in made) == len(sent), f"seed {SEED}, world {world}"
        recipients = [one["recipient"] for one in made]
        assert len({*recipients}) == len(recipients), f"seed {SEED}, world {world}: {recipients}"
        numbers = {number for number, answer, _ in heard if number}
        shown = {one["recipient"] for one in made}
        matched = len(sent) == len(numbers) == 1 or any(not one.recipient for one in sent)
        assert matched or numbers <= shown, f"seed {SEED}, world {world}"
        assert all(one["is_final"] or one["status"] not in ("failed", "rejected") for one in made)


@How
def test_a_source_read_again_neither_grows_nor_changes_a_session(many):
    rng = random.Random(SEED)
    for world in range(many // 5):
        table = [row(rng, "PQR") for _ in range(rng.choice([1, 2, 3]))]
        kept: list[Sent] = []
        most = 0
        for _ in range(4):
            table = [one if rng.random() < 0.6 else row(rng, "PQR") for one in table]
            general.announce(kept, table, 0, 99)
            phones = {one.recipient for one in table if one.recipient}
            most = max(most, len(phones) + sum(one.recipient is None for one in table))
            again = deepcopy(kept)
            general.announce(again, table, 0, 99)
            assert again == kept, f"seed {SEED}, world {world}"
            assert len(kept) <= most, f"seed {SEED}, world {world}"


@How
def test_what_is_read_in_two_windows_is_what_is_read_in_one(many):
    rng = random.Random(SEED)
    for world in range(many // 5):
        table = [row(rng, "PQ") for _ in range(rng.choice([1, 2, 3]))]
        whole: list[Sent] = []
        general.announce(whole, table, 0, 99)
        parts: list[Sent] = []
        for first, last in rng.sample([(0, 1), (1, 2), (2, 99)], 3):
            general.announce(parts, [r for r in table if first <= r.sent_at < last], first, last)
        assert len(parts) == len(whole), f"seed {SEED}, world {world}"


# -- one fact each ---------------------------------------------------------------------------


def two(first: Sent, second: Sent, *heard: Said) -> list[dict[str, Any]]:
    sent: list[Sent] = []
    general.announce(sent, [first, second], 0, 99)
    return [one for one in all_at_once(sent, list(heard)) if one["is_announced"]]


def ends(digits: str) -> Ends:
    """Beginnings and ends as themselves: hashes are for where they are kept."""
    heads = [digits[:n] for n in range(1, len(digits) + 1)]
    return Ends(heads, [digits[-n:] if n else "" for n in range(len(digits) + 1)])


def heard(number: str, word: str = "delivered", at: int = 1, digits: str = "") -> Said:
    who = {"digits": digits}
    return number, Answer(at, WORDS[word], word), who


GENERATIONS = [
    ("525512345678", "5215512345678"),  # Mexico before and after 2019
    ("551187654321", "5511987654321"),  # Brazil's ninth digit
    ("22997123456", "2290197123456"),  # Benin since November 2024
    ("4901711234567", "491711234567"),  # a trunk zero kept
    ("8614912345678901", "14912345678901"),
]


@pytest.mark.parametrize(("written", "told"), GENERATIONS)
def test_a_number_written_in_another_generation_is_the_same_recipient(written, told):
    other = "8613800138000"
    made = two(
        Sent(0, recipient="A", ends=ends(written)),
        Sent(0, recipient="B", ends=ends(other)),
        heard("X", "UNDELIV", digits=told),
        heard("B", digits=other),
    )
    assert {one["recipient"]: one["status"] for one in made} == {"A": "failed", "B": "delivered"}


def test_an_ending_that_two_rows_share_matches_neither():
    sent = [Sent(0, recipient="A", ends=ends("8613800138000"))]
    sent.append(Sent(0, recipient="B", ends=ends("8523800138000")))
    made = two(*sent, heard("X", digits="13800138000"[3:]))
    assert [one["status"] for one in made] == ["pending", "pending"]


def test_the_longest_ending_decides():
    sent = [Sent(0, recipient="A", ends=ends("8613800138000"))]
    sent.append(Sent(0, recipient="B", ends=ends("8613900138000")))
    made = two(*sent, heard("X", digits="13900138000"), heard("Y", "UNDELIV", 1, "013800138000"))
    assert [one["status"] for one in made] == ["failed", "delivered"]


def test_a_mask_takes_the_one_number_that_looks_like_it():
    sent = [Sent(0, mask="138*8000"), Sent(0, mask="185*9057")]
    made = two(*sent, heard("X", digits="18512349057"), heard("Y", "UNDELIV", digits="13800008000"))
    assert [one["status"] for one in made] == ["failed", "delivered"]
    unclear = two(*sent, heard("X", digits="18512349057"), heard("Z", digits="18599999057"))
    assert [one["status"] for one in unclear] == ["pending", "pending"]


def test_an_outcome_shown_stays_with_its_row_when_one_more_number_comes():
    for number in ("A", "Z"):  # in any order of the hashes
        first = two(Sent(0), Sent(1), heard("M", at=1))
        assert [one["status"] for one in first] == ["delivered", "pending"]
        later = two(Sent(0), Sent(1), heard("M", at=1), heard(number, "UNDELIV", at=2))
        assert [one["status"] for one in later] == ["delivered", "failed"]


def test_a_number_in_another_form_stays_with_its_row_when_one_more_comes_or_is_announced():
    session = Session(sent=[Sent(0, recipient="A", ends=ends("525512345678"))])
    for place, digits in enumerate(("5215512345678", "8613800138000")):
        general.observe(session, "XY"[place], Answer(place + 1, "delivered", "delivered"), {})
        session.numbers["XY"[place]].ends = ends(digits)
        made = stored(session)
        assert (made[0]["recipient"], made[0]["status"]) == ("A", "delivered")
        session = read_back(made)
    own = Sent(0, recipient="A", ends=ends("525512345678"))
    general.announce(session.sent, [own, Sent(0, recipient="B")], 0, 99)
    assert [one["status"] for one in stored(session)] == ["delivered", "pending", "delivered"]


READ_AGAIN = [
    ("0Pa", "0-a", "0Pa", 0),  # blanked: the phone stays
    ("0-a", "0Pa", "0Pa", 0),  # filled in
    ("0Pa 0Qa", "0-a 0-a", "0Pa 0Qa", 0),
    ("0Pa 7Ra", "7-b", "0Pa 7Rb", 1),  # of that time, though edited too
    ("0-a 7-a", "7Rb", "0-a 7Rb", 1),
    ("0-a 0-b", "0Pb", "0Pb 0-a", 1),  # of two at once, the one whose dimensions stayed
    ("0Pa", "5Pa", "5Pa", 0),  # rescheduled
    ("0Pa", "0Qa", "0Qa", 0),  # corrected
    ("0Pa", "0Pb 7Pc", "0Pb", 0),  # a copy
    ("", "0-a 0-a", "0-a 0-a", 0),
    ("0Pa 0Qa", "0Pa", "0Pa 0Qa", 1),  # gone from the source
    ("0Pa", "0Pa 3-a", "0Pa 3-a", 0),
]


def sent(text: str) -> list[Sent]:
    """Read rows: when, whose (``-``: no phone), which dimension."""
    named = [(int(at), None if who == "-" else who, what) for at, who, what in text.split()]
    return [Sent(at, who, dimensions=[what]) for at, who, what in named]


@pytest.mark.parametrize(("stored", "read", "kept", "gone"), READ_AGAIN)
def test_rows_read_again_are_those_that_are_stored(stored, read, kept, gone):
    rows = sent(stored)
    missing, new = general.announce(rows, sent(read), 0, 99)
    assert rows == sent(kept)
    assert (missing, len(new)) == (gone, len(rows) - len(stored.split()))
    assert general.announce(rows, [], 50, 99) == (0, []), "it was not read"


@pytest.mark.parametrize(
    ("rows", "statuses"),
    [("0Pa", ["delivered"]), ("0-a", ["delivered"]), ("0Pa 0-a", ["pending", "delivered"]),
     ("0Pa 0Qa", ["pending", "pending"])],
)  # fmt: skip
def test_a_receipt_without_a_number_goes_to_the_only_row_or_the_first_without_a_phone(
    rows, statuses
):
    assert [one["status"] for one in all_at_once(sent(rows), [heard(NO_NUMBER)])] == statuses


def test_the_first_evidence_stays_and_others_are_conflicts():
    said = [heard("P", "UNDELIV", at=2), heard("P", at=1), heard("P", "expired", at=3)]
    [made] = all_at_once([Sent(0, recipient="P")], said)
    assert (made["status"], made["final_at"], made["conflicts"]) == (
        "delivered", 1, ["expired", "failed"],
    )  # fmt: skip


def test_a_receipt_of_the_future_is_no_time_and_stays_known():
    session = Session(sent=[Sent(0)])
    late = Answer(1, "delivered", "delivered", received_at=10**12)
    general.observe(session, "P", late, {})
    [made] = stored(session)
    assert (made["received_at"], made["delivery_seconds"], made["status"]) == (
        None,
        None,
        "delivered",
    )
    assert read_back([made]).numbers["P"].final == late


def test_a_refused_session_closes_only_recipients_without_a_final_status():
    """A final status without a number is one recipient's: it says nothing of the others."""
    session = Session(sent=[Sent(0), Sent(0)])
    general.observe(session, NO_NUMBER, Answer(1, "delivered", "delivered"), {})
    general.observe(session, NO_NUMBER, Answer(2, "invalid"), {})
    made = stored(session)
    assert [(one["status"], one["is_closed"]) for one in made] == [
        ("delivered", False),
        ("invalid", True),
    ]


@pytest.mark.parametrize("own", [None, "P"])
def test_the_usual_way_of_a_message_never_needs_a_state(own):
    """Unreadable answers, then a final status, or never one: the row says it all."""
    for polls in range(5):
        session = Session(sent=[Sent(0, recipient=own)])
        for at in range(1, polls + 1):
            general.observe(session, NO_NUMBER, Answer(at, "pending"), {"submit_status": "success"})
            [made] = stored(session)
            assert made["_state"] is None
            session = read_back([made])
        outcome = Answer(9, "delivered", "delivered", 1, submit_status="success")
        general.observe(session, "P", outcome, {"submit_status": "success"})
        [made] = stored(session)
        assert (made["_state"], made["last_open_at"]) == (None, polls or None)
