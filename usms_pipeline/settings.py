"""The one settings object: read from arguments, the environment and .env, checked all at once.

Nothing is read at import. Every other module takes a ``Settings``; none reads the environment.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import date, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from dotenv import dotenv_values
from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from usms_pipeline.contract import polling
from usms_pipeline.contract.errors import SettingProblem, SettingsError
from usms_pipeline.contract.setting_types import (
    Ages,
    Day,
    LocalFile,
    Names,
    OptionalNumber,
    OptionalOrder,
    OptionalText,
    Region,
    Secret,
    SecretKey,
    StoragePlace,
    WebAddress,
    Zone,
)  # fmt: skip
from usms_pipeline.contract.setting_types import (
    is_loopback as is_loopback,
)
from usms_pipeline.service import api

PREFIX: Final = "USMS_"

Need = Literal["source", "api"]
_NEEDED: Final[dict[Need, tuple[str, ...]]] = {
    "source": ("source_url", "source_table"),
    "api": ("access_key_id", "access_key_secret"),
}
_SECRETS: Final = ("access_key_id", "access_key_secret", "source_url", "phone_key")
_COPIED: Final = "is still that of .env.example: put your own there"
COSTS: Final = ("segments_column", "cost_column", "currency_column")
"""Settings that name a column to carry along beside ``dimensions``."""

_MOST_POLLS: Final = 1000
_NOT_SETTINGS: Final = ("USMS_DEBUG",)


class _EnvFile(DotEnvSettingsSource):
    """Reads the .env. In secrets ``${x}`` is not replaced: it may be part of a password.

    It is replaced in ``USMS_SOURCE_URL`` if there is a variable ``x``; in other settings always.
    """

    def __call__(self) -> dict[str, Any]:
        found = super().__call__()
        if self.env_file is not None and any(name in found for name in _SECRETS):
            written = {name.lower(): value for name, value in _env_file().items()}
            for name in _SECRETS:
                text = written.get(variable(name).lower()) or ""
                is_filled = name == "source_url" and _NAMED.search(text) and not _unknown(text)
                if name in found and not is_filled:
                    found[name] = text
        return found


_NAMED: Final = re.compile(r"\$\{([^}:]*)(:-[^}]*)?\}")


def _unknown(text: str) -> bool:
    """Return whether a text names a variable that is nowhere, and has no default."""
    known = {*os.environ, *_env_file()}
    return any(name not in known and not default for name, default in _NAMED.findall(text))


class Settings(BaseSettings):
    """All settings, with their defaults. ``USMS_BATCH_SIZE=50`` sets ``batch_size``, and so on.

    Build it with ``load``, which reports every problem at once as a ``SettingsError``.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_ignore_empty=True,
        str_strip_whitespace=True,
        allow_inf_nan=False,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    @classmethod
    def settings_customise_sources(  # type: ignore[override]
        cls, settings_cls: type[BaseSettings], **of: PydanticBaseSettingsSource
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the .env as ``_EnvFile`` does."""
        env_file = _EnvFile(settings_cls, getattr(of["dotenv_settings"], "env_file", None))
        return of["init_settings"], of["env_settings"], env_file

    base_url: WebAddress = Field(
        api.BASE_URL, description="Address of the service: https, or http on loopback."
    )
    access_key_id: Secret = Field(None, description="Access key ID.", examples=["AKIDxxxxxxxx"])
    access_key_secret: Secret = Field(None, description="Access key secret.", examples=["xxxxxxxx"])
    source_url: Secret = Field(
        None,
        description="Where your table of sent messages is: a database URL, or a path to a "
        "Parquet or CSV file.",
        examples=["postgresql://user:password@host:5432/shop"],
    )
    source_table: OptionalText = Field(
        None,
        description="Table or view, `schema.table` allowed. Not needed for files.",
        examples=["public.sms_log"],
    )
    session_column: str = Field(
        "session_no", min_length=1, description="Column of the session number."
    )
    sent_at_column: str = Field(
        "sent_at", min_length=1, description="Column of the time of sending."
    )
    phone_column: OptionalText = Field(
        None,
        description="Column of the recipient's phone number, if there is one.",
        examples=["phone"],
    )
    recipients_column: OptionalText = Field(
        None,
        description="Column with the number of recipients per row (else 1).",
        examples=["recipients"],
    )
    segments_column: OptionalText = Field(
        None,
        description="Column of how many parts a message was billed as; it counts before what the "
        "service says.",
        examples=["segments"],
    )
    cost_column: OptionalText = Field(
        None, description="Column of what a message cost, to one recipient.", examples=["cost"]
    )
    currency_column: OptionalText = Field(
        None,
        description="Column of the currency of that cost, where there are several.",
        examples=["currency"],
    )
    dimensions: Names = Field(
        (),
        validate_default=True,
        description="Comma list of columns of your table to carry along and group by.",
        examples=["template_id,purpose"],
    )
    source_timezone: Zone = Field(
        "UTC", description="Time zone of send times that have none.", examples=["Asia/Shanghai"]
    )
    date_order: OptionalOrder = Field(
        None,
        description="Order of dates such as 03/04/2026, if the column does not show it: `dmy` (day "
        "first) or `mdy` (month first).",
        examples=["dmy"],
    )
    receipt_timezone: Zone = Field(
        api.RECEIPT_TIMEZONE,
        description=f"Time zone of `{api.RECEIPT['time']}` in receipts, which names none.",
    )
    timezone: Zone = Field(
        "UTC", description="Time zone of the partitions' days.", examples=["Asia/Shanghai"]
    )
    target_rate: OptionalNumber = Field(
        None, gt=0, le=100, description="Delivery rate that you aim at, in %.", examples=[95]
    )
    target_seconds: float = Field(
        30, gt=0, description="How soon a message should arrive: the report counts those that did."
    )
    start_date: Day = Field(
        date(2024, 1, 1), description="First day to collect: the first partition."
    )
    default_region: Region = Field(
        "CN", description="Country of phone numbers without a country code (ISO 3166-1 alpha-2)."
    )
    data_dir: StoragePlace = Field(
        "data", description="Folder for everything the pipeline keeps: a path or `s3://…`."
    )
    source_lookback_days: int = Field(
        7,
        ge=1,
        description="How many recent days of your table every run reads again, for late rows.",
    )
    warehouse: LocalFile = Field(
        "{data_dir}/usms.duckdb",
        description="The published DuckDB file, on a local disk.",
        examples=["/var/lib/usms/usms.duckdb"],
    )
    batch_size: int = Field(
        api.MAX_IDS, ge=1, le=api.MAX_IDS, description="Session numbers per request."
    )
    max_concurrency: int = Field(8, ge=1, le=256, description="Most requests in flight at once.")
    max_requests_per_second: OptionalNumber = Field(
        None, gt=0, description="Maximum requests per second (default: automatic).", examples=[20]
    )
    timeout_seconds: float = Field(30, gt=0, description="Timeout of one request.")
    cutoff_hours: float = Field(
        72, gt=0, description="Stop polling a message after this many hours."
    )
    poll_minutes: Ages = Field(
        tuple(o.total_seconds() / 60 for o in polling.EARLY_OFFSETS),
        description="Comma list of ages at which a message is first polled, in minutes.",
    )
    poll_every_hours: float = Field(
        polling.LATE_EVERY.total_seconds() / 3600,
        gt=0,
        description="After those ages, ask again at this interval until the cutoff.",
    )
    phones: Literal["masked", "clear"] = Field(
        "masked", description="How the `phone` column shows numbers: `masked` or `clear`."
    )
    phone_key: SecretKey = Field(
        None,
        description="Key of the `recipient` hash, 32 bytes as hex; made at the first run if not "
        "given. Required with `s3://…`.",
        examples=["<64 hexadecimal digits>"],
    )
    raw_retention_days: int = Field(
        30, ge=0, description="Days to keep raw responses; the receipts in them stay."
    )

    @field_validator("dimensions")
    @classmethod
    def _carried(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        """Add the columns of cost: they come along as those to group by do, as text."""
        known = {name.casefold() for name in names}
        more = dict.fromkeys(info.data.get(name) for name in COSTS)
        return (*names, *(name for name in more if name and name.casefold() not in known))

    @property
    def costs(self) -> tuple[str | None, ...]:
        """Return the columns of segments, cost and currency in the customer's table."""
        return tuple(getattr(self, name) for name in COSTS)

    @property
    def is_remote(self) -> bool:
        """Return whether the data directory is on object storage."""
        return self.data_dir.startswith("s3://")

    @property
    def warehouse_path(self) -> Path:
        """Return the local path of the published DuckDB file."""
        return Path(self.warehouse.replace("{data_dir}", self.data_dir))

    @property
    def cutoff(self) -> timedelta:
        """Return the age past which a message without a final status is closed."""
        return timedelta(hours=self.cutoff_hours)

    @property
    def poll_offsets(self) -> list[timedelta]:
        """Return the polling times as offsets from ``sent_at``; the last is the cutoff."""
        early = [timedelta(minutes=minutes) for minutes in self.poll_minutes]
        return polling.offsets(self.cutoff, early, timedelta(hours=self.poll_every_hours))

    @property
    def zone(self) -> ZoneInfo:
        """Return the time zone whose days are the partitions."""
        return ZoneInfo(self.timezone)


def load(needs: Iterable[Need] = (), **given: Any) -> Settings:
    """Read the settings: ``given`` beats the environment, which beats ``.env`` here.

    ``needs`` names what the caller is about to use: ``"source"``, ``"api"`` or both. A ``given``
    value of None counts as not given.

    Raises ``SettingsError`` with every missing and every wrong setting.
    """
    settings, problems = known(given)
    if settings is not None:
        for name, reason in _conflicts(settings) + _absences(settings, needs):
            problems.setdefault(name, reason)
    if problems or settings is None:
        raise SettingsError(
            [
                SettingProblem(variable(name), reason, "" if reason == _COPIED else example(name))
                for name, reason in sorted(problems.items())
            ],
            f"in the environment or in .env{no_file('({})')}",
        )
    return settings


def known(given: Mapping[str, Any]) -> tuple[Settings | None, dict[str, str]]:
    """Return the settings, with defaults for what can't be used; and what is wrong with these."""
    given = {name: value for name, value in given.items() if value is not None}
    settings, problems = _read(given)
    if problems:
        defaults = {name: Settings.model_fields[name].default for name in problems}
        settings, _ = _read(given | defaults)
    return settings, problems


def no_file(form: str) -> str:
    """Return, put into ``form``, that this folder has no .env; empty if it has one."""
    here = Path.cwd()
    return "" if (here / ".env").is_file() else " " + form.format(f"there is none in {here}")


def _read(given: dict[str, Any]) -> tuple[Settings | None, dict[str, str]]:
    """Return the settings, or what is wrong with each field that can't be used."""
    try:
        return Settings(**given), {}
    except (UnicodeDecodeError, OSError) as error:
        raise _unreadable(error) from None
    except ValidationError as error:
        problems: dict[str, str] = {}
        for detail in error.errors(include_input=False, include_url=False):
            # what follows the variable's name in a sentence
            reason = re.sub("^(Value error, |Input (?=should))", "", detail["msg"])
            reason = re.sub(", (unable to|input is) .*", "", reason)
            problems.setdefault(str(detail["loc"][0]), reason)
        return None, problems


def _env_file(*, interpolate: bool = False) -> dict[str, str | None]:
    """Read the .env here; raises ``SettingsError`` where that can't be done."""
    try:
        return dotenv_values(".env", interpolate=interpolate)
    except (UnicodeDecodeError, OSError) as error:
        raise _unreadable(error) from None


def _unreadable(error: UnicodeDecodeError | OSError) -> SettingsError:
    reason = "is not a text file in UTF-8"
    if isinstance(error, OSError):
        reason = f"can't be read: {error.strerror}"
    return SettingsError([SettingProblem(".env", reason, "")])


def _conflicts(settings: Settings) -> list[tuple[str, str]]:
    """Return the settings that conflict with others, each with the reason."""
    found = []
    if settings.is_remote and "{data_dir}" in settings.warehouse:
        found.append(("warehouse", "must be a local path when USMS_DATA_DIR is s3://…"))
    if settings.is_remote and settings.phone_key is None:
        found.append(("phone_key", "must be given when USMS_DATA_DIR is s3://…"))
    if settings.session_column == settings.phone_column:
        found.append(("session_column", "names the same column as USMS_PHONE_COLUMN"))
    if settings.cutoff_hours / settings.poll_every_hours > _MOST_POLLS:
        found.append(
            ("poll_every_hours", f"asks more than {_MOST_POLLS:,} times before USMS_CUTOFF_HOURS")
        )
    return found


def _absences(settings: Settings, needs: Iterable[Need]) -> list[tuple[str, str]]:
    """Return the settings that are needed and not set, or still as in ``.env.example``."""
    names = [name for need in needs for name in _NEEDED[need]]
    url = settings.source_url
    if url is not None and "://" not in url.get_secret_value():  # a file is a table already
        names = [name for name in names if name != "source_table"]
    found = []
    for name in names:
        value = getattr(settings, name)
        if value is None:
            found.append((name, "is not set"))
        elif name in _SECRETS and value.get_secret_value() == example(name):
            found.append((name, _COPIED))
    return found


def unknown_variables() -> list[tuple[str, str | None]]:
    """Return the ``USMS_…`` variables that set nothing, each with the setting it may be meant for.

    Raises ``SettingsError`` where the .env can't be read.
    """
    known = [variable(name) for name in Settings.model_fields]
    found = {*os.environ, *_env_file()}
    ours = (name for name in found if name.upper().startswith(PREFIX))
    strange = sorted(name for name in ours if name.upper() not in known)
    return [
        (name, next(iter(get_close_matches(name, known, 1, 0.75)), None))
        for name in strange
        if name not in _NOT_SETTINGS
    ]


def secrets() -> list[str]:
    """Return the secrets in the environment and in .env, the longest first, to be hidden in texts.

    Those in .env both as they are written and with ``${x}`` replaced.
    """
    values = _secrets_in(os.environ)
    with suppress(SettingsError):
        values += _secrets_in(_env_file()) + _secrets_in(_env_file(interpolate=True))
    return sorted({value.strip() for value in values} - {""}, key=len, reverse=True)


def is_secret_in_env_file() -> bool:
    """Return whether the .env here holds a secret. Raises ``SettingsError`` as above."""
    return bool(_secrets_in(_env_file()))


def _secrets_in(found: Mapping[str, str | None]) -> list[str]:
    """Return the secrets among variables, whose case does not matter."""
    names = {variable(name) for name in _SECRETS}
    return [value for name, value in found.items() if value and name.upper() in names]


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + name.upper()


def example(name: str) -> str:
    """Return a value that works for a setting, as it is written in the environment."""
    field = Settings.model_fields[name]
    return as_text(field.examples[0] if field.examples else field.default)


def as_text(value: Any) -> str:
    """Write a setting's value as it is written in the environment; None is nothing."""
    if isinstance(value, tuple | list):
        parts = [as_text(part) for part in value]
        return json.dumps(parts) if any("," in part for part in parts) else ",".join(parts)
    if isinstance(value, float):
        return f"{value:.15g}"
    return "" if value is None else str(value)
