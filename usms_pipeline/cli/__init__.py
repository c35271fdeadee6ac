"""The command line ``usms``: thin shells over the pipeline, the warehouse and the simulator.

Each command parses, calls one function of the core, and prints. No figures are made here.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from usms_pipeline.cli import (
    check,
    demo,
    init,
    quarantine,
    rates,
    run,
    serve,
    simulate,
    sql,
    upkeep,
)
from usms_pipeline.cli.shell import as_command, prepare_streams, show_tracebacks

app = typer.Typer(
    name="usms",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Settings are read from USMS_… variables and from .env in the current folder. "
    "Exit codes: 0 done, 1 finished with errors, 2 wrong settings or arguments, "
    "3 the service refused the credentials.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"usms-pipeline {version('usms-pipeline')}")
        raise typer.Exit


@app.callback()
def usms(
    debug: Annotated[
        bool,
        typer.Option(
            "--debug",
            envvar="USMS_DEBUG",
            help="Show the traceback of an error, without secrets and numbers.",
        ),
    ] = False,
    _: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_version, help="Show the version."),
    ] = False,
) -> None:
    """Turn SMS delivery receipts into delivery rates you can query."""
    # gives back what it frees, at no cost that could be measured: 100 MB less at the peak
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    prepare_streams()
    show_tracebacks.set(debug)


for name, command, panel in (
    ("demo", demo.demo, "Try it"),
    ("simulate", simulate.simulate, "Try it"),
    ("init", init.init, "Collect"),
    ("check", check.check, "Collect"),
    ("plan", run.plan, "Collect"),
    ("run", run.run, "Collect"),
    ("rates", rates.rates, "Read"),
    ("alerts", rates.alerts, "Read"),
    ("failures", rates.failures, "Read"),
    ("costs", rates.costs, "Read"),
    ("sql", sql.sql, "Read"),
    ("report", serve.report, "Read"),
    ("serve", serve.serve, "Read"),
    ("rebuild", upkeep.rebuild, "Keep in order"),
    ("forget", upkeep.forget, "Keep in order"),
):
    app.command(name, rich_help_panel=panel)(as_command(command))
app.add_typer(quarantine.app, name="quarantine", rich_help_panel="Keep in order")


def main() -> None:
    """Run ``usms`` on the process's arguments, and exit."""
    app()
