"""The data directory: reading, listing and the one way files become durable. Local or S3.

A file appears whole or not at all. Nothing here knows what the files mean.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import stat
import struct
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from usms_pipeline.contract.errors import StorageError
from usms_pipeline.store.temp_folders import temp_folder

_ROW_GROUP = 65_536
_WORD, _GUARD = b"USMC", struct.Struct("<4sII")
_TAIL, _WHOLE = 65_536, 8 << 20
_PRIVATE_DIR, _PRIVATE_FILE = 0o700, 0o600
_CHECKSUM = "crc32"
_S3 = "s3://"
_ONE_REQUEST = 8 << 20  # pyarrow sends up to ten MiB in one request, and more in parts
_LEFT_SECONDS = 86_400
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
        self.fs: pafs.FileSystem
        if self.is_local:
            self.fs, self._root = pafs.LocalFileSystem(), str(Path(data_dir).absolute())
            return
        self._root = data_dir.removeprefix(_S3)
        with self._told("", "open"):
            # the bucket alone: what stands after it is a key as it is, not part of a URL
            bucket = self._root.partition("/")[0]
            # without this, even a small object would be put in parts: three requests
            self.fs, _ = pafs.FileSystem.from_uri(f"{_S3}{bucket}?allow_delayed_open=true")

    def path(self, name: str) -> str:
        """Return the full path of a name, as ``fs`` wants it."""
        return f"{self._root}/{name}" if name else self._root

    def shown(self, name: str) -> str:
        """Return the full path of a name, as a person would write it."""
        return self.path(name) if self.is_local else f"{self.data_dir}/{name}"

    def names(self, folder: str, suffix: str = ".parquet") -> list[str]:
        """List the finished files below a folder, sorted; temporary ones are not listed."""
        with self._told(folder, "list"):
            found = self._local_names(folder) if self.is_local else self._remote_names(folder)
            return sorted(
                name
                for name in found
                if name.endswith(suffix) and not PurePosixPath(name).name.startswith(".")
            )

    def folders(self, folder: str) -> list[str]:
        """List the folders right below one, by name, sorted; on object storage there are none."""
        place = Path(self.path(folder))
        with self._told(folder, "list"):
            if not self.is_local or not place.is_dir():
                return []
            return sorted(one.name for one in place.iterdir() if one.is_dir())

    def _local_names(self, folder: str) -> Iterator[str]:
        """List files while others make and remove files and folders."""
        for place, _, files in os.walk(self.path(folder), onerror=_unless_gone, followlinks=True):
            for file in files:
                yield f"{place}/{file}".removeprefix(f"{self._root}/")

    def _remote_names(self, folder: str) -> Iterator[str]:
        selector = pafs.FileSelector(self.path(folder), allow_not_found=True, recursive=True)
        for info in self.fs.get_file_info(selector):
            if info.type == pafs.FileType.File:
                yield info.path.removeprefix(f"{self._root}/")

    def exists(self, name: str) -> bool:
        """Return whether a finished file has this name."""
        with self._told(name, "look for"):
            return bool(self.fs.get_file_info(self.path(name)).type == pafs.FileType.File)

    def metadata(self, name: str) -> dict[str, str]:
        """Return a Parquet file's key-value metadata, ours only; empty when there is no file."""
        raw: dict[bytes, bytes] = {}
        # not `exists` first: that is a round trip more on object storage
        with (
            self._told(name, "read"),
            suppress(FileNotFoundError),
            self.fs.open_input_file(self.path(name)) as source,
        ):
            raw = _footer(source)[0].metadata or {}
        return {
            key.decode().removeprefix("usms."): value.decode()
            for key, value in raw.items()
            if key.startswith(b"usms.")
        }

    def written_at(self, name: str) -> datetime | None:
        """Return when a finished file got its name; None where there is none."""
        with self._told(name, "look for"):
            found: datetime | None = self.fs.get_file_info(self.path(name)).mtime
        return found

    def read(self, name: str) -> pa.Table:
        """Read one whole file; for small ones."""
        with self._told(name, "read"), self.fs.open_input_file(self.path(name)) as source:
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
            self.fs.open_input_file(self.path(name)) as source,
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
        """Read a small JSON object that only spares work: a damaged one is as good as none."""
        with suppress(StorageError):
            return self.read_json(name)
        return {}

    def write_json(self, name: str, content: dict[str, Any], mode: int = 0o666) -> None:
        """Write a small JSON object with its checksum, and with this mode less the umask's."""
        with self.replacing(name) as path:
            path.touch(mode)
            path.write_text(json.dumps(content | {_CHECKSUM: _crc(content)}))

    def batches(
        self, name: str, rows: int = 65_536, columns: list[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Stream one file, at most ``rows`` at a time; all its columns, or some."""
        with self._told(name, "read"), self.fs.open_input_file(self.path(name)) as source:
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
    ) -> None:
        """Write a Parquet file (zstd), whole and durable before it has its name.

        ``metadata`` goes into the file beside what the schema has, each key after ``usms.``; a
        function is called once all rows are written, for what only they tell. ``private`` files
        are 0600 in folders of 0700, and up to 8 MiB one checksum is over all of the file.
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
        with self.replacing(name, private) as temporary:
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
    def replacing(self, name: str, private: bool = False) -> Iterator[Path]:
        """Yield a local temporary path; what is written there becomes ``name`` at the end.

        An exception leaves ``name`` as it was and removes the temporary file.
        """
        with self._told(name, "write"):
            if self.is_local:
                with self._beside(Path(self.path(name)), private) as temporary:
                    yield temporary
            else:
                with temp_folder() as folder:
                    temporary = _made_private(folder / "upload")
                    yield temporary
                    self._upload(temporary, name)

    @contextmanager
    def _beside(self, final: Path, private: bool) -> Iterator[Path]:
        """Yield a hidden file beside ``final``, which gets its name at the end."""
        make_folder(final.parent, private)
        if final.parent == Path(self._root):
            _sweep_old(final)
        temporary = final.parent / f".{final.name}.{uuid.uuid4().hex}"
        try:
            if private:
                _made_private(temporary)
            yield temporary
            publish_file(temporary, final)
        finally:
            temporary.unlink(missing_ok=True)

    def _upload(self, local: Path, name: str) -> None:
        """Upload a finished file; an interruption never leaves a part of it, or an empty object.

        pyarrow can't abort: a stream that is closed or dropped, by any exception, puts what
        it was given so far. So a large file goes under a hidden name, which is then copied.
        """
        if local.stat().st_size <= _ONE_REQUEST:
            # in a thread, as only the main one is interrupted between opening and writing
            with ThreadPoolExecutor(1) as pool:
                pool.submit(self._put, local.read_bytes(), name).result()
            return
        file = PurePosixPath(name)
        hidden = str(file.with_name(f".{file.name}.{uuid.uuid4().hex}"))
        try:
            with pa.memory_map(str(local)) as body:
                self._put(body.read_buffer(), hidden)
            self.fs.copy_file(self.path(hidden), self.path(name))
        finally:
            with suppress(StorageError):  # what went wrong before is what is told
                self.delete(hidden)

    def _put(self, body: bytes | pa.Buffer, name: str) -> None:
        with self.fs.open_output_stream(self.path(name)) as out:
            out.write(body)

    def delete(self, name: str) -> None:
        """Delete one file; no error when it is gone already."""
        with self._told(name, "delete"), suppress(FileNotFoundError):
            self.fs.delete_file(self.path(name))

    def set_aside(self, name: str) -> str:
        """Rename a damaged file so that nothing reads it, and return the new name."""
        aside = f"{name}{DAMAGED}{uuid.uuid4().hex[:8]}"
        with self._told(name, "set aside"):
            if self.is_local:
                place = Path(self.path(name)).rename(self.path(aside))
                _sync_folder(place.parent)
            else:
                self.fs.copy_file(self.path(name), self.path(aside))
                self.fs.delete_file(self.path(name))
        return aside

    def remove_folder(self, name: str) -> None:
        """Remove a folder that is empty; no error where it is gone or has something again."""
        if self.is_local:
            with suppress(OSError):
                Path(self.path(name)).rmdir()

    def keep_json(self, name: str, content: dict[str, Any], private: bool = False) -> None:
        """Write a small file right in the data directory, unless another process is about to.

        A ``private`` one is 0600.
        """
        with self.lock(name.removesuffix(".json")) as held:
            if held:
                self.sweep("", name)
                self.write_json(name, content, _PRIVATE_FILE if private else 0o666)

    def sweep_json(self) -> None:
        """Delete what killed processes left of the small files, but those being written now."""
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
    def lock(self, name: str) -> Iterator[bool]:
        """Hold a named lock; yields False at once when another process holds it.

        The lock dies with its process. On object storage it is always granted: there the
        orchestrator's pool sees to one writer a partition.
        """
        if not self.is_local:
            yield True
            return
        with self._told(name, "lock"):
            path = Path(self.path(f".locks/{name}.lock"))
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
            pre_buffer=not self.is_local,
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
        is_outside = getattr(error, "errno", None) is not None or "AWS Error" in str(error)
        if verb == "read" and not is_outside:
            return "It is damaged: restore it from a backup, or remove it."
        if self.is_local:
            return "Check that it exists, is writable and has room (USMS_DATA_DIR)."
        return (
            "Check the bucket (USMS_DATA_DIR), the credentials (AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY, AWS_PROFILE), AWS_REGION and, outside AWS, AWS_ENDPOINT_URL."
        )


def _crc(content: object) -> int:
    return zlib.crc32(json.dumps(content).encode())


def _made_private(path: Path) -> Path:
    """Make an empty file that only its owner can read, from the first byte on."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _PRIVATE_FILE))
    return path


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
