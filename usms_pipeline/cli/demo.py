"""``usms demo``: the whole way from a table of messages to a delivery rate, on this machine.

Everything it makes is in one folder, with a .env, so that any command works from there. It never
reads or writes what your own settings name.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlsplit

import typer
from rich.markup import escape

import usms_pipeline
from usms_pipeline.cli import progress, simulate
from usms_pipeline.cli.rates import rates
from usms_pipeline.cli.shell import FELL_SHORT, OK, out, warn
from usms_pipeline.cli.tables import facts_grid
from usms_pipeline.contract import wording
from usms_pipeline.contract.errors import ServiceDown

if TYPE_CHECKING:
    from usms_pipeline.settings import Settings

MARK: Final = "# Made by `usms demo`, which replaces all of this folder.\n"
"""The first line of a demo's .env."""

_MISSING: Final = (
    "The simulated service of this demo is not running: `usms demo --serve`, in the folder above, "
    "makes the demo again and keeps it running."
)

DAYS: Final = 18
_SOURCE: Final = "messages.sqlite"
_HOME: Final = "dagster"
_DAGSTER_YAML: Final = "telemetry:\n  enabled: false\nnux:\n  enabled: false\n"

Messages = Annotated[int, typer.Option("--messages", min=1, help="Number of messages.")]
Folder = Annotated[Path, typer.Option("--dir", help="Folder for the demo.", file_okay=False)]
Serve = Annotated[bool, typer.Option("--serve", help="Keep the simulated service running.")]
Dev = Annotated[bool, typer.Option("--dev", help="Then run Dagster's page, until Ctrl-C.")]
Port = Annotated[int, typer.Option("--port", help="Port of Dagster's page, with --dev.")]
Seed = Annotated[int, typer.Option("--seed", help="Random seed of the messages.")]


def demo(
    messages: Messages = 50_000,
    folder: Folder = Path("demo"),
    serve: Serve = False,
    dev: Dev = False,
    port: Port = 3000,
    seed: Seed = 0,
) -> int:
    """Try everything: made-up messages, a simulated service, the Dagster job, the rates."""
    from usms_pipeline.simulator import Simulator
    from usms_pipeline.simulator import serve as serve_simulator

    started_in, folder = Path.cwd(), folder.absolute()
    if dev and find_spec("dagster_webserver") is None:
        raise typer.BadParameter(
            "--dev needs Dagster's page: pip install 'usms-pipeline[dagster-ui]'."
        )
    _clear(folder)
    with ExitStack() as stack:
        with progress.steps() as say:
            say("Making messages", f"{wording.count(messages)} sent in the last {DAYS} days")
            table = simulate.made_up(messages, DAYS, seed)
            simulate.write(table, folder / _SOURCE)
            url = stack.enter_context(serve_simulator(Simulator(table, seed=seed)))
            settings = _settle_in(folder, url)
            troubles = _refresh(say, settings)
        warn(troubles)
        if not troubles:
            rates(by=["sent_date"])
            _show_places(settings, folder, started_in, is_over=not (dev or serve))
        if dev:
            _dagster_dev(folder, port)
        elif serve:
            with suppress(KeyboardInterrupt):  # from before the sentence: it invites to stop it
                out().print(f"\nThe simulated service is on [bold]{url}[/]. Ctrl-C stops it.")
                threading.Event().wait()
    return FELL_SHORT if troubles else OK


def _clear(folder: Path) -> None:
    """Remove an earlier demo, and nothing else: a folder of another kind is refused."""
    mark = folder / ".env"
    if folder.exists() and any(folder.iterdir()):
        if not is_demo(folder):
            raise typer.BadParameter(f"{folder} holds something else; name another with --dir.")
        for name in ("data", _HOME):
            shutil.rmtree(folder / name, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch(mode=0o600)
    mark.chmod(0o600)
    mark.write_text(MARK)


def is_demo(folder: Path) -> bool:
    """Return whether ``usms demo`` made a folder."""
    env = folder / ".env"
    return env.exists() and env.read_text("utf-8", "replace").startswith(MARK)


def check_service(settings: Settings) -> None:
    """Raise ``ServiceDown`` in a demo's folder whose simulated service does not run."""
    parts = urlsplit(settings.base_url)
    if is_demo(Path()) and usms_pipeline.settings.is_loopback(parts.hostname or ""):
        try:
            socket.create_connection((parts.hostname, parts.port or 80), timeout=5).close()
        except OSError:
            raise ServiceDown(_MISSING) from None


def _settle_in(folder: Path, url: str) -> Settings:
    """Make the folder's settings the only ones, here and for every command run from there."""
    from usms_pipeline.simulator import ACCESS_KEY_ID, ACCESS_KEY_SECRET

    given = {
        "base_url": url,
        "access_key_id": ACCESS_KEY_ID,
        "access_key_secret": ACCESS_KEY_SECRET,
        "source_url": f"sqlite:///{_SOURCE}",
        "source_table": simulate.TABLE,
        "phone_column": "phone",
        "dimensions": "template,purpose,sender",
        "data_dir": "data",
        "start_date": str(datetime.now(UTC).date() - timedelta(days=DAYS)),
    }
    variable = usms_pipeline.settings.variable
    text = "".join(f"{variable(name)}={value}\n" for name, value in given.items())
    (folder / ".env").write_text(f"{MARK}{text}")  # 0600 since `_clear`
    (folder / _HOME).mkdir(exist_ok=True)
    (folder / _HOME / "dagster.yaml").write_text(_DAGSTER_YAML)
    for name in [name for name in os.environ if name.startswith(usms_pipeline.settings.PREFIX)]:
        del os.environ[name]
    os.environ["DAGSTER_HOME"] = str(folder / _HOME)
    os.chdir(folder)
    return usms_pipeline.settings.load(["source", "api"])


def _refresh(say: progress.Say, settings: Settings) -> list[str]:
    """Run the Dagster job over the demo's days; return what went wrong."""
    say("Loading Dagster", "job refresh_usms")
    from usms_pipeline.defs.once import run_refresh

    today = datetime.now(settings.zone).date()
    # a run of Dagster in this process leaves its own signal handlers behind
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return run_refresh(
            today - timedelta(days=DAYS), today, lambda name, said: say(f"usms/{name}", said)
        )
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show_places(settings: Settings, folder: Path, started_in: Path, is_over: bool) -> None:
    """Print where everything is; and what to type now, as it is found from the user's folder."""
    from usms_pipeline.pipeline import REPORT
    from usms_pipeline.warehouse.read import to_open

    shown = Path(os.path.relpath(folder, started_in))
    report = settings.warehouse_path.with_name(REPORT)
    file = shown / settings.warehouse_path
    places = [
        ("warehouse", escape(str(file))),
        ("", f"to open it: {escape(to_open(file))}, or usms sql"),
    ]
    if report.exists():
        places.append(("report", escape(str(shown / report))))
    if notebooks := sorted(started_in.glob("notebooks/*.ipynb")):
        places.append(("notebook", escape(str(notebooks[0].relative_to(started_in)))))
    if is_over:
        there, here = escape(_usms(folder)), escape(_usms(started_in))
        places += [
            ("next", f"[bold]cd {escape(str(shown))} && {there} rates --by country[/]"),
            ("or", f"[bold]{here} demo --serve[/]: again, with the service kept up for usms run"),
            ("", f"[bold]{here} demo --dev[/]: again, with Dagster's web page"),
        ]
    out().print(facts_grid(*places))


def _usms(folder: Path) -> str:
    """Return how this command is called from a folder: by its path, where none is on PATH."""
    ours = Path(sys.executable).with_name("usms")
    if shutil.which("usms") or not ours.exists():
        return "usms"
    return os.path.relpath(ours, folder)


def _dagster_dev(folder: Path, port: int) -> None:
    """Run Dagster's page on the demo's data until it ends or is stopped."""
    module = ["-m", "usms_pipeline.definitions"]
    command = [sys.executable, "-m", "dagster", "dev", *module, "-h", "127.0.0.1", "-p", str(port)]
    out().print(
        f"\nDagster's page is on [bold]http://127.0.0.1:{port}[/] in a moment. Ctrl-C stops it."
    )
    # A session of its own: Ctrl-C reaches it once, through us, also where there is no terminal.
    quiet = os.environ | {"PYTHONWARNINGS": "ignore"}
    child = subprocess.Popen(
        command, cwd=folder, env=quiet, start_new_session=True,
        # a background shell hands down an ignored SIGINT, and Dagster stops by no other signal
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        child.wait()
    except KeyboardInterrupt:
        child.send_signal(signal.SIGINT)
        child.wait()
