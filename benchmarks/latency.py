"""A service that takes its time: how near collecting comes to requests × latency ÷ concurrency."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator

from benchmarks.measure import PAIRS
from benchmarks.server import serving
from benchmarks.world import ids
from usms_pipeline.service.collect import Answer, Batch, collect
from usms_pipeline.settings import Settings

_LATENCY_SECONDS, _CONCURRENCY = 0.05, 64
_KNOWN_PACE = 10_000.0
"""Requests a second that an earlier run settled on: what is measured is not the first ramp."""


def table(sessions: int) -> Iterator[str]:
    """Yield the lines of the table for so many session numbers."""
    batches = [Batch(n, tuple(part)) for n, part in enumerate(_cut(ids(sessions), 100))]
    ideal = len(batches) * _LATENCY_SECONDS / _CONCURRENCY
    yield f"| {sessions:,} ids, 50 ms, {_CONCURRENCY} at a time | seconds | × ideal |"
    yield "|---|---|---|"
    yield f"| ideal: requests × latency ÷ concurrency | {ideal:.2f} | 1 |"
    with serving(_LATENCY_SECONDS) as url, tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            _env_file=None, base_url=url, access_key_id="key", access_key_secret="secret",
            data_dir=folder, max_concurrency=_CONCURRENCY,
        )  # fmt: skip
        for name, pace in (
            ("from a settled pace", _KNOWN_PACE),
            ("the first run: ramp included", None),
        ):
            seconds = statistics.median(
                collect(iter(batches), _drop, settings, start_pace=pace).seconds
                for _ in range(PAIRS)
            )
            yield f"| {name} | {seconds:.2f} | {seconds / ideal:.2f} |"


def _drop(number: int, answer: Answer) -> None:
    pass


def _cut(whole: list[str], size: int) -> Iterator[list[str]]:
    return (whole[begin : begin + size] for begin in range(0, len(whole), size))
