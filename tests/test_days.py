"""The log of responses and the file of a day: whole or absent, and true to what went in."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from usms_pipeline.contract import polling, schema
from usms_pipeline.days import columns, file, log
from usms_pipeline.days.columns import Fold
from usms_pipeline.days.file import Footer
from usms_pipeline.days.reading import DayRead, Reading
from usms_pipeline.service.fetch import Answer
from usms_pipeline.store.dataset import Window
from usms_pipeline.store.storage import Store

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
DAY = date(2026, 3, 2)
LAYOUT = columns.layout(["template"])
POLLS = [offset // timedelta(microseconds=1) for offset in polling.offsets(timedelta(hours=72))]
SECOND = 1_000_000


def answer(*ids: str, body: bytes = b"{}") -> Answer:
    return Answer(ids, NOW, 200, 0, "ok", None, body)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "data"))


# -- the log ----------------------------------------------------------------------------


def test_a_block_is_there_once_it_is_handed_back(store):
    writer = log.Log(store, lambda: NOW)
    assert log.open_runs(store) == []
    with writer.held([DAY]):
        name, block = writer.add([answer("a", "b"), answer("c")])
        assert block["ids"].to_pylist() == [["a", "b"], ["c"]]
        assert log.blocks(store, writer.run) == [name]
        assert store.read(name).equals(block)
        assert log.open_runs(store) == [writer.run]
        assert log.days_of(store, writer.run) == [DAY]
        with log.taken(store, writer.run) as is_ours:
            assert not is_ours, "its writer lives"
        writer.is_folded = True
    assert log.open_runs(store) == []
    assert log.runs(store) == [writer.run]
    assert log.written_at(writer.run) == NOW


def test_a_run_that_asked_nothing_leaves_nothing(store):
    with log.Log(store, lambda: NOW).held([]):
        pass
    assert log.runs(store) == log.open_runs(store) == []
    assert list(Path(store.data_dir).rglob("*.lock")) == []


# -- the source, by day -----------------------------------------------------------------

WINDOW = Window(date(2026, 3, 2), date(2026, 3, 3))
ZONE = ZoneInfo("Asia/Shanghai")


def read(rows: list[tuple[str | None, str]], about: str = "") -> dict[date, DayRead]:
    """Return what is read of rows (session, local time), in batches of two."""
    reading = Reading(WINDOW, ZONE, [about])
    for begin in range(0, len(rows), 2):
        times = [datetime.fromisoformat(at).replace(tzinfo=ZONE) for _, at in rows[begin:][:2]]
        names = pa.array([name for name, _ in rows[begin:][:2]], pa.string())
        columns = [names, pa.array(times, schema.TIME), pa.array(["x"] * len(names))]
        reading.add(pa.record_batch(columns, ["session_no", "sent_at", "phone"]))
    return {one.day: one for one in reading.days()}


def test_a_day_reads_as_before_in_whatever_order_its_rows_come():
    rows = [(f"s{n}", f"2026-03-02T{n % 24:02}:00") for n in range(40)]
    digest = read(rows)[WINDOW.first].digest
    for seed in range(3):
        shuffled = random.Random(seed).sample(rows, len(rows))
        assert read(shuffled)[WINDOW.first].digest == digest
    edited = [("s0", "2026-03-02T00:01"), *rows[1:]]
    for other in (read(rows[1:]), read(edited), read([*rows, rows[0]]), read(rows, "other key")):
        assert other[WINDOW.first].digest != digest


# -- the file ---------------------------------------------------------------------------


def sent(names: list[str], at: int) -> pa.Table:
    blank = dict.fromkeys(("recipient", "phone", "country", "operator", "number_type", "template"))
    rows = [
        blank | {"session_no": name, "sent_at": at + n * SECOND} for n, name in enumerate(names)
    ]
    types = {"sent_at": schema.TIME}
    return pa.table(
        {
            name: pa.array([row[name] for row in rows], types.get(name, pa.string()))
            for name in rows[0]
        }
    )


def said(names: list[str], asked_at: int, word: str | None = None) -> pa.Table:
    rows = [
        dict.fromkeys(schema.OBSERVATIONS.names)
        | {"session_no": name, "number": f"n{name}" if word else "", "asked_at": asked_at}
        | {"status": "delivered" if word else "pending", "word": word, "is_final": bool(word)}
        for name in names
    ]
    return pa.Table.from_pylist(rows, schema.OBSERVATIONS)


def folded(store: Store, read: pa.Table | None, told: pa.Table) -> Footer:
    fold = Fold(file.rows(store, DAY), read, told, LAYOUT, POLLS[-1])
    footer = Footer(key="k", digest="d", polls=POLLS)
    written = file.write(store, DAY, fold, LAYOUT, lambda: footer)
    assert written is not None
    return written


def test_a_day_says_what_it_has_and_is_written_as_a_whole(store):
    assert file.footer(store, DAY) is None
    at = int(NOW.timestamp()) * SECOND
    first = folded(store, sent(["a", "b", "c"], at), said(["a"], at + 60 * SECOND, "delivered"))
    assert file.footer(store, DAY) == first
    assert (first.rows, first.open, first.buckets) == (3, 2, {"delivered": 1, "pending": 2})
    assert first.next_due_at == at + SECOND + POLLS[0], "b, that nobody asked about"
    second = folded(store, None, said(["b", "c"], at + 400 * SECOND))
    assert second.version != first.version
    assert second.next_due_at == at + SECOND + POLLS[1]
    third = folded(store, None, said(["b", "c"], at + 73 * 3600 * SECOND))
    assert (third.open, third.next_due_at) == (0, None)
    assert [row["status"] for table in file.rows(store, DAY) for row in table.to_pylist()] == [
        "delivered", "unknown", "unknown",
    ]  # fmt: skip


def test_a_day_where_nobody_is_due_costs_one_look_at_its_footer(store, monkeypatch):
    at = int(NOW.timestamp()) * SECOND
    footer = folded(store, sent(["a"], at), said(["a"], at + 400 * SECOND))
    monkeypatch.setattr(Store, "batches", None)
    assert file.due(store, DAY, at + 500 * SECOND, POLLS, footer).num_rows == 0
