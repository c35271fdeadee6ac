"""Erasing a phone or a session from every zone, with a tombstone so that it stays erased.

The one exception to "a row once seen is never dropped". What is cut out of a raw answer, and how it
is found there, is in ``scrub``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from functools import partial
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline import dataset, quarantine, schema, scratch
from usms_pipeline.dataset import QUARANTINE, RECEIPTS, REGISTERS, SESSIONS, file_name
from usms_pipeline.errors import Busy, StorageError
from usms_pipeline.phones import PhoneBook
from usms_pipeline.service.names import Forgotten
from usms_pipeline.service.scrub import Scrubber, scrub
from usms_pipeline.storage import Store

__all__ = [
    "Forgotten", "bury", "erase", "is_named", "lone_sessions", "read", "scrub", "without",
    "without_receipts",
]  # fmt: skip

_MANY: Final = 2**31 - 1
TOMBSTONES: Final = "forgotten.json"
_HEARD: Final = pa.schema([("session_no", schema.TEXT), ("number", schema.TEXT)])
_ANNOUNCED: Final = pa.schema(
    [("session_no", schema.TEXT), ("recipient", schema.TEXT), ("recipients", pa.int32())]
)
_OF_THE_SESSION: Final = (
    "session_no", "asked_at", "first_asked_at", "last_asked_at", "session_submit_status",
)  # fmt: skip
_NAMED: Final = pa.schema([("session_no", schema.TEXT), ("recipient", schema.TEXT)])
_LONE: Final = """
    WITH known AS (
        SELECT session_no, number AS recipient, 0 AS places FROM heard WHERE number <> ''
        UNION ALL
        SELECT session_no, recipient, recipients AS places FROM announced
    ),
    judged AS (
        SELECT *, coalesce(list_contains($wanted::VARCHAR[], recipient), false) AS is_wanted
        FROM known WHERE session_no IS NOT NULL
    )
    SELECT session_no FROM judged GROUP BY session_no
    HAVING bool_or(is_wanted)
        AND bool_and(is_wanted OR recipient IS NULL)  -- nobody else was heard of or announced
        AND sum(places) <= greatest(count(*) FILTER (is_wanted AND places > 0), 1)
"""
"""Sessions with no place for anybody else. ``places``: how many recipients a row stands for."""


def read(store: Store) -> Forgotten:
    """Read the tombstones."""
    found = store.read_json(TOMBSTONES)
    return Forgotten(frozenset(found.get("recipients", ())), frozenset(found.get("sessions", ())))


def bury(store: Store, forgotten: Forgotten) -> None:
    """Add tombstones; they come first, so that an interrupted erasure can be repeated.

    Raises ``Busy`` when another process adds some at this moment.
    """
    with store.lock("forgotten") as held:
        if not held:
            raise Busy("Another `usms forget` is at work. Run this one again when it has ended.")
        whole = read(store) | forgotten
        lists = {"recipients": sorted(whole.recipients), "sessions": sorted(whole.sessions)}
        store.sweep("", TOMBSTONES)
        with store.replacing(TOMBSTONES) as path:
            path.write_text(json.dumps(lists))


def lone_sessions(store: Store, recipients: Iterable[str]) -> set[str]:
    """Find the sessions that these are the only recipients of, announced or heard of."""
    wanted, found = list(recipients), set()
    for day in dataset.days(store, SESSIONS):
        heard = _heard(store, day)
        announced = store.dataset([file_name(SESSIONS, day)], _ANNOUNCED)
        with scratch.database() as con:
            con.register("heard", heard)
            con.register("announced", announced)
            found |= {row[0] for row in con.execute(_LONE, {"wanted": wanted}).fetchall()}
    return found


def strangers(store: Store, book: PhoneBook, phones: Iterable[str]) -> list[str]:
    """List the texts that say no phone number, and that no row announced or received has either."""
    odd = {book.recipient_id(phone): phone for phone in phones if not book.is_number(phone)}
    for day in dataset.days(store, SESSIONS) if odd else ():
        for name in (file_name(SESSIONS, day), file_name(RECEIPTS, day)):
            if store.exists(name):
                held = store.dataset([name], _NAMED).to_table()["recipient"]
                odd = {one: odd[one] for one in odd.keys() - set(pc.unique(held).to_pylist())}
    return sorted(odd.values())


def _heard(store: Store, day: date) -> pa.Table:
    """Read who was heard of in a partition, also while a run puts newer registers there."""
    commit = dataset.read_commit(store, day)
    while commit is not None:
        try:
            names = [file_name(REGISTERS, day, name) for name in commit.registers]
            return store.dataset(names, _HEARD).to_table()
        except (FileNotFoundError, StorageError):
            newer = dataset.read_commit(store, day)
            if newer is None or newer.registers == commit.registers:
                raise
            commit = newer
    return _HEARD.empty_table()


def is_named(store: Store, day: date, forgotten: Forgotten) -> bool:
    """Tell whether a partition's receipts still have a row of what is forgotten."""
    name = file_name(RECEIPTS, day)
    if not store.exists(name):
        return False
    rows = store.dataset([name], _NAMED).to_table()
    return bool(without(rows, forgotten).num_rows < rows.num_rows)


def without(rows: pa.Table, forgotten: Forgotten) -> pa.Table:
    """Drop forgotten rows, of a table with ``session_no`` and ``recipient``."""
    if not forgotten:
        return rows
    kept = _without_sessions(rows, forgotten)
    named = pc.is_in(kept["recipient"], pa.array(forgotten.recipients, pa.string()))
    return kept.filter(pc.invert(named))


def without_receipts(known: pa.Table, forgotten: Forgotten) -> pa.Table:
    """Take what is forgotten out of registers, or out of observations.

    Of a recipient's session it stays known, with number ``''``, what hangs on no recipient: others
    of it may be waiting. Where the same is known already, the next fold joins the two.
    """
    if not forgotten:
        return known
    rows = _without_sessions(known, forgotten)
    named = pc.is_in(rows["number"], pa.array(forgotten.recipients, pa.string()))
    of_session = [name for name in _OF_THE_SESSION if name in rows.column_names]
    stays = rows.filter(named).select(of_session).to_pylist()
    silent = [{**row, "number": "", "finals_seen": []} for row in stays]
    kept = rows.filter(pc.invert(named))
    return pa.concat_tables([kept, pa.Table.from_pylist(silent, rows.schema)])


def _without_sessions(rows: pa.Table, forgotten: Forgotten) -> pa.Table:
    gone = pc.is_in(rows["session_no"], pa.array(forgotten.sessions, pa.string()))
    return rows.filter(pc.invert(gone))


def erase(
    store: Store, day: date, forgotten: Forgotten, phones: Iterable[str], book: PhoneBook
) -> bool:
    """Erase from one partition's sessions, registers, answers and quarantine; tells if it had any.

    ``phones`` are the numbers themselves, to find them in answers that can't be decoded. The caller
    holds the partition.
    """
    has_changed = False
    dataset.sweep(store, day)
    scrubber = Scrubber(forgotten, book, phones)
    for name in store.names(f"{SESSIONS}/sent_date={day}"):
        has_changed |= _edit(store, name, partial(without, forgotten=forgotten))
    for name in store.names(f"{REGISTERS}/sent_date={day}"):
        is_waiting = "number" not in store.schema(name).names  # schema.WAITING
        change = _without_sessions if is_waiting else without_receipts
        has_changed |= _edit(store, name, partial(change, forgotten=forgotten))

    def scrubbed(table: pa.Table) -> pa.Table:
        table = _without_ids(table, forgotten)
        bodies = [scrubber.scrub(body) for body in table["body"].to_pylist()]
        index = table.schema.get_field_index("body")
        return table.set_column(index, "body", pa.array(bodies, pa.binary()))

    for name in dataset.answers(store, day):
        has_changed |= _edit(store, name, scrubbed)
    if store.exists(name := file_name(QUARANTINE, day)):
        # at once, for what has one name now may be far apart
        has_changed |= _edit(store, name, lambda table: quarantine.renamed(scrubbed(table)), _MANY)
    return has_changed


def _without_ids(table: pa.Table, forgotten: Forgotten) -> pa.Table:
    """Drop forgotten sessions from what was asked, and entries about them."""
    if not forgotten.sessions:
        return table
    ids = [
        [session for session in asked or () if session not in forgotten.sessions]
        for asked in table["ids"].to_pylist()
    ]
    index = table.schema.get_field_index("ids")
    table = table.set_column(index, "ids", pa.array(ids, pa.list_(pa.string())))
    if "session_no" in table.column_names:
        table = _without_sessions(table, forgotten)
    return table


def _edit(
    store: Store, name: str, change: Callable[[pa.Table], pa.Table], rows: int = scratch.BATCH_ROWS
) -> bool:
    """Write a file anew where that changes it; ``change`` gets so many rows at a time."""
    layout = store.schema(name)

    def parts() -> Iterator[tuple[pa.Table, pa.Table]]:
        for batch in store.batches(name, rows):
            before = pa.table(batch)
            yield before, change(before).cast(layout)

    is_changed = any(not after.equals(before) for before, after in parts())
    if is_changed:
        is_private = name.split("/", 1)[0] in dataset.PRIVATE
        metadata = store.metadata(name)
        if "token" in metadata:
            metadata["token"] += "+"
        batches = (batch for _, after in parts() for batch in after.to_batches())
        edited = pa.RecordBatchReader.from_batches(layout, batches)
        store.write(name, edited, metadata, private=is_private)
    return is_changed
