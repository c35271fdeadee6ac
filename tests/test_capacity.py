"""The page on capacity: its simulated schedules are today's, and counted right."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import capacity
from tests.readme_tables import put_in


def test_the_pages_schedules_are_what_the_simulation_gives() -> None:
    text = capacity.PAGE.read_text("utf-8")
    lines = capacity.schedule_table(capacity.delays())
    assert put_in(text, "schedules", lines) == text, "run: python -m benchmarks.capacity schedules"


def test_a_message_is_asked_about_until_its_final_status_is_known() -> None:
    told = np.array([60.0, 3 * 3600.0, np.inf])
    found = capacity.asked([1800.0, 7200.0, 14_400.0], told)
    assert found.questions == pytest.approx((1 + 3 + 3) / 3)
    assert 1800 - 60 <= found.half_known_seconds <= found.known_late_seconds <= 3600 + 600


def test_polling_times_between_two_runs_cost_one_question() -> None:
    assert capacity.asked([1.0, 2.0, 3600.0], np.full(1000, 3000.0)).questions < 2.1
