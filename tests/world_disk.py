"""What lies in a data directory, read with pyarrow and json alone: the witness, not the suspect."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq

from usms_pipeline.people.phones import PhoneBook
from usms_pipeline.service.api import canonical

Trouble = tuple[str, str | None, Any]
"""Kind, session, and what else tells one entry of the quarantine from another."""


class Told(NamedTuple):
    """One receipt in one answer. ``number`` is the hash of the phone named, '' where none is."""

    session_no: str
    number: str
    asked_at: datetime
    status: str
    word: str | None
    received_at: datetime | None = None
    submit_status: str | None = None
    digits: str = ""


class Asked(NamedTuple):
    """A session in an answered question; ``is_refused`` when it was refused alone."""

    session_no: str
    asked_at: datetime
    submit_status: str | None = None
    is_refused: bool = False
    is_unanswered: bool = False


@dataclass
class Reading:
    """What some answers say, in their order; ``vain``: who got no readable answer."""

    asked: list[Asked] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    vain: list[Asked] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)

    @property
    def sessions(self) -> set[str]:
        return {one.session_no for one in (*self.asked, *self.vain)}


def read(answers: Iterable[dict[str, Any]], book: PhoneBook) -> Reading:
    reading = Reading()
    for answer in answers:
        ids, at = answer["ids"], answer["asked_at"]
        if answer["verdict"] == "refused":
            reading.asked += [Asked(session, at, is_refused=True) for session in ids]
            reading.troubles += [("refused_id", session, at) for session in ids]
        elif answer["verdict"] == "unanswered":
            reading.asked += [Asked(session, at, is_unanswered=True) for session in ids]
            reading.troubles += [("unanswered_id", session, ()) for session in ids]
        elif answer["verdict"] == "unreadable":
            reading.vain += [Asked(session, at) for session in ids]
            reading.troubles.append(("unreadable_answer", None, (*ids, answer["body"].decode())))
        elif answer["verdict"] == "forgotten":
            reading.asked += [Asked(session, at) for session in ids]
        else:
            items = json.loads(answer["body"])["Data"]
            words = _words(items)
            reading.asked += [Asked(session, at, words.get(session)) for session in ids]
            for item in items:
                _read_item(item, ids, at, book, reading)
    return reading


def _words(items: list[Any]) -> dict[str, str]:
    """Return each session's word on its submission."""
    return {one["SessionNo"]: one["Status"] for one in items if "Status" in one}


def trouble(entry: dict[str, Any]) -> Trouble:
    """Return what an entry of the quarantine is about, to compare it with what was read here."""
    kind, session, ids = entry["kind"], entry["session_no"], entry["ids"]
    if kind == "refused_id":
        return kind, session, entry["asked_at"]
    if kind == "unanswered_id":
        return kind, session, ()
    if kind == "unreadable_answer":
        return kind, None, (*ids, entry["body"].decode())
    text = _text(json.loads(entry["body"])) if entry["body"] else ""
    return kind, session, (text,) if session else (*ids, text)


def _text(item: Any) -> str:
    return json.dumps(item, sort_keys=True)


def _read_item(item: Any, ids: list[str], at: datetime, book: PhoneBook, into: Reading) -> None:
    if not isinstance(item, dict) or not item.get("SessionNo"):
        into.troubles.append(("bad_item", None, (*ids, _text(item))))
        return
    session = item["SessionNo"]
    if session not in ids:
        into.troubles.append(("unasked_session", session, (_text(item),)))
        return
    shown = [one for key in ("Receipt", "ReceiptSet") for one in _listed(item.get(key))]
    if not all(isinstance(one, dict) for one in shown):
        into.troubles.append(("bad_item", session, (_text(item),)))
    into.told += [
        _told(item, one, at, book)
        for one in shown
        if isinstance(one, dict) and any(v not in (None, "") for v in one.values())
    ]


def _listed(shown: Any) -> Iterator[Any]:
    if isinstance(shown, list):
        yield from shown
    elif shown is not None:
        yield shown


def _told(item: dict[str, Any], shown: dict[str, Any], at: datetime, book: PhoneBook) -> Told:
    word = shown.get("Status", shown.get("ReceiptResult"))
    phone = shown.get("Phone")
    number = book.recipient_id(phone) if phone else ""
    status, received, submitted = canonical(word), _received(shown), item.get("Status")
    digits = digits_of(phone)
    return Told(item["SessionNo"], number, at, status, word, received, submitted, digits)


def digits_of(phone: str | None) -> str:
    """Return the digits of a number with its country code, which a Chinese one may go without."""
    digits = re.sub(r"\D", "", phone or "").removeprefix("00")
    return f"86{digits}" if len(digits) == 11 and digits.startswith("1") else digits


def _received(shown: dict[str, Any]) -> datetime | None:
    if shown.get("ReceiptTime"):
        return datetime.fromtimestamp(shown["ReceiptTime"], UTC)
    if text := shown.get("ReceiveTime"):
        local = datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(
            tzinfo=ZoneInfo("Asia/Shanghai")
        )
        return local.astimezone(UTC)
    return None


Mark = tuple[int, int, int]
Rows = list[dict[str, Any]]


def mark(path: Path) -> Mark | None:
    """Return what distinguishes a file from the one that had its name before."""
    if not path.exists():
        return None
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def written_at(run: str) -> datetime:
    """Return when a run began, as its name says."""
    return datetime.strptime(run.split("-")[0], "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC)


@dataclass
class Found:
    """A data directory as it lies there at one moment."""

    marks: dict[str, Mark | None] = field(default_factory=dict)
    days: dict[date, Rows] = field(default_factory=dict)
    footers: dict[date, dict[str, Any]] = field(default_factory=dict)
    blocks: dict[str, Rows] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)
    entries: dict[Trouble, str] = field(default_factory=dict)
    blocks_of: dict[Trouble, str] = field(default_factory=dict)
    """Of each entry of the quarantine the block that it was found in."""

    @property
    def runs(self) -> set[str]:
        return {name.split("/")[1] for name in self.blocks}

    @property
    def open_blocks(self) -> set[str]:
        return {name for name in self.blocks if name.split("/")[1] in self.open}

    @property
    def runs_to_decide(self) -> set[str]:
        """The runs that something in the quarantine is of that nobody has decided about."""
        undecided = (trouble for trouble, state in self.entries.items() if state == "open")
        return {self.blocks_of[one].split("/")[1] for one in undecided}


class Disk:
    """Looks at a data directory; a file is read once, until another takes its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[Path, tuple[Mark | None, tuple[Rows, dict[str, str]]]] = {}

    def files(self) -> dict[str, Mark | None]:
        """Return a mark of every finished file of the zones: another when it is replaced."""
        return {
            path.relative_to(self.folder).as_posix(): mark(path)
            for pattern in ("*/*/[!.]*.parquet", "responses/open/*.json")
            for path in self.folder.glob(pattern)
        }

    def look(self) -> Found:
        found = Found(self.files())
        for name, seen in sorted(found.marks.items()):
            zone, folder, file = name.split("/")
            if folder == "open":
                found.open.add(file.removesuffix(".json"))
                continue
            rows, said = self._content(self.folder / name, seen)
            if zone == "receipts":
                day = date.fromisoformat(folder[10:])
                found.days[day], found.footers[day] = rows, json.loads(said["day"])
            elif zone == "responses":
                found.blocks[name] = rows
            else:
                keys = [trouble(row) for row in rows]
                assert found.entries.keys().isdisjoint(keys), "told twice"
                assert len({*keys}) == len(keys), "told twice"
                found.entries |= dict(zip(keys, (row["state"] for row in rows), strict=True))
                found.blocks_of |= dict.fromkeys(keys, name.replace("quarantine", "responses", 1))
        return found

    def texts(self) -> dict[str, str]:
        """Return all that the files hold, for a name or a number to be looked for."""
        return {
            name: str(self._content(self.folder / name, seen)[0])
            for name, seen in self.files().items()
            if name.endswith(".parquet")
        }

    def _content(self, path: Path, seen: Mark | None) -> tuple[Rows, dict[str, str]]:
        if self._read.get(path, (None, None))[0] != seen:
            with path.open("rb") as file:
                table = pq.ParquetFile(file).read()
            raw = table.schema.metadata or {}
            said = {k.decode()[5:]: v.decode() for k, v in raw.items() if k.startswith(b"usms.")}
            self._read[path] = (seen, (table.to_pylist(), said))
        return self._read[path][1]
