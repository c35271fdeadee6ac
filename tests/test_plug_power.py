"""A power cut takes what was not fsynced: half of the contents, all of the name.

What was received before is there after, and the command, run again, ends as if undisturbed.
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.long


SCENARIOS = ("first_run_without_a_key", "later_run", "run_that_purges", "replay", "forget")


@pytest.mark.parametrize("name", SCENARIOS)
def test_after_a_power_cut_at_any_fsync_all_is_as_if_undisturbed(plug, name):
    moments = plug.undisturbed(name).moments("left")
    amiss = [one for at in moments for one in plug.cut(name, at=at)]
    print(f"\n{name}: {len(moments)} power cuts survived")
    assert amiss == []
    assert len(moments) > 5


@pytest.mark.parametrize("name", ["first_run", "later_run"])
def test_a_power_cut_after_the_command_has_ended_takes_nothing(plug, name):
    assert plug.cut(name, at=len(plug.undisturbed(name).steps)) == []


def test_a_file_that_was_not_fsynced_is_found_out(plug):
    """The proof can fail."""
    last = len(plug.steps("first_run", flaws=["no_fsync"]))
    assert last < len(plug.undisturbed("first_run").steps)
    assert plug.cut("first_run", at=last, flaws=["no_fsync"]) != []
