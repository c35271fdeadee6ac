"""A hostile world turned by hypothesis: what may happen to an account, and when one looks at it."""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from collections import Counter
from datetime import date, timedelta
from typing import Any, ClassVar

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
from tests.world_answers import Trouble
from tests.world_laws import Laws
from tests.world_ledger import Message
from tests.world_service import Killed, Script, unheard
from usms_pipeline.dataset import Window
from usms_pipeline.errors import CredentialsRefused, ServiceDown

SESSIONS = ("alpha", "bravo", "charlie")
PHONES = ("13800138001", "13800138002", "13800138003", "85255311114")
AS_SOLD = ("+8613800138001", "(86)13800138002", "0086 138 0013 8003", "+852 5531 1114")
IN_A_SET = ("(86)13800138001", "8613800138002", "(0086)13800138003", "(852)55311114")
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
sends = st.tuples(
    st.one_of(sessions, sessions, sessions, sessions, st.none()),
    st.lists(st.tuples(st.one_of(st.none(), phones), st.integers(1, 3)), min_size=1, max_size=3),
    st.sampled_from((10, 90, 0, 1440, 2900)),
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
        st.tuples(st.just("fill_in_a_phone"), st.tuples(lines, phones)),
        st.tuples(st.just("number_a_row"), st.tuples(lines, sessions)),
        st.tuples(st.just("lose_a_row"), lines),
        st.tuples(st.just("turn_bad_or_good"), faults),
    ),
    max_size=5,
)
"""What the customer and the service do before the pipeline's next step: costs next to nothing."""
breaks = st.one_of(
    st.tuples(st.just("write"), st.integers(1, 9)),
    st.tuples(st.sampled_from(("killed", "credentials", "down")), st.sampled_from((0, 0, 1, 3))),
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
        if sent_at.hour in (23, 0):  # what belongs to midnight has tests of its own
            sent_at -= timedelta(hours=2)
        sent_at += timedelta(seconds=len(self.ledger.messages))
        days = sorted({message.sent_at.date() for message in self.ledger.messages})
        if len(days) >= MOST_DAYS and sent_at.date() not in days:
            sent_at += days[-1] - sent_at.date()
        for phone, recipients in rows:
            number = len(self.ledger.messages)
            # rows alike but for their count are told apart by their time alone
            sent_at += timedelta(milliseconds=number if self._has("recipients") else 0)
            self.ledger.messages.append(
                Message(
                    session,
                    AS_SOLD[phone] if phone is not None and self._has("phone") else None,
                    recipients if self._has("recipients") else 1,
                    sent_at,
                )
            )

    def fill_in_a_phone(self, what: tuple[int, int]) -> None:
        bare = [m for m in self._mendable("phone") if m.phone is None]
        if bare and self._has("phone"):
            message = bare[what[0] % len(bare)]
            message.phone, message.mended = AS_SOLD[what[1]], "phone"

    def number_a_row(self, what: tuple[int, str]) -> None:
        bare = [m for m in self._mendable("number") if m.session_no is None]
        if bare:
            message = bare[what[0] % len(bare)]
            message.session_no, message.mended = what[1], "number"

    def _mendable(self, how: str) -> list[Message]:
        return [m for m in self.ledger.messages if self.ledger.may_be_mended(m, how)]

    def lose_a_row(self, place: int) -> None:
        """The table's owner deletes a row; what was read of it stays announced."""
        lost = self.ledger.messages[place % len(self.ledger.messages)]
        alike = [m for m in self.ledger.messages if m.sent_at == lost.sent_at]
        if not any(m.mended for m in alike):  # else one could be taken for the other
            lost.is_gone = True
            for message in alike:
                message.mended = "lost"

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

    @rule(minutes=turns, happened=events)
    def run(self, minutes: int, happened: list[Any]) -> None:
        self._go_on(minutes, happened)
        self._run(Script())

    @rule(minutes=turns, happened=events, is_stuttering=st.booleans())
    def run_once_more(self, minutes: int, happened: list[Any], is_stuttering: bool) -> None:
        self._go_on(minutes, happened)
        self._run(Script(is_stuttering=is_stuttering))

    @rule(minutes=turns, happened=events, how=breaks, is_repeated=st.booleans())
    def run_interrupted(
        self, minutes: int, happened: list[Any], how: tuple[str, int], is_repeated: bool
    ) -> None:
        self.account.clock.turn(minutes=minutes)
        if how[0] == "write":
            self._run(Script(), dies_at=how[1])
        else:
            self._run(Script(*how))
        if is_repeated:
            self._run(Script())

    @rule(minutes=turns, happened=events, place=st.one_of(st.none(), st.integers(0, 2)))
    def run_overlapped(self, minutes: int, happened: list[Any], place: int | None) -> None:
        """Another run holds a partition; or begins amidst this one, and finds all of it held."""
        self._go_on(minutes, happened)
        days = sorted({message.sent_at.date() for message in self.ledger.messages})
        if place is None:
            self._run(Script(meanwhile=self._second_run))
        else:
            self._run(Script(), held=days[place % len(days)])

    @rule(minutes=turns, happened=events, place=st.integers(0, 2), length=st.integers(0, 6))
    def run_over_a_window(self, minutes: int, happened: list[Any], place: int, length: int) -> None:
        self._go_on(minutes, happened)
        days = sorted({message.sent_at.date() for message in self.ledger.messages})
        first = days[place % len(days)]
        self._run(Script(), Window(first, first + timedelta(days=length)))

    @rule(place=lines, is_rebuilt=st.booleans())
    def fold_the_same_again(self, place: int, is_rebuilt: bool) -> None:
        """An answer lands twice, under another name; or everything is made anew."""
        names = [name for name in self.laws.files if name.startswith("responses/")]
        if names:
            path = self.account.data / sorted(names)[place % len(names)]
            copy = path.with_name(
                f"{path.name.split('-')[0]}-{uuid.UUID(int=place).hex[-8:]}.parquet"
            )
            if not copy.exists() and copy.name not in self._ever_landed():
                shutil.copyfile(path, copy)
                self.laws.look()
        pipeline, _ = self.account.connect()
        pipeline.rebuild() if is_rebuilt else pipeline.fold(self.laws.days)

    @rule(happened=events, dies_at=st.one_of(st.none(), st.none(), st.integers(1, 9)))
    def replay(self, happened: list[Any], dies_at: int | None) -> None:
        self._decide(happened)
        self._replay(dies_at)

    @rule(happened=events)
    def dismiss(self, happened: list[Any]) -> None:
        self._decide(happened)
        for day, keys in self._open_entries().items():
            self.ledger.mark(day, keys, "dismissed")
        self.account.connect()[0].dismiss()

    @rule(phone=st.one_of(st.none(), phones), session=sessions)
    def forget(self, phone: int | None, session: str) -> None:
        pipeline, _ = self.account.connect()
        wanted = {PHONES[phone]} if phone is not None else set()
        numbers = set() if wanted else {session}
        self.ledger.forget(wanted, numbers)
        pipeline.forget(wanted, numbers)
        self.laws.look()
        self.laws.published()

    # -- how it is done, and what is looked at ---------------------------------------------------

    def _has(self, column: str) -> bool:
        return column in self.account.columns

    def _ever_landed(self) -> set[str]:
        return {name for names in self.ledger.answers.values() for name in names}

    def _run(
        self,
        script: Script,
        window: Window | None = None,
        held: date | None = None,
        dies_at: int | None = None,
    ) -> None:
        account, laws, ledger = self.account, self.laws, self.ledger
        pipeline, line = account.connect(script)
        today, window = account.clock.now.date(), window or pipeline.open_window()
        read_now = {d: r for d, r in ledger.read_now(window).items() if d != held}
        worked = laws.worked(window, today, read_now) - {held}
        offsets, now = account.settings.poll_offsets, account.clock.now
        due = {
            day: ledger.due(day, read_now.get(day, ledger.stored.get(day, {})), now, offsets)
            for day in worked
        }
        before, marks = laws.days, laws.everything()
        is_idle = laws.is_published() and not any(due.values()) and not laws.is_news(read_now)
        self.tally["runs"] += 1
        try:
            with account.held(held), killed_at_write(dies_at):
                report = pipeline.run(window)
        except (Killed, ServiceDown, CredentialsRefused) as error:
            laws.look(read_now)
            self.tally["interrupted runs"] += 1
            self.tally["answers"] += len(line.given)
            laws.nothing_given_is_lost(before, line, is_flush_killed=bool(dies_at))
            if not isinstance(error, Killed):
                laws.published()
            return
        self.tally["answers"] += len(line.given)
        laws.look(read_now, is_purge=True)
        laws.read(read_now)
        laws.answered(before, due, self.service.verdict)
        laws.nothing_given_is_lost(before, line, is_flush_killed=False)
        for day in worked:
            assert laws.days[day].is_current or ledger.purged[day]
        assert report.fell_short == any(
            self.service.verdict(s) == "unreadable" for found in due.values() for s in found
        )
        laws.purged(now, before, held)
        laws.published()
        assert any(due.values()) or line.requests == 0
        is_purge = any(before[day].answers and not laws.days[day].answers for day in before)
        self.tally["purges"] += is_purge
        if is_idle and not is_purge:  # law 6
            self.tally["idle runs"] += 1
            assert laws.everything() == marks

    def _second_run(self) -> None:
        pipeline, line = self.account.connect()
        pipeline.run()
        assert line.requests == 0

    def _open_entries(self) -> dict[date, list[Any]]:
        return {
            day: [k for k, s in self.ledger.troubles(day, found).items() if s == "open"]
            for day, found in self.laws.days.items()
        }

    def _decide(self, happened: list[Any]) -> None:
        """Have something to decide about, if there can be, and then wait a little."""
        if not any(self._open_entries().values()):
            self._go_on(1500, [])
            self._run(Script())
        self._go_on(1, happened)
        self.account.connect()[0].fold(self.laws.days)
        self.laws.look()

    def _replay(self, dies_at: int | None) -> None:
        pipeline, _ = self.account.connect()
        before, entries = self.laws.days, self._open_entries()
        alone = {
            day: {key: lone for key in keys if (lone := _lone_session(key)) is not None}
            for day, keys in entries.items()
        }
        done = {
            day: [key for key, lone in keys.items() if self.service.verdict(lone) != "unreadable"]
            for day, keys in alone.items()
        }
        self.tally["replays"] += any(entries.values())
        try:
            with killed_at_write(dies_at):
                pipeline.replay()
        except Killed:
            self.laws.half_replayed(before, done)
            return
        for day, keys in done.items():
            self.ledger.mark(day, keys, "replayed")
        self.laws.look()
        asked = {day: set(keys.values()) for day, keys in alone.items()}
        self.laws.answered(before, asked, self.service.verdict)
        self.laws.published()

    def teardown(self) -> None:
        if self.account is None:
            return
        if sys.exc_info()[0] is not None:  # a step has failed; its own error is to be seen
            self.account.remove()
            return
        try:
            pipeline, _ = self.account.connect()
            pipeline.fold(self.laws.disk.days())
            self.laws.look()
            incremental = {day: found.receipts for day, found in self.laws.days.items()}
            pipeline.rebuild()
            self.laws.look()
            assert {day: found.receipts for day, found in self.laws.days.items()} == incremental
            self.tally["lives"] += 1
        finally:
            self.account.remove()


def sheet(session: str, shape: str, shown: list[Any]) -> list[Any]:
    """Give the items of an answer that tell of a session in one of the service's shapes."""
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
    """Give the session that a replay asks about again: refused alone, or unreadable alone."""
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
