"""The steps in order, without an orchestrator: the command line and Dagster both call these.

Each step can be repeated at any time: it finds in the data directory what is still to do.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline import source, warehouse
from usms_pipeline.contract import polling, wording
from usms_pipeline.contract.errors import (
    Busy,
    CredentialsRefused,
    DamagedDay,
    ServiceDown,
    SourceError,
    StorageError,
)
from usms_pipeline.contract.metrics import UNANNOUNCED_SHARE
from usms_pipeline.days import file, log, quarantine, unheard
from usms_pipeline.days.file import Footer
from usms_pipeline.days.held import Outcome
from usms_pipeline.days.run import OnProgress, Progress, Run
from usms_pipeline.days.writing import vanished
from usms_pipeline.people import forget
from usms_pipeline.people.phone_key import has_key, load_key
from usms_pipeline.people.phones import PhoneBook
from usms_pipeline.service.collect import Patience, utc_now
from usms_pipeline.service.names import Names
from usms_pipeline.service.pace import FIRST_PACE
from usms_pipeline.settings import Settings
from usms_pipeline.source import LeftOut
from usms_pipeline.store import dataset
from usms_pipeline.store.dataset import Window
from usms_pipeline.store.storage import Store
from usms_pipeline.warehouse import Change, WarehouseReport

__all__ = ["Look", "OnProgress", "Pipeline", "Plan", "Progress", "Report"]

REFRESH_EVERY: Final = timedelta(minutes=15)
"""How often a refresh should run; a plan that takes longer can't keep up."""
REPORT: Final = "report.html"
CHART: Final = "delivery-rate.png"
"""Drawn beside the report, for Dagster's page."""
_PACE_FILE: Final = "pace.json"
_SURVEY_FILE: Final = "survey.json"


@dataclass
class Report(Outcome):
    """What a run did: asking and folding, and publishing if that was part of it.

    ``days`` has the footer of each day's file that was read; days in ``written`` were written.
    ``unheard`` is a sentence if the service knows none of the sessions, else empty. ``remedy`` says
    what to do about receipts for phones that are not in the source.
    """

    days: dict[date, Footer] = field(default_factory=dict)
    unheard: str = ""
    remedy: str = field(default="", repr=False)
    is_unreadable: bool = False
    """Too many times of the source can't be read: the figures would mislead."""
    left_out: LeftOut = field(default_factory=LeftOut)
    """The source rows that are in no figure."""
    warehouse: WarehouseReport | None = None

    @classmethod
    def of(cls, run: Run, settings: Settings, notes: Iterable[str] = ()) -> Report:
        """Return what a run gave; ``notes`` come before its own."""
        given = vars(run.outcome) | {"notes": [*notes, *run.outcome.notes]}
        return cls(**given, days=run.footers, remedy=_announce_all(settings))

    @property
    def buckets(self) -> Counter[str]:
        """Count the recipients of all days that are in the source, by status."""
        counts: Counter[str] = Counter()
        for said in self.days.values():
            counts.update(said.buckets)
        return counts

    @property
    def unannounced(self) -> int:
        """Count the receipts of phones that are not in the source."""
        return sum(said.unannounced for said in self.days.values())

    @property
    def open(self) -> int:
        """Count the rows that are still asked about."""
        return sum(said.open for said in self.days.values())

    @property
    def newest(self) -> datetime | None:
        """Return the last time of sending among the rows read."""
        return _moment(self.newest_sent_at)

    @property
    def fell_short(self) -> bool:
        """Return whether sessions could not be asked about or are not known, or times not read."""
        found = self.stats.ids_given_up or self.damaged or self.is_unreadable or self.unheard
        return bool(found)

    @property
    def warnings(self) -> list[str]:
        """The warnings, in sentences."""
        held = ", ".join(map(str, sorted(self.locked)))
        found = [
            *([f"another run is working on {held}: skipped."] if held else []),
            *self.notes,
            *self.damaged.values(),
            *(
                f"{name} is damaged and was set aside: sessions that only it answered are asked "
                "again if they are still due. Delete it, or restore it from a backup under its "
                "name without `.damaged-`."
                for name in self.aside
            ),
            *self._of_the_source(),
            *(f"{count:,} × {problem}" for problem, count in self.stats.problems.items()),
            *self._of_the_answers(),
            *(self.warehouse.warnings if self.warehouse else []),
        ]
        return [*dict.fromkeys(found)]

    def _of_the_source(self) -> list[str]:
        counts: Counter[str] = Counter()
        for said in self.days.values():
            counts.update(said.read)
        without, gone, copies = counts["without_session"], counts["gone"], counts["copies"]
        return _sentences(
            (without, f"{wording.counted(without, 'recipient')} without a usable session number in "
             "the source: counted as invalid. Check USMS_SESSION_COLUMN."),
            (gone, f"{wording.counted(gone, 'row')} read before and no longer in the source: still "
             "counted, which is right if old rows were archived. It is wrong if a row's "
             "session number was changed (it counts twice now), or if USMS_SOURCE_URL or "
             "USMS_SOURCE_TABLE names another table."),
            (copies, f"{wording.counted(copies, 'source row')} with a phone that another row of "
             "the same session has: each phone counts once."),
        )  # fmt: skip

    def _of_the_answers(self) -> list[str]:
        refused, silent = self.stats.ids_refused, self.stats.ids_unanswered
        others, strange = self.quarantined - refused - silent, self.buckets["unrecognized"]
        what = "part of a response" if others == 1 else "responses or parts of responses"
        is_many = self.unannounced > UNANNOUNCED_SHARE * self.buckets.total()
        return _sentences(
            (refused, f"{wording.counted(refused, 'session number')} refused by the service and "
             "counted as invalid: see `usms quarantine list`."),
            (silent, f"{wording.counted(silent, 'session number')} got no usable answer while "
             "others did: they are asked again at the polling times. `usms quarantine list` shows "
             "the answers."),
            (others > 0, f"{others:,} {what} could not be used and went into quarantine: `usms "
             "quarantine list` says why."),
            (self.times_in_doubt, f"{wording.counted(self.times_in_doubt, 'receipt')} with a time "
             "that can't be read, or that is later than the response: the time is ignored. If most "
             "have one, check USMS_RECEIPT_TIMEZONE and this machine's clock."),
            (strange, f"{wording.counted(strange, 'recipient')} with a status word that this "
             "version does not know, not counted as failed: see `usms rates --by "
             "provider_status`."),
            (is_many, f"{self.unannounced:,} receipts are for phones that are not in your table "
             f"(left out of the rates). {self.remedy}"),
        )  # fmt: skip


def _sentences(*said: tuple[int, str]) -> list[str]:
    """Return the sentences whose count is not 0."""
    return [sentence for count, sentence in said if count]


def _announce_all(settings: Settings) -> str:
    """Return what to do so that the source names all recipients; only settings not set yet."""
    phone, count = settings.phone_column, settings.recipients_column
    if phone is None and count is None:
        return (
            "Set USMS_PHONE_COLUMN to the column of their numbers, or USMS_RECIPIENTS_COLUMN to "
            "the column with the number of recipients per row."
        )
    if phone is None:
        return (
            f"Does {count!r} (USMS_RECIPIENTS_COLUMN) hold the number of recipients per row? Or "
            f"set USMS_PHONE_COLUMN to the column of their numbers."
        )
    of_more = f"the counts in {count!r} right" if count else (
        "is one row one recipient (else set USMS_RECIPIENTS_COLUMN)"
    )  # fmt: skip
    return (
        f"Are the numbers in {phone!r} those that the messages went to, whole, and {of_more}? "
        "`usms check` shows how rows are read."
    )


@dataclass(frozen=True)
class SourceDoubts:
    """Warnings about the whole source; ``sentences`` are to be shown."""

    left_out: LeftOut = field(default_factory=LeftOut)
    sentences: list[str] = field(default_factory=list)
    is_unreadable: bool = False
    """Too many times can't be read: the figures would mislead."""
    late: str = ""
    """The warning about rows that no run reads, because they are older than its window."""

    @property
    def warnings(self) -> list[str]:
        """Return all sentences."""
        return [*self.sentences, *([self.late] if self.late else [])]


@dataclass(frozen=True)
class Plan:
    """What a run would ask now.

    ``pace`` is in requests per second: that of the last run (``is_pace_known``), or the first of a
    new one. The responses of ``unfolded_runs`` are counted first, so fewer sessions may be due.
    """

    due_sessions: dict[date, int]
    requests: int
    pace: float
    is_pace_known: bool
    oldest_unmet_at: datetime | None
    behind_seconds: float
    unfolded_runs: int = 0
    warnings: list[str] = field(default_factory=list)
    is_unreadable: bool = False

    @property
    def seconds_at_pace(self) -> float:
        """How long the requests take at this request rate."""
        return self.requests / self.pace

    @property
    def can_keep_up(self) -> bool:
        """Return whether all due sessions can be asked before the next refresh."""
        return self.seconds_at_pace <= REFRESH_EVERY.total_seconds()


@dataclass(frozen=True)
class Look:
    """What a run would do now, in sentences; ``to_do`` is empty if it would change nothing.

    ``next_due_at`` is when a message is due next; None if never, or if it was not looked up. If the
    source was read, ``rows_read`` counts the rows of the window, and ``newest_sent_at`` is the
    latest send time among them.
    """

    to_do: list[str]
    next_due_at: datetime | None = None
    rows_read: int | None = None
    newest_sent_at: datetime | None = None


class Pipeline:
    """One account's pipeline: its settings, its data directory, a clock, a transport, retries.

    ``changes`` are what was written and is not published yet, so that publishing need not load
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
        """The data directory; raises ``OtherLayout`` where another version worked in it."""
        store = Store(self.settings.data_dir)
        dataset.check_layout(store)
        return store

    @cached_property
    def book(self) -> PhoneBook:
        """The phone book, which hashes phone numbers; it makes the key at its first use."""
        return self._book_of(load_key(self.settings))

    def _book_of(self, key: bytes) -> PhoneBook:
        return PhoneBook(key, self.settings.default_region, self.settings.phones, self.store)

    def checked_book(self) -> PhoneBook:
        """Check key and settings as a run does before it begins, and return its book.

        Writes nothing: where nothing was begun and there is no key, the book has one of its own,
        which nobody keeps. Raises as ``dataset.check``, and ``StorageError`` where the key is gone.
        """
        if not dataset.is_begun(self.store) and not has_key(self.settings):
            return self._book_of(secrets.token_bytes(32))
        book = self._book_of(load_key(self.settings, may_make=False))
        dataset.check(self.store, self.settings, book.fingerprint)
        return book

    # -- which days -----------------------------------------------------------------------------

    def open_window(self) -> Window:
        """Return the days whose source rows every run reads again."""
        today = self.clock().astimezone(self.settings.zone).date()
        first = today - timedelta(days=self.settings.source_lookback_days)
        return Window(min(max(first, self.settings.start_date), today), today)

    def everything(self) -> Window:
        """Return all days, from the start date to today."""
        today = self.clock().astimezone(self.settings.zone).date()
        return Window(min(self.settings.start_date, today), today)

    # -- the steps ------------------------------------------------------------------------------

    def run(self, window: Window | None = None) -> Report:
        """Read, ask, write and publish, for the days of a window (default: the open one).

        If the service refuses or fails, its answers so far are published, then the error is raised.
        """
        with closing(warehouse.Publishing(self.store, self.settings)) as publishing:
            try:
                report = self.refresh(window, publishing)
            except (CredentialsRefused, ServiceDown):
                publishing.finish(self._changes)
                raise
            self._tell(Progress("warehouse", 0))
            published = publishing.finish(self._changes)
        self._published(published)
        self.purge()
        report.damaged = published.stale | report.damaged
        if not published.is_locked:
            report.notes += self._doubts_about_copies(report)
        report.warehouse = published
        return report

    def refresh(
        self,
        window: Window | None = None,
        publishing: warehouse.Publishing | None = None,
    ) -> Report:
        """Read the source, ask about what is due, and write what changed; publishes nothing.

        Each day is loaded into ``publishing``, in another thread, when it is written. What came
        before the service refused or failed is written, then the error is raised.
        """
        window, begun = window or self.open_window(), self.clock()
        dataset.check(self.store, self.settings, self.book.fingerprint)
        notes = self._doubts_about_the_clock()
        reaches_today = window.last >= self.open_window().last
        with self._run(**({"on_written": publishing.load} if publishing else {})) as run:
            try:
                for _ in run.pieces(window, reaches_today=reaches_today):
                    # not before: a column that can't be meant is not to be what it was begun with
                    dataset.begin(self.store, self.settings, self.book.fingerprint)
                    if publishing and run.changed_days:
                        publishing.begin()
                    run.catch_up()
                    run.ask()
            except (CredentialsRefused, ServiceDown):
                self._check_none_vanished(run.footers)  # what came is published
                raise
            finally:
                self._changes += run.outcome.changes
                self.book.keep_prefixes()
            if pace := run.outcome.stats.pace:
                self.store.keep_json(_PACE_FILE, {"requests_per_second": pace})
            report = Report.of(run, self.settings, notes)
        self._check_none_vanished(report.days)
        told = report.stats.ids_answered, run.outcome.receipts
        if sessions := unheard.count(self.store, report.days, begun, *told):
            report.unheard = (
                f"The service knows none of the {sessions:,} sessions aged 1 to 72 hours that it "
                f"was asked about: are the values of {self.settings.session_column!r} the session "
                "numbers that the send call returned, and is the access key of the same account? "
                "Check USMS_SESSION_COLUMN, the table and USMS_ACCESS_KEY_ID; `usms check` shows "
                "how rows are read."
            )
        reads_older = window.first < self.open_window().first
        if doubts := self.doubts_about_the_source(is_forced=reads_older):
            report.notes += doubts.warnings
            report.is_unreadable, report.left_out = doubts.is_unreadable, doubts.left_out
        return report

    def _doubts_about_copies(self, report: Report) -> list[str]:
        """Warn of rows, on the days that a run wrote, that most likely are copies of others."""
        from usms_pipeline.figures import queries

        if not (report.repeats and report.written and report.stats.ids_answered):
            return []
        with warehouse.connect(self.settings.warehouse_path) as con:
            hint = queries.copies_hint(con, sorted({*report.written}))
        return [f"{hint}."] if hint else []

    def _run(self, **given: Any) -> Run:
        options = {"transport": self.transport, "patience": self.patience, "tell": self._tell}
        options |= {"pace": self._settled_pace(), "published": self.published_days} | given
        return Run(self.store, self.settings, self.book, self.clock, **options)

    def _doubts_about_the_clock(self) -> list[str]:
        """Warn of answers from the future: what was asked then is not due before that time."""
        now, written = self.clock(), log.runs(self.store)
        newest = max(map(log.written_at, written), default=None)
        if newest is None or newest <= now + polling.CLOCKS_DIFFER:
            return []
        said, then = (wording.moment(at, self.settings.zone) for at in (now, newest))
        return [
            f"This machine's clock says {said}, but responses of {then} are here already, and what "
            "was asked about then is not due before. If the clock is slow, set it right. If it was "
            "fast, messages may have been closed too early: move the folders in responses/ whose "
            "names begin with that time out of the data directory, then run `usms rebuild`."
        ]

    def _check_none_vanished(self, days: Iterable[date]) -> None:
        """Publish nothing of a dataset that is no longer there. Raises ``StorageError``."""
        if gone := {*days}.difference(file.days(self.store)):
            raise vanished(self.store, sorted(gone))

    def publish(self) -> WarehouseReport:
        """Publish the warehouse from the dataset, where a day changed."""
        self._tell(Progress("warehouse", 0))
        return self._published(
            warehouse.reconcile(self.store, self.settings, changes=self._changes)
        )

    def _published(self, report: WarehouseReport) -> WarehouseReport:
        if not report.is_locked:  # else the process that publishes may not have seen them
            self._changes.clear()
        return report

    def purge(self) -> list[str]:
        """Delete the responses of runs whose retention is over; return the names of these runs.

        Kept are those that are not folded yet, and those with open entries in the quarantine. What
        a day's file knows stays.
        """
        over = self._past_retention()
        for run in over:
            log.delete(self.store, run)
            quarantine.delete(self.store, run)
        return over

    def _past_retention(self) -> list[str]:
        oldest = self.clock() - timedelta(days=self.settings.raw_retention_days)
        over = [run for run in log.runs(self.store) if log.written_at(run) < oldest]
        if over:
            kept = {*log.open_runs(self.store), *quarantine.open_runs(self.store)}
            over = [run for run in over if run not in kept]
        return over

    def rebuild(self, days: Iterable[date] | None = None) -> Report:
        """Rebuild days from the stored responses; all of them when none are named.

        A damaged day is read from the source, too. Publishes nothing.
        """
        with self._run() as run:
            run.rebuild(sorted(self.all_days() if days is None else days))
            self._changes += run.outcome.changes
            self.book.keep_prefixes()
            return Report.of(run, self.settings)

    # -- looking and repairing ------------------------------------------------------------------

    def plan(self, window: Window | None = None) -> Plan:
        """Return what a run would ask: reads the source as a run does, asks and writes nothing.

        What killed runs were told is folded by the next run alone, and counts as due here.
        """
        window = window or self.open_window()
        now, pace = self.clock(), self._settled_pace()
        reaches_today, count = window.last >= self.open_window().last, 0
        oldest: datetime | None = None
        with self._only_looking() as run:
            for _ in run.pieces(window, reaches_today=reaches_today):
                due = run.due()
                count += due.num_rows
                first = due["unmet_at"][0].as_py() if due.num_rows else None
                oldest = min(filter(None, (oldest, first)), default=None)
        doubts = self.doubts_about_the_source(may_write=False) or SourceDoubts()
        reads_older = window.first < self.open_window().first
        of_source = doubts.sentences if reads_older else doubts.warnings
        ceiling = self.settings.max_requests_per_second
        likely = pace or FIRST_PACE
        return Plan(
            due_sessions=run.outcome.due,
            requests=-(-count // self.settings.batch_size),
            pace=min(likely, ceiling) if ceiling else likely,
            is_pace_known=pace is not None,
            oldest_unmet_at=oldest,
            behind_seconds=(now - oldest).total_seconds() if oldest else 0.0,
            unfolded_runs=len(log.open_runs(self.store)),
            warnings=[*run.outcome.notes, *of_source],
            is_unreadable=doubts.is_unreadable,
        )

    def look(self) -> Look:
        """Return what a run over the open window would do; ask and write nothing.

        What the days' files say comes first: the source is read only where they give no reason to
        run. Raises as ``plan``.
        """
        if not dataset.is_begun(self.store):
            return Look(["nothing was collected yet"])
        polls = [offset // timedelta(microseconds=1) for offset in self.settings.poll_offsets]
        now, never = int(self.clock().timestamp() * 1_000_000), 2**62
        footers = self.footers()
        damaged = len({*file.days(self.store)} - footers.keys())
        waiting = [said for said in footers.values() if said.open]
        next_due_at = min((said.next_due_at or never for said in waiting), default=never)
        due = sum(said.polls != polls or (said.next_due_at or never) <= now for said in waiting)
        reasons = {
            "with messages that are due": (due, "day"),
            "whose responses are not counted yet": (len(log.open_runs(self.store)), "run"),
            "whose responses are past their retention": (len(self._past_retention()), "run"),
            "with a damaged file": (damaged, "day"),
        }
        to_do = [f"{wording.counted(n, of)} {why}" for why, (n, of) in reasons.items() if n]
        if not to_do and not warehouse.Publishing(self.store, self.settings).is_current():
            to_do = ["the warehouse is behind the days' files"]
        if to_do:
            return Look(to_do)
        with self._only_looking() as run:
            pieces = run.pieces(self.open_window(), reaches_today=True)
            changed, outcome = sum(len(run.changed_days) for _ in pieces), run.outcome
        to_do = (
            [f"{wording.counted(changed, 'day')} not as the source has it now"] if changed else []
        )
        newest = _moment(outcome.newest_sent_at)
        return Look(to_do, _moment(next_due_at), outcome.rows_read, newest)

    def _only_looking(self) -> Run:
        book = self.checked_book()
        return Run(
            self.store, self.settings, book, self.clock,
            tell=self._tell, published=self.published_days, holds=False,
        )  # fmt: skip

    def published_days(self) -> set[date]:
        """Return the days that are published, whether they have files or not.

        Empty if nothing was begun here: what is published is another data directory's.
        """
        if not dataset.is_begun(self.store):
            return set()
        return warehouse.days(self.settings.warehouse_path)

    def all_days(self) -> list[date]:
        """List the days that have a file, and those that had one when they were published."""
        return sorted({*file.days(self.store), *self.published_days()})

    def footers(self) -> dict[date, Footer]:
        """Return the footers of the days' files, except damaged ones."""
        found = {}
        for day in file.days(self.store):
            with suppress(DamagedDay):
                if (said := file.footer(self.store, day)) is not None:
                    found[day] = said
        return found

    def conservation(self, days: Iterable[date] | None = None) -> list[str]:
        """Check that every recipient in the source has exactly one status; return what is wrong."""
        there = file.days(self.store)
        gone = self.published_days().difference(there) if days is None else ()
        found = (file.wrong_counts(self.store, day) for day in (there if days is None else days))
        return [
            *(str(DamagedDay(day, "it is gone")) for day in sorted(gone)),
            *(sentence for sentence in found if sentence),
        ]

    def replay(self, ids: Iterable[str] | None = None) -> int:
        """Try quarantined entries again (all open ones without ``ids``); return how many.

        A session number that was refused, or whose response could not be read, is asked about
        again; anything else is decoded again. Raises ``Busy`` at the end when another process holds
        a day with some of them, or the warehouse.
        """
        dataset.begin(self.store, self.settings, self.book.fingerprint)
        wanted = None if ids is None else {*ids}
        chosen = [e for e in quarantine.entries(self.store) if wanted is None or e.id in wanted]
        again = {entry.lone_id: entry.id for entry in chosen if entry.lone_id}
        others = [entry for entry in chosen if not entry.lone_id]
        # were they refused for a setting's sake, they are refused still
        patience = replace(self.patience or Patience(), most_refusals_alone=math.inf)
        with self._run(patience=patience) as run:
            run.catch_up()
            run.fold_again(sorted({entry.block for entry in others}))
            rejected = {*run.outcome.rejected}
            asked = run.ask_about(pa.array(sorted(again), pa.string()))
            self._changes += run.outcome.changes
            locked, answered = run.outcome.locked, run.outcome.answered
        done = [again[one] for one in answered & again.keys()]
        done += [entry.id for entry in others if entry.id not in rejected]
        # closed last: what is killed in between is found open, and tried again
        quarantine.mark(self.store, done, quarantine.REPLAYED)
        published = self.publish()
        if locked:
            raise Busy(
                f"Another run works on {', '.join(map(str, sorted(locked)))}: its entries stay as "
                "they were. Run the same command again when it has ended."
            )
        if published.is_locked:
            raise Busy(
                "Another run is publishing the warehouse: what was tried again is not in it yet. "
                "The next `usms run` puts it there."
            )
        return asked + len(others)

    def dismiss(self, ids: Iterable[str] | None = None) -> int:
        """Set quarantined entries aside for good (all open ones without ``ids``); return how many.

        Raises ``Busy`` when another command works on the quarantine.
        """
        dataset.begin(self.store, self.settings, self.book.fingerprint)
        chosen = [entry.id for entry in quarantine.entries(self.store)] if ids is None else ids
        return quarantine.mark(self.store, chosen, quarantine.DISMISSED)

    def forget(self, phones: Iterable[str] = (), numbers: Iterable[str] = ()) -> list[date]:
        """Erase phones and session numbers everywhere, for good; return the days changed.

        A session of which a forgotten phone is the only recipient is forgotten with it, and the
        report is deleted, because it was made from all of it. Raises ``Busy`` when another process
        works on a day, and ``KeyMismatch`` before anything is done: another key finds no phone.
        """
        dataset.begin(self.store, self.settings, self.book.fingerprint)
        phones = list(phones)
        recipients = frozenset(self.book.recipient_id(phone) for phone in phones)
        forgotten = forget.Forgotten(recipients, frozenset(numbers))
        # buried before anything is looked through: what comes from now on is left out
        forget.bury(self.store, forgotten)
        lone = forget.lone_sessions(self.store, recipients)
        forget.bury(self.store, forgotten | forget.Forgotten(sessions=frozenset(lone)))
        # all that were ever forgotten: where this was interrupted before, no day names them now
        forgotten = forget.read(self.store)
        with self._run() as run:  # what others were told in a response that is to be emptied
            run.catch_up()
        cutoff = self.settings.cutoff // timedelta(microseconds=1)
        changed, busy = [], []
        for day in file.days(self.store):
            with self.store.lock(f"sent_date={day}") as held:
                if not held:  # nor is what is being written there just now left over
                    busy.append(str(day))
                    continue
                self.store.sweep(f"{file.FOLDER}/sent_date={day}")
                if forget.erase_day(self.store, day, forgotten, cutoff):
                    changed.append(day)
        names = Names(forgotten, self.book, phones)
        _, writing = forget.erase_responses(self.store, names)
        forget.erase_quarantine(self.store, names)
        published = warehouse.reconcile(self.store, self.settings, is_from_scratch=True)
        for drawn in (REPORT, CHART):  # a small group may be one person
            self.store.delete(drawn)
            self.store.sweep("", drawn)
        left = [*busy, *(["its responses"] if writing else [])]
        left += ["the warehouse"] if published.is_locked else []
        if left:
            raise Busy(
                f"Another run works on {', '.join(left)}. What was erased so far stays erased; "
                "run the same `usms forget` again when it has ended."
            )
        return changed

    def left_out(self) -> LeftOut | None:
        """Count the source rows that are in no figure; None where the source can't be asked."""
        found = self.doubts_about_the_source()
        return None if found is None else found.left_out

    def doubts_about_the_source(
        self, *, is_forced: bool = False, may_write: bool = True
    ) -> SourceDoubts | None:
        """Look at all times and session numbers of the source; once a day, while all is well.

        ``is_forced``: even if that was done today, because older days were read since. Without
        ``may_write`` it writes nothing. None where the source can't be asked.
        """
        asked = {"asked_on": self.clock().date().isoformat(), "of": self._times_read()}
        kept = self.store.recall(_SURVEY_FILE)
        if not is_forced and {**kept, **asked} == kept and not kept.get("sentences"):
            return SourceDoubts(LeftOut(**kept["left_out"]), late=kept["late"])
        try:
            seen = self.survey()
            late = self.late_rows(seen)
        except SourceError:
            return None
        sentences = [f"{one}." for one in seen.doubts(self.settings)]
        found = SourceDoubts(seen.left_out, sentences, seen.is_unreadable, late)
        if may_write:
            with suppress(StorageError):  # what can't be kept is asked again
                self.store.keep_json(_SURVEY_FILE, asked | asdict(found))
        return found

    def survey(self) -> source.Survey:
        """Survey the whole source. Raises as ``source.survey`` does."""
        since = dataset.day_start(self.open_window().first, self.settings.zone)
        return source.survey(self.settings, self.clock(), since)

    def late_rows(self, seen: source.Survey) -> str:
        """Report which rows of the source no run reads; empty where the days' files have them all.

        They lie before the days that every run reads again, and came after these were read. Where
        the counts of rows differ, all of these are read. Raises as ``source.read`` does.
        """
        days = file.days(self.store)
        if not days or not seen.left_out.older:  # nothing was read so far, or nothing is older
            return ""
        begin, end = self.settings.start_date, self.open_window().first
        read = {day: said for day, said in self.footers().items() if begin <= day < end}
        older = Counter({d: s.read.get("rows", 0) + len(s.elsewhere) for d, s in read.items()})
        if seen.left_out.older == older.total():
            return ""
        there = self._rows_by_day(begin, end)
        # A session is in the file of its first row's day: some rows of the next day are in it.
        spare = {day + timedelta(days=1): more for day, more in (older - there).items()}
        missing = there - older - Counter(spare)
        if not missing:
            return ""
        first, last, count = min(missing), max(missing), sum(missing.values())
        have, are, them = ("has", "it is", "it") if count == 1 else ("have", "they are", "them")
        where = f"of {first}" if first == last else f"of {first} to {last}"
        start = "" if older else " If they are not to be in the figures, set USMS_START_DATE later."
        return (
            f"{wording.counted(count, 'row')} {where} {have} not been read: {are} older than the "
            f"{wording.counted(self.settings.source_lookback_days, 'day')} that each run reads "
            f"again (USMS_SOURCE_LOOKBACK_DAYS). `usms run --from {first} --to {last}` reads "
            f"{them}.{start}"
        )

    def _rows_by_day(self, begin: date, end: date) -> Counter[date]:
        """Count the rows of the source by day, before ``end``, without who is forgotten."""
        slim = self.settings.model_copy(update={"dimensions": (), "recipients_column": None})
        span = [dataset.day_start(day, self.settings.zone) for day in (begin, end)]
        forgotten, counts = forget.read(self.store), Counter[date]()
        here = pa.timestamp("us", self.settings.timezone)
        for batch in source.read(slim, span[0], span[1]):
            rows = pa.table(batch)
            if forgotten:
                recipients = self.book.describe(rows["phone"]).field("recipient")
                rows = forget.without(rows.append_column("recipient", recipients), forgotten)
            days = pc.local_timestamp(rows["sent_at"].cast(here)).cast(pa.date32(), safe=False)
            for one in pc.value_counts(days):
                counts[one["values"].as_py()] += one["counts"].as_py()
        return counts

    def _times_read(self) -> str:
        """Return a hash of which times of which table are read, which shows neither.

        A CSV may be written again, in another form, several times a day.
        """
        settings = self.settings
        url = settings.source_url.get_secret_value() if settings.source_url else ""
        path = Path(url)
        is_csv = ".csv" in path.name and path.is_file()
        said = (
            url, path.stat().st_mtime_ns if is_csv else None, settings.source_table,
            settings.sent_at_column, settings.source_timezone, settings.session_column,
            settings.date_order, settings.start_date, settings.source_lookback_days,
        )  # fmt: skip
        return hashlib.sha256(repr(said).encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def _settled_pace(self) -> float | None:
        return self.store.recall(_PACE_FILE).get("requests_per_second")


def _moment(microseconds: int | None) -> datetime | None:
    """Return a moment in UTC; None for none, or for one that never comes."""
    if microseconds is None or microseconds >= 2**62:
        return None
    return datetime.fromtimestamp(microseconds / 1_000_000, UTC)
