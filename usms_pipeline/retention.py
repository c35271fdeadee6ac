"""Deleting raw answers when their time is over; the registers are kept, and the commit says so."""

from __future__ import annotations

import dataclasses
from datetime import date, datetime, timedelta

import pyarrow as pa

from usms_pipeline import dataset, quarantine
from usms_pipeline.dataset import QUARANTINE, RECEIPTS, Commit, file_name
from usms_pipeline.settings import Settings
from usms_pipeline.storage import Store


def purge(store: Store, settings: Settings, fingerprint: str, now: datetime) -> list[date]:
    """Delete raw answers of partitions settled for longer than the retention; names these.

    With them goes what was quarantined of them and has been replayed or dismissed since. Kept are
    answers not folded yet, and those of a partition with open quarantine entries.
    """
    oldest = now - timedelta(days=settings.raw_retention_days)
    purged = []
    for day in sorted({dataset.partition_of(name) for name in dataset.answers(store)}):
        names = dataset.answers(store, day)
        with store.lock(f"sent_date={day}") as held:
            commit = dataset.read_commit(store, day, fingerprint) if held else None
            if commit and _is_over(store, day, commit, names, oldest):
                _mark_purged(store, day, commit, fingerprint)
                for name in [*names, file_name(QUARANTINE, day)]:
                    store.delete(name)
                dataset.sweep(store, day)
                purged.append(day)
    return purged


def _is_over(store: Store, day: date, commit: Commit, names: list[str], oldest: datetime) -> bool:
    files = [name.rsplit("/", 1)[1] for name in names]
    return (
        not commit.awaited
        and commit.folded.issuperset(files)
        and max(map(dataset.landed_at, files)) < oldest
        and not quarantine.open_count(store, day)
    )


def newest_answer_at(store: Store) -> datetime | None:
    """Tell when the newest raw answers that are kept were written, by the clock of then."""
    return max(map(dataset.landed_at, dataset.answers(store)), default=None)


def _mark_purged(store: Store, day: date, commit: Commit, fingerprint: str) -> None:
    """Commit anew, with the same rows: a rebuild starts from the registers from now on."""
    name = file_name(RECEIPTS, day)
    marked = dataclasses.replace(commit, is_purged=True, folded=frozenset())
    rows = pa.RecordBatchReader.from_batches(store.schema(name), store.batches(name))
    store.write(name, rows, marked.metadata(fingerprint))
