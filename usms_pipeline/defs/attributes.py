"""What ``attributes:`` of a ``defs.yaml`` may hold: the settings, and how an account is to run.

A literal is checked when the project loads, by the type that the setting has; a template that reads
the environment is kept as it is, and checked when a run starts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal
from zoneinfo import available_timezones

import dagster as dg
from dagster.components.resolved.core_models import AssetAttributesModel
from jinja2 import Environment, TemplateSyntaxError
from phonenumbers import SUPPORTED_REGIONS
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

from usms_pipeline.settings import Settings

KEYS: Final = ("access_key_id", "access_key_secret", "phone_key")
"""The settings that are nothing but a secret."""

# `dg check` shows a pattern as the reason, and for an anyOf no reason. So an `if` has the form of a
# text, and its `then` has it in words, which the types refuse when a project loads.
_TEMPLATE: Final = {"pattern": r"\{\{.*\}\}"}
_NONE: Final = {"type": "string", "pattern": "^none$"}
_PLAIN: Final = r"^(?!\s*['\"“‘`])(?!.*\{\{(?!.*\}\}))"  # no quotes, and every template closed
_FORMS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    **dict.fromkeys(KEYS, ("a template", {"pattern": r"^\s*\{\{.*\}\}\s*$"})),
    "source_url": (
        "an address without a password in clear, and without quotes",
        {"pattern": rf"{_PLAIN}(?!.*://[^/@]*:[^{{@/][^@]*@)"
         r"(?!.*[?&][^=&]*(pass(word|wd)?|secret|token|key)=[^{])"},
    ),
    "base_url": (
        "https://host, or http on loopback",
        {"pattern": r"^https?://([A-Za-z0-9._-]+|\[[0-9a-f:]+\])(:[0-9]+)?(/[!-\[\]-~]*)?$"},
    ),
    "start_date": (
        "YYYY-MM-DD, a day from 1970 to 2199",
        {"pattern": "^(19[7-9]|2[01][0-9])([0-9]-(?!02-(29|3)|(0[469]|11)-31)|"
         "(?<=[02468])[048]-02-29|(?<=[13579])[26]-02-29)"},
    ),
    "data_dir": (
        "a path, or s3://bucket/folder",
        {"pattern": rf"{_PLAIN}(?!.*://).|"
         r"^s3://[A-Za-z0-9][A-Za-z0-9._-]{1,254}(/(?!\.{1,2}(/|$))[^/@?]+)*/*$"},
    ),
    "warehouse": ("the path of a local file", {"pattern": rf"{_PLAIN}(?!.*://)."}),
    "poll_minutes": (
        "ages above 0, such as 5,60",
        {"pattern": r"^(\s*(?=[0-9.]*[1-9])[0-9]*\.?[0-9]*\s*(,|$))*$"},
    ),
    "dimensions": (
        "names, none of them twice",
        {"pattern": r"^(?!(.*,)?\s*([^,]*[^,\s])\s*,(.*,)?\s*\2\s*(,|$))"},
    ),
}  # fmt: skip
"""What a text may be, in words, and what its setting's own schema does not check."""
_OF_LISTS: Final[dict[str, dict[str, Any]]] = {
    "poll_minutes": {"items": {"type": "number", "exclusiveMinimum": 0}},
    "dimensions": {"uniqueItems": True},
}


def _form(words: str, *allowed: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a text that is of an ``allowed`` form; an error shows the words."""
    return {"if": {"not": {"anyOf": [*allowed]}}, "then": {"pattern": f"^{words}$"}}


class _Flat:
    """Put one JSON schema in place of an ``anyOf``: its parts are of one type each."""

    def __init__(self, *more: dict[str, Any]) -> None:
        self._more = more

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        found = handler(schema)
        parts = [*map(handler.resolve_ref_schema, found.get("anyOf", [found])), *self._more]
        flat = {key: value for part in parts for key, value in part.items()}
        return flat | {"type": [part["type"] for part in parts]}


class _OrTemplate:
    """Accept a template in place of a literal, also in the JSON schema."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(_literal, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        found = handler.resolve_ref_schema(handler(schema))
        given = [one for one in found.get("anyOf", [found]) if one.get("type") != "null"]
        [own] = [dict(handler.resolve_ref_schema(one)) for one in given]
        words, form = _FORMS.get(self._name, ("text or a template", {"pattern": r"^(?!.*\{\{)"}))
        if self._name in (*KEYS, "source_url"):
            return {"type": "string", **_form(words, form)}
        if self._name.endswith("timezone"):
            words, form = "a time zone as Asia/Shanghai", {"enum": sorted(available_timezones())}
        elif self._name == "default_region":
            codes = [*SUPPORTED_REGIONS, *map(str.lower, SUPPORTED_REGIONS)]
            words, form = "a country in two letters", {"enum": sorted(codes)}
        elif "enum" in own:
            words, form = " or ".join(own["enum"]), {"enum": own.pop("enum")}
        elif own["type"] in ("integer", "number"):
            words, form = "a number or a template", {"type": own["type"]}
        if pattern := own.pop("pattern", None):
            form = {"allOf": [form, {"pattern": pattern}]}
        if own["type"] == "array":
            own |= _OF_LISTS[self._name]
            form = {"anyOf": [form, {"type": "array"}]}
        types = own["type"] if own["type"] == "string" else [own["type"], "string"]
        return own | {"type": types, **_form(words, form, _TEMPLATE)}


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


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_TIMES: Final = (
    "[0-5]?[0-9]", "[01]?[0-9]|2[0-3]", "0?[1-9]|[12][0-9]|3[01]|[Ll]",
    "0?[1-9]|1[0-2]|[A-Za-z]{3}", "[0-7]|[A-Za-z]{3}",
)  # fmt: skip
_PARTS: Final = [rf"(\*|({one})(-({one}))?)(/[0-9]+)?" for one in _TIMES]
_CRON: Final = rf"^@[a-z]+$|^{' +'.join(f'{one}(,{one})*' for one in _PARTS)}$"


class Schedule(_Model):
    """When an account is looked at."""

    cron: Annotated[str, AfterValidator(_cron)] = Field(
        default="*/15 * * * *",
        description="When to check, in the account's `timezone`: a cron expression of five fields.",
        json_schema_extra=_form(r"five fields such as \*/15 8-18 \* \* 1-5", {"pattern": _CRON}),
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
    example = f"{{{{ env.SHOP_{name.upper()} }}}}" if name in (*KEYS, "source_url") else (
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
