"""Publishing as the history grows: ten thousand changed rows, and the copy that is published."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa

from benchmarks import mounted
from benchmarks.measure import PAIRS
from usms_pipeline import warehouse
from usms_pipeline.contract import schema
from usms_pipeline.days import columns, file
from usms_pipeline.days.file import Footer
from usms_pipeline.settings import Settings
from usms_pipeline.store.storage import Store
from usms_pipeline.warehouse import building, publish

_ROWS_CHANGED = 10_000
_MOST_DAYS = 1_000
_FIRST = date(2020, 1, 1)


@dataclass(frozen=True)
class _Cost:
    """Seconds to find what changed, change the copy and checkpoint it; and to copy and publish."""

    change: float
    copy: float


def table(histories: tuple[int, ...]) -> Iterator[str]:
    """Yield the lines of a table for so many rows of history each.

    A larger history has larger days, not more than a thousand; of a day of 10,000 all rows change.
    The copy is flushed to disk, or the checkpoint would do it; to put it in the place of the
    former file is a part of it.
    """
    figures = "find, change and checkpoint s | copy and publish s | s a GB | file MB"
    yield f"| {_ROWS_CHANGED:,} rows changed | {figures} |"
    yield "|---|---|---|---|---|"
    costs = {rows: _cost(rows) for rows in histories}
    for rows, (cost, gigabytes) in costs.items():
        yield (
            f"| {rows:,} rows of history | {cost.change:.2f} | {cost.copy:.2f} "
            f"| {cost.copy / gigabytes:.2f} | {gigabytes * 1000:.0f} |"
        )
    for (fewer, (less, _)), (rows, (more, _)) in pairwise(costs.items()):
        yield f"| {rows:,} ÷ {fewer:,} | {more.change / less.change:.2f} | | | |"


def shared(rows: int) -> Iterator[str]:
    """Yield the lines of a table: the copy where its blocks are copied, and where they are shared.

    Both are files on the same disk: the second in an XFS mounted for it.
    """
    yield f"| the copy of {rows:,} rows of history | copy and publish s | s a GB |"
    yield "|---|---|---|"
    yield _copied("in the folder for temporary files", *_cost(rows))
    if lacking := mounted.missing():
        yield f"| where files share their blocks (XFS) | not measured: {lacking} | |"
        return
    with mounted.xfs() as place:
        yield _copied("where files share their blocks (XFS)", *_cost(rows, place))


def _copied(where: str, cost: _Cost, gigabytes: float) -> str:
    return f"| {where} | {cost.copy:.3f} | {cost.copy / gigabytes:.2f} |"


def _cost(rows: int, place: Path | None = None) -> tuple[_Cost, float]:
    """Return the medians, and the size of the file in gigabytes."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=place) as folder:
        settings = Settings(_env_file=None, data_dir=folder)
        store = Store(folder)
        rows_a_day = max(_ROWS_CHANGED, rows // _MOST_DAYS)
        days = [_FIRST + timedelta(days=n) for n in range(rows // rows_a_day)]
        for day in days[: -PAIRS - 1]:
            _write(store, day, rows_a_day)
        for day in days[-PAIRS - 1 :]:
            _write(store, day)
        path = warehouse.reconcile(store, settings).path
        costs = []
        for turn in range(PAIRS + 1):  # the first publish after a build also settles the file
            _write(store, days[-1 - turn])
            cost = _publish(store, settings)
            costs += [cost] if turn else []
        size = path.stat().st_size / 1e9
    each = ([getattr(cost, field.name) for cost in costs] for field in fields(_Cost))
    return _Cost(*map(statistics.median, each)), size


def _publish(store: Store, settings: Settings) -> _Cost:
    """Publish one changed day, and time its parts."""
    spent = 0.0

    def timed(do: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            nonlocal spent
            started = time.perf_counter()
            try:
                return do(*given, **named)
            finally:
                spent += time.perf_counter() - started

        return call

    with (
        patch.object(building, "copy", timed(_flushed)),
        patch.object(publish, "publish_file", timed(publish.publish_file)),
    ):
        started = time.perf_counter()
        report = warehouse.reconcile(store, settings)
        seconds = time.perf_counter() - started
    assert report.partitions_changed == 1, "the copy was not updated, but built from scratch"
    return _Cost(seconds - spent, spent)


def _flushed(before: Path, after: Path, copy: Callable[..., Any] = building.copy) -> None:
    copy(before, after)
    with after.open("rb") as copied:
        os.fsync(copied.fileno())


def _write(store: Store, day: date, count: int = _ROWS_CHANGED) -> None:
    """Write a day's file, of a version that no one has seen."""
    start = datetime.combine(day, datetime.min.time(), UTC)
    step = timedelta(seconds=80_000) / count
    moments = pa.array([start + step * n for n in range(count)], schema.TIME)
    layout = columns.layout()
    given = _texts(count) | {"sent_at": moments, "received_at": moments}
    arrays = [
        given[field.name].cast(field.type) if field.name in given else pa.nulls(count, field.type)
        for field in layout
    ]
    rows = pa.Table.from_arrays(arrays, schema=layout)
    file.write(store, day, [rows], layout, lambda: Footer("bench"))


@cache
def _texts(count: int) -> dict[str, pa.Array]:
    """Return what may be the same on every day."""
    every = range(count)
    return {
        "session_no": pa.array([str(uuid.uuid4()) for _ in every]),
        "recipient": pa.array([uuid.uuid4().hex for _ in every]),
        "country": pa.array(["CN"] * count),
        "status": pa.array(["delivered"] * count),
        "is_final": pa.array([True] * count),
        "is_closed": pa.array([False] * count),
        "is_announced": pa.array([True] * count),
        "conflicts": pa.array([[]] * count, pa.list_(pa.string())),
    }
