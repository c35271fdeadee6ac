"""The items of one answer, in every shape the API is known to have.

Pure but for the random source it is given. No HTTP here, and nothing of requests.
"""

from __future__ import annotations

import zlib
from collections.abc import Container, Iterable
from random import Random
from typing import Any, Final, NamedTuple
from uuid import UUID

import pyarrow as pa

from usms_pipeline.contract.status import FINAL
from usms_pipeline.simulator.fate import COLUMN, NEVER, OUTCOMES
from usms_pipeline.simulator.faults import Faults
from usms_pipeline.simulator.numbering import origin, spellings
from usms_pipeline.simulator.roster import RECEIVE_TIME, Roster, times

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
    code: str
    description: str
    received: str | None
    received_us: int


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
    data: list[Any] = []
    finals: list[int] = []
    is_news = False
    for session_no in ids:
        recipients = roster.recipients_of.get(session_no)
        if recipients is None:
            data += _stranger(session_no)
            continue
        said, more = _said(roster, recipients, now_us, shown, faults, finals)
        is_reported = any(roster.revealed_us[index] <= now_us for index in recipients)
        is_news = is_news or is_reported
        if not is_reported and _hit(rng, faults.left_out):
            continue
        data.append(_item(roster, session_no, recipients, said, faults, rng))
        if more:
            data.append(_item(roster, session_no, recipients, more, faults, rng))
        if _hit(rng, faults.duplicate):
            data.append(data[-1])
    return Items(data, finals, is_news)


def envelope(said: Items, faults: Faults, rng: Random) -> Json:
    """Wrap items as an answer with RetCode 0, adding what nobody asked for."""
    data: list[Any] | None = said.data
    if not said.is_news and _hit(rng, faults.null_data):
        data = None
    elif _hit(rng, faults.unasked):
        said.data.insert(rng.randrange(len(said.data) + 1), _unasked(rng))
    if data is not None and _hit(rng, faults.bad_items):
        data.insert(rng.randrange(len(data) + 1), rng.choice(_BAD_ITEMS))
    content: Json = {"RetCode": "0" if _hit(rng, faults.string_ret_code) else 0}
    if not _hit(rng, faults.missing_message):
        content["Message"] = "success"
    return {**content, "Data": data}


def _said(
    roster: Roster,
    recipients: list[int],
    now_us: int,
    shown: Container[int],
    faults: Faults,
    finals: list[int],
) -> tuple[list[Said], list[Said]]:
    """Return what is said of a session's recipients, and what a second item adds.

    A receipt that takes a final status back stands alone once that status was sent, so that the
    first final status is always the true one; half of them say both in one answer from the start.
    """
    first: list[Said] = []
    second: list[Said] = []
    for index in recipients:
        if roster.revealed_us[index] > now_us:
            first += _waiting(roster, index)
            continue
        true = _outcome(roster, index)
        taken_back = _taken_back(roster, index, now_us, faults)
        if taken_back is not None and index in shown:
            first.append(taken_back)
            continue
        first.append(true)
        if _IS_FINAL[roster.outcome[index]]:
            finals.append(index)
        if taken_back is not None and _draw(roster, index, "form") < 0.5:
            second.append(taken_back)
    return first, second


def _outcome(roster: Roster, index: int) -> Said:
    outcome = OUTCOMES[roster.outcome[index]]
    received = roster.received_text[index], roster.received_us[index]
    return Said(index, outcome.word, outcome.code, outcome.description, *received)


def _waiting(roster: Roster, index: int) -> list[Said]:
    """Return, for some recipients, that the message is on its way; for others nothing."""
    draw = _draw(roster, index, "form")
    if draw < 0.7:
        return []
    word = _WAITING[int((draw - 0.7) / 0.3 * len(_WAITING))]
    return [Said(index, word, "", "", None, NEVER)]


def _taken_back(roster: Roster, index: int, now_us: int, faults: Faults) -> Said | None:
    """Return what a regressing or conflicting receipt says in place of the true final status."""
    if not _IS_FINAL[roster.outcome[index]]:
        return None
    if faults.regressing and _draw(roster, index, "regressing") < faults.regressing:
        return Said(index, "sending", "", "", None, NEVER)
    corrected_us = roster.revealed_us[index] + _CORRECTED_AFTER_US
    conflicts = _draw(roster, index, "conflicting") < faults.conflicting
    if not (conflicts and corrected_us <= now_us):
        return None
    is_delivered = OUTCOMES[roster.outcome[index]].status == "delivered"
    other = OUTCOMES[_FAILED if is_delivered else _DELIVERED]
    text = _local_text(corrected_us, roster.receipt_timezone)
    return Said(index, other.word, other.code, other.description, text, corrected_us)


def _item(
    roster: Roster,
    session_no: str,
    recipients: list[int],
    said: list[Said],
    faults: Faults,
    rng: Random,
) -> Json:
    item: Json = {"SessionNo": session_no, "Status": "success"}
    if _hit(rng, faults.receipt_set):
        item["ReceiptSet"] = [_old_receipt(roster, one, faults, rng) for one in said]
    else:
        receipts = [_receipt(roster, one, faults, rng) for one in said]
        if len(recipients) > 1 or _hit(rng, faults.array):
            item["Receipt"] = receipts
        else:
            item["Receipt"] = receipts[0] if receipts else _empty(roster, recipients[0])
    if _hit(rng, faults.extra_fields):
        item["Trace"] = {"Region": "cn-bj2", "Hops": [1, None, "x"]}
    return item


def _empty(roster: Roster, index: int) -> Json | None:
    return None if _draw(roster, index, "form") < 0.5 else {}


def _receipt(roster: Roster, one: Said, faults: Faults, rng: Random) -> Json:
    receipt: Json = {"Phone": _spelled(roster, one, faults, rng), "Status": one.word}
    if one.received is not None:
        receipt["ReceiveTime"] = one.received
    if one.code:
        receipt["ReceiptCode"] = one.code
        receipt["ReceiptDesc"] = one.description
    return receipt


def _old_receipt(roster: Roster, one: Said, faults: Faults, rng: Random) -> Json:
    return {
        "Phone": _spelled(roster, one, faults, rng),
        "ReceiptResult": one.word,
        "ReceiptCode": one.code,
        "ReceiptDesc": one.description,
        "ReceiptTime": 0 if one.received_us == NEVER else one.received_us // 1_000_000,
        "CostCount": 1 + int(_draw(roster, one.recipient, "segments") ** 3 * 3),
        "UserId": "",
        "CountryCode": origin(roster.phone[one.recipient]).country,
    }


def _spelled(roster: Roster, one: Said, faults: Faults, rng: Random) -> str:
    if _hit(rng, faults.spellings):
        return rng.choice(spellings(roster.phone[one.recipient]))
    return roster.spelled[one.recipient]


def _stranger(session_no: str) -> list[Json]:
    """Answer about a session the service doesn't know: with an empty item, or not at all."""
    if zlib.crc32(session_no.encode()) & 1:
        return []
    return [{"SessionNo": session_no, "Status": "success", "Receipt": None}]


def _unasked(rng: Random) -> Json:
    receipt = {"Phone": f"138{rng.randrange(10**8):08d}", "Status": "delivered"}
    session_no = str(UUID(int=rng.getrandbits(128), version=4))
    return {"SessionNo": session_no, "Status": "success", "Receipt": receipt}


def _local_text(epoch_us: int, timezone: str) -> str:
    when = times([epoch_us]).cast(pa.timestamp("us", tz=timezone))[0].as_py()
    return str(when.strftime(RECEIVE_TIME))


def _draw(roster: Roster, index: int, name: str) -> float:
    return float(roster.drawn[index, COLUMN[name]])


def _hit(rng: Random, share: float) -> bool:
    return share > 0 and rng.random() < share
