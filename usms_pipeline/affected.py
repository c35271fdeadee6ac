"""Which sessions a fold has to look at again, where that is few of a partition.

Those that answers came for, and those whose source rows changed. Every other session's receipts
stay as they are: its sessions and registers are the same, and receipts hang on nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline import forget, schema, scratch, sessions
from usms_pipeline.dataset import RECEIPTS, REGISTERS, Commit, file_name
from usms_pipeline.settings import Settings
from usms_pipeline.splice import spliced
from usms_pipeline.storage import Store

_FEW: Final = 1_000
_MOST_SHARE: Final = 0.25
_MOST: Final = 250_000
"""Of more than this share, unless they are few, all is made anew; what is affected is in memory."""


@dataclass(frozen=True)
class Change:
    """One fold of a partition that looked at some sessions: what to load where a copy is kept.

    From the version of the file with the token ``before`` to the one with ``after`` all other
    sessions' rows stayed as they were. A NULL among ``sessions`` stands for the rows without one.
    """

    day: date
    before: str
    after: str
    sessions: pa.Array


@dataclass(frozen=True)
class Affected:
    """Sessions to look at again; ``settled`` are those that nobody would have asked about."""

    sessions: pa.Array
    settled: pa.Array

    def among(
        self, old: Iterable[pa.RecordBatch], new: pa.RecordBatchReader
    ) -> pa.RecordBatchReader:
        """Put their receipts as they are now in the place of those that are in the file."""
        rows = spliced(old, self.sessions, new.read_all())
        return pa.RecordBatchReader.from_batches(new.schema, rows)


def find(
    con: duckdb.DuckDBPyConnection,
    store: Store,
    settings: Settings,
    day: date,
    commit: Commit,
    token: str,
) -> Affected | None:
    """Find what ``observations`` and the changed rows of ``sessions_file`` affect.

    None where that is too much, or the rows as they are can't stay: made under other settings, or
    holding somebody forgotten.
    """
    after = sessions.changed_since(commit.sessions, token)
    if after is None or not _may_stay(store, settings, day, commit):
        return None
    con.execute("CREATE TABLE affected AS SELECT DISTINCT session_no FROM observations")
    if token != commit.sessions:
        # rows without a session number too: of these one may have got its number, and be gone
        con.execute(
            "INSERT INTO affected "
            "(SELECT session_no FROM sessions_file WHERE changed_in > $after UNION SELECT NULL) "
            "EXCEPT FROM affected",
            {"after": after},
        )
    count = scratch.value(con, "SELECT count(*) FROM affected")
    if count > min(_MOST, max(_FEW, _MOST_SHARE * commit.rows)):
        return None
    chosen = con.sql("FROM affected").to_arrow_table().column(0).combine_chunks()
    chosen = chosen.cast(schema.TEXT)
    return Affected(chosen, _settled(store, day, commit, chosen))


def _may_stay(store: Store, settings: Settings, day: date, commit: Commit) -> bool:
    name, layout = file_name(RECEIPTS, day), schema.receipts_schema(settings.dimensions)
    forgotten = forget.read(store)
    return (
        commit.cutoff_hours == settings.cutoff_hours
        and commit.phones == settings.phones
        and store.schema(name).equals(layout)
        and not (forgotten and forget.is_named(store, day, forgotten))
    )


def _settled(store: Store, day: date, commit: Commit, chosen: pa.Array) -> pa.Array:
    """Give those of the chosen sessions that have receipts, none of which waits for more."""
    waiting = store.read(file_name(REGISTERS, day, commit.waiting))["session_no"]
    others = chosen.filter(pc.invert(pc.is_in(chosen, waiting.combine_chunks())))
    found = [others[:0]]
    if len(others):  # new ones, or settled ones: which, the receipts tell
        for batch in store.batches(file_name(RECEIPTS, day), columns=["session_no"]):
            keys = batch["session_no"]
            found.append(keys.filter(pc.is_in(keys, others)))
    return pa.concat_arrays(found).unique().drop_null()
