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
    entries = [_TOP]
    for name in dict.fromkeys((*REQUIRED, *Settings.model_fields)):
        field, is_required = Settings.model_fields[name], name in REQUIRED
        value = example(name) if is_required else as_text(field.default) or example(name)
        meaning = textwrap.wrap(field.description or "", 94)
        entries.append("\n".join(f"# {line}" for line in meaning))
        entries[-1] += f"\n{'' if is_required else '# '}{variable(name)}={value}\n"
    return "\n".join(entries)
