"""Nothing secret or personal leaves the private zones: canaries go in everywhere, and are sought.

The service repeats credentials, ids and numbers wherever it can put a text; the source quotes
values in its errors; everything that can be run is run, and every byte of it is read.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import subprocess
import sys
import traceback
import warnings
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from tests.loopback import Response, Seen, Server, code, serving
from tests.services import Database
from usms_pipeline import source
from usms_pipeline.cli import app
from usms_pipeline.components import ReceiptPipeline
from usms_pipeline.contract import wording
from usms_pipeline.contract.errors import UsmsError
from usms_pipeline.defs.account import RANGE_END, RANGE_START
from usms_pipeline.people.phones import PhoneBook
from usms_pipeline.pipeline import Pipeline
from usms_pipeline.service import careful, decode
from usms_pipeline.service.client import Client, Reply
from usms_pipeline.service.fetch import Answer
from usms_pipeline.service.transport import CurlTransport
from usms_pipeline.settings import Settings
from usms_pipeline.store.dataset import PRIVATE

KEY_ID, KEY_SECRET = "AKID-canary/ZQX=", "canary+SECRET/WVU="
PASSWORD = "canary:pass/word%TSR"
PHONE_KEY = "c0ffee15" * 8
SECRETS = (KEY_ID, KEY_SECRET, PASSWORD, PHONE_KEY, PHONE_KEY.upper())

PHONES = ("+8613987654321", "+447911654987", "+4915123498765", "+14158675309", "+8618576149203")
NATIONAL = ("13987654321", "7911654987", "15123498765", "4158675309", "18576149203")
"""Ten digits or more, so that no figure is taken for one by chance."""
SPELLINGS = (
    "{e164}", "{digits}", "00{digits}", "({code}){national}", "(00{code}) {spaced}",
    "+{code}-{dashed}", "tel:{e164}",
)  # fmt: skip
BASIC = b64encode(f"{KEY_ID}:{KEY_SECRET}".encode()).decode()

_JUNK = re.compile(r"[\s().\-/_\u00a0\u2010-\u2015]")


def spelled(nth: int) -> str:
    """Return a canary's number in one of many spellings."""
    e164, national = PHONES[nth % len(PHONES)], NATIONAL[nth % len(PHONES)]
    parts = {
        "e164": e164,
        "digits": e164[1:],
        "code": e164[1 : len(e164) - len(national)],
        "national": national,
        "spaced": " ".join((national[:3], national[3:6], national[6:])),
        "dashed": "-".join((national[:4], national[4:])),
    }
    return SPELLINGS[nth // len(PHONES) % len(SPELLINGS)].format(**parts)


def found(text: str) -> list[str]:
    """Return the canaries that a text gives away."""
    folded = text.casefold()
    secrets = {form for s in (*SECRETS, BASIC) for form in (s, quote(s, safe=""), quote(s))}
    secrets |= {b64encode(s.encode()).decode().rstrip("=") for s in SECRETS}
    told = [secret for secret in sorted(secrets) if secret.casefold() in folded]
    digits = _JUNK.sub("", text)
    return told + [number for number in NATIONAL if number in digits]


def everything(folder: Path, left_out: tuple[str, ...] = ()) -> Iterator[tuple[Path, str]]:
    """Yield every file below a folder as text: its name, its bytes, and what these mean."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or any(part in left_out for part in path.parts):
            continue
        raw = path.read_bytes()
        yield path, f"{path.name}\n{raw.decode('latin-1')}\n{raw.decode('utf-8', 'replace')}"
        if path.suffix == ".parquet":
            file = pq.ParquetFile(path)
            yield path, f"{file.schema_arrow.metadata} {file.metadata.metadata} {file.read()!s}"
            yield path, str(file.read().to_pylist())
        elif path.suffix == ".duckdb":
            yield from ((path, text) for text in _tables(path))


def _tables(path: Path) -> Iterator[str]:
    """Yield every row of every table, and the text of every view and macro."""
    with duckdb.connect(str(path), read_only=True) as con:
        for (name,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            yield str(con.execute(f'FROM "{name}"').fetchall())
        yield str(con.execute("SELECT sql FROM duckdb_views()").fetchall())
        yield str(
            con.execute("SELECT macro_definition, comment FROM duckdb_functions()").fetchall()
        )


def leaks(folder: Path, left_out: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """Return what files give away, by file."""
    told = {
        str(path.relative_to(folder)): found(text) for path, text in everything(folder, left_out)
    }
    return {name: canaries for name, canaries in told.items() if canaries}


NOW = datetime.now(UTC)
ROWS = 70
POISON = 33
OUT_OF_REACH = (*PRIVATE, "shop.sqlite", "phone.key", ".env")


def words(seen: Seen) -> str:
    """All that a service can give away."""
    numbers = " ".join(spelled(n) for n in range(35))
    return f"{seen.headers['authorization']} {KEY_ID} {KEY_SECRET} {' '.join(seen.ids)} {numbers}"


class Service:
    """Answers, but talks too much: in every text of every kind of answer."""

    def __init__(self) -> None:
        self.asked, self.broken = 0, 11  # as many until the session stands alone, unreadable
        self.always: Callable[[Seen], Response] | None = None

    def __call__(self, seen: Seen) -> Response:
        self.asked += 1
        if self.always is not None:
            return self.always(seen)
        if f"s-{POISON}" in seen.ids:
            return code(215392, f"Invalid parameter [id] {words(seen)}")
        if self.asked % 7 == 3:
            return code(215400, f"server error {words(seen)}", status=500)
        if self.asked % 7 == 5:
            return Response(f"<html>{words(seen)}".encode(), 503)
        if "s-5" in seen.ids and self.broken:
            self.broken -= 1
            return Response(f'{{"broken {words(seen)}'.encode())
        items = [self._item(session) for session in seen.ids]
        bad = [{"SessionNo": seen.ids[0], "Receipt": [words(seen)]}, {"SessionNo": "nobody's",
               "Receipt": {"Phone": PHONES[0]}}, words(seen)]  # fmt: skip
        return code(0, words(seen), Data=[*items, *bad], Extra=words(seen))

    def _item(self, session: str) -> dict[str, Any]:
        nth = int("0" + session.removeprefix("s-")) if session.startswith("s-") else 0
        number = spelled(nth)
        receipt = {
            "Phone": number,
            "Status": (f"blocked {number}", "delivered", "UNDELIV", "sending")[nth % 4],
            "ReceiptCode": (f"X:{NATIONAL[nth % 5]}", "MK:0001", "000020011")[nth % 3],
            "ReceiptDesc": f"number {number} is on a list",
            "ReceiveTime": (NOW + timedelta(hours=7, minutes=1)).strftime("%Y-%m-%d %H:%M:%S"),
        }
        stranger = {"Phone": spelled(nth + 1), "Status": "delivered"}
        return {"SessionNo": session, "Status": f"sent to {number}", "Receipt": [receipt, stranger]}


class Shop:
    """A folder with a source, settings in the environment, and everything that was ever shown."""

    def __init__(self, folder: Path, server: Server, service: Service, log: list[str]) -> None:
        self.folder, self.server, self.service, self.shown = folder, server, service, log
        self.data = folder / "data"
        self.inside: set[str] = set()
        self.settings = {
            "USMS_BASE_URL": server.url,
            "USMS_ACCESS_KEY_ID": KEY_ID,
            "USMS_ACCESS_KEY_SECRET": KEY_SECRET,
            "USMS_SOURCE_URL": f"sqlite:///{folder}/shop.sqlite?password={PASSWORD}",
            "USMS_SOURCE_TABLE": "sent",
            "USMS_PHONE_COLUMN": "phone",
            "USMS_PHONE_KEY": PHONE_KEY,
            "USMS_DIMENSIONS": "template",
            "USMS_DATA_DIR": str(self.data),
            "USMS_START_DATE": (NOW - timedelta(days=3)).date().isoformat(),
            "USMS_TIMEOUT_SECONDS": "5",
            "USMS_BATCH_SIZE": "5",
        }

    def __call__(self, *arguments: str, **given: str) -> Result:
        more = {f"USMS_{name.upper()}": value for name, value in given.items()}
        result = CliRunner().invoke(app, arguments, env={**self.settings, **more})
        self.shown.append(f"$ usms {arguments[0]} …\n{result.output}")
        if result.exc_info and not isinstance(result.exception, SystemExit):
            self.shown.append("".join(traceback.format_exception(*result.exc_info)))
        return result

    def fill(self) -> None:
        with closing(sqlite3.connect(self.folder / "shop.sqlite")) as con, con:
            con.execute("CREATE TABLE sent (session_no, sent_at TEXT, phone TEXT, template TEXT)")
            con.executemany(
                "INSERT INTO sent VALUES (?, ?, ?, ?)",
                [
                    (f"s-{n}", (NOW - timedelta(hours=1)).isoformat(), spelled(n), f"t{n % 3}")
                    for n in range(ROWS)
                ],
            )


@contextmanager
def everything_logged(into: list[str]) -> Iterator[None]:
    """Keep what any library logs, at any level, with its exceptions."""

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            into.append(logging.Formatter().format(record))

    handler, root = Keep(1), logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(1)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop in which every command has been run, in good times and in bad."""
    folder, log = tmp_path_factory.mktemp("shop"), list[str]()
    service = Service()
    with (
        pytest.MonkeyPatch.context() as patch,
        serving(service) as server,
        everything_logged(log),
    ):
        for name in [name for name in os.environ if name.startswith("USMS_")]:
            patch.delenv(name)
        patch.chdir(folder)
        it = Shop(folder, server, service, log)
        it.fill()
        run_all(it)
        yield it


def run_all(shop: Shop) -> None:
    for command in (
        "check", "check --format json", "plan --all", "plan --all --format json", "run --all",
        "run --all --format json",
        "--debug run", "quarantine list --state all", "quarantine list --state all --format json",
        "quarantine replay --all", "rebuild", "report", "rates", "rates --by phone",
        "rates --by nothing",
    ):  # fmt: skip
        shop(*command.split())
    for column in ("template", "provider_status", "provider_code", "provider_desc", "recipient",
                   "submit_status", "phone", "operator"):  # fmt: skip
        for form in ("table", "csv", "json"):
            shop("rates", "--by", column, "--format", form)
    shop.inside = {c for zone in PRIVATE for cs in leaks(shop.data / zone).values() for c in cs}
    shop("forget", "--phone", PHONES[4], "--yes")
    shop("report")
    shop("quarantine", "dismiss", "--all")
    for always in (
        lambda seen: code(215393, f"signature {words(seen)}"),
        lambda seen: Response(words(seen).encode(), 403),
        lambda seen: code(4711, words(seen)),
        lambda seen: Response(status=302, headers={"Location": f"http://x/?{PASSWORD}"}),
    ):
        shop.service.always = always
        for n, debug in enumerate(([], ["--debug"])):
            shop(*debug, "check")
            shop(
                *debug, "run", "--all", data_dir=str(shop.folder / f"data-{shop.service.asked}-{n}")
            )
    shop.service.always = None
    for wrong in (
        {"phone_key": "ab" * 32}, {"phone_key": PHONE_KEY + "x"}, {"phones": KEY_SECRET},
        {"base_url": f"http://{KEY_ID}:{KEY_SECRET}@127.0.0.1"}, {"source_table": "no"},
        {"source_url": f"postgresql://u:{PASSWORD}@127.0.0.1:9/x"},
        {"source_url": f"u:{PASSWORD}@127.0.0.1/x"}, {"source_url": f"mysql://u:{PASSWORD}@h/x"},
        {"source_url": "nosuch://u:canary%3Apass%2Fword%25TSR@h/x"},
        {"data_dir": "/proc/no"}, {"phone_column": "fone"},
    ):  # fmt: skip
        for command in (["check"], ["run"], ["--debug", "run"], ["--debug", "rebuild"]):
            shop(*command, **wrong)


pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),  # backfill_policy
]


def test_the_canaries_did_go_in_and_would_be_found(shop):
    """They are in the private zones, in every form that is sought."""
    assert shop.inside >= {*NATIONAL, KEY_ID, KEY_SECRET, BASIC}
    assert len(shop.shown) > 100
    assert [n for n in range(35) if not found(f"x {spelled(n)} y")] == []
    assert found(f"Basic {BASIC}") and found(quote(PASSWORD, safe=""))  # noqa: PT018


def test_no_command_tells_a_secret_or_a_number(shop):
    """Nor what any library logged meanwhile, nor a traceback that `--debug` prints."""
    told = {text: canaries for text in shop.shown if (canaries := found(text))}
    assert not told, "\n\n".join(f"{v}: {k}" for k, v in told.items())[:5000]


def test_no_file_outside_the_private_zones_holds_a_secret_or_a_number(shop):
    """Receipts, warehouse, report, pace, survey, tombstones, locks."""
    assert leaks(shop.folder, OUT_OF_REACH) == {}
    zones = {path.name for path in shop.data.iterdir()}
    assert zones >= {*PRIVATE, "receipts", "usms.duckdb", "report.html"}


def test_no_private_zone_holds_the_source_password_or_the_key(shop):
    assert not shop.inside & {PASSWORD, PHONE_KEY, PHONE_KEY.upper()}


def test_the_words_of_the_service_are_published_without_numbers(shop):
    """A code of a carrier's stays as it is, and so does the rest of a description."""
    with duckdb.connect(str(shop.data / "usms.duckdb"), read_only=True) as con:
        said = con.execute(
            "SELECT DISTINCT provider_code, provider_desc, submit_status FROM receipts "
            "WHERE provider_desc IS NOT NULL AND NOT starts_with(provider_desc, 'RetCode')"
        ).fetchall()
    assert {row[0] for row in said} == {"X:…", "MK:0001", "000020011"}
    assert {row[1] for row in said} <= {"number … is on a list", "number tel:… is on a list"}
    assert all("sent to" in row[2] for row in said)


def test_tombstones_are_hashes_and_session_numbers(shop):
    kept = json.loads((shop.data / "forgotten.json").read_text())
    assert kept["recipients"]
    assert all(len(one) == 32 and int(one, 16) for one in kept["recipients"])
    assert all(one.startswith("s-") for one in kept["sessions"])


def test_a_notebook_shows_no_number(shop):
    """What its cells print is kept in the file, and goes wherever that goes."""
    notebook = shop.folder / "copy/02_where_and_why_it_fails.ipynb"
    notebook.parent.mkdir()
    stored = Path(__file__).parent.parent / "notebooks/02_where_and_why_it_fails.ipynb"
    notebook.write_bytes(stored.read_bytes())
    command = [sys.executable, "-m", "pytest", "--nbmake", "--overwrite", "-q", "-c", os.devnull,
               "-p", "no:cacheprovider", "--rootdir", notebook.parent, notebook]  # fmt: skip
    env = os.environ | shop.settings | {"IPYTHONDIR": str(shop.folder / ".ipython")}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert '"output_type"' in notebook.read_text("utf-8")
    assert leaks(notebook.parent) == {}


# --- Dagster --------------------------------------------------------------------------------------


def test_dagsters_storage_holds_no_secret_or_number(shop, monkeypatch, tmp_path):
    """Metadata, logs, run config, checks and failures with their causes, to the byte."""
    for name, value in shop.settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("USMS_DATA_DIR", str(tmp_path / "data"))
    home = tmp_path / "dagster"
    home.mkdir()
    today = NOW.date()
    tags = {RANGE_START: (today - timedelta(days=2)).isoformat(), RANGE_END: today.isoformat()}
    told, outcomes = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        job = ReceiptPipeline().build_defs().resolve_job_def("refresh_usms")
    with dg.DagsterInstance.local_temp(str(home)) as instance:

        def refresh(**given: str) -> None:
            with pytest.MonkeyPatch.context() as patch:
                for name, value in given.items():
                    patch.setenv(f"USMS_{name.upper()}", value)
                result = job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)
            outcomes.append(result.success)
            told.extend(str(event) for event in result.all_events)
            told.extend(str(entry) for entry in instance.all_logs(result.run_id))

        refresh()
        refresh(source_url=f"postgresql://u:{PASSWORD.replace('/', '%2F')}@127.0.0.1:9/x")
        refresh(source_table="nothing")
        shop.service.always = lambda seen: code(215393, f"signature {words(seen)}")
        refresh(data_dir=str(tmp_path / "other"))
        shop.service.always = None
        refresh(phone_key="ab" * 32)
        monkeypatch.setattr(source, "read", quotes_a_row)
        refresh()
    assert outcomes == [True, False, False, False, False, False]
    assert any("Unexpected ValueError: see line" in text for text in told)
    assert {text: c for text in told if (c := found(text))} == {}
    assert leaks(home) == {}
    assert leaks(tmp_path / "data", PRIVATE) == leaks(tmp_path / "other", PRIVATE) == {}
    assert any("KeyMismatch" in text or "another phone key" in text for text in told)


def quotes_a_row(*_: object) -> None:
    """Fail as a library does that nobody expected to."""
    row = f"can't parse ('s', '{spelled(3)}') at postgresql://u:{PASSWORD}@h/x"
    try:
        raise ZeroDivisionError(row)
    except ZeroDivisionError as error:
        raise ValueError(row) from error


# --- sources that quote a value in their errors ---------------------------------------------------


def errors_of(settings: Settings) -> str:
    """Everything that a tool may show of what a read raises: text, repr, chain and traceback."""
    pipeline = Pipeline(settings)
    shown: list[str] = []
    with everything_logged(shown):
        try:
            pipeline.plan(pipeline.everything())
        except UsmsError as error:
            shown += [str(error), repr(error), str(error.args)]
            shown += traceback.format_exception(error)
            return "\n".join(shown)
    pytest.fail("the read was to break off")


def of_a_view(folder: Path, url: str) -> Settings:
    return Settings(
        _env_file=None, source_url=url, source_table="v", phone_column="phone",
        data_dir=str(folder / "data"), start_date=(NOW - timedelta(days=3)).date(),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["duckdb", "postgresql", "mariadb"])
def test_an_error_that_quotes_a_value_shows_no_number(kind, request, tmp_path):
    view = "CREATE VIEW v AS SELECT 's' AS session_no, now() AS sent_at, "
    if kind == "duckdb":
        url = f"duckdb:///{tmp_path}/s.duckdb"
        with duckdb.connect(str(tmp_path / "s.duckdb")) as con:
            con.execute(f"{view} CAST(unnest(['1', '{spelled(20)}']) AS INT) AS phone")
    else:
        database: Database = request.getfixturevalue(kind)
        url = database.url
        database.execute(*{
            "postgresql": (
                "CREATE TABLE t AS SELECT unnest(ARRAY['1', '139.8765.4321 x']) AS p",
                f"{view} CAST(p AS int) AS phone FROM t",
            ),
            "mariadb": (
                "CREATE FUNCTION f(p TEXT) RETURNS TEXT BEGIN "
                "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = p; RETURN p; END",
                f"{view} f('{spelled(20)}') AS phone",
            ),
        }[kind])  # fmt: skip
    shown = errors_of(of_a_view(tmp_path, url))
    assert "was lost" in shown
    assert found(shown) == []


# --- what an object says of itself ----------------------------------------------------------------


def test_no_object_shows_a_secret_a_number_or_a_body(tmp_path):
    body = " ".join((*PHONES, *SECRETS)).encode()
    settings = Settings(
        _env_file=None, access_key_id=KEY_ID, access_key_secret=KEY_SECRET, phone_key=PHONE_KEY,
        source_url=f"postgresql://u:{PASSWORD}@h/x", data_dir=str(tmp_path),
    )  # fmt: skip
    pipeline = Pipeline(settings)
    facts = (("s",), NOW, 200, 0)
    alone = "+41445566778"  # nothing shorter settles what it is
    texts = pa.array([*PHONES, *NATIONAL, alone])
    table, book = pa.table({"phone": texts}), PhoneBook(bytes.fromhex(PHONE_KEY), "CN", "masked")
    book.describe(texts)
    shown = [
        settings, pipeline, pipeline.book, pipeline.store,
        book, book._reader,
        Client(settings, CurlTransport(), lambda: NOW),
        Reply(NOW, 200, 0, "", body), Answer(*facts, "ok", None, body),  # type: ignore[arg-type]
        careful.Reject(0, careful.BAD_ITEM, "why", "s", body), decode.Answer(0, body, ["s"]),
        careful.Parts(table, table), decode.Decoded(table, table),
    ]  # fmt: skip
    for one in shown:
        assert found(f"{one!r} {one!s}") == []
        assert b"+86" not in repr(one).encode()
        assert alone[1:] not in repr(one)


def test_a_report_of_an_unexpected_error_is_fit_to_be_sent(monkeypatch, tmp_path, capsys):
    """`usms --debug` asks to be pasted into an issue: errors of others may quote anything."""
    from usms_pipeline.cli import shell

    monkeypatch.chdir(tmp_path)
    Path(".env").write_text(f"USMS_ACCESS_KEY_SECRET={KEY_SECRET}\n")
    monkeypatch.setenv("USMS_SOURCE_URL", "postgresql://u:canary%3Apass%2Fword%25TSR@h/x")
    monkeypatch.setenv("USMS_PHONE_KEY", PHONE_KEY)

    def command() -> None:
        quoted = f"{KEY_SECRET} {PHONE_KEY} {PASSWORD} {spelled(7)} {os.environ['USMS_SOURCE_URL']}"
        raise ZeroDivisionError(quoted) from ValueError(quoted)

    shell.show_tracebacks.set(True)
    try:
        assert shell._outcome(command, []) == 1
    finally:
        shell.show_tracebacks.set(False)
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "ValueError" in shown
    assert found(shown) == []


@pytest.mark.parametrize("nth", range(35))
def test_a_number_is_taken_out_of_a_text_in_any_spelling(nth):
    text = wording.without_numbers(f"no such user: {spelled(nth)}, at 192.168.100.200")
    assert found(text) == []
    assert text.startswith("no such user: ")
    assert text.endswith(", at 192.168.100.200")


@pytest.mark.parametrize("text", ["RetCode 215392", "12:30:15", "10,000 of 50,000", "MK:0001"])
def test_what_is_too_short_for_a_number_stays(text):
    assert wording.without_numbers(text) == text
