"""Commands as processes, from the test's side: run one, on a folder, to its end or to its death."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.plug.points import Job

_ROOT = Path(__file__).parents[2]
_QUIET = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""Libraries that start threads as they are imported are told not to: see ``zygote``."""


@dataclass(frozen=True)
class Ended:
    """How a process ended: exit code (negative: the signal), what it said, the steps it took."""

    code: int
    stdout: str
    stderr: str
    steps: list[dict[str, Any]]
    beside: Path


@dataclass
class Commands:
    """Runs commands one after the other."""

    zygote: subprocess.Popen[str]
    beside: Path

    def __call__(self, root: Path, env: dict[str, str], argv: list[str], **given: Any) -> Ended:
        """Run ``usms`` on the folder ``root``; ``given`` are fields of ``Job``."""
        shutil.rmtree(self.beside, ignore_errors=True)
        (self.beside / "shadow").mkdir(parents=True)
        job = Job(argv=argv, env=env, root=str(root), beside=str(self.beside), **given)
        assert self.zygote.stdin is not None
        assert self.zygote.stdout is not None
        self.zygote.stdin.write(json.dumps(asdict(job)) + "\n")
        self.zygote.stdin.flush()
        assert self.zygote.stdout.readline(), "the zygote has died: see stderr"
        code = json.loads(self.zygote.stdout.readline())
        steps = [json.loads(line) for line in (self.beside / "steps").read_text().splitlines()]
        said = [(self.beside / name).read_text() for name in ("stdout", "stderr")]
        return Ended(code, said[0], said[1], steps, self.beside)


@contextmanager
def commands(folder: Path) -> Iterator[Commands]:
    """Start what runs commands; ``folder`` takes what they leave beside their work."""
    env = {name: text for name, text in os.environ.items() if not name.startswith(("USMS_", "COV"))}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.plug.zygote"],
        cwd=_ROOT,
        env=env | _QUIET,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as zygote:
        yield Commands(zygote, folder / "beside")
