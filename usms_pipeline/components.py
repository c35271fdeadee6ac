"""The Dagster component: one account in YAML, in this project or in any other.

It says what is built of the attributes; the parts are in ``defs``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
from dagster.components.utils import TranslatorResolvingInfo
from pydantic import BaseModel, ValidationError

from usms_pipeline import settings as core_settings
from usms_pipeline.contract.errors import SettingsError
from usms_pipeline.defs.account import Account, AccountResource, resolve
from usms_pipeline.defs.attributes import SECRET, Attributes, Unchecked
from usms_pipeline.defs.scaffold import AccountScaffolder
from usms_pipeline.settings import Settings

if TYPE_CHECKING:
    from dagster_shared.yaml_utils.source_position import SourcePositionTree

    from usms_pipeline.defs.assets import Step, Translate

_BEFORE_A_RUN: Final = (
    "start_date", "timezone", "dimensions", "data_dir", "warehouse",
    "session_column", "sent_at_column", "phone_column", "recipients_column",
)  # fmt: skip


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
        translation: Translate | None = None,
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

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """Return the schema of the attributes."""
        return Unchecked

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
        """Make the component from YAML. Templates that read the environment wait for a run."""
        with _shown_at(context.resolution_context.source_position_tree):
            checked = Attributes.model_validate(attributes.model_extra if attributes else {})
            given = {name: getattr(checked, name) for name in checked.model_fields_set}
            translation = given.pop("translation", None)
            if translation is not None:
                info = TranslatorResolvingInfo(
                    translation, context.resolution_context, "translation"
                )
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
        before = [name for name in _BEFORE_A_RUN if name in self.given]
        try:
            settings, _ = core_settings.known({name: resolve(self.given[name]) for name in before})
        except SettingsError:  # the .env itself
            settings = None
        known = settings or Settings.model_construct()
        days = dg.DailyPartitionsDefinition(
            known.start_date.isoformat(), timezone=known.timezone, end_offset=1
        )
        return Account(days, self.prefix, self.owners, known, self.given, self.op)

    @property
    def data_dir(self) -> str:
        """Return where the account's data is, as far as is known before a run."""
        place = self.account().known.data_dir
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
        resource = AccountResource(given=self.given)
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
        raise _refusal(
            f"The accounts {'/'.join(one.prefix)} and {'/'.join(other.prefix)} share {shared}: "
            f"give each its own {remedy} in its defs.yaml."
        )


def _refusal(told: str) -> BaseException:
    """Return the error for definitions that can't load: ``dg check defs`` shows it and no stack."""
    is_check = os.environ.get("DAGSTER_IS_DEFS_VALIDATION_CLI")
    return SystemExit(told) if is_check else dg.DagsterInvalidDefinitionError(told)


@contextmanager
def _shown_at(tree: SourcePositionTree | None) -> Iterator[None]:
    """Show errors in attributes at their lines, as ``dg check defs`` does of one file a type."""
    try:
        yield
    except ValidationError as error:
        if tree is None:
            raise
        found = [(tree, ("attributes", *one["loc"]), one["msg"]) for one in error.errors()]
        told = "\n".join(text for _, text in sorted(_at_its_line(*one) for one in found))
        raise _refusal(told) from None


def _at_its_line(
    tree: SourcePositionTree, path: tuple[int | str, ...], reason: str
) -> tuple[int, str]:
    """Return where an error is, and its text: the file, the line, and a caret below it."""
    (name, (row, column), _), _ = tree.lookup_closest_and_path(path, None)
    line = Path(name).read_text("utf-8").splitlines()[row - 1]
    if path[1] in SECRET:
        line = f"{line.partition(':')[0]}: …"
    caret = f"{' ' * (column - 1)}^ {reason.removeprefix('Value error, ')}"
    where = ".".join(map(str, path))
    return row, f"{name}:{row} - {where}\n     |\n{row:>4} | {line}\n     | {caret}\n"


def _late(value: Any) -> Any:
    """Return ``dg.EnvVar("NAME")`` as the template that means the same."""
    return f"{{{{ env.{value.env_var_name} }}}}" if isinstance(value, dg.EnvVar) else value


def _early(value: Any, context: dg.ResolutionContext) -> Any:
    """Resolve every template except those that read the environment: these wait for the run."""
    if not isinstance(value, str | list) or re.search(r"\benv\b", str(value)):
        return value
    return context.resolve_value(value)
