"""`usms run --all` as a user runs it, from every kind of source: the same receipts, the true ones.

Six tables of the same 10,000 messages of four days, each with odd names and in its own types; a
real service over loopback, whose clock stands so that it says the same to all six.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from tests import source_tables
from tests.processes import usms
from tests.source_tables import DIMENSIONS, PHONE, RECIPIENTS, SENT_AT, SESSION, Row
from usms_pipeline.contract.status import FINAL
from usms_pipeline.people.phones import PhoneBook
from usms_pipeline.simulator import ACCESS_KEY_ID, ACCESS_KEY_SECRET, Simulator, serve

pytestmark = pytest.mark.long

KEY = "5e" * 32
CUTOFF = timedelta(hours=72)
ASKED_AT = ("first_asked_at", "last_asked_at", "final_at", "last_open_at", "_state")

Receipts = list[dict[str, Any]]


@cache
def now() -> datetime:
    """When the service's clock stopped: as these tests began."""
    return datetime.now(UTC).replace(microsecond=0)


def rows() -> list[Row]:
    """The messages, moved to the four days before ``now``, in whole milliseconds.

    The youngest is an hour old: old enough to be asked about. None is near the cutoff, so that
    the minutes between two runs close nothing.
    """
    moved = now() - timedelta(hours=97) - source_tables.FIRST
    ages_kept = timedelta(hours=71), timedelta(hours=73)
    found = []
    for session, sent_at, *rest in source_tables.rows():
        at = sent_at + moved
        at = at.replace(microsecond=at.microsecond // 1000 * 1000)
        if ages_kept[0] < now() - at < ages_kept[1]:
            at -= timedelta(hours=2)
        found.append((session, at, *rest))
    return found


def service(some: list[Row]) -> Simulator:
    """The service that took these messages, as it is at ``now`` for ever."""
    columns = [[one[n] for one in some] for n in range(4)]
    phones = [None if phone is None else f"+86{phone}" for phone in columns[2]]
    messages = pa.table(
        [columns[0], phones, pa.array(columns[1], pa.timestamp("us", "UTC")), columns[3]],
        names=["session_no", "phone", "sent_at", "recipients"],
    )
    return Simulator(messages, seed=11, clock=now)


def in_sqlite_as_epoch(folder: Path, some: list[Row]) -> str:
    """SQLite, with times as milliseconds since 1970."""
    url = source_tables.in_sqlite(folder, some)
    (path,) = folder.glob("*.db")
    with closing(sqlite3.connect(path)) as connection, connection:
        column = f'"{SENT_AT}"'
        connection.executemany(
            f'UPDATE "sms.log 短信" SET {column} = ? WHERE {column} = ?',
            [(round(one[1].timestamp() * 1000), one[1].isoformat(" ")) for one in some],
        )
    return url


KINDS = ("postgresql", "mariadb", "sqlite", "duckdb", "parquet", "csv")
"""Their times: aware, naive, epoch, naive, aware, text."""


def make(kind: str, folder: Path, some: list[Row], request: pytest.FixtureRequest) -> str:
    """Make the table in a kind of source; gives its URL."""
    if kind == "sqlite":
        return in_sqlite_as_epoch(folder, some)
    place = request.getfixturevalue(kind) if kind in ("postgresql", "mariadb") else folder
    return str(getattr(source_tables, f"in_{kind}")(place, some))


def run(folder: Path, source_url: str, base_url: str) -> dict[str, Any]:
    """Run the command as a user does; gives what it prints."""
    given = {
        "base_url": base_url,
        "access_key_id": ACCESS_KEY_ID,
        "access_key_secret": ACCESS_KEY_SECRET,
        "source_url": source_url,
        "source_table": "sms.log 短信",
        "session_column": SESSION,
        "sent_at_column": SENT_AT,
        "phone_column": PHONE,
        "recipients_column": RECIPIENTS,
        "dimensions": json.dumps(DIMENSIONS),
        "phone_key": KEY,
        "start_date": (now() - timedelta(days=9)).date(),
    }
    ran = usms(SimpleNamespace(folder=folder, given=given), "run", "--all", "--format", "json")
    assert ran.code == 0, ran
    report: dict[str, Any] = json.loads(ran.out)
    return report


def receipts(folder: Path) -> Receipts:
    """Every row of the dataset, in one order."""
    glob = folder / "data/receipts/*/receipts.parquet"
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        table = con.sql(
            f"FROM read_parquet('{glob}', hive_partitioning = true) ORDER BY ALL"
        ).to_arrow_table()
    found: Receipts = table.to_pylist()
    return sorted(found, key=lambda row: repr([row[n] for n in row if n not in ASKED_AT]))


def comparable(found: Receipts) -> Receipts:
    """The rows without the times at which the service happened to be asked."""
    return [{name: row[name] for name in row if name not in ASKED_AT} for row in found]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Receipts:
    """What one source gives; the others must give the same."""
    folder, some = tmp_path_factory.mktemp("reference"), rows()
    with serve(service(some)) as url:
        run(folder, source_tables.in_parquet(folder, some), url)
    return comparable(receipts(folder))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source_gives_the_same_true_receipts(kind, tmp_path, request, reference):
    some = rows()
    source_url, asked = make(kind, tmp_path, some, request), service(some)
    with serve(asked) as base_url:
        again = partial(run, tmp_path, source_url, base_url)
        report = again()
        assert report["rows_read"] == len(some) == 10_000
        found = receipts(tmp_path)
        before = asked.counters.ids_asked.copy()
        assert set(before) == {one[0] for one in some if one[0]}
        assert set(before.values()) == {1}

        again()
        asked_again = asked.counters.ids_asked - before
    final = {row["session_no"] for row in found if row["is_final"]}
    not_final = {row["session_no"] for row in found if not row["is_final"]}
    assert not set(asked_again) & (final - not_final), "asked about a session that was final"
    assert not asked.counters.asked_after_final
    assert_true(found, some, asked)
    assert comparable(found) == reference


def assert_true(found: Receipts, some: list[Row], asked: Simulator) -> None:
    """Compare with what the service knows: final statuses one by one, open ones by session."""
    assert Counter(map(outcome_found, found)) == expected(some, asked)
    carried = {one[0]: tuple(map(as_text, one[4:])) for one in some if one[0]}
    sent = {one[0]: one[1] for one in some}
    for row in found:
        if row["session_no"] is not None:
            assert tuple(row[name] for name in DIMENSIONS) == carried[row["session_no"]]
            assert row["sent_at"] == sent[row["session_no"]]
        assert str(row["sent_date"]) == str(row["sent_at"].date())


def outcome_found(row: dict[str, Any]) -> tuple[Any, ...]:
    """Return a row's final status; without one, only its session and status."""
    if not row["is_final"]:
        return row["session_no"], row["status"], row["is_announced"]
    names = ("session_no", "status", "is_announced", "recipient", "received_at", "provider_status")
    return *(row[name] for name in names), row["provider_code"], row["provider_desc"]


def expected(some: list[Row], asked: Simulator) -> Counter[tuple[Any, ...]]:
    """The rows that there must be, each as ``outcome_found`` tells it."""
    book = PhoneBook(bytes.fromhex(KEY), "CN", "masked")
    wanted: Counter[tuple[Any, ...]] = Counter()
    wanted[(None, "invalid", True)] = sum(one[3] for one in some if one[0] is None)
    for row in asked.truth(now()).to_pylist():
        session, status = row["session_no"], row["status"]
        if status not in FINAL:
            is_closed = status == "pending" and row["sent_at"] <= now() - CUTOFF
            wanted[(session, "unknown" if is_closed else status, True)] += 1
            continue
        at = row["received_at"].replace(microsecond=0)  # the service tells whole seconds
        words = (row["provider_status"], row["provider_code"], row["provider_desc"])
        wanted[(session, status, True, book.recipient_id(row["phone"]), at, *words)] += 1
    return wanted


def as_text(value: Any) -> str | None:
    """Write a source's value as the dataset has it."""
    if isinstance(value, Decimal):
        return str(value)
    return None if value is None else str(value)
