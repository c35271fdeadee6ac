"""What finding bad ids costs: O(k·log n) requests for k bad ones of n, and no good one is lost."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, log2
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.account import Account
from tests.loopback import Response, Seen, code, ok, serving
from tests.test_client import Fetched
from tests.test_collect import Batch, run
from usms_pipeline.days import quarantine
from usms_pipeline.simulator import Faults

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


def test_ten_bad_ids_of_five_thousand_cost_their_own_batches_only() -> None:
    ids = [f"s{n:04}" for n in range(5_000)]
    poison = set(Random(7).sample(ids, 10))
    work = [Batch(n, tuple(ids[n : n + SIZE])) for n in range(0, len(ids), SIZE)]
    with serving(lambda seen: refusing(poison, seen)) as server:
        landed, stats = run(server.url, work)
        requests = len(server.seen)
    assert requests <= len(work) + 10 * (most_requests(1) - 1)
    assert (stats.ids_refused, stats.ids_answered, stats.ids_given_up) == (10, 4_990, 0)
    refused = [answer.ids for _, answer in landed if answer.verdict == "refused"]
    assert sorted(refused) == sorted((session,) for session in poison)


def test_a_refused_session_is_invalid_with_the_services_own_code_and_words(
    tmp_path: Path, simulator: Any
) -> None:
    account = Account(tmp_path, simulator, 120)
    poison = frozenset(account.service.sessions[3:5])
    account.service.faults = replace(Faults.none(), poison_ids=poison)
    account.clock.turn(days=4)
    account.run()
    rows = account.sql(
        "SELECT DISTINCT session_no, status, is_closed, provider_code, provider_desc "
        "FROM receipts WHERE status = 'invalid' ORDER BY 1"
    )
    words = "RetCode 215392: Invalid parameter [id]"
    assert rows == [(session, "invalid", True, "215392", words) for session in sorted(poison)]
    entries = quarantine.entries(account.pipeline.store)
    assert {(entry.session_no, entry.reason) for entry in entries} == {(s, words) for s in poison}


@pytest.mark.long
@pytest.mark.parametrize("body", [b"<html>", b'{"RetCode":0,"Data":{"SessionNo":"x"}}'])
def test_a_replay_asks_again_about_a_session_whose_answer_could_not_be_read(
    tmp_path: Path, simulator: Any, body: bytes
) -> None:
    """Now, and not at its next turn: past the cutoff that is a day later."""
    account = Account(tmp_path, simulator, 1, batch_size=1)
    account.clock.turn(days=4)
    with serving(lambda seen: Response(body)) as server:
        real, account.given["base_url"] = account.given["base_url"], server.url
        account.run()
        asked = len(server.seen)
        account.clock.turn(hours=23)
        account.run()
        assert len(server.seen) == asked
        account.clock.turn(hours=1)
        account.run()
        assert len(server.seen) == 2 * asked
    [entry] = quarantine.entries(account.pipeline.store)
    assert entry.kind == quarantine.UNREADABLE
    assert account.sql("SELECT status FROM receipts") == [("pending",)]
    account.given["base_url"] = real
    assert account.pipeline.replay() == 1
    assert quarantine.entries(account.pipeline.store) == []
    assert account.sql("SELECT count(*) FROM receipts WHERE is_final OR is_closed") == [(1,)]
