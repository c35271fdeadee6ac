"""Six kinds of source, one table with odd names: the same batches come out."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests import source_tables as tables
from tests.services import Database
from tests.source_tables import FIRST, LAST, read_all, rows
from usms_pipeline import source
from usms_pipeline.source import clean

ROWS = rows()


def expected(row: tables.Row) -> dict[str, Any]:
    session, sent_at, phone, recipients, *dimensions = row
    texts = [None if v is None else str(v) for v in dimensions]
    return {
        "session_no": session,
        "phone": None if phone is None else str(phone),
        "sent_at": sent_at,
        "recipients": recipients,
        **dict(zip(tables.DIMENSIONS, texts, strict=True)),
    }


EXPECTED = sorted((expected(row) for row in ROWS), key=repr)


@pytest.fixture(params=["postgresql", "mariadb", "sqlite", "duckdb", "parquet", "csv"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param in ("postgresql", "mariadb"):
        place: Database | Path = request.getfixturevalue(request.param)
    else:
        place = tmp_path
    make = getattr(tables, f"in_{request.param}")
    return str(make(place, ROWS))


def test_every_kind_of_source_gives_the_same_rows_schema_and_survey(url: str) -> None:
    settings = tables.settings(url)
    found = read_all(settings)
    assert found == EXPECTED

    schemas = {batch.schema for batch in source.read(settings, FIRST, LAST)}
    assert schemas == {clean.schema(tables.DIMENSIONS)}
    assert clean.schema(()).field("sent_at").type == pa.timestamp("us", "UTC")

    start, end = FIRST + timedelta(hours=30, microseconds=1), FIRST + timedelta(hours=50)
    window = [row for row in EXPECTED if start <= row["sent_at"] < end]
    assert 0 < len(window) < len(EXPECTED)
    assert read_all(settings, start, end) == window
    assert read_all(settings, LAST, LAST + timedelta(days=9)) == []

    seen = source.survey(settings)
    times = [row["sent_at"] for row in EXPECTED]
    assert (seen.rows, seen.left_out.without_sent_at) == (len(ROWS), 0)
    assert (seen.first_sent_at, seen.last_sent_at) == (min(times), max(times))
    assert settings.source_url is not None
    columns = source.columns(settings.source_url.get_secret_value(), settings.source_table or "")
    assert [column.name for column in columns] == list(tables.NAMES)
