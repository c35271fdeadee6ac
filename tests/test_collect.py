from __future__ import annotations

import _thread
import asyncio
import gc
import threading
import time

import pytest

from tests.loopback import Response, code, ok, serving
from usms_pipeline.contract.errors import CredentialsRefused, ServiceDown
from usms_pipeline.service import pace
from usms_pipeline.service.collect import LATER, Batch, Patience, collect
from usms_pipeline.service.pace import BreakerLimits
from usms_pipeline.settings import load

HASTY = Patience(
    first_pause_seconds=0.01, breaker=BreakerLimits(failures=12, seconds=0.0, slow_seconds=1e9)
)


def settings(url, **more):
    return load(base_url=url, access_key_id="keyid", access_key_secret="keysecret", **more)


def batches(count, size=10):
    for n in range(count):
        yield Batch(n, tuple(f"{n}-{i}" for i in range(size)))


def asked(landed):
    return sorted(i for _, answer in landed for i in answer.ids)


def run(url, work, sink=None, start_pace=1e5, patience=HASTY, on_progress=None, **more):
    """Collect; return what was received and the figures."""
    landed = []

    def keep(number, answer):
        landed.append((number, answer))

    stats = collect(
        work, sink or keep, settings(url, **more),
        start_pace=start_pace, patience=patience, on_progress=on_progress,
    )  # fmt: skip
    return landed, stats


@pytest.fixture
def good():
    with serving(lambda seen: ok(seen.ids)) as server:
        yield server


def no_thread_is_left():
    return not any(thread.name == "usms-collect" for thread in threading.enumerate())


def test_every_batch_lands_once_under_its_own_number(good):
    work = [Batch(n, (f"id-{n}",)) for n in range(300)]
    landed, stats = run(good.url, iter(work))
    assert sorted((n, a.ids) for n, a in landed) == [(batch.number, batch.ids) for batch in work]
    assert (stats.requests, stats.ids_asked, stats.ids_answered) == (300, 300, 300)
    assert stats.problems == {}
    assert stats.bytes_received == sum(len(a.body) for _, a in landed)
    assert no_thread_is_left()


def test_what_lands_goes_to_the_sink_while_the_next_batch_is_waited_for(good):
    """What came of the first is there before there is a second."""
    landed = []

    def work():
        yield Batch(0, ("a", "b"))
        until = time.monotonic() + 20
        while not landed and time.monotonic() < until:
            yield LATER
        assert [answer.ids for _, answer in landed] == [("a", "b")]
        yield Batch(1, ("c",))

    run(good.url, work(), lambda *one: landed.append(one))
    assert asked(landed) == ["a", "b", "c"]


def test_nothing_to_ask_makes_no_client(good, monkeypatch):
    """Its imports and certificates are a seventh of a run with nothing due."""
    monkeypatch.delattr("usms_pipeline.service.transport.CurlTransport")
    landed, stats = run(good.url, [], start_pace=33)
    assert (landed, stats.requests, good.seen, stats.pace) == ([], 0, [], 33)
    with pytest.raises(ImportError):
        run(good.url, batches(1))


def test_requests_in_flight_and_connections_are_bounded_by_the_setting():

    def handler(seen):
        return Response(ok(seen.ids).body, delay_seconds=0.02)

    with serving(handler) as server:
        _, stats = run(server.url, batches(60), max_concurrency=4)
        assert server.connections <= 4
    assert stats.concurrency == 4


def test_batches_are_drawn_only_a_little_ahead():
    drawn = 0

    def work():
        nonlocal drawn
        for batch in batches(1000, 1):
            drawn += 1
            yield batch

    ahead = []
    with serving(lambda seen: ok(seen.ids)) as server:
        run(server.url, work(), sink=lambda *_: ahead.append(drawn - len(ahead)))
    # Those in flight, those drawn for later, and those waiting for the sink.
    assert max(ahead) < 400
    assert drawn == len(ahead) == 1000


def test_a_slow_sink_holds_the_workers_back():
    """While the sink is busy, the workers end what was drawn for them and no more."""
    most = taken = 0
    with serving(lambda seen: ok(seen.ids)) as server:

        def sink(number, answer):
            nonlocal most, taken
            if taken == 0:
                time.sleep(1)
            taken += 1
            most = max(most, len(server.seen) - taken)

        run(server.url, batches(500, 1), sink=sink)
    assert taken == 500
    assert most < 150


def test_the_callers_parts_run_in_the_callers_thread_one_at_a_time(good):
    threads = set()

    def work():
        for batch in batches(50):
            threads.add(threading.get_ident())
            yield batch

    run(
        good.url,
        work(),
        sink=lambda *_: threads.add(threading.get_ident()),
        on_progress=lambda _: threads.add(threading.get_ident()),
    )
    assert threads == {threading.get_ident()}


def test_it_works_inside_a_running_event_loop(good):
    async def cell():
        return run(good.url, batches(5))

    landed, _ = asyncio.run(cell())
    assert len(landed) == 5


def test_progress_is_told_now_and_then_and_at_the_end():
    told = []
    with serving(lambda seen: Response(ok(seen.ids).body, delay_seconds=0.05)) as server:
        _, stats = run(server.url, batches(20), max_concurrency=2, on_progress=told.append)
    assert 2 <= len(told) <= 10
    assert [one.requests for one in told] == sorted(one.requests for one in told)
    assert told[0].requests < told[-1].requests == stats.requests == 20


def test_the_figures_add_up_under_every_fault_at_once():
    """Asked = answered + refused + unanswered + given up, in any case."""
    count = 0

    def handler(seen):
        nonlocal count
        count += 1
        if any(i.endswith("-7") for i in seen.ids):
            return code(215392, "bad")
        if "3-0" in seen.ids:
            return code(999, "odd")
        if "4-4" in seen.ids:
            return Response(b"<html>")
        if "5-0" in seen.ids:
            return Response(status=500)
        faults = {1: Response(status=429), 2: Response(status=502), 3: Response(b"{", cut=0)}
        is_lone = len(seen.ids) == 1  # a good id may meet three faults in a row
        return ok(seen.ids) if is_lone else faults.get(count % 10, ok(seen.ids))

    with serving(handler) as server:
        patience = Patience(first_pause_seconds=0.001, attempts=6)
        landed, stats = run(server.url, batches(30), patience=patience, max_concurrency=3)
        assert stats.requests == len(server.seen)
    settled = stats.ids_answered + stats.ids_refused + stats.ids_unanswered + stats.ids_given_up
    assert stats.ids_asked == settled == 300
    assert stats.ids_refused == 30
    verdicts = ("ok", "refused", "unanswered")
    by_verdict = {v: asked([x for x in landed if x[1].verdict == v]) for v in verdicts}
    assert len(by_verdict["ok"]) == stats.ids_answered
    assert by_verdict["refused"] == sorted(f"{n}-7" for n in range(30))
    assert by_verdict["unanswered"] == ["3-0", "4-4", "5-0"]
    assert stats.problems == {}
    assert stats.throttled > 0
    assert stats.retries > 0


def test_the_settled_pace_comes_back_when_a_limit_was_met():
    count = 0

    def handler(seen):
        nonlocal count
        count += 1
        return Response(status=429) if count == 3 else ok(seen.ids)

    with serving(handler) as server:
        _, unlimited = run(server.url, batches(2), start_pace=None)
        _, limited = run(server.url, batches(2), start_pace=None)
    assert unlimited.pace is None
    assert limited.pace == pytest.approx(pace.FIRST_PACE / 2), "the last doubling is taken back"


def test_a_ceiling_in_the_settings_is_kept(good):
    _, stats = run(good.url, batches(11), max_requests_per_second=20)
    assert stats.seconds >= 10 / 20 - pace._SLACK_SECONDS, "what a late timer missed is caught up"


# Ending early


@pytest.mark.parametrize(
    ("status", "error", "most", "words"),
    [
        (401, CredentialsRefused, 20 + 8, "USMS_ACCESS_KEY"),
        (503, ServiceDown, 20 + 12 + 8, "HTTP 503"),
    ],
)
def test_an_answer_that_ends_the_run_keeps_what_landed(status, error, most, words):
    count, landed, all_landed = 0, [], threading.Event()

    def handler(seen):
        nonlocal count
        count += 1
        if count <= 20:
            return ok(seen.ids)
        all_landed.wait(10)  # for a good answer between the failures starts their count afresh
        return Response(status=status)

    def keep(number, answer):
        landed.append((number, answer))
        if len(landed) == 20:
            all_landed.set()

    with serving(handler) as server, pytest.raises(error) as caught:
        run(server.url, batches(5_000), sink=keep)
    assert len(landed) == 20
    assert caught.value.stats.ids_answered == 200
    assert len(server.seen) <= most
    assert words in str(caught.value)
    assert "keysecret" not in str(caught.value)
    assert no_thread_is_left()


def test_what_the_sink_raises_ends_the_run(good):
    taken = []

    def sink(number, answer):
        taken.append(answer)
        if len(taken) == 5:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run(good.url, batches(5_000), sink=sink)
    assert len(taken) == 5
    assert len(good.seen) < 1000
    assert no_thread_is_left()


def test_what_the_batches_raise_ends_the_run_and_what_landed_is_kept(good):
    landed = []

    def work():
        yield from batches(100)
        while len(good.seen) < 5:
            time.sleep(0.01)
        raise LookupError("source gone")

    with pytest.raises(LookupError, match="source gone"):
        run(good.url, work(), sink=lambda d, a: landed.append((d, a)))
    assert len(landed) >= 5 - 1
    assert no_thread_is_left()


def test_ctrl_c_ends_the_run_and_what_landed_is_kept():
    """An interrupt while answers are awaited: the main thread is in the middle of waiting."""
    landed = []

    def handler(seen):
        if len(server.seen) == 30:
            _thread.interrupt_main()
        return Response(ok(seen.ids).body, delay_seconds=0.01 if len(server.seen) < 30 else 20)

    with serving(handler) as server:
        with pytest.raises(KeyboardInterrupt):
            run(server.url, batches(5_000), sink=lambda d, a: landed.append((d, a)))
        answered = len(server.seen)
    assert 15 <= len(landed) <= answered
    assert no_thread_is_left()
    gc.collect()  # a task or connection left behind would warn here
