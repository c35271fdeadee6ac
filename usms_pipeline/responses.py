"""Raw answers to disk, in checkpoints: nothing counts before it is there.

What an answer means is read elsewhere, from these files.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from types import TracebackType
from typing import Final, Self

import pyarrow as pa

from usms_pipeline import schema
from usms_pipeline.service.fetch import Answer
from usms_pipeline.storage import Store

_EVERY_BYTES: Final = 64_000_000


def file_name(sent_date: date, at: datetime) -> str:
    """Make a name for a checkpoint's file: unique, and sorted by time within its partition."""
    stamp = at.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%f")
    return f"responses/sent_date={sent_date}/{stamp}-{uuid.uuid4().hex[:8]}.parquet"


class ResponsesWriter:
    """Write answers under ``responses/``, private, one file a partition and checkpoint.

    A checkpoint comes with the ``every_responses``-th answer, with 64 MB of bodies, and
    ``every_seconds`` after the first answer since the last one, whether or not more come: a timer
    sees to that. Leaving the block writes the rest, also when an exception leaves it.

    Any call raises ``StorageError`` if it, or the timer's checkpoint before it, could not write;
    what was not written is kept, and the next checkpoint tries again.
    """

    def __init__(
        self,
        store: Store,
        clock: Callable[[], datetime],
        every_responses: int = 200,
        every_seconds: float = 5.0,
    ) -> None:
        self._store, self._clock = store, clock
        self._every_responses, self._every_seconds = every_responses, every_seconds
        self._waiting: dict[date, list[Answer]] = {}
        self._count = self._bytes = 0
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.flush()

    def add(self, sent_date: date, answer: Answer) -> None:
        """Take one answer of a partition; it is on disk by the next checkpoint."""
        with self._lock:
            self._waiting.setdefault(sent_date, []).append(answer)
            self._count += 1
            self._bytes += len(answer.body)
            self._raise_failure()
            if self._count >= self._every_responses or self._bytes >= _EVERY_BYTES:
                self.flush()
            elif self._timer is None:
                self._start_timer()

    def flush(self) -> None:
        """Write what is waiting, now."""
        with self._lock:
            self._stop_timer()
            self._failure = None  # this writes what the timer could not, or says why not
            for sent_date in sorted(self._waiting):
                answers = self._waiting[sent_date]
                name = file_name(sent_date, self._clock())
                version = {"version": str(schema.VERSION)}
                self._store.write(name, as_table(answers), version, private=True)
                del self._waiting[sent_date]
                self._count -= len(answers)
                self._bytes -= sum(len(answer.body) for answer in answers)

    def _start_timer(self) -> None:
        self._timer = threading.Timer(self._every_seconds, self._flush_in_time)
        self._timer.daemon = True
        self._timer.start()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _flush_in_time(self) -> None:
        try:
            self.flush()
        except Exception as error:  # nobody to tell here: the next call does
            self._failure = error

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure


def as_table(answers: Sequence[Answer]) -> pa.Table:
    """Return answers as ``schema.RESPONSES``."""
    columns = [
        pa.array([getattr(answer, field.name) for answer in answers], field.type)
        for field in schema.RESPONSES
    ]
    return pa.table(columns, schema=schema.RESPONSES)
