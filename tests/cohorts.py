"""Made-up receipts for the tests of the warehouse: rows as the dataset has them, written to it."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from usms_pipeline.contract import schema, status
from usms_pipeline.days import columns, file
from usms_pipeline.days.file import Footer
from usms_pipeline.settings import Settings
from usms_pipeline.store.storage import Store
from usms_pipeline.warehouse import connect

DAY = date(2024, 3, 1)
NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
CUTOFF = timedelta(hours=72)


def receipt(outcome: str = "delivered", **given: Any) -> dict[str, Any]:
    """Return one consistent row; ``given`` columns win."""
    sent_at = given.get("sent_at", NOON)
    is_final = outcome in status.FINAL
    asked_at = sent_at + timedelta(minutes=5)
    received_at = sent_at + timedelta(seconds=8) if is_final else None
    row = {
        "session_no": uuid.uuid4().hex,
        "recipient": uuid.uuid4().hex,
        "phone": "+86138****00",
        "country": "CN",
        "operator": "China Mobile",
        "number_type": "mobile",
        "sent_at": sent_at,
        "status": outcome,
        "is_final": is_final,
        "is_closed": outcome == "invalid",
        "submit_status": "success",
        "received_at": received_at,
        "first_asked_at": asked_at,
        "last_asked_at": asked_at,
        "final_at": asked_at if is_final else None,
        "conflicts": [],
        "is_announced": True,
        **given,
    }
    if row["status"] == "delivered" and row["received_at"] and "delivery_seconds" not in given:
        row["delivery_seconds"] = (row["received_at"] - sent_at).total_seconds()
    return row


def table(rows: Iterable[Mapping[str, Any]], dimensions: Sequence[str] = ()) -> pa.Table:
    """Return rows as the dataset's Arrow table; what a row lacks is NULL."""
    return pa.Table.from_pylist([dict(row) for row in rows], schema.receipts_schema(dimensions))


def write(
    store: Store,
    rows: Sequence[Mapping[str, Any]],
    day: date = DAY,
    dimensions: Sequence[str] = (),
    **footer: Any,
) -> Footer:
    """Write a day's file of these rows, under a new version; returns its footer."""
    said = Footer(key="k", dimensions=list(dimensions), **footer)
    return file.write(
        store, day, [stored(rows, dimensions)], columns.layout(dimensions), lambda: said
    )


def stored(rows: Iterable[Mapping[str, Any]], dimensions: Sequence[str] = ()) -> pa.Table:
    """Return rows as a day's file has them; what a row lacks is NULL."""
    return pa.Table.from_pylist([dict(row) for row in rows], columns.layout(dimensions))


def places(warehouse: Path, day: date | None = None) -> list[str | None]:
    """Return the session numbers of a published table, or a day of it, one after another."""
    with connect(warehouse) as con:
        con.execute("SET threads = 1")
        query = "SELECT session_no FROM receipts WHERE sent_date = coalesce(?, sent_date)"
        return [row[0] for row in con.execute(query, [day]).fetchall()]


def settings(folder: Path, **given: Any) -> Settings:
    """Return settings that read neither the environment's file nor anything outside a folder."""
    return Settings(_env_file=None, data_dir=str(folder), **given)
