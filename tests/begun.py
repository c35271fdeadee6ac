"""An empty warehouse for each set of views and macros: to make these takes DuckDB half a second.

Tests begin a new file as a copy of it; `test_warehouse.py` and the tests of kills make their own.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import duckdb

from usms_pipeline.contract.schema import Field
from usms_pipeline.warehouse import ddl
from usms_pipeline.warehouse.building import Building, Published, digest_of
from usms_pipeline.warehouse.publish import Publishing

_begin = Publishing._begin
_folder = tempfile.TemporaryDirectory()


def begin(publishing: Publishing, fields: list[Field], copied: Published | None) -> Building:
    """Begin the next file as ``Publishing._begin`` does, with the definitions already in it."""
    if copied is not None:
        return _begin(publishing, fields, copied)
    path = publishing._path
    publishing._path = empty(fields, publishing._definitions(fields))
    try:
        building = _begin(publishing, fields, Published())
    finally:
        publishing._path = path
    building.is_copy = False
    return building


def empty(fields: list[Field], definitions: str) -> Path:
    """Return the path of a warehouse without receipts, which is not to be changed."""
    names = [field.name for field in fields]
    path = Path(_folder.name) / digest_of(f"{names}{definitions}")
    if not path.exists():
        with duckdb.connect(":memory:") as con:
            con.execute(ddl.attach(path, f"STORAGE_VERSION '{ddl.STORAGE_VERSION}'"))
            Building(con, fields, {}, definitions, is_copy=False).close([])
    return path
