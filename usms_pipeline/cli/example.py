"""The text of ``.env.example``, made from the settings' own descriptions. Pure."""

from __future__ import annotations

import textwrap

from usms_pipeline.settings import Settings, as_text, example, variable

_TOP = """\
# Settings of usms-pipeline: copy this file to .env and fill in those without a #. The others
# show their default, or an example where they have none. Put a value with a blank or a # in
# it into single quotes; a secret is taken as it stands, ${…} too. Made by `usms check --example`.
"""
REQUIRED = (
    "access_key_id", "access_key_secret", "source_url", "source_table", "session_column",
    "sent_at_column",
)  # fmt: skip


def env_example() -> str:
    """Write every setting once, with its meaning; the defaults are commented out."""
    return "\n".join([_TOP, *(_entry(name) for name in _order())])


def _order() -> list[str]:
    return [*REQUIRED, *(name for name in Settings.model_fields if name not in REQUIRED)]


def _entry(name: str) -> str:
    field = Settings.model_fields[name]
    comment = textwrap.fill(
        field.description or "", 96, initial_indent="# ", subsequent_indent="# "
    )
    mark, value = _assignment(name)
    return f"{comment}\n{mark}{variable(name)}={value}\n"


def _assignment(name: str) -> tuple[str, str]:
    if name in REQUIRED:
        return "", example(name)
    default = Settings.model_fields[name].default
    return "# ", as_text(default) or example(name)
