"""Readers and the pipeline never block each other (law 5), over fifty refreshes of the real one.

What a reader finds is one version that was published, whole. What clients that write to the
published file do to it is repaired by the next run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

import usms_pipeline
from tests.account import START, Account
from tests.processes import wait_until
from usms_pipeline.contract.errors import WarehouseMissing
from usms_pipeline.contract.status import BUCKETS
from usms_pipeline.simulator import Population

REFRESHES = 50

SCAN = f"""
    SELECT
        count(*) FILTER (is_announced),
        count(*) FILTER (is_announced AND status IN {BUCKETS}),
        (SELECT sum({" + ".join(BUCKETS)}) FROM delivery_rate_daily),
        bit_xor(hash(r))::VARCHAR
    FROM receipts AS r
"""
"""Rows sent, those with a status, the statuses' sum, and a print of every value."""

BY_CONNECT = """
    import json, sys, time
    from pathlib import Path
    from usms_pipeline import connect

    path, stop, scan = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    with connect(path) as held:
        print(json.dumps(["held", *held.execute(scan).fetchone()]), flush=True)
        while not stop.exists():
            print(json.dumps(["held", *held.execute(scan).fetchone()]))
            with connect(path) as fresh:
                print(json.dumps(["fresh", *fresh.execute(scan).fetchone()]))
            time.sleep(0.25)
"""

PLAINLY = """
    import json, sys, time
    from pathlib import Path
    import duckdb

    path, stop, scan = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    print("ready", flush=True)
    while not stop.exists():
        with duckdb.connect(path, read_only=True) as held:
            for _ in range(3):
                print(json.dumps(["plain", *held.execute(scan).fetchone()]))
                time.sleep(0.1)
"""

BY_GLOB = """
    import json, sys, time
    from pathlib import Path
    import pandas as pd, pyarrow.dataset as ds

    receipts, stop = Path(sys.argv[1]), Path(sys.argv[2])
    print("ready", flush=True)
    while not stop.exists():
        files = sorted(map(str, receipts.glob("*/*.parquet")))
        table = ds.dataset(files).to_table()
        frames = []
        for file in files:
            with open(file, "rb") as opened:
                frames.append(pd.read_parquet(opened))
        frame = pd.concat(frames)
        print(json.dumps([table["is_announced"].to_pylist().count(True),
                          int(frame["is_announced"].sum())]))
        time.sleep(0.25)
"""
"""Each file is opened once. What opens one by its name twice in a read (pandas given a path, DuckDB
given several) fails when it is replaced in between; no wrong figure was ever seen: ask again."""


@contextmanager
def reader(log: Path, script: str, *arguments: object) -> Iterator[None]:
    """Run a reader in a process of its own, its first line waited for; it must end well."""
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    stop = Path(str(arguments[1]))
    with log.open("w") as out, subprocess.Popen(command, stdout=out) as process:
        try:
            wait_until(lambda: log.stat().st_size or process.poll() is not None)
            yield
        finally:
            stop.touch()
    assert process.returncode == 0


def scans(log: Path) -> list[Any]:
    return [json.loads(line) for line in log.read_text().splitlines() if line != "ready"]


def version(account: Account) -> list[Any]:
    """What a scan of the newest published file gives."""
    with usms_pipeline.connect(data_dir=account.given["data_dir"]) as con:
        return list(con.execute(SCAN).fetchall()[0])


@pytest.mark.long
def test_readers_of_every_kind_scan_on_while_fifty_refreshes_are_published(tmp_path, simulator):
    messages = Population(100 + REFRESHES, days=1, until=START).table()
    account = Account(tmp_path, simulator, messages, poll_minutes="5,60")
    account.announce(messages.slice(0, 100))
    account.run()
    published, stop = [version(account)], tmp_path / "stop"
    assert published[0][0] == 100
    logs = {name: tmp_path / f"{name}.log" for name in ("connect", "plain", "glob")}
    path, receipts = tmp_path / "data/usms.duckdb", tmp_path / "data/receipts"
    with ExitStack() as readers:
        readers.enter_context(reader(logs["connect"], BY_CONNECT, path, stop, SCAN))
        readers.enter_context(reader(logs["plain"], PLAINLY, path, stop, SCAN))
        readers.enter_context(reader(logs["glob"], BY_GLOB, receipts, stop))
        for refresh in range(1, REFRESHES + 1):
            account.announce(messages.slice(0, 100 + refresh))
            account.clock.turn(minutes=7)
            report = account.run()
            assert not report.warehouse.is_skipped
            published.append(version(account))
    assert [one[0] for one in published] == [100 + n for n in range(REFRESHES + 1)]
    found = scans(logs["connect"]) + scans(logs["plain"])
    assert [scan for scan in found if scan[1:] not in published] == []
    assert all(
        len({announced, bucketed, summed}) == 1 for _, announced, bucketed, summed, _ in found
    )
    seen = {
        kind: {scan[1] for scan in found if scan[0] == kind} for kind in ("held", "fresh", "plain")
    }
    assert seen["held"] == {100}, "what is held open never changes"
    assert min(len(seen["fresh"]), len(seen["plain"])) > REFRESHES // 5, "looked while it changed"
    globbed = scans(logs["glob"])
    assert {counted for scan in globbed for counted in scan} <= set(range(100, 101 + REFRESHES))
    assert len({scan[0] for scan in globbed}) > REFRESHES // 5


WRITER = """
    import os, sys, duckdb
    os.chmod(sys.argv[1], 0o600)
    con = duckdb.connect(sys.argv[1])
    con.execute("CREATE TABLE mine AS SELECT 1 AS n")
    print("ready", flush=True)
    sys.stdin.readline()
    con.execute("CHECKPOINT; INSERT INTO mine VALUES (2)")
    print("wrote", flush=True)
    sys.stdin.readline()
    os._exit(0)
"""


def test_a_client_that_writes_on_into_a_replaced_file_is_mended_by_the_next_run(
    tmp_path, simulator
):
    """Its log goes by the file's name, and DuckDB refuses both to every reader until then."""
    account = Account(tmp_path, simulator, 60)
    account.run()
    path = tmp_path / "data/usms.duckdb"
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        account.clock.turn(hours=1)
        assert not account.run().warehouse.is_skipped, "a file held open for writing blocks nobody"
        before = version(account)
        writer.stdin.write("\n")
        writer.stdin.flush()
        assert writer.stdout.readline() == "wrote\n"
        writer.stdin.write("\n")  # and it dies
    assert path.with_name("usms.duckdb.wal").exists()
    with pytest.raises(WarehouseMissing, match="run `usms run` to publish it again"):
        version(account)
    assert account.run().warehouse.is_skipped, "nothing new to publish"
    assert version(account) == before
    with duckdb.connect(str(path), read_only=True) as plain:
        assert plain.execute("SHOW TABLES").fetchall() != []
