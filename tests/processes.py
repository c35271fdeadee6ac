"""The command line as real processes on an account: how each ended, and what it said.

The messages are older than the cutoff by the real clock, so one run asks about each once, and what
it ends with does not hang on the moment. Nothing here knows what is wrong in the world.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from tests.account import Account
from usms_pipeline.simulator import Population

USMS = [sys.executable, "-m", "usms_pipeline"]
KEY = "0123456789abcdef" * 2
_MOMENTS = "first_asked_at, last_asked_at, final_at, last_open_at, _state"


@dataclass(frozen=True)
class Ended:
    """How a process ended, and what it wrote."""

    code: int
    out: str
    said: str


def old_messages(count: int, **more: Any) -> pa.Table:
    """Messages that are past the cutoff already."""
    until = datetime.now(UTC) - timedelta(hours=80)
    given = {"days": 2, "group_share": 0.1} | more
    return Population(count, until=until, **given).table()


def account_now(folder: Path, simulator: Any, messages: pa.Table, **given: Any) -> Account:
    """An account whose clock stands at the real time."""
    folder.mkdir(parents=True, exist_ok=True)
    first = messages["sent_at"][0].as_py().date() - timedelta(days=1)
    given = {"phone_key": KEY, "start_date": str(first)} | given
    account = Account(folder, simulator, messages, **given)
    account.clock.now = datetime.now(UTC)
    return account


def bare_environment() -> dict[str, str]:
    """Return this process's environment without any USMS_ variable."""
    return {name: value for name, value in os.environ.items() if not name.startswith("USMS_")}


def started(account: Account, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    """Start ``usms`` on the account's settings, and on others given in lower case."""
    given = {f"USMS_{name.upper()}": str(v) for name, v in (account.given | settings).items()}
    return subprocess.Popen(
        [*USMS, *arguments],
        cwd=account.folder,
        env=bare_environment() | given,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> Ended:
    """Wait for a process."""
    out, said = process.communicate(timeout=120)
    return Ended(process.returncode, out, said)


def usms(account: Account, *arguments: str, **settings: str) -> Ended:
    """Run ``usms`` to its end."""
    return ended(started(account, *arguments, **settings))


def bare(command: list[str], cwd: Path, given: dict[str, str] | None = None) -> str:
    """Run a command without any variable but ``given``, and return what it says."""
    bare = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(cwd)}
    bare["VIRTUAL_ENV"] = str(Path(sys.executable).parent.parent)
    done = subprocess.run(
        command, cwd=cwd, env=bare | (given or {}), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def environment_with(folder: Path, *wanted: str) -> Path:
    """Make an environment, install what pip is to install, and return its ``bin``."""
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet"]
    for command in ([sys.executable, "-m", "venv", str(folder)], [*pip, *wanted]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    return folder / "bin"


def sentence(it: Ended, code: int = 1) -> str:
    """Return the one sentence of a command that failed with a code as it should."""
    assert it.code == code, it
    (line,) = it.said.splitlines()
    assert line.startswith("✗ ")
    assert "Unexpected" not in line
    return line


def outcome(account: Account) -> list[tuple[Any, ...]]:
    """Every row of the dataset, but for the moments of asking."""
    return account.sql(f"SELECT * EXCLUDE ({_MOMENTS}) FROM receipts ORDER BY ALL")


def undisturbed(folder: Path, simulator: Any, messages: pa.Table, **given: Any) -> list[Any]:
    """What a run that nothing disturbs ends with."""
    account = account_now(folder, simulator, messages, **given)
    account.run()
    return outcome(account)


def wait_until(happened: Callable[[], object]) -> None:
    """Wait for up to a minute."""
    for _ in range(3000):
        if happened():
            return
        time.sleep(0.02)
    raise AssertionError("it did not happen within a minute")
