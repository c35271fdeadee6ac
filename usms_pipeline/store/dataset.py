"""The data directory as a whole: its days, and the layout, key and settings it was begun with.

What a day's file says is in ``days.file``, what a run was told in ``days.log``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from usms_pipeline.contract import schema
from usms_pipeline.contract.errors import (
    KeyMismatch,
    OtherLayout,
    SettingProblem,
    SettingsError,
    StorageError,
)
from usms_pipeline.settings import Settings
from usms_pipeline.store.storage import Store, undisturbed

LAYOUT: Final = "layout.json"
TOMBSTONES: Final = "forgotten.json"
PRIVATE: Final = ("responses", "quarantine")
_ERASES: Final = "erases"
_IDENTITY: Final = (
    "timezone",
    "source_timezone",
    "session_column",
    "sent_at_column",
    "default_region",  # the hash of a number without a country code hangs on it
)


@dataclass(frozen=True)
class Window:
    """Days from ``first`` to ``last``, both included."""

    first: date
    last: date

    def days(self) -> list[date]:
        """List the days, ascending."""
        return [self.first + timedelta(days=n) for n in range(len(self))]

    def __len__(self) -> int:
        return max((self.last - self.first).days + 1, 0)

    def __contains__(self, day: date) -> bool:
        return self.first <= day <= self.last


def day_start(day: date, zone: ZoneInfo) -> datetime:
    """Return the first moment of a local day, in UTC."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


@undisturbed
def begin(store: Store, settings: Settings, fingerprint: str) -> None:
    """Check that the data directory is this account's (``check``), and mark a new one as such.

    Leftovers of killed processes are deleted, also by a run that has nothing to write.
    """
    tag = store.tag(LAYOUT)
    if not check(store, settings, fingerprint):
        store.keep_json(LAYOUT, _mark(settings, fingerprint), over=tag)
    store.sweep_json()


def is_begun(store: Store) -> bool:
    """Return whether anything was ever kept in the data directory."""
    return store.exists(LAYOUT) or bool(store.names("receipts"))


def check(store: Store, settings: Settings, fingerprint: str) -> bool:
    """Check that the data directory is this account's; return False where none was begun there.

    Raises ``KeyMismatch`` for one begun with another key, ``SettingsError`` for settings under
    which stored rows would be taken for other rows, and ``StorageError`` where nothing says which
    they were.
    """
    said = store.read_json(LAYOUT)
    if said.keys() >= {"key", "identity"}:
        check_key(store, LAYOUT, said["key"], fingerprint)
        _check_identity(settings, said["identity"])
        return True
    if store.names("receipts"):
        mark = _mark(settings, fingerprint)
        mark |= {_ERASES: True} if store.exists(TOMBSTONES) else {}
        raise StorageError(
            f"{LAYOUT} in {store.data_dir!r} is missing or incomplete: with which key and "
            "settings was this data directory begun? Restore it from a backup; or, if they have "
            f"not changed since, write this into it: {json.dumps(mark)}"
        )
    return False


def check_layout(store: Store) -> None:
    """Refuse a data directory of another layout than today's, before anything is touched.

    Raises ``OtherLayout``, and ``StorageError`` where the file that says it is damaged, or where
    who was erased is no longer known.
    """
    said = store.read_json(LAYOUT)
    version = said.get("version") if said else schema.VERSION
    if not isinstance(version, int):
        raise StorageError(
            f"{LAYOUT} in {store.data_dir!r} has no version. Restore it from a backup, or remove "
            f"it: then the next `usms run` prints what the file must contain."
        )
    check_version(store, LAYOUT, version)
    if said.get(_ERASES) and not store.exists(TOMBSTONES):
        raise StorageError(
            f"{TOMBSTONES} in {store.data_dir!r} is missing: it says who was erased, and without "
            "it they would come back. Restore it from a backup; or write {} into it and erase them "
            "again."
        )


@undisturbed
def note_erasure(store: Store) -> None:
    """Note that there are tombstones, so that a later loss of their file is noticed."""
    tag = store.tag(LAYOUT)
    said = store.read_json(LAYOUT)
    if not said.get(_ERASES):
        store.keep_json(LAYOUT, said | {_ERASES: True}, over=tag)


def check_version(store: Store, name: str, version: int) -> None:
    """Refuse a file of another layout than today's. Raises ``OtherLayout``."""
    if version == schema.VERSION:
        return
    remedies = (
        "Start over in another USMS_DATA_DIR: the service still knows the last three days.",
        "Upgrade usms-pipeline, or point USMS_DATA_DIR elsewhere.",
    )
    raise OtherLayout(
        f"{name} in {store.data_dir!r} has layout {version}, but this version reads only "
        f"layout {schema.VERSION}. {remedies[version > schema.VERSION]}"
    )


def check_key(store: Store, name: str, key: str | None, fingerprint: str) -> None:
    """Refuse what was made with another phone key; raises ``KeyMismatch``."""
    if key != fingerprint:
        raise KeyMismatch(
            f"{name} in {store.data_dir!r} was made with another phone key (fingerprint "
            f"{key}, yours is {fingerprint}): going on would count recipients twice. "
            "Set USMS_PHONE_KEY to the key it was made with (unset it if that is phone.key there), "
            "or use another USMS_DATA_DIR."
        )


def _mark(settings: Settings, fingerprint: str) -> dict[str, Any]:
    identity = {name: getattr(settings, name) for name in _IDENTITY}
    return {"version": schema.VERSION, "key": fingerprint, "identity": identity}


def _check_identity(settings: Settings, before: dict[str, Any]) -> None:
    problems = [
        SettingProblem(
            f"USMS_{setting.upper()}",
            f"was {value!r} when this data directory was begun and is "
            f"{getattr(settings, setting)!r} now: messages would count twice. Set it back, or "
            "start over in another USMS_DATA_DIR",
            str(value),
        )
        for setting, value in before.items()
        if getattr(settings, setting) != value
    ]
    if problems:
        raise SettingsError(problems)
