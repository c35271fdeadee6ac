"""Stored answers to observations and rejects: one function, the same rows for the same answers.

Answers of the documented shape are read many at once, by Arrow. Anything odd is
left to ``careful``; nothing is decided here. Pure: no disk, no network, no clock.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from usms_pipeline.contract.schema import OBSERVATIONS, QUARANTINE, RESPONSES, TEXT, as_one_array
from usms_pipeline.people.phones import PhoneBook
from usms_pipeline.service import api, careful
from usms_pipeline.service.careful import Parts, Reject
from usms_pipeline.service.rows import cut_array, receipt_rows, session_rows, times_in_doubt

_UNANSWERED: Final = "unanswered"
FORGOTTEN: Final = "forgotten"
"""The verdict on an answer whose body was emptied, because it names a forgotten person: it only
says that its sessions were asked about."""

SMALL_BYTES: Final = 2_000
"""Arrow takes 0.15 ms to start; in that time the careful reader reads this much."""

_RECEIPT_KEY: Final = api.ITEM["receipt"].encode()
_A_LIST: Final = re.compile(rb'"%b"\s*:\s*\[' % _RECEIPT_KEY)
_AN_OBJECT: Final = re.compile(rb'"%b"\s*:\s*\{' % _RECEIPT_KEY)


def _shape(has_lists: bool) -> pa.Schema:
    """Return the schema of an answer for Arrow, to which a receipt is a list or is none."""
    kinds = {name: pa.int64() for name in api.WHOLE_NUMBERS}
    receipt = pa.struct([(key, kinds.get(name, TEXT)) for name, key in api.RECEIPT.items()])
    listed = pa.list_(receipt)
    lists = {"receipt": listed if has_lists else receipt, "receipt_set": listed}
    item = pa.struct([(key, lists.get(name, TEXT)) for name, key in api.ITEM.items()])
    return pa.schema([(api.ENVELOPE["data"], pa.list_(item))])


_SHAPES: Final = {has_lists: _shape(has_lists) for has_lists in (False, True)}


class Decoded(NamedTuple):
    """What answers say (``schema.OBSERVATIONS``), and what is unusable (``schema.QUARANTINE``).

    ``times_in_doubt`` counts the receipts with a time that can't be right: it counts as none.
    """

    observations: pa.Table
    rejects: pa.Table
    times_in_doubt: int = 0

    def __repr__(self) -> str:
        return f"Decoded({self.observations.num_rows} rows, {self.rejects.num_rows} rejects)"


def decode(responses: pa.Table, book: PhoneBook, receipt_zone: str) -> Decoded:
    """Read answers (``schema.RESPONSES``) into observations. Never raises for what they hold.

    Every receipt of an 'ok' answer gives a row, and so does every id that the answer has none of:
    with number ``''``, pending. A lone id that was refused is ``invalid``. One 'unanswered' while
    others were not is pending, with nothing said, and so is an id of a 'forgotten' answer, whose
    body was emptied. An id whose answer can't be read has a row with
    number ``''`` and status NULL: not pending, which could close it. An 'unreadable' answer to
    several ids says nothing of any: they stay due. What counts is what can be read now,
    not the verdict on an 'ok' answer when it came.

    ``receipt_zone`` (an IANA name) is the zone of times that have none. A session is matched to the
    ids asked as it is, or else but for case and blanks, where that can mean one of them only.
    """
    rows = responses.select(RESPONSES.names).combine_chunks()
    verdicts = rows["verdict"].to_pylist()
    ids = [list(dict.fromkeys(asked or ())) for asked in rows["ids"].to_pylist()]
    answers = [
        Answer(number, rows["body"][number].as_py() or b"", ids[number])
        for number, verdict in enumerate(verdicts)
        if verdict == "ok"
    ]
    parts = read_block(answers)
    rejects = [*parts.rejects, *_useless(rows, ids, verdicts)]
    unread = {one.response for one in rejects if one.kind == careful.UNREADABLE}
    answers = [answer for answer in answers if answer.response not in unread]
    observed = _observed(parts, answers, rows["asked_at"], book, receipt_zone)
    doubts = times_in_doubt(parts.receipts, observed[-1]) if parts.receipts.num_rows else 0
    observed += _without_a_receipt(rows, ids, verdicts, unread)
    observations = pa.concat_tables([OBSERVATIONS.empty_table(), *observed]).combine_chunks()
    entries = pa.Table.from_pylist([_entry(reject, rows) for reject in rejects], QUARANTINE)
    return Decoded(observations, entries, doubts)


def entry_id(
    kind: str, session_no: str | None, ids: Sequence[str], asked_at: datetime, body: bytes
) -> str:
    """Return a quarantined entry's id, from what it holds: 16 hex digits, the same each time.

    The same trouble in a later answer is the same entry, but for a refusal: that is the answer to
    a question of its own. A session that stays unanswered is one in any case. ``ids`` tell
    apart answers whose sessions are not known. How JSON is laid out does not matter: an answer that
    something was cut out of is written again.
    """
    digest = hashlib.sha256()
    about = ids if session_no is None else [session_no]
    moment = asked_at.isoformat() if kind == careful.REFUSED else ""
    for part in (kind, moment, *about):
        text = part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:%b" % (len(text), text))
    said = b"" if kind == careful.UNANSWERED else _sorted(body)
    digest.update(b"%d:" % len(said) + said)
    return digest.hexdigest()[:16]


def _sorted(body: bytes) -> bytes:
    try:
        return json.dumps(json.loads(body), sort_keys=True).encode()
    except (ValueError, RecursionError):
        return body


class Answer(NamedTuple):
    """One answer to read: its row in the table, the body, the ids asked."""

    response: int
    body: bytes
    ids: list[str]

    def __repr__(self) -> str:  # not the body, which holds phone numbers
        return f"Answer(response={self.response}, {len(self.body)} bytes)"


def read_block(answers: list[Answer]) -> Parts:
    """Read answers together where they are plain, one by one where they are not.

    That each is one JSON object is looked at first (0.1 µs a receipt), for Arrow takes more:
    a second object behind the first is a row to it, which would push the neighbours out of theirs;
    it passes over ``Inf`` and brackets without end; and of a body ``null`` it dies.
    """
    odd: list[Answer] = []
    plain: dict[bool, list[Answer]] = {False: [], True: []}
    for answer in answers:
        if careful.has_too_many_values(answer.body) or not careful.is_object(answer.body):
            odd.append(answer)
        else:
            plain[_A_LIST.search(answer.body) is not None].append(answer)
    read = [part for has_lists in plain for part in _read_plain(plain[has_lists], has_lists)]
    return careful.joined([careful.read_bodies(odd), *read])


def _read_plain(answers: list[Answer], has_lists: bool) -> list[Parts]:
    """Read answers by Arrow, else each half of them, down to the one that it can't read."""
    if sum(len(answer.body) for answer in answers) < SMALL_BYTES:
        return [careful.read_bodies(answers)]
    data = _parsed(answers, has_lists)
    if data is not None:
        return _read_parsed(answers, data)
    half = len(answers) // 2
    if not half:
        return [careful.read_bodies(answers)]
    return [*_read_plain(answers[:half], has_lists), *_read_plain(answers[half:], has_lists)]


def _parsed(answers: list[Answer], has_lists: bool) -> pa.ListArray | None:
    """Return the items of every answer, or None when one of them has another shape."""
    block = b"\n".join(answer.body for answer in answers)
    if has_lists:
        block = _with_lists_only(block)
    try:
        pa.array([block], pa.binary()).cast(TEXT)  # Arrow's reader takes what is no UTF-8
        table = pj.read_json(
            pa.BufferReader(block),
            read_options=pj.ReadOptions(use_threads=False, block_size=len(block) + 1),
            parse_options=pj.ParseOptions(
                explicit_schema=_SHAPES[has_lists], unexpected_field_behavior="ignore"
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    return table.column(0).combine_chunks() if table.num_rows == len(answers) else None


def _with_lists_only(block: bytes) -> bytes:
    """Put a lone receipt into a list, so that all are of one type (0.6 µs a receipt; else 14).

    The first brace that closes may stand in a text or belong to something within the receipt. Then
    what comes out is no JSON, and the answer is read carefully.
    """
    before, *behind = _AN_OBJECT.split(block)
    opened = b'"%b":[{' % _RECEIPT_KEY
    return opened.join([before, *(piece.replace(b"}", b"}]", 1) for piece in behind)])


def _read_parsed(answers: list[Answer], data: pa.ListArray) -> list[Parts]:
    odd = _odd(answers, data)
    if odd:
        kept = [number for number in range(len(answers)) if number not in odd]
        plain = [answers[number] for number in kept]
        left = careful.read_bodies(answers[number] for number in sorted(odd))
        return [left, *(_read_parsed(plain, data.take(pa.array(kept, pa.int64()))) if kept else [])]
    items = data.flatten()
    responses = pa.array([answer.response for answer in answers], pa.int32())
    head = [
        responses.take(pc.list_parent_indices(data)),
        _of(items, api.ITEM, "session_no"),
        cut_array(_of(items, api.ITEM, "submit_status")),
    ]
    return [Parts(pa.Table.from_arrays(head, schema=careful.ITEMS), _receipts(items, head))]


def _odd(answers: list[Answer], data: pa.ListArray) -> set[int]:
    """Return the answers with an entry that is null, nameless or about a session not asked."""
    items = data.flatten()
    sessions = _of(items, api.ITEM, "session_no")
    asked = pa.array([session for answer in answers for session in answer.ids], TEXT)
    if not sessions.null_count and sessions.equals(asked):
        lengths = pc.fill_null(pc.list_value_length(data), 0).to_pylist()
        if lengths == [len(answer.ids) for answer in answers]:
            return set()
    known = [set(answer.ids) for answer in answers]
    pairs = zip(pc.list_parent_indices(data).to_pylist(), sessions.to_pylist(), strict=True)
    return {parent for parent, session in pairs if session not in known[parent]}


def _receipts(items: pa.StructArray, head: list[pa.Array]) -> pa.Table:
    tables = []
    for name in ("receipt", "receipt_set"):
        receipts, its_head = _of(items, api.ITEM, name), head
        if pa.types.is_list(receipts.type):
            its_head = [column.take(pc.list_parent_indices(receipts)) for column in head]
            receipts = receipts.flatten()
        tables.append(_said(receipts, its_head))
    return careful.in_order(tables)


def _said(receipts: pa.StructArray, head: list[pa.Array]) -> pa.Table:
    said = {name: _of(receipts, api.RECEIPT, name) for name in api.RECEIPT}
    said["word"] = pc.coalesce(said["word"], said.pop("older_word"))
    table = pa.Table.from_arrays([*head, *said.values()], schema=careful.RECEIPTS)
    if not said["word"].null_count and not pc.any(pc.equal(said["word"], "")).as_py():
        return table
    says = pa.repeat(pa.scalar(False), len(receipts))
    for field in careful.SAID:
        column = said[field.name]
        is_text = pa.types.is_string(field.type)
        is_said = pc.fill_null(pc.not_equal(column, ""), False) if is_text else column.is_valid()
        says = pc.or_(says, is_said)
    return table.filter(says)


def _of(structs: pa.StructArray, keys: dict[str, str], name: str) -> pa.Array:
    return pc.struct_field(structs, keys[name])


def _observed(
    parts: Parts, answers: list[Answer], asked_at: pa.ChunkedArray, book: PhoneBook, zone: str
) -> list[pa.Table]:
    by_response = {answer.response: answer.ids for answer in answers}
    numbers, sessions = _asked(by_response, by_response)
    asked = pa.table({"response": numbers, "session_no": sessions})
    submit_status = _submit_status(parts.items, asked)
    told = parts.receipts.select(asked.column_names)
    if not told.num_rows:
        at = _at(asked_at, numbers)
        return [session_rows(sessions, at, "pending", session_submit_status=submit_status)]
    when = _at(asked_at, told["response"])
    if told.equals(asked):  # the common case: one receipt each
        return [receipt_rows(parts.receipts, when, submit_status, book, zone)]
    keys, told_of = _keys(asked), _keys(told)
    of_each = submit_status.take(pc.index_in(told_of, value_set=keys))
    silent = pc.invert(pc.is_in(keys, value_set=told_of))
    some = (one.filter(silent) for one in (sessions, _at(asked_at, numbers), submit_status))
    silent_ones, asked_then, words = some
    return [
        session_rows(silent_ones, asked_then, "pending", session_submit_status=words),
        receipt_rows(parts.receipts, when, of_each, book, zone),
    ]


def _keys(asked: pa.Table) -> pa.Array:
    responses = asked["response"].cast(TEXT)
    return pc.binary_join_element_wise(responses, asked["session_no"], " ").combine_chunks()


def _submit_status(items: pa.Table, asked: pa.Table) -> pa.Array:
    """Return every session's own status word, the least of several; null where there is none."""
    names = asked.column_names
    if items.select(names).equals(asked):
        return items["submit_status"].combine_chunks()
    said = items.filter(pc.is_valid(items["submit_status"]))
    least = said.group_by(names).aggregate([("submit_status", "min")])
    places = pc.index_in(_keys(asked), value_set=_keys(least))
    return _at(least["submit_status_min"], places)


def _without_a_receipt(
    rows: pa.Table, ids: list[list[str]], verdicts: list[str], unread: set[int]
) -> Iterator[pa.Table]:
    """Yield the rows of ids that are refused, or that nothing was said of, or nothing readable."""
    each = [*enumerate(verdicts)]
    buckets = {
        "invalid": [number for number, verdict in each if verdict == "refused"],
        "pending": [number for number, verdict in each if verdict in (FORGOTTEN, _UNANSWERED)],
        # of several ids of an answer that was never readable, nothing is known
        None: [n for n in sorted(unread) if verdicts[n] == "ok" or len(ids[n]) == 1],
    }
    for bucket, numbers in buckets.items():
        responses, sessions = _asked(ids, numbers)
        said = {name: _at(rows[name], responses) for name in ("asked_at", "ret_code", "reason")}
        why = {}
        if bucket == "invalid":
            why = {"code": said["ret_code"].cast(TEXT), "description": said["reason"]}
        yield session_rows(sessions, said["asked_at"], bucket, **why)


def _asked(
    ids: Mapping[int, list[str]] | list[list[str]], numbers: Collection[int]
) -> tuple[pa.Array, pa.Array]:
    counts = np.array([len(ids[number]) for number in numbers], np.int64)
    responses = np.repeat(np.array([*numbers], np.int32), counts)
    sessions = [session for number in numbers for session in ids[number]]
    return pa.array(responses), pa.array(sessions, TEXT)


_NO_ANSWER: Final = "the service gives no usable answer"
_USELESS: Final = {
    "refused": (careful.REFUSED, "the service refuses this session number"),
    _UNANSWERED: (careful.UNANSWERED, f"{_NO_ANSWER} about this session number"),
}
"""From a verdict on a lone id, the kind of entry and the reason where none was kept."""


def _useless(rows: pa.Table, ids: list[list[str]], verdicts: list[str]) -> Iterator[Reject]:
    for number, verdict in enumerate(verdicts):
        if verdict in ("ok", FORGOTTEN):
            continue
        body = (rows["body"][number].as_py() or b"")[: careful.MOST_BYTES_KEPT]
        reason = rows["reason"][number].as_py()
        kind, words = _USELESS.get(verdict, (careful.UNREADABLE, "the answer can't be read"))
        for session in ids[number] if verdict in _USELESS else [None]:
            yield Reject(number, kind, reason or words, session, body)


def _entry(reject: Reject, rows: pa.Table) -> dict[str, Any]:
    names = ("ids", "asked_at", "http_status")
    said = {name: rows[name][reject.response].as_py() for name in names}
    kind, session_no, body = reject.kind, reject.session_no, reject.body
    return said | {
        "id": entry_id(kind, session_no, said["ids"] or (), said["asked_at"], body),
        "kind": kind,
        "reason": reject.reason,
        "session_no": careful.cut(session_no),
        "body": body[: careful.MOST_BYTES_KEPT],
        "state": "open",
    }


def _at(column: pa.ChunkedArray, places: Any) -> pa.Array:
    return as_one_array(column.take(places))
