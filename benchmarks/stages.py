"""Each stage alone, in one process: what a row costs where. CPU seconds, for the wall drifts."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from usms_pipeline.fold import portions

from benchmarks.server import serving
from benchmarks.world import write_source
from usms_pipeline import due
from usms_pipeline.pipeline import Pipeline
from usms_pipeline.service.decode import decode
from usms_pipeline.settings import Settings
from usms_pipeline.store.dataset import RESPONSES, days


def table(sessions: int) -> Iterator[str]:
    """Give the lines of a table: each stage of one run over so many new sessions, then a quiet one.

    Decoding is a part of folding, shown apart.
    """
    yield f"| stage, {sessions:,} new sessions | CPU µs a session | wall µs a session |"
    yield "|---|---|---|"
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, serving() as url:
        source = Path(folder) / "messages.parquet"
        write_source(source, sessions)
        pipeline = Pipeline(settings_for(source, url, f"{folder}/data"))
        for name, cpu, wall in _costs(pipeline):
            yield f"| {name} | {cpu * 1e6 / sessions:.2f} | {wall * 1e6 / sessions:.2f} |"


def settings_for(source: Path, url: str, data_dir: str) -> Settings:
    """Give the settings of an account whose messages are in a Parquet file."""
    return Settings(
        _env_file=None,
        base_url=url,
        access_key_id="key",
        access_key_secret="secret",
        source_url=str(source),
        data_dir=data_dir,
        start_date="2025-12-01",
        max_concurrency=16,
        dimensions="template",
    )


def _costs(pipeline: Pipeline) -> Iterator[tuple[str, float, float]]:
    window = pipeline.everything()
    yield "sessions: source → Parquet", *_cost(lambda: pipeline.load_sessions(window))
    dates = pipeline.dates(window)
    yield "due: sessions → batches", *_cost(lambda: _drawn(pipeline, dates))
    yield "responses: HTTP → Parquet, due included", *_cost(lambda: pipeline.ask(dates))
    yield "decode: bodies → observations", *_cost(lambda: _decoded(pipeline))
    yield "receipts: the fold, decoding included", *_cost(lambda: pipeline.fold(dates))
    yield "warehouse: Parquet → DuckDB, published", *_cost(pipeline.publish)
    yield "a second run with nothing due", *_cost(lambda: pipeline.run(window))


def _drawn(pipeline: Pipeline, dates: list[Any]) -> None:
    with ExitStack() as stack:
        found = due.find(
            pipeline.store, pipeline.settings, dates, pipeline.clock(), stack,
            pipeline.book.fingerprint,
        )  # fmt: skip
        for _ in found.batches(pipeline.settings.batch_size):
            pass


def _decoded(pipeline: Pipeline) -> None:
    for day in days(pipeline.store, RESPONSES):
        for name in pipeline.store.names(f"{RESPONSES}/sent_date={day}"):
            for part in portions(pipeline.store.batches(name, 8)):
                decode(part, pipeline.book, pipeline.settings.receipt_timezone)


def _cost(what: Callable[[], object]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    what()
    return time.process_time() - cpu, time.perf_counter() - wall
