"""``usms check``: what stands in the way of a run, and the fix.

Mends nothing. To see that it can be written it makes the data directory, as a run does.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from usms_pipeline.cli import config, rehearsal
from usms_pipeline.cli.run import Json
from usms_pipeline.cli.shell import echo_json, out
from usms_pipeline.contract import wording
from usms_pipeline.contract.errors import ServiceDown, SettingsError, UsmsError
from usms_pipeline.people.phone_key import KEY_FILE

if TYPE_CHECKING:
    from usms_pipeline.settings import Settings
    from usms_pipeline.store.storage import Store

_HARMLESS_ID = "usms-check"
_CLOCKS_DIFFER = timedelta(minutes=10)
_TICK = timedelta(seconds=1)
_LITTLE_ROOM_BYTES = 2 * 1024**3
_NAMED = 5
_MARKS = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "problem": "[red]✗[/]"}

Example = Annotated[
    bool, typer.Option("--example", help="Print a .env with every setting to fill in.")
]


@dataclass(frozen=True)
class Finding:
    """One line of the list. ``exit_code`` is 0 unless it is a problem."""

    topic: str
    state: str
    text: str
    exit_code: int = 0


def check(as_json: Json = False, example: Example = False) -> int:
    """Check settings, source, service, key and disk: what is wrong, and the fix."""
    if example:
        from usms_pipeline.cli.example import env_example

        typer.echo(env_example(), nl=False)
        return 0
    findings = []
    for finding in _findings():
        findings.append(finding)
        if not as_json:
            _show(finding)
    if as_json:
        echo_json(findings)
    return max(finding.exit_code for finding in findings)


def _findings() -> Iterator[Finding]:
    try:
        for name, near in config.unknown_variables():
            hint = f"; did you mean {near}?" if near else ""
            yield Finding("settings", "warning", f"{name} is not a setting{hint}")
        yield from _env_file()
        settings = config.load(["source", "api"])
    except SettingsError as error:
        for problem in error.problems:
            yield Finding("settings", "problem", str(problem), error.exit_code)
        return
    yield Finding("settings", "ok", f"complete, for {settings.base_url}")
    for topic, look in _LOOKS.items():
        yield from _guarded(topic, look, settings)


def _env_file() -> Iterator[Finding]:
    """Tell of a .env with a secret in it that other accounts may read."""
    if config.is_secret_in_env_file() and _is_open(Path(".env")):
        yield Finding(
            "settings", "warning", "others may read .env, and a secret is in it: chmod 600 .env"
        )


def _is_open(place: Path) -> bool:
    return place.exists() and bool(place.stat().st_mode & 0o077)


def _guarded(topic: str, look: Look, settings: Settings) -> Iterator[Finding]:
    """Make a problem of what a look raises, so that the other looks still happen."""
    try:
        for state, text in look(settings):
            yield Finding(topic, state, text)
    except UsmsError as error:
        yield Finding(topic, "problem", str(error), error.exit_code)


def _source(settings: Settings) -> Iterator[tuple[str, str]]:
    """Read the source's shape, and count the rows that have no place in time."""
    from usms_pipeline.source import survey

    found = survey(settings)
    if found.is_unreadable:
        [said, *_] = found.doubts(settings)
        raise UsmsError(f"{found.address}: {said}.")
    rows = f"{wording.count(found.rows)} rows in {found.table} at {found.address}"
    if found.first_sent_at is None or found.last_sent_at is None:
        yield "warning", f"{rows}, none of them with a time of sending in {settings.sent_at_column}"
        return
    first, last = (
        wording.moment(at, settings.zone) for at in (found.first_sent_at, found.last_sent_at)
    )
    yield "ok", f"{rows}, sent {first} to {last}"
    for doubt in found.doubts(settings):
        yield "warning", doubt
    for doubt in _sessions_like_phones(settings, found.last_sent_at):
        yield "warning", doubt
    if found.last_sent_at > datetime.now(UTC) + _CLOCKS_DIFFER:
        yield "warning", "the latest lies in the future: check USMS_SOURCE_TIMEZONE"


def _sessions_like_phones(settings: Settings, last: datetime) -> list[str]:
    """Look at some of the latest rows; under any key, for no hash is kept."""
    from usms_pipeline import source
    from usms_pipeline.days.run import doubts_about_sessions
    from usms_pipeline.people.phones import PhoneBook

    book = PhoneBook(b"", settings.default_region, settings.phones)
    with closing(source.read(settings, last - timedelta(hours=1), last + _TICK)) as batches:
        batch = next(batches, None)
        return doubts_about_sessions(batch, settings, book) if batch else []


def _data_dir(settings: Settings) -> Iterator[tuple[str, str]]:
    """Prove that a file can be written, and that there is room for more."""
    from usms_pipeline.store.dataset import PRIVATE, check_layout
    from usms_pipeline.store.storage import Store

    store = Store(settings.data_dir)
    check_layout(store)
    with store.replacing(".check") as temporary:
        temporary.write_bytes(b"usms check")
    store.delete(".check")
    yield "ok", f"{settings.data_dir} is writable"
    for folder in (Path(settings.data_dir, name) for name in PRIVATE if store.is_local):
        if _is_open(folder):
            yield "warning", f"others may read the responses: chmod 700 {folder}"
    yield from _foreign_files(store)
    yield from _room(settings)


def _foreign_files(store: Store) -> Iterator[tuple[str, str]]:
    """Tell of files among the responses that nothing reads, erases or deletes."""
    from usms_pipeline.days import log

    if foreign := log.strangers(store):
        yield (
            "warning",
            f"{wording.counted(len(foreign), 'file')} among the responses with other names than "
            f"these, the first is {foreign[0]}: nothing reads them, and neither the retention nor "
            "`usms forget` reaches them. Move them away",
        )


def _room(settings: Settings) -> Iterator[tuple[str, str]]:
    folder = settings.warehouse_path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    said = f"{free / 1024**3:.1f} GB free on the disk of {settings.warehouse_path}"
    if free < _LITTLE_ROOM_BYTES:
        said += "; make room, or point USMS_DATA_DIR and USMS_WAREHOUSE at a larger disk"
    yield "ok" if free >= _LITTLE_ROOM_BYTES else "warning", said


def _key(settings: Settings) -> Iterator[tuple[str, str]]:
    """Compare the key of the recipient hash with the one that the days were made with."""
    from usms_pipeline.people.phone_key import fingerprint, load_key
    from usms_pipeline.store import dataset
    from usms_pipeline.store.storage import Store

    store, key_file = Store(settings.data_dir), Path(settings.data_dir, KEY_FILE)
    is_new = not store.exists(dataset.LAYOUT) and not store.names("receipts")
    if is_new and settings.phone_key is None and not key_file.exists():
        yield "ok", f"none yet: the first run makes {key_file}"
        return
    named = fingerprint(load_key(settings, may_make=False))
    dataset.check(store, settings, named)
    if settings.phone_key is None and _is_open(key_file):
        yield "warning", f"others may read it: chmod 600 {key_file}"
    place = "from USMS_PHONE_KEY" if settings.phone_key else f"in {key_file}"
    yield "ok", f"{place}, fingerprint {named}; keep a copy of it"


def _dataset(settings: Settings) -> Iterator[tuple[str, str]]:
    """Count the recipients announced: each must be in exactly one bucket."""
    from usms_pipeline.days import file, log
    from usms_pipeline.pipeline import Pipeline

    pipeline = Pipeline(settings)
    store = pipeline.store
    if amiss := pipeline.conservation():
        others = len(amiss) - _NAMED
        more = f" {wording.counted(others, 'more day')}: `usms rebuild` makes every day anew."
        raise UsmsError(" ".join(amiss[:_NAMED]) + (more if others > 0 else ""))
    days = [said for day in file.days(store) if (said := file.footer(store, day))]
    waiting = sum(said.open for said in days)
    yield (
        "ok",
        f"{wording.counted(sum(said.announced for said in days), 'recipient')}, all accounted for; "
        f"{wording.count(waiting)} waiting for a receipt",
    )
    if unfolded := len(log.open_runs(store)):
        yield (
            "warning",
            f"responses of {wording.counted(unfolded, 'run')} are not counted yet: `usms run` "
            "counts them, unless one is under way",
        )
    clear = sum(said.phones == "clear" for said in days)
    if clear and settings.phones == "masked":
        hold = "holds" if clear == 1 else "hold"
        yield (
            "warning",
            f"{wording.counted(clear, 'day')} still {hold} whole phone numbers, from when "
            "USMS_PHONES was clear: `usms rebuild` masks them",
        )


def _quarantine(settings: Settings) -> Iterator[tuple[str, str]]:
    """Count what waits for a decision: the responses of such a run are not deleted."""
    from usms_pipeline.days import quarantine
    from usms_pipeline.store.storage import Store

    count = quarantine.open_count(Store(settings.data_dir))
    if not count:
        yield "ok", "nothing open"
        return
    entries = "entry is" if count == 1 else "entries are"
    yield (
        "warning",
        f"{wording.count(count)} {entries} open: `usms quarantine list`; the responses of their "
        "runs are kept until they are replayed or dismissed",
    )


def _service(settings: Settings) -> Iterator[tuple[str, str]]:
    """Ask the service about one session that does not exist: do the credentials work?"""
    from usms_pipeline.service.collect import Answer, Batch, Patience, collect

    answers: list[Answer] = []
    with rehearsal.explained(settings):
        stats = collect(
            [Batch(0, (_HARMLESS_ID,))],
            lambda _, answer: answers.append(answer),
            settings,
            patience=Patience(attempts=2, batch_seconds=settings.timeout_seconds),
        )
        if not answers:
            said = [problem.rstrip(".") for problem in stats.problems]
            reasons = "; ".join(said) or "it gave no response that can be read"
            raise ServiceDown(f"{settings.base_url}: {reasons}. Check USMS_BASE_URL.")
    yield "ok", f"answers within {stats.seconds * 1000:,.0f} ms and takes the access key"


Look = Callable[["Settings"], Iterator[tuple[str, str]]]
_LOOKS: dict[str, Look] = {
    "data dir": _data_dir,
    "key": _key,
    "dataset": _dataset,
    "quarantine": _quarantine,
    "source": _source,
    "service": _service,
}


def _show(finding: Finding) -> None:
    """Print one line as soon as it is known; longer ones wrap under themselves."""
    console = out()
    if not console.is_terminal:  # whoever reads it there wants a line a finding
        console.print(
            f"{_MARKS[finding.state]} {finding.topic}: {escape(finding.text)}", soft_wrap=True
        )
        return
    line = Table.grid(padding=(0, 1))
    line.add_column(width=1)
    line.add_column(width=10, style="dim")
    line.add_column(overflow="fold")
    line.add_row(_MARKS[finding.state], finding.topic, escape(finding.text))
    console.print(line)
