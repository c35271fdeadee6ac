"""The component as other projects use it: YAML in, an account's definitions out."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from tests.processes import bare
from usms_pipeline.components import Attributes, ReceiptPipeline
from usms_pipeline.contract.errors import SettingsError
from usms_pipeline.defs.account import AccountSettings
from usms_pipeline.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")  # backfill_policy

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


def resource(defs: dg.Definitions, name: str = "usms") -> Any:
    return (defs.resources or {})[name]


def test_every_setting_is_an_attribute_and_a_field_of_the_resource():
    assert set(Attributes.model_fields) == {*Settings.model_fields, "asset_prefix", "owners"}
    assert set(AccountSettings.model_fields) == set(Settings.model_fields)


def test_every_attribute_says_what_it_is():
    assert [name for name, field in Attributes.model_fields.items() if not field.description] == []


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
    assert {"refresh", "refresh_shop_sms"} <= set(jobs.split())
    assert set(schedules.split()) == {
        "refresh_every_15_minutes",
        "refresh_shop_sms_every_15_minutes",
    }
    assert set(resources.split()) == {"usms", "shop_sms"}


def test_the_job_makes_the_accounts_assets_whatever_groups_there_are(second_project):
    """A project may give our asset another group, and put an asset of its own into our group."""
    (second_project / "shop/defs/usms/defs.yaml").write_text(REGROUPED)
    (second_project / "shop/defs/own.py").write_text(OF_THE_PROJECT)
    program = (
        "from shop.definitions import defs\n"
        "repository = defs().get_repository_def()\n"
        "for spec in defs().resolve_all_asset_specs():\n"
        "    print(spec.key.path[-1], spec.group_name)\n"
        "layer = repository.get_job('refresh').asset_layer\n"
        "print(*(key.path[-1] for key in layer.selected_asset_keys))\n"
        "print(*(key.name for key in layer.asset_graph.asset_check_keys))\n"
    )
    *grouped, made, checked = run_python(program, second_project).splitlines()
    assert {"receipts facts", "warehouse usms", "own usms"} <= set(grouped)
    assert set(made.split()) == MADE
    assert {"conservation", "polling_behind", "out_of_line"} <= set(checked.split())


def test_yaml_gives_the_settings_of_a_run(monkeypatch):
    attributes = yaml.safe_load(SECOND_ACCOUNT)["attributes"]
    component = ReceiptPipeline.from_attributes_dict(attributes=attributes)
    account = resource(component.build_defs(), "shop_sms")
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


def test_a_variable_named_in_the_yaml_and_not_set_is_missed_not_replaced(monkeypatch):
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
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=rf"{name}.*env\.NAME") as caught:
        ReceiptPipeline(**{name: value})
    assert value not in str(caught.value)


def test_a_name_in_a_list_may_hold_a_comma():
    dimensions = ["city, state", "template"]
    account = resource(built(dimensions=dimensions))
    assert account.load().dimensions == tuple(dimensions)


@pytest.mark.parametrize(
    "attributes", [{"batchsize": 5}, {"asset_prefix": "shop sms"}, {"owners": "me"}]
)
def test_an_unknown_or_unusable_attribute_is_refused(attributes):
    with pytest.raises(ValueError, match=next(iter(attributes))):
        ReceiptPipeline(**attributes)


def test_dg_finds_the_component_in_the_environment(second_project):
    program = (
        "from dagster.components.core.package_entry import discover_entry_point_package_objects\n"
        "print(*(key.to_typename() for key in discover_entry_point_package_objects()))\n"
    )
    assert "usms_pipeline.components.ReceiptPipeline" in run_python(program, second_project).split()


def run_python(program: str, cwd: Path) -> str:
    """Run a program in a process of its own, with no variable of ours, and return what it says."""
    command = [sys.executable, "-W", "ignore", "-c", program]
    return bare(command, cwd, {"PYTHONPATH": str(cwd)})
