"""Sessions with several phones beside as many plain ones: decoded, folded and written; no HTTP."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa

from usms_pipeline.contract import schema
from usms_pipeline.days import columns, file, log
from usms_pipeline.days.columns import Fold
from usms_pipeline.days.file import Footer
from usms_pipeline.people.phones import PhoneBook
from usms_pipeline.service import api
from usms_pipeline.service.decode import decode
from usms_pipeline.service.fetch import Answer
from usms_pipeline.store.storage import Store

_SENT = datetime(2026, 1, 5, 12, tzinfo=UTC)
_A_BLOCK = 20_000


def table(outcomes: int, each: int = 10) -> Iterator[str]:
    """Yield the lines of a table: so many outcomes, of sessions with one phone and with several."""
    costs = {phones: _cost(outcomes, phones) for phones in (1, each)}
    yield f"| {outcomes:,} outcomes | CPU µs each |"
    yield "|---|---|"
    yield f"| sessions with one phone | {costs[1]:.1f} |"
    yield f"| sessions with {each} phones | {costs[each]:.1f} |"
    yield f"| ratio | {costs[each] / costs[1]:.2f} |"


def _cost(outcomes: int, phones: int) -> float:
    book = PhoneBook(b"0" * 32, "CN", "masked")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        store = Store(folder)
        book.describe(pa.array([_phone(n) for n in range(20_000)]))  # what a first run learns
        blocks = [_block(begin, min(_A_BLOCK, outcomes - begin), phones)
                  for begin in range(0, outcomes, _A_BLOCK)]  # fmt: skip
        sent = pa.table(
            {
                "session_no": pa.array([_session(n, phones) for n in range(outcomes)]),
                "sent_at": pa.array([_SENT] * outcomes, schema.TIME),
                "recipients": pa.array([1] * outcomes, pa.int32()),
            }
        )
        described = pa.array([_phone(n) for n in range(outcomes)])
        started = time.process_time()
        said = [decode(block, book, "UTC").observations for block in blocks]
        people = book.describe(described)
        for place, one in enumerate(people.type):
            sent = sent.append_column(one.name, people.field(place))
        layout = columns.layout()
        fold = Fold(
            [], sent, pa.concat_tables(said), layout, 72 * 3_600_000_000, ends=book.ends, most=0
        )
        file.write(store, date(2026, 1, 5), fold, layout, lambda: Footer("k"))
        return (time.process_time() - started) * 1e6 / outcomes


def _block(begin: int, count: int, phones: int) -> pa.Table:
    answers = []
    for first in range(begin, begin + count, 100 * phones):
        numbers = range(first, min(first + 100 * phones, begin + count))
        sessions: dict[str, list[dict[str, object]]] = {}
        for n in numbers:
            sessions.setdefault(_session(n, phones), []).append(
                {api.RECEIPT["phone"]: _phone(n), api.RECEIPT["word"]: "delivered",
                 api.RECEIPT["time"]: "2026-01-05 20:00:09", api.RECEIPT["segments"]: 1}
            )  # fmt: skip
        items = [
            {api.ITEM["session_no"]: name, api.ITEM["submit_status"]: "success",
             api.ITEM["receipt"]: its if phones > 1 else its[0]}
            for name, its in sessions.items()
        ]  # fmt: skip
        body = json.dumps({api.ENVELOPE["ret_code"]: 0, api.ENVELOPE["data"]: items}).encode()
        at = _SENT + timedelta(hours=80)
        answers.append(Answer(tuple(sessions), at, 200, 0, "ok", None, body))
    return log.as_table(answers)


def _session(number: int, phones: int) -> str:
    return f"b3f0a1c2-55aa-4e10-9c00-{number // phones:012d}"


def _phone(number: int) -> str:
    return f"861{38 + number % 2}{number % 10**8:08d}"
