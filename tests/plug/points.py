"""Inside a command's process: counts the steps by which files come to be, change and go.

``install`` puts a counter around the functions for that, before the command is imported; ``arm``
says, in the process that is to run it, at which step to die. Nothing lists the steps by hand.
"""

from __future__ import annotations

import builtins
import hashlib
import io
import json
import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

from tests.plug.disk import Durable, tree

_kill, _write, _open, _readlink = os.kill, os.write, os.open, os.readlink


@dataclass(frozen=True)
class Job:
    """A command to run and what is to become of it. Steps count from 1; 0 is none.

    ``root`` is the folder whose files count; the folder ``beside`` takes the log and what the
    power cut needs. ``at`` is the step, ``after_seconds`` the time since the first step, at which
    the signal ``number`` is sent.
    """

    argv: list[str]
    env: dict[str, str]
    root: str
    beside: str
    at: int = 0
    after_seconds: float = 0.0
    number: int = signal.SIGKILL
    is_learning: bool = False
    flaws: list[str] = field(default_factory=list)
    """Ways to work that must be found out: ``plain_write``, ``no_fsync`` (of files)."""


class Plug:
    """Counts one process's steps, writes them down, and pulls the plug at the one chosen."""

    def __init__(self, job: Job) -> None:
        self.job, self.count = job, 0
        self.lock = threading.RLock()
        self.durable = Durable(job.root, f"{job.beside}/shadow")
        self.log = _open(f"{job.beside}/steps", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def step(self, when: str, what: str, *paths: str) -> None:
        """Note a moment just before or after something was done to files."""
        with self.lock:
            self.count += 1
            if self.count == 1 and self.job.after_seconds:
                self._pull_later()
            said: dict[str, Any] = {"when": when, "what": what, "paths": paths}
            if self.job.is_learning:
                said |= {
                    "tree": _digest(tree(self.job.root)),
                    "shown": _digest(tree(self.job.root, with_hidden=False)),
                    "left": _digest(self.durable.left()),
                }
            _write(self.log, json.dumps(said).encode() + b"\n")
            if self.count == self.job.at:
                self.durable.write(f"{self.job.beside}/durable")
                _kill(os.getpid(), self.job.number)

    def _pull_later(self) -> None:
        """Pull the plug after some time, in the middle of any step."""
        timer = threading.Timer(self.job.after_seconds, self._pull)
        timer.daemon = True
        timer.start()

    def _pull(self) -> None:
        _write(self.log, b'{"when": "at", "what": "a moment", "paths": []}\n')
        _kill(os.getpid(), self.job.number)

    def counts(self, *paths: str) -> bool:
        """Return whether a path is one whose steps are counted."""
        root = f"{self.job.root}/"
        return any(path.startswith(root) or path == self.job.root for path in paths)


_plug: Plug | None = None


def arm(job: Job) -> None:
    """Begin to count, in this process."""
    global _plug
    _plug = Plug(job)
    if "plain_write" in job.flaws:
        _ordinary_replace()
    if "no_fsync" in job.flaws:
        _fsync_folders_alone()


def ended() -> None:
    """Count the end of the command as its last step."""
    if _plug:
        _plug.step("after", "the command")


def install() -> None:
    """Put the counters in place; they do nothing until ``arm``."""
    for name in ("mkdir", "rmdir", "unlink", "remove", "chmod", "truncate"):
        _around(os, name, lambda path, *_, **__: (path,))
    for name in ("replace", "rename", "link", "symlink"):
        _around(os, name, lambda source, target, *_, **__: (source, target))
    _around(os, "fsync", lambda fd: (_readlink(f"/proc/self/fd/{fd}"),), _synced)
    _around(os, "open", lambda path, flags, *_, **__: (path,) if flags & os.O_CREAT else ())
    _around(io, "open", lambda path, mode="r", *_, **__: (path,) if set(mode) & set("wax+") else ())
    builtins.open = io.open


def install_writers() -> None:
    """Put counters around what writes files in C++, where no function of Python's own is seen."""
    import pyarrow.parquet as pq

    from usms_pipeline.store.storage import Store

    for name in ("__init__", "write_table", "close"):
        _around(pq.ParquetWriter, name, lambda writer, *given, **__: (
            given[0] if given and not hasattr(given[0], "schema") else getattr(writer, "where", ""),
        ))  # fmt: skip
    _around(Store, "delete", lambda store, name: (store.path(name),))
    _within(Store, "replacing")


def _around(
    place: Any,
    name: str,
    paths_of: Callable[..., tuple[Any, ...]],
    then: Callable[[Plug, tuple[str, ...]], None] = lambda plug, paths: None,
) -> None:
    function = getattr(place, name)

    @wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        plug = _plug
        paths = _absolute(paths_of(*args, **kwargs)) if plug else ()
        if plug is None or not plug.counts(*paths):
            return function(*args, **kwargs)
        plug.step("before", name, *paths)
        result = function(*args, **kwargs)
        then(plug, paths)
        plug.step("after", name, *paths)
        return result

    setattr(place, name, counted)


def _within(place: Any, name: str) -> None:
    """Count the beginning and the end of a context that yields a path or works on a first one."""
    function = getattr(place, name)

    @wraps(function)
    @contextmanager
    def counted(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with function(*args, **kwargs) as yielded:
            paths = _absolute((yielded, *args))
            if _plug:
                _plug.step("begin", name, *paths)
            yield yielded
            if _plug:
                _plug.step("end", name, *paths)

    setattr(place, name, counted)


def _synced(plug: Plug, paths: tuple[str, ...]) -> None:
    plug.durable.synced(*paths)


def _absolute(paths: tuple[Any, ...]) -> tuple[str, ...]:
    """Return those that are paths, in full."""
    kinds = (str, os.PathLike)
    return tuple(str(Path(path).absolute()) for path in paths if isinstance(path, kinds))


def _ordinary_replace() -> None:
    """Make a file under its name as most programs do: write its bytes there."""

    def replace(source: Any, target: Any, **_: Any) -> None:
        Path(target).write_bytes(Path(source).read_bytes())
        Path(source).unlink()

    os.replace = replace


def _fsync_folders_alone() -> None:
    fsync = os.fsync
    os.fsync = lambda fd: fsync(fd) if stat.S_ISDIR(os.fstat(fd).st_mode) else None


def _digest(found: list[Any]) -> str:
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]
