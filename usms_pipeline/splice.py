"""Sorted rows into a sorted file that streams by: what is replaced goes, what is new comes in.

Nothing here knows what a row means, but for the three columns that give the order.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

ORDER: Final = ("sent_at", "session_no", "recipient")
"""What receipts are sorted by: ascending, NULL last, texts by their bytes."""

_FEW: Final = 200
"""So many pieces of a batch go on as they are; where there are more, copying it costs less."""

Places = npt.NDArray[np.int64]
_Key = tuple[bool, str, str]


def spliced(
    old: Iterable[pa.RecordBatch], sessions: pa.Array, new: pa.Table
) -> Iterator[pa.RecordBatch]:
    """Stream ``old`` without the rows of some sessions, and with ``new`` where each row belongs.

    ``new`` is sorted and has the columns of ``old``. If ``old`` is not sorted no row is lost, but
    the order is.
    """
    new = new.combine_chunks()
    moments, taken = _moments(new), 0
    for batch in old:
        if not batch.num_rows:
            continue
        until = _count_up_to(new, moments, batch, taken)
        gone = np.flatnonzero(pc.is_in(batch["session_no"], sessions))
        yield from _woven(batch, gone, new.slice(taken, until - taken))
        taken = until
    yield from new.slice(taken).to_batches()


def _count_up_to(new: pa.Table, moments: Places, batch: pa.RecordBatch, taken: int) -> int:
    """Count the new rows that belong before the last row of a batch, those taken before too."""
    last = batch.num_rows - 1
    moment = _moments(batch.slice(last))[0]
    low, high = (int(np.searchsorted(moments, moment, side)) for side in ("left", "right"))
    limit = _key(batch, last)
    place = bisect_left(range(low, high), limit, key=lambda row: _key(new, row))
    return max(taken, low + place)


def _woven(batch: pa.RecordBatch, gone: Places, new: pa.Table) -> Iterator[pa.RecordBatch]:
    """Give a batch without some rows and with others, in as few pieces as is cheap."""
    if not len(gone) and not new.num_rows:
        yield batch
        return
    places = np.arange(batch.num_rows + new.num_rows)
    is_kept = np.ones(len(places), np.bool_)
    is_kept[gone] = False
    both = batch
    if new.num_rows:
        both = pa.concat_batches([batch, *new.to_batches()])
        at = _places_in(batch, new)
        places = np.insert(places[: batch.num_rows], at, places[batch.num_rows :])
    places = places[is_kept[places]]
    edges = np.flatnonzero(np.diff(places) != 1) + 1
    if len(edges) > _FEW:
        yield both.take(pa.array(places))
        return
    for run in np.split(places, edges):
        if len(run):
            yield both.slice(run[0], len(run))


def _places_in(batch: pa.RecordBatch, new: pa.Table) -> list[int]:
    """Give for each new row the place in the batch that it comes before."""
    old_moments, moments = _moments(batch), _moments(new)
    lows = np.searchsorted(old_moments, moments, "left").tolist()
    highs = np.searchsorted(old_moments, moments, "right").tolist()
    return [
        low if low == high else _place_among(batch, low, high, _key(new, row))
        for row, (low, high) in enumerate(zip(lows, highs, strict=True))
    ]


def _place_among(batch: pa.RecordBatch, low: int, high: int, key: _Key) -> int:
    """Find the place among rows of the same moment."""
    return low + bisect_left(range(low, high), key, key=lambda row: _key(batch, row))


def _moments(rows: pa.Table | pa.RecordBatch) -> Places:
    moments = rows.column(ORDER[0]).cast(pa.int64())
    return np.asarray(moments, np.int64)


def _key(rows: pa.Table | pa.RecordBatch, row: int) -> _Key:
    session, recipient = (rows.column(name)[row].as_py() for name in ORDER[1:])
    return (session is None, session or "", recipient or "")
