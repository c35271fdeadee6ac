"""The Dagster shell over the real core: a Parquet source, a service on loopback, whole runs."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.account import variables
from tests.cohorts import places
from tests.conftest import MakeRehearsal, Rehearsal
from tests.processes import bare
from usms_pipeline import settings
from usms_pipeline.components import ReceiptPipeline
from usms_pipeline.contract import schema
from usms_pipeline.contract.errors import (
    CredentialsRefused,
    ServiceDown,
    SettingsError,
    SourceError,
    SourceUnavailable,
)
from usms_pipeline.contract.status import BUCKETS
from usms_pipeline.days.file import Footer
from usms_pipeline.defs import checks
from usms_pipeline.defs.account import (
    RANGE_END,
    RANGE_START,
    Account,
    progress_log,
    told,
    window,
)
from usms_pipeline.defs.account import failure as failure_of
from usms_pipeline.defs.attributes import Freshness
from usms_pipeline.pipeline import Pipeline, Progress, Report
from usms_pipeline.service.fetch import CollectStats
from usms_pipeline.simulator import (
    Faults,
    Population,
    Simulator,
    serve,
)
from usms_pipeline.store.dataset import Window
from usms_pipeline.store.storage import Store

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")  # backfill_policy

ROOT = Path(__file__).parent.parent
NOW = datetime.now(UTC)
RECEIPTS = dg.AssetKey(["usms", "receipts"])
RESPONSES = dg.AssetKey(["usms", "responses"])


@dataclass
class Project:
    """An account whose settings are in the environment, and an instance to run it in."""

    data_dir: Path
    rehearsal: Rehearsal
    instance: dg.DagsterInstance
    defs: dg.Definitions = field(default_factory=lambda: ReceiptPipeline().build_defs())

    def refresh(
        self,
        first: date | None = None,
        last: date | None = None,
        select: Any = None,
        tags: dict[str, str] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Run the job over a range, the last 7 days if none is given; errors are in the result."""
        today = datetime.now(UTC).date()
        tags = (tags or {}) | {
            RANGE_START: (first or today - timedelta(days=7)).isoformat(),
            RANGE_END: (last or today).isoformat(),
        }
        return self.defs.resolve_job_def("refresh_usms").execute_in_process(
            instance=self.instance, tags=tags, raise_on_error=False, asset_selection=select
        )

    def receipts(self) -> dict[str, pa.Table]:
        """The dataset by partition."""
        files = sorted(self.data_dir.glob("receipts/sent_date=*/receipts.parquet"))
        return {file.parent.name.split("=")[1]: pq.ParquetFile(file).read() for file in files}


MakeProject = Callable[..., Project]


def begin(
    rehearsal: Rehearsal, folder: Path, instance: dg.DagsterInstance, patch: pytest.MonkeyPatch
) -> Project:
    """Put an account's settings into the environment, and only these."""
    for name in [name for name in os.environ if name.startswith("USMS_")]:
        patch.delenv(name)
    patch.chdir(folder)
    pq.write_table(rehearsal.messages, folder / "sent.parquet")
    more = {"dimensions": "template", "data_dir": folder / "data"}
    for name, value in variables(rehearsal.url, str(folder / "sent.parquet"), **more).items():
        patch.setenv(name, value)
    return Project(folder / "data", rehearsal, instance)


@pytest.fixture
def project(
    simulator: MakeRehearsal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[MakeProject]:
    """Return a factory of projects over given or made-up messages; ``faults`` are the service's."""
    home = tmp_path / "dagster"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        yield lambda messages, faults=None: begin(
            simulator(messages, faults=faults, outage=None), tmp_path, instance, monkeypatch
        )


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, Any]]:
    """One refresh of a new account, for the tests that only look at it."""
    messages = Population(300).table()
    service = Simulator(messages, outage=None)
    with serve(service) as url, dg.DagsterInstance.ephemeral() as instance:
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.BetaWarning)
            folder = tmp_path_factory.mktemp("account")
            account = begin(Rehearsal(url, service, messages), folder, instance, patch)
            result = account.refresh()
        yield account, result


def materializations(result: Any, asset: str) -> dict[str | None, dict[str, Any]]:
    """The metadata of an asset's materializations, by partition."""
    made = [
        event.materialization
        for event in result.all_events
        if event.is_step_materialization and event.asset_key.path[-1] == asset
    ]
    assert len(made) == len({one.partition for one in made})
    return {one.partition: {k: v.value for k, v in one.metadata.items()} for one in made}


def outputs(result: Any) -> dict[str, dict[str, Any]]:
    """What the run reports, by asset: the metadata of its steps' outputs."""
    return {
        event.event_specific_data.step_output_handle.output_name.rpartition("__")[2]: {
            name: value.value for name, value in event.event_specific_data.metadata.items()
        }
        for event in result.all_events
        if event.is_successful_output
    }


def evaluations(result: Any) -> dict[str, dg.AssetCheckEvaluation]:
    return {one.check_name: one for one in result.get_asset_check_evaluations()}


def failure(result: Any) -> Any:
    """What the one step that failed says."""
    [event] = [event for event in result.all_events if event.is_step_failure]
    return event.step_failure_data


def test_a_range_is_one_run_that_materializes_every_day_of_it(first_run):
    _, result = first_run
    assert result.success
    days = {(datetime.now(UTC).date() - timedelta(days=n)).isoformat() for n in range(8)}
    for asset in ("responses", "receipts"):
        assert set(materializations(result, asset)) == days
    assert set(materializations(result, "warehouse")) == {None}
    assert set(materializations(result, "delivery_rates")) == {None}


def test_every_partition_tells_its_own_buckets(first_run):
    """And their sum is the source's number of recipients."""
    account, result = first_run
    told = materializations(result, "receipts")
    for day, rows in account.receipts().items():
        assert told[day]["dagster/partition_row_count"] == rows.num_rows
        statuses = rows["status"].to_pylist()
        assert {b: told[day].get(b, 0) for b in BUCKETS} == {b: statuses.count(b) for b in BUCKETS}
    assert sum(sum(one.get(b, 0) for b in BUCKETS) for one in told.values()) == 300


def test_the_run_tells_its_requests_and_how_long_they_took(first_run):
    account, result = first_run
    told = outputs(result)["responses"]
    assert told["requests"] == account.rehearsal.service.counters.requests > 0
    assert told["sessions_due"] == told["sessions_answered"] > 0
    assert {"seconds", "bytes_received"} <= told.keys()
    assert 0 not in told.values()
    days = materializations(result, "responses").values()
    assert sum(day["sessions_due"] for day in days) == told["sessions_due"]
    ours = {"sessions_due", "dagster/column_lineage"}
    assert all(day.keys() <= ours for day in days)  # nothing of the run's


def test_every_column_says_which_columns_it_comes_from(first_run):
    """From the source's columns to the rates; Dagster's page takes it from the last event."""
    _, result = first_run

    def came_from(asset: str, column: str) -> set[tuple[str, str]]:
        told = materializations(result, asset)
        last = told[max(told, key=str)]["dagster/column_lineage"]
        return {(dep.asset_key.path[-1], dep.column_name) for dep in last.deps_by_column[column]}

    assert came_from("delivery_rates", "delivery_rate") == {("warehouse", "status")}
    assert came_from("warehouse", "status") == {("receipts", "status")}
    assert came_from("receipts", "status") == {("responses", "body")}
    assert came_from("receipts", "template") == {("source_table", "template")}
    assert ("source_table", "phone") in came_from("receipts", "recipient")
    assert came_from("responses", "ids") == {("source_table", "session_no")}


def test_the_source_table_is_observed_when_it_is_read(first_run):
    account, result = first_run
    [seen] = [
        event.event_specific_data.asset_observation
        for event in result.all_events
        if event.event_type is dg.DagsterEventType.ASSET_OBSERVATION
    ]
    assert seen.asset_key.path == ["usms", "source_table"]
    assert seen.metadata["rows_read"].value == 300
    newest = max(account.rehearsal.messages["sent_at"].to_pylist())
    assert seen.metadata["newest_sent_at"].value == newest.timestamp()


@pytest.mark.long
def test_folding_tells_publishing_which_sessions_changed(project):
    """Their rows come to stand at the end of the published table; the others stay in place."""
    account = project(100)
    messages, source = account.rehearsal.messages, account.data_dir.parent / "sent.parquet"
    is_late = [n % 20 == 7 for n in range(messages.num_rows)]
    pq.write_table(messages.filter(pa.array([not late for late in is_late])), source)
    assert account.refresh().success
    path = account.data_dir / "usms.duckdb"
    before = places(path)
    pq.write_table(messages, source)
    assert account.refresh().success
    assert places(path)[: len(before)] == before
    assert len(places(path)) > len(before)


def test_the_delivery_rates_have_chart_table_and_report(first_run):
    told = materializations(first_run[1], "delivery_rates")[None]
    assert told["messages"] == 300
    assert Path(told["chart"]).read_bytes().startswith(b"\x89PNG")
    days = [row.strip("| ").split(" | ") for row in told["daily"].splitlines()[2:]]
    assert days
    assert [cell for day in days for cell in day if set(cell) & {" ", "-"}] == []  # no line breaks
    assert Path(told["report"]).read_text("utf-8").startswith("<!")
    del told["dagster/column_lineage"]
    assert len(json.dumps(told)) < 3_000  # Dagster keeps it three times, for ever


def stored(folder: Path) -> int:
    """Count the characters in all tables of an instance's SQLite files."""
    count = 0
    for path in folder.rglob("*.db"):
        with closing(sqlite3.connect(path)) as con:
            tables = con.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for row in (
                row for (name,) in tables for row in con.execute(f'SELECT * FROM "{name}"')
            ):
                count += sum(len(str(cell)) for cell in row if cell is not None)
    return count


@pytest.mark.long
def test_a_run_leaves_little_in_dagster(project):
    """Hardly more where 200,000 are asked about: its days, its checks, and lines of progress."""
    account = project(300)
    home = account.data_dir.parent / "dagster"
    before = stored(home)
    result = account.refresh()
    assert result.success
    assert len(account.instance.all_logs(result.run_id)) <= 95
    assert stored(home) - before <= 300_000


def test_every_check_passes_on_a_well_behaved_service(first_run):
    found = evaluations(first_run[1])
    assert set(found) == {
        "conservation",
        "coverage",
        "forecasts",
        "looked_in_time",
        "open_quarantine",
        "polling_behind",
        "out_of_line",
        "time_zones",
        "unannounced_receipts",
        "unrecognized_words",
    }
    assert {name: one.description for name, one in found.items() if not one.passed} == {}


@pytest.mark.long
def test_a_lost_receipt_fails_the_blocking_check_that_names_its_day(project):
    """Conservation; and nothing is published from a dataset that lost a row."""
    account = project(300)
    account.refresh()
    day, rows = max(account.receipts().items(), key=lambda item: item[1].num_rows)
    file = account.data_dir / f"receipts/sent_date={day}/receipts.parquet"
    pq.write_table(rows.slice(1), file)
    result = account.refresh()
    conservation = evaluations(result)["conservation"]
    assert not conservation.passed
    assert conservation.severity is dg.AssetCheckSeverity.ERROR
    assert conservation.blocking
    assert day in (conservation.description or "")
    assert [other for other in account.receipts() if other != day
            and other in (conservation.description or "")] == []  # fmt: skip
    assert materializations(result, "warehouse") == {}


@pytest.mark.long
def test_an_unknown_word_and_a_quarantined_item_are_warnings(project):
    """They stop nothing: the warehouse is published."""
    result = project(300, Faults(unknown_words=0.5, bad_items=1.0)).refresh()
    found = evaluations(result)
    for name in ("unrecognized_words", "open_quarantine"):
        assert not found[name].passed
        assert found[name].severity is dg.AssetCheckSeverity.WARN
    assert result.success
    assert materializations(result, "warehouse")


@pytest.mark.long
def test_what_is_doubtful_in_the_source_is_told_beside_the_figures(project):
    account = project(20)
    sent = account.rehearsal.messages
    timeless = sent.slice(0, 3).to_pylist()
    rows = pa.Table.from_pylist([one | {"sent_at": None} for one in timeless], sent.schema)
    pq.write_table(pa.concat_tables([sent, rows]), account.data_dir.parent / "sent.parquet")
    told = outputs(account.refresh())["receipts"]["warnings"]
    assert "3 rows have no usable time in sent_at" in told


def test_a_source_whose_times_can_not_be_read_fails_the_run(project):
    account = project(20)
    sent = account.rehearsal.messages
    texts = pa.array([f"week {n}" for n in range(20)])
    place = sent.schema.get_field_index("sent_at")
    pq.write_table(
        sent.set_column(place, "sent_at", texts), account.data_dir.parent / "sent.parquet"
    )
    said = failure(account.refresh()).user_failure_data.description
    assert "can't be read" in said


def test_a_missing_setting_is_the_cores_sentence_and_no_retry(project, monkeypatch):
    account = project(20)
    monkeypatch.delenv("USMS_SOURCE_URL")
    with pytest.raises(SettingsError) as sentence:
        settings.load(["source"])
    said = failure(account.refresh())
    assert said.user_failure_data.description == str(sentence.value)
    assert said.error.cause is None
    assert len([frame for frame in said.error.stack if "usms_pipeline" in frame]) == 1


@pytest.mark.long
def test_an_older_day_that_changes_is_told_beside_the_range(project, monkeypatch):
    """The run over the open window also looks after it, in an event of its own."""
    sent_at = NOW - timedelta(days=20)
    account = project(one_message(sent_at), Faults(missing=1.0))
    monkeypatch.setenv("USMS_CUTOFF_HOURS", "1000")
    old = sent_at.date()
    assert account.refresh(old, old).success
    monkeypatch.setenv("USMS_CUTOFF_HOURS", "999")
    told = materializations(account.refresh(), "receipts")
    assert told[old.isoformat()]["pending"] == 1


@pytest.mark.long
def test_what_did_not_change_gets_no_event_and_is_not_drawn(project):
    account = project(60)
    assert account.refresh().success
    report = account.data_dir / "report.html"
    drawn_at = report.stat().st_mtime_ns
    again = account.refresh()
    assert again.success
    for asset in ("responses", "receipts", "warehouse", "delivery_rates"):
        assert materializations(again, asset) == {}
    assert report.stat().st_mtime_ns == drawn_at
    assert {name for name, one in evaluations(again).items() if not one.passed} == set()
    report.unlink()  # as `usms forget` does
    assert set(materializations(account.refresh(), "delivery_rates")) == {None}
    backfill = account.refresh(tags={"dagster/backfill": "b"})
    assert len(materializations(backfill, "receipts")) == 8


@pytest.mark.long
def test_a_day_that_was_left_alone_is_not_materialized_and_the_others_are(project):
    """It would count as made and as fresh. What is done is published all the same."""
    account = project(60)
    today = datetime.now(UTC).date()
    with Store(str(account.data_dir)).lock(f"sent_date={today}") as is_held:
        assert is_held
        result = account.refresh(today - timedelta(days=2), today)
    assert result.success
    others = {str(today - timedelta(days=n)) for n in (1, 2)}
    for asset in ("responses", "receipts"):
        told = materializations(result, asset)
        assert set(told) == others
    assert str(today) in outputs(result)["receipts"]["warnings"]
    assert materializations(result, "warehouse")
    assert evaluations(result)["conservation"].passed


def one_message(sent_at: datetime) -> pa.Table:
    return pa.table(
        {
            "session_no": ["S1"],
            "phone": ["+8613800138000"],
            "sent_at": pa.array([sent_at], pa.timestamp("us", tz="UTC")),
            "template": ["t"],
        }
    )


# --- schedule -------------------------------------------------------------------------------------


def tick(account: Project) -> dg.ScheduleExecutionData:
    repository = account.defs.get_repository_def()
    context = dg.build_schedule_context(
        instance=account.instance,
        repository_def=repository,
        scheduled_execution_time=datetime.now(UTC),
    )
    return repository.get_schedule_def("refresh_usms_schedule").evaluate_tick(context)


def test_a_tick_asks_for_one_run_over_the_open_window(project):
    account = project(20)
    [request] = tick(account).run_requests or []
    today = datetime.now(UTC).date()
    assert request.tags[RANGE_START] == (today - timedelta(days=7)).isoformat()
    assert request.tags[RANGE_END] == today.isoformat()


def observations(account: Project) -> int:
    key = dg.AssetKey(["usms", "source_table"])
    return len(account.instance.fetch_observations(key, limit=1_000).records)


@pytest.mark.long
def test_a_tick_with_nothing_to_do_starts_no_run_and_notes_that_it_looked(project, monkeypatch):
    """Until rows come, settings change, the warehouse goes, or a message is due."""
    account = project(60)
    assert tick(account).run_requests[0].tags["usms/because"] == "nothing was collected yet"
    account.refresh()
    before = observations(account)
    data = tick(account)
    assert not data.run_requests
    assert (data.skip_message or "").startswith("Nothing to do: no message is due")
    assert observations(account) == before + 1

    def because() -> str:
        [request] = tick(account).run_requests or []
        return str(request.tags["usms/because"])

    source = account.data_dir.parent / "sent.parquet"
    messages = pq.read_table(source)
    pq.write_table(messages.slice(1), source)
    assert "not as the source has it now" in because()
    pq.write_table(messages, source)
    assert not tick(account).run_requests
    with monkeypatch.context() as patch:
        patch.setenv("USMS_CUTOFF_HOURS", "48")
        assert because()
    published = account.data_dir / "usms.duckdb"
    aside = published.rename(published.with_name("aside"))
    assert because() == "the warehouse is behind the days' files"
    aside.rename(published)
    monkeypatch.setenv("USMS_RAW_RETENTION_DAYS", "0")
    assert because() == "1 run whose responses are past their retention"


@pytest.mark.long
def test_a_day_of_ticks_with_nothing_to_do_hardly_grows_the_instance(project, tmp_path):
    account = project(60)
    account.refresh()
    before, observed = folder_bytes(tmp_path / "dagster"), observations(account)
    for _ in range(96):
        assert not tick(account).run_requests
    assert observations(account) - observed <= 96, "one event a tick"
    assert folder_bytes(tmp_path / "dagster") - before <= 2_000_000


def folder_bytes(folder: Path) -> int:
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())


@pytest.mark.long
def test_a_tick_that_cannot_look_starts_the_run_that_tells_why(project):
    account = project(60)
    account.refresh()
    (account.data_dir.parent / "sent.parquet").unlink()
    [request] = tick(account).run_requests or []
    assert RANGE_START not in request.tags
    assert "sent.parquet" in failure(account.refresh()).user_failure_data.description


def test_a_tick_never_asks_for_days_before_the_first_partition(project, monkeypatch):
    today = datetime.now(UTC).date().isoformat()
    account = project(20)
    monkeypatch.setenv("USMS_START_DATE", today)
    account.defs = ReceiptPipeline().build_defs()
    [request] = tick(account).run_requests or []
    assert (request.tags[RANGE_START], request.tags[RANGE_END]) == (today, today)


@pytest.mark.parametrize("status", ["STARTED", "NOT_STARTED", "FAILURE"])
def test_a_tick_is_skipped_while_a_refresh_is_under_way(project, status):
    account = project(20)
    job = account.defs.resolve_job_def("refresh_usms")
    run = account.instance.create_run_for_job(job, status=dg.DagsterRunStatus[status])
    data = tick(account)
    assert bool(data.run_requests) == (status == "FAILURE")
    assert (run.run_id[:8] in (data.skip_message or "")) == (status != "FAILURE")


def watched(account: Project, cursor: str | None = None) -> dg.SensorResult:
    """What the sensor tells, given what it knew."""
    sensor = account.defs.resolve_sensor_def("usms_watch")
    with dg.build_sensor_context(instance=account.instance, cursor=cursor) as context:
        return sensor(context)


@pytest.mark.long
def test_the_sensor_tells_of_days_that_usms_run_changed_and_of_each_once(project):
    account = project(60)
    account.refresh()
    first = watched(account)
    assert [one for one in first.asset_events if isinstance(one, dg.AssetMaterialization)] == []
    source = account.data_dir.parent / "sent.parquet"
    messages = pq.read_table(source)
    others = pa.array(["another"] * messages.num_rows)
    place = messages.column_names.index("template")
    pq.write_table(messages.set_column(place, "template", others), source)
    changed = {str(day) for day in Pipeline(settings.load()).run().written}
    assert changed
    second = watched(account, first.cursor)
    assert {one.partition for one in second.asset_events} == changed
    assert {one.metadata["usms/changed_by"].value for one in second.asset_events} == {
        "`usms run`, or a run that failed"
    }
    assert watched(account, second.cursor).asset_events == []


@pytest.mark.parametrize(
    ("hours", "passed", "severity"), [(0.5, True, "WARN"), (2, False, "WARN"), (30, False, "ERROR")]
)
def test_an_account_that_nobody_looked_at_is_overdue(hours, passed, severity):
    verdict = checks.check_looked(hours, Freshness())
    assert (verdict.passed, verdict.severity.value) == (passed, severity)


@pytest.mark.long
def test_a_quiet_account_is_not_overdue_while_the_schedule_looks(project):
    """The verdict hangs on the last look, and is told when it changes."""
    account = project(60)
    account.refresh()
    account.defs = ReceiptPipeline(freshness={"warn_hours": 1e-9}).build_defs()
    late = watched(account)
    [verdict] = late.asset_events
    assert (verdict.check_name, verdict.passed) == ("looked_in_time", False)
    assert watched(account, late.cursor).asset_events == []
    account.defs = ReceiptPipeline().build_defs()
    assert not tick(account).run_requests
    [verdict] = watched(account, late.cursor).asset_events
    assert verdict.passed


# --- what is known before a run -------------------------------------------------------------------


def test_columns_have_types_and_descriptions():
    specs = {spec.key: spec for spec in ReceiptPipeline().build_defs().resolve_all_asset_specs()}
    for key, fields in ((RECEIPTS, schema.receipts_fields()), (RESPONSES, schema.RESPONSES)):
        columns = specs[key].metadata["dagster/column_schema"].columns
        assert [column.name for column in columns] == [field.name for field in fields]
        assert [column.name for column in columns if not column.description] == []


def test_every_asset_has_group_description_and_kind():
    specs = ReceiptPipeline(owners=["team:x"]).build_defs().resolve_all_asset_specs()
    assert len(specs) == 5
    for spec in specs:
        assert (spec.group_name, list(spec.owners)) == ("usms", ["team:x"])
        assert spec.description
        assert spec.kinds


def test_definitions_load_without_any_variable_and_without_the_heavy_libraries(tmp_path):
    program = (
        "import sys\nfrom usms_pipeline.definitions import defs\n"
        "defs().get_repository_def()\n"
        "heavy = {'altair', 'vl_convert', 'duckdb', 'httpx', 'pycurl', 'pandas'}\n"
        "print(*heavy & set(sys.modules))"
    )
    assert bare([sys.executable, "-W", "ignore", "-c", program], tmp_path).strip() == ""


def test_dagsters_own_settings_are_valid_and_tell_nobody(tmp_path):
    text = (ROOT / "dagster_home" / "dagster.yaml").read_text()
    (tmp_path / "dagster.yaml").write_text(text)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert not instance.telemetry_enabled
        assert instance.run_monitoring_enabled
    assert "/home/" not in text
    assert str(ROOT) not in text


@pytest.mark.long
def test_dg_lists_checks_and_launches_a_range_from_a_clone(project, monkeypatch, tmp_path):
    """The commands of the README, each in a process of its own, from the project's folder."""
    account = project(100)
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text((ROOT / "dagster_home" / "dagster.yaml").read_text())
    given = {k: v for k, v in os.environ.items() if k.startswith("USMS_")}
    given["DAGSTER_HOME"] = str(home)
    dg_command = str(Path(sys.executable).with_name("dg"))
    bare([dg_command, "check", "defs"], ROOT, given)
    listed = json.loads(bare([dg_command, "list", "defs", "--json"], ROOT, given))
    assert "usms/receipts" in {asset["asset_key"] for asset in listed["assets"]}
    today = datetime.now(UTC).date()
    days = f"{today - timedelta(days=6)}...{today}"
    bare([dg_command, "launch", "--job", "refresh_usms", "--partition-range", days], ROOT, given)
    assert sum(rows.num_rows for rows in account.receipts().values()) == 100
    made_together = "key:usms/responses or key:usms/receipts"
    backfill = ["--assets", made_together, "--partition-range", days]
    bare([dg_command, "launch", *backfill], ROOT, given)


# --- pure parts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "may_pass"),
    [
        (ServiceDown("The service is down."), True),
        (SourceUnavailable("The source is down."), True),
        (SourceError("There is no such table."), False),
        (CredentialsRefused("The key is refused."), False),
    ],
)
def test_dagster_may_retry_where_the_service_or_the_source_is_down(error, may_pass):
    """The client owns the retries of requests; what the run had counted is kept."""
    error.stats = SimpleNamespace(requests=7)
    shown = failure_of(error, ReceiptPipeline().account())
    assert (shown.description, shown.allow_retries) == (str(error), may_pass)
    assert shown.metadata["requests"].value == 7


@pytest.mark.parametrize(
    ("given", "said", "shown"),
    [
        ({}, "Check USMS_ACCESS_KEY_ID.", "Check USMS_ACCESS_KEY_ID."),
        ({"access_key_id": "{{ env.KEY_ID }}"}, "Check USMS_ACCESS_KEY_ID.", "Check KEY_ID."),
        (
            {"source_table": "public.log"},
            "No such table: correct USMS_SOURCE_TABLE.",
            "No such table: correct `source_table`.\n`source_table`: see the defs.yaml of the "
            "account shop/usms.",
        ),
        (
            {
                "source_url": "postgresql://{{ env.A }}:{{ env.B }}@h/d",
                "access_key_id": "{{env.K}}",
            },
            "USMS_SOURCE_URL, USMS_ACCESS_KEY_ID, USMS_TIMEZONE",
            "`source_url`, K, USMS_TIMEZONE\n`source_url`: see the defs.yaml of the account "
            "shop/usms.",
        ),
    ],
)
def test_an_error_is_told_in_the_accounts_own_words(given, said, shown):
    """Its own variable; or its attribute; else the variable that the core reads."""
    account = ReceiptPipeline(asset_prefix="shop/usms", **given).account()
    assert account.in_its_words(said) == shown
    assert failure_of(SourceError(said), account).description == shown


@pytest.mark.parametrize(
    "raised",
    [
        KeyboardInterrupt(),
        dg.RetryRequested(),
        dg.Failure("x"),
        dg.DagsterInvariantViolationError("x"),
    ],
)
def test_what_dagster_raises_itself_and_an_interrupt_pass(raised):
    account = Account(dg.DailyPartitionsDefinition("2026-01-01"))
    with pytest.raises(type(raised)) as caught, told(account):
        raise raised
    assert caught.value is raised


def test_progress_is_logged_every_few_seconds_and_not_every_batch():
    at = iter([0.0, 1.0, 2.0, 5.0, 6.0, 10.0, 11.0, 20.0])
    said: list[str] = []
    listen = progress_log(said.append, lambda: next(at))
    for done in range(6):
        listen(Progress("responses", done * 1000, 9000))
    listen(Progress("warehouse", 0))
    assert said == [
        "Asking service: 2,000/9,000 sessions; about 14 s left",  # 7,000 at 500 a second
        "Asking service: 4,000/9,000 sessions; about 11 s left",
        "Publishing",
    ]


def test_a_run_of_hours_says_where_it_is_a_few_dozen_times():
    now = iter(range(4 * 3600))
    said: list[str] = []
    listen = progress_log(said.append, lambda: next(now))
    for done in range(4 * 3600 - 1):
        listen(Progress("responses", done, 4 * 3600))
    assert 10 < len(said) < 40


@pytest.mark.parametrize(("unannounced", "passed"), [(10, True), (11, False)])
def test_more_than_one_percent_of_unannounced_receipts_is_a_warning(unannounced, passed):
    said = Footer("", buckets={"delivered": 1000}, unannounced=unannounced)
    verdicts = checks.check_report(Report(days={date(2026, 1, 31): said}))
    [extra] = [one for one in verdicts if one.check_name == "unannounced_receipts"]
    assert extra.passed is passed
    assert extra.severity is dg.AssetCheckSeverity.WARN
    assert ("2026-01-31" in (extra.description or "")) is not passed


@pytest.mark.parametrize(
    ("left", "seconds", "passed"), [(0, 900, True), (1, 10, False), (0, 901, False)]
)
def test_polling_is_behind_when_questions_are_left_or_the_next_round_is_missed(
    left, seconds, passed
):
    stats = CollectStats(ids_given_up=left, problems={"HTTP 503: busy.": 2} if left else {})
    report = Report(stats, seconds, due={date(2026, 1, 31): 5})
    [verdict] = [v for v in checks.check_report(report) if v.check_name == "polling_behind"]
    assert verdict.passed is passed
    said = verdict.description or ""
    assert (
        ("2 × HTTP 503: busy. They are asked again" in said) == ("BASE_URL" in said) == (left > 0)
    )
    assert ("USMS_MAX_CONCURRENCY" in said) == (seconds > 900)


@pytest.mark.long
def test_a_service_that_is_down_fails_the_step_with_what_it_answered(project):
    """As `usms run` ends with 1. What was read of the source is kept, and nothing is published."""
    account = project(40, Faults(down=1))
    result = account.refresh()
    assert not result.success
    assert materializations(result, "receipts") == {}
    told = failure(result).user_failure_data.description
    assert "answered for none of the" in told
    assert "HTTP 503" in told
    assert "USMS_BASE_URL" in told
    assert sum(rows.num_rows for rows in account.receipts().values()) == 40
    assert not (account.data_dir / "usms.duckdb").exists()


def test_a_hint_at_a_wrong_time_zone_is_the_checks_sentence():
    verdict = checks.check_time_zones("Look at USMS_RECEIPT_TIMEZONE.")
    assert (verdict.passed, verdict.description) == (False, "Look at USMS_RECEIPT_TIMEZONE.")
    assert checks.check_time_zones(None).passed


def test_a_run_without_partition_tags_is_over_the_open_window():
    opened = Window(date(2026, 1, 1), date(2026, 1, 8))
    pipeline: Any = SimpleNamespace(open_window=lambda: opened)
    assert window({}, pipeline) == opened
    day = date(2026, 1, 3)
    assert window({"dagster/partition": str(day)}, pipeline) == Window(day, day)
