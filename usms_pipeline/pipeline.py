"""The steps in order, without an orchestrator: the command line and Dagster both call these.

Each step can be repeated at any time: it finds in the data directory what is still to do.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any, Final

from usms_pipeline import (
    dataset,
    due,
    fold,
    forget,
    quarantine,
    retention,
    sessions,
    source,
    warehouse,
    wording,
)
from usms_pipeline.affected import Change
from usms_pipeline.dataset import SESSIONS, Window
from usms_pipeline.errors import (
    Busy,
    CredentialsRefused,
    ServiceDown,
    SourceError,
    StorageError,
)
from usms_pipeline.fold import ReceiptsReport
from usms_pipeline.phone_key import load_key
from usms_pipeline.phones import PhoneBook
from usms_pipeline.responses import ResponsesWriter
from usms_pipeline.service.collect import Answer, Batch, CollectStats, Patience, collect, utc_now
from usms_pipeline.service.pace import FIRST_PACE
from usms_pipeline.sessions import SessionsReport
from usms_pipeline.settings import Settings
from usms_pipeline.storage import Store
from usms_pipeline.warehouse import WarehouseReport

REFRESH_EVERY: Final = timedelta(minutes=15)
"""How often a refresh is meant to run; a plan that takes longer can't keep up."""
REPORT: Final = "report.html"
_PACE_FILE: Final = "pace.json"
_ROWS_TRIED: Final = 100
_SURVEY_FILE: Final = "survey.json"
_CLOCK_MAY_STEP: Final = timedelta(minutes=5)


@dataclass(frozen=True)
class Progress:
    """How far a step is: ``phase`` is its name, ``total`` None where it isn't known."""

    phase: str
    done: int
    total: int | None = None
    stats: CollectStats | None = None


OnProgress = Callable[[Progress], None]


@dataclass
class ResponsesReport:
    """What asking gave: the client's figures and how many sessions were due, by partition."""

    stats: CollectStats
    due_sessions: dict[date, int] = field(default_factory=dict)
    locked: list[date] = field(default_factory=list)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        """Give what a person should look at, in sentences."""
        found = [f"{count:,} × {problem}" for problem, count in self.stats.problems.items()]
        found += self.notes
        if self.stats.ids_refused:
            found.append(
                f"{self.stats.ids_refused:,} session numbers were refused by the service and count "
                "as invalid: see `usms quarantine list`."
            )
        return found


@dataclass
class RunReport:
    """What a whole run gave. ``fell_short``: something was asked for and not got."""

    sessions: SessionsReport
    responses: ResponsesReport
    receipts: ReceiptsReport
    warehouse: WarehouseReport
    quarantined_before: int = 0
    """What went into quarantine of answers that an earlier run had left to fold."""

    @property
    def warnings(self) -> list[str]:
        """Give what a person should look at, in sentences."""
        locked = sorted({*self.sessions.locked, *self.responses.locked, *self.receipts.locked})
        held = ", ".join(map(str, locked))
        return [
            *([f"another run holds {held}: left to it."] if locked else []),
            *self.sessions.warnings,
            *self.responses.warnings,
            *self.receipts.warnings,
            *self._set_aside(),
            *self.warehouse.warnings,
        ]

    def _set_aside(self) -> list[str]:
        """Tell of what went into quarantine, but for the refused sessions, which are told above."""
        others = (
            self.quarantined_before
            + self.receipts.quarantined_new
            - self.responses.stats.ids_refused
        )
        if others <= 0:
            return []
        what = "part of an answer" if others == 1 else "answers or parts of answers"
        return [
            f"{others:,} {what} could not be used and went into quarantine: `usms quarantine list` "
            "says why."
        ]

    @property
    def fell_short(self) -> bool:
        """Tell whether some sessions could not be asked about; they stay due."""
        return self.responses.stats.ids_given_up > 0


@dataclass(frozen=True)
class Plan:
    """What a run would ask now. ``pace``, in requests a second: the last settled or the first."""

    due_sessions: dict[date, int]
    requests: int
    pace: float
    is_pace_known: bool
    oldest_unmet_at: datetime | None
    behind_seconds: float

    @property
    def seconds_at_pace(self) -> float:
        """Give how long the requests take at the pace."""
        return self.requests / self.pace

    @property
    def can_keep_up(self) -> bool:
        """Tell whether what is due now is asked before the next refresh."""
        return self.seconds_at_pace <= REFRESH_EVERY.total_seconds()


class Pipeline:
    """One account's pipeline: its settings, its data directory, a clock, a transport, patience.

    ``changes`` are what folds changed that is not published yet, so that publishing need not load
    whole days; one list for several pipelines of a process where each does one step.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], datetime] = utc_now,
        transport: Any = None,
        patience: Patience | None = None,
        on_progress: OnProgress | None = None,
        changes: list[Change] | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.transport = transport
        self.patience = patience
        self._tell = on_progress or (lambda progress: None)
        self._changes = [] if changes is None else changes

    @cached_property
    def store(self) -> Store:
        """Give the data directory; raises ``OtherLayout`` where another version worked in it."""
        store = Store(self.settings.data_dir)
        dataset.check_layout(store)
        return store

    @cached_property
    def book(self) -> PhoneBook:
        """Give what hashes and describes phone numbers; makes the key at its first use."""
        key = load_key(self.settings)
        return PhoneBook(key, self.settings.default_region, self.settings.phones, self.store)

    # -- which partitions ---------------------------------------------------------------------

    def open_window(self) -> Window:
        """Give the partitions whose source rows every run reads again."""
        today = self.clock().astimezone(self.settings.zone).date()
        first = today - timedelta(days=self.settings.source_lookback_days)
        return Window(min(max(first, self.settings.start_date), today), today)

    def everything(self) -> Window:
        """Give all partitions, from the start date to today."""
        today = self.clock().astimezone(self.settings.zone).date()
        return Window(min(self.settings.start_date, today), today)

    def dates(self, window: Window) -> list[date]:
        """List the partitions to work on: those with rows of the window, and unfinished older ones.

        The latter are added only where the window reaches to today.
        """
        within = dataset.overlapping(self.store, window, self.settings.zone)
        if window.last < self.open_window().last:
            return within
        stored = dataset.days(self.store, SESSIONS)
        older = [day for day in stored if day < window.first and day not in within]
        return sorted([*dataset.unfinished(self.store, older, self.book.fingerprint), *within])

    # -- the steps ----------------------------------------------------------------------------

    def load_sessions(self, window: Window) -> SessionsReport:
        """Read the source's rows of a window into the partitions' sessions."""
        zone = self.settings.zone
        start = dataset.day_start(window.first, zone) - sessions.MARGIN
        end = dataset.day_start(window.last + timedelta(days=1), zone) + sessions.MARGIN
        notes: list[str] = []
        batches = self._counted(source.read(self.settings, start, end), notes)
        report = sessions.load(self.store, self.settings, window, batches, self.book)
        self.book.keep_prefixes()
        report.notes += notes
        return report

    def _counted(self, batches: Iterable[Any], notes: list[str]) -> Iterator[Any]:
        rows = 0
        for batch in batches:
            if not rows:
                notes += doubts_about_sessions(batch, self.settings, self.book)
            rows += batch.num_rows
            self._tell(Progress("sessions", rows))
            yield batch

    def ask(self, days: Iterable[date]) -> ResponsesReport:
        """Ask the service about every due session of the partitions; answers land on disk.

        What is on disk must be folded (``catch_up``), or it is asked again.

        Raises ``CredentialsRefused`` or ``ServiceDown`` once what landed is on disk, and
        ``StorageError`` where a partition is gone when all is asked.
        """
        notes = self._doubts_about_the_clock()
        with ExitStack() as stack:
            held, locked = self._hold(days, stack)
            found = due.find(
                self.store, self.settings, held, self.clock(), stack, self.book.fingerprint
            )
            report = self._collect(
                found.batches(self.settings.batch_size), sum(found.sessions.values())
            )
        self._check_none_vanished(set(found.sessions).difference(stored_days(self.store)))
        report.due_sessions, report.locked, report.notes = found.sessions, locked, notes
        return report

    def _doubts_about_the_clock(self) -> list[str]:
        """Tell of answers from the future: what was asked then is not due before that is past."""
        now, newest = self.clock(), retention.newest_answer_at(self.store)
        if newest is None or newest <= now + _CLOCK_MAY_STEP:
            return []
        said, then = (wording.moment(at, self.settings.zone) for at in (now, newest))
        return [
            f"This machine's clock says {said}, but answers of {then} are here already, and what "
            "was asked about then is not due before. If the clock is slow, set it right. If it was "
            "fast, messages may have been closed too early: move the files in responses/ whose "
            "names begin with that time out of the data directory, then run `usms rebuild`."
        ]

    def _hold(self, days: Iterable[date], stack: ExitStack) -> tuple[list[date], list[date]]:
        held: list[date] = []
        locked: list[date] = []
        for day in days:
            got = stack.enter_context(self.store.lock(f"sent_date={day}"))
            (held if got else locked).append(day)
        return held, locked

    def _collect(
        self,
        batches: Iterator[Batch],
        total: int,
        note: Callable[[date, Answer], None] = lambda day, answer: None,
        patience: Patience | None = None,
    ) -> ResponsesReport:
        begun = time.monotonic()

        def tell(stats: CollectStats) -> None:
            self._tell(Progress("responses", stats.ids_answered, total, stats))

        forgotten = forget.read(self.store)

        with ResponsesWriter(self.store, self.clock) as writer:

            def land(day: date, answer: Answer) -> None:
                if forgotten:
                    body = forget.scrub(answer.body, forgotten, self.book)
                    answer = replace(answer, body=body)
                writer.add(day, answer)
                note(day, answer)

            stats = collect(
                batches,
                land,
                self.settings,
                clock=self.clock,
                transport=self.transport,
                start_pace=self._settled_pace(),
                on_progress=tell,
                patience=patience or self.patience,
            )
        self._keep_pace(stats.pace)
        return ResponsesReport(stats, seconds=time.monotonic() - begun)

    def fold(self, days: Iterable[date]) -> ReceiptsReport:
        """Bring the partitions' receipts up to date with their sessions and answers."""
        return self._fold(days, is_anew=False)

    def fold_read(self, days: Iterable[date]) -> ReceiptsReport:
        """Fold the partitions that a run has read, before it publishes.

        Raises ``StorageError`` where one of them is gone, so that nothing is published.
        """
        days = list(days)
        report = self.fold(days)
        self._check_none_vanished(set(days).difference(report.partitions, report.locked))
        return report

    def catch_up(self, days: Iterable[date]) -> ReceiptsReport:
        """Fold what is on disk, so that nothing is asked twice; before anything is asked.

        A partition that nobody has asked about has nothing to fold yet, and is folded once it has.
        """
        answered = dataset.answered(self.store)
        return self.fold(day for day in days if day in answered)

    def rebuild(self, days: Iterable[date] | None = None) -> ReceiptsReport:
        """Make receipts anew from the raw answers; of all partitions when none are named."""
        return self._fold(dataset.days(self.store, SESSIONS) if days is None else days, True)

    def _fold(self, days: Iterable[date], is_anew: bool) -> ReceiptsReport:
        wanted = list(days)

        def told() -> Iterator[date]:
            for done, day in enumerate(wanted):
                self._tell(Progress("receipts", done, len(wanted)))
                yield day

        report = fold.fold(self.store, self.settings, self.book, told(), is_anew=is_anew)
        self._changes += report.changes
        self.book.keep_prefixes()
        return report

    def publish(self) -> WarehouseReport:
        """Publish the warehouse from the dataset, where a partition changed."""
        self._tell(Progress("warehouse", 0))
        report = warehouse.reconcile(self.store, self.settings, changes=self._changes)
        if not report.is_locked:  # else the process that publishes may not have seen them
            self._changes.clear()
        return report

    def purge(self) -> list[date]:
        """Delete raw answers whose retention is over; names the partitions."""
        return retention.purge(self.store, self.settings, self.book.fingerprint, self.clock())

    def run(self, window: Window | None = None) -> RunReport:
        """Do every step for a window, or for the open one.

        What landed before the service refused or failed is folded and published, then the error
        is raised.
        """
        window = window or self.open_window()
        loaded = self.load_sessions(window)
        days = sorted({*self.dates(window), *loaded.partitions})
        before = self.catch_up(days).quarantined_new
        try:
            asked = self.ask(days)
        except (CredentialsRefused, ServiceDown):
            self.fold_read(days)
            self.publish()
            raise
        folded = self.fold_read(days)
        published = self.publish()
        self.purge()
        return RunReport(loaded, asked, folded, published, before)

    def _check_none_vanished(self, gone: set[date]) -> None:
        """Publish nothing of a dataset that is no longer there. Raises ``StorageError``."""
        if gone:
            raise StorageError(
                f"What this run had read of {', '.join(map(str, sorted(gone)))} is gone from the "
                f"data directory {self.store.data_dir!r}: was it removed, or its disk unmounted? "
                "Put it back and run again. Nothing was published."
            )

    # -- looking and mending ------------------------------------------------------------------

    def plan(self, window: Window | None = None) -> Plan:
        """Say what a run would ask: reads the source as a run does, asks nothing of the service."""
        window = window or self.open_window()
        self.load_sessions(window)
        days = self.dates(window)
        self.fold(days)  # of new days too: they count as pending from now on
        now, pace = self.clock(), self._settled_pace()
        with ExitStack() as stack:
            found = due.find(self.store, self.settings, days, now, stack, self.book.fingerprint)
        ceiling = self.settings.max_requests_per_second
        likely = pace or FIRST_PACE
        oldest = found.oldest_unmet_at
        return Plan(
            due_sessions=found.sessions,
            requests=found.requests(self.settings.batch_size),
            pace=min(likely, ceiling) if ceiling else likely,
            is_pace_known=pace is not None,
            oldest_unmet_at=oldest,
            behind_seconds=(now - oldest).total_seconds() if oldest else 0.0,
        )

    def conservation(self, days: Iterable[date]) -> list[str]:
        """Check that every recipient announced is in exactly one bucket; gives what is amiss."""
        return fold.conservation(self.store, days)

    def replay(self, ids: Iterable[str] | None = None) -> int:
        """Try quarantined entries again (all open ones without ``ids``); gives how many.

        A session number that was refused, or whose answer could not be read, is asked about again;
        anything else is decoded again. Raises ``Busy`` at the end when another process holds a
        partition with some of them, or the warehouse.
        """
        self._days_of_this_key()
        wanted = None if ids is None else set(ids)
        chosen = [e for e in quarantine.entries(self.store) if wanted is None or e.id in wanted]
        refused = [replace(e, session_no=e.lone_id) for e in chosen if e.lone_id]
        undecoded = [entry for entry in chosen if not entry.lone_id]
        tried, done, busy = self._ask_again(refused)
        # The entries are closed last: what is killed in between is found open, and tried again.
        busy += self.fold(sorted({entry.sent_date for entry in tried})).locked
        anew = self.rebuild(sorted({entry.sent_date for entry in undecoded}))
        decoded = [entry for entry in undecoded if entry.sent_date in anew.partitions]
        done += [entry.id for entry in decoded if entry.id not in anew.rejected]
        quarantine.mark(self.store, done, quarantine.REPLAYED, self.book.fingerprint)
        published = self.publish()
        if busy := sorted({*busy, *anew.locked}):
            raise quarantine.busy(busy)
        if published.is_locked:
            raise Busy(
                "Another run is publishing the warehouse: what was tried again is not in it yet. "
                "The next `usms run` puts it there."
            )
        return len(tried) + len(decoded)

    def _ask_again(
        self, refused: list[quarantine.Entry]
    ) -> tuple[list[quarantine.Entry], list[str], list[date]]:
        """Ask about refused session numbers: the entries tried, the ids answered, the days held."""
        answered: set[tuple[date, str]] = set()

        def note(day: date, answer: Answer) -> None:
            if answer.verdict != "unreadable":
                answered.update((day, session) for session in answer.ids)

        with ExitStack() as stack:
            held, busy = self._hold(sorted({entry.sent_date for entry in refused}), stack)
            tried = [entry for entry in refused if entry.sent_date in held]
            if tried:
                # were they refused for a setting's sake, they are refused still
                patience = replace(self.patience or Patience(), most_refusals_alone=math.inf)
                batches = _batches(tried, self.settings.batch_size)
                self._collect(batches, len(tried), note, patience)
        return tried, [e.id for e in tried if (e.sent_date, e.session_no) in answered], busy

    def dismiss(self, ids: Iterable[str] | None = None) -> int:
        """Set quarantined entries aside for good (all open ones without ``ids``).

        Raises ``Busy`` when another process holds a partition with some of them.
        """
        self._days_of_this_key()
        chosen = [entry.id for entry in quarantine.entries(self.store)] if ids is None else ids
        return quarantine.mark(self.store, chosen, quarantine.DISMISSED, self.book.fingerprint)

    def forget(self, phones: Iterable[str] = (), numbers: Iterable[str] = ()) -> list[date]:
        """Erase phones and session numbers everywhere, for good; names the partitions changed.

        A session of which a forgotten phone is the only recipient is forgotten with it, and the
        report is deleted, for it was made of all. Raises ``Busy`` when another process works on a
        partition, and ``KeyMismatch`` before anything is done: under another key no phone would be
        found.
        """
        self._days_of_this_key()
        phones = list(phones)
        recipients = frozenset(self.book.recipient_id(phone) for phone in phones)
        forgotten = forget.Forgotten(recipients, frozenset(numbers))
        # buried before anything is looked through: what comes from now on is left out
        forget.bury(self.store, forgotten)
        lone = forget.lone_sessions(self.store, recipients)
        forgotten |= forget.Forgotten(sessions=frozenset(lone))
        forget.bury(self.store, forgotten)
        changed, busy = [], []
        for day in dataset.touched(self.store):
            with self.store.lock(f"sent_date={day}") as held:
                if not held:
                    busy.append(day)
                elif forget.erase(self.store, day, forgotten, phones, self.book):
                    changed.append(day)
                elif forget.is_named(self.store, day, forgotten):
                    changed.append(day)  # erased by a command that was interrupted
        busy += self.rebuild(changed).locked
        published = warehouse.reconcile(self.store, self.settings, is_anew=True)
        self.store.delete(REPORT)  # a small group may be one person
        self.store.sweep("", REPORT)
        left = [*map(str, sorted(set(busy))), *(["the warehouse"] if published.is_locked else [])]
        if left:
            raise Busy(
                f"Another run works on {', '.join(left)}. What was erased so far stays erased; "
                "run the same `usms forget` again when it has ended."
            )
        return changed

    def _days_of_this_key(self) -> list[date]:
        """List the partitions; raises ``KeyMismatch`` where one was made with another key."""
        days = dataset.days(self.store, SESSIONS)
        for day in days:
            name = dataset.file_name(SESSIONS, day)
            dataset.checked_metadata(self.store, name, self.book.fingerprint)
        return days

    def rows_without_sent_at(self) -> int | None:
        """Count the source rows that have no partition; asks once a day, while there are none.

        None where the source can't be asked. Such rows are in no figure, so a report tells of them.
        """
        asked = {"asked_on": self.clock().date().isoformat(), "of": self._times_read()}
        if self.store.read_json(_SURVEY_FILE) == asked | {"rows_without_sent_at": 0}:
            return 0
        try:
            rows = source.survey(self.settings).rows_without_sent_at
        except SourceError:
            return None
        with suppress(StorageError):  # what can't be kept is asked again
            self.store.keep_json(_SURVEY_FILE, asked | {"rows_without_sent_at": rows})
        return rows

    def _times_read(self) -> str:
        """Name which times of which table are read, without telling of either."""
        url = self.settings.source_url
        said = (
            url.get_secret_value() if url else None, self.settings.source_table,
            self.settings.sent_at_column, self.settings.source_timezone,
        )  # fmt: skip
        return hashlib.sha256(repr(said).encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def rows_left_out(self) -> list[str]:
        """Tell of the source rows that have no partition; reads the whole of their times."""
        rows = self.rows_without_sent_at()
        return [f"{wording.rows_left_out(rows, self.settings.sent_at_column)}."] if rows else []

    # -- the pace, kept between runs ------------------------------------------------------------

    def _settled_pace(self) -> float | None:
        return self.store.read_json(_PACE_FILE).get("requests_per_second")

    def _keep_pace(self, pace: float | None) -> None:
        if pace is not None:
            self.store.keep_json(_PACE_FILE, {"requests_per_second": pace})


def doubts_about_sessions(batch: Any, settings: Settings, book: PhoneBook) -> list[str]:
    """Tell when most session numbers of some rows of the source are phone numbers."""
    if not batch.num_rows or not book.are_numbers(batch["session_no"].slice(0, _ROWS_TRIED)):
        return []
    return [
        f"The session numbers in {settings.session_column} look like phone numbers: they are sent "
        "as session numbers, and published whole. Check USMS_SESSION_COLUMN; to take back what is "
        "stored, set it right, use another USMS_DATA_DIR and delete this one."
    ]


def _batches(entries: list[quarantine.Entry], size: int) -> Iterator[Batch]:
    """Cut refused entries into batches, none over two partitions."""
    for day in sorted({entry.sent_date for entry in entries}):
        ids = sorted({e.session_no for e in entries if e.sent_date == day and e.session_no})
        for begin in range(0, len(ids), size):
            yield Batch(day, tuple(ids[begin : begin + size]))


def stored_days(store: Store) -> list[date]:
    """List the partitions that there are, ascending."""
    return dataset.days(store, SESSIONS)
