"""The eight laws, each by the test that fails if it breaks: real HTTP, files and processes."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import usms_pipeline
from tests.account import START, Account
from tests.processes import started
from usms_pipeline.contract.errors import ServiceDown
from usms_pipeline.contract.status import BUCKETS
from usms_pipeline.days import log, quarantine
from usms_pipeline.service.collect import Patience
from usms_pipeline.service.pace import BreakerLimits
from usms_pipeline.simulator import Faults

CUTOFF = timedelta(hours=72)


def expected_buckets(account: Account) -> Counter[str]:
    """The simulator's own truth after the cutoff: what is pending then is unknown."""
    truth = account.service.truth(account.clock.now)
    words = truth["status"].to_pylist()
    return Counter("unknown" if word == "pending" else word for word in words)


def counted(account: Account) -> Counter[str]:
    query = "SELECT status, count(*) FROM receipts WHERE is_announced GROUP BY 1"
    return Counter(dict(account.sql(query)))


@pytest.mark.long
def test_law_1_conservation_every_row_is_in_one_bucket_with_every_fault_on(tmp_path, simulator):
    faults = replace(Faults.every(), oversized=0.0)  # bodies of 65 MB have tests of their own
    account = Account(tmp_path, simulator, 1500, options={"faults": faults})
    announced = account.service.truth(account.clock.now).num_rows
    account.run()
    assert sum(counted(account).values()) == announced
    account.run_to_the_end()
    assert account.pipeline.conservation(account.window.days()) == []
    assert counted(account) == expected_buckets(account)
    assert set(counted(account)) <= set(BUCKETS)


def test_law_1_a_lost_row_is_told(tmp_path, simulator):
    account = Account(tmp_path, simulator, 60)
    account.run()
    store = account.pipeline.store
    name = store.names("receipts")[0]
    store.write(name, store.read(name).slice(1), store.metadata(name))
    [sentence] = account.pipeline.conservation(account.window.days())
    assert name.split("/")[1].removeprefix("sent_date=") in sentence
    assert "usms rebuild" in sentence


def test_law_2_repeating_a_run_changes_no_row(tmp_path, simulator):
    """The order of answers and their repetition: `test_general.py`, against a reference."""
    account = Account(tmp_path, simulator)
    account.run()
    before, store = account.rows(), account.pipeline.store
    for run in log.runs(store):  # as if each had been killed before it folded anything
        with store.replacing(f"responses/open/{run}.json", private=True) as path:
            path.write_text("{}")
    account.run()
    assert account.rows() == before
    assert log.open_runs(store) == []


def test_law_3_rebuilt_equals_incremental(tmp_path, simulator):
    account = Account(tmp_path, simulator, options={"faults": Faults.parse("conflicting=0.2")})
    account.run_to_the_end()
    incremental = account.rows()
    account.pipeline.rebuild()
    assert account.rows() == incremental
    assert any(row for row in account.sql("FROM receipts WHERE len(conflicts) > 0"))


def test_law_3_rebuilt_equals_incremental_after_the_raw_answers_were_purged(tmp_path, simulator):
    account = Account(tmp_path, simulator)
    account.run_to_the_end()
    incremental = account.rows()
    account.clock.turn(days=31)
    account.run()
    assert account.pipeline.store.names("responses") == []
    account.pipeline.rebuild()
    assert account.rows() == incremental


def test_law_4_what_landed_survives_a_kill(tmp_path, simulator):
    slow = Faults.parse("latency_seconds=0.2")
    account = Account(tmp_path, simulator, 1000, options={"faults": slow}, batch_size=2)
    account.service.clock = lambda: START + timedelta(days=30)
    run = started(account, "run", "--all")
    responses = tmp_path / "data/responses"
    while not list(responses.rglob("[0-9]*.parquet")):
        assert run.poll() is None, "ended before it could be killed"
        time.sleep(0.01)
    run.kill()
    run.communicate()
    landed = {
        session
        for name in account.pipeline.store.names("responses")
        for ids in account.pipeline.store.read(name)["ids"].to_pylist()
        for session in ids
    }
    assert landed
    asked_before = account.service.counters.ids_asked.copy()
    account.service.faults = Faults()
    account.clock.now = START + timedelta(days=30)
    account.run()
    asked_again = account.service.counters.ids_asked - asked_before
    assert not landed & set(asked_again), "an answer that had landed was asked for again"
    assert account.pipeline.conservation(account.window.days()) == []
    assert counted(account) == expected_buckets(account)


def test_law_5_a_reader_and_the_pipeline_do_not_block_each_other(tmp_path, simulator):
    account = Account(tmp_path, simulator)
    account.run()
    held = usms_pipeline.connect(data_dir=account.given["data_dir"])
    query = "SELECT sum(messages), sum(delivered), sum(awaited) FROM delivery_rate_daily"
    before = held.execute(query).fetchall()
    with (tmp_path / "data/usms.duckdb").open("rb") as opened:
        published = opened.read()
        account.clock.turn(days=4)
        report = account.run()
        opened.seek(0)
        is_as_it_was = opened.read() == published  # to show how they differ takes hours
    assert is_as_it_was, "what somebody has open never changes"
    assert not report.warehouse.is_skipped
    assert held.execute(query).fetchall() == before
    held.close()
    fresh = usms_pipeline.connect(data_dir=account.given["data_dir"])
    assert fresh.execute(query).fetchall() != before
    fresh.close()


def test_law_6_a_final_session_is_never_asked_about_again(tmp_path, simulator):
    account = Account(tmp_path, simulator, options={"faults": Faults.parse("poison=0.01")})
    account.run()
    requests = account.service.counters.requests
    account.run()
    assert account.service.counters.requests == requests, "nothing was due"
    account.run_to_the_end()
    assert not account.service.counters.asked_after_final
    requests = account.service.counters.requests
    account.clock.turn(days=1)
    account.run()
    assert account.service.counters.requests == requests, "all is final or closed"


def test_law_6_a_partition_without_news_is_not_written(tmp_path, simulator):
    account = Account(tmp_path, simulator)
    account.run_to_the_end()
    written = {path: path.stat().st_ino for path in tmp_path.glob("data/*/*/*")}
    account.run()
    assert {path: path.stat().st_ino for path in tmp_path.glob("data/*/*/*")} == written


def test_law_7_a_poison_id_costs_itself_and_can_be_replayed(tmp_path, simulator):
    account = Account(tmp_path, simulator, 200)
    poison = account.service.sessions[7]
    account.service.faults = replace(Faults(), poison_ids=frozenset({poison}))
    account.clock.turn(days=4)
    report = account.run()
    assert report.stats.ids_refused == 1
    assert account.sql("SELECT session_no FROM receipts WHERE status = 'invalid'") == [(poison,)]
    [entry] = quarantine.entries(account.pipeline.store)
    assert (entry.kind, entry.session_no) == ("refused_id", poison)
    account.service.faults = Faults()
    assert account.pipeline.replay() == 1
    assert account.sql("SELECT * FROM receipts WHERE status = 'invalid'") == []
    assert quarantine.entries(account.pipeline.store) == []


def test_law_7_a_run_keeps_what_landed_when_the_service_goes_down(tmp_path, simulator):
    soon = Patience(first_pause_seconds=0.01, breaker=BreakerLimits(seconds=0.1))
    account = Account(tmp_path, simulator, 400, patience=soon, batch_size=10)
    account.clock.turn(days=4)
    account.service.faults = Faults.parse("down=1")
    with pytest.raises(ServiceDown, match="Everything received is saved"):
        account.run()
    assert account.pipeline.conservation(account.window.days()) == []
    assert set(counted(account)) == {"pending"}
    account.service.faults = Faults()
    account.run()
    assert counted(account) == expected_buckets(account)


def test_law_8_never_failed_without_evidence(tmp_path, simulator):
    account = Account(tmp_path, simulator, options={"faults": Faults.parse("missing=1")})
    account.run()
    assert set(counted(account)) == {"pending"}
    account.run_to_the_end()
    assert set(counted(account)) == {"unknown"}
    assert account.sql("SELECT count(*) FROM receipts WHERE is_final OR NOT is_closed") == [(0,)]


def test_a_second_run_leaves_a_locked_partition_alone(tmp_path, simulator):
    account = Account(tmp_path, simulator, 100)
    locked = START.date()
    with account.pipeline.store.lock(f"sent_date={locked}") as held:
        assert held
        report = account.run()
    assert report.locked == [locked]
    assert any(str(locked) in warning for warning in report.warnings)
    assert not report.fell_short
    assert locked in account.run().days


def test_two_runs_at_once_ask_about_each_session_once(tmp_path, simulator):
    account = Account(tmp_path, simulator, 400, batch_size=20)
    account.clock.turn(days=4)
    runs = [threading.Thread(target=account.run) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    account.run()
    assert set(account.service.counters.ids_asked.values()) == {1}
    assert counted(account) == expected_buckets(account)


def test_rows_without_a_time_are_counted_once_a_day(tmp_path, simulator):
    """They have no partition, so no figure has them; the report of every run tells how many."""
    account = Account(tmp_path, simulator, 50)
    assert account.pipeline.left_out().without_sent_at == 0
    table = pq.read_table(account.source)
    place = table.schema.get_field_index("sent_at")
    account.announce(table.set_column(place, "sent_at", pa.nulls(50, pa.timestamp("us", "UTC"))))
    assert account.pipeline.left_out().without_sent_at == 0, "asked today already"
    account.clock.turn(days=1)
    assert account.pipeline.left_out().without_sent_at == 50
    mended = table["sent_at"].to_pylist()[3:] + [None] * 3
    account.announce(
        table.set_column(place, "sent_at", pa.array(mended, pa.timestamp("us", "UTC")))
    )
    assert account.pipeline.left_out().without_sent_at == 3, "while there are some, it asks again"
    account.source.unlink()
    account.clock.turn(days=1)
    assert account.pipeline.left_out() is None
