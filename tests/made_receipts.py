"""Receipts made by hand, published as a warehouse: what charts, report and notebooks are tried on.

Five days; an outage of one operator; the last hours still waiting; texts that mean harm.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from tests import cohorts
from usms_pipeline.contract import schema
from usms_pipeline.contract.status import FINAL
from usms_pipeline.settings import Settings
from usms_pipeline.store.storage import Store
from usms_pipeline.warehouse import connect, reconcile

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HARM = "<script>alert(1)</script>"
CODES = {
    "failed": ("UNDELIV", "absent & <b>lost</b>"),
    "rejected": ("SGIP:2", None),
    "expired": (None, "号码不存在"),
}

Row = dict[str, Any]


def message(n: int, sent_at: datetime, status: str = "delivered", **given: Any) -> Row:
    """Make one row of ``receipts``; what is given beats what follows from the status."""
    code, description = CODES.get(status, (None, None))
    is_final = status in FINAL
    made = {
        "session_no": f"s{n}",
        "recipient": f"{n:032x}",
        "sent_at": sent_at,
        "template": "otp",
        "is_closed": status in ("unknown", "invalid"),
        "provider_status": status,
        "provider_code": code,
        "provider_desc": description,
        "received_at": sent_at + timedelta(seconds=2.0 + n % 50) if is_final else None,
        "segments": 1,
        "last_asked_at": NOW,
    }
    return cohorts.receipt(status, **made | given)


def five_days(every: timedelta = timedelta(minutes=12)) -> list[Row]:
    """Make 600 messages of five days up to ``NOW``, the last hour's all awaited."""
    return [_nth(n, NOW - timedelta(days=5) + n * every) for n in range(int(timedelta(5) / every))]


def _nth(n: int, sent_at: datetime) -> Row:
    operator, country = (("China Mobile", "CN"), ("Singtel", "SG"), (None, None))[n % 3]
    given: Row = {"operator": operator, "country": country, "template": ("otp", HARM)[n % 7 == 0]}
    if NOW - sent_at <= timedelta(hours=1):
        return message(n, sent_at, "pending", **given)
    if n % 97 == 0:
        return message(n, sent_at, "unrecognized", **given | {"provider_status": "<i>HALF</i>"})
    if n % 89 == 0:
        return message(n, sent_at, is_announced=False)
    is_outage = operator == "Singtel" and 40 <= (NOW - sent_at) / timedelta(hours=1) <= 46
    if is_outage or n % 29 == 0:
        return message(n, sent_at, ("failed", "rejected", "expired")[n % 2 * (n % 3)], **given)
    is_old = NOW - sent_at > timedelta(days=3)
    return message(n, sent_at, "unknown" if n % 53 == 0 and is_old else "delivered", **given)


def publish(folder: Path, rows: list[Row]) -> Settings:
    """Write the rows as a data directory with a published warehouse; gives its settings."""
    settings = Settings(data_dir=str(folder), dimensions=("template",), _env_file=None)
    store = Store(settings.data_dir)
    table = pa.Table.from_pylist(rows, schema=schema.receipts_schema(settings.dimensions))
    days = pc.strftime(table["sent_at"], format="%Y-%m-%d")
    for day in days.unique().to_pylist():
        part = table.filter(pc.equal(days, day)).sort_by("sent_at")
        cohorts.write(store, part.to_pylist(), date.fromisoformat(day), settings.dimensions)
    reconcile(store, settings)
    return settings


def opened(folder: Path, rows: list[Row]) -> duckdb.DuckDBPyConnection:
    """Publish the rows and open the warehouse."""
    return connect(publish(folder, rows).warehouse_path)
