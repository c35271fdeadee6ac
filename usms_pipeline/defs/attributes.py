"""What ``attributes:`` of a ``defs.yaml`` may hold: the settings, and how an account is to run.

A literal is checked when the project loads, by the type that the setting has; a template that reads
the environment is kept as it is, and checked when a run starts.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

import dagster as dg
from dagster.components.resolved.core_models import AssetAttributesModel
from jinja2 import Environment, TemplateSyntaxError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    create_model,
)
from pydantic_core import CoreSchema, core_schema

from usms_pipeline.contract import source_address
from usms_pipeline.settings import Settings

KEYS: Final = ("access_key_id", "access_key_secret", "phone_key")
"""The settings that are nothing but a secret."""
SECRET: Final = (*KEYS, "source_url")
"""The settings that may hold one."""

_NONE: Final = {"type": "string", "pattern": "^none$"}


class _Flat:
    """Put one JSON schema in place of an ``anyOf``, of which ``dg`` shows no reason."""

    def __init__(self, *more: dict[str, Any]) -> None:
        self._more = more

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        found = handler.resolve_ref_schema(handler(schema))
        parts = [*map(handler.resolve_ref_schema, found.get("anyOf", [found])), *self._more]
        flat = {key: value for part in parts for key, value in part.items()}
        types = list(dict.fromkeys(part["type"] for part in parts))
        return flat | {"type": types if types[1:] else types[0]}


class _OrTemplate(_Flat):
    """Accept a template in place of a literal. Its schema has types, bounds and words.

    Which text is a time zone, say, is checked as the component loads, not by a schema: ``dg`` would
    show a pattern as the reason, and a secret with its line.
    """

    def __init__(self, name: str) -> None:
        super().__init__({"type": "string"})
        self._name = name

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(self._literal, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        flat = super().__get_pydantic_json_schema__(schema, handler)
        if words := flat.pop("enum", None):
            flat["pattern"] = rf"^({'|'.join(words)})$|\{{\{{"
        return flat

    def _literal(self, value: Any, check: Callable[[Any], Any]) -> Any:
        """Check a literal and keep it as written; of a template check only that it parses."""
        if self._name in SECRET and isinstance(value, str):
            _refuse_in_clear(self._name, value)
        texts = value if isinstance(value, list | tuple) else [value]
        templates = [text for text in texts if isinstance(text, str) and "{{" in text]
        for text in templates:
            try:
                Environment(autoescape=True).parse(text)
            except TemplateSyntaxError:
                raise ValueError('is no template: write "{{ env.NAME }}"') from None
        if not templates:
            check(value)
        return value


def _refuse_in_clear(name: str, text: str) -> None:
    """Refuse a secret in plain text: it would be in the repository and on Dagster's page."""
    clear = re.sub(r"\{\{.*?\}\}", "", text)
    if clear.strip() if name in KEYS else set(source_address.secrets(clear)) - {clear}:
        raise ValueError(
            "a secret must not be written here. Put it in the environment or .env and write "
            '"{{ env.NAME }}", two braces on both sides.'
        )


def _cron(value: str) -> str:
    try:
        dg.ScheduleDefinition(name="a", cron_schedule=value, job_name="b")
    except dg.DagsterInvalidDefinitionError:
        raise ValueError("is no cron expression such as */15 * * * *") from None
    return value


def _absent(value: Any) -> Any:
    return None if value == "none" else value


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Schedule(_Model):
    """When an account is looked at."""

    cron: Annotated[str, AfterValidator(_cron)] = Field(
        default="*/15 * * * *",
        description="When to check, in the account's `timezone`: a cron expression of five fields.",
    )
    status: Literal["running", "stopped"] = Field(
        default="stopped", description="Whether it is on by default."
    )


class Freshness(_Model):
    """How long without a successful check until an account is overdue."""

    warn_hours: float = Field(default=1, gt=0, description="Hours until the warning.")
    fail_hours: float = Field(default=24, gt=0, description="Hours until the error.")


class Retry(_Model):
    """How a step is retried while the service or the source is down; never for other errors."""

    max_retries: int = Field(..., ge=1, description="How often, at most.")
    delay_seconds: float = Field(default=60, ge=0, description="The pause before the first one.")
    backoff: Literal["linear", "exponential"] = Field(
        default="exponential", description="How the pause grows from one to the next."
    )

    def policy(self) -> dg.RetryPolicy:
        """Return it as Dagster takes it."""
        return dg.RetryPolicy(
            self.max_retries, self.delay_seconds, dg.Backoff[self.backoff.upper()]
        )


class Op(_Model):
    """How the steps run."""

    tags: dict[str, str] = Field(
        default_factory=dict, description="Tags of the steps, such as `dagster-k8s/config`."
    )
    pool: Annotated[str | None, _Flat()] = Field(
        default=None,
        description="The pool that limits the steps (default: the account's own): with a "
        "limit of 1, one run at a time works on the account.",
    )
    retry: Annotated[Retry | None, _Flat()] = Field(
        default=None,
        description="How to retry if the service or the source is down (default: no retry).",
    )
    processes: Annotated[int | None, Field(ge=1), _Flat()] = Field(
        default=None,
        description="How many processes share `max_requests_per_second`: each takes its part (else "
        "as many as the pool lets work at once).",
    )
    max_partitions_per_run: Annotated[int | None, Field(ge=1), _Flat()] = Field(
        default=None,
        description="Most days per run of a backfill (default: all in one run).",
    )


class _Attributes(_Model):
    asset_prefix: str = Field(
        default="usms",
        description="First part of every asset key, `/` between parts; give each account its own.",
        pattern=r"^[A-Za-z0-9_]+(/[A-Za-z0-9_]+)*$",
        examples=["shop/usms"],
    )
    owners: list[Annotated[str, Field(pattern=r"^team:\S+$|^[^@\s]+@[^@\s]+\.[^@\s]+$")]] = Field(
        default_factory=list,
        description="Owners of the assets: e-mail addresses or `team:name`.",
        examples=[["team:messaging"]],
    )
    source_asset: Annotated[str | None, Field(pattern=r"^[^/\s]+(/[^/\s]+)*$"), _Flat()] = Field(
        default=None,
        description="Key of your project's asset for the source table (default: one is made).",
        examples=["shop/sms_log"],
    )
    schedule: Annotated[Schedule | None, BeforeValidator(_absent), _Flat(_NONE)] = Field(
        default=Schedule(),
        description="When to check for due messages, or `none`. A run starts only if there are "
        "any.",
    )
    freshness: Annotated[Freshness | None, BeforeValidator(_absent), _Flat(_NONE)] = Field(
        default=Freshness(),
        description="How long without a successful check until the account is overdue, or `none`.",
    )
    op: Op = Field(default=Op(), description="How the steps run: tags, pool, retries, backfills.")


def _attribute(name: str) -> tuple[Any, Any]:
    """Return a setting as an attribute: its type, default and description, or a template."""
    field = Settings.model_fields[name]
    example = f"{{{{ env.SHOP_{name.upper()} }}}}" if name in SECRET else (
        field.examples[0] if field.examples else field.default
    )  # fmt: skip
    of: Any = Annotated
    of = of[(field.annotation, *field.metadata, _OrTemplate(name))]
    return of, Field(default=field.default, description=field.description, examples=[example])


_translation: Final = Field(
    default=None,
    description="Attributes of every asset, as Dagster's components take them. Templates may "
    "use `name` (such as `receipts`) and `spec`.",
    examples=[{"group_name": "messaging", "tags": {"of": "{{ name }}"}}],
)
_more: Final[dict[str, Any]] = {
    "translation": (Annotated[str | AssetAttributesModel | None, _Flat()], _translation),
    **{name: _attribute(name) for name in Settings.model_fields},
}
Attributes: Final = create_model("Attributes", __base__=_Attributes, **_more)
"""The settings in lower case, without ``USMS_``, and the account's other attributes."""


class Unchecked(BaseModel):
    """The attributes as a ``defs.yaml`` has them, for ``dg`` with the schema of ``Attributes``.

    The component checks them itself as it loads, and so can show the line of an error.
    """

    model_config = ConfigDict(extra="allow")

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the schema of ``Attributes``."""
        return Attributes.model_json_schema(*args, **kwargs)
