"""A hostile world turned by hypothesis: what may happen to an account, and when one looks at it."""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from typing import Any, ClassVar

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.world_account import START, WorldAccount, killed_at_write
from tests.world_disk import Trouble
from tests.world_laws import Laws
from tests.world_ledger import Message
from tests.world_service import Killed, Script, unheard
from usms_pipeline.contract.errors import CredentialsRefused, ServiceDown
from usms_pipeline.store.dataset import Window

SESSIONS = ("alpha", "bravo", "charlie", "delta")
PHONES = (
    "13800138001", "13800138002", "13800138003", "85255311114", "+5215512345678", "+4915100138001",
)  # fmt: skip
"""As the service tells them. The last two: written in another way than they were sold, and with
the end of the first."""
AS_SOLD = (
    "+8613800138001", "(86)13800138002", "0086 138 0013 8003", "+852 5531 1114",
    "+52 55 1234 5678", "+4915100138001",
)  # fmt: skip
IN_A_SET = (
    "(86)13800138001", "8613800138002", "(0086)13800138003", "(852)55311114", "+5215512345678",
    "+49 151 00138001",
)  # fmt: skip
WORDS = ("sending", "delivered", "UNDELIV", "unknow", "过期", "NO_SUCH_WORD", "rejectd", "")
MINUTES = (400, 200, 1500, 1500, 4400, 70, 0)
MOST_DAYS = 3
STEPS = int(os.environ.get("WORLD_STEPS", "4"))
"""The beginning counts as one; each of the others is a run or more, and what happens before it."""
EXAMPLES = int(os.environ.get("WORLD_EXAMPLES", "30" if os.environ.get("CI") == "true" else "120"))
"""Lives; every run turns others. With 500 it takes half an hour."""
COLUMNS = ((), ("phone",), ("recipients",), ("phone", "recipients"))
"""What the customer's table may have beside session and time."""

sessions = st.sampled_from(SESSIONS)
phones = st.sampled_from(range(len(PHONES)))
turns = st.sampled_from(MINUTES)
busy_turns = st.sampled_from((400, 200, 1500))
"""After which something is due, if anything is open: else there is little to interrupt."""
apart = st.sampled_from((0, 0, 0, 1, 1, 300))
sends = st.tuples(
    st.one_of(sessions, sessions, sessions, sessions, st.none()),
    st.lists(
        st.tuples(st.one_of(st.none(), phones), st.integers(1, 3), apart), min_size=1, max_size=3
    ),
    st.sampled_from((10, 90, 0, 600, 1440, 2900)),
)
receipts = st.tuples(
    st.one_of(phones, phones, phones, st.none()),
    st.sampled_from(WORDS),
    st.sampled_from((None, 5, 3600)),
)
news = st.tuples(
    sessions,
    st.sampled_from(("single", "array", "set", "twice", "half bad", "bad")),
    st.lists(receipts, min_size=1, max_size=3),
)
faults = st.tuples(st.sampled_from(("poison", "garbled", "silent", "stray")), sessions)
lines = st.integers(0, 20)
events = st.lists(
    st.one_of(
        st.tuples(st.just("learn"), news),
        st.tuples(st.just("learn"), news),
        st.tuples(st.just("announce"), sends),
        st.tuples(st.just("change_a_phone"), st.tuples(lines, st.one_of(st.none(), phones))),
        st.tuples(st.just("number_a_row"), st.tuples(lines, sessions)),
        st.tuples(
            st.just("reschedule"), st.tuples(lines, st.sampled_from((-1000, -30, 60, 900, 1440)))
        ),
        st.tuples(st.just("lose_a_row"), lines),
        st.tuples(st.just("turn_bad_or_good"), faults),
    ),
    max_size=5,
)
"""What the customer and the service do before the pipeline's next step: costs next to nothing."""
breaks = st.one_of(
    st.tuples(st.just("write"), st.integers(1, 9)),
    st.tuples(st.just("write"), st.integers(1, 5)),
    st.tuples(st.sampled_from(("killed", "credentials", "down")), st.sampled_from((0, 0, 1))),
)
"""What breaks a run, and at which write or after how many requests."""


class Life(RuleBasedStateMachine):
    """One account's life."""

    tally: ClassVar[Counter[str]] = Counter()
    """How much was turned: so that nobody believes in lives that were never lived."""

    def __init__(self) -> None:
        super().__init__()
        self.account: WorldAccount | None = None

    @initialize(
        data=st.data(),
        first=st.lists(sends, min_size=2, max_size=4),
        told=st.lists(news, max_size=4),
        wrong=st.lists(faults, max_size=2),
    )
    def begin(self, data: Any, first: list[Any], told: list[Any], wrong: list[Any]) -> None:
        self.account = WorldAccount(data.draw(st.sampled_from(COLUMNS), label="columns"))
        self.ledger, self.service = self.account.ledger, self.account.service
        self.laws = Laws(self.account)
        for send in first:
            self.announce(send)
        self._go_on(0, [("learn", one) for one in told])
        self._go_on(0, [("turn_bad_or_good", one) for one in wrong])

    @invariant()
    def laws_hold(self) -> None:
        if self.account is not None:
            self.laws.look()
            self.tally["steps"] += 1

    # -- what the customer does -------------------------------------------------------------------

    def announce(self, send: Any) -> None:
        """A send, on time or late; of a session of its own, or more of one."""
        session, rows, minutes = send
        sent_at = self.account.clock.now - timedelta(minutes=minutes)
        sent_at += timedelta(seconds=len(self.ledger.messages))
        days = sorted({message.sent_at.date() for message in self.ledger.messages})
        if len(days) >= MOST_DAYS and sent_at.date() not in days:
            sent_at += days[-1] - sent_at.date()
        for phone, recipients, apart in rows:
            sent_at += timedelta(minutes=apart)
            if self._fits(session, sent_at):
                sold = AS_SOLD[phone] if phone is not None and self._has("phone") else None
                count = recipients if self._has("recipients") else 1
                self.ledger.messages.append(Message(session, sold, count, sent_at))

    def _fits(self, session: str | None, sent_at: datetime) -> bool:
        """Return whether a session may have a row then: it is one send, all within less than a day.

        Nor may it go further than to the next day: there it is looked for.
        """
        if session is None:
            return True
        others = [m.sent_at for m in self.ledger.messages if m.session_no == session]
        day = self.ledger.day_of(session)
        return all(abs(sent_at - other) < timedelta(days=1) for other in others) and (
            day is None or abs(sent_at.date() - day) <= timedelta(days=1)
        )

    def change_a_phone(self, what: tuple[int, int | None]) -> None:
        """It is filled in, corrected or blanked."""
        place, phone = what
        if self._has("phone"):
            self._message(place).phone = None if phone is None else AS_SOLD[phone]

    def reschedule(self, what: tuple[int, int]) -> None:
        message = self._message(what[0])
        sent_at = message.sent_at + timedelta(minutes=what[1])
        was, message.session_no = message.session_no, None
        if self._fits(was, sent_at):
            message.sent_at = sent_at
        message.session_no = was

    def number_a_row(self, what: tuple[int, str]) -> None:
        place, session = what
        bare = [m for m in self.ledger.messages if m.session_no is None]
        if bare and self._is_of_its_day(session, message := bare[place % len(bare)]):
            message.session_no = session

    def _is_of_its_day(self, session: str, message: Message) -> bool:
        """Return whether a row's day is that of a session: else it counts on both."""
        days = {m.sent_at.date() for m in self.ledger.messages if m.session_no == session}
        days |= {self.ledger.day_of(session)} - {None}  # type: ignore[arg-type]
        return self._fits(session, message.sent_at) and days <= {message.sent_at.date()}

    def lose_a_row(self, place: int) -> None:
        """The table's owner deletes a row; what was read of it stays sent."""
        self._message(place).is_gone = True

    def _message(self, place: int) -> Message:
        return self.ledger.messages[place % len(self.ledger.messages)]

    # -- what the service does --------------------------------------------------------------------

    def learn(self, told: Any) -> None:
        """The service says something new of a session, or takes back what it said."""
        session, shape, shown = told
        self.service.sheets[session] = sheet(session, shape, shown)

    def turn_bad_or_good(self, what: tuple[str, str]) -> None:
        kind, session = what
        if kind == "stray":
            self.service.is_stray = not self.service.is_stray
        else:
            getattr(self.service, kind).symmetric_difference_update({session})

    def _go_on(self, minutes: int, happened: list[tuple[str, Any]]) -> None:
        """Let things happen, and time pass."""
        for name, what in happened:
            getattr(self, name)(what)
        self.account.write_source()
        self.account.clock.turn(minutes=minutes)

    # -- what the pipeline does -------------------------------------------------------------------

    @rule(minutes=turns, happened=events, is_stuttering=st.booleans())
    def run(self, minutes: int, happened: list[Any], is_stuttering: bool) -> None:
        self._go_on(minutes, happened)
        self._run(Script(is_stuttering=is_stuttering))

    @rule(minutes=busy_turns, happened=events, how=breaks, is_repeated=st.booleans())
    def run_interrupted(
        self, minutes: int, happened: list[Any], how: tuple[str, int], is_repeated: bool
    ) -> None:
        self._go_on(minutes, happened)
        if how[0] == "write":
            self._run(Script(), dies_at=how[1])
        else:
            self._run(Script(*how))
        if is_repeated:
            self._run(Script())

    @rule(minutes=turns, happened=events, place=st.one_of(st.none(), st.integers(0, 2)))
    def run_overlapped(self, minutes: int, happened: list[Any], place: int | None) -> None:
        """Another run holds a day; or begins amidst this one, and finds all of them held."""
        self._go_on(minutes, happened)
        if place is None:
            self._run(Script(meanwhile=self._second_run))
        else:
            self._run(Script(), held=self._day(place))

    @rule(minutes=turns, happened=events, place=st.integers(0, 2), length=st.integers(0, 6))
    def run_over_a_window(self, minutes: int, happened: list[Any], place: int, length: int) -> None:
        self._go_on(minutes, happened)
        first = self._day(place)
        self._run(Script(), Window(first, first + timedelta(days=length)))

    @rule(place=lines, is_rebuilt=st.booleans())
    def fold_the_same_again(self, place: int, is_rebuilt: bool) -> None:
        """An answer lands twice, under another name; or everything is rebuilt."""
        if self.laws.now.blocks:
            self._land_twice(sorted(self.laws.now.blocks)[place % len(self.laws.now.blocks)])
        if is_rebuilt:
            self._rebuild()
        else:
            self._run(Script())

    @rule(happened=events, dies_at=st.one_of(st.none(), st.none(), st.integers(1, 9)))
    def replay(self, happened: list[Any], dies_at: int | None) -> None:
        self._decide(happened)
        self._replay(dies_at)

    @rule(happened=events)
    def dismiss(self, happened: list[Any]) -> None:
        self._decide(happened)
        self.ledger.marks |= dict.fromkeys(self._undecided(), "dismissed")
        self.account.connect()[0].dismiss()

    @rule(phone=st.one_of(st.none(), phones), session=sessions)
    def forget(self, phone: int | None, session: str) -> None:
        pipeline, _ = self.account.connect()
        wanted = {PHONES[phone]} if phone is not None else set()
        numbers = set() if wanted else {session}
        self.ledger.forget(wanted, numbers)
        pipeline.forget(wanted, numbers)
        self.laws.look(may_vanish=True)
        self.laws.forgotten_is_nowhere()
        self.laws.published()

    # -- how it is done, and what is looked at ---------------------------------------------------

    def _has(self, column: str) -> bool:
        return column in self.account.columns

    def _day(self, place: int) -> date:
        days = sorted({message.sent_at.date() for message in self.ledger.messages})
        return days[place % len(days)]

    def _run(
        self,
        script: Script,
        window: Window | None = None,
        held: date | None = None,
        dies_at: int | None = None,
    ) -> None:
        account, laws, ledger = self.account, self.laws, self.ledger
        pipeline, line = account.connect(script)
        window, now = window or pipeline.open_window(), account.clock.now
        after = ledger.read_now(window, held)
        known = after if laws.now.open else ledger.as_known(after)
        due, grown = ledger.due(known, now, account.settings.poll_offsets), ledger.grown(after)
        due.pop(held, None)
        before = laws.now
        self.tally["runs"] += 1
        try:
            with account.held(held), killed_at_write(dies_at):
                report = pipeline.run(window)
        except (Killed, ServiceDown, CredentialsRefused) as error:
            laws.note_strays(after)
            laws.look(after, line)
            self.tally["interrupted runs"] += 1
            self.tally["answers"] += len(line.given)
            laws.nothing_given_is_lost(before, line, is_flush_killed=bool(dies_at))
            if not isinstance(error, Killed):
                laws.published()
            return
        self.tally["answers"] += len(line.given)
        laws.note_strays(after)
        laws.look(after, line, may_vanish=True)
        laws.completed(after, held)
        worked = laws.worked(before, window, now.date(), after) - {held}
        laws.answered(before, due, worked, self.service.verdict, grown)
        laws.nothing_given_is_lost(before, line, is_flush_killed=False)
        asked_in_vain = [
            v for b in laws.now.blocks.keys() - before.blocks.keys() for v in ledger.said[b].vain
        ]
        assert report.fell_short == bool(asked_in_vain)
        laws.purged(now, before)
        laws.published()
        self.tally["purges"] += bool(before.blocks.keys() - laws.now.blocks.keys())

    def _idle_run(self) -> None:
        """Law 6: a run after which nothing has happened asks nothing and writes nothing."""
        marks, (pipeline, line) = self.laws.everything(), self.account.connect()
        pipeline.run()
        assert line.requests == 0
        assert self.laws.everything() == marks
        self.tally["idle runs"] += 1

    def _second_run(self) -> None:
        pipeline, line = self.account.connect()
        pipeline.run()
        assert line.requests == 0

    def _land_twice(self, block: str) -> None:
        _, run, file = block.split("/")
        again = f"{run.split('-')[0]}-{uuid.uuid5(uuid.NAMESPACE_OID, block).hex[:8]}"
        path = self.account.data / f"responses/{again}/{file}"
        if (
            not path.exists()
            and path.relative_to(self.account.data).as_posix() not in self.ledger.said
        ):
            path.parent.mkdir()
            shutil.copyfile(self.account.data / block, path)
            (path.parent.parent / f"open/{again}.json").write_text("{}")
            self.laws.look()

    def _rebuild(self) -> None:
        for session in [*self.ledger.strays]:
            if self.ledger.day_of(session) is not None:
                del self.ledger.strays[session]
        self.account.connect()[0].rebuild()
        self.laws.look()

    def _undecided(self) -> list[Trouble]:
        return [trouble for trouble, state in self.laws.now.entries.items() if state == "open"]

    def _decide(self, happened: list[Any]) -> None:
        """Have something to decide about, if there can be, and then wait a little."""
        if not self._undecided():
            self._go_on(1500, [])
            self._run(Script())
        self._go_on(1, happened)

    def _replay(self, dies_at: int | None) -> None:
        pipeline, _ = self.account.connect()
        laws, before = self.laws, self.laws.now
        alone = {one: lone for one in self._undecided() if (lone := _lone_session(one)) is not None}
        asked = {day: {*alone.values()} & its.keys() for day, its in self.ledger.stored.items()}
        there = {session for sessions in asked.values() for session in sessions}
        done = {
            t
            for t, one in alone.items()
            if one in there and self.service.verdict(one) != "unreadable"
        }
        done |= {t for t in self._undecided() if t not in alone and laws.is_emptied(t)}
        self.tally["replays"] += bool(self._undecided())
        try:
            with killed_at_write(dies_at):
                pipeline.replay()
        except Killed:
            laws.half_replayed(done)
            return
        self.ledger.marks |= dict.fromkeys(done, "replayed")
        laws.look()
        laws.answered(before, asked, {*asked}, self.service.verdict)
        laws.published()

    def teardown(self) -> None:
        if self.account is None:
            return
        if sys.exc_info()[0] is not None:  # a step has failed; its own error is to be seen
            self.account.remove()
            return
        try:
            for _ in range(2):  # of what the first reads again, some may be due to the second
                self._run(Script())
            if not self.laws.now.open:
                self._idle_run()
            incremental = self.laws.rows_whole()
            self._rebuild()
            if not self.ledger.strays:
                rebuilt = self.laws.rows_whole()
                assert rebuilt == incremental, (rebuilt - incremental, incremental - rebuilt)
            self.tally["lives"] += 1
        finally:
            self.account.remove()


def sheet(session: str, shape: str, shown: list[Any]) -> list[Any]:
    """Return the items of an answer about a session, in one of the service's shapes."""
    told = [receipt(*one) for one in shown]
    item = unheard(session)
    if shape == "bad":
        return [item | {"Receipt": "nonsense"}]
    if shape == "set":
        return [{"SessionNo": session, "ReceiptSet": [in_a_set(*one) for one in shown]}]
    if shape == "single" and len(told) == 1:
        return [item | {"Receipt": told[0]}]
    if shape == "twice":
        return [item | {"Receipt": told}, item | {"Receipt": told + told}]
    return [item | {"Receipt": told + ["nonsense"] * (shape == "half bad")}]


def receipt(phone: int | None, word: str, after: int | None) -> dict[str, Any]:
    local = (START + timedelta(hours=8, seconds=after)) if after else None
    time = {"ReceiveTime": local.strftime("%Y-%m-%d %H:%M:%S")} if local else {}
    return ({"Phone": PHONES[phone]} if phone is not None else {}) | {"Status": word} | time


def in_a_set(phone: int | None, word: str, after: int | None) -> dict[str, Any]:
    number = {} if phone is None else {"Phone": IN_A_SET[phone]}
    time = {"ReceiptTime": int(START.timestamp()) + after if after else 0}
    return number | {"ReceiptResult": word} | time


def _lone_session(trouble: Trouble) -> str | None:
    """Return the session that a replay asks about again: refused alone, or unreadable alone."""
    kind, session, rest = trouble
    if kind == "refused_id":
        return session
    return rest[0] if kind == "unreadable_answer" and len(rest) == 2 else None


def turn() -> Counter[str]:
    """Live many lives. A failure prints its steps: few enough to be read, so they aren't shrunk."""
    Life.tally = Counter()
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            print_blob=True,
            report_multiple_bugs=False,
            phases=(Phase.explicit, Phase.reuse, Phase.generate),
            suppress_health_check=list(HealthCheck),
        ),
    )
    return Life.tally


@pytest.mark.long
def test_the_laws_hold_in_any_world():
    tally = turn()
    assert tally["lives"] >= EXAMPLES, tally
    print(tally)


class Drawn:
    """What hypothesis would draw: a table with phones."""

    def draw(self, _: object, label: str) -> tuple[str, ...]:
        return ("phone",)


@pytest.fixture
def life() -> Iterator[Life]:
    """Yield a life in which a group of two has receipts, and one session is refused."""
    lived = Life()
    lived.begin(
        data=Drawn(),
        first=[("alpha", [(0, 1, 0), (1, 1, 0)], 90), ("bravo", [(2, 1, 0)], 90)],
        told=[("alpha", "array", [(0, "delivered", 5), (1, "UNDELIV", 5)])],
        wrong=[("poison", "bravo")],
    )
    lived._run(Script())
    yield lived
    lived.account.remove()


def written_anew(life: Life, zone: str, change: Callable[[pa.Table], pa.Table]) -> None:
    store = life.account.connect()[0].store
    [name] = store.names(zone)
    store.write(name, change(store.read(name)), store.metadata(name))


def saying(column: str, value: str) -> Callable[[pa.Table], pa.Table]:
    return lambda rows: rows.set_column(
        rows.schema.get_field_index(column),
        rows.schema.field(column),
        pa.array([value] * len(rows)),
    )


def test_the_laws_pass_on_a_correct_account(life):
    life.laws.look()
    life.laws.published()


LIES = {
    "a lost row": ("receipts", lambda rows: rows.slice(1)),
    "a failure without evidence": ("receipts", saying("status", "failed")),
    "an entry closed too soon": ("quarantine", saying("state", "replayed")),
}


@pytest.mark.parametrize("lie", LIES)
def test_the_laws_notice_a_falsified_row(life, lie):
    written_anew(life, *LIES[lie])
    with pytest.raises(AssertionError):
        life.laws.look()


def test_the_laws_notice_a_deleted_response(life):
    store = life.account.connect()[0].store
    store.delete(store.names("responses")[0])
    with pytest.raises(AssertionError, match="is gone"):
        life.laws.look()


@pytest.fixture
def account() -> Iterator[WorldAccount]:
    made = WorldAccount(("phone",))
    yield made
    made.remove()


def announce(account: WorldAccount, session: str | None, *phones: str | None, hours: float) -> None:
    """Add a send of ``hours`` hours ago to the table."""
    sent_at = account.clock.now - timedelta(hours=hours)
    account.ledger.messages += [Message(session, phone, 1, sent_at) for phone in phones]
    account.write_source()


def rows(account: WorldAccount) -> list[dict[str, Any]]:
    found = [row for its in account.disk.look().days.values() for row in its]
    return sorted(
        found, key=lambda row: (row["sent_at"], row["session_no"] or "", row["recipient"])
    )


def run(account: WorldAccount, script: Script | None = None, **given: Any) -> Any:
    pipeline, line = account.connect(script)
    pipeline.run(**given)
    return line


def test_the_last_row_without_a_session_that_gets_one_is_published_once(account):
    announce(account, None, None, hours=1)
    run(account)
    account.ledger.messages[0].session_no = "alpha"
    account.write_source()
    run(account)
    assert [row["session_no"] for row in rows(account)] == ["alpha"]
    laws = Laws(account)
    laws.now = account.disk.look()
    laws.published()


def test_what_can_not_be_used_and_names_who_is_forgotten_is_not_set_aside(account):
    account.connect()[0].forget(["13800138001"])
    announce(account, "alpha", None, None, hours=1)
    receipt = {"Phone": "13800138001", "Status": "delivered"}
    account.service.sheets["alpha"] = [{"SessionNo": "alpha", "Receipt": [receipt, "nonsense"]}]
    run(account)
    assert not [name for name, text in account.disk.texts().items() if "13800138001" in text]
    assert [row["status"] for row in rows(account)] == ["pending", "pending"]


def test_a_session_read_for_another_day_as_before_is_not_gone_from_its_own(account):
    account.clock.turn(hours=-8)
    announce(account, "alpha", "+8613800138001", "+8613800138002", hours=1)
    run(account)
    account.ledger.messages[0].sent_at -= timedelta(hours=1)  # before midnight
    account.write_source()
    run(account)
    announce(account, "bravo", None, hours=0)
    pipeline, _ = account.connect()
    report = pipeline.run()
    assert pipeline.conservation() == []
    assert not [said for said in report.warnings if "no longer in the source" in said]


def test_a_session_in_two_days_files_is_asked_about_once(account):
    """It was put off so far that nobody looked for it where it was."""
    announce(account, "alpha", None, hours=1)
    run(account)
    account.ledger.messages[0].sent_at += timedelta(hours=70)
    account.write_source()
    account.clock.turn(hours=70.5)
    line = run(account)
    assert [given.ids for given in line.given] == [("alpha",)]
    assert account.connect()[0].conservation() == []
