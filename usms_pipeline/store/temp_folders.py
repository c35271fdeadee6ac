"""Private temporary folders that go with the process that made them.

Knows nothing of what is put there.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_PREFIX: Final = "usms-work-"
_IN_USE: Final = "in-use"


@contextmanager
def temp_folder() -> Iterator[Path]:
    """Yield a new folder (0700), removed at the end; first remove those of dead processes.

    One is in use while a lock is held on a file in it, which the system drops with the process.
    Raises ``OSError`` where none can be made.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if _is_left(left):
                _remove(left)
    folder, lock = _made()
    try:
        yield folder
    finally:
        _remove(folder)
        os.close(lock)


def _made() -> tuple[Path, int]:
    """Make a folder that has its name only once it is locked, so that no other process removes it.

    Where the file system has no locks, nobody finds the folder free, and nobody removes it.
    """
    new = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}"))
    try:
        lock = os.open(new / _IN_USE, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return new.rename(new.with_name(new.name[1:])), lock
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def _is_left(folder: Path) -> bool:
    """Return whether a folder is ours and its process dead. Raise ``OSError`` if one lives."""
    said = folder.lstat()
    # in one that others may write to, a link could lead anywhere
    if not stat.S_ISDIR(said.st_mode) or said.st_uid != os.geteuid() or said.st_mode & 0o077:
        return False
    lock = os.open(folder / _IN_USE, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(lock)
    return True


def _remove(folder: Path) -> None:
    """Remove a folder; its mark last."""
    with suppress(OSError):
        for one in folder.iterdir():
            if one.name != _IN_USE:
                one.unlink()
    shutil.rmtree(folder, ignore_errors=True)
