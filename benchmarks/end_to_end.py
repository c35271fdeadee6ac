"""The whole way, beside others: source file, HTTP, decode, Parquet, DuckDB."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import PAIRS, Program, in_turn, median, ratio
from benchmarks.server import serving
from benchmarks.world import write_source

_PEERS = {
    "dlt": ("dlt, Arrow pages of 5,000, upsert", "dlt_arrow", ("5000",)),
    "dlt-page": ("dlt, an Arrow page an answer, upsert", "dlt_arrow", ("100",)),
    "script": ("the straightforward script", "script", ()),
    "sockets": ("raw sockets; no log, fold or mask", "raw_socket", ()),
}


def ours(source: Path, url: str, concurrency: int = 16) -> Program:
    """Return our own pipeline as a program: ``usms run --all``."""

    def settings(folder: Path) -> Mapping[str, str]:
        return {
            "USMS_BASE_URL": url,
            "USMS_ACCESS_KEY_ID": "key",
            "USMS_ACCESS_KEY_SECRET": "secret",
            "USMS_SOURCE_URL": str(source),
            "USMS_DATA_DIR": str(folder),
            "USMS_START_DATE": "2025-01-01",
            "USMS_MAX_CONCURRENCY": str(concurrency),
            "USMS_DIMENSIONS": "template",
        }

    return Program(
        "ours", lambda folder: [sys.executable, "-m", "usms_pipeline", "run", "--all"], settings
    )


def peer(name: str, source: Path, url: str) -> Program:
    """Return another tool's program for the same job."""
    _, module, more = _PEERS[name]
    start = [sys.executable, "-m", f"benchmarks.peers.{module}", str(source), url]
    return Program(name, lambda folder: [*start, str(folder), *more])


def table(
    sessions: int, peers: list[str], rounds: int = PAIRS, latency_seconds: float = 0.0
) -> Iterator[str]:
    """Run all in turn and give the lines of the table."""
    with _world(sessions, latency_seconds) as (source, url):
        programs = [ours(source, url), *(peer(name, source, url) for name in peers)]
        costs = in_turn(programs, rounds)
    figures = "wall s | CPU s | peak MB | ids/s | wall ours × | CPU ours ×"
    yield f"| {sessions:,} new ids, {latency_seconds * 1000:.0f} ms | {figures} |"
    yield "|---|---|---|---|---|---|---|"
    for program in programs:
        cost = median(costs[program.name])
        wall, cpu = (
            ratio(costs["ours"], costs[program.name], figure)[1]
            for figure in ("wall_seconds", "cpu_seconds")
        )
        yield (
            f"| {_PEERS.get(program.name, (program.name,))[0]} | {cost.wall_seconds:.2f} "
            f"| {cost.cpu_seconds:.2f} | {cost.peak_mb:.0f} | {sessions / cost.wall_seconds:,.0f} "
            f"| {wall:.2f} | {cpu:.2f} |"
        )


@contextmanager
def _world(sessions: int, latency_seconds: float) -> Iterator[tuple[Path, str]]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        source = Path(folder) / "messages.parquet"
        write_source(source, sessions)
        with serving(latency_seconds) as url:
            yield source, url
