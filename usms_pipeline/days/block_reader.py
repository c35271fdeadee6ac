"""Hands what responses say to the days that have the sessions, from the blocks of the log."""

from __future__ import annotations

from contextlib import suppress
from datetime import date
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.contract import schema
from usms_pipeline.contract.errors import DamagedDay, StorageError
from usms_pipeline.days import file, log, rebuilding
from usms_pipeline.days.held import Held
from usms_pipeline.days.quarantine import Quarantine
from usms_pipeline.people import forget
from usms_pipeline.service.careful import UNANSWERED, UNASKED
from usms_pipeline.service.decode import FORGOTTEN, decode, entry_id
from usms_pipeline.service.names import Names

_ROWS_DEALT: Final = 500_000


class BlockReader:
    """Reads blocks for the days that a run holds.

    ``watched``: sessions of which ``outcome.answered`` is to say whether they were answered.
    """

    def __init__(self, held: Held) -> None:
        self._held = held
        self._quarantine = Quarantine(held.store)
        self._naming: list[str] = []
        self.watched: set[str] = set()

    def decoded(self, name: str, block: pa.Table) -> pa.Table:
        """Return what a block says; what can't be used goes into quarantine first."""
        held, outcome = self._held, self._held.outcome
        decoded = decode(block, held.book, held.settings.receipt_timezone)
        rejects = decoded.rejects
        if held.forgotten and rejects.num_rows:
            rejects = forget.without_entries(rejects, Names(held.forgotten, held.book))
        outcome.rejected.update(rejects["id"].to_pylist())
        outcome.quarantined += self._quarantine.add(name, rejects)
        outcome.times_in_doubt += decoded.times_in_doubt
        said = decoded.observations
        outcome.receipts += said.num_rows - said["word"].null_count
        if self.watched:
            answered = said.filter(pc.is_valid(said["status"]))["session_no"].to_pylist()
            in_vain = rejects.filter(pc.equal(rejects["kind"], UNANSWERED))["session_no"]
            outcome.answered |= self.watched.intersection(answered).difference(in_vain.to_pylist())
        self._naming.append(name)
        return forget.without_answers(said, held.forgotten)

    def hand_out(self, blocks: list[str]) -> tuple[dict[str, pa.Table], bool]:
        """Hand what blocks say to the days that have the sessions, and hold these days.

        Returns, by block, what is said of sessions that no day's file has, and whether each day
        that has some could be held.
        """
        held = self._held
        said = {}
        for name in blocks:
            with suppress(_DamagedBlock):
                said[name] = self.decoded(name, self._block(name))
        left = pa.concat_tables([schema.OBSERVATIONS.empty_table(), *said.values()])
        left = left.combine_chunks()
        is_all = True
        for day in sorted({*file.days(held.store), *held.days}):
            left, is_held = self._hand(day, left)
            is_all &= is_held
        strays = left["session_no"].unique()
        of_strays = ((name, rows.filter(pc.is_in(rows["session_no"], strays)))
                     for name, rows in said.items())  # fmt: skip
        return {name: rows for name, rows in of_strays if rows.num_rows}, is_all

    def _block(self, name: str) -> pa.Table:
        try:
            block = self._held.store.read(name)
        except StorageError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno is not None:
                raise
        else:
            if block.schema.equals(schema.RESPONSES):
                return block
        self._held.outcome.aside.append(self._held.store.set_aside(name))
        raise _DamagedBlock

    def _hand(self, day: date, said: pa.Table) -> tuple[pa.Table, bool]:
        """Hand a day what is said of its sessions; return the rest, and whether it was held."""
        held = self._held
        if not said.num_rows:
            return said, True
        try:
            one = held.days.get(day)
            known = held.sessions(one) if one else held.names(day)
        except DamagedDay as error:
            held.outcome.damaged.setdefault(day, str(error))
            return said, False
        is_here = pc.is_in(said["session_no"], value_set=known)
        if not pc.any(is_here).as_py():
            return said, True
        one = held.take(day)
        if one is not None:
            one.said.append((0, said.filter(is_here)))
        return said.filter(pc.invert(is_here)), one is not None

    def set_aside(self, block: str, strays: pa.Table) -> None:
        """Quarantine that a block has sessions which are in no day's file."""
        found = []
        for row in strays.select(["session_no", "asked_at"]).to_pylist():
            session_no, asked_at = row["session_no"], row["asked_at"]
            entry = entry_id(UNASKED, session_no, [session_no], asked_at, b"")
            found.append(row | {
                "id": entry, "kind": UNASKED, "ids": [session_no], "state": "open", "body": b"",
                "reason": "the session is in no day's file", "http_status": None,
            })  # fmt: skip
        self._held.outcome.rejected.update(row["id"] for row in found)
        rejects = pa.Table.from_pylist(found, schema.QUARANTINE)
        self._held.outcome.quarantined += self._quarantine.add(block, rejects)

    def hand_out_all(self, days: list[date]) -> None:
        """Hand days what all stored blocks say of their sessions, with the run's number."""
        store = self._held.store
        said: list[tuple[int, pa.Table]] = []
        answered: list[pa.Table] = []
        rows = 0
        blocks = [(number, name) for number, run in enumerate(log.runs(store))
                  for name in log.blocks(store, run)]  # fmt: skip
        for number, name in blocks:
            with suppress(_DamagedBlock):
                block = self._block(name)
                # what was emptied had been folded: that nothing is left of it is no response
                block = block.filter(pc.not_equal(block["verdict"], FORGOTTEN))
                said.append((number, self.decoded(name, block)))
                answered.append(rebuilding.answered(block))
                rows += said[-1][1].num_rows
            if rows >= _ROWS_DEALT:
                self._hand_all(days, said, answered)
                said, answered, rows = [], [], 0
        if said:
            self._hand_all(days, said, answered)

    def _hand_all(
        self, days: list[date], said: list[tuple[int, pa.Table]], answered: list[pa.Table]
    ) -> None:
        names = pa.concat_tables(one.select(["session_no"]) for _, one in said)["session_no"]
        asked = pa.concat_tables(answered)
        for day in days:
            its = self._held.days[day]
            known = self._held.sessions(its)
            is_its = pc.is_in(names, value_set=known)
            at = 0
            for number, one in said:
                its.said.append((number, one.filter(is_its.slice(at, one.num_rows))))
                at += one.num_rows
            its.answered.append(asked.filter(pc.is_in(asked["session_no"], value_set=known)))

    def empty_named(self) -> None:
        """Empty the responses that name somebody forgotten, once what they say is folded."""
        forgotten = forget.read(self._held.store) if self._naming else forget.Forgotten()
        for block in self._naming if forgotten else ():
            forget.empty(self._held.store, block, Names(forgotten, self._held.book))
        self._naming.clear()


class _DamagedBlock(Exception):
    """A block can't be read, and was set aside."""
