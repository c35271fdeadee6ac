"""Find the table and its columns, read a window, take stock. Knows no driver."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.contract import wording
from usms_pipeline.contract.errors import SourceError
from usms_pipeline.contract.moments import orders, to_utc
from usms_pipeline.contract.setting_types import DateOrder
from usms_pipeline.contract.source_address import Address, parse
from usms_pipeline.settings import Settings
from usms_pipeline.source import query, sentences
from usms_pipeline.source.clean import Layout, clean
from usms_pipeline.source.kinds import Column, Indexed, Source, TimeType, kind_of
from usms_pipeline.source.unread import Unread

_READ_BY_TYPE: Final = (TimeType.AWARE, TimeType.NAIVE, TimeType.DATE)
_NESTED: Final = r"\]$|^(struct|map|union|jsonb?|hstore|variant)\b"
"""Types of values that hold others: as text they have marks around them that no session has."""
_FAR: Final = timedelta(days=366)
"""Nobody plans a sending so long ahead: digits that say so mean something else."""
_FEWEST_ROUNDED: Final = 5
"""So many long numbers end in two zeros by chance once in 10^10 tables."""
_MOST_UNREAD: Final = 0.01
"""Of the times that are not NULL; a few are somebody's slip, more are a form that isn't known."""


@dataclass(frozen=True)
class Survey:
    """What the source looks like, as a whole."""

    address: str
    """Without secrets."""
    table: str
    columns: tuple[Column, ...]
    rows: int
    rows_without_sent_at: int
    """Rows that ``read`` never gives: their time of sending is NULL or can't be read."""
    unread: Unread
    """Those of them that are not NULL."""
    lost_digits: int
    """Session numbers that can't be what they were, for they went through a float."""
    first_sent_at: datetime | None
    last_sent_at: datetime | None

    @property
    def is_unreadable(self) -> bool:
        """Return whether so many times can't be read that the figures can't be meant."""
        return self.unread.count > _MOST_UNREAD * (
            self.rows - self.rows_without_sent_at + self.unread.count
        )

    def doubts(self, settings: Settings) -> list[str]:
        """Return what a person should look at, in sentences without a period."""
        found = []
        if self.rows_without_sent_at:
            said = wording.rows_left_out(self.rows_without_sent_at, settings.sent_at_column)
            found.append(said + self.unread.said(settings.sent_at_column))
        if self.lost_digits:
            found.append(sentences.lost_digits(self.lost_digits, settings.session_column))
        return found


@dataclass(frozen=True)
class _Opened:
    source: Source
    address: Address
    table: str  # as the user wrote it
    quoted: str
    columns: list[Column]
    layout: Layout
    is_ranged: bool
    """Whether the database can find the rows of a window by their times."""


def read(settings: Settings, start: datetime, end: datetime) -> Generator[pa.RecordBatch]:
    """Stream the rows with ``start <= sent_at < end``, in no particular order.

    Columns: ``session_no`` (trimmed; null if NULL, blank, longer than 256 characters or with
    control characters), ``phone`` (null if there is none), ``sent_at`` timestamp[us, UTC], never
    null, ``recipients`` int32 ≥ 1, then the dimensions as text, each under its dataset name.

    Memory is bounded by the driver's batch. Rows without a usable ``sent_at`` are left out;
    ``survey`` counts them. ``start`` and ``end`` are aware.

    Raises ``SourceError`` when the settings don't fit the source, ``SourceUnavailable`` when it
    can't be reached or breaks off, also in the middle.
    """
    if start.tzinfo is None or end.tzinfo is None:
        raise ValueError("start and end must have a time zone")
    start, end = start.astimezone(UTC), end.astimezone(UTC)
    with (
        _opened(settings) as it,
        closing(it.source.batches(_statement(it, settings, start, end))) as batches,
    ):
        for raw in batches:
            batch = clean(raw, it.layout, settings.dimensions, start, end, end + _FAR)
            if batch.num_rows:
                yield batch


def statement(settings: Settings, start: datetime, end: datetime) -> str:
    """Return the SQL that ``read`` runs: to EXPLAIN it, or to look at it.

    Raises as ``read`` does.
    """
    with _opened(settings) as it:
        return _statement(it, settings, start, end)


def survey(settings: Settings, now: datetime | None = None) -> Survey:
    """Take stock of the whole source: its columns, rows, and the times it spans.

    Reads the whole ``sent_at`` column where it is text or numbers, else counts in the database.

    Raises ``SourceError`` and ``SourceUnavailable``, as ``read`` does.
    """
    with _opened(settings) as it:
        unread = Unread()
        if it.layout.sent_at.time in _READ_BY_TYPE:
            rows, usable, first, last = _counted(it)
        else:
            rows, usable, first, last = _walked(it, unread, (now or datetime.now(UTC)) + _FAR)
        return Survey(
            it.address.shown, it.table, tuple(it.columns), rows, rows - usable, unread,
            _lost_digits(it), first, last,
        )  # fmt: skip


def is_scanned(settings: Settings, at: datetime) -> bool:
    """Return whether the database looks at all rows to find those of one second: has no index.

    False of what has none, such as files. Raises ``SourceError`` and ``SourceUnavailable``.
    """
    with _opened(settings) as it:
        if not isinstance(it.source, Indexed):
            return False
        return it.source.is_scanned(_statement(it, settings, at, at + timedelta(seconds=1)))


def _statement(it: _Opened, settings: Settings, start: datetime, end: datetime) -> str:
    dialect, layout = it.source.dialect, it.layout
    where = ""
    if it.is_ranged:
        where = query.window(dialect, layout.sent_at, start, end, settings.source_timezone)
    return query.select(dialect, it.quoted, layout.sent_at, layout.others, where)


@contextmanager
def _opened(settings: Settings) -> Iterator[_Opened]:
    if settings.source_url is None:
        raise SourceError("USMS_SOURCE_URL is not set: say where your table of messages is.")
    address = parse(settings.source_url.get_secret_value())
    kind = kind_of(address)
    try:
        with kind.open_source(address) as source:
            yield _looked_up(source, address, settings)
    except kind.ERRORS as error:
        # not "from error": a driver's own text may hold the password
        raise kind.explain(error, address) from None


def _looked_up(source: Source, address: Address, settings: Settings) -> _Opened:
    name, parts, columns = _table(source, address, settings.source_table)
    layout = _layout(name, columns, settings)
    quoted = query.table_name(source.dialect, parts)
    is_ranged = _is_ranged(source, quoted, layout.sent_at)
    if not is_ranged and layout.order is None:
        layout = replace(layout, order=_order(source, quoted, name, layout.sent_at))
    return _Opened(source, address, name, quoted, columns, layout, is_ranged)


def _table(
    source: Source, address: Address, name: str | None
) -> tuple[str, tuple[str, ...], list[Column]]:
    if source.only_table is not None:
        parts: tuple[str, ...] = (source.only_table,)
        return address.path, parts, source.columns(parts)
    if name is None:
        raise sentences.no_table_named(address)
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
    pairs += [("USMS_DIMENSIONS", name) for name in settings.dimensions]
    found = [(setting, _column(name, columns)) for setting, name in pairs]
    missing = [pair for pair, (_, column) in zip(pairs, found, strict=True) if column is None]
    if missing:
        raise sentences.no_columns(table, missing, [column.name for column in columns])
    known = [(setting, column) for setting, column in found if column is not None]
    one = dict(known)
    sent_at = one["USMS_SENT_AT_COLUMN"]
    if sent_at.time is None:
        raise sentences.not_a_time(table, sent_at.name, sent_at.type)
    session = one["USMS_SESSION_COLUMN"]
    if re.search(_NESTED, session.type, re.IGNORECASE):
        raise sentences.not_a_session(table, session.name, session.type)
    return Layout(
        sent_at, session,
        one.get("USMS_PHONE_COLUMN"), one.get("USMS_RECIPIENTS_COLUMN"),
        tuple(column for setting, column in known if setting == "USMS_DIMENSIONS"),
        "UTC" if sent_at.time is TimeType.AWARE else settings.source_timezone,
        settings.date_order,
    )  # fmt: skip


def _column(name: str, columns: list[Column]) -> Column | None:
    """Find a column by its exact name, else by the only one that differs in case alone."""
    alike = [column for column in columns if column.name.casefold() == name.casefold()]
    exact = [column for column in alike if column.name == name]
    found = exact or alike
    return found[0] if len(found) == 1 else None


def _is_ranged(source: Source, quoted: str, sent_at: Column) -> bool:
    """Look at a few values where the type does not say how a time is written."""
    if sent_at.time in (*_READ_BY_TYPE, TimeType.NUMBER):
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
    found = {one for batch in source.batches(sql) for one in orders(batch.column(0))}
    shown = found - {None}
    if len(shown) > 1 or found == {None}:
        raise sentences.no_date_order(table, sent_at.name, are_both=len(shown) > 1)
    return next(iter(shown), None)


def _lost_digits(it: _Opened) -> int:
    sql = query.lost_digits(it.source.dialect, it.quoted, it.layout.session)
    [batch] = [b for b in it.source.batches(sql) if b.num_rows]
    lossy, long, rounded = (int(column[0].as_py()) for column in batch.columns)
    is_rounded = rounded >= _FEWEST_ROUNDED and 2 * rounded > long
    return max(lossy, rounded) if is_rounded else lossy


def _counted(it: _Opened) -> tuple[int, int, datetime | None, datetime | None]:
    """Count in the database."""
    sql = query.count(it.source.dialect, it.quoted, it.layout.sent_at)
    [batch] = [b for b in it.source.batches(sql) if b.num_rows]
    rows, usable, first, last = batch.columns
    ends = [to_utc(end, it.layout.zone)[0].as_py() for end in (first, last)]
    return int(rows[0].as_py()), int(usable[0].as_py()), ends[0], ends[1]


def _walked(
    it: _Opened, unread: Unread, latest: datetime
) -> tuple[int, int, datetime | None, datetime | None]:
    """Count by reading the whole column."""
    rows = usable = 0
    ends: list[datetime] = []
    layout = it.layout
    for batch in it.source.batches(query.select(it.source.dialect, it.quoted, layout.sent_at)):
        values = batch.column(0)
        times = to_utc(values, layout.zone, order=layout.order, latest=latest)
        rows += len(times)
        usable += len(times) - times.null_count
        if times.null_count:
            unread.add(values.filter(pc.is_null(times)))
        found = [end for end in pc.min_max(times).as_py().values() if end is not None]
        ends = [min(ends + found), max(ends + found)] if ends + found else []
    return rows, usable, ends[0] if ends else None, ends[-1] if ends else None
