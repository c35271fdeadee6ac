"""The rule for one session gives what the reference gives, which is written from the rules alone.

The reference (``model``) keeps every answer, and pairs rows and numbers by itself.
"""

from __future__ import annotations

import os
import random
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.model import Asked, SourceRow, Told, World, joined
from tests.test_general import WORDS, How, ends
from tests.world_ledger import compared
from usms_pipeline.days import general
from usms_pipeline.days.general import NO_NUMBER, Answer, Sent, Session

SEED = int(os.environ.get("GENERAL_SEED", random.SystemRandom().randrange(10**6)))
BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
DIGITS = {
    "P": "8613800138001", "Q": "8613900138002", "R": "525512345678", "S": "5215512345678",
    "T": "4915100138001", "U": "113800138001",
}  # fmt: skip
"""R and S are one number in two ways; T and U end as P does, the one in eight digits, the other in
eleven."""
CUTOFF = timedelta(hours=72)
TIMES = ("sent_at", "received_at", "first_asked_at", "last_asked_at", "final_at")


def at(hours: float) -> datetime:
    return BEGIN + timedelta(hours=hours)


def micros(moment: datetime | None) -> Any:
    return moment and int(moment.timestamp() * 1_000_000)


def source_row(rng: random.Random) -> SourceRow:
    phone = rng.choice([None, None, *DIGITS])
    return SourceRow("s", at(rng.choice([0, 0, 1, 30])), phone, DIGITS.get(phone or "", ""))


def answers(rng: random.Random) -> tuple[list[Asked], list[Told]]:
    """Draw what some responses say: of numbers, of the session, nothing, or that it is refused."""
    asked, told = [], []
    for hours in sorted(rng.sample([0.1, 1, 2, 5, 40, 80, 110], rng.choice([0, 1, 2, 4]))):
        submitted = rng.choice(["success", "success", None])
        asked.append(Asked("s", at(hours), submitted, rng.random() < 0.1))
        for _ in range(0 if asked[-1].is_refused else rng.choice([0, 1, 1, 2, 3])):
            number, word = rng.choice(["", *DIGITS]), rng.choice([*WORDS])
            received = rng.choice([None, at(hours - 0.05), at(900)])
            if number or word or received:
                said = (WORDS[word], word, received, submitted, DIGITS.get(number, ""))
                told.append(Told("s", number, at(hours), *said))
    return asked, told


def heard(asked: list[Asked], told: list[Told]) -> list[tuple[str, Answer, dict[str, Any]]]:
    """Return what decoding makes of it: a row a receipt, and one where there is none."""
    found = []
    for one in asked:
        its = [t for t in told if t.asked_at == one.asked_at]
        said = [
            (t.number, Answer(micros(t.asked_at), t.status, t.word, micros(t.received_at),
                              submit_status=t.submit_status))
            for t in its
        ]  # fmt: skip
        status = "invalid" if one.is_refused else "pending"
        said = said or [(NO_NUMBER, Answer(micros(one.asked_at), status))]
        found += [(number, answer, {"submit_status": one.submit_status}) for number, answer in said]
    return found


def made(session: Session) -> list[dict[str, Any]]:
    general.prune(session)
    rows = general.rows("s", session, micros(at(72)) - micros(BEGIN))
    for row in rows:
        for name in TIMES:
            if row[name] is not None:
                row[name] = datetime.fromtimestamp(row[name] / 1_000_000, UTC)
    return rows


@How
def test_the_rule_gives_what_the_reference_gives(many: int) -> None:
    rng = random.Random(SEED)
    for world in range(many):
        session, rows = Session(), []
        for _ in range(rng.choice([1, 1, 2, 3])):
            read = [source_row(rng) for _ in range(rng.choice([1, 1, 2, 3]))]
            sent = [
                Sent(
                    micros(row.sent_at),
                    row.recipient,
                    ends=ends(row.digits) if row.digits else None,
                )
                for row in read
            ]
            general.announce(session.sent, sent, micros(at(-9)), micros(at(99)))
            rows, _ = joined(rows, read, at(-9), at(99))
        asked, told = answers(rng)
        said = heard(asked, told)
        rng.shuffle(said)
        for number, answer, who in said:
            general.observe(session, number, answer, who)
            if number:
                session.numbers[number].ends = ends(DIGITS[number])
        expected = compared(World(rows, asked, told).receipts(CUTOFF))
        assert compared(made(session)) == expected, f"seed {SEED}, world {world}: {rows} {told}"
