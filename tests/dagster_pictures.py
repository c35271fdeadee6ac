"""The pictures of Dagster's page: `python -m tests.dagster_pictures` makes them, in Chromium.

An account on the simulated service is run once through Dagster, and its page is opened. If a folder
is given, they go there, with more to look at: a failed run, and a backfill of 90 days launched from
the page, while it collects and when it is over.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from playwright.sync_api import Page, sync_playwright

from tests.processes import bare_environment
from usms_pipeline.simulator import ACCESS_KEY_ID, ACCESS_KEY_SECRET, Population, Simulator, serve

ROOT = Path(__file__).parent.parent
PAGES = {
    "dagster-graph.png": "/asset-groups",
    "dagster-receipts.png": "/assets/usms/receipts",
}
DEFINITIONS = "usms_pipeline.definitions"
FAILED = "{runsOrError(filter: {statuses: FAILURE}) {... on Runs {results {id}}}}"
BACKFILLS = (
    "{partitionBackfillsOrError {... on PartitionBackfills {results {id endTimestamp runs {id}}}}}"
)


def main() -> None:
    """Write the pictures into the folder that is given, or else into ``docs``."""
    has_more = len(sys.argv) > 1
    into = Path(sys.argv[1]) if has_more else ROOT / "docs"
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        messages = Population(20_000, days=89, seed=0).table()
        pq.write_table(messages, folder / "sent.parquet")
        (folder / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        environment = bare_environment() | {
            "DAGSTER_HOME": name,
            "PYTHONPATH": str(ROOT),
            "USMS_BASE_URL": stack.enter_context(serve(Simulator(messages))),
            "USMS_ACCESS_KEY_ID": ACCESS_KEY_ID,
            "USMS_ACCESS_KEY_SECRET": ACCESS_KEY_SECRET,
            "USMS_SOURCE_URL": str(folder / "sent.parquet"),
            "USMS_PHONE_COLUMN": "phone",
            "USMS_DIMENSIONS": "template",
            "USMS_START_DATE": str(messages["sent_at"][0].as_py().date()),
        }
        first, last = (messages["sent_at"][n].as_py().date() for n in (0, -1))
        run = "from usms_pipeline.defs.once import run_refresh; from datetime import date; "
        run += f"run_refresh({first!r}, {last!r}, print)".replace("datetime.", "")
        refused = {"USMS_ACCESS_KEY_SECRET": "wrong", "USMS_DATA_DIR": "refused"}
        for given in (refused, {}) if has_more else ({},):
            command = [sys.executable, "-c", run]
            subprocess.run(command, cwd=folder, env=environment | given, check=True)
        slow = {"USMS_MAX_REQUESTS_PER_SECOND": "3", "USMS_DATA_DIR": "slow"}
        address = stack.enter_context(dagster_dev(folder, environment | slow))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1440, "height": 720}, base_url=address)
        page.set_default_timeout(120_000)
        page.goto("/")
        page.get_by_role("button", name="Skip").click()
        for picture, path in PAGES.items():
            draw(page, path, into / picture)
        if has_more:
            draw_more(page, into)
        browser.close()


def draw_more(page: Page, into: Path) -> None:
    """Write the pictures of a failed run, of a backfill, and of what it made."""
    failed = wait_for(page, FAILED, "id")
    draw(page, f"/runs/{failed['id']}?logs=step%3Ausms__collect", into / "failed-run.png")
    page.goto("/asset-groups")
    page.get_by_role("button", name="Materialize all").click()
    page.get_by_text("All", exact=True).click()
    page.get_by_role("button", name="Launch backfill").click()
    backfill = wait_for(page, BACKFILLS, "runs")
    page.goto(f"/runs/{backfill['runs'][0]['id']}?logs=step%3Ausms__collect")
    page.get_by_text("Asking service").first.wait_for()
    for n in (1, 2):
        page.wait_for_timeout(15_000)
        page.screenshot(path=into / f"collecting-{n}.png")
    draw(page, f"/runs/b/{backfill['id']}", into / "backfill-1.png")
    wait_for(page, BACKFILLS, "endTimestamp")
    draw(page, f"/runs/b/{backfill['id']}", into / "backfill-2.png")
    draw(page, "/assets/usms/receipts?view=events", into / "receipts-events.png")
    draw(page, "/assets/usms/delivery_rates?view=events", into / "rates-events.png")


def draw(page: Page, path: str, picture: Path) -> None:
    """Write the picture of a page."""
    page.goto(path)
    page.wait_for_timeout(20_000)  # its parts load one after another
    page.screenshot(path=picture)


def wait_for(page: Page, query: str, key: str) -> dict[str, Any]:
    """Return the first result of a GraphQL query as soon as it has a value for the key."""
    while True:
        [found] = page.request.post("/graphql", data={"query": query}).json()["data"].values()
        if found["results"] and found["results"][0][key]:
            return dict(found["results"][0])
        page.wait_for_timeout(2_000)


@contextmanager
def dagster_dev(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run Dagster's page and daemon, and yield the page's address."""
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        port = str(one.getsockname()[1])
    dagster = str(Path(sys.executable).with_name("dagster"))
    server = subprocess.Popen(
        [dagster, "dev", "-m", DEFINITIONS, "-p", port], cwd=folder, env=environment
    )
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(180):
            with suppress(OSError), urllib.request.urlopen(f"{address}/server_info"):
                break
            time.sleep(1)
        yield address
    finally:
        server.terminate()  # it ends its four children, which takes some seconds
        server.wait()


if __name__ == "__main__":
    main()
