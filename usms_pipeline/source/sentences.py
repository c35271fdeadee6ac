"""The sentences a user reads when the source can't be used; each names the setting to correct.

No driver's types here, and nothing that connects.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from usms_pipeline.contract.errors import SourceError, SourceUnavailable
from usms_pipeline.contract.source_address import Address

_SHOWN_NAMES = 12


def wrong_password(address: Address) -> SourceError:
    """The server does not know the user, or the password is another."""
    return SourceError(
        f"{address.shown} refused the user name or password: correct them in USMS_SOURCE_URL."
    )


def no_database(address: Address) -> SourceError:
    """The server is there, the database is not."""
    return SourceError(
        f"There is no database {address.path!r} at {address.shown}: correct the last part of "
        "USMS_SOURCE_URL."
    )


def unreachable(address: Address, reason: str) -> SourceUnavailable:
    """The host does not answer."""
    return SourceUnavailable(
        f"Can't reach {address.shown}: {address.clean(reason)}. Check host and port in "
        "USMS_SOURCE_URL, and that the database is up and accepts connections from this machine."
    )


def no_file(address: Address) -> SourceError:
    """There is no file at the path."""
    slashes = " (an absolute one has four slashes after `sqlite:` or `duckdb:`)"
    return SourceError(
        f"There is no file {address.path!r}: correct the path in USMS_SOURCE_URL"
        f"{slashes if address.scheme else ''}."
    )


def bad_file(address: Address, wanted: str) -> SourceError:
    """The file is of another kind than its URL or name says."""
    return SourceError(f"{address.path!r} is not a {wanted} file: correct USMS_SOURCE_URL.")


def denied(address: Address, reason: str) -> SourceError:
    """The user may not read it."""
    return SourceError(
        f"Not allowed to read USMS_SOURCE_TABLE at {address.shown}: {address.clean(reason)}. Grant "
        "SELECT on it to the user in USMS_SOURCE_URL, or use another user."
    )


def no_driver(address: Address, install: str) -> SourceError:
    """A Python package is missing."""
    return SourceError(
        f"USMS_SOURCE_URL begins with {address.scheme}://, and the driver for it is missing: "
        f"{install}."
    )


def broke_off(address: Address, reason: str) -> SourceUnavailable:
    """Anything else a driver may say, most often in the middle of a read."""
    return SourceUnavailable(
        f"The connection to {address.shown} was lost: {address.clean(reason)}. What was read so "
        f"far is saved; run again."
    )


def cut_short(address: Address, reason: str, limit: str) -> SourceError:
    """The server stops long queries: running again does not help."""
    return SourceError(
        f"{address.shown} cut off the query: {address.clean(reason)}. Raise {limit} for the user "
        "in USMS_SOURCE_URL, use another user, or add an index on USMS_SENT_AT_COLUMN."
    )


def no_table(address: Address, name: str, tables: Sequence[str]) -> SourceError:
    """No table has that name; suggest similar ones."""
    near = near_names(name, tables) or near_names(name.rpartition(".")[2], tables)
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
        near = near_names(name, there)
        guess = f", did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
        said.append(f"{name!r} ({setting}{guess})")
    return SourceError(
        f"Table {table!r} has no column {', nor '.join(said)}. Its columns: {_some(there)}."
    )


def near_names(name: str, names: Iterable[str]) -> list[str]:
    """Return up to three names that look like this one."""
    by_folded = {there.casefold(): there for there in names}
    near = get_close_matches(name.casefold(), by_folded, n=3, cutoff=0.6)
    return [by_folded[folded] for folded in near]


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_NAMES
    shown = ", ".join(repr(name) for name in names[:_SHOWN_NAMES])
    return f"{shown} and {more} more" if more > 0 else shown
