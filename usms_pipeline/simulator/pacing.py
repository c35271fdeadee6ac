"""The hidden rate limit of the simulated service. The clock is an argument."""

from __future__ import annotations

from collections.abc import Callable


class RateLimit:
    """A bucket that fills at a number of requests per second and holds one second's worth."""

    def __init__(self, seconds_now: Callable[[], float]) -> None:
        self._seconds_now = seconds_now
        self._at = seconds_now()
        self._room: float | None = None

    def allows(self, requests_per_second: float) -> bool:
        """Remove one request from the bucket; return False when it is empty."""
        now = self._seconds_now()
        most = max(1.0, requests_per_second)
        held = most if self._room is None else self._room
        self._room = min(most, held + (now - self._at) * requests_per_second)
        self._at = now
        if self._room < 1:
            return False
        self._room -= 1
        return True
