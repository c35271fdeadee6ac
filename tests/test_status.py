"""Status words, as the service's documents and SDKs list them."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from usms_pipeline import status

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
def test_every_documented_word_has_its_meaning(word, expected):
    assert status.canonical(word) == expected


@pytest.mark.parametrize(("word", "expected"), CASES)
def test_case_and_blanks_around_a_word_do_not_matter(word, expected):
    assert status.canonical(f"\t {word.upper()}\u3000\n") == expected


@pytest.mark.parametrize("word", [None, "", "  "])
def test_no_word_is_pending(word):
    assert status.canonical(word) == "pending"


def test_the_table_of_words_is_the_documented_one():
    known = {word: name for name, words in status.WORDS.items() for word in words if word}
    assert known == {word: name for word, name in CASES if name != "unrecognized"}


def test_exactly_the_four_outcomes_are_final_and_ranked_first():
    assert status.FINAL == ("delivered", "failed", "rejected", "expired")
    assert [status.rank(name) for name in status.BUCKETS] == list(range(8))


def test_there_are_eight_buckets():
    assert set(status.BUCKETS) == {
        "delivered", "failed", "rejected", "expired", "unknown", "pending", "unrecognized",
        "invalid",
    }  # fmt: skip


@given(st.text())
def test_an_unknown_word_is_never_an_outcome(word):
    listed = word.strip().casefold() in {w for words in status.WORDS.values() for w in words}
    assert listed or status.canonical(word) == "unrecognized"


some_words = st.lists(st.none() | st.sampled_from([word for word, _ in CASES]) | st.text())


@given(some_words, st.integers(0, 3))
def test_arrays_mean_what_their_words_mean(words, cut):
    array = pa.array(words, pa.string())
    expected = [status.canonical(word) for word in words]
    assert status.canonical_array(array).to_pylist() == expected
    assert status.canonical_array(array[cut:]).to_pylist() == expected[cut:]
    pieces = pa.chunked_array([array[:cut], array[cut:]], pa.string())
    assert status.canonical_array(pieces).to_pylist() == expected
