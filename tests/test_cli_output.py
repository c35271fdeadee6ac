"""What the command line draws: rates, bars and progress, at the width of a terminal."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.made_receipts import NOW, five_days, publish
from usms_pipeline.cli import progress, rates, run, tables
from usms_pipeline.cli.output import print_table
from usms_pipeline.cli.shell import plain
from usms_pipeline.pipeline import Progress as Step
from usms_pipeline.service.fetch import CollectStats


def cohort(**given: Any) -> dict[str, Any]:
    figures = {
        "messages": 12_345,
        "delivery_rate": 0.9512,
        "expected_rate": 0.9431,
        "expected_rate_low": 0.94,
        "expected_rate_high": 0.946,
        "delivery_rate_if_rest_failed": 0.9201,
        "delivery_rate_if_rest_arrived": 0.9729,
        "latency_p50_seconds": 4.24,
        "awaited": 678,
    }
    return given | {name: figures[name] for name in figures if name not in given} | given


def terminal(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)


def drawn(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def last_lines(console: Console) -> list[str]:
    """Return the lines as a live display leaves them: what it drew after it last cleared one."""
    return drawn(console).split("\x1b[2K")[-1].removesuffix("\x1b[?25h").splitlines()


def lines(rows: list[dict[str, Any]], by: str | list[str] | None, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(tables.rates_table(rows, cohort(), by, width))
    return drawn(console).splitlines()


def test_a_rate_stands_with_its_bounds_and_what_is_awaited() -> None:
    (line,) = [
        line
        for line in lines([cohort(sent_date=date(2026, 11, 3), awaited=42)], "sent_date")
        if "2026-11-03" in line
    ]
    cells = line.split()
    assert cells[:7] == ["2026-11-03", "12,345", "94.3%", "95.1%", "(92.0", "–", "97.3)"]
    assert cells[-3:] == ["4.2", "s", "42"]


def test_what_is_expected_is_left_out_where_nothing_is_open() -> None:
    settled = cohort(country="CN", awaited=0)
    console = Console(file=io.StringIO(), width=80, force_terminal=False)
    console.print(tables.rates_table([settled], settled, "country", 80))
    assert "expected" not in drawn(console)


def test_figures_are_aligned_to_the_right() -> None:
    rows = [cohort(country="CN", messages=5), cohort(country="US", messages=1_234_567)]
    ends = {
        line.index(number) + len(number)
        for line in lines(rows, "country")
        for number in (" 5 ", "1,234,567 ", "12,345 ")
        if number in line
    }
    assert len(ends) == 1


def test_the_table_fits_eighty_columns_whatever_the_names() -> None:
    rows = [cohort(template="[red]" + "very long " * 20, messages=1_234_567), cohort(template=None)]
    for line in lines(rows, "template"):
        assert len(line) <= 80
        assert "…" not in line
    text = "\n".join(lines(rows, "template"))
    assert "[red]very" in text
    assert "not known" in text


def test_all_together_is_the_last_row_and_the_only_one_without_a_column() -> None:
    assert lines([cohort(country="CN")], "country")[-2].lstrip().startswith("all")
    assert sum("12,345" in line for line in lines([], None)) == 1


def test_a_rate_of_nothing_is_a_dash() -> None:
    empty = dict.fromkeys(cohort(), None) | {"messages": 0, "awaited": 0}
    (line,) = [line for line in lines([{"country": "CN"} | empty], "country") if "CN" in line]
    assert line.split() == ["CN", "0", "–", "–", "–", "–"]


@pytest.mark.parametrize(
    ("width", "left_out"),
    [(80, ()), (65, ("100%", "median")), (75, ("100%",)), (48, ("100%", "best", "median"))],
)
def test_in_a_narrow_terminal_figures_are_left_out_and_never_a_name(
    width: int, left_out: tuple[str, ...]
) -> None:
    shown = lines([cohort(sent_date=date(2026, 11, 3))], "sent_date", width)
    assert max(map(len, shown)) <= width
    text = "\n".join(shown)
    for name in ("100%", "best", "median", "sent date", "messages", "expected", "so far", "open"):
        assert (name in text) == (name not in left_out), name
    assert "2026-11-03" in text
    assert "…" not in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_groups_of_several_columns_have_a_column_of_names_each(width: int) -> None:
    rows = [cohort(country=c, template=t) for c in ("CN", "DE") for t in ("otp", None)]
    shown = lines(rows, ["country", "template"], width)
    assert max(map(len, shown)) <= width
    assert [line.split()[:2] for line in shown if "12,345" in line] == [
        ["CN", "otp"], ["CN", "not"], ["DE", "otp"], ["DE", "not"], ["all", "12,345"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (Decimal(48_211), "48211"), (Decimal("170141183460469231731687303715884105727"),
         "170141183460469231731687303715884105727"), (Decimal("0.250"), "0.25"),
        (float("nan"), "null"), (float("-inf"), "null"), (0.5, "0.5"), (True, "true"),
        (timedelta(minutes=2), "120.0"), (time(9, 30), '"09:30:00"'),
        (date(2026, 1, 2), '"2026-01-02"'),
        (UUID(int=7), f'"{UUID(int=7)}"'), ({"a": [Decimal(1), None]}, '{"a": [1, null]}'),
    ],
)  # fmt: skip
def test_what_duckdb_may_give_goes_to_json(value: Any, written: str) -> None:
    assert json.dumps(plain(value)) == written


@pytest.mark.parametrize(
    "sql",
    ["sum(segments)", "avg(segments)", "1::DECIMAL(9, 2)", "'NaN'::DOUBLE", "2::UHUGEINT", "uuid()",
     "INTERVAL 2 DAY", "TIME '09:00'", "[1.5::DECIMAL(4, 1)]", "{'a': 1::HUGEINT}", "MAP {'a': 1}",
     "'x'::BLOB", "now()", "DATE '2026-01-01'", "1::TINYINT", "NULL"],
)  # fmt: skip
def test_a_metric_of_any_type_of_duckdb_can_be_printed_as_json(sql: str) -> None:
    with duckdb.connect() as con:
        con.execute("CREATE TABLE t AS SELECT unnest([1, 2]) AS segments")
        rows = con.sql(f"SELECT {sql} AS metric FROM t").to_arrow_table().to_pylist()
    assert json.loads(json.dumps(plain(rows)))[0].keys() == {"metric"}


def test_bars_begin_so_that_bounds_near_to_each_other_are_seen() -> None:
    near = cohort(
        country="CN", delivery_rate_if_rest_failed=0.922, delivery_rate_if_rest_arrived=0.941
    )
    table = tables.rates_table([near], near, "country", 80)
    assert tables.is_shaded(table)
    assert "90% 100%" in [column.header for column in table.columns]
    sure = near | {"delivery_rate_if_rest_failed": 0.941}
    assert not tables.is_shaded(tables.rates_table([sure], sure, "country", 80))


@pytest.mark.parametrize("awaited", [0, 5])
def test_the_shade_is_explained_where_it_is_drawn(awaited: int) -> None:
    whole = cohort(
        awaited=awaited, delivery_rate_if_rest_failed=0.9, delivery_rate_if_rest_arrived=0.95
    )
    wide, narrow = (tables.rates_table([], whole, None, width) for width in (80, 40))
    assert "90.0% – 95.0% (░) of all" in rates._how_to_read(whole, wide)
    assert "90.0% – 95.0% of all" in rates._how_to_read(whole, narrow)
    sure = whole | {"delivery_rate_if_rest_arrived": 0.9}
    assert "░" not in rates._how_to_read(sure, tables.rates_table([], sure, None, 80))


def test_bounds_that_meet_are_not_written() -> None:
    assert tables.bounds(0.95, 0.95) == ""
    assert tables.bounds(None, None) == ""
    assert tables.bounds(0.9, 0.95) == "(90.0 – 95.0)"


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 40))
def test_a_bar_is_as_wide_as_asked_and_never_longer_for_less(
    a: float, b: float, width: int
) -> None:
    low, high = sorted((a, b))
    bar = tables.bar(low, high, width).plain
    assert len(bar) == width
    assert bar.count("█") <= low * width + 0.1
    assert len(bar.rstrip(" ")) <= high * width + 1


@pytest.mark.parametrize("width", [80, 120])
def test_progress_shows_each_phase_with_counts_pace_and_retries(width: int) -> None:
    console = terminal(width)
    stats = CollectStats(retries=17, pace=43.2, concurrency=8)
    with progress.bar(console) as on_progress:
        on_progress(Step("source", 50_000))
        on_progress(Step("responses", 12_300, 49_731, stats))
        on_progress(Step("receipts", 1, 5))
        on_progress(Step("responses", 49_731, 49_731, stats))
        on_progress(Step("receipts", 5, 5))
        on_progress(Step("warehouse", 0))
    shown = last_lines(console)
    for line, parts in zip(
        shown,
        (
            ("✓ Reading table", "50,000 rows"),
            ("✓ Asking service", "49,731 sessions", "17 retried", "43 req/s × 8"),
            ("✓ Writing days", "5 days"),
            ("✓ Publishing",),
        ),
        strict=True,
    ):
        assert all(part in line for part in parts), line


def test_phases_that_overlap_keep_a_line_each() -> None:
    console = terminal()
    with progress.bar(console) as on_progress:
        on_progress(Step("source", 500))
        for done in range(1, 4):
            on_progress(Step("responses", done * 100, 500, CollectStats()))
            on_progress(Step("receipts", done, 4))
            on_progress(Step("warehouse", 0))
        on_progress(Step("receipts", 3, 3))
    first, *others = last_lines(console)
    assert "500 rows" in first
    asking, writing, publishing = others
    assert "300/500 sessions" in asking
    assert "3 days" in writing
    assert "Publishing" in publishing


def test_a_phase_with_nothing_to_do_has_no_line() -> None:
    console = terminal()
    with progress.bar(console) as on_progress:
        on_progress(Step("source", 0))
        on_progress(Step("receipts", 0, 0))
    [line] = last_lines(console)
    assert "0 rows" in line


def test_a_log_gets_a_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), force_terminal=False)
    now = iter((0.0, 59.0, 60.0, 60.0, 100.0, 130.0, 130.0))
    monkeypatch.setattr("usms_pipeline.cli.progress.time.monotonic", lambda: next(now))
    with progress.bar(console) as on_progress:
        on_progress(Step("responses", 1, 8_051))
        on_progress(
            Step("responses", 3_000, 8_051, CollectStats(retries=41, pace=2, concurrency=1))
        )
        on_progress(Step("receipts", 1, 5))
        on_progress(Step("warehouse", 0))
    first, second = drawn(console).splitlines()
    assert first[8:] == " Asking service · 3,000/8,051 sessions · 41 retried · 2 req/s × 1"
    assert second[8:] == " Publishing"


def test_short_work_is_silent_where_nobody_watches() -> None:
    console = Console(file=io.StringIO(), force_terminal=False)
    with progress.bar(console) as on_progress, progress.steps(console) as say:
        on_progress(Step("responses", 1, 2, CollectStats()))
        say("Making messages", "50,000")
    assert drawn(console) == ""


def test_progress_leaves_the_terminal_in_order_when_the_work_fails() -> None:
    console = terminal()

    def interrupted() -> None:
        with progress.bar(console) as on_progress:
            on_progress(Step("responses", 1, 2, CollectStats()))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    shown = drawn(console)
    assert shown.endswith("\x1b[?25h")
    assert "✓" not in shown


def test_the_present_step_is_shown() -> None:
    console = terminal()
    with progress.steps(console) as say:
        say("usms/receipts", "")
        say("usms/receipts", "50,000 rows [read]")
        say("usms/warehouse", "10 days")
    shown = drawn(console)
    assert "usms/receipts" in shown or "usms/warehouse" in shown


def test_what_is_due_is_told_by_month_where_there_are_many_days() -> None:
    by_day = {date(2026, 1, 1) + timedelta(days=n): 2 for n in range(40)}
    for days, told in ((31, ["2026-01-01", "2026-01-31"]), (40, ["2026-01", "2026-02"])):
        console = Console(file=io.StringIO(), width=80)
        due = dict(list(by_day.items())[:days])
        console.print(run._due_table(SimpleNamespace(due_sessions=due)))
        rows = [line.split() for line in drawn(console).splitlines()[3:] if line.strip()]
        assert [rows[0][0], rows[-1][0]] == told
        assert sum(int(row[1]) for row in rows) == 2 * days


def test_the_rates_say_in_one_line_that_there_are_alerts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = publish(tmp_path, five_days(timedelta(minutes=4)))
    monkeypatch.setenv("USMS_DATA_DIR", settings.data_dir)
    rates.rates()
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith("! 1 alert in the last 72 hours: operator Singtel (SG).")
    rates.rates(first=str(NOW.date()))
    assert "Singtel" not in capsys.readouterr().err, "not of the days that were asked for"
    rates.alerts()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("! Operator Singtel (SG), sent from ")
    assert max(map(len, lines)) <= 80, "a pipe is read in a terminal too"


def test_rows_wider_than_the_terminal_are_printed_side_by_side() -> None:
    """Each in a column: folded, a figure of 22 would be two digits over two lines."""
    names = ["country", *(f"delivery_rate_{n}" for n in range(22))]
    rows = [[country, *(1000 + n for n in range(22))] for country in ("CN", "US", "SG")]
    shown = io.StringIO()
    print_table(names, rows, Console(file=shown, width=80))
    assert re.search(r"country +CN +US", shown.getvalue())
    assert re.search(r"delivery_rate_21 +1021 +1021", shown.getvalue())
    assert max(map(len, shown.getvalue().splitlines())) <= 80


def test_rows_that_fit_are_a_table_and_times_have_no_microseconds() -> None:
    at = datetime(2026, 3, 1, 12, 0, 5, 123456, tzinfo=UTC)
    shown = io.StringIO()
    print_table(["country", "sent_at"], [["CN", at]], Console(file=shown, width=80))
    assert re.search(r"country +sent_at", shown.getvalue())
    assert re.search(r"CN +2026-03-01 12:00:05\+00:00 *\n", shown.getvalue())
