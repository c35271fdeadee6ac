"""Erasing a phone or a session everywhere, with a tombstone so that it stays erased.

The one exception to "a row once seen is never dropped". A response that names somebody who is
forgotten is emptied whole: what it said of others is in the days' files, and stays there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.contract.errors import Busy
from usms_pipeline.contract.schema import TEXT
from usms_pipeline.days import columns, file, general, log, quarantine
from usms_pipeline.days.columns import STATE
from usms_pipeline.days.file import Footer
from usms_pipeline.days.general import NO_NUMBER, Session
from usms_pipeline.people.phones import PhoneBook
from usms_pipeline.service.decode import FORGOTTEN
from usms_pipeline.service.names import Forgotten, Names
from usms_pipeline.store.dataset import TOMBSTONES, note_erasure
from usms_pipeline.store.storage import Store, undisturbed

__all__ = ["Forgotten"]


def read(store: Store) -> Forgotten:
    """Return the tombstones."""
    found = store.read_json(TOMBSTONES)
    return Forgotten(frozenset(found.get("recipients", ())), frozenset(found.get("sessions", ())))


def bury(store: Store, forgotten: Forgotten) -> None:
    """Add tombstones; they come first, so that an interrupted erasure can be repeated.

    Raises ``Busy`` when another process adds some at this moment.
    """
    with store.lock("forgotten") as held:
        if not held:
            raise Busy("Another `usms forget` is at work. Run this one again when it has ended.")
        store.sweep("", TOMBSTONES)
        _bury(store, forgotten)
    note_erasure(store)


@undisturbed
def _bury(store: Store, forgotten: Forgotten) -> None:
    tag = store.tag(TOMBSTONES)
    whole = read(store) | forgotten
    lists = {"recipients": sorted(whole.recipients), "sessions": sorted(whole.sessions)}
    store.write_json(TOMBSTONES, lists, over=tag)


# -- what comes later -----------------------------------------------------------------------------


def without(rows: pa.Table, forgotten: Forgotten) -> pa.Table:
    """Return rows (with ``session_no`` and ``recipient``) without what is forgotten."""
    if not forgotten:
        return rows
    is_gone = _is_among(rows["session_no"], forgotten.sessions)
    is_gone = pc.or_(is_gone, _is_among(rows["recipient"], forgotten.recipients))
    return rows.filter(pc.invert(is_gone))


def without_answers(said: pa.Table, forgotten: Forgotten) -> pa.Table:
    """Return ``schema.OBSERVATIONS`` without what is forgotten.

    A session with a forgotten recipient still counts as asked about, because its other recipients
    may be waiting.
    """
    if not forgotten:
        return said
    said = said.filter(pc.invert(_is_among(said["session_no"], forgotten.sessions)))
    is_named = _is_among(said["number"], forgotten.recipients)
    if not pc.any(is_named).as_py():
        return said
    rows = said.filter(is_named).select(["session_no", "asked_at", "session_submit_status"])
    nothing = {"number": NO_NUMBER, "status": "pending", "is_final": False}
    silent = [row | nothing for row in rows.to_pylist()]
    kept = said.filter(pc.invert(is_named))
    return pa.concat_tables([kept, pa.Table.from_pylist(silent, said.schema)])


@undisturbed
def empty(store: Store, block: str, names: Names) -> bool:
    """Empty a block's responses that name somebody forgotten; return whether there were any."""
    tag, sessions = store.tag(block), names.forgotten.sessions
    table = store.read(block)
    all_ids = table["ids"].to_pylist()
    pairs = zip(table["body"].to_pylist(), all_ids, strict=True)
    is_named = [names.any_in(body) or not sessions.isdisjoint(ids) for body, ids in pairs]
    if not any(is_named):
        return False
    mask = pa.array(is_named)
    ids = [[one for one in asked if one not in sessions] for asked in all_ids]
    table = columns.with_columns(
        table,
        ids=pa.array(ids, pa.list_(TEXT)),
        body=pc.if_else(mask, pa.scalar(b""), table["body"]),
        verdict=pc.if_else(mask, pa.scalar(FORGOTTEN), table["verdict"]),
    )
    store.write(block, table, store.metadata(block), private=True, over=tag)
    return True


# -- what is there -----------------------------------------------------------------------------


def lone_sessions(store: Store, recipients: Iterable[str]) -> set[str]:
    """Return the sessions that these are the only recipients of, in the source or in receipts."""
    wanted = pa.array([*recipients], TEXT)
    found: set[str] = set()
    for day in file.days(store):
        people: dict[str, set[str | None]] = {}
        named = [row for row in _naming(store, day, wanted) if row["session_no"] is not None]
        sessions = pa.array({row["session_no"] for row in named}, TEXT)
        for table in file.rows(store, day):
            some = table.filter(pc.is_in(table["session_no"], value_set=sessions))
            for row in some.select(["session_no", "recipient"]).to_pylist():
                people.setdefault(row["session_no"], set()).add(row["recipient"])
        found |= {one for one, its in people.items() if its <= {*wanted.to_pylist()}}
    return found


def strangers(store: Store, book: PhoneBook, phones: Iterable[str]) -> list[str]:
    """List the texts that are no phone number, and are in no row of the source or the receipts."""
    odd = {book.recipient_id(phone): phone for phone in phones if not book.national_digits(phone)}
    for day in file.days(store) if odd else ():
        rows = _naming(store, day, pa.array([*odd], TEXT))
        for one in {row["recipient"] for row in rows}:
            odd.pop(one, None)
    return sorted(odd.values())


def _naming(store: Store, day: date, recipients: pa.Array) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for batch in store.batches(file.name(day), columns=["session_no", "recipient"]):
        found += batch.filter(pc.is_in(batch["recipient"], value_set=recipients)).to_pylist()
    return found


@undisturbed
def erase_day(store: Store, day: date, forgotten: Forgotten, cutoff: int) -> bool:
    """Erase from one day's file; return whether it had any. The caller holds the day."""
    said = file.footer(store, day)
    if said is None:
        return False
    layout = columns.layout(said.dimensions)
    erased = _Erased()

    def footer() -> Footer | None:
        if not erased.has_any:
            return None
        read = said.read
        if read:
            read = read | {"recipients": read["recipients"] - erased.announced}
        return replace(said, version=Footer("").version, read=read)

    rows = erased.rows(file.rows(store, day, layout), forgotten, layout, cutoff)
    return file.write(store, day, rows, layout, footer, said.tag) is not None


@dataclass
class _Erased:
    """Whether anything was erased, and how many recipients of the source."""

    has_any: bool = False
    announced: int = 0

    def rows(
        self, tables: Iterable[pa.Table], forgotten: Forgotten, layout: pa.Schema, cutoff: int
    ) -> Iterator[pa.Table]:
        """Yield a day's rows without what is forgotten."""
        odd: list[pa.Table] = []
        for table in tables:
            is_gone = _is_among(table["session_no"], forgotten.sessions)
            named = _is_among(table["recipient"], forgotten.recipients)
            is_gone = pc.or_(is_gone, pc.and_(named, pc.is_null(table[STATE])))
            self.has_any |= bool(pc.any(is_gone).as_py())
            self.announced += pc.sum(pc.and_(is_gone, table["is_announced"])).as_py() or 0
            table = table.filter(pc.invert(is_gone))
            is_odd = pc.is_valid(table[STATE])
            yield table.filter(pc.invert(is_odd))
            odd.append(table.filter(is_odd))
        dimensions, made = columns.dimensions_of(layout), []
        for session_no, rows in columns.grouped(odd).items():
            known = columns.known_of(rows, dimensions)
            if _erase(known, forgotten.recipients):
                self.has_any = True
                self.announced += sum(row["is_announced"] for row in rows)
                rows = (columns.rows_of(session_no, known, layout.names, dimensions, cutoff)
                        if known.sent else [])  # fmt: skip
                self.announced -= sum(row["is_announced"] for row in rows)
            made += rows
        yield columns.table_of(made, layout)


def _erase(known: Session, recipients: frozenset[str]) -> bool:
    """Erase recipients from a session; return whether it had any."""
    numbers = {name: one for name, one in known.numbers.items() if name not in recipients}
    # a row without a phone of its own goes with the number that it was matched to
    ordered = sorted(known.sent, key=lambda one: one.key)
    dealt = general.match(ordered, known.numbers)
    sent = [
        one for place, one in enumerate(ordered)
        if recipients.isdisjoint([one.recipient, dealt.get(place)])
    ]  # fmt: skip
    is_some = len(sent) < len(known.sent) or len(numbers) < len(known.numbers)
    known.sent, known.numbers = sent, numbers
    return is_some


def without_entries(entries: pa.Table, names: Names) -> pa.Table:
    """Return entries of the quarantine without those that name somebody forgotten."""
    is_kept = [
        names.forgotten.sessions.isdisjoint([row["session_no"], *(row["ids"] or ())])
        and not names.any_in(row["body"] or b"")
        for row in entries.to_pylist()
    ]
    return entries.filter(pa.array(is_kept, pa.bool_()))


def erase_quarantine(store: Store, names: Names) -> bool:
    """Erase the entries that name somebody forgotten; return whether there were any."""
    with quarantine.alone(store):
        return quarantine.edit(store, lambda entries: without_entries(entries, names)) > 0


def erase_responses(store: Store, names: Names) -> tuple[bool, list[str]]:
    """Empty the responses that name somebody; return whether any did, and who still writes."""
    has_any, busy = False, []
    living = {*log.open_runs(store)}
    for run in sorted({*log.runs(store), *living}):
        with log.taken(store, run) if run in living else nullcontext(True) as is_ours:
            if not is_ours and log.is_open(store, run):
                busy.append(run)
                continue
            log.forget_damaged(store, run)
            store.sweep(f"{quarantine.FOLDER}/{run}")
            for block in log.blocks(store, run):
                has_any |= empty(store, block, names)
    return has_any, busy


def _is_among(column: Any, names: Iterable[str]) -> Any:
    found = pc.is_in(column, value_set=pa.array([*names], TEXT), skip_nulls=True)
    return pc.fill_null(found, False)
