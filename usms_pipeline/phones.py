"""Phone numbers as personal data: the keyed hash that stands for one, and what may be shown.

Reads and makes the key file; nothing else touches the disk. No number or key is ever logged.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from usms_pipeline.errors import StorageError
from usms_pipeline.numbering import Line, Number, NumberingPlan
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


class PhoneBook:
    """Describes phone numbers under one key (16 bytes or more) and one default region.

    Texts that say the same number in different ways get the same ``recipient``.
    """

    def __init__(self, key: bytes, region: str, mode: Literal["masked", "clear"]) -> None:
        self._plan = NumberingPlan(region)
        self._is_clear = mode == "clear"
        padded = (key if len(key) <= _HASH_BLOCK_BYTES else hashlib.sha256(key).digest()).ljust(
            _HASH_BLOCK_BYTES, b"\0"
        )
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))
        self._fingerprint = hashlib.sha256(b"usms-key:" + key).hexdigest()[:16]

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

    def describe(self, texts: pa.Array | pa.ChunkedArray) -> pa.StructArray:
        """Give ``DESCRIPTION`` of every text (string); all null where it is null or blank.

        Works once a distinct text, about 5 µs each.
        """
        if isinstance(texts, pa.ChunkedArray):
            texts = texts.combine_chunks()
        encoded = pc.dictionary_encode(texts.cast(pa.string()))
        described = self._describe_distinct(encoded.dictionary.to_pylist())
        columns = [column.take(encoded.indices) for column in described]
        is_null = pc.is_null(columns[0])
        return pa.StructArray.from_arrays(columns, fields=list(DESCRIPTION), mask=is_null)

    def remasked(self, shown: pa.Array | pa.ChunkedArray) -> pa.Array:
        """Mask what ``describe`` gave when it showed numbers whole; what is masked stays."""
        if isinstance(shown, pa.ChunkedArray):
            shown = shown.combine_chunks()
        is_masked = pc.match_substring_regex(shown, _MASKED)
        whole = pc.if_else(pc.fill_null(is_masked, True), None, shown)
        return pc.coalesce(self.describe(whole).field("phone"), shown)

    def _describe_distinct(self, texts: list[str]) -> list[pa.Array]:
        recipients: list[str | None] = []
        phones: list[str | None] = []
        places: dict[Line | None, int] = {None: 0}
        place_of: list[int] = []
        for text in map(str.strip, texts):
            number = self._plan.read(text) if text else None
            line = None if number is None else number.line
            recipients.append(self._recipient(text, number))
            phones.append(self._shown(text, number))
            place_of.append(places.setdefault(line, len(places)))
        indices = pa.array(np.array(place_of, dtype=np.int32))
        facts = [
            pa.array([getattr(line, name, None) for line in places], pa.string()).take(indices)
            for name in ("country", "operator", "number_type")
        ]
        return [pa.array(recipients, pa.string()), pa.array(phones, pa.string()), *facts]

    def _recipient(self, text: str, number: Number | None) -> str | None:
        if number is not None:
            return self._hash(number.e164)
        return self._hash(text.casefold()) if text else None

    def _shown(self, text: str, number: Number | None) -> str | None:
        if number is not None:
            e164, line = number
            return e164 if self._is_clear else masked(e164, line.country_code)
        if not text:
            return None
        return text if self._is_clear else MASK

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
    start = 2 if country_code < 10 else 3 if country_code < 100 else 4
    shown = (len(e164) - start) // 2
    tail = min(2, shown // 2)
    return f"{e164[: start + min(3, shown - tail)]}{MASK}{e164[len(e164) - tail :]}"


def load_key(settings: Settings, data_dir: str | Path | None = None) -> bytes:
    """Give the key of the ``recipient`` hash: the setting's, else the data directory's own.

    The latter is made once, readable by its owner alone; of several processes that make it at the
    same time, all get the same one. Raises ``StorageError``.
    """
    if settings.phone_key is not None:
        return bytes.fromhex(settings.phone_key.get_secret_value())
    path = Path(data_dir if data_dir is not None else settings.data_dir) / KEY_FILE
    try:
        if not path.exists():
            _make_key(path)
        text = path.read_text("ascii", "replace").strip()
        _sweep(path)
    except OSError as error:
        raise StorageError(
            f"Can't read or make the phone key {str(path)!r}: {error.strerror}. Check that the "
            "data directory is writable (USMS_DATA_DIR), or give the key (USMS_PHONE_KEY)."
        ) from error
    return _key_of(text, path)


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
