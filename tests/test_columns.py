"""The fast way of a day's fold gives what the rule gives, session by session, on any account."""

from __future__ import annotations

import os
import random
from collections import Counter, defaultdict
from copy import deepcopy
from typing import Any

import pyarrow as pa

from tests.test_general import WORDS, How, drawn_detail
from usms_pipeline.contract import schema
from usms_pipeline.contract.status import FINAL
from usms_pipeline.days import columns, general
from usms_pipeline.days.columns import OWN, STATE, Fold
from usms_pipeline.days.general import COLUMN_OF, NO_NUMBER, UNHEARD, Answer, Sent, Session

SEED = int(os.environ.get("GENERAL_SEED", random.SystemRandom().randrange(10**6)))
LAYOUT = columns.layout(["template"])
CUTOFF = 72
PHONES = "PQR"
SENT = pa.schema(
    [("session_no", pa.string()), ("recipient", pa.string()), ("phone", pa.string())]
    + [(name, pa.string()) for name in ("country", "operator", "number_type")]
    + [("sent_at", schema.TIME), ("recipients", pa.int32()), ("template", pa.string())]
)
Row = dict[str, Any]


def source_row(rng: random.Random, session_no: str | None, has_phones: bool) -> Row:
    phone = rng.choice([None, *PHONES]) if has_phones else None
    return {
        "session_no": session_no,
        "recipient": phone,
        "phone": phone and f"+{phone}****",
        "country": phone and "CN",
        "sent_at": rng.choice([0, 0, 0, 1]),
        "recipients": rng.choice([1] * 9 + [2]),
        "template": rng.choice(["otp", None]),
    }


def observation(rng: random.Random, session_no: str, asked_at: int, phones: list[str]) -> Row:
    kind = rng.choice(["silent", "silent", "receipt", "receipt", "receipt", "refused", "whole"])
    number = rng.choice(phones or [*PHONES]) if kind == "receipt" else NO_NUMBER
    word = rng.choice([*WORDS]) or None if kind in ("receipt", "whole") else None
    status = "invalid" if kind == "refused" else WORDS[word or ""]
    submitted = rng.choice(["success"] * 5 + [None])
    return {
        "session_no": session_no,
        "number": number,
        "phone": f"+{number}****" if number else None,
        "country": "CN" if number else None,
        "asked_at": asked_at,
        **{name: drawn_detail(rng, name) if word else None for name in COLUMN_OF},
        "received_at": rng.choice([None, 0, 10**12]) if word else None,
        "word": word,
        "status": status,
        "submit_status": submitted if number else None,
        "is_final": status in FINAL,
        "session_submit_status": rng.choice([submitted] * 5 + ["other"]),
    }


def group(rng: random.Random, session_no: str) -> list[Row]:
    """Several rows of one session, each with a phone of its own."""
    phones = rng.sample(PHONES, rng.choice([2, 3]))
    rows = [source_row(rng, session_no, True) | {"recipients": 1} for _ in phones]
    return [
        row | {"recipient": phone, "phone": f"+{phone}****", "country": "CN"}
        for row, phone in zip(rows, phones, strict=True)
    ]


def all_of(rng: random.Random, session_no: str, asked_at: int, phones: list[str]) -> list[Row]:
    """What one response says that names each of a session's phones once."""
    submitted = {"submit_status": "success", "session_submit_status": "success"}
    found = []
    for phone in phones:
        one = observation(rng, session_no, asked_at, [phone])
        while not one["number"]:
            one = observation(rng, session_no, asked_at, [phone])
        found.append(one | submitted)
    return found


class Reference:
    """The account by the rule alone: every session on its own."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.lost: list[Sent] = []
        self.gone = 0

    def step(self, sent: list[Row] | None, said: list[Row]) -> None:
        read: dict[str | None, list[Sent]] = defaultdict(list)
        for row in sent or ():
            own = {name: row.get(name) for name in ("recipient", "phone", "country")}
            first = Sent(row["sent_at"], dimensions=[row["template"]], **own)
            more = [Sent(row["sent_at"], dimensions=[row["template"]])] * (row["recipients"] - 1)
            read[row["session_no"]] += [first, *deepcopy(more)]
        coming, new = read.pop(None, []), []
        if sent is not None:
            unread = self.sessions.keys() - read.keys()
            self.gone += sum(len(self.sessions[session_no].sent) for session_no in unread)
        for session_no, rows in read.items():
            assert session_no is not None
            known = self.sessions.setdefault(session_no, Session())
            gone, arrived = general.announce(known.sent, rows, 0, 99)
            general.prune(known)
            self.gone += gone
            new += arrived
        if sent is not None:
            numbered = Counter(one.moment for one in new)
            self.lost, gone = general.announce_without_session(self.lost, coming, numbered, 0, 99)
            self.gone += gone
        for row in said:
            if row["session_no"] not in self.sessions:
                continue
            answer = Answer(**{name: row[name] for name in ("asked_at", "status", *COLUMN_OF)})
            who = {name: row.get(name) for name in ("phone", "country")}
            who["submit_status"] = row["session_submit_status"]
            general.observe(self.sessions[row["session_no"]], row["number"], answer, who)
        for known in self.sessions.values():
            general.prune(known)

    def rows(self) -> list[Row]:
        found = []
        for session_no, known in self.sessions.items():
            made = general.rows(session_no, known, CUTOFF)
            state = general.state_of(known)
            if made and general.session_of(made) == known:
                state = str(len(made)) if len(made) > 1 else None
            for place, row in enumerate(made):
                [row["template"]] = row.pop("dimensions")
                is_first = not place or not (state or "{").startswith("{")
                found.append(row | {STATE: state if is_first else state and ""})
        return found


def in_order(rows: list[Row]) -> list[Row]:
    with_session = [row for row in rows if row["session_no"] is not None]
    return sorted(
        with_session,
        key=lambda row: (row["session_no"], not row["is_announced"], row["recipient"]),
    )


def python(table: pa.Table) -> list[Row]:
    return columns.python(table)


@How
def test_folding_in_columns_equals_the_plain_rule(many):
    rng = random.Random(SEED)
    for world in range(many // 15):
        reference, file = Reference(), LAYOUT.empty_table()
        has_phones = rng.random() < 0.6
        table: list[Row] = []
        for step in range(4):
            for n in range(rng.choice([0, 2, 6])):
                name = f"{step}-{n}" if rng.random() < 0.9 or not table else table[0]["session_no"]
                table.append(source_row(rng, name, has_phones))
            for n in range(rng.choice([0, 1, 3]) if has_phones else 0):
                table += group(rng, f"group {step}-{n}")
            if rng.random() < 0.3:
                table.append(source_row(rng, None, has_phones))
            for place in range(len(table)):
                name = table[place]["session_no"]
                if rng.random() < 0.05:
                    table[place] = source_row(rng, name, has_phones)
                elif name is None and rng.random() < 0.3:
                    table[place] = table[place] | {"session_no": f"numbered {step} {place}"}
            if table and rng.random() < 0.1:
                del table[rng.randrange(len(table))]
            names = sorted({row["session_no"] for row in table} - {None})
            asked = [name for name in names if rng.random() < 0.7] + ["stray"] * (
                rng.random() < 0.1
            )
            own = defaultdict(list)
            for row in table:
                if row["recipient"] and rng.random() < 0.9:
                    own[row["session_no"]].append(row["recipient"])
            said = [
                one
                for name in asked
                for one in (
                    all_of(rng, name, step + 1, own[name])
                    if name.startswith("group") and rng.random() < 0.7
                    else [
                        observation(rng, name, rng.choice([step + 1] * 6 + [1, 80]), own[name])
                        for _ in range(rng.choice([1, 1, 1, 1, 2]))
                    ]
                )
            ]
            is_read = rng.random() < 0.8
            sent = table if is_read else None
            reference.step(sent, said)
            read = None if sent is None else pa.Table.from_pylist(sent, SENT)
            half = file.num_rows // 2
            batches = [file.slice(0, half), file.slice(half)]
            fold = Fold(
                batches,
                read,
                pa.Table.from_pylist(said, schema.OBSERVATIONS),
                LAYOUT,
                CUTOFF,
                0,
                99,
            )
            file = pa.concat_tables([LAYOUT.empty_table(), *fold]).combine_chunks()
            where = f"seed {SEED}, world {world}, step {step}"
            made, expected = in_order(python(file)), in_order(reference.rows())
            assert made == expected, where
            lost = Counter(
                (one["sent_at"], one["recipient"], one["template"], one["status"])
                for one in python(file)
                if one["session_no"] is None
            )
            assert lost == Counter(
                (one.sent_at, one.recipient or "unheard-1", *one.dimensions, "invalid")
                for one in reference.lost
            ), where
            strays = {row["session_no"] for row in said} - reference.sessions.keys()
            assert {*fold.strays} == strays, where
            assert fold.gone == reference.gone, where
            reference.gone = 0


def test_a_usual_day_is_done_in_columns_alone(monkeypatch):
    """An unreadable answer, then a good one, with and without phones: no session by itself."""
    monkeypatch.setattr(columns, "rows_of", None)
    for has_phones in (False, True):
        rng = random.Random(SEED)
        rows = [source_row(rng, f"s{n}", has_phones) | {"recipients": 1} for n in range(50)]
        rows = [
            row | ({"recipient": f"P{n}", "phone": "+P****", "country": "CN"} if has_phones else {})
            for n, row in enumerate(rows)
        ]
        said = [
            {
                "session_no": f"s{n}",
                "number": f"P{n}",
                "phone": "+P****",
                "country": "CN",
                "asked_at": 2,
                "word": "delivered",
                "status": "delivered",
                "is_final": True,
                "submit_status": "success",
                "session_submit_status": "success",
            }
            for n in range(0, 50, 2)
        ]
        silent = [
            {"session_no": f"s{n}", "number": "", "asked_at": 1, "status": "pending",
             "is_final": False, "session_submit_status": "success"}
            for n in range(50)
        ]  # fmt: skip
        file = LAYOUT.empty_table()
        for read, answers in ((rows, silent), (rows, said)):
            observed = pa.Table.from_pylist(answers, schema.OBSERVATIONS)
            fold = Fold([file], pa.Table.from_pylist(read, SENT), observed, LAYOUT, CUTOFF, 0, 99)
            file = pa.concat_tables([*fold]).combine_chunks()
        assert [row["is_final"] for row in python(file)].count(True) == 25
        assert all(row[OWN] == has_phones for row in python(file))
        assert sum(row["recipient"].startswith(UNHEARD) for row in python(file)) == (
            0 if has_phones else 25
        )
        assert sum(table.num_rows for table in fold.changed) == 25
