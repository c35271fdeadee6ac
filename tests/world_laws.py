"""The laws as checks of a turned world: what holds after every step, and after a completed run."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb

from tests.model import FINALS
from tests.world_account import WorldAccount
from tests.world_answers import Trouble
from tests.world_disk import Day, mark
from tests.world_ledger import COMPARED, Rows, as_found, as_stored, compared
from tests.world_service import Transport
from usms_pipeline.dataset import Window


class Laws:
    """Looks at an account after each step, and remembers what it saw."""

    def __init__(self, account: WorldAccount) -> None:
        self.account, self.ledger, self.disk = account, account.ledger, account.disk
        self.days: dict[date, Day] = {}
        self.files: dict[str, Any] = {}
        self._published: Any = None

    # -- after every step -------------------------------------------------------------------------

    def look(self, read_now: dict[date, Rows] | None = None, is_purge: bool = False) -> None:
        """Check what holds at any moment; ``read_now`` is what the source may have brought."""
        files = self.disk.files()
        if files == self.files:
            return
        self.files, before, self.days = files, self.days, self.disk.days()
        for day, found in self.days.items():
            self._take_rows(day, found, (read_now or {}).get(day))
            self._take_answers(day, found, is_purge)
            if found.commit:
                self._rows_are_the_references(day, found)
                self._buckets_hold_everybody(day, found)
            self._quarantine_is_whole(day, found)
        assert before.keys() <= self.days.keys(), "a partition is gone"
        changed = [
            day
            for day, found in self.days.items()
            if found.is_current and (day not in before or found.commit != before[day].commit)
        ]
        if changed:
            assert self.account.connect()[0].conservation(changed) == []
        self._forgotten_is_nowhere()

    def _take_rows(self, day: date, found: Day, read_now: Rows | None) -> None:
        """What is stored is what was stored, or what was just read: nothing else, nothing less."""
        if found.sessions_token in self.ledger.versions:
            return
        there = as_found(found.sessions)
        if read_now is not None and there == as_stored(read_now.values()):
            self.ledger.stored[day] = read_now
        stored = self.ledger.stored.get(day, {})
        assert there == as_stored(stored.values())
        assert found.sessions_token is not None
        self.ledger.versions[found.sessions_token] = list(stored.values())

    def _take_answers(self, day: date, found: Day, is_purge: bool) -> None:
        """Law 4: what landed stays, until it is purged."""
        known = self.ledger.answers.setdefault(day, {})
        gone = known.keys() - found.answers.keys() - self.ledger.purged.setdefault(day, set())
        if gone:
            assert is_purge, f"{gone} is gone"
            assert found.commit
            assert found.commit["is_purged"]
            self.ledger.purged[day] |= gone
        for name in found.answers.keys() - known.keys():
            known[name] = found.answers[name]
        self.ledger.folded.setdefault(day, set()).update(found.folded, gone)

    def _rows_are_the_references(self, day: date, found: Day) -> None:
        """Laws 2, 3 and 8."""
        assert found.commit
        rows = self.ledger.versions[found.commit["sessions"]]
        folded = self.ledger.folded[day]
        expected = self.ledger.receipts(day, rows, folded)
        there = compared(found.receipts)
        strange = [row for row in there if row not in expected]
        assert strange == [row for row in expected if row not in there]
        assert there == expected
        told = {(t.session_no, t.status) for t in self.ledger.reading(day, folded).told}
        for row in found.receipts:
            assert row["status"] not in FINALS or (row["session_no"], row["status"]) in told

    def _buckets_hold_everybody(self, day: date, found: Day) -> None:
        """Law 1."""
        assert found.commit
        rows = self.ledger.versions[found.commit["sessions"]]
        counted = Counter(row["status"] for row in found.receipts if row["is_announced"])
        assert counted.total() == sum(row.recipients for row in rows)
        assert counted == Counter(found.commit["buckets"])

    def _quarantine_is_whole(self, day: date, found: Day) -> None:
        """Law 7: every trouble is told, once."""
        expected = Counter(
            (key[0], key[1], state) for key, state in self.ledger.troubles(day, found).items()
        )
        there = Counter((e["kind"], e["session_no"], e["state"]) for e in found.quarantine)
        if found.answers.keys() <= found.folded:
            assert there == expected
        else:
            assert there <= expected

    def _forgotten_is_nowhere(self) -> None:
        needles = self.ledger.forgotten_words()
        if needles:
            for name, text in self.disk.texts().items():
                assert not [needle for needle in needles if needle in text], name

    def half_replayed(self, before: dict[date, Day], done: dict[date, list[Trouble]]) -> None:
        """After a replay that died: what counts as replayed was answered, and is in the rows."""
        for day, found in self.disk.days().items():
            if day in before and found.quarantine != before[day].quarantine:
                states = Counter(entry["state"] for entry in found.quarantine)
                if (
                    states["replayed"]
                    > Counter(e["state"] for e in before[day].quarantine)["replayed"]
                ):
                    self.ledger.mark(day, done[day], "replayed")
                    assert found.answers.keys() > before[day].answers.keys()
                    assert found.is_current
        self.look()

    # -- after a completed run --------------------------------------------------------------------

    def worked(self, window: Window, today: date, read_now: dict[date, Rows]) -> set[date]:
        """Tell which partitions a run over a window works on."""
        stored = {*self.days, *(day for day, rows in read_now.items() if rows)}
        older = {
            day
            for day, found in self.days.items()
            if day < window.first and (found.is_awaiting or not found.is_current)
        }
        within = {day for day in stored if day in window}
        return within | older if window.last >= today else within

    def answered(self, before: dict[date, Day], due: dict[date, set[str]], expected: Any) -> None:
        """Laws 4, 6 and 7: each due session got its answer, once; nobody else was asked."""
        landed = {
            day: Counter(
                (session, answer["verdict"])
                for name, answers in found.answers.items()
                if name not in (before[day].answers if day in before else {})
                for answer in answers
                for session in answer["ids"]
            )
            for day, found in self.days.items()
        }
        wanted = {
            day: Counter((session, expected(session)) for session in sessions)
            for day, sessions in due.items()
        }
        assert {d: c for d, c in landed.items() if c} == {d: c for d, c in wanted.items() if c}

    def read(self, read_now: dict[date, Rows]) -> None:
        """All that the source has in the window is stored, and nothing that was is dropped."""
        for day, rows in read_now.items():
            if rows:
                assert as_found(self.days[day].sessions) == as_stored(rows.values())

    def nothing_given_is_lost(
        self, before: dict[date, Day], line: Transport, is_flush_killed: bool
    ) -> None:
        """Law 4: every good answer is on disk, to the byte; none that was not given is."""
        if self.ledger.forgotten_words():
            return  # what was forgotten is cut out
        landed = Counter(
            (tuple(answer["ids"]), answer["body"])
            for day, found in self.days.items()
            for name in found.answers.keys() - (before[day].answers if day in before else {})
            for answer in found.answers[name]
            if answer["verdict"] == "ok"
        )
        given = Counter((g.ids, g.body) for g in line.given if b'"RetCode":0,' in g.body)
        assert landed <= given if is_flush_killed else landed == given

    def is_news(self, read_now: dict[date, Rows]) -> bool:
        """Tell whether the source, or a run that died, has left anything to be done."""
        return any(
            day not in self.days
            or not self.days[day].is_current
            or as_found(self.days[day].sessions) != as_stored(rows.values())
            for day, rows in {**self.ledger.stored, **read_now}.items()
        )

    def everything(self) -> Any:
        """Give a mark of every file that a reader may have open."""
        return self.disk.files(), mark(self.account.data / "usms.duckdb")

    def purged(self, now: datetime, before: dict[date, Day], held: date | None) -> None:
        """Raw answers go when their time is over, not sooner, not later."""
        oldest = now - timedelta(days=self.account.settings.raw_retention_days)
        for day, found in self.days.items():
            names = set(self.ledger.answers[day]) - self.ledger.purged[day]
            gone = set(before[day].answers if day in before else ()) - set(found.answers)
            assert not (gone and names), "purged in part"
            if gone:
                found_before = before[day]
                states = self.ledger.troubles(day, found_before).values()
                asked = [a["asked_at"] for n in gone for a in self.ledger.answers[day][n]]
                assert not found.is_awaiting
                assert max(asked) < oldest
                assert "open" not in states
                assert not found.quarantine
                self.ledger.unmark(day)
            elif names and day != held:
                states = self.ledger.troubles(day, found).values()
                asked = [a["asked_at"] for n in names for a in self.ledger.answers[day][n]]
                is_over = not found.is_awaiting and found.is_current and max(asked) < oldest
                assert not is_over or "open" in states, "its time was over"

    def published(self) -> None:
        """Law 5: the warehouse has what the dataset has."""
        if self.is_published():
            return
        path = self.account.data / "usms.duckdb"
        with duckdb.connect(str(path), read_only=True) as con:
            con.execute("SET TimeZone = 'UTC'")
            there = con.execute(f"SELECT {', '.join(COMPARED)} FROM receipts").fetchall()
        here = [
            tuple(row[name] for name in COMPARED)
            for found in self.days.values()
            for row in found.receipts
        ]
        assert sorted(map(_in_utc, there)) == sorted(map(_in_utc, here))
        self._published = self._publishable()

    def is_published(self) -> bool:
        """Tell whether the warehouse was found equal to the dataset, and both are as they were."""
        return self._published == self._publishable()

    def _publishable(self) -> Any:
        files, warehouse = self.everything()
        return warehouse, {n: m for n, m in files.items() if n.startswith("receipts/")}


def _in_utc(row: tuple[Any, ...]) -> str:
    return str([v.astimezone(UTC) if isinstance(v, datetime) else v for v in row])
