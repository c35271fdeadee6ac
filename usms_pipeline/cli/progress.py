"""The progress of long work on stderr: a line for each phase, for several are under way at once.

In a log, a line a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.text import Text

from usms_pipeline.cli.shell import err
from usms_pipeline.contract import wording

if TYPE_CHECKING:
    from usms_pipeline.pipeline import Progress as Step
    from usms_pipeline.service.collect import CollectStats

_SELDOM_SECONDS: Final = 60


@contextmanager
def bar(console: Console | None = None) -> Iterator[Callable[[Step], None]]:
    """Yield a function for the pipeline's ``on_progress``, which draws a line for each phase.

    Off a terminal it prints a line every minute instead.
    """
    console = console or err()
    if not console.is_terminal:
        yield _seldom(console)
        return
    with Progress(
        SpinnerColumn(finished_text="[green]✓[/]"),
        TextColumn("{task.description}", style="bold"),
        BarColumn(bar_width=10 if console.width < 100 else 28),
        _Cell(lambda task: task.fields["step"].counted, "cyan"),
        _Cell(_pace, "dim"),
        console=console,
        refresh_per_second=8,
    ) as progress:
        lines: dict[str, TaskID] = {}
        yield lambda step: _show(progress, lines, step)
        _finish(progress, progress.tasks)


def _seldom(console: Console) -> Callable[[Step], None]:
    """Return what writes a line now and then, so that a log shows that the work goes on."""
    told = time.monotonic()

    def tell(step: Step) -> None:
        nonlocal told
        if time.monotonic() - told < _SELDOM_SECONDS:
            return
        told = time.monotonic()
        line = " · ".join(filter(None, (step.title, step.counted, *_asking(step.stats))))
        console.print(f"{datetime.now():%H:%M:%S} {escape(line)}", soft_wrap=True)

    return tell


def _show(progress: Progress, lines: dict[str, TaskID], step: Step) -> None:
    """Bring a phase's line up to date; a new phase gets one, and ends those without a total."""
    if step.total == 0:
        return
    if step.phase not in lines:
        _finish(progress, [task for task in progress.tasks if task.total is None])
        lines[step.phase] = progress.add_task(step.title.ljust(15), total=None, step=step)
    progress.update(lines[step.phase], completed=step.done, total=step.total, step=step)


def _finish(progress: Progress, tasks: Iterable[Task]) -> None:
    """Complete lines; where less was done than there was to do, the counts go on saying so."""
    for task in tasks:
        full = task.total or task.completed or 1  # a bar of nothing would never be full
        progress.update(task.id, completed=full, total=full)


class _Cell(ProgressColumn):
    """A text about a task, as it stands when the cell is drawn."""

    def __init__(self, text: Callable[[Task], str], style: str) -> None:
        self._text, self._style = text, style
        super().__init__()

    def render(self, task: Task) -> Text:
        """Draw one cell."""
        return Text(self._text(task), style=self._style)


def _pace(task: Task) -> str:
    """Return rate, time left, retries, pace and concurrency: as much as is known."""
    parts = []
    if task.speed and not task.finished:
        parts.append(f"{wording.count(task.speed)}/s")
    if task.time_remaining is not None and not task.finished:
        parts.append(f"{wording.duration(task.time_remaining)} left")
    if task.finished and task.finished_time is not None:
        parts.append(wording.duration(task.finished_time))
    return " · ".join(parts + _asking(task.fields["step"].stats))


def _asking(stats: CollectStats | None) -> list[str]:
    """Return how the asking goes: retries, and the pace the governor has settled on."""
    if stats is None:
        return []
    parts = [f"{wording.count(stats.retries)} retried"] if stats.retries else []
    if stats.pace:
        parts.append(f"{stats.pace:.0f} req/s × {stats.concurrency}")
    return parts


Say = Callable[[str, str], None]


@contextmanager
def steps(console: Console | None = None) -> Iterator[Say]:
    """Yield ``say(title, detail)``, which shows on a terminal what is being done just now."""
    with (console or err()).status("") as status:
        yield lambda title, detail: status.update(
            f"[bold]{escape(title)}[/]  [dim]{escape(wording.visible(detail))}[/]"
        )
