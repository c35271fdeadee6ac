"""What ``attributes:`` of a ``defs.yaml`` may hold: the settings, and how an account is to run.

A literal is checked when the project loads, by the type that the setting has; a template that reads
the environment is kept as it is, and checked when a run starts.
"""

from __future__ import annotations

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
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from usms_pipeline.settings import Settings

KEYS: Final = ("access_key_id", "access_key_secret", "phone_key")
"""The settings that are nothing but a secret."""

# `dg check` shows a pattern as its reason: so each begins with what it stands for, in words, which
# the types refuse when the project loads
_TEMPLATE: Final = r"\{\{"
_NUMBER: Final = rf"^a number or a template$|{_TEMPLATE}"
_ALL_TEMPLATE: Final = r"^a template$|^\s*\{\{.*\}\}\s*$"
_NO_PASSWORD: Final = (
    r"^(?!.*://[^/@]*:[^{@/][^@]*@)(?!.*[?&][^=&]*(pass(word|wd)?|secret|token|key)=[^{])"
)
_PATTERNS: Final = {**dict.fromkeys(KEYS, _ALL_TEMPLATE), "source_url": _NO_PASSWORD}


class _OrTemplate:
    """Accept a template in place of a literal, also in the JSON schema."""

    def __init__(self, pattern: str | None = None) -> None:
        self._pattern = pattern

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(_literal, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        found = handler.resolve_ref_schema(handler(schema))
        given = [one for one in found.get("anyOf", [found]) if one.get("type") != "null"]
        [own] = [handler.resolve_ref_schema(one) for one in given]
        if self._pattern:
            return {"type": "string", "pattern": self._pattern}
        if own["type"] == "array":
            return {"anyOf": [own, {"type": "string"}]}
        if "enum" in own:
            return {"anyOf": [own, {"type": "string", "pattern": _TEMPLATE}]}
        if own["type"] == "string":
            pattern = own.get("pattern")
            return own | {"pattern": f"{pattern}|{_TEMPLATE}"} if pattern else own
        # not anyOf: then a number beyond its bounds would be told without them
        return own | {"type": [own["type"], "string"], "pattern": _NUMBER}


def is_template(value: Any) -> bool:
    """Return whether a value, or one in a list, has a template."""
    if isinstance(value, list | tuple):
        return any(map(is_template, value))
    return isinstance(value, str) and "{{" in value


def _literal(value: Any, check: Callable[[Any], Any]) -> Any:
    """Check a literal and keep it as written; of a template check only that it parses."""
    if not is_template(value):
        check(value)
        return value
    for text in [value] if isinstance(value, str) else value:
        try:
            Environment(autoescape=True).parse(text)
        except TemplateSyntaxError:
            raise ValueError('is no template: write "{{ env.NAME }}"') from None
    return value


def _cron(value: str) -> str:
    try:
        dg.ScheduleDefinition(name="a", cron_schedule=value, job_name="b")
    except dg.DagsterInvalidDefinitionError:
        raise ValueError("is no cron expression such as */15 * * * *") from None
    return value


def _absent(value: Any) -> Any:
    return None if value == "none" else value


def _or_none(schema: dict[str, Any]) -> None:
    schema["anyOf"].append({"const": "none"})


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Schedule(_Model):
    """When an account is looked at."""

    cron: Annotated[str, AfterValidator(_cron)] = Field(
        default="*/15 * * * *",
        description="When to check, in the account's `timezone`: a cron expression of five fields.",
        json_schema_extra={"pattern": r"^\S+( +\S+){4}$|^@[a-z]+$"},
    )
    status: Literal["running", "stopped"] = Field(
        default="stopped", description="Whether it is on by default."
    )


class Freshness(_Model):
    """How long without a successful check until an account is overdue."""

    warn_hours: float = Field(default=1, gt=0, description="Hours until the warning.")
    fail_hours: float = Field(default=24, gt=0, description="Hours until the error.")

    @model_validator(mode="after")
    def _ascend(self) -> Freshness:
        if self.warn_hours > self.fail_hours:
            raise ValueError("warn_hours must not be greater than fail_hours")
        return self


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
    pool: str | None = Field(
        default=None,
        description="The pool that limits the steps (default: the account's own): with a "
        "limit of 1, one run at a time works on the account.",
    )
    retry: Retry | None = Field(
        default=None,
        description="How to retry if the service or the source is down (default: no retry).",
    )
    processes: int | None = Field(
        default=None,
        ge=1,
        description="How many processes share `max_requests_per_second`: each takes its part (else "
        "as many as the pool lets work at once).",
    )
    max_partitions_per_run: int | None = Field(
        default=None,
        ge=1,
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
    source_asset: str | None = Field(
        default=None,
        description="Key of your project's asset for the source table (default: one is made).",
        pattern=r"^[^/\s]+(/[^/\s]+)*$",
        examples=["shop/sms_log"],
    )
    schedule: Annotated[Schedule | None, BeforeValidator(_absent)] = Field(
        default=Schedule(),
        description="When to check for due messages, or `none`. A run starts only if there are "
        "any.",
        json_schema_extra=_or_none,
    )
    freshness: Annotated[Freshness | None, BeforeValidator(_absent)] = Field(
        default=Freshness(),
        description="How long without a successful check until the account is overdue, or `none`.",
        json_schema_extra=_or_none,
    )
    op: Op = Field(default=Op(), description="How the steps run: tags, pool, retries, backfills.")


def _attribute(name: str) -> tuple[Any, Any]:
    """Return a setting as an attribute: its type, default and description, or a template."""
    field = Settings.model_fields[name]
    example = f"{{{{ env.SHOP_{name.upper()} }}}}" if name in _PATTERNS else (
        field.examples[0] if field.examples else field.default
    )  # fmt: skip
    of: Any = Annotated
    of = of[(field.annotation, *field.metadata, _OrTemplate(_PATTERNS.get(name)))]
    return of, Field(default=field.default, description=field.description, examples=[example])


_translation: Final = Field(
    default=None,
    description="Attributes of every asset, as Dagster's components take them. Templates may "
    "use `name` (such as `receipts`) and `spec`.",
    examples=[{"group_name": "messaging", "tags": {"of": "{{ name }}"}}],
)
_more: Final[dict[str, Any]] = {
    "translation": (str | AssetAttributesModel | None, _translation),
    **{name: _attribute(name) for name in Settings.model_fields},
}
Attributes: Final = create_model("Attributes", __base__=_Attributes, **_more)
"""The settings in lower case, without ``USMS_``, and the account's other attributes."""
