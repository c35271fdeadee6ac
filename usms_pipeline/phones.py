"""Phone numbers as personal data: the keyed hash that stands for one, and what may be shown.

Reads and makes the key file; nothing else touches the disk. No number or key is ever logged.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.errors import StorageError
from usms_pipeline.number_columns import POWERS, Ints, NumberColumns, Numbers
from usms_pipeline.numbering import NumberingPlan
from usms_pipeline.settings import Settings
from usms_pipeline.storage import make_folder, publish_file

DESCRIPTION: Final = pa.struct(
    [
        ("recipient", pa.string()),
        ("phone", pa.string()),
        ("country", pa.string()),
        ("operator", pa.string()),
        ("number_type", pa.string()),
    ]
)
"""What ``PhoneBook.describe`` gives of each text."""

KEY_FILE: Final = "phone.key"
MASK: Final = "****"
_MASKED: Final = r"^(\+\d{1,6})?\*{4}\d{0,2}$"
_KEY_BYTES: Final = 32
_HASH_BLOCK_BYTES: Final = 64
_RECIPIENT_DIGITS: Final = 32
_FEW: Final = 2_000
"""Fewer texts than this are hashed one by one: DuckDB takes longer to start than that."""

_HASHED_AT_ONCE: Final = 4_096
_HMAC: Final = f"""
    SELECT left(sha256($outer::BLOB || unhex(sha256($inner::BLOB || encode(text)))),
        {_RECIPIENT_DIGITS})
    FROM texts
"""


class PhoneBook:
    """Describes phone numbers under one key (16 bytes or more) and one default region.

    Texts that say the same number in different ways get the same ``recipient``.
    """

    def __init__(self, key: bytes, region: str, mode: Literal["masked", "clear"]) -> None:
        self._plan = NumberingPlan(region)
        self._columns = NumberColumns(self._plan)
        self._is_clear = mode == "clear"
        padded = (key if len(key) <= _HASH_BLOCK_BYTES else hashlib.sha256(key).digest()).ljust(
            _HASH_BLOCK_BYTES, b"\0"
        )
        self._pads = {
            "inner": bytes(byte ^ 0x36 for byte in padded),
            "outer": bytes(byte ^ 0x5C for byte in padded),
        }
        self._inner = hashlib.sha256(self._pads["inner"])
        self._outer = hashlib.sha256(self._pads["outer"])
        self._fingerprint = _fingerprint(key)

    @property
    def fingerprint(self) -> str:
        """Name the key without giving it away: 16 hexadecimal digits."""
        return self._fingerprint

    def recipient_id(self, phone: str) -> str:
        """Give the hash that stands for a number: HMAC-SHA-256 of its E.164 form, 32 hex digits.

        Of a text that says no number, the hash of the text, trimmed and casefolded.
        """
        text = phone.strip()
        number = self._plan.read(text)
        return self._hash(text.casefold() if number is None else number.e164)

    def national_digits(self, phone: str) -> str | None:
        """Give a number's digits without its country code; None of a text that says no number."""
        number = self._plan.read(phone.strip())
        return None if number is None else number.e164[1 + len(str(number.line.country_code)) :]

    def is_number(self, phone: str) -> bool:
        """Tell whether a text says a phone number, however it is written."""
        return self._plan.read(phone.strip()) is not None

    def are_numbers(self, texts: pa.Array) -> bool:
        """Tell whether most of the texts (string) are valid numbers of mobile phones."""
        types = self.describe(texts).field("number_type").drop_null().to_pylist()
        mobile = sum("mobile" in one for one in types)
        return bool(2 * mobile > len(texts) - texts.null_count)

    def describe(self, texts: pa.Array | pa.ChunkedArray) -> pa.StructArray:
        """Give ``DESCRIPTION`` of every text (string); all null where it is null or blank.

        No step of Python for a number written in digits alone: about 1.5 µs each.
        """
        if isinstance(texts, pa.ChunkedArray):
            texts = texts.combine_chunks()
        texts = texts.cast(pa.string())
        if texts.null_count == len(texts):
            return pa.nulls(len(texts), DESCRIPTION)
        read = self._columns.read(texts)
        is_number = pa.array(read.digits > 0)
        e164 = pc.binary_join_element_wise("+", pa.array(read.digits).cast(pa.string()), "")
        others = _others(texts, is_number)  # what says something, but no number
        shown = e164 if self._is_clear else _masked(read)
        hidden = others if self._is_clear else pc.if_else(pc.is_valid(others), MASK, others)
        facts = [
            pa.array([getattr(line, name, None) for line in read.lines], pa.string())
            for name in ("country", "operator", "number_type")
        ]
        columns = [
            self._hashed(pc.if_else(is_number, e164, _casefolded(others))),
            pc.if_else(is_number, shown, hidden),
            *(fact.take(pa.array(read.line)) for fact in facts),
        ]
        is_blank = pc.is_null(columns[0])
        return pa.StructArray.from_arrays(columns, fields=list(DESCRIPTION), mask=is_blank)

    def remasked(self, shown: pa.Array | pa.ChunkedArray) -> pa.Array:
        """Mask what ``describe`` gave when it showed numbers whole; what is masked stays."""
        if isinstance(shown, pa.ChunkedArray):
            shown = shown.combine_chunks()
        is_masked = pc.match_substring_regex(shown, _MASKED)
        whole = pc.if_else(pc.fill_null(is_masked, True), None, shown)
        return pc.coalesce(self.describe(whole).field("phone"), shown)

    def _hashed(self, texts: pa.StringArray) -> pa.Array:
        """Hash every text as ``_hash`` does."""
        if len(texts) < _FEW:
            hashed = [None if text is None else self._hash(text) for text in texts.to_pylist()]
            return pa.array(hashed, pa.string())
        with self._hasher.cursor() as cursor:
            # in pieces, for a piece is hashed by one thread
            pieces = pa.table({"text": texts}).to_batches(max_chunksize=_HASHED_AT_ONCE)
            cursor.register("texts", pa.Table.from_batches(pieces))
            hashed = cursor.sql(_HMAC, params=self._pads).to_arrow_table()
            return hashed.column(0).combine_chunks()

    @cached_property
    def _hasher(self) -> duckdb.DuckDBPyConnection:
        return duckdb.connect(config={"python_enable_replacements": "false"})

    def _hash(self, text: str) -> str:
        # Copied contexts: half the time of hmac.digest, which sets the key up again each time.
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(text.encode("utf-8", "surrogatepass"))
        outer.update(inner.digest())
        return outer.hexdigest()[:_RECIPIENT_DIGITS]


def masked(e164: str, country_code: int) -> str:
    """Hide the middle of a number; at most half of the national digits stay.

    >>> masked("+8613800138000", 86), masked("+6591234567", 65)
    ('+86138****00', '+6591****67')
    """
    head, tail = _kept(np.array([country_code]), np.array([len(e164)]))
    return f"{e164[: int(head[0])]}{MASK}{e164[len(e164) - int(tail[0]) :]}"


def _kept(country_code: Ints, length: Ints) -> tuple[Ints, Ints]:
    """Give how many characters stay at both ends of E.164 forms of so many characters."""
    start = 2 + (country_code >= 10) + (country_code >= 100)
    shown = (length - start) // 2
    tail = np.minimum(2, shown // 2)
    return start + np.minimum(3, shown - tail), tail


def _masked(read: Numbers) -> pa.Array:
    """Mask every number: each distinct beginning and end is put into words once."""
    code = np.array([getattr(line, "country_code", 1) for line in read.lines])[read.line]
    length = np.searchsorted(POWERS, read.digits, side="right")  # of the digits
    head_size, tail_size = _kept(code, length + 1)
    head = read.digits // POWERS[np.maximum(length + 1 - head_size, 0)]
    key = (head * 100 + read.digits % POWERS[tail_size]) * 3 + tail_size
    coded = pc.dictionary_encode(pa.array(key))
    words = [
        f"+{one // 300}{MASK}{f'{one // 3 % 100:0{one % 3}d}' if one % 3 else ''}"
        for one in coded.dictionary.to_pylist()
    ]
    return pa.array(words, pa.string()).take(coded.indices)


def _others(texts: pa.Array, is_number: pa.Array) -> pa.Array:
    """Give the texts that say something but no number, trimmed; null for the others."""
    left = pc.if_else(is_number, None, texts)
    if left.null_count == len(left):
        return left
    stripped = [text.strip() or None if text else None for text in left.to_pylist()]
    return pa.array(stripped, pa.string())


def _casefolded(texts: pa.Array) -> pa.Array:
    if texts.null_count == len(texts):
        return texts
    return pa.array([text and text.casefold() for text in texts.to_pylist()], pa.string())


def _fingerprint(key: bytes) -> str:
    return hashlib.sha256(b"usms-key:" + key).hexdigest()[:16]


def kept_fingerprint(data_dir: str | Path) -> str | None:
    """Name the key in a data directory's own file; None where there is none that can be read."""
    path = Path(data_dir) / KEY_FILE
    try:
        return _fingerprint(_key_of(path.read_text("ascii", "replace").strip(), path))
    except (OSError, StorageError):
        return None


def load_key(
    settings: Settings, data_dir: str | Path | None = None, *, may_make: bool = True
) -> bytes:
    """Give the key of the ``recipient`` hash: the setting's, else the data directory's own.

    The latter is made once, readable by its owner alone; of several processes that make it at the
    same time, all get the same one. Who only reads says ``may_make=False``: a new key would match
    nothing. Raises ``StorageError``.
    """
    if settings.phone_key is not None:
        return bytes.fromhex(settings.phone_key.get_secret_value())
    path = Path(data_dir if data_dir is not None else settings.data_dir) / KEY_FILE
    try:
        if not path.exists():
            if not may_make:
                raise _no_key(path)
            _make_key(path)
        text = path.read_text("ascii", "replace").strip()
        _sweep(path)
    except OSError as error:
        raise _unusable(path, error) from error
    return _key_of(text, path)


def _unusable(path: Path, error: OSError) -> StorageError:
    """Say why the key can't be had; giving it helps only who can write the folder besides."""
    if isinstance(error, PermissionError) and os.access(path.parent, os.W_OK):
        return StorageError(
            f"Can't read the phone key {str(path)!r}: {error.strerror}. Run as the account that "
            "made it, or give the key (USMS_PHONE_KEY)."
        )
    return StorageError(
        f"Can't read or make the phone key {str(path)!r}: {error.strerror}. Check that the data "
        "directory exists, is writable and has room (USMS_DATA_DIR)."
    )


def _no_key(path: Path) -> StorageError:
    return StorageError(
        f"There is no phone key at {str(path)!r}: the first `usms run` makes it. Point "
        "USMS_DATA_DIR at the data directory of the receipts, or give their key (USMS_PHONE_KEY)."
    )


def _key_of(text: str, path: Path) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) < _KEY_BYTES // 2:
        raise StorageError(
            f"The phone key {str(path)!r} is not {2 * _KEY_BYTES} hexadecimal digits. Restore it "
            "from a backup, or give the key (USMS_PHONE_KEY)."
        )
    return key


def _make_key(path: Path) -> None:
    """Give the key file its name only when it is whole; the first of several makers wins."""
    make_folder(path.parent, private=False)
    descriptor, name = tempfile.mkstemp(prefix=f".{KEY_FILE}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(_KEY_BYTES) + "\n")
        # gone already: a faster maker's key is there, and this one was swept away
        with suppress(FileExistsError, FileNotFoundError):
            publish_file(temporary, path, replaces=False)
    finally:
        temporary.unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Delete what killed makers of the key left: it can be a second name of the key itself."""
    with suppress(OSError):  # who may only read the key may still read it
        for left in path.parent.glob(f".{KEY_FILE}.*"):
            left.unlink(missing_ok=True)
