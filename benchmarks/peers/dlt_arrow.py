"""dlt: requests in parallel, Arrow pages of so many receipts, Parquet, upsert by key.

A page of 100 is one answer, the way dlt's guides show; pages of 5,000 are the fastest we found.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import dlt
import pyarrow.parquet as pq
import requests

from benchmarks.peers.reading import receipts_of

_BATCH: Final = 100
_WORKERS: Final = 16
_local = threading.local()


def main(source: str, url: str, folder: str, page: str) -> None:
    """Run the pipeline; everything of dlt's is kept in the folder."""
    os.environ |= {
        "DLT_DATA_DIR": folder,
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "EXTRACT__WORKERS": str(_WORKERS),
        "EXTRACT__MAX_PARALLEL_ITEMS": str(2 * _WORKERS),
        "NORMALIZE__WORKERS": "1",
        "DATA_WRITER__BUFFER_MAX_ITEMS": "100000",
    }

    @dlt.resource
    def sessions() -> Iterator[list[str]]:
        for batch in pq.ParquetFile(source).iter_batches(int(page), columns=["session_no"]):
            yield batch.column(0).to_pylist()

    @dlt.transformer(
        data_from=sessions,
        name="receipts",
        primary_key=("session_no", "phone"),
        write_disposition={"disposition": "merge", "strategy": "upsert"},
        parallelized=True,
        file_format="parquet",
    )
    def receipts(ids: list[str]) -> Any:
        bodies = [_asked(url, ids[n : n + _BATCH]) for n in range(0, len(ids), _BATCH)]
        return receipts_of(bodies)

    pipeline = dlt.pipeline(
        "receipts",
        pipelines_dir=f"{folder}/pipelines",
        destination=dlt.destinations.duckdb(f"{folder}/receipts.duckdb"),
        dataset_name="sms",
    )
    pipeline.run(receipts)


def _asked(url: str, ids: list[str]) -> bytes:
    session = getattr(_local, "session", None)
    if session is None:
        session = _local.session = requests.Session()
        session.auth = ("key", "secret")
    query = urlencode([("id", one) for one in ids])
    response = session.get(f"{url}/api/v1/usms/USMSSendReceipt?{query}", timeout=30)
    response.raise_for_status()
    return bytes(response.content)


if __name__ == "__main__":
    Path(sys.argv[3]).mkdir(parents=True, exist_ok=True)
    main(*sys.argv[1:5])
