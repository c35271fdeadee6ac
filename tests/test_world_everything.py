"""A hostile world turned at random, with phones and counts in one table."""

from __future__ import annotations

import pytest

from tests.world_machine import EXAMPLES, Life, turn


class PhonesAndCounts(Life):
    columns = (("phone", "recipients"),)


@pytest.mark.long
@pytest.mark.no_cover  # it takes half as long again
def test_the_laws_hold_in_any_world_where_rows_have_phones_and_counts() -> None:
    tally = turn(PhonesAndCounts)
    assert tally["lives"] >= EXAMPLES, tally
    print(tally)
