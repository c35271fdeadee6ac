"""A run on the days' files: read the source, catch up, ask, and write each day once.

Not in use yet: it publishes nothing, and knows neither erasures nor quarantine, nor the unreadable.
A session that is stored in one day and read in another is not looked for, and a day whose cutoff,
dimensions or ``phones`` changed is not made again. The rows are those of the pipeline in use, which
a test compares.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline import dataset, schema, source
from usms_pipeline.dataset import Window, day_start
from usms_pipeline.days import columns, file, log
from usms_pipeline.days.columns import Fold
from usms_pipeline.days.file import Footer
from usms_pipeline.days.reading import MARGIN, DayRead, Reading
from usms_pipeline.phones import PhoneBook
from usms_pipeline.schema import TIME
from usms_pipeline.service.collect import Batch, CollectStats, Patience, collect
from usms_pipeline.service.decode import decode
from usms_pipeline.service.fetch import Answer
from usms_pipeline.settings import Settings
from usms_pipeline.storage import Store

_BLOCK_ANSWERS: Final = 200
_BLOCK_SECONDS: Final = 1.0
"""A kill loses the answers of one second at most: they are asked again."""

_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass
class Outcome:
    """What a run did: the days written, or left to another run; strays: sessions nobody knows."""

    stats: CollectStats
    written: list[date] = field(default_factory=list)
    locked: list[date] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    gone: int = 0


class Run:
    """One run over a window of days, for one account."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        book: PhoneBook,
        clock: Callable[[], datetime],
        transport: Any = None,
        patience: Patience | None = None,
    ) -> None:
        self._store, self._settings, self._book, self._clock = store, settings, book, clock
        self._transport, self._patience = transport, patience
        names = [schema.dimension_name(name) for name in settings.dimensions]
        self._layout = columns.layout(settings.dimensions)
        self._polls = [offset // _MICROSECOND for offset in settings.poll_offsets]
        self._sent: dict[date, tuple[pa.Table, str]] = {}
        self._said: list[pa.Table] = []
        # Keyed: else a reader of the digest in the file could try the hidden digits of a phone.
        secret = book.recipient_id("of the digest")
        self._about = [secret, names, settings.timezone, settings.cutoff_hours]

    def __call__(self, window: Window) -> Outcome:
        """Do every step; what is written stays written, whatever happens after it."""
        self._window = window
        self._read_source()
        outcome = Outcome(CollectStats())
        self._catch_up(outcome)
        due = self._due()
        writer = log.Log(self._store, self._clock)
        is_folded = False
        try:
            try:
                outcome.stats = self._ask(due, writer)
            finally:
                is_folded = self._finish(outcome)  # what came before the service failed, too
        finally:
            writer.close(is_folded=is_folded)
        return outcome

    def _read_source(self) -> None:
        tz = self._settings.zone
        reading = Reading(self._window, tz, self._about)
        start = day_start(self._window.first, tz) - MARGIN
        end = day_start(self._window.last + timedelta(days=1), tz) + MARGIN
        for batch in source.read(self._settings, start, end):
            reading.add(batch)
        self._first, self._last = (int(one.timestamp() * 1_000_000) for one in (start, end))
        for read in reading.days():
            said = file.footer(self._store, read.day)
            if said is None or said.digest != read.digest:
                self._sent[read.day] = self._described(read), read.digest

    def _described(self, read: DayRead) -> pa.Table:
        described = self._book.describe(read.rows["phone"])
        rows = read.rows.drop_columns("phone")
        for place, one in enumerate(described.type):
            rows = rows.append_column(one.name, described.field(place))
        return rows

    def _catch_up(self, outcome: Outcome) -> None:
        """Take in what killed runs had been told and not folded."""
        for run in log.open_runs(self._store):
            with log.taken(self._store, run) as is_ours:
                if is_ours:
                    for block in log.blocks(self._store, run):
                        self._take(block)
                    if self._finish(outcome):
                        log.seal(self._store, run)

    def _due(self) -> pa.Table:
        """Return the sessions to ask about, the longest overdue first, as ``file.DUE``."""
        now = int(self._clock().timestamp() * 1_000_000)
        found = [file.DUE.empty_table()]
        days = dataset.days(self._store, dataset.RECEIPTS)
        found += [file.due(self._store, day, now, self._polls) for day in days]
        for day, (sent, _) in self._sent.items():
            names = sent["session_no"].combine_chunks()
            stored = file.sessions(self._store, day)
            is_new = pc.and_(pc.is_valid(names), pc.invert(pc.is_in(names, value_set=stored)))
            at = np.asarray(sent["sent_at"].cast(pa.int64())) + self._polls[0]
            is_due = pc.and_(is_new, pa.array(at <= now))
            rows = pa.table([names, pa.array(at).cast(TIME)], schema=file.DUE).filter(is_due)
            found.append(file.once(rows))
        return pa.concat_tables(found).sort_by(
            [("unmet_at", "ascending"), ("session_no", "ascending")]
        )

    def _ask(self, due: pa.Table, writer: log.Log) -> CollectStats:
        names, size = due["session_no"].combine_chunks(), self._settings.batch_size

        def batches() -> Iterator[Batch]:
            for begin in range(0, len(names), size):
                yield Batch(self._window.last, tuple(names.slice(begin, size).to_pylist()))

        waiting: list[Answer] = []
        since = time.monotonic()

        def flush() -> None:
            nonlocal since
            if waiting:
                self._take(writer.add(waiting))
                waiting.clear()
            since = time.monotonic()

        def land(_: date, answer: Answer) -> None:
            waiting.append(answer)
            if len(waiting) >= _BLOCK_ANSWERS or time.monotonic() - since > _BLOCK_SECONDS:
                flush()

        try:
            return collect(
                batches(), land, self._settings,
                clock=self._clock, transport=self._transport, patience=self._patience,
            )  # fmt: skip
        finally:
            flush()

    def _take(self, block: pa.Table) -> None:
        """Keep what a block says, until the days are finished."""
        said = decode(block, self._book, self._settings.receipt_timezone).observations
        self._said.append(said.filter(pc.is_valid(said["status"])))  # to ask in vain is no answer

    def _finish(self, outcome: Outcome) -> bool:
        """Write each day that something new was read or said of; return whether none was locked."""
        left = pa.concat_tables([schema.OBSERVATIONS.empty_table(), *self._said]).combine_chunks()
        self._said.clear()
        days = {*dataset.days(self._store, dataset.RECEIPTS), *self._sent}
        are_all_ours = True
        for day in sorted(days):
            with self._store.lock(f"sent_date={day}") as is_ours:
                if is_ours:
                    left = self._write(day, left, outcome)
                else:
                    outcome.locked.append(day)
                    are_all_ours = False
        if are_all_ours:
            outcome.strays += left["session_no"].unique().to_pylist()
        return are_all_ours

    def _write(self, day: date, said: pa.Table, outcome: Outcome) -> pa.Table:
        """Fold into a day what is its own, and return what is not."""
        sent, digest = self._sent.pop(day, (None, None))
        known = file.sessions(self._store, day)
        if sent is not None:
            known = pa.concat_arrays([known, sent["session_no"].combine_chunks()])
        is_here = pc.is_in(said["session_no"], value_set=known)
        here, left = said.filter(is_here), said.filter(pc.invert(is_here))
        if sent is None and not here.num_rows:
            return left
        before = file.footer(self._store, day)
        of = Footer(
            key=self._book.fingerprint,
            digest=digest or (before.digest if before else ""),
            cutoff=self._polls[-1],
            phones=self._settings.phones,
            dimensions=list(self._settings.dimensions),
            polls=self._polls,
        )
        fold = Fold(
            file.rows(self._store, day), sent, here, self._layout, self._polls[-1],
            self._first, self._last, is_whole=day in self._window,
        )  # fmt: skip
        file.write(self._store, day, fold, self._layout, of)
        outcome.written.append(day)
        outcome.gone += fold.gone
        return left
