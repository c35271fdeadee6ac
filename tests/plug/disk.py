"""What a power cut leaves: the contents and the names that were fsynced, and nothing else.

A file's contents last if it was fsynced after its last change, else half of them; a name, made,
given or taken away, lasts if its folder was fsynced after. That is the worst that POSIX allows.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

# As they were before ``points`` put its counters around them.
_link, _open = os.link, open

Stamp = list[int]


class Durable:
    """What would be left below ``root`` now; ``synced`` must be called at every fsync.

    ``shadow``, beside it, keeps every file that is durable under a second name.
    """

    def __init__(self, root: str, shadow: str) -> None:
        self.root, self.shadow = root, shadow
        self.contents: dict[str, Stamp] = {}  # by inode: size and time of the last change
        self.names: dict[str, dict[str, int]] = {}  # by folder: the inode of each name
        for folder, _, files in os.walk(root):
            self.synced(folder)
            for file in files:
                self.synced(f"{folder}/{file}")

    def synced(self, path: str) -> None:
        """Note that a file or a folder was fsynced, as it is now."""
        if Path(path).is_dir():
            with os.scandir(path) as entries:
                found = {entry.name: entry for entry in entries}
            self.names[path] = {name: entry.inode() for name, entry in found.items()}
            for entry in found.values():
                self._keep(entry)
        else:
            self.contents[str(Path(path).stat().st_ino)] = _stamp(path)

    def _keep(self, entry: os.DirEntry[str]) -> None:
        kept = Path(self.shadow, str(entry.inode()))
        if not entry.is_dir() and not kept.exists():
            _link(entry.path, kept)

    def write(self, path: str) -> None:
        """Write all of it down, for ``cut``."""
        with _open(path, "w") as file:
            json.dump(vars(self), file)

    def left(self) -> list[Any]:
        """Describe what a power cut now would leave, to tell one such state from another."""
        found: list[Any] = []
        folders = [self.root]
        for folder in folders:
            for name, inode in sorted(self.names.get(folder, {}).items()):
                path = f"{folder}/{name}"
                kept = f"{self.shadow}/{inode}"
                if Path(path).is_dir() and name != ".locks":
                    folders.append(path)
                is_whole = Path(kept).exists() and _stamp(kept) == self.contents.get(str(inode))
                found.append([path, inode, is_whole])
        return found


def _stamp(path: str | Path) -> Stamp:
    said = Path(path).stat()
    return [said.st_size, said.st_mtime_ns]


def tree(root: str, *, with_hidden: bool = True) -> list[Any]:
    """Describe what is there below ``root``, locks apart.

    Of a hidden file only that it is there, if that: nobody reads what is in it.
    """
    found: list[Any] = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name != ".locks")
        for name in sorted([*files, *folders]):
            if name.startswith(".") and not with_hidden:
                continue
            said = os.lstat(f"{folder}/{name}")
            facts = [said.st_ino]
            if name in files and not name.startswith("."):
                facts += [said.st_size, said.st_mtime_ns]
            found.append([folder, name, *facts])
    return found


def cut(written: Path) -> None:
    """Remove from the disk what was not durable, by what ``Durable.write`` wrote."""
    said = json.loads(written.read_text())
    folders = [said["root"]]
    for folder in folders:
        names = said["names"].get(folder, {})
        with os.scandir(folder) as entries:
            for entry in entries:
                if names.get(entry.name) != entry.inode():
                    _remove(Path(entry.path))
        for name, inode in names.items():
            path = Path(folder, name)
            if not path.exists() and str(path) in said["names"]:
                path.mkdir()
            elif not path.exists():
                _link(Path(said["shadow"], str(inode)), path)
            if path.is_dir():
                folders.append(str(path))
            elif _stamp(path) != said["contents"].get(str(inode)):
                os.truncate(path, path.stat().st_size // 2)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
