"""``usms init`` at a terminal: from nothing to the first rate."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pexpect
import pytest
from dotenv import dotenv_values
from typer.testing import CliRunner

from tests.processes import USMS, bare_environment
from tests.services import Database
from usms_pipeline.cli import app
from usms_pipeline.cli import simulate as made_up
from usms_pipeline.cli.init import _PHONES, _SESSIONS, _TIMES, _guess, _quoted
from usms_pipeline.simulator import (
    ACCESS_KEY_ID,
    ACCESS_KEY_SECRET,
    Population,
    Simulator,
    serve,
)

MESSAGES = 200
GUESSED = dict.fromkeys(
    (
        "Column_of_the_session",
        "Column_of_the_send_time",
        "Column_of_the_phone",
        "Columns_to_group_by",
    ),
    "",
)
"""Questions that are answered by Enter."""


@dataclass
class Newcomer:
    """An empty folder, a service, and the messages that it knows."""

    folder: Path
    url: str
    messages: Any

    @property
    def environment(self) -> dict[str, str]:
        root = str(Path(__file__).parent.parent)
        look = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "xterm"}
        return bare_environment() | look | {"PYTHONPATH": root}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*USMS, *arguments], cwd=self.folder, env=self.environment, capture_output=True,
            text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def at_terminal(self, *arguments: str) -> pexpect.spawn:
        return pexpect.spawn(
            USMS[0], [*USMS[1:], *arguments], cwd=str(self.folder), env=self.environment,
            encoding="utf-8", timeout=60,
        )  # fmt: skip

    def answer(self, **answers: str) -> str:
        """Answer the questions of ``usms init`` in turn; return what was shown after the last."""
        terminal = self.at_terminal("init")
        for question, answer in {
            "Address of the service": self.url,
            "Access key ID": ACCESS_KEY_ID,
            "Access key secret": ACCESS_KEY_SECRET,
            **{name.replace("_", " "): text for name, text in answers.items()},
        }.items():
            terminal.expect(f"{question}[^\n]*: ")
            terminal.sendline(answer)
        terminal.expect(pexpect.EOF)
        terminal.close()
        assert terminal.exitstatus == 0, terminal.before
        return str(terminal.before)

    def first_rate(self) -> float:
        assert self.run("run").returncode == 0
        [figures] = json.loads(self.run("rates", "--format", "json").stdout)
        assert figures["messages"] == MESSAGES
        return float(figures["delivery_rate"])


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    messages = Population(MESSAGES, days=2, seed=7).table()
    with serve(Simulator(messages, seed=7)) as url:
        yield Newcomer(tmp_path, url, messages)


@pytest.mark.long
def test_a_csv_leads_to_a_first_rate(newcomer: Newcomer) -> None:
    made_up.write(newcomer.messages, newcomer.folder / "sent messages.csv")
    shown = newcomer.answer(
        Where_your_table_is="sent messages.csv",
        **GUESSED | {"Columns_to_group_by": "template,purpose"},
        Time_zone="",
    )
    assert "has receipts of 3 of 3 sessions sampled" in shown
    assert stat.S_IMODE((newcomer.folder / ".env").stat().st_mode) == 0o600
    assert newcomer.first_rate() > 0.8
    by_template = newcomer.run("rates", "--by", "template", "--format", "json")
    assert len(json.loads(by_template.stdout)) > 1


def test_postgresql_leads_to_a_first_rate(newcomer: Newcomer, postgresql: Database) -> None:
    columns = "session_no text, phone text, country text, template text, purpose text, sender text"
    postgresql.execute(
        "CREATE TABLE users (id int)",
        f"CREATE TABLE sms_log ({columns}, sent_at timestamptz)",
        ingest=("sms_log", newcomer.messages),
    )
    newcomer.answer(
        Where_your_table_is=postgresql.url,
        Table_of_messages="",
        **GUESSED,
    )
    assert dotenv_values(newcomer.folder / ".env")["USMS_SOURCE_TABLE"] == "sms_log"
    assert newcomer.first_rate() > 0.8


def test_mariadb_leads_to_a_first_rate(newcomer: Newcomer, mariadb: Database) -> None:
    rows = [
        (one["session_no"], one["sent_at"].replace(tzinfo=None), one["phone"])
        for one in newcomer.messages.to_pylist()
    ]
    mariadb.execute(
        "CREATE TABLE outbox (sms_session varchar(64), created datetime(6), mobile varchar(20))",
        many=("INSERT INTO outbox VALUES (%s, %s, %s)", rows),
    )
    newcomer.answer(
        Where_your_table_is=mariadb.url,
        Table_of_messages="",
        **GUESSED,
        Time_zone="UTC",
    )
    assert newcomer.first_rate() > 0.8


def test_an_answer_that_can_not_be_used_is_asked_for_again(newcomer: Newcomer) -> None:
    made_up.write(newcomer.messages, newcomer.folder / "sent.csv")
    terminal = newcomer.at_terminal("init", "--key-id", "k", "--key-secret", "s")
    for answer, said in {
        "http://example.com": "must be https",
        newcomer.url: "Where your table is",
        "": "This one has no default",
        "missing.csv": "There is no file 'missing.csv'",
        "sent.csv": "Column of the session",
        "sesion_no": "There is no 'sesion_no'. Choose session_no",
    }.items():
        terminal.sendline(answer)
        terminal.expect_exact(said)
    terminal.sendintr()
    terminal.expect(pexpect.EOF)
    assert not (newcomer.folder / ".env").exists()


def test_a_script_gives_every_answer_as_an_option(
    newcomer: Newcomer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(newcomer.folder)
    for name in os.environ.keys() - newcomer.environment.keys():
        monkeypatch.delenv(name)
    made_up.write(newcomer.messages, newcomer.folder / "sent.sqlite")
    given = ["init", "--url", newcomer.url, "--key-id", ACCESS_KEY_ID, "--source",
             "sqlite:///sent.sqlite"]  # fmt: skip
    refused = CliRunner().invoke(app, given)
    assert refused.exit_code == 2
    assert "--key-secret is not given" in " ".join(refused.stderr.split())
    given += ["--key-secret", ACCESS_KEY_SECRET]
    made = CliRunner().invoke(app, [*given, "--phone-column", "-", "--dimensions", "template"])
    assert made.exit_code == 0, made.output
    before = Path(".env").read_text()
    assert "USMS_PHONE_COLUMN" not in before
    assert "USMS_DIMENSIONS=template" in before
    assert CliRunner().invoke(app, given).exit_code == 2, "there is a .env"
    assert Path(".env").read_text() == before
    assert CliRunner().invoke(app, [*given, "--yes"]).exit_code == 0
    assert "USMS_PHONE_COLUMN=phone" in Path(".env").read_text()


@pytest.mark.parametrize(
    ("words", "names", "guess"),
    [
        (_SESSIONS, ["id", "user_session", "session_no"], "session_no"),
        (_SESSIONS, ["id", "MsgID"], "MsgID"),
        (_SESSIONS, ["id", "phone"], None),
        (_SESSIONS, ["编号", "会话编号"], "会话编号"),
        (_TIMES, ["created_at", "send_time"], "send_time"),
        (_TIMES, ["发送时间"], "发送时间"),
        (_PHONES, ["id", "-"], "-"),
        (_PHONES, ["to", "mobile", "-"], "mobile"),
    ],
)
def test_columns_are_guessed_by_their_names(words, names, guess):
    assert _guess(names, words) == guess


@pytest.mark.parametrize("text", ["plain", "", "two words", 'it\'s # \\ "x"', "密码", "a=b&c?d"])
def test_a_value_is_read_as_it_was_written(tmp_path, text):
    (tmp_path / ".env").write_text(f"NAME={_quoted(text)}\n", "utf-8")
    assert dotenv_values(tmp_path / ".env", interpolate=False) == {"NAME": text}
