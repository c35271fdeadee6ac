"""The contract: every folder's fields, with type, unit and meaning, in one place.

Arrow schemas, DuckDB tables, Dagster's column metadata, the checks and the page
``docs/reference/columns.md`` all come from here. To add a column to the published table, add a
``Field`` to ``RECEIPTS``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from usms_pipeline.contract.metrics import METRICS
from usms_pipeline.contract.status import BUCKETS

VERSION: Final = 5
"""Version of the dataset's layout; in every file's metadata. Any other is refused.

Nothing older was released, so there is nothing to read it with."""

MOST_CHARACTERS: Final = 1_000
"""Characters kept of a text that the service sends; the raw answer has all of it."""

TIME: Final = pa.timestamp("us", tz="UTC")
TEXT: Final = pa.string()


@dataclass(frozen=True)
class Field:
    """One column: its name, Arrow type, unit (empty where there is none) and meaning."""

    name: str
    type: pa.DataType
    description: str
    unit: str = ""


_HASH: Final = (
    "keyed hash (HMAC-SHA-256, its first 32 hex digits: 128 bits) of the phone number in E.164 "
    "form; `unheard-<n>` is a placeholder until the number is known"
)
_RANGE: Final = (
    "operator to which the number range was originally assigned (porting is not reflected)"
)
_BEFORE_DIMENSIONS = (
    Field("session_no", TEXT, "session number of the accepted send call"),
    Field("recipient", TEXT, _HASH),
    Field("phone", TEXT, "phone number, the middle masked unless the setting `phones` is `clear`"),
    Field("country", TEXT, "country of the number (ISO 3166-1 alpha-2)"),
    Field("operator", TEXT, _RANGE),
    Field("number_type", TEXT, "kind of line: mobile, fixed_line, voip, …"),
    Field("sent_at", TIME, "when the message was sent, from your table", "UTC"),
)

_AFTER_DIMENSIONS = (
    Field("status", TEXT, "the recipient's status: " + ", ".join(BUCKETS)),
    Field("is_final", pa.bool_(), "the final status was received"),
    Field("is_closed", pa.bool_(), "no final status, and polling has stopped"),
    Field("provider_status", TEXT, "the service's own status word, as received"),
    Field("provider_code", TEXT, "the service's or carrier's code, as received"),
    Field("provider_desc", TEXT, "the service's description of the code"),
    Field("submit_status", TEXT, "the service's word on the submission, not on delivery"),
    Field("received_at", TIME, "when the carrier reported the final status", "UTC"),
    Field("delivery_seconds", pa.float64(), "received_at − sent_at of a delivered message", "s"),
    Field("segments", pa.int32(), "billed parts of the message, where the service says so"),
    Field("first_asked_at", TIME, "first answered query about the session", "UTC"),
    Field("last_asked_at", TIME, "latest answered query about the session", "UTC"),
    Field("last_open_at", TIME, "latest query about the session that left something open", "UTC"),
    Field("final_at", TIME, "query that brought the final status", "UTC"),
    Field("conflicts", pa.list_(TEXT), "other final statuses the service reported later, sorted"),
    Field(
        "is_announced",
        pa.bool_(),
        "the recipient is in your table; false for other phones in receipts",
    ),
)

SENT_DATE: Final = Field(
    "sent_date",
    pa.date32(),
    "partition: local day of `sent_at`; a session across midnight stays whole",
    "day",
)

OBSERVATIONS: Final = pa.schema(
    [
        ("session_no", TEXT),
        ("number", TEXT),  # recipient hash; '' where no phone is named, or there was no receipt
        ("phone", TEXT),
        ("country", TEXT),
        ("operator", TEXT),
        ("number_type", TEXT),
        ("asked_at", TIME),
        ("received_at", TIME),
        ("code", TEXT),
        ("word", TEXT),
        ("status", TEXT),
        ("description", TEXT),
        ("submit_status", TEXT),
        ("segments", pa.int32()),
        ("is_final", pa.bool_()),  # a final status; null where nothing was said
        ("session_submit_status", TEXT),
        ("digits", TEXT),  # E.164 without '+', or the digits of no known number; else null
    ]
)
"""What one response said of one (session, number).

``digits`` are for memory alone: from them a number's ends are hashed, where a session needs them
to tell whose it is. They are never written to disk.

A row with ``status`` NULL says nothing of its session but when it was asked about: the answer
could not be read. All else is NULL then, and ``number`` ``''``. It is no answer, so that the
session can neither be closed by it nor be due again at once.
"""

RESPONSE_FIELDS: Final = (
    Field("asked_at", TIME, "just before the request", "UTC"),
    Field("ids", pa.list_(TEXT), "session numbers asked about"),
    Field("http_status", pa.int32(), "HTTP status, if there was an answer"),
    Field("ret_code", pa.int64(), "the service's return code, if the body could be read"),
    Field("verdict", TEXT, "ok, refused, unanswered, unreadable or forgotten"),
    Field("reason", TEXT, "why the verdict is not ok, in words"),
    Field("body", pa.binary(), "what the service answered, as received; holds phone numbers"),
)
RESPONSES: Final = pa.schema([(field.name, field.type) for field in RESPONSE_FIELDS])
"""One HTTP answer, whole. 'refused' and 'unanswered' are about a lone id, 'unanswered' while
others were answered. 'unreadable' does not count as asked.

'forgotten': the body named somebody who is forgotten, and was emptied; that its ids were asked
about and answered is all that is left of it.
"""

QUARANTINE: Final = pa.schema(
    [
        ("id", TEXT),  # 16 hex digits of a hash of what follows: repeating makes no second entry
        ("kind", TEXT),  # one of ``days.quarantine.KINDS``
        ("reason", TEXT),
        ("session_no", TEXT),  # null when a whole answer is unreadable
        ("ids", pa.list_(TEXT)),  # what was asked
        ("asked_at", TIME),
        ("http_status", pa.int32()),
        ("body", pa.binary()),  # the bad item's JSON, or the unreadable answer: its first 64 KiB
        ("state", TEXT),  # 'open', 'replayed' or 'dismissed'
    ]
)
"""What could not be used, with its reason; replayable."""


def receipts_fields(dimensions: Iterable[str] = ()) -> list[Field]:
    """Return the fields of the published table, in order, without ``sent_date`` (in the path)."""
    carried = [
        Field(dimension_name(name), TEXT, f"`{name}` of your table, as text") for name in dimensions
    ]
    return [*_BEFORE_DIMENSIONS, *carried, *_AFTER_DIMENSIONS]


def receipts_schema(dimensions: Iterable[str] = ()) -> pa.Schema:
    """Return the Arrow schema of a ``receipts.parquet``; each field carries its description."""
    fields = receipts_fields(dimensions)
    return pa.schema(
        [pa.field(one.name, one.type, metadata={"description": one.description}) for one in fields]
    )


def dimensions_among(names: Iterable[str]) -> list[str]:
    """Return the columns that came from the customer's table to group by, in their order."""
    ours = {field.name for field in receipts_fields()} | {SENT_DATE.name}
    return [name for name in names if name not in ours]


def dimension_name(column: str) -> str:
    """Return a source column's name in the dataset: ``source_<name>`` where one of ours has it.

    Ours are also those that the warehouse's own SQL uses, ``usms_…`` among them.
    """
    name = column.casefold()
    is_taken = name in _TAKEN or name in _USED_IN_SQL or name.startswith("usms_")
    return f"source_{column}" if is_taken else column


_USED_IN_SQL = ("everything", "figures", "r")
_TAKEN = frozenset(
    [field.name for field in (*_BEFORE_DIMENSIONS, *_AFTER_DIMENSIONS, SENT_DATE)]
    + [metric.name for metric in METRICS]
    + ["recipients", "digits", "mask", "ends"]
    + ["_own", "_state"]  # what a day's file has beside the published columns
)


def as_one_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column in one piece."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
