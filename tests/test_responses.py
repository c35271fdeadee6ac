from __future__ import annotations

import stat
import threading
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from usms_pipeline import schema
from usms_pipeline.errors import StorageError
from usms_pipeline.responses import ResponsesWriter, file_name
from usms_pipeline.service.fetch import Answer
from usms_pipeline.storage import Store

DAY, NEXT_DAY = date(2026, 1, 1), date(2026, 1, 2)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def answer(n=0, body=b"{}", **more):
    facts = {"http_status": 200, "ret_code": 0, "verdict": "ok", "reason": None, **more}
    return Answer((f"id-{n}", f"other-{n}"), NOON + timedelta(microseconds=n), body=body, **facts)


class Ticking:
    def __init__(self):
        self.now = NOON

    def __call__(self):
        self.now += timedelta(seconds=1)
        return self.now


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "data"))


def rows(store):
    return [row for name in store.names("responses") for row in store.read(name).to_pylist()]


def test_answers_come_back_as_they_were(store):
    odd = [
        answer(0),
        answer(1, b"\x00\xff<html>", ret_code=None, verdict="unreadable", reason="no RetCode"),
        answer(2, b"", http_status=413, ret_code=None, verdict="refused", reason="too long"),
        answer(3, "会话".encode(), ret_code=-(2**63)),
    ]
    with ResponsesWriter(store, Ticking()) as writer:
        for one in odd:
            writer.add(DAY, one)
    [name] = store.names("responses")
    assert store.schema(name).equals(schema.RESPONSES)
    assert [Answer(ids=tuple(row.pop("ids")), **row) for row in rows(store)] == odd


def test_a_checkpoint_has_one_private_file_a_partition(store):
    with ResponsesWriter(store, Ticking()) as writer:
        for n in range(10):
            writer.add((DAY, NEXT_DAY)[n % 2], answer(n))
    names = store.names("responses")
    assert [name.split("/")[1] for name in names] == [
        "sent_date=2026-01-01",
        "sent_date=2026-01-02",
    ]
    for name in names:
        path = Path(store.path(name))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert store.read(name).num_rows == 5


def test_nothing_added_writes_nothing(store):
    with ResponsesWriter(store, Ticking()) as writer:
        writer.flush()
    assert store.names("responses") == []


def test_names_sort_by_time_and_are_unique():
    names = [file_name(DAY, NOON + timedelta(microseconds=n)) for n in range(100)]
    assert names == sorted(names)
    assert len({file_name(DAY, NOON) for _ in range(100)}) == 100
    assert names[7].startswith("responses/sent_date=2026-01-01/20260101T120000.000007-")


def test_so_many_answers_are_a_checkpoint(store):
    with ResponsesWriter(store, Ticking(), every_responses=4, every_seconds=1e6) as writer:
        for n in range(11):
            writer.add(DAY, answer(n))
        assert len(rows(store)) == 8
    assert len(rows(store)) == 11


def test_so_many_bytes_are_a_checkpoint(store):
    with ResponsesWriter(store, Ticking(), every_seconds=1e6) as writer:
        writer.add(DAY, answer(0, bytes(40_000_000)))
        assert rows(store) == []
        writer.add(DAY, answer(1, bytes(40_000_000)))
        assert len(store.names("responses")) == 1


def test_some_time_after_an_answer_is_a_checkpoint_even_if_no_more_come(store):
    with ResponsesWriter(store, Ticking(), every_seconds=0.05) as writer:
        writer.add(DAY, answer())
        while not store.names("responses"):
            pass
        assert len(rows(store)) == 1
    assert len(store.names("responses")) == 1


def test_what_was_added_is_written_when_an_exception_leaves_the_block(store):
    def fail():
        with ResponsesWriter(store, Ticking()) as writer:
            writer.add(DAY, answer())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert len(rows(store)) == 1


def test_no_timer_outlives_the_block(store):
    with ResponsesWriter(store, Ticking(), every_seconds=1e6) as writer:
        writer.add(DAY, answer())
        assert any(isinstance(thread, threading.Timer) for thread in threading.enumerate())
    assert not any(
        isinstance(thread, threading.Timer) and not thread.finished.is_set()
        for thread in threading.enumerate()
    )


@pytest.fixture
def obstacle(store):
    """A file stands where the folder should be, until it is taken away."""
    file = Path(store.path("responses"))
    file.parent.mkdir(parents=True)
    file.write_text("in the way")
    return file


def test_a_checkpoint_that_fails_keeps_its_answers_for_the_next(store, obstacle):
    with ResponsesWriter(store, Ticking()) as writer:
        writer.add(DAY, answer())
        with pytest.raises(StorageError):
            writer.flush()
        obstacle.unlink()
    assert len(rows(store)) == 1


def test_a_checkpoint_that_fails_in_the_background_is_told_by_the_next_call(store, obstacle):
    with ResponsesWriter(store, Ticking(), every_seconds=0.01) as writer:
        writer.add(DAY, answer(0))
        while writer._failure is None:
            pass
        with pytest.raises(StorageError):
            writer.add(DAY, answer(1))
        obstacle.unlink()
    assert sorted(row["ids"][0] for row in rows(store)) == ["id-0", "id-1"]
