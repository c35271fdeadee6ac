"""The script most people write: a loop of requests, pandas, a Parquet file, a DuckDB insert."""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb
import pandas as pd
import requests


def main(source: str, url: str, folder: str) -> None:
    """Ask a hundred at a time, one request after the other."""
    ids = pd.read_parquet(source, columns=["session_no"])["session_no"].tolist()
    rows = []
    with requests.Session() as session:
        session.auth = ("key", "secret")
        for begin in range(0, len(ids), 100):
            response = session.get(
                f"{url}/api/v1/usms/USMSSendReceipt",
                params={"id": ids[begin : begin + 100]},
                timeout=30,
            )
            response.raise_for_status()
            rows += response.json()["Data"]
    receipts = pd.json_normalize(rows)
    receipts["received_at"] = pd.to_datetime(receipts["Receipt.ReceiveTime"]).dt.tz_localize(
        "Asia/Shanghai"
    )
    receipts.to_parquet(f"{folder}/receipts.parquet")
    with duckdb.connect(f"{folder}/receipts.duckdb") as con:
        con.execute(
            "CREATE TABLE receipts AS SELECT * FROM read_parquet(?)",
            [f"{folder}/receipts.parquet"],
        )


if __name__ == "__main__":
    Path(sys.argv[3]).mkdir(parents=True, exist_ok=True)
    main(*sys.argv[1:4])
