"""Makes the published file from the days' files: only what changed.

A published file never changes: a new one is built beside it and takes its name, so readers keep
what they opened and block nobody. How it is filled is in ``building.py``, its SQL in ``ddl.py``.
"""

from __future__ import annotations

import glob
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from threading import Thread, current_thread
from typing import Any, Final

import duckdb
import pyarrow as pa

from usms_pipeline.contract import schema
from usms_pipeline.contract.errors import StorageError
from usms_pipeline.contract.schema import Field
from usms_pipeline.days import file
from usms_pipeline.days.file import Footer
from usms_pipeline.settings import Settings
from usms_pipeline.store.storage import Store, make_folder, publish_file
from usms_pipeline.warehouse import building, ddl
from usms_pipeline.warehouse.building import Building, Part, Published
from usms_pipeline.warehouse.read import THREADS, check_place

MEMORY_LIMIT: Final = "192MB"
"""What publishing may hold in memory before it spills to disk."""
_FOOTER_READERS: Final = 16
_READ_ONLY: Final = 0o444


@dataclass(frozen=True)
class Change:
    """A rewrite of a day's file that changed some sessions: what to load into a copy.

    ``before`` and ``after`` are the versions in the footers of the file that was read ('' where
    there was none) and of the one that was written. ``sessions`` are those whose rows may differ,
    a NULL among them for the rows without a session number; ``rows`` are all rows that these
    sessions have now, in the file's columns.
    """

    day: date
    before: str
    after: str
    sessions: pa.Array
    rows: pa.Table


@dataclass(frozen=True)
class WarehouseReport:
    """What publishing did. ``is_locked``: nothing, because another process is publishing.

    ``clear_days`` still hold unmasked phone numbers, though the setting ``phones`` is masked now.
    The files of ``damaged`` days can't be read, or are gone: what was published of them stays.
    """

    path: Path
    partitions_changed: int = 0
    rows: int = 0
    seconds: float = 0.0
    is_skipped: bool = True
    is_locked: bool = False
    clear_days: tuple[date, ...] = ()
    damaged: tuple[date, ...] = ()

    @property
    def stale(self) -> dict[date, str]:
        """Return why nothing new of the damaged days was published, and the remedy."""
        return {
            day: f"{file.name(day)} is damaged or gone, so nothing new of that day was published. "
            f"`usms rebuild --from {day} --to {day}` rebuilds it."
            for day in self.damaged
        }

    @property
    def warnings(self) -> list[str]:
        """Return what a person should look at, in sentences."""
        found = [*self.stale.values()]
        if self.clear_days:
            found.append(
                f"{len(self.clear_days)} days still hold unmasked phone numbers, from when "
                f"USMS_PHONES was clear: {', '.join(map(str, self.clear_days[:5]))}"
                f"{' …' if len(self.clear_days) > 5 else ''}. `usms rebuild` masks them."
            )
        return found


def reconcile(
    store: Store,
    settings: Settings,
    *,
    changes: Iterable[Change] = (),
    is_from_scratch: bool = False,
) -> WarehouseReport:
    """Publish the warehouse from the days' files, where anything differs from what is published.

    Only days of another version are loaded; those that vanished stay. Where ``changes``, oldest
    first, lead from the version of a day that is published to the present one, only their rows are.
    Without them, as after a kill, the whole day is. With nothing changed nothing is published;
    ``is_from_scratch`` builds from scratch, so that nothing erased is left in free blocks.

    Raises ``StorageError``, also where a dataset without any day would empty the published file
    (not so with ``is_from_scratch``), and ``OtherLayout`` where another version wrote the dataset.
    A damaged file keeps nothing but its own day from being published.
    """
    return Publishing(store, settings, is_from_scratch=is_from_scratch).finish(changes)


class Publishing:
    """Loads days into the next published file while other days are still being written.

    ``finish`` or ``close`` ends it; until then it holds the lock, from the first ``load`` or
    ``begin`` on. Each call may come from another thread, but not while one runs.
    """

    def __init__(self, store: Store, settings: Settings, *, is_from_scratch: bool = False) -> None:
        self._store, self._settings, self._is_from_scratch = store, settings, is_from_scratch
        self._path = settings.warehouse_path.absolute()
        self._temporary = self._path.with_name(f".{self._path.name}.{uuid.uuid4().hex}")
        self._limits: dict[str, Any] = {
            "memory_limit": MEMORY_LIMIT,
            "temp_directory": f"{self._temporary}.spill",
            "threads": str(THREADS),
        }
        self._lock = ExitStack()
        self._beginning: Thread | None = None
        self._is_left_to_finish = False
        self._present: Published | None = None
        self._con: duckdb.DuckDBPyConnection | None = None
        self._next: Building | None = None
        self._damaged: set[date] = set()

    def load(self, day: date, change: Change | None) -> None:
        """Load a day's new file into the next database, or only the rows that changed in it.

        If another process holds the lock, or anything fails, this and all later calls do nothing:
        ``finish`` then loads everything, and raises what is wrong.
        """
        if not self._has_begun():
            return
        assert self._next is not None
        with self._leaving_to_finish():
            if change is not None and self._next.versions.get(day, "") == change.before:
                self._next.put(day, change.after, [change.rows], change.sessions)
            elif (footer := file.footer(self._store, day)) is not None:
                self._next.put(day, footer.version, self._rows(day, footer))

    def begin(self) -> None:
        """Make the first published file's views in a thread, while the service is asked.

        They take half a second, and each is made before the first day can be loaded.
        """
        if not self._path.exists():
            self._beginning = Thread(target=self._has_begun, name="usms-begin")
            self._beginning.start()

    def _has_begun(self) -> bool:
        """Return whether there is a next file to load days into; it is begun here."""
        self._wait()
        if self._next is None and not self._is_left_to_finish:
            with self._leaving_to_finish():
                if (present := self._opened()) is None:
                    self._is_left_to_finish = True
                    return False
                fields = self._fields(present.parts.values())
                self._next = self._begin(fields, present if present.is_like(fields) else None)
        return not self._is_left_to_finish

    def _wait(self) -> None:
        if self._beginning not in (None, current_thread()):
            self._beginning.join()
            self._beginning = None

    @contextmanager
    def _leaving_to_finish(self) -> Iterator[None]:
        """Let nothing but ``finish`` load any more if something fails: it raises what is wrong."""
        try:
            yield
        except (duckdb.Error, pa.ArrowException, OSError, StorageError):
            self._is_left_to_finish = True
            self._throw_away()

    def finish(self, changes: Iterable[Change] = ()) -> WarehouseReport:
        """Load what still differs from the days' files, and publish; see ``reconcile``."""
        started = time.monotonic()
        self._wait()
        try:
            with _translating_errors(self._path):
                if (present := self._opened()) is None:
                    return WarehouseReport(self._path, is_locked=True)
                report = self._reconciled(present, list(changes))
        finally:
            self.close()
        return replace(report, seconds=time.monotonic() - started)

    def is_current(self) -> bool:
        """Return whether ``finish`` would change nothing; takes no lock and writes nothing."""
        try:
            with _translating_errors(self._path):
                present = self._look()
                footers = self._footers(present)
                return self._compared(present, footers, self._parts(present, footers))[-1]
        finally:
            self._throw_away()

    def close(self) -> None:
        """Discard what was built and is not published; release the lock."""
        self._wait()
        self._throw_away()
        self._present = None
        self._lock.close()

    def _opened(self) -> Published | None:
        """Return what is published, with the lock held; None if another process holds it."""
        if self._present is None and self._lock.enter_context(
            self._store.lock("warehouse", self._path)
        ):
            make_folder(self._path.parent, private=False)
            _remove([_log(self._path)])
            left = f".{glob.escape(self._path.name)}.{'[0-9a-f]' * 32}*"
            _remove(self._path.parent.glob(left))
            self._present = self._look()
        return self._present

    def _look(self) -> Published:
        if self._is_from_scratch or not self._path.exists():
            return Published()
        with suppress(duckdb.Error):
            return building.look(self._connected(), self._path)
        self._throw_away()  # corrupt or held by a writer: build a new one
        check_place(self._path)
        return Published()

    def _connected(self) -> duckdb.DuckDBPyConnection:
        if self._con is None:
            self._con = duckdb.connect(":memory:", config=self._limits)
        return self._con

    def _throw_away(self) -> None:
        self._next = None
        if self._con is not None:
            self._con.close()
            self._con = None
        _remove(self._path.parent.glob(f"{glob.escape(self._temporary.name)}*"))

    # -- what to load -------------------------------------------------------------------------

    def _begin(self, fields: list[Field], copied: Published | None) -> Building:
        con = self._connected()
        if copied is not None:
            building.copy(self._path, self._temporary)
        con.execute(ddl.attach(self._temporary, f"STORAGE_VERSION '{ddl.STORAGE_VERSION}'"))
        versions = copied.versions if copied is not None else {}
        definitions = self._definitions(fields)
        return Building(con, fields, versions, definitions, is_copy=copied is not None)

    def _rows(self, day: date, footer: Footer) -> Iterator[pa.Table]:
        try:
            for batch in self._store.batches(file.name(day), building.BATCH_ROWS, _columns(footer)):
                yield pa.table(batch)
        except StorageError:
            self._damaged.add(day)
            raise

    def _definitions(self, fields: list[Field]) -> str:
        ours = self._settings
        return ddl.definitions(fields, ours.cutoff, ours.poll_offsets, ours.costs)

    def _fields(self, parts: Iterable[Part]) -> list[Field]:
        names = {name for part in parts for name in part.column_names}
        return ddl.columns(names, self._settings.dimensions)

    # -- publishing ---------------------------------------------------------------------------

    def _reconciled(self, present: Published, changes: list[Change]) -> WarehouseReport:
        """Publish; if a damaged day shows only when it is read, begin again without it.

        Raise ``StorageError`` for a dataset without any day: most likely it went away.
        """
        footers = self._footers(present)
        if present.parts and not footers and not present.parts.keys() & {*file.days(self._store)}:
            raise StorageError(
                f"The data directory {self._store.data_dir!r} has no receipts, but "
                f"{len(present.parts)} days are published in {str(self._path)!r}: was it removed, "
                "or its disk unmounted? Put it back and run again; if it was emptied on purpose, "
                "delete the published file first. Nothing was published."
            )
        while True:
            known = len(self._damaged)
            try:
                return self._published(present, footers, changes)
            except (duckdb.Error, StorageError):
                if len(self._damaged) > known:  # a day's file
                    footers = {day: footers[day] for day in footers if day not in self._damaged}
                elif present.may_be_copied:  # a block of the present file, perhaps
                    present = replace(present, may_be_copied=False)
                else:
                    raise
            self._throw_away()

    def _footers(self, present: Published) -> dict[date, Footer]:
        """Return the footers of the days' files.

        Files that can't be read are damaged, and so are days that are published and have no file.
        """
        days = file.days(self._store)
        self._damaged = present.parts.keys() - {*days}

        def read(day: date) -> Footer | None:
            try:
                return file.footer(self._store, day)
            except StorageError:
                self._damaged.add(day)
                return None

        if self._store.is_local:
            found = list(map(read, days))
        else:
            with ThreadPoolExecutor(_FOOTER_READERS) as pool:  # a round trip each
                found = list(pool.map(read, days))
        return {day: footer for day, footer in zip(days, found, strict=True) if footer is not None}

    def _published(
        self, present: Published, footers: Mapping[date, Footer], changes: list[Change]
    ) -> WarehouseReport:
        parts = self._parts(present, footers)
        fields, stale, is_idle = self._compared(present, footers, parts)
        if not is_idle:
            self._next = self._fitting(present, fields, parts, changes)
            versions = self._next.versions
            for day in versions.keys() - parts.keys():
                self._next.put(day, None, [])
            for change in _leading(changes, versions, parts):
                self._next.put(change.day, change.after, [change.rows], change.sessions)
            for day, footer in footers.items():
                if versions.get(day) != footer.version:
                    self._next.put(day, footer.version, self._rows(day, footer))
            kept = {day: parts[day] for day in parts.keys() - footers.keys()}
            self._next.keep(self._path, present.columns, kept)
            self._next.close(parts.values())
            # read-only, and for those alone whom the umask lets read
            self._temporary.chmod(self._temporary.stat().st_mode & _READ_ONLY)
            _remove([_log(self._path)])
            publish_file(self._temporary, self._path)
            _remove([_log(self._path)])  # who still holds the old file writes its log by name
        is_masked = self._settings.phones == "masked"
        return WarehouseReport(
            self._path,
            len(stale),
            sum(part.row_count for part in parts.values()),
            is_skipped=is_idle,
            clear_days=tuple(d for d in sorted(parts) if is_masked and parts[d].is_clear),
            damaged=tuple(sorted(self._damaged)),
        )

    def _parts(self, present: Published, footers: Mapping[date, Footer]) -> dict[date, Part]:
        kept = {day: present.parts[day] for day in self._damaged if day in present.parts}
        return {
            day: Part(day, one.version, one.rows, _columns(one), one.phones == "clear")
            for day, one in footers.items()
        } | kept

    def _compared(
        self, present: Published, footers: Mapping[date, Footer], parts: Mapping[date, Part]
    ) -> tuple[list[Field], list[date], bool]:
        known = present.versions
        stale = [day for day in footers if known.get(day) != footers[day].version]
        fields = self._fields(parts.values())
        digest = building.digest_of(self._definitions(fields))
        is_idle = self._next is None and not stale and present.digest == digest
        return fields, stale, is_idle

    def _fitting(
        self,
        present: Published,
        fields: list[Field],
        parts: Mapping[date, Part],
        changes: list[Change],
    ) -> Building:
        """Return the file in progress if it fits what is to be published, else a new one."""
        was_clear = {day for day, part in present.parts.items() if part.is_clear}
        is_clear = {day for day, part in parts.items() if part.is_clear}
        # Numbers that are masked now would be left in the free blocks of a copy.
        may_copy = present.is_like(fields) and was_clear <= is_clear
        if self._next is not None:
            if self._next.fields == fields and (may_copy or not self._next.is_copy):
                return self._next
            self._throw_away()
        known = present.versions
        told = {change.day for change in _leading(changes, known, parts)}
        whole = [day for day in parts if day not in told and known.get(day) != parts[day].version]
        # Past half of the days a copy costs more than building from scratch.
        return self._begin(fields, present if may_copy and 2 * len(whole) <= len(parts) else None)


def _leading(
    changes: Iterable[Change], versions: Mapping[date, str | None], parts: Mapping[date, Part]
) -> list[Change]:
    """Return the changes that lead from a day's version in ``versions`` to that in ``parts``."""
    reached, fitting = dict(versions), []
    for change in changes:
        # Of changes that another process has published already, the first ones do not fit.
        if reached.get(change.day, "") == change.before:
            reached[change.day] = change.after
            fitting.append(change)
    return [
        one for one in fitting if one.day in parts and reached[one.day] == parts[one.day].version
    ]


def _columns(footer: Footer) -> list[str]:
    """Return the columns of a day's file but the technical ones."""
    return [field.name for field in schema.receipts_fields(footer.dimensions)]


def _log(path: Path) -> Path:
    """Return the log that a client which wrote to the file leaves when it dies.

    DuckDB would replay it into the next file, which it was not made for, and nobody could open it.
    """
    return path.with_name(f"{path.name}.wal")


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def _translating_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise StorageError(
            f"Can't publish the warehouse {str(path)!r}: {ddl.first_line(error)} Check that its "
            "folder is writable and has room (USMS_WAREHOUSE); what was published before is "
            "unharmed."
        ) from error
