"""Every view and macro over a large warehouse: seconds each and peak memory, as a program each."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import duckdb

from benchmarks.measure import Program, run
from usms_pipeline.warehouse import ddl

QUERIES: Final = (
    "FROM delivery_rate_daily",
    "FROM delivery_rate_hourly",
    "FROM delivery_rate_by_country",
    "FROM delivery_rate_by_operator",
    "FROM delivery_rate_by('template')",
    "FROM failures",
    "FROM failures_daily",
    "FROM failures_by('template')",
    "FROM cost_by('country')",
    "FROM failing_recipients",
    "FROM delivery_curve()",
    "FROM delivery_curve_by('country')",
    "FROM maturity()",
    "FROM delivery_nowcast_daily",
    "FROM delivery_nowcast_record",
    "FROM delivery_nowcast_hourly",
    "FROM delivery_nowcast_by('country')",
    "FROM delivery_rate_change_by('operator')",
    "FROM delivery_alerts",
    "SELECT unnest(delivery_figures(r)) FROM as_of('2025-12-31 00:00:00+00') AS r",
)
_ASK: Final = """
import sys
from usms_pipeline import connect
with connect(sys.argv[1]) as con:
    con.execute(sys.argv[2]).fetchall()
"""
_MADE: Final = """
INSERT INTO receipts BY NAME
WITH made AS (
    SELECT
        i,
        hash(i) % 10000 / 10000 AS luck,
        hash(i + 7) % 1000 / 1000 AS more,
        TIMESTAMPTZ '2026-01-01 00:00:00+00'
            - to_microseconds((60 * 86400000000 / $rows * i)::BIGINT) AS sent_at
    FROM range($rows) AS t(i)
),
fates AS (
    SELECT
        *,
        CASE WHEN luck < 0.93 THEN 'delivered' WHEN luck < 0.97 THEN 'failed'
            WHEN luck < 0.98 THEN 'expired' ELSE 'unknown' END AS fate,
        CASE WHEN luck < 0.97 THEN 4 + 40 * more + if(more > 0.97, 90000 * more, 0)
            WHEN luck < 0.98 THEN 172800 ELSE 1e9 END AS seconds
    FROM made
),
asked AS (
    SELECT *, sent_at + to_seconds(seconds) <= TIMESTAMPTZ '2026-01-01 00:00:00+00' AS is_known,
        sent_at < TIMESTAMPTZ '2026-01-01 00:00:00+00' - INTERVAL 72 HOURS AS is_old
    FROM fates
)
SELECT
    's' || i AS session_no,
    md5((hash(i) % ($rows // 4))::VARCHAR) AS recipient,
    '+86138****00' AS phone,
    ['CN', 'CN', 'CN', 'SG', 'US', 'IN', 'BR', 'GB'][1 + (hash(i + 1) % 8)::INTEGER] AS country,
    'Operator ' || hash(i + 1) % 40 AS "operator",
    'mobile' AS number_type,
    sent_at,
    sent_at::DATE AS sent_date,
    'template ' || hash(i + 2) % 20 AS template,
    CASE WHEN is_known THEN fate WHEN is_old THEN 'unknown' ELSE 'pending' END AS status,
    is_known AND fate <> 'unknown' AS is_final,
    is_old AND NOT (is_known AND fate <> 'unknown') AS is_closed,
    CASE WHEN fate IN ('failed', 'expired') THEN 'E' || hash(i + 3) % 30 END AS provider_code,
    CASE WHEN is_known AND fate <> 'unknown' THEN sent_at + to_seconds(seconds) END AS received_at,
    CASE WHEN is_known AND fate = 'delivered' THEN seconds END AS delivery_seconds,
    sent_at + INTERVAL 5 MINUTES AS first_asked_at,
    CASE WHEN NOT is_known OR seconds > 300
        THEN least(TIMESTAMPTZ '2026-01-01 00:00:00+00', sent_at + INTERVAL 72 HOURS,
            sent_at + to_seconds(seconds) - INTERVAL 10 MINUTES) END AS last_open_at,
    CASE WHEN is_known THEN sent_at + to_seconds(greatest(300, seconds))
        ELSE least(TIMESTAMPTZ '2026-01-01 00:00:00+00', sent_at + INTERVAL 72 HOURS) END
        AS last_asked_at,
    CASE WHEN is_known AND fate <> 'unknown'
        THEN sent_at + to_seconds(greatest(300, seconds)) END AS final_at,
    []::VARCHAR[] AS conflicts,
    true AS is_announced
FROM asked
"""


def table(rows: int) -> Iterator[str]:
    """Yield the lines of a table: each query over so many receipts of 60 days."""
    yield f"| over {rows:,} receipts | seconds | CPU s | peak MB |"
    yield "|---|---|---|---|"
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        path = Path(folder) / "usms.duckdb"
        _write(path, rows)
        for query in QUERIES:
            cost = run(_program(path, query))
            yield (
                f"| `{query}` | {cost.wall_seconds:.1f} | {cost.cpu_seconds:.1f} "
                f"| {cost.peak_mb:.0f} |"
            )


def _program(path: Path, query: str) -> Program:
    return Program(query, lambda folder: [sys.executable, "-c", _ASK, str(path), query])


def _write(path: Path, rows: int) -> None:
    """Make a warehouse of made-up receipts, with our definitions."""
    fields = ddl.columns(["template"], ["template"])
    with duckdb.connect(":memory:") as con:
        con.execute(ddl.attach(path, f"STORAGE_VERSION '{ddl.STORAGE_VERSION}'"))
        con.execute("USE usms; SET TimeZone = 'UTC'")
        con.execute(ddl.create_receipts(fields))
        con.execute(_MADE, {"rows": rows})
        con.execute(ddl.definitions(fields, timedelta(hours=72)))
