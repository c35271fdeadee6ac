"""Object storage with the API of S3: each object appears whole, by one request.

Nothing here knows what the objects mean. Names are relative, as in ``storage.Store``.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import obstore
import pyarrow as pa
from obstore import exceptions
from obstore.store import S3Store

from usms_pipeline.contract.errors import Changed
from usms_pipeline.store.storage import ANY, nameless_file

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

_CLIENT: Final[ClientConfig] = {"allow_http": True, "connect_timeout": "10s", "timeout": "10min"}
"""The time is for a whole request: a large day in one PUT, over a slow line."""
_RETRIES: Final[RetryConfig] = {"max_retries": 5, "retry_timeout": timedelta(minutes=4)}
_UNMET: Final = (
    exceptions.AlreadyExistsError, exceptions.PreconditionError, exceptions.NotModifiedError
)  # fmt: skip
_IN_MEMORY: Final = 8 << 20
_MESSAGE: Final = re.compile(r"<Message>([^<]+)</Message>")


class Objects:
    """The objects below ``bucket/folder``; every method raises ``OSError`` where it can't.

    A tag tells one content of an object from another; ``""`` is that of one that is not there.
    """

    def __init__(self, root: str) -> None:
        bucket, _, folder = root.partition("/")
        self._prefix = f"{folder}/" if folder else ""
        with _told():
            self._store = S3Store(
                bucket,
                disable_bulk_delete=True,  # which some services lack
                client_options=_CLIENT,
                retry_config=_RETRIES,
                credential_provider=_profile() if "AWS_PROFILE" in os.environ else None,
            )

    def names(self, folder: str) -> Iterator[str]:
        """Yield the names of all objects below a folder."""
        with _told():
            for some in obstore.list(self._store, self._prefix + folder):
                for one in some:
                    yield one["path"].removeprefix(self._prefix)

    def look(self, name: str) -> tuple[str, datetime | None]:
        """Return the tag of an object, and when it was written."""
        try:
            with _told():
                found = obstore.head(self._store, self._prefix + name)
        except FileNotFoundError:
            return "", None
        return found["e_tag"] or ANY, found["last_modified"]

    @contextmanager
    def opened(self, name: str) -> Iterator[pa.NativeFile]:
        """Open an object as it is now, even if it is replaced meanwhile; a large one is on disk."""
        with ExitStack() as stack:
            with _told():
                found = obstore.get(self._store, self._prefix + name)
                if found.meta["size"] <= _IN_MEMORY:
                    source = pa.BufferReader(found.bytes())
                else:
                    path = stack.enter_context(nameless_file())
                    with path.open("wb") as file:
                        file.writelines(found)
                    source = stack.enter_context(pa.OSFile(str(path)))
                    source.seek(0)  # on macOS /dev/fd is the same open file, at its end
            yield source

    def end(self, name: str, size: int) -> tuple[bytes, str]:
        """Return the last bytes of an object, all where there are fewer, and its tag."""
        with _told():
            try:
                options: Any = {"range": {"suffix": size}}
                found = obstore.get(self._store, self._prefix + name, options=options)
            except exceptions.BaseError as error:
                if "non-partial" not in str(error):  # it is empty, or the service knows no ranges
                    raise
                found = obstore.get(self._store, self._prefix + name)
            return bytes(found.bytes())[-size:], found.meta["e_tag"] or ANY

    def put(self, name: str, local: Path, over: str = ANY) -> None:
        """Put a file in one request, which counts once it came whole.

        Raises ``Changed`` where the object is not the one whose tag is ``over``. That can also be
        because this put it there already, and the response was lost.
        """
        how: Any = {ANY: "overwrite", "": "create"}.get(over, {"e_tag": over})
        body: Any = np.memmap(local, np.uint8, "r") if local.stat().st_size else b""
        put = partial(obstore.put, self._store, self._prefix + name, body, use_multipart=False)
        with _told():
            try:
                try:
                    put(mode=how)
                except exceptions.GenericError:  # a broken connection; the client itself tries
                    put(mode=how)  # again only where there is no condition
            except NotImplementedError:  # AWS_CONDITIONAL_PUT=disabled
                put(mode="overwrite")
            except _UNMET as error:
                raise Changed(name) from error

    def delete(self, name: str) -> None:
        """Delete an object, if it is there."""
        with _told():
            obstore.delete(self._store, self._prefix + name)

    def rename(self, name: str, new: str) -> None:
        """Copy an object, then delete it."""
        with _told():
            obstore.copy(self._store, self._prefix + name, self._prefix + new)
            obstore.delete(self._store, self._prefix + name)


def _profile() -> Callable[[], Any]:
    """Return what fetches the credentials of ``AWS_PROFILE``, in any form that a profile has."""
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider

        return Boto3CredentialProvider()
    except Exception as error:  # boto3's own, or that it is not installed
        raise OSError(errno.EIO, f"AWS_PROFILE: {error}".rstrip(".")) from error


@contextmanager
def _told() -> Iterator[None]:
    """Raise ``OSError``, with the service's own words, for what went wrong outside."""
    try:
        yield
    except (exceptions.BaseError, ValueError) as error:
        message = _MESSAGE.search(str(error))
        reason = message[1] if message else str(error).splitlines()[0]
        raise OSError(errno.EIO, reason.rstrip(".")) from error
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "no such object, or no such bucket") from error
