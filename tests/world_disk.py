"""What lies in a data directory, read with pyarrow and json alone: the witness, not the suspect."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.world_answers import Trouble, trouble

Mark = tuple[int, int, int]
Rows = list[dict[str, Any]]


def mark(path: Path) -> Mark | None:
    """Tell a file from the one that had its name before."""
    if not path.exists():
        return None
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def written_at(run: str) -> datetime:
    """Return when a run began, as its name says."""
    return datetime.strptime(run.split("-")[0], "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC)


@dataclass
class Found:
    """A data directory as it lies there at one moment."""

    marks: dict[str, Mark | None] = field(default_factory=dict)
    days: dict[date, Rows] = field(default_factory=dict)
    footers: dict[date, dict[str, Any]] = field(default_factory=dict)
    blocks: dict[str, Rows] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)
    entries: dict[Trouble, str] = field(default_factory=dict)
    blocks_of: dict[Trouble, str] = field(default_factory=dict)
    """Of each entry of the quarantine the block that it was found in."""

    @property
    def runs(self) -> set[str]:
        return {name.split("/")[1] for name in self.blocks}

    @property
    def open_blocks(self) -> set[str]:
        return {name for name in self.blocks if name.split("/")[1] in self.open}

    @property
    def runs_to_decide(self) -> set[str]:
        """The runs that something in the quarantine is of that nobody has decided about."""
        undecided = (trouble for trouble, state in self.entries.items() if state == "open")
        return {self.blocks_of[one].split("/")[1] for one in undecided}


class Disk:
    """Looks at a data directory; a file is read once, until another takes its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[Path, tuple[Mark | None, tuple[Rows, dict[str, str]]]] = {}

    def files(self) -> dict[str, Mark | None]:
        """Return a mark of every finished file of the zones: another when it is replaced."""
        return {
            path.relative_to(self.folder).as_posix(): mark(path)
            for pattern in ("*/*/[!.]*.parquet", "responses/open/*.json")
            for path in self.folder.glob(pattern)
        }

    def look(self) -> Found:
        found = Found(self.files())
        for name, seen in sorted(found.marks.items()):
            zone, folder, file = name.split("/")
            if folder == "open":
                found.open.add(file.removesuffix(".json"))
                continue
            rows, said = self._content(self.folder / name, seen)
            if zone == "receipts":
                day = date.fromisoformat(folder[10:])
                found.days[day], found.footers[day] = rows, json.loads(said["day"])
            elif zone == "responses":
                found.blocks[name] = rows
            else:
                keys = [trouble(row) for row in rows]
                assert found.entries.keys().isdisjoint(keys), "told twice"
                assert len({*keys}) == len(keys), "told twice"
                found.entries |= dict(zip(keys, (row["state"] for row in rows), strict=True))
                found.blocks_of |= dict.fromkeys(keys, name.replace("quarantine", "responses", 1))
        return found

    def texts(self) -> dict[str, str]:
        """Return all that the files hold, for a name or a number to be looked for."""
        return {
            name: str(self._content(self.folder / name, seen)[0])
            for name, seen in self.files().items()
            if name.endswith(".parquet")
        }

    def _content(self, path: Path, seen: Mark | None) -> tuple[Rows, dict[str, str]]:
        if self._read.get(path, (None, None))[0] != seen:
            with path.open("rb") as file:
                table = pq.ParquetFile(file).read()
            raw = table.schema.metadata or {}
            said = {k.decode()[5:]: v.decode() for k, v in raw.items() if k.startswith(b"usms.")}
            self._read[path] = (seen, (table.to_pylist(), said))
        return self._read[path][1]
