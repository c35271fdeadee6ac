"""How long responses are kept, wherever they lie."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from tests.scripted import DAY, NOON, PHONE, Scripted, receipt
from usms_pipeline.days import log, quarantine


@pytest.fixture
def account(tmp_path: Path) -> Scripted:
    """A settled account with a session that the service refuses."""
    account = Scripted(tmp_path, batch_size=1)
    for name in ("s1", "bad"):
        account.row(name, NOON, PHONE)
    account.says["s1"] = receipt()
    account.refused = {"bad"}
    account.refresh()
    return account


def files(account: Scripted) -> list[str]:
    """Return what is left in the private folders."""
    data = account.folder / "data"
    found = [path for one in ("responses", "quarantine") for path in (data / one).rglob("*")]
    return sorted(str(path.relative_to(data)) for path in found if path.is_file())


def test_what_was_dismissed_is_deleted_with_the_responses(account):
    account.pipeline.dismiss()
    rows, [run] = account.rows(), log.runs(account.pipeline.store)
    left = account.folder / f"data/responses/{run}/000002.parquet.damaged-0123abcd"
    left.write_bytes(PHONE.encode())
    account.clock.turn(days=29)
    assert account.pipeline.purge() == []
    account.clock.turn(days=2)
    assert account.pipeline.purge() == [run]
    assert files(account) == []
    assert account.rows() == rows
    account.settled()


def test_files_of_others_among_the_responses_are_left_alone(account):
    """A copy that somebody made, in any place, with any name: no step stumbles over it."""
    account.pipeline.dismiss()
    [run] = log.runs(account.pipeline.store)
    names = [f"{run}/backup.parquet", "old.parquet", f"sent_date={DAY}/1.parquet",
             "20269999T000000.000000-00000000/000001.parquet", f"{run}/copy/000001.parquet",
             "open/notes.txt", "open/old.json"]  # fmt: skip
    foreign = sorted(f"responses/{name}" for name in names)
    for name in foreign:
        account.pipeline.store.write(name, pa.table({"x": [1]}))
    before = account.rows()
    account.row("s2", NOON, PHONE)
    account.refresh()
    account.pipeline.plan()
    account.rebuild()
    account.pipeline.forget(numbers=["s2"])
    assert account.rows() == before
    account.clock.turn(days=31)
    account.pipeline.purge()
    assert files(account) == foreign


def test_an_open_entry_and_a_run_that_is_not_folded_keep_their_responses(account):
    [entry] = quarantine.entries(account.pipeline.store)
    folded = account.land(account.told("s1"))
    account.row("s2", NOON, PHONE)
    account.refresh()
    open_ = account.land(account.told("s1"))
    account.clock.turn(days=31)
    purged = account.pipeline.purge()
    assert folded in purged
    assert {*log.runs(account.pipeline.store)} == {entry.block.split("/")[1], open_}
