"""The eight buckets that recipients are counted in: what every other module means by a status.

Which words of the service mean which is for ``service.api`` to say. Pure: no I/O, no clock.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Meaning(NamedTuple):
    """A canonical status: is it an outcome, what a reader is told."""

    status: str
    is_final: bool
    description: str


STATUSES: Final = (
    Meaning("delivered", True, "the carrier reports that the message reached the phone"),
    Meaning("failed", True, "the carrier reports that the message did not reach the phone"),
    Meaning("rejected", True, "refused before it reached a carrier"),
    Meaning("expired", True, "the carrier gave up within the message's validity"),
    Meaning("unknown", False, "the carrier has not reported: by now, or by the cutoff for good"),
    Meaning("pending", False, "no outcome yet; it is still asked for"),
    Meaning("unrecognized", False, "the service used a word that this version doesn't know"),
    Meaning("invalid", False, "no usable session number, or the service refuses it"),
)
"""The eight buckets. Every announced recipient is in exactly one. Their order decides ties."""

BUCKETS: Final = tuple(meaning.status for meaning in STATUSES)
FINAL: Final = tuple(meaning.status for meaning in STATUSES if meaning.is_final)
