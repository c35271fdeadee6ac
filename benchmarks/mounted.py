"""A file system of its own in a file, where two files can share their blocks (reflinks)."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BYTES = 3_000_000_000
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"


def missing() -> str:
    """Say what is missing to mount one; nothing where it can be done."""
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    has_xfs = shutil.which("mkfs.xfs", path=_PATH)
    return "" if is_root and has_xfs else "needs root and xfsprogs"


@contextmanager
def xfs() -> Iterator[Path]:
    """Mount an XFS, sparse and removed at the end. Raises ``CalledProcessError``."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        image, place = Path(folder, "image"), Path(folder, "mounted")
        place.mkdir()
        with image.open("wb") as file:
            file.truncate(_BYTES)
        for command in (
            ["mkfs.xfs", "-q", "-m", "reflink=1", image],
            ["mount", "-o", "loop", image, place],
        ):
            subprocess.run(command, check=True, env=os.environ | {"PATH": _PATH})
        try:
            yield place
        finally:
            subprocess.run(["umount", place], check=True)
