"""The eight buckets: how many there are, which are outcomes, which is shown first."""

from __future__ import annotations

from usms_pipeline import status


def test_exactly_the_four_outcomes_are_final_and_ranked_first():
    assert status.FINAL == ("delivered", "failed", "rejected", "expired")
    assert [status.rank(name) for name in status.BUCKETS] == list(range(8))


def test_there_are_eight_buckets():
    assert set(status.BUCKETS) == {
        "delivered", "failed", "rejected", "expired", "unknown", "pending", "unrecognized",
        "invalid",
    }  # fmt: skip
