"""What a folder holds, and in what it differs from what it should hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from tests.plug.scenarios import KEY, Scenario
from usms_pipeline.contract.errors import UsmsError
from usms_pipeline.days import file, log, quarantine
from usms_pipeline.people import forget
from usms_pipeline.people.phones import PhoneBook
from usms_pipeline.store.storage import Store

Rows = list[tuple[Any, ...]]

_NOT_COMPARED = "first_asked_at, last_asked_at, final_at, last_open_at, _state"
"""When it was asked: another moment in every process."""


@dataclass(frozen=True)
class Seen:
    """All that must be the same after any kill."""

    rows: Rows
    buckets: Counter[str]
    quarantine: Counter[tuple[Any, ...]]
    told: frozenset[str]
    """The sessions that responses are kept of."""
    published: Rows
    """The rows of the warehouse, all columns; ``all_rows`` are those of the dataset."""
    all_rows: Rows


def seen(root: Path, has_own_key: bool = False) -> Seen:
    """Read a folder. Recipients can't be compared where every run makes a key of its own."""
    store = Store(str(root / "data"))
    left_out = f"{_NOT_COMPARED}, recipient" if has_own_key else _NOT_COMPARED
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.execute(f"ATTACH '{root}/data/usms.duckdb' AS w (READ_ONLY)")
        con.execute(
            f"CREATE VIEW receipts AS FROM read_parquet('{root}/data/receipts/*/*.parquet', "
            "hive_partitioning = true)"
        )
        columns = ", ".join(row[0] for row in con.execute("DESCRIBE w.receipts").fetchall())
        compared = f"SELECT * EXCLUDE ({left_out}) FROM receipts ORDER BY ALL"
        buckets = "SELECT status, count(*) FROM receipts WHERE is_announced GROUP BY 1"
        entries = quarantine.entries(store, None)
        return Seen(
            rows=con.execute(compared).fetchall(),
            buckets=Counter(dict(con.execute(buckets).fetchall())),
            quarantine=Counter((entry.kind, entry.session_no, entry.state) for entry in entries),
            told=frozenset().union(*landed(root).values()),
            published=con.execute(f"SELECT {columns} FROM w.receipts ORDER BY ALL").fetchall(),
            all_rows=con.execute(f"SELECT {columns} FROM receipts ORDER BY ALL").fetchall(),
        )


def problems(root: Path, expected: Seen, scenario: Scenario) -> list[str]:
    """Report how a folder differs from an undisturbed one; empty when in nothing."""
    amiss = lost(root, expected, scenario)
    told = frozenset().union(*landed(root).values())
    if told != expected.told:
        amiss.append(f"responses of {told ^ expected.told}")
    left = [*hidden(root), *root.glob("data/.locks/responses/*"), *root.glob("data/*/open/*")]
    return amiss + [f"left behind: {path.relative_to(root)}" for path in left]


def lost(root: Path, expected: Seen, scenario: Scenario) -> list[str]:
    """Report what was lost or duplicated; a file that came back though deleted is no matter."""
    store = Store(str(root / "data"))
    try:
        found = seen(root, scenario.has_own_key)
        amiss = [said for day in file.days(store) if (said := file.wrong_counts(store, day))]
    except (UsmsError, duckdb.Error, OSError, ValueError) as error:
        return [f"can't be read: {type(error).__name__}: {error}"]
    compared = (
        ("rows", Counter(map(repr, found.rows)), Counter(map(repr, expected.rows))),
        ("buckets by the service", found.buckets, scenario.truth),
        ("quarantine", found.quarantine, expected.quarantine),
    )
    amiss += [
        f"{name}: {has - wanted} too many, {wanted - has} too few"
        for name, has, wanted in compared
        if has != wanted
    ]
    if found.published != found.all_rows:
        amiss.append("the warehouse is not the dataset")
    return amiss + [f"still names a forgotten phone: {name}" for name in named(root, scenario)]


def hidden(root: Path) -> list[Path]:
    """List the temporary files, locks apart."""
    found = [path for path in root.rglob(".*") if path.is_file()]
    return [path for path in found if path.parent.name != ".locks"]


def landed(root: Path) -> dict[str, set[str]]:
    """Return the sessions that each finished response file has an answer about."""
    store = Store(str(root / "data"))
    return {
        name: {session for ids in store.read(name)["ids"].to_pylist() for session in ids}
        for run in log.runs(store)
        for name in log.blocks(store, run)
    }


def named(root: Path, scenario: Scenario) -> list[str]:
    """List the files that still hold a phone that was to be forgotten; tombstones may."""
    book = PhoneBook(bytes.fromhex(KEY), "CN", "masked")
    words = [word for phone in scenario.gone for word in (phone[3:], book.recipient_id(phone))]
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and words]
    return [
        str(path.relative_to(root))
        for path in files
        if path.name != forget.TOMBSTONES and any(word.encode() in _text(path) for word in words)
    ]


def _text(path: Path) -> bytes:
    if path.suffix != ".parquet":
        return path.read_bytes()
    return str(pq.read_table(path).to_pylist()).encode()
