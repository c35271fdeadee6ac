"""Each stage alone, in one process: what a row costs where. CPU seconds, for the wall drifts."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.server import serving
from benchmarks.world import write_source
from usms_pipeline.days import log
from usms_pipeline.pipeline import Pipeline
from usms_pipeline.service.decode import decode
from usms_pipeline.settings import Settings


def table(sessions: int) -> Iterator[str]:
    """Give the lines of a table: each stage of one run over so many new sessions, then a quiet one
    and a rebuild.

    A plan is what a refresh begins with; decoding is a part of it, shown apart.
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
    yield "plan: source read, what is due", *_cost(lambda: pipeline.plan(window))
    yield "refresh: source → HTTP → a file a day", *_cost(lambda: pipeline.refresh(window))
    yield "decode: bodies → observations", *_cost(lambda: _decoded(pipeline))
    yield "warehouse: Parquet → DuckDB, published", *_cost(pipeline.publish)
    yield "a second run with nothing due", *_cost(lambda: pipeline.run(window))
    yield "rebuild: responses → a file a day", *_cost(pipeline.rebuild)


def _decoded(pipeline: Pipeline) -> None:
    for run in log.runs(pipeline.store):
        for name in log.blocks(pipeline.store, run):
            block = pipeline.store.read(name)
            decode(block, pipeline.book, pipeline.settings.receipt_timezone)


def _cost(what: Callable[[], object]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    what()
    return time.process_time() - cpu, time.perf_counter() - wall
