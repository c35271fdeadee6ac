"""The READMEs' pictures and table of rates: `python -m tests.readme_picture` makes them.

The demo's messages with the demo's seed, up to a fixed time: the same every time. The pictures of
the page need Chromium.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.account import START, Account, served
from tests.readme_tables import PAGES, put_in
from usms_pipeline import warehouse
from usms_pipeline.cli.rates import show_rates
from usms_pipeline.figures import charts, queries, report
from usms_pipeline.settings import Settings
from usms_pipeline.simulator import Population

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "docs"
_MESSAGES, _DAYS, _SEED = 50_000, 5, 0


def rehearsed(folder: Path, days: int = _DAYS) -> Settings:
    """Run the pipeline in ``folder``, as the demo does; return the settings to read it with."""
    sent = Population(_MESSAGES, days=days, seed=_SEED, until=START).table()
    with served(sent, seed=_SEED) as simulator:
        account = Account(folder, simulator, sent)
        account.run()
    return account.settings


def pictures(settings: Settings) -> dict[str, bytes]:
    """Draw what two of the notebooks show first, as PNG by file name."""
    with warehouse.connect(settings.warehouse_path) as con:
        operators, curve = (
            con.sql(f"FROM {one}").to_arrow_table()
            for one in ("delivery_rate_by_operator", "delivery_curve()")
        )
    drawn = {
        "where.png": charts.rate_by(operators, "operator"),
        "how-fast.png": charts.delivery_curve(curve),
    }
    return {name: charts.png(chart, scale=1.2) for name, chart in drawn.items()}


def pages(settings: Settings) -> dict[str, bytes]:
    """Draw the top of the report in both languages, as PNG by file name."""
    with warehouse.connect(settings.warehouse_path) as con:
        path = report.build(
            report.ask(con),
            Path(settings.data_dir) / report.NAME,
            generated_at=START,
            settings_summary=report.summary(settings),
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        tab = browser.new_page(viewport={"width": 1240, "height": 850})
        drawn = {}
        for language, name in (("en", "report.png"), ("zh", "zh-CN/report.png")):
            tab.goto(f"{Path(path).as_uri()}#lang={language}")
            tab.reload()  # only the address changes from one language to the other
            drawn[name] = tab.screenshot()
        browser.close()
    return drawn


def block(settings: Settings) -> str:
    """Return what `usms rates --by sent_date` prints, as a text block."""
    printed = io.StringIO()
    with redirect_stdout(printed), warehouse.connect(settings.warehouse_path) as con:
        by_day = queries.rates_expected(con, "sent_date").to_arrow_table()
        show_rates(by_day, con, ["sent_date"])
    lines = [line.rstrip() for line in printed.getvalue().strip("\n").splitlines()]
    return "```text\n$ usms rates --by sent_date\n" + "\n".join(lines).strip("\n") + "\n```\n"


def filled_in(text: str, rates: str) -> str:
    """Return a README's text with its table of rates between the markers."""
    return put_in(text, "rates", rates.removesuffix("\n"))


def main() -> None:
    """Write the pictures and the table where they belong."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        of_weeks, settings = rehearsed(Path(one), days=18), rehearsed(Path(other))
        for name, drawn in (pictures(settings) | pages(of_weeks)).items():
            (PICTURES / name).write_bytes(drawn)
        rates = block(settings)
        for page in PAGES:
            text = page.read_text("utf-8")
            if "<!-- rates -->" in text:
                page.write_text(filled_in(text, rates), "utf-8")


if __name__ == "__main__":
    main()
