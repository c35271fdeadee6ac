"""Return codes, HTTP statuses and status words, as the service's documents and SDKs list them."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from usms_pipeline.service.api import WORDS, Verdict, canonical, classify
from usms_pipeline.service.rows import canonical_array

BY_CODE = {
    Verdict.OK: [0],
    Verdict.SPLIT: [215392, 215396, 215397],
    Verdict.STOP: [215393, 215394, 215395, 215398, 215399, 170, 172, 174, 290, 295, 299],
    Verdict.RETRY: [215400, 110, 130, 150, 151, 200],
    Verdict.THROTTLE: [153],
    Verdict.SKIP: [1, -1, 169, 175, 289, 300, 215391, 215401, 99999999],
}
BY_STATUS = {
    Verdict.RETRY: [408, 425, 500, 502, 503, 504],
    Verdict.THROTTLE: [429],
    Verdict.STOP: [401, 403],
    Verdict.SPLIT: [413, 414],
    Verdict.SKIP: [301, 302, 307, 400, 404, 405, 418, 501],
}


def cases(table):
    return [(value, verdict) for verdict, values in table.items() for value in values]


@pytest.mark.parametrize(("code", "verdict"), cases(BY_CODE))
def test_a_return_code_inside_http_200_decides(code, verdict):
    assert classify(200, code) is verdict


@pytest.mark.parametrize(("status", "verdict"), cases(BY_STATUS))
def test_an_http_error_without_a_return_code_decides(status, verdict):
    assert classify(status, None) is verdict


def test_no_answer_is_asked_again():
    assert classify(None, None) is Verdict.RETRY


def test_a_success_without_a_return_code_is_asked_again():
    assert classify(200, None) is Verdict.RETRY
    assert classify(204, None) is Verdict.RETRY


@pytest.mark.parametrize(
    ("status", "code", "verdict"),
    [
        (400, 215392, Verdict.SPLIT),
        (500, 215393, Verdict.STOP),
        (429, 215400, Verdict.THROTTLE),
        (503, 153, Verdict.THROTTLE),
        (404, 215400, Verdict.RETRY),
        (503, 777, Verdict.RETRY),
        (403, 215392, Verdict.STOP),
    ],
)
def test_of_status_and_code_the_graver_one_counts(status, code, verdict):
    assert classify(status, code) is verdict


@pytest.mark.parametrize("status", [302, 400, 404, 429, 500, 503, 401])
def test_an_http_error_is_never_ok_whatever_the_code_says(status):
    assert classify(status, 0) is not Verdict.OK


# Status words

TABLE = {
    "delivered": "delivered delivrd deliver success 发送成功 接收成功",
    "failed": "fail failed undelivered undeliv 发送失败 接收失败",
    "rejected": "submitfail rejectd rejected 提交失败",
    "expired": "expired 过期",
    "pending": "queued sending sent accepted enroute submitted",
    "unknown": "unknow unknown 状态未知",
    "unrecognized": "blacklist mk:0001 ok 0 delivery failing 失败 no",
}
CASES = [(word, name) for name, words in TABLE.items() for word in words.split()]


@pytest.mark.parametrize(("word", "expected"), CASES)
def test_case_and_blanks_around_a_word_do_not_matter(word, expected):
    assert canonical(f"\t {word.upper()}\u3000\n") == expected


@pytest.mark.parametrize("word", [None, "", "  "])
def test_no_word_is_pending(word):
    assert canonical(word) == "pending"


def test_the_table_of_words_is_the_documented_one():
    known = {word: name for name, words in WORDS.items() for word in words if word}
    assert known == {word: name for word, name in CASES if name != "unrecognized"}


@given(st.text())
def test_an_unknown_word_is_never_an_outcome(word):
    listed = word.strip().casefold() in {w for words in WORDS.values() for w in words}
    assert listed or canonical(word) == "unrecognized"


some_words = st.lists(st.none() | st.sampled_from([word for word, _ in CASES]) | st.text())


@given(some_words, st.integers(0, 3))
def test_arrays_mean_what_their_words_mean(words, cut):
    array = pa.array(words, pa.string())
    expected = [canonical(word) for word in words]
    assert canonical_array(array).to_pylist() == expected
    assert canonical_array(array[cut:]).to_pylist() == expected[cut:]
    pieces = pa.chunked_array([array[:cut], array[cut:]], pa.string())
    assert canonical_array(pieces).to_pylist() == expected
