"""The page's texts in both languages: ``chinese.toml`` has the Chinese ones by their English."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from importlib.resources import files
from typing import Final

from usms_pipeline.contract import wording

CHINESE: Final[dict[str, str]] = tomllib.loads(
    files(__package__).joinpath("chinese.toml").read_text("utf-8")
)


class Said(str):
    """A text in English, with its ``chinese``."""

    chinese: str

    def __new__(cls, english: str, chinese: str) -> Said:
        """Return a text that is the English one."""
        made = super().__new__(cls, english)
        made.chinese = chinese
        return made


def said(text: str, **given: object) -> Said:
    """Return a text of the table in both languages, with its figures in place.

    Raises ``KeyError`` where the table lacks it.
    """
    chinese = {name: getattr(value, "chinese", value) for name, value in given.items()}
    return Said(text.format(**given), CHINESE[text].format(**chinese))


def listed(parts: Iterable[Said]) -> Said:
    """Return several texts with commas between them."""
    parts = list(parts)
    return Said(", ".join(parts), "，".join(part.chinese for part in parts))


def span(seconds: float | None) -> Said:
    """Return a time as ``wording.duration`` writes it; no line is broken in it."""
    text = wording.unbroken(wording.duration(seconds))
    return Said(text, re.sub(r"(?<=\u00a0)(s|min|h|d)\b", lambda unit: _UNITS[unit[0]], text))


_UNITS: Final = {"s": "秒", "min": "分钟", "h": "小时", "d": "天"}
