"""A hostile world turned at random, with a table with one row a phone."""

from __future__ import annotations

import pytest

from tests.world_machine import EXAMPLES, Life, turn


class OneRowAPhone(Life):
    columns = (("phone",),)


@pytest.mark.long
@pytest.mark.no_cover  # it takes half as long again
def test_the_laws_hold_in_any_world_where_phones_are_announced() -> None:
    tally = turn(OneRowAPhone)
    assert tally["lives"] >= EXAMPLES, tally
    print(tally)
