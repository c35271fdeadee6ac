"""The published DuckDB file: made by ``publish.py``, read by ``read.py``, worded in ``ddl.py``.

The tables, views and macros in it are described in ``usms_pipeline/warehouse/sql/``.
"""

from usms_pipeline.warehouse.publish import (
    MEMORY_LIMIT,
    Change,
    Publishing,
    WarehouseReport,
    reconcile,
)  # fmt: skip
from usms_pipeline.warehouse.read import connect, days, identity

__all__ = [
    "MEMORY_LIMIT", "Change", "Publishing", "WarehouseReport", "connect", "days", "identity",
    "reconcile",
]  # fmt: skip
