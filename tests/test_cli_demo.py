"""The rehearsal: from a made-up table through the Dagster job to a delivery rate."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from tests.processes import USMS, bare_environment
from tests.services import free_port
from usms_pipeline.cli import check, demo
from usms_pipeline.contract.errors import ServiceDown
from usms_pipeline.settings import Settings


def usms(*arguments: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*USMS, *arguments],
        cwd=cwd,
        env=bare_environment() | settings,
        capture_output=True,
        text=True,
    )


@pytest.mark.long
def test_the_demo_ends_with_rates_and_every_command_works_from_its_folder(tmp_path: Path) -> None:
    """Settings of one's own are neither read nor touched by it."""
    (tmp_path / ".env").write_text("USMS_DATA_DIR=mine\nUSMS_SOURCE_URL=mine.parquet\n")
    ran = usms("demo", "--messages", "500", cwd=tmp_path, USMS_DATA_DIR=str(tmp_path / "mine"))
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    assert "sent date" in ran.stdout
    assert "demo/data/usms.duckdb" in ran.stdout
    assert (tmp_path / "demo/data/report.html").exists()
    assert "demo/data/report.html" in ran.stdout
    assert not (tmp_path / "mine").exists()

    (figures,) = json.loads(usms("rates", "--format", "json", cwd=tmp_path / "demo").stdout)
    assert figures["messages"] == 500
    assert figures["delivery_rate"] > 0.8

    again = usms("demo", "--messages", "300", cwd=tmp_path)
    (figures,) = json.loads(usms("rates", "--format", "json", cwd=tmp_path / "demo").stdout)
    assert again.returncode == 0, again.stderr
    assert figures["messages"] == 300


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "demo/data").mkdir(parents=True)
    (tmp_path / "demo/data/precious").write_text("x")
    (tmp_path / "demo/messages.sqlite").write_text("mine")
    (tmp_path / "demo/.env").write_text("USMS_DATA_DIR=data\n")
    ran = usms("demo", cwd=tmp_path)
    assert ran.returncode == 2
    assert "holds something else" in " ".join(ran.stderr.replace("│", " ").split())
    assert (tmp_path / "demo/data/precious").exists()


def test_the_settings_of_a_demo_are_the_owners_alone(tmp_path: Path) -> None:
    """As the README says of a .env; also where an earlier demo left it open."""
    folder = tmp_path / "demo"
    demo._clear(folder)
    assert (folder / ".env").stat().st_mode & 0o777 == 0o600
    (folder / ".env").chmod(0o644)
    demo._clear(folder)
    assert (folder / ".env").stat().st_mode & 0o777 == 0o600


@pytest.mark.long
def test_a_demo_that_serves_in_the_background_of_a_script_is_stopped_by_sigterm(
    tmp_path: Path,
) -> None:
    """A shell that is no terminal starts it with Ctrl-C ignored, and Dagster sets handlers."""
    command = [*USMS, "demo", "--serve", "--messages", "200"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=bare_environment(),
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    ) as child:
        assert child.stdout is not None
        assert any("Ctrl-C stops it" in line for line in child.stdout)
        child.terminate()
        try:
            assert child.wait(20) == 0
        finally:
            child.kill()


@pytest.mark.long
def test_dev_serves_dagsters_page_and_stops_all_of_it(tmp_path: Path) -> None:
    port = free_port()
    with subprocess.Popen(
        [*USMS, "demo", "--dev", "--messages", "200", "--port", str(port)],
        cwd=tmp_path,
        env=bare_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as child:
        try:
            assert job_names(port) >= {"refresh_usms"}
        finally:
            child.send_signal(signal.SIGINT)
            child.wait(60)
    assert child.returncode == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def job_names(port: int) -> set[str]:
    """Ask Dagster's page for its jobs, once it is up."""
    query = (
        b'{"query": "{repositoriesOrError {... on RepositoryConnection {nodes {jobs {name}}}}}"}'
    )
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql", query, {"Content-Type": "application/json"}
    )
    for _ in range(120):
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                nodes = json.load(answer)["data"]["repositoriesOrError"]["nodes"]
        except OSError:
            nodes = []
        if nodes:
            return {job["name"] for node in nodes for job in node["jobs"]}
        time.sleep(1)
    raise AssertionError("Dagster's page did not come up")


def test_in_a_demos_folder_a_missing_service_is_named_with_what_starts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = tmp_path / ".env"
    url = f"http://127.0.0.1:{free_port()}"
    monkeypatch.chdir(tmp_path)
    settings = Settings(_env_file=None, base_url=url, access_key_id="a", access_key_secret="b")
    for first_line, is_told in ((demo.MARK, True), ("", False)):
        env.write_text(f"{first_line}USMS_BASE_URL={url}\n")
        with pytest.raises(ServiceDown) as caught:
            list(check._service(settings))
        assert ("`usms demo --serve`" in str(caught.value)) == is_told
    env.write_text(demo.MARK)
    elsewhere = settings.model_copy(update={"base_url": "https://api.example.com"})
    demo.check_service(elsewhere)
    with socket.create_server(("127.0.0.1", int(url.rpartition(":")[2]))):
        demo.check_service(settings)
