"""The sentences a user reads when the source can't be used; each names the setting to correct.

No driver's types here, and nothing that connects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from usms_pipeline.contract import wording
from usms_pipeline.contract.errors import SourceError, SourceUnavailable
from usms_pipeline.contract.source_address import Address

_SHOWN_NAMES = 12


_SENTENCES: Final = {
    "wrong_password": "{shown} refused the user name or password: correct them in USMS_SOURCE_URL.",
    "no_database": "There is no database {path!r} at {shown}: correct the last part of "
    "USMS_SOURCE_URL.",
    "no_file": "There is no file {path!r}: correct the path in USMS_SOURCE_URL{slashes}.",
    "bad_file": "{path!r} is not a {reason} file: correct USMS_SOURCE_URL.",
    "denied": "Not allowed to read USMS_SOURCE_TABLE at {shown}: {reason}. Grant SELECT on it to "
    "the user in USMS_SOURCE_URL, or use another user.",
    "no_driver": "USMS_SOURCE_URL begins with {scheme}://, and the driver for it is missing: "
    "{reason}.",
    "cut_short": "{shown} cut off the query: {reason}. Raise {limit} for the user in "
    "USMS_SOURCE_URL, use another user, or add an index on USMS_SENT_AT_COLUMN.",
}
_UNAVAILABLE: Final = {
    "unreachable": "Can't reach {shown}: {reason}. Check host and port in USMS_SOURCE_URL, and "
    "that the database is up and accepts connections from this machine.",
    "broke_off": "The connection to {shown} was lost: {reason}. What was read so far is saved; run "
    "again.",
}
"""What may pass by itself: running again may help."""


def error(what: str, address: Address, reason: str = "", limit: str = "") -> SourceError:
    """Return the error that a sentence of the tables above tells.

    ``reason`` is in the driver's words, shown without secrets and phone numbers; ``limit`` names
    the setting of the server that stops long queries.
    """
    kind = SourceUnavailable if what in _UNAVAILABLE else SourceError
    sentence = (_SENTENCES | _UNAVAILABLE)[what]
    slashes = " (an absolute one has four slashes after `sqlite:` or `duckdb:`)"
    return kind(
        sentence.format(
            shown=address.shown, path=address.path, scheme=address.scheme, limit=limit,
            reason=address.clean(reason), slashes=slashes if address.scheme else "",
        )
    )  # fmt: skip


def no_table(address: Address, name: str, tables: Sequence[str]) -> SourceError:
    """No table has that name; suggest similar ones."""
    near = wording.near(name, tables) or wording.near(name.rpartition(".")[2], tables)
    hint = f"Its tables: {_some(tables)}." if tables else "It has none."
    if near:
        hint = f"Did you mean {' or '.join(map(repr, near))}?"
    return SourceError(
        f"There is no table {name!r} at {address.shown} that its user can see: correct "
        f"USMS_SOURCE_TABLE. {hint}"
    )


def no_columns(table: str, missing: Sequence[tuple[str, str]], there: Sequence[str]) -> SourceError:
    """Columns are missing: ``missing`` has each one's setting and name."""
    said = []
    for setting, name in missing:
        near = wording.near(name, there)
        guess = f", did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
        said.append(f"{name!r} ({setting}{guess})")
    return SourceError(
        f"Table {table!r} has no column {', nor '.join(said)}. Its columns: {_some(there)}."
    )


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_NAMES
    shown = ", ".join(repr(name) for name in names[:_SHOWN_NAMES])
    return f"{shown} and {more} more" if more > 0 else shown
