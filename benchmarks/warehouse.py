"""Publishing as the history grows: ten thousand changed rows, and the copy that is published."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any
from unittest.mock import patch

import pyarrow as pa

from benchmarks.measure import PAIRS
from usms_pipeline import schema, warehouse
from usms_pipeline.dataset import RECEIPTS, Commit, file_name
from usms_pipeline.settings import Settings
from usms_pipeline.storage import Store

_ROWS_A_DAY = 10_000
_FIRST = date(2020, 1, 1)


@dataclass(frozen=True)
class _Cost:
    """Seconds to change the copy and checkpoint it, seconds to make the copy, its gigabytes."""

    change: float
    copy: float
    gigabytes: float


def table(histories: tuple[int, ...]) -> Iterator[str]:
    """Give the lines of a table for so many rows of history each."""
    figures = "change and checkpoint s | copy s | copy s a GB | file MB"
    yield f"| {_ROWS_A_DAY:,} rows changed | {figures} |"
    yield "|---|---|---|---|---|"
    costs = {rows: _cost(rows) for rows in histories}
    for rows, cost in costs.items():
        yield (
            f"| {rows:,} rows of history | {cost.change:.2f} | {cost.copy:.2f} "
            f"| {cost.copy / cost.gigabytes:.2f} | {cost.gigabytes * 1000:.0f} |"
        )
    least, most = costs[min(histories)], costs[max(histories)]
    yield f"| change: ratio | {most.change / least.change:.2f} | | | |"


def _cost(rows: int) -> _Cost:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        settings = Settings(_env_file=None, data_dir=folder)
        store = Store(folder)
        days = [_FIRST + timedelta(days=n) for n in range(rows // _ROWS_A_DAY)]
        for day in days:
            _write(store, day)
        path = warehouse.reconcile(store, settings).path
        costs = []
        for turn in range(PAIRS + 1):  # the first publish after a build also settles the file
            _write(store, days[-1 - turn])
            cost = _publish(store, settings)
            costs += [cost] if turn else []
        size = path.stat().st_size / 1e9
    changes, copies = zip(*costs, strict=True)
    return _Cost(statistics.median(changes), statistics.median(copies), size)


def _publish(store: Store, settings: Settings) -> tuple[float, float]:
    """Publish one changed day; give the seconds without the copy, and those of the copy."""
    copying = 0.0
    copy = shutil.copyfile

    def timed(*given: Any) -> Any:
        nonlocal copying
        started = time.perf_counter()
        try:
            return copy(*given)
        finally:
            copying += time.perf_counter() - started

    with patch("usms_pipeline.warehouse.publish.shutil.copyfile", timed):
        started = time.perf_counter()
        report = warehouse.reconcile(store, settings)
        seconds = time.perf_counter() - started
    assert report.partitions_changed == 1, "the copy was not mended, but built anew"
    return seconds - copying, copying


def _write(store: Store, day: date) -> None:
    """Write a day's receipts, with a commit that no one has seen."""
    start = datetime.combine(day, datetime.min.time(), UTC)
    moments = pa.array([start + timedelta(seconds=8 * n) for n in range(_ROWS_A_DAY)], schema.TIME)
    layout = schema.receipts_schema()
    given = _texts() | {"sent_at": moments, "received_at": moments}
    columns = [
        given[field.name].cast(field.type)
        if field.name in given
        else pa.nulls(_ROWS_A_DAY, field.type)
        for field in layout
    ]
    commit = Commit(sessions="", settled_registers=(), buckets={"delivered": _ROWS_A_DAY})
    rows = pa.Table.from_arrays(columns, schema=layout)
    store.write(file_name(RECEIPTS, day), rows, commit.metadata("bench"))


@cache
def _texts() -> dict[str, pa.Array]:
    """Give what may be the same on every day."""
    every = range(_ROWS_A_DAY)
    return {
        "session_no": pa.array([str(uuid.uuid4()) for _ in every]),
        "recipient": pa.array([uuid.uuid4().hex for _ in every]),
        "country": pa.array(["CN"] * _ROWS_A_DAY),
        "status": pa.array(["delivered"] * _ROWS_A_DAY),
        "is_final": pa.array([True] * _ROWS_A_DAY),
        "is_closed": pa.array([False] * _ROWS_A_DAY),
        "is_announced": pa.array([True] * _ROWS_A_DAY),
        "conflicts": pa.array([[]] * _ROWS_A_DAY, pa.list_(pa.string())),
    }
