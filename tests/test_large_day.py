"""A day of very many messages is read, asked about and made anew in memory that is in proportion.

Peaks are of a process of its own: ``python -m tests.test_large_day FOLDER SESSIONS``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pytest

from tests.hostile_memory import peak_mb
from tests.scripted import DAY, NOON, Scripted, receipt
from tests.test_hostile import peak_mb as peak_mb_of


@pytest.mark.long
@pytest.mark.parametrize(("sessions", "most"), [(100_000, 1_000), (330_000, 2_200)])
def test_long_texts_beside_the_messages_of_a_large_day_fit(tmp_path, sessions, most):
    peak, lines = peak_mb_of("test_large_day", str(tmp_path), str(sessions))
    assert lines == [["delivered", str(sessions)]] * 2
    assert peak < most


def main(folder: str, sessions: int) -> None:
    account = Scripted(Path(folder), dimensions="note", poll_every_hours=4)
    names = [f"session-{n:030}" for n in range(sessions)]
    times = pa.array([NOON] * sessions, pa.timestamp("us", "UTC"))
    phones = pa.nulls(sessions, pa.string())
    notes = [8 * name for name in names]
    account.announce(
        pa.table([names, times, phones, notes], ["session_no", "sent_at", "phone", "note"])
    )
    for word in ("sending", "sending", "sending", "delivered"):
        told = receipt(word)
        account.says = dict.fromkeys(names, told)
        account.clock.turn(hours=5)
        shown = account.pipeline.refresh(account.window)
    print("delivered", shown.buckets["delivered"], sep="\t")
    print("delivered", account.pipeline.rebuild([DAY]).buckets["delivered"], sep="\t")


if __name__ == "__main__":
    before = peak_mb()
    main(sys.argv[1], int(sys.argv[2]))
    print(peak_mb() - before)
