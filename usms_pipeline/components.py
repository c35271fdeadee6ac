"""The Dagster component: one account in YAML, in this project or in any other.

It says what is built of the attributes; the parts are in ``defs``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
from dagster.components.utils import TranslatorResolvingInfo
from pydantic import BaseModel

from usms_pipeline import settings as core_settings
from usms_pipeline.contract import source_address
from usms_pipeline.contract.errors import SettingsError
from usms_pipeline.defs.account import Account, AccountSettings, resolve
from usms_pipeline.defs.attributes import KEYS, Attributes
from usms_pipeline.defs.scaffold import AccountScaffolder
from usms_pipeline.settings import Settings

if TYPE_CHECKING:
    from usms_pipeline.defs.assets import Step

_TEMPLATE: Final = re.compile(r"\{\{.*?\}\}")
_BEFORE_A_RUN: Final = (
    "start_date", "timezone", "dimensions", "warehouse",
    "session_column", "sent_at_column", "phone_column", "recipients_column",
)  # fmt: skip

Translation = Callable[[dg.AssetSpec], dg.AssetSpec]


@dg.scaffold_with(AccountScaffolder)
class ReceiptPipeline(dg.Component):
    """Delivery receipts of one USMS account: assets, checks, a job and its schedule.

    Attributes are the settings in lower case without ``USMS_``; one that is not given is read
    from the environment when a run starts. Secrets are given as ``"{{ env.NAME }}"``. Two
    accounts in one project need an ``asset_prefix`` and a ``data_dir`` each.

    A subclass may override ``get_asset_spec`` and ``execute``.
    """

    def __init__(
        self,
        asset_prefix: str = "usms",
        owners: Sequence[str] = (),
        translation: Translation | None = None,
        **given: Any,
    ) -> None:
        given = {name: _late(value) for name, value in given.items() if value is not None}
        checked = Attributes.model_validate(
            {"asset_prefix": asset_prefix, "owners": list(owners), **given}
        )
        self.prefix = tuple(asset_prefix.split("/"))
        self.owners = tuple(owners)
        self.translation = translation
        self.schedule, self.freshness = checked.schedule, checked.freshness
        self.op, self.source_asset = checked.op, checked.source_asset
        self.given = {
            name: core_settings.as_text(value)
            for name, value in given.items()
            if name in Settings.model_fields
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
        )

    @classmethod
    def load(
        cls, attributes: BaseModel | None, context: dg.ComponentLoadContext
    ) -> ReceiptPipeline:
        """Make the component from YAML. Templates that read the environment are filled in when a "
        "run starts."""
        names = attributes.model_fields_set if attributes else set()
        given = {name: getattr(attributes, name) for name in names}
        tree = context.resolution_context.source_position_tree
        _refuse_secrets(
            {name: given[name] for name in given if isinstance(given[name], str)},
            lambda name: f"{tree.lookup(['attributes', name])}: " if tree else "",
        )
        translation = given.pop("translation", None)
        if translation is not None:
            info = TranslatorResolvingInfo(translation, context.resolution_context, "translation")
            given["translation"] = lambda spec: info.get_asset_spec(
                spec, {"spec": spec, "name": spec.key.path[-1]}
            )
        at = context.resolution_context.at_path("attributes")
        return cls(**{name: _early(value, at.at_path(name)) for name, value in given.items()})

    def get_asset_spec(self, spec: dg.AssetSpec) -> dg.AssetSpec:
        """Return an asset's spec with the account's ``translation`` applied.

        ``spec`` is ours; the last part of its key is ``source_table``, ``responses``, ``receipts``,
        ``warehouse`` or ``delivery_rates``. The key may be changed, the partitions may not.
        """
        return self.translation(spec) if self.translation else spec

    def execute(
        self, context: dg.AssetExecutionContext, step: Step
    ) -> Iterator[dg.MaterializeResult[Any]]:
        """Run one step, and yield what it made. ``step.name`` is its name."""
        yield from step.run(context)

    def account(self) -> Account:
        """Return the settings as far as they are known before a run, else their defaults."""
        read = self._known(*_BEFORE_A_RUN)
        days = dg.DailyPartitionsDefinition(
            read.start_date.isoformat(), timezone=read.timezone, end_offset=1
        )
        return Account(days, self.prefix, self.owners, read, self.given, self.op)

    def _known(self, *names: str) -> Settings:
        """Return the settings that can be checked before a run."""
        given = {name: resolve(self.given[name]) for name in names if name in self.given}
        try:
            settings, _ = core_settings.known(given)
        except SettingsError:  # the .env itself
            settings = None
        return settings or Settings.model_construct()

    @property
    def data_dir(self) -> str:
        """Return where the account's data is, as far as is known before a run."""
        place = self._known("data_dir").data_dir
        return place if "://" in place else str(Path(place).absolute())

    def build_defs(self, context: dg.ComponentLoadContext | None = None) -> dg.Definitions:
        """Build the account's assets with their checks, job, schedule and resource."""
        from usms_pipeline.defs.assets import build_assets
        from usms_pipeline.defs.refresh import build_job, build_schedule
        from usms_pipeline.defs.watch import build_watch

        if context is not None:
            _refuse_to_share(context.component_tree.get_all_components(of_type=ReceiptPipeline))
        account, assets = build_assets(
            self.account(), self.get_asset_spec, self.execute, self.source_asset
        )
        resource = AccountSettings(**self.given)
        job = build_job(account)
        schedules = [build_schedule(account, job, resource, self.schedule)] if self.schedule else []
        return dg.Definitions(
            assets=assets,
            jobs=[job],
            schedules=schedules,
            sensors=[build_watch(account, resource, self.freshness)],
            resources={account.resource: resource},
        )


def _refuse_to_share(components: Iterable[ReceiptPipeline]) -> None:
    """Refuse two accounts with the same name or data directory: each would count as both."""
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


def _early(value: Any, context: dg.ResolutionContext) -> Any:
    """Resolve every template except those that read the environment: these wait for the run."""
    if not isinstance(value, str | list) or re.search(r"\benv\b", str(value)):
        return value
    return context.resolve_value(value)


def _refuse_secrets(
    given: Mapping[str, str], where: Callable[[str], str] = lambda name: ""
) -> None:
    """Refuse a secret in plain text: it would be in the repository and on Dagster's page."""
    url = _TEMPLATE.sub("", given.get("source_url", ""))
    clear = [name for name in KEYS if _TEMPLATE.sub("", given.get(name, "")).strip()]
    clear += ["source_url"] if set(source_address.secrets(url)) - {url} else []
    if clear:
        raise dg.DagsterInvalidDefinitionError(
            f"{where(clear[0])}{', '.join(clear)}: a secret must not be written here. Put it in "
            'the environment or .env and write "{{ env.NAME }}", two braces on both sides.'
        )
