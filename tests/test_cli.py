"""The commands over a real service on loopback and a real source table."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner, Result

from tests.account import variables
from tests.examples import examples
from tests.mounts import without_the_rights_of_root
from tests.processes import USMS
from usms_pipeline.cli import app
from usms_pipeline.cli import simulate as made_up
from usms_pipeline.contract import metrics
from usms_pipeline.days import log
from usms_pipeline.simulator import (
    Faults,
    Population,
    Simulator,
    serve,
)
from usms_pipeline.store.storage import Store

MESSAGES = 300


@dataclass
class Account:
    """A folder with a source table and its settings, and the service that knows its messages."""

    folder: Path
    simulator: Simulator
    settings: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, **settings: str | None) -> Result:
        """Run a command in this process; settings are in lower case, and None is not given."""
        given = self.settings | {f"USMS_{name.upper()}": value for name, value in settings.items()}
        environment = {name: value for name, value in given.items() if value is not None}
        return CliRunner().invoke(app, arguments, env=environment | {"TERMINAL_WIDTH": "200"})

    def alter(self, *statements: str) -> None:
        """Change the source table, called ``t``."""
        with closing(sqlite3.connect(self.folder / "shop.sqlite")) as con, con:
            for statement in statements:
                con.execute(re.sub(r"\bt\b", made_up.TABLE, statement))

    def process(self, *arguments: str) -> subprocess.Popen[str]:
        """Run a command in a process of its own."""
        return subprocess.Popen(
            [*USMS, *arguments],
            cwd=self.folder,
            env=os.environ | self.settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@contextmanager
def begun(
    folder: Path, patch: pytest.MonkeyPatch, messages: int, seed: int
) -> Iterator[tuple[Simulator, dict[str, str]]]:
    """Make a source table in a folder to work in; give the service that knows it, and settings."""
    patch.chdir(folder)
    for name in [name for name in os.environ if name.startswith("USMS_")]:
        patch.delenv(name)
    table = Population(messages, days=2, seed=seed).table()
    made_up.write(table, folder / "shop.sqlite")
    simulator = Simulator(table, seed=seed)
    with serve(simulator) as url:
        yield simulator, variables(url, "sqlite:///shop.sqlite", source_table=made_up.TABLE)


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    with begun(tmp_path, monkeypatch, MESSAGES, seed=7) as (simulator, settings):
        yield Account(tmp_path, simulator, settings | {"USMS_DIMENSIONS": "template"})


def test_check_finds_nothing_wrong_and_changes_nothing(account: Account) -> None:
    result = account("check")
    assert result.exit_code == 0, result.output
    assert {line[0] for line in result.stdout.splitlines()} == {"✓", " "}
    assert "300 rows" in result.stdout
    assert account.simulator.counters.requests == 1
    assert [p for p in (account.folder / "data").rglob("*") if p.is_file()] == []


def test_check_goes_on_after_a_problem_and_ends_with_the_gravest_code(account: Account) -> None:
    result = account(
        "check", "--format", "json", source_table="smslog", access_key_secret="WRONG-SECRET"
    )
    found = {finding["topic"]: finding for finding in json.loads(result.stdout)}
    assert result.exit_code == 3
    assert found["source"]["exit_code"] == 2
    assert "sms_log" in found["source"]["text"]
    assert found["service"]["exit_code"] == 3
    assert found["data dir"]["state"] == "ok"
    assert "WRONG-SECRET" not in result.output


def test_check_tells_of_a_dead_service_of_a_lost_row_and_of_a_misspelt_variable(
    account: Account,
) -> None:
    account.simulator.faults = Faults(down=1)
    account.alter("UPDATE t SET sent_at = NULL WHERE rowid = 1")
    result = account("check", datadir="x", timeout_seconds="2")
    assert result.exit_code == 1
    assert "✗ service" in result.stdout
    assert "! settings: USMS_DATADIR is not a setting; did you mean USMS_DATA_DIR?" in result.stdout
    assert "! source: 1 row has no usable time in sent_at" in result.stdout


def test_check_can_print_a_file_to_fill_in(account: Account) -> None:
    result = account("check", "--example")
    assert "USMS_ACCESS_KEY_SECRET=" in result.stdout
    assert account.simulator.counters.requests == 0


def test_plan_counts_what_is_due_and_asks_nothing(account: Account) -> None:
    shown = account("plan")
    found = json.loads(account("plan", "--format", "json").stdout)
    due = sum(found["due_sessions"].values())
    assert shown.exit_code == 0, shown.output
    assert f"{due} sessions" in shown.stdout
    assert 290 <= due <= MESSAGES
    assert found["requests"] >= due / 100
    assert "the rate a run begins with" in shown.stdout
    assert account.simulator.counters.requests == 0


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file and folder below a folder."""
    found = sorted(folder.rglob("*"))
    return {str(one): one.read_bytes() if one.is_file() else b"" for one in found}


@examples(1, "days", [["--all"], [], ["--to", "2026-01-01"]])
def test_plan_before_the_first_run_writes_nothing(account: Account, days: list[str]) -> None:
    before = contents(account.folder)
    assert account("plan", *days).exit_code == 0
    assert contents(account.folder) == before
    assert "300 rows read, 300 new recipients" in account("run", "--all").stdout


def test_plan_writes_nothing_over_what_is_there_and_says_what_is_not_counted_yet(
    account: Account,
) -> None:
    account("run")
    account.alter(
        "INSERT INTO t (session_no, sent_at) VALUES ('new', '2026-01-01 10:00')",
        "UPDATE t SET phone = NULL WHERE rowid = 1",
    )
    writer = log.Log(Store("data"), lambda: datetime.now(UTC))
    with writer.held([]):
        writer.add([])
    before = contents(account.folder)
    shown = account("plan", "--all")
    assert "responses of 1 run, unless one is under way" in " ".join(shown.stdout.split())
    assert json.loads(account("plan", "--all", "--format", "json").stdout)["unfolded_runs"] == 1
    assert contents(account.folder) == before


@examples(2, "command", ["plan", "run", "check"])
@examples(
    1,
    ("name", "value"),
    [("session_column", "template"), ("source_timezone", "Asia/Shanghai"), ("sent_at_column", "at"),
     ("timezone", "Europe/Berlin"), ("default_region", "FR")],
)  # fmt: skip
def test_plan_and_check_refuse_what_run_refuses(
    account: Account, command: str, name: str, value: str
) -> None:
    account.alter("ALTER TABLE t ADD COLUMN at TEXT", "UPDATE t SET at = sent_at")
    assert account("run").exit_code == 0
    result = account(command, **{name: value})
    assert result.exit_code == 2, result.output
    assert f"USMS_{name.upper()}: was" in result.output


def test_run_collects_everything_and_again_asks_nothing(account: Account) -> None:
    first = account("run")
    assert first.exit_code == 0, first.output
    assert "300 rows read, 300 new recipients" in first.stdout
    assert "usms.duckdb: 300 rows" in " ".join(first.stdout.split())
    for _ in range(3):  # by the real clock a message may come of an age to be asked about, once
        asked = account.simulator.counters.requests
        again = account("run")
        if account.simulator.counters.requests == asked:
            break
    assert "nothing was due" in again.stdout
    assert account.simulator.counters.requests == asked


def test_run_tells_of_rows_without_a_time(account: Account) -> None:
    account.alter("UPDATE t SET sent_at = NULL WHERE rowid < 4")
    told = "3 rows have no usable time in sent_at: no run reads them, and no figure counts them."
    assert told in " ".join(account("run").output.split())
    assert told in json.loads(account("run", "--format", "json").stdout)["warnings"]


@examples(
    1,
    ("changed", "code", "said"),
    [
        ("'soon' WHERE rowid <= 4", 1, "4 of the times are not NULL and can't be read: 4 × aaaa"),
        ("'2026-02-31 10:' || rowid WHERE rowid <= 3", 0, "3 of the times are not NULL"),
        ("julianday(sent_at)", 1, "They look like Julian days"),
        ("NULL", 0, "300 rows have no usable time in sent_at"),
    ],
)
def test_check_plan_and_run_end_with_1_where_too_many_times_can_not_be_read(
    account: Account, changed: str, code: int, said: str
) -> None:
    """One in a hundred is somebody's slip; rows without a time were not sent yet."""
    account.alter(f"UPDATE t SET sent_at = {changed}")
    for command in ("plan", "check", "run"):
        ran = account(command)
        assert ran.exit_code == code, ran.output
        if command != "check" or changed != "NULL":
            assert said in " ".join(ran.output.split())
    ran = account("run", "--format", "json")
    assert ran.exit_code == code
    assert json.loads(ran.stdout)["fell_short"] is bool(code)


def test_a_csv_that_is_written_anew_is_looked_at_anew(account: Account) -> None:
    """All was well with it earlier the same day."""
    path = account.folder / "sent.csv"
    for text, code in (("2024-08-01 10:00", 0), ("1 Aug 10 o'clock", 1)):
        path.write_text(f"session_no,sent_at,phone,template\na,{text},,\n")
        assert account("run", source_url=str(path)).exit_code == code


def test_run_tells_of_receipts_whose_time_can_not_be_right(account: Account) -> None:
    """Read in a zone sixteen hours behind, the latest lie in the future: such are in no figure."""
    said = " ".join(account("run", receipt_timezone="America/Los_Angeles").output.split())
    [told] = re.findall(r"(\d+) receipts with a time that can't be read, or that is later", said)
    assert int(told) > 5
    assert "USMS_RECEIPT_TIMEZONE" in said
    with duckdb.connect("data/usms.duckdb", read_only=True) as con:
        query = "FROM receipts SELECT count(*) WHERE received_at > final_at + INTERVAL 5 MINUTE"
        assert con.execute(query).fetchall() == [(0,)]
        query = "FROM receipts SELECT count(*) WHERE is_final AND received_at IS NULL"
        assert con.execute(query).fetchall() == [(int(told),)]


def test_run_as_json_says_the_same(account: Account) -> None:
    report = json.loads(account("run", "--format", "json").stdout)
    days = report["days"].values()
    assert sum(sum(day["buckets"].values()) for day in days) == report["new"] == MESSAGES
    assert sorted(report["days"]) == sorted(report["written"])
    assert report["fell_short"] is False
    assert report["stats"]["ids_given_up"] == 0
    assert report["warehouse"]["path"].endswith("data/usms.duckdb")


def test_run_quietly_prints_warnings_alone(account: Account) -> None:
    account.alter("UPDATE t SET sent_at = NULL WHERE rowid = 1")
    ran = account("run", "--quiet")
    assert not ran.stdout
    assert all(line.startswith("!") for line in ran.stderr.splitlines())
    assert "no usable time" in ran.stderr


@pytest.mark.long
def test_run_falls_short_with_1_and_says_what_to_do(account: Account) -> None:
    account.simulator.faults = Faults(down=1)
    result = account("run", timeout_seconds="1")
    assert result.exit_code == 1
    assert "✗ No usable response for 300 sessions. They stay due" in result.stderr
    assert "Traceback" not in result.stderr


def test_run_of_one_day_leaves_the_others_alone(account: Account) -> None:
    with closing(sqlite3.connect("shop.sqlite")) as con:
        query = f"SELECT date(sent_at), count(*) FROM {made_up.TABLE} GROUP BY 1 ORDER BY 1"
        ((day, rows), *_) = con.execute(query).fetchall()
    assert account("run", "--from", day, "--to", day).exit_code == 0
    (figures,) = json.loads(account("rates", "--format", "json").stdout)
    assert figures["messages"] == rows


SQL = "SELECT country, count(*) AS n FROM receipts GROUP BY country ORDER BY n DESC, country"


def test_sql_answers_a_query_as_table_csv_and_json(account: Account) -> None:
    account("run")
    rows = json.loads(account("sql", SQL, "--format", "json").stdout)
    assert sum(row["n"] for row in rows) == MESSAGES
    read = list(csv.DictReader(io.StringIO(account("sql", SQL, "--format", "csv").stdout)))
    assert [row["country"] for row in read] == [row["country"] for row in rows]
    shown = [line.split() for line in account("sql", SQL).stdout.splitlines() if line.strip()]
    assert shown[0] == ["country", "n"]
    assert shown[2:] == [[row["country"], str(row["n"])] for row in rows]
    typed = CliRunner().invoke(app, ["sql"], env=account.settings, input=f"SELECT 1;\n{SQL};\n")
    assert typed.stdout == account("sql", SQL).stdout


@examples(
    1,
    ("query", "said"),
    [("FROM reciepts", "reciepts does not exist"),
     ("SELECT nope FROM receipts", '"nope" not found'), ("SELEC 1", "syntax error"),
     ("SELECT 'x'::INT", "Could not convert"),
     ("DELETE FROM receipts", "read-only")],
)  # fmt: skip
def test_sql_that_cannot_be_run_is_told_in_a_sentence(
    account: Account, query: str, said: str
) -> None:
    account("run")
    result = account("sql", query)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "DESCRIBE receipts" in result.stderr
    assert "Traceback" not in result.output


def test_sql_shows_so_many_rows_and_escapes_what_would_command_a_terminal(account: Account) -> None:
    account("run")
    shown = account("sql", "SELECT range AS n, chr(27) || '[2J' AS x, 1 AS x FROM range(300)")
    assert "the first 200 rows: --format csv prints all" in shown.stderr
    assert len([line for line in shown.stdout.splitlines() if "[2J" in line]) == 200
    assert "\x1b[2J" not in shown.stdout
    assert "NULL" in account("sql", "SELECT NULL AS x").stdout


NOBODY = """
import os, pwd
os.environ.pop("HOME", None)
def getpwuid(uid):
    raise KeyError(uid)
pwd.getpwuid = getpwuid
from usms_pipeline.cli import main
main()
"""


@examples(1, "command", ["run", "report", "rates", "check", "plan", "sql FROM(receipts)LIMIT(1)"])
def test_a_command_needs_no_home_folder(account: Account, command: str) -> None:
    """As in a container that runs under any uid, which has neither HOME nor an entry in passwd."""
    account("run")
    done = subprocess.run(
        [sys.executable, "-c", NOBODY, *command.split()],
        env=os.environ | account.settings, cwd=account.folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (account.folder / "data/report.html").exists() == (command == "report")


def test_csv_without_rows_still_has_its_header(account: Account) -> None:
    account("run")
    none = ("rates", "--from", "2030-01-01", "--by", "country", "--format", "csv")
    (head,) = account(*none).stdout.splitlines()
    assert head.startswith("country,messages,delivered")


@examples(
    1,
    "by", [["country", "template"], ["sent_date", "country"], ["template", "status", "operator"],
           ["country", "country"]],
)  # fmt: skip
def test_rates_by_several_columns_have_a_row_for_each_of_their_values(
    account: Account, by: list[str]
) -> None:
    account("run")
    options = [one for name in by for one in ("--by", name)]
    rows = json.loads(account("rates", *options, "--format", "json").stdout)
    names = list(dict.fromkeys(by))
    assert list(rows[0])[: len(names)] == names
    assert len({tuple(row[name] for name in names) for row in rows}) == len(rows)
    assert sum(row["messages"] for row in rows) == MESSAGES
    shown = account("rates", *options)
    assert shown.exit_code == 0, shown.output
    for name in names:
        assert name.replace("_", " ") in shown.stdout
        assert all(str(row[name]).split()[0] in shown.stdout for row in rows if row[name])


def test_rates_are_the_same_as_table_and_json(account: Account) -> None:
    account("run")
    rows = json.loads(account("rates", "--by", "country", "--format", "json").stdout)
    table = account("rates", "--by", "country")
    assert table.exit_code == 0, table.output
    figures = [metric.name for metric in metrics.METRICS]
    expected = [f"expected_rate{end}" for end in ("", "_low", "_high")]
    assert list(rows[0]) == ["country", *figures, *expected]
    assert sum(row["messages"] for row in rows) == MESSAGES
    shown = {line.split()[0]: line.split() for line in table.stdout.splitlines() if line.strip()}
    for row in rows:
        assert shown[row["country"]][1] == str(row["messages"])
        assert f"{row['delivery_rate']:.1%}" in shown[row["country"]][2:4]
    awaited = sum(row["awaited"] for row in rows)
    assert f"the {awaited} still open are in, expect" in table.stdout


def test_a_report_is_opened_when_asked(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    account("run")
    opened: list[str] = []
    monkeypatch.setattr("typer.launch", opened.append)
    assert account("report", "--open").exit_code == 0
    assert [Path(path).name for path in opened] == ["report.html"]


@examples(1, "place", ["folder", "missing/r.html", "data/usms.duckdb/r.html"])
def test_a_report_that_can_not_be_written_is_told_by_its_option(
    account: Account, place: str
) -> None:
    (account.folder / "folder").mkdir()
    account("run")
    result = account("report", "--to", place)
    assert result.exit_code == 2
    assert "--to" in result.stderr
    assert "USMS_DATA_DIR" not in result.stderr
    assert not (account.folder / "missing").exists()


@pytest.mark.long
def test_a_report_for_a_folder_that_can_not_be_written_is_told_by_its_option(
    account: Account,
) -> None:
    account("run")
    (account.folder / "folder").mkdir(mode=0o500)
    command = without_the_rights_of_root([*USMS, "report", "--to", "folder/r.html"])
    env = os.environ | account.settings
    ran = subprocess.run(command, cwd=account.folder, env=env, capture_output=True, text=True)
    assert ran.returncode == 1
    assert "Can't write the report to 'folder/r.html': Permission denied. Name" in ran.stderr


def test_quarantine_lists_replays_and_dismisses(account: Account) -> None:
    poisoned = account.simulator.sessions[:2]
    account.simulator.faults = Faults(poison_ids=frozenset(poisoned))
    assert "nothing open in quarantine" in account("quarantine", "list").stdout
    assert "2 session numbers refused by the service" in account("run").stderr

    listed = account("quarantine", "list")
    entries = json.loads(account("quarantine", "list", "--format", "json").stdout)
    assert sorted(entry["session_no"] for entry in entries) == sorted(poisoned)
    assert "body" not in entries[0]
    assert "2 open" in listed.stdout
    assert "2 × the service refuses this session number" in listed.stdout
    assert entries[0]["id"] in listed.stdout
    assert entries[0]["asked_at"][:16].replace("T", " ") in listed.stdout

    assert "1 dismissed" in account("quarantine", "dismiss", entries[0]["id"]).stdout
    account.simulator.faults = Faults()
    replayed = account("quarantine", "replay", entries[1]["id"])
    assert (replayed.exit_code, replayed.stdout) == (0, "1 tried again; 0 open now\n")
    states = json.loads(account("quarantine", "list", "--state", "all", "--format", "json").stdout)
    assert sorted(entry["state"] for entry in states) == ["dismissed", "replayed"]
    unknown = account("quarantine", "dismiss", "0123456789abcdef")
    assert unknown.exit_code == 1
    assert "name no open entry" in unknown.stderr


def test_rebuild_says_so_where_what_it_made_is_not_published(account: Account) -> None:
    account("run")
    store = Store(str(account.folder / "data"))
    with store.lock("warehouse"):
        result = account("rebuild")
    assert result.exit_code == 1
    assert "what was rebuilt is not in it" in " ".join(result.stderr.split())


def test_a_run_whose_days_are_all_held_says_whose_they_are(account: Account) -> None:
    store = Store(str(account.folder / "data"))
    account("run")
    days = json.loads(account("run", "--format", "json").stdout)["days"]
    with ExitStack() as held:
        for day in days:
            held.enter_context(store.lock(f"sent_date={day}"))
        result = account("run")
    assert result.exit_code == 0, result.output
    assert "left to the other run" in result.stdout
    assert "every message is final or closed" not in result.stdout


def test_forget_erases_a_phone_only_when_told_twice(account: Account) -> None:
    account("run")
    with closing(sqlite3.connect("shop.sqlite")) as con:
        (phone,) = con.execute(f"SELECT phone FROM {made_up.TABLE} LIMIT 1").fetchone()
    refused = account("forget", "--phone", phone)
    assert refused.exit_code == 1
    assert messages(account) == MESSAGES
    result = CliRunner().invoke(
        app, ["forget", "--phone", "-", "--yes"], input=f"{phone}\n", env=account.settings
    )
    assert result.exit_code == 0, result.output
    assert phone not in result.output
    assert messages(account) == MESSAGES - 1


def test_forget_refuses_what_is_no_number_unless_the_table_has_such_a_text(
    account: Account,
) -> None:
    account.alter("UPDATE t SET phone = 'unknown' WHERE rowid = 1")
    account("run")
    for odd in ("abc", "12345"):
        refused = account("forget", "--phone", odd, "--yes")
        assert refused.exit_code == 2
        assert f"'{odd}' is no phone number" in refused.stderr.replace("│", " ")
    assert not (account.folder / "data/forgotten.json").exists()
    erased = account("forget", "--phone", "unknown", "--yes")
    assert erased.stdout.startswith("✓ erased from 1 day; later responses about it are dropped")
    assert messages(account) == MESSAGES - 1


@examples(1, "named", [("--phone", "+8613012345678"), ("--session", "nosuch")])
def test_forget_says_that_it_found_nothing_and_drops_what_comes_later(
    account: Account, named: tuple[str, str]
) -> None:
    account("run")
    assert account("report").exit_code == 0
    result = account("forget", *named, "--yes")
    assert result.exit_code == 0
    first, second = result.stdout.splitlines()
    assert first == "! in none of the days; later responses about it are dropped"
    assert second.startswith("report.html, which may have shown it, is deleted: `usms report`")
    assert (account.folder / "data/forgotten.json").exists()


def messages(account: Account) -> int:
    (figures,) = json.loads(account("rates", "--format", "json").stdout)
    return int(figures["messages"])


@pytest.mark.parametrize("command", ["simulate --table", "report --to"])
def test_a_file_in_no_folder_is_refused_in_a_sentence(account: Account, command: str) -> None:
    for file, reason in {"no/such.csv": "there is no folder no", "data": "is a folder"}.items():
        Path("data").mkdir(exist_ok=True)
        refused = account(*command.split(), file)
        assert refused.exit_code == 2
        assert reason in " ".join(refused.stderr.replace("│", " ").split())


@pytest.mark.long
def test_simulate_serves_until_stopped_and_then_counts(tmp_path: Path) -> None:
    command = ["simulate", "--port", "0", "--messages", "50", "--table", "sent.parquet"]
    with subprocess.Popen(
        [*USMS, *command], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        greeting = [child.stdout.readline() for _ in range(8)]
        assert "knows 50 sessions" in greeting[0]
        settings = dict(line.strip().split("=", 1) for line in greeting if "=" in line)
        ran = subprocess.run(
            [*USMS, "run"], cwd=tmp_path, env=os.environ | settings, capture_output=True, text=True
        )
        child.send_signal(signal.SIGINT)
        told, errors = child.communicate(timeout=30)
    assert ran.returncode == 0, ran.stderr
    assert "50 rows read" in ran.stdout
    assert (child.returncode, errors) == (0, "")
    assert "requests" in told


@examples(1, "host", [None, "0.0.0.0", "::1"])
def test_simulate_is_for_this_machine_alone_and_warns_when_told_otherwise(
    host: str | None, tmp_path: Path
) -> None:
    """It knows phone numbers, with `--own` real ones, and speaks plain http."""
    command = [*USMS, "simulate", "--port", "0", "--messages", "5"]
    command += ["--host", host] if host else []
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        greeting = child.stdout.readline()
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=30)
    assert f"http://{f'[{host}]' if host == '::1' else host or '127.0.0.1'}:" in greeting
    assert ("Anyone who reaches this machine on 0.0.0.0" in errors) == (host == "0.0.0.0")


def test_simulate_knows_the_users_own_table_with_own(account: Account) -> None:
    with account.process("simulate", "--port", "0", "--own") as child:
        assert child.stdout is not None
        assert "knows 300 sessions" in child.stdout.readline()
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=30)
    assert child.returncode == 0


def test_simulate_names_the_faults_and_refuses_others(account: Account) -> None:
    assert "throttle" in account("simulate", "--list-faults").stdout
    result = account("simulate", "--fault", "trotle=1")
    assert result.exit_code == 2
    assert "throttle" in result.stderr
