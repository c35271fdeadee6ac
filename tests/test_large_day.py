"""A day of very many messages is folded in the memory that is meant for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_fold import NOON, Place, answer, receipt


@pytest.mark.long
@pytest.mark.parametrize("sessions", [199_000, 329_000])  # in memory; in a file, in large parts
def test_long_texts_beside_the_messages_of_a_large_day_fit(tmp_path: Path, sessions: int) -> None:
    """They once did not: the planner held the widest side of a join in memory."""
    place = Place(tmp_path, dimensions="note")
    names = [f"session-{n:030}" for n in range(sessions)]
    place.announce([{"session_no": name, "sent_at": NOON, "note": 8 * name} for name in names])
    for word in ("sending", "delivered"):
        said = receipt("13800138000", word, NOON)
        items = [{"SessionNo": name, "Status": "success", "Receipt": said} for name in names]
        place.land(
            [answer(NOON, items[n : n + 100], names[n : n + 100]) for n in range(0, sessions, 100)]
        )
        place.fold()
    assert place.fold().buckets["delivered"] == sessions
