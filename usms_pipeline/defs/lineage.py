"""Which columns each column of an asset comes from, from the source table to the rates."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import dagster as dg

from usms_pipeline.contract import schema
from usms_pipeline.contract.metrics import METRICS
from usms_pipeline.defs.account import Account

_OF_A_PHONE: Final = ("recipient", "phone", "country", "operator", "number_type")
_OF_THE_ASKING: Final = ("first_asked_at", "last_asked_at", "final_at")
_COUNTED_BY: Final = {
    "awaited": ("is_final", "is_closed"),
    "awaited_rate": ("is_final", "is_closed"),
    "receipt_coverage": ("is_final",),
    "latency_p50_seconds": ("delivery_seconds", "status"),
    "latency_p90_seconds": ("delivery_seconds", "status"),
    "latency_p99_seconds": ("delivery_seconds", "status"),
    "first_asked_too_late": ("first_asked_at", "sent_at", "is_final", "status"),
}
"""The columns that a figure is counted by, where it isn't by ``status``, as ``figures.sql`` has it.

``is_announced``, which is beside them in all, is left out: Dagster keeps this three times a run."""


def lineage(account: Account) -> dict[str, dg.TableColumnLineage]:
    """Return the columns of each asset that is made, with those that they come from."""
    names = [field.name for field in schema.receipts_fields(account.known.dimensions)]
    of_metrics = {}
    for metric in METRICS:
        counted_by = _COUNTED_BY.get(metric.name, ("status",))
        of_metrics[metric.name] = [("warehouse", column) for column in counted_by]
    of_rows = {name: [("receipts", name)] for name in names}
    return {
        "responses": _lineage(account, {"ids": [("source_table", account.known.session_column)]}),
        "receipts": _lineage(account, _of_receipts(account, names)),
        "warehouse": _lineage(account, of_rows | {"sent_date": [("receipts", "sent_at")]}),
        "delivery_rates": _lineage(account, of_metrics),
    }


def _of_receipts(account: Account, names: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    known = account.known
    ours = {schema.dimension_name(name): name for name in known.dimensions}
    ours |= {"session_no": known.session_column, "sent_at": known.sent_at_column}
    phones = [("source_table", known.phone_column)] if known.phone_column else []
    found = {}
    for name in names:
        if name in ours:
            found[name] = [("source_table", ours[name])]
        elif name in (*_OF_A_PHONE, "is_announced"):
            found[name] = [*phones, ("responses", "body")]
        elif name in _OF_THE_ASKING:
            found[name] = [("responses", "asked_at")]
        else:
            found[name] = [("responses", "body")]
    return found


def _lineage(account: Account, columns: dict[str, list[tuple[str, str]]]) -> dg.TableColumnLineage:
    return dg.TableColumnLineage(
        {
            name: [dg.TableColumnDep(account.key(asset), column) for asset, column in deps]
            for name, deps in columns.items()
        }
    )
