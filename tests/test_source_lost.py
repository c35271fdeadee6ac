"""A source that dies while it is read, or has fewer rows than before: what was read is kept."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.account import START, Account
from tests.services import Database, running_mariadb, running_postgresql
from usms_pipeline.contract.errors import SourceError, SourceUnavailable
from usms_pipeline.days import file
from usms_pipeline.pipeline import Pipeline, Progress
from usms_pipeline.store.dataset import Window

BULK = 20_000
"""Rows of 2 kB: more than fits between a server and its client."""

_BACKENDS = {
    "postgresql": (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid()",
        "SELECT pg_terminate_backend({})",
    ),
    "mariadb": (
        "SELECT id FROM information_schema.processlist WHERE db = DATABASE() "
        "AND id <> CONNECTION_ID()",
        "KILL {}",
    ),
}
_SERIES = {
    "postgresql": "SELECT 'bulk-' || g, '+8613800138000', timestamp '{at}', repeat('x', 2000) "
    "FROM generate_series(1, {rows}) g",
    "mariadb": "SELECT concat('bulk-', seq), '+8613800138000', '{at}', repeat('x', 2000) "
    "FROM seq_1_to_{rows}",
}


def fill(database: Database, kind: str, messages: pa.Table) -> None:
    """Make a table of these messages, and of as many more as takes a while to read."""
    database.execute(
        "CREATE TABLE sms_log (session_no varchar(40), phone varchar(20), sent_at timestamp(6), "
        "note text)"
    )
    for row in messages.to_pylist():
        at = row["sent_at"].strftime("%Y-%m-%d %H:%M:%S.%f")
        database.execute(
            f"INSERT INTO sms_log VALUES ('{row['session_no']}', '{row['phone']}', '{at}', '')"
        )
    series = _SERIES[kind].format(at=f"{START - timedelta(days=1):%Y-%m-%d %H:%M:%S}", rows=BULK)
    database.execute(f"INSERT INTO sms_log {series}")


def read_until(account: Account, happens: Callable[[], None]) -> Pipeline:
    """A pipeline in whose read of the source something happens, once rows have come."""
    has_happened = []

    def watch(progress: Progress) -> None:
        if progress.phase == "source" and not has_happened:
            has_happened.append(progress.done)
            assert 0 < progress.done < BULK, "not in the middle"
            happens()

    return Pipeline(account.settings, clock=account.clock, on_progress=watch)


def account_of(database: Database, kind: str, folder: Path, simulator: Any) -> Account:
    """An account whose source is a table of 40 messages and much more, not read yet."""
    given = {"source_url": database.url, "source_table": "sms_log", "dimensions": "note"}
    account = Account(folder, simulator, 40, **given)
    fill(database, kind, pq.read_table(account.source))
    return account


def assert_recovers(account: Account, database: Database) -> None:
    assert account.pipeline.store.names("") == [], "nothing half read was merged"
    database.execute("DELETE FROM sms_log WHERE session_no LIKE 'bulk-%'")
    report = account.run()
    assert report.rows_read == 40
    assert gone(report) == [], "what was never merged is not missed"
    assert account.pipeline.conservation(account.window.days()) == []
    assert account.sql("SELECT count(*) FROM receipts WHERE is_announced") == [(40,)]


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_database_that_hangs_up_in_the_middle_of_a_read_changes_nothing(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, simulator: Any
) -> None:
    database: Database = request.getfixturevalue(kind)
    account = account_of(database, kind, tmp_path, simulator)
    find, kill = _BACKENDS[kind]

    def hang_up() -> None:
        for (backend,) in database.execute(find):
            database.execute(kill.format(backend))

    with pytest.raises(SourceUnavailable, match=r"run again|Can't reach"):
        read_until(account, hang_up).run(account.window)
    assert_recovers(account, database)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_database_server_that_dies_in_the_middle_of_a_read_changes_nothing(
    kind: str, tmp_path: Path, simulator: Any
) -> None:
    with {"postgresql": running_postgresql, "mariadb": running_mariadb}[kind]() as server:
        database = server.database()
        account = account_of(database, kind, tmp_path, simulator)
        with pytest.raises(SourceUnavailable, match=r"run again|Can't reach"):
            read_until(account, server.kill).run(account.window)
        server.start()
        assert_recovers(account, database)


# -- fewer rows than before -------------------------------------------------------------------


def gone(report: Any) -> list[str]:
    return [warning for warning in report.warnings if "no longer in the source" in warning]


def test_only_rows_of_the_days_that_are_read_are_missed(tmp_path: Path, simulator: Any) -> None:
    """A backfill of one day reads an hour of its neighbours, and misses nothing of theirs."""
    account = Account(tmp_path, simulator, 200)
    messages = pq.read_table(account.source)
    midnight = START.replace(hour=0, minute=0)
    torn = [  # one session over midnight: its day is merged when only the next one is read
        messages.slice(n, 1).to_pylist()[0]
        | {"session_no": "torn", "sent_at": midnight + timedelta(minutes=minutes)}
        for n, minutes in enumerate((-10, 10))
    ]
    account.announce(pa.concat_tables([messages, pa.Table.from_pylist(torn, messages.schema)]))
    account.run()
    days = file.days(account.pipeline.store)
    for day in days:
        report = account.pipeline.run(Window(day, day))
        assert gone(report) == []
    assert set(report.days) >= set(days[-2:]), "the day before was looked at as well"
    account.announce(messages.slice(0, 0))
    [(rows,)] = account.sql(
        f"SELECT count(*) FROM receipts WHERE is_announced AND sent_date = '{days[0]}'"
    )
    (told,) = gone(account.pipeline.run(Window(days[0], days[0])))
    assert told.startswith(f"{rows} rows")


def test_a_table_dropped_or_a_file_cut_short_is_an_error_and_loses_nothing(
    tmp_path: Path, simulator: Any, postgresql: Database
) -> None:
    account = Account(tmp_path, simulator, 60)
    account.run()
    before = account.rows()
    whole = account.source.read_bytes()
    account.source.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"USMS_SOURCE_URL|was lost"):
        account.run()
    account.source.unlink()
    with pytest.raises(SourceError, match="no file"):
        account.run()
    account.given |= {"source_url": postgresql.url, "source_table": "sms_log"}
    with pytest.raises(SourceError, match="no table 'sms_log'"):
        account.run()
    assert account.rows() == before
    account.source.write_bytes(whole)
    account.given |= {"source_url": str(account.source), "source_table": None}
    account.run()
    assert account.rows() == before
