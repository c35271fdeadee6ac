"""A hostile world turned at random, with tables that know no phones."""

from __future__ import annotations

import pytest

from tests.world_machine import EXAMPLES, Life, turn


class OneRowASession(Life):
    columns = (("recipients",), ())


@pytest.mark.long
@pytest.mark.no_cover  # it takes half as long again
def test_the_laws_hold_in_any_world_where_no_phone_is_announced() -> None:
    tally = turn(OneRowASession)
    assert tally["lives"] >= EXAMPLES, tally
    print(tally)
