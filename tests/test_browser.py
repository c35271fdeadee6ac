"""The report in a browser: nothing fetched, nothing wrong; what is pressed does what it says."""

from __future__ import annotations

import csv
import json
import re
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import vl_convert
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from tests import rate_worlds
from tests.made_receipts import HARM, NOW, five_days, message, opened
from tests.rate_worlds import Trouble, World
from tests.services import missing
from usms_pipeline.figures import charts, report

pytestmark = pytest.mark.long

WIDTHS = (390, 1440)
SETTINGS = {"USMS_TIMEZONE": "UTC", "USMS_TARGET_RATE": "95"}
NAMES = ["مرحبا بالعالم", "😀🎉 otp", HARM, "a" * 200, "", "שלום", "line\nbreak", None]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        missing("chromium", "chromium")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield made
        made.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Make reports of an outage in three weeks, of nothing, of one message, and of odd names."""
    folder = tmp_path_factory.mktemp("reports")
    now = datetime(2026, 11, 22, 10, tzinfo=UTC)
    struck = Trouble("China Unicom", 20, 6, 0.6)
    world = World(3, 1_500, 24, until=now, troubles=(struck,))
    with rate_worlds.warehouse() as con:
        rate_worlds.fill(con, world.receipts(now))
        made = {"outage": _written(con, folder / "outage.html", now)}
    odd = [message(n, NOW, template=name) for n, name in enumerate(NAMES * 40)]
    many = [message(n, NOW, template=f"campaign {n}") for n in range(10_000)]
    skewed = [message(n, NOW, received_at=NOW - timedelta(hours=1)) for n in range(50)]
    pending = [message(n, NOW, "pending", country=None, operator=None) for n in range(50)]
    rows = {
        "nothing": [], "one": [message(1, NOW)], "pending": pending, "odd": odd, "many": many,
        "skewed": [row | {"delivery_seconds": -3600.0} for row in skewed],
    }  # fmt: skip
    for name, some in rows.items():
        with opened(folder / name, some) as con:
            made[name] = _written(con, folder / f"{name}.html", NOW)
    return made


REPORTS = ("outage", "nothing", "one", "pending", "odd", "many", "skewed")


def _written(con: Any, path: Path, now: datetime) -> Path:
    asked = report.ask(con)
    report.build(asked, path, generated_at=now, settings_summary=SETTINGS, quarantined=0)
    return path


def _opened(browser: Browser, path: Path, state: str = "", **look: Any) -> tuple[Page, list[str]]:
    """Open a report and let it be drawn; gives what it asks for and what goes wrong, too."""
    page = browser.new_page(**look)
    amiss: list[str] = []

    def note(address: str) -> None:
        if address.split("#")[0] != path.as_uri() and not address.startswith(("data:", "blob:")):
            amiss.append(address)

    page.on("console", lambda said: amiss.append(said.text))
    page.on("pageerror", lambda error: amiss.append(str(error)))
    page.on("request", lambda asked: note(asked.url))
    page.goto(path.as_uri() + state)
    if page.query_selector("#packed"):
        page.wait_for_selector("#live:not([hidden])")
    return page, amiss


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", REPORTS)
def test_a_report_is_sound(name, width, scheme, browser, reports):
    """No request, no error, nothing that axe objects to, and no page wider than the screen."""
    look = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
    page, amiss = _opened(browser, reports[name], **look)
    try:
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert reports[name].stat().st_size < 1_000_000
        assert amiss == []
    finally:
        page.close()


def test_every_selection_is_sound(browser, reports):
    """Axe, and the width, where a table, a chart or a sentence says that it can't be told."""
    look = {"viewport": {"width": 390, "height": 900}}
    for name, state in (
        ("outage", "#period=1&by=operator&in.country=CN"),
        ("outage", "#period=90&by=template&in.country=CN&in.template=otp"),
        ("many", "#period=30&by=template"),
        ("outage", "#hours=4227-4251&lang=zh"),
    ):
        page, amiss = _opened(browser, reports[name], state, **look)
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert amiss == []
        page.close()


@pytest.fixture
def outage(browser: Browser, reports: dict[str, Path]) -> Iterator[Page]:
    """Open the report of three weeks with an outage; nothing done to it goes wrong."""
    page, amiss = _opened(
        browser, reports["outage"], viewport={"width": 1440, "height": 900}, accept_downloads=True
    )
    yield page
    page.close()
    assert amiss == []


def _messages(page: Page) -> int:
    return int(page.inner_text("#said").split()[1].replace(",", ""))


def test_the_period_is_switched_and_kept_in_the_address(outage):
    assert "16 Nov – 22 Nov" in outage.inner_text("#said")
    week = _messages(outage)
    outage.click("#periods >> text=24 h")
    assert "period=1" in outage.url
    assert "from 21 Nov 10:00 to 22 Nov 10:00" in outage.inner_text("#said")
    assert _messages(outage) < week / 4
    outage.go_back()
    outage.wait_for_function("document.getElementById('said').textContent.includes('16 Nov')")
    assert _messages(outage) == week
    outage.click("#periods >> text=90 days")
    assert _messages(outage) > 30_000
    assert "nothing from the 90 days before" in outage.inner_text("#said")
    outage.reload()
    outage.wait_for_selector("#live:not([hidden])")
    assert _messages(outage) > 30_000


def test_the_answer_says_how_much_and_whether_it_is_more_than_usual(outage):
    said = outage.inner_text("#said")
    assert "we expect 9" in said
    assert "points less than in the 7 days before" in said
    assert "normal for weeks to differ" in said
    tiles = outage.locator("#tiles .tile")
    assert tiles.count() == 4
    assert tiles.nth(0).locator("svg").count() == 1
    assert "19 times in 20" in tiles.nth(0).inner_text()
    assert "have no receipt yet" in tiles.nth(2).inner_text()


def test_a_filter_holds_for_all_and_says_where_nothing_is_forecast(outage):
    everything = _messages(outage)
    outage.select_option("[data-column=country]", label="CN")
    china = _messages(outage)
    assert china < everything
    assert "we expect" in outage.inner_text("#said")
    outage.select_option("[data-column=template]", index=1)
    assert _messages(outage) < china
    assert "in.country=CN" in outage.url
    assert "in.template=" in outage.url
    assert "did not compute whether that is unusual" in outage.inner_text("#said")
    assert "no forecast for this selection" in outage.inner_text("#tiles")
    outage.click("#crumbs >> text=All messages")
    assert _messages(outage) == everything


def test_a_click_goes_from_country_to_operator_to_template(outage):
    assert outage.locator("#changed tbody tr").count() <= 12
    assert outage.locator("#by [aria-pressed=true]").inner_text().lower() == "country"
    outage.click("#changed .drill >> text=CN")
    assert outage.locator("#by [aria-pressed=true]").inner_text().lower() == "operator"
    outage.click("#changed .drill >> text=China Unicom (CN)")
    assert outage.locator("#by [aria-pressed=true]").inner_text().lower() == "template"
    assert "for CN, China Unicom (CN)," in outage.inner_text("#said")
    assert "we expect" in outage.inner_text("#said")


def test_an_alert_says_who_and_how_many_and_filters_the_page(outage):
    card = outage.locator("#alerts .trouble")
    assert card.count() == 1
    text = card.inner_text()
    assert "Operator China Unicom (CN)" in text
    assert "extra failures" in text
    card.locator("button").click()
    assert "for China Unicom (CN)," in outage.inner_text("#said")
    assert outage.locator("#over-time .alerted").count() == 1
    assert outage.locator("#by [aria-pressed=true]").inner_text().lower() == "template"


def test_hours_drawn_over_in_the_chart_are_looked_at_alone(outage):
    week = _messages(outage)
    outage.locator("#over-time").evaluate(
        "one => one.scrollIntoView({ block: 'center', behavior: 'instant' })"
    )
    box = outage.locator("#over-time svg").bounding_box()
    assert box
    outage.mouse.move(box["x"] + 300, box["y"] + 100)
    outage.mouse.down()
    outage.mouse.move(box["x"] + 380, box["y"] + 110, steps=4)
    outage.mouse.up()
    outage.wait_for_url("**hours=**")
    assert "sent from " in outage.inner_text("#said")
    assert "did not compute whether that is unusual" in outage.inner_text("#said")
    assert 0 < _messages(outage) < week / 2
    outage.click("#crumbs button")
    assert _messages(outage) == week


def test_hours_that_can_not_be_are_not_looked_at(browser, reports):
    for hours in ("0-99999999999", "9-3", "x-y", "-5-7"):
        page, amiss = _opened(browser, reports["outage"], f"#hours={hours}")
        assert "16 Nov – 22 Nov" in page.inner_text("#said")
        page.close()
        assert amiss == []


def test_a_cell_of_operators_by_templates_filters_both(outage):
    assert outage.inner_text("#matrix-title") == "By operator and template"
    assert outage.locator("#matrix-table tbody tr").count() <= 6
    outage.locator("#matrix-table .drill").first.click()
    assert "in.operator=" in outage.url
    assert "in.template=" in outage.url


def test_a_missed_target_is_said_and_drawn(outage):
    assert "target 95%: missed" in outage.locator("#tiles .tile").first.inner_text()
    assert outage.locator("#tiles .target").count() == 1
    assert outage.locator("#over-time .target").count() == 2  # on the chart, and beside its name
    assert outage.locator("#over-time text >> text=target: 95%").count() == 1


def test_in_chinese_no_english_is_left_but_names(outage):
    outage.click("#language")
    assert "lang=zh" in outage.url
    assert "not known" not in outage.inner_text("#filters")
    assert outage.evaluate("document.documentElement.lang") == "zh-CN"
    assert "预计最终送达率" in outage.inner_text("#said")
    names = outage.evaluate(
        "JSON.parse(document.getElementById('figures').textContent).columns"
        ".flatMap((one) => [...one.values, one.name])"
    )
    shown = outage.inner_text("#live")
    for name in sorted(names, key=len, reverse=True):
        shown = shown.replace(name, "").replace(name.title(), "")
    left = set(re.findall(r"[A-Za-z]{2,}", shown))
    assert left <= {"CSV", "English", "UTC"}
    folds = outage.locator("details")
    for n in range(folds.count()):
        folds.nth(n).locator("summary").click()
    folded = "".join(folds.all_inner_texts())
    assert "已送达的短信有一半在" in folded
    assert "delivered" not in folded
    outage.click("#language")
    assert "lang=zh" not in outage.url
    folded = "".join(folds.all_inner_texts())
    assert "half of the delivered messages arrived within" in folded
    assert not re.search(r"[\u4e00-\u9fff]", folded)


def test_what_is_shown_is_saved_as_csv(outage, tmp_path):
    outage.select_option("[data-column=country]", label="CN")
    with outage.expect_download() as saving:
        outage.click("#csv")
    saving.value.save_as(tmp_path / "shown.csv")
    with (tmp_path / "shown.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    (period,) = [row for row in rows if row["shown"] == "period" and row["name"] == "7 days"]
    assert int(period["messages"]) == _messages(outage)
    for shown in ("over time", "operator", "template"):
        counted = sum(int(row["messages"]) for row in rows if row["shown"] == shown)
        assert counted == int(period["messages"])
    lost = sum(int(row["messages"]) for row in rows if row["shown"] == "reason")
    assert lost == int(period["not_delivered"])


def test_a_name_does_nothing_but_be_read(browser, reports):
    page, amiss = _opened(browser, reports["odd"], "#by=template")
    assert page.locator("#changed >> text=<script>").count() == 1
    with page.expect_download() as saving:
        page.click("#csv")
    assert saving.value.path().read_text("utf-8-sig").count("<script>") == 1
    page.close()
    assert amiss == []


def test_without_javascript_the_static_figures_are_shown(browser, reports):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(reports["outage"].as_uri())
    assert page.is_visible("#static table")
    assert not page.is_visible("#live")
    assert "Operator China Unicom (CN), sent from" in page.inner_text("#static")
    context.close()


def test_a_year_of_400_000_messages_is_a_small_page_made_soon(browser, tmp_path):
    now = datetime(2026, 11, 29, 10, tzinfo=UTC)
    struck = Trouble("China Unicom", 33, 6, 0.6)
    world = World(3, 1_096, 365, days_differ=0.1, until=now, troubles=(struck,))
    with rate_worlds.warehouse() as con:
        rate_worlds.fill(con, world.receipts(now))
        begun = time.process_time()
        path = _written(con, tmp_path / "year.html", now)
        # 7 s on cores of its own; shared ones stretch it
        assert time.process_time() - begun < 15
    assert path.stat().st_size < 3_000_000
    page, amiss = _opened(browser, path, "#period=90")
    assert _messages(page) > 90_000
    said = page.inner_text("#said")
    assert "90 days before" in said
    assert "too few" not in said
    page.close()
    assert amiss == []


def test_the_keyboard_reaches_every_button_and_every_fold(browser, reports):
    page, _ = _opened(browser, reports["outage"], viewport={"width": 390, "height": 900})
    wanted = page.evaluate("document.querySelectorAll('#live :is(button, select), summary').length")
    reached = set()
    for _ in range(wanted + 5):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "[...document.querySelectorAll('button, select, summary')]"
                ".indexOf(document.activeElement)"
            )
        )
    page.close()
    assert len(reached - {-1}) == wanted


@pytest.mark.parametrize("language", ["", "#lang=zh"])
def test_no_table_is_wider_than_a_phone(language, browser, reports):
    page, _ = _opened(browser, reports["outage"], language, viewport={"width": 390, "height": 900})
    wide = page.evaluate(
        "() => { document.querySelectorAll('details').forEach((one) => { one.open = true; });"
        "return [...document.querySelectorAll('.scroll')]"
        ".filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.textContent) }"
    )
    page.close()
    assert wide == []


def test_the_page_is_no_higher_than_two_screens(browser, reports):
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto(reports["outage"].as_uri())
    assert page.evaluate("document.documentElement.scrollHeight") <= 2 * 900
    page.close()


def test_it_prints_on_a_few_pages(browser, reports):
    page, _ = _opened(browser, reports["outage"])
    printed = page.pdf(format="A4")
    page.close()
    assert printed.startswith(b"%PDF")
    assert printed.count(b"/Type /Page\n") <= 6


_TIMES = """() => [...document.querySelectorAll("#chart .role-axis-label text")]
    .filter((one) => /[a-z]/.test(one.textContent))
    .map((one) => one.textContent + one.getAttribute("transform"))"""


def test_a_chart_of_a_notebook_zooms_and_fetches_nothing(browser, tmp_path):
    """As JupyterLab draws it: with a Vega-Lite 5 of its own; both panels together."""
    with opened(tmp_path / "data", five_days(timedelta(hours=1))) as con:
        daily = con.sql("FROM delivery_rate_daily").to_arrow_table()
        curve = con.sql("FROM delivery_curve()").to_arrow_table()
    script = vl_convert.javascript_bundle(vl_version="5.8")
    for chart, panels in ((charts.rate_over_time(daily), 2), (charts.delivery_curve(curve), 1)):
        drawn = charts.hover(charts.zooming(chart).to_dict())
        spec = drawn["application/vnd.vegalite.v5+json"]
        path = tmp_path / f"{panels}.html"
        path.write_text(
            f"<meta charset=utf-8><div id=chart></div><script>{script}</script>"
            f"<script>vegaEmbed('#chart', {json.dumps(spec)}, {{renderer: 'svg'}})</script>"
        )
        page, said = _opened(browser, path)
        page.locator("#chart svg").hover(position={"x": 200, "y": 150})
        before = page.evaluate(_TIMES)
        for _ in range(4):
            page.mouse.wheel(0, -200)
        page.wait_for_timeout(500)
        times = page.evaluate(_TIMES)
        page.close()
        half = len(times) // panels
        assert times[:half] == times[-half:]
        assert times != before
        assert [one for one in said if "http" in one or "Error" in one] == []
