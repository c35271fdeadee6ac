"""What ``usms check`` says of what is stored: buckets, quarantine, who may read it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.account import START, Account
from tests.examples import examples
from tests.scripted import NOON, PHONE, Scripted, receipt
from tests.services import Database
from usms_pipeline import settings
from usms_pipeline.cli import check, sample
from usms_pipeline.contract.errors import UsmsError
from usms_pipeline.days import log, quarantine
from usms_pipeline.simulator import Faults


def of_the_source(account: Account) -> list[check.Finding]:
    return list(check._guarded("source", check._source, account.settings))


def said_of(findings: list[check.Finding], topic: str) -> list[tuple[str, str]]:
    return [(one.state, one.text) for one in findings if one.topic == topic]


def read_as(tmp_path: Path, simulator: Any, rows: list[tuple[Any, ...]], **given: Any) -> Any:
    """Return what is said of rows of (session, phone); all but the phone column is named."""
    sessions, phones = zip(*rows, strict=True)
    times = [START - timedelta(minutes=5 * n) for n, _ in enumerate(rows)]
    if given.pop("at_once", False):
        times = [START] * len(rows)
    account = Account(tmp_path, simulator, 1, **given)
    text = pa.array(sessions, pa.string()), pa.array(phones, pa.string())
    account.announce(pa.table({"session_no": text[0], "phone": text[1], "sent_at": times}))
    return of_the_source(account)


def test_ten_rows_are_shown_as_the_pipeline_reads_them(tmp_path: Path, simulator: Any) -> None:
    rows = [(f" s{n} ", f"0044 7400 12{n:04}") for n in range(30)]
    [shown] = [one.rows for one in read_as(tmp_path, simulator, rows) if one.rows]
    assert len(shown) == 10
    assert shown[-1] == {
        "session_no": "s0", "phone": "+44740****00", "country": "GB", "sent_at": START
    }  # fmt: skip
    assert shown[0]["session_no"] == "s29"


@pytest.mark.parametrize(
    ("sessions", "said"),
    [
        (["a", "b", "c"], ["3 rows of 3 sessions, a row each"]),
        (["a", "a", "b", "b", "c"], ["5 rows of 3 sessions, 2 of them in several rows"]),
        (["a", None, " "], ["3 rows of 1 session, a row each",
                            "2 rows without a usable session number in 'session_no': they count "
                            "as invalid"]),
    ],
)  # fmt: skip
def test_it_is_told_how_rows_fall_into_sessions(
    tmp_path: Path, simulator: Any, sessions: list[str | None], said: list[str]
) -> None:
    rows = [(one, f"13800{n:06}") for n, one in enumerate(sessions)]
    found = said_of(read_as(tmp_path, simulator, rows), "rows")
    assert [text for _, text in found] == said


def test_rows_that_repeat_a_phone_and_rows_without_a_phone_are_counted_apart(
    tmp_path: Path, simulator: Any
) -> None:
    rows = [("a", "13800138000"), ("a", "+86 138 0013 8000"), ("a", "(86)13800138000"),
            ("b", "13800138000"), ("b", "138****8000"), ("b", "138****8000"),
            ("c", None), ("c", None), ("c", ""), ("d", None)]  # fmt: skip
    found = said_of(read_as(tmp_path, simulator, rows, at_once=True), "rows")
    assert [text for state, text in found if state == "warning"] == [
        "3 rows repeat a phone of the same session: each phone counts once",
        "2 rows without a phone equal another in all that is read, and each counts as a message. "
        "If they are copies, read the table without them, by SELECT DISTINCT",
    ]


def with_rows(kind: str, folder: Path, request: pytest.FixtureRequest, *statements: str) -> str:
    """Return the URL of a database with a table ``sms_log`` of 5,000 rows, and what else."""
    made = "CREATE TABLE sms_log (session_no varchar(9), sent_at varchar(30))"
    rows = ", ".join(
        f"('{n}', '2026-01-{1 + n // 200:02} {n % 24:02}:00:{n % 60:02}')" for n in range(5_000)
    )
    all_of_it = (made, f"INSERT INTO sms_log VALUES {rows}", *statements)
    if kind == "sqlite":
        with closing(sqlite3.connect(folder / "shop.db")) as con, con:
            for statement in all_of_it:
                con.execute(statement)
        return f"sqlite:///{folder}/shop.db"
    database: Database = request.getfixturevalue(kind)
    database.execute(*all_of_it)
    return database.url


INDEX = "CREATE INDEX by_time ON sms_log (sent_at)"
VIEW = "CREATE VIEW v AS SELECT {} FROM sms_log"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb"])
@pytest.mark.parametrize(
    ("statements", "table", "is_told"),
    [
        ([INDEX], "sms_log", False),
        ([INDEX, VIEW.format("session_no, sent_at")], "v", False),
        ([], "sms_log", True),
        ([INDEX, VIEW.format("session_no, concat(sent_at, '') AS sent_at")], "v", True),
        ([INDEX, VIEW.format("session_no, max(sent_at) AS sent_at") + " GROUP BY session_no"],
         "v", True),
    ],
)  # fmt: skip
def test_a_large_table_that_no_index_serves_is_told_of(
    kind: str, statements: list[str], table: str, is_told: bool, tmp_path: Path,
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if kind == "sqlite":  # whose concat is young
        statements = [one.replace("concat(sent_at, '')", "sent_at || ''") for one in statements]
    url = with_rows(kind, tmp_path, request, *statements)
    ours = settings.load(source_url=url, source_table=table)
    for many, is_many in ((5_001, False), (5_000, True)):
        monkeypatch.setattr(check, "_MANY_ROWS", many)
        told = [one.text for one in check._guarded("source", check._source, ours)]
        assert any("no index on sent_at is used, so each run scans all 5,000" in one
                   for one in told) == (is_told and is_many)  # fmt: skip


@pytest.mark.parametrize(
    ("sessions", "phones", "rows", "cells"),
    [
        ("aab", ["13800138000,13900139000", "13600136000", "13500135000"],
         "3 rows with 4 recipients of 2 sessions, 1 of them of several recipients",
         "4 of 4 are phone numbers (CN 100%); 1 cell holds several, 2 in all"),
        ("ab ", ["13800138000;13900139000", "13600136000;13500135000;13700137000", "1380013800/x"],
         "3 rows with 6 recipients of 2 sessions, 2 of them of several recipients",
         "; 2 cells hold several, 5 in all"),
        ("abc", ["13800138000", "13900139000", "13600136000"],
         "3 rows of 3 sessions, a row each", "3 of 3 are phone numbers (CN 100%)"),
    ],
)  # fmt: skip
def test_recipients_are_not_called_rows_where_a_cell_holds_several(
    tmp_path: Path, simulator: Any, sessions: str, phones: list[str], rows: str, cells: str
) -> None:
    found = read_as(tmp_path, simulator, [*zip(sessions, phones, strict=True)])
    assert said_of(found, "rows")[0] == ("ok", rows)
    assert said_of(found, "phones")[0][1].endswith(cells)


@pytest.mark.parametrize(
    ("hours", "zone", "is_told"),
    [((0, 0, 0, 0), "UTC", True), ((16, 16, 16, 16), "Asia/Shanghai", True),
     ((0, 0, 0, 9), "UTC", False), ((0, 0, 0, 0), "Asia/Shanghai", False)],
)  # fmt: skip
def test_days_without_a_time_of_day_are_told(
    tmp_path: Path, simulator: Any, hours: tuple[int, ...], zone: str, is_told: bool
) -> None:
    account = Account(tmp_path, simulator, 1, source_timezone=zone, phone_column=None)
    times = [START.replace(hour=hour, minute=0, day=n + 1) for n, hour in enumerate(hours)]
    account.announce(pa.table({"session_no": [*"abcd"], "sent_at": times}))
    said = [text for _, text in said_of(of_the_source(account), "rows")]
    assert any("are midnight, so it most likely holds days" in one for one in said) == is_told


@pytest.mark.parametrize(
    ("phones", "state", "said"),
    [
        (["13800138000", "0065 9123 4567", "(65)91234568"], "ok",
             "3 of 3 are phone numbers (SG 66.7%, CN 33.3%)"),
        (["spring", "otp", "otp", "13800138000"], "ok",
             "1 of 4 are phone numbers (CN 100%), 3 no number"),
        (["13800138000", "138****8000", "185XXX9057", None], "ok",
         "1 of 4 are phone numbers (CN 100%), 2 masked, 1 empty"),
        (["138#####000", "1380013*"], "ok", "0 of 2 are phone numbers, 2 masked"),
        (["+15551234567", "+15551234568", "13800138000"], "ok",
         "1 of 3 are phone numbers (CN 100%), 2 valid nowhere"),
    ],
)  # fmt: skip
def test_it_is_told_how_many_phones_can_be_read(
    tmp_path: Path, simulator: Any, phones: list[str | None], state: str, said: str
) -> None:
    rows = [(str(n), one) for n, one in enumerate(phones)]
    found = said_of(read_as(tmp_path, simulator, rows), "phones")
    assert found[0] == (state, said)
    masks = sum("*" in (one or "") or "X" in (one or "") or "#" in (one or "") for one in phones)
    told = [text for _, text in found[1:]]
    assert any(f"{masks} phones in 'phone' hide digits" in text for text in told) == bool(masks)
    assert any("USMS_DEFAULT_REGION" in text for text in told) == ("nowhere" in said)
    assert any("are not phone numbers" in text for text in told) == ("3 no number" in said)


def test_without_a_column_of_phones_it_is_advised_only_where_it_would_help(
    tmp_path: Path, simulator: Any
) -> None:
    one_each = read_as(tmp_path, simulator, [("a", None), ("b", None)], phone_column=None)
    assert {one.state for one in one_each} == {"ok"}
    [warned] = [
        one.text
        for one in read_as(tmp_path, simulator, [("a", None), ("a", None)], phone_column=None)
        if one.state == "warning"
    ]
    assert "name it in USMS_PHONE_COLUMN" in warned


def test_a_large_table_is_looked_at_in_its_latest_rows(
    tmp_path: Path, simulator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "MOST_ROWS", 500)
    monkeypatch.setattr(sample, "_ENOUGH", 20)
    rows = [(str(n), "13800138000") for n in range(2_000)]
    found = said_of(read_as(tmp_path, simulator, rows), "rows")
    assert found[0] == ("ok", "the latest 37 rows of 37 sessions, a row each"), "of three hours"


@examples(
    3, ("copies", "silent", "told"), [(12, 0, 12), (1, 0, 1), (0, 3, 0), (5, 1, 6), (0, 0, 0)]
)
def test_rows_that_the_service_knows_nothing_of_are_likely_copies(
    tmp_path: Path, copies: int, silent: int, told: int
) -> None:
    """``silent`` of a session of forty without a phone have no receipt; the ``copies`` never do."""
    account = Scripted(tmp_path)
    for n in range(20):
        times = 2 if n < copies else 1
        for _ in range(times):
            account.row(f"s{n}", NOON)
        account.says[f"s{n}"] = [receipt(phone=f"+861380013{n:04}")]
    if not copies or silent > 1:
        for _ in range(40):
            account.row("many", NOON)
        account.says["many"] = [receipt(phone=f"+861381013{n:04}") for n in range(40 - silent)]
    elif silent:
        account.row("pair", NOON)
        account.row("pair", NOON)
        account.says["pair"] = [receipt(phone=PHONE)]
    ran = [one for one in account.run().warnings if "most likely copies" in one]
    said = [text for state, text in check._warehouse(account.settings) if state == "warning"]
    assert bool(said) == bool(ran) == bool(told)
    if told:
        counted = "1 message" if told == 1 else f"{told} messages"
        assert said[0].startswith(f"{counted} without a phone and without a receipt")
        assert "SELECT DISTINCT" in said[0]
        assert ran[0].startswith(f"{counted} without a phone and without a receipt")


def test_check_counts_every_recipient_and_those_that_wait(tmp_path: Path, simulator: Any) -> None:
    account = Account(tmp_path, simulator, 60)
    account.run()
    [(state, said)] = check._dataset(account.settings)
    [(announced,)] = account.sql("SELECT count(*) FROM receipts WHERE is_announced")
    [(waiting,)] = account.sql("SELECT count(*) FROM receipts WHERE NOT is_final AND NOT is_closed")
    assert (state, said) == (
        "ok", f"{announced} recipients, all accounted for; {waiting} waiting for a receipt"
    )  # fmt: skip


def test_check_tells_of_responses_that_a_killed_run_left(tmp_path: Path, simulator: Any) -> None:
    account = Account(tmp_path, simulator, 60)
    writer = log.Log(account.pipeline.store, account.clock)
    with writer.held([]):
        writer.add([])
    _, (state, said) = check._dataset(account.settings)
    assert state == "warning"
    assert said.startswith("responses of 1 run are not in the figures yet: the next `usms run`")
    account.run()
    assert [state for state, _ in check._dataset(account.settings)] == ["ok"]


def test_check_tells_how_many_entries_wait_in_quarantine(tmp_path: Path, simulator: Any) -> None:
    account = Account(tmp_path, simulator, 100, options={"faults": Faults(bad_items=0.5)})
    assert [state for state, _ in check._quarantine(account.settings)] == ["ok"]
    account.run()
    [(state, said)] = check._quarantine(account.settings)
    waiting = len(quarantine.entries(account.pipeline.store))
    assert state == "warning"
    assert said.startswith(f"{waiting} entr")
    assert "`usms quarantine list`" in said
    account.pipeline.dismiss()
    assert [state for state, _ in check._quarantine(account.settings)] == ["ok"]


def test_a_dotenv_that_is_no_text_is_a_problem_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_bytes(b"USMS_DATA_DIR=\xff\xfe\n")
    [finding] = check._findings()
    assert (finding.topic, finding.exit_code) == ("settings", 2)
    assert ".env: is not a text file" in finding.text


def test_session_numbers_that_are_phone_numbers_are_told_of(tmp_path: Path, simulator: Any) -> None:
    """They go to the service, and stand in what is published."""
    account = Account(tmp_path, simulator, 60)
    assert not any("phone numbers" in said for said in account.run().warnings)
    assert {one.state for one in of_the_source(account)} == {"ok"}
    account.given |= {"session_column": "phone", "phone_column": None}
    account.given["data_dir"] = str(tmp_path / "other")
    with pytest.raises(UsmsError, match="Nothing was asked: the values of 'phone'"):
        account.run()
    assert not (tmp_path / "other/layout.json").exists()
    found = of_the_source(account)
    [warned] = [one for one in found if "look like phone numbers" in one.text]
    assert (warned.topic, warned.state, warned.exit_code) == ("rows", "problem", 1)
    shown = [row["session_no"] for one in found for row in one.rows]
    assert len(shown) == 10
    assert all("****" in one for one in shown)
