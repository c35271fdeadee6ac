"""The eight buckets that recipients are counted in: what every other module means by a status.

Which words of the service mean which is for ``service.api`` to say. Pure: no I/O, no clock.
"""

from __future__ import annotations

from typing import Final, NamedTuple


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

_RANK: Final = {meaning.status: meaning.rank for meaning in STATUSES}


def rank(status: str) -> int:
    """Give the tie-break rank of a canonical status: the lower wins."""
    return _RANK[status]
