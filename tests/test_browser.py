"""The report in a browser: nothing fetched, nothing wrong, for every eye and every hand."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from tests import watched_world
from tests.made_receipts import HARM, NOW, message, opened
from tests.services import missing
from tests.watched_world import World
from usms_pipeline.figures import report
from usms_pipeline.simulator.fate import Outage

pytestmark = pytest.mark.long

WIDTHS = (390, 1440)
SETTINGS = {"USMS_TIMEZONE": "UTC"}
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
    world = World(36_000, 24, now, 3, Outage(now - timedelta(hours=20)))
    with watched_world.warehouse() as con:
        watched_world.fill(con, world.receipts(now))
        made = {"outage": _written(con, folder / "outage.html", now)}
    odd = [message(n, NOW, template=name) for n, name in enumerate(NAMES * 20)]
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


def _opened(browser: Browser, path: Path, **look: Any) -> tuple[Page, list[str]]:
    """Open a report; gives what it asked for and what went wrong, too."""
    page = browser.new_page(**look)
    amiss: list[str] = []
    page.on("console", lambda said: amiss.append(said.text))
    page.on("pageerror", lambda error: amiss.append(str(error)))
    page.on("request", lambda asked: amiss.append(asked.url))
    page.goto(path.as_uri())
    return page, [one for one in amiss if one != path.as_uri() and not one.startswith("data:")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", REPORTS)
def test_a_report_is_sound(name, width, scheme, browser, reports):
    """No request, no error, nothing that axe objects to, and no page wider than the screen."""
    look = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
    page, amiss = _opened(browser, reports[name], **look)
    try:
        assert amiss == []
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert reports[name].stat().st_size < 1_000_000
    finally:
        page.close()


def test_the_keyboard_reaches_every_section_and_every_table(browser, reports):
    page, _ = _opened(browser, reports["outage"], viewport={"width": 390, "height": 900})
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("document.activeElement.getAttribute('href') ?? "
                          "document.activeElement.getAttribute('aria-label')")
        )  # fmt: skip
    page.close()
    text = reports["outage"].read_text("utf-8")
    assert {part.split('"')[0] for part in text.split('<section id="')[1:]} <= {
        str(one).removeprefix("#") for one in reached
    }
    assert text.count('class="scroll"') <= sum("#" not in str(one) for one in reached)


def test_it_prints_on_a_few_pages(browser, reports):
    page, _ = _opened(browser, reports["outage"])
    printed = page.pdf(format="A4")
    page.close()
    assert printed.startswith(b"%PDF")
    assert printed.count(b"/Type /Page\n") <= 20
