"""Erasing a phone or a session from every zone, with a tombstone so that it stays erased.

The one exception to "a row once seen is never dropped". Bodies are edited here and nowhere else.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline import dataset, quarantine, schema, scratch
from usms_pipeline.dataset import QUARANTINE, RECEIPTS, REGISTERS, SESSIONS, file_name
from usms_pipeline.errors import Busy, StorageError
from usms_pipeline.phones import PhoneBook
from usms_pipeline.storage import Store
from usms_pipeline.wire.bodies import mended

TOMBSTONES: Final = "forgotten.json"
_FEWEST_DIGITS: Final = 6
_MOST_DIGITS: Final = 4000
_RUNS: Final = re.compile(r"\+?\(?\+?\d[\d ()+.\-]{4,24}\d")
_DIGITS: Final = re.compile(r"\+?\d{6,15}")
_HEARD: Final = pa.schema([("session_no", schema.TEXT), ("number", schema.TEXT)])
_ANNOUNCED: Final = pa.schema(
    [("session_no", schema.TEXT), ("recipient", schema.TEXT), ("recipients", pa.int32())]
)
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
    return bool(without(rows, forgotten, "recipient").num_rows < rows.num_rows)


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

    ``phones`` are the numbers themselves, to find them in answers that can't be decoded. The caller
    holds the partition.
    """
    has_changed = False
    dataset.sweep(store, day)
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

    for name in dataset.answers(store, day):
        has_changed |= _edit(store, name, scrubbed)
    for name in store.names(f"{QUARANTINE}/sent_date={day}"):
        has_changed |= _edit(store, name, lambda table: quarantine.renamed(scrubbed(table)))
    return has_changed


def scrub(body: bytes, forgotten: Forgotten, book: PhoneBook, digits: Iterable[str] = ()) -> bytes:
    """Cut forgotten sessions and phones out of a body; emptied if it can't be read and names one.

    ``digits`` are the last ones of the phones. A body without any of them is given back as it is,
    to the byte; of a readable one, what names somebody else stays. What ``wire`` can mend and read
    is readable here too.
    """
    digits = list(digits)
    try:
        answer = json.loads(mended(body) or body, parse_int=_whole, parse_float=_fraction)
        edited = _scrub_answer(answer, forgotten, book) if isinstance(answer, dict) else answer
        edited = _blank(edited, "", forgotten, book, digits)
        text = json.dumps(edited, ensure_ascii=False)
    except (ValueError, RecursionError):
        compact = re.sub(rb"[\s()+\-]", b"", body)
        is_named = any(word.encode() in compact for word in digits)
        shown = body.decode("utf-8", "replace")
        is_named = is_named or _names_recipient(shown, forgotten, book)
        return b"" if is_named or _names_session(shown, forgotten) else body
    return body if edited == answer else text.encode("utf-8", "surrogatepass")


def _whole(text: str) -> int | str:
    """Read a number; one of more digits than Python reads stays text."""
    return int(text) if len(text) <= _MOST_DIGITS else text


def _fraction(text: str) -> float | str:
    """Read a number; one that is infinite to Python stays text."""
    number = float(text)
    return number if math.isfinite(number) else text


def _blank(value: Any, key: str, forgotten: Forgotten, book: PhoneBook, digits: list[str]) -> Any:
    """Put null for every text or number that names a forgotten phone or session."""
    if isinstance(value, dict):
        return {k: _blank(v, k, forgotten, book, digits) for k, v in value.items()}
    if isinstance(value, list):
        return [_blank(one, key, forgotten, book, digits) for one in value]
    if isinstance(value, bool) or not isinstance(value, str | int):
        return value
    text = str(value)
    if key == "Phone":
        return None if book.recipient_id(text) in forgotten.recipients else value
    is_phone = key != "SessionNo" and (
        _names_phone(text, digits) or _names_recipient(text, forgotten, book)
    )
    return None if is_phone or _names_session(text, forgotten) else value


def _names_phone(text: str, digits: list[str]) -> bool:
    """Find a number that ends with the digits; longer runs of digits are something else."""
    forms = (text, re.sub(r"[\s()+.\-]", "", text))
    return any(
        last in form and re.search(rf"(?<!\d)\d{{0,7}}{last}(?!\d)", form)
        for last in digits
        for form in forms
    )


def _names_recipient(text: str, forgotten: Forgotten, book: PhoneBook) -> bool:
    """Find a number whose hash is forgotten; in answers that come later its digits aren't known."""
    if not forgotten.recipients:
        return False
    tried = {one for run in _RUNS.findall(text) for one in (run, *_DIGITS.findall(run))}
    return any(book.recipient_id(one) in forgotten.recipients for one in tried)


def _names_session(text: str, forgotten: Forgotten) -> bool:
    """Find a session number as a word of its own: `1001` is not in `10010`, nor in `a-1001`."""
    return any(
        session in text and re.search(rf"(?<![\w-]){re.escape(session)}(?![\w-])", text)
        for session in forgotten.sessions
    )


def _scrub_answer(answer: dict[str, Any], forgotten: Forgotten, book: PhoneBook) -> dict[str, Any]:
    """Edit an answer, or a lone item of one."""
    if not isinstance(answer.get("Data"), list):
        return _scrub_item(answer, forgotten, book)
    kept = [
        _scrub_item(item, forgotten, book) if isinstance(item, dict) else item
        for item in answer["Data"]
        if not (isinstance(item, dict) and str(item.get("SessionNo")).strip() in forgotten.sessions)
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
