"""A run that asks about numbers which are no session numbers of this account ends with 1."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.account import Account
from tests.examples import examples
from tests.scripted import Scripted, receipt
from tests.test_cli import Account as Shop
from tests.test_cli import account as shop
from usms_pipeline.pipeline import Report

__all__ = ["shop"]

Say = Callable[[str], bool]
"""Whether the service has a receipt of a session; of the others it says nothing."""


def nothing(session_no: str) -> bool:
    return False


def everything(session_no: str) -> bool:
    return True


def only(*known: str) -> Say:
    return lambda session_no: session_no in known


class Told(Scripted):
    """An account whose service says of each session what a test has it say.

    It may name sessions that it does not know, with an empty receipt: those that ``waits`` names.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, poll_every_hours=6)
        self.waits: Say = nothing

    def sent(self, count: int, **ago: float) -> None:
        for _ in range(count):
            self.row(str(1000 + len(self.table)), self.clock.now - timedelta(**ago))

    def told_by(self, say: Say) -> Report:
        names = [row["session_no"] for row in self.table]
        self.says = dict.fromkeys(filter(self.waits, names))
        self.says |= dict.fromkeys(filter(say, names), receipt())
        return self.run()


@examples(
    6,
    ("sent", "say", "waits", "count"),
    [
        ([(100, 2)], nothing, nothing, 100),
        ([(150, 1.5), (150, 70)], nothing, nothing, 300),
        ([(130, 30), (50, 0.2)], nothing, nothing, 130),
        ([(240, 5)], nothing, lambda session_no: int(session_no) % 2 == 1, 240),
        ([(99, 2)], nothing, nothing, 0),
        ([(500, 0.5)], nothing, nothing, 0),
        ([(500, 80)], nothing, nothing, 0),
        ([(60, 0.5), (60, 90)], nothing, nothing, 0),
        ([(200, 3)], nothing, everything, 0),
        ([(200, 3)], everything, nothing, 0),
        ([(200, 3)], only("1007"), nothing, 0),
    ],
)
def test_a_run_falls_short_where_the_service_knows_none_of_a_hundred_that_it_must_know(
    tmp_path: Path, sent: list[tuple[int, float]], say: Say, waits: Say, count: int
) -> None:
    """``sent``: how many, and how many hours ago."""
    told = Told(tmp_path)
    told.waits = waits
    for many, hours in sent:
        told.sent(many, hours=hours)
    report = told.told_by(say)
    assert report.fell_short == bool(count)
    if count:
        assert f"none of the {count} sessions aged 1 to 72 hours" in report.unheard
        assert "'session_no'" in report.unheard
        assert "USMS_SESSION_COLUMN" in report.unheard


def test_the_run_keeps_falling_short_until_one_receipt_arrives(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.sent(120, hours=2)
    assert told.told_by(nothing).unheard
    told.clock.turn(hours=6)
    assert told.told_by(nothing).unheard
    told.clock.turn(hours=6)
    assert not told.told_by(only("1003")).unheard


def test_messages_that_no_carrier_reports_are_no_sign_however_many_are_asked_again(
    tmp_path: Path,
) -> None:
    told = Told(tmp_path)
    told.sent(400, hours=2)
    known = {str(1000 + one) for one in range(0, 400, 4)}
    assert not told.told_by(only(*known)).fell_short
    told.clock.turn(hours=6)
    again = told.told_by(only(*known))
    assert again.stats.ids_asked == 300
    assert not again.fell_short
    told.sent(110, hours=2)
    assert told.told_by(nothing).unheard, "of another account, all of a sudden"


def test_usms_run_ends_with_1_and_names_the_column(shop: Shop) -> None:
    with closing(sqlite3.connect("shop.sqlite")) as con, con:
        con.execute("CREATE VIEW other AS SELECT rowid AS id, * FROM sms_log")
    wrong = {"session_column": "id", "source_table": "other"}
    result = shop("run", "--all", **wrong)
    assert result.exit_code == 1
    said = " ".join(result.stderr.split())
    assert "The service knows none of the" in said
    assert "are the values of 'id' the session numbers" in said
    assert "Traceback" not in result.output


def test_the_simulated_world_is_never_taken_for_a_wrong_account(
    tmp_path: Path, simulator: Any
) -> None:
    account = Account(tmp_path, simulator, 400)
    account.run_to_the_end()
    assert not account.run().unheard
