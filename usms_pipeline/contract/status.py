"""The eight statuses: what every other module means by a status.

Which words of the service mean which is for ``service.api`` to say. Pure: no I/O, no clock.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Meaning(NamedTuple):
    """A status: is it final, and what it means."""

    status: str
    is_final: bool
    description: str


STATUSES: Final = (
    Meaning("delivered", True, "the carrier reports that the message reached the phone"),
    Meaning("failed", True, "the carrier reports that the message did not reach the phone"),
    Meaning("rejected", True, "refused before it reached a carrier"),
    Meaning(
        "expired", True, "the carrier could not deliver it before the message's validity ended"
    ),
    Meaning("unknown", False, "not reported yet, or not reported within the cutoff (72 hours)"),
    Meaning("pending", False, "no receipt yet; still polled"),
    Meaning(
        "unrecognized", False, "the service sent a status word that this version does not know"
    ),
    Meaning("invalid", False, "no usable session number, or the service refuses it"),
)
"""The eight statuses. Every recipient in the source has exactly one. Their order decides ties."""

BUCKETS: Final = tuple(meaning.status for meaning in STATUSES)
FINAL: Final = tuple(meaning.status for meaning in STATUSES if meaning.is_final)
