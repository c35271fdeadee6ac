"""The report: one HTML file with every figure, which works offline, on a phone and on paper.

It says only what the warehouse says: no phone number, no key and no raw answer can get into it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from usms_pipeline.contract import wording
from usms_pipeline.figures.report import body, embedded
from usms_pipeline.figures.report.figures import Figures, ask
from usms_pipeline.figures.report.page import page, paragraph
from usms_pipeline.figures.report.periods import PERIODS
from usms_pipeline.figures.report.quality import findings, quality_table
from usms_pipeline.figures.report.texts import Said, said
from usms_pipeline.settings import Settings, as_text
from usms_pipeline.source import LeftOut
from usms_pipeline.store.storage import Store

__all__ = ["NAME", "PERIODS", "Figures", "ask", "build", "draw", "summary"]

NAME: Final = "report.html"

_SHOWN: Final = (
    "timezone",
    "receipt_timezone",
    "source_timezone",
    "cutoff_hours",
    "start_date",
    "source_lookback_days",
    "dimensions",
    "phones",
    "target_rate",
    "target_seconds",
)


def draw(
    figures: Figures,
    *,
    generated_at: datetime,
    settings_summary: Mapping[str, str],
    quarantined: int | None = None,
    left_out: LeftOut | None = None,
    days: int = PERIODS[1],
) -> str:
    """Return the page of what ``ask`` got of a warehouse; it opens with one of ``PERIODS``.

    The counts are of open quarantine entries and of source rows that are in no figure, ``None``
    when not counted. ``settings_summary`` is shown as it is; see ``summary``.
    """
    zone = ZoneInfo(settings_summary.get("USMS_TIMEZONE", "UTC"))
    target = float(settings_summary.get("USMS_TARGET_RATE") or 0) or None
    checks = quality_table(findings(figures, quarantined, left_out))
    first, last, as_of = (figures.quality[key] for key in ("first_date", "last_date", "as_of"))
    lead = said("No messages yet.")
    if first is not None:
        sent = Said(wording.days(first, last), f"{first} 至 {last}")
        lead = said(
            "Messages sent {days}, based on receipts collected until {at}.",
            days=sent,
            at=_at(as_of, zone),
        )
    foot = said(
        "Made {at} by usms-pipeline {version}. This file fetches nothing and holds no phone "
        "number.",
        at=_at(generated_at, zone),
        version=version("usms-pipeline"),
    )
    return page(
        "SMS delivery report",
        paragraph(lead),
        body.fixed(figures, zone),
        body.folded_away(figures, checks, settings_summary),
        paragraph(foot),
        embedded.data(figures.periods, figures.alerts, zone, days, target)
        if figures.periods
        else None,
    )


def _at(time: datetime | None, zone: ZoneInfo) -> Said:
    """Return a time as readers of each language write it."""
    chinese = f"{time.astimezone(zone):%Y-%m-%d %H:%M}（{zone.key}）" if time else wording.ABSENT
    return Said(wording.moment(time, zone), chinese)


def build(figures: Figures, where: Path | Store, **given: Any) -> str:
    """Write the page that ``draw`` makes, whole or not at all, and return its path.

    ``where`` is a file, or the data directory, which gets ``report.html``.

    Raises ``StorageError`` when it can't be written.
    """
    store, name = (
        (where, NAME) if isinstance(where, Store) else (Store(str(where.parent)), where.name)
    )
    text = draw(figures, **given)
    with store.replacing(name) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return store.path(name)


def summary(settings: Settings) -> dict[str, str]:
    """Return the settings that a reader of the report needs, by variable; none of them secret."""
    values = {name: getattr(settings, name) for name in _SHOWN}
    return {
        f"USMS_{name.upper()}": ", ".join(value) if isinstance(value, tuple) else as_text(value)
        for name, value in values.items()
    }
