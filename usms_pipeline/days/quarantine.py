"""What could not be used of responses, with its reason, until it is replayed or dismissed.

``quarantine/<run>/<block>.parquet`` has what was set aside of the block of that name. An entry's id
is a hash of what it holds, so that to see the same trouble again makes no second entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.contract import schema
from usms_pipeline.contract.errors import Busy
from usms_pipeline.contract.schema import TEXT
from usms_pipeline.days import log
from usms_pipeline.service.careful import BAD_ITEM, REFUSED, UNANSWERED, UNASKED, UNREADABLE
from usms_pipeline.store.storage import Store, undisturbed

FOLDER: Final = "quarantine"
OPEN, REPLAYED, DISMISSED = "open", "replayed", "dismissed"

KINDS: Final = {
    REFUSED: "the service refuses this session number",
    UNANSWERED: "the service gives no usable answer about this session number",
    UNREADABLE: "a whole response could not be read",
    BAD_ITEM: "one item of a response could not be read",
    UNASKED: "a response has a session that was not asked about",
}


@dataclass(frozen=True)
class Entry:
    """One thing set aside; the raw body stays in the file. ``block`` is what it was found in."""

    id: str
    kind: str
    reason: str
    session_no: str | None
    ids: tuple[str, ...]
    asked_at: datetime
    state: str
    block: str

    @property
    def lone_id(self) -> str | None:
        """The session number to ask about again, if the entry is about exactly one."""
        if self.kind in (REFUSED, UNANSWERED):
            return self.session_no
        return self.ids[0] if self.kind == UNREADABLE and len(self.ids) == 1 else None


class Quarantine:
    """Adds records that could not be processed, unless they are there already."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: set[str] | None = None

    def add(self, block: str, rejects: pa.Table) -> int:
        """Keep the rejects (``schema.QUARANTINE``) of a block; return how many are new."""
        if not rejects.num_rows:
            return 0
        if self._known is None:
            self._known = {one.id for one in entries(self._store, None)}
        new = [
            place for place, entry in enumerate(rejects["id"].to_pylist())
            if not (entry in self._known or self._known.add(entry))  # type: ignore[func-returns-value]
        ]  # fmt: skip
        if new:
            rows = rejects.take(pa.array(new)).cast(schema.QUARANTINE)
            _put(self._store, FOLDER + block.removeprefix(log.FOLDER), rows)
        return len(new)


def entries(store: Store, state: str | None = OPEN) -> list[Entry]:
    """List the entries in one state (None: in any), the oldest first; reads no bodies."""
    columns = [name for name in Entry.__dataclass_fields__ if name != "block"]
    return [
        Entry(**row | {"ids": tuple(row["ids"] or ())}, block=log.FOLDER + name[len(FOLDER) :])
        for name in store.names(FOLDER)
        for batch in store.batches(name, columns=columns)
        for row in batch.to_pylist()
        if state in (None, row["state"])
    ]


def open_count(store: Store) -> int:
    """Count the open entries."""
    return len(entries(store))


def open_runs(store: Store) -> set[str]:
    """List the runs with open entries, whose responses are kept."""
    return {entry.block.split("/")[1] for entry in entries(store)}


def mark(store: Store, ids: Iterable[str], state: str) -> int:
    """Set the state of entries; return how many were changed. Raises ``Busy``."""
    wanted = pa.array([*ids], TEXT)

    def marked(table: pa.Table) -> pa.Table:
        is_wanted = pc.is_in(table["id"], value_set=wanted)
        states = pc.if_else(is_wanted, pa.scalar(state), table["state"])
        return table.set_column(table.schema.get_field_index("state"), "state", states)

    with alone(store):
        return edit(store, marked)


def edit(store: Store, change: Any) -> int:
    """Write again the files that ``change`` (of a table) changes; return how many rows."""
    return sum(_edit(store, name, change) for name in store.names(FOLDER))


@undisturbed
def _edit(store: Store, name: str, change: Any) -> int:
    tag = store.tag(name)
    before = store.read(name)
    after = change(before)
    if after.equals(before):
        return 0
    _write(store, name, after, tag)
    is_other = pc.not_equal(before["state"], after["state"]) if len(after) == len(before) else []
    return len(before) - len(after) + int(np.count_nonzero(is_other))


@undisturbed
def _put(store: Store, name: str, rows: pa.Table) -> None:
    if tag := store.tag(name):  # of a block that was decoded before, or is by another run too
        there = store.read(name)
        is_new = pc.invert(pc.is_in(rows["id"], value_set=there["id"].combine_chunks()))
        rows = pa.concat_tables([there, rows.filter(is_new)])
    _write(store, name, rows, tag)


@contextmanager
def alone(store: Store) -> Iterator[None]:
    """Hold the quarantine, to change what is there. Raises ``Busy`` where another does."""
    with store.lock(FOLDER) as is_ours:
        if not is_ours:
            raise Busy(
                "Another command is working on the quarantine. Run this one again when it has "
                "ended."
            )
        yield


def delete(store: Store, run: str) -> None:
    """Delete what was set aside of a run."""
    store.sweep(f"{FOLDER}/{run}")
    for name in store.names(f"{FOLDER}/{run}"):
        store.delete(name)
    store.remove_folder(f"{FOLDER}/{run}")


def _write(store: Store, name: str, table: pa.Table, over: str) -> None:
    folder, _, file = name.rpartition("/")
    store.sweep(folder, file)  # what a killed process left of it
    store.write(name, table, {"version": str(schema.VERSION)}, private=True, over=over)
