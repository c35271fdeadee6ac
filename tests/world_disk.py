"""What lies in a data directory, read with pyarrow and json alone: the witness, not the suspect."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

Mark = tuple[int, int, int]


def mark(path: Path) -> Mark | None:
    """Tell a file from the one that had its name before."""
    if not path.exists():
        return None
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


@dataclass
class Day:
    """One partition as it lies there."""

    sessions: list[dict[str, Any]] = field(default_factory=list)
    sessions_token: str | None = None
    receipts: list[dict[str, Any]] = field(default_factory=list)
    commit: dict[str, Any] | None = None
    answers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    quarantine: list[dict[str, Any]] = field(default_factory=list)

    @property
    def folded(self) -> set[str]:
        return set(self.commit["folded"]) if self.commit else set()

    @property
    def is_current(self) -> bool:
        """Whether all that landed and was announced is in the receipts."""
        return (
            self.commit is not None
            and self.commit["sessions"] == self.sessions_token
            and self.answers.keys() <= self.folded
        )

    @property
    def is_awaiting(self) -> bool:
        return any(not (row["is_final"] or row["is_closed"]) for row in self.receipts)


class Disk:
    """Looks at a data directory; a file is read once, until another takes its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[Path, tuple[Mark | None, tuple[list[dict[str, Any]], dict[str, str]]]] = {}

    def files(self) -> dict[str, Mark | None]:
        """Give a mark of every finished file of the zones: another when the file is replaced."""
        return {
            path.relative_to(self.folder).as_posix(): mark(path)
            for path in self.folder.glob("*/sent_date=*/[!.]*.parquet")
        }

    def days(self) -> dict[date, Day]:
        found: dict[date, Day] = {}
        for name, seen in sorted(self.files().items()):
            zone, partition, file = name.split("/")
            day = found.setdefault(date.fromisoformat(partition[10:]), Day())
            rows, said = self._content(self.folder / name, seen)
            if zone == "sessions":
                day.sessions, day.sessions_token = rows, said["token"]
            elif zone == "receipts":
                day.receipts, day.commit = rows, _commit(said)
            elif zone == "responses":
                day.answers[file] = rows
            elif zone == "quarantine":
                day.quarantine = rows
        return found

    def texts(self) -> dict[str, str]:
        """Give all that the files hold, for a name or a number to be looked for."""
        return {
            name: str(self._content(self.folder / name, seen)[0])
            for name, seen in self.files().items()
        }

    def _content(
        self, path: Path, seen: Mark | None
    ) -> tuple[list[dict[str, Any]], dict[str, str]]:
        if self._read.get(path, (None, None))[0] != seen:
            with path.open("rb") as file:
                table = pq.ParquetFile(file).read()
            raw = table.schema.metadata or {}
            said = {k.decode()[5:]: v.decode() for k, v in raw.items() if k.startswith(b"usms.")}
            self._read[path] = (seen, (table.to_pylist(), said))
        return self._read[path][1]


def _commit(said: dict[str, str]) -> dict[str, Any]:
    whole = dict(said)
    for name in ("folded", "buckets", "is_purged"):
        whole[name] = json.loads(said[name])
    return whole
