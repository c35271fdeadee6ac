"""What a source is to the rest: its columns, its SQL dialect, and the list of kinds there are.

A new kind of source is one new module with ``open_source`` and ``explain``, and one line in
``KINDS``. Nothing here connects.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol, cast

import pyarrow as pa

from usms_pipeline.contract.errors import SourceError
from usms_pipeline.contract.source_address import Address

KINDS: Final = {
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
    "sqlite": "sqlite",
    "duckdb": "duckdb_files",
    ".parquet": "duckdb_files",
    ".csv": "duckdb_files",
    ".csv.gz": "duckdb_files",
}
"""First part of the URL, or the path's suffix -> the module here that reads it."""

_SUPPORTED: Final = (
    "postgresql://, mysql://, mariadb://, sqlite:///, duckdb:/// and paths to Parquet and CSV "
    "files (.parquet, .csv, .csv.gz)"
)
_SPREADSHEETS: Final = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers")

SUFFIXES: Final = tuple(name for name in KINDS if name.startswith("."))
"""Suffixes of files that are read directly, without a table name."""


class TimeType(StrEnum):
    """The form in which a column can hold times, by its declared type."""

    AWARE = "aware"
    NAIVE = "naive"
    DATE = "date"
    TEXT = "text"
    NUMBER = "number"
    DYNAMIC = "dynamic"  # text or numbers, in the form they were given (SQLite)
    UNTYPED = "untyped"  # as DYNAMIC, and digits may be text as well


@dataclass(frozen=True)
class Column:
    """One column of the source. ``time`` is None where the type can't hold a time."""

    name: str
    type: str
    time: TimeType | None
    exact_below: int | None = None
    """For a floating type: whole numbers below this are exact."""
    is_boolean: bool = False


@dataclass(frozen=True)
class Dialect:
    """How a kind of source writes SQL."""

    quote: Callable[[str], str]
    as_text: Callable[[str, Column], str]
    """From an expression and its column, make an expression of type text."""
    has_indexes: bool = True
    is_day: str = ""
    """`` AND …`` that excludes dates that do not exist; {} is the column."""


class Source:
    """An open source. Its methods raise the driver's errors: ``explain`` turns them into ours."""

    dialect: Dialect
    only_table: str | None = None
    """The table, of a source that is one table."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def columns(self, table: tuple[str, ...]) -> list[Column]:
        """Return a table's columns; none when there is no such table."""
        raise NotImplementedError

    def tables(self) -> list[str]:
        """List the tables and views, as one would write them in USMS_SOURCE_TABLE."""
        raise NotImplementedError

    def batches(self, sql: str) -> Generator[pa.RecordBatch]:
        """Run a query and stream its rows; close it if you don't read it to the end.

        Texts come as text, times as Arrow timestamps, dates or text.
        """
        raise NotImplementedError

    def is_scanned(self, sql: str) -> bool:
        """Return whether the database would scan a whole table; False where it has no indexes."""
        return False


class Kind(Protocol):
    """A module of this folder that reads one kind of source."""

    ERRORS: tuple[type[Exception], ...]
    """What its driver raises."""

    def open_source(self, address: Address) -> AbstractContextManager[Source]:
        """Connect, for reading only."""
        ...

    def explain(self, error: Exception, address: Address) -> SourceError:
        """Return the sentence for one of ``ERRORS``."""
        ...


def kind_of(address: Address) -> Kind:
    """Return the module that reads an address.

    Raises ``SourceError`` for another database, and for a path whose ending says nothing.
    """
    key = address.scheme.partition("+")[0] or _suffix(address)
    if key not in KINDS:
        raise SourceError(
            f"USMS_SOURCE_URL begins with {address.scheme}://, which is not read. Supported are "
            f"{_SUPPORTED}. Of another database, write the messages to one of these files."
        )
    return cast("Kind", import_module(f"usms_pipeline.source.{KINDS[key]}"))


def _suffix(address: Address) -> str:
    path = address.shown
    for suffix in SUFFIXES:
        if address.path.lower().rstrip("/").endswith(suffix):
            return suffix
    if Path(address.path).expanduser().is_dir():
        raise SourceError(
            f"USMS_SOURCE_URL is the folder {path!r}: write a pattern of the files in it, such as "
            f"{path.rstrip('/')}/*.parquet or {path.rstrip('/')}/*.csv."
        )
    if address.path.lower().endswith(_SPREADSHEETS):
        raise SourceError(
            f"USMS_SOURCE_URL is {path!r}, a spreadsheet: save it as CSV in UTF-8, or as Parquet."
        )
    raise SourceError(
        f"USMS_SOURCE_URL is {path!r}: neither a database URL nor a path that ends in "
        f"{' or '.join(SUFFIXES)}, with * for several files. For a database file write "
        f"sqlite:///{path} or duckdb:///{path}; save any other as CSV or Parquet."
    )
