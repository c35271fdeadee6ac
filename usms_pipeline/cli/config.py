"""The settings, for commands: loaded when the first is asked for, not when the help is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from usms_pipeline.contract.setting_types import is_loopback as is_loopback
    from usms_pipeline.settings import PREFIX as PREFIX
    from usms_pipeline.settings import is_secret_in_env_file as is_secret_in_env_file
    from usms_pipeline.settings import load as load
    from usms_pipeline.settings import unknown_variables as unknown_variables
    from usms_pipeline.settings import variable as variable
else:

    def __getattr__(name: str) -> object:
        from usms_pipeline import settings
        from usms_pipeline.contract import setting_types

        return getattr(settings, name, None) or getattr(setting_types, name)
