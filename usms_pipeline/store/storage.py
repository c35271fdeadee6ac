"""The data directory: reading, listing and the one way files become durable. Local or S3.

A file appears whole or not at all. Nothing here knows what the files mean.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import random
import stat
import struct
import tempfile
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from functools import wraps
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from usms_pipeline.contract.errors import Changed, StorageError

if TYPE_CHECKING:
    from usms_pipeline.store.objects import Objects

_ROW_GROUP = 65_536
_WORD, _GUARD = b"USMC", struct.Struct("<4sII")
_TAIL, _WHOLE = 65_536, 8 << 20
_PRIVATE_DIR, _PRIVATE_FILE = 0o700, 0o600
_CHECKSUM = "crc32"
_S3 = "s3://"
_TRIES, _PAUSE_SECONDS = 10, 0.05
_LEFT_SECONDS = 86_400
P = ParamSpec("P")
T = TypeVar("T")

ANY: Final = "*"
"""In place of a tag: any file is replaced, or none."""
DAMAGED = ".damaged-"
"""Part of the name of a file that was set aside, before a unique suffix."""


class Store:
    """The data directory. Names are relative, with ``/``: ``receipts/sent_date=…/x.parquet``.

    ``s3://bucket/folder`` goes to AWS S3, or to the service that ``AWS_ENDPOINT_URL`` names; the
    credentials and the region are the AWS client's own (``AWS_ACCESS_KEY_ID``, ``AWS_REGION`` …).

    Every method raises ``StorageError``, with the name and the reason, where it can't.
    """

    def __init__(self, data_dir: str) -> None:
        self.data_dir = data_dir
        self.is_local = not data_dir.startswith(_S3)
        self._root = str(Path(data_dir).absolute()) if self.is_local else data_dir
        self._objects: Objects | None = None
        if not self.is_local:
            from usms_pipeline.store.objects import Objects

            with self._told("", "open"):
                self._objects = Objects(data_dir.removeprefix(_S3))

    def path(self, name: str) -> str:
        """Return the full path of a name, as a person would write it."""
        return f"{self._root}/{name}" if name else self._root

    def names(self, folder: str, suffix: str = ".parquet") -> list[str]:
        """List the finished files below a folder, sorted; temporary ones are not listed."""
        with self._told(folder, "list"):
            found = self._objects.names(folder) if self._objects else self._local_names(folder)
            return sorted(
                name
                for name in found
                if name.endswith(suffix) and not PurePosixPath(name).name.startswith(".")
            )

    def _local_names(self, folder: str) -> Iterator[str]:
        """List files while others make and remove files and folders."""
        for place, _, files in os.walk(self.path(folder), onerror=_unless_gone, followlinks=True):
            for file in files:
                yield f"{place}/{file}".removeprefix(f"{self._root}/")

    def exists(self, name: str) -> bool:
        """Return whether a finished file has this name."""
        return bool(self.tag(name))

    def tag(self, name: str) -> str:
        """Return what tells one content of a file from another; ``""`` where there is no file.

        A local file's is always the same: there, a lock keeps others from replacing it.
        """
        with self._told(name, "look for"):
            if self._objects is not None:
                return self._objects.look(name)[0]
            return ANY if Path(self.path(name)).is_file() else ""

    def written_at(self, name: str) -> datetime | None:
        """Return when a finished file got its name; None where there is none."""
        with self._told(name, "look for"), suppress(FileNotFoundError):
            if self._objects is not None:
                return self._objects.look(name)[1]
            return datetime.fromtimestamp(Path(self.path(name)).stat().st_mtime, UTC)
        return None

    def metadata(self, name: str) -> dict[str, str]:
        """Return a Parquet file's key-value metadata, ours only; empty when there is no file."""
        return self.tagged_metadata(name)[0]

    def tagged_metadata(self, name: str) -> tuple[dict[str, str], str]:
        """Return a Parquet file's metadata, with the tag of the file that has it."""
        raw: dict[bytes, bytes] = {}
        tag = ""
        # not `exists` first: that is a round trip more on object storage
        with self._told(name, "read"), suppress(FileNotFoundError):
            if self._objects is not None:
                size, length = 0, _TAIL
                while length > size:  # again, if a longer one replaced it meanwhile
                    size = length
                    end, tag = self._objects.end(name, size)
                    length = int.from_bytes(end[-8:-4], "little") + 8 + _GUARD.size
                raw = _footer(pa.BufferReader(end))[0].metadata or {}
            else:
                with self._opened(name) as source:
                    raw, tag = _footer(source)[0].metadata or {}, ANY
        return {
            key.decode().removeprefix("usms."): value.decode()
            for key, value in raw.items()
            if key.startswith(b"usms.")
        }, tag

    def _opened(self, name: str) -> AbstractContextManager[pa.NativeFile]:
        return self._objects.opened(name) if self._objects else pa.OSFile(self.path(name))

    def read(self, name: str) -> pa.Table:
        """Read one whole file; for small ones."""
        with self._told(name, "read"), self._opened(name) as source:
            return self._open(source).read()

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a small JSON object; empty when there is no such file.

        Raises ``StorageError`` where it is not what ``write_json`` wrote. One without a checksum is
        somebody's own, and taken as it is.
        """
        body = b"{}"
        with (
            self._told(name, "read"),
            suppress(FileNotFoundError),
            self._opened(name) as source,
        ):
            body = source.read()
        with suppress(ValueError):
            found = json.loads(body)
            if isinstance(found, dict) and found.pop(_CHECKSUM, None) in (None, _crc(found)):
                return found
        raise StorageError(
            f"{name!r} in the data directory {self.data_dir!r} is damaged: it is not the JSON "
            "object that was written. Restore it from a backup, or remove it."
        )

    def recall(self, name: str) -> dict[str, Any]:
        """Read a small JSON object that only saves work; a damaged one counts as missing."""
        with suppress(StorageError):
            return self.read_json(name)
        return {}

    def write_json(
        self, name: str, content: dict[str, Any], mode: int = 0o666, over: str = ANY
    ) -> None:
        """Write a small JSON object with its checksum, and with this mode less the umask's."""
        with self.replacing(name, over=over) as path:
            path.touch(mode)
            path.write_text(json.dumps(content | {_CHECKSUM: _crc(content)}))

    def batches(
        self, name: str, rows: int = 65_536, columns: list[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Stream one file, at most ``rows`` at a time; all its columns, or some."""
        with self._told(name, "read"), self._opened(name) as source:
            # in one thread: what becomes of the rows, or their writing, has the other cores
            file = self._open(source)
            batches = file.iter_batches(rows, columns=columns, use_threads=False)
            ahead = batches if file.num_row_groups == 1 else _read_ahead(batches)
            yield from _complete(ahead, file.metadata.num_rows)

    def write(
        self,
        name: str,
        rows: pa.Table | pa.RecordBatchReader,
        metadata: Mapping[str, str] | Callable[[], Mapping[str, str]] | None = None,
        private: bool = False,
        over: str = ANY,
    ) -> None:
        """Write a Parquet file (zstd), whole and durable before it has its name.

        ``metadata`` goes into the file beside what the schema has, each key after ``usms.``; a
        function is called once all rows are written, for what only they tell. ``private`` files
        are 0600 in folders of 0700, and up to 8 MiB one checksum is over all of the file. For
        ``over`` see ``replacing``.
        """
        theirs = rows.schema.metadata or {}
        kept = {key: value for key, value in theirs.items() if not key.startswith(b"usms.")}
        schema = rows.schema.with_metadata(kept)
        low_cardinality = [
            field.name for field in schema if pa.types.is_string(field.type)
            and field.name not in ("session_no", "recipient", "number", "phone", "id")
        ]  # fmt: skip
        # of other texts each row group has the whole range: its bounds spare a reader nothing
        bounded = [
            field.name for field in schema if field.name == "session_no"
            or not (pa.types.is_string(field.type) or pa.types.is_binary(field.type))
        ]  # fmt: skip
        with self.replacing(name, private, over) as temporary:
            has_bodies = any(pa.types.is_binary(field.type) for field in schema)
            writer = pq.ParquetWriter(
                temporary,
                schema,
                use_dictionary=low_cardinality,
                write_statistics=bounded,
                # a page is closed after this many values at the earliest, and read as one piece
                write_batch_size=4 if has_bodies else None,
                write_page_checksum=True,  # 0.02 µs a row, of 0.8
                compression="zstd",
                compression_level=1,
            )
            with writer:
                batches = rows.to_batches() if isinstance(rows, pa.Table) else rows
                same = (b if b.schema.equals(schema) else b.cast(schema) for b in batches)
                _write_behind(writer, _row_groups(same))
                ours = metadata() if callable(metadata) else metadata or {}
                writer.add_key_value_metadata({f"usms.{key}": ours[key] for key in ours})
            _guard(temporary, is_whole=private)

    @contextmanager
    def replacing(self, name: str, private: bool = False, over: str = ANY) -> Iterator[Path]:
        """Yield a local temporary path; what is written there becomes ``name`` at the end.

        An exception leaves ``name`` as it was and removes the temporary file. On object storage,
        where no lock keeps others away, ``over`` is the tag of the file that alone may be replaced
        (``""``: there may be none), and ``Changed`` is raised where there is another.
        """
        with self._told(name, "write"):
            if self._objects is None:
                with self._beside(Path(self.path(name)), private) as temporary:
                    yield temporary
            else:
                with nameless_file() as temporary:
                    yield temporary
                    self._objects.put(name, temporary, over)

    @contextmanager
    def _beside(self, final: Path, private: bool) -> Iterator[Path]:
        """Yield a hidden file beside ``final``, which gets its name at the end."""
        make_folder(final.parent, private)
        if final.parent == Path(self._root):
            _sweep_old(final)
        temporary = final.parent / f".{final.name}.{uuid.uuid4().hex}"
        try:
            if private:
                # only its owner can read it, from the first byte on
                os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _PRIVATE_FILE))
            yield temporary
            publish_file(temporary, final)
        finally:
            temporary.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        """Delete one file; no error when it is gone already."""
        with self._told(name, "delete"), suppress(FileNotFoundError):
            if self._objects is not None:
                self._objects.delete(name)
            else:
                Path(self.path(name)).unlink()

    def prove(self) -> bool:
        """Write, read and delete a file; return whether another's is never replaced unseen."""
        name = ".check" if self.is_local else f".check-{uuid.uuid4().hex}"
        try:
            self.write_json(name, {"n": 1})
            first = self.tag(name)
            if self.recall(name) != {"n": 1}:
                raise StorageError(
                    f"{self.data_dir!r} gives back another object than was put there. If "
                    "AWS_CHECKSUM_ALGORITHM is set, unset it."
                )
            self.write_json(name, {"n": 2})
            for over in ("", first):
                with suppress(Changed):
                    self.write_json(name, {"n": 3}, over=over)
                    return self.is_local
            return True
        finally:
            self.delete(name)

    def set_aside(self, name: str) -> str:
        """Rename a damaged file so that nothing reads it, and return the new name."""
        aside = f"{name}{DAMAGED}{uuid.uuid4().hex[:8]}"
        with self._told(name, "set aside"):
            if self._objects is None:
                place = Path(self.path(name)).rename(self.path(aside))
                _sync_folder(place.parent)
            else:
                self._objects.rename(name, aside)
        return aside

    def remove_folder(self, name: str) -> None:
        """Remove a folder that is empty; no error where it is gone or has something again."""
        if self.is_local:
            with suppress(OSError):
                Path(self.path(name)).rmdir()

    def keep_json(
        self, name: str, content: dict[str, Any], private: bool = False, over: str = ANY
    ) -> None:
        """Write a small JSON file in the data directory, unless another process is writing it.

        A ``private`` one is 0600. For ``over`` see ``replacing``.
        """
        with self.lock(name.removesuffix(".json")) as held:
            if held:
                self.sweep("", name)
                self.write_json(name, content, _PRIVATE_FILE if private else 0o666, over)

    def sweep_json(self) -> None:
        """Delete the temporary JSON files of killed processes, but none that is being written."""
        if self.is_local:
            for left in Path(self._root).glob(f".*.json.{'[0-9a-f]' * 32}"):
                name = left.stem.removeprefix(".")
                with self.lock(name.removesuffix(".json")) as held:
                    if held:
                        self.sweep("", name)

    def sweep(self, folder: str, of: str = "*.parquet") -> None:
        """Delete the temporary files that killed processes left. The caller alone may write there.

        ``of`` are the files that they were to become.
        """
        if self.is_local and (place := Path(self.path(folder))).is_dir():
            with self._told(folder, "delete in"):
                for left in place.glob(f".{of}.*"):
                    left.unlink(missing_ok=True)

    @contextmanager
    def lock(self, name: str, beside: Path | None = None) -> Iterator[bool]:
        """Hold a named lock; yield False at once if another process holds it.

        The lock ends with its process. Object storage has none, and it is always granted there:
        ``replacing`` says which object it replaces. Give the path of a local file to have its lock
        ``beside`` it all the same.
        """
        path = Path(self.path(f".locks/{name}.lock"))
        if not self.is_local:
            if beside is None:
                yield True
                return
            path = beside.with_name(f".{beside.name}.lock")
        with self._told(name, "lock"):
            make_folder(path.parent, private=False)
            # Not the lock of a thread: one thread may take it and another let it go.
            lock = FileLock(path, thread_local=False)
            with suppress(Timeout):
                lock.acquire(blocking=False)
        try:
            yield lock.is_locked
        finally:
            lock.release()

    def locks(self, folder: str) -> list[str]:
        """List the names of the locks below a folder that have a file, held or not."""
        place = Path(self.path(f".locks/{folder}"))
        if not self.is_local or not place.is_dir():
            return []
        return sorted(f"{folder}/{one.name.removesuffix('.lock')}" for one in place.iterdir())

    def drop_lock(self, name: str) -> None:
        """Remove the file of a lock that is held, and that nobody needs any more."""
        if self.is_local:
            Path(self.path(f".locks/{name}.lock")).unlink(missing_ok=True)

    def _open(self, source: pa.NativeFile) -> pq.ParquetFile:
        footer, of_data, end = _footer(source)
        if of_data:
            source.seek(0)
            whole = source.read_buffer()
            if zlib.crc32(memoryview(whole)[:end]) != of_data:
                raise OSError("it is not as it was written")
            source = pa.BufferReader(whole)
        return pq.ParquetFile(
            source,
            metadata=footer,
            page_checksum_verification=True,
        )

    @contextmanager
    def _told(self, name: str, verb: str) -> Iterator[None]:
        try:
            yield
        # a damaged footer may have names that are no text
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            if self.is_local and Path(self.data_dir).is_file():
                raise StorageError(
                    f"Can't {verb} {name or '.'!r} in {self.data_dir!r}: that is a file. Set "
                    f"USMS_DATA_DIR to a folder; it is made if there is none."
                ) from error
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise StorageError(
                f"Can't {verb} {name or self.data_dir!r} in the data directory "
                f"{self.data_dir!r}: {reason}. {self._advice(verb, error)}"
            ) from error

    def _advice(self, verb: str, error: Exception) -> str:
        if verb == "read" and getattr(error, "errno", None) is None:
            return "It is damaged: restore it from a backup, or remove it."
        if self.is_local:
            return "Check that it exists, is writable and has room (USMS_DATA_DIR)."
        if "implement" in str(error):
            return "Set AWS_CONDITIONAL_PUT=disabled, and run one at a time (Dagster: a pool of 1)."
        return (
            "Check the bucket (USMS_DATA_DIR), the credentials (AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY, AWS_PROFILE), AWS_REGION and, outside AWS, AWS_ENDPOINT_URL."
        )


def undisturbed(act: Callable[P, T]) -> Callable[P, T]:
    """Make a function that reads and writes do so again where another process wrote between."""

    @wraps(act)
    def acts(*args: P.args, **more: P.kwargs) -> T:
        for turn in range(1, _TRIES):
            with suppress(Changed):
                return act(*args, **more)
            time.sleep(random.uniform(0, _PAUSE_SECONDS * 2**turn))
        return act(*args, **more)

    return acts


@contextmanager
def nameless_file() -> Iterator[Path]:
    """Yield the path of a temporary file without a name, which is gone with its process."""
    with tempfile.TemporaryFile() as file:
        yield Path(f"/dev/fd/{file.fileno()}")


def _crc(content: object) -> int:
    return zlib.crc32(json.dumps(content).encode())


def _sweep_old(final: Path) -> None:
    """Delete what killed processes left of a file that anybody may write at any time.

    By age, because another process may be writing it just now: none takes a day.
    """
    for left in final.parent.glob(f".{glob.escape(final.name)}.{'[0-9a-f]' * 32}"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _LEFT_SECONDS:
                left.unlink()


def _read_ahead(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Read one batch while the one before it is worked on."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, batches, None)
            yield batch


def _write_behind(writer: pq.ParquetWriter, groups: Iterator[pa.Table]) -> None:
    """Write each group while the next one is made."""
    writing: Future[None] | None = None
    with ThreadPoolExecutor(1) as pool:  # whose thread begins with the first group
        for group in groups:
            if writing is not None:
                writing.result()
                writing = None
            if group.num_rows < _ROW_GROUP:
                writer.write_table(group)  # the last one, and of a small file the only one
            else:
                writing = pool.submit(writer.write_table, group)
        if writing is not None:
            writing.result()


def _row_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Put batches of any size together into row groups that readers can skip or share."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        for start in range(0, batch.num_rows, _ROW_GROUP):
            piece = batch.slice(start, _ROW_GROUP)
            waiting.append(piece)
            rows += piece.num_rows
            if rows >= _ROW_GROUP:
                yield pa.Table.from_batches(waiting)
                waiting, rows = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting)


# A page's checksum is not enough: neither the footer nor the head of a page has one, and Arrow
# skips a page of whose head one bit was flipped, so that rows get values of others. So before the
# footer, where no reader looks, stand twelve bytes: a word, the checksum of all before it (0: not
# made), and that of the footer.


def _guard(path: Path, *, is_whole: bool) -> None:
    """Write the guard into a finished Parquet file; ``is_whole``: with a checksum of all of it."""
    with path.open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        length = int.from_bytes(file.read(4), "little") + 8
        end = file.seek(-length, os.SEEK_END)
        footer = file.read()
        file.seek(0)
        of_data = zlib.crc32(file.read(end)) if is_whole and end <= _WHOLE else 0
        file.seek(end)
        file.write(_GUARD.pack(_WORD, of_data, zlib.crc32(footer)) + footer)


def _footer(source: pa.NativeFile) -> tuple[pq.FileMetaData, int, int]:
    """Return a Parquet file's footer, the checksum of its first bytes (0: none), and their number.

    Raise ``OSError`` where the footer is not as it was written. A file without a guard is another
    program's, and taken as it is.
    """
    size = source.size()
    tail = source.read_at(min(size, _TAIL), max(0, size - _TAIL))
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if len(tail) < (needed := length + _GUARD.size) <= size:
        tail = source.read_at(needed, size - needed)
    guard, footer, of_data = tail[-length - _GUARD.size : -length], tail[-length:], 0
    if guard.startswith(_WORD):
        _, of_data, of_footer = _GUARD.unpack(guard)
        if zlib.crc32(footer) != of_footer:
            raise OSError("its footer is not as it was written")
    return pq.read_metadata(pa.BufferReader(footer)), of_data, size - needed


def _complete(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Yield batches. Raise ``OSError`` in the end where they are not ``rows`` rows."""
    for batch in batches:
        rows -= batch.num_rows
        yield batch
    if rows:
        raise OSError("it has pages that can't be read")


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def make_folder(folder: Path, private: bool) -> None:
    """Make a folder and its parents, durably.

    A private one, and the zone it is in, are the owner's alone. Raises ``PermissionError`` where
    somebody else made it beforehand.
    """
    private_ones = (folder.parent, folder) if private else ()
    missing = takewhile(lambda one: not one.is_dir(), (folder, *folder.parents))
    for one in reversed(list(missing)):
        one.mkdir(exist_ok=True, mode=_PRIVATE_DIR if one in private_ones else 0o777)
        _sync_folder(one.parent)
    for one in private_ones:
        _keep_private(one)


def _keep_private(place: Path) -> None:
    """Make a folder private; refuse one of another account."""
    if place.is_symlink() and place.lstat().st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, f"{place} is a link that another account made")
    found = place.stat()
    if found.st_uid != os.geteuid():
        reason = f"{place} belongs to another account: chown it, or run as that account"
        raise PermissionError(errno.EPERM, reason)
    if stat.S_IMODE(found.st_mode) & 0o077:
        place.chmod(_PRIVATE_DIR)


def publish_file(temporary: Path, final: Path, *, replaces: bool = True) -> None:
    """Rename a finished file, durably: only from then on does it count.

    Without ``replaces``, raises ``FileExistsError`` where the name is taken, and ``temporary``
    stays in any case.
    """
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    if replaces:
        temporary.replace(final)
    else:
        os.link(temporary, final)
    _sync_folder(final.parent)


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: a file that is on disk without its name is lost."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
