"""Small disks for the tests, in memory: to be filled, made read-only, and unmounted at the end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PAGE = 4096
AMPLE = "size=64m,nr_inodes=5000"


@dataclass(frozen=True)
class Disk:
    """A disk of its own, at ``path``."""

    path: Path

    def remount(self, options: str) -> None:
        """Change its size, its number of files, or whether it can be written."""
        _run("mount", "-o", f"remount,{options}", str(self.path))

    def hold_pages(self, pages: int) -> None:
        """Let it hold this number of pages of 4 kB, no fewer than it has."""
        it = os.statvfs(self.path)
        used = (it.f_blocks - it.f_bfree) * it.f_frsize // PAGE
        self.remount(f"size={max(pages, used) * PAGE}")

    def hold_files(self, files: int) -> None:
        """Let it hold this number of files and folders, no fewer than it has."""
        it = os.statvfs(self.path)
        self.remount(f"nr_inodes={max(files, it.f_files - it.f_ffree)}")

    @property
    def files(self) -> list[str]:
        """List what is on it, temporary files too; not the locks."""
        found = (p for p in self.path.rglob("*") if p.is_file() and ".locks" not in p.parts)
        return sorted(str(p.relative_to(self.path)) for p in found)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Yield an empty disk; skips where mounting is not allowed, and fails there in CI."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", AMPLE, "tmpfs", str(place)], capture_output=True, text=True
    )
    if mounted.returncode:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must be allowed to mount a tmpfs: {mounted.stderr}")
        pytest.skip(f"needs to mount a tmpfs: {mounted.stderr.strip()}")
    try:
        yield Disk(place)
    finally:
        # what a failed test still holds open must not keep it
        _run("umount", "--lazy", str(place))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def without_the_rights_of_root(command: list[str]) -> list[str]:
    """Make a command obey the modes of files, also when root runs it."""
    if os.geteuid() != 0:
        return command
    dropped = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}", *command]
