"""The raw responses: a log for each run, in blocks that appear whole.

``responses/<run>/000001.parquet`` and so on; ``responses/open/<run>.json`` says that the run is not
folded yet. A block that has its name is durable, and what it says counts. A run is sealed, its mark
deleted, once every session in it is in a day's file or known to be a stray. What is open without a
living writer is folded by the next run, before anything is asked. To fold a run twice does no harm,
so nobody keeps a list of what was folded.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from typing import Final

import pyarrow as pa

from usms_pipeline.contract import schema
from usms_pipeline.service.fetch import Answer
from usms_pipeline.store.storage import DAMAGED, Store

FOLDER: Final = "responses"
_OPEN: Final = f"{FOLDER}/open"
_RUN: Final = re.compile(
    r"\d{4}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
    r"T(?:[01]\d|2[0-3])(?:[0-5]\d){2}\.\d{6}-[0-9a-f]{8}"
)
_BLOCK: Final = re.compile(rf"{FOLDER}/({_RUN.pattern})/\d{{6}}\.parquet")


class Log:
    """One run's log. It is this process's while it is ``held``.

    The run that holds it sets ``is_folded`` once all of it is; else a later run folds it.
    """

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        stamp = clock().astimezone(UTC).strftime("%Y%m%dT%H%M%S.%f")
        self.run = f"{stamp}-{uuid.uuid4().hex[:8]}"
        self.is_open = self.is_folded = False
        self._store, self._count = store, 0
        self._days: list[date] = []

    @contextmanager
    def held(self, days: Iterable[date]) -> Iterator[None]:
        """Mark the run as open, and hold it; at the end it is sealed where all of it is folded.

        ``days`` are the days of the sessions that the run will ask about.
        """
        self._days = [*days]
        with self._store.lock(f"{FOLDER}/{self.run}"):
            try:
                mark(self._store, self.run, self._days)
                self.is_open = True
                yield
            finally:
                if self.is_folded or not self._count:
                    seal(self._store, self.run)

    def add(self, answers: Sequence[Answer]) -> tuple[str, pa.Table]:
        """Return the name of the next block, and what is in it; it is durable by then."""
        self._count += 1
        block = as_table(answers)
        name = f"{FOLDER}/{self.run}/{self._count:06}.parquet"
        self._store.write(name, block, {"version": str(schema.VERSION)}, private=True)
        if not self._store.is_local and not is_open(self._store, self.run):
            mark(self._store, self.run, self._days)  # another run folded what there was so far
        return name, block


def as_table(answers: Sequence[Answer]) -> pa.Table:
    """Return answers as ``schema.RESPONSES``."""
    return pa.Table.from_pylist([vars(answer) for answer in answers], schema.RESPONSES)


def open_runs(store: Store) -> list[str]:
    """List the runs that are not sealed, the oldest first; some may have a writer that lives."""
    names = [name.rsplit("/", 1)[1].removesuffix(".json") for name in store.names(_OPEN, ".json")]
    return [name for name in names if _RUN.fullmatch(name)]


def is_open(store: Store, run: str) -> bool:
    """Return whether a run is not sealed yet."""
    return store.exists(_mark(run))


def days_of(store: Store, run: str) -> list[date]:
    """Return the days of the sessions that a run which is open was about to ask about.

    Where that can't be read, a session that no file has is quarantined, and can be replayed.
    """
    with suppress(ValueError, TypeError):
        return [date.fromisoformat(day) for day in store.recall(_mark(run)).get("days", [])]
    return []


@contextmanager
def taken(store: Store, run: str) -> Iterator[bool]:
    """Hold a run that is open, to fold and ``seal`` it; yields False where its writer lives."""
    with store.lock(f"{FOLDER}/{run}") as is_ours:
        is_ours = is_ours and is_open(store, run)
        if is_ours:
            store.sweep(f"{FOLDER}/{run}")
        yield is_ours


def sweep(store: Store) -> None:
    """Remove the locks of runs that were killed before they had their marks."""
    for name in store.locks(FOLDER):
        run = name.rsplit("/", 1)[1]
        with store.lock(name) as is_ours:
            if is_ours and not is_open(store, run):
                store.sweep(_OPEN, f"{run}.json")
                store.drop_lock(name)


def mark(store: Store, run: str, days: Iterable[date]) -> None:
    """Mark a run as open, which asks about sessions of these days."""
    with store.replacing(_mark(run), private=True) as path:
        path.write_text(json.dumps({"days": [str(day) for day in days]}))


def seal(store: Store, run: str, folded: Collection[str] = ()) -> None:
    """Note that all of a run is folded. The caller holds it (``taken``).

    On object storage its writer may live, and then either finds what the other did: it writes a
    block, then looks for the mark; here the mark goes, then blocks are looked for beside these.
    """
    days = days_of(store, run) if folded else []
    store.delete(_mark(run))
    if folded and not store.is_local and not {*blocks(store, run)} <= {*folded}:
        mark(store, run, days)
    store.drop_lock(f"{FOLDER}/{run}")  # a process that waits for it finds no mark
    store.remove_folder(f"{FOLDER}/{run}")  # where it was killed before its first block


def runs(store: Store) -> list[str]:
    """List all runs whose responses are kept, the oldest first; files of others don't count."""
    return sorted({match[1] for one in store.names(FOLDER) if (match := _BLOCK.fullmatch(one))})


def blocks(store: Store, run: str) -> list[str]:
    """List the names of a run's blocks, in order; each holds ``schema.RESPONSES``."""
    return [one for one in store.names(f"{FOLDER}/{run}") if _BLOCK.fullmatch(one)]


def strangers(store: Store) -> list[str]:
    """List the files among the responses that nothing here wrote: no step reads or deletes them."""
    return [one for one in store.names(FOLDER) if not _BLOCK.fullmatch(one)]


def delete(store: Store, run: str) -> None:
    """Delete a sealed run's responses, with what was set aside of them or left unfinished."""
    for name in blocks(store, run):
        store.delete(name)
    forget_damaged(store, run)
    store.remove_folder(f"{FOLDER}/{run}")


def forget_damaged(store: Store, run: str) -> None:
    """Delete a run's blocks that were set aside as damaged, and those that were never finished."""
    store.sweep(f"{FOLDER}/{run}")
    for name in store.names(f"{FOLDER}/{run}", ""):
        if DAMAGED in name:
            store.delete(name)


def written_at(run: str) -> datetime:
    """Return when a run began to write, by the clock of then, from its name."""
    return datetime.strptime(run.split("-")[0], "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC)


def _mark(run: str) -> str:
    return f"{_OPEN}/{run}.json"
