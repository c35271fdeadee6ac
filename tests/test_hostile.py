"""A service that means ill: what it sends is kept within bounds, set aside, and costs only itself.

Peaks are of a process of its own, beyond what it holds before the first answer.
"""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta

import pyarrow as pa
import pytest

from tests.account import START, Account
from tests.hostile_bodies import bodies
from tests.loopback import Response, Seen, ok, serving
from tests.test_client import BASIC, Fetched, ask
from tests.test_decode import DELIVERED, answer, decode, item, one_receipt, receipts, response
from usms_pipeline.contract.schema import MOST_CHARACTERS
from usms_pipeline.days import quarantine
from usms_pipeline.service.api import Verdict
from usms_pipeline.service.careful import MOST_REJECTS, cut
from usms_pipeline.service.client import _read_envelope

# Bounds


@pytest.mark.parametrize("name", ["ReceiptCode", "ReceiptDesc", "Status"])
def test_long_texts_are_cut_to_a_thousand_characters_with_an_ellipsis(name):
    column = {"ReceiptCode": "code", "ReceiptDesc": "description", "Status": "word"}[name]
    for text in ("空" * 999 + "x", "空" * 1_000 + "x"):
        kept = one_receipt(DELIVERED | {name: text})[column]
        assert kept == cut(text)
        assert len(kept) == MOST_CHARACTERS
        assert kept.endswith("…") == (len(text) > MOST_CHARACTERS)


def test_a_word_that_was_cut_is_never_evidence():
    assert (
        one_receipt(DELIVERED | {"Status": "fail" + " " * 2_000 + "x"})["status"] == "unrecognized"
    )


@pytest.mark.parametrize("company", [1, 8])
def test_a_status_of_megabytes_is_not_repeated_for_every_receipt(company):
    """Once with each of a thousand receipts it was gigabytes, and more than one column holds."""
    body = answer(item(receipt=[DELIVERED] * 1_000, Status="x" * 4_000_000))
    decoded = decode(*[response(body)] * company)
    assert decoded.observations.nbytes < 5_000_000 * company
    assert {row["submit_status"] for row in receipts(decoded)} == {cut("x" * 2_000)}


def test_the_bad_items_of_one_answer_are_a_hundred_entries_and_one_that_counts_the_others():
    body = answer(*range(5_000), item(receipt=DELIVERED))
    decoded = decode(response(body))
    assert len(receipts(decoded)) == 1
    *each, last = decoded.rejects.to_pylist()
    assert len(each) == MOST_REJECTS == len({row["id"] for row in each})
    assert last["reason"] == "4,900 further items of the answer could not be used"
    assert decode(response(body)).rejects.equals(decoded.rejects)


def test_a_bad_item_of_megabytes_is_kept_to_its_beginning_under_a_name_of_its_whole():
    bad = [item("a" * 2_000, [tail * 100_000]) for tail in ("x", "x", "xy")]
    decoded = decode(*(response(answer(one)) for one in bad))
    rows = decoded.rejects.to_pylist()
    assert [len(row["body"]) for row in rows] == [64 * 1024] * 3
    assert [len(row["session_no"]) for row in rows] == [MOST_CHARACTERS] * 3
    assert rows[0]["id"] == rows[1]["id"] != rows[2]["id"]


def test_a_time_that_python_can_not_show_is_no_time():
    """In a zone west of Greenwich the last evening of 9999 is in the year 10000."""
    late = DELIVERED | {"ReceiveTime": "9999-12-31 23:00:00"}
    decoded = decode(response(answer(item(receipt=late))), zone="America/New_York")
    assert [row["received_at"] for row in receipts(decoded)] == [None]


def peak_mb(*work: str) -> tuple[int, list[list[str]]]:
    """Return the peak of some work, told in its process's last line, and the lines before."""
    command = [sys.executable, "-W", "error", "-m", "tests.hostile_memory", *work]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    *lines, peak = shown.stdout.splitlines()
    return int(peak), [line.split("\t") for line in lines]


@pytest.mark.long
@pytest.mark.parametrize(("worst", "most"), [("many", 600), ("long", 1_000), ("deep", 300)])
def test_the_worst_answers_take_bounded_memory(worst, most):
    assert peak_mb(worst)[0] < most


@pytest.mark.long
def test_what_a_killed_run_was_told_is_read_a_block_at_a_time(tmp_path):
    peak_mb("landed", str(tmp_path))
    assert peak_mb("folded", str(tmp_path))[0] < 750


@pytest.mark.long
@pytest.mark.parametrize(("sessions", "most"), [(100_000, 1_000), (330_000, 2_200)])
def test_long_texts_beside_the_messages_of_a_large_day_fit(tmp_path, sessions, most):
    peak, lines = peak_mb("large day", str(tmp_path), str(sessions))
    assert lines == [["delivered", str(sessions)]] * 2
    assert peak < most


# The client


@pytest.mark.long
def test_bombs_and_answers_without_end_take_bounded_memory():
    peak, lines = peak_mb("bombs")
    became = {name: (verdict, int(size)) for name, verdict, size in lines}
    too_large = ("split", 64_000)
    assert [became[name] for name in ("gzip", "deflate", "chunked")] == [too_large] * 3
    assert {verdict for verdict, _ in became.values()} == {"split", "retry"}
    assert len(became) == 9
    assert peak < 400


def test_an_answer_of_too_many_values_is_asked_again_in_halves_as_one_too_large():
    body = b'{"RetCode":0,"Message":[' + b"{}," * 2_000_001 + b"{}]}"
    with serving(lambda seen: Response(body)) as server:
        reply = ask(server.url, ["a"], max_body_bytes=64_000_000)
    assert reply.verdict is Verdict.SPLIT
    assert reply.message == "the answer holds more than 2,000,000 values"


MENDABLE = {
    "byte-order mark": lambda body: b"\xef\xbb\xbf" + body,
    "GBK in the message": lambda body: body.replace(b"success", "成功".encode("gbk")),
    "lone surrogate": lambda body: body.replace(b"success", b"\\ud800"),
    "NaN": lambda body: body.replace(b"{", b'{"Price":NaN,', 1),
    "number of 6,000 digits": lambda body: body.replace(
        b"{", b'{"Price":' + b"9" * 6_000 + b",", 1
    ),
    "raw line break": lambda body: body.replace(b"success", b"a\nb"),
}


@pytest.mark.parametrize("damage", MENDABLE)
def test_what_the_decoder_can_mend_is_an_answer_to_the_client_too(damage):
    """Else its sessions would be asked about for ever, and what was answered never counted."""
    with serving(lambda seen: Response(MENDABLE[damage](ok(seen.ids).body))) as server:
        reply = ask(server.url, ["a"])
    assert reply.verdict is Verdict.OK
    assert len(receipts(decode(response(reply.body)))) == 1


def test_a_message_of_megabytes_is_looked_through_at_its_beginning_only():
    body = b'{"RetCode":4711,"Message":"%b"}' % (b"session-001 %b " % BASIC.encode() * 300_000)
    with serving(lambda seen: Response(body)) as server:
        fetched = Fetched(server.url, [f"session-{n:03}" for n in range(100)], 64_000_000)
    [problem] = fetched.stats.problems
    assert len(problem) < 300
    assert "session-001" not in problem


# The whole way


def messages(count: int) -> pa.Table:
    sessions = [f"s{n:03}" for n in range(count)]
    at = pa.array([START - timedelta(hours=1)] * count, pa.timestamp("us", "UTC"))
    return pa.table({"session_no": sessions, "sent_at": at})


@pytest.mark.parametrize("kind", ["readable", pytest.param("any", marks=pytest.mark.long)])
def test_a_run_against_a_hostile_service_completes_and_keeps_all_it_sent(tmp_path, simulator, kind):
    """Of a hundred sessions every fifth gets a good answer, the others one made to do harm."""
    codes = (0,) if kind == "readable" else (0, None)  # without a code it is asked five times
    harmful = (body for body in bodies("run") if _read_envelope(body)[0] in codes)
    made = [ok([f"s{n:03}"]).body if n % 5 == 0 else next(harmful) for n in range(100)]
    made = [body.replace(b'"a"', b'"s%03d"' % n) for n, body in enumerate(made)]

    def hostile(seen: Seen) -> Response:
        return Response(made[int(seen.ids[0][1:])])

    account = Account(tmp_path, simulator, 1, phone_column=None, batch_size=1, max_concurrency=100)
    account.announce(messages(100))
    with serving(hostile) as server:
        account.given["base_url"] = server.url
        stats = account.run().stats
    store = account.pipeline.store
    landed = [row for name in store.names("responses") for row in store.read(name).to_pylist()]
    assert sorted((row["ids"], row["body"]) for row in landed) == [
        ([f"s{n:03}"], body) for n, body in enumerate(made)
    ]
    assert stats.unreadable == sum(row["verdict"] == "unreadable" for row in landed)
    assert stats.ids_answered + stats.ids_unanswered == stats.ids_asked == 100
    assert account.pipeline.conservation(account.window.days()) == []
    good = "status = 'delivered' AND session_no[2:]::INT % 5 = 0"
    assert account.sql(f"SELECT count(*) FROM receipts WHERE {good}") == [(20,)]
    kinds = {entry.kind for entry in quarantine.entries(store)}
    assert kinds >= {"bad_item", "unasked_session"}
    assert ("unanswered_id" in kinds) == (kind == "any")
    before = account.rows()
    account.pipeline.rebuild()
    assert account.rows() == before
