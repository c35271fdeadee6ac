"""Several runs at once on object storage, which has no locks: nothing lost, nothing double.

What is replaced there is replaced only over what was read; who comes too late does it again. Each
test lets another process do something between the reading and the writing of an object.
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.account import START
from tests.examples import examples
from tests.object_service import DATA_DIR, KEY, ObjectService, holding
from tests.processes import account_now, ended, old_messages, started
from tests.scripted import OTHER, PHONE, THIRD, Scripted, receipt
from usms_pipeline import warehouse
from usms_pipeline.cli import check
from usms_pipeline.contract.errors import StorageError
from usms_pipeline.days import file, log, quarantine
from usms_pipeline.days.run import Run
from usms_pipeline.people import forget
from usms_pipeline.service.decode import decode
from usms_pipeline.simulator import Faults
from usms_pipeline.store.storage import Store

DAY, RECEIPTS = START.date(), "/receipts.parquet"
Shown = list[tuple[str | None, ...]]


class Shop(Scripted):
    """An account on object storage; ``beside`` is the same one, of another process."""

    def __init__(self, folder: Path, objects: ObjectService, name: str = "one") -> None:
        (folder / name).mkdir()
        super().__init__(
            folder / name,
            data_dir=DATA_DIR,
            warehouse=str(folder / f"{name}.duckdb"),
            phone_key=KEY,
        )
        self.objects = objects

    def beside(self) -> Shop:
        """Another process, which reads the same source and asks the same service."""
        other = Shop(self.folder.parent, self.objects, "other")
        other.table, other.says = list(self.table), self.says
        return other

    def delivered(self, *names: str, phone: str = PHONE) -> None:
        """Add sessions with a receipt each."""
        for name in names:
            self.row(name, phone=phone)
            self.says[name] = [receipt(phone=phone)]

    def shown(self, *names: str) -> Shown:
        """Return some columns of what the day's objects have."""
        found = [
            row
            for body in self.objects.objects(RECEIPTS).values()
            for row in pq.read_table(pa.BufferReader(body)).select(list(names)).to_pylist()
        ]
        return sorted(tuple(row[name] for name in names) for row in found)

    def over(self) -> Shown:
        """Run once more: then nothing is open or wrong, and what is published is the same."""
        report = self.run()
        assert (report.locked, report.damaged) == ([], {})
        assert log.open_runs(self.pipeline.store) == []
        assert quarantine.entries(self.pipeline.store, None) == []
        assert self.pipeline.conservation() == []
        assert all(self.objects.objects().values())
        found = self.shown("session_no", "status")
        with warehouse.connect(self.settings.warehouse_path) as con:
            published = con.execute("SELECT session_no, status FROM receipts ORDER BY ALL")
            assert published.fetchall() == found
        return found

    def times_asked(self, session: str) -> int:
        """Count how often this process asked about a session."""
        return sum(session in ids for ids in self.asked)


@pytest.fixture
def shop(tmp_path: Path, objects: ObjectService) -> Shop:
    return Shop(tmp_path, objects)


@contextmanager
def meanwhile(
    act: Callable[[], Any], objects: ObjectService, end: str, times: int = 1, asks: str = "PUT"
) -> Any:
    """Act before the first objects with this end of their name are put."""
    left = [*range(times)]

    def before(method: str, path: str, query: str) -> bool:
        if method == asks and path.endswith(end) and left:
            left.pop()
            act()
        return False

    objects.refuses = before
    yield
    objects.refuses = lambda method, path, query: False
    assert left == []


def both(*acts: Callable[[], Any]) -> list[Any]:
    with ThreadPoolExecutor() as pool:
        return [one.result() for one in [pool.submit(act) for act in acts]]


def test_of_two_runs_that_begin_a_day_at_once_one_folds_into_what_the_other_wrote(shop, objects):
    shop.delivered("s1", "s2")
    other, together = shop.beside(), threading.Barrier(2, timeout=20)
    with meanwhile(together.wait, objects, RECEIPTS, 2):
        reports = both(shop.run, other.run)
    assert objects.unmet.count("receipts.parquet") == 1
    assert [report.locked for report in reports] == [[], []]
    assert shop.over() == [("s1", "delivered"), ("s2", "delivered")]
    assert shop.times_asked("s1") + other.times_asked("s1") in (1, 2), "or it read the other's log"


def test_a_run_whose_day_another_filled_meanwhile_adds_what_it_was_told(shop, objects):
    shop.delivered("s1")
    shop.row("s2", phone=OTHER)
    shop.refresh()
    other = shop.beside()
    shop.says["s2"] = [receipt(phone=OTHER)]
    with meanwhile(lambda: other.refresh(hours=60), objects, RECEIPTS):
        other.row("s3", phone=THIRD)
        shop.refresh(hours=60)
    assert objects.unmet == ["receipts.parquet"]
    assert shop.shown("session_no", "status") == [
        ("s1", "delivered"), ("s2", "delivered"), ("s3", "pending"),
    ]  # fmt: skip


@pytest.mark.long
def test_rows_that_only_the_later_run_has_read_wait_in_its_log_for_the_next(shop, objects):
    shop.delivered("s1")
    other = shop.beside()
    shop.delivered("s2", phone=OTHER)
    with meanwhile(other.run, objects, RECEIPTS):
        report = shop.run()
    assert report.locked == [DAY]
    assert shop.shown("session_no") == [("s1",)]
    assert len(log.open_runs(shop.pipeline.store)) == 1
    assert shop.over() == [("s1", "delivered"), ("s2", "delivered")]
    assert shop.times_asked("s2") == 1


@pytest.mark.long
def test_a_day_that_others_write_all_the_time_is_left_to_the_next_run(shop, objects, monkeypatch):
    monkeypatch.setattr("usms_pipeline.store.storage._PAUSE_SECONDS", 0.0)
    shop.delivered("s1")
    shop.row("s2", phone=OTHER)
    shop.refresh()
    shop.says["s2"] = [receipt(phone=OTHER)]
    store, name = shop.pipeline.store, file.name(DAY)
    touching = threading.Lock()

    def touch(method: str, path: str, query: str) -> bool:
        if method == "PUT" and path.endswith(RECEIPTS) and touching.acquire(blocking=False):
            said = store.metadata(name) | {"touched": str(len(objects.unmet))}
            store.write(name, store.read(name), said)
            touching.release()
        return False

    objects.refuses = touch
    report = shop.refresh(hours=60)
    objects.refuses = lambda method, path, query: False
    assert len(objects.unmet) == 20, "ten tries, and ten once all has come"
    assert report.locked == [DAY]
    assert shop.over() == [("s1", "delivered"), ("s2", "delivered")]
    assert shop.times_asked("s2") == 2


@examples(1, "is_new", [True, False])
def test_a_put_that_came_while_its_response_was_lost_is_not_done_again(shop, objects, is_new):
    shop.row("s1", phone=PHONE)
    if not is_new:
        shop.refresh()
    shop.says["s1"] = [receipt()]
    lost = [RECEIPTS]
    objects.loses = lambda method, path, query: (
        method == "PUT" and path.endswith(RECEIPTS) and bool(lost) and bool(lost.pop())
    )
    report = shop.refresh(hours=60)
    assert lost == []
    assert objects.unmet == ["receipts.parquet"]
    assert report.locked == []
    assert shop.over() == [("s1", "delivered")]


@pytest.mark.long
def test_a_run_that_lives_is_open_again_after_another_folded_what_it_had(shop, objects):
    shop.delivered("s1", "s2")
    shop.refresh()
    other, living = shop.beside(), log.Log(shop.pipeline.store, shop.clock)
    with living.held([DAY]):
        living.add([shop.told("s1")])
        other.refresh()
        assert log.open_runs(shop.pipeline.store) == []
        living.add([shop.told("s2")])
    assert log.open_runs(shop.pipeline.store) == [living.run]


@pytest.mark.long
def test_a_run_that_goes_on_while_another_folds_it_stays_open(shop, objects):
    shop.delivered("s1", "s2")
    shop.refresh()
    living = log.Log(shop.pipeline.store, shop.clock)
    with living.held([DAY]):
        living.add([shop.told("s1")])
        folded = log.blocks(shop.pipeline.store, living.run)
        living.add([shop.told("s2")])
        log.seal(shop.pipeline.store, living.run, folded)
        assert log.open_runs(shop.pipeline.store) == [living.run]
        assert log.days_of(shop.pipeline.store, living.run) == [DAY]


@pytest.mark.long
@pytest.mark.parametrize("hours", [1, 25])
def test_of_a_run_that_may_live_no_session_is_set_aside(shop, objects, hours):
    shop.delivered("s1")
    shop.refresh()
    living = log.Log(shop.pipeline.store, shop.clock)
    with living.held([DAY]):
        living.add([shop.told("s9")])
        shop.refresh(hours=hours)
    is_over = hours > 24
    assert bool(log.open_runs(shop.pipeline.store)) is not is_over
    assert len(quarantine.entries(shop.pipeline.store)) == is_over


@pytest.mark.long
def test_two_that_find_the_same_trouble_at_once_note_it_once(shop, objects):
    shop.delivered("s1")
    shop.refresh()
    store = shop.pipeline.store
    block, shop.garbled = f"{log.FOLDER}/run/000001.parquet", {"s1"}
    table = log.as_table([shop.told("s1", body=b"<html>")])
    rejects = decode(table, shop.pipeline.book, "UTC").rejects
    one, other = quarantine.Quarantine(store), quarantine.Quarantine(store)
    with meanwhile(lambda: other.add(block, rejects), objects, "/000001.parquet"):
        one.add(block, rejects)
    assert len(quarantine.entries(store)) == rejects.num_rows == 1


@pytest.mark.long
def test_two_that_are_forgotten_at_once_are_both_forgotten(shop, objects):
    shop.delivered("s1")
    shop.delivered("s2", phone=OTHER)
    shop.run()
    other = shop.beside()
    with meanwhile(lambda: other.pipeline.forget([OTHER]), objects, "/forgotten.json"):
        shop.pipeline.forget([PHONE])
    assert len(forget.read(shop.pipeline.store).recipients) == 2
    assert shop.shown("session_no") == []
    assert shop.objects.objects()
    for phone in (PHONE, OTHER):
        assert holding(objects, phone) == []


@examples(1, "where", [RECEIPTS, "/000001.parquet"])
def test_who_is_forgotten_while_a_run_goes_on_is_in_nothing_that_it_writes(shop, objects, where):
    shop.delivered("s1")
    other = shop.beside()
    shop.delivered("s2", phone=OTHER)
    other.run()
    with meanwhile(lambda: other.pipeline.forget([OTHER]), objects, where):
        shop.run()
    assert shop.shown("session_no") == [("s1",)]
    assert shop.over() == [("s1", "delivered")]
    assert holding(objects, OTHER) == []


@pytest.mark.long
def test_a_day_that_another_run_begins_and_publishes_meanwhile_is_not_gone(shop, monkeypatch):
    shop.delivered("s1")
    other = shop.beside()
    other.given["warehouse"] = shop.given["warehouse"]
    look = Run._leave_out_what_is_gone

    def later(run: Run) -> None:
        monkeypatch.setattr(Run, "_leave_out_what_is_gone", look)
        other.run()
        look(run)

    monkeypatch.setattr(Run, "_leave_out_what_is_gone", later)
    report = shop.run()
    assert (report.damaged, report.locked) == ({}, [])
    assert shop.over() == [("s1", "delivered")]


def test_a_day_that_another_run_begins_just_after_it_was_looked_for_is_not_damaged(shop, objects):
    shop.delivered("s1", "s2")
    other = shop.beside()
    with meanwhile(other.run, objects, RECEIPTS, asks="HEAD"):
        report = shop.run()
    assert report.damaged == {}
    assert shop.over() == [("s1", "delivered"), ("s2", "delivered")]


@pytest.mark.long
def test_of_two_that_publish_the_same_file_one_leaves_it_to_the_other(shop, objects):
    shop.delivered("s1")
    shop.refresh()
    other = shop.beside()
    other.given["warehouse"] = shop.given["warehouse"]
    publishing = warehouse.Publishing(shop.pipeline.store, shop.settings)
    publishing.load(DAY, None)
    assert other.pipeline.publish().is_locked
    assert not publishing.finish().is_locked
    assert not other.pipeline.publish().is_locked


def test_a_large_object_is_read_as_it_was_when_it_was_opened(objects, monkeypatch):
    monkeypatch.setattr("usms_pipeline.store.objects._IN_MEMORY", 1000)
    store = Store(DATA_DIR)
    rows = pa.table({"a": range(100_000)})
    store.write("x.parquet", rows)
    batches = store.batches("x.parquet", 1000)
    first = next(batches)
    store.write("x.parquet", rows.slice(0, 1))
    assert first.num_rows + sum(batch.num_rows for batch in batches) == 100_000


def test_a_long_footer_is_read_though_a_longer_one_replaces_it_meanwhile(objects, monkeypatch):
    monkeypatch.setattr("usms_pipeline.store.storage._TAIL", 64)
    store, rows, gets = Store(DATA_DIR), pa.table({"a": [1]}), []
    store.write("x.parquet", rows, {"said": "a" * 100})

    def before(method: str, path: str, query: str) -> bool:
        gets.extend([1] * (method == "GET"))
        if method == "GET" and len(gets) == 2:
            store.write("x.parquet", rows, {"said": "b" * 9000})
        return False

    objects.refuses = before
    assert store.metadata("x.parquet") == {"said": "b" * 9000}


@pytest.mark.parametrize(("conditions", "warnings"), [("known", 0), ("ignored", 1)])
def test_check_warns_where_two_runs_at_once_are_not_safe(shop, objects, conditions, warnings):
    objects.conditions = conditions
    first, *more = list(check._data_dir(shop.settings))
    assert first == ("ok", f"{DATA_DIR} is writable")
    assert sum("run one at a time" in text for _, text in more) == warnings
    assert objects.objects() == {}


@pytest.mark.long
def test_with_a_service_that_refuses_conditions_one_run_at_a_time_works(shop, objects, monkeypatch):
    objects.conditions = "refused"
    with pytest.raises(StorageError, match="AWS_CONDITIONAL_PUT=disabled, and run one"):
        list(check._data_dir(shop.settings))
    assert objects.objects() == {}
    monkeypatch.setenv("AWS_CONDITIONAL_PUT", "disabled")
    assert list(check._data_dir(shop.settings))[1][0] == "warning"
    shop.delivered("s1")
    assert shop.over() == [("s1", "delivered")]


def test_check_finds_that_what_is_read_back_is_not_what_was_written(shop, objects):
    objects.garbles = lambda method, path, query: method == "PUT"
    with pytest.raises(StorageError, match="AWS_CHECKSUM_ALGORITHM"):
        list(check._data_dir(shop.settings))
    assert objects.objects() == {}


# -- real processes, at random -----------------------------------------------------------------

ROUNDS, KILLED, KILLS = 20, 10, 10
"""Rounds of three runs at once; data directories, and kills in each: 100."""
MOMENTS = {"first_asked_at", "last_asked_at", "final_at", "last_open_at", "_state", "sent_date"}


class Crowd:
    """An account of 400 messages that real processes run on, and one who reads throughout."""

    def __init__(self, folder: Path, simulator: Any, objects: ObjectService, seed: int) -> None:
        self.rng, self.objects, self.folder = Random(seed), objects, folder
        self.messages = old_messages(400)
        warehouse_ = str(folder / "usms.duckdb")
        self.account = account_now(
            folder / "account", simulator, self.messages,
            data_dir=DATA_DIR, warehouse=warehouse_, batch_size=10, max_concurrency=12,
        )  # fmt: skip
        self.account.service.faults = Faults.parse("latency_seconds=0.05")
        self.whole = account_now(folder / "whole", simulator, self.messages)
        self.account.announce(self.messages.slice(0, 200))

    def started(self) -> Any:
        return started(self.account, "run", "--all")

    @contextmanager
    def read_throughout(self) -> Any:
        """Read all days again and again: each is whole, and none has a message twice."""
        is_over = threading.Event()

        def read() -> int:
            times = 0
            while not is_over.wait(0.1):
                found = [(row["session_no"], row["recipient"]) for row in self.rows()]
                assert len(found) == len({*found})
                times += 1
            return times

        with ThreadPoolExecutor() as pool:
            reading = pool.submit(read)
            try:
                yield
            finally:
                is_over.set()
            assert reading.result() > 0

    def rows(self) -> list[dict[str, Any]]:
        return [
            row
            for body in self.objects.objects(RECEIPTS).values()
            for row in pq.read_table(pa.BufferReader(body)).to_pylist()
        ]

    def ends_as_if_alone(self) -> None:
        self.account.announce(self.messages)
        assert ended(self.started()).code == 0
        assert ended(self.started()).code == 0
        self.whole.run()
        assert plain(self.rows()) == plain(
            row
            for one in (self.folder / "whole/data/receipts").glob("*/*.parquet")
            for row in pq.ParquetFile(one).read().to_pylist()
        )
        pipeline = self.account.pipeline
        assert pipeline.conservation() == []
        assert log.open_runs(pipeline.store) == []
        assert all(self.objects.objects().values()), "none is empty"
        with warehouse.connect(self.folder / "usms.duckdb") as con:
            assert con.execute("SELECT count(*) FROM receipts").fetchone() == (len(self.rows()),)


def plain(rows: Iterable[dict[str, Any]]) -> list[str]:
    return sorted(repr(sorted((k, row[k]) for k in row.keys() - MOMENTS)) for row in rows)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_three_runs_at_once_end_as_one_alone(seed, tmp_path, simulator, objects):
    crowd = Crowd(tmp_path, simulator, objects, seed)
    with crowd.read_throughout():
        for share in (200, 400):
            crowd.account.announce(crowd.messages.slice(0, share))
            runs = []
            for _ in range(3):
                runs.append(crowd.started())
                time.sleep(crowd.rng.uniform(0, 0.5))
            found = [ended(one) for one in runs]
            assert [one.code for one in found] == [0, 0, 0], found
        crowd.ends_as_if_alone()


@pytest.mark.long
@pytest.mark.parametrize("seed", range(KILLED))
def test_runs_killed_at_random_moments_end_as_one_undisturbed(seed, tmp_path, simulator, objects):
    crowd = Crowd(tmp_path, simulator, objects, seed)
    with crowd.read_throughout():
        for turn in range(KILLS):
            kill = (signal.SIGKILL, signal.SIGTERM)[turn % 2]
            beside = [crowd.started()] if crowd.rng.random() < 0.25 else []
            victim = crowd.started()
            with suppress(subprocess.TimeoutExpired):
                victim.wait(crowd.rng.uniform(0.5, 3))
            victim.send_signal(kill)
            # -SIGINT: Python's own end where the stop came in the middle of an extension's import
            assert ended(victim).code in (0, -kill, 128 + kill, -signal.SIGINT)
            assert not any(ended(one).code for one in beside)
            crowd.account.announce(crowd.messages.slice(0, 200 + 20 * turn))
        crowd.ends_as_if_alone()
