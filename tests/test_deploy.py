"""The files below ``deploy/``: the compose file is one, and what it starts works together."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.account import variables
from tests.services import free_port
from usms_pipeline.simulator import Population, Simulator, serve
from usms_pipeline.simulator.faults import Faults

ROOT = Path(__file__).parent.parent
COMPOSE, CELERY = ROOT / "deploy/compose", ROOT / "deploy/celery"
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


def test_the_dbt_example_uses_every_macro():
    """So that `make test-engines` runs it with dbt, too."""
    reference = (ROOT / "docs/reference/sql.md").read_text("utf-8")
    model = (ROOT / "deploy/dbt/models/every_macro.sql").read_text("utf-8")
    macros = re.findall(r"^\| macro \| `(\w+)", reference, re.MULTILINE)
    assert [macro for macro in macros if not re.search(rf"\b{macro}\(", model)] == []


def test_each_way_to_deploy_has_a_page_of_five_lines():
    folders = [path for path in (ROOT / "deploy").iterdir() if path.is_dir()]
    assert len(folders) == 5
    for folder in folders:
        assert len((folder / "README.md").read_text("utf-8").splitlines()) == 5


@contextmanager
def running(
    command: list[str], folder: Path, environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a service until the end, in a process group of its own."""
    with (folder / f"{Path(command[0]).name}.log").open("a") as log:
        process = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]], cwd=folder, env=environment,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Deployment:
    """The processes of ``deploy/``, started without Docker, and a project with one account."""

    def __init__(
        self, way: str, folder: Path, database: str, account: dict[str, str], attributes: str
    ) -> None:
        self.way, self.folder, self.account = way, folder, account
        project, self.home = folder / "ours", folder / "home"
        self.code, self.page = str(free_port()), str(free_port())
        given = {name: value for name, value in os.environ.items() if "USMS" not in name}
        self.environment = given | {
            "DAGSTER_HOME": str(self.home),
            "USMS_DAGSTER_STORAGE": re.sub(r"^postgres\w*", "postgresql+psycopg2", database),
            "USMS_CODE_HOST": "127.0.0.1",
            "USMS_CODE_PORT": self.code,
            "PYTHONPATH": f"{project / 'src'}:{ROOT}:{os.environ.get('PYTHONPATH', '')}",
        }
        self._write(project, attributes)

    def _write(self, project: Path, attributes: str) -> None:
        (project / "src/ours/defs/usms").mkdir(parents=True)
        (project / "pyproject.toml").write_text(
            '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "ours"\n'
        )
        (project / "src/ours/__init__.py").write_text("")
        executor = {
            "launcher": "dg.in_process_executor",
            "executor": "dagster_celery.celery_executor",
        }.get(self.way)
        (project / "src/ours/definitions.py").write_text(
            "from pathlib import Path\nimport dagster as dg\n"
            f"{'import dagster_celery' if self.way == 'executor' else ''}\n"
            "@dg.definitions\ndef defs():\n"
            "    defs = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)\n"
            f"    return dg.Definitions.merge(defs, dg.Definitions(executor={executor}))\n"
        )
        (project / "src/ours/defs/usms/defs.yaml").write_text(
            f"type: usms_pipeline.components.ReceiptPipeline\nattributes: {attributes}\n"
        )
        self.home.mkdir()
        dagster = (COMPOSE if self.way == "compose" else CELERY) / "dagster.yaml"
        said = yaml.safe_load(dagster.read_text("utf-8"))
        if self.way == "executor":
            del said["run_launcher"]
        (self.home / "dagster.yaml").write_text(yaml.safe_dump(said))
        workspace = (COMPOSE / "workspace.yaml").read_text("utf-8")
        (self.home / "workspace.yaml").write_text(workspace)

    @contextmanager
    def up(self) -> Iterator[None]:
        """Run the compose file's commands, and what Celery needs beside them."""
        changed = {
            "4000": self.code, "3000": self.page, "0.0.0.0": "127.0.0.1",
            "usms_pipeline.definitions": "ours.definitions",
            "/opt/dagster/workspace.yaml": str(self.home / "workspace.yaml"),
        }  # fmt: skip
        with ExitStack() as stack:
            if self.way != "compose":
                self.environment |= stack.enter_context(broker(self.folder))
            for name in ("code", "daemon", "webserver"):
                command = [changed.get(one, one) for one in compose()["services"][name]["command"]]
                # the settings are the code server's alone
                its = self.environment | (self.account if name == "code" else {})
                stack.enter_context(running(command, self.folder, its))
            yield

    def worker(self, name: str) -> Any:
        """Run a worker of Celery as its page says to start one."""
        said = re.findall(r"`celery (-A .+?)`", (CELERY / "README.md").read_text("utf-8"))
        command = [sys.executable, "-m", "celery", *said[0].split(), "--hostname", name]
        given = {"PYTHONPATH": f"{CELERY}:{self.environment['PYTHONPATH']}"}
        return running(command, self.folder, self.environment | self.account | given)

    def ask(self, query: str, patience_seconds: float = 120) -> Any:
        """Return the page's answer, as soon as it has one."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.page}/graphql",
            json.dumps({"query": query}).encode(),
            {"Content-Type": "application/json"},
        )
        until = time.monotonic() + patience_seconds
        while True:
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return json.load(answer)["data"]
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(1)

    def runs(self, tag: str, value: str) -> list[dict[str, Any]]:
        """Return the runs with a tag, the newest first."""
        which = f'filter: {{tags: [{{key: "{tag}", value: "{value}"}}]}}'
        wanted = "runId status startTime endTime tags {key value}"
        found = self.ask(f"{{runsOrError({which}) {{... on Runs {{results {{{wanted}}}}}}}}}")
        runs: list[dict[str, Any]] = found["runsOrError"]["results"]
        return runs

    def backfill(self, days: Iterable[date]) -> str:
        """Begin a backfill of some days; return its tag's value."""
        names = json.dumps([str(day) for day in days])
        assets = ", ".join(f'{{path: ["usms", "{name}"]}}' for name in ("responses", "receipts"))
        found = self.ask(
            "mutation {launchPartitionBackfill(backfillParams: {"
            f"assetSelection: [{assets}], partitionNames: {names}}}) {{"
            "... on LaunchBackfillSuccess {backfillId} ... on PythonError {message}}}"
        )
        backfill: str = found["launchPartitionBackfill"]["backfillId"]
        return backfill


def until(seconds: float, found: Callable[[], Any]) -> Any:
    """Return what is found, as soon as something is."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if it := found():
            return it
        time.sleep(1)
    raise AssertionError(f"not within {seconds:g} seconds")


def ended(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [run for run in runs if run["status"] in ("SUCCESS", "FAILURE", "CANCELED")]


def account_of(messages: pa.Table, url: str, folder: Path, **more: Any) -> dict[str, str]:
    pq.write_table(messages, folder / "sent.parquet")
    return variables(url, folder / "sent.parquet", data_dir=folder / "data", **more)


@pytest.mark.engines
def test_the_processes_of_the_compose_file_run_a_tick_green(tmp_path: Path, postgresql: Any):
    """Without Docker: its commands, PostgreSQL, and a schedule of each minute."""
    messages = Population(300, days=1).table()
    with serve(Simulator(messages)) as url:
        schedule = '{schedule: {cron: "* * * * *", status: running}}'
        account = account_of(messages, url, tmp_path)
        ours = Deployment("compose", tmp_path, postgresql.url, account, schedule)
        with ours.up():
            tag = ("dagster/schedule_name", "refresh_usms_schedule")
            run = until(300, lambda: ended(ours.runs(*tag)))[-1]
        assert run["status"] == "SUCCESS", run
    assert (tmp_path / "data/usms.duckdb").is_file()
    assert not list(ours.home.rglob("*.db")), "all of Dagster's state is in PostgreSQL"


# -- Celery ----------------------------------------------------------------------------------------

FIRST, DAYS, ALONE = date(2026, 3, 1), 30, 3
A_DAY, LATENCY_SECONDS, CEILING = 1200, 0.05, 180
"""Requests for each day, how long each takes, and how many a second the service takes in all."""


@contextmanager
def broker(folder: Path) -> Iterator[dict[str, str]]:
    """Run RabbitMQ and Redis on ports of their own; yield how Celery finds them."""
    redis, rabbit = shutil.which("redis-server"), Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    assert redis, "apt-get install redis-server"
    assert rabbit.exists(), "apt-get install rabbitmq-server"
    messages, results = free_port(), str(free_port())
    conf = folder / "rabbitmq.conf"
    conf.write_text(f"listeners.tcp.1 = 127.0.0.1:{messages}\n")
    its = {
        "HOME": str(folder),  # for the cookie
        "RABBITMQ_NODENAME": f"usms{messages}@localhost",
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_CONFIG_FILE": str(conf),
        "RABBITMQ_MNESIA_BASE": str(folder / "rabbitmq"),
        "RABBITMQ_LOG_BASE": str(folder / "rabbitmq"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "none"),
    }
    with (
        running([redis, "--port", results, "--save", ""], folder, {**os.environ}),
        running([str(rabbit)], folder, os.environ | its),
    ):
        yield {
            "CELERY_BROKER_URL": f"pyamqp://guest:guest@127.0.0.1:{messages}//",
            "CELERY_RESULT_BACKEND": f"redis://127.0.0.1:{results}/1",
        }


def messages_of_many_days() -> pa.Table:
    """Return as many sessions a day on each, a second apart."""
    table = Population(A_DAY * (ALONE + DAYS), days=1).table()
    noon = datetime(FIRST.year, FIRST.month, FIRST.day, 12, tzinfo=UTC)
    sent_at = [noon + timedelta(days=n // A_DAY, seconds=n % A_DAY) for n in range(table.num_rows)]
    at = table.schema.get_field_index("sent_at")
    return table.set_column(at, "sent_at", pa.array(sent_at, table.schema.field(at).type))


def seconds_of(runs: list[dict[str, Any]]) -> float:
    """Return the time from the first one's start to the last one's end."""
    return max(run["endTime"] for run in runs) - min(run["startTime"] for run in runs)


@pytest.mark.engines
@pytest.mark.parametrize("way", ["launcher", "executor"])
def test_three_workers_share_thirty_days_and_one_is_killed(
    way: str, tmp_path: Path, postgresql: Any
):
    """A worker alone may use the whole ceiling; of three, each takes its third.

    The service takes the ceiling and no more: one request above it is throttled.
    """
    messages = messages_of_many_days()
    faults = Faults(latency_seconds=LATENCY_SECONDS, rate_limit=CEILING)
    came: list[float] = []

    def now() -> float:
        """Return the time, which the service reads once for each request."""
        came.append(time.monotonic())
        return came[-1]

    service = Simulator(messages, faults=faults, outage=None, monotonic=now)
    with ExitStack() as stack:
        account = account_of(
            messages, stack.enter_context(serve(service)), tmp_path,
            start_date=FIRST, batch_size=1, max_concurrency=4, max_requests_per_second=CEILING,
        )  # fmt: skip
        one_each = "{schedule: none, op: {max_partitions_per_run: 1}}"
        ours = Deployment(way, tmp_path, postgresql.url, account, one_each)
        stack.enter_context(ours.up())
        stack.enter_context(ours.worker("one"))
        days = [FIRST + timedelta(days=n) for n in range(ALONE + DAYS)]

        ours.ask('mutation {setConcurrencyLimit(concurrencyKey: "usms_account", limit: 1)}')
        alone = ours.backfill(days[:ALONE])
        of_one = until(900, lambda: whole(ours.runs("dagster/backfill", alone), ALONE))
        ours.ask('mutation {deleteConcurrencyLimit(concurrencyKey: "usms_account")}')

        stack.enter_context(ours.worker("two"))
        victim = stack.enter_context(ours.worker("three"))
        together = ours.backfill(days[ALONE:])
        until(1800, lambda: len(ended(ours.runs("dagster/backfill", together))) >= DAYS // 3)
        until(300, lambda: is_in_the_middle(ours.environment["CELERY_BROKER_URL"], "three"))
        os.killpg(victim.pid, signal.SIGKILL)
        of_three = until(1800, lambda: whole(ours.runs("dagster/backfill", together), DAYS))

    faster = (seconds_of(of_one) / ALONE) / (seconds_of(of_three) / DAYS)
    broken = [run for run in of_three if run["status"] != "SUCCESS"]
    fullest = max(n - bisect_left(came, at - 1) for n, at in enumerate(came, 1))
    print(
        f"{way}: {ALONE} days in {seconds_of(of_one):.0f} s, {DAYS} in {seconds_of(of_three):.0f} "
        f"s: {faster:.2f} x; {service.counters.requests} requests, {fullest} in the fullest "
        f"second, {service.counters.throttled} throttled; {len(broken)} runs broken"
    )
    assert faster >= 1.4
    assert service.counters.throttled == 0
    # those of the killed worker's last second may be asked about again
    asked = service.counters.ids_asked
    assert {*asked} == {*messages["session_no"].to_pylist()}
    assert len(messages) <= asked.total() < len(messages) + CEILING
    assert len(broken) == (way == "launcher"), "with the executor only the step is begun again"
    rows = pq.read_table(tmp_path / "data/receipts").select(["session_no"])
    assert sorted(rows["session_no"].to_pylist()) == sorted(messages["session_no"].to_pylist())


def whole(runs: list[dict[str, Any]], days: int) -> list[dict[str, Any]]:
    """Return the runs once none is left and each day has one that ended well."""
    good = {
        tag["value"]
        for run in runs
        if run["status"] == "SUCCESS"
        for tag in run["tags"]
        if tag["key"] == "dagster/asset_partition_range_start"
    }
    return runs if len(good) == days and len(ended(runs)) == len(runs) else []


def is_in_the_middle(broker: str, worker: str) -> bool:
    """Return whether a worker has been at its task for a while."""
    from celery import Celery

    with Celery(broker=broker) as app:
        active = app.control.inspect(timeout=5).active() or {}
    return any(task["time_start"] < time.time() - 5 for task in active.get(f"celery@{worker}", []))
