"""A run that asks about numbers which are no session numbers of this account ends with 1."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.account import Account
from tests.examples import examples
from tests.loopback import code, serving
from tests.test_cli import Account as Shop
from tests.test_cli import account as shop
from usms_pipeline.pipeline import Pipeline, Report
from usms_pipeline.settings import Settings

__all__ = ["shop"]

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
Say = Callable[[str], dict[str, Any] | None]


def named(session_no: str, receipt: Any) -> dict[str, Any]:
    return {"SessionNo": session_no, "Status": "success", "Receipt": receipt}


def nothing(session_no: str) -> None:
    return None


def arrived(session_no: str) -> dict[str, Any]:
    return named(session_no, {"Phone": "13800138000", "Status": "delivered"})


def waiting(session_no: str) -> dict[str, Any]:
    return named(session_no, None)


def every_other(session_no: str) -> dict[str, Any] | None:
    """As a service may that names what it does not know: some, with an empty receipt."""
    return waiting(session_no) if int(session_no) % 2 else None


def only(*known: str) -> Say:
    return lambda session_no: arrived(session_no) if session_no in known else None


class Told:
    """An account whose service says of each session what a test has it say."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now, self.rows = folder, NOW, list[tuple[str, datetime]]()

    def sent(self, count: int, **ago: float) -> None:
        at, first = self.now - timedelta(**ago), 1000 + len(self.rows)
        self.rows += [(str(first + n), at) for n in range(count)]

    def run(self, say: Say) -> Report:
        numbers, times = zip(*self.rows, strict=True)
        source = self.folder / "source.parquet"
        pq.write_table(pa.table({"session_no": numbers, "sent_at": times}), source)
        with serving(lambda seen: code(0, Data=[one for i in seen.ids if (one := say(i))])) as it:
            settings = Settings(
                _env_file=None, base_url=it.url, access_key_id="k", access_key_secret="s",
                source_url=str(source), data_dir=str(self.folder / "data"),
            )  # fmt: skip
            return Pipeline(settings, clock=lambda: self.now).run()


@examples(
    6,
    ("sent", "say", "count"),
    [
        ([(100, 2)], nothing, 100),
        ([(150, 1.5), (150, 70)], nothing, 300),
        ([(130, 30), (50, 0.2)], nothing, 130),
        ([(240, 5)], every_other, 240),
        ([(99, 2)], nothing, 0),
        ([(500, 0.5)], nothing, 0),
        ([(500, 80)], nothing, 0),
        ([(60, 0.5), (60, 90)], nothing, 0),
        ([(200, 3)], waiting, 0),
        ([(200, 3)], arrived, 0),
        ([(200, 3)], only("1007"), 0),
    ],
)
def test_a_run_falls_short_where_the_service_knows_none_of_a_hundred_that_it_must_know(
    tmp_path: Path, sent: list[tuple[int, float]], say: Say, count: int
) -> None:
    """``sent``: how many, and how many hours ago."""
    told = Told(tmp_path)
    for many, hours in sent:
        told.sent(many, hours=hours)
    report = told.run(say)
    assert report.fell_short == bool(count)
    if count:
        assert f"none of the {count} sessions aged 1 to 72 hours" in report.unheard
        assert "'session_no'" in report.unheard
        assert "USMS_SESSION_COLUMN" in report.unheard


def test_the_run_keeps_falling_short_until_one_receipt_arrives(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.sent(120, hours=2)
    assert told.run(nothing).unheard
    told.now += timedelta(hours=6)
    assert told.run(nothing).unheard
    told.now += timedelta(hours=6)
    assert not told.run(only("1003")).unheard


def test_messages_that_no_carrier_reports_are_no_sign_however_many_are_asked_again(
    tmp_path: Path,
) -> None:
    told = Told(tmp_path)
    told.sent(400, hours=2)
    known = {str(1000 + one) for one in range(0, 400, 4)}
    assert not told.run(only(*known)).fell_short
    told.now += timedelta(hours=6)
    again = told.run(only(*known))
    assert again.stats.ids_asked == 300
    assert not again.fell_short
    told.sent(110, hours=2)
    assert told.run(nothing).unheard, "of another account, all of a sudden"


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
