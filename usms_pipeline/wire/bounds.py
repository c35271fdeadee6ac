"""How much is kept of an answer that says more than any answer needs. Pure.

The raw answer stays whole in ``responses/``; these bounds are for what is made of it.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.schema import MOST_CHARACTERS

MOST_BYTES_KEPT: Final = 64 * 1024
"""Of an answer or an item that can't be used, so much is kept in quarantine."""

MOST_REJECTS: Final = 100
"""So many items of one answer are quarantined each by itself; the others are counted in one."""

MOST_VALUES: Final = 2_000_000
"""An answer with more commas can't be read. 100 sessions of 1,000 phones have a million."""

_CUT: Final = "…"


def has_too_many_values(body: bytes) -> bool:
    """Tell whether to take a body apart would cost more memory than any answer is worth."""
    return len(body) > MOST_VALUES and body.count(b",") > MOST_VALUES


def cut(text: str | None) -> str | None:
    """Cut a text to ``MOST_CHARACTERS``; a cut one ends with an ellipsis, so it is no known word.

    >>> cut("delivered"), len(cut("x" * 5000))
    ('delivered', 1000)
    """
    if text is None or len(text) <= MOST_CHARACTERS:
        return text
    return text[: MOST_CHARACTERS - 1] + _CUT


def cut_array(texts: pa.Array) -> pa.Array:
    """Give ``cut`` of every text (string, nulls allowed)."""
    most_bytes = pc.max(pc.binary_length(texts)).as_py() or 0
    if most_bytes <= MOST_CHARACTERS:
        return texts
    is_long = pc.greater(pc.utf8_length(texts), MOST_CHARACTERS)
    begun = pc.utf8_slice_codeunits(texts, 0, MOST_CHARACTERS - 1)
    return pc.if_else(is_long, pc.binary_join_element_wise(begun, _CUT, ""), texts)
