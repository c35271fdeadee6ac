"""A partition's registers on disk: the fold's state, in files that the commit names.

Sessions that nobody will ask about again are in the settled files, which are only ever added to;
the others, few, in the open one, which is made anew with every fold. What is known of a session is
the join of all that is said of it in any of them (``sql/registers.sql``).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from datetime import date
from itertools import chain
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline import dataset, schema, scratch
from usms_pipeline.affected import Affected
from usms_pipeline.dataset import REGISTERS, Commit, file_name
from usms_pipeline.phones import PhoneBook
from usms_pipeline.service.api import canonical
from usms_pipeline.status import FINAL, rank
from usms_pipeline.storage import Store

_MOST_FILES: Final = 16
"""So many settled files are added to before they are put together."""


class Registers:
    """One partition's registers, before a fold and after it.

    ``reads_anew`` reads every status anew from its word; ``masks`` masks the numbers.
    """

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        store: Store,
        book: PhoneBook,
        day: date,
        *,
        reads_anew: bool = False,
        masks: bool = False,
    ) -> None:
        self._con, self._store, self._book, self._day = con, store, book, day
        self._reads_anew, self._masks = reads_anew, masks
        scratch.create(con, "known_registers", schema.REGISTERS)
        scratch.create(con, "untouched_registers", schema.REGISTERS)

    def load(self, names: Iterable[str]) -> None:
        """Fill ``known_registers``."""
        for rows in self._tables(names):
            scratch.insert(self._con, "known_registers", rows)

    def load_some(self, commit: Commit, part: Affected) -> None:
        """Fill ``known_registers`` with what is known of the sessions affected.

        The rest of the open file goes to ``untouched_registers``, the settled ones stay.
        """
        for rows in self._tables([commit.open_registers]):
            is_affected = pc.is_in(rows["session_no"], part.sessions)
            scratch.insert(self._con, "known_registers", rows.filter(is_affected))
            scratch.insert(self._con, "untouched_registers", rows.filter(pc.invert(is_affected)))
        for rows in self._tables(commit.settled_registers if len(part.settled) else ()):
            wanted = rows.filter(pc.is_in(rows["session_no"], part.settled))
            scratch.insert(self._con, "known_registers", wanted)

    def _tables(self, names: Iterable[str]) -> Iterator[pa.Table]:
        place = schema.REGISTERS.get_field_index("phone")
        for name in names:
            name = file_name(REGISTERS, self._day, name)
            dataset.checked_metadata(self._store, name, self._book.fingerprint)
            for batch in self._store.batches(name):
                table = pa.table(batch)
                if self._masks:
                    table = table.set_column(place, "phone", self._book.remasked(table["phone"]))
                yield reread(table) if self._reads_anew else table

    def write(
        self, settled_before: tuple[str, ...], waiting: pa.Table
    ) -> tuple[tuple[str, ...], str, str]:
        """Write ``registers``, and name the files: those settled, the open one, who is waiting.

        ``waiting``, of ``schema.WAITING``, are the receipts that are still asked about. A session
        that is not announced, so that it has no receipts, may be announced later: it counts as
        open.
        """
        scratch.create(self._con, "awaited", waiting.schema)
        scratch.insert(self._con, "awaited", waiting)
        self._con.execute(
            "CREATE TABLE settled AS SELECT DISTINCT session_no FROM sessions "
            "ANTI JOIN awaited USING (session_no)"
        )
        newly_settled = self._rows("FROM registers SEMI JOIN settled USING (session_no)")
        settled = self._settle(settled_before, newly_settled)
        still_open = self._rows(
            "FROM registers ANTI JOIN settled USING (session_no) UNION ALL FROM untouched_registers"
        )
        beside = self._write(waiting.to_batches(), schema.WAITING)
        return settled, self._write(still_open), beside

    def _settle(self, before: tuple[str, ...], new: Iterator[pa.RecordBatch]) -> tuple[str, ...]:
        if len(before) < _MOST_FILES:
            first = next(new, None)
            return before if first is None else (*before, self._write(chain([first], new)))
        first, *later = before
        counts = [self._count(name) for name in before]
        # the first is the largest: it is copied only when the others have come to half of it
        together = before if 2 * sum(counts[1:]) > counts[0] else later
        kept = () if together is before else (first,)
        names = [file_name(REGISTERS, self._day, name) for name in together]
        old = chain.from_iterable(map(self._store.batches, names))
        return (*kept, self._write(chain(old, new)))

    def _count(self, name: str) -> int:
        file = file_name(REGISTERS, self._day, name)
        return int(self._store.dataset([file], schema.REGISTERS).count_rows())

    def _rows(self, query: str) -> Iterator[pa.RecordBatch]:
        return iter(scratch.stream(self._con, query, schema.REGISTERS))

    def _write(self, rows: Iterable[pa.RecordBatch], layout: pa.Schema = schema.REGISTERS) -> str:
        name = f"{uuid.uuid4().hex}.parquet"
        self._store.write(
            file_name(REGISTERS, self._day, name),
            pa.RecordBatchReader.from_batches(layout, rows),
            dataset.stamp(self._book.fingerprint),
        )
        return name


def tidy(store: Store, day: date, named: Iterable[str]) -> None:
    """Delete registers that no commit names, and what killed processes left in the partition."""
    kept = {file_name(REGISTERS, day, name) for name in named}
    for name in store.names(f"{REGISTERS}/sent_date={day}"):
        if name not in kept:
            store.delete(name)
    dataset.sweep(store, day)


def reread(registers: pa.Table) -> pa.Table:
    """Read every status anew from the raw word, in registers; for words learned since.

    A word that became final moves from ``open`` to ``final``. ``finals_seen`` follows the word of
    the first outcome; of later ones only the status is known, and stays.
    """
    return pa.Table.from_pylist(
        [_reread_row(row) for row in registers.to_pylist()], schema.REGISTERS
    )


def _reread_row(row: dict[str, Any]) -> dict[str, Any]:
    seen = set(row["finals_seen"] or ())
    answers = [answer for answer in (row["final"], row["open"]) if answer is not None]
    for answer in answers:
        if answer["word"] is not None:
            seen.discard(answer["status"])
            answer["status"] = canonical(answer["word"])
            answer["rank"] = rank(answer["status"])
    finals = [answer for answer in answers if answer["status"] in FINAL]
    opens = [answer for answer in answers if answer["status"] not in FINAL]
    return row | {
        "final": min(finals, key=lambda a: a["asked_at"], default=None),
        "open": max(opens, key=lambda a: a["asked_at"], default=None),
        "finals_seen": sorted(seen | {answer["status"] for answer in finals}),
    }
