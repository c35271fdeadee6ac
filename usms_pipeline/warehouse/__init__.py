"""The published DuckDB file: made by ``publish.py``, read by ``read.py``, worded in ``ddl.py``.

The tables, views and macros in it are described in ``usms_pipeline/sql/``.
"""

from usms_pipeline.warehouse.publish import MEMORY_LIMIT, WarehouseReport, reconcile
from usms_pipeline.warehouse.read import (
    alerts,
    connect,
    rates,
    timezone_hint,
    uncovered_days,
)

__all__ = [
    "MEMORY_LIMIT",
    "WarehouseReport",
    "alerts",
    "connect",
    "rates",
    "reconcile",
    "timezone_hint",
    "uncovered_days",
]
