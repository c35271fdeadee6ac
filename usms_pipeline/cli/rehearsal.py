"""What a folder of ``usms demo`` needs said: its simulated service does not run all the time."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from usms_pipeline.cli import config
from usms_pipeline.contract.errors import ServiceDown

if TYPE_CHECKING:
    from usms_pipeline.settings import Settings

MARK: Final = "# Made by `usms demo`, which replaces all of this folder.\n"
"""The first line of a demo's .env."""

_MISSING: Final = (
    "The simulated service of this demo is not running: `usms demo --serve`, in the folder above, "
    "makes the demo again and keeps it running."
)


def is_demo(folder: Path) -> bool:
    """Return whether ``usms demo`` made a folder."""
    env = folder / ".env"
    return env.exists() and env.read_text("utf-8", "replace").startswith(MARK)


def missing_service(settings: Settings) -> str:
    """Return that the demo's service is not running; empty if it runs, or outside a demo."""
    parts = urlsplit(settings.base_url)
    if not is_demo(Path()) or not config.is_loopback(parts.hostname or ""):
        return ""
    try:
        with socket.create_connection((parts.hostname, parts.port or 80), timeout=5):
            return ""
    except ConnectionRefusedError:
        return _MISSING
    except OSError:
        return ""


@contextmanager
def explained(settings: Settings) -> Iterator[None]:
    """Add to a ``ServiceDown`` in a demo's folder what there is to do."""
    try:
        yield
    except ServiceDown as error:
        missing = missing_service(settings)
        if not missing:
            raise
        raise ServiceDown(missing) from error
