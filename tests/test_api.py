"""Return codes, HTTP statuses and status words, as the service's documents and SDKs list them."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from usms_pipeline.service.api import WORDS, Verdict, bare, canonical, classify
from usms_pipeline.service.rows import canonical_array

BY_CODE = {
    Verdict.OK: [0],
    Verdict.SPLIT: [215392, 215396, 215397],
    Verdict.DENY: [215393, 215394, 215395, 215398, 215399, 170, 172, 174, 290, 295, 299],
    Verdict.RETRY: [215400, 110, 130, 150, 151, 200],
    Verdict.THROTTLE: [153],
    Verdict.UNKNOWN: [1, -1, 169, 175, 289, 300, 215391, 215401, 99999999],
}
BY_STATUS = {
    Verdict.RETRY: [408, 421, 425, 499, 500, 501, 502, 503, 504, 507, 520, 521, 525, 530, 599],
    Verdict.THROTTLE: [429],
    Verdict.DENY: [403],
    Verdict.STOP: [401],
    Verdict.SPLIT: [413, 414],
    Verdict.UNKNOWN: [100, 301, 302, 307, 400, 404, 405, 418, 451, 498, 600, 999],
}


def cases(table):
    return [(value, verdict) for verdict, values in table.items() for value in values]


@pytest.mark.parametrize(("code", "verdict"), cases(BY_CODE))
def test_a_return_code_inside_http_200_decides(code, verdict):
    assert classify(200, code) is verdict


@pytest.mark.parametrize(("status", "verdict"), cases(BY_STATUS))
def test_an_http_error_without_a_return_code_decides(status, verdict):
    assert classify(status, None) is verdict


def test_a_request_without_an_answer_is_retried():
    assert classify(None, None) is Verdict.RETRY


def test_a_success_without_a_return_code_is_asked_again():
    assert classify(200, None) is Verdict.RETRY
    assert classify(204, None) is Verdict.RETRY


@pytest.mark.parametrize(
    ("status", "code", "verdict"),
    [
        (400, 215392, Verdict.SPLIT),
        (500, 215393, Verdict.DENY),
        (401, 215392, Verdict.STOP),
        (429, 215400, Verdict.THROTTLE),
        (503, 153, Verdict.THROTTLE),
        (404, 215400, Verdict.RETRY),
        (503, 777, Verdict.RETRY),
        (403, 215392, Verdict.DENY),
    ],
)
def test_of_status_and_code_the_graver_one_counts(status, code, verdict):
    assert classify(status, code) is verdict


@pytest.mark.parametrize("ret_code", [None, 0, 999])
def test_a_403_that_says_when_to_come_back_is_a_limit(ret_code):
    assert classify(403, ret_code, has_retry_after=True) is Verdict.THROTTLE
    assert classify(403, 215393, has_retry_after=True) is Verdict.DENY


@pytest.mark.parametrize("status", [302, 400, 404, 429, 500, 503, 401])
def test_an_http_error_is_never_ok_whatever_the_code_says(status):
    assert classify(status, 0) is not Verdict.OK


# Status words

TABLE = {
    "delivered": "delivered delivrd deliver success 发送成功 接收成功",
    "failed": "fail failed undelivered undeliv 发送失败 接收失败",
    "rejected": "submitfail rejectd rejected 提交失败",
    "expired": "expired 过期",
    "pending": "queued sending sent accepted acceptd enroute submitted",
    "unknown": "unknow unknown 状态未知",
    "unrecognized": "blacklist mk:0001 ok 0 1 delivery failing 失败 no deli\u200bvered fail\ue000",
}
CASES = [(word, name) for name, words in TABLE.items() for word in words.split()]


@pytest.mark.parametrize(("word", "expected"), CASES)
def test_case_and_blanks_around_a_word_do_not_matter(word, expected):
    assert canonical(f"\t {word.upper()}\u3000\n") == expected


UNSEEN = ["\0", "\u200b", "\ufeff", "\u2060 \u00ad", "\x7f\x1f", "\u202e", "\u3164", "\ufe0f"]


@pytest.mark.parametrize("unseen", UNSEEN)
@pytest.mark.parametrize(("word", "expected"), [("Delivrd", "delivered"), ("过期", "expired")])
def test_invisible_characters_around_a_status_word_are_ignored(word, expected, unseen):
    assert canonical(f"{unseen}{word}{unseen}") == canonical(f"{word}{unseen}") == expected
    assert canonical_array(pa.array([f"{unseen}{word}"])).to_pylist() == [expected]


@pytest.mark.parametrize("word", [None, "", "  ", *UNSEEN])
def test_an_empty_status_word_means_pending(word):
    assert canonical(word) == "pending"


def test_the_table_of_words_is_the_documented_one():
    known = {word: name for name, words in WORDS.items() for word in words if word}
    assert known == {word: name for word, name in CASES if name != "unrecognized"}


@given(st.text())
def test_an_unknown_word_is_never_an_outcome(word):
    listed = bare(word).casefold() in {w for words in WORDS.values() for w in words}
    assert listed or canonical(word) == "unrecognized"


some_words = st.lists(st.none() | st.sampled_from([word for word, _ in CASES]) | st.text())


@given(some_words, st.integers(0, 3))
def test_arrays_mean_what_their_words_mean(words, cut):
    array = pa.array(words, pa.string())
    expected = [canonical(word) for word in words]
    assert canonical_array(array).to_pylist() == expected
    assert canonical_array(array[cut:]).to_pylist() == expected[cut:]
