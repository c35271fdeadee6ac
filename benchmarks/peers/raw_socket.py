"""About the limit of Python on one machine: bare sockets, decode, Parquet, MERGE into DuckDB.

No raw log, no fold, no masking, no retries, no HTTP to speak of: not a way to build a connector.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import duckdb
import pyarrow.parquet as pq
import uvloop

from benchmarks.peers.reading import receipts_of

_CONNECTIONS: Final = 16
_BODIES_A_BLOCK: Final = 250
_REQUEST: Final = (
    b"GET /api/v1/usms/USMSSendReceipt?id=%b HTTP/1.1\r\nHost: x\r\nAuthorization: Basic x\r\n\r\n"
)


class _Asking(asyncio.Protocol):
    """One connection: asks as soon as it is answered, until there are no more batches."""

    def __init__(self, batches: Iterator[bytes], bodies: asyncio.Queue[bytes | None]) -> None:
        self._batches, self._bodies = batches, bodies
        self._data = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        start = self._data.find(b"Content-Length: ") + 16
        length = int(self._data[start : self._data.find(b"\r", start)])
        if len(self._data) >= end + 4 + length:
            self._bodies.put_nowait(bytes(self._data[end + 4 :]))
            self._data.clear()
            self._ask()

    def _ask(self) -> None:
        batch = next(self._batches, None)
        if batch is None:
            self._bodies.put_nowait(None)
            self._transport.close()
        else:
            self._transport.write(_REQUEST % batch)


def _batches(source: str) -> Iterator[bytes]:
    for batch in pq.ParquetFile(source).iter_batches(100, columns=["session_no"]):
        yield "&id=".join(batch.column(0).to_pylist()).encode()


async def _collect(source: str, url: str, folder: str) -> None:
    loop, bodies = asyncio.get_running_loop(), asyncio.Queue[bytes | None]()
    batches, address = _batches(source), urlsplit(url)
    for _ in range(_CONNECTIONS):
        await loop.create_connection(
            lambda: _Asking(batches, bodies), address.hostname, address.port
        )
    schema = receipts_of([b'{"Data":[]}']).schema
    block: list[bytes] = []
    with (
        pq.ParquetWriter(f"{folder}/receipts.parquet", schema, compression="zstd") as writer,
        ThreadPoolExecutor(1) as pool,
    ):
        left = _CONNECTIONS
        while left:
            body = await bodies.get()
            left -= body is None
            block += [] if body is None else [body]
            if len(block) >= _BODIES_A_BLOCK or not left:
                pool.submit(lambda b: writer.write_table(receipts_of(b)), block or [b'{"Data":[]}'])
                block = []


def main(source: str, url: str, folder: str) -> None:
    """Collect into one Parquet file, then merge it into a table."""
    uvloop.run(_collect(source, url, folder))
    with duckdb.connect(f"{folder}/receipts.duckdb") as con:
        con.execute(
            "CREATE TABLE receipts (session_no VARCHAR, phone VARCHAR, status VARCHAR, "
            "received_at TIMESTAMPTZ)"
        )
        con.execute(
            f"MERGE INTO receipts AS r USING '{folder}/receipts.parquet' AS n "
            "ON r.session_no = n.session_no AND r.phone = n.phone "
            "WHEN MATCHED THEN UPDATE WHEN NOT MATCHED THEN INSERT"
        )


if __name__ == "__main__":
    Path(sys.argv[3]).mkdir(parents=True, exist_ok=True)
    main(*sys.argv[1:4])
