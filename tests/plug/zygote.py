"""A process that has imported the command line, and forks one that runs it for every line it reads.

Each is a real process of the real command line, without the second that its imports take.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import signal
import sys
import threading
from pathlib import Path

from tests.plug import points

_NOT_OF_COMMANDS = ("components", "definitions", "defs", "charts", "notebook", "__main__")
_PATIENCE_SECONDS = 60


def main() -> None:
    """Serve; in a process forked off, run its command."""
    points.install()
    _import_all()
    points.install_writers()
    threads = len(list(Path("/proc/self/task").iterdir()))
    assert threads == 1, f"{threads} threads: a fork would not have them"
    job = _serve()
    if job is not None:
        _run(job)
    _leave(0)


def _import_all() -> None:
    """Import what the commands import as they go, and what reads a phone number."""
    import pyarrow as pa

    import usms_pipeline
    from usms_pipeline.people.phones import PhoneBook

    for found in pkgutil.walk_packages(usms_pipeline.__path__, "usms_pipeline."):
        if found.name.split(".")[1] not in _NOT_OF_COMMANDS:
            importlib.import_module(found.name)
    PhoneBook(bytes(32), "CN", "masked").describe(pa.array(["+8613800138000", "13800138000"]))
    gc.freeze()  # what is shared is not touched again


def _serve() -> points.Job | None:
    """Fork for every job read, tell the process's id, then its status."""
    for line in sys.stdin:
        job = points.Job(**json.loads(line))
        child = os.fork()
        if not child:
            return job
        print(json.dumps(child), flush=True)
        _, status = os.waitpid(child, 0)
        print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)
    return None


def _run(job: points.Job) -> None:
    signal.alarm(_PATIENCE_SECONDS)  # one that hangs dies of it, and its status says so
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{job.beside}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(job.root)
    os.environ.update(job.env, TMPDIR=job.beside)
    sys.argv = ["usms", *job.argv]
    points.arm(job)
    from usms_pipeline import cli

    try:
        cli.main()
    except SystemExit as error:
        points.ended()
        _leave(error.code)


def _leave(code: object) -> None:
    """Exit without taking apart, object by object, all that was imported."""
    sys.stdout.flush()
    sys.stderr.flush()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    main()
