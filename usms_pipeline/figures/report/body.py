"""The report's sections: which figures, charts and tables stand where, and in which words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa

from usms_pipeline.contract import metrics, wording
from usms_pipeline.contract.status import STATUSES
from usms_pipeline.contract.wording import count, day, moment, percent
from usms_pipeline.figures import alerts, charts
from usms_pipeline.figures.charts import NARROW, WIDTH, Chart
from usms_pipeline.figures.report.figures import CHANGES, DAYS, HOURS, Figures, Group, Row
from usms_pipeline.figures.report.page import (
    Html,
    figure,
    html,
    join,
    name,
    paragraph,
    table,
    tiles,
)

Section = tuple[str, str, list[object]]


def sections(figures: Figures, zone: ZoneInfo) -> list[Section]:
    """Return every section that shows figures; without messages, only the one that says so."""
    if not figures.total["messages"]:
        empty = (
            "Nothing has been collected yet: `usms run` does it, `usms check` says what is missing."
        )
        return [("summary", "Summary", [paragraph(empty.replace("`", ""))])]
    return [
        *_alerts(figures, zone),
        ("summary", "Summary", [_summary(figures), _fates(figures.total)]),
        ("time", "Over time", _over_time(figures, zone)),
        ("change", "Since the week before", _change(figures)),
        ("speed", "How fast, how complete", [_speed(figures), _maturity(figures.maturity)]),
        *(_group_section(group) for group in figures.groups),
        ("failures", "Why messages fail", _failures(figures.failures, zone)),
    ]


def terms() -> Html:
    """Explain every figure, in the words of the metric table."""
    entries = "".join(
        f"<dt>{html(_title(metric.name))}</dt><dd>{html(metric.description)}</dd>"
        for metric in metrics.METRICS
    )
    return Html(f'<dl class="terms">{entries}</dl>')


def settings_table(settings_summary: Mapping[str, str]) -> Html:
    """Show the settings that the figures depend on."""
    rows = [[variable, value or "–"] for variable, value in settings_summary.items()]
    return table("Settings that the figures depend on", ["Setting", "Value"], rows, texts=range(2))


def _summary(figures: Figures) -> Html:
    total = figures.total
    evidence = sum(total[status] for status in ("delivered", "failed", "rejected", "expired"))
    return join(
        [
            tiles(
                [
                    *_rate_tiles(total),
                    ("Messages", count(total["messages"]), "announced recipients"),
                    ("Receipt coverage", percent(total["receipt_coverage"]),
                     f"{count(evidence)} with an outcome"),
                    ("Still open", count(total["awaited"]),
                     f"{percent(total['awaited_rate'])} of all"),
                    ("Typical delay", _span(total["latency_p50_seconds"]),
                     "half of the delivered took no longer"),
                ]
            ),
            paragraph(_open_sentence(total), f" {wording.held(figures.forecasts)}"),
        ]
    )  # fmt: skip


def _rate_tiles(total: Row) -> list[tuple[str, str, str]]:
    """Show a rate that will stay with its confidence; a young one behind what it will be."""
    rate, low, high = (percent(total[f"delivery_rate{end}"]) for end in ("", "_ci_low", "_ci_high"))
    if not total["awaited"]:
        sure = f" ({low} – {high} with 95% confidence)" if total["delivery_rate"] else ""
        return [("Delivery rate", rate, f"of the messages with an outcome{sure}")]
    expected, low, high = (percent(total[f"expected_rate{end}"]) for end in ("", "_low", "_high"))
    return [
        ("Expected rate", expected, f"in the end; 19 times in 20 between {low} and {high}"),
        ("So far", rate, "of the messages with an outcome; it will move"),
    ]


def _open_sentence(total: Row) -> str:
    low, high = (percent(total[f"delivery_rate_if_rest_{end}"]) for end in ("failed", "arrived"))
    bounds = (
        "Should none, or all, of the messages without an outcome have arrived, between "
        f"{low} and {high} of all did."
    )
    if not total["awaited"]:
        return f"None of these {count(total['messages'])} messages is open any more. {bounds}"
    return f"{wording.so_far(total)} {wording.why_less(total)}{bounds}"


def _alerts(figures: Figures, zone: ZoneInfo) -> list[Section]:
    """Say what is out of line; no section where nothing is."""
    items = join(Html(f"<li>{html(one)}</li>") for one in alerts.sentences(figures.alerts, zone))
    if not items:
        return []
    explained = paragraph(
        "More than usual: against what the same operators' messages did at these hours in the 28 "
        "days before. Looked at are the last 72 hours of sending."
    )
    return [("alerts", "Out of line", [explained, Html(f'<ul class="warnings">{items}</ul>')])]


def _change(figures: Figures) -> list[object]:
    if not figures.change:
        return [paragraph("Shown once there are two whole weeks of which nothing is awaited.")]
    (whole,) = figures.change
    first, last = (whole[name] for name in ("first_day", "last_day"))
    sentence = (
        f"Of the messages sent {wording.days(first, last)} with an outcome, "
        f"{percent(whole['delivery_rate'])} were delivered; in the seven days before "
        f"{percent(whole['delivery_rate_before'])}. "
    )
    is_more = whole["change_low"] is not None and not (
        whole["change_low"] <= 0 <= whole["change_high"]
    )
    sentence += (
        "That is more than weeks usually differ."
        if is_more
        else "Weeks differ by as much without a cause."
    )
    rows = [["All messages", *_changed(whole)]]
    rows += [
        [name(f"{_named(part.column)} {wording.name(row['cohort'])}"), *_changed(row)]
        for part in figures.changes
        for row in part.rates.to_pylist()
    ]
    groups = sum(part.groups for part in figures.changes)
    caption = (
        f"All messages, and the groups (of {count(groups)}) that changed by more than weeks "
        f"usually differ, {CHANGES} of a column at most; one in twenty does so by chance. Change: "
        "the mean difference of the same weekdays, with its 95% interval"
    )
    headers = [
        "Group", "Messages", "Week before", "Rate", "Rate before", "Change, points", "Between",
    ]  # fmt: skip
    return [paragraph(sentence), table(caption, headers, rows)]


def _changed(row: Row) -> list[str]:
    return [
        count(row["messages"]),
        count(row["messages_before"]),
        percent(row["delivery_rate"]),
        percent(row["delivery_rate_before"]),
        _points(row["change"]),
        wording.ABSENT
        if row["change_low"] is None
        else f"{_points(row['change_low'])} to {_points(row['change_high'])}",
    ]


def _points(change: float) -> str:
    """Write a difference of two rates in points of percent, with its sign."""
    written = f"{100 * change:+.1f}".replace("-", "−")
    return "0.0" if written[1:] == "0.0" else written


def _maturity(maturity: pa.Table) -> Html:
    """Show how complete a group usually is by age."""
    rows = [
        [
            _span(row["age_seconds"]),
            percent(row["known_share"]),
            percent(row["open_share"]),
            percent(row["delivered_if_open"]),
            percent(row["not_delivered_if_open"]),
        ]
        for row in maturity.to_pylist()
        if row["age_seconds"]
    ]
    if not rows:
        return paragraph("How complete a group usually is shows once some outcomes are known.")
    headers = ["Age", "Outcomes known", "Still open", "Delivered later", "Not delivered"]
    messages = count(maturity["messages"][0].as_py())
    return table(
        f"How complete a group of messages is by its age, from {messages} of four weeks. Known: of "
        "the outcomes that come at all. Delivered later or not: of those still open; of the rest "
        "no outcome comes.",
        headers,
        rows,
    )


def _fates(total: Row) -> Html:
    rows = [
        [_title(meaning.status), count(total[meaning.status]),
         percent(total[meaning.status] / total["messages"]), meaning.description]
        for meaning in STATUSES
    ]  # fmt: skip
    return table(
        "Where every message is; the statuses add up to all messages",
        ["Status", "Messages", "Share", "Meaning"],
        rows,
        texts=(0, 3),
    )


def _over_time(figures: Figures, zone: ZoneInfo) -> list[object]:
    daily, hourly = figures.daily, figures.hourly
    drawn = [_drawn(lambda width: charts.rate_over_time(hourly, "sent_hour", zone, width))]
    if daily.num_rows > HOURS // 24:
        drawn.insert(0, _drawn(lambda width: charts.rate_over_time(daily, width=width)))
    rows = [_of_day(row) for row in reversed(daily.to_pylist())]
    caption = f"Delivery by day of sending ({zone.key})"
    if len(rows) == DAYS:
        caption += f", the latest {DAYS} days"
    headers = [
        "Sent on", "Messages", "Expected", "So far", "At worst – at best", "Open", "Half within",
    ]  # fmt: skip
    return [*drawn, table(caption, headers, rows)]


def _of_day(row: Row) -> list[str]:
    sent_on, (messages, rate, between, _, awaited, half, _) = day(row["sent_date"]), _metrics(row)
    return [sent_on, messages, _expected(row), rate, between, awaited, half]


def _expected(row: Row) -> str:
    """Write what the rate will be, with its interval while something is open."""
    low, high = percent(row["expected_rate_low"]), percent(row["expected_rate_high"])
    between = f" ({low} – {high})" if row["awaited"] and row["expected_rate"] is not None else ""
    return f"{percent(row['expected_rate'])}{between}"


def _speed(figures: Figures) -> Html:
    total = figures.total
    spread = ", ".join(
        f"{share}% within {_span(total[f'latency_p{share}_seconds'])}" for share in (50, 90, 99)
    )
    return join(
        [
            _drawn(lambda width: charts.delivery_curve(figures.curve, width)),
            paragraph(
                f"Of the delivered messages alone, by the service's receipt times: {spread}. (The "
                "chart is of all messages. –: what is still open could make it much longer.)"
            ),
        ]
    )


def _group_section(group: Group) -> Section:
    title = f"By {_named(group.column)}"
    found = group.rates.to_pylist()
    names = wording.apart(charts.group_name(row, group.column) for row in found)
    rows = [[name(one), *_metrics(row)] for one, row in zip(names, found, strict=True)]
    caption = f"Delivery {title[0].lower()}{title[1:]}"
    if group.groups > len(rows):
        caption += f", the {len(rows)} largest of {count(group.groups)}"
    chart = _drawn(
        lambda width: charts.rate_by(group.rates, group.column, None, width, group.groups)
    )
    anchor = f"by-{''.join(c if c.isalnum() else '-' for c in group.column)}"
    return (anchor, title, [chart, _metric_table(caption, title[3:].capitalize(), rows)])


def _failures(failures: pa.Table, zone: ZoneInfo) -> list[object]:
    chart = _drawn(lambda width: charts.failures_by_reason(failures, width))
    rows = [
        [name(row["provider_desc"] or "no description"), name(row["provider_code"] or "–"),
         row["status"], count(row["messages"]), percent(row["share"]),
         moment(row["first_seen_at"], zone).rpartition(" (")[0],
         moment(row["last_seen_at"], zone).rpartition(" (")[0]]
        for row in failures.slice(0, 30).to_pylist()
    ]  # fmt: skip
    if not rows:
        return [paragraph("No message has failed, been rejected or expired.")]
    caption = f"Failures by reason; times in {zone.key}"
    if failures.num_rows > len(rows):
        caption += f"; the {len(rows)} most frequent of {count(failures.num_rows)}"
    headers = ["Reason", "Code", "Status", "Messages", "Share", "First seen", "Last seen"]
    return [chart, table(caption, headers, rows, texts=range(3))]


def _drawn(draw: Callable[[int], Chart]) -> Html:
    return figure(draw(WIDTH), draw(NARROW))


def _metric_table(caption: str, first: str, rows: list[list[Any]]) -> Html:
    headers = [first, "Messages", "So far", "At worst – at best", "Coverage",
               "Open", "Half within", "90% within"]  # fmt: skip
    return table(caption, headers, rows)


def _metrics(row: Row) -> list[str]:
    low, high = row["delivery_rate_if_rest_failed"], row["delivery_rate_if_rest_arrived"]
    return [
        count(row["messages"]),
        percent(row["delivery_rate"]),
        f"{percent(low)} – {percent(high)}",
        percent(row["receipt_coverage"]),
        count(row["awaited"]),
        _span(row["latency_p50_seconds"]),
        _span(row["latency_p90_seconds"]),
    ]


def _named(column: str) -> str:
    return column.replace("_", " ")


def _span(seconds: float | None) -> str:
    """Write a span that no line is broken in."""
    return wording.unbroken(wording.duration(seconds))


def _title(metric: str) -> str:
    words = metric.removesuffix("_seconds").replace("_ci_", ", interval ").replace("_", " ")
    return words.capitalize()
