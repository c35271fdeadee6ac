"""The throw-away database: what is piled up in it stays within its memory."""

from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from usms_pipeline import schema, scratch
from usms_pipeline.errors import StorageError
from usms_pipeline.warehouse import publish

ROWS = 40_000


def observed() -> pa.Table:
    """Give observations as one portion of a large day has them."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    row = {
        "phone": "+86138****00", "country": "CN", "operator": "China Mobile",
        "number_type": "mobile", "asked_at": at, "received_at": at, "rank": 1, "code": "0",
        "word": "delivered", "status": "delivered", "description": "delivered to the handset",
        "submit_status": "success", "segments": 1, "is_final": True,
        "session_submit_status": "success", "digits": "8613800138000",
    }  # fmt: skip
    columns = {name: [value] * ROWS for name, value in row.items()}
    columns |= {name: [uuid.uuid4().hex for _ in range(ROWS)] for name in ("session_no", "number")}
    return pa.table(columns, schema.OBSERVATIONS)


@pytest.mark.parametrize("kind", [duckdb.FatalException, duckdb.TransactionException])
def test_what_does_not_fit_is_told_however_duckdb_says_it(kind: type[duckdb.Error]) -> None:
    said = r"more than 64MB of memory.*run again"
    with pytest.raises(StorageError, match=said), scratch.database("64MB"):
        raise kind("The autocheckpoint failed: failed to allocate data of size 3.0 MiB")
    with pytest.raises(kind, match="another"), scratch.database("64MB"):
        raise kind("another trouble")


def test_the_memory_is_shared_among_so_many_threads_whatever_the_machine_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scratch.THREADS == 2
    another = (os.cpu_count() or 1) + 1
    monkeypatch.setattr(scratch, "THREADS", another)
    for opened in (
        scratch.database(),
        scratch.database(is_large=True),
        publish._building(tmp_path / "usms.duckdb", "64MB", is_copy=False),
    ):
        with opened as con:
            assert scratch.value(con, "SELECT current_setting('threads')") == another


def test_a_database_used_again_is_empty_and_set_as_at_first() -> None:
    with scratch.Reused() as reused:
        for _ in range(2):
            with reused.database() as con:
                con.register("rows", pa.table({"a": [1]}))
                con.execute("CREATE TABLE kept AS FROM rows")
                con.execute('CREATE VIEW "a view" AS FROM kept')
                assert scratch.value(con, "SELECT count(*) FROM duckdb_tables()") == 1
                assert con.execute("SELECT current_setting('TimeZone')").fetchall() == [("UTC",)]
                disabled = con.execute("SELECT current_setting('disabled_optimizers')").fetchall()
                assert disabled == [("",)]
                con.execute("SET disabled_optimizers = 'join_order'")
                with pytest.raises(duckdb.CatalogException):
                    con.execute("FROM con")


def test_a_database_used_again_is_opened_once_and_only_when_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[str] = []
    connect = duckdb.connect
    monkeypatch.setattr(duckdb, "connect", lambda *a, **k: opened.append("") or connect(*a, **k))
    with scratch.Reused() as reused:
        assert len(opened) == 0
        for _ in range(3):
            with reused.database():
                assert len(opened) == 1


def test_what_does_not_fit_is_told_of_a_database_used_again() -> None:
    said = r"more than 64MB of memory.*run again"
    with pytest.raises(StorageError, match=said), scratch.Reused("64MB") as reused:  # noqa: PT012
        with reused.database() as con:
            con.execute("SET temp_directory = ''")
        with reused.database() as con:
            con.execute("CREATE TABLE many AS SELECT uuid()::VARCHAR FROM range(10_000_000)")


@pytest.mark.long
def test_a_pile_of_ten_million_observations_settles_in_the_memory_of_a_large_day() -> None:
    """The last part once went in by 40,000 rows, and each of these inserts rewrote the table."""
    rows = observed()
    with scratch.database(scratch.LARGE_LIMIT, is_large=True) as con:
        pile = scratch.Pile(con, "observations", schema.OBSERVATIONS)
        for _ in range(250):
            pile.add(rows)
        pile.settle()
        assert scratch.value(con, "SELECT count(*) FROM observations") == 250 * ROWS
