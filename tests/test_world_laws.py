"""The hostile world's laws can fail: each of these lies is found out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

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


def written_anew(life: Life, zone: str, change: Callable[[pa.Table], pa.Table]) -> None:
    store = life.account.connect()[0].store
    [name] = store.names(zone)
    store.write(name, change(store.read(name)), store.metadata(name))


def saying(column: str, value: str) -> Callable[[pa.Table], pa.Table]:
    return lambda rows: rows.set_column(
        rows.schema.get_field_index(column),
        rows.schema.field(column),
        pa.array([value] * len(rows)),
    )


def test_nothing_is_found_where_nothing_is_amiss(life):
    life.laws.look()
    life.laws.published()


LIES = {
    "a lost row": ("receipts", lambda rows: rows.slice(1)),
    "a failure without evidence": ("receipts", saying("status", "failed")),
    "an entry closed too soon": ("quarantine", saying("state", "replayed")),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_found(life, lie):
    written_anew(life, *LIES[lie])
    with pytest.raises(AssertionError):
        life.laws.look()


def test_an_answer_that_is_gone_is_found(life):
    store = life.account.connect()[0].store
    store.delete(store.names("responses")[0])
    with pytest.raises(AssertionError, match="is gone"):
        life.laws.look()
