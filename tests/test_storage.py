"""The data directory on a local disk: a file appears whole or not at all."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from usms_pipeline.contract.errors import StorageError
from usms_pipeline.days import file
from usms_pipeline.store.storage import Store

NAME = "receipts/sent_date=2024-03-01/receipts.parquet"
ROWS = pa.table({"session_no": ["a", "b"], "status": ["delivered", "failed"]})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "data"))


def files(store: Store) -> list[str]:
    """Everything there is below the data directory, temporary files too."""
    root = Path(store.path(""))
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_what_is_written_is_read_with_its_metadata(store):
    described = ROWS.replace_schema_metadata({"origin": "kept", "usms.token": "an older one"})
    store.write(NAME, described, {"token": "t", "key": "k"})
    assert store.read(NAME).to_pylist() == ROWS.to_pylist()
    assert store.metadata(NAME) == {"token": "t", "key": "k"}
    assert store.read(NAME).schema.metadata[b"origin"] == b"kept"
    assert [b.num_rows for b in store.batches(NAME, rows=1)] == [1, 1]
    assert pq.ParquetFile(store.path(NAME)).metadata.row_group(0).column(0).compression == "ZSTD"
    assert files(store) == [NAME]


def test_a_large_file_is_written_in_row_groups_whatever_the_batches(store):
    numbers = pa.table({"a": range(300_000)})
    for rows in (300_000, 65_537, 50_000):
        reader = pa.RecordBatchReader.from_batches(numbers.schema, numbers.to_batches(rows))
        store.write(NAME, reader)
        found = pq.read_metadata(store.path(NAME))
        assert found.num_row_groups > 1
        assert max(found.row_group(n).num_rows for n in range(found.num_row_groups)) < 2 * 65_536
        assert pa.Table.from_batches(store.batches(NAME)) == numbers
    store.write(NAME, numbers.slice(0, 0))
    assert store.read(NAME) == numbers.slice(0, 0)


def test_a_row_group_has_bounds_where_they_can_spare_its_reading(store):
    row = {"session_no": "s", "recipient": "r", "sent_at": 1, "is_final": True, "body": b"{}"}
    store.write(NAME, pa.Table.from_pylist([row]))
    group = pq.read_metadata(store.path(NAME)).row_group(0)
    columns = [group.column(place) for place in range(group.num_columns)]
    bounded = [column.path_in_schema for column in columns if column.is_stats_set]
    assert bounded == ["session_no", "sent_at", "is_final"]


BLOCK = "responses/run/000001.parquet"
BODIES = pa.table({"id": ["a", "b"], "body": pa.array([b'{"n": 1}', b'{"n": 22}'], pa.binary())})


def test_a_flipped_byte_is_told_and_never_read_as_other_rows(store):
    store.write(BLOCK, BODIES, {"version": "1"}, private=True)
    path, said = Path(store.path(BLOCK)), []
    whole = path.read_bytes()
    assert store.read(BLOCK) == BODIES
    for place in range(0, len(whole), 2):
        flipped = bytearray(whole)
        flipped[place] ^= (1, 128, 255)[place % 3]
        path.write_bytes(flipped)
        with suppress_damage(said):
            assert store.read(BLOCK) == BODIES
            assert store.metadata(BLOCK) == {"version": "1"}
    assert len(said) > 0.9 * len(whole) / 2
    assert all(f"'{BLOCK}'" in one and "It is damaged" in one for one in said)


@contextmanager
def suppress_damage(said: list[str]) -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        said.append(str(error))


def test_a_page_of_whose_head_a_bit_was_flipped_is_missed(store):
    """Arrow skips it: the rows after it get values of others, or are missing."""
    rows = pa.table({"session_no": [f"{n:064}" for n in range(60_000)]})
    store.write(NAME, rows)
    path = Path(store.path(NAME))
    whole = bytearray(path.read_bytes())
    head = whole.index(b"\x15\x00\x15", 1000)  # a data page's: its kind, its size …
    whole[head + 1] ^= 2
    path.write_bytes(whole)
    with pytest.raises(StorageError, match=r"pages that can't be read\. It is damaged"):
        list(store.batches(NAME, 1000))


def test_a_file_cut_off_anywhere_is_told(store):
    store.write(BLOCK, BODIES, private=True)
    path = Path(store.path(BLOCK))
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        for read in (store.read, store.metadata, lambda name: list(store.batches(name))):
            with pytest.raises(StorageError, match=rf"{BLOCK}'.*It is damaged"):
                read(BLOCK)


def test_a_file_of_another_program_is_read(store):
    path = Path(store.path(NAME))
    path.parent.mkdir(parents=True)
    pq.write_table(ROWS, path)
    assert store.read(NAME) == ROWS


def test_a_damaged_file_is_set_aside_and_counts_for_nothing(store):
    store.write(NAME, ROWS)
    aside = store.set_aside(NAME)
    assert re.fullmatch(r"receipts/sent_date=2024-03-01/receipts\.parquet\.damaged-\w{8}", aside)
    assert files(store) == [aside]
    assert store.names("receipts") == []
    store.sweep("receipts/sent_date=2024-03-01")
    assert store.read(aside) == ROWS
    with pytest.raises(StorageError, match=f"Can't set aside '{NAME}'"):
        store.set_aside(NAME)


def test_what_is_not_there_is_empty_or_told(store):
    assert store.metadata(NAME) == {}
    assert store.read_json("pace.json") == {}
    assert store.names("receipts") == []
    assert not store.exists(NAME)
    store.delete(NAME)
    for read in (store.read, lambda name: list(store.batches(name))):
        with pytest.raises(StorageError, match=f"Can't read '{NAME}' in the data directory"):
            read(NAME)


def test_an_error_while_writing_leaves_the_old_file_and_no_other(store):
    store.write(NAME, ROWS, {"token": "first"})

    def breaks_off() -> pa.RecordBatchReader:
        def batches() -> object:
            yield from ROWS.to_batches(1)
            raise OSError("the source went away")

        return pa.RecordBatchReader.from_batches(ROWS.schema, batches())

    with pytest.raises(StorageError, match="the source went away"):
        store.write(NAME, breaks_off(), {"token": "second"})
    assert store.metadata(NAME) == {"token": "first"}
    assert files(store) == [NAME]


def test_a_killed_writer_leaves_the_old_file_and_one_that_no_reader_sees(store, tmp_path):
    store.write(NAME, ROWS)
    script = (
        "import os, sys\n"
        "from usms_pipeline.store.storage import Store\n"
        "with Store(sys.argv[1]).replacing(sys.argv[2]) as path:\n"
        "    path.write_bytes(b'half')\n"
        "    os._exit(9)\n"
    )
    command = [sys.executable, "-c", script, store.data_dir, NAME]
    assert subprocess.run(command, check=False).returncode == 9
    assert store.read(NAME).to_pylist() == ROWS.to_pylist()
    assert store.names("receipts") == [NAME]
    assert len(files(store)) == 2
    (left,) = [Path(name).name for name in files(store) if name != NAME]
    assert left.startswith(".")
    assert not left.endswith(".parquet")


def test_what_killed_writers_left_beside_the_partitions_goes_when_it_is_a_day_old(store, tmp_path):
    """Another process may be writing the same file at this moment."""
    names = [f".pace.json.{'0a' * 16}", f".pace.json.{'0b' * 16}", ".pace.json.mine"]
    old, new, mine = (Path(store.path(name)) for name in names)
    for path in (old, new, mine):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for path in (old, mine):
        os.utime(path, (0, 0))
    with store.replacing("pace.json") as path:
        path.write_text("{}")
    assert (old.exists(), new.exists(), mine.exists()) == (False, True, True)


def test_a_lock_dies_with_its_process(store):
    script = (
        "import os, sys\n"
        "from usms_pipeline.store.storage import Store\n"
        "with Store(sys.argv[1]).lock('x') as held:\n"
        "    os._exit(9 if held else 1)\n"
    )
    command = [sys.executable, "-c", script, store.data_dir]
    assert subprocess.run(command, check=False).returncode == 9
    with store.lock("x") as held:
        assert held


def test_days_are_of_files_in_their_place_only(store):
    store.write(NAME, ROWS)
    for stray in (
        "receipts/mine.parquet",
        "receipts/sent_date=today/receipts.parquet",
        "receipts/sent_date=2024-03-02/deeper/receipts.parquet",
        "receipts/old/sent_date=2024-03-03/receipts.parquet",
    ):
        store.write(stray, ROWS)
    assert file.days(store) == [date(2024, 3, 1)]
