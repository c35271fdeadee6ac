"""What one reading of answers yields, whichever way they were read. No JSON here, no meaning.

``response`` is the answer's row in the table being decoded; ``place`` orders what is inside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

ITEMS: Final = pa.schema(
    [
        ("response", pa.int32()),
        ("place", pa.int64()),
        ("session_no", pa.string()),  # as it was asked
        ("submit_status", pa.string()),
    ]
)
"""One entry of ``Data`` that could be read."""

SAID: Final = pa.schema(
    [
        ("phone", pa.string()),
        ("word", pa.string()),
        ("time", pa.string()),
        ("epoch", pa.int64()),
        ("code", pa.string()),
        ("description", pa.string()),
        ("segments", pa.int64()),
    ]
)
"""What a receipt says, as received; all null or empty when it says nothing."""

RECEIPTS: Final = pa.schema([*ITEMS, *SAID])
"""One receipt that says something."""

PLACES_AN_ITEM: Final = 1 << 24
"""``place`` of an item is its number times this; its receipts follow."""

BAD_ITEM: Final = "bad_item"
UNASKED_SESSION: Final = "unasked_session"
UNREADABLE_ANSWER: Final = "unreadable_answer"
REFUSED_ID: Final = "refused_id"


@dataclass(frozen=True)
class Reject:
    """What could not be used of one answer, and why (in words that hold no data)."""

    response: int
    kind: str
    reason: str
    session_no: str | None
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Parts:
    """What was read of some answers."""

    items: pa.Table = field(default_factory=ITEMS.empty_table, repr=False)
    receipts: pa.Table = field(default_factory=RECEIPTS.empty_table, repr=False)
    rejects: tuple[Reject, ...] = ()


def joined(parts: list[Parts]) -> Parts:
    """Put readings together, in the order of the answers."""
    return Parts(
        items=_in_order([part.items for part in parts], ITEMS),
        receipts=_in_order([part.receipts for part in parts], RECEIPTS),
        rejects=tuple(
            sorted(
                (reject for part in parts for reject in part.rejects),
                key=lambda reject: reject.response,
            )
        ),
    )


def _in_order(tables: list[pa.Table], schema: pa.Schema) -> pa.Table:
    filled = [table for table in tables if table.num_rows]
    if not filled:
        return schema.empty_table()
    whole = pa.concat_tables(filled)
    if len(filled) > 1:
        whole = whole.sort_by([("response", "ascending"), ("place", "ascending")])
    return whole.combine_chunks()
