"""SMS delivery receipts from the USMS API into Arrow, Parquet and DuckDB.

Importing this package is cheap: what it offers is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from usms_pipeline import settings as settings
    from usms_pipeline.figures import charts as charts
    from usms_pipeline.figures import queries as queries
    from usms_pipeline.warehouse import connect as connect

__all__ = ["charts", "connect", "queries", "recipient_id"]

_OFFERED: Final = {
    "settings": "usms_pipeline.settings",
    "connect": "usms_pipeline.warehouse",
    "queries": "usms_pipeline.figures.queries",
    "charts": "usms_pipeline.figures.charts",
}


def recipient_id(phone: str, **given: Any) -> str:
    """Return the ``recipient`` of a phone number: join your own table to the receipts with it.

    The key and the default region come from the settings (``given`` beats the environment). If the
    text is not a number, the text itself is hashed, as it is in a row of the source.

    Raises ``SettingsError``, and ``StorageError`` where there is no key yet: none is made here.
    """
    from usms_pipeline import settings
    from usms_pipeline.people import phone_key, phones

    ours = settings.load(**given)
    key = phone_key.load_key(ours, may_make=False)
    return phones.PhoneBook(key, ours.default_region, ours.phones).recipient_id(phone)


def __getattr__(name: str) -> Any:
    if name in _OFFERED:
        room = import_module(_OFFERED[name])
        return getattr(room, name) if name == "connect" else room
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
