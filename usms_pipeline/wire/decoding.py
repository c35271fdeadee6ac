"""Stored answers to observations and rejects: one function, the same rows for the same answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.phones import PhoneBook
from usms_pipeline.schema import OBSERVATIONS, QUARANTINE, RESPONSES
from usms_pipeline.wire.blocks import Answer, read_block
from usms_pipeline.wire.bounds import MOST_BYTES_KEPT, cut
from usms_pipeline.wire.parts import REFUSED_ID, UNREADABLE_ANSWER, Parts, Reject
from usms_pipeline.wire.rows import receipt_rows, session_rows

_BLOCK_ANSWERS: Final = 500
_BLOCK_BYTES: Final = 32 * 2**20


class Decoded(NamedTuple):
    """What answers say (``schema.OBSERVATIONS``), and what is no use (``schema.QUARANTINE``)."""

    observations: pa.Table
    rejects: pa.Table

    def __repr__(self) -> str:
        return f"Decoded({self.observations.num_rows} rows, {self.rejects.num_rows} rejects)"


def decode(responses: pa.RecordBatch | pa.Table, book: PhoneBook, receipt_zone: str) -> Decoded:
    """Read answers (``schema.RESPONSES``) into observations. Never raises for what they hold.

    Every receipt of an 'ok' answer gives a row, and so does every id that the answer has none of:
    with number ``''``, pending. A lone id that was refused is ``invalid``. ``receipt_zone`` (an
    IANA name) is the zone of times that have none. A session is matched to the ids asked as it is,
    or else without blanks around it; upper and lower case differ.
    """
    rows = responses if isinstance(responses, pa.Table) else pa.Table.from_batches([responses])
    rows = rows.select(RESPONSES.names).combine_chunks()
    verdicts = rows["verdict"].to_pylist()
    ids = [list(dict.fromkeys(asked or ())) for asked in rows["ids"].to_pylist()]
    tables: list[pa.Table] = []
    rejects: list[Reject] = []
    for answers in _blocks(rows, ids, verdicts):
        parts = read_block(answers)
        tables += _observed(parts, answers, rows["asked_at"], book, receipt_zone)
        rejects += parts.rejects
    refused = [number for number, verdict in enumerate(verdicts) if verdict == "refused"]
    tables += _refused(rows, ids, refused)
    rejects += _useless(rows, ids, verdicts)
    observations = pa.concat_tables([OBSERVATIONS.empty_table(), *tables]).combine_chunks()
    return Decoded(observations, _quarantined(rejects, rows))


def entry_id(
    kind: str, session_no: str | None, ids: Sequence[str], asked_at: datetime, body: bytes
) -> str:
    """Name a quarantined entry by what it holds: 16 hex digits, the same each time.

    The same trouble in a later answer is the same entry, but for a refusal: that is the answer to
    a question of its own. ``ids`` tell apart answers whose sessions are not known. How JSON is
    laid out does not matter: an answer that something was cut out of is written anew.
    """
    digest = hashlib.sha256()
    about = ids if session_no is None else [session_no]
    moment = asked_at.isoformat() if kind == REFUSED_ID else ""
    for part in (kind, moment, *about):
        text = part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:%b" % (len(text), text))
    said = _said(body)
    digest.update(b"%d:" % len(said) + said)
    return digest.hexdigest()[:16]


def _said(body: bytes) -> bytes:
    try:
        return json.dumps(json.loads(body), sort_keys=True).encode()
    except (ValueError, RecursionError):
        return body


def _blocks(
    rows: pa.Table, ids: list[list[str]], verdicts: list[str | None]
) -> Iterator[list[Answer]]:
    """Give the 'ok' answers in blocks of bounded size."""
    block: list[Answer] = []
    size = 0
    for number, body in enumerate(rows["body"]):
        if verdicts[number] != "ok":
            continue
        block.append(Answer(number, body.as_py() or b"", ids[number]))
        size += len(block[-1].body)
        if len(block) >= _BLOCK_ANSWERS or size >= _BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def _observed(
    parts: Parts, answers: list[Answer], asked_at: pa.ChunkedArray, book: PhoneBook, zone: str
) -> list[pa.Table]:
    counts = [len(answer.ids) for answer in answers]
    numbers = np.repeat([answer.response for answer in answers], counts).astype(np.int32)
    sessions = pa.array([session for answer in answers for session in answer.ids], pa.string())
    asked = pa.table({"response": numbers, "session_no": sessions})
    submit_status = _submit_status(parts.items, asked)
    told = parts.receipts.select(asked.column_names)
    if not told.num_rows:
        return [session_rows(sessions, _at(asked_at, numbers), submit_status, "pending")]
    when = _at(asked_at, told["response"])
    if told.equals(asked):  # the common case: one receipt each
        return [receipt_rows(parts.receipts, when, submit_status, book, zone)]
    keys, told_of = _keys(asked), _keys(told)
    of_each = submit_status.take(pc.index_in(told_of, value_set=keys))
    silent = pc.invert(pc.is_in(keys, value_set=told_of))
    return [
        session_rows(
            sessions.filter(silent),
            _at(asked_at, asked["response"].filter(silent)),
            submit_status.filter(silent),
            "pending",
        ),
        receipt_rows(parts.receipts, when, of_each, book, zone),
    ]


def _keys(asked: pa.Table) -> pa.Array:
    """Tell apart sessions and the answers they are in."""
    responses = asked["response"].cast(pa.string())
    return pc.binary_join_element_wise(responses, asked["session_no"], " ").combine_chunks()


def _submit_status(items: pa.Table, asked: pa.Table) -> pa.Array:
    """Give every session's own status word, the least of several; null where there is none."""
    names = asked.column_names
    if items.select(names).equals(asked):
        return items["submit_status"].combine_chunks()
    said = items.filter(pc.is_valid(items["submit_status"]))
    least = said.group_by(names).aggregate([("submit_status", "min")])
    places = pc.index_in(_keys(asked), value_set=_keys(least))
    return _at(least["submit_status_min"], places)


def _refused(rows: pa.Table, ids: list[list[str]], refused: list[int]) -> list[pa.Table]:
    """Give ids that the service refuses: asked, answered, and ``invalid``."""
    counts = [len(ids[number]) for number in refused]
    if not sum(counts):
        return []
    responses = pa.array(np.repeat(refused, counts).astype(np.int32))
    sessions = pa.array([session for number in refused for session in ids[number]], pa.string())
    return [
        session_rows(
            sessions,
            _at(rows["asked_at"], responses),
            pa.nulls(len(sessions), pa.string()),
            "invalid",
            code=_at(rows["ret_code"], responses).cast(pa.string()),
            description=_at(rows["reason"], responses),
        )
    ]


def _useless(rows: pa.Table, ids: list[list[str]], verdicts: list[str | None]) -> Iterator[Reject]:
    """Give the answers that were found useless when they came: refused ids, unreadable bodies."""
    for number, verdict in enumerate(verdicts):
        if verdict == "ok":
            continue
        body = (rows["body"][number].as_py() or b"")[:MOST_BYTES_KEPT]
        reason = rows["reason"][number].as_py()
        if verdict == "refused":
            for session in ids[number]:
                words = reason or "the service refuses this session number"
                yield Reject(number, REFUSED_ID, words, session, body)
        else:
            words = reason or "the answer can't be read"
            yield Reject(number, UNREADABLE_ANSWER, words, None, body)


def _quarantined(rejects: list[Reject], rows: pa.Table) -> pa.Table:
    return pa.Table.from_pylist([_entry(reject, rows) for reject in rejects], QUARANTINE)


def _entry(reject: Reject, rows: pa.Table) -> dict[str, Any]:
    response = {
        name: rows[name][reject.response].as_py() for name in ("ids", "asked_at", "http_status")
    }
    return {
        **response,
        "id": entry_id(
            reject.kind,
            reject.session_no,
            response["ids"] or (),
            response["asked_at"],
            reject.body,
        ),
        "kind": reject.kind,
        "reason": reject.reason,
        "session_no": cut(reject.session_no),
        "body": reject.body[:MOST_BYTES_KEPT],
        "state": "open",
    }


def _at(column: pa.ChunkedArray, places: Any) -> pa.Array:
    taken = column.take(places)
    return taken.combine_chunks() if isinstance(taken, pa.ChunkedArray) else taken
