"""A power cut takes what was not fsynced: half of the contents, all of the name.

What had landed before is there after, and the command, run again, ends as if undisturbed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytestmark = pytest.mark.long

if TYPE_CHECKING:
    from tests.plug.world import World

SCENARIOS = ("first_run_without_a_key", "later_run", "run_that_purges", "replay", "forget")
NAMING, WRITING = ("replace", "rename", "link"), ("open", "__init__", "write_table", "close")


@pytest.mark.parametrize("name", SCENARIOS)
def test_after_a_power_cut_at_any_fsync_all_is_as_if_undisturbed(
    plug: World, name: str, record_property: Callable[[str, object], None]
) -> None:
    moments = plug.undisturbed(name).moments("left")
    amiss = [one for at in moments for one in plug.cut(name, at=at)]
    record_property("power cuts survived", len(moments))
    print(f"\n{name}: {len(moments)} power cuts survived")
    assert amiss == []
    assert len(moments) > 5


@pytest.mark.parametrize("name", ["first_run", "later_run"])
def test_a_power_cut_after_the_command_has_ended_takes_nothing(plug: World, name: str) -> None:
    assert plug.cut(name, at=len(plug.undisturbed(name).steps)) == []


def test_a_file_that_was_not_fsynced_is_found_out(plug: World) -> None:
    """The proof can fail."""
    last = len(plug.steps("first_run", flaws=["no_fsync"]))
    assert last < len(plug.undisturbed("first_run").steps)
    assert plug.cut("first_run", at=last, flaws=["no_fsync"]) != []


@pytest.mark.parametrize("name", ["first_run_without_a_key", "later_run", "forget"])
def test_every_file_is_fsynced_before_it_has_its_name_and_its_folder_after(
    plug: World, name: str
) -> None:
    assert careless(plug.undisturbed(name).steps) == []


def test_carelessness_is_found_out() -> None:
    """The proof can fail."""

    def after(what: str, *paths: str) -> dict[str, Any]:
        return {"when": "after", "what": what, "paths": paths}

    assert careless([after("replace", "/d/.x", "/d/x")]) == [
        "/d/x has its name, but its contents were not fsynced before",
        "/d/x has its name, but its folder was not fsynced after",
    ]
    assert careless([after("mkdir", "/d/e")]) == [
        "/d/e has its name, but its folder was not fsynced after"
    ]
    assert careless([after("open", "/d/x")]) == ["/d/x was written under its own name"]


def careless(steps: list[dict[str, Any]]) -> list[str]:
    """Name the files that a power cut could take though they count."""
    found: list[str] = []
    synced: set[str] = set()
    waiting: dict[str, list[str]] = defaultdict(list)
    done = [step for step in steps if step["when"] == "after"]
    for what, *paths in ((step["what"], *step["paths"]) for step in done):
        if not paths or "/.locks" in paths[0]:
            continue
        if what == "fsync":
            synced.add(paths[0])
            waiting.pop(paths[0], None)
        elif what in WRITING:
            synced.discard(paths[0])
            if not Path(paths[0]).name.startswith("."):
                found.append(f"{paths[0]} was written under its own name")
        elif what in NAMING:
            if paths[0] not in synced:
                found.append(f"{paths[1]} has its name, but its contents were not fsynced before")
            found += _late(waiting)
            waiting[str(Path(paths[1]).parent)].append(paths[1])
        elif what == "mkdir":
            waiting[str(Path(paths[0]).parent)].append(paths[0])
    return found + _late(waiting)


def _late(waiting: dict[str, list[str]]) -> list[str]:
    return [
        f"{path} has its name, but its folder was not fsynced after"
        for paths in waiting.values()
        for path in paths
    ]
