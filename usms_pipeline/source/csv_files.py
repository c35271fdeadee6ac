"""The DuckDB query over CSV files. Delimiter and columns are read here, from the first line.

DuckDB's own detection may take another line for the header, or a whole line for one column, where
a line has too many fields. If it is given the columns, it reports the bad line instead.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Final

from usms_pipeline.contract.errors import SourceError
from usms_pipeline.source import query
from usms_pipeline.source.clean import NOTHING

_DELIMITERS: Final = (",", ";", "\t", "|")
_SEP_LINE: Final = re.compile("sep=(.)", re.IGNORECASE)
"""The line before the header that names the delimiter for a spreadsheet. Not ``"sep=;"``: after
a byte-order mark DuckDB would skip all lines with it."""
_BEGINNING: Final = 65_536
"""Bytes of a file in which a column of floats shows itself."""
_IS_FLOAT: Final = rf"-?\d+[.,]0|{NOTHING}"
_OPTIONS: Final = (
    "auto_detect = false, header = true, quote = '\"', escape = '\"', allow_quoted_nulls = false, "
    "nullstr = ['', '\\N', 'NULL']"
)


Run = Callable[[str], Sequence[tuple[object, ...]]]
"""Runs a query, and returns its rows."""


@dataclass(frozen=True)
class _Form:
    delimiter: str
    names: tuple[str, ...]
    lines_before: int
    floats: tuple[str, ...] = ()
    """Columns in which every value is like ``123.0``."""


def relation(paths: Sequence[str], run: Run) -> str:
    """Return a query of all files, columns matched by name, every one of them as text.

    Text, because 0086… must stay so; but whole numbers that pandas wrote as floats, because their
    column has a gap, are whole again. An empty field is NULL, a quoted one is not.

    Raises ``SourceError`` for a file without a header in UTF-8.
    """
    forms: dict[_Form, list[str]] = {}
    for path in paths:
        forms.setdefault(_form(path, run), []).append(path)
    return " UNION ALL BY NAME ".join(_read(form, files) for form, files in forms.items())


def explain(text: str, path: str) -> SourceError:
    """Turn DuckDB's error into a sentence, without the line: it may hold a phone number."""
    if "state machine" in text:
        return _bad(path, "its lines end in more than one way")
    line = re.search(r"CSV Error on Line: (\d+)", text)
    counts = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", text)
    if counts:
        reason = f"has {counts[2]} columns where the header has {counts[1]}"
    else:
        reason = "is not UTF-8" if "utf-8" in text else "can't be read"
    return _bad(path, f"line {line[1]} {reason}" if line else f"a line {reason}")


def _form(path: str, run: Run) -> _Form:
    opened = gzip.open if path.lower().endswith(".gz") else open
    try:
        with opened(path, "rb") as file:
            lines = file.read(_BEGINNING).splitlines(keepends=True)
        first = lines.pop(0).decode("utf-8-sig").rstrip("\r\n") if lines else ""
        sep = _SEP_LINE.fullmatch(first)
        if sep:
            first = lines.pop(0).decode() if lines else ""
        delimiter = sep[1] if sep else max(_DELIMITERS, key=re.sub(r'"[^"]*"', "", first).count)
        names = next(csv.reader([first], delimiter=delimiter), [])
    except UnicodeDecodeError:
        raise _bad(path, "it is not UTF-8") from None
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise _bad(path, "it is not what gzip writes") from None
    except csv.Error:
        raise _bad(path, "its first line can't be read") from None
    if not names:
        raise _bad(path, "it has no first line of column names")
    form = _Form(delimiter, tuple(_distinct(names)), int(sep is not None))
    return replace(form, floats=_floats(form, path, lines[:-1], run))


def _floats(form: _Form, path: str, lines: Sequence[bytes], run: Run) -> tuple[str, ...]:
    """Look at the first lines, and at the whole of the columns that may be floats by these."""
    texts = [line.decode("utf-8", "replace") for line in lines]
    with suppress(csv.Error):
        columns = zip_longest(*csv.reader(texts, delimiter=form.delimiter), fillvalue="")
        found = [
            name
            for name, values in zip(form.names, columns, strict=False)
            if any(values) and all(re.fullmatch(_IS_FLOAT, one) for one in values if one)
        ]
        if found:
            looks = ", ".join(
                f"bool_and(regexp_full_match({query.quoted(name)}, '{_IS_FLOAT}'))"
                for name in found
            )
            [are] = run(f"SELECT {looks} FROM ({_read(form, [path])})")
            return tuple(name for name, is_float in zip(found, are, strict=True) if is_float)
    return ()


def _distinct(names: Sequence[str]) -> list[str]:
    """Number the names that occur before, in any case, and those that are empty."""
    seen: set[str] = set()
    distinct = []
    for position, name in enumerate(names):
        one = name if name and name.casefold() not in seen else f"{name}_{position}"
        seen.add(one.casefold())
        distinct.append(one)
    return distinct


def _read(form: _Form, paths: Sequence[str]) -> str:
    files = ", ".join(query.text(as_pattern(path)) for path in paths)
    columns = ", ".join(f"{query.text(name)}: 'VARCHAR'" for name in form.names)
    whole = ", ".join(
        f"regexp_replace({query.quoted(name)}, '[.,]0$', '') AS {query.quoted(name)}"
        for name in form.floats
    )
    return (
        f"SELECT *{f' REPLACE ({whole})' if whole else ''} "
        f"FROM read_csv([{files}], columns = {{{columns}}}, "
        f"delim = {query.text(form.delimiter)}, skip = {form.lines_before}, {_OPTIONS})"
    )


def as_pattern(path: str) -> str:
    """Write a path as a pattern that fits only it."""
    return re.sub(r"([*?\[])", r"[\1]", path)


def _bad(path: str, reason: str) -> SourceError:
    return SourceError(
        f"{path!r} (USMS_SOURCE_URL): {reason}. Fix the file, or save it again as CSV in UTF-8."
    )
