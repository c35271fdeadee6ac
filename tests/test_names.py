"""Whether a body names somebody who is forgotten: in any spelling, and nobody else for them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from tests.loopback import ok
from tests.test_hostile import MENDABLE
from usms_pipeline.people.phones import PhoneBook
from usms_pipeline.service.names import Forgotten, Names

BOOK = PhoneBook(b"0123456789abcdef", "CN", "masked")
PHONE, OTHER = "+8613800138000", "+8618612345678"
GONE = Forgotten(frozenset({BOOK.recipient_id(PHONE)}), frozenset({"mine"}))
KNOWN = pytest.mark.parametrize("phones", [[PHONE], []], ids=["forgotten now", "before"])


def names(
    body: bytes | str, forgotten: Forgotten = GONE, phones: Iterable[str] = (), book: Any = BOOK
) -> bool:
    body = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
    return Names(forgotten, book, phones).any_in(body)


def body(*items: Any, **more: Any) -> bytes:
    return json.dumps({"RetCode": 0, "Message": "success", "Data": list(items)} | more).encode()


def item(session: str, phone: Any) -> dict[str, Any]:
    return {"SessionNo": session, "Receipt": [{"Phone": phone, "Status": "delivered"}]}


OTHERS = item("yours", OTHER)


@KNOWN
@pytest.mark.parametrize(
    "shown",
    ["13800138000", "+86 138-0013-8000", 13800138000, 13800138000.0, "13800138000.0",
     "(0086)13800138000", "１３８００１３８０００", "tel 13800138000;phone-context=x"],
)  # fmt: skip
def test_a_phone_of_a_receipt_in_any_spelling(shown, phones):
    assert names(body(OTHERS, item("group", shown)), phones=phones)
    assert names(body({"SessionNo": "x", "Receipt": {"Phone": shown}}), phones=phones)
    assert names(body({"SessionNo": "x", "ReceiptSet": [{"Phone": shown}]}), phones=phones)


@KNOWN
@pytest.mark.parametrize("shown", ["10086", 10086, "front/desk", 'front "desk"'])
def test_a_phone_that_is_no_number(shown, phones):
    gone = Forgotten(frozenset({BOOK.recipient_id(str(shown))}))
    made = body(OTHERS, item("group", shown)).replace(b"/", rb"\/")
    assert names(made, gone, phones)
    assert not names(body(OTHERS, item("group", "front")), gone, phones)


@pytest.mark.parametrize(
    "session", ["a/b+c==", "a\\b", 'a"b', "a\tb", "a&amp;b", "a&b", "a<b", "1.5e3", "a\U0001f600b"]
)
@pytest.mark.parametrize("is_escaped", [True, False])
def test_a_session_with_marks_however_they_are_escaped(session, is_escaped):
    made = json.dumps({"Data": [item(session, OTHER)]}, ensure_ascii=is_escaped)
    gone = Forgotten(sessions=frozenset({session}))
    assert names(made.replace("/", r"\/") if is_escaped else made, gone)
    assert not names(body(OTHERS, item("a", OTHER), item("b", OTHER)), gone)


@KNOWN
@pytest.mark.parametrize(
    "shown",
    ["13800138000", "+86 138-0013-8000", 13800138000, "tel:8613800138000", f"to {PHONE}",
     "no such user: 13800138000.", "(86) 138-0013-8000", "138/0013/8000",
     "138\u00a00013\u00a08000", "2026-03-02 13800138000 17", "13800138000,18612345678"],
)  # fmt: skip
def test_a_phone_in_an_odd_place(shown, phones):
    odd = {"SessionNo": "odd", "Receipt": "none", "Extra": {"To": [[shown]]}}
    told = {"SessionNo": "group", "Receipt": {"Phone": OTHER, "ReceiptDesc": shown}}
    for one in (odd, told, {"Extra": {str(shown): "queued"}}):
        assert names(body(OTHERS, one), phones=phones)
    assert names(body(OTHERS, Extra=shown), phones=phones)


@KNOWN
@pytest.mark.parametrize(
    "odd",
    [
        '"By": {"13800138000": "queued"}',
        '"By": {"+86 138-0013-8000": {"x": 1}}',
        '"By": [{"mine": "queued"}]',
        '"To": 1.3800138e10',
        '"To": "13800138000", "To": "x"',
        '"To": {"x": {"Phone": "13800138000"}}, "To": {}',
        '"To": "\\u0031380013\\u0038000"',
        '"To": NaN, "To": "13800138000", "To": 1',
        '"SessionNo": "mine"',
        '"SessionNo": " mine "',
        '"SessionNo": "m\\u0069ne"',
        '"x": "sent to mine, too"',
        '"x": "\\nmine"',
        '"x": "mine", "x": 1',
    ],
)
def test_no_spelling_is_missed(odd, phones):
    whole = body(OTHERS).decode().replace('"Data": [', f'"Data": [{{{odd}}}, ')
    assert names(whole, phones=phones)


@pytest.mark.parametrize("odd", ["1380013800018612345678", "x13800138000x"])
def test_a_number_within_more_digits_is_found_where_it_is_known(odd):
    assert names(body(OTHERS, To=odd), phones=[PHONE])


@pytest.mark.parametrize("named", ["MINE", " Mine ", "mInE"])
def test_a_session_in_another_case_is_the_same(named: str) -> None:
    assert names(body(OTHERS, item(named, OTHER)))
    assert names(body(item("X", OTHER)), Forgotten(sessions=frozenset({"x"})))
    assert names(body(item("a B/c", OTHER)), Forgotten(sessions=frozenset({"A b/C"})))


@KNOWN
def test_somebody_else_is_not_taken_along(phones):
    assert not names(body(OTHERS), phones=phones)
    assert not names(body(), phones=phones)
    alike = ["+8613800138001", "+8520138000", "138****8000", "", None, 5]
    assert not names(body(*(item("yours", phone) for phone in alike)), phones=phones)
    assert not names(body(item("200138000-13800138000-77", OTHER)), phones=phones)


def test_a_session_is_a_word_and_no_part_of_one():
    gone = Forgotten(sessions=frozenset({"1001", "a b/c"}))
    for session in ("10010", "a-1001", "1001_2", "xa b/c", "21001"):
        assert not names(body(item(session, OTHER)), gone)
    for session in ("1001", " 1001", "a b/c", "(a b/c)"):
        assert names(body(item(session, OTHER)), gone)
    assert names(body(item("x", OTHER), Ids=[1001]), gone)


def test_a_session_that_is_called_like_a_key_of_the_services_is_not_in_every_answer():
    gone = Forgotten(sessions=frozenset({"Status"}))
    assert not names(body(OTHERS), gone)
    assert names(body(item("Status", OTHER)), gone)


@KNOWN
@pytest.mark.parametrize(
    "text",
    ['{"Phone": "138 0013 8000", "Sta', "tel 13800138000.", "<p>138&nbsp;0013&nbsp;8000",
     '{"broken: 138 0013 8000', '["13800138000"]', '"13800138000"', "13800138000",
     '{"SessionNo": "mine"'],
)  # fmt: skip
def test_a_body_that_cannot_be_read(text, phones):
    assert names(text, phones=phones)
    assert names(text.encode("utf-16"), phones=phones)


@KNOWN
@pytest.mark.parametrize(
    "text", ["<html>busy</html>", '{"Data": [{"SessionNo": "minestrone"', "", "null", "[]", "\xff"]
)
def test_a_body_that_names_nobody_and_cannot_be_read(text, phones):
    assert not names(text, phones=phones)


@KNOWN
@pytest.mark.parametrize("damage", MENDABLE)
def test_what_can_be_mended_is_read(damage, phones):
    told = ok(["yours", "x"]).body.replace(b"13800138000", b"18612345678")
    assert not names(MENDABLE[damage](told), phones=phones)
    assert names(MENDABLE[damage](told.replace(b"18612345678", b"13800138000", 1)), phones=phones)
    assert names(MENDABLE[damage](told.replace(b"yours", b"mine")), phones=phones)


def test_where_nobody_is_forgotten_nobody_is_named():
    assert not names(body(item("mine", PHONE)), Forgotten())
