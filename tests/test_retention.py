"""How long raw answers are kept, wherever they lie."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.account import Account
from usms_pipeline.days import file, quarantine
from usms_pipeline.cli import check
from usms_pipeline.simulator import Faults


def settled_with_a_refused_session(folder: Path, simulator: Any) -> Account:
    account = Account(folder, simulator, 60)
    poison = frozenset({account.service.sessions[7]})
    account.service.faults = replace(Faults.none(), poison_ids=poison)
    account.run_to_the_end()
    return account


@pytest.mark.long
def test_what_was_dismissed_is_deleted_with_the_raw_answers(tmp_path: Path, simulator: Any) -> None:
    account = settled_with_a_refused_session(tmp_path, simulator)
    account.pipeline.dismiss()
    store, rows = account.pipeline.store, account.rows()
    assert store.names("quarantine")
    account.clock.turn(days=31)
    account.run()
    assert store.names("responses") + store.names("quarantine") == []
    assert account.rows() == rows


@pytest.mark.long
def test_files_of_others_among_the_raw_answers_are_left_alone_and_told(
    tmp_path: Path, simulator: Any
) -> None:
    """A copy that somebody made, in any place, with any name: no step stumbles over it."""
    account = settled_with_a_refused_session(tmp_path, simulator)
    account.pipeline.dismiss()
    [day, *_] = dataset.days(account.pipeline.store, dataset.RESPONSES)
    names = [f"sent_date={day}/backup.parquet", "old.parquet", "sent_date=2026-01-01/1.parquet",
             f"sent_date={day}/20269999T000000.000000-00000000.parquet",
             f"sent_date={day}/copy/20260302T000000.000000-00000000.parquet"]  # fmt: skip
    foreign = sorted(f"responses/{name}" for name in names)
    for name in foreign:
        account.pipeline.store.write(name, pa.table({"x": [1]}))
    [told] = [text for _, text in check._data_dir(account.settings) if "raw answers" in text]
    assert told.startswith("5 files")
    assert foreign[0] in told
    before = account.rows()
    account.run()
    account.pipeline.plan()
    account.pipeline.rebuild()
    account.pipeline.forget(numbers=["nobody's"])
    assert account.rows() == before
    account.clock.turn(days=31)
    account.run()
    assert account.pipeline.store.names("responses") == foreign


def test_an_open_entry_keeps_its_partition_s_raw_answers(tmp_path: Path, simulator: Any) -> None:
    account = settled_with_a_refused_session(tmp_path, simulator)
    [day] = {entry.sent_date for entry in quarantine.entries(account.pipeline.store)}
    account.clock.turn(days=31)
    account.run()
    kept = [*account.pipeline.store.names("responses"), *account.pipeline.store.names("quarantine")]
    assert kept
    assert all(f"sent_date={day}" in name for name in kept)
