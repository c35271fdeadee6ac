"""A hostile world turned at random: the laws hold after every step, whatever the table has."""

from __future__ import annotations

import pytest

from tests.world_machine import EXAMPLES, turn


@pytest.mark.long
def test_the_laws_hold_in_any_world():
    tally = turn()
    assert tally["lives"] >= EXAMPLES, tally
    print(tally)
