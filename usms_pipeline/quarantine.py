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
from usms_pipeline.errors import Busy
from usms_pipeline.service.decode import entry_id
from usms_pipeline.storage import Store

OPEN, REPLAYED, DISMISSED = "open", "replayed", "dismissed"
REFUSED, UNREADABLE = "refused_id", "unreadable_answer"

KINDS: Final = {
    REFUSED: "the service refuses this session number",
    UNREADABLE: "a whole answer could not be read",
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

    @property
    def lone_id(self) -> str | None:
        """The one session number that the service can be asked about again, if it is about one."""
        if self.kind == REFUSED:
            return self.session_no
        return self.ids[0] if self.kind == UNREADABLE and len(self.ids) == 1 else None


def add(store: Store, day: date, rejects: pa.Table, fingerprint: str) -> int:
    """Add rejects (``schema.QUARANTINE``) to a partition's file; gives how many were new.

    The caller holds the partition.
    """
    if not rejects.num_rows:
        return 0
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


def open_count(store: Store, day: date | None = None) -> int:
    """Count the open entries, of one partition or of all; reads no bodies."""
    if day is None:
        return sum(open_count(store, one) for one in dataset.days(store, QUARANTINE))
    name = file_name(QUARANTINE, day)
    if not dataset.checked_metadata(store, name, None):
        return 0
    states = store.dataset([name], pa.schema([("state", schema.TEXT)])).to_table()["state"]
    return int(pc.sum(pc.equal(states, OPEN)).as_py() or 0)


def has_kind(store: Store, day: date, kind: str) -> bool:
    """Tell whether one partition has entries of a kind, in any state."""
    name = file_name(QUARANTINE, day)
    if not store.exists(name):
        return False
    kinds = store.dataset([name], pa.schema([("kind", schema.TEXT)])).to_table()["kind"]
    return kind in pc.unique(kinds).to_pylist()


def rows(store: Store, day: date, ids: Iterable[str]) -> pa.Table:
    """Give the entries of one partition that have one of ``ids``, bodies included."""
    table = _read(store, day)
    return table.filter(pc.is_in(table["id"], pa.array(list(ids), pa.string())))


def mark(store: Store, ids: Iterable[str], state: str, fingerprint: str) -> int:
    """Set the state of entries, wherever they are; gives how many were changed.

    Raises ``Busy`` at the end when another process holds a partition with some of them.
    """
    wanted, changed, held_elsewhere = set(ids), 0, []
    for day in dataset.days(store, QUARANTINE):
        if wanted.isdisjoint(_read(store, day)["id"].to_pylist()):
            continue
        with store.lock(f"sent_date={day}") as held:
            if held:
                dataset.sweep(store, day)
                changed += _mark_in(store, day, wanted, state, fingerprint)
            else:
                held_elsewhere.append(day)
    if held_elsewhere:
        raise busy(held_elsewhere)
    return changed


def busy(days: Iterable[date]) -> Busy:
    """Make the error for partitions that another process holds."""
    return Busy(
        f"Another run works on {', '.join(map(str, days))}: its entries stay as they were. Run the "
        "same command again when it has ended."
    )


def _mark_in(store: Store, day: date, wanted: set[str], state: str, fingerprint: str) -> int:
    table = _read(store, day)
    before = table["state"].to_pylist()
    after = [
        state if entry in wanted else was
        for entry, was in zip(table["id"].to_pylist(), before, strict=True)
    ]
    changed: int = sum(a != b for a, b in zip(after, before, strict=True))
    if changed:
        index = table.schema.get_field_index("state")
        table = table.set_column(index, "state", pa.array(after, pa.string()))
        _write(store, day, table, fingerprint)
    return changed


def renamed(table: pa.Table) -> pa.Table:
    """Name entries by what they hold now, after something was cut out of them.

    A rebuild, which meets the same trouble in answers that were cut likewise, finds it known.
    """
    names = [
        entry_id(row["kind"], row["session_no"], row["ids"] or (), row["asked_at"], row["body"])
        for row in table.to_pylist()
    ]
    place = table.schema.get_field_index("id")
    return _first_of_each_id(table.set_column(place, "id", pa.array(names, pa.string())))


def _first_of_each_id(table: pa.Table) -> pa.Table:
    seen: set[str] = set()
    keep = [not (entry in seen or seen.add(entry)) for entry in table["id"].to_pylist()]  # type: ignore[func-returns-value]
    return table.filter(pa.array(keep, pa.bool_()))


def _read(store: Store, day: date) -> pa.Table:
    name = file_name(QUARANTINE, day)
    if not dataset.checked_metadata(store, name, None):
        return schema.QUARANTINE.empty_table()
    return store.read(name).select(schema.QUARANTINE.names).cast(schema.QUARANTINE)


def _write(store: Store, day: date, table: pa.Table, fingerprint: str) -> None:
    store.write(file_name(QUARANTINE, day), table, dataset.stamp(fingerprint), private=True)
