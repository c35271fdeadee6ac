"""The files below ``deploy/``: the compose file is one, and what it starts works together."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from usms_pipeline.simulator import ACCESS_KEY_ID, ACCESS_KEY_SECRET, Population, Simulator, serve

ROOT = Path(__file__).parent.parent
COMPOSE = ROOT / "deploy/compose"
_SERVICE_KEYS = {
    "build", "command", "depends_on", "env_file", "environment", "healthcheck", "image", "ports",
    "restart", "volumes",
}  # fmt: skip
"""Of the compose specification's keys of a service, the ones in use."""
BIN = Path(sys.executable).parent


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text("utf-8"))
    return found


def test_the_compose_file_has_the_keys_of_the_specification_and_names_what_there_is():
    said = compose()
    assert {key for key in said if not key.startswith("x-")} == {"name", "services", "volumes"}
    for name, service in said["services"].items():
        assert service.keys() <= _SERVICE_KEYS, name
        assert {*service.get("depends_on", {})} <= {*said["services"]}
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in said["volumes"]
        assert all(isinstance(one, str) for one in service.get("command", []))
    build = said["services"]["code"]["build"]
    assert (COMPOSE / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()


def test_what_the_image_copies_is_there_and_not_ignored():
    copied = re.findall(r"^COPY (.+) \S+$", (COMPOSE / "Dockerfile").read_text("utf-8"), re.M)
    kept = (COMPOSE / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    for name in " ".join(copied).split():
        assert (ROOT / name).exists()
        assert any(Path(name).match(line[1:]) for line in kept if line.startswith("!")), name


@pytest.mark.parametrize("path", sorted(ROOT.glob("deploy/**/*.yaml")), ids=lambda path: path.stem)
def test_every_value_file_can_be_read(path: Path):
    assert isinstance(yaml.safe_load(path.read_text("utf-8")), dict)


def test_each_way_to_deploy_has_a_page_of_five_lines():
    folders = [path for path in (ROOT / "deploy").iterdir() if path.is_dir()]
    assert len(folders) == 5
    for folder in folders:
        assert len((folder / "README.md").read_text("utf-8").splitlines()) == 5


def free_port() -> str:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


@contextmanager
def running(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Run a service until the end, in a process group of its own."""
    with (folder / f"{Path(command[0]).name}.log").open("w") as log:
        process = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]], cwd=folder, env=environment,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def ask(port: str, query: str) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        json.dumps({"query": query}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["data"]


def the_first_run(port: str, seconds: float = 300) -> dict[str, Any]:
    """Return the first run of the schedule, once it has ended."""
    until = time.monotonic() + seconds
    runs: list[dict[str, Any]] = []
    while time.monotonic() < until:
        with suppress(OSError):
            found = ask(port, "{runsOrError {... on Runs {results {status tags {key value}}}}}")
            runs = found["runsOrError"]["results"]
            if runs and runs[-1]["status"] in ("SUCCESS", "FAILURE"):
                return runs[-1]
        time.sleep(1)
    raise AssertionError(f"no run has ended: {runs}")


@pytest.mark.engines
@pytest.mark.parametrize("way", ["compose", "celery"])
def test_the_processes_of_a_deployment_run_a_tick_green(way: str, tmp_path: Path, postgresql: Any):
    """Without Docker: the compose file's commands, PostgreSQL, and a schedule of each minute.

    With Celery a worker makes the run, as its page says to start one.
    """
    project = tmp_path / "ours"
    (project / "src/ours/defs/usms").mkdir(parents=True)
    (project / "pyproject.toml").write_text(
        '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "ours"\n'
    )
    (project / "src/ours/__init__.py").write_text("")
    (project / "src/ours/definitions.py").write_text(
        "from pathlib import Path\nimport dagster as dg\n\n@dg.definitions\ndef defs():\n"
        "    defs = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)\n"
        # Celery's workers may start no processes; elsewhere it is Dagster's own default
        f"    executor = {'dg.in_process_executor' if way == 'celery' else None}\n"
        "    return dg.Definitions.merge(defs, dg.Definitions(executor=executor))\n"
    )
    (project / "src/ours/defs/usms/defs.yaml").write_text(
        "type: usms_pipeline.components.ReceiptPipeline\n"
        'attributes:\n  schedule: {cron: "* * * * *", status: running}\n'
    )
    home = tmp_path / "home"
    home.mkdir()
    for path in (ROOT / f"deploy/{way}/dagster.yaml", COMPOSE / "workspace.yaml"):
        (home / path.name).write_text(path.read_text("utf-8"))
    messages = Population(300, days=1).table()
    pq.write_table(messages, tmp_path / "sent.parquet")
    code, page, broker = free_port(), free_port(), free_port()
    changed = {
        "4000": code, "3000": page, "0.0.0.0": "127.0.0.1",
        "usms_pipeline.definitions": "ours.definitions",
        "/opt/dagster/workspace.yaml": str(home / "workspace.yaml"),
    }  # fmt: skip
    with ExitStack() as stack:
        url = stack.enter_context(serve(Simulator(messages)))
        given = {name: value for name, value in os.environ.items() if "USMS" not in name}
        environment = given | {
            "DAGSTER_HOME": str(home),
            "USMS_DAGSTER_STORAGE": re.sub(r"^postgres\w*", "postgresql+psycopg2", postgresql.url),
            "USMS_CODE_HOST": "127.0.0.1",
            "USMS_CODE_PORT": code,
            "CELERY_BROKER_URL": f"redis://127.0.0.1:{broker}/0",
            "CELERY_RESULT_BACKEND": f"redis://127.0.0.1:{broker}/1",
            "PYTHONPATH": f"{project / 'src'}:{ROOT}:{os.environ.get('PYTHONPATH', '')}",
        }
        account = {
            "USMS_BASE_URL": url,
            "USMS_ACCESS_KEY_ID": ACCESS_KEY_ID,
            "USMS_ACCESS_KEY_SECRET": ACCESS_KEY_SECRET,
            "USMS_SOURCE_URL": str(tmp_path / "sent.parquet"),
            "USMS_PHONE_COLUMN": "phone",
            "USMS_DATA_DIR": str(tmp_path / "data"),
        }
        if way == "celery":
            redis = shutil.which("redis-server")
            assert redis, "apt-get install redis-server"
            stack.enter_context(running([redis, "--port", broker, "--save", ""], tmp_path, given))
            worker = re.findall(
                r"`celery (-A .+?)`", (ROOT / "deploy/celery/README.md").read_text()
            )
            command = [sys.executable, "-m", "celery", *worker[0].split()]
            stack.enter_context(running(command, tmp_path, environment | account))
        for name in ("code", "daemon", "webserver"):
            command = [changed.get(one, one) for one in compose()["services"][name]["command"]]
            # the settings are the code server's alone
            its = environment | (account if name == "code" else {})
            stack.enter_context(running(command, tmp_path, its))
        run = the_first_run(page)
        assert run["status"] == "SUCCESS", run
        tags = {tag["key"] for tag in run["tags"]}
        assert "dagster/schedule_name" in tags
        assert ("dagster-celery/task_id" in tags) == (way == "celery")
    assert (tmp_path / "data/usms.duckdb").is_file()
    assert not list(home.rglob("*.db")), "all of Dagster's state is in PostgreSQL"
