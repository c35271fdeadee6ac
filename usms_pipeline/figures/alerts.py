"""What is worse than usual, in sentences: the rows of the view ``delivery_alerts``, for people.

Nothing is judged here: which groups and hours are worse than usual is in ``sql/alerts.sql``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final
from zoneinfo import ZoneInfo

from usms_pipeline.contract import wording

_WITHIN: Final = {1: "within an hour", 24: "within a day"}
_SAID: Final = {
    "failing": "{affected} of {messages} messages failed {within}",
    "silent": "{affected} of {messages} messages had no final status {within}",
}
_ALSO: Final = {"failing": "failed", "silent": "came late or not at all"}

Row = Mapping[str, Any]


def group(row: Row) -> str:
    """Return the name of an alert's group.

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
    """Return the hours that are worse than usual, in words, in a zone."""
    since, until = (row[name].astimezone(zone) for name in ("since", "until"))
    begin = wording.hour(since)
    end = f"{until:%H:%M}" if since.date() == until.date() else wording.hour(until)
    if since.utcoffset() != until.utcoffset():  # the same hour of the clock may come twice
        begin, end = f"{begin} UTC{since:%z}", f"{end} UTC{until:%z}"
    return f"from {begin} to {end} ({zone.key})"


def sentence(row: Row, zone: ZoneInfo) -> str:
    """Return who an alert is about, since when, how many messages, and where else it shows.

    ``row`` is one of ``delivery_alerts``; its columns are ``metrics.ALERTS``.
    """
    share, usual = wording.percent(row["share"]), wording.percent(row["usual_share"])
    if row["kind"] == "mix":
        said = (
            f"{group(row)} has {share} of the messages sent {span(row, zone)} (usually {usual}): "
            "what all messages do may change by that alone."
        )
        return said[0].upper() + said[1:]
    counts = _SAID[row["kind"]].format(
        affected=wording.count(row["affected"]),
        messages=wording.count(row["messages"]),
        within=_WITHIN[row["within_hours"]],
    )
    also = "".join(
        f", and {wording.percent(echo['share'])} {_ALSO[echo['kind']]} "
        f"(usually {wording.percent(echo['usual_share'])})"
        for echo in row["echoes"]
        if _same(echo, row)
    )
    others = dict.fromkeys(
        f"{group(echo)} ({wording.percent(echo['share'])})"
        for echo in row["echoes"]
        if not _same(echo, row) and echo["kind"] == row["kind"]
    )
    where = f"It shows in {_listed(list(others))}." if others else "Seen nowhere else."
    said = (
        f"{group(row)}, sent {span(row, zone)}: {counts} ({share}; usually {usual}){also}. {where}"
    )
    return said[0].upper() + said[1:]


def in_short(rows: Iterable[Row]) -> str:
    """Return in one line how many alerts there are and of whom; nothing where there are none.

    >>> in_short([{"kind": "failing", "by_column": "operator", "cohort": "Orange (FR)"}])
    '1 alert in the last 72 hours: operator Orange (FR). `usms alerts` shows it.'
    """
    found = troubles(rows)
    if not found:
        return ""
    named = _listed(list(dict.fromkeys(map(group, found))))
    it = "it" if len(found) == 1 else "them"
    return (
        f"{wording.counted(len(found), 'alert')} in the last 72 hours: {named}. "
        f"`usms alerts` shows {it}."
    )


def troubles(rows: Iterable[Row]) -> list[Row]:
    """Return the alerts that are trouble: all but those of a mix that changed."""
    return [row for row in rows if row["kind"] != "mix"]


def _same(one: Row, other: Row) -> bool:
    return bool((one["by_column"], one["cohort"]) == (other["by_column"], other["cohort"]))


def _listed(names: list[str]) -> str:
    shown, more = names[:6], len(names) - 6
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
