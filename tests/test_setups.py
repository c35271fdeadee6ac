"""The first hour: set-ups that are wrong in one thing, and what ``usms check`` says of each."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from tests.examples import examples
from tests.loopback import Response, Seen, code, serving
from tests.test_cli import Account
from usms_pipeline.cli import check

SECRET = "s3cret-of-the-shop"


@dataclass
class Shop(Account):
    """A shop of 240 messages in the last two days, and a service that knows these alone."""

    asked: list[str] = field(default_factory=list)

    def make(self) -> None:
        now = datetime.now(UTC).replace(microsecond=0)
        with closing(sqlite3.connect(self.folder / "shop.sqlite")) as con, con:
            con.execute(
                "CREATE TABLE sms_log (id INTEGER PRIMARY KEY, campaign TEXT, session_no TEXT, "
                "phone TEXT, sent_at TEXT, updated_at TEXT, local_at TEXT)"
            )
            for n in range(240):
                at = now - timedelta(minutes=12 * n + 2)
                local = f"{at + timedelta(hours=8):%Y-%m-%d %H:%M:%S}"
                row = ("spring", f"s-{n}", f"1380013{n:04}", f"{at:%Y-%m-%d %H:%M:%S}", None, local)
                con.execute("INSERT INTO sms_log VALUES (NULL, ?, ?, ?, ?, ?, ?)", row)
            con.execute("CREATE INDEX by_time ON sms_log (sent_at)")
            con.execute(
                "CREATE TABLE leads AS SELECT 'L-' || id AS session_no, phone, sent_at FROM sms_log"
            )
            con.execute("CREATE INDEX leads_by_time ON leads (sent_at)")
            con.execute(
                "CREATE VIEW v AS SELECT session_no, phone, sent_at || '' AS sent_at FROM sms_log"
            )

    def answer(self, seen: Seen) -> Response:
        self.asked += seen.ids
        with closing(sqlite3.connect(self.folder / "shop.sqlite")) as con:
            marks = ", ".join("?" * len(seen.ids))
            found = con.execute(
                f"SELECT session_no, phone, sent_at FROM sms_log WHERE session_no IN ({marks})",
                seen.ids,
            ).fetchall()
        data = [
            {
                "SessionNo": session_no,
                "Status": "success",
                "Receipt": {
                    "Phone": phone,
                    "Status": "delivered",
                    "ReceiveTime": self.received(at),
                },
            }
            for session_no, phone, at in found
        ]
        return code(0, "success", Data=data)

    @staticmethod
    def received(sent_at: str) -> str:
        at = datetime.fromisoformat(sent_at) + timedelta(hours=8, seconds=4)
        return f"{at:%Y-%m-%d %H:%M:%S}"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.chdir(tmp_path)
    made = Shop(tmp_path, None)
    made.make()
    with serving(made.answer) as server:
        made.settings |= {
            "USMS_BASE_URL": server.url,
            "USMS_ACCESS_KEY_ID": "id-of-the-shop",
            "USMS_ACCESS_KEY_SECRET": SECRET,
            "USMS_SOURCE_URL": "sqlite:///shop.sqlite",
            "USMS_SOURCE_TABLE": "sms_log",
            "USMS_PHONE_COLUMN": "phone",
        }
        yield made


def of_another_tool(shop: Shop) -> None:
    with duckdb.connect("analytics.duckdb") as con:
        con.execute("CREATE TABLE orders AS SELECT 1 AS id")


def a_spreadsheet(shop: Shop) -> None:
    (shop.folder / "sms.xlsx").write_bytes(b"PK\x03\x04 something")


def a_file_in_the_way(shop: Shop) -> None:
    (shop.folder / "taken").write_text("not a folder")


@dataclass(frozen=True)
class Setup:
    """One thing that is wrong, which topics speak of it in which words, and the exit code."""

    name: str
    given: dict[str, str | None]
    said: dict[str, str]
    exit_code: int
    before: Callable[[Shop], None] = lambda shop: None


SETUPS = [
    Setup("all is well", {}, {
        "rows": "240 rows of 240 sessions, a row each",
        "phones": "240 of 240 are phone numbers (CN 100%)",
        "service": "has receipts of 3 of 3 sessions sampled",
    }, 0),
    Setup("wrong session column", {"session_column": "id"}, {
        "service": "it knows none of 3 sessions sampled from 'id' (USMS_SESSION_COLUMN): does that "
        "column hold what the send call returned",
    }, 1),
    Setup("session column that is no number of a send", {"session_column": "campaign"}, {
        "rows": "1 value of 'campaign' in rows sent more than a day apart, but a session number "
        "belongs to one send call: does USMS_SESSION_COLUMN name the session numbers?",
    }, 1),
    Setup("session and phone column swapped",
          {"session_column": "phone", "phone_column": "session_no"}, {
        "rows": "the values of 'phone' (USMS_SESSION_COLUMN) look like phone numbers, and would be "
        "sent to the service as session numbers and published unmasked: set USMS_SESSION_COLUMN to "
        "the column of what the send call returned, or does USMS_PHONE_COLUMN name that one",
        "phones": "most values of 'session_no' (USMS_PHONE_COLUMN) are not phone numbers",
    }, 1),
    Setup("session and time column swapped",
          {"session_column": "sent_at", "sent_at_column": "session_no"}, {
        "source": "240 of the times are not NULL and can't be read: ",
    }, 1),
    Setup("a time column for both", {"session_column": "local_at"}, {
        "rows": "the values of 'local_at' (USMS_SESSION_COLUMN) are times, not session numbers",
    }, 1),
    Setup("a count that is none", {"recipients_column": "campaign"}, {
        "recipients": "240 of 240 rows have no whole number from 1 to 99,999 in 'campaign' "
        "(USMS_RECIPIENTS_COLUMN): each counts as 1 recipient. Is that the column with",
    }, 0),
    Setup("wrong phone column", {"phone_column": "campaign"}, {
        "phones": "most values of 'campaign' (USMS_PHONE_COLUMN) are not phone numbers: is that "
        "the right column?",
    }, 0),
    Setup("wrong time column", {"sent_at_column": "updated_at"}, {
        "source": "none of them with a send time in updated_at: is that the right column",
    }, 0),
    Setup("a time column that is not there", {"sent_at_column": "sent"}, {
        "source": "has no column 'sent' (USMS_SENT_AT_COLUMN, did you mean 'sent_at'?)",
    }, 2),
    Setup("wrong zone, ahead", {"sent_at_column": "local_at"}, {
        "source": "rows lie in the future, by a day or less: is USMS_SOURCE_TIMEZONE ('UTC')",
        "service": "dated 8 h or more before their message was sent",
    }, 0),
    Setup("wrong zone, behind", {"source_timezone": "Asia/Shanghai"}, {
        "service": "dated 8 h or more after their message was sent: a time zone is probably wrong. "
        "Check USMS_RECEIPT_TIMEZONE",
    }, 0),
    Setup("another table", {"source_table": "leads"}, {
        "service": "it knows none of 3 sessions sampled from 'session_no'",
    }, 1),
    Setup("a table that is not there", {"source_table": "smslog"}, {
        "source": "There is no table 'smslog' at sqlite:///shop.sqlite",
    }, 2),
    Setup("a key with its quotes", {"access_key_secret": f"'{SECRET}'"}, {
        "settings": "USMS_ACCESS_KEY_SECRET: begins and ends with ': take the quotes off",
    }, 2),
    Setup("a proxy that is not there",
          {"base_url": None, "https_proxy": "proxy.invalid:3128"}, {
        "service": "no connection to the proxy (HTTPS_PROXY or ALL_PROXY)",
    }, 1),
    Setup("an address that nobody has", {"base_url": "https://usms.invalid"}, {
        "service": "This machine can't reach https://usms.invalid: check USMS_BASE_URL and the",
    }, 1),
    Setup("another folder", dict.fromkeys(
        ("access_key_id", "access_key_secret", "source_url", "source_table")), {
        "settings": "settings are read in the environment or in .env (there is none in ",
    }, 2),
    Setup("a data directory that is a file", {"data_dir": "taken"}, {
        "data dir": "in 'taken': that is a file. Set USMS_DATA_DIR to a folder",
    }, 1, a_file_in_the_way),
    Setup("a warehouse where nothing can be written", {"warehouse": "taken/usms.duckdb"}, {
        "warehouse": "name another file in USMS_WAREHOUSE",
    }, 1, a_file_in_the_way),
    Setup("a database of another tool", {"warehouse": "analytics.duckdb"}, {
        "warehouse": "is a DuckDB file of another use (its tables: orders), and publishing would "
        "replace it: name another file in USMS_WAREHOUSE",
    }, 1, of_another_tool),
    Setup("the source as the warehouse", {"warehouse": "shop.sqlite"}, {
        "warehouse": "is an SQLite database, and publishing would replace it",
    }, 1),
    Setup("a spreadsheet", {"source_url": "sms.xlsx", "source_table": None}, {
        "source": "USMS_SOURCE_URL is 'sms.xlsx'",
    }, 2, a_spreadsheet),
    Setup("a view that no index serves", {"source_table": "v"}, {
        "source": "no index on sent_at is used, so each run scans all 240",
    }, 0),
]  # fmt: skip


@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: setup.name)
def test_check_says_of_a_wrong_set_up_what_is_wrong_and_where(
    setup: Setup, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "_MANY_ROWS", 200)
    setup.before(shop)
    given = dict(setup.given)
    if proxy := given.pop("https_proxy", None):
        monkeypatch.setenv("HTTPS_PROXY", proxy)
    result = shop("check", "--format", "json", **given)
    found = json.loads(result.stdout)
    assert result.exit_code == setup.exit_code, result.stdout
    for topic, words in setup.said.items():
        assert any(words in one["text"] for one in found if one["topic"] == topic), result.stdout
    states = {one["topic"] for one in found if one["state"] != "ok"}
    assert states == ({*setup.said} if setup.name != "all is well" else set())
    assert SECRET not in result.output
    assert "Traceback" not in result.output


STOPPED = [
    "session column that is no number of a send", "session and phone column swapped",
    "a time column for both",
]  # fmt: skip
TOLD = ["wrong phone column", "a count that is none", "wrong zone, ahead"]


@examples(1, "command", [["run"], ["run", "--all", "--format", "json"], ["plan"]])
@pytest.mark.parametrize(
    "setup", [one for one in SETUPS if one.name in STOPPED + TOLD], ids=lambda setup: setup.name
)
def test_a_run_and_a_plan_say_what_check_does_and_stop_where_it_must(
    setup: Setup, command: list[str], shop: Shop
) -> None:
    """Before anything is asked or stored: once corrected, the same data directory will do."""
    result = shop(*command, **setup.given)
    [words, *_] = [words for topic, words in setup.said.items() if topic != "service"]
    assert words.rstrip("?").casefold() in " ".join(result.stderr.split()).casefold()
    is_stopped = setup.name in STOPPED
    assert result.exit_code == is_stopped
    assert bool(shop.asked) == (not is_stopped and command[0] == "run")
    assert not any(one.startswith("138") for one in shop.asked)
    if is_stopped:
        assert shop("run").exit_code == 0
        assert set(shop.asked) == {f"s-{n}" for n in range(240)} - {"s-0"}


def test_swapped_columns_show_no_number_anywhere(shop: Shop) -> None:
    given = {"session_column": "phone", "phone_column": "session_no"}
    for command in (
        ["check"],
        ["check", "--format", "json"],
        ["run"],
        ["plan", "--format", "json"],
    ):
        said = shop(*command, **given).output
        assert "1380013" not in said
    assert shop.asked == ["usms-check"] * 2


def test_a_zone_that_was_changed_is_filed_under_settings(shop: Shop) -> None:
    """Corrected after the first run, it needs another data directory: that is said before."""
    ahead = shop("run", sent_at_column="local_at")
    assert "after that, another zone needs another USMS_DATA_DIR" in ahead.stderr
    given = {"sent_at_column": "local_at", "source_timezone": "Asia/Shanghai"}
    found = json.loads(shop("check", "--format", "json", **given).stdout)
    [problem] = [one for one in found if one["state"] == "problem"]
    assert problem["topic"] == "settings"
    assert problem["text"].startswith("USMS_SOURCE_TIMEZONE: was 'UTC' when this data directory")
    assert shop("run", **given, data_dir="other").exit_code == 0


@examples(1, "command", ["run", "plan", "rates"])
def test_the_first_and_the_last_day_have_a_second_name(command: str, shop: Shop) -> None:
    shop("run", "--all")
    assert shop(command, "--since", "2026-01-01", "--until", "2026-01-02").exit_code == 0
    assert "--from" in shop(command, "--since", "2026-01-03", "--until", "2026-01-02").stderr


@pytest.mark.parametrize("status", [404, 503])
@pytest.mark.parametrize("path", ["", "/api/v1"])
def test_an_address_is_named_once_and_its_path_where_it_has_one(
    status: int, path: str, shop: Shop
) -> None:
    with serving(lambda seen: Response(b"no", status)) as server:
        said = shop("check", base_url=f"{server.url}{path}", timeout_seconds="2").stdout
    [line] = [one for one in said.splitlines() if one.startswith("✗")]
    assert line.count("Check USMS_BASE_URL") == 1
    assert ("has a path" in line) == bool(path)
