"""A window of too many rows to be held at once is read in pieces of whole days: to the same end."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.examples import examples
from tests.scripted import DAY, NOON, OTHER, PHONE, THIRD, Scripted, receipt
from usms_pipeline.days import log, source_rows
from usms_pipeline.store.dataset import Window

DAYS = 6
WINDOW = Window(DAY - timedelta(days=DAYS - 1), DAY)
FEW = 6
"""How many rows may be held at once here."""


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_rows, "MOST_ROWS", FEW)


def _back(days: int) -> Any:
    return NOON - timedelta(days=days)


def _fill(account: Scripted, dice: random.Random) -> None:
    """Add messages of all days, some to several phones, some of them on both sides of midnight."""
    for number in range(4 * DAYS):
        name, sent_at = f"s{number}", _back(number % DAYS) + timedelta(minutes=number)
        phones = dice.choice([[PHONE], [PHONE], [PHONE, OTHER], [None, THIRD]])
        for phone in phones:
            late = timedelta(hours=dice.choice([0, 0, 17])) if number % DAYS else timedelta(0)
            account.row(name, sent_at + late, phone)
        word = dice.choice(["delivered", "UNDELIV", "sending"])
        account.says[name] = [receipt(word, phone or PHONE) for phone in phones]


def _change(account: Scripted, dice: random.Random) -> None:
    """Put messages off by some days, add rows, blank phones, and take rows out."""
    for name in dice.sample(sorted({row["session_no"] for row in account.table}), 8):
        rows = [row for row in account.table if row["session_no"] == name]
        ahead = (NOON - max(row["sent_at"] for row in rows)).days
        change = dice.choice(["later", "later", "more", "blank", "gone"])
        if change == "later":
            if ahead > 0 and all(row["phone"] for row in rows):
                by = timedelta(days=dice.randint(1, ahead))
                for row in rows:
                    row["sent_at"] += by
        elif change == "more":
            account.row(name, rows[0]["sent_at"], "+8613900139000")
        elif change == "blank":
            rows[0]["phone"] = None
        else:
            account.table.remove(rows[0])


@examples(1, "seed", range(60))
def test_in_pieces_and_at_once_the_rows_are_the_same(tmp_path: Path, monkeypatch, seed):
    found = []
    for most in (FEW, 1_000_000):
        monkeypatch.setattr(source_rows, "MOST_ROWS", most)
        folder = tmp_path / str(most)
        folder.mkdir()
        account, dice = Scripted(folder), random.Random(seed)
        _fill(account, dice)
        reports = [account.refresh()]
        for _ in range(2):
            _change(account, dice)
            reports.append(account.refresh(hours=dice.choice([1, 30])))
        reports.append(account.refresh(hours=100))
        account.settled()
        rows = account.shown("session_no", "phone", "sent_date", "sent_at", "status", "is_closed")
        counts = [(one.new, one.rows_read, one.newest) for one in reports]
        first, last = reports[0].stats, reports[-1]
        asked = first.ids_asked, first.ids_answered, reports[0].unannounced
        found.append((rows, counts, asked, len(last.days), last.open, last.buckets))
    assert found[0] == found[1]


def test_no_more_rows_are_held_than_may_be_but_those_of_one_day(tmp_path, few_at_once):
    account = Scripted(tmp_path)
    for day in range(DAYS):
        for number in range(9 if day == 3 else 2):
            account.row(f"s{day}-{number}", _back(day), PHONE)
    account._announce()
    held = []
    with account.pipeline._run() as run:
        for piece in run.pieces(WINDOW, reaches_today=True):
            held.append((len(piece), sum(one.size for one in run._days.values())))
            run.ask()
    assert sum(days for days, _ in held) == DAYS
    assert len(held) > 1
    assert all(rows <= FEW or days == 1 for days, rows in held)


def test_the_plan_and_the_look_count_all_pieces(tmp_path, few_at_once):
    account = Scripted(tmp_path)
    _fill(account, random.Random(0))
    account._announce()
    plan = account.pipeline.plan(WINDOW)
    assert (sum(plan.due_sessions.values()), plan.requests) == (4 * DAYS, 1)
    assert len(plan.due_sessions) == DAYS
    assert plan.oldest_unmet_at < _back(DAYS - 2)
    account.refresh(WINDOW)
    account.refresh(WINDOW, hours=72)
    account.run()
    assert account.pipeline.look().to_do == []
    for day in (0, 2):
        account.row(f"new{day}", _back(day), PHONE)
    account._announce()
    assert account.pipeline.look().to_do == ["2 days not as the source has it now"]


def test_what_a_killed_run_was_told_of_several_pieces_is_folded_and_sealed(tmp_path, few_at_once):
    account = Scripted(tmp_path)
    _fill(account, random.Random(1))
    names = [f"s{number}" for number in range(4 * DAYS)]
    account.land(account.told(*names), days=WINDOW.days())
    report = account.refresh(WINDOW)
    assert (account.asked, report.quarantined) == ([], 0)
    assert log.open_runs(account.pipeline.store) == []
    account.settled()
