"""The component as other projects use it: YAML in, an account's definitions out."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest
import yaml
from dagster_dg_core.utils.check_utils import error_dict_to_formatted_error
from dagster_shared.yaml_utils import parse_yamls_with_source_position

from tests.conftest import MakeRehearsal
from tests.examples import examples
from tests.processes import bare, environment_with
from usms_pipeline.components import Attributes, ReceiptPipeline
from usms_pipeline.contract.errors import SettingsError
from usms_pipeline.defs.account import AccountResource, processes
from usms_pipeline.defs.attributes import SECRET
from usms_pipeline.defs.scaffold import AccountScaffolder
from usms_pipeline.settings import Settings
from usms_pipeline.simulator import ACCESS_KEY_ID, ACCESS_KEY_SECRET

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),  # backfill_policy
    pytest.mark.filterwarnings("ignore:`parse_obj_as`"),  # Dagster's own reader of YAML
]

ROOT = Path(__file__).parent.parent
MADE = {"responses", "receipts", "warehouse", "delivery_rates"}
ASSETS = {"source_table", *MADE}

SECOND_ACCOUNT = """\
type: usms_pipeline.components.ReceiptPipeline
attributes:
  asset_prefix: shop/sms
  owners: ["team:shop"]
  access_key_id: "{{ env.SHOP_KEY_ID }}"
  access_key_secret: "{{ env.SHOP_KEY_SECRET }}"
  source_url: "postgresql://{{ env.SHOP_DB_USER }}:{{ env.SHOP_DB_PASSWORD }}@db:5432/shop"
  source_table: public.sms_log
  dimensions: [country, template_id]
  batch_size: 50
  start_date: 2026-01-31
  timezone: Asia/Shanghai
  data_dir: data/shop
"""

REGROUPED = """\
type: usms_pipeline.components.ReceiptPipeline
post_processing:
  assets:
    - target: "key:usms/receipts"
      attributes: {group_name: facts}
"""

OF_THE_PROJECT = """\
import dagster as dg


@dg.asset(group_name="usms", partitions_def=dg.HourlyPartitionsDefinition("2026-01-01-00:00"))
def own() -> None: ...


refresh = dg.define_asset_job("refresh", selection=[own])
defs = dg.Definitions(assets=[own], jobs=[refresh], resources={"usms": "of the project"})
"""

PYPROJECT = """\
[project]
name = "shop"
version = "0.1.0"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "shop"
"""


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No USMS variable and no .env is about."""
    for name in [name for name in os.environ if name.startswith(("USMS_", "SHOP_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def second_project(tmp_path: Path) -> Path:
    """Another Dagster project, with two accounts in it."""
    for account, text in {
        "sms": SECOND_ACCOUNT,
        "usms": "type: usms_pipeline.components.ReceiptPipeline\n",
    }.items():
        folder = tmp_path / "shop" / "defs" / account
        folder.mkdir(parents=True)
        (folder / "defs.yaml").write_text(text)
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    for package in ("shop", "shop/defs"):
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "shop" / "definitions.py").write_text(
        "from pathlib import Path\n\nimport dagster as dg\n\n\n@dg.definitions\ndef defs():\n"
        "    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)\n"
    )
    return tmp_path


def built(**attributes: Any) -> dg.Definitions:
    return ReceiptPipeline(**attributes).build_defs()


def resource(defs: dg.Definitions, name: str = "usms_account") -> Any:
    return (defs.resources or {})[name]


def test_every_setting_is_an_attribute():
    ours = {"asset_prefix", "owners", "source_asset", "schedule", "freshness", "op", "translation"}
    assert set(Attributes.model_fields) == {*Settings.model_fields, *ours}


def test_two_accounts_of_a_project_share_no_name(second_project):
    """Assets, job, schedule, resource, group: nothing of one account is named as the other's."""
    program = (
        "from shop.definitions import defs\n"
        "repository = defs().get_repository_def()\n"
        "print(*(key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()))\n"
        "print(*(job.name for job in repository.get_all_jobs()))\n"
        "print(*(schedule.name for schedule in repository.schedule_defs))\n"
        "print(*repository.get_top_level_resources())\n"
    )
    keys, jobs, schedules, resources = run_python(program, second_project).splitlines()
    assert set(keys.split()) == {f"{a}/{name}" for a in ("usms", "shop/sms") for name in ASSETS}
    assert {"refresh_usms", "refresh_shop_sms"} <= set(jobs.split())
    assert set(schedules.split()) == {
        "refresh_usms_schedule",
        "refresh_shop_sms_schedule",
    }
    assert set(resources.split()) == {"usms_account", "shop_sms_account"}


def test_the_job_makes_the_accounts_assets_whatever_else_the_project_has(second_project):
    """Our asset in another group; in our group an hourly asset; a job `refresh`, a resource `usms`.

    They load beside ours, and none of them is in our job.
    """
    (second_project / "shop/defs/usms/defs.yaml").write_text(REGROUPED)
    (second_project / "shop/defs/own.py").write_text(OF_THE_PROJECT)
    program = (
        "from shop.definitions import defs\n"
        "repository = defs().get_repository_def()\n"
        "for spec in defs().resolve_all_asset_specs():\n"
        "    print(spec.key.path[-1], spec.group_name)\n"
        "layer = repository.get_job('refresh_usms').asset_layer\n"
        "print(*(key.path[-1] for key in layer.selected_asset_keys))\n"
        "print(*(key.name for key in layer.asset_graph.asset_check_keys))\n"
    )
    *grouped, made, checked = run_python(program, second_project).splitlines()
    assert {"receipts facts", "warehouse usms", "own usms"} <= set(grouped)
    assert set(made.split()) == MADE
    assert {"conservation", "polling_behind", "out_of_line"} <= set(checked.split())


@examples(
    1,
    ("attributes", "shared"),
    [
        ("asset_prefix: shop", "the data directory .*data: give each its own data_dir"),
        ("asset_prefix: shop\n  data_dir: ./data", "the data directory"),
        ("asset_prefix: shop\n  data_dir: '{{ env.SHOP_DATA }}'", "the data directory"),
        ("data_dir: elsewhere", "the name usms: give each its own asset_prefix"),
    ],
)
def test_two_accounts_that_share_a_place_or_a_name_are_refused(
    second_project, monkeypatch, attributes, shared
):
    (second_project / "shop/defs/sms/defs.yaml").write_text(
        f"type: usms_pipeline.components.ReceiptPipeline\nattributes:\n  {attributes}\n"
    )
    program = (
        "from shop.definitions import defs\n"
        "try:\n    defs().get_repository_def()\n"
        "except Exception as error:\n    print(error.__cause__ or error)\n"
    )
    said = run_python(program, second_project, SHOP_DATA=str(second_project / "data"))
    assert re.search(rf"The accounts \w+ and \w+ share {shared}", said), said


def test_yaml_gives_the_settings_of_a_run(monkeypatch):
    attributes = yaml.safe_load(SECOND_ACCOUNT)["attributes"]
    component = ReceiptPipeline.from_attributes_dict(attributes=attributes)
    account = resource(component.build_defs(), "shop_sms_account")
    for name in ("KEY_ID", "KEY_SECRET", "DB_USER", "DB_PASSWORD"):
        monkeypatch.setenv(f"SHOP_{name}", f"the-{name}")
    settings = account.load("source", "api")
    assert settings.access_key_id.get_secret_value() == "the-KEY_ID"
    assert settings.source_url.get_secret_value() == (
        "postgresql://the-DB_USER:the-DB_PASSWORD@db:5432/shop"
    )
    assert settings.dimensions == ("country", "template_id")
    assert (settings.batch_size, settings.data_dir) == (50, "data/shop")
    assert (str(settings.start_date), settings.timezone) == ("2026-01-31", "Asia/Shanghai")


def test_partitions_are_days_of_the_zone_from_the_start_date_to_today():
    receipts = built(start_date="2026-01-31", timezone="Asia/Shanghai").resolve_assets_def(
        dg.AssetKey(["usms", "receipts"])
    )
    days = receipts.partitions_def
    assert isinstance(days, dg.DailyPartitionsDefinition)
    assert days.get_first_partition_key() == "2026-01-31"
    assert (days.timezone, days.end_offset) == ("Asia/Shanghai", 1)


def test_the_environment_sets_what_the_yaml_does_not(monkeypatch):
    monkeypatch.setenv("USMS_TIMEZONE", "Europe/Berlin")
    monkeypatch.setenv("USMS_DATA_DIR", "elsewhere")
    component = ReceiptPipeline(data_dir="here")
    assert component.account().days.timezone == "Europe/Berlin"
    assert resource(component.build_defs()).load().data_dir == "here"


def test_a_wrong_setting_does_not_keep_the_definitions_from_loading(monkeypatch):
    monkeypatch.setenv("USMS_TIMEZONE", "Mars/Olympus")
    assert ReceiptPipeline().account().days.timezone == "UTC"
    with pytest.raises(SettingsError, match="USMS_TIMEZONE"):
        resource(built()).load()


def test_an_unset_variable_named_in_the_yaml_is_an_error_not_a_fallback(monkeypatch):
    """Or the questions of one account would be asked with the key of another."""
    monkeypatch.setenv("USMS_ACCESS_KEY_ID", "the other account's")
    account = resource(built(access_key_id="{{ env.SHOP_KEY_ID }}"))
    with pytest.raises(SettingsError, match=r"USMS_ACCESS_KEY_ID.*env\.SHOP_KEY_ID.*not set"):
        account.load("api")


def test_dagsters_env_var_is_read_when_a_run_starts(monkeypatch):
    account = resource(built(access_key_secret=dg.EnvVar("SHOP_KEY_SECRET")))
    monkeypatch.setenv("SHOP_KEY_SECRET", "s3cret")
    assert account.load().access_key_secret.get_secret_value() == "s3cret"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("access_key_id", "AKID"),
        ("access_key_secret", "s3cret"),
        ("phone_key", "00" * 32),
        ("source_url", "postgresql://me:s3cret@db/shop"),
        ("source_url", "postgresql://db/shop?user=me&password=s3cret"),
    ],
)
def test_a_secret_in_clear_is_refused_and_not_shown(name, value):
    with pytest.raises(ValueError, match=rf"(?s){name}.*env\.NAME") as caught:
        ReceiptPipeline(**{name: value})
    assert value not in str(caught.value)


WRONG = [
    "timeout_seconds: soon", "start_date: '2026-13-45'", "start_date: yesterday",
    "start_date: 2026-02-30", "start_date: 2025-02-29", "start_date: 1950-01-01",
    "start_date: 20260131", "timezone: Mars/Base", "timezone: Europe/Nowhere",
    "source_timezone: GMT+8", "base_url: http://api.example.com", "base_url: https://",
    "base_url: https://api.example.com/?key=1", "base_url: https://api.example.com:port",
    "cutoff_hours: -5", "batch_size: 5000", "batch_size: 1.5", 'batch_size: "{{ env.SHOP_SIZE }"',
    "batchsize: 5", "asset_prefix: shop sms", "owners: me", "owners: [me]", "dimensions: {city: 1}",
    "dimensions: [city, city]", "dimensions: city, city", "phones: true", "phones: whole",
    "access_key_id: AKID", 'access_key_secret: "{ env.SHOP_SECRET }}"', "phone_key: 00ff",
    "source_url: postgresql://me:s3cret@db/shop", """source_url: "'sent.csv'\"""",
    "source_url: postgresql://db/shop?user=me&password=s3cret", "poll_every_hours: 0",
    "poll_minutes: [5, 0]", "poll_minutes: 5,soon", "max_concurrency: 1000",
    "source_lookback_days: 0", "default_region: China", "default_region: ZZ", "default_region: NO",
    "date_order: ymd", "data_dir: 5", "data_dir: s3://", "data_dir: s3://shop/../sms",
    'data_dir: "{{ env.SHOP_DATA }"', "warehouse: s3://shop/usms.duckdb", 'session_column: ""',
    "raw_retention_days: soon", "schedule: hourly", "schedule: {cron: hourly}",
    "schedule: {cron: 61 * * * *}", "schedule: {cron: 0 24 * * *}", "schedule: {status: sometimes}",
    "freshness: {warn_hours: -1}", "op: {retry: {delay_seconds: 5}}", "op: {pools: usms}",
    "op: {processes: 0}", "source_asset: shop//log", "translation: {grup_name: sms}",
]  # fmt: skip
"""One attribute each that can't be used."""

RIGHT = [
    "timeout_seconds: 5", 'timeout_seconds: "{{ env.SHOP_TIMEOUT }}"', "start_date: 2026-01-31",
    'start_date: "{{ env.SHOP_START }}"', "timezone: America/Argentina/Salta", "timezone: UTC",
    "base_url: http://127.0.0.1:8080", "base_url: https://api.example.com/v1",
    "dimensions: [city]", "dimensions: city,template", 'dimensions: "{{ env.SHOP_DIMENSIONS }}"',
    "poll_minutes: [5, 10]", "source_url: postgresql://db/shop", "source_url: sent/*.parquet",
    'source_url: "postgresql://{{ env.SHOP_USER }}:{{ env.SHOP_PASSWORD }}@db/shop"',
    "phones: clear", "date_order: dmy", "owners: [me@shop.example, team:shop]", "schedule: none",
    "schedule: null", "schedule: {cron: 0 * * * *, status: running}", "freshness: none",
    "schedule: {cron: '*/15 8-18,20 1,15 JAN mon-fri'}", "schedule: {cron: '@daily'}",
    "freshness: {warn_hours: 30}", "start_date: 2024-02-29", "data_dir: s3://shop/sms/",
    "default_region: cn", "poll_minutes: '0.5, 10'", "dimensions: city,city_2",
    "freshness: {warn_hours: 2}", "source_asset: shop/sms_log",
    "op: {tags: {a: b}, pool: sms, max_partitions_per_run: 30, retry: {max_retries: 3}}",
    "op: {processes: 3}",
    "translation: {group_name: sms, key: 'sms/{{ name }}'}",
]  # fmt: skip


def validator() -> Any:
    from jsonschema import Draft202012Validator  # only now: it takes two seconds to load

    return Draft202012Validator(Attributes.model_json_schema())


def checked(attribute: str) -> list[str]:
    """What `dg check defs` prints about a defs.yaml with one attribute, the lines of each error."""
    text = f"type: usms_pipeline.components.ReceiptPipeline\nattributes:\n  {attribute}\n"
    Path("defs.yaml").write_text(text)
    [tree] = parse_yamls_with_source_position(text, "defs.yaml")
    return [
        error_dict_to_formatted_error(None, error, tree.source_position_tree, ["attributes"])
        for error in validator().iter_errors(tree.value["attributes"])
    ]


def loaded() -> Any:
    """The component of the defs.yaml, as a project loads it; raises what Dagster's tree is of."""
    try:
        return ReceiptPipeline.from_yaml_path(Path.cwd() / "defs.yaml").components[0]  # type: ignore[attr-defined]
    except Exception as error:
        raise error.__cause__ or error from None


@pytest.mark.parametrize("attribute", WRONG)
def test_a_wrong_attribute_is_told_with_its_line_in_a_few_lines(attribute):
    """By us, as the project loads; some also by `dg`, if its schema is looked at before."""
    by_dg = checked(attribute)
    with pytest.raises(dg.DagsterInvalidDefinitionError) as caught:
        loaded()
    for told in (*by_dg, str(caught.value)):
        assert re.search(r"defs\.yaml:(\x1b\[32m)?3", told)
        name, is_secret = attribute.partition(":")[0], attribute.startswith(SECRET)
        assert f"  {name}: …" in told if is_secret else attribute in told
        assert re.search(r"^     \|   +\^ ", told, re.MULTILINE)
        assert "any of the given schemas" not in told
        assert len(told.splitlines()) <= 12


def dg_check_defs(project: Path) -> subprocess.CompletedProcess[str]:
    (project / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    return subprocess.run(
        [str(Path(sys.executable).with_name("dg")), "check", "defs", "--use-active-venv"],
        cwd=project,
        env=os.environ | {"DAGSTER_HOME": str(project), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.long
@pytest.mark.parametrize("attribute", WRONG[::25])
def test_dg_check_defs_says_no_more_than_that(second_project, attribute):
    (second_project / "shop/defs/sms/defs.yaml").unlink()
    (second_project / "shop/defs/usms/defs.yaml").write_text(
        f"type: usms_pipeline.components.ReceiptPipeline\nattributes:\n  {attribute}\n"
    )
    done = dg_check_defs(second_project)
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert "shop/defs/usms/defs.yaml:3" in said
    assert re.search(rf"   3 \|   {re.escape(attribute)}\n     \|   +\^ ", said)
    assert len(said.splitlines()) <= 12


@pytest.mark.long
@pytest.mark.parametrize("accounts", [("sms",), ("usms",), ("sms", "usms")])
@pytest.mark.parametrize(
    "wrong",
    [
        ["timezone: Mars/Base"],
        ["start_date: 2026-02-30", "access_key_id: AKID", "schedule: {cron: 61 * * * *}"],
    ],
)
def test_dg_check_defs_shows_the_lines_of_either_account(second_project, accounts, wrong):
    for account in ("sms", "usms"):
        lines = [f"asset_prefix: {account}", f"data_dir: {account}", *wrong * (account in accounts)]
        (second_project / f"shop/defs/{account}/defs.yaml").write_text(
            "type: usms_pipeline.components.ReceiptPipeline\nattributes:\n"
            + "".join(f"  {line}\n" for line in lines)
        )
    done = dg_check_defs(second_project)
    said = done.stdout + done.stderr
    assert done.returncode == 1
    [account] = set(re.findall(r"shop/defs/(\w+)/defs\.yaml:\d", said))
    assert account in accounts
    assert len(re.findall(r"^ +\| +\^ ", said, re.MULTILINE)) == len(wrong)
    assert "Stack Trace" not in said
    assert len(said.splitlines()) <= 12 + 5 * len(wrong[1:])


@pytest.mark.parametrize("attribute", RIGHT)
def test_a_right_attribute_passes_and_builds(attribute):
    assert checked(attribute) == []
    component = loaded()
    dg.Definitions.validate_loadable(component.build_defs(None))


def test_a_secret_in_a_defs_yaml_is_refused_with_its_line_and_not_shown():
    checked("access_key_id: AKID")
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=r"defs\.yaml:3") as caught:
        loaded()
    assert "AKID" not in str(caught.value)


def test_the_schema_has_of_every_attribute_its_type_and_default():
    schema = Attributes.model_json_schema()["properties"]
    assert schema["batch_size"]["type"] == ["integer", "string"]
    assert (schema["batch_size"]["maximum"], schema["batch_size"]["default"]) == (100, 100)
    assert re.fullmatch(schema["phones"]["pattern"], "masked")
    assert schema["start_date"]["format"] == "date"
    assert [name for name, one in schema.items() if "description" not in one] == []


def test_translation_changes_keys_groups_and_whom_they_depend_on():
    component = ReceiptPipeline.from_attributes_dict(
        attributes={"translation": {"key": "sms/{{ name }}", "group_name": "messaging"}}
    )
    defs = component.build_defs()
    specs = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
    assert set(specs) == {f"sms/{name}" for name in ASSETS}
    assert {spec.group_name for spec in specs.values()} == {"messaging"}
    assert [dep.asset_key.to_user_string() for dep in specs["sms/warehouse"].deps] == [
        "sms/receipts"
    ]
    job = defs.resolve_job_def("refresh_usms")
    made = {key.to_user_string() for key in job.asset_layer.selected_asset_keys}
    assert made == {f"sms/{name}" for name in MADE}


def test_a_source_asset_of_the_project_takes_the_place_of_ours():
    @dg.asset(key=["shop", "sms_log"])
    def sms_log() -> None: ...

    defs = dg.Definitions.merge(dg.Definitions([sms_log]), built(source_asset="shop/sms_log"))
    specs = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
    assert "usms/source_table" not in specs
    for name in ("responses", "receipts"):
        assert dg.AssetKey(["shop", "sms_log"]) in {d.asset_key for d in specs[f"usms/{name}"].deps}


def test_the_op_has_tags_pool_retries_and_days_a_run():
    op = {"tags": {"team": "sms"}, "pool": "sms", "max_partitions_per_run": 30}
    made = built(op=op | {"retry": {"max_retries": 3, "delay_seconds": 9}}).resolve_assets_def(
        dg.AssetKey(["usms", "receipts"])
    )
    assert (made.op.tags["team"], made.op.pool) == ("sms", "sms")
    assert made.op.retry_policy == dg.RetryPolicy(3, 9, dg.Backoff.EXPONENTIAL)
    assert made.backfill_policy == dg.BackfillPolicy.multi_run(30)


@pytest.mark.parametrize(
    ("op", "limit", "expected"),
    [({}, None, 1), ({}, 3, 3), ({"processes": 4}, 3, 4), ({"pool": "other"}, 3, 1)],
)
def test_the_ceiling_of_requests_is_shared_by_as_many_as_work_at_once(op, limit, expected):
    component = ReceiptPipeline(op=op, max_requests_per_second=12)
    with dg.DagsterInstance.ephemeral() as instance:
        if limit:
            instance.event_log_storage.set_concurrency_slots("usms_account", limit)
        found = processes(instance, component.account())
    assert found == expected
    resource = AccountResource(given=component.given)
    its = resource.pipeline(processes=lambda: found).settings.max_requests_per_second
    assert its == 12 / expected


def test_the_job_takes_the_executor_of_the_deployment():
    for executor in (dg.in_process_executor, dg.multiprocess_executor):
        defs = dg.Definitions.merge(built(), dg.Definitions(executor=executor))
        assert defs.resolve_job_def("refresh_usms").executor_def is executor


def test_the_schedule_is_as_the_account_says():
    given = {"cron": "0 6 * * *", "status": "running"}
    [schedule] = built(schedule=given, timezone="Asia/Shanghai").schedules or []
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 6 * * *", "Asia/Shanghai")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert list(built(schedule="none").schedules or []) == []
    [usual] = built().schedules or []
    assert usual.default_status is dg.DefaultScheduleStatus.STOPPED


@pytest.mark.parametrize(
    ("options", "wanted", "unwanted"),
    [
        (
            ["--account", "marketing", "--source-url", "postgresql://me:s3cret@db/shop"],
            ["asset_prefix: usms_marketing", "data_dir: data/marketing", "MARKETING_SOURCE_URL"],
            ["s3cret"],
        ),
        (["--source-url", "sent.csv"], ["asset_prefix: usms_sms", 'source_url: "sent.csv"'], []),
        ([], ["SMS_ACCESS_KEY_ID", "SMS_SOURCE_URL", "source_table: public.sms_log"], []),
    ],
)
def test_the_scaffold_fills_in_an_account(tmp_path, options, wanted, unwanted):
    names = [name.removeprefix("--").replace("-", "_") for name in options[::2]]
    params = AccountScaffolder.get_scaffold_params()(**dict(zip(names, options[1::2], strict=True)))
    folder = tmp_path / "sms"
    folder.mkdir()
    name = "usms_pipeline.components.ReceiptPipeline"
    AccountScaffolder().scaffold(dg.ScaffoldRequest(name, folder, "yaml", tmp_path, params))
    text = (folder / "defs.yaml").read_text() + (folder / ".env.example").read_text()
    assert [part for part in wanted if part not in text] == []
    assert [part for part in unwanted if part in text] == []
    attributes = yaml.safe_load((folder / "defs.yaml").read_text())
    validator().validate(attributes["attributes"])
    variables = re.findall(r"env\.(\w+)", (folder / "defs.yaml").read_text())
    assert attributes["requirements"]["env"] == variables
    assert [
        one for one in variables if f"{one}=" not in (folder / ".env.example").read_text()
    ] == []


def test_a_name_in_a_list_may_hold_a_comma():
    dimensions = ["city, state", "template"]
    account = resource(built(dimensions=dimensions))
    assert account.load().dimensions == tuple(dimensions)


def test_an_unknown_or_unusable_attribute_is_refused_in_python_too():
    for attributes in ({"batchsize": 5}, {"asset_prefix": "shop sms"}):
        with pytest.raises(ValueError, match=next(iter(attributes))):
            ReceiptPipeline(**attributes)


@pytest.mark.long
@pytest.mark.parametrize("environment", ["this one", "with only the wheel"])
def test_a_new_project_scaffolds_two_accounts_checks_them_and_runs_green(
    second_project, simulator: MakeRehearsal, tmp_path_factory, environment
):
    """Through `dg`, each command in a process of its own: two accounts at once, one service."""
    bin_folder = Path(sys.executable).parent
    if environment != "this one":
        folder = tmp_path_factory.mktemp("new")
        build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)]
        subprocess.run(build, check=True, capture_output=True)
        [wheel] = folder.glob("*.whl")
        pins = str(ROOT / "requirements.lock")
        bin_folder = environment_with(folder / "venv", "-c", pins, f"{wheel}[dagster-ui]")
    shutil.rmtree(second_project / "shop/defs/sms")
    shutil.rmtree(second_project / "shop/defs/usms")
    rehearsal = simulator(100, outage=None)
    pq.write_table(rehearsal.messages, second_project / "sent.parquet")
    home = second_project / "home"
    home.mkdir()
    given = {
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "VIRTUAL_ENV": str(bin_folder.parent),
        "PYTHONPATH": str(second_project),
        "DAGSTER_HOME": str(home),
        "USMS_BASE_URL": rehearsal.url,
    }
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")

    def dg_says(*arguments: str) -> str:
        return bare([str(bin_folder / "dg"), *arguments], second_project, given)

    kind = "usms_pipeline.components.ReceiptPipeline"
    accounts = ("marketing", "billing")
    for name in accounts:
        source = ["--source-url", str(second_project / "sent.parquet")]
        dg_says("scaffold", "defs", kind, f"sms/{name}", "--account", name, *source)
        given[f"{name.upper()}_ACCESS_KEY_ID"] = ACCESS_KEY_ID
        given[f"{name.upper()}_ACCESS_KEY_SECRET"] = ACCESS_KEY_SECRET
    dg_says("check", "defs", "--use-active-venv")
    day = rehearsal.messages["sent_at"][0].as_py().date()

    def launch(name: str) -> None:
        dg_says("launch", "--job", f"refresh_usms_{name}", "--partition-range", f"{day}...{day}")

    with ThreadPoolExecutor() as pool:
        list(pool.map(launch, accounts))
    for name in accounts:
        assert (second_project / f"data/{name}/usms.duckdb").exists()
        assert [*(second_project / f"data/{name}/receipts").rglob("receipts.parquet")]


def test_dg_finds_the_component_in_the_environment(second_project):
    program = (
        "from dagster.components.core.package_entry import discover_entry_point_package_objects\n"
        "print(*(key.to_typename() for key in discover_entry_point_package_objects()))\n"
    )
    assert "usms_pipeline.components.ReceiptPipeline" in run_python(program, second_project).split()


def run_python(program: str, cwd: Path, **variables: str) -> str:
    """Run a program in a process of its own, with no variable of ours, and return what it says."""
    command = [sys.executable, "-W", "ignore", "-c", program]
    return bare(command, cwd, {"PYTHONPATH": str(cwd)} | variables)
