"""How every command ends: exit codes, sentences instead of tracebacks, signals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tests.processes import USMS, bare_environment
from usms_pipeline.cli import app, shell
from usms_pipeline.contract import errors
from usms_pipeline.contract.errors import UsmsError


def outcome(error: BaseException | None = None, code: int | None = None) -> tuple[int, str]:
    """Run a command that raises ``error`` or returns ``code``; gives exit code and stderr."""

    def command() -> int | None:
        if error is not None:
            raise error
        return code

    single = typer.Typer(pretty_exceptions_enable=False)
    single.command()(shell.as_command(command))
    result = CliRunner().invoke(single, [])
    return result.exit_code, result.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsmsError("It broke."), 1),
        (errors.ServiceDown("It broke."), 1),
        (errors.SourceUnavailable("It broke."), 1),
        (errors.WarehouseMissing("It broke."), 1),
        (errors.OtherWarehouse("It broke."), 1),
        (errors.Busy("It broke."), 1),
        (errors.SourceError("It broke."), 2),
        (errors.KeyMismatch("It broke."), 2),
        (errors.OtherLayout("It broke."), 2),
        (errors.CredentialsRefused("It broke."), 3),
        (UsmsError("No column '[red]'."), 1),
    ],
)
def test_an_error_of_ours_is_its_sentence_and_its_exit_code(error: UsmsError, code: int) -> None:
    """As it is, though rich would take what stands in square brackets for markup."""
    assert outcome(error) == (code, f"✗ {error}\n")


def test_the_exit_code_is_what_the_command_returns() -> None:
    assert outcome(code=None) == (0, "")
    assert outcome(code=1) == (1, "")


def test_an_unexpected_error_asks_for_a_report_and_shows_no_traceback_and_no_values() -> None:
    code, told = outcome(ValueError("phone +8613800138000"))
    assert code == 1
    assert "Unexpected ValueError" in told
    assert "usms --debug" in told
    assert "Traceback" not in told
    assert "138" not in told


def test_help_names_debug_which_errors_ask_for() -> None:
    assert "--debug" in CliRunner().invoke(app, ["--help"]).stdout


def test_debug_shows_the_traceback() -> None:
    token = shell.show_tracebacks.set(True)
    try:
        _, told = outcome(UsmsError("It broke."))
    finally:
        shell.show_tracebacks.reset(token)
    assert "Traceback" in told
    assert told.endswith("✗ It broke.\n")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run", "--all", "--from", "2026-02-02"], "--all already means"),
        (["rates", "--format", "xml"], "xml"),
        (["rates", "--last", "7 days"], "write it as 24h, 7d or 4w"),
        (["failures", "--last", "7d", "--to", "2026-02-02"], "leave out --from and --to"),
        (["quarantine", "replay"], "say --all"),
        (["quarantine", "dismiss", "--all", "00ff"], "say --all"),
        (["forget"], "Say what to erase"),
        (["nonsense"], "nonsense"),
        (["run", "--nonsense"], "--nonsense"),
    ],
)
def test_arguments_that_cannot_be_used_are_2(arguments: list[str], complaint: str) -> None:
    result = CliRunner().invoke(app, arguments, env={"TERMINAL_WIDTH": "200"})
    assert result.exit_code == 2, result.output
    assert complaint in result.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("instead", [RuntimeError("Query interrupted"), UsmsError("It broke.")])
def test_an_interrupt_that_a_library_turns_into_an_error_still_counts(
    number: int, code: int, instead: Exception
) -> None:
    """DuckDB swallows the KeyboardInterrupt, and raises RuntimeError or one of its errors."""

    def command() -> None:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            raise instead from None

    single = typer.Typer(pretty_exceptions_enable=False)
    single.command()(shell.as_command(command))
    result = CliRunner().invoke(single, [])
    assert (result.exit_code, result.stderr.count("\n")) == (code, 1)
    assert result.stderr.startswith("✗ Stopped.")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_help_and_version_need_no_settings(tmp_path: Path) -> None:
    for argument in ("--help", "--version"):
        ran = subprocess.run(
            [*USMS, argument], cwd=tmp_path, env=bare_environment(), capture_output=True, text=True
        )
        assert (ran.returncode, ran.stderr) == (0, "")


def test_a_reader_that_stops_reading_is_no_error_worth_a_traceback(tmp_path: Path) -> None:
    script = (
        "import typer\n"
        "from usms_pipeline.cli.shell import as_command\n"
        "def pour() -> None:\n"
        "    for _ in range(100_000): print('x' * 100)\n"
        "typer.run(as_command(pour))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env=bare_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.read(10)
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == 141


@dataclass
class Report:
    day: date
    at: datetime
    spans: dict[date, timedelta]
    path: Path
    parts: tuple[int | None, ...]


def test_reports_become_json(capsys: pytest.CaptureFixture[str]) -> None:
    day, at = date(2026, 1, 2), datetime(2026, 1, 2, 3, tzinfo=UTC)
    shell.echo_json(Report(day, at, {day: timedelta(minutes=1)}, Path("a/b"), (1, None)))
    assert json.loads(capsys.readouterr().out) == {
        "day": "2026-01-02",
        "at": "2026-01-02T03:00:00+00:00",
        "spans": {"2026-01-02": 60.0},
        "path": "a/b",
        "parts": [1, None],
    }
