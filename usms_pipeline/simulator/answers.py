"""The items of one answer, in every shape the API is known to have.

Pure but for the random source it is given. No HTTP here, and nothing of requests.
"""

from __future__ import annotations

import zlib
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any, Final, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from usms_pipeline.contract.status import FINAL
from usms_pipeline.simulator.fate import COLUMN, NEVER, OUTCOMES
from usms_pipeline.simulator.faults import Faults
from usms_pipeline.simulator.numbering import origin, spellings
from usms_pipeline.simulator.roster import RECEIVE_TIME, Roster

Json = dict[str, Any]

_IS_FINAL: Final = tuple(outcome.status in FINAL for outcome in OUTCOMES)
_FAILED, _DELIVERED = (
    next(i for i, outcome in enumerate(OUTCOMES) if outcome.status == status)
    for status in ("failed", "delivered")
)
_WAITING = ("sending", "SENT", "queued", "accepted")
_CORRECTED_AFTER_US = 60_000_000
_BAD_ITEMS: Final = (17, "SessionNo", {"SessionNo": ["a", "b"], "Status": "success"})


class Said(NamedTuple):
    """One receipt to send: the recipient, the word and the rest; ``received`` as text and epoch."""

    recipient: int
    word: str
    code: str = ""
    description: str = ""
    received: str | None = None
    received_us: int = NEVER


class Items(NamedTuple):
    """The Data of one answer, the recipients whose final status it has, and if it has a report."""

    data: list[Any]
    finals: list[int]
    is_news: bool


def items(
    roster: Roster,
    ids: Iterable[str],
    now_us: int,
    shown: Container[int],
    faults: Faults,
    rng: Random,
) -> Items:
    """Return what the service says at ``now_us`` about the sessions asked.

    ``shown`` are the recipients whose final status an earlier answer had: only then does a
    regressing or conflicting receipt take it back.
    """
    speaker = _Speaker(roster, now_us, shown, faults, rng)
    data: list[Any] = []
    is_news = False
    for session_no in ids:
        recipients = roster.recipients_of.get(session_no)
        if recipients is None:  # nobody's: an empty item, or none at all
            if not zlib.crc32(session_no.encode()) & 1:
                data.append({"SessionNo": session_no, "Status": "success", "Receipt": None})
            continue
        said, more = speaker.said(recipients)
        is_reported = any(roster.revealed_us[index] <= now_us for index in recipients)
        is_news = is_news or is_reported
        if not is_reported and _hit(rng, faults.left_out):
            continue
        data.append(speaker.item(session_no, recipients, said))
        if more:
            data.append(speaker.item(session_no, recipients, more))
        if _hit(rng, faults.duplicate):
            data.append(data[-1])
    return Items(data, speaker.finals, is_news)


def envelope(said: Items, faults: Faults, rng: Random) -> Json:
    """Wrap items as an answer with RetCode 0, with the faults that concern a whole answer."""
    data: list[Any] | None = said.data
    if not said.is_news and _hit(rng, faults.null_data):
        data = None
    elif _hit(rng, faults.unasked):
        receipt = {"Phone": f"138{rng.randrange(10**8):08d}", "Status": "delivered"}
        session_no = str(UUID(int=rng.getrandbits(128), version=4))
        item = {"SessionNo": session_no, "Status": "success", "Receipt": receipt}
        said.data.insert(rng.randrange(len(said.data) + 1), item)
    if data is not None and _hit(rng, faults.bad_items):
        data.insert(rng.randrange(len(data) + 1), rng.choice(_BAD_ITEMS))
    content: Json = {"RetCode": "0" if _hit(rng, faults.string_ret_code) else 0}
    if not _hit(rng, faults.missing_message):
        content["Message"] = "success"
    return {**content, "Data": data}


@dataclass
class _Speaker:
    """Makes the items of one answer; ``finals`` lists whose final status is in it."""

    roster: Roster
    now_us: int
    shown: Container[int]
    faults: Faults
    rng: Random
    finals: list[int] = field(default_factory=list)

    def said(self, recipients: list[int]) -> tuple[list[Said], list[Said]]:
        """Return what is said of a session's recipients, and what a second item adds.

        The first final status that a client gets is always the true one: a receipt that takes it
        back is sent alone only later. For half of these, a second item says it from the start.
        """
        roster = self.roster
        first: list[Said] = []
        second: list[Said] = []
        for index in recipients:
            form = self._draw(index, "form")
            if roster.revealed_us[index] > self.now_us:
                if form >= 0.7:  # of the others nothing is said
                    first.append(Said(index, _WAITING[int((form - 0.7) / 0.3 * len(_WAITING))]))
                continue
            taken_back = self._taken_back(index)
            if taken_back is not None and index in self.shown:
                first.append(taken_back)
                continue
            true = OUTCOMES[roster.outcome[index]]
            received = roster.received_text[index], roster.received_us[index]
            first.append(Said(index, true.word, true.code, true.description, *received))
            if _IS_FINAL[roster.outcome[index]]:
                self.finals.append(index)
            if taken_back is not None and form < 0.5:
                second.append(taken_back)
        return first, second

    def _taken_back(self, index: int) -> Said | None:
        roster, faults = self.roster, self.faults
        if not _IS_FINAL[roster.outcome[index]]:
            return None
        if faults.regressing and self._draw(index, "regressing") < faults.regressing:
            return Said(index, "sending")
        corrected_us = roster.revealed_us[index] + _CORRECTED_AFTER_US
        conflicts = self._draw(index, "conflicting") < faults.conflicting
        if not (conflicts and corrected_us <= self.now_us):
            return None
        is_delivered = OUTCOMES[roster.outcome[index]].status == "delivered"
        other = OUTCOMES[_FAILED if is_delivered else _DELIVERED]
        when = datetime.fromtimestamp(corrected_us / 1e6, ZoneInfo(roster.receipt_timezone))
        text = when.strftime(RECEIVE_TIME)
        return Said(index, other.word, other.code, other.description, text, corrected_us)

    def item(self, session_no: str, recipients: list[int], said: list[Said]) -> Json:
        """Return an item of the answer, in one of its forms."""
        item: Json = {"SessionNo": session_no, "Status": "success"}
        faults, rng = self.faults, self.rng
        if _hit(rng, faults.receipt_set):
            item["ReceiptSet"] = [self._old_receipt(one) for one in said]
        else:
            receipts = [self._receipt(one) for one in said]
            if len(recipients) > 1 or _hit(rng, faults.array):
                item["Receipt"] = receipts
            else:
                nothing: Json | None = None if self._draw(recipients[0], "form") < 0.5 else {}
                item["Receipt"] = receipts[0] if receipts else nothing
        if _hit(rng, faults.extra_fields):
            item["Trace"] = {"Region": "cn-bj2", "Hops": [1, None, "x"]}
        return item

    def _receipt(self, one: Said) -> Json:
        receipt: Json = {"Phone": self._spelled(one), "Status": one.word}
        if one.received is not None:
            receipt["ReceiveTime"] = one.received
        if one.code:
            receipt |= {"ReceiptCode": one.code, "ReceiptDesc": one.description}
        return receipt

    def _old_receipt(self, one: Said) -> Json:
        return {
            "Phone": self._spelled(one),
            "ReceiptResult": one.word,
            "ReceiptCode": one.code,
            "ReceiptDesc": one.description,
            "ReceiptTime": 0 if one.received_us == NEVER else one.received_us // 1_000_000,
            "CostCount": 1 + int(self._draw(one.recipient, "segments") ** 3 * 3),
            "UserId": "",
            "CountryCode": origin(self.roster.phone[one.recipient]).country,
        }

    def _spelled(self, one: Said) -> str:
        if _hit(self.rng, self.faults.spellings):
            return self.rng.choice(spellings(self.roster.phone[one.recipient]))
        return self.roster.spelled[one.recipient]

    def _draw(self, index: int, name: str) -> float:
        return float(self.roster.drawn[index, COLUMN[name]])


def _hit(rng: Random, share: float) -> bool:
    return share > 0 and rng.random() < share
