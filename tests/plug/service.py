"""The simulated service as these tests need it: started again, it says the same to the same.

What it says of some messages hangs on what it has said before. So before every command it is set
back to what it had said when the command's folder was made: a killed run leaves no trace in it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

import pyarrow as pa

from usms_pipeline.simulator import Faults, Simulator
from usms_pipeline.simulator.replies import Reply
from usms_pipeline.simulator.simulator import Counters, ids_of

_CLOSED_AFTER = timedelta(hours=72)
_Asked = tuple[datetime, Faults, bytes, str]


class Service:
    """``messages`` as the service knows them at the time ``at``, which stands.

    Asked about ``bad``, it answers with one more item, which nobody can read.
    """

    def __init__(self, messages: pa.Table, at: datetime, faults: Faults, bad: str = "") -> None:
        self.messages, self.at, self.bad = messages, at, bad
        self._faults = faults
        self._asked: list[_Asked] = []
        self._before: list[_Asked] = []
        self.set_back()

    def answer(self, query: bytes, authorization: str = "", takes_gzip: bool = False) -> Reply:
        """Return the reply to one request, as ``Simulator`` does."""
        self._asked.append((self.at, self._faults, query, authorization))
        reply = self._simulator.answer(query, authorization, takes_gzip)
        said = json.loads(reply.body)
        if self.bad not in ids_of(query) or said["RetCode"]:
            return reply
        said["Data"] = [*(said["Data"] or ()), {"SessionNo": self.bad, "Receipt": 17}]
        return replace(reply, body=json.dumps(said).encode())

    def keep(self, at: datetime, faults: Faults) -> None:
        """Go on to another time and other faults; what was said is said for good."""
        self._before += self._asked
        self.at, self._faults = at, faults
        self.set_back()

    def set_back(self) -> None:
        """Undo what was said and counted since the last ``keep``."""
        self._asked, now = [], self.at
        self._simulator = Simulator(self.messages, outage=None, clock=lambda: self.at)
        for at, faults, query, authorization in self._before:
            self.at, self._simulator.faults = at, faults
            self._simulator.answer(query, authorization)
        self.at, self._simulator.faults = now, self._faults
        self._simulator.counters = Counters()

    @property
    def asked(self) -> set[str]:
        """The sessions asked about since it was set back."""
        return set(self._simulator.counters.ids_asked)

    def truth(self, forgotten: Iterable[str] = ()) -> Counter[str]:
        """Count the messages in each bucket, as a perfect connector would at this time.

        Without those to the phones ``forgotten``.
        """
        found: Counter[str] = Counter()
        for row in self._simulator.truth(self.at).to_pylist():
            is_closed = row["status"] == "pending" and self.at - row["sent_at"] > _CLOSED_AFTER
            if row["phone"] not in forgotten:
                found["unknown" if is_closed else row["status"]] += 1
        return found
