"""Raw answers to observations: every shape, both ways of reading, nothing lost."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from unittest import mock

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from usms_pipeline.contract import status
from usms_pipeline.contract.schema import OBSERVATIONS, QUARANTINE, RESPONSES
from usms_pipeline.people.phones import PhoneBook
from usms_pipeline.service import api
from usms_pipeline.service import decode as service_decode
from usms_pipeline.service.careful import joined, read_bodies
from usms_pipeline.service.decode import Answer, read_block

BOOK = PhoneBook(bytes(32), "CN", "masked")
ASKED_AT = datetime(2024, 1, 2, tzinfo=UTC)
ZONE = "Asia/Shanghai"


def response(body, ids=("a",), verdict="ok", **more):
    return {
        "asked_at": ASKED_AT,
        "ids": list(ids),
        "http_status": 200,
        "ret_code": 0,
        "verdict": verdict,
        "reason": None,
        "body": body if isinstance(body, bytes) else json.dumps(body).encode(),
        **more,
    }


def decode(*responses, zone=ZONE):
    return service_decode.decode(pa.Table.from_pylist(list(responses), RESPONSES), BOOK, zone)


def answer(*items, **more):
    return {"RetCode": 0, "Message": "success", "Data": list(items), **more}


def item(session="a", receipt=None, **more):
    return {"SessionNo": session, "Status": "success", "Receipt": receipt, **more}


def receipts(decoded):
    """Return the rows that say more than when a session was asked about."""
    rows = decoded.observations.to_pylist()
    return [row for row in rows if not is_silent(row)]


def is_silent(row):
    said = ("received_at", "code", "word", "description", "segments")
    return row["number"] == "" and not row["is_final"] and all(row[name] is None for name in said)


def in_vain(decoded):
    """Return the ids without a readable answer: of each it is known when, and nothing else."""
    rows = [row for row in decoded.observations.to_pylist() if row["status"] is None]
    known = {"session_no", "number", "asked_at"}
    assert all({name for name, value in row.items() if value is not None} == known for row in rows)
    assert {row["number"] for row in rows} <= {""}
    return [(row["session_no"], row["asked_at"]) for row in rows]


def one_receipt(receipt, **more):
    (seen,) = receipts(decode(response(answer(item(receipt=receipt, **more)))))
    return seen


DELIVERED = {
    "Phone": "13800138000", "Status": "delivered", "ReceiveTime": "2024-01-01 12:00:00",
}  # fmt: skip


def test_a_session_without_a_receipt_was_asked_about_and_is_pending():
    decoded = decode(response(answer(item())))
    (asked,) = decoded.observations.to_pylist()
    assert asked == {
        **dict.fromkeys(OBSERVATIONS.names),
        "session_no": "a",
        "number": "",
        "asked_at": ASKED_AT,
        "status": "pending",
        "is_final": False,
        "session_submit_status": "success",
    }
    assert decoded.rejects.num_rows == 0


def test_the_documented_example_is_a_final_receipt_of_a_session_asked():
    decoded = decode(response(answer(item(receipt=DELIVERED))))
    (said,) = decoded.observations.to_pylist()
    assert said == {
        **dict.fromkeys(OBSERVATIONS.names),
        "session_no": "a",
        "number": BOOK.recipient_id("13800138000"),
        "phone": "+86138****00",
        "country": "CN",
        "operator": "China Mobile",
        "number_type": "mobile",
        "asked_at": ASKED_AT,
        "received_at": datetime(2024, 1, 1, 4, tzinfo=UTC),
        "word": "delivered",
        "status": "delivered",
        "submit_status": "success",
        "is_final": True,
        "session_submit_status": "success",
        "digits": "8613800138000",
    }
    assert decoded.rejects.num_rows == 0


def test_a_repeated_session_is_asked_once_and_all_its_receipts_count():
    twice = (item("b", Status="t"), item("b", Status="s"))
    body = answer(item(receipt=DELIVERED), *twice, item(receipt=DELIVERED, Status="s"))
    decoded = decode(response(body, ["a", "b"]))
    own = [row for row in decoded.observations.to_pylist() if is_silent(row)]
    assert [(row["session_no"], row["session_submit_status"]) for row in own] == [("b", "s")]
    told = [(row["submit_status"], row["session_submit_status"]) for row in receipts(decoded)]
    assert told == [("success", "s"), ("s", "s")]


def test_the_older_form_of_a_receipt_is_understood():
    old = {
        "Phone": "(86)13800138000", "ReceiptResult": "UNDELIV", "ReceiptCode": "MK:0001",
        "ReceiptDesc": "空号", "ReceiptTime": 1704081600, "CostCount": 2, "UserId": "u",
    }  # fmt: skip
    (seen,) = receipts(decode(response(answer(item(ReceiptSet=[old])))))
    assert seen["number"] == BOOK.recipient_id("13800138000")
    assert (seen["status"], seen["word"], seen["code"]) == ("failed", "UNDELIV", "MK:0001")
    assert (seen["description"], seen["segments"]) == ("空号", 2)
    assert seen["received_at"] == datetime(2024, 1, 1, 4, tzinfo=UTC)


def test_numbers_where_text_is_expected_are_kept_as_they_are_written():
    body = (
        b'{"Data":[{"SessionNo":17,"Status":0,"Receipt":{"Phone":13800138000,"Status":"fail",'
        b'"ReceiptCode":1.50,"ReceiveTime":1704081600,"CostCount":"3"}}]}'
    )
    (seen,) = receipts(decode(response(body, ids=["17"])))
    assert seen["number"] == BOOK.recipient_id("13800138000")
    assert (seen["code"], seen["submit_status"], seen["segments"]) == ("1.50", "0", 3)
    assert seen["received_at"] == datetime(2024, 1, 1, 4, tzinfo=UTC)


def test_a_receipt_without_a_phone_is_a_row_of_the_session_itself():
    seen = one_receipt({"Status": "delivered"})
    assert (seen["number"], seen["phone"], seen["status"]) == ("", None, "delivered")


def test_receipts_that_mask_their_phones_are_told_apart_within_their_session():
    """They stand for nobody in another session; without a number their words would be one's."""
    some = [{**DELIVERED, "Phone": phone} for phone in ("138****8000", "185****9057")]
    body = answer(item("a", some), item("b", some[:1]))
    seen = receipts(decode(response(body, ["a", "b"])))
    assert len({row["number"] for row in seen} - {""}) == 3
    assert [row["phone"] for row in seen] == ["138****00", "185****57", "138****00"]
    assert {row["country"] for row in seen} == {row["digits"] for row in seen} == {None}


@pytest.mark.parametrize("name", status.BUCKETS[:-1])
def test_a_word_is_final_or_open_as_the_table_of_words_says(name):
    word = api.WORDS.get(name, ("MK:0001",))[-1]
    seen = one_receipt({"Phone": "13800138000", "Status": f" {word.upper()} "})
    is_final = name in status.FINAL
    assert seen["is_final"] is is_final
    assert seen["status"] == name
    assert seen["word"] == f" {word.upper()} "


NOON, QUARTER = datetime(2024, 1, 1, 4, tzinfo=UTC), timedelta(milliseconds=250)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-01-01 12:00:00", NOON), ("2024-01-01 12:00:00.250", NOON + QUARTER),
        ("2024-01-01T12:00:00+08:00", NOON), ("2024-01-01T04:00:00Z", NOON),
        ("2024年1月1日 12:00:00", NOON), ("2024-01-01 12:00:00 +0800 CST", NOON),
        ("2401011200", NOON), (2401011200, NOON), (20240101120000, NOON), ("3001011200", None),
        ("01/01/2024 12:00:00", NOON), ("02/01/2024 12:00:00", None),
        ("1704081600000", NOON), (1704081600.0, NOON), ("", None), ("0000-00-00 00:00:00", None),
        ("2024-02-30 00:00:00", None), ("0001-01-01T00:00:00+14:00", None), ("yesterday", None),
        ("9" * 400, None), (True, None), (None, None),
    ],
)  # fmt: skip
def test_receive_time(text, expected):
    """Every form that is read: tests/test_source_moments.py."""
    receipt = {**DELIVERED, "ReceiveTime": text}
    assert one_receipt(receipt)["received_at"] == expected
    mixed = [response(answer(item(receipt=r))) for r in (DELIVERED, receipt, DELIVERED)]
    assert [row["received_at"] for row in receipts(decode(*mixed))] == [NOON, expected, NOON]


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1704081600, NOON), (1704081600000, NOON), ("1704081600", NOON), (0, None), (-5, None),
     (2401011200, NOON), (240101120000, NOON),
     (10**30, None), (1e999, None), ("soon", None), (None, None)],
)  # fmt: skip
def test_receipt_time(count, expected):
    receipt = {"Phone": "1", "ReceiptResult": "fail", "ReceiptTime": count}
    assert one_receipt({}, ReceiptSet=[receipt])["received_at"] == expected


@pytest.mark.parametrize(
    ("text", "is_in_doubt"),
    [("soon", True), ("2046-01-01 00:00:00", True), ("02/01/2024 12:00:00", True),
     (3001011200, True), ("2024-01-01 12:00:00", False), ("", False), (None, False), (0, False),
     ("0000-00-00 00:00:00", False)],
)  # fmt: skip
def test_times_that_can_not_be_right_are_counted(text, is_in_doubt):
    told = [{**DELIVERED, "ReceiveTime": one} for one in (text, "2024-01-01 11:00:00", text)]
    body = answer(*(item(f"s{n}", receipt) for n, receipt in enumerate(told)))
    decoded = decode(response(body, ids=("s0", "s1", "s2")))
    assert decoded.times_in_doubt == 2 * is_in_doubt
    assert decoded.observations.num_rows == 3


@pytest.mark.parametrize("segments", [-1, 2**31, 10**30, "x", 1.5])
def test_segments_that_can_not_be_are_null_and_cost_nothing_else(segments):
    assert one_receipt({**DELIVERED, "CostCount": segments})["segments"] is None


BAD = [
    (None, None), (7, None), ([], None), ({}, None), (item(None), None), (item("  "), None),
    (item(["a"]), None), (item(receipt=7), "a"), (item(receipt=[7]), "a"),
    (item(receipt={"Phone": {}}), "a"), (item(ReceiptSet=[[DELIVERED]]), "a"),
    (item(Status={"x": 1}), "a"),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "session"), BAD)
def test_a_bad_item_does_not_affect_its_neighbours(bad, session):
    body = answer(item("b", DELIVERED), bad, item("c", DELIVERED))
    decoded = decode(response(body, ids=["a", "b", "c"]))
    assert [row["session_no"] for row in receipts(decoded)] == ["b", "c"]
    (reject,) = decoded.rejects.to_pylist()
    assert (reject["kind"], reject["session_no"], reject["state"]) == ("bad_item", session, "open")
    assert json.loads(reject["body"]) == bad
    assert reject["ids"] == ["a", "b", "c"]


NO_LISTS = [{}, item(receipt=DELIVERED), "", "oops", 0, 7, True, False]


@pytest.mark.parametrize("data", NO_LISTS)
@pytest.mark.parametrize("company", [0, 5])
def test_data_that_is_no_list_says_nothing_of_any_session(data, company):
    """Read as a lone item it would have closed a hundred sessions that it says nothing about."""
    good = response(answer(item("c", DELIVERED)), ["c"])
    decoded = decode(*[good] * company, response({"RetCode": 0, "Data": data}, ["a", "b"]))
    assert in_vain(decoded) == [("a", ASKED_AT), ("b", ASKED_AT)]
    assert (len(receipts(decoded)), decoded.observations.num_rows) == (company, company + 2)
    [reject] = decoded.rejects.to_pylist()
    assert (reject["kind"], reject["session_no"]) == ("unreadable_answer", None)
    assert reject["reason"] == "the answer's Data is not a list"


@pytest.mark.parametrize("company", [1, 60])
@pytest.mark.parametrize(
    ("asked", "named", "meant"),
    [
        (["ab-1f"], " ab-1f\t", "ab-1f"),
        (["ab-1f"], "AB-1F", "ab-1f"),
        (["AB 1f", "other"], "ab1F", "AB 1f"),
        (["straße"], "STRASSE", "straße"),
        (["ab-1f", "ab-1g"], "\u200bAb-1G\0", "ab-1g"),
        (["00917", "other"], "917", "00917"),
        (["6ba7-b810"], "{6BA7B810}", "6ba7-b810"),
        (["0917", "00917"], "917", None),
        (["ab-1f", "AB-1F"], "AB-1F", "AB-1F"),
        (["ab-1f", "AB-1F"], "aB-1f", None),
        (["a b", "ab"], "A B", None),
    ],
)
def test_a_session_number_in_another_case_matches_only_if_it_is_unambiguous(
    asked, named, meant, company
):
    """Also among answers of which the others are plain and read at once."""
    plain = [response(answer(item("z", DELIVERED)), ids=["z"])] * (company - 1)
    body = answer(item(named, DELIVERED))
    decoded = decode(*plain, response(body, ids=asked))
    told = [row["session_no"] for row in receipts(decoded) if row["session_no"] != "z"]
    assert told == ([meant] if meant else [])
    unasked = [row["session_no"] for row in decoded.rejects.to_pylist()]
    assert unasked == ([] if meant else [named])
    silent = {*asked} - {*told}
    assert silent <= {row["session_no"] for row in decoded.observations.to_pylist()}


def test_a_name_in_another_case_is_another_session_where_the_one_it_could_mean_is_named_too():
    failed = DELIVERED | {"Status": "failed"}
    body = answer(item("ab1", DELIVERED), item("AB1", failed))
    decoded = decode(response(body, ids=["ab1"]))
    assert [(row["session_no"], row["status"]) for row in receipts(decoded)] == [
        ("ab1", "delivered")
    ]
    assert [row["session_no"] for row in decoded.rejects.to_pylist()] == ["AB1"]


def test_an_id_that_was_unanswered_while_others_were_not_is_pending_and_set_aside_once():
    """It closes at the cutoff, as one does of which the service says nothing."""
    silence = {"verdict": "unanswered", "http_status": None, "ret_code": None}
    page = silence | {"http_status": 404, "reason": "HTTP 404"}
    later = {"asked_at": ASKED_AT + timedelta(hours=1)}
    decoded = decode(response(b"", **silence), response(b"<html>", **page | later))
    rows = [(row["session_no"], row["status"]) for row in decoded.observations.to_pylist()]
    assert rows == [("a", "pending")] * 2
    entries = decoded.rejects.to_pylist()
    assert {(one["kind"], one["session_no"]) for one in entries} == {("unanswered_id", "a")}
    assert len({one["id"] for one in entries}) == 1
    assert entries[1]["reason"] == "HTTP 404"


def test_an_unreadable_answer_to_several_ids_is_kept_and_says_nothing_of_any():
    """Nothing could be read then: they are asked about again by the next run."""
    decoded = decode(response(b"<html>", ids=["a", "b"], verdict="unreadable"))
    assert decoded.observations.num_rows == 0
    [entry] = decoded.rejects.to_pylist()
    assert (entry["kind"], entry["ids"]) == ("unreadable_answer", ["a", "b"])


def test_a_refused_id_is_invalid_and_quarantined():
    decoded = decode(
        response({"RetCode": 215392}, ["x"], "refused", ret_code=215392, reason="Invalid [id]")
    )
    (row,) = decoded.observations.to_pylist()
    assert (row["session_no"], row["number"], row["asked_at"]) == ("x", "", ASKED_AT)
    assert (row["status"], row["word"]) == ("invalid", None)
    assert (row["code"], row["description"]) == ("215392", "Invalid [id]")
    (reject,) = decoded.rejects.to_pylist()
    assert (reject["kind"], reject["session_no"]) == ("refused_id", "x")


def test_an_unreadable_answer_counts_as_asked_and_its_first_64_kb_are_kept():
    decoded = decode(response(b"<html>" * 50_000, ["x"], "unreadable", reason="not JSON"))
    assert in_vain(decoded) == [("x", ASKED_AT)]
    assert decoded.observations.num_rows == 1
    (reject,) = decoded.rejects.to_pylist()
    assert (reject["kind"], reject["reason"]) == ("unreadable_answer", "not JSON")
    assert len(reject["body"]) == 64 * 1024


def test_ids_of_a_body_that_was_emptied_were_asked_about_and_nothing_was_said():
    decoded = decode(
        response(b"", ["a", "b"], "forgotten"), response(answer(item("c", DELIVERED)), ["c"])
    )
    rows = [row for row in decoded.observations.to_pylist() if row["number"] == ""]
    assert [(row["session_no"], row["status"], row["is_final"]) for row in rows] == [
        ("a", "pending", False),
        ("b", "pending", False),
    ]
    assert (len(receipts(decoded)), decoded.rejects.num_rows) == (1, 0)


DAMAGED = {
    "byte-order mark": b'\xef\xbb\xbf{"Data":[ITEM]}',
    "not UTF-8": b'{"Message":"\xff\xfe","Data":[ITEM]}',
    "lone surrogate": b'{"Message":"\\ud800","Data":[ITEM]}',
    "NaN": b'{"Price":NaN,"Data":[ITEM]}',
    "huge number": b'{"Price":' + b"9" * 6000 + b',"Data":[ITEM]}',
    "infinite number": b'{"Price":1e999,"Data":[ITEM]}',
    "repeated name": b'{"Data":[],"Data":[ITEM]}',
    "raw line break in text": b'{"Message":"a\nb","Data":[ITEM]}',
    "line breaks between": b'{\r\n"Data":\n[ITEM]\n}\n',
    "unknown fields": b'{"Total":[[{}]],"Data":[ITEM]}',
    "nested 200 deep": b'{"x":' + b"[" * 200 + b"]" * 200 + b',"Data":[ITEM]}',
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_elsewhere_in_the_answer_costs_no_receipt(name):
    body = DAMAGED[name].replace(b"ITEM", json.dumps(item(receipt=DELIVERED)).encode())
    decoded = decode(response(body))
    assert [row["status"] for row in receipts(decoded)] == ["delivered"]
    assert decoded.rejects.num_rows == 0


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"7", b"{", b'{},"x":{}', b'{}{"Data":[]}', b"<html>",
     b'{"x":' + b"[" * 300_000 + b"]" * 300_000 + b"}"],
)  # fmt: skip
def test_an_answer_that_is_no_object_is_quarantined_and_its_neighbours_are_not(body):
    good = response(answer(item(receipt=DELIVERED)))
    decoded = decode(good, response(body), *[good] * 5)
    assert decoded.rejects["kind"].to_pylist() == ["unreadable_answer"]
    assert (len(receipts(decoded)), decoded.observations.num_rows) == (6, 7)
    assert in_vain(decoded) == [("a", ASKED_AT)]


def test_no_phone_gets_into_a_reason():
    for bad, _ in BAD:
        (reject,) = decode(response(answer(bad))).rejects.to_pylist()
        assert not any(character.isdigit() for character in reject["reason"])


def test_decoding_nothing_gives_empty_tables_with_the_right_schema():
    decoded = decode()
    assert decoded.observations.schema == OBSERVATIONS
    assert decoded.rejects.schema == QUARANTINE
    assert decoded.observations.num_rows == decoded.rejects.num_rows == 0


# --- Laws over made-up answers -----------------------------------------------------------------

SESSIONS = ["a", "b", "c", "d", "e", "unasked", " a "]
texts = st.sampled_from(
    ["", "x", "13800138000", "delivered", "FAIL", "\u0000", "空号", "1704081600"]
)
odd = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
values = st.one_of(texts, texts, texts, odd)
some_receipts = st.one_of(
    st.just(DELIVERED),
    st.fixed_dictionaries(
        {},
        optional={
            "Phone": values,
            "Status": values,
            "ReceiptResult": values,
            "ReceiveTime": values | st.just("2024-01-01 12:00:00"),
            "ReceiptTime": st.integers(-5, 2**40) | odd,
            "ReceiptCode": values,
            "ReceiptDesc": values,
            "CostCount": st.integers(-5, 2**33) | odd,
            "Other": values,
        },
    ),
)
rare = st.sampled_from([7, "x", [], [[]], {"Phone": []}, True])
some_items = st.fixed_dictionaries(
    {"SessionNo": st.sampled_from(SESSIONS)},
    optional={
        "Status": st.sampled_from(["success", "failed"]) | odd,
        "Receipt": st.one_of(
            some_receipts, st.lists(some_receipts | rare | st.none(), max_size=4), st.none(), rare
        ),
        "ReceiptSet": st.none() | st.lists(some_receipts | st.none(), max_size=4) | rare,
    },
)
plain_items = st.builds(
    item,
    st.sampled_from(SESSIONS[:5]),
    st.none() | st.just(DELIVERED) | st.just({}),
    ReceiptSet=st.none() | st.lists(st.just({**DELIVERED, "ReceiptTime": 1704081600}), max_size=2),
)
bodies = st.one_of(
    st.lists(plain_items, max_size=6),
    st.lists(plain_items, max_size=6),
    st.lists(some_items | st.none() | rare, max_size=6),
    rare,
).map(lambda data: json.dumps({"RetCode": 0, "Data": data}).encode())
answers = st.lists(
    st.tuples(bodies, st.lists(st.sampled_from(SESSIONS[:5]), max_size=5, unique=True)),
    max_size=12,
)


def check_ways(numbered):
    """Both ways of reading give the same, in any order of receipts. Gives the careful one.

    Arrow is tried down to the single answer, so that the two are compared on each.
    """
    apart = joined([read_bodies(numbered)])
    with mock.patch.object(service_decode, "SMALL_BYTES", 0):
        together = read_block(numbered)
    assert together.rejects == apart.rejects, numbered
    assert together.items.equals(apart.items), numbered
    said, expected = (sorted(map(repr, one.receipts.to_pylist())) for one in (together, apart))
    assert said == expected, numbered
    return apart


@settings(max_examples=100)
@given(answers)
def test_both_ways_of_reading_give_the_same(made):
    check_ways([Answer(number, body, ids) for number, (body, ids) in enumerate(made)])


ITEM = json.dumps(item(receipt=DELIVERED)).encode()
IN_A_LIST = json.dumps(item(receipt=[DELIVERED, {**DELIVERED, "Phone": "1"}])).encode()
NO_NUMBERS = "Inf", "-Inf", "NaN", "-NaN", "Infinity", "-Infinity", "01", "1.", "-", "0x1"
OTHERWISE = {
    **{name: body.replace(b"ITEM", ITEM) for name, body in DAMAGED.items()},
    "a second object": b'{"Data":[%b]}{"Data":[]}' % ITEM,
    "a second object behind a comma": b'{"Data":[%b]},"x":{}' % ITEM,
    "objects around null": b'{"Data":[%b]}null{}' % ITEM,
    "half an object": b'{"Data":[%b],"x":{' % ITEM,
    "the other half": b'"y":1}} {"Data":[%b]}' % ITEM,
    "a text that goes on": b'{"Data":[%b],"x":"}' % ITEM,
    "a text that ends": b'{"}',
    "nothing": b"",
    "blanks": b" \n\t",
    "null": b"null",
    "NUL behind": b'{"Data":[%b]}\x00' % ITEM,
    "NUL between": b'{"Data":[%b]\x00}' % ITEM,
    "NUL in a text": b'{"Data":[%b],"x":"\x00"}' % ITEM,
    "escaped NUL": b'{"Data":[%b]}' % ITEM.replace(b"delivered", b"\\u0000"),
    "control character": b'{"Data":[%b]}' % ITEM.replace(b"delivered", b"deli\tvered"),
    "line break in a word": b'{"Data":[%b]}' % ITEM.replace(b"delivered", b"deli\nvered"),
    **{
        f"{number} elsewhere": b'{"x":%b,"Data":[%b]}' % (number.encode(), ITEM)
        for number in NO_NUMBERS
    },
    **{
        f"{number} segments": b'{"Data":[%b]}'
        % ITEM.replace(b'"Phone"', b'"CostCount":%b,"Phone"' % number.encode())
        for number in ("NaN", "-0", "1e2", "1.0", str(-(2**63)), str(2**63), "9" * 400, '"3"')
    },
    "name twice in a receipt": b'{"Data":[%b]}' % ITEM.replace(b'"Phone"', b'"Phone":"1","Phone"'),
    "name twice, once escaped": b'{"Data":[%b]}'
    % ITEM.replace(b'"Phone"', b'"Ph\\u006fne":"1","Phone"'),
    "receipt twice": b'{"Data":[%b]}' % ITEM.replace(b'"Receipt"', b'"Receipt":null,"Receipt"'),
    "receipt twice, once a list": b'{"Data":[%b]}'
    % ITEM.replace(b'"Receipt"', b'"Receipt":[{"Phone":"2"}],"Receipt"'),
    "unknown name twice": b'{"x":1,"x":2,"Data":[%b]}' % ITEM,
    "half a pair of surrogates": b'{"Data":[%b]}' % ITEM.replace(b"delivered", b"\\udc00"),
    "no UTF-8 in a word": b'{"Data":[%b]}' % ITEM.replace(b"delivered", b"\xed\xa0\x80"),
    "nested 5,000 deep": b'{"x":%b,"Data":[%b]}' % (b"[" * 5_000 + b"]" * 5_000, ITEM),
    "null among the items": b'{"Data":[null,%b,null]}' % ITEM,
    "lists": b'{"Data":[%b]}' % IN_A_LIST,
    "lists beside objects": b'{"Data":[%b,%b,%b]}' % (IN_A_LIST, ITEM, IN_A_LIST),
    "a brace in a text, beside a list": b'{"Data":[%b,%b]}'
    % (ITEM.replace(b"delivered", b"deliver}ed"), IN_A_LIST),
    "braces in a text, beside a list": b'{"Data":[%b,%b]}'
    % (ITEM.replace(b"delivered", b"{}[]}]"), IN_A_LIST),
    "an object within a receipt, beside a list": b'{"Data":[%b,%b]}'
    % (ITEM.replace(b'"Phone"', b'"x":{"y":{}},"Phone"'), IN_A_LIST),
    "empty receipts, beside a list": b'{"Data":[%b,%b,{"SessionNo":"a","Receipt" : {} }]}'
    % (json.dumps(item(receipt={})).encode(), IN_A_LIST),
    "a text like a key": b'{"Data":[%b]}' % ITEM.replace(b"delivered", b'\\"Receipt\\":['),
    "a key like a key": b'{"Data":[%b],"\\"Receipt":[{}]}' % ITEM,
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_what_arrow_reads_otherwise_is_read_carefully(name):
    """Alone, and between neighbours that it could push out of their rows."""
    good, bad = (b'{"Data":[%b]}' % ITEM, ["a"]), (OTHERWISE[name], ["a"])
    for made in ([bad], [good, bad, good], [bad, bad, good, good]):
        check_ways([Answer(number, *one) for number, one in enumerate(made)])


def as_set(decoded):
    return sorted(map(repr, decoded.observations.to_pylist() + decoded.rejects.to_pylist()))


@settings(max_examples=25)
@given(answers, st.randoms(use_true_random=False))
def test_the_same_answers_give_the_same_rows_in_any_order_and_any_company(made, rng):
    rows = [response(body, ids) for body, ids in made]
    whole = decode(*rows)
    assert whole.observations.equals(decode(*rows).observations)
    assert whole.rejects.equals(decode(*rows).rejects)
    shuffled = rng.sample(rows, len(rows))
    assert as_set(decode(*shuffled)) == as_set(whole)
    alone = [decode(row) for row in rows]
    assert sorted(line for one in alone for line in as_set(one)) == as_set(whole)
