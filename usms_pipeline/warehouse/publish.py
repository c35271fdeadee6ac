"""Making the published file from the dataset, and only what changed of it.

A published file never changes: a new one is built beside it and takes its name, so readers keep
what they opened and block nobody. The SQL text is in ``ddl.py`` and ``sql/``, not here.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa

from usms_pipeline import dataset, schema, scratch

@dataclass(frozen=True)
class Change:
    """x"""
    day: date
    before: str
    after: str
    sessions: pa.Array
    rows: pa.Table

class Publishing:
    def __init__(self, store, settings): self.a=(store,settings)
    def load(self, day, change): pass
    def abandon(self): pass
    def finish(self, changes): return reconcile(*self.a)
from usms_pipeline.errors import StorageError
from usms_pipeline.settings import Settings
from usms_pipeline.storage import Store, make_folder, publish_file
from usms_pipeline.warehouse import ddl

MEMORY_LIMIT: Final = "192MB"
_PARTITION: Final = re.compile(r"receipts/sent_date=(\d{4}-\d\d-\d\d)/receipts\.parquet")
_METADATA_READERS: Final = 16
_BATCH_ROWS: Final = 32_768
_READ_ONLY: Final = 0o444
_COPIED_AT_ONCE: Final = 1 << 24
_MAX_BLOAT, _SMALL_ROWS, _SMALL_BLOCKS = 1.5, 100_000, 64
"""A file with more than half again of what it needs, past a small size, is built from scratch."""
_FEW: Final = 1_000
_MOST_SHARE: Final = 0.1
"""Where more than this share of a day changed, and not few, the whole day is loaded: by then
DuckDB rewrites what the deleted rows leave. Of a day of 200,000 (CPU s a publish, mean of 25):
1 % 0.29, 5 % 0.47, 10 % 0.70, 20 % 0.97; the whole day 0.67."""


@dataclass(frozen=True)
class WarehouseReport:
    """What publishing did. ``is_locked``: another process is publishing, so this one left it.

    ``clear_days`` show numbers whole, though ``phones`` is masked now.
    """

    path: Path
    partitions_changed: int = 0
    partitions_removed: int = 0
    rows: int = 0
    seconds: float = 0.0
    is_skipped: bool = True
    is_locked: bool = False
    clear_days: tuple[date, ...] = ()

    @property
    def warnings(self) -> list[str]:
        """Give what a person should look at, in sentences."""
        if not self.clear_days:
            return []
        return [
            f"{len(self.clear_days)} days still hold whole phone numbers, from when USMS_PHONES "
            f"was clear: {', '.join(map(str, self.clear_days[:5]))}"
            f"{' …' if len(self.clear_days) > 5 else ''}. `usms rebuild` masks them."
        ]


@dataclass(frozen=True)
class _Part:
    """One partition as the published file has it."""

    token: str
    rows: int
    columns: tuple[str, ...]
    is_clear: bool = False


@dataclass(frozen=True)
class _Published:
    """What the present file says of itself."""

    parts: Mapping[date, _Part]
    columns: tuple[str, ...]
    digest: str
    rows: int
    has_strays: bool
    """Rows of a day that the file does not say it has."""
    is_lean: bool
    """It has our format, and little in it that was deleted."""


@dataclass(frozen=True)
class _Plan:
    """What the next file is to hold, and what of it is published already.

    Of the stale days, those in ``changed`` differ in these sessions alone.
    """

    tokens: Mapping[date, str]
    clear: tuple[date, ...]
    stale: list[date]
    changed: Mapping[date, pa.Array]
    gone: list[date]
    fields: list[schema.Field]
    definitions: str
    present: _Published | None

    @property
    def digest(self) -> str:
        """Tells one set of views and macros from another."""
        return hashlib.sha256(self.definitions.encode()).hexdigest()

    @property
    def rows(self) -> int:
        """Rows published already."""
        return self.present.rows if self.present else 0

    @property
    def is_idle(self) -> bool:
        """Nothing to do: the present file is what would be published."""
        is_same = self.present is not None and self.present.digest == self.digest
        return is_same and not self.stale and not self.gone

    @property
    def may_copy(self) -> bool:
        """Changing a copy of the present file costs less than building from scratch."""
        whole = len(self.stale) - len(self.changed)
        return (
            self.present is not None
            and self.present.is_lean
            and not self.present.has_strays
            and self.present.columns == tuple(field.name for field in self.fields)
            and 2 * whole <= len(self.tokens)
            and not self._masks_some(self.present.parts)
        )

    def _masks_some(self, published: Mapping[date, _Part]) -> bool:
        """Tell whether numbers are to go that would be left in the free blocks of a copy."""
        replaced = {*self.stale, *self.gone} - set(self.clear)
        return any(published[day].is_clear for day in replaced if day in published)


def reconcile(
    store: Store,
    settings: Settings,
    memory_limit: str = MEMORY_LIMIT,
    *,
    changes: Iterable[Change] = (),
    is_anew: bool = False,
) -> WarehouseReport:
    """Publish the warehouse from the dataset, where anything differs from what is published.

    Only partitions that changed are read and rewritten; those that vanished are removed. Of a
    partition for which ``changes``, oldest first, lead from the version that is published to the
    present one, only the rows of the sessions they name. Without them, as after a kill, the whole
    day is loaded. With nothing changed nothing is published; ``is_anew`` builds from scratch, so
    that nothing erased is left in free blocks. Sorting spills beside the file over
    ``memory_limit``.

    Raises ``StorageError``, also where a dataset without any day would empty the published file
    (not so with ``is_anew``), and ``OtherLayout`` where another version wrote the dataset.
    """
    path, started = settings.warehouse_path.absolute(), time.monotonic()
    with store.lock("warehouse") as is_ours, _told(path):
        if not is_ours:
            return WarehouseReport(path, is_locked=True)
        make_folder(path.parent, private=False)
        _remove([_log(path)])
        if store.is_local:  # else the lock is not ours alone: another may be building just now
            _remove(path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 32}*"))
        present = None if is_anew else _published(path)
        plan = _plan(store, settings, present, list(changes))
        _check_dataset_is_there(store, path, plan)
        rows = plan.rows if plan.is_idle else _publish(store, path, plan, memory_limit)
    seconds = time.monotonic() - started
    return WarehouseReport(
        path,
        len(plan.stale),
        len(plan.gone),
        rows,
        seconds,
        is_skipped=plan.is_idle,
        clear_days=plan.clear if settings.phones == "masked" else (),
    )


def _plan(
    store: Store, settings: Settings, present: _Published | None, changes: list[Change]
) -> _Plan:
    """Compare the dataset with what is published."""
    committed = _committed(store)
    tokens = {day: said["token"] for day, said in committed.items()}
    parts = present.parts if present else {}
    stale = {day for day, token in tokens.items() if day not in parts or parts[day].token != token}
    kept = [parts[day] for day in tokens if day not in stale]
    in_files = {name for day in stale for name in store.schema(_file(day)).names}
    in_files.update(name for part in kept for name in part.columns)
    fields = ddl.columns(in_files, settings.dimensions)
    return _Plan(
        tokens=tokens,
        clear=tuple(sorted(d for d, said in committed.items() if said.get("phones") == "clear")),
        stale=sorted(stale),
        changed={
            day: sessions
            for day in stale & parts.keys()
            if (sessions := None) is not None
        },
        gone=sorted(set(parts) - set(tokens)),
        fields=fields,
        definitions=ddl.definitions(fields, settings.cutoff),
        present=present,
    )


def _changed(changes: list[Change], day: date, part: _Part, token: str) -> pa.Array | None:
    """Return the sessions in which the published rows of a day differ from the file.

    None where the changes do not lead from one to the other, and where loading all costs less.
    """
    reached, found = part.token, []
    for change in changes:
        # Of changes that another process has published already, the first ones do not fit.
        if (change.day, change.before) == (day, reached):
            reached = change.after
            found.append(change.sessions)
    if reached != token:
        return None
    sessions = pa.concat_arrays(found).unique()
    return sessions if len(sessions) <= max(_FEW, _MOST_SHARE * part.rows) else None


def _check_dataset_is_there(store: Store, path: Path, plan: _Plan) -> None:
    """Refuse to unpublish everything: a dataset without any day is likely one that went away."""
    if plan.gone and not plan.tokens:
        raise StorageError(
            f"The data directory {store.data_dir!r} has no receipts, but {len(plan.gone)} days are "
            f"published in {str(path)!r}: was it removed, or its disk unmounted? Put it back and "
            "run again; if it was emptied on purpose, delete the published file first. Nothing was "
            "published."
        )


def _committed(store: Store) -> dict[date, dict[str, str]]:
    """Give what each partition says of itself; its token changes whenever its rows do."""
    matches = [_PARTITION.fullmatch(name) for name in store.names("receipts")]
    days = [date.fromisoformat(match[1]) for match in matches if match]
    with ThreadPoolExecutor(_METADATA_READERS) as pool:  # round trips, on object storage
        found = list(pool.map(store.metadata, map(_file, days)))
    for day, one in zip(days, found, strict=True):
        import json
        one["token"]=json.loads(one["day"])["version"]
    # A file without a token can't be told from its successor: it always counts as changed.
    return {day: {"token": uuid.uuid4().hex} | one for day, one in zip(days, found, strict=True)}


def _published(path: Path) -> _Published | None:
    """Read what the present file says of itself; None where there is none that can be read."""
    if not path.exists():  # a first run need not open a DuckDB, 20 ms, to learn that
        return None
    with suppress(duckdb.Error), _reading(path) as con:
        return _self_description(con)
    return None  # missing, corrupt, foreign or held by a writer: build anew


@contextmanager
def _reading(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(":memory:") as con:
        con.execute(ddl.attach(path, "READ_ONLY"))
        con.execute("USE usms")
        yield con


def _self_description(con: duckdb.DuckDBPyConnection) -> _Published:
    # 5 ms a million rows: a day's rows stand together, so its date is stored once a row group
    counted = con.execute("SELECT sent_date, count(*) FROM receipts GROUP BY sent_date").fetchall()
    counts: dict[date, int] = dict(counted)
    said = con.execute(
        "SELECT sent_date, token, row_count, column_names, is_clear FROM usms_partitions"
    )
    parts = {
        # Where somebody wrote to the file behind our back, no token fits: it is read again.
        day: _Part(token if counts.get(day, 0) == rows else "", rows, tuple(names), is_clear)
        for day, token, rows, names, is_clear in said.fetchall()
    }
    digest = con.execute("SELECT digest FROM usms_definitions").fetchone()
    rows = sum(counts.values())
    return _Published(
        parts=parts,
        columns=tuple(row[0] for row in con.execute("DESCRIBE receipts").fetchall()),
        digest=digest[0] if digest else "",
        rows=rows,
        has_strays=not counts.keys() <= parts.keys(),
        is_lean=_is_lean(con, rows),
    )


def _is_lean(con: duckdb.DuckDBPyConnection, rows: int) -> bool:
    found = con.execute(
        "SELECT d.tags['storage_version'], t.estimated_size, s.total_blocks, s.free_blocks "
        "FROM duckdb_databases() AS d JOIN duckdb_tables() AS t USING (database_name) "
        "JOIN pragma_database_size() AS s USING (database_name) "
        "WHERE database_name = 'usms' AND t.table_name = 'receipts'"
    ).fetchone()
    if found is None:
        return False
    version, stored_rows, blocks, free_blocks = found
    return bool(
        str(version).startswith(ddl.STORAGE_VERSION)
        and stored_rows <= _MAX_BLOAT * rows + _SMALL_ROWS
        and blocks <= _MAX_BLOAT * (blocks - free_blocks) + _SMALL_BLOCKS
    )


def _publish(store: Store, path: Path, plan: _Plan, memory_limit: str) -> int:
    """Build the new file beside the present one and give it its name. Gives its rows."""
    with suppress(duckdb.Error):  # a damaged block shows only when it is read: then build anew
        if plan.may_copy:
            with _building(path, memory_limit, is_copy=True) as con:
                _delete(con, plan)
                return _fill(con, store, plan, plan.stale, plan.changed)
    with _building(path, memory_limit, is_copy=False) as con:
        con.execute(ddl.create_receipts(plan.fields) + ";" + ddl.BOOKKEEPING)
        return _fill(con, store, plan, sorted(plan.tokens), {})


def _delete(con: duckdb.DuckDBPyConnection, plan: _Plan) -> None:
    """Delete from a copy what the plan replaces or removes: whole days, or sessions of one."""
    replaced = [*plan.stale, *plan.gone]
    whole = [day for day in replaced if day not in plan.changed]
    for table, days in (("receipts", whole), ("usms_partitions", replaced)):
        listed = ", ".join(f"DATE '{day}'" for day in days) or "NULL"
        con.execute(f"DELETE FROM {table} WHERE sent_date IN ({listed})")
    for day, sessions in plan.changed.items():
        con.register("changed", pa.table({"session_no": sessions}))
        con.execute(
            # not IN: a NULL among the sessions stands for the rows without one
            f"DELETE FROM receipts WHERE sent_date = DATE '{day}' AND EXISTS "
            "(FROM changed WHERE changed.session_no IS NOT DISTINCT FROM receipts.session_no)"
        )
        con.unregister("changed")


def _fill(
    con: duckdb.DuckDBPyConnection,
    store: Store,
    plan: _Plan,
    days: list[date],
    changed: Mapping[date, pa.Array],
) -> int:
    """Write these partitions' rows, the bookkeeping, and the views and macros. Gives all rows.

    Of the days in ``changed`` only these sessions' rows. They come to stand at the end of the
    table: its order only makes it small and quick to read, and nobody is promised it.
    """
    for day in days:
        in_file = store.schema(_file(day))
        file = store.dataset([_file(day)], in_file)
        incoming = (
            store.select(_file(day), "session_no", changed[day])
            if day in changed
            else file.scanner(
                batch_size=_BATCH_ROWS, batch_readahead=2, fragment_readahead=1
            ).to_reader()
        )
        con.register("incoming", incoming)
        select = ddl.select_incoming(plan.fields, in_file.names, day)
        con.execute(f"INSERT INTO receipts {select}")
        con.unregister("incoming")
        # The file's count, not the table's: where they differ the next run loads the whole day.
        row_count = file.count_rows()
        said = [day, plan.tokens[day], row_count, in_file.names, day in plan.clear]
        con.execute("INSERT INTO usms_partitions VALUES (?, ?, ?, ?, ?)", said)
    made_by = con.execute("SELECT digest FROM usms_definitions").fetchone()
    if made_by != (plan.digest,):
        if made_by is not None:  # a new file has none, and to look for them takes 40 ms
            _drop_definitions(con)
        con.execute(plan.definitions)
        con.execute("DELETE FROM usms_definitions")
        con.execute("INSERT INTO usms_definitions VALUES (?)", [plan.digest])
    total = con.execute("SELECT coalesce(sum(row_count), 0)::BIGINT FROM usms_partitions")
    return int((total.fetchone() or (0,))[0])


def _drop_definitions(con: duckdb.DuckDBPyConnection) -> None:
    """Drop the views and macros that another version made: it may have had others."""
    scratch.drop(
        con,
        """
        SELECT 'VIEW', view_name FROM duckdb_views() WHERE database_name = 'usms' AND NOT internal
        UNION
        SELECT CASE function_type WHEN 'macro' THEN 'MACRO' ELSE 'MACRO TABLE' END, function_name
        FROM duckdb_functions()
        WHERE database_name = 'usms' AND function_type IN ('macro', 'table_macro') AND NOT internal
        """,
    )


def _copy(before: Path, after: Path) -> None:
    """Copy a file; at once where the file system lets two share their blocks (XFS, Btrfs)."""
    with before.open("rb") as source, after.open("wb") as target:
        with suppress(OSError, AttributeError):  # not on every system, nor on every file system
            while os.copy_file_range(source.fileno(), target.fileno(), _COPIED_AT_ONCE):
                pass
            if target.seek(0, os.SEEK_END) == os.fstat(source.fileno()).st_size:
                return
        source.seek(0)
        target.truncate(0)
        target.seek(0)
        shutil.copyfileobj(source, target, _COPIED_AT_ONCE)


@contextmanager
def _building(path: Path, memory_limit: str, is_copy: bool) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection to a hidden file; it becomes ``path`` at the end, unless that raises."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        if is_copy:
            _copy(path, temporary)
        limits = scratch.limits(memory_limit, f"{temporary}.spill")
        with duckdb.connect(":memory:", config=limits) as con:
            con.execute(ddl.attach(temporary, f"STORAGE_VERSION '{ddl.STORAGE_VERSION}'"))
            con.execute("USE usms; BEGIN")
            yield con
            con.execute("COMMIT; CHECKPOINT usms; USE memory; DETACH usms")
        # read-only, and for those alone whom the umask lets read
        temporary.chmod(temporary.stat().st_mode & _READ_ONLY)
        _remove([_log(path)])
        publish_file(temporary, path)
        _remove([_log(path)])  # a client that still holds the old file writes its log by name
    finally:
        _remove(path.parent.glob(f"{glob.escape(temporary.name)}*"))


def _log(path: Path) -> Path:
    """Give the log that a client which wrote to the file leaves when it dies.

    DuckDB would replay it into the next file, which it was not made for, and nobody could open it.
    """
    return path.with_name(f"{path.name}.wal")


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _file(day: date) -> str:
    return f"receipts/sent_date={day.isoformat()}/receipts.parquet"


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise StorageError(
            f"Can't publish the warehouse {str(path)!r}: {ddl.first_line(error)} Check that its "
            "folder is writable and has room (USMS_WAREHOUSE); what was published is unharmed."
        ) from error
