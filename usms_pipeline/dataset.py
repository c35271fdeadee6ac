"""The dataset on disk: its zones and partitions, and what a partition's commit says.

A partition's ``receipts.parquet`` is its commit: in its metadata are the schema's version, the
key's fingerprint and the names of the files folded into it. No SQL, no HTTP here.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import PurePosixPath
from typing import Any, Final
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline import schema
from usms_pipeline.errors import KeyMismatch, OtherLayout, StorageError
from usms_pipeline.storage import Store

SESSIONS, RESPONSES, REGISTERS = "sessions", "responses", "registers"
RECEIPTS, QUARANTINE = "receipts", "quarantine"
_ZONES = (SESSIONS, RESPONSES, REGISTERS, RECEIPTS, QUARANTINE)
PRIVATE = (RESPONSES, QUARANTINE)
LAYOUT = "layout.json"
_LANDED: Final = re.compile(r"([0-9]{8}T[0-9]{6}\.[0-9]{6})-[0-9a-f]{8}\.parquet")
_DAY: Final = timedelta(days=1)
_MOMENTS: Final = pa.schema([("sent_at", schema.TIME)])


@dataclass(frozen=True)
class Window:
    """Partitions from ``first`` to ``last``, both included."""

    first: date
    last: date

    def days(self) -> list[date]:
        """List the days, ascending."""
        return [self.first + timedelta(days=n) for n in range((self.last - self.first).days + 1)]

    def __contains__(self, day: date) -> bool:
        return self.first <= day <= self.last


@dataclass(frozen=True)
class Commit:
    """What a partition's ``receipts.parquet`` says of itself.

    ``token`` is new with every content; ``awaited`` counts rows neither final nor closed, whether
    announced or not.
    The registers are in several files: ``open_registers`` has the sessions that are still asked
    about, ``settled_registers`` the others. ``waiting`` is the file beside them that says who is
    asked about when.
    ``next_due_at``: before that none is due, at the polling times ``poll_seconds``; None where none
    will be.
    ``is_purged``: raw answers were deleted, so the registers are where a rebuild starts.
    ``phones``: how numbers are shown, in the registers too.
    """

    sessions: str
    settled_registers: tuple[str, ...]
    open_registers: str
    waiting: str
    folded: frozenset[str] = frozenset()
    buckets: dict[str, int] = field(default_factory=dict)
    unannounced: int = 0
    awaited: int = 0
    dimensions: tuple[str, ...] = ()
    cutoff_hours: float = 0.0
    is_purged: bool = False
    phones: str = "masked"
    poll_seconds: tuple[float, ...] = ()
    next_due_at: datetime | None = None
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def registers(self) -> list[str]:
        """Name all files of registers."""
        return [*self.settled_registers, self.open_registers]

    @property
    def files(self) -> list[str]:
        """Name all that is beside the registers, and these."""
        return [*self.registers, self.waiting]

    @property
    def rows(self) -> int:
        """Count the receipts."""
        return sum(self.buckets.values()) + self.unannounced

    def metadata(self, fingerprint: str) -> dict[str, str]:
        """Give the metadata that ``read_commit`` reads back."""
        return stamp(fingerprint) | {
            "token": self.token,
            "sessions": self.sessions,
            "settled_registers": json.dumps(self.settled_registers),
            "open_registers": json.dumps(self.open_registers),
            "waiting": json.dumps(self.waiting),
            "folded": json.dumps(sorted(self.folded)),
            "buckets": json.dumps(self.buckets),
            "unannounced": str(self.unannounced),
            "awaited": str(self.awaited),
            "dimensions": json.dumps(self.dimensions),
            "cutoff_hours": repr(self.cutoff_hours),
            "is_purged": json.dumps(self.is_purged),
            "phones": self.phones,
            "poll_seconds": json.dumps(self.poll_seconds),
            "next_due_at": self.next_due_at.isoformat() if self.next_due_at else "",
        }


def file_name(zone: str, day: date, name: str | None = None) -> str:
    """Give the name of a partition's file; the zone's one file a partition without ``name``."""
    return f"{zone}/sent_date={day}/{name or zone + '.parquet'}"


def partition_of(name: str) -> date:
    """Give the partition that a file's name stands in."""
    return date.fromisoformat(name.split("sent_date=", 1)[1].split("/", 1)[0])


def days(store: Store, zone: str) -> list[date]:
    """List the partitions that have a file in a zone, ascending; files of others don't count."""
    return sorted({partition_of(name) for name in store.names(zone) if _is_placed(name)})


def overlapping(store: Store, window: Window, zone: ZoneInfo) -> list[date]:
    """List the partitions that have rows of a window's days, ascending.

    Those of the window, and the day before or after it where a session over midnight was placed.
    """
    start, end = (day_start(day, zone) for day in (window.first, window.last + _DAY))
    is_within = (pc.field("sent_at") >= start) & (pc.field("sent_at") < end)
    found = []
    for day in days(store, SESSIONS):
        if day in (window.first - _DAY, window.last + _DAY):
            rows = store.count(file_name(SESSIONS, day), _MOMENTS, is_within)
            found += [day] if rows else []
        elif day in window:
            found.append(day)
    return found


def answers(store: Store, day: date | None = None) -> list[str]:
    """List the files of raw answers, of one partition or of all; those of others are left alone."""
    folder = RESPONSES if day is None else f"{RESPONSES}/sent_date={day}"
    return [name for name in store.names(folder) if _is_placed(name) and _is_answers(name)]


def landed_at(name: str) -> datetime:
    """Read from its name when a file of raw answers was written; raises ``ValueError`` for others.

    The name is that of ``responses.file_name``, with or without its folder.
    """
    if not (stamp := _LANDED.fullmatch(name.rsplit("/", 1)[-1])):
        raise ValueError("no file of raw answers")
    return datetime.fromisoformat(stamp[1]).replace(tzinfo=UTC)


def _is_answers(name: str) -> bool:
    try:
        return bool(landed_at(name))
    except ValueError:
        return False


def touched(store: Store) -> list[date]:
    """List the partitions that have a folder in any zone, or that some process holds or once held.

    Unfinished files too are there: of a day whose first file never got its name.
    """
    locks = [PurePosixPath(name).stem for name in store.names(".locks", ".lock")]
    named = [*locks, *(name for zone in _ZONES for name in store.folders(zone))]
    held = {partition_of(name) for name in named if _is_placed(f"{SESSIONS}/{name}/x")}
    return sorted({*days(store, SESSIONS), *held})


def sweep(store: Store, day: date) -> None:
    """Delete what killed processes left in a partition; the caller holds it."""
    for zone in _ZONES:
        store.sweep(f"{zone}/sent_date={day}")


def _is_placed(name: str) -> bool:
    """Tell whether a file stands in a partition, and nowhere else in its zone."""
    try:
        return name == file_name(name.split("/", 1)[0], partition_of(name), name.rsplit("/", 1)[1])
    except (IndexError, ValueError):
        return False


def day_start(day: date, zone: ZoneInfo) -> datetime:
    """Give the first moment of a local day, in UTC."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


def stamp(fingerprint: str) -> dict[str, str]:
    """Give the metadata that every file has: the layout's version and the key's fingerprint."""
    return {"version": str(schema.VERSION), "key": fingerprint}


def checked_metadata(store: Store, name: str, fingerprint: str | None) -> dict[str, str]:
    """Read a file's metadata, empty when there is no file; ``fingerprint`` None checks no key.

    Raises ``OtherLayout``, ``KeyMismatch`` or ``StorageError`` for a file that this run must not
    touch: one that says no version was written by something else, and would be overwritten.
    """
    found = store.metadata(name)
    if not found and not store.exists(name):
        return {}
    check_version(store, name, found)
    if fingerprint is not None:
        check_key(store, name, found.get("key"), fingerprint)
    return found


def check_key(store: Store, name: str, key: str | None, fingerprint: str) -> None:
    """Refuse what was made with another phone key; raises ``KeyMismatch``."""
    if key != fingerprint:
        raise KeyMismatch(
            f"{name} in {store.data_dir!r} was made with another phone key (fingerprint "
            f"{key}, yours is {fingerprint}): going on would count recipients twice. "
            f"{_right_key(store, key)}, or use another USMS_DATA_DIR."
        )


def _right_key(store: Store, fingerprint: str | None) -> str:
    from usms_pipeline.phone_key import KEY_FILE, kept_fingerprint

    if store.is_local and fingerprint and kept_fingerprint(store.data_dir) == fingerprint:
        return f"Unset USMS_PHONE_KEY, for {store.data_dir}/{KEY_FILE} is the key it was made with"
    return "Set USMS_PHONE_KEY to the key it was made with"


def check_version(store: Store, name: str, said: Mapping[str, str]) -> None:
    """Refuse a file of another layout than today's, by what its metadata says.

    Raises ``OtherLayout``, and ``StorageError`` where it says none.
    """
    if not (text := said.get("version", "")).isdecimal():
        raise StorageError(
            f"{name} in {store.data_dir!r} says {'no version' if not text else 'an odd version'}: "
            "something else wrote or changed it. Restore it from a backup, or move it away."
        )
    _check_is_ours(store, name, int(text))


def check_layout(store: Store) -> None:
    """Refuse a data directory of another layout than today's, before anything is touched.

    Raises ``OtherLayout``, and ``StorageError`` where the file that says it is damaged.
    """
    said = store.read_json(LAYOUT)
    version = said.get("version") if said else schema.VERSION
    if not isinstance(version, int):
        raise StorageError(
            f"{LAYOUT} in {store.data_dir!r} says no version. Restore it from a backup, or remove "
            "it: the next `usms run` says what belongs there."
        )
    _check_is_ours(store, LAYOUT, version)


def _check_is_ours(store: Store, name: str, version: int) -> None:
    if version == schema.VERSION:
        return
    remedies = (
        "Start over in another USMS_DATA_DIR: the service still knows the last three days.",
        "Upgrade usms-pipeline, or point USMS_DATA_DIR elsewhere.",
    )
    raise OtherLayout(
        f"{name} in {store.data_dir!r} has layout {version}, this version reads layout "
        f"{schema.VERSION} alone. {remedies[version > schema.VERSION]}"
    )


def mark_layout(store: Store, fingerprint: str, identity: Mapping[str, Any]) -> None:
    """Say once which layout the data directory has, and which key and settings it was made with.

    Other versions, other keys and other settings then leave it alone, the whole of it.
    """
    said = layout_mark(fingerprint, identity)
    if store.read_json(LAYOUT) != said:
        store.keep_json(LAYOUT, said)


def layout_mark(fingerprint: str, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``layout.json`` says of a data directory."""
    return {"version": schema.VERSION, "key": fingerprint, "identity": dict(identity)}


def read_commit(store: Store, day: date, fingerprint: str | None = None) -> Commit | None:
    """Read a partition's commit; None when nothing was committed yet. Raises as above."""
    found = checked_metadata(store, file_name(RECEIPTS, day), fingerprint)
    if not found:
        return None
    return Commit(
        sessions=found["sessions"],
        settled_registers=tuple(json.loads(found["settled_registers"])),
        open_registers=json.loads(found["open_registers"]),
        waiting=json.loads(found["waiting"]),
        folded=frozenset(json.loads(found["folded"])),
        buckets=json.loads(found["buckets"]),
        unannounced=int(found["unannounced"]),
        awaited=int(found["awaited"]),
        dimensions=tuple(json.loads(found["dimensions"])),
        cutoff_hours=float(found["cutoff_hours"]),
        is_purged=json.loads(found["is_purged"]),
        phones=found["phones"],
        poll_seconds=tuple(json.loads(found["poll_seconds"])),
        next_due_at=datetime.fromisoformat(at) if (at := found["next_due_at"]) else None,
        token=found["token"],
    )


def is_clear(store: Store, day: date) -> bool:
    """Tell whether a partition's receipts show phone numbers whole."""
    return store.metadata(file_name(RECEIPTS, day)).get("phones") == "clear"


def answered(store: Store) -> set[date]:
    """List the partitions that were folded at some time, or have answers that are yet to be."""
    return {*days(store, RECEIPTS), *map(partition_of, answers(store))}


def unfinished(store: Store, wanted: Iterable[date], fingerprint: str) -> list[date]:
    """List those partitions that await answers, or hold rows or answers not folded yet.

    The latter are of a run that was killed. Raises as above.
    """
    landed: dict[date, set[str]] = {}
    for name in answers(store):
        landed.setdefault(partition_of(name), set()).add(name.rsplit("/", 1)[1])
    return [
        day for day in wanted if not _is_settled(store, day, landed.get(day, set()), fingerprint)
    ]


def _is_settled(store: Store, day: date, landed: set[str], fingerprint: str) -> bool:
    commit = read_commit(store, day, fingerprint)
    if commit is None or commit.awaited or not landed <= commit.folded:
        return False
    return commit.sessions == store.metadata(file_name(SESSIONS, day)).get("token")
