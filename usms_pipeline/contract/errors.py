"""Every error this package raises on purpose, each with what a person needs to act.

No other module defines an exception. A message says what is wrong, where, and what to do.

    UsmsError                     exit code 1
    ├── SettingsError             2   a setting is missing or wrong (all of them, at once)
    ├── SourceError               2   the source table can't be used as configured
    │   └── SourceUnavailable     1   the source can't be reached just now
    ├── KeyMismatch               2   the dataset was made with another phone key
    ├── OtherLayout               2   the dataset was written by a newer or older version
    ├── CredentialsRefused        3   the service refused the access key
    ├── ServiceDown               1   the service did not answer; what was collected stays
    ├── StorageError              1   the data directory can't be read or written
    │   ├── DamagedDay            1   one day's file can't be read; other days can
    │   └── Changed               1   another process wrote what was to be replaced
    ├── WarehouseMissing          1   nothing has been published yet
    ├── OtherWarehouse            1   what is published was made by another version
    ├── UnknownColumn             2   the published table has no column of that name
    ├── BadQuery             2   a query of the user's own can't be run
    └── Busy                      1   another process holds what this command needs alone
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any


class UsmsError(Exception):
    """Base of all. ``str(error)`` is the sentence shown to the user; ``exit_code`` the CLI's."""

    exit_code = 1


@dataclass(frozen=True)
class SettingProblem:
    """One setting that can't be used: the variable's name, the reason, and a value that works."""

    variable: str
    reason: str
    example: str

    def __str__(self) -> str:
        hint = f" (for example: {self.variable}={self.example})" if self.example else ""
        return f"{self.variable}: {self.reason}{hint}"


class SettingsError(UsmsError):
    """One or more settings are missing or wrong; ``problems`` lists all of them."""

    exit_code = 2

    def __init__(self, problems: Sequence[SettingProblem], place: str = "") -> None:
        self.problems, self.place = tuple(problems), place
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        settings = "1 setting" if len(self.problems) == 1 else f"{len(self.problems)} settings"
        where = place or "in the environment or in .env"
        super().__init__(f"{settings} to fix, {where}:\n{lines}")


class SourceError(UsmsError):
    """The source table can't be used as configured: no such table or column, wrong password…"""

    exit_code = 2


class SourceUnavailable(SourceError):
    """The source can't be reached, or the connection broke. Running again may work."""

    exit_code = 1


class KeyMismatch(UsmsError):
    """The dataset was made with another phone key; going on would count recipients twice."""

    exit_code = 2


class OtherLayout(UsmsError):
    """The dataset was written by a newer or older version of this package, in another layout."""

    exit_code = 2


class CredentialsRefused(UsmsError):
    """The service refused the access key, by HTTP status or by return code.

    ``stats`` (``CollectStats``) says what was done until then, where a run was under way.
    """

    exit_code = 3
    stats: Any = None


class ServiceDown(UsmsError):
    """The service failed so often that the run stopped. Answers already received are saved.

    ``stats`` (``CollectStats``) says what was done until then, where a run was under way.
    """

    stats: Any = None


class StorageError(UsmsError):
    """The data directory can't be read or written."""


class DamagedDay(StorageError):
    """One day's file is damaged. Other days are not affected."""

    def __init__(self, day: date, reason: str) -> None:
        self.day, self.reason = day, reason.rstrip(".")
        super().__init__(
            f"The file of {day} is damaged ({self.reason}). `usms rebuild --from {day} --to {day}` "
            "rebuilds it from the stored responses and your table."
        )


class Changed(StorageError):
    """On object storage, another process replaced a file that this one was about to replace."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Another process writes {name!r} at the same time. Run this again when it has ended."
        )


class WarehouseMissing(UsmsError):
    """There is no published warehouse yet."""


class OtherWarehouse(UsmsError):
    """The database was published by another version; run `usms run` to update its views."""


class UnknownColumn(UsmsError):
    """The published table has no such column; the message suggests similar names."""

    exit_code = 2


class BadQuery(UsmsError):
    """The SQL query of ``usms sql`` can't be run as it is written."""

    exit_code = 2


class Busy(UsmsError):
    """Another process is using what this command needs; run it again when that has ended."""
