"""The made-up accounts: what a pipeline knows by its questions, and a forecast that knows all."""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, datetime, timedelta

import numpy as np

from tests.cohorts import CUTOFF
from tests.examples import examples
from tests.rate_worlds import WORLDS, micros, world
from usms_pipeline.contract import polling

RUN = timedelta(minutes=15)
DAY = 24 * 3_600_000_000


@examples(1, "name", ["nightly lots", "pipeline paused 8 h", "receipts undated"])
def test_receipts_are_what_the_questions_of_the_runs_would_find(name):
    account = world(name, seed=11, per_day=60, days=6)
    now = account.end - timedelta(hours=3)
    runs = [at for at in _runs(account.end) if not _is_paused(account, at)]
    rows = account.receipts(now).to_pylist()
    is_final, is_delivered = account.truth(now)
    assert len(rows) > 100
    for n, row in enumerate(rows):
        asked, found = _asked(account, n, row["sent_at"], [at for at in runs if at <= now])
        assert (row["first_asked_at"], row["last_asked_at"]) == (
            (asked[0], asked[-1]) if asked else (None, None)
        )
        assert row["final_at"] == found
        nothing = [at for at in asked if at != found]
        assert row["last_open_at"] == (nothing[-1] if nothing else None)
        assert row["is_closed"] == (
            bool(asked) and found is None and asked[-1] >= row["sent_at"] + CUTOFF
        )
        _, ever = _asked(account, n, row["sent_at"], [*runs, *_runs(account.end, ahead=True)])
        assert is_final[n] == (ever is not None)
        if found is not None:
            assert is_delivered[n] == (row["status"] == "delivered")


def _runs(end: datetime, ahead: bool = False) -> list[datetime]:
    first = datetime(2026, 11, 1, tzinfo=UTC)
    count = int((end + (timedelta(days=5) if ahead else timedelta()) - first) / RUN) + 1
    begin = int((end - first) / RUN) + 1 if ahead else 0
    return [first + n * RUN for n in range(begin, count)]


def _is_paused(account, at: datetime) -> bool:
    spans = [
        (account.end - timedelta(hours=b), account.end - timedelta(hours=b - length))
        for b, length in account.pauses
    ]
    return any(begin <= at < end for begin, end in spans)


def _asked(account, n: int, sent_at: datetime, runs: list[datetime]):
    """Ask at each run about what is due, until there is a final status or the message is closed."""
    kind, _, told = (int(one[n]) for one in account._fates)
    asked: list[datetime] = []
    for at in runs[bisect_left(runs, sent_at) :]:
        due = [sent_at + o for o in polling.offsets(CUTOFF) if sent_at + o <= at]
        if not due or (asked and not any(one > asked[-1] for one in due)):
            continue
        asked.append(at)
        if kind != 5 and told <= micros(at):
            return asked, at
    return asked, None


@examples(3, "name", sorted(set(WORLDS) - {"large"}))
def test_a_forecast_that_knows_every_chance_is_neither_biased_nor_too_sure(name):
    """Over yesterdays and todays of 30 accounts; 'rate 5 %' awaits too little to be exact."""
    errors, held = [], []
    for seed in range(30):
        account = world(name, seed, **({} if name == "first days" else {"days": 6}))
        rows = account.receipts()
        is_final, is_delivered = account.truth()
        day = micros(account.end) // DAY - account.sent_us[: rows.num_rows] // DAY
        groups = [day == n for n in (0, 1) if is_final[day == n].any()]
        said = account.oracle(account.end, rows, groups, draws=300)
        for group, (expected, low, high) in zip(groups, said, strict=True):
            truth = is_delivered[group].sum() / is_final[group].sum()
            errors.append(expected - truth)
            held.append(low - 1e-9 <= truth <= high + 1e-9)
    assert np.mean(held) >= 0.85
    assert abs(np.mean(errors)) < 3.5 * np.std(errors) / np.sqrt(len(errors)) + 1e-4
