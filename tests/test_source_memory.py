"""Reading takes the memory of a batch, not of the table."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.services import Database

READ = """
import resource, sys
from datetime import UTC, datetime
from usms_pipeline import source
from usms_pipeline.settings import Settings
settings = Settings(_env_file=None, source_url=sys.argv[1], source_table="t")
batches = source.read(settings, datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC))
rows = sum(batch.num_rows for batch in batches)
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
SERIES = {"postgresql": "generate_series(1, {n}) AS seq", "mariadb": "seq_1_to_{n}"}


def peak_megabytes(url: str, rows: int) -> int:
    """The most memory that a process of its own held while it read all rows."""
    command = [sys.executable, "-W", "ignore", "-c", READ, url]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    read, peak = map(int, shown.split())
    assert read == rows
    return peak


@pytest.mark.long
@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_ten_times_the_rows_take_no_more_memory(kind: str, request: pytest.FixtureRequest) -> None:
    database: Database = request.getfixturevalue(kind)
    peaks = []
    for rows in (100_000, 1_000_000):
        database.execute(
            "DROP TABLE IF EXISTS t",
            "CREATE TABLE t AS SELECT concat(md5(concat('', seq)), md5('')) AS session_no, "
            f"timestamp '2024-08-01 10:00:00' AS sent_at FROM {SERIES[kind].format(n=rows)}",
        )
        peaks.append(peak_megabytes(database.url, rows))
    few, many = peaks
    assert many < few + 60  # the million session numbers alone are 64 MB
