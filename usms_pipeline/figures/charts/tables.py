"""Figures as a table for a notebook: shares in percent, counts with separators, times in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from usms_pipeline.contract import metrics, wording

_WRITTEN: Final[dict[str, Callable[[Any], str]]] = {
    "messages": wording.count,
    "segments": wording.count,
    "share": wording.percent,
    "s": wording.duration,
}

_UNITS: Final = {
    one.name: one.unit
    for table in (
        metrics.METRICS, metrics.CURVE, metrics.FAILURES, metrics.FAILING, metrics.NOWCAST,
        metrics.ALERTS, metrics.COSTS,
    )
    for one in table
} | {
    "change": "share", "change_low": "share",
    "change_high": "share", "age_seconds": "s", "open_share": "share",
    "delivered_if_open": "share", "not_delivered_if_open": "share",
}  # fmt: skip
"""Unit of each figure, by its column's name."""


def table(rows: Any) -> Any:
    """Return rows as a notebook shows them: a relation of ``queries``, or a pandas ``DataFrame``.

    What is not known is a dash. ``awaited_then``, ``…_now`` and ``…_before`` are as ``awaited`` is.
    """
    frame = rows if hasattr(rows, "style") else rows.df()
    units = {
        name: _UNITS.get(name)
        or _UNITS.get(name.removesuffix("_now").removesuffix("_then").removesuffix("_before"))
        for name in map(str, frame.columns)
    }
    written = {name: _WRITTEN[unit] for name, unit in units.items() if unit in _WRITTEN}
    return frame.style.format(written, na_rep=wording.ABSENT)
