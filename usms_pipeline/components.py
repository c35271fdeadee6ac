"""The Dagster component: one account in YAML, in this project or in any other.

It says what may be given and what is built from it; the parts are in ``defs``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import dagster as dg
from pydantic import BaseModel, ConfigDict, Field, create_model

from usms_pipeline import settings as core_settings
from usms_pipeline.contract import source_address
from usms_pipeline.contract.errors import SettingsError
from usms_pipeline.defs.account import Account, AccountSettings, resolve
from usms_pipeline.settings import Settings

_TEMPLATE: Final = re.compile(r"\{\{.*?\}\}")
_KEYS: Final = ("access_key_id", "access_key_secret", "phone_key")
_BEFORE_A_RUN: Final = ("start_date", "timezone", "dimensions")

_Value = str | int | float | date | list[str] | list[float] | None


class _Attributes(BaseModel):
    model_config = ConfigDict(extra="forbid")

    asset_prefix: str = Field(
        "usms",
        description="In front of every asset key, `/` between parts; give each account its own.",
        pattern=r"^[A-Za-z0-9_]+(/[A-Za-z0-9_]+)*$",
        examples=["shop/usms"],
    )
    owners: list[str] = Field(
        default_factory=list,
        description="Owners of the assets: e-mail addresses or `team:name`.",
        examples=[["team:messaging"]],
    )


def _attribute(name: str) -> tuple[Any, Any]:
    field = Settings.model_fields[name]
    example = f"{{{{ env.SHOP_{name.upper()} }}}}" if name in _KEYS else core_settings.example(name)
    return _Value, Field(None, description=field.description, examples=[example])


_settings: Final[dict[str, Any]] = {name: _attribute(name) for name in Settings.model_fields}
Attributes: Final = create_model("Attributes", __base__=_Attributes, **_settings)
"""What ``attributes:`` of a ``defs.yaml`` may hold: the settings in lower case, and two more."""


class ReceiptPipeline(dg.Component):
    """Delivery receipts of one USMS account: assets, checks, a job and its schedule.

    Attributes are the settings in lower case without ``USMS_``; one that is not given is read
    from the environment when a run starts. Secrets are given as ``"{{ env.NAME }}"``. Two
    accounts in one project need an ``asset_prefix`` and a ``data_dir`` each.
    """

    def __init__(
        self, asset_prefix: str = "usms", owners: Sequence[str] = (), **given: Any
    ) -> None:
        late = {name: _late(value) for name, value in given.items()}
        attributes = Attributes.model_validate(
            {"asset_prefix": asset_prefix, "owners": owners, **late}
        )
        values = attributes.model_dump(exclude_unset=True, exclude={"asset_prefix", "owners"})
        self.prefix = tuple(asset_prefix.split("/"))
        self.owners = tuple(owners)
        self.given = {
            name: core_settings.as_text(tuple(value) if isinstance(value, list) else value)
            for name, value in values.items()
            if value is not None
        }
        _refuse_secrets(self.given)

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """Return the schema of the attributes."""
        return Attributes

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """Return what the component is for, on Dagster's page and in ``dg list components``."""
        return dg.ComponentTypeSpec(
            description="SMS delivery receipts of one USMS account, as a daily partitioned dataset",
            tags=["sms", "duckdb", "parquet"],
            produces=["asset", "asset_check", "job", "schedule", "resource"],
        )

    @classmethod
    def load(
        cls, attributes: BaseModel | None, context: dg.ComponentLoadContext
    ) -> ReceiptPipeline:
        """Make the component from YAML. Templates that read the environment stay as they are."""
        given = attributes.model_dump(exclude_unset=True) if attributes else {}
        return cls(**{name: _early(value, context) for name, value in given.items()})

    def account(self) -> Account:
        """Return what is known before a run; defaults for what can't be used yet."""
        read = self._known(*_BEFORE_A_RUN)
        days = dg.DailyPartitionsDefinition(
            read.start_date.isoformat(), timezone=read.timezone, end_offset=1
        )
        return Account(days, self.prefix, read.dimensions, self.owners)

    def _known(self, *names: str) -> Settings:
        """Return settings in which these are right as far as they can be used before a run."""
        given = {name: resolve(self.given[name]) for name in names if name in self.given}
        try:
            return core_settings.load(**given)
        except SettingsError as error:
            wrong = {problem.variable for problem in error.problems}
        fields = Settings.model_fields.items()
        defaults = {name: f.default for name, f in fields if core_settings.variable(name) in wrong}
        try:
            return core_settings.load(**(given | defaults))
        except SettingsError:  # the .env itself
            return Settings.model_construct()

    @property
    def data_dir(self) -> str:
        """Return where the account's data is, as far as is known before a run."""
        place = self._known("data_dir").data_dir
        return place if "://" in place else str(Path(place).absolute())

    def build_defs(self, context: dg.ComponentLoadContext | None = None) -> dg.Definitions:
        """Build the account's assets with their checks, job, schedule and resource."""
        from usms_pipeline.defs.assets import build_assets
        from usms_pipeline.defs.refresh import build_job, build_schedule

        if context is not None:
            _refuse_to_share(context.component_tree.get_all_components(of_type=ReceiptPipeline))
        account = self.account()
        resource = AccountSettings(**self.given)
        job = build_job(account)
        return dg.Definitions(
            assets=build_assets(account),
            jobs=[job],
            schedules=[build_schedule(account, job, resource)],
            resources={account.resource: resource},
        )


def _refuse_to_share(components: Iterable[ReceiptPipeline]) -> None:
    """Refuse two accounts with one name, or with one data directory: each would count as both."""
    for one, other in combinations(components, 2):
        if one.account().name == other.account().name:
            shared, remedy = f"the name {one.account().name}", "asset_prefix"
        elif one.data_dir == other.data_dir:
            shared, remedy = f"the data directory {one.data_dir}", "data_dir"
        else:
            continue
        raise dg.DagsterInvalidDefinitionError(
            f"The accounts {'/'.join(one.prefix)} and {'/'.join(other.prefix)} share {shared}: "
            f"give each its own {remedy} in its defs.yaml."
        )


def _late(value: Any) -> Any:
    """Return ``dg.EnvVar("NAME")`` as the template that means the same."""
    return f"{{{{ env.{value.env_var_name} }}}}" if isinstance(value, dg.EnvVar) else value


def _early(value: Any, context: dg.ComponentLoadContext) -> Any:
    """Fill in every template but those that read the environment: they wait for the run."""
    if isinstance(value, str) and re.search(r"\benv\b", value):
        return value
    return context.resolution_context.resolve_value(value)


def _refuse_secrets(given: Mapping[str, str]) -> None:
    """Refuse a secret in clear: it would be in the repository and on Dagster's page."""
    url = _TEMPLATE.sub("", given.get("source_url", ""))
    clear = [name for name in _KEYS if _TEMPLATE.sub("", given.get(name, "")).strip()]
    clear += ["source_url"] if set(source_address.secrets(url)) - {url} else []
    if clear:
        raise dg.DagsterInvalidDefinitionError(
            f"{', '.join(clear)}: a secret must not be written here. Put it in the environment "
            'or .env and write "{{ env.NAME }}".'
        )
