"""Writes a day: its rows, merged with source and responses, replace its file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import date
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.contract import schema
from usms_pipeline.contract.errors import Changed, DamagedDay, StorageError
from usms_pipeline.contract.schema import TEXT
from usms_pipeline.days import columns, file, rebuilding
from usms_pipeline.days.asking import Stream
from usms_pipeline.days.columns import Fold
from usms_pipeline.days.file import Footer
from usms_pipeline.days.held import Day, Held, Part
from usms_pipeline.days.reading import DayRead
from usms_pipeline.days.source_rows import SourceRows
from usms_pipeline.people import forget
from usms_pipeline.service import api
from usms_pipeline.store.storage import Store, undisturbed
from usms_pipeline.warehouse import Change

_FEW: Final = 1_000
_MOST_SHARE: Final = 0.1
"""If more than this share of a day changed, and more than a few rows, all of it is loaded."""


class Writing:
    """Writes the days that a run holds.

    ``latest`` returns the time (microseconds) after which no question can have been;
    ``on_written`` is called for each day that was written, with what changed if little did.
    """

    def __init__(
        self,
        held: Held,
        rows: SourceRows,
        latest: Callable[[], int],
        on_written: Callable[[date, Change | None], None],
    ) -> None:
        self._held, self._rows, self._latest = held, rows, latest
        self._on_written = on_written
        self._disturbed: set[date] = set()

    def finish(self, day: Day | Part) -> None:
        """Write a day, or a part of one, if something in it is new."""
        if isinstance(day, Part):
            self._finish_part(day)
            return
        for part in day.parts:
            self._finish_part(part)
        for other in sorted(day.after):
            self.finish(self._held.days[other])
            if other in self._disturbed or other in self._held.left_out:
                self._keep(day)
        if not day.has_news:
            return
        try:
            self._write(day)
        except DamagedDay as error:
            self._held.outcome.damaged[day.day] = str(error)
        finally:
            day.is_written()

    def _keep(self, day: Day) -> None:
        """Keep what was to move, for it did not come there; the next run looks at it again."""
        day.leaving = set()
        if day.read is not None:
            day.read = replace(day.read, digest="")

    def _finish_part(self, part: Part) -> None:
        """Write a part of a day, and the end of its file after the last."""
        day = part.day
        if part.is_written:
            while part.said:  # what came since then is put in like what comes another time
                day.said.append(part.said.pop(0))
            return
        if day.stream is None:
            day.stream = Stream(lambda parts: self._write(day, parts))
        day.stream.put(part)
        part.is_written = True
        if all(one.is_written for one in day.parts):
            day.stream.close()
            day.stream = day.read = None

    def _write(self, day: Day, parts: Iterator[Part] | None = None) -> None:
        """Write a day over the file that it was made from; where another run writes it too, again.

        A large new day is not made again: the responses are in the log, for the next run.
        """
        try:
            (undisturbed(self._write_once) if parts is None else self._write_once)(day, parts)
        except Changed:
            for _ in parts or ():  # who hands them over waits until they are taken
                pass
            self._leave(day)

    def _leave(self, day: Day) -> None:
        """Note that another run has a day: the log stays open, and the next run does the rest."""
        if day.day not in self._held.outcome.locked:
            self._held.outcome.locked.append(day.day)

    def _write_once(self, day: Day, parts: Iterator[Part] | None) -> None:
        held, tag = self._held, self._held.store.tag(file.name(day.day))
        if day.footer is not None and not tag:
            raise vanished(held.store, [day.day])
        if tag != (day.footer.tag if day.footer else ""):
            if parts is not None:
                raise Changed(file.name(day.day))
            self._look_again(day)
        before = day.footer
        held.store.sweep(f"{file.FOLDER}/sent_date={day.day}")
        # read again: who was forgotten before this day was held is not to come back
        held.forgotten = forget.read(held.store)
        folds: list[Fold] = []
        made: list[pa.Table] = []
        answers: list[pa.Table] = []
        if parts is not None:
            rows = self._folded_parts(parts, folds)
        else:
            answers = self._take_answers(day.said, day.is_rebuilt)
            rows = self._folded(day, answers, folds)
            if before is None:
                rows = _noted(rows, made)
        try:
            after = file.write(
                held.store, day.day, rows, held.layout, lambda: self._footer(day, folds), tag
            )
        except Changed:
            day.said[:0] = enumerate(answers)
            raise
        pa.default_memory_pool().release_unused()
        held.outcome.new += sum(fold.new for fold in folds)
        if day.day in self._disturbed and any(fold.strays for fold in folds):
            self._leave(day)  # of rows that only this run has read
        if after is None:
            return
        if not held.store.is_local and forget.read(held.store) != held.forgotten:
            # `usms forget` may have looked through the file that this one replaced
            forget.erase_day(held.store, day.day, forget.read(held.store), held.cutoff)
            held.is_rewritten(day, file.footer(held.store, day.day) or after)
            self._on_written(day.day, None)
            return
        held.is_rewritten(day, after)
        if before is None or before.version != after.version:
            change = _change(day, before, after, folds[0])
            if made:  # of a new day all rows, which nobody has to read again to publish them
                none = pa.array([], TEXT)
                change = Change(day.day, "", after.version, none, pa.concat_tables(made))
            elif change is not None:
                held.outcome.changes.append(change)
            self._on_written(day.day, change)

    def _look_again(self, day: Day) -> None:
        """Read a day as another run has left it, and leave to the next run what the source says.

        That was compared with what the file was; so what was to move stays where it is too.
        """
        self._disturbed.add(day.day)
        day.read, day.arriving, day.leaving, day.beside = None, [], set(), set()
        self._held.is_read(day, file.footer(self._held.store, day.day))

    def _folded(self, day: Day, said: list[pa.Table], folds: list[Fold]) -> Iterator[pa.Table]:
        """Yield a day's rows as they are now; append each fold to ``folds``."""
        held, read, before = self._held, day.read, day.footer
        answers, *later = said
        fold = Fold(
            self._stored(day), held.described(read.rows) if read else None, answers, held.layout,
            held.cutoff, self._rows.first, self._rows.last,
            is_whole=read is not None and read.is_whole,
            elsewhere=day.beside,
            are_distinct=read is not None and read.are_distinct and not day.arriving,
            is_remade=day.is_remade,
            ends=held.book.ends,
            most=int(max(_FEW, _MOST_SHARE * before.rows)) if before else 0,
            are_many=bool(later),
        )  # fmt: skip
        folds.append(fold)
        for more in later:
            fold = Fold(
                fold, None, more, held.layout, held.cutoff, ends=held.book.ends, most=0
            )  # fmt: skip
            folds.append(fold)
        yield from fold

    def _folded_parts(self, parts: Iterator[Part], folds: list[Fold]) -> Iterator[pa.Table]:
        """Yield the rows of a large new day, a part at a time, each as soon as it is given."""
        held = self._held
        for part in parts:
            [answers] = self._take_answers(part.said)
            fold = Fold(
                (), held.described(part.read.rows), answers, held.layout, held.cutoff,
                self._rows.first, self._rows.last,
                are_distinct=part.read.are_distinct, ends=held.book.ends, most=0,
            )  # fmt: skip
            yield from fold
            # not a slice of no rows, which would keep all of them in memory
            fold.sent, fold.said = None, schema.OBSERVATIONS.empty_table()
            part.read = emptied(part.read)
            folds.append(fold)
            pa.default_memory_pool().release_unused()

    def _take_answers(
        self, said: list[tuple[int, pa.Table]], is_rebuilt: bool = False
    ) -> list[pa.Table]:
        """Empty the list of what was said of a day; return tables to merge one by one.

        One is enough but for a rebuild: with many answers of each session the general way would
        take the memory and the time for all of them.
        """
        # one by one: the thread that decodes may be putting in more
        taken = [said.pop(0) for _ in range(len(said))]
        taken.sort(key=lambda one: one[0])
        tables = [schema.OBSERVATIONS.empty_table(), *(one for _, one in taken)]
        answers = rebuilding.in_turn(taken) if is_rebuilt else [pa.concat_tables(tables)]
        return [
            forget.without_answers(one, self._held.forgotten).combine_chunks() for one in answers
        ]

    def _stored(self, day: Day) -> Iterator[pa.Table]:
        """Yield the rows that stay in a day's file, and those that move into it."""
        held = self._held
        gone = pa.array([*day.leaving], TEXT)
        day.came = day.left = 0
        stored = held.rows(day)
        if day.is_rebuilt:
            stored = rebuilding.unasked(
                stored, day.answered, held.layout, held.cutoff, self._latest(), held.outcome.missing
            )
        for table in stored:
            if len(gone):
                day.left += _announced(table)
                table = table.filter(pc.invert(pc.is_in(table["session_no"], gone)))
                day.left -= _announced(table)
            yield self._masked(table) if self._masks(day.footer) else table
        day.came += sum(map(_announced, day.arriving))
        yield from day.arriving

    def _masks(self, said: Footer | None) -> bool:
        is_clear = said is not None and said.phones == "clear"
        return is_clear and self._held.settings.phones == "masked"

    def _masked(self, rows: pa.Table) -> pa.Table:
        """Return rows with the phones masked that were shown whole, in their states too."""
        place = rows.schema.get_field_index("phone")
        rows = rows.set_column(place, "phone", self._held.book.remasked(rows["phone"]))
        return columns.with_states(rows, self._mask)

    def _mask(self, known: Any) -> None:
        people: list[Any] = [*known.sent, *known.numbers.values()]
        phones = pa.array([one.phone for one in people], TEXT)
        shown = self._held.book.remasked(phones).to_pylist()
        for one, phone in zip(people, shown, strict=True):
            one.phone = phone

    def _footer(self, day: Day, folds: list[Fold]) -> Footer | None:
        """Return the new footer; None where it is the same and no row changed."""
        before, read, settings = day.footer, day.read, self._held.settings
        same = before or Footer("", version="")
        made: dict[str, Any] = {
            "key": self._held.book.fingerprint,
            "words": api.WORDS_DIGEST,
            "cutoff": self._held.cutoff,
            "phones": settings.phones,
            "polls": self._held.polls,
            "dimensions": list(settings.dimensions),
        }
        if read is not None and read.digest:
            made |= {"digest" if read.is_whole else "edge": read.digest}
        elif any(one.lacks_ends for one in folds):
            made |= {"digest": "", "edge": ""}  # read again by the next run, it will know them
        if read is not None and read.is_whole:
            counted: Counter[str] = Counter()
            for fold in folds:
                counted.update(fold.counts)
            made |= {"read": dict(counted), "elsewhere": day.elsewhere}
        elif same.read:
            back = min(day.left, same.read["gone"])  # what moved from here was not gone
            more = same.read["beside"] + folds[0].more + day.came - day.left + back
            made |= {"read": same.read | {"beside": more, "gone": same.read["gone"] - back}}
        is_changed = (
            any(fold.is_changed for fold in folds)
            or bool(day.arriving or day.leaving)
            or self._masks(before)
            or same.dimensions != list(settings.dimensions)
        )
        said = replace(same, **made)
        if before is not None and not is_changed:
            return None if said == before else said
        return replace(said, version=Footer("").version)


def _change(day: Day, before: Footer | None, after: Footer, fold: Fold) -> Change | None:
    """Return a day's changes, if they are few enough to be published alone."""
    if before is None or fold.are_many or day.arriving or not fold.changed:
        return None
    if before.dimensions != after.dimensions or before.phones != after.phones:
        return None
    rows = pa.concat_tables(fold.changed)
    sessions = pa.concat_arrays(
        [rows["session_no"].combine_chunks(), pa.array([*day.leaving], TEXT)]
    ).unique()
    return Change(day.day, before.version, after.version, sessions, rows)


def _noted(tables: Iterable[pa.Table], noted: list[pa.Table]) -> Iterator[pa.Table]:
    for table in tables:
        noted.append(table)
        yield table


def emptied(read: DayRead) -> DayRead:
    """Return the same without its rows, of which nothing stays in memory."""
    return replace(read, rows=read.rows.schema.empty_table())


def _announced(rows: pa.Table) -> int:
    return pc.sum(rows["is_announced"]).as_py() or 0


def vanished(store: Store, days: list[date]) -> StorageError:
    """Return the error for days that are gone from the data directory while it is worked in."""
    return StorageError(
        f"What this run had read of {', '.join(map(str, sorted(days)))} is gone from the data "
        f"directory {store.data_dir!r}: was it removed, or its disk unmounted? Put it back and run "
        "again. Nothing was published."
    )
