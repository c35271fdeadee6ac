"""The types of single settings: each reads and checks one value, or says why it can't be used.

Pure. A reason follows the variable's name in a sentence, and never shows a secret.
"""

from __future__ import annotations

import ipaddress
import json
import re
from datetime import date
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

import phonenumbers
from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode


class DateOrder(StrEnum):
    """What a date such as 03/04/2026 begins with."""

    DAY_FIRST = "dmy"
    MONTH_FIRST = "mdy"

    @property
    def other(self) -> DateOrder:
        """Return the other order."""
        return DateOrder.MONTH_FIRST if self is DateOrder.DAY_FIRST else DateOrder.DAY_FIRST


_OFFSET = re.compile(r"(?:UTC|GMT)?([+-])0?(\d{1,2})(?::?00)?", re.IGNORECASE)
_WEB_ADDRESS = re.compile(r"[!-\[\]-~]*")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


def web_address(value: str) -> str:
    """Check an https address (http on loopback), without credentials; return it without ``/``."""
    if not _WEB_ADDRESS.fullmatch(value):  # what other readers of URLs may understand otherwise
        raise ValueError("is not a web address: it holds blanks, \\ or characters beyond ASCII")
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is not a web address") from None
    if parts.scheme not in ("https", "http") or not host:
        raise ValueError("is not an https:// address")
    if parts.username or parts.password:
        raise ValueError("must not hold credentials; they have settings of their own")
    if parts.query or parts.fragment:
        raise ValueError("must end before any ? or #")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError(
            "must be https: plain http would show the access key to the network "
            "(http is allowed on loopback only)"
        )
    return value.rstrip("/")


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine itself, seen from no other."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


FIRST_DAY, LAST_DAY = date(1970, 1, 1), date(2199, 12, 31)
"""Years of the times that are read; others count as none (``contract.moments``)."""


def usable_day(value: date) -> date:
    """Check that a day is in the range that send times can have."""
    if not FIRST_DAY <= value <= LAST_DAY:
        raise ValueError(f"is not a day from {FIRST_DAY} to {LAST_DAY}")
    return value


def time_zone(value: str) -> str:
    """Check the name of a time zone."""
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise ValueError(
            f"{value!r} is not a time zone of the IANA database{_near_zone(value)}"
        ) from None
    return value


def _near_zone(value: str) -> str:
    if offset := _OFFSET.fullmatch(value):
        sign = "-" if offset[1] == "+" else "+"
        return f", where an offset has the other sign: Etc/GMT{sign}{offset[2]}"
    word = value.casefold().replace(" ", "_").rpartition("/")[2]
    by_city = {name.casefold().rpartition("/")[2]: name for name in sorted(available_timezones())}
    near = get_close_matches(word, by_city, 1, 0.8)
    return f"; did you mean {by_city[near[0]]}?" if near else ""


def region(value: str) -> str:
    """Check a two-letter country code; return it in capitals."""
    if value.upper() not in phonenumbers.SUPPORTED_REGIONS:
        raise ValueError(f"{value!r} is not a two-letter country code")
    return value.upper()


def storage_place(value: str) -> str:
    """Check a local path (``~`` is the home folder) or ``s3://bucket/folder``."""
    scheme, separator, rest = value.partition("://")
    if not value:
        raise ValueError("is empty")
    if not separator:
        return local_file(value)
    if scheme != "s3" or not rest.strip("/"):
        raise ValueError("must be a local path or s3://bucket/folder")
    if "@" in rest or "?" in rest:
        raise ValueError(
            "must be s3://bucket/folder and no more: credentials, region and address are read from "
            "the AWS_… variables"
        )
    bucket, *folders = rest.rstrip("/").split("/")
    if not _BUCKET.fullmatch(bucket):
        raise ValueError("must begin with s3:// and the name of a bucket")
    if any(folder in ("", ".", "..") for folder in folders):
        raise ValueError("must not have an empty folder, . or .. after the bucket")
    return "/".join((f"s3://{bucket}", *folders))


def local_file(value: str) -> str:
    """Check the path of a local file (``~`` is the home folder)."""
    if not value or "://" in value:
        raise ValueError("must be the path of a local file")
    try:
        return str(Path(value).expanduser())
    except RuntimeError:
        raise ValueError("begins with ~ and the name of a user who has no home folder") from None


def hex_key(value: SecretStr | None) -> SecretStr | None:
    """Check a secret key of 16 bytes or more, as hexadecimal digits."""
    if value is None:
        return None
    try:
        key = bytes.fromhex(value.get_secret_value())
    except ValueError:
        raise ValueError("is not hexadecimal") from None
    if len(key) < 16:
        raise ValueError("is shorter than 16 bytes (32 hexadecimal digits)")
    return value


def split_list(value: Any) -> Any:
    """Split a comma list, or read a JSON list (for names that hold a comma)."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError("is neither a comma list nor a JSON list") from None
    return tuple(part.strip() for part in value.split(",") if part.strip())


def distinct(value: tuple[str, ...]) -> tuple[str, ...]:
    """Check that no name comes twice."""
    twice = sorted({name for name in value if value.count(name) > 1})
    if twice:
        raise ValueError(f"names a column twice: {', '.join(twice)}")
    return value


def ages(value: tuple[float, ...]) -> tuple[float, ...]:
    """Check that every age is above 0."""
    if not all(minutes > 0 for minutes in value):
        raise ValueError("every age must be greater than 0")
    return value


def absent_if_blank(value: Any) -> Any:
    """Read blank text as a setting that is not given."""
    return None if isinstance(value, str) and not value.strip() else value


_QUOTES: Final = ("'", "'"), ('"', '"'), ("“", "”"), ("‘", "’"), ("`", "`")


def unquoted(value: Any) -> Any:
    """Refuse a value in quotes: shells and .env take them off, ``docker --env-file`` does not."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if isinstance(text, str) and len(text := text.strip()) > 1 and (text[0], text[-1]) in _QUOTES:
        raise ValueError(f"begins and ends with {text[0]}: take the quotes off")
    return value


WebAddress = Annotated[str, BeforeValidator(unquoted), AfterValidator(web_address)]
Day = Annotated[date, AfterValidator(usable_day)]
Zone = Annotated[str, AfterValidator(time_zone)]
Region = Annotated[str, AfterValidator(region)]
StoragePlace = Annotated[str, BeforeValidator(unquoted), AfterValidator(storage_place)]
LocalFile = Annotated[str, BeforeValidator(unquoted), AfterValidator(local_file)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_list), AfterValidator(distinct)]
Ages = Annotated[tuple[float, ...], NoDecode, BeforeValidator(split_list), AfterValidator(ages)]
OptionalText = Annotated[str | None, BeforeValidator(absent_if_blank)]
OptionalNumber = Annotated[float | None, BeforeValidator(absent_if_blank)]
OptionalOrder = Annotated[DateOrder | None, BeforeValidator(absent_if_blank)]
Secret = Annotated[SecretStr | None, BeforeValidator(absent_if_blank), BeforeValidator(unquoted)]
SecretKey = Annotated[Secret, AfterValidator(hex_key)]
