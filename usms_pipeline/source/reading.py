"""Find the table and its columns, read a window, survey the whole. Knows no driver."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.contract import wording
from usms_pipeline.contract.errors import SourceError
from usms_pipeline.contract.moments import orders, to_utc
from usms_pipeline.contract.polling import CLOCKS_DIFFER
from usms_pipeline.contract.schema import TIME
from usms_pipeline.contract.setting_types import DateOrder
from usms_pipeline.contract.source_address import Address, parse
from usms_pipeline.settings import COSTS, Settings, variable
from usms_pipeline.source import query, sentences
from usms_pipeline.source.clean import Cells, Layout, clean
from usms_pipeline.source.kinds import Column, Source, TimeType, kind_of
from usms_pipeline.source.unread import Unread

_NESTED: Final = r"\]$|^(struct|map|union|jsonb?|hstore|variant)\b"
"""Types of values that hold others: as text they have marks around them that no session has."""
_FAR: Final = timedelta(days=366)
"""Nobody plans messages this far ahead: such digits mean something else."""
_MOST_ZONES_DIFFER: Final = timedelta(hours=26)
"""The difference between the world's extreme time zones."""
_FEWEST_ROUNDED: Final = 5
"""This many long numbers end in two zeros by chance once in 10^10 tables."""
_MOST_UNREAD: Final = 0.01
"""Share of the times that are not NULL: a few are mistakes, more are an unknown form."""


@dataclass(frozen=True)
class LeftOut:
    """Rows of the source that are in no figure, or not yet."""

    without_sent_at: int = 0
    """Their send time is NULL or can't be read: ``read`` never returns them."""
    before_start: int = 0
    """Sent before ``USMS_START_DATE``."""
    ahead: int = 0
    """Sent later than now, as their time says; ``far_ahead``: by more than any zones differ."""
    far_ahead: int = 0
    older: int = 0
    """Sent since the start date, and before the days that were asked about as ``since``."""


@dataclass(frozen=True)
class Survey:
    """What the source looks like, as a whole, at some time."""

    at: datetime
    address: str
    """Without secrets."""
    table: str
    rows: int
    left_out: LeftOut
    unread: Unread
    """Those without a usable time that are not NULL."""
    lost_digits: int
    """Session numbers that lost digits in a float."""
    first_sent_at: datetime | None
    last_sent_at: datetime | None

    @property
    def is_unreadable(self) -> bool:
        """Return whether too many times can't be read for the figures to mean anything."""
        return self.unread.count > _MOST_UNREAD * (
            self.rows - self.left_out.without_sent_at + self.unread.count
        )

    def doubts(self, settings: Settings, *, with_forms: bool = False) -> list[str]:
        """Return the warnings, in sentences without a period.

        ``with_forms``: with the list of the forms of times that are understood.
        """
        found = []
        if without := self.left_out.without_sent_at:
            said = wording.rows_left_out(without, settings.sent_at_column)
            found.append(said + self.unread.said(settings, with_forms=with_forms))
        if near := self.left_out.ahead - self.left_out.far_ahead:
            found.append(
                f"{wording.counted(near, 'row')} {'lies' if near == 1 else 'lie'} in the future, "
                f"by a day or less: is USMS_SOURCE_TIMEZONE ({settings.source_timezone!r}) the "
                "time zone of your table? Correct it before the first run: after that, another "
                "zone needs another USMS_DATA_DIR. Rows with a future date are read when that day "
                "comes"
            )
        if (far := self.left_out.far_ahead) and self.last_sent_at:
            days = (self.last_sent_at - self.at) // timedelta(days=1)
            found.append(
                f"{wording.counted(far, 'row')} {'lies' if far == 1 else 'lie'} further in the "
                f"future than any time zone explains, the latest {wording.counted(days, 'day')}: "
                "planned messages, or mistakes? No run reads them before that day"
            )
        if self.lost_digits:
            have = "number has" if self.lost_digits == 1 else "numbers have"
            found.append(
                f"{self.lost_digits:,} session {have} lost digits in a spreadsheet or a float "
                f"({settings.session_column}): for example 1.23457E+17, floats too large to be "
                "exact, or long numbers that end in zeros. The service does not know what is left "
                "of them: export that column as text"
            )
        return found


@dataclass(frozen=True)
class _Opened:
    source: Source
    address: Address
    table: str  # as the user wrote it
    quoted: str
    layout: Layout
    is_ranged: bool
    """Whether the database can find the rows of a window by their times."""


def read(
    settings: Settings, start: datetime, end: datetime, cells: Cells | None = None
) -> Generator[pa.RecordBatch]:
    """Stream the rows with ``start <= sent_at < end``, in no particular order.

    Columns: ``session_no`` (trimmed; null if NULL, blank, longer than 256 characters or with
    control characters), ``phone`` (null if there is none), ``sent_at`` timestamp[us, UTC], never
    null, ``recipients`` int32 ≥ 1, then the dimensions as text, each under its dataset name.

    Memory is bounded by the driver's batch. Rows without a usable ``sent_at`` are left out;
    ``survey`` counts them. ``start`` and ``end`` are aware. ``cells`` is added to, if given.

    Raises ``SourceError`` when the settings don't fit the source, ``SourceUnavailable`` when it
    can't be reached or breaks off, also in the middle.
    """
    if start.tzinfo is None or end.tzinfo is None:
        raise ValueError("start and end must have a time zone")
    start, end = start.astimezone(UTC), end.astimezone(UTC)
    cells = cells or Cells()
    with (
        _opened(settings) as it,
        closing(it.source.batches(_statement(it, settings, start, end))) as batches,
    ):
        for raw in batches:
            batch = clean(raw, it.layout, settings.dimensions, start, end, end + _FAR, cells)
            if batch.num_rows:
                yield batch


def survey(
    settings: Settings, now: datetime | None = None, since: datetime | None = None
) -> Survey:
    """Survey the whole source: its columns, rows, and the times it spans.

    ``since`` bounds the rows that are counted as older. Reads the whole ``sent_at`` column where it
    is text or numbers, else counts in the database.

    Raises ``SourceError`` and ``SourceUnavailable``, as ``read`` does.
    """
    now = now or datetime.now(UTC)
    start = datetime.combine(settings.start_date, time(), settings.zone)
    marks = [start, max(start, since or start), now + CLOCKS_DIFFER, now + _MOST_ZONES_DIFFER]
    marks = [one.astimezone(UTC) for one in marks]
    with _opened(settings) as it:
        unread = Unread()
        if it.layout.sent_at.time in query.TYPED:
            rows, usable, counts, first, last = _counted(it, marks)
        else:
            rows, usable, counts, first, last = _walked(it, unread, now + _FAR, marks)
        started, young, ahead, far_ahead = counts
        left_out = LeftOut(rows - usable, usable - started, ahead, far_ahead, started - young)
        sql = query.lost_digits(it.source.dialect, it.quoted, it.layout.session)
        lossy, long, rounded = (int(one.as_py()) for one in _only_row(it, sql))
        if rounded >= _FEWEST_ROUNDED and 2 * rounded > long:
            lossy = max(lossy, rounded)
        address, table = it.address.shown, it.table
        return Survey(now, address, table, rows, left_out, unread, lossy, first, last)


def _only_row(it: _Opened, sql: str) -> list[pa.Scalar]:
    [batch] = [b for b in it.source.batches(sql) if b.num_rows]
    return [column[0] for column in batch.columns]


def is_scanned(settings: Settings, at: datetime) -> bool:
    """Return whether the database scans the whole table to find the rows of one second.

    False for sources without indexes, such as files. Raises ``SourceError`` and
    ``SourceUnavailable``.
    """
    with _opened(settings) as it:
        return it.source.is_scanned(_statement(it, settings, at, at + timedelta(seconds=1)))


def _statement(it: _Opened, settings: Settings, start: datetime, end: datetime) -> str:
    dialect, layout = it.source.dialect, it.layout
    where = ""
    if it.is_ranged:
        where = query.window(dialect, layout.sent_at, start, end, settings.source_timezone)
    return query.select(dialect, it.quoted, layout.sent_at, layout.others, where)


def tables(url: str) -> list[str]:
    """Return the tables and views at a ``USMS_SOURCE_URL``; none of files, which are one table.

    Raises ``SourceError`` and ``SourceUnavailable``.
    """
    with _connected(parse(url)) as source:
        return [] if source.only_table is not None else source.tables()


def columns(url: str, table: str) -> list[Column]:
    """Return the columns of a table at a ``USMS_SOURCE_URL``. Raises as ``tables`` does."""
    address = parse(url)
    with _connected(address) as source:
        return _table(source, address, table or None)[-1]


@contextmanager
def _opened(settings: Settings) -> Iterator[_Opened]:
    if settings.source_url is None:
        raise SourceError("USMS_SOURCE_URL is not set: say where your table of messages is.")
    address = parse(settings.source_url.get_secret_value())
    with _connected(address) as source:
        name, parts, columns = _table(source, address, settings.source_table)
        layout = _layout(name, columns, settings)
        quoted = query.table_name(source.dialect, parts)
        is_ranged = _is_ranged(source, quoted, layout.sent_at)
        if not is_ranged and layout.order is None:
            layout = replace(layout, order=_order(source, quoted, name, layout.sent_at))
        yield _Opened(source, address, name, quoted, layout, is_ranged)


@contextmanager
def _connected(address: Address) -> Iterator[Source]:
    kind = kind_of(address)
    try:
        with kind.open_source(address) as source:
            yield source
    except kind.ERRORS as error:
        # not "from error": a driver's own text may hold the password
        raise kind.explain(error, address) from None


def _table(
    source: Source, address: Address, name: str | None
) -> tuple[str, tuple[str, ...], list[Column]]:
    if source.only_table is not None:
        parts: tuple[str, ...] = (source.only_table,)
        return address.path, parts, source.columns(parts)
    if name is None:
        raise SourceError(
            f"USMS_SOURCE_TABLE is not set: name the table or view of {address.shown} to read (for "
            "example: USMS_SOURCE_TABLE=public.sms_log)."
        )
    for parts in query.table_candidates(name):
        if columns := source.columns(parts):
            return name, parts, columns
    raise sentences.no_table(address, name, source.tables())


def _layout(table: str, columns: list[Column], settings: Settings) -> Layout:
    wanted = {
        "USMS_SESSION_COLUMN": settings.session_column,
        "USMS_SENT_AT_COLUMN": settings.sent_at_column,
        "USMS_PHONE_COLUMN": settings.phone_column,
        "USMS_RECIPIENTS_COLUMN": settings.recipients_column,
    }
    pairs = [(setting, name) for setting, name in wanted.items() if name is not None]
    of_costs = {getattr(settings, one): variable(one) for one in COSTS}
    pairs += [(of_costs.get(name, "USMS_DIMENSIONS"), name) for name in settings.dimensions]
    found = [(setting, _column(name, columns)) for setting, name in pairs]
    missing = [pair for pair, (_, column) in zip(pairs, found, strict=True) if column is None]
    if missing:
        raise sentences.no_columns(table, missing, [column.name for column in columns])
    known = [(setting, column) for setting, column in found if column is not None]
    one = dict(known)
    sent_at = one["USMS_SENT_AT_COLUMN"]
    if sent_at.time is None:
        raise SourceError(
            f"Column {sent_at.name!r} of {table!r} is of type {sent_at.type}, which can't hold a "
            "time: set USMS_SENT_AT_COLUMN to another column."
        )
    session = one["USMS_SESSION_COLUMN"]
    is_other = session.time in query.TYPED or session.is_boolean
    if is_other or re.search(_NESTED, session.type, re.IGNORECASE):
        raise SourceError(
            f"Column {session.name!r} of {table!r} is of type {session.type}, which can't be "
            "used as a session number: name another column in USMS_SESSION_COLUMN, or make a view "
            "that has it as text, and name that view in USMS_SOURCE_TABLE."
        )
    return Layout(
        sent_at, session,
        one.get("USMS_PHONE_COLUMN"), one.get("USMS_RECIPIENTS_COLUMN"),
        tuple(column for _, column in known[len(known) - len(settings.dimensions) :]),
        "UTC" if sent_at.time is TimeType.AWARE else settings.source_timezone,
        settings.date_order,
    )  # fmt: skip


def _column(name: str, columns: list[Column]) -> Column | None:
    """Find a column by its exact name, else the only one that differs just in case."""
    alike = [column for column in columns if column.name.casefold() == name.casefold()]
    found = [column for column in alike if column.name == name] or alike
    return found[0] if len(found) == 1 else None


def _is_ranged(source: Source, quoted: str, sent_at: Column) -> bool:
    if sent_at.time in (*query.TYPED, TimeType.NUMBER):
        return True
    if not source.dialect.has_indexes:
        return False
    sql = query.sample(source.dialect, quoted, sent_at)
    found = [query.is_ordered(batch.column(0)) for batch in source.batches(sql)]  # to its end
    return all(found)


def _order(source: Source, quoted: str, table: str, sent_at: Column) -> DateOrder | None:
    """Return whether day or month comes first, as the whole column shows; None where neither does.

    Raises ``SourceError`` where some times do begin with either, and the column does not show it.
    """
    sql = query.odd_texts(source.dialect, quoted, sent_at)
    next_year = datetime.now(UTC).year + 1
    found = {one for batch in source.batches(sql) for one in orders(batch.column(0), next_year)}
    shown = found - {None}
    if len(shown) > 1 or found == {None}:
        both = "some can only be day first, others only month first"
        raise SourceError(
            f"The times in column {sent_at.name!r} of {table!r} begin with a day or a month, such "
            f"as 03/04/2026, and {both if shown else 'no value shows which'}: set "
            "USMS_DATE_ORDER to dmy (day first) or mdy (month first). Times that don't fit are "
            "then counted and reported."
        )
    return next(iter(shown), None)


_Counted = tuple[int, int, list[int], datetime | None, datetime | None]
"""Rows, those with a usable time, those of them from each mark on, the first time and the last."""


def _counted(it: _Opened, marks: list[datetime]) -> _Counted:
    sql = query.count(it.source.dialect, it.quoted, it.layout.sent_at, marks, it.layout.zone)
    *counts, first, last = _only_row(it, sql)
    rows, usable, *since = (int(one.as_py()) for one in counts)
    ends = [to_utc(pa.array([end], end.type), it.layout.zone)[0].as_py() for end in (first, last)]
    return rows, usable, since, ends[0], ends[1]


def _walked(it: _Opened, unread: Unread, latest: datetime, marks: list[datetime]) -> _Counted:
    rows = usable = 0
    since = [0] * len(marks)
    ends: list[datetime] = []
    layout = it.layout
    for batch in it.source.batches(query.select(it.source.dialect, it.quoted, layout.sent_at)):
        values = batch.column(0)
        times = to_utc(values, layout.zone, order=layout.order, latest=latest)
        rows += len(times)
        usable += len(times) - times.null_count
        later = (pc.greater_equal(times, pa.scalar(mark, TIME)).true_count for mark in marks)
        since = [count + more for count, more in zip(since, later, strict=True)]
        if times.null_count:
            unread.add(values.filter(pc.is_null(times)), layout.order)
        found = [end for end in pc.min_max(times).as_py().values() if end is not None]
        ends = [min(ends + found), max(ends + found)] if ends + found else []
    return rows, usable, since, ends[0] if ends else None, ends[-1] if ends else None
