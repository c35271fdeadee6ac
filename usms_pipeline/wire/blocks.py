"""Many answers at once, of the documented shape: the fast way, and only for what is plain.

Whatever is odd in the least is left to ``bodies``; nothing is decided here.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from usms_pipeline.wire.bodies import is_well_formed, read_bodies
from usms_pipeline.wire.bounds import cut_array
from usms_pipeline.wire.parts import ITEMS, PLACES_AN_ITEM, RECEIPTS, SAID, Parts, joined

_RECEIPT: Final = pa.struct(
    [
        ("Phone", pa.string()),
        ("Status", pa.string()),
        ("ReceiptResult", pa.string()),
        ("ReceiveTime", pa.string()),
        ("ReceiptTime", pa.int64()),
        ("ReceiptCode", pa.string()),
        ("ReceiptDesc", pa.string()),
        ("CostCount", pa.int64()),
    ]
)
_ITEM: Final = [("SessionNo", pa.string()), ("Status", pa.string())]
_SHAPES: Final = tuple(
    pa.schema(
        [
            ("i", pa.int64()),
            (
                "b",
                pa.struct(
                    [
                        (
                            "Data",
                            pa.list_(
                                pa.struct(
                                    [
                                        *_ITEM,
                                        ("Receipt", receipt),
                                        ("ReceiptSet", pa.list_(_RECEIPT)),
                                    ]
                                )
                            ),
                        )
                    ]
                ),
            ),
        ]
    )
    for receipt in (_RECEIPT, pa.list_(_RECEIPT))
)
"""``Receipt`` as an object, and as a list. A body is wrapped with its number to keep its row."""

_FEWEST: Final = 4
"""A failing block is halved down to this size, and read answer by answer below."""


class Answer(NamedTuple):
    """One answer to read: its row in the table, the body, the ids asked."""

    response: int
    body: bytes
    ids: list[str]

    def __repr__(self) -> str:  # not the body, which holds phone numbers
        return f"Answer(response={self.response}, {len(self.body)} bytes)"


def read_block(answers: list[Answer]) -> Parts:
    """Read answers together where they are plain, one by one where they are not."""
    plain = [answer for answer in answers if is_well_formed(answer.body)]
    well_formed = {answer.response for answer in plain}
    odd = [answer for answer in answers if answer.response not in well_formed]
    return joined([read_bodies(odd), *_read_plain(plain)])


def _read_plain(answers: list[Answer]) -> list[Parts]:
    if len(answers) < _FEWEST:
        return [read_bodies(answers)]
    for shape in _SHAPES:
        data = _parsed(answers, shape)
        if data is not None:
            return _read_parsed(answers, data)
    half = len(answers) // 2
    return [*_read_plain(answers[:half]), *_read_plain(answers[half:])]


def _parsed(answers: list[Answer], shape: pa.Schema) -> pa.ListArray | None:
    """Give ``Data`` of every answer, or None when one of them has another shape."""
    # A line break between tokens would end the row; within a string it is not JSON at all.
    block = b"".join(
        b'{"i":%d,"b":%b}\n' % (number, answer.body.replace(b"\n", b" ").replace(b"\r", b" "))
        for number, answer in enumerate(answers)
    )
    try:
        table = pj.read_json(
            pa.BufferReader(block),
            read_options=pj.ReadOptions(use_threads=False, block_size=len(block) + 1),
            parse_options=pj.ParseOptions(
                explicit_schema=shape, unexpected_field_behavior="ignore"
            ),
        ).combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    if table["i"].to_pylist() != list(range(len(answers))):
        return None
    return pc.struct_field(table["b"].combine_chunks(), "Data")


def _read_parsed(answers: list[Answer], data: pa.ListArray) -> list[Parts]:
    odd = _odd(answers, data)
    if odd:
        kept = [number for number in range(len(answers)) if number not in odd]
        plain = [answers[number] for number in kept]
        left = read_bodies(answers[number] for number in sorted(odd))
        return [left, *(_read_parsed(plain, data.take(pa.array(kept, pa.int64()))) if kept else [])]
    items = data.flatten()
    parents = pc.list_parent_indices(data)
    responses = pa.array([answer.response for answer in answers], pa.int32())
    counted = pa.array(range(len(items)), pa.int64())
    first = _first_of_each(data)
    head = [
        responses.take(parents),
        pc.multiply(pc.subtract(counted, first.take(parents)), PLACES_AN_ITEM),
        pc.struct_field(items, "SessionNo"),
        cut_array(pc.struct_field(items, "Status")),
    ]
    return [Parts(pa.Table.from_arrays(head, schema=ITEMS), _receipts(items, head))]


def _first_of_each(data: pa.ListArray) -> pa.Array:
    lengths = pc.fill_null(pc.list_value_length(data), 0).cast(pa.int64())
    return pc.subtract(pc.cumulative_sum(lengths), lengths)


def _odd(answers: list[Answer], data: pa.ListArray) -> set[int]:
    """Give the answers with an entry that is null, nameless or about a session not asked."""
    items = data.flatten()
    sessions = pc.struct_field(items, "SessionNo")
    asked = pa.array([session for answer in answers for session in answer.ids], pa.string())
    if not sessions.null_count and sessions.equals(asked):
        lengths = pc.fill_null(pc.list_value_length(data), 0).to_pylist()
        if lengths == [len(answer.ids) for answer in answers]:
            return set()
    parents = pc.list_parent_indices(data).to_pylist()
    known = [set(answer.ids) for answer in answers]
    return {
        parent
        for parent, session in zip(parents, sessions.to_pylist(), strict=True)
        if session not in known[parent]
    }


def _receipts(items: pa.StructArray, head: list[pa.Array]) -> pa.Table:
    single, listed = (pc.struct_field(items, name) for name in ("Receipt", "ReceiptSet"))
    if pa.types.is_list(single.type):
        tables = [_listed(single, head, 0)]
        after = pc.fill_null(pc.list_value_length(single), 0).cast(pa.int64())
    else:
        tables = [_said(single, head)]
        after = pa.repeat(pa.scalar(1, pa.int64()), len(items))
    tables.append(_listed(listed, head, after))
    filled = [table for table in tables if table.num_rows]
    whole = pa.concat_tables(filled or tables)
    if len(filled) > 1:
        whole = whole.sort_by([("response", "ascending"), ("place", "ascending")])
    return whole


def _listed(lists: pa.ListArray, head: list[pa.Array], after: pa.Array | int) -> pa.Table:
    """Give the receipts of lists; ``after`` is how many receipts come before in the item."""
    parents = pc.list_parent_indices(lists)
    counted = pa.array(range(len(parents)), pa.int64())
    shift = pc.subtract(after, _first_of_each(lists))
    response, place, session, status = (column.take(parents) for column in head)
    place = pc.add(place, pc.add(counted, shift.take(parents)))
    return _said(lists.flatten(), [response, place, session, status])


def _said(receipts: pa.StructArray, head: list[pa.Array]) -> pa.Table:
    """Give what receipts say, leaving out those that say nothing."""

    def named(name: str) -> pa.Array:
        return pc.struct_field(receipts, name)

    said = [
        named("Phone"),
        pc.coalesce(named("Status"), named("ReceiptResult")),
        named("ReceiveTime"),
        named("ReceiptTime"),
        named("ReceiptCode"),
        named("ReceiptDesc"),
        named("CostCount"),
    ]
    table = pa.Table.from_arrays([*head, *said], schema=RECEIPTS)
    if not said[1].null_count and not pc.any(pc.equal(said[1], "")).as_py():
        return table
    says = pa.array([False] * len(receipts), pa.bool_())
    for column, field in zip(said, SAID, strict=True):
        is_said = pc.is_valid(column)
        if pa.types.is_string(field.type):
            is_said = pc.and_(is_said, pc.fill_null(pc.not_equal(column, ""), False))
        says = pc.or_(says, is_said)
    return table.filter(says)
