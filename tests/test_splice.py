"""Sorted rows into sorted rows: the same as putting all together and sorting them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from usms_pipeline import schema, splice
from usms_pipeline.splice import spliced

LAYOUT = pa.schema(
    [("sent_at", schema.TIME), ("session_no", pa.string()), ("recipient", pa.string())]
)
KEYS = st.tuples(
    st.integers(0, 6), st.none() | st.sampled_from(["a", "b", "é", "z"]), st.sampled_from("xyz")
)


def rank(key: tuple[int, str | None, str]) -> Any:
    """The order of receipts: NULL last, texts by their bytes."""
    moment, session, recipient = key
    return (moment, session is None, (session or "").encode(), recipient.encode())


def table(keys: list[tuple[int, str | None, str]]) -> pa.Table:
    columns = list(zip(*keys, strict=True)) or [(), (), ()]
    return pa.table([pa.array(c, t) for c, t in zip(columns, LAYOUT.types, strict=True)], LAYOUT)


@given(
    st.lists(KEYS, max_size=40),
    st.lists(KEYS, max_size=20),
    st.lists(st.none() | st.sampled_from(["a", "b", "é"]), max_size=3),
    st.integers(1, 12),
    st.sampled_from([0, 2, 200]),
)
def test_the_rows_are_those_of_both_in_order(
    old: list[Any], new: list[Any], sessions: list[str | None], batch: int, few: int
) -> None:
    old, new = sorted(old, key=rank), sorted(new, key=rank)
    before, splice._FEW = splice._FEW, few  # type: ignore[misc]
    try:
        parts = spliced(table(old).to_batches(batch), pa.array(sessions, pa.string()), table(new))
        woven = pa.Table.from_batches(parts, LAYOUT)
    finally:
        splice._FEW = before  # type: ignore[misc]
    kept = [key for key in old if key[1] not in sessions]
    assert woven.equals(table(sorted([*kept, *new], key=rank)))


def test_batches_that_nothing_touches_are_handed_on_as_they_are() -> None:
    batches = table([(n, "b" if n == 2 else "a", "x") for n in range(6)]).to_batches(2)
    parts = list(spliced(batches, pa.array(["b"]), table([(9, "b", "y")])))
    assert parts[0] is batches[0]
    assert parts[2] is batches[2]
    assert parts[1].num_rows == 1
