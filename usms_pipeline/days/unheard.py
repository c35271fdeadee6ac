"""Whether the service knows any of the sessions that a run asked about, by the days' files.

It answers for numbers of another column, table or account as for those of its own: all is well, and
nothing is said of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from functools import reduce
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.contract.schema import TIME
from usms_pipeline.days import file
from usms_pipeline.store.storage import Store

FEWEST: Final = 100
"""Fewest sessions to judge by. Fewer may by chance be all silent: two in a hundred are, and one in
five where a country's networks are bad."""

YOUNGEST, OLDEST = timedelta(hours=1), timedelta(hours=72)
"""Sessions of this age are known to the service: by then it has the first receipts, and it forgets
after three days."""

_MOST_SHARE: Final = 0.1
"""Where more of those asked about had a receipt, no file is read: of new messages most have one."""

_SAID: Final = ("provider_status", "provider_code", "received_at")
_READ: Final = ["session_no", "status", "sent_at", "first_asked_at", "last_asked_at",
                "submit_status", *_SAID]  # fmt: skip


def count(store: Store, days: Iterable[date], begun: datetime, answered: int, receipts: int) -> int:
    """Count the sessions asked about since ``begun`` where the service knows none of them; else 0.

    ``answered`` sessions and ``receipts``: what the run was told. Sessions are counted that are of
    an age at which they are known, and were asked about for the first time; later ones too as long
    as these days have no receipt at all, because those that are asked again may all be silent. One
    that the service names with an empty receipt is not known, unless it so names all of them.
    """
    if answered < FEWEST or receipts > _MOST_SHARE * answered:
        return 0
    oldest = begun - OLDEST
    first = oldest.date() - timedelta(days=1)
    recent = (day for day in days if day >= first)
    batches = [one for day in recent for one in store.batches(file.name(day), columns=_READ)]
    if not batches:
        return 0
    rows = pa.Table.from_batches(batches).filter(
        (pc.field("sent_at") >= pa.scalar(oldest, TIME))
        & (pc.field("sent_at") <= pa.scalar(begun - YOUNGEST, TIME))
        & (pc.field("status") != "invalid")
    )
    since = pa.scalar(begun, TIME)
    asked = rows.filter(pc.field("last_asked_at") >= since)
    heard = _are_heard(asked)
    is_named = pc.or_(heard, pc.is_valid(asked["submit_status"]))
    if pc.any(heard).as_py() or pc.all(is_named).as_py():
        return 0
    if pc.any(_are_heard(rows)).as_py():
        asked = asked.filter(pc.field("first_asked_at") >= since)
    sessions = pc.count_distinct(asked["session_no"]).as_py()
    return sessions if sessions >= FEWEST else 0


def _are_heard(rows: pa.Table) -> pa.ChunkedArray:
    return reduce(pc.or_, (pc.is_valid(rows[name]) for name in _SAID))
