"""A run on the days' files has the rows of the pipeline in use, whatever the service answers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.account import Account
from usms_pipeline import dataset
from usms_pipeline.days import file, log
from usms_pipeline.days.columns import LAST_OPEN, OWN, STATE
from usms_pipeline.days.run import Outcome, Run
from usms_pipeline.simulator import Faults
from usms_pipeline.storage import Store


class Both:
    """An account with two pipelines, each with a service of its own for the same messages."""

    def __init__(self, folder: Path, simulator: Any, faults: str) -> None:
        options = {"faults": Faults.parse(faults)} if faults else {}
        self.account = Account(folder, simulator, 300, options=options, dimensions="template")
        messages = pq.read_table(self.account.source)
        self.service = simulator(messages, clock=self.account.clock, **options)
        self.store = Store(str(folder / "days"))

    def run(self) -> Outcome:
        account = self.account
        account.run()
        settings = account.settings.model_copy(update={"base_url": self.service.url})
        return Run(self.store, settings, account.pipeline.book, account.clock)(account.window)

    def rows(self) -> list[dict[str, Any]]:
        days = dataset.days(self.store, dataset.RECEIPTS)
        tables = [table for day in days for table in file.rows(self.store, day)]
        return pa.concat_tables(tables).drop_columns([OWN, LAST_OPEN, STATE]).to_pylist()

    def expected(self) -> list[dict[str, Any]]:
        store = self.account.pipeline.store
        tables = [store.read(name) for name in store.names("receipts")]
        return pa.concat_tables(tables).to_pylist()


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (str(row["session_no"]), str(row["recipient"])))


LONG = pytest.mark.long


@pytest.mark.parametrize(
    "faults",
    [
        "conflicting=0.3,poison=0.01,missing=0.1",
        pytest.param("", marks=LONG),
        pytest.param("missing=0.3", marks=LONG),
        pytest.param("late=0.3,regressing=0.3,array=0.3,spellings=0.5", marks=LONG),
    ],
)
def test_the_rows_are_those_of_the_pipeline_in_use(
    faults: str, tmp_path: Path, simulator: Any
) -> None:
    both = Both(tmp_path, simulator, faults)
    begun = both.account.clock.now
    for offset in both.account.settings.poll_offsets:
        both.account.clock.now = max(both.account.clock.now, begun + offset)
        both.run()
        assert in_order(both.rows()) == in_order(both.expected())
    assert both.run().written == [], "nothing is due, nothing is new"
    assert log.open_runs(both.store) == []


def test_what_a_killed_run_was_told_is_folded_and_not_asked_again(
    tmp_path: Path, simulator: Any
) -> None:
    both = Both(tmp_path, simulator, "")
    both.run()
    whole = in_order(both.rows())
    requests = both.service.service.counters.requests
    shutil.rmtree(tmp_path / "days/receipts")  # as if it had been killed before it wrote a day
    for run in log.runs(both.store):
        with both.store.replacing(f"responses/open/{run}.json") as mark:
            mark.write_text("{}")
    both.run()
    assert in_order(both.rows()) == whole
    assert both.service.service.counters.requests == requests
