"""Erasing a phone or a session from every zone, with a tombstone so that it stays erased.

The one exception to "a row once seen is never dropped". Bodies are edited here and nowhere else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline import dataset
from usms_pipeline.dataset import QUARANTINE, REGISTERS, RESPONSES, SESSIONS, file_name
from usms_pipeline.phones import PhoneBook
from usms_pipeline.storage import Store

TOMBSTONES: Final = "forgotten.json"
_FEWEST_DIGITS: Final = 6


@dataclass(frozen=True)
class Forgotten:
    """What must not come back: recipient hashes and session numbers."""

    recipients: frozenset[str] = frozenset()
    sessions: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.recipients or self.sessions)

    def __or__(self, other: Forgotten) -> Forgotten:
        return Forgotten(self.recipients | other.recipients, self.sessions | other.sessions)


def read(store: Store) -> Forgotten:
    """Read the tombstones."""
    found = store.read_json(TOMBSTONES)
    return Forgotten(frozenset(found.get("recipients", ())), frozenset(found.get("sessions", ())))


def bury(store: Store, forgotten: Forgotten) -> None:
    """Add tombstones; they come first, so that an interrupted erasure can be repeated."""
    whole = read(store) | forgotten
    text = json.dumps({"recipients": sorted(whole.recipients), "sessions": sorted(whole.sessions)})
    with store.replacing(TOMBSTONES, private=False) as path:
        path.write_text(text)


def lone_sessions(store: Store, recipients: Iterable[str]) -> set[str]:
    """Find the sessions of which one of the recipients is the only one heard of or announced."""
    wanted, found = set(recipients), set()
    for day in dataset.days(store, REGISTERS):
        commit = dataset.read_commit(store, day)
        if commit is None:
            continue
        numbers: dict[str, set[str]] = {}
        for batch in store.batches(file_name(REGISTERS, day, commit.registers)):
            heard = batch.filter(pc.not_equal(batch["number"], "")).select(["session_no", "number"])
            for session, number in zip(*(c.to_pylist() for c in heard.columns), strict=True):
                numbers.setdefault(session, set()).add(number)
        found |= {session for session, heard in numbers.items() if heard <= wanted}
    return found


def without(rows: pa.Table, forgotten: Forgotten, column: str) -> pa.Table:
    """Drop forgotten rows; ``column`` holds the recipient's hash."""
    gone = pc.or_(
        pc.is_in(rows[column], pa.array(forgotten.recipients, pa.string())),
        pc.is_in(rows["session_no"], pa.array(forgotten.sessions, pa.string())),
    )
    return rows.filter(pc.invert(gone))


def erase(
    store: Store, day: date, forgotten: Forgotten, phones: Iterable[str], book: PhoneBook
) -> bool:
    """Erase from one partition's sessions, registers, answers and quarantine; tells if it had any.

    ``phones`` are the numbers themselves, to find them in answers that can't be decoded.
    """
    has_changed = False
    digits = [d for phone in phones if len(d := re.sub(r"\D", "", phone)[-8:]) >= _FEWEST_DIGITS]
    keep = {SESSIONS: "recipient", REGISTERS: "number"}
    for zone, column in keep.items():
        for name in store.names(f"{zone}/sent_date={day}"):
            has_changed |= _edit(store, name, partial(without, forgotten=forgotten, column=column))

    def scrubbed(table: pa.Table) -> pa.Table:
        table = _without_ids(table, forgotten)
        bodies = [scrub(body, forgotten, book, digits) for body in table["body"].to_pylist()]
        index = table.schema.get_field_index("body")
        return table.set_column(index, "body", pa.array(bodies, pa.binary()))

    for zone in (RESPONSES, QUARANTINE):
        for name in store.names(f"{zone}/sent_date={day}"):
            has_changed |= _edit(store, name, scrubbed)
    return has_changed


def scrub(body: bytes, forgotten: Forgotten, book: PhoneBook, digits: Iterable[str] = ()) -> bytes:
    """Cut forgotten sessions and phones out of a body; emptied if it can't be read and names one.

    A body without any of them is given back as it is, to the byte.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if isinstance(answer, dict):
        edited = _scrub_answer(answer, forgotten, book)
        if edited != json.loads(body):
            body = json.dumps(edited, ensure_ascii=False).encode("utf-8", "surrogatepass")
    compact = re.sub(rb"[\s()+\-]", b"", body)
    named = [*digits, *forgotten.sessions]
    return b"" if any(word.encode() in compact or word.encode() in body for word in named) else body


def _scrub_answer(answer: dict[str, Any], forgotten: Forgotten, book: PhoneBook) -> dict[str, Any]:
    """Edit an answer, or a lone item of one."""
    if not isinstance(answer.get("Data"), list):
        return _scrub_item(answer, forgotten, book)
    kept = [
        _scrub_item(item, forgotten, book) if isinstance(item, dict) else item
        for item in answer["Data"]
        if not (isinstance(item, dict) and str(item.get("SessionNo")) in forgotten.sessions)
    ]
    return answer | {"Data": kept}


def _scrub_item(item: dict[str, Any], forgotten: Forgotten, book: PhoneBook) -> dict[str, Any]:
    def is_forgotten(receipt: Any) -> bool:
        phone = receipt.get("Phone") if isinstance(receipt, dict) else None
        return phone is not None and book.recipient_id(str(phone)) in forgotten.recipients

    edited = dict(item)
    for key in ("Receipt", "ReceiptSet"):
        receipts = item.get(key)
        if isinstance(receipts, list):
            edited[key] = [receipt for receipt in receipts if not is_forgotten(receipt)]
        elif is_forgotten(receipts):
            edited[key] = None
    return edited


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
        gone = pc.is_in(table["session_no"], pa.array(forgotten.sessions, pa.string()))
        table = table.filter(pc.invert(gone))
    return table


def _edit(store: Store, name: str, change: Callable[[pa.Table], pa.Table]) -> bool:
    before = store.read(name)
    after = change(before)
    is_changed = not after.equals(before)
    if is_changed:
        is_private = name.split("/", 1)[0] in dataset.PRIVATE
        metadata = store.metadata(name)
        if "token" in metadata:
            metadata["token"] += "+"
        store.write(name, after, metadata, private=is_private)
    return is_changed
