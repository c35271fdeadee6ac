"""What every command shares: streams, exit codes, signals, and errors told in a sentence.

Results go to stdout; progress, warnings and errors to stderr. Nothing here knows a command.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import wraps
from types import FrameType, NoneType
from typing import Any, ParamSpec

import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from usms_pipeline.contract import wording
from usms_pipeline.contract.errors import UsmsError

P = ParamSpec("P")

OK, FELL_SHORT, UNUSABLE, REFUSED = 0, 1, 2, 3
_INTERRUPTED, _TERMINATED, _BROKEN_PIPE = 130, 143, 141

_UNCUT = 1000
_PIPED = 80

show_tracebacks: ContextVar[bool] = ContextVar("show_tracebacks", default=False)


class _Console(Console):
    """Escapes control characters, so that no text commands the terminal; has no emoji codes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Every text that is printed, also a table's cell, comes through here."""
        return super().render_str(wording.visible(text), **options)


def out() -> Console:
    """Return the console of results: stdout. Off a terminal, nothing is cut or wrapped."""
    return _Console(width=None if sys.stdout.isatty() else _UNCUT)


def width() -> int:
    """Return the columns that results may take: the terminal's, or a usual one's."""
    console = out()
    return console.width if console.is_terminal else _PIPED


def err() -> Console:
    """Return the console of progress, warnings and errors: stderr."""
    return _Console(stderr=True)


def prepare_streams() -> None:
    """Make a terminal that can't show a character show a ``?`` instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def as_command(command: Callable[P, int | None]) -> Callable[P, None]:
    """Return the command for typer: what it returns is the exit code, its errors are printed."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        with _stoppable() as received:
            code = _outcome(lambda: command(*args, **kwargs), received)
        raise typer.Exit(code)

    return wrapped


def _outcome(command: Callable[[], int | None], received: list[int]) -> int:
    try:
        return command() or OK
    except UsmsError as error:
        if received:
            return _stopped(received)
        _say_error(str(error))
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except Exception as error:
        if received:  # a library's own way to say that it was interrupted
            return _stopped(received)
        _say_error(
            f"Unexpected {type(error).__name__}. What was received is kept. Please report it with "
            "what `usms --debug …` prints."
        )
        return FELL_SHORT
    except BaseException as error:
        # Ctrl-C, also as orchestrators dress it: their class can't be imported here
        if not isinstance(error, KeyboardInterrupt) and "Interrupt" not in type(error).__name__:
            raise
        return _stopped(received)


def _stopped(received: list[int]) -> int:
    _say_error("Stopped. What was received is kept; run the same command to continue.")
    return _TERMINATED if signal.SIGTERM in received else _INTERRUPTED


@contextmanager
def _stoppable() -> Iterator[list[int]]:
    """Make SIGTERM stop a command as Ctrl-C does; yields the list of both as they are received.

    Some libraries turn the KeyboardInterrupt into an error of their own: the list still tells.
    """
    received: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before: dict[int, Any] = {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, stop)
    except ValueError:  # not in the main thread: the program that runs us minds the signals
        pass
    try:
        yield received
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def fell_short(sentence: str) -> int:
    """Print on stderr which part of the work was not done; return the exit code."""
    _say_error(sentence)
    return FELL_SHORT


def _say_error(sentence: str) -> None:
    if show_tracebacks.get() and sys.exc_info()[0]:
        sys.stderr.write(wording.visible(_without_secrets(traceback.format_exc())))
    _tell("[bold red]✗[/]", sentence)


def _tell(mark: str, sentence: str) -> None:
    console = err()
    console.print(f"{mark} {escape(sentence)}", soft_wrap=not console.is_terminal)


def _without_secrets(shown: str) -> str:
    """Make a traceback fit to be sent to somebody: the errors of others quote what they met."""
    from usms_pipeline import settings
    from usms_pipeline.contract import source_address

    for secret in settings.secrets():
        for part in (secret, *source_address.secrets(secret)):
            shown = shown.replace(part, "***")
    return wording.without_numbers(shown)


def warn(sentences: Iterable[str]) -> None:
    """Show warnings on stderr, one a line."""
    for sentence in sentences:
        _tell("[bold yellow]![/]", sentence)


def echo_json(value: Any) -> None:
    """Print a value as JSON: dataclasses as objects, dates as ISO, durations in seconds."""
    text = json.dumps(plain(value), ensure_ascii=False, indent=2)
    typer.echo(wording.COMMANDING.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def plain(value: Any) -> Any:
    """Turn a report into what JSON can hold, without the fields that its ``repr`` leaves out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: plain(getattr(value, field.name)) for field in fields if field.repr}
    if isinstance(value, dict):
        return {str(plain(key)): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(part) for part in value]
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):  # also a sum of whole numbers (HUGEINT)
        value = int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has none of these
    return value if isinstance(value, (str, int, float, bool, NoneType)) else str(value)
