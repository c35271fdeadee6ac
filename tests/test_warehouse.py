"""Publishing the warehouse: what is rewritten, what survives, and that nobody waits for anybody."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

import usms_pipeline
from tests import cohorts
from tests.cohorts import DAY, NOON, receipt
from tests.examples import examples
from usms_pipeline.contract import schema
from usms_pipeline.contract.errors import (
    OtherWarehouse,
    StorageError,
    UsmsError,
)
from usms_pipeline.days import file
from usms_pipeline.days.file import Footer
from usms_pipeline.figures import queries
from usms_pipeline.settings import Settings
from usms_pipeline.store.storage import Store
from usms_pipeline.warehouse import (
    Change,
    Publishing,
    bounded,
    building,
    connect,
    ddl,
    reconcile,
)

NEXT_DAY = DAY + timedelta(days=1)
LATER = NOON + timedelta(days=1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return cohorts.settings(tmp_path)


def ask(settings: Settings, query: str) -> list[tuple[Any, ...]]:
    with connect(settings.warehouse_path) as con:
        return con.execute(query).fetchall()


def sessions(settings: Settings) -> list[str]:
    return [row[0] for row in ask(settings, "SELECT session_no FROM receipts ORDER BY ALL")]


def left_behind(settings: Settings) -> list[str]:
    folder = settings.warehouse_path.parent
    return sorted(path.name for path in folder.glob("*usms.duckdb*") if path.name != "usms.duckdb")


# -- what is in the file ----------------------------------------------------------------------


def test_the_published_table_has_the_contracts_columns_types_and_comments(store, settings):
    cohorts.write(store, [receipt()], dimensions=("template",))
    reconcile(store, settings)
    columns = ask(
        settings,
        "SELECT column_name, data_type, comment FROM duckdb_columns() "
        "WHERE database_name = 'usms' AND table_name = 'receipts' ORDER BY column_index",
    )
    fields = {field.name: field for field in [*schema.receipts_fields(), schema.SENT_DATE]}
    names = [column[0] for column in columns]
    after = names.index("sent_at") + 1
    assert names[after : after + 2] == ["sent_date", "template"]
    assert [n for n in names if n not in ("sent_date", "template")] == [
        field.name for field in schema.receipts_fields()
    ]
    for name, _, comment in columns:
        if name in fields:
            assert comment.startswith(fields[name].description)
    types = {name: kind for name, kind, _ in columns}
    assert types["sent_at"] == types["final_at"] == "TIMESTAMP WITH TIME ZONE"
    assert types["sent_date"] == "DATE"
    assert types["conflicts"] == "VARCHAR[]"


def test_the_file_is_read_only_and_of_the_format_that_duckdb_1_5_opens(store, settings):
    cohorts.write(store, [receipt()])
    reconcile(store, settings)
    assert stat.S_IMODE(settings.warehouse_path.stat().st_mode) == 0o444
    versions = "SELECT tags['storage_version'] FROM duckdb_databases() WHERE database_name = 'usms'"
    assert ask(settings, versions) == [("v1.5.0+",)]
    with pytest.raises(duckdb.Error, match="read-only"):
        ask(settings, "DELETE FROM receipts")


# -- what is rewritten ------------------------------------------------------------------------


def test_a_dataset_that_went_away_unpublishes_nothing(store, tmp_path):
    """One that was emptied on purpose is published once the old file is deleted, or made again."""
    settings = cohorts.settings(tmp_path / "data", warehouse=str(tmp_path / "elsewhere.duckdb"))
    store = Store(settings.data_dir)
    cohorts.write(store, [receipt(session_no="a")])
    reconcile(store, settings)
    store.delete(file.name(DAY))
    with pytest.raises(StorageError, match=r"1 days are published in .* Put it back"):
        reconcile(store, settings)
    assert sessions(settings) == ["a"]
    assert reconcile(store, settings, is_from_scratch=True).rows == 0
    cohorts.write(store, [receipt(session_no="b")])
    reconcile(store, settings)
    store.delete(file.name(DAY))
    settings.warehouse_path.unlink()
    assert reconcile(store, settings).rows == 0
    assert sessions(settings) == []


def test_a_dimension_added_later_is_null_in_old_partitions_and_gone_with_the_last(store, settings):
    cohorts.write(store, [receipt()])
    reconcile(store, settings)
    rows = [receipt(sent_at=LATER, template="welcome")]
    cohorts.write(store, rows, NEXT_DAY, dimensions=("template",))
    reconcile(store, settings)
    query = "SELECT sent_date, template FROM receipts ORDER BY sent_date"
    assert ask(settings, query) == [(DAY, None), (NEXT_DAY, "welcome")]
    cohorts.write(store, rows, NEXT_DAY)
    reconcile(store, settings)
    assert "template" not in [row[0] for row in ask(settings, "DESCRIBE receipts")]


def test_dimensions_that_differ_in_case_alone_share_a_column(store, settings):
    cohorts.write(store, [receipt(City="Lyon")], dimensions=("City",))
    cohorts.write(store, [receipt(city="Oslo", sent_at=LATER)], NEXT_DAY, dimensions=("city",))
    reconcile(store, settings)
    assert ask(settings, "SELECT city FROM receipts ORDER BY 1") == [("Lyon",), ("Oslo",)]


def test_another_cutoff_is_published_without_reading_a_partition(store, settings, tmp_path):
    late = receipt("unknown", is_closed=True, first_asked_at=NOON + timedelta(hours=30))
    cohorts.write(store, [late])
    reconcile(store, settings)
    query = "SELECT first_asked_too_late FROM delivery_rate_daily"
    assert ask(settings, query) == [(0,)]
    report = reconcile(store, cohorts.settings(tmp_path, cutoff_hours=24))
    assert (report.partitions_changed, report.is_skipped) == (0, False)
    assert ask(settings, query) == [(1,)]


# -- what goes wrong --------------------------------------------------------------------------


@examples(2, "kind", ["garbage", "empty", "truncated", "foreign"])
def test_a_file_that_can_not_be_read_is_built_anew(store, settings, kind):
    cohorts.write(store, [receipt(session_no="a")])
    path = settings.warehouse_path
    reconcile(store, settings)
    whole = path.read_bytes()
    path.unlink()
    if kind == "foreign":
        with duckdb.connect(path) as con:
            con.execute("CREATE TABLE receipts AS SELECT 1 AS n")
    else:
        bodies = {"garbage": os.urandom(9_000), "empty": b"", "truncated": whole[: len(whole) // 2]}
        path.write_bytes(bodies[kind])
    assert not reconcile(store, settings).is_skipped
    assert sessions(settings) == ["a"]


def test_a_damaged_block_is_found_when_refreshing_and_the_file_built_anew(store, settings):
    for n in range(4):
        rows = [receipt(sent_at=NOON + timedelta(days=n)) for _ in range(3_000)]
        cohorts.write(store, rows, DAY + timedelta(days=n))
    reconcile(store, settings)
    path = settings.warehouse_path
    path.chmod(0o600)
    body = bytearray(path.read_bytes())
    body[len(body) // 3 : len(body) - 4096] = os.urandom(len(body) - 4096 - len(body) // 3)
    path.write_bytes(body)
    cohorts.write(store, [receipt()])
    reconcile(store, settings)
    assert ask(settings, "SELECT count(*), count(DISTINCT recipient) FROM receipts") == [
        (9_001,) * 2
    ]


def test_rows_changed_behind_our_back_come_back(store, settings):
    for n in range(3):
        cohorts.write(store, [receipt(session_no=str(n))], DAY + timedelta(days=n))
    reconcile(store, settings)
    settings.warehouse_path.chmod(0o600)
    with duckdb.connect(settings.warehouse_path) as con:
        con.execute("DELETE FROM receipts WHERE session_no = '1'")
    assert reconcile(store, settings).partitions_changed == 1
    assert sessions(settings) == ["0", "1", "2"]


def test_a_bloated_file_is_rebuilt(store, settings):
    for n in range(4):
        cohorts.write(store, [receipt()], DAY + timedelta(days=n))
    reconcile(store, settings)
    lean = settings.warehouse_path.stat().st_size
    settings.warehouse_path.chmod(0o600)
    with duckdb.connect(settings.warehouse_path) as con:
        con.execute("CREATE TABLE waste AS SELECT random() AS r FROM range(4_000_000)")
        con.execute("CHECKPOINT")
        con.execute("DROP TABLE waste")
    cohorts.write(store, [receipt()])
    reconcile(store, settings)
    assert settings.warehouse_path.stat().st_size <= 2 * lean


def damage(store: Store, day: date, kind: str) -> None:
    path = Path(store.path(file.name(day)))
    body = bytearray(path.read_bytes())
    footer = len(body) - int.from_bytes(body[-8:-4], "little") - 8
    if kind == "rows":
        body[4:footer] = bytes(footer - 4)
    path.write_bytes({"rows": body, "footer": body[:-20], "empty": b""}[kind])


@pytest.mark.parametrize("kind", ["rows", "footer", "empty"])
def test_a_damaged_day_stays_as_it_was_published_and_the_others_go_on(store, settings, kind):
    cohorts.write(store, [receipt(session_no="a")])
    cohorts.write(store, [receipt(session_no="b")], NEXT_DAY)
    reconcile(store, settings)
    cohorts.write(store, [receipt(session_no="lost")])
    damage(store, DAY, kind)
    cohorts.write(store, [receipt(session_no="c")], NEXT_DAY)
    report = reconcile(store, settings)
    assert (report.damaged, report.partitions_changed, report.rows) == ((DAY,), 1, 2)
    assert f"`usms rebuild --from {DAY} --to {DAY}`" in report.warnings[0]
    assert sessions(settings) == ["a", "c"]
    again = reconcile(store, settings)
    assert (again.is_skipped, again.damaged) == (True, (DAY,))
    cohorts.write(store, [receipt(session_no="mended")])
    assert reconcile(store, settings).damaged == ()
    assert sessions(settings) == ["c", "mended"]
    assert left_behind(settings) == []


@examples(1, "kind", ["rows", "footer"])
def test_a_damaged_day_is_kept_in_a_file_that_is_built_from_scratch(
    store, settings, tmp_path, kind
):
    cohorts.write(store, [receipt(session_no="a", conflicts=["failed"])])
    reconcile(store, settings)
    cohorts.write(store, [receipt(session_no="lost")])
    damage(store, DAY, kind)
    rows = [receipt(session_no="b", template="otp")]
    cohorts.write(store, rows, NEXT_DAY, dimensions=("template",))
    settings = cohorts.settings(tmp_path, dimensions=("template",))
    for _ in range(2):
        assert reconcile(store, settings).damaged == (DAY,)
    assert ask(settings, "SELECT session_no, template, conflicts FROM receipts ORDER BY 1") == [
        ("a", None, ["failed"]), ("b", "otp", []),
    ]  # fmt: skip
    assert reconcile(store, settings, is_from_scratch=True).rows == 1
    assert sessions(settings) == ["b"], "anew, nothing is left of what is published"


def test_a_large_day_that_is_damaged_in_its_middle_takes_no_other_with_it(
    store, settings, monkeypatch
):
    monkeypatch.setattr(building, "_INSERTED_AT_ONCE", 0)
    cohorts.write(store, [receipt(session_no="a")])
    reconcile(store, settings)
    cohorts.write(store, [receipt(session_no="lost")] * 3)
    cohorts.write(store, [receipt(session_no="b")] * 3, NEXT_DAY)
    whole = Store.batches

    def broken(self: Store, name: str, *given: Any) -> Iterator[pa.RecordBatch]:
        for batch in whole(self, name, 1, *given[1:]):
            yield batch
            if name == file.name(DAY):
                raise StorageError("torn")

    monkeypatch.setattr(Store, "batches", broken)
    assert reconcile(store, settings).damaged == (DAY,)
    assert sessions(settings) == ["a", "b", "b", "b"]


def test_what_a_killed_publisher_left_is_swept(store, settings):
    folder = settings.warehouse_path.parent
    left = folder / f".usms.duckdb.{'0' * 32}"
    left.write_bytes(b"half")
    spill = folder / f".usms.duckdb.{'0' * 32}.spill"
    spill.mkdir()
    (spill / "block").write_bytes(b"x")
    reconcile(store, settings)
    assert left_behind(settings) == []


# -- loaded while other days are still being written -------------------------------------------


def change(day: date, before: str, after: Footer, *rows: dict[str, Any]) -> Change:
    """A change to these rows of sessions."""
    stored = cohorts.stored(rows)
    return Change(day, before, after.version, stored["session_no"].combine_chunks(), stored)


@pytest.fixture
def publishing(store: Store, settings: Settings) -> Iterator[Publishing]:
    one = Publishing(store, settings)
    yield one
    one.close()


@pytest.mark.parametrize("is_told", [True, False])
@pytest.mark.parametrize("is_first", [True, False])
def test_what_was_loaded_is_not_read_again(store, settings, publishing, is_first, is_told):
    days = [DAY + timedelta(days=n) for n in range(3)]
    known = {}
    if not is_first:
        known = {
            day: cohorts.write(store, [receipt(session_no="old")], day).version for day in days
        }
        reconcile(store, settings)
    told = {}
    for n, day in enumerate(days):
        row = receipt(session_no="old" if n else "new")
        footer = cohorts.write(store, [row] if n else [row, receipt(session_no="old")], day)
        told[day] = change(day, known.get(day, ""), footer, row) if not is_first else None
        publishing.load(day, told[day] if is_told else None)
    for day in days:  # were a file read now, it would be found damaged
        path = Path(store.path(file.name(day)))
        whole = path.read_bytes()
        path.write_bytes(bytes(4) + whole[4:])
        damage(store, day, "rows")
    report = publishing.finish([one for one in told.values() if one])
    assert (report.partitions_changed, report.rows, report.damaged) == (3, 4, ())
    assert sessions(settings) == ["new", "old", "old", "old"]
    assert reconcile(store, settings).is_skipped
    assert left_behind(settings) == []


def test_it_is_loaded_in_one_thread_and_published_in_another(store, settings, publishing):
    footer = cohorts.write(store, [row := receipt(session_no="a")])
    with ThreadPoolExecutor(1) as pool:
        pool.submit(publishing.load, DAY, change(DAY, "", footer, row)).result()
    assert reconcile(store, settings).is_locked
    assert publishing.finish([]).rows == 1
    assert reconcile(store, settings).is_skipped, "the lock is free"


def test_the_first_file_is_begun_before_a_day_is_there(store, settings, publishing):
    publishing.begin()
    footer = cohorts.write(store, [row := receipt(session_no="a")])
    publishing.load(DAY, change(DAY, "", footer, row))
    assert publishing.finish([]).rows == 1
    assert left_behind(settings) == []
    assert sessions(settings) == ["a"]
    with closing(Publishing(store, settings)) as another:
        another.begin()
        assert left_behind(settings) == [], "one is published"


def test_what_is_begun_and_not_needed_leaves_nothing(store, settings, publishing):
    with store.lock("warehouse"):
        publishing.begin()
        assert publishing.finish([]).is_locked
    publishing.begin()
    publishing.close()
    assert left_behind(settings) == []
    assert reconcile(store, settings).rows == 0


def test_what_is_abandoned_leaves_nothing(store, settings, publishing):
    cohorts.write(store, [receipt(session_no="a")])
    publishing.load(DAY, None)
    assert left_behind(settings) != []
    publishing.close()
    assert left_behind(settings) == []
    assert not settings.warehouse_path.exists()
    assert reconcile(store, settings).rows == 1


def test_where_loading_fails_or_another_publishes_all_is_left_to_the_end(
    store, settings, publishing
):
    cohorts.write(store, [receipt(session_no="a")])
    with store.lock("warehouse"):
        publishing.load(DAY, None)
    publishing.load(DAY, None)
    assert left_behind(settings) == []
    assert publishing.finish([]).rows == 1
    another = Publishing(store, settings)
    cohorts.write(store, [receipt(session_no="b")])
    damage(store, DAY, "rows")
    another.load(DAY, None)
    assert left_behind(settings) == []
    cohorts.write(store, [receipt(session_no="c")])
    assert another.finish([]).damaged == ()
    assert sessions(settings) == ["c"]


@pytest.mark.parametrize("is_first", [True, False])
def test_a_dimension_that_turns_up_while_days_are_loaded_is_published(
    store, settings, publishing, is_first
):
    if not is_first:
        cohorts.write(store, [receipt(session_no="a")])
        reconcile(store, settings)
    for day, name in ((DAY, "b"), (NEXT_DAY, "c")):
        cohorts.write(store, [receipt(session_no=name, kind="x")], day, dimensions=("kind",))
        publishing.load(day, None)
    assert publishing.finish([]).rows == 2
    assert ask(settings, "SELECT session_no, kind FROM receipts ORDER BY 1") == [
        ("b", "x"), ("c", "x"),
    ]  # fmt: skip


# -- whole phone numbers ------------------------------------------------------------------------


@pytest.mark.parametrize("is_loaded", [True, False])
def test_masked_numbers_are_not_left_in_the_free_blocks_of_the_file(
    store, settings, publishing, is_loaded
):
    for day in (DAY, NEXT_DAY, NEXT_DAY + timedelta(days=1)):
        cohorts.write(store, [receipt(phone="+8613800138000")] * 9, day, phones="clear")
    report = reconcile(store, settings)
    assert len(report.clear_days) == 3
    assert "3 days still hold unmasked phone numbers" in report.warnings[0]
    cohorts.write(store, [receipt(phone="+8613900139000")], NEXT_DAY, phones="clear")
    cohorts.write(store, [receipt(phone="+86138****00")])
    if is_loaded:
        publishing.load(DAY, None)
    assert len(publishing.finish([]).clear_days) == 2
    with duckdb.connect(settings.warehouse_path, read_only=True) as con:
        assert con.execute("SELECT free_blocks FROM pragma_database_size()").fetchone() == (0,)


# -- readers and the publisher never wait for each other (law 5) ------------------------------


def publish_generation(store: Store, settings: Settings, generation: int) -> None:
    """Rewrite two partitions of four, each row marked; the others hold '-' and stay."""
    for n in range(4) if generation == 0 else range(2):
        mark = str(generation) if n < 2 else "-"
        cohorts.write(store, [receipt(session_no=mark)] * 100, DAY + timedelta(days=n))
    assert not reconcile(store, settings).is_skipped


def generations(con: duckdb.DuckDBPyConnection) -> list[str]:
    marks = "SELECT DISTINCT session_no FROM receipts WHERE session_no <> '-'"
    return [row[0] for row in con.execute(marks).fetchall()]


# -- opening ----------------------------------------------------------------------------------


def test_views_of_another_version_are_reported_and_the_next_run_replaces_them(store, settings):
    publish_generation(store, settings, 1)
    with duckdb.connect(settings.warehouse_path) as con:
        con.execute("DROP MACRO TABLE usms_named; UPDATE usms_definitions SET digest = 'older'")
        con.execute("CREATE VIEW renamed_since AS FROM receipts; CREATE MACRO gone(x) AS x + 1")
        con.execute("CREATE MACRO gone_too(x) AS TABLE SELECT x")
    said = r"this version.*`usms run`.*usms_named"
    with connect(settings.warehouse_path) as con, pytest.raises(OtherWarehouse, match=said):
        queries.rates(con)
    reconcile(store, settings)
    with connect(settings.warehouse_path) as con:
        assert len(queries.rates(con).fetchall()) == 1
        for query in ("FROM renamed_since", "SELECT gone(1)", "FROM gone_too(1)"):
            with pytest.raises(duckdb.CatalogException):
                con.execute(query)


def test_a_file_that_is_replaced_while_it_is_opened_is_opened_again(store, settings, monkeypatch):
    publish_generation(store, settings, 1)
    attach, opened = ddl.attach, 0

    def publishing(path: Path, options: str) -> str:
        nonlocal opened
        opened += 1
        if opened == 1:
            newer = path.with_name("newer.duckdb")
            newer.write_bytes(path.read_bytes())
            newer.replace(path)
        return attach(path, options)

    monkeypatch.setattr(ddl, "attach", publishing)
    with connect(settings.warehouse_path) as con:
        assert generations(con) == ["1"]
    assert opened == 2


def test_the_settings_say_which_file_is_opened(store, tmp_path):
    elsewhere = tmp_path / "it's here.duckdb"
    cohorts.write(store, [receipt(session_no="a")])
    settings = cohorts.settings(tmp_path, warehouse=str(elsewhere))
    reconcile(store, settings)
    with usms_pipeline.connect(data_dir=str(tmp_path), warehouse=str(elsewhere)) as con:
        assert con.execute("SELECT session_no FROM receipts").fetchall() == [("a",)]
        assert con.execute("SELECT sent_at::VARCHAR FROM receipts").fetchone() == (
            "2024-03-01 12:00:00+00",
        )


def test_importing_the_package_loads_neither_duckdb_nor_the_settings():
    code = (
        "import sys, usms_pipeline; "
        "loaded = {'duckdb', 'pydantic', 'pyarrow', 'phonenumbers'} & set(sys.modules); "
        "sys.exit(str(loaded) if loaded else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert callable(usms_pipeline.connect)
    with pytest.raises(AttributeError, match="conect"):
        usms_pipeline.conect  # noqa: B018


def test_our_own_questions_have_the_threads_that_their_memory_is_for(store, settings, monkeypatch):
    cohorts.write(store, [receipt()])
    reconcile(store, settings)
    monkeypatch.setattr("usms_pipeline.warehouse.read.THREADS", 3)
    with bounded(settings.warehouse_path) as con:
        assert con.execute("SELECT current_setting('threads')").fetchall() == [(3,)]


def test_a_question_that_needs_more_memory_says_what_to_ask_instead(store, settings, monkeypatch):
    cohorts.write(store, [receipt()])
    reconcile(store, settings)
    monkeypatch.setattr("usms_pipeline.warehouse.read.MEMORY_TO_ASK", "20MB")
    with pytest.raises(UsmsError, match="fewer days"), bounded(settings.warehouse_path) as con:
        con.execute("SELECT list(i) FROM range(20_000_000) AS t(i)").fetchall()


def test_without_a_temporary_folder_it_says_how_to_name_one(settings, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(StorageError, match="Set TMPDIR"), bounded(settings.warehouse_path):
        pass


def test_what_a_killed_question_spilled_is_removed_by_the_next(
    settings, store, tmp_path, monkeypatch
):
    cohorts.write(store, [receipt()])
    reconcile(store, settings)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("usms_pipeline.warehouse.read._SECONDS_TO_LOCK", -1)
    killed = tmp_path / "usms-spilled-killed"
    killed.mkdir()
    (killed / "duckdb_temp_storage_DEFAULT-0.tmp").write_bytes(b"hashes")
    with bounded(settings.warehouse_path):
        [living] = tmp_path.glob("usms-spilled-*")
        assert living != killed
        with bounded(settings.warehouse_path):
            assert living.exists()
    assert not [*tmp_path.glob("usms-spilled-*")]


# -- DuckDB 1.5 -------------------------------------------------------------------------------

OLD_READER = """
    import json, sys, duckdb
    assert duckdb.__version__.startswith("1.5."), duckdb.__version__
    answers = []
    for is_attached in (True, False):
        con = duckdb.connect() if is_attached else duckdb.connect(sys.argv[1], read_only=True)
        if is_attached:
            con.execute(f"ATTACH '{sys.argv[1]}' AS usms (READ_ONLY)")
            con.execute("USE usms")
        con.execute("SET TimeZone = 'UTC'")
        answers.append([con.execute(query).fetchall() for query in json.loads(sys.argv[2])])
    assert answers[0] == answers[1]
    print(json.dumps(answers[0], default=str))
"""


@pytest.mark.long
def test_duckdb_1_5_opens_the_file_and_answers_every_view_and_macro_alike(
    store, settings, tmp_path
):
    """Installs that DuckDB into a folder of its own; another one wrote the file."""
    from tests.test_rates import MIXED, QUERIES

    cohorts.write(store, MIXED)
    reconcile(store, settings)
    target = tmp_path / "old"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", target]
    subprocess.run([*pip, "duckdb==1.5.*", "pytz"], check=True)
    answered = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(OLD_READER), settings.warehouse_path,
         json.dumps(QUERIES)],
        env={**os.environ, "PYTHONPATH": str(target)}, check=True, capture_output=True, text=True,
    )  # fmt: skip
    ours = [ask(settings, query) for query in QUERIES]
    assert json.loads(answered.stdout) == json.loads(json.dumps(ours, default=str))
