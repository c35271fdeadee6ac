"""What the commands work on: data directories in the state before a command, and the service.

The commands have the real clock. So all ages are such that no polling time and no cutoff falls
due in the hour after ``NOW``: whenever a command runs, it finds the same to do.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tests.plug.service import Service
from usms_pipeline.pipeline import Pipeline
from usms_pipeline.settings import Settings
from usms_pipeline.simulator import ACCESS_KEY_ID, ACCESS_KEY_SECRET, Faults

NOW = datetime.now(UTC).replace(microsecond=0)
BEFORE = NOW - timedelta(minutes=170)
LONG_AGO = NOW - timedelta(days=40)

YOUNG, MIDDLE = timedelta(hours=3), timedelta(hours=53)
OLD, OLDER = timedelta(days=5), timedelta(days=6)
ANCIENT = timedelta(days=43, hours=12)

KEY = "5e" * 32
REFUSED_BEFORE, REFUSED, BAD = "young-0", "middle-0", "middle-1"
COMMON = {"late": 0.5, "late_hours": 2.5, "conflicting": 1.0}


@dataclass(frozen=True)
class Scenario:
    """A data directory (``folder``/data), a command for it, and what is true after it."""

    name: str
    folder: Path
    argv: list[str]
    given: dict[str, Any]
    service: Service
    gone: tuple[str, ...] = ()
    """Phones that must be nowhere after it."""

    @property
    def env(self) -> dict[str, str]:
        return {f"USMS_{name.upper()}": str(value) for name, value in self.given.items()}

    @property
    def has_own_key(self) -> bool:
        """Return whether every run of it makes another key for the phone numbers."""
        return not self.given["phone_key"]

    @property
    def asks_again(self) -> bool:
        """Return whether it is the command's purpose to ask about what was asked before."""
        return "replay" in self.argv

    @property
    def truth(self) -> Counter[str]:
        """Return how many messages are in each bucket."""
        return self.service.truth(self.gone)

    def copied(self, root: Path) -> Path:
        """Copy it to ``root``, which is made first; set the service back."""
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self.folder, root)
        self.service.set_back()
        return root


@dataclass
class Scenarios:
    """Makes them, below ``folder``; ``serve`` puts a service on loopback and gives its address."""

    folder: Path
    serve: Callable[[Service], str]

    def first_run(self, name: str = "first_run", **given: Any) -> Scenario:
        """An empty data directory; the service refuses one session number."""
        table = messages(old=(OLD, 4, 1), young=(YOUNG, 4, 2))
        service = Service(table, NOW, faults(REFUSED_BEFORE))
        return self._new(name, ["run"], table, service, **given)

    def first_run_without_a_key(self) -> Scenario:
        """The same, where the key of the phone numbers is made too."""
        return self.first_run("first_run_without_a_key", phone_key="")

    def later_run(self, name: str = "later_run") -> Scenario:
        """Late rows, late receipts, conflicting ones, a refused number and an unreadable item."""
        table = messages(
            older=(OLDER, 2, 1), old=(OLD, 2, 1), middle=(MIDDLE, 4, 2), young=(YOUNG, 12, 2)
        )
        service = Service(table, BEFORE, faults(REFUSED_BEFORE), BAD)
        late = pc.is_in(table["session_no"], pa.array([REFUSED, BAD]))
        late = pc.or_(late, pc.equal(table["phone"], phone("young-1", 1, table)))
        scenario = self._new(name, ["run"], table.filter(pc.invert(late)), service)
        run(scenario, BEFORE)
        pq.write_table(table, scenario.given["source_url"])
        service.keep(NOW, faults(REFUSED_BEFORE, REFUSED))
        return scenario

    def run_that_purges(self) -> Scenario:
        """Raw answers whose retention is over, and a day of new messages."""
        table = messages(ancient=(ANCIENT, 4, 1), young=(YOUNG, 4, 1))
        service = Service(table, LONG_AGO, faults())
        is_ancient = pc.less(table["sent_at"], pa.scalar(LONG_AGO))
        scenario = self._new("run_that_purges", ["run"], table.filter(is_ancient), service)
        run(scenario, LONG_AGO)
        pq.write_table(table, scenario.given["source_url"])
        service.keep(NOW, faults())
        return scenario

    def rebuild(self) -> Scenario:
        """All answers of ``later_run``, folded again."""
        return self._after_later_run("rebuild", ["rebuild"])

    def replay(self) -> Scenario:
        """All that ``later_run`` set aside, tried again; nothing is refused any more."""
        scenario = self._after_later_run("replay", ["quarantine", "replay", "--all"])
        scenario.service.keep(NOW, faults())
        return scenario

    def dismiss(self) -> Scenario:
        """All that ``later_run`` set aside, closed."""
        return self._after_later_run("dismiss", ["quarantine", "dismiss", "--all"])

    def forget(self) -> Scenario:
        """Two phones erased: one of a group, and the only one of a session."""
        table = self.later_run("forget_source").service.messages
        gone = phone("young-5", 0, table), phone("old-1", 0, table)
        argv = ["forget", "--yes", *(part for one in gone for part in ("--phone", one))]
        return self._after_later_run("forget", argv, gone)

    def _after_later_run(self, name: str, argv: list[str], gone: tuple[str, ...] = ()) -> Scenario:
        before = self.later_run(name)
        run(before, NOW)
        before.service.keep(NOW, faults(REFUSED_BEFORE, REFUSED))
        return Scenario(name, before.folder, argv, before.given, before.service, gone)

    def _new(
        self, name: str, argv: list[str], table: pa.Table, service: Service, **given: Any
    ) -> Scenario:
        folder, source = self.folder / name, self.folder / f"{name}.parquet"
        folder.mkdir()
        pq.write_table(table, source)
        settings = {
            "base_url": self.serve(service),
            "access_key_id": ACCESS_KEY_ID,
            "access_key_secret": ACCESS_KEY_SECRET,
            "source_url": str(source),
            "phone_column": "phone",
            "phone_key": KEY,
            "start_date": str((NOW - timedelta(days=60)).date()),
        }
        return Scenario(name, folder, argv, settings | given, service)


def faults(*refused: str) -> Faults:
    """Return the service's faults, with these session numbers refused."""
    return Faults(**COMMON, poison_ids=frozenset(refused))


def run(scenario: Scenario, at: datetime) -> None:
    """Run the pipeline on a scenario's folder at a time, in this process."""
    settings = Settings(_env_file=None, data_dir=str(scenario.folder / "data"), **scenario.given)
    Pipeline(settings, clock=lambda: at).run()


def messages(**groups: tuple[timedelta, int, int]) -> pa.Table:
    """Make groups of messages: their age, how many sessions, and recipients in each."""
    rows = []
    for place, (name, (age, sessions, recipients)) in enumerate(groups.items()):
        for n in range(sessions):
            sent_at = NOW - age + timedelta(milliseconds=n)
            for one in range(recipients):
                number = f"+86138{place:04}{n:02}{one:02}"
                rows.append({"session_no": f"{name}-{n}", "phone": number, "sent_at": sent_at})
    types = {"session_no": pa.string(), "phone": pa.string(), "sent_at": pa.timestamp("us", "UTC")}
    return pa.Table.from_pylist(rows, pa.schema(types))


def phone(session_no: str, place: int, table: pa.Table) -> str:
    """Return the phone at a place in a session."""
    phones = table.filter(pc.equal(table["session_no"], session_no))["phone"]
    return str(phones[place])
