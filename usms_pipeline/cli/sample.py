"""Rows of the user's table as the pipeline reads them, and what is odd about them: for ``check``.

Nothing is stored; phones are hashed with an empty key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.contract import wording
from usms_pipeline.contract.schema import TIME
from usms_pipeline.days import doubts
from usms_pipeline.days.doubts import Doubt
from usms_pipeline.days.unheard import OLDEST, YOUNGEST
from usms_pipeline.people.phones import DESCRIPTION, MASK, PhoneBook

if TYPE_CHECKING:
    from usms_pipeline.settings import Settings
    from usms_pipeline.source import Cells

MOST_ROWS: Final = 100_000
"""A smaller table is looked at whole: half a second. Of a larger one, the latest rows."""
_WINDOWS: Final = (timedelta(hours=3), timedelta(days=3), timedelta(days=36_500))
"""Before the latest row: the first that holds enough of them."""
_ENOUGH: Final = 1_000
_SHOWN: Final = 10
_ASKED: Final = 3
_FEWEST_DAYS: Final = 3
"""Fewer times may all be midnight by somebody's schedule."""
_COUNTRIES: Final = 4
_MOST_INVALID: Final = 0.2
"""Of the phones, a table with typing errors has 1 % that are valid nowhere; one that is read in
another country's way has most."""

Said = tuple[str, str]
"""A state of a finding, and its text."""


@dataclass(frozen=True)
class Sample:
    """Rows as read: ``session_no``, ``sent_at``, the dimensions, and what is known of the phone."""

    rows: pa.Table
    is_whole: bool
    settings: Settings
    cells: Cells
    doubts: list[Doubt]

    @property
    def name(self) -> str:
        """Return how many rows were looked at, and recipients, if cells hold several."""
        rows, recipients = self.cells.rows, self.rows.num_rows
        count = wording.counted(rows, "row")
        if rows != recipients:
            count += f" with {wording.counted(recipients, 'recipient')}"
        return count if self.is_whole else f"the latest {count}"

    @property
    def noun(self) -> str:
        """Return what each of ``rows`` is: a row of the table, unless cells hold several phones."""
        return "row" if self.cells.rows == self.rows.num_rows else "recipient"


def take(settings: Settings, rows: int, first: datetime, last: datetime) -> Sample:
    """Read a table of ``rows`` rows, from the first time of sending to the last, or its end."""
    from usms_pipeline import source

    is_whole = rows <= MOST_ROWS
    batches: list[pa.RecordBatch] = []
    for window in _WINDOWS[2:] if is_whole else _WINDOWS:
        start, batches, count, cells = max(first, last - window), [], 0, source.Cells()
        with closing(source.read(settings, start, last + timedelta(seconds=1), cells)) as reading:
            for batch in reading:
                batches.append(batch)
                count += batch.num_rows
                if count >= MOST_ROWS:
                    break
        if count >= _ENOUGH:
            break
    schema = source.schema(settings.dimensions)
    table = pa.Table.from_batches(batches, schema).sort_by("sent_at")
    book = PhoneBook(b"", settings.default_region, "masked")
    odd = doubts.of_rows(table, cells, settings, book)
    described = book.describe(table["phone"])
    table = table.drop_columns("phone")
    for place, field in enumerate(described.type):
        table = table.append_column(field.name, described.field(place))
    return Sample(table.combine_chunks(), is_whole, settings, cells, odd)


def shown(sample: Sample) -> list[dict[str, Any]]:
    """Return up to ten rows, spread over the time; session numbers like phones are masked.

    If most look like phones, all are masked: some may be numbers that no country assigns.
    """
    rows, count = sample.rows, min(_SHOWN, sample.rows.num_rows)
    places = np.linspace(0, rows.num_rows - 1, count).round().astype(int)
    some = rows.take(pa.array(places)).select(["session_no", "phone", "country", "sent_at"])
    found: list[dict[str, Any]] = some.to_pylist()
    book = PhoneBook(b"", sample.settings.default_region, "masked")
    sessions = book.describe(some["session_no"]).to_pylist()
    all_do = doubts.look_like_phones(rows["session_no"].combine_chunks(), book)
    for row, described in zip(found, sessions, strict=True):
        if described and (all_do or described["number_type"] is not None):
            row["session_no"] = described["phone"]
    return found


def to_ask(sample: Sample, now: datetime) -> list[str]:
    """Return some sessions that the service must know, if there are any; else the latest ones."""
    rows = sample.rows.filter(pc.is_valid(sample.rows["session_no"]))
    age = (pa.scalar(now - OLDEST, TIME), pa.scalar(now - YOUNGEST, TIME))
    known = rows.filter(pc.and_(pc.greater(rows["sent_at"], age[0]),
                                pc.less(rows["sent_at"], age[1])))  # fmt: skip
    sessions = (known if known.num_rows else rows)["session_no"].combine_chunks().unique()
    last = len(sessions) - 1
    places = np.linspace(0, last, min(_ASKED, last + 1)).round().astype(int)
    return [sessions[int(place)].as_py() for place in places]


def is_young(sample: Sample, session_no: str, now: datetime) -> bool:
    """Return whether a session is of an age at which the service knows it."""
    return YOUNGEST <= now - sent_at(sample, session_no) <= OLDEST


def sent_at(sample: Sample, session_no: str) -> datetime:
    """Return when a session was sent."""
    its = sample.rows.filter(pc.equal(sample.rows["session_no"], session_no))["sent_at"]
    at: datetime = pc.min(its).as_py()
    return at


def of_sessions(sample: Sample) -> Iterator[Said]:
    """Report how the rows fall into sessions."""
    rows, settings, noun = sample.rows, sample.settings, sample.noun
    named = rows.filter(pc.is_valid(rows["session_no"]))
    sizes = named.group_by("session_no").aggregate([([], "count_all")])["count_all"]
    several = pc.sum(pc.greater(sizes, 1)).as_py() or 0
    repeat = f"a {noun} each"
    if several:
        one = "in several rows" if noun == "row" else "of several recipients"
        repeat = f"{wording.count(several)} of them {one}"
    yield "ok", f"{sample.name} of {wording.counted(len(sizes), 'session')}, {repeat}"
    if without := rows.num_rows - named.num_rows:
        lacking = f"{wording.counted(without, noun)} without a usable session number"
        yield "warning", f"{lacking} in {settings.session_column!r}: they count as invalid"
    is_odd = any(doubt.topic == "rows" for doubt in sample.doubts)
    if several and settings.phone_column is None and not is_odd:
        yield (
            "warning",
            "without phones, receipts go to the rows of a session in order: where the table has a "
            "column of numbers, name it in USMS_PHONE_COLUMN",
        )
    yield from _copies(sample)
    if noun == "row" and (midnights := _midnights(sample)):
        yield "warning", midnights


def _midnights(sample: Sample) -> str:
    """Return a remark where the times of sending are days."""
    times = sample.rows["sent_at"].cast(pa.timestamp("us", sample.settings.source_timezone))
    clock = pc.local_timestamp(times)
    are_days = pc.all(pc.equal(clock, pc.floor_temporal(clock, unit="day"))).as_py()
    if not are_days or len(clock) < _FEWEST_DAYS:
        return ""
    return (
        f"all times in {sample.settings.sent_at_column!r} are midnight, so it most likely holds "
        "days: delays, and when a message is asked about, are hours off. Name a column with the "
        "time of day in USMS_SENT_AT_COLUMN, if there is one"
    )


def _copies(sample: Sample) -> Iterator[Said]:
    """Report how many rows are copies of others: with a phone they count once, without it each."""
    rows = sample.rows.filter(pc.is_valid(sample.rows["session_no"]))
    rows = rows.append_column("who", pc.coalesce(rows["recipient"], rows["mask"]))
    phoned, bare = rows.filter(pc.is_valid(rows["who"])), rows.filter(pc.is_null(rows["who"]))
    others = [name for name in rows.column_names if name not in ("who", *DESCRIPTION.names)]
    twice = phoned.num_rows - phoned.group_by(["session_no", "who"]).aggregate([]).num_rows
    alike = bare.num_rows - bare.group_by(others).aggregate([]).num_rows
    if twice:
        repeat = f"{wording.counted(twice, sample.noun)} {_verb(twice, 'repeat')}"
        yield "warning", f"{repeat} a phone of the same session: each phone counts once"
    if alike:
        equal = f"{wording.counted(alike, sample.noun)} without a phone {_verb(alike, 'equal')}"
        yield (
            "warning",
            f"{equal} another in all that is read, and each counts as a message. If they are "
            "copies, read the table without them, by SELECT DISTINCT",
        )


def of_phones(sample: Sample) -> Iterator[Said]:
    """Report how many phones are numbers, and of which countries."""
    rows, column = sample.rows, sample.settings.phone_column
    if column is None:
        yield "ok", "no column of phones is named: countries and operators come with the receipts"
        return
    texts = rows.filter(pc.is_valid(rows["phone"]))
    masks = texts.filter(pc.is_valid(texts["mask"])).num_rows
    valid = texts.filter(pc.is_valid(texts["number_type"]))
    none = texts.filter(pc.and_(pc.equal(texts["phone"], MASK), pc.is_null(texts["mask"]))).num_rows
    invalid = texts.num_rows - masks - none - valid.num_rows
    parts = {"valid nowhere": invalid, "masked": masks, "no number": none,
             "empty": rows.num_rows - texts.num_rows}  # fmt: skip
    rest = "".join(f", {wording.count(count)} {what}" for what, count in parts.items() if count)
    good = f"{wording.count(valid.num_rows)} of {wording.count(rows.num_rows)} are phone numbers"
    if countries := Counter(valid["country"].to_pylist()):
        shares = ", ".join(
            f"{country or 'no country'} {wording.percent(count / valid.num_rows)}"
            for country, count in countries.most_common(_COUNTRIES)
        )
        good += f" ({shares}{', …' if len(countries) > _COUNTRIES else ''})"
    cells = sample.cells
    if cells.several:
        hold = "holds" if cells.several == 1 else "hold"
        rest += (
            f"; {wording.counted(cells.several, 'cell')} {hold} several, "
            f"{wording.count(cells.phones)} in all"
        )
    yield "ok", f"{good}{rest}"
    if invalid > _MOST_INVALID * texts.num_rows:
        yield (
            "warning",
            f"{wording.counted(invalid, 'phone')} {'is' if invalid == 1 else 'are'} valid nowhere: "
            f"whole numbers, and without a country code of {sample.settings.default_region} "
            "(USMS_DEFAULT_REGION)?",
        )
    if masks:
        hidden = f"{wording.counted(masks, 'phone')} in {column!r} {_verb(masks, 'hide')} digits"
        yield (
            "warning",
            f"{hidden}: matched inside a session, but nobody can tell whose they are beyond it",
        )


def _verb(count: int, plural: str) -> str:
    return f"{plural}s" if count == 1 else plural
