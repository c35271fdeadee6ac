"""One account in the hostile world: its data directory, table, service and clock."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.account import Clock
from tests.world_disk import Disk
from tests.world_ledger import Ledger
from tests.world_service import Killed, Script, Service, Transport
from usms_pipeline.pipeline import Pipeline
from usms_pipeline.service.collect import Patience
from usms_pipeline.service.pace import BreakerLimits
from usms_pipeline.settings import Settings
from usms_pipeline.store import storage
from usms_pipeline.warehouse import publish

START = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
PATIENT = Patience(attempts=2, first_pause_seconds=0, breaker=BreakerLimits(failures=10**6))
IMPATIENT = Patience(
    attempts=3, first_pause_seconds=0, breaker=BreakerLimits(failures=3, seconds=0)
)
_MEMORY = Path("/dev/shm")


@dataclass
class WorldAccount:
    """A folder in memory where the system has one: no example is worth a disk's time."""

    columns: tuple[str, ...]
    folder: Path = field(
        default_factory=lambda: Path(
            tempfile.mkdtemp(prefix="usms-world-", dir=_MEMORY if _MEMORY.is_dir() else None)
        )
    )

    def __post_init__(self) -> None:
        self.clock, self.service = Clock(START), Service()
        self.data, self.source = self.folder / "data", self.folder / "source.parquet"
        self.disk = Disk(self.data)
        self.settings = Settings(
            _env_file=None,
            base_url="http://127.0.0.1:1",
            access_key_id="id",
            access_key_secret="secret",
            source_url=str(self.source),
            phone_column="phone" if "phone" in self.columns else None,
            recipients_column="recipients" if "recipients" in self.columns else None,
            data_dir=str(self.data),
            start_date="2026-02-20",
            phone_key="0123456789abcdef" * 2,
            batch_size=3,
            max_concurrency=1,
            poll_minutes="5,20,60",
            poll_every_hours=3,
            source_lookback_days=2,
            raw_retention_days=1,
        )
        self.data.mkdir()
        # as if a run before had settled on a pace: nobody waits for a turn
        (self.data / "pace.json").write_text('{"requests_per_second": 100000.0}')
        self.ledger = Ledger(Pipeline(self.settings).book)
        self.write_source()

    def remove(self) -> None:
        shutil.rmtree(self.folder)

    def write_source(self) -> None:
        """Make the table say what the ledger says that it does."""
        rows = [message for message in self.ledger.messages if not message.is_gone]
        table = pa.table(
            {
                "session_no": pa.array([row.session_no for row in rows], pa.string()),
                "phone": pa.array([row.phone for row in rows], pa.string()),
                "recipients": pa.array([row.recipients for row in rows], pa.int32()),
                "sent_at": pa.array([row.sent_at for row in rows], pa.timestamp("us", "UTC")),
            }
        )
        pq.write_table(table, self.source)

    def connect(self, script: Script | None = None) -> tuple[Pipeline, Transport]:
        """Return a new pipeline, as a new process would have it, and its line to the service."""
        script = script or Script()
        transport = Transport(self.service, script)
        patience = IMPATIENT if script.breaks == "down" else PATIENT
        pipeline = Pipeline(self.settings, clock=self.clock, transport=transport, patience=patience)
        return pipeline, transport

    @contextmanager
    def held(self, day: date | None) -> Iterator[None]:
        """Hold a partition as another process would."""
        if day is None:
            yield
            return
        with storage.Store(str(self.data)).lock(f"sent_date={day}") as held:
            assert held
            yield


@contextmanager
def killed_at_write(number: int | None) -> Iterator[None]:
    """Die when the n-th file would get its name."""
    if number is None:
        yield
        return
    publish_file, writes = storage.publish_file, 0

    def die(temporary: Path, final: Path) -> None:
        nonlocal writes
        writes += 1
        if writes >= number:
            raise Killed
        publish_file(temporary, final)

    places: tuple[Any, ...] = (storage, publish)
    try:
        for place in places:
            place.publish_file = die
        yield
    finally:
        for place in places:
            place.publish_file = publish_file
