"""The responses as they came: a log for each run, in blocks that appear whole.

``responses/<run>/000001.parquet`` and so on; ``responses/open/<run>.json`` says that the run is not
folded yet. A block that has its name is durable, and what it says counts. A run is sealed, its mark
deleted, once every session in it is in a day's file or known to be a stray. What is open without a
living writer is folded by the next run, before anything is asked. To fold a run twice does no harm,
so nobody keeps a list of what was folded.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Final

import pyarrow as pa

from usms_pipeline import schema
from usms_pipeline.responses import as_table
from usms_pipeline.service.fetch import Answer
from usms_pipeline.storage import Store

FOLDER: Final = "responses"
_OPEN: Final = f"{FOLDER}/open"


class Log:
    """One run's log. Its lock is held from the first block until ``close``."""

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        stamp = clock().astimezone(UTC).strftime("%Y%m%dT%H%M%S.%f")
        self.run = f"{stamp}-{uuid.uuid4().hex[:8]}"
        self._store, self._count = store, 0
        self._held = ExitStack()

    def add(self, answers: Sequence[Answer]) -> pa.Table:
        """Return the answers as a block (``schema.RESPONSES``); it is durable when this returns."""
        if not self._count:
            self._held.enter_context(self._store.lock(f"{FOLDER}/{self.run}"))
            with self._store.replacing(_mark(self.run)) as path:
                path.write_text("{}")
        self._count += 1
        block = as_table(answers)
        name = f"{FOLDER}/{self.run}/{self._count:06}.parquet"
        self._store.write(name, block, {"version": str(schema.VERSION)}, private=True)
        return block

    def close(self, *, is_folded: bool) -> None:
        """End the log, and seal it where all of it is folded; a later run folds the rest."""
        if not self._count:
            return
        if is_folded:
            self._store.delete(_mark(self.run))
        self._held.close()


def open_runs(store: Store) -> list[str]:
    """List the runs that are not sealed, the oldest first; some may have a writer that lives."""
    return [name.rsplit("/", 1)[1].removesuffix(".json") for name in store.names(_OPEN, ".json")]


@contextmanager
def taken(store: Store, run: str) -> Iterator[bool]:
    """Hold a run that is open, to fold and ``seal`` it; yields False where its writer lives."""
    with store.lock(f"{FOLDER}/{run}") as is_ours:
        yield is_ours and _mark(run) in store.names(_OPEN, ".json")


def seal(store: Store, run: str) -> None:
    """Note that all of a run is folded; for who has ``taken`` it."""
    store.delete(_mark(run))


def runs(store: Store) -> list[str]:
    """List all runs whose responses are kept, the oldest first."""
    found = {name.split("/")[1] for name in store.names(FOLDER)}
    return sorted(run for run in found if "=" not in run)  # not the days of today's layout


def blocks(store: Store, run: str) -> Iterator[pa.Table]:
    """Yield a run's blocks, in order; raises ``StorageError`` for one that is damaged."""
    for name in store.names(f"{FOLDER}/{run}"):
        yield store.read(name)


def delete(store: Store, run: str) -> None:
    """Delete a sealed run's responses."""
    for name in store.names(f"{FOLDER}/{run}"):
        store.delete(name)


def written_at(run: str) -> datetime:
    """Return when a run began to write, from its name."""
    return datetime.strptime(run.split("-")[0], "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC)


def _mark(run: str) -> str:
    return f"{_OPEN}/{run}.json"
