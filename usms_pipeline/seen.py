"""What was read of the source at the last run, by day: days that did not change are left alone.

``source.json`` says it. It is a memory only: without it every day is looked at again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Final

import duckdb
import pyarrow as pa

from usms_pipeline.dataset import Window
from usms_pipeline.storage import Store

FILE: Final = "source.json"
_ONE_DAY: Final = timedelta(days=1)


@dataclass
class Reading:
    """A sum over the rows read of each local day, whatever their order; late ones apart.

    ``late`` are those of a day's last hour, whose sessions may go on after midnight.
    """

    whole: dict[date, int] = field(default_factory=dict)
    late: dict[date, int] = field(default_factory=dict)
    rows: int = 0
    without_session: dict[date, int] = field(default_factory=dict)

    def add(self, con: duckdb.DuckDBPyConnection, rows: pa.Table, columns: Iterable[str]) -> None:
        """Take rows with ``own_date`` and ``is_late``; ``columns`` are plain names."""
        con.register("rows_read", rows)
        found = con.execute(
            "SELECT own_date, is_late, sum(hash(" + ", ".join(columns) + "))::VARCHAR, "
            "count(*) FILTER (session_no IS NULL) FROM rows_read GROUP BY own_date, is_late"
        ).fetchall()
        con.unregister("rows_read")
        for day, is_late, text, nulls in found:
            total = int(text)
            self.whole[day] = self.whole.get(day, 0) + total
            self.without_session[day] = self.without_session.get(day, 0) + nulls
            if is_late:
                self.late[day] = self.late.get(day, 0) + total
        self.rows += rows.num_rows

    def digest(self, day: date, window: Window) -> str:
        """Tell one set of rows that a partition hangs on from another.

        Those are its own, those late on the day before, and the next day's, for one that began
        late belongs to the day it began in. At and beyond the window's edges not all of it is read.
        """
        parts = [
            self.whole.get(day, 0),
            self.late.get(day - _ONE_DAY, 0),
            self.whole.get(day + _ONE_DAY, 0),
            day < window.first,
            day == window.first,
            day == window.last,
            day > window.last,
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


class Memory:
    """What the last run read, and made of it. ``account`` tells settings and tombstones apart."""

    def __init__(self, store: Store, account: list[Any]) -> None:
        self._store = store
        self._account = hashlib.sha256(json.dumps(account).encode()).hexdigest()
        said = store.read_json(FILE)
        self._before: dict[str, Any] = said
        is_ours = said.get("account") == self._account
        self._days: dict[str, dict[str, Any]] = dict(said.get("days", {})) if is_ours else {}

    def figures(self, day: date, digest: str, token: str) -> list[int] | None:
        """Give what was noted of a day, if the rows read and the file made of them are the same."""
        noted = self._days.get(str(day), {})
        if not token or (noted.get("digest"), noted.get("token")) != (digest, token):
            return None
        figures: list[int] = noted["figures"]
        return figures

    def note(self, day: date, digest: str, token: str, figures: list[int]) -> None:
        """Note of a day what ``figures`` gives back."""
        self._days[str(day)] = {"digest": digest, "token": token, "figures": figures}

    def keep(self, days: Iterable[date]) -> None:
        """Write down what is noted of these days, if that is new."""
        kept = {str(day): self._days[str(day)] for day in sorted(days) if str(day) in self._days}
        said = {"account": self._account, "days": kept}
        if said == self._before:
            return
        self._store.keep_json(FILE, said)  # or another run's notes, which do as well
