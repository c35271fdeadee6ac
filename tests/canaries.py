"""Secrets and phone numbers that occur nowhere else, and a search for any trace of them.

``found`` looks at text as a person with a search box would: in any spelling, in base64, percent-
encoded. ``everything`` reads files: Parquet and DuckDB decoded too.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import duckdb
import pyarrow.parquet as pq

KEY_ID, KEY_SECRET = "AKID-canary/ZQX=", "canary+SECRET/WVU="
PASSWORD = "canary:pass/word%TSR"
PHONE_KEY = "c0ffee15" * 8
SECRETS = (KEY_ID, KEY_SECRET, PASSWORD, PHONE_KEY, PHONE_KEY.upper())

PHONES = ("+8613987654321", "+447911654987", "+4915123498765", "+14158675309", "+8618576149203")
NATIONAL = ("13987654321", "7911654987", "15123498765", "4158675309", "18576149203")
"""Ten digits or more, so that no figure is taken for one by chance."""
SPELLINGS = (
    "{e164}", "{digits}", "00{digits}", "({code}){national}", "(00{code}) {spaced}",
    "+{code}-{dashed}", "tel:{e164}",
)  # fmt: skip
BASIC = b64encode(f"{KEY_ID}:{KEY_SECRET}".encode()).decode()

_JUNK = re.compile(r"[\s().\-/_\u00a0\u2010-\u2015]")


def spelled(nth: int) -> str:
    """Give a canary's number in one of many spellings."""
    e164, national = PHONES[nth % len(PHONES)], NATIONAL[nth % len(PHONES)]
    parts = {
        "e164": e164,
        "digits": e164[1:],
        "code": e164[1 : len(e164) - len(national)],
        "national": national,
        "spaced": " ".join((national[:3], national[3:6], national[6:])),
        "dashed": "-".join((national[:4], national[4:])),
    }
    return SPELLINGS[nth // len(PHONES) % len(SPELLINGS)].format(**parts)


def found(text: str) -> list[str]:
    """Name the canaries that a text gives away."""
    folded = text.casefold()
    secrets = {form for s in (*SECRETS, BASIC) for form in (s, quote(s, safe=""), quote(s))}
    secrets |= {b64encode(s.encode()).decode().rstrip("=") for s in SECRETS}
    told = [secret for secret in sorted(secrets) if secret.casefold() in folded]
    digits = _JUNK.sub("", text)
    return told + [number for number in NATIONAL if number in digits]


def everything(folder: Path, left_out: tuple[str, ...] = ()) -> Iterator[tuple[Path, str]]:
    """Give every file below a folder as text: its name, its bytes, and what these mean."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or any(part in left_out for part in path.parts):
            continue
        raw = path.read_bytes()
        yield path, f"{path.name}\n{raw.decode('latin-1')}\n{raw.decode('utf-8', 'replace')}"
        if path.suffix == ".parquet":
            file = pq.ParquetFile(path)
            yield path, f"{file.schema_arrow.metadata} {file.metadata.metadata} {file.read()!s}"
            yield path, str(file.read().to_pylist())
        elif path.suffix == ".duckdb":
            yield from ((path, text) for text in _tables(path))


def _tables(path: Path) -> Iterator[str]:
    """Give every row of every table, and the text of every view and macro."""
    with duckdb.connect(str(path), read_only=True) as con:
        for (name,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            yield str(con.execute(f'FROM "{name}"').fetchall())
        yield str(con.execute("SELECT sql FROM duckdb_views()").fetchall())
        yield str(
            con.execute("SELECT macro_definition, comment FROM duckdb_functions()").fetchall()
        )


def leaks(folder: Path, left_out: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """Name what files give away, by file."""
    told = {
        str(path.relative_to(folder)): found(text) for path, text in everything(folder, left_out)
    }
    return {name: canaries for name, canaries in told.items() if canaries}
