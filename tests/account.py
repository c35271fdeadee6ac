"""A customer's account for tests: a source table, a simulated service and a clock to turn."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from usms_pipeline.pipeline import Pipeline
from usms_pipeline.service.collect import Patience
from usms_pipeline.settings import Settings
from usms_pipeline.simulator import ACCESS_KEY_ID, ACCESS_KEY_SECRET, Population, Simulator, serve
from usms_pipeline.store.dataset import Window

START = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
_DATABASE = duckdb.connect()  # one for all: to begin another takes 20 ms


@dataclass
class Clock:
    """A clock that stands until it is turned."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def turn(self, **much: float) -> None:
        self.now += timedelta(**much)


@contextmanager
def served(messages: pa.Table, **options: Any) -> Iterator[Any]:
    """Serve a simulated service for one account, which takes what is yielded for its simulator."""
    service = Simulator(messages, **options)
    with serve(service) as url:

        def simulator(messages: Any, clock: Clock) -> SimpleNamespace:
            service.clock = clock
            return SimpleNamespace(url=url, service=service)

        yield simulator


def variables(base_url: str, source_url: str | Path, **more: Any) -> dict[str, str]:
    """Return an account's settings as variables of the environment."""
    given = {
        "base_url": base_url,
        "access_key_id": ACCESS_KEY_ID,
        "access_key_secret": ACCESS_KEY_SECRET,
        "source_url": source_url,
        "phone_column": "phone",
    } | more
    return {f"USMS_{name.upper()}": str(value) for name, value in given.items()}


class Account:
    """A pipeline on ``folder`` whose source is a Parquet file of made-up messages."""

    def __init__(
        self,
        folder: Path,
        simulator: Any,
        messages: int | pa.Table = 300,
        *,
        options: dict[str, Any] | None = None,
        patience: Patience | None = None,
        **given: Any,
    ) -> None:
        self.clock = Clock()
        self.patience = patience
        self.folder = folder
        if isinstance(messages, int):
            messages = Population(messages, days=2, until=START, group_share=0.1).table()
        self.source = folder / "source.parquet"
        self.announce(messages)
        rehearsal = simulator(messages, clock=self.clock, **(options or {}))
        self.service = rehearsal.service
        self.given: dict[str, Any] = {
            "base_url": rehearsal.url,
            "access_key_id": ACCESS_KEY_ID,
            "access_key_secret": ACCESS_KEY_SECRET,
            "source_url": str(self.source),
            "phone_column": "phone",
            "data_dir": str(folder / "data"),
            "start_date": "2026-02-20",
            "max_concurrency": 4,
            "poll_minutes": "5,60",
            "poll_every_hours": 48,
        } | given
        self._read_from: tuple[Any, Any] | None = None

    def announce(self, messages: pa.Table) -> None:
        """Make these the rows of the source."""
        pq.write_table(messages, self.source)

    @property
    def settings(self) -> Settings:
        variables = {name: value for name, value in os.environ.items() if "USMS" in name.upper()}
        if self._read_from != (variables, self.given):  # to read them takes as long as a small run
            self._settings = Settings(_env_file=None, **self.given)
            self._read_from = variables, dict(self.given)
        return self._settings

    @property
    def pipeline(self) -> Pipeline:
        """A new one each time, as a new process would have it."""
        return Pipeline(self.settings, clock=self.clock, patience=self.patience)

    @property
    def window(self) -> Window:
        return self.pipeline.everything()

    def run(self) -> Any:
        return self.pipeline.run(self.window)

    def run_to_the_end(self) -> None:
        """Refresh at every polling time of a message sent now, and once past the cutoff."""
        begun = self.clock.now
        for offset in self.settings.poll_offsets:
            self.clock.now = max(self.clock.now, begun + offset + timedelta(minutes=1))
            self.run()

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the dataset itself, through a plain glob, as any reader may."""
        glob = self.folder / "data/receipts/*/*.parquet"
        with _DATABASE.cursor() as con:
            con.execute("SET TimeZone = 'UTC'")
            files = f"read_parquet('{glob}', hive_partitioning = true)"
            con.execute(f"CREATE TEMP VIEW receipts AS FROM {files}")
            return con.execute(query).fetchall()

    def rows(self) -> list[tuple[Any, ...]]:
        return self.sql("FROM receipts ORDER BY ALL")
