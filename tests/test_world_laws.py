"""The hostile world's laws can fail: each of these lies is found out."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest

from tests.world_machine import Life
from tests.world_service import Script


class Drawn:
    """What hypothesis would draw: a table with phones."""

    def draw(self, _: object, label: str) -> tuple[str, ...]:
        return ("phone",)


@pytest.fixture
def life() -> Iterator[Life]:
    """Give a life in which a group of two was heard of, and one session is refused."""
    lived = Life()
    lived.begin(
        data=Drawn(),
        first=[("alpha", [(0, 1, 0), (1, 1, 0)], 90), ("bravo", [(2, 1, 0)], 90)],
        told=[("alpha", "array", [(0, "delivered", 5), (1, "UNDELIV", 5)])],
        wrong=[("poison", "bravo")],
    )
    lived._run(Script())
    yield lived
    lived.account.remove()


def written_anew(life: Life, zone: str, change: object) -> None:
    store = life.account.connect()[0].store
    [name] = store.names(zone)
    rows = change(store.read(name))  # type: ignore[operator]
    store.write(name, rows, store.metadata(name))


def test_nothing_is_found_where_nothing_is_amiss(life: Life) -> None:
    life.laws.look()
    life.laws.published()


def test_a_lost_row_is_found(life: Life) -> None:
    written_anew(life, "receipts", lambda rows: rows.slice(1))
    with pytest.raises(AssertionError):
        life.laws.look()


def test_a_failure_without_evidence_is_found(life: Life) -> None:
    def failed(rows: pa.Table) -> pa.Table:
        place = rows.schema.get_field_index("status")
        return rows.set_column(place, rows.schema.field(place), pa.array(["failed"] * len(rows)))

    written_anew(life, "receipts", failed)
    with pytest.raises(AssertionError):
        life.laws.look()


def test_an_answer_that_is_gone_is_found(life: Life) -> None:
    store = life.account.connect()[0].store
    store.delete(store.names("responses")[0])
    with pytest.raises(AssertionError, match="is gone"):
        life.laws.look()


def test_an_entry_closed_too_soon_is_found(life: Life) -> None:
    def replayed(rows: pa.Table) -> pa.Table:
        place = rows.schema.get_field_index("state")
        return rows.set_column(place, rows.schema.field(place), pa.array(["replayed"] * len(rows)))

    written_anew(life, "quarantine", replayed)
    with pytest.raises(AssertionError):
        life.laws.look()
