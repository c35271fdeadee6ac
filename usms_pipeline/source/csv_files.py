"""The DuckDB table function over CSV files: their headers read here, so that nothing is guessed.

Where a line is too long DuckDB's own detection takes another line for the header, or the whole
line for one column; told the columns, it names the bad line.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from usms_pipeline.contract.errors import SourceError
from usms_pipeline.source import query

_DELIMITERS: Final = (",", ";", "\t", "|")
_OPTIONS: Final = (
    "auto_detect = false, header = true, quote = '\"', escape = '\"', allow_quoted_nulls = false"
)


def relation(paths: Sequence[str]) -> str:
    """Return a query of all files, columns matched by name, every one of them as text.

    Text, for 0086… must stay so. An empty field is NULL, a quoted one is not.

    Raises ``SourceError`` for a file without a header in UTF-8.
    """
    headers: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for path in paths:
        headers.setdefault(_header(Path(path)), []).append(as_pattern(path))
    reads = [_read(delimiter, names, files) for (delimiter, names), files in headers.items()]
    return " UNION ALL BY NAME ".join(reads)


def explain(text: str, path: str) -> SourceError:
    """Make a sentence of DuckDB's error; the line itself may hold a phone number: not shown."""
    line = re.search(r"CSV Error on Line: (\d+)", text)
    counts = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", text)
    if counts:
        reason = f"has {counts[2]} columns where the header has {counts[1]}"
    else:
        reason = "is not UTF-8" if "utf-8" in text else "can't be read"
    return _bad(path, f"line {line[1]} {reason}" if line else f"a line {reason}")


def _header(path: Path) -> tuple[str, tuple[str, ...]]:
    with path.open("rb") as file:
        raw = file.readline()
    try:
        line = raw.decode("utf-8-sig")
        delimiter = max(_DELIMITERS, key=re.sub(r'"[^"]*"', "", line).count)
        names = next(csv.reader([line], delimiter=delimiter), [])
    except UnicodeDecodeError:
        raise _bad(str(path), "it is not UTF-8") from None
    except csv.Error:
        raise _bad(str(path), "its first line can't be read") from None
    if not names:
        raise _bad(str(path), "it has no first line of column names")
    return delimiter, tuple(_distinct(names))


def _distinct(names: Sequence[str]) -> list[str]:
    """Number the names that occur before, whatever their case, and those that are empty."""
    seen: set[str] = set()
    distinct = []
    for position, name in enumerate(names):
        one = name if name and name.casefold() not in seen else f"{name}_{position}"
        seen.add(one.casefold())
        distinct.append(one)
    return distinct


def _read(delimiter: str, names: Sequence[str], paths: Sequence[str]) -> str:
    files = ", ".join(query.text(path) for path in paths)
    columns = ", ".join(f"{query.text(name)}: 'VARCHAR'" for name in names)
    return (
        f"SELECT * FROM read_csv([{files}], columns = {{{columns}}}, "
        f"delim = {query.text(delimiter)}, {_OPTIONS})"
    )


def as_pattern(path: str) -> str:
    """Write a path as a pattern that fits only it."""
    return re.sub(r"([*?\[])", r"[\1]", path)


def _bad(path: str, reason: str) -> SourceError:
    return SourceError(
        f"{path!r} (USMS_SOURCE_URL): {reason}. Mend the file, or save it anew as CSV in UTF-8."
    )
