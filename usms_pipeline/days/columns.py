"""Folds a day in columns: what was known, was read and was said becomes what is known now.

The fast way of ``general``: it makes the rows of plain sessions (one row, one number at most, one
answer newer than all before) in Arrow, and leaves every other session to the rule itself. Both
give the same rows; a test holds them equal. No disk, no clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.contract import schema
from usms_pipeline.contract.schema import TEXT, TIME, as_one_array
from usms_pipeline.contract.status import BUCKETS, FINAL
from usms_pipeline.days import general
from usms_pipeline.days.general import COLUMN_OF, WHO, Answer, Ends, Number, Sent, Session
from usms_pipeline.service.rows import canonical_array

Bools = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]
EndsOf = Callable[[list[str], bool], list[Ends | None]]

_AT_ONCE: Final = 100_000
_MOST_TOGETHER: Final = 1_000_000

OWN, STATE = "_own", "_state"
"""The columns of a day's file that are not published.

``_own``: the source itself names the phone. ``_state``: where a session's rows say all that is
known of it, NULL in a lone one, and how many they are in each of several; else, in the first of its
rows, all that is known, and an empty text in the others.
"""

_SAID: Final = {
    column: name for name, column in COLUMN_OF.items() if name not in ("word", "submit_status")
}
"""Columns that hold exactly what an observation says."""
_STATUSES: Final = pa.array(BUCKETS, TEXT)
_PENDING, _UNKNOWN, _DELIVERED = (BUCKETS.index(one) for one in ("pending", "unknown", "delivered"))
_FINALS: Final = [BUCKETS.index(one) for one in FINAL]


def layout(dimensions: Iterable[str] = ()) -> pa.Schema:
    """Return the schema of a day's file: the published columns, then the state."""
    technical = [(OWN, pa.bool_()), (STATE, TEXT)]
    return pa.schema([*schema.receipts_schema(dimensions), *(pa.field(*one) for one in technical)])


@dataclass
class Fold:
    """One day's fold. Iterate over it to get the rows as they are now, a batch at a time.

    ``stored``: the present rows (``layout``), in batches. ``sent``: what was read of the source,
    each session whole, within ``first`` up to ``last`` (microseconds); None where nothing new was.
    Unless ``is_whole``, only some of the day's sessions were read, so none of the others counts as
    gone. Nor do sessions that were read ``elsewhere``, for another day. ``are_distinct``: each row
    that was read has a session of its own. ``said``: what responses say (``schema.OBSERVATIONS``).
    ``cutoff`` is in microseconds.

    ``is_remade``: all rows are made again, because the cutoff or the meaning of words has changed.
    ``ends`` returns how numbers (their digits) begin and end; without it, only equal numbers match.

    After the iteration, ``changed`` has the rows of each session that changed. If these are more
    than ``most``, it is empty and ``are_many`` is set: to look at the whole day costs less. Counts
    of rows: ``gone`` from the source, ``beside`` (not read for this day, and not gone), ``copies``
    among those read, and how many ``more`` the source has than before. ``new`` counts the
    recipients of sessions that the file had not. ``strays``: sessions that responses name and
    neither the source nor the file has. ``lacks_ends``: a number could be matched only if the
    source rows were read, for their phones.
    """

    stored: Iterable[pa.Table]
    sent: pa.Table | None
    said: pa.Table
    names: pa.Schema
    cutoff: int
    first: int = 0
    last: int = 2**62
    is_whole: bool = True
    elsewhere: Collection[str] = ()
    are_distinct: bool = False
    is_remade: bool = False
    ends: EndsOf | None = None
    most: int = 2**62
    changed: list[pa.Table] = field(default_factory=list, repr=False)
    are_many: bool = False
    new: int = 0
    gone: int = 0
    beside: int = 0
    more: int = 0
    copies: int = 0
    strays: list[str] = field(default_factory=list, repr=False)
    lacks_ends: bool = False
    rows_read: dict[str, int] = field(default_factory=dict)
    _noted: int = 0

    def __iter__(self) -> Iterator[pa.Table]:
        read = _Side(
            self.names.empty_table() if self.sent is None else self.sent,
            are_distinct=self.are_distinct,
        )
        heard = _Side(self.said)
        heard.are_distinct = read.are_distinct and heard.names.equals(read.names)
        odd: list[pa.Table] = []
        lost: list[pa.Table] = []
        for batch in _together(self.stored, len(read.names)):
            if self.sent is not None and batch["session_no"].null_count:
                is_lost = pc.is_null(batch["session_no"])
                lost.append(batch.filter(is_lost))
                batch = batch.filter(pc.invert(is_lost))
            yield self._patched(batch.combine_chunks(), read, heard, odd)
        new: list[Sent] = []
        yield from self._new(read, heard, new if lost else None)
        yield from self._general(read, heard, odd, new)
        if self.sent is not None:
            yield from self._lost(read, lost, new)
            has_many = "recipients" in self.sent.column_names
            rows = self.sent.num_rows
            self.rows_read = {
                "rows": rows,
                "recipients": pc.sum(self.sent["recipients"]).as_py() or 0 if has_many else rows,
                "without_session": self.sent["session_no"].null_count,
            }
        if not heard.is_used.all():
            self.strays = heard.names.filter(pa.array(~heard.is_used)).unique().to_pylist()

    def _patched(self, batch: pa.Table, read: _Side, heard: _Side, odd: list[pa.Table]) -> pa.Table:
        """Return stored rows with what is plain merged in; move the others into ``odd``."""
        names = batch["session_no"].combine_chunks()
        of_read, of_heard = read.find(names), heard.find(names)
        is_plain = np.asarray(pc.is_null(batch[STATE]))
        if self.sent is not None and self.is_whole:
            sent_at = _micros(batch["sent_at"])
            is_unread = (of_read < 0) & np.asarray(batch["is_announced"])
            is_gone = is_unread & (sent_at >= self.first) & (sent_at < self.last)
            if self.elsewhere:
                its = pc.is_in(names, value_set=pa.array([*self.elsewhere], TEXT))
                is_gone &= ~np.asarray(its)
            self.gone += int(is_gone.sum())
            self.beside += int((is_unread & ~is_gone).sum())
        is_odd = (of_heard >= 0) | (of_read >= 0)
        if self.is_remade:
            is_odd |= ~is_plain | self._is_outdated(batch)
        if not is_odd.any():
            return batch
        read.is_stored[of_read[of_read >= 0]] = True
        # what was read as it is stored is known already
        compared = np.flatnonzero((of_read >= 0) & is_plain & read.is_lone[of_read])
        alike = compared[
            _are_alike(batch, compared, read.rows, of_read[compared], self._dimensions)
        ]
        read.is_used[of_read[alike]] = True
        is_same = np.zeros(len(is_odd), np.bool_)
        is_same[alike] = True
        batch = self._described_anew(batch, alike, _taken(read.rows, of_read[alike]))
        is_odd &= ~self._are_groups_alike(batch, read, (of_read >= 0) & (of_heard < 0))
        is_outdated = self._is_outdated(batch) if self.is_remade else np.zeros_like(is_odd)
        is_odd &= ~(is_same & (of_heard < 0) & ~is_outdated)
        may_be_fast = is_odd & is_plain & (is_same | (of_read < 0)) & (of_heard >= 0)
        may_be_fast &= ~is_outdated
        places = np.flatnonzero(may_be_fast & heard.is_lone[of_heard])
        batch, fast, rows = self._put_in(batch, places, heard, of_heard)
        is_odd[fast] = False
        if len(fast):
            self._note(rows)
        if is_odd.any():
            odd.append(batch.filter(pa.array(is_odd)))
            batch = batch.filter(pa.array(~is_odd))
        return batch

    def _are_groups_alike(self, batch: pa.Table, read: _Side, may_be: Bools) -> Bools:
        """Return which rows are of sessions with several rows, all read as they are stored."""
        found = np.zeros(batch.num_rows, np.bool_)
        sizes = pc.if_else(pc.starts_with(batch[STATE], "{"), None, batch[STATE])
        is_group = may_be & np.asarray(pc.greater(pc.binary_length(sizes), 0).fill_null(False))
        at = np.flatnonzero(is_group)
        if self.is_remade or not len(at):
            return found
        rows = _taken(batch, at)
        count = np.asarray(pc.cast(_taken(batch.select([STATE]), at)[STATE], pa.int64()))
        names = rows["session_no"].combine_chunks()
        of = _places(keys_of(names, rows["recipient"]), read.keys("recipient"))
        codes = np.asarray(names.dictionary_encode().indices)
        fits = (of >= 0) & (np.bincount(codes)[codes] == count) & (read.counts[of] == count)
        fits &= _is_once(of) & ~np.append(_is_never_plain(read.rows), True)[of]
        near = np.flatnonzero(fits)
        fits[near] = _are_alike(rows, near, read.rows, of[near], self._dimensions)
        for name in WHO:
            fits[near] &= _equal(_taken(rows, near)[name], _taken(read.rows, of[near])[name])
        fits = _with_all_their_rows(codes, fits)
        read.is_used[of[fits]] = True
        found[at[fits]] = True
        return found

    def _described_anew(self, batch: pa.Table, at: Places, read: pa.Table) -> pa.Table:
        """Return rows that are unchanged, with their phones as they are to be shown now."""
        if not len(at):
            return batch
        own = np.asarray(batch[OWN].combine_chunks())[at]
        at, read = at[own], read.filter(pa.array(own))
        before = _taken(batch, at)
        if all(_equal(before[name], read[name]).all() for name in WHO):
            return batch
        rows = with_columns(before, **{name: read[name] for name in WHO})
        self.are_many = True  # they may be changed once more, further on
        return _replaced(batch, at, rows)

    def _is_outdated(self, batch: pa.Table) -> Bools:
        """Return which plain rows would be made differently now."""
        status, word = batch["status"], batch["provider_status"]
        asked = batch["last_asked_at"]
        is_asked = np.asarray(pc.is_valid(asked)) & ~np.asarray(pc.equal(status, "invalid"))
        means = pc.index_in(canonical_array(as_one_array(word)), value_set=_STATUSES)
        code = np.asarray(means).astype(np.int64)
        is_final = np.isin(code, _FINALS)
        is_past = _micros(asked) >= _micros(batch["sent_at"]) + self.cutoff
        closed = ~is_final & is_past
        code = np.where(closed & (code == _PENDING), _UNKNOWN, code)
        shown = np.asarray(pc.index_in(status, value_set=_STATUSES)).astype(np.int64)
        differs = (code != shown) | (is_final != np.asarray(batch["is_final"]))
        outdated: Bools = is_asked & (differs | (closed != np.asarray(batch["is_closed"])))
        return outdated

    def _new(self, read: _Side, heard: _Side, new: list[Sent] | None) -> Iterator[pa.Table]:
        """Yield the plain rows of sessions that the file did not have.

        ``new`` gets them too; None where there are no rows that could have got their number.
        """
        is_new = read.is_lone[:-1] & ~read.is_stored
        is_new &= np.asarray(read.names.is_valid())
        of_heard = heard.find(read.names)
        yield from self._new_groups(read, heard, of_heard, new)
        is_new &= (of_heard < 0) | heard.is_lone[of_heard]
        places = np.flatnonzero(is_new)
        sent_at = _micros(read.rows["sent_at"])[places]
        if (np.diff(sent_at) < 0).any():
            places = places[np.argsort(sent_at, kind="stable")]
        for begin in range(0, len(places), _AT_ONCE):
            rows = self._new_rows(read, heard, places[begin : begin + _AT_ONCE], of_heard)
            if not rows.num_rows:
                continue
            if new is not None:
                new += [_sent_of_lost(row, self._dimensions) for row in python(rows)]
            self._note(rows)
            self._add(rows.num_rows)
            yield rows

    def _new_rows(self, read: _Side, heard: _Side, places: Places, of_heard: Places) -> pa.Table:
        rows, of_heard = unasked(_taken(read.rows, places), self.names), of_heard[places]
        is_left = of_heard >= 0
        rows, fast, _ = self._put_in(rows, np.flatnonzero(is_left), heard, of_heard)
        is_left[fast] = False
        read.is_used[places[~is_left]] = True
        return rows.filter(pa.array(~is_left)) if is_left.any() else rows

    def _put_in(
        self, rows: pa.Table, at: Places, heard: _Side, of: Places
    ) -> tuple[pa.Table, Places, pa.Table]:
        """Merge answers (by their places ``of``) into the rows at some places, where it is plain.

        Return the rows, the places where it was, and the new rows there.
        """
        fast = at[_can_be_put_in(rows, at, heard.rows, of[at])]
        if not len(fast):
            return rows, fast, rows.slice(0, 0)
        new = self._rows(_taken(rows, fast), _taken(heard.rows, of[fast]))
        heard.is_used[of[fast]] = True
        return _replaced(rows, fast, new), fast, new

    def _new_groups(
        self, read: _Side, heard: _Side, of_heard: Places, new: list[Sent] | None
    ) -> Iterator[pa.Table]:
        """Yield the rows of new sessions of several, each of which has one answer of its own."""
        is_several = ~read.is_stored & (of_heard >= 0) & (read.counts > 1)
        if not is_several.any():
            return
        is_several &= ~_is_never_plain(read.rows)
        is_several &= np.asarray(read.rows["recipient"].combine_chunks().is_valid())
        at = np.flatnonzero(is_several)
        blank = unasked(_taken(read.rows, at), self.names)
        is_put, of = self._grouped_with(blank, heard, read.counts[at])
        if not is_put.any():
            return
        read.is_used[at[is_put]] = True
        if new is not None:
            new += [_sent_of_lost(row, self._dimensions) for row in python(blank.filter(is_put))]
        yield self._group_rows(blank, heard, is_put, of)

    def _grouped_with(self, rows: pa.Table, heard: _Side, sizes: Places) -> tuple[Bools, Places]:
        """Return the rows of sessions of which one answer has all recipients, each in its own row.

        ``sizes``: how many rows the session of each has. The places are those of the answers.
        """
        names = rows["session_no"].combine_chunks()
        of = _places(keys_of(names, rows["recipient"]), heard.keys("number"))
        codes = np.asarray(names.dictionary_encode().indices)
        counts = np.append(heard.counts, 0)
        fits = (of >= 0) & (counts[of] == sizes) & (np.bincount(codes)[codes] == sizes)
        fits &= _is_once(of)
        at = np.flatnonzero(fits)
        fits[at] = _can_be_put_in(rows, at, heard.rows, of[at])
        if len(heard.names):
            for name in ("asked_at", "session_submit_status"):
                said = heard.rows[name].combine_chunks().dictionary_encode(null_encoding="encode")
                value = np.asarray(said.indices)[of]
                first = np.full(codes.max(initial=0) + 1, -1)
                first[codes[::-1]] = value[::-1]
                fits &= value == first[codes]
        return _with_all_their_rows(codes, fits), of

    def _group_rows(self, before: pa.Table, heard: _Side, is_put: Bools, of: Places) -> pa.Table:
        at = np.flatnonzero(is_put)
        said = _taken(heard.rows, of[at])
        heard.is_used[of[at]] = True
        rows = self._rows(_taken(before, at), said)
        codes = np.asarray(as_one_array(rows["session_no"]).dictionary_encode().indices)
        sizes = np.bincount(codes)[codes]
        is_open = np.zeros(codes.max(initial=0) + 1, np.bool_)
        is_open[codes[~np.asarray(said["is_final"])]] = True
        last_open = pc.if_else(pa.array(is_open[codes]), said["asked_at"], rows["last_open_at"])
        rows = with_columns(rows, last_open_at=last_open, **{STATE: pa.array(sizes).cast(TEXT)})
        self._note(rows)
        self._add(rows.num_rows)
        return rows

    def _general(
        self, read: _Side, heard: _Side, odd: list[pa.Table], new: list[Sent]
    ) -> Iterator[pa.Table]:
        before = grouped(odd)
        sessions = {name: known_of(rows, self._dimensions) for name, rows in before.items()}
        if self.is_remade:
            for known in sessions.values():
                general.reread(known)
        rows, said = grouped([read.left()]), grouped([heard.left()])
        for session_no, group in rows.items():
            known = sessions.setdefault(session_no, Session())
            coming = [one for row in group for one in _sent(row, self._dimensions)]
            self.copies += len(coming) - len(general.without_copies(coming))
            were = len(known.sent)
            gone, arrived = general.announce(known.sent, coming, self.first, self.last)
            self.gone += gone
            self.beside += len(known.sent) - gone - len(general.without_copies(coming))
            new += arrived
            self.more += len(known.sent) - were
            self.new += 0 if session_no in before else len(known.sent)
        made: list[dict[str, Any]] = []
        changed: list[dict[str, Any]] = []
        for session_no, known in sessions.items():
            heard_now = said.pop(session_no, [])
            for row in heard_now:
                if row["status"] is None:
                    general.tried(known, row["asked_at"])
                else:
                    general.observe(known, *_answer(row))
            if self.ends is not None:
                self._add_ends(known, [*rows.get(session_no, ()), *heard_now])
            its = rows_of(session_no, known, self.names.names, self._dimensions, self.cutoff)
            made += its
            if its != before.get(session_no):
                changed += its
        if sessions:
            its_own = pc.is_in(heard.names, value_set=pa.array([*sessions], TEXT))
            heard.is_used |= np.asarray(its_own.fill_null(False))
        if changed:
            self._note(table_of(changed, self.names))
        if made:
            yield table_of(made, self.names)

    def _add_ends(self, known: Session, rows: list[dict[str, Any]]) -> None:
        """Add the ends of numbers where they may be needed: their digits are known in this fold."""
        sent, numbers = general.without_ends(known)
        if not sent and not numbers:
            return
        digits = {row.get("number") or row.get("recipient"): row.get("digits") for row in rows}
        wanted: list[tuple[Sent | Number, str]] = [
            (one, found) for one in sent if (found := digits.get(one.recipient))
        ]
        wanted += [(one, found) for name, one in numbers.items() if (found := digits.get(name))]
        has_masks = any(one.mask for one in known.sent)
        if general.has_strangers(known):
            self.lacks_ends |= any(one.recipient not in digits for one in sent)
        if wanted and self.ends is not None:
            found_ends = self.ends([f"+{found}" for _, found in wanted], has_masks)
            for (one, _), its in zip(wanted, found_ends, strict=True):
                one.ends = its

    def _lost(self, read: _Side, lost: list[pa.Table], new: list[Sent]) -> Iterator[pa.Table]:
        """Yield the rows that have no usable session number: invalid, each alone."""
        if not lost and not read.names.null_count:
            return
        coming = python(read.rows.filter(read.names.is_null()))
        stored = [row for table in lost for row in python(table)]
        before = [_sent_of_lost(row, self._dimensions) for row in stored]
        numbered = Counter(one.moment for one in new)
        now = [one for row in coming for one in _sent(row, self._dimensions)]
        rows, gone = general.announce_without_session(before, now, numbered, self.first, self.last)
        self.gone += gone if self.is_whole else 0
        self._add(len(rows) - len(before))
        if not rows:
            self.are_many |= bool(before)  # no row is left that would show the change
            return
        made = [
            dict.fromkeys(self.names.names)
            | {name: getattr(one, name) for name in ("recipient", "sent_at", *WHO)}
            | dict(zip(self._dimensions, one.dimensions, strict=True))
            | {"status": "invalid", "is_final": False, "is_closed": True, "is_announced": True}
            | {"conflicts": [], OWN: one.recipient is not None}
            | ({"recipient": f"{general.UNHEARD}1"} if one.recipient is None else {})
            for one in sorted(rows, key=lambda one: one.key)
        ]
        table = table_of(made, self.names)
        now_, then = (Counter((one.moment, *one.dimensions) for one in some)
                      for some in (rows, before))  # fmt: skip
        if now_ != then:
            self._note(table)
        yield table

    def _rows(self, before: pa.Table, said: pa.Table) -> pa.Table:
        status = pc.index_in(said["status"], value_set=_STATUSES)
        code = np.asarray(status).astype(np.int64)
        is_final = np.asarray(said["is_final"])
        sent, asked = (
            _micros(table[name]) for table, name in ((before, "sent_at"), (said, "asked_at"))
        )
        closed = ~is_final & (asked >= sent + self.cutoff)
        code = np.where(closed & (code == _PENDING), _UNKNOWN, code)
        received = said["received_at"]
        delay = (_micros(received) - sent) / 1e6
        has_delay = (code == _DELIVERED) & np.asarray(pc.is_valid(received))
        is_own, final = before[OWN], pa.array(is_final)
        number = pc.if_else(pc.equal(said["number"], ""), None, said["number"])
        last_open = pc.if_else(final, before["last_open_at"], said["asked_at"])
        word = pc.if_else(
            pc.is_null(number), said["word"], pc.coalesce(said["word"], pa.scalar(""))
        )
        return with_columns(
            before,
            recipient=pc.if_else(
                is_own, before["recipient"], pc.coalesce(number, before["recipient"])
            ),
            **{name: pc.if_else(is_own, before[name], said[name]) for name in WHO},
            status=_STATUSES.take(pa.array(code)),
            is_final=final,
            is_closed=pa.array(closed),
            **{name: said[theirs] for name, theirs in _SAID.items()},
            provider_status=word,
            # of a receipt the same, or it is not plain
            submit_status=said["session_submit_status"],
            delivery_seconds=pa.array(delay, mask=~has_delay),
            first_asked_at=pc.coalesce(before["first_asked_at"], said["asked_at"]),
            last_asked_at=said["asked_at"],
            final_at=pc.if_else(final, said["asked_at"], pa.scalar(None, TIME)),
            last_open_at=last_open,
            **{STATE: pa.nulls(before.num_rows, TEXT)},
        )

    @property
    def counts(self) -> dict[str, int]:
        """Return what a whole day's footer says about the source rows."""
        return self.rows_read | {"gone": self.gone, "copies": self.copies, "beside": self.beside}

    @property
    def is_changed(self) -> bool:
        """Return whether any row has changed."""
        return self.are_many or bool(self.changed)

    def _add(self, rows: int) -> None:
        self.new += rows
        self.more += rows

    def _note(self, rows: pa.Table) -> None:
        self._noted += rows.num_rows
        self.are_many |= self._noted > self.most
        self.changed = [] if self.are_many else [*self.changed, rows]

    @cached_property  # asked for with every row
    def _dimensions(self) -> list[str]:
        return dimensions_of(self.names)


def _together(batches: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Put batches together that have fewer rows than half of those they are compared with.

    For each of them these are hashed again, 0.2 µs a session.
    """
    some: list[pa.Table] = []
    for batch in batches:
        some.append(batch)
        if 2 * sum(one.num_rows for one in some) >= min(rows, _MOST_TOGETHER):
            yield pa.concat_tables(some)
            some = []
    if some:
        yield pa.concat_tables(some)


class _Side:
    """Rows by session: of the source, or of responses.

    ``is_lone``: the only row of its session, and one that may be plain. It has one place more than
    there are rows, at -1, for sessions that are not here. ``is_stored``: the file has its session.
    ``is_used``: there is nothing more to do about it.
    """

    def __init__(self, rows: pa.Table, *, are_distinct: bool = False) -> None:
        self.rows = rows.combine_chunks()
        self.names = as_one_array(self.rows["session_no"])
        self.are_distinct = are_distinct
        self.is_used, self.is_stored = np.zeros((2, len(self.names)), np.bool_)

    @cached_property
    def counts(self) -> Places:
        """The number of rows here of each row's session."""
        if self.are_distinct:
            return np.ones(len(self.names), np.int64)
        places = np.asarray(self.names.dictionary_encode(null_encoding="encode").indices)
        found: Places = np.bincount(places, minlength=1)[places]
        return found

    @cached_property
    def is_lone(self) -> Bools:
        return np.append((self.counts == 1) & ~_is_never_plain(self.rows), False)

    def find(self, names: pa.Array) -> Places:
        """Return the place of each session's first row here; -1 where there is none."""
        if self.are_distinct and names.equals(self.names):  # what was asked about comes in order
            return np.arange(len(names))
        return _places(names, self.names)

    def keys(self, name: str) -> pa.Array:
        """Return a key for each row: its session, and the number in a column."""
        return keys_of(self.names, self.rows[name])

    def left(self) -> pa.Table:
        """Return the rows with a session that are not used yet."""
        if self.is_used.all():
            return self.rows.slice(0, 0)
        return self.rows.filter(pa.array(~self.is_used & np.asarray(self.names.is_valid())))


def _with_all_their_rows(codes: Places, fits: Bools) -> Bools:
    """Return which rows fit where all rows of their session (``codes``) do."""
    is_torn = np.zeros(codes.max(initial=0) + 1, np.bool_)
    is_torn[codes[~fits]] = True
    return fits & ~is_torn[codes]


def _is_once(places: Places) -> Bools:
    """Return which places occur only once."""
    return np.asarray(np.bincount(places + 1, minlength=1)[places + 1] == 1)


def _places(keys: pa.Array, among: pa.Array) -> Places:
    """Return the first place of each key among others; -1 where it is missing or NULL.

    To hash a value costs seven times as much as to look it up, so that is done with the fewer.
    """
    if len(among) <= len(keys):
        found = pc.index_in(keys, value_set=among, skip_nulls=True)
        return np.asarray(found.fill_null(-1)).astype(np.int64)
    coded = keys.dictionary_encode()
    found = pc.index_in(among, value_set=coded.dictionary, skip_nulls=True).fill_null(-1)
    at = np.flatnonzero(np.asarray(found) >= 0)[::-1]  # of equal ones, the first is put in last
    first = np.full(len(coded.dictionary) + 1, -1, np.int64)
    first[np.asarray(found)[at]] = at
    places: Places = first[np.asarray(coded.indices.fill_null(-1))]
    return places


def keys_of(sessions: pa.Array | pa.ChunkedArray, others: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a key for each pair of a session and another text."""
    return as_one_array(pc.binary_join_element_wise(sessions, others, " "))


def _is_never_plain(sent: pa.Table) -> Bools:
    """Return which rows can't be plain: masked, for several recipients, or without an answer."""
    odd = np.zeros(sent.num_rows, np.bool_)
    if "mask" in sent.column_names:
        odd |= np.asarray(sent["mask"].is_valid())
    if "recipients" in sent.column_names:
        odd |= np.asarray(pc.greater(sent["recipients"], 1).fill_null(False))
    if "asked_at" in sent.column_names:
        odd |= np.asarray(pc.is_null(sent["status"]))  # without a readable answer
    return odd


def _are_alike(
    stored: pa.Table, at: Places, read: pa.Table, place: Places, names: list[str]
) -> Bools:
    """Return which stored plain rows equal what was read now."""
    here, there = _taken(stored, at), _taken(read, place)
    own = pc.if_else(here[OWN], here["recipient"], pa.scalar(None, TEXT))
    is_same = _equal(own, there["recipient"])
    for name in ("sent_at", *names):
        is_same &= _equal(here[name], there[name])
    if "mask" in there.column_names:
        is_same &= np.asarray(pc.is_null(there["mask"]))
    return is_same


def _can_be_put_in(rows: pa.Table, at: Places, said: pa.Table, place: Places) -> Bools:
    """Return which plain rows stay plain with one answer merged into each."""
    here, there = _taken(rows, at), _taken(said, place)
    number, word, status = there["number"], there["word"], there["status"]
    is_silent = np.asarray(pc.equal(number, "")) & np.asarray(pc.is_null(word))
    is_silent &= np.asarray(pc.equal(status, "pending"))
    is_heard = ~np.asarray(pc.starts_with(here["recipient"], general.UNHEARD))
    is_own = np.asarray(here[OWN])
    is_its = np.asarray(pc.equal(number, here["recipient"]))
    has_said = np.asarray(pc.is_valid(here["provider_status"]))
    fits: Bools = np.where(
        is_silent, ~has_said & (is_own | ~is_heard), is_its | (~is_own & ~is_heard)
    )
    fits &= is_silent | np.asarray(pc.not_equal(number, ""))
    fits &= np.asarray(pc.not_equal(here["status"], "invalid"))
    fits &= ~np.asarray(here["is_final"])
    fits &= np.asarray(pc.greater(there["asked_at"], here["last_asked_at"]).fill_null(True))
    submitted = pc.if_else(
        pa.array(is_silent), there["session_submit_status"], there["submit_status"]
    )
    fits &= _equal(submitted, there["session_submit_status"])
    for name in WHO:
        fits &= ~is_own | is_silent | _equal(here[name], there[name])
    received, sent, asked = there["received_at"], here["sent_at"], there["asked_at"]
    fits &= np.asarray(pc.is_null(received)) | np.asarray(
        general.is_believed(_micros(received), _micros(sent), _micros(asked))
    )
    return fits


def _equal(left: pa.ChunkedArray, right: pa.ChunkedArray) -> Bools:
    both_null = pc.and_(pc.is_null(left), pc.is_null(right))
    return np.asarray(pc.or_(pc.fill_null(pc.equal(left, right), False), both_null))


def _taken(rows: pa.Table, at: Places) -> pa.Table:
    """Return the rows at some places; free of cost if these are in order."""
    if len(at) and at[-1] - at[0] == len(at) - 1 and (np.diff(at) == 1).all():
        return rows.slice(at[0], len(at))
    return rows.take(pa.array(at))


def _replaced(rows: pa.Table, at: Places, new: pa.Table) -> pa.Table:
    if len(at) == rows.num_rows:
        return new
    places = np.arange(rows.num_rows)
    places[at] = rows.num_rows + np.arange(len(at))
    return pa.concat_tables([rows, new]).take(pa.array(places)).combine_chunks()


def with_columns(rows: pa.Table, **columns: Any) -> pa.Table:
    """Return rows with some columns replaced, each in its type."""
    arrays = [columns.get(one.name, rows[one.name]) for one in rows.schema]
    types = zip(arrays, rows.schema.types, strict=True)
    same = [array if array.type == type_ else array.cast(type_) for array, type_ in types]
    return pa.Table.from_arrays(same, schema=rows.schema)


def unasked(sent: pa.Table, names: pa.Schema) -> pa.Table:
    """Return the rows of plain sessions that nobody has asked about yet, as ``sent``."""
    count = sent.num_rows
    constant = {"status": "pending", "is_final": False, "is_closed": False, "is_announced": True}
    columns = {one.name: pa.nulls(count, one.type) for one in names}
    columns |= {name: sent[name] for name in sent.column_names if name in columns}
    columns |= {name: pa.repeat(pa.scalar(value), count) for name, value in constant.items()}
    columns["conflicts"] = pa.array([[]] * count, pa.list_(TEXT))
    columns["recipient"] = pc.coalesce(sent["recipient"], pa.scalar(f"{general.UNHEARD}1"))
    columns[OWN] = pc.is_valid(sent["recipient"])
    return pa.Table.from_arrays([*columns.values()], schema=names).combine_chunks()


def rows_of(
    session_no: str, known: Session, names: list[str], dimensions: list[str], cutoff: int
) -> list[dict[str, Any]]:
    """Return a session's rows as a day's file has them, with the state in the first."""
    general.prune(known)
    made = general.rows(session_no, known, cutoff)
    if made and general.session_of(made) == known:
        states = [None if len(made) == 1 else str(len(made))] * len(made)
    else:
        states = [general.state_of(known), *[""] * (len(made) - 1)]
    for row, state in zip(made, states, strict=True):
        row[STATE] = state
        row |= dict(zip(dimensions, row.pop("dimensions"), strict=True))
    return [{name: row[name] for name in names} for row in made]


def dimensions_of(names: pa.Schema) -> list[str]:
    """Return the columns of a day's file that came from the customer's table."""
    ours = [name for name in names.names if name not in (OWN, STATE)]
    return schema.dimensions_among(ours)


def known_of(rows: list[dict[str, Any]], dimensions: list[str]) -> Session:
    """Return what is known of a session, from its rows in a day's file."""
    if state := next((one for row in rows if (one := row[STATE] or "").startswith("{")), None):
        return general.session_from(state)
    return general.session_of(
        [row | {"dimensions": [row[name] for name in dimensions]} for row in rows]
    )


def outnumbered(stored: pa.Array, read: pa.Array) -> pa.Array:
    """Return the sessions with fewer stored rows than read ones, and at least one."""
    had, has = (one.drop_null().value_counts() for one in (stored, read))
    place = pc.index_in(has.field("values"), value_set=had.field("values"))
    is_more = pc.less(had.field("counts").take(place), has.field("counts"))
    return has.field("values").filter(is_more.fill_null(False))


def with_states(rows: pa.Table, change: Callable[[Session], None]) -> pa.Table:
    """Return rows of a day's file with ``change`` applied to each state."""
    states = rows[STATE].to_pylist()
    if not any(states):
        return rows
    for place, state in enumerate(states):
        if state and state.startswith("{"):
            known = general.session_from(state)
            change(known)
            states[place] = general.state_of(known)
    return rows.set_column(rows.schema.get_field_index(STATE), STATE, pa.array(states, TEXT))


def sent_of(read: pa.Table, dimensions: list[str]) -> dict[str, list[Sent]]:
    """Return the recipients that source rows stand for, by session."""
    groups = grouped([read])
    return {name: [one for row in rows for one in _sent(row, dimensions)]
            for name, rows in groups.items()}  # fmt: skip


def grouped(tables: Iterable[pa.Table]) -> dict[str, list[dict[str, Any]]]:
    """Return rows as dictionaries, times in microseconds, by session."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in (row for table in tables for row in python(table)):
        groups.setdefault(row["session_no"], []).append(row)
    return groups


def python(rows: pa.Table) -> list[dict[str, Any]]:
    """Return rows as dictionaries, times in microseconds."""
    counts = (one.with_type(pa.int64()) if pa.types.is_timestamp(one.type) else one
              for one in rows.schema)  # fmt: skip
    found: list[dict[str, Any]] = rows.cast(pa.schema(counts)).to_pylist()
    return found


def table_of(rows: list[dict[str, Any]], names: pa.Schema) -> pa.Table:
    """Return dictionaries, times in microseconds, as a table."""
    return pa.Table.from_pylist(rows, names)


def _sent(row: dict[str, Any], dimensions: list[str]) -> Iterator[Sent]:
    """Yield the recipients that a source row stands for; its phone is the first's."""
    carried = [row[name] for name in dimensions]
    own = {name: row[name] for name in ("recipient", *WHO, "mask", "ends") if name in row}
    yield Sent(row["sent_at"], dimensions=carried, **own)
    for _ in range(1, row.get("recipients") or 1):
        yield Sent(row["sent_at"], dimensions=carried)


def _sent_of_lost(row: dict[str, Any], dimensions: list[str]) -> Sent:
    own = {name: row[name] for name in ("recipient", *WHO)} if row[OWN] else {}
    return Sent(row["sent_at"], dimensions=[row[name] for name in dimensions], **own)


def _answer(row: dict[str, Any]) -> tuple[str, Answer, dict[str, Any]]:
    answer = Answer(**{name: row[name] for name in ("asked_at", "status", *COLUMN_OF)})
    who = {name: row.get(name) for name in WHO}
    return row["number"], answer, who | {"submit_status": row["session_submit_status"]}


def _micros(times: pa.ChunkedArray) -> Places:
    return np.asarray(times.cast(pa.int64()).fill_null(0)).astype(np.int64)
