"""A run that dies at any write: the next one ends where an undisturbed one would have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.account import Account
from usms_pipeline import quarantine, storage
from usms_pipeline.simulator import Faults

MOST_WRITES = 60


class Killed(BaseException):
    """No `except Exception` may hold it up, as none holds up a SIGKILL."""


def account_at(folder: Path, simulator: Any) -> Account:
    folder.mkdir()
    account = Account(folder, simulator, 40, phone_key="0123456789abcdef" * 2)
    poison = frozenset({account.service.sessions[7]})
    account.service.faults = replace(Faults.none(), poison_ids=poison)
    account.clock.turn(hours=80)
    return account


def seen(account: Account) -> tuple[Any, ...]:
    """Dataset, warehouse and quarantine."""
    with duckdb.connect(str(account.folder / "data/usms.duckdb"), read_only=True) as con:
        con.execute("SET TimeZone = 'UTC'")
        published = con.execute("FROM receipts ORDER BY ALL").fetchall()
    entries = {(e.kind, e.session_no) for e in quarantine.entries(account.pipeline.store)}
    return account.rows(), published, entries


@pytest.mark.long
def test_a_run_killed_at_any_write_loses_nothing_and_doubles_nothing(
    tmp_path: Path, simulator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = account_at(tmp_path / "whole", simulator)
    undisturbed.run()
    expected = seen(undisturbed)
    publish = storage.publish_file
    for last in range(1, MOST_WRITES):
        account = account_at(tmp_path / str(last), simulator)
        writes = 0

        def die(temporary: Path, final: Path, last: int = last) -> None:
            nonlocal writes
            writes += 1
            if writes >= last:
                raise Killed
            publish(temporary, final)

        monkeypatch.setattr(storage, "publish_file", die)
        monkeypatch.setattr("usms_pipeline.warehouse.publish.publish_file", die)
        try:
            account.run()
        except Killed:
            assert writes == last
        monkeypatch.setattr(storage, "publish_file", publish)
        monkeypatch.setattr("usms_pipeline.warehouse.publish.publish_file", publish)
        is_whole = writes < last
        account.run()
        assert account.pipeline.conservation(account.window.days()) == [], f"write {last}"
        assert seen(account) == expected, f"killed at write {last}"
        if is_whole:
            break
    assert last > 8, "the run writes less than it should"
    assert is_whole
