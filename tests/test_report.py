"""The report: true figures, nothing that harms, nothing personal, nothing fetched."""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import re
import sys
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from itertools import islice
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pytest

from benchmarks import measure, views
from tests import rate_worlds
from tests.examples import examples
from tests.made_receipts import HARM, NOW, Row, five_days, message, opened
from tests.rate_worlds import Trouble, World
from usms_pipeline.contract.errors import OtherWarehouse, StorageError
from usms_pipeline.contract.metrics import METRICS
from usms_pipeline.contract.status import STATUSES
from usms_pipeline.figures import queries, report
from usms_pipeline.figures.queries import rates_expected
from usms_pipeline.figures.report import body, periods
from usms_pipeline.figures.report.figures import ask
from usms_pipeline.figures.report.quality import Finding, findings
from usms_pipeline.figures.report.reasons import FAMILIES, family
from usms_pipeline.settings import Settings
from usms_pipeline.source import LeftOut

SETTINGS = {"USMS_TIMEZONE": "Asia/Shanghai", "USMS_CUTOFF_HOURS": "72.0"}
VOID = {"meta", "link", "br", "hr", "img"}
CHINESE = re.compile(r'<span lang="zh-CN">.*?</span>')


class Page(HTMLParser):
    """What a browser makes of the page: its text, tags, attributes; every tag closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source = text = CHINESE.sub("", text)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self._open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def written(con: duckdb.DuckDBPyConnection, folder: Path, **given: object) -> str:
    """Build a report and read it."""
    options = {"generated_at": NOW, "settings_summary": SETTINGS, **given}
    path = report.build(report.ask(con), folder / "report.html", **options)  # type: ignore[arg-type]
    return Path(path).read_text(encoding="utf-8")


def of(rows: list[Row], folder: Path, **given: object) -> Page:
    """Publish rows and give the page that is made of them."""
    with opened(folder / "data", rows) as con:
        return Page(written(con, folder, **given))


def found(rows: list[Row], folder: Path) -> dict[str, Finding]:
    """Publish rows and give what the checks of the data find, by check."""
    with opened(folder / "data", rows) as con:
        return {one.check: one for one in findings(ask(con), None, None)}


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    with opened(tmp_path_factory.mktemp("data"), five_days()) as con:
        yield con


@pytest.fixture(scope="module")
def source(warehouse: duckdb.DuckDBPyConnection, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    return written(warehouse, folder, quarantined=3, left_out=LeftOut())


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def test_the_headline_figures_are_the_warehouses(warehouse, page):
    (total,) = rates_expected(warehouse).to_arrow_table().to_pylist()
    assert f"{total['messages']:,} messages sent. So far {total['delivery_rate']:.1%}." in page.text
    assert f"in, expect {total['expected_rate']:.1%} (19 times in 20" in page.text
    assert "with 95% confidence" not in page.text
    low, high = total["delivery_rate_if_rest_failed"], total["delivery_rate_if_rest_arrived"]
    assert f"can't be below {low:.1%} or above {high:.1%}" in page.text
    assert total["awaited"] > 0
    assert f"When the {total['awaited']:,} still open are in, expect" in page.text


def test_a_rate_has_confidence_where_nothing_is_open(tmp_path):
    rows = [message(n, NOW, "failed" if n < 3 else "delivered") for n in range(40)]
    text = of(rows, tmp_path).text
    said = r"92.5% of those with a final status delivered \((8\d.\d)% – (9\d.\d)% with 95%"
    assert re.search(said, text)
    assert "expect " not in text


def test_it_says_which_days_and_as_of_when_in_the_settings_zone(page):
    assert "Messages sent 17 Nov – 22 Nov 2026" in page.text
    assert "based on receipts collected until 22 Nov 2026 20:00 (Asia/Shanghai)." in page.text


def test_every_bucket_is_shown_and_they_add_up(page, source):
    rows = re.findall(
        r'<span lang="en">(Delivered|Failed|Rejected|Expired|Unknown|Pending|Unrecognized|Invalid)'
        r'</span></th><td class="figure">([\d,]+)</td>',
        CHINESE.sub("", source),
    )
    assert len(rows) == 8
    counted = sum(int(number.replace(",", "")) for _, number in rows)
    assert f"{counted:,} messages sent" in page.text


def test_no_phone_number_and_no_recipient_is_in_it(source):
    assert "138****" not in source
    assert f"{7:032x}" not in source
    assert "s100" not in re.sub(r"<svg.*?</svg>", "", source, flags=re.DOTALL)


def test_the_report_has_the_landmarks_a_screen_reader_needs(page):
    assert ("lang", "en") in page.attributes
    assert page.tags.count("h1") == 1
    assert page.tags.count("table") == page.tags.count("caption")
    assert {"header", "main", "footer", "section", "table"} <= set(page.tags)


def test_no_line_breaks_between_a_number_and_its_unit(source):
    """Of the figures in tables and the sentences."""
    shown = re.findall(r'<(span|span lang="en"|p|td class="figure")>([^<]*)</', source)
    texts = " ".join(text for _, text in shown)
    assert re.search(r"\d\u00a0s", texts)
    assert re.findall(r"\d (?:s|min|h)\b", texts) == []


# --- what the script reads ------------------------------------------------------------------------


def held(source: str) -> tuple[dict[str, Any], dict[str, dict[str, list[int]]]]:
    """Read what a page holds as its script does: the figures, and its tables by column."""
    said = json.loads(re.search(r'id="figures">(.*?)</script>', source, re.DOTALL)[1])  # type: ignore[index]
    raw = zlib.decompress(base64.b64decode(re.search(r'id="packed">(.*?)<', source)[1]))  # type: ignore[index]
    numbers = iter(array("I", raw))
    tables = {
        name: {column: list(islice(numbers, layout["rows"])) for column in layout["columns"]}
        for name, layout in said["tables"].items()
    }
    assert next(numbers, None) is None
    return said, tables


def test_the_counts_are_the_warehouses_by_every_column(warehouse, source):
    said, tables = held(source)
    counts = tables["counts"]
    assert [one["name"] for one in said["columns"]] == ["country", "operator", "template"]
    for n, column in enumerate(said["columns"]):
        sums: Counter[str] = Counter()
        for place, messages in zip(counts[f"v{n}"], counts["messages"], strict=True):
            sums[column["values"][place]] += messages
        rows = warehouse.sql(f"FROM delivery_rate_by('{column['name']}')").fetchall()
        assert dict(sums) == {row[0] or "not known": row[1] for row in rows}
    (total,) = rates_expected(warehouse).to_arrow_table().to_pylist()
    lost = total["failed"] + total["rejected"] + total["expired"]
    assert sum(counts["delivered"]) == total["delivered"]
    assert sum(counts["lost"]) == sum(tables["failures"]["messages"]) == lost
    assert sum(counts["waiting"]) == total["awaited"]
    (fast,) = warehouse.sql(
        "SELECT count(*) FROM receipts WHERE is_announced AND status = 'delivered' "
        "AND delivery_seconds <= 30"
    ).fetchall()
    assert sum(counts["fast"]) == fast[0]


def test_forecasts_are_the_warehouses_for_all_and_each_value(warehouse, source):
    said, _ = held(source)
    (total,) = rates_expected(warehouse).to_arrow_table().to_pylist()
    value, low, high, *_ = said["guesses"]["7:0:-1:0"]
    assert [value, low, high] == pytest.approx(
        [total[f"expected_rate{end}"] for end in ("", "_low", "_high")], abs=1e-5
    )
    by_country = rates_expected(warehouse, "country").to_arrow_table().to_pylist()
    for place, name in enumerate(said["columns"][0]["values"]):
        for row in by_country:
            if (row["country"] or "not known") == name:
                found = said["guesses"][f"7:0:0:{place}"][0]
                assert found == pytest.approx(row["expected_rate"], abs=1e-5)


def test_hours_are_those_of_the_settings_zone(tmp_path):
    with opened(tmp_path / "data", [message(1, NOW)]) as con:
        asked = report.ask(con, ZoneInfo("Asia/Kolkata"))
    assert asked.periods is not None
    assert asked.periods.counts["hour"].to_pylist() == [24 * 179 + 17]


@pytest.mark.long
def test_a_change_is_the_sql_macros_and_what_waited_then_is_told(struck):
    source, change = struck
    said, _ = held(source)
    value, low, high = said["changes"]["7:0:-1:0"]
    assert low < value < high
    assert value == pytest.approx(change["change"], abs=0.02)
    assert 0 < said["waits"]["7"] < 0.1
    (alert,) = (one for one in said["alerts"] if one["kind"] == "failing")
    column = said["columns"][alert["column"]]
    assert (alert["by"], alert["name"]) == ("operator", "China Unicom (CN)")
    assert column["values"][alert["place"]] == "China Unicom (CN)"
    assert alert["extra"] == round(alert["affected"] - alert["usual"] * alert["messages"])


def test_a_dimension_with_many_values_names_the_most_frequent(tmp_path):
    rows = [message(n, NOW, template=f"t{n % 50 % 45:03}") for n in range(100)]
    with opened(tmp_path / "data", rows) as con:
        said, tables = held(written(con, tmp_path))
    names = said["columns"][2]["values"]
    assert names[:3] == ["all others", "t000", "t001"]
    assert len(names) == 41
    assert sum(tables["counts"]["messages"]) == 100
    assert 0 in tables["counts"]["v2"]


def test_where_there_are_too_many_rows_fewer_values_have_a_name(warehouse):
    columns, zone = ["country", "template"], ZoneInfo("UTC")
    whole = periods.ask(warehouse, columns, zone)
    small = periods.ask(warehouse, columns, zone, most_rows=10)
    assert whole is not None
    assert small is not None
    assert [len(one) for one in small.values] == [1, 1]
    assert small.counts.num_rows < whole.counts.num_rows
    assert sum(small.counts["messages"].to_pylist()) == sum(whole.counts["messages"].to_pylist())


def test_reasons_have_their_family_and_no_name_ends_the_script(source):
    said, _ = held(source)
    families = {text: said["families"][n]["name"] for text, n in said["reasons"]}
    assert families["号码不存在"] == "Number not in use"
    assert families["absent & <b>lost</b> · UNDELIV"] == "Phone off or out of reach"
    assert families["SGIP:2"] == "Other or no reason given"
    assert source.count("<script") == source.count("</script>") == 3
    assert HARM in said["columns"][2]["values"]


@pytest.mark.parametrize(
    ("code", "description", "name"),
    [
        ("MB:1042", "Blocked by the subscriber", "Blocked"),
        ("BLACKNO", None, "Blocked"),
        ("SIGNERR", "Signature not approved", "Content or signature"),
        ("NETERR", "Operator network not available", "Carrier or network"),
        ("DB:0119", "关机或停机", "Phone off or out of reach"),
        ("EXPIRED", "超过有效期", "Phone off or out of reach"),
        ("MK:0012", "Number not in service", "Number not in use"),
    ],
)
def test_a_reason_is_one_whatever_its_language(code, description, name):
    assert FAMILIES[family(code, description)].name == name


def test_it_fetches_nothing_and_runs_only_its_own_script(page, source):
    targets = [value for name, value in page.attributes if name in ("href", "src", "xlink:href")]
    assert [target for target in targets if target != "data:,"] == []
    assert "default-src 'none'" in source
    digest = re.search(r"script-src 'sha256-([^']+)'", source)[1]  # type: ignore[index]
    script = re.search(r"<script>(.*?)</script>", source, re.DOTALL)[1]  # type: ignore[index]
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() == digest
    assert not re.findall(r"@import|url\((?!#clip)", source)
    addresses = set(re.findall(r"https?://[^\s\"'<]+", source))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_no_table_is_longer_than_twelve_rows(source):
    tables = re.findall(r"<tbody>(.*?)</tbody>", source, re.DOTALL)
    assert len(tables) >= 3
    assert max(table.count("<tr>") for table in tables) <= 12


# --- two languages --------------------------------------------------------------------------------

FOLDER = Path(report.__file__).parent
SCRIPT = (FOLDER / "page.js").read_text("utf-8")
_TEXT = re.compile(r'\bt\((?:[^"()]*\? )?"([^"]*)"(?: : "([^"]*)")?')
NAMED_BY_PYTHON = {
    "country", "operator", "all others", "not known", "all messages", "no reason given",
    "Rarer reasons",
}  # fmt: skip


class Marked(HTMLParser):
    """The texts and labels of a page: those that the script translates, and those it does not."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: set[str] = set()
        self.others: set[str] = set()
        self._is_marked = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._is_marked = "data-t" in given
        if label := given.get("aria-label"):
            (self.texts if self._is_marked else self.others).add(label)

    def handle_data(self, data: str) -> None:
        if data.strip():
            (self.texts if self._is_marked else self.others).add(data)


def _translated() -> set[str]:
    return {text for found in _TEXT.findall(SCRIPT) for text in found if text}


def _said_by_python() -> set[str]:
    """Return the texts that the report's modules say, and the words of statuses and metrics."""
    calls = [
        node.args[0]
        for path in FOLDER.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "said"
    ]
    texts = {
        part.value
        for call in calls
        for part in ([call.body, call.orelse] if isinstance(call, ast.IfExp) else [call])
        if isinstance(part, ast.Constant)
    }
    names = {body._title(metric.name) for metric in METRICS}
    return texts | names | {one.description for one in (*METRICS, *STATUSES)}


def test_every_text_has_its_chinese_and_nothing_else_has(source):
    said, _ = held(source)
    families = {text for one in said["families"] for text in one.values()}
    marked = Marked(re.sub(r"<(style|script).*?</\1>", "", source, flags=re.DOTALL)).texts
    by_python = _said_by_python()
    assert len(marked) > 10
    assert len(by_python) > 80
    assert set(said["zh"]) == _translated() | families | marked | by_python | NAMED_BY_PYTHON
    for english, chinese in said["zh"].items():
        assert re.search(r"[\u4e00-\u9fff。]", chinese) or "{" in chinese, english
        assert set(re.findall(r"{\w+}", english)) == set(re.findall(r"{\w+}", chinese))


def test_no_text_of_the_folded_sections_is_in_one_language_only(source):
    """But names of settings and their values, and figures."""
    folded = CHINESE.sub("", source.split('id="static"')[1].split("<details>", 1)[1])
    left = re.sub(r'<span lang="en">.*?</span>|<script.*|<[^>]*>', " ", folded, flags=re.DOTALL)
    assert set(re.findall(r"[A-Za-z_]{2,}", left)) == {*SETTINGS, "Asia", "Shanghai"}
    for english, chinese in re.findall(
        r'<span lang="en">(.*?)</span><span lang="zh-CN">(.*?)</span>', source
    ):
        assert re.search(r"[\u4e00-\u9fff]", chinese), english


def test_no_text_of_the_page_is_in_one_language_only():
    live = (FOLDER / "page.html").read_text("utf-8").split('id="live"')[1].split('id="static"')[0]
    assert Marked(live.partition(">")[2]).others == set()
    code = re.sub(r"^ *//.*|(?<=[;{}]) +// .*", "", _TEXT.sub("", SCRIPT), flags=re.MULTILINE)
    classes = set(re.findall(r"\.([a-z-]+)", (FOLDER / "page.html").read_text("utf-8")))
    literals = re.findall(r'"([^"\n]*)"|`([^`\n]*)`', code)
    english = {
        text
        for found in literals
        for text in [re.sub(r"\$\{.*?\}", "", "".join(found))]
        if re.search(r"[A-Za-z]{2,} [a-z]{2,}", text) and not {*text.split()} <= classes
    }
    assert english == {
        "svg g path line rect circle text title polyline", "use strict", "over time",
        "background:color-mix(in srgb, var(--lost) %, transparent)",
    }  # fmt: skip


def test_the_target_is_on_the_page(warehouse, tmp_path):
    said, _ = held(written(warehouse, tmp_path, settings_summary={"USMS_TARGET_RATE": "95"}))
    assert said["target"] == 0.95
    asked = ask(warehouse, fast_seconds=10)
    assert asked.periods is not None
    (fast,) = warehouse.sql(
        "SELECT count(*) FROM receipts WHERE is_announced AND status = 'delivered' "
        "AND delivery_seconds <= 10"
    ).fetchall()
    assert sum(asked.periods.counts["fast"].to_pylist()) == fast[0]
    assert report.summary(Settings(target_rate=99.5, _env_file=None))["USMS_TARGET_RATE"] == "99.5"


# --- the data itself ------------------------------------------------------------------------------


def test_words_that_nobody_knows_are_named(page):
    assert re.search(r"Unknown status words ! review \d messages: <i>HALF</i> \(\d\)", page.text)


def test_what_was_counted_elsewhere_is_shown_when_given(page, tmp_path):
    assert "In quarantine ! review 3 entries" in page.text
    assert "Source rows without a usable time ✓ OK none" in page.text
    assert not {"In quarantine", "Source rows without a usable time"} & set(found([], tmp_path))


@examples(1, ("extra", "of", "is_told"), [(2, 50, True), (1, 200, False)])
def test_many_receipts_of_unannounced_phones_are_a_reason_to_look_and_a_few_are_not(
    extra, of, is_told, tmp_path
):
    rows = [message(n, NOW - timedelta(hours=1), is_announced=n >= extra) for n in range(of)]
    extras = found(rows, tmp_path)["Receipts of phones that are not in your table"]
    assert extras.found == f"{extra} beside {of - extra} in your table, left out of the rates"
    assert ("`usms check` shows how its rows are read" in extras.advice) == is_told
    assert bool(extras.advice) == is_told


@pytest.fixture(scope="module")
def struck(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """Make the page of three weeks with an outage in the last night; and the week's change."""
    now = datetime(2026, 11, 22, 10, tzinfo=UTC)
    struck = Trouble("China Unicom", 20, 6, 0.6)
    world = World(3, 1_500, 24, until=now, troubles=(struck,))
    path = tmp_path_factory.mktemp("struck") / "report.html"
    with rate_worlds.warehouse() as con:
        rate_worlds.fill(con, world.receipts(now))
        options = {"generated_at": now, "settings_summary": {"USMS_TIMEZONE": "UTC"}}
        report.build(report.ask(con), path, **options)  # type: ignore[arg-type]
        (change,) = queries.change(con, "is_announced").to_arrow_table().to_pylist()
    return path.read_text(encoding="utf-8"), change


@pytest.mark.long
def test_what_young_days_will_come_to_is_said(struck, page):
    text = Page(struck[0]).text
    assert "Operator China Unicom (CN), sent from 21 Nov" in text
    assert "Worse than usual ! review 1 alert" in text
    said = r"still open are in, expect 9\d\.\d% \(19 times in 20: 9\d\.\d% – 9\d"
    assert re.search(said, text)
    assert "Sent on Messages Expected So far At worst – at best Waiting" in page.text


@pytest.mark.long
def test_how_complete_a_group_is_by_age(struck):
    (known,) = re.findall(r"Later failed 5 min (\d\d\.\d)% \d+\.\d%", Page(struck[0]).text)
    assert float(known) > 75


def test_a_shift_of_whole_hours_names_the_settings_to_check(tmp_path):
    sent_at = NOW - timedelta(hours=9)
    late = {"received_at": sent_at + timedelta(hours=8, seconds=5), "delivery_seconds": 28_805.0}
    zones = found([message(n, sent_at, **late) for n in range(9)], tmp_path)["Time zones"]
    assert zones.found == "half of the delivered messages arrived within 8\u00a0h"
    assert "USMS_RECEIPT_TIMEZONE" in zones.advice


def test_first_asked_too_late_is_apart_from_never_reported(tmp_path):
    sent_at = NOW - timedelta(days=4)
    rows = [message(1, sent_at, "unknown"), message(2, sent_at),
            message(3, sent_at, "unknown", first_asked_at=NOW),
            message(4, sent_at, "invalid", first_asked_at=NOW)]  # fmt: skip
    made = found(rows, tmp_path)
    assert made["First asked too late"].found == "1 message"
    assert "a receipt may have existed earlier" in made["First asked too late"].advice
    assert made["Polled in time, but closed without a final status"].found == "1 message"


def test_conflicts_are_counted(tmp_path):
    rows = [message(1, NOW, conflicts=["failed"]), message(2, NOW)]
    assert (
        found(rows, tmp_path)["Conflicting final statuses"].found == "1 message; the first counts"
    )


# --- small and large ------------------------------------------------------------------------------


def test_without_messages_it_says_so(tmp_path):
    page = of([], tmp_path)
    assert "No messages yet." in page.text
    assert "usms check" in page.text
    assert "svg" not in page.tags


def test_messages_that_were_never_asked_about_make_a_report(tmp_path):
    silent = {"first_asked_at": None, "last_asked_at": None, "country": None, "operator": None}
    text = of([message(1, NOW, "pending", **silent)], tmp_path).text
    assert "based on receipts collected until –." in text
    assert "1 message sent. So far –." in text
    assert "can't be below 0% or above 100%" in text


# --- writing --------------------------------------------------------------------------------------


def test_a_report_that_fails_leaves_the_former_one(tmp_path):
    (tmp_path / "report.html").write_text("the former one")
    with duckdb.connect() as empty, pytest.raises(OtherWarehouse):
        written(empty, tmp_path)
    assert (tmp_path / "report.html").read_text() == "the former one"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_place_that_cant_be_written_is_named(warehouse, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"report\.html"):
        written(warehouse, tmp_path / "file")


def test_the_summary_of_the_settings_holds_nothing_secret():
    secret = "sq8f0a1b2c3d4e5f60718293a4b5c6d7"
    settings = Settings(
        access_key_id=secret,
        access_key_secret=secret,
        source_url=f"postgresql://user:{secret}@host/db",
        phone_key=secret.replace("sq", "00"),
        dimensions=("template", "purpose"),
        _env_file=None,
    )
    shown = report.summary(settings)
    assert shown["USMS_DIMENSIONS"] == "template, purpose"
    assert shown["USMS_TIMEZONE"] == "UTC"
    assert secret[2:] not in str(shown)


@pytest.mark.long
def test_over_a_million_messages_it_takes_no_more_memory_than_it_may(tmp_path):
    views._write(tmp_path / "usms.duckdb", 1_000_000)
    given = {"USMS_WAREHOUSE": str(tmp_path / "usms.duckdb"), "USMS_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "usms_pipeline", "report"]
    cost = measure.run(measure.Program("report", lambda folder: command, lambda folder: given))
    assert cost.peak_mb < 800
