"""``usms demo``: the whole way from a table of messages to a delivery rate, on this machine.

Everything it makes is in one folder, with a .env, so that any command works from there. It never
reads or writes what your own settings name.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.markup import escape

from usms_pipeline.cli import config, progress
from usms_pipeline.cli import messages as made_up
from usms_pipeline.cli.rates import show_rates
from usms_pipeline.cli.rehearsal import MARK, is_demo
from usms_pipeline.cli.shell import FELL_SHORT, OK, out, warn
from usms_pipeline.cli.tables import facts_grid
from usms_pipeline.contract import wording

if TYPE_CHECKING:
    from usms_pipeline.settings import Settings

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
    started_in, folder = Path.cwd(), folder.absolute()
    if dev and find_spec("dagster_webserver") is None:
        raise typer.BadParameter(
            "--dev needs Dagster's page: pip install 'usms-pipeline[dagster-ui]'."
        )
    _clear(folder)
    with ExitStack() as stack:
        with progress.steps() as say:
            say("Making messages", f"{wording.count(messages)} sent in the last {DAYS} days")
            url = stack.enter_context(_service(folder, messages, seed))
            settings = _settle_in(folder, url)
            troubles = _refresh(say, settings)
        warn(troubles)
        if not troubles:
            show_rates(settings, "sent_date")
            _show_places(settings, folder, started_in)
        if not (troubles or dev or serve):
            _show_next(folder, started_in)
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


@contextmanager
def _service(folder: Path, messages: int, seed: int) -> Iterator[str]:
    """Make the messages, keep them as a customer would, and serve their receipts over HTTP."""
    from usms_pipeline.simulator import Population, Simulator, serve

    table = Population(messages, DAYS, seed, customers=made_up.customers(messages)).table()
    made_up.write(table, folder / _SOURCE)
    with serve(Simulator(table, seed=seed)) as url:
        yield url


def _settle_in(folder: Path, url: str) -> Settings:
    """Make the folder's settings the only ones, here and for every command run from there."""
    from usms_pipeline.simulator import ACCESS_KEY_ID, ACCESS_KEY_SECRET

    given = {
        "base_url": url,
        "access_key_id": ACCESS_KEY_ID,
        "access_key_secret": ACCESS_KEY_SECRET,
        "source_url": f"sqlite:///{_SOURCE}",
        "source_table": made_up.TABLE,
        "phone_column": "phone",
        "dimensions": "template,purpose,sender",
        "data_dir": "data",
        "start_date": str(datetime.now(UTC).date() - timedelta(days=DAYS)),
    }
    text = "".join(f"{config.variable(name)}={value}\n" for name, value in given.items())
    (folder / ".env").write_text(f"{MARK}{text}")  # 0600 since `_clear`
    (folder / _HOME).mkdir(exist_ok=True)
    (folder / _HOME / "dagster.yaml").write_text(_DAGSTER_YAML)
    for name in [name for name in os.environ if name.startswith(config.PREFIX)]:
        del os.environ[name]
    os.environ["DAGSTER_HOME"] = str(folder / _HOME)
    os.chdir(folder)
    return config.load(["source", "api"])


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


def _show_places(settings: Settings, folder: Path, started_in: Path) -> None:
    from usms_pipeline.warehouse.read import to_open

    shown = Path(os.path.relpath(folder, started_in))
    report = settings.warehouse_path.with_name("report.html")
    file = shown / settings.warehouse_path
    places = [
        ("warehouse", escape(str(file))),
        ("", f"read-only, and opened so: {escape(to_open(file))}, or usms sql"),
    ]
    if report.exists():
        places.append(("report", escape(str(shown / report))))
    if notebooks := sorted(started_in.glob("notebooks/*.ipynb")):
        places.append(("notebook", escape(str(notebooks[0].relative_to(started_in)))))
    out().print(facts_grid(*places))


def _show_next(folder: Path, started_in: Path) -> None:
    """Print what to type now: as it is found from the folder that the user is in."""
    shown = escape(os.path.relpath(folder, started_in))
    there, here = escape(_usms(folder)), escape(_usms(started_in))
    out().print(
        facts_grid(
            ("next", f"[bold]cd {shown} && {there} rates --by country[/]"),
            ("or", f"[bold]{here} demo --serve[/]: again, and the service stays up for runs"),
            ("", f"[bold]{here} demo --dev[/]: again, with Dagster's page on it"),
        )
    )


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
        command, cwd=folder, env=quiet, start_new_session=True, preexec_fn=_heed_interrupts
    )
    try:
        child.wait()
    except KeyboardInterrupt:
        child.send_signal(signal.SIGINT)
        child.wait()


def _heed_interrupts() -> None:
    """Undo an ignored SIGINT, which a background shell hands down: Dagster stops by no other."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
