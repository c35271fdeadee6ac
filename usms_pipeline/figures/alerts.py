"""What is out of line, in sentences: the rows of the view ``delivery_alerts``, for people.

Nothing is judged here: which groups and hours are out of line is in ``sql/alerts.sql``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from usms_pipeline.contract import wording

KINDS: Final = ("failing", "silent")
"""The kinds of ``delivery_alerts``."""

_SAID: Final = {
    "failing": "{affected} of {messages} messages with an outcome were not delivered",
    "silent": "{affected} of {messages} messages had no outcome within an hour",
}

Row = Mapping[str, Any]


def group(row: Row) -> str:
    """Name the group of an alert.

    >>> group({"by_column": "operator", "cohort": "Orange (FR)"})
    'operator Orange (FR)'
    >>> group({"by_column": "everything", "cohort": "all messages"})
    'all messages'
    """
    name = wording.name(row["cohort"])
    if row["by_column"] == "everything":
        return name
    return f"{wording.visible(row['by_column'].replace('_', ' '))} {name}"


def span(row: Row, zone: ZoneInfo) -> str:
    """Say the hours that are out of line, in a zone."""
    since, until = (row[name].astimezone(zone) for name in ("since", "until"))
    begin = wording.hour(since)
    end = f"{until:%H:%M}" if since.date() == until.date() else wording.hour(until)
    if since.utcoffset() != until.utcoffset():  # the same hour of the clock may come twice
        begin, end = f"{begin} UTC{since:%z}", f"{end} UTC{until:%z}"
    return f"from {begin} to {end} ({zone.key})"


def sentence(row: Row, zone: ZoneInfo) -> str:
    """Say of an alert what, where, since when and how many messages.

    ``row`` is one of ``delivery_alerts``: ``by_column``, ``cohort``, ``kind``, ``since`` and
    ``until`` (aware), ``messages``, ``affected``, ``share`` and ``usual_share`` (0–1).
    """
    said = _SAID[row["kind"]].format(
        affected=wording.count(row["affected"]), messages=wording.count(row["messages"])
    )
    return (
        f"{group(row)}, sent {span(row, zone)}: {said} ({wording.percent(row['share'])}; "
        f"usually {wording.percent(row['usual_share'])})."
    )


def summary(alerts: Iterable[Row], zone: ZoneInfo, kind: str) -> str:
    """Say the alerts of one kind: the one furthest out of line whole, others at its hours briefly.

    Trouble of one operator shows in its country too; what lies in hours of its own is said whole.
    Empty where there are none.
    """
    rows = [row for row in alerts if row["kind"] == kind]
    if not rows:
        return ""
    told, at_once = [rows[0]], []
    for row in rows[1:]:
        if any(_overlap(row, one) for one in told):
            at_once.append(f"{group(row)} ({wording.percent(row['share'])})")
        else:
            told.append(row)
    also = f" At the same time: {_listed(at_once)}." if at_once else ""
    said = " ".join(sentence(row, zone) for row in told) + also
    return said[0].upper() + said[1:]


def _overlap(one: Row, other: Row) -> bool:
    begun: datetime = max(one["since"], other["since"])
    return bool(begun < min(one["until"], other["until"]))


def _listed(names: list[str]) -> str:
    shown, more = names[:6], len(names) - 6
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
