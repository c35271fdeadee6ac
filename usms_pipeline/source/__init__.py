"""Any table of sent messages -> Arrow batches: what the rest of the package may use is here.

``read`` streams a window of it as ``schema`` has it, ``survey`` says what the whole looks like.
"""

from __future__ import annotations

from usms_pipeline.source.clean import Cells, phones_in, schema
from usms_pipeline.source.kinds import SUFFIXES
from usms_pipeline.source.reading import LeftOut, Survey, columns, is_scanned, read, survey, tables

__all__ = [
    "SUFFIXES", "Cells", "LeftOut", "Survey", "columns", "is_scanned", "phones_in", "read",
    "schema", "survey", "tables",
]  # fmt: skip
