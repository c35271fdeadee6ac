"""A day of very many messages is folded in the memory that is meant for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scripted import NOON, PHONE, Scripted, receipt


@pytest.mark.long
def test_long_texts_beside_the_messages_of_a_large_day_fit(tmp_path: Path) -> None:
    """Its rows stream: a row group at a time, none of them twice in memory."""
    account = Scripted(tmp_path, dimensions="note", batch_size=100)
    names = [f"session-{n:030}" for n in range(100_000)]
    for name in names:
        account.row(name, NOON, PHONE, note=8 * name)
    for word in ("sending", "delivered"):
        account.says = dict.fromkeys(names, receipt(word))
        report = account.refresh(hours=49)
    assert report.buckets == {"delivered": len(names)}
