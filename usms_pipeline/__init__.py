"""SMS delivery receipts from the USMS API into Arrow, Parquet and DuckDB.

Importing this package is cheap: what it offers is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from usms_pipeline.warehouse import connect as connect

__all__ = ["connect", "recipient_id"]


def recipient_id(phone: str, **given: Any) -> str:
    """Give the ``recipient`` of a phone number: join your own table to the receipts with it.

    The key and the default region come from the settings (``given`` beats the environment). A text
    that says no number has the hash of the text, as a row of the source with the same text has.

    Raises ``SettingsError``, and ``StorageError`` where there is no key yet: none is made here.
    """
    from usms_pipeline import settings
    from usms_pipeline.people import phone_key, phones

    ours = settings.load(**given)
    key = phone_key.load_key(ours, may_make=False)
    return phones.PhoneBook(key, ours.default_region, ours.phones).recipient_id(phone)


def __getattr__(name: str) -> Any:
    if name == "connect":
        from usms_pipeline.warehouse import connect

        return connect
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
