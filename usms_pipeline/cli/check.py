"""``usms check``: what stands in the way of a run, and how to fix it.

It fixes nothing, but makes the data directory, as a run does, to see that it can be written.
"""

from __future__ import annotations

import shutil
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.markup import escape
from rich.table import Table

import usms_pipeline
from usms_pipeline.cli import demo
from usms_pipeline.cli.options import Format, Formats
from usms_pipeline.cli.output import print_rows, rows_table
from usms_pipeline.cli.shell import out
from usms_pipeline.contract import wording
from usms_pipeline.contract.errors import (
    OtherWarehouse,
    ServiceDown,
    SettingsError,
    StorageError,
    UsmsError,
    WarehouseMissing,
)  # fmt: skip

if TYPE_CHECKING:
    from usms_pipeline.cli.sample import Sample
    from usms_pipeline.settings import Settings

_HARMLESS_ID = "usms-check"
_LITTLE_ROOM_BYTES = 2 * 1024**3
_NAMED = 5
_MANY_ROWS = 100_000
"""Fewer are looked through in less than a tenth of a second."""
_MARKS = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "problem": "[red]✗[/]"}

Example = Annotated[
    bool, typer.Option("--example", help="Print a .env with every setting to fill in.")
]

_TOP = """\
# Settings of usms-pipeline: copy this file to .env and fill in those without a #. The others
# show their default, or an example where they have none. Put a value with a blank or a # in
# it into single quotes; a secret is taken as it stands, ${…} too. Made by `usms check --example`.
"""
REQUIRED = (
    "access_key_id", "access_key_secret", "source_url", "source_table", "session_column",
    "sent_at_column",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One line of the list, and rows to look at. ``exit_code`` is 0 unless it is a problem."""

    topic: str
    state: str
    text: str
    exit_code: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)


def check(format_: Formats = Format.TABLE, example: Example = False) -> int:
    """Check settings, source, service, key and disk; list each problem and how to fix it."""
    if example:
        typer.echo(env_example(), nl=False)
        return 0
    findings = []
    for finding in _findings():
        findings.append(finding)
        if format_ == Format.TABLE:
            _show(finding)
    if format_ != Format.TABLE:
        print_rows(findings, format_)
    return max(finding.exit_code for finding in findings)


def env_example() -> str:
    """Write every setting once, with its meaning; the defaults are commented out."""
    settings, entries = usms_pipeline.settings, [_TOP]
    fields = settings.Settings.model_fields
    for name in dict.fromkeys((*REQUIRED, *fields)):
        about, is_required = fields[name], name in REQUIRED
        default = "" if is_required else settings.as_text(about.default)
        value = default or settings.example(name)
        meaning = textwrap.wrap(about.description or "", 94)
        entries.append("\n".join(f"# {line}" for line in meaning))
        entries[-1] += f"\n{'' if is_required else '# '}{settings.variable(name)}={value}\n"
    return "\n".join(entries)


def _findings() -> Iterator[Finding]:
    try:
        for name, near in usms_pipeline.settings.unknown_variables():
            hint = f"; did you mean {near}?" if near else ""
            yield Finding("settings", "warning", f"{name} is not a setting{hint}")
        if usms_pipeline.settings.is_secret_in_env_file() and _is_open(Path(".env")):
            told = ".env holds a secret and other accounts can read it: chmod 600 .env"
            yield Finding("settings", "warning", told)
        settings = usms_pipeline.settings.load(["source", "api"])
    except SettingsError as error:
        for problem in error.problems:
            yield Finding("settings", "problem", str(problem), error.exit_code)
        if error.place:
            yield Finding("settings", "warning", f"settings are read {error.place}")
        return
    yield Finding("settings", "ok", f"complete, for {settings.base_url}")
    yield from (found := list(_guarded("data dir", _data_dir, settings)))
    if not any(one.exit_code for one in found):  # else these would say the same
        yield from _guarded("key", _key, settings)
        yield from _guarded("dataset", _dataset, settings)
        yield from _guarded("quarantine", _quarantine, settings)
        yield from _guarded("warehouse", _warehouse, settings)
    looked_at: list[Sample] = []
    yield from _guarded("source", partial(_source, looked_at=looked_at), settings)
    yield from _guarded("service", partial(_service, looked_at=looked_at), settings)


def _is_open(place: Path) -> bool:
    return place.exists() and bool(place.stat().st_mode & 0o077)


def _guarded(topic: str, look: Look, settings: Settings) -> Iterator[Finding]:
    """Make a problem of what a look raises, so that the other looks still happen."""
    try:
        for found in look(settings):
            yield found if isinstance(found, Finding) else Finding(topic, *found)
    except SettingsError as error:
        for problem in error.problems:
            yield Finding("settings", "problem", str(problem), error.exit_code)
    except UsmsError as error:
        yield Finding(topic, "problem", str(error), error.exit_code)


def _source(settings: Settings, looked_at: list[Sample] | None = None) -> Iterator[Said]:
    """Read the source's shape, and some rows as a run reads them; they go into ``looked_at``."""
    from usms_pipeline.cli import sample
    from usms_pipeline.pipeline import Pipeline
    from usms_pipeline.source import is_scanned

    pipeline = Pipeline(settings)
    found = pipeline.survey()
    doubts = found.doubts(settings, with_forms=True)
    if found.is_unreadable:
        raise UsmsError(f"{found.address}: {doubts[0]}.")
    place = f" at {found.address}" if found.address != found.table else ""
    rows = f"{wording.counted(found.rows, 'row')} in {found.table}{place}"
    if found.first_sent_at is None or found.last_sent_at is None:
        yield (
            "warning",
            f"{rows}, none of them with a send time in {settings.sent_at_column}: is that the "
            "right column (USMS_SENT_AT_COLUMN)?",
        )
        return
    ends = found.first_sent_at, found.last_sent_at
    first, last = (wording.moment(at, settings.zone) for at in ends)
    taken = sample.take(settings, found.rows, *ends)
    said = f"{rows}, sent {first} to {last}"
    if before := found.left_out.before_start:
        are = "was" if before == 1 else "were"
        said += (
            f"; {wording.count(before)} of them {are} sent before USMS_START_DATE "
            f"({settings.start_date}), so no figure counts {'it' if before == 1 else 'them'}"
        )
    yield Finding("source", "ok", said, rows=sample.shown(taken))
    with suppress(StorageError):  # which "data dir" tells
        doubts += [late] if (late := pipeline.late_rows(found).rstrip(".")) else []
    for doubt in doubts:
        yield "warning", doubt
    for topic, look in (("rows", sample.of_sessions), ("phones", sample.of_phones)):
        for state, text in look(taken):
            yield Finding(topic, state, text)
    for one in taken.doubts:
        state, code = ("problem", UsmsError.exit_code) if one.stops else ("warning", 0)
        yield Finding(one.topic, state, one.text, code)
    if found.rows >= _MANY_ROWS and is_scanned(settings, ends[1]):
        yield (
            "warning",
            f"no index on {settings.sent_at_column} is used, so each run scans all "
            f"{wording.count(found.rows)} rows. Add an index; if this is a view, it must select "
            "the column as it is, without a function or a cast",
        )
    if looked_at is not None and not any(one.stops for one in taken.doubts):
        looked_at.append(taken)


def _data_dir(settings: Settings) -> Iterator[tuple[str, str]]:
    """Prove that a file can be written, and that there is room for more."""
    from usms_pipeline.days import log
    from usms_pipeline.store.dataset import PRIVATE, check_layout
    from usms_pipeline.store.storage import Store

    store = Store(settings.data_dir)
    check_layout(store)
    are_safe = store.prove()
    yield "ok", f"{settings.data_dir} is writable"
    if not are_safe:
        yield (
            "warning",
            "this service replaces an object even if another run changed it (no conditional PUT): "
            "run one at a time, in Dagster with a pool of 1",
        )
    for folder in (Path(settings.data_dir, name) for name in PRIVATE if store.is_local):
        if _is_open(folder):
            yield "warning", f"other accounts can read the responses: chmod 700 {folder}"
    if foreign := log.strangers(store):
        yield (
            "warning",
            f"{wording.counted(len(foreign), 'file')} in the responses' folder that the pipeline "
            f"did not write, such as {foreign[0]}: it never reads them, and neither retention nor "
            "`usms forget` deletes them. Move them elsewhere",
        )
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
    from usms_pipeline.people.phone_key import KEY_FILE, fingerprint, load_key
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
        yield "warning", f"other accounts can read it: chmod 600 {key_file}"
    place = "from USMS_PHONE_KEY" if settings.phone_key else f"in {key_file}"
    yield "ok", f"{place}, fingerprint {named}; keep a copy of it"


def _dataset(settings: Settings) -> Iterator[tuple[str, str]]:
    """Count the recipients in the table: each must have exactly one status."""
    from usms_pipeline.days import file, log
    from usms_pipeline.pipeline import Pipeline

    pipeline = Pipeline(settings)
    store = pipeline.store
    if amiss := pipeline.conservation():
        others = len(amiss) - _NAMED
        more = f" {wording.counted(others, 'more day')}: `usms rebuild` makes every day again."
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
            f"responses of {wording.counted(unfolded, 'run')} are not in the figures yet: the next "
            "`usms run` adds them, unless a run is under way",
        )
    clear = sum(said.phones == "clear" for said in days)
    if clear and settings.phones == "masked":
        hold = "holds" if clear == 1 else "hold"
        yield (
            "warning",
            f"{wording.counted(clear, 'day')} still {hold} unmasked phone numbers, from when "
            "USMS_PHONES was clear: `usms rebuild` masks them",
        )


def _warehouse(settings: Settings) -> Iterator[Said]:
    """Report how old the published file is, and how it is opened."""
    from tempfile import TemporaryFile

    from usms_pipeline.figures import queries
    from usms_pipeline.store.storage import make_folder
    from usms_pipeline.warehouse.read import check_place, connect, to_open

    path = settings.warehouse_path
    check_place(path)
    try:
        make_folder(path.absolute().parent, private=False)
        TemporaryFile(dir=path.absolute().parent).close()
    except OSError as error:
        raise StorageError(
            f"Can't write beside the warehouse {str(path)!r}: {error.strerror}. Give this account "
            "the right to write the folder, or name another file in USMS_WAREHOUSE."
        ) from error
    if not path.is_file():
        yield "ok", f"none yet: `usms run` publishes {path}"
        return
    try:
        with connect(path) as con:
            copies = queries.copies_hint(con)
    except (WarehouseMissing, OtherWarehouse) as error:
        yield "warning", str(error)
        return
    age = wording.duration(time.time() - path.stat().st_mtime)
    yield "ok", f"{path}, published {age} ago; to open it: {to_open(path)}, or usms sql"
    if copies:
        yield "warning", copies


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
        f"{wording.count(count)} {entries} open: see `usms quarantine list`, then replay or "
        "dismiss; until then the raw responses of those runs are kept",
    )


def _service(settings: Settings, looked_at: list[Sample] | None = None) -> Iterator[Said]:
    """Ask about some of the user's sessions: do the credentials work, and are they known?

    Where there are none, about one that does not exist.
    """
    from usms_pipeline.cli import sample
    from usms_pipeline.service.collect import Answer, Batch, Patience, collect

    now = datetime.now(UTC)
    [ids] = [sample.to_ask(one, now) for one in looked_at or ()] or [[]]
    answers: list[Answer] = []
    demo.check_service(settings)
    stats = collect(
        [Batch(0, tuple(ids) or (_HARMLESS_ID,))],
        lambda _, answer: answers.extend([answer] if answer.verdict != "unreadable" else []),
        settings,
        patience=Patience(attempts=2, batch_seconds=settings.timeout_seconds),
    )
    if not answers:
        said = "; ".join(problem.rstrip(".") for problem in stats.problems)
        said = f"{settings.base_url}: {said or 'it gave no response that can be read'}."
        if "USMS_BASE_URL" not in said:
            said += " Check USMS_BASE_URL."
        if urlsplit(settings.base_url).path:
            said += " USMS_BASE_URL has a path: most likely it should end after the host."
        raise ServiceDown(said)
    yield "ok", f"answers within {stats.seconds * 1000:,.0f} ms and accepts the access key"
    if looked_at and ids:
        yield from _known(looked_at[0], ids, answers, now)


def _known(sample: Sample, ids: list[str], answers: list[Any], now: datetime) -> Iterator[Said]:
    """Report whether the service knows the sessions, and whether its times fit the table's."""
    from statistics import median

    from usms_pipeline.cli.sample import is_young, sent_at
    from usms_pipeline.days.log import as_table
    from usms_pipeline.figures.queries import zones_differ
    from usms_pipeline.people.phones import PhoneBook
    from usms_pipeline.service.decode import decode

    settings = sample.settings
    book = PhoneBook(b"", settings.default_region, "masked")
    said = decode(as_table(answers), book, settings.receipt_timezone).observations.to_pylist()
    heard = {row["session_no"] for row in said if row["word"] or row["received_at"]}
    refused = {row["session_no"] for row in said if row["status"] == "invalid"}
    named = heard | {row["session_no"] for row in said if row["session_submit_status"]} - refused
    column = f"{settings.session_column!r} (USMS_SESSION_COLUMN)"
    of = wording.counted(len(ids), "session")
    known = f"has receipts of {len(heard)} of {of} sampled"
    if heard or len(named) == len(ids):
        more = f", and knows {len(named - heard)} more without one" if named - heard else ""
        yield "ok" if heard else "warning", known + more
    elif all(is_young(sample, one, now) for one in ids):
        raise UsmsError(
            f"it knows none of {of} sampled from {column}: does that column hold what the send "
            "call returned, and were they sent with this access key?"
        )
    else:
        yield (
            "warning",
            f"{known}: none was sent 1 to 72 hours ago, and the service forgets older ones",
        )
    if refused:
        yield (
            "warning",
            f"it refuses {len(refused)} of {of} sampled from {column}: are these session numbers?",
        )
    delays = [
        (row["received_at"] - sent_at(sample, row["session_no"])).total_seconds()
        for row in said if row["received_at"]
    ]  # fmt: skip
    if len(delays) > 1 and (hint := zones_differ(median(delays))):
        yield "warning", hint


Said = tuple[str, str] | Finding
Look = Callable[["Settings"], Iterator[Said]]


def _show(finding: Finding) -> None:
    """Print one line as soon as it is known; longer ones wrap under themselves."""
    console, mark, text = out(), _MARKS[finding.state], escape(finding.text)
    if console.is_terminal:
        line = Table.grid(padding=(0, 1))
        line.add_column(width=1)
        line.add_column(width=10, style="dim")
        line.add_column(overflow="fold")
        line.add_row(mark, finding.topic, text)
        console.print(line)
    else:  # a log or a pipe wants a line a finding
        console.print(f"{mark} {finding.topic}: {text}", soft_wrap=True)
    if finding.rows:
        zone = usms_pipeline.settings.load().zone
        names = ("session", "phone", "country", f"sent ({zone.key})")
        rows = [
            (*list(row.values())[:3], f"{row['sent_at'].astimezone(zone):%Y-%m-%d %H:%M:%S}")
            for row in finding.rows
        ]
        console.print(rows_table(names, rows))
