"""``dg scaffold defs usms_pipeline.components.ReceiptPipeline <name>``: a new account's files.

No secret is written into the ``defs.yaml``: it names variables, which ``.env.example`` lists.
"""

from __future__ import annotations

import re
from typing import Final

import dagster as dg
from pydantic import BaseModel, Field

from usms_pipeline import settings as core_settings
from usms_pipeline.contract import source_address

_SECRET: Final = ("access_key_id", "access_key_secret")


class AccountParams(BaseModel):
    """The options of the command."""

    account: str | None = Field(
        None, description="The account's name, as `marketing` (else the folder's)."
    )
    source_url: str | None = Field(
        None, description="Where the table of sent messages is: a database URL, or a path."
    )
    source_table: str | None = Field(None, description="Table or view, as `public.sms_log`.")


class AccountScaffolder(dg.Scaffolder[AccountParams]):
    """Writes the ``defs.yaml`` of an account, and a ``.env.example`` beside it."""

    @classmethod
    def get_scaffold_params(cls) -> type[AccountParams]:
        """Return the options."""
        return AccountParams

    def scaffold(self, request: dg.ScaffoldRequest[AccountParams]) -> None:
        """Write an account's files, or the Python file that was asked for."""
        if request.scaffold_format == "python":
            dg.scaffold_component(request)
            return
        params = request.params
        name = re.sub(r"\W+", "_", params.account or request.target_path.name).strip("_")
        url = params.source_url or core_settings.example("source_url")
        table = params.source_table or core_settings.example("source_table")
        variables = {key: f"{name.upper()}_{key.upper()}" for key in _SECRET}
        is_file = not source_address.secrets(url) and "@" not in url
        if not is_file:
            variables["source_url"] = f"{name.upper()}_SOURCE_URL"
        attributes = {
            "asset_prefix": name if name.startswith("usms") else f"usms_{name}",
            **{key: f'"{{{{ env.{variable} }}}}"' for key, variable in variables.items()},
            **({"source_url": f'"{url}"'} if is_file else {}),
            **({"source_table": table} if "://" in url else {}),
            "data_dir": f"data/{name}",
        }
        text = "\n".join([
            f"type: {request.type_name}",
            "attributes:",
            *(f"  {key}: {value}" for key, value in attributes.items()),
            "requirements:",
            f"  env: [{', '.join(variables.values())}]",
        ])  # fmt: skip
        if request.append:
            with request.target_path.open("a") as file:
                file.write(f"---\n{text}\n")
        else:
            (request.target_path / "defs.yaml").write_text(f"{text}\n")
        folder = request.target_path.parent if request.append else request.target_path
        listed = folder / ".env.example"
        head = "# Put these into .env in the project's folder (chmod 600): they are secrets.\n"
        text = listed.read_text() if listed.exists() else head
        examples = {key: core_settings.example(key) for key in variables}
        if not is_file:  # the address without its password
            examples["source_url"] = source_address.parse(url).shown
        text += "".join(f"{variables[key]}={example}\n" for key, example in examples.items())
        listed.write_text(text)
