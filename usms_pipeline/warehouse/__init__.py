"""The published DuckDB file: made by ``publish.py``, read by ``read.py``, worded in ``ddl.py``.

The tables, views and macros in it are described in ``usms_pipeline/warehouse/sql/``.
"""

from usms_pipeline.warehouse.publish import Change, Publishing, WarehouseReport, reconcile
from usms_pipeline.warehouse.read import bounded, connect, days, identity

__all__ = [
    "Change", "Publishing", "WarehouseReport", "bounded", "connect", "days", "identity",
    "reconcile",
]  # fmt: skip
