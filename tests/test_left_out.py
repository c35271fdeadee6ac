"""Rows of the source that no figure has: counted, told, and read by the command that is named."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from tests.examples import examples
from tests.scripted import Scripted
from tests.test_source_sent_at import FORMS, Place
from usms_pipeline import source
from usms_pipeline.cli.run import _show_run
from usms_pipeline.source import LeftOut
from usms_pipeline.store.dataset import Window

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
OLD = [datetime(2023, 12, 31, 15, 59, 59, tzinfo=UTC), datetime(2023, 5, 1, 3, tzinfo=UTC)]
GOOD = [datetime(2023, 12, 31, 16, tzinfo=UTC), datetime(2026, 11, 12, 15, tzinfo=UTC),
        datetime(2026, 11, 12, 16, tzinfo=UTC), NOW, NOW + timedelta(minutes=4)]  # fmt: skip
AHEAD = [NOW + timedelta(hours=1), NOW + timedelta(hours=25)]
FAR = [NOW + timedelta(hours=27), NOW + timedelta(days=300)]
TYPES = {
    "postgresql": [("timestamptz", "aware"), ("timestamp", "naive"), ("text", "iso")],
    "mariadb": [("datetime", "naive"), ("bigint", "epoch_ms")],
    "sqlite": [("text", "iso"), ("integer", "epoch_s")],
    "duckdb": [("timestamptz", "aware"), ("timestamp", "naive"), ("bigint", "epoch_s")],
}


@pytest.mark.parametrize(
    ("place", "type_", "form"),
    [(kind, *case) for kind, cases in TYPES.items() for case in cases],
    indirect=["place"],
)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai"])
def test_rows_outside_of_the_figures_are_counted_to_the_second(
    place: Place, type_: str, form: str, zone: str
) -> None:
    """Days, and so the first of them, are those of ``USMS_TIMEZONE``."""
    shift = timedelta(hours=8) if zone != "UTC" and form == "naive" else timedelta(0)
    written = [FORMS[form](at + shift) for at in (*OLD, *GOOD, *AHEAD, *FAR)]
    place.holds(*written, None, type_=type_)
    ours = place.settings(
        start_date=date(2024, 1, 1), timezone="Asia/Shanghai", source_timezone=zone
    )
    seen = source.survey(ours, NOW, since=datetime(2026, 11, 12, 16, tzinfo=UTC))
    assert seen.left_out == LeftOut(
        without_sent_at=1, before_start=2, ahead=4, far_ahead=2, older=2
    )
    near, far = seen.doubts(ours)[1:]
    assert near.startswith("2 rows lie in the future, by a day or less: is USMS_SOURCE_TIMEZONE")
    assert repr(zone) in near
    assert far.startswith(
        "2 rows lie further in the future than any time zone explains, the latest 300 days: planned"
    )


@pytest.mark.parametrize("place", ["postgresql", "mariadb", "sqlite", "duckdb"], indirect=True)
def test_a_day_lies_in_the_future_from_its_midnight_on(place: Place) -> None:
    place.holds("2023-12-31", "2024-01-01", "2026-11-20", "2026-11-21", type_="date")
    ours = place.settings(start_date=date(2024, 1, 1))
    assert source.survey(ours, NOW).left_out == LeftOut(before_start=1, ahead=1)


def account_of(folder: Path, days: dict[int, int]) -> Scripted:
    """Return an account with these numbers of messages, by days ago."""
    account = Scripted(folder, start_date="2026-01-01")
    add(account, days)
    return account


def add(account: Scripted, days: dict[int, int], name: str = "s") -> None:
    for ago, count in days.items():
        for n in range(count):
            at = account.clock.now - timedelta(days=ago, seconds=30 * n + 3600)
            account.row(f"{name}-{ago}-{n}", at, phone=f"+861380013{n:04}")


def late(account: Scripted, window: Window | None = None) -> list[str]:
    account._announce()
    report = account.pipeline.run(window)
    return [said for said in report.warnings if "not been read" in said]


@examples(1, "added", [{9: 3, 20: 4}, {8: 1}, {30: 5}, {60: 2}])
def test_rows_that_came_too_late_are_told_with_the_command_that_reads_them(
    tmp_path: Path, added: dict[int, int]
) -> None:
    """Until it has run; beside them, a newer row is read as ever. ``plan`` says the same."""
    account = account_of(tmp_path, {1: 4, 9: 2, 30: 3})
    assert late(account, account.window) == []
    add(account, added, "late")
    add(account, {2: 1}, "new")
    account.clock.turn(days=1)
    [said] = late(account)
    count = sum(added.values())
    assert said.startswith("1 row of" if count == 1 else f"{count} rows of")
    assert "older than the 7 days that each run reads again (USMS_SOURCE_LOOKBACK_DAYS)" in said
    assert late(account) == [said], "kept, without asking the source again"
    assert [one for one in account.pipeline.plan().warnings if "not been read" in one] == [said]
    named = re.findall(r"--from (\S+) --to (\S+)`", said)[0]
    first, last = (date.fromisoformat(day) for day in named)
    assert late(account, Window(first, last)) == []
    assert late(account) == []
    assert sum(account.run().buckets.values()) == 10 + count


def test_what_was_never_asked_about_is_told_from_the_first_run_on(tmp_path: Path) -> None:
    account = account_of(tmp_path, {1: 4, 20: 3, 40: 2})
    account._announce()
    assert account.pipeline.plan().warnings == [], "nothing was read yet"
    [said] = late(account)
    assert said.startswith("5 rows of 2026-01-21 to 2026-02-10 have not been read")
    assert "set USMS_START_DATE later" in said
    account.given["start_date"] = "2026-02-15"
    assert late(account) == []


def test_rows_that_are_gone_split_forgotten_or_across_midnight_are_not_late(
    tmp_path: Path,
) -> None:
    account = account_of(tmp_path, {1: 4, 9: 2, 20: 4, 30: 3})
    midnight = datetime(2026, 2, 10, 23, 59, 50, tzinfo=UTC)
    for second in (0, 20):
        account.row(
            "across", midnight + timedelta(seconds=second), phone=f"+86138001380{second:02}"
        )
    account.row("many", midnight, phone="13800138100;13800138101;nobody")
    account.run()
    account.pipeline.forget(["+8613800130001"])
    account.table = [row for row in account.table if row["session_no"] != "s-20-0"]
    account.clock.turn(days=1)
    assert late(account) == []


def test_a_run_over_everything_says_how_many_rows_lie_before_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    account = account_of(tmp_path, {1: 4, 70: 3})
    report = account.run()
    assert report.left_out.before_start == 3
    assert report.warnings == [], "many mean it so"
    _show_run(report, account.settings)
    assert "4 rows read, 4 new recipients; 3 rows before USMS_START_DATE (2026-01-01) left out" in (
        " ".join(capsys.readouterr().out.split())
    )
    assert account.pipeline.left_out() == report.left_out
