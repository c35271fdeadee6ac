"""The charts: what they say in their headlines, what they draw, that they need nobody's help."""

from __future__ import annotations

import doctest
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from tests.made_receipts import NOW, five_days, opened
from usms_pipeline.contract import wording
from usms_pipeline.figures import charts, queries
from usms_pipeline.figures.charts import groups as bars
from usms_pipeline.figures.charts import style

DAY = date(2026, 11, 18)


def cohort(
    messages: int = 100, delivered: int = 90, failed: int = 5, awaited: int = 0
) -> dict[str, Any]:
    """The figures of one group, as the warehouse gives them."""
    known = delivered + failed
    return {
        "messages": messages,
        "delivered": delivered,
        "failed": failed,
        "rejected": 0,
        "expired": 0,
        "awaited": awaited,
        "delivery_rate": delivered / known if known else None,
        "delivery_rate_if_rest_failed": delivered / messages if messages else None,
        "delivery_rate_if_rest_arrived": 1 - failed / messages if messages else None,
    }


def days(*cohorts: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(
        [{"sent_date": DAY + timedelta(days=n), **one} for n, one in enumerate(cohorts)]
    )


def groups(**cohorts: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist([{"country": name, **one} for name, one in cohorts.items()])


def drawn_rows(chart: charts.Chart) -> list[dict[str, Any]]:
    """Every row of data that a chart holds."""
    return [row for rows in chart.to_dict()["datasets"].values() for row in rows]


def as_svg(chart: charts.Chart) -> str:
    """Return a chart as a notebook shows it."""
    drawn: str = charts.hover(chart.to_dict())["image/svg+xml"]
    return drawn


def only_drawn(svg: str) -> None:
    """Check that a picture is well formed and has nothing that runs or is fetched."""
    root = ElementTree.fromstring(svg)
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags <= {
        "svg", "g", "path", "line", "text", "rect", "title", "tspan", "defs", "clipPath",
    }  # fmt: skip
    names = {name for element in root.iter() for name in element.attrib}
    assert not {name for name in names if "href" in name or name.startswith("on")}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, pa.Table]]:
    """The tables of a published warehouse, by view."""
    with opened(tmp_path_factory.mktemp("data"), five_days()) as con:
        views = ("delivery_rate_daily", "delivery_rate_hourly", "delivery_rate_by_operator",
                 "delivery_rate_by('template')", "failures", "delivery_curve()")  # fmt: skip
        yield {view: con.sql(f"FROM {view}").to_arrow_table() for view in views}


@pytest.fixture(scope="module")
def every_chart(tables: dict[str, pa.Table]) -> list[charts.Chart]:
    hourly = tables["delivery_rate_hourly"]
    return [
        charts.rate_over_time(tables["delivery_rate_daily"]),
        charts.rate_over_time(hourly, "sent_hour", ZoneInfo("Asia/Shanghai")),
        charts.rate_by(tables["delivery_rate_by_operator"], "operator"),
        charts.rate_by(tables["delivery_rate_by('template')"], "template"),
        charts.failures_by_reason(tables["failures"]),
        charts.delivery_curve(tables["delivery_curve()"]),
    ]


@pytest.mark.long
def test_a_headline_is_broken_so_that_no_font_runs_over_the_edge() -> None:
    """Of DejaVu Sans, the widest that stands in for Arial: 10.4 and 7.4 pixels a character."""
    words = "at worst 85.6% so far (28 Nov 05:00 to 06:00), of the 12 largest groups " * 4
    title = style.dressed(style.empty("x"), words, words).title
    assert max(map(len, title.text)) * 10.4 <= style.WIDTH
    assert max(map(len, title.subtitle)) * 7.4 <= style.WIDTH
    assert " ".join(title.text) == words.strip()


@pytest.mark.long
def test_every_chart_of_the_warehouse_becomes_a_png(every_chart: list[charts.Chart]) -> None:
    for chart in every_chart:
        image = charts.png(chart, scale=1)
        assert image.startswith(b"\x89PNG")
        assert int.from_bytes(image[16:20]) >= style.WIDTH - 60


@pytest.fixture(scope="module")
def every_svg(every_chart: list[charts.Chart]) -> list[str]:
    return [as_svg(chart) for chart in every_chart]


def test_every_svg_is_well_formed_and_holds_nothing_that_runs_or_is_fetched(every_svg):
    for svg in every_svg:
        only_drawn(svg)


def test_every_colour_of_an_svg_is_in_the_palette(every_svg):
    known = {*charts.PALETTE.values(), "none", "transparent"}
    for svg in every_svg:
        used = set(re.findall(r'\b(?:fill|stroke)="([^"]+)"', svg))
        assert used <= known


def test_the_ids_of_two_charts_on_one_page_differ(every_svg):
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in every_svg]
    assert ids[0]
    assert ids[1]
    assert not ids[0] & ids[1]
    for found, svg in zip(ids, every_svg, strict=True):
        assert set(re.findall(r"url\(#([^)]+)\)", svg)) <= found


def test_marks_say_their_figures_when_pointed_at():
    svg = as_svg(charts.rate_over_time(days(cohort(), cohort(awaited=4))))
    said = "18 Nov: 94.7% delivered, between 90.0% and 95.0%; 0 of 100 still waiting"
    assert f"<title>{said}</title>" in svg


def test_an_svg_is_one_image_with_a_label():
    svg = as_svg(charts.rate_by(groups(CN=cohort()), "country"))
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    assert root.get("aria-label", "").startswith("94.7% are delivered for CN What became of all")
    assert svg.count("aria-") == 1


# --- over time ------------------------------------------------------------------------------------


USUAL = [cohort(), cohort(), cohort(), cohort(100, 85, 10)]


@pytest.mark.parametrize(
    ("cohorts", "said"),
    [
        ([cohort(), cohort(), cohort(delivered=45, failed=50), cohort()],
         "Usually 94.7% are delivered; at worst 47.4% (20 Nov)"),
        ([cohort(1000, 950, 50), cohort(1000, 951, 49)],
         "Between 95.0% and 95.1% are delivered, by day"),
        ([cohort(), cohort()], "94.7% are delivered"),
        # a young day that stays the worst in any case is named, unless it is small
        ([*USUAL, cohort(100, 60, 35, awaited=5)],
         "Usually 94.7% are delivered in settled days; at worst 63.2% so far (22 Nov)"),
        ([*USUAL, cohort(100, 60, 10, awaited=30)],
         "Usually 94.7% are delivered in settled days; at worst 89.5% (21 Nov)"),
        ([*USUAL, cohort(10, 2, 7, awaited=1)],
         "Usually 94.7% are delivered in settled days; at worst 89.5% (21 Nov)"),
        ([cohort(10, delivered=0, failed=0, awaited=10)],
         "No final status is known yet in any day"),
    ],
)  # fmt: skip
def test_the_headline(cohorts, said):
    chart = charts.rate_over_time(days(*cohorts))
    assert charts.caption(chart)[0] == said
    assert as_svg(chart)


def test_a_few_messages_make_no_headline():
    few = cohort(2, delivered=0, failed=2)
    chart = charts.rate_over_time(days(cohort(), few, cohort()))
    headline, explanation = charts.caption(chart)
    assert headline == "94.7% are delivered"
    assert "Too few messages for the headline: 1 day." in explanation
    assert "headline" not in charts.caption(charts.rate_over_time(days(cohort(), cohort())))[1]


def test_neither_headline_nor_axis_is_made_by_a_handful_of_settled_messages():
    """At night a few are settled, by day some of many are awaited: those few are no usual size."""
    night = cohort(3, delivered=1, failed=2)
    by_day = cohort(60, delivered=54, failed=3, awaited=3)
    chart = charts.rate_over_time(days(night, by_day, night, by_day, night))
    assert charts.caption(chart)[0] == "No day has the 30 messages that a rate takes"
    scales = re.findall(r"'domain': \[(0\.\d+), 1\]", str(chart.to_dict()))
    assert min(map(float, scales)) > 0.8
    assert {row["is_few"] for row in drawn_rows(chart) if row.get("messages") == 3} == {True}


def test_a_young_day_makes_no_headline_and_looks_young():
    young = cohort(100, delivered=5, failed=5, awaited=90)
    chart = charts.rate_over_time(days(cohort(), cohort(), cohort(), young))
    assert charts.caption(chart)[0] == "94.7% are delivered in settled days"
    dip = charts.rate_over_time(days(cohort(), cohort(delivered=45), cohort(), young))
    assert "94.7% are delivered in settled days; at worst" in charts.caption(dip)[0]
    points = [row for row in drawn_rows(chart) if "is_young" in row]
    assert [row["is_young"] for row in points] == [False, False, False, True]
    assert points[-1]["settled"] is None, "the solid line must end before it"
    awaited = [row for row in drawn_rows(chart) if row.get("fate") == "still waiting"]
    assert [row["to"] - row["from"] for row in awaited] == [90]


def test_a_young_day_shows_what_its_rate_will_be_and_a_settled_one_does_not():
    expected = {"expected_rate": 0.9, "expected_rate_low": 0.85, "expected_rate_high": 0.93}
    young = cohort(100, delivered=60, failed=0, awaited=40)
    chart = charts.rate_over_time(days(cohort() | expected, cohort() | expected, young | expected))
    points = [row for row in drawn_rows(chart) if "is_young" in row]
    assert [row["expected"] for row in points] == [None, None, 0.9]
    assert (points[-1]["expected_low"], points[-1]["expected_high"]) == (0.85, 0.93)
    assert points[-1]["tip"].endswith("still waiting; will be about 90.0%")
    assert "Diamond: what we expect in the end" in charts.caption(chart)[1]
    plain = charts.rate_over_time(days(cohort(), cohort(), young))
    assert "Diamond" not in charts.caption(plain)[1]


def test_a_period_without_messages_is_left_out():
    chart = charts.rate_over_time(days(cohort(), cohort(0, 0, 0)))
    assert len([row for row in drawn_rows(chart) if "is_young" in row]) == 1


def test_what_became_of_the_messages_adds_up_to_them():
    rows = drawn_rows(charts.rate_over_time(days(cohort(100, 90, 5, 3))))
    parts = [row for row in rows if "fate" in row]
    assert {row["fate"]: row["to"] - row["from"] for row in parts} == {
        "delivered": 90, "still waiting": 3, "no final status": 2, "not delivered": 5,
    }  # fmt: skip


def test_hours_are_shown_in_the_zone_asked_for():
    table = pa.Table.from_pylist([{"sent_hour": NOW, **cohort()}])
    chart = charts.rate_over_time(table, "sent_hour", ZoneInfo("Asia/Shanghai"))
    assert [row["name"] for row in drawn_rows(chart) if "is_young" in row] == ["22 Nov 20:00"]
    svg = as_svg(chart)
    assert "Asia/Shanghai" in svg


@pytest.mark.long
def test_the_machines_own_time_zone_moves_nothing():
    """Vega would draw in it: the same chart, drawn by processes in two zones, is the same."""
    code = (
        "from tests.test_charts import *; "
        "t = pa.Table.from_pylist([{'sent_hour': NOW + timedelta(hours=h), **cohort()} "
        "for h in range(30)]); "
        "print(charts.hover(charts.rate_over_time(t, 'sent_hour').to_dict())['image/svg+xml'])"
    )
    drawn = [
        subprocess.run(
            [sys.executable, "-c", code], env={"TZ": zone, "PATH": "/usr/bin"},
            capture_output=True, check=True, text=True, cwd=Path(__file__).parent.parent,
        ).stdout
        for zone in ("UTC", "America/New_York")
    ]  # fmt: skip
    assert ">12:00<" in drawn[0]
    assert drawn[0] == drawn[1]


def test_the_axis_begins_below_every_rate_that_is_drawn():
    for rate in (0, 3, 41, 88, 99, 100):
        chart = charts.rate_over_time(days(cohort(100, rate, 100 - rate), cohort(100, 100, 0)))
        (floor, top) = chart.to_dict()["vconcat"][0]["layer"][1]["encoding"]["y"]["scale"]["domain"]
        assert 0 <= floor <= rate / 100
        assert top == 1


# --- groups, failures, curve ----------------------------------------------------------------------


def test_groups_come_largest_first_and_the_rest_is_counted():
    many = groups(**{f"C{n:02}": cohort(100 + n) for n in range(15)})
    chart = charts.rate_by(many, "country")
    names = list(dict.fromkeys(row["name"] for row in drawn_rows(chart)))
    assert names == [f"C{n:02}" for n in range(14, 2, -1)]
    assert charts.caption(chart)[0].endswith(", of the 12 largest")
    assert "3 smaller ones are not drawn" in charts.caption(chart)[1]


def test_the_bars_of_a_group_end_at_its_bounds():
    (delivered, *_, lost) = [
        row for row in drawn_rows(charts.rate_by(groups(CN=cohort(100, 90, 5, 3)), "country"))
        if "fate" in row
    ]  # fmt: skip
    assert delivered["to"] == pytest.approx(0.9)
    assert (lost["from"], lost["to"]) == (pytest.approx(0.95), pytest.approx(1))


def test_the_groups_headline_names_worst_and_best():
    chart = charts.rate_by(groups(CN=cohort(), PH=cohort(100, 60, 40)), "country")
    assert charts.caption(chart)[0] == "From 60.0% for PH to 94.7% for CN are delivered"
    alike = charts.rate_by(groups(CN=cohort(), PH=cohort()), "country")
    assert charts.caption(alike)[0] == "94.7% are delivered for every country"


def test_an_operator_is_named_with_its_country():
    table = pa.Table.from_pylist(
        [{"country": c, "operator": o, **cohort()} for c, o in (("FR", "Orange"), ("PL", "Orange"))]
        + [{"country": None, "operator": None, **cohort()}]
    )
    names = {row["name"] for row in drawn_rows(charts.rate_by(table, "operator"))}
    assert names == {"Orange (FR)", "Orange (PL)", "not known"}


def test_groups_whose_names_look_alike_are_bars_of_their_own():
    values = [None, "", "not known", "a\tb", "a b", "x" * 300]
    table = pa.Table.from_pylist([{"template": value, **cohort()} for value in values])
    drawn = {row["name"] for row in drawn_rows(charts.rate_by(table, "template"))}
    cut = "x" * 39 + "…" + "x" * 40
    assert drawn == {"not known", "empty", "not known (2)", "a b", "a b (2)", cut}


def test_failures_alike_in_reason_are_one_bar():
    table = pa.Table.from_pylist(
        [
            {"provider_code": "X", "provider_desc": "gone", "status": "failed", "messages": 3},
            {"provider_code": "X", "provider_desc": "gone", "status": "expired", "messages": 2},
            {"provider_code": None, "provider_desc": None, "status": "failed", "messages": 5},
        ]
    )
    chart = charts.failures_by_reason(table)
    assert {row["name"]: row["messages"] for row in drawn_rows(chart)} == {
        "gone · X": 5, "no reason given": 5,
    }  # fmt: skip
    assert charts.caption(chart)[0] == "“gone · X” is 50.0% of 10 failures"


def test_the_curves_headline_says_how_fast():
    table = pa.table(
        {"seconds": [1.0, 20.0, 3600.0, 7200.0], "delivered_share": [0.1, 0.6, 0.95, None]}
    )
    chart = charts.delivery_curve(table)
    said = "Half of all messages arrive within 20 s, 90% within 1 h"
    assert charts.caption(chart)[0] == said
    slow = charts.delivery_curve(table.slice(0, 1))
    assert charts.caption(slow)[0] == "10.0% are delivered so far"


def test_nothing_to_draw_is_said():
    nothing = [
        charts.rate_over_time(days(cohort()).slice(1)),
        charts.rate_by(groups(CN=cohort()).slice(1), "country"),
        charts.failures_by_reason(pa.table({"provider_code": [], "messages": []})),
        charts.delivery_curve(pa.table({"seconds": [1.0], "delivered_share": [0.0]})),
    ]
    assert [charts.caption(chart)[0] for chart in nothing] == [
        "No messages in this period", "No messages in this period", "No failures",
        "Nothing is delivered yet",
    ]  # fmt: skip
    assert all(as_svg(chart) and charts.png(chart) for chart in nothing)


def test_drawing_fetches_nothing():
    """A chart that asks for an address is refused, and nobody calls there."""
    import altair as alt

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/rows.json"
        asking = alt.Chart(alt.UrlData(url=url)).mark_point().encode(x="a:Q")
        with pytest.raises(ValueError, match=r"(?i)not allowed|denied|base url|failed"):
            charts.png(asking)
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize("module", [wording, bars], ids=lambda module: module.__name__)
def test_the_examples_in_the_docstrings_are_true(module):
    failed, tried = doctest.testmod(module)
    assert tried
    assert not failed


def test_a_table_for_a_notebook_is_written_as_people_read_it(tmp_path):
    with opened(tmp_path, five_days()) as con:
        shown = charts.table(queries.maturity(con)).to_html()
        by_country = charts.table(queries.rates(con, "country").df()).to_html()
    assert re.search(r">5 min<", shown)
    assert re.search(r">\d+\.\d%<", shown)
    assert "0.9" not in re.sub(r"<style.*?</style>", "", by_country, flags=re.DOTALL)


def test_no_point_lies_below_the_axis():
    """Of an hour with a few messages it did, and the chart became as tall as that."""
    rows = days(*[cohort() for _ in range(9)], cohort(messages=2, delivered=0, failed=2))
    height = re.search(r'height="(\d+)"', as_svg(charts.rate_over_time(rows)))
    usual = re.search(r'height="(\d+)"', as_svg(charts.rate_over_time(rows.slice(0, 9))))
    assert height
    assert usual
    assert int(height[1]) <= int(usual[1]) + 20


def test_a_notebook_draws_a_chart_whose_marks_say_their_figures(tmp_path):
    with opened(tmp_path, five_days()) as con:
        daily = con.sql("FROM delivery_rate_daily").to_arrow_table()
    chart = charts.rate_over_time(daily)
    drawn = charts.hover(chart.to_dict())["image/svg+xml"]
    assert "<title>" in drawn
    assert " ".join(chart.title.text)[:20] in drawn
