"""What finding bad ids costs: O(k·log n) requests for k bad ones of n, and no good one is lost."""

from __future__ import annotations

import time
from math import ceil, log2
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest

from tests.account import Account
from tests.examples import examples
from tests.loopback import Response, Seen, code, ok, serving
from tests.test_client import Fetched
from tests.test_collect import Batch, run, settings
from usms_pipeline.contract.errors import CredentialsRefused
from usms_pipeline.days import quarantine
from usms_pipeline.service.collect import Patience, collect

SIZE = 100


def most_requests(bad: int, size: int = SIZE) -> int:
    """Bound the requests for one batch: all nodes above ``bad`` leaves of a tree of halves.

    The upper levels are shared by all bad ids; below log2(bad) levels each has a path of its own,
    and each node of a path has a sibling that is asked too.
    """
    if not bad:
        return 1
    shared = ceil(log2(bad))
    return 2 ** (shared + 1) - 1 + 2 * bad * (ceil(log2(size)) - shared)


HTML = {"Content-Type": "text/html"}
LONG = {"Retry-After": "60"}
WAYS = {
    "HTTP 400": Response(b"<h1>Bad Request</h1>", 400, HTML),
    "HTTP 404": Response(b"", 404),
    "HTTP 405": Response(b"<h1>Not Allowed</h1>", 405, HTML),
    "HTTP 302": Response(b"", 302, {"Location": "https://blocked.example/"}),
    "a firewall's 403": Response(b"<h1>Request blocked</h1>", 403, HTML),
    "a 403 with a code": code(299, "address not allowed", status=403),
    "a code of a bad signature": code(215393, "signature error"),
    "a parameter by another name": code(230, "Params [id] not valid"),
    "a code nobody knows": code(-17, "no such product"),
    "HTTP 500": Response(b"", 500),
    "HTTP 503 for a minute": Response(b"", 503, LONG),
    "HTTP 522": Response(b"<h1>timed out</h1>", 522, HTML),
    "HTTP 499": Response(b"", 499),
    "server error": code(215400, "server error"),
    "a web page": Response(b"<html>busy</html>"),
    "data of another shape": code(0, "success", Data={"s": {"Status": "delivered"}}),
    "a body that breaks off": Response(b"{" * 5_000, cut=1_000),
    "a reset": Response(b"{" * 5_000, cut=1_000, is_reset=True),
    "a broken archive": Response(b"\x1f\x8b\x08 not gzip", 200, {"Content-Encoding": "gzip"}),
    "always throttled": Response(b"", 429),
    "throttled by its code": code(153, "throttled"),
    "silence": Response(delay_seconds=60),
}
"""How a request that one id is in may be answered each time, beside any others."""

ONE_BAD = 5 + 3 + 2 * ceil(log2(SIZE)) + 2
"""Attempts on the whole, a look whether others are answered, the halves, two more of the last."""


def poisoned(ways: dict[str, Response], seen: Seen) -> Response:
    """Answer as the first bad id of a request makes the service answer."""
    return next((ways[one] for one in seen.ids if one in ways), None) or ok(seen.ids)


@pytest.mark.parametrize("way", WAYS)
def test_an_id_that_makes_every_answer_useless_costs_only_itself(way: str) -> None:
    """Also where there is no other batch that could pass."""
    ids = [f"session-{n:03}" for n in range(SIZE)]
    with serving(lambda seen: poisoned({ids[62]: WAYS[way]}, seen)) as server:
        fetched = Fetched(server.url, ids, timeout_seconds=0.3)
        assert len(server.seen) <= (ONE_BAD if "throttled" not in way else 20 + 3 + 9 * 7)
    assert fetched.ids("ok") == sorted({*ids} - {ids[62]})
    [answer] = [one for one in fetched.answers if one.verdict != "ok"]
    assert (answer.ids, answer.verdict) == ((ids[62],), "unanswered")
    assert answer.reason
    assert fetched.stats.ids_given_up == 0


LIMITS = {
    "a bare 403": Response(b"<h1>Slow down</h1>", 403, HTML),
    "HTTP 420": Response(b"", 420),
    "a code nobody knows": code(8086, "flow control"),
}


@examples(1, "way", [*LIMITS])
def test_a_limit_told_in_another_way_slows_down_and_costs_nobody(way: str) -> None:
    """Neither is the key bad, nor are the ids that were asked about just then."""
    left, since = 20.0, time.monotonic()

    def limited(seen: Seen) -> Response:
        nonlocal left, since
        now = time.monotonic()
        left, since = min(20.0, left + 40 * (now - since)), now
        left -= left >= 1
        return ok(seen.ids) if left >= 1 else LIMITS[way]

    work = [Batch(n, tuple(f"{n}-{i}" for i in range(SIZE))) for n in range(60)]
    with serving(limited) as server:  # with the pauses as they are: in them it recovers
        landed, stats = run(server.url, work, patience=Patience())
        assert len(server.seen) <= 2 * len(work)
    assert {one.verdict for _, one in landed} == {"ok"}
    assert stats.ids_answered == 60 * SIZE


@pytest.mark.parametrize("size", [1, 7, SIZE])
def test_bad_ids_in_every_batch_that_is_asked_leave_all_others_their_outcome(size: int) -> None:
    """No batch passes until one is divided."""
    ids = [f"s{n:03}" for n in range(6 * size)]
    ways = dict(zip(ids[size // 2 :: size][:4], list(WAYS.values())[8:12], strict=True))
    work = [Batch(n, tuple(ids[n * size : (n + 1) * size])) for n in range(6)]
    patience = Patience(first_pause_seconds=0.01, retry_after_seconds=0.01)
    with serving(lambda seen: poisoned(ways, seen)) as server:
        landed, stats = run(server.url, work, patience=patience)
        assert len(server.seen) <= len(work) + 4 * ONE_BAD
    unanswered = sorted(one.ids for _, one in landed if one.verdict == "unanswered")
    assert unanswered == sorted((one,) for one in ways)
    assert (stats.ids_answered, stats.ids_given_up) == (len(ids) - 4, 0)


TWELVE = (
    "HTTP 400", "HTTP 302", "a firewall's 403", "a code of a bad signature",
    "a parameter by another name", "HTTP 503 for a minute", "HTTP 522", "a web page",
    "a body that breaks off", "a broken archive", "always throttled", "silence",
)  # fmt: skip


@pytest.mark.long
def test_twelve_bad_ids_of_2500_each_in_another_way_cost_nobody_else_an_outcome(
    tmp_path: Path, simulator: Any
) -> None:
    """All in one run, which then asks about them again at their polling times, and closes them."""
    ids = [f"s{n:04}" for n in range(2_500)]
    ways = dict(zip(Random(3).sample(ids, 12), (WAYS[way] for way in TWELVE), strict=True))
    account = Account(tmp_path, simulator, 1, timeout_seconds=2, max_concurrency=8)
    at = pa.array([account.clock.now] * len(ids), pa.timestamp("us", "UTC"))
    phones = [f"+8613800{n:06}" for n in range(len(ids))]
    account.announce(pa.table({"session_no": ids, "sent_at": at, "phone": phones}))
    account.clock.turn(hours=1)
    count = "SELECT status, count(*)::INT FROM receipts GROUP BY 1 ORDER BY 1"
    with serving(lambda seen: poisoned(ways, seen)) as server:
        account.given["base_url"] = server.url
        begun = time.monotonic()
        report = account.run()
        print(f"{len(server.seen)} requests, {time.monotonic() - begun:.0f} s")  # -s shows it
        assert len(server.seen) <= 25 + 11 * ONE_BAD + 20 + 3 + 9 * 7
        assert account.sql(count) == [("delivered", 2_488), ("pending", 12)]
        assert not report.fell_short
        assert any("12 session numbers got no usable answer" in one for one in report.warnings)
        entries = quarantine.entries(account.pipeline.store)
        assert {one.session_no for one in entries} == {*ways}
        before = len(server.seen)
        account.clock.turn(hours=1)
        account.run()
        assert len(server.seen) == before, "no polling time has passed"
        account.clock.turn(hours=71)
        report = account.run()
        assert account.sql(count) == [("delivered", 2_488), ("unknown", 12)]
        assert not report.fell_short
        before = len(server.seen)
        account.clock.turn(hours=48)
        account.run()
        assert len(server.seen) == before
        assert len(quarantine.entries(account.pipeline.store)) == 12


@examples(1, "way", ["silence", "HTTP 522", "a firewall's 403"])
def test_a_bad_id_that_is_due_alone_is_told_from_a_service_that_is_down(way: str) -> None:
    """By asking about one that was answered before; where there is none, nothing is known of it."""
    patience = Patience(first_pause_seconds=0.01)
    work = [Batch(0, ("bad",))]
    for known, verdicts in (("good", ["unanswered"]), (None, []), ("bad", [])):
        landed: list[str] = []

        def keep(number: int, answer: Any, landed: list[str] = landed) -> None:
            landed.append(answer.verdict)

        with serving(lambda seen: poisoned({"bad": WAYS[way]}, seen)) as server:
            given = settings(server.url, timeout_seconds=0.2)
            try:
                collect(work, keep, given, patience=patience, known=lambda known=known: known)
            except CredentialsRefused:
                assert (way, verdicts) == ("a firewall's 403", [])
        assert landed == verdicts


def refusing(poison: set[str], seen: Seen) -> Response:
    return code(215392, "Invalid [id]") if poison & set(seen.ids) else ok(seen.ids)


@pytest.mark.parametrize("bad", [1, 2, 5, 20, 100])
def test_bad_ids_of_one_batch_are_found_in_k_log_n_requests(bad: int) -> None:
    """At worst, with the bad ids as far apart as they can be, and anywhere."""
    ids = [f"session-{n:03}" for n in range(SIZE)]
    spread = [ids[n * SIZE // bad] for n in range(bad)]
    for chosen in (spread, *(Random(seed).sample(ids, bad) for seed in range(3))):
        poison = set(chosen)
        with serving(lambda seen, poison=poison: refusing(poison, seen)) as server:
            # a service that refuses everything is not asked to the end: see test_refusals.py
            fetched = Fetched(server.url, ids)
            assert len(server.seen) <= most_requests(bad)
            assert len(server.seen) <= 2 * SIZE - 1
        if bad < SIZE:
            assert fetched.ids("refused") == sorted(poison)
            assert fetched.ids("ok") == sorted(set(ids) - poison)
