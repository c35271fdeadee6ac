"""Runs over the days' files, whatever the source's table, the service and the disk do to them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.account import START
from tests.scripted import DAY, NOON, OTHER, PHONE, THIRD, Scripted, receipt
from usms_pipeline.dataset import Window
from usms_pipeline.days import file, log, quarantine
from usms_pipeline.schema import dimension_name

NEXT, BEFORE = DAY + timedelta(days=1), DAY - timedelta(days=1)
MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def account(tmp_path: Path) -> Scripted:
    return Scripted(tmp_path)


# -- a table that changes -------------------------------------------------------------------------

Phones = tuple[str | None, ...]


def test_a_row_that_gets_its_session_number_later_is_one_row(account: Scripted) -> None:
    """Many tables hold a row before the service has accepted it."""
    first = account.row(None, NOON, PHONE)
    account.row(None, NOON, OTHER)
    account.refresh()
    first["session_no"] = "s1"
    account.refresh()
    assert account.shown("session_no", "status") == [("s1", "pending"), (None, "invalid")]
    account.settled()


def test_a_new_session_does_not_take_the_place_of_a_row_without_one(account: Scripted) -> None:
    account.row(None)
    account.refresh()
    account.row("s1")
    account.refresh()
    assert len(account.settled()) == 2


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((PHONE, OTHER), (None, None)),
        ((None, None), (PHONE, OTHER)),
        ((PHONE, OTHER), (None, OTHER)),
    ],
)
@pytest.mark.parametrize("is_heard", [False, True])
def test_a_phone_blanked_or_filled_in_later_makes_no_second_row(
    account: Scripted, before: Phones, after: Phones, is_heard: bool
) -> None:
    """Tables are often anonymised after a while; `usms run --all` reads the old rows again."""
    if is_heard:
        account.says["s1"] = [receipt("UNDELIV", OTHER), receipt("delivered", PHONE)]
    rows = [account.row("s1", NOON, phone) for phone in before]
    account.refresh()
    for row, phone in zip(rows, after, strict=True):
        row["phone"] = phone
    account.refresh()
    book = account.pipeline.book
    outcome = {PHONE: "delivered", OTHER: "failed"} if is_heard else {}
    expected = [(book.recipient_id(one), outcome.get(one, "pending")) for one in (PHONE, OTHER)]
    assert account.shown("recipient", "status") == sorted(expected)
    account.settled()


@pytest.mark.parametrize("columns", [(None, "phone"), ("phone", None)])
def test_the_phone_column_may_come_and_go(account: Scripted, columns: Phones) -> None:
    account.says["s1"] = receipt("delivered", PHONE)
    for name in ("s1", "s2"):
        account.row(name, NOON, PHONE)
    for column in columns:
        account.given["phone_column"] = column
        account.refresh()
    assert account.shown("session_no", "status") == [("s1", "delivered"), ("s2", "pending")]
    account.settled()


def test_a_recipients_column_set_later_counts_for_the_rows_read(account: Scripted) -> None:
    account.row("s1", recipients=3)
    account.refresh()
    account.given["recipients_column"] = "recipients"
    report = account.refresh()
    assert (report.written, report.buckets) == ([DAY], {"pending": 3})
    account.settled()


def test_copies_count_once_and_are_told(account: Scripted) -> None:
    account.says["s1"] = receipt("delivered", PHONE)
    for phone in (PHONE, PHONE, "138-0013-8000"):
        account.row("s1", NOON, phone)
    report = account.refresh()
    assert account.shown("status") == [("delivered",)]
    assert any("repeat a phone" in one for one in report.warnings)
    account.settled()


def test_what_is_gone_from_the_source_is_kept_and_told(account: Scripted) -> None:
    for name in ("s1", "s2", None):
        account.row(name, NOON, PHONE)
    account.refresh()
    del account.table[1:]
    assert any(one.startswith("2 rows") and "counts twice" in one for one in account.refresh().warnings)
    assert len(account.settled()) == 3
    account.table.clear()
    assert any(one.startswith("3 rows") for one in account.refresh().warnings)
    assert len(account.settled()) == 3


@pytest.mark.parametrize("is_odd", [False, True])
def test_dimensions_may_come_change_and_go(account: Scripted, is_odd: bool) -> None:
    """Also for sessions with a state of their own, and rows that the source has no more."""
    for name in ("s1", "gone"):
        for phone in (PHONE, OTHER)[: 1 + is_odd]:
            account.row(name, NOON, phone, template="otp", 用途="验证码")
    account.refresh()
    account.table = [row for row in account.table if row["session_no"] != "gone"]
    for names, shown in (
        ("template,用途", "template, 用途"),
        ("用途", "用途"),
        ("用途,template", "用途, template"),
    ):
        account.given["dimensions"] = names
        account.refresh()
        expected = tuple({"template": "otp", "用途": "验证码"}[one] for one in names.split(","))
        found = account.sql(f"SELECT DISTINCT {shown} FROM receipts WHERE session_no = 's1'")
        assert found == [expected]
        account.settled()
    account.table[0]["template"] = "code"
    account.refresh()
    assert ("s1", "code") in account.shown("session_no", "template")
    account.settled()


@pytest.mark.parametrize(
    "name", ["day", "own", "mask", "ends", "digits", 'quo"te', "it's", "用途", "select", "a b"]
)
def test_a_dimension_may_have_any_name(tmp_path: Path, name: str) -> None:
    account = Scripted(tmp_path, dimensions=f'["{name}"]'.replace('quo"', 'quo\\"'))
    account.row("s1", NOON, PHONE, **{name: "x"})
    account.row("s2", NOON, PHONE, **{name: None})
    account.refresh()
    quoted = dimension_name(name).replace('"', '""')
    assert account.shown("session_no", f'"{quoted}"') == [("s1", "x"), ("s2", None)]
    account.settled()
