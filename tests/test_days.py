"""The log of responses and the file of a day: whole or absent, and true to what went in."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from usms_pipeline.contract import polling, schema
from usms_pipeline.contract.errors import StorageError
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


def test_a_block_is_there_once_it_is_handed_back(store: Store) -> None:
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


def test_a_run_that_asked_nothing_leaves_nothing(store: Store) -> None:
    with log.Log(store, lambda: NOW).held():
        pass
    assert log.runs(store) == log.open_runs(store) == []
    assert list(Path(store.data_dir).rglob("*.lock")) == []


def test_what_was_not_folded_stays_open_for_the_next_run(store: Store) -> None:
    writer = log.Log(store, lambda: NOW)
    with writer.held():
        writer.add([answer("a")])
    with log.taken(store, writer.run) as is_ours:
        assert is_ours
        log.seal(store, writer.run)
    assert log.open_runs(store) == []
    with log.taken(store, writer.run) as is_ours:
        assert not is_ours, "another run folded it already"


_WRITER = """
import sys, time
from datetime import UTC, datetime
from usms_pipeline.days import log
from usms_pipeline.service.fetch import Answer
from usms_pipeline.store.storage import Store
writer = log.Log(Store(sys.argv[1]), lambda: datetime.now(UTC))
with writer.held():
    for n in range(10**6):
        writer.add([Answer((str(n),), datetime.now(UTC), 200, 0, "ok", None, b"{}")])
        print(n, flush=True)
"""


def test_a_writer_that_is_killed_leaves_whole_blocks_and_its_run_to_others(store: Store) -> None:
    command = [sys.executable, "-c", _WRITER, store.data_dir]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as writer:
        assert writer.stdout is not None
        for _ in range(random.Random().randrange(3, 9)):
            told = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
    [run] = log.open_runs(store)
    kept = [ids for name in log.blocks(store, run) for ids in store.read(name)["ids"].to_pylist()]
    assert kept[: told + 1] == [[str(n)] for n in range(told + 1)]
    with log.taken(store, run) as is_ours:
        assert is_ours


@pytest.mark.parametrize("damage", ["cut", "empty"])
def test_a_damaged_block_is_named(store: Store, damage: str) -> None:
    name, path = written(store)
    path.write_bytes({"cut": path.read_bytes()[:-50], "empty": b""}[damage])
    with pytest.raises(StorageError, match=r"responses/.*000001\.parquet"):
        store.read(name)


def test_a_bit_that_flips_in_a_block_is_found_or_does_no_harm(store: Store) -> None:
    name, path = written(store)
    whole, before, found = path.read_bytes(), store.read(name), 0
    for place in range(0, len(whole), 17):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            rows = store.read(name)
        except StorageError:
            found += 1
        else:
            assert rows.equals(before) or rows.schema.names != before.schema.names
    assert found > 50


def written(store: Store) -> tuple[str, Path]:
    """Return the name and the place of a block."""
    writer = log.Log(store, lambda: NOW)
    bodies = [bytes(random.Random(n).randrange(65, 91) for _ in range(200)) for n in range(9)]
    with writer.held():
        name, _ = writer.add([answer(f"s{n}", body=body) for n, body in enumerate(bodies)])
    return name, Path(store.path(name))


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


def test_a_session_has_the_day_of_its_earliest_row() -> None:
    found = read(
        [
            ("late", "2026-03-03T00:10"), ("late", "2026-03-02T23:50"), (None, "2026-03-03T00:01"),
            ("before", "2026-03-01T23:59"), ("before", "2026-03-02T00:02"),
            ("after", "2026-03-03T23:59"), ("after", "2026-03-04T08:00"),
            ("neither", "2026-03-01T20:00"), ("neither, later", "2026-03-04T01:00"),
        ]
    )  # fmt: skip
    assert {day.day: one.rows["session_no"].to_pylist() for day, one in found.items()} == {
        1: ["before", "before"],
        2: ["late", "late"],
        3: [None, "after", "after"],
    }


def test_a_day_reads_as_before_in_whatever_order_its_rows_come() -> None:
    rows = [(f"s{n}", f"2026-03-02T{n % 24:02}:00") for n in range(40)]
    digest = read(rows)[WINDOW.first].digest
    for seed in range(3):
        shuffled = random.Random(seed).sample(rows, len(rows))
        assert read(shuffled)[WINDOW.first].digest == digest
    edited = [("s0", "2026-03-02T00:01"), *rows[1:]]
    for other in (read(rows[1:]), read(edited), read([*rows, rows[0]]), read(rows, "other key")):
        assert other[WINDOW.first].digest != digest


def test_nothing_read_is_no_day() -> None:
    assert read([]) == {}


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


def test_a_day_says_what_it_has_and_is_written_as_a_whole(store: Store) -> None:
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


@pytest.mark.parametrize("seed", range(3))
def test_who_is_due_is_who_the_plain_rule_says(store: Store, seed: int) -> None:
    rng = random.Random(seed)
    at = int(NOW.timestamp()) * SECOND
    asked: dict[str, int | None] = {f"s{n}": None for n in range(60)}
    folded(store, sent([*asked], at), said([], 0))
    for _ in range(4):
        chosen = [name for name in asked if rng.random() < 0.4]
        now = at + rng.randrange(POLLS[-1])
        folded(store, None, said(chosen, now))
        asked |= {name: max(now, asked[name] or 0) for name in chosen}
    for _ in range(20):
        now = at + rng.randrange(POLLS[-1] + 10**11)
        expected: dict[str, Any] = {}
        for n, (name, last) in enumerate(asked.items()):
            sent_at = at + n * SECOND
            times = [sent_at + poll for poll in POLLS]
            left = times if last is None else [time for time in times if time > last]
            if left and left[0] <= now:
                expected[name] = left[0]
        found = file.due(store, DAY, now, POLLS)
        unmet = found["unmet_at"].cast(pa.int64()).to_pylist()
        assert dict(zip(found["session_no"].to_pylist(), unmet, strict=True)) == expected


def test_a_day_where_nobody_is_due_costs_one_look_at_its_footer(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = int(NOW.timestamp()) * SECOND
    folded(store, sent(["a"], at), said(["a"], at + 400 * SECOND))
    monkeypatch.setattr(Store, "batches", None)
    assert file.due(store, DAY, at + 500 * SECOND, POLLS).num_rows == 0
