"""What could not be used, with its reason, one file a partition: kept until someone decides.

An entry's id is a hash of its content, so seeing the same trouble again makes no second entry.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline import dataset, schema
from usms_pipeline.dataset import QUARANTINE, file_name
from usms_pipeline.storage import Store

OPEN, REPLAYED, DISMISSED = "open", "replayed", "dismissed"
REFUSED = "refused_id"

KINDS: Final = {
    REFUSED: "the service refuses this session number",
    "unreadable_answer": "a whole answer could not be read",
    "bad_item": "one item of an answer could not be read",
    "unasked_session": "an answer told of a session that was not asked about",
}


@dataclass(frozen=True)
class Entry:
    """One thing set aside. ``sent_date`` is its partition; the raw body stays in the file."""

    id: str
    sent_date: date
    kind: str
    reason: str
    session_no: str | None
    ids: tuple[str, ...]
    asked_at: Any
    state: str


def add(store: Store, day: date, rejects: pa.Table, fingerprint: str) -> int:
    """Add rejects (``schema.QUARANTINE``) to a partition's file; gives how many were new."""
    known = _read(store, day)
    new = rejects.filter(pc.invert(pc.is_in(rejects["id"], known["id"].combine_chunks())))
    new = _first_of_each_id(new)
    if new.num_rows:
        _write(store, day, pa.concat_tables([known, new]), fingerprint)
    return int(new.num_rows)


def entries(store: Store, state: str | None = OPEN) -> list[Entry]:
    """List the entries in one state (None: in any), oldest partition first."""
    found = []
    columns = [f for f in Entry.__dataclass_fields__ if f != "sent_date"]
    for day in dataset.days(store, QUARANTINE):
        for row in _read(store, day).select(columns).to_pylist():
            if state in (None, row["state"]):
                ids = tuple(row.pop("ids"))
                found.append(Entry(sent_date=day, ids=ids, **row))
    return found


def open_count(store: Store, day: date) -> int:
    """Count the open entries of one partition."""
    states = _read(store, day)["state"].to_pylist()
    return sum(state == OPEN for state in states)


def rows(store: Store, day: date, ids: Iterable[str]) -> pa.Table:
    """Give the entries of one partition that have one of ``ids``, bodies included."""
    table = _read(store, day)
    return table.filter(pc.is_in(table["id"], pa.array(list(ids), pa.string())))


def mark(store: Store, ids: Iterable[str], state: str, fingerprint: str) -> int:
    """Set the state of entries, wherever they are; gives how many were changed."""
    wanted, changed = set(ids), 0
    for day in dataset.days(store, QUARANTINE):
        table = _read(store, day)
        states = [
            state if entry in wanted else was
            for entry, was in zip(table["id"].to_pylist(), table["state"].to_pylist(), strict=True)
        ]
        here = sum(a != b for a, b in zip(states, table["state"].to_pylist(), strict=True))
        if here:
            index = table.schema.get_field_index("state")
            column = pa.array(states, pa.string())
            _write(store, day, table.set_column(index, "state", column), fingerprint)
            changed += here
    return changed


def drop(store: Store, ids: Iterable[str], fingerprint: str) -> None:
    """Remove entries: what they were made of is about to be decoded again."""
    wanted = pa.array(list(ids), pa.string())
    for day in dataset.days(store, QUARANTINE):
        table = _read(store, day)
        kept = table.filter(pc.invert(pc.is_in(table["id"], wanted)))
        if kept.num_rows < table.num_rows:
            _write(store, day, kept, fingerprint)


def _first_of_each_id(table: pa.Table) -> pa.Table:
    seen: set[str] = set()
    keep = [not (entry in seen or seen.add(entry)) for entry in table["id"].to_pylist()]  # type: ignore[func-returns-value]
    return table.filter(pa.array(keep, pa.bool_()))


def _read(store: Store, day: date) -> pa.Table:
    name = file_name(QUARANTINE, day)
    if not store.exists(name):
        return schema.QUARANTINE.empty_table()
    return store.read(name).select(schema.QUARANTINE.names).cast(schema.QUARANTINE)


def _write(store: Store, day: date, table: pa.Table, fingerprint: str) -> None:
    store.write(file_name(QUARANTINE, day), table, dataset.stamp(fingerprint), private=True)
