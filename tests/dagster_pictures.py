"""The pictures of Dagster's page: `python -m tests.dagster_pictures` makes them, in Chromium.

An account on the simulated service is run once through Dagster, and its page is opened.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pyarrow.parquet as pq
from playwright.sync_api import sync_playwright

from tests.processes import bare_environment
from usms_pipeline.simulator import ACCESS_KEY_ID, ACCESS_KEY_SECRET, Population, Simulator, serve

ROOT = Path(__file__).parent.parent
PAGES = {
    "dagster-graph.png": "/asset-groups",
    "dagster-receipts.png": "/assets/usms/receipts",
}
DEFINITIONS = "usms_pipeline.definitions"


def main() -> None:
    """Write the pictures into the folder that is given, or else into ``docs``."""
    into = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs"
    bin_folder = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        messages = Population(20_000, days=5, seed=0).table()
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
        subprocess.run([sys.executable, "-c", run], cwd=folder, env=environment, check=True)
        with closing(socket.socket()) as one:
            one.bind(("127.0.0.1", 0))
            port = str(one.getsockname()[1])
        command = [str(bin_folder / "dagster-webserver"), "-m", DEFINITIONS, "-p", port]
        server = subprocess.Popen(command, cwd=folder, env=environment)
        stack.callback(server.wait)
        stack.callback(server.terminate)
        address = f"http://127.0.0.1:{port}"
        for _ in range(180):
            with suppress(OSError), urllib.request.urlopen(f"{address}/server_info"):
                break
            time.sleep(1)
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1440, "height": 720})
        page.goto(address, timeout=120_000)
        page.get_by_role("button", name="Skip").click(timeout=120_000)
        for picture, path in PAGES.items():
            page.goto(address + path, timeout=120_000)
            page.wait_for_timeout(20_000)  # its parts load one after another
            page.screenshot(path=into / picture)
        browser.close()


if __name__ == "__main__":
    main()
