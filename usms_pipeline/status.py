"""What a status word of the service means: the one table to change for a new word.

Pure: no I/O, no clock. Source of the words: the service's receipt documentation and its SDKs.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc


class Meaning(NamedTuple):
    """A canonical status: is it an outcome, its rank in ties (low wins), what a reader is told."""

    status: str
    is_final: bool
    rank: int
    description: str


STATUSES: Final = (
    Meaning("delivered", True, 0, "the carrier reports that the message reached the phone"),
    Meaning("failed", True, 1, "the carrier reports that the message did not reach the phone"),
    Meaning("rejected", True, 2, "refused before it reached a carrier"),
    Meaning("expired", True, 3, "the carrier gave up within the message's validity"),
    Meaning("unknown", False, 4, "the carrier has not reported: by now, or by the cutoff for good"),
    Meaning("pending", False, 5, "no outcome yet; it is still asked for"),
    Meaning("unrecognized", False, 6, "the service used a word that this version doesn't know"),
    Meaning("invalid", False, 7, "no usable session number, or the service refuses it"),
)
"""The eight buckets. Every announced recipient is in exactly one."""

BUCKETS: Final = tuple(meaning.status for meaning in STATUSES)
FINAL: Final = tuple(meaning.status for meaning in STATUSES if meaning.is_final)

WORDS: Final[dict[str, tuple[str, ...]]] = {
    "delivered": ("delivered", "delivrd", "deliver", "success", "发送成功", "接收成功"),
    "failed": ("fail", "failed", "undelivered", "undeliv", "发送失败", "接收失败"),
    "rejected": ("submitfail", "rejectd", "rejected", "提交失败"),
    "expired": ("expired", "过期"),
    "pending": ("", "queued", "sending", "sent", "accepted", "enroute", "submitted"),
    "unknown": ("unknow", "unknown", "状态未知"),
}
"""Words of a receipt, trimmed and casefolded, by canonical status. Any other: ``unrecognized``."""

_CANONICAL: Final = {word: status for status, words in WORDS.items() for word in words}
_RANK: Final = {meaning.status: meaning.rank for meaning in STATUSES}


def canonical(word: str | None) -> str:
    """Give the canonical status of one receipt's word; never ``failed`` without evidence.

    >>> canonical(" DELIVRD "), canonical(None), canonical("BLACKLIST")
    ('delivered', 'pending', 'unrecognized')
    """
    return _CANONICAL.get((word or "").strip().casefold(), "unrecognized")


def canonical_array(words: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Give ``canonical`` of every word (string, nulls allowed); one lookup a distinct word."""
    if isinstance(words, pa.ChunkedArray):
        words = words.combine_chunks()
    encoded = pc.dictionary_encode(words, null_encoding="encode")
    mapped = pa.array([canonical(word) for word in encoded.dictionary.to_pylist()], pa.string())
    return mapped.take(encoded.indices)


def rank(status: str) -> int:
    """Give the tie-break rank of a canonical status: the lower wins."""
    return _RANK[status]
