"""The laws as checks of a turned world: what holds after every step, and after a completed run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from itertools import combinations
from typing import Any

import duckdb

from tests import world_disk
from tests.world_account import WorldAccount
from tests.world_disk import Found, Rows, Trouble, mark, written_at
from tests.world_ledger import COMPARED, Table, compared
from tests.world_service import Transport
from usms_pipeline.contract.status import FINAL
from usms_pipeline.days.columns import STATE
from usms_pipeline.days.general import Sent
from usms_pipeline.store.dataset import Window


class Laws:
    """Looks at an account after each step, and remembers what it saw."""

    def __init__(self, account: WorldAccount) -> None:
        self.account, self.ledger, self.disk = account, account.ledger, account.disk
        self.now = Found()
        self.missing: set[Trouble] = set()
        """What was in quarantine and went with its run, or with who is forgotten."""
        self._published: Any = None

    # -- after every step -------------------------------------------------------------------------

    def look(
        self,
        after: Table | None = None,
        line: Transport | None = None,
        *,
        may_vanish: bool = False,
    ) -> None:
        """Check what holds at any moment; ``after`` is what the source may have brought.

        ``line`` has what the service said since; ``may_vanish``: there was a purge, or somebody is
        forgotten.
        """
        if self.disk.files() == self.now.marks:
            return
        before, self.now = self.now, self.disk.look()
        self._answers_stay(before, line, may_vanish)
        assert before.days.keys() <= self.now.days.keys(), "a day is gone"
        changed = [
            day for day in self.now.days if day not in before.days or self._differs(day, before)
        ]
        for day in changed:
            self._rows_are_the_references(day, after)
            self._buckets_hold_everybody(day)
        self._quarantine_is_true(before, may_vanish)
        if changed:
            amiss = self.account.connect()[0].conservation(changed)
            assert not amiss, "\n".join(amiss + [str(self.now.footers[day]) for day in changed])

    def _differs(self, day: date, before: Found) -> bool:
        return self.now.footers[day] != before.footers[day] or (
            self.now.days[day] != before.days[day]
        )

    def _answers_stay(self, before: Found, line: Transport | None, may_vanish: bool) -> None:
        """Law 4: what was received stays as it is, until it is purged."""
        gone = before.blocks.keys() - self.now.blocks.keys()
        assert may_vanish or not gone, f"{gone} is gone"
        for block, answers in self.now.blocks.items():
            if block not in before.blocks:
                self.ledger.land(block, [_whole(one, line) for one in answers])
            elif answers != before.blocks[block]:
                assert self.ledger.forgotten_words(), f"{block} was changed"
                assert all(
                    one["verdict"] == "forgotten"
                    for one, was in zip(answers, before.blocks[block], strict=True)
                    if one["body"] != was["body"]
                )

    def _rows_are_the_references(self, day: date, after: Table | None) -> None:
        """Laws 2, 3 and 8: the rows are those of the source as it was, or as it was just read."""
        there: dict[str | None, Rows] = {}
        for row in self.now.days[day]:
            there.setdefault(row["session_no"], []).append(row)
        tables = [self.ledger.stored] if after is None else [after, self.ledger.stored]
        for table in tables:
            source = table.get(day, {})
            made_of = {one: self._made_of(one, source[one], there.get(one, [])) for one in source}
            if there.keys() == source.keys() and None not in made_of.values():
                self.ledger.stored[day] = dict(source)
                self.ledger.folded |= {one: got for one, got in made_of.items() if one and got}
                break
        else:
            raise AssertionError(self._difference(day, there, tables[0].get(day, {})))
        told = {(t.session_no, t.status) for said in self.ledger.said.values() for t in said.told}
        for row in self.now.days[day]:
            assert row["status"] not in FINAL or (row["session_no"], row["status"]) in told

    def _made_of(self, session: str | None, rows: list[Sent], there: Rows) -> set[str] | None:
        """Return the blocks that a session's rows are made of; None where none explain them.

        What was folded once stays; of the others all, or if a run was interrupted, some.
        """
        wanted = compared(there)
        if session is None:
            return set() if compared(self.ledger.receipts(None, rows, ())) == wanted else None
        kept = self.ledger.folded[session]
        others = sorted(self.ledger.about(session) - kept)
        for count in range(len(others), -1, -1):
            for some in combinations(others, count):
                blocks = {*kept, *some}
                if compared(self.ledger.receipts(session, rows, blocks)) == wanted:
                    return blocks
        return None

    def _difference(self, day: date, there: dict[str | None, Rows], source: Any) -> str:
        """Return what is wrong with a day, for who has to find out why."""
        lines = [f"{day} has {sorted(map(str, there))}, not {sorted(map(str, source))}"]
        for session, rows in source.items():
            blocks = self.ledger.about(session) if session else set()
            expected = compared(self.ledger.receipts(session, rows, blocks))
            found = compared(there.get(session, []))
            if found != expected:
                lines += [f"{session}: there is", *map(_short, found), "and should be"]
                lines += [*map(_short, expected), f"of {rows}"]
        return "\n".join(lines)

    def _buckets_hold_everybody(self, day: date) -> None:
        """Law 1."""
        counted = Counter(row["status"] for row in self.now.days[day] if row["is_announced"])
        assert counted.total() == sum(map(len, self.ledger.stored[day].values()))
        assert counted == Counter(self.now.footers[day]["buckets"])

    def _quarantine_is_true(self, before: Found, may_vanish: bool) -> None:
        """Law 7: what is told was so, and stays until somebody decides."""
        ledger = self.ledger
        known = {trouble for said in ledger.said.values() for trouble in said.troubles}
        gone = {one for one, at in before.blocks_of.items() if self.now.blocks_of.get(one) != at}
        assert may_vanish or not gone, f"{gone} is gone"
        self.missing |= gone - self.now.entries.keys()
        for trouble in gone:  # if it is there, it was found again, and nobody has decided
            ledger.marks.pop(trouble, None)
        for trouble, state in self.now.entries.items():
            assert trouble in known or self._is_of_a_stray(trouble), trouble
            assert state == ledger.marks.get(trouble, "open"), trouble

    def _is_of_a_stray(self, trouble: Trouble) -> bool:
        kind, session, rest = trouble
        return kind == "unasked_session" and rest == ("",) and bool(self.ledger.strays[session])

    def half_replayed(self, done: set[Trouble]) -> None:
        """After a replay that died: what counts as replayed was answered."""
        self.ledger.marks |= {
            trouble: "replayed"
            for trouble, state in self.disk.look().entries.items()
            if state == "replayed" and trouble in done
        }
        self.look()

    # -- after a completed run --------------------------------------------------------------------

    def answered(
        self,
        before: Found,
        due: dict[date, set[str]],
        must: set[date],
        expected: Any,
        grown: Iterable[str] = (),
    ) -> None:
        """Laws 4, 6 and 7: each due session got its answer, once; nobody else was asked.

        The days in ``must`` are worked on; others may be, but then as a whole. Who is ``grown`` may
        be asked about at once, with or without a final status of the others.
        """
        new = self.now.blocks.keys() - before.blocks.keys()
        landed = Counter(a for block in new for a in _verdicts(self.ledger.said[block]))
        for day, sessions in due.items():
            its = Counter({one: n for one, n in landed.items() if one[0] in sessions})
            wanted = Counter((session, expected(session)) for session in sessions)
            assert its == wanted or (not its and day not in must), f"{its}, not {wanted}"
            landed -= its
        extra = Counter((one, expected(one)) for one in grown)
        assert landed <= extra, f"nobody was to ask about {landed - extra}"

    def worked(self, before: Found, window: Window, today: date, after: Table) -> set[date]:
        """Return the days that a run over a window works on in any case."""
        within = {day for day in {*before.days, *after} if day in window}
        older = {day for day, said in before.footers.items() if day < window.first and said["open"]}
        return within | older if window.last >= today else within

    def note_strays(self, after: Table) -> None:
        """Note who is in no day's file, and was answered in a killed run that is sealed by now."""
        open_now = self.disk.look().open
        for block in self.now.open_blocks:
            if block.split("/")[1] not in open_now:
                for session in self._without_a_day(block, after):
                    self.ledger.strays[session].add(block)

    def _without_a_day(self, block: str, after: Table) -> set[str]:
        sessions = self.ledger.said[block].sessions - self.ledger.sessions_forgotten
        return {one for one in sessions if not any(one in its for its in after.values())}

    def is_emptied(self, trouble: Trouble) -> bool:
        """Return whether the response that something was found in says it no more."""
        answers = self.now.blocks.get(self.now.blocks_of[trouble], [])
        return trouble not in world_disk.read(answers, self.account.ledger.book).troubles

    def completed(self, after: Table, held: date | None) -> None:
        """Check that all that was read and told is in the days' files, and told in quarantine."""
        ledger = self.ledger
        for day in {*after, *ledger.stored} - {held}:
            assert ledger.stored.get(day, {}) == after.get(day, {})
            for session in after.get(day, {}):
                if session is not None:
                    self._all_is_folded(day, session)
        if held is None:
            for block in self.now.open_blocks:  # until their source is read, or is known to be gone
                assert self._without_a_day(block, after)
        if not self.now.open:
            self.forgotten_is_nowhere()
        there = {trouble for one in self.now.blocks for trouble in ledger.said[one].troubles}
        left = there - self.missing - self.now.entries.keys()
        assert all(map(ledger.names_forgotten, left)), left

    def _all_is_folded(self, day: date, session: str) -> None:
        ledger = self.ledger
        told = ledger.about(session) - ledger.strays[session]
        left = told - ledger.folded[session]
        if left:  # it may have said nothing new
            rows = [row for row in self.now.days[day] if row["session_no"] == session]
            expected = ledger.receipts(session, ledger.stored[day][session], told)
            assert compared(rows) == compared(expected), f"{session} was told of in {left}"
            ledger.folded[session] |= left

    def forgotten_is_nowhere(self) -> None:
        needles = self.ledger.forgotten_words()
        if needles:
            for name, text in self.disk.texts().items():
                assert not [needle for needle in needles if needle in text], name

    def nothing_given_is_lost(self, before: Found, line: Transport, is_flush_killed: bool) -> None:
        """Law 4: every good answer is on disk, to the byte; none that was not given is."""
        new = self.now.blocks.keys() - before.blocks.keys()
        landed = Counter(
            (tuple(answer["ids"]), one["body"])
            for block in new
            for answer in self.now.blocks[block]
            if (one := _whole(answer, line))["verdict"] == "ok"
        )
        given = Counter((g.ids, g.body) for g in line.given if b'"RetCode":0,' in g.body)
        assert landed <= given
        # a session asked alone, to see whether the service answers anybody, is asked again in turn
        assert is_flush_killed or all(len(ids) == 1 for ids, _ in given - landed)

    def rows_whole(self) -> Counter[str]:
        """Return the rows, with what is remembered in them.

        But for the ends of numbers: of one that was the only one of a plain session they are not
        kept, and a rebuild reads them in its response again.
        """
        return Counter(
            f"{day} {row | {STATE: _without_ends(row[STATE])}}"
            for day, rows in self.now.days.items()
            for row in rows
        )

    def everything(self) -> Any:
        """Return a mark of every file that a reader may have open."""
        return self.disk.files(), mark(self.account.data / "usms.duckdb")

    # -- purging and publishing -------------------------------------------------------------------

    def purged(self, now: datetime, before: Found) -> None:
        """Raw answers go when their time is over, not sooner, not later."""
        oldest = now - timedelta(days=self.account.settings.raw_retention_days)
        kept = {*self.now.open, *self.now.runs_to_decide}
        for run in before.runs | self.now.runs:
            is_over = written_at(run) < oldest
            assert (run in self.now.runs) == (not is_over or run in kept), run
        assert not before.runs_to_decide - self.now.runs, "nobody has decided"

    def published(self) -> None:
        """Law 5: the warehouse has what the dataset has."""
        if self.is_published():
            return
        path = self.account.data / "usms.duckdb"
        with duckdb.connect(str(path), read_only=True) as con:
            con.execute("SET TimeZone = 'UTC'")
            there = con.execute(f"SELECT {', '.join(COMPARED)} FROM receipts").fetchall()
        here = [tuple(row[n] for n in COMPARED) for rows in self.now.days.values() for row in rows]
        published, stored = (Counter(map(_in_utc, rows)) for rows in (there, here))
        assert published == stored, (published - stored, stored - published)
        self._published = self._publishable()

    def is_published(self) -> bool:
        """Return whether the warehouse equalled the dataset, and both are as they were."""
        return self._published == self._publishable()

    def _publishable(self) -> Any:
        files, warehouse = self.everything()
        return warehouse, {n: m for n, m in files.items() if n.startswith("receipts/")}


def _whole(answer: dict[str, Any], line: Transport | None) -> dict[str, Any]:
    """Return an answer as the service gave it: one that names who is forgotten is emptied since."""
    if answer["verdict"] != "forgotten" or line is None:
        return answer
    given = [one for one in line.given if [*one.ids] == answer["ids"]]
    return answer | {"verdict": "ok", "body": given[0].body} if given else answer


def _without_ends(state: str | None) -> Any:
    if not state or not state.startswith("{"):
        return state
    found = json.loads(state)
    people = [*found.get("sent", []), *found.get("numbers", {}).values()]
    for one in people:
        one.pop("ends", None)
    return found


def _verdicts(said: Any) -> list[tuple[str, str]]:
    """Return what became of each question."""
    vain = [(a.session_no, "unreadable") for a in said.vain]
    return vain + [
        (a.session_no, "refused" if a.is_refused else "unreadable" if a.is_unanswered else "ok")
        for a in said.asked
    ]


def _short(row: dict[str, Any]) -> str:
    return "  " + ", ".join(f"{name}={row[name]!s:.26}" for name in COMPARED if row[name])


def _in_utc(row: tuple[Any, ...]) -> str:
    return str([v.astimezone(UTC) if isinstance(v, datetime) else v for v in row])
