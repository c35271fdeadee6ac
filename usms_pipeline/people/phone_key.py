"""The key of the ``recipient`` hash: the setting's, else the data directory's own file.

Reads and makes that file; nothing else touches the disk. No key is ever logged.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from usms_pipeline.contract.errors import StorageError

if TYPE_CHECKING:
    from usms_pipeline.settings import Settings

KEY_FILE: Final = "phone.key"
_KEY_BYTES: Final = 32


def fingerprint(key: bytes) -> str:
    """Return a fingerprint of the key, which does not show it: 16 hexadecimal digits."""
    return hashlib.sha256(b"usms-key:" + key).hexdigest()[:16]


def has_key(settings: Settings) -> bool:
    """Return whether there is a key, so that ``load_key`` makes none."""
    return settings.phone_key is not None or (Path(settings.data_dir) / KEY_FILE).exists()


def load_key(settings: Settings, *, may_make: bool = True) -> bytes:
    """Return the key of the ``recipient`` hash: the setting's, else the data directory's own.

    That file is made once, readable by its owner alone; of several processes that make it at the
    same time, all get the same one. A caller that only reads passes ``may_make=False``: a new
    key would match nothing. Raise ``StorageError`` where there is none.
    """
    if settings.phone_key is not None:
        return bytes.fromhex(settings.phone_key.get_secret_value())
    path = Path(settings.data_dir) / KEY_FILE
    try:
        if not path.exists():
            if not may_make:
                raise StorageError(
                    f"There is no phone key at {str(path)!r}: the first `usms run` makes it. Point "
                    "USMS_DATA_DIR at the data directory of the receipts, or give their key "
                    "(USMS_PHONE_KEY)."
                )
            _make_key(path)
        text = path.read_text("ascii", "replace").strip()
        with suppress(OSError):  # who may only read the key may still read it
            # what killed makers left can be a second name of the key itself
            for left in path.parent.glob(f".{KEY_FILE}.*"):
                left.unlink(missing_ok=True)
        key = bytes.fromhex(text)
    except OSError as error:
        raise StorageError(
            f"Can't read or make the phone key {str(path)!r}: {error.strerror}. Check that the "
            "data directory exists, is writable and has room (USMS_DATA_DIR), and run as the "
            "account that made the key."
        ) from error
    except ValueError:
        key = b""
    if len(key) < _KEY_BYTES // 2:
        raise StorageError(
            f"The phone key {str(path)!r} is not {2 * _KEY_BYTES} hexadecimal digits. Restore it "
            "from a backup, or set USMS_PHONE_KEY to the key."
        )
    return key


def _make_key(path: Path) -> None:
    """Make the key file; it has its name only when whole, and the first of several makers wins."""
    from usms_pipeline.store.storage import make_folder, publish_file

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
