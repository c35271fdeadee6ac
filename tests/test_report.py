"""The report: true figures, nothing that harms, nothing personal, nothing fetched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import duckdb
import pytest

from tests import watched_world
from tests.made_receipts import NOW, Row, five_days, message, opened, publish
from tests.watched_world import World
from usms_pipeline.contract.errors import OtherWarehouse, StorageError
from usms_pipeline.figures import report
from usms_pipeline.figures.queries import rates_expected
from usms_pipeline.figures.report.figures import ask
from usms_pipeline.figures.report.quality import Finding, findings
from usms_pipeline.settings import Settings
from usms_pipeline.simulator.fate import Outage
from usms_pipeline.source import LeftOut
from usms_pipeline.store.storage import Store
from usms_pipeline.warehouse import connect

SETTINGS = {"USMS_TIMEZONE": "Asia/Shanghai", "USMS_CUTOFF_HOURS": "72.0"}
VOID = {"meta", "link", "br", "hr", "img"}


class Page(HTMLParser):
    """What a browser makes of the page: its text, tags, attributes; every tag closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
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
        if "style" not in self._open:
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
    assert f"Messages {total['messages']:,} announced recipients" in page.text
    assert f"Expected rate {total['expected_rate']:.1%} in the end; 19 times in 20" in page.text
    assert f"So far {total['delivery_rate']:.1%} of the messages with an outcome" in page.text
    assert "with 95% confidence" not in page.text
    low, high = total["delivery_rate_if_rest_failed"], total["delivery_rate_if_rest_arrived"]
    assert f"between {low:.1%} and {high:.1%}" in page.text
    assert f"Receipt coverage {total['receipt_coverage']:.1%}" in page.text
    assert total["awaited"] > 0
    assert f"When the {total['awaited']:,} still open are in, expect" in page.text


def test_a_rate_has_confidence_where_nothing_is_open(tmp_path):
    rows = [message(n, NOW, "failed" if n < 3 else "delivered") for n in range(40)]
    text = of(rows, tmp_path).text
    said = r"Delivery rate 92.5% of the messages with an outcome \((8\d.\d)% – (9\d.\d)% with 95%"
    assert re.search(said, text)
    assert "Expected rate" not in text


def test_it_says_which_days_and_as_of_when_in_the_settings_zone(page):
    assert "Messages sent 17 Nov – 22 Nov 2026" in page.text
    assert "answers up to 22 Nov 2026 20:00 (Asia/Shanghai) tell it" in page.text


def test_every_bucket_is_shown_and_they_add_up(page, source):
    rows = re.findall(
        r'<th scope="row">(Delivered|Failed|Rejected|Expired|Unknown|Pending|Unrecognized|Invalid)'
        r'</th><td class="figure">([\d,]+)</td>',
        source,
    )
    assert len(rows) == 8
    counted = sum(int(number.replace(",", "")) for _, number in rows)
    assert f"Messages {counted:,} announced recipients" in page.text


def test_every_group_of_the_views_has_its_row(warehouse, source):
    for view, heading in (
        ("delivery_rate_by_country", "Delivery by country"),
        ("delivery_rate_by('template')", "Delivery by template"),
    ):
        (table,) = re.findall(rf"<caption>{heading}</caption>(.*?)</table>", source, re.DOTALL)
        groups = warehouse.sql(f"FROM {view}").to_arrow_table().num_rows
        assert table.count("<tr>") == groups + 1


def test_it_fetches_nothing_and_runs_nothing(page, source):
    targets = [value for name, value in page.attributes if name in ("href", "src", "xlink:href")]
    assert {target[0] for target in targets if target != "data:,"} == {"#"}
    assert "default-src 'none'" in source
    assert "script-src" not in source
    assert not re.findall(r"@import|url\((?!#clip)", source)
    addresses = set(re.findall(r"https?://[^\s\"'<]+", source))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_links_to_sections_lead_somewhere_and_ids_are_unique(page):
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    links = [value[1:] for name, value in page.attributes if name == "href" and value[0] == "#"]
    assert links
    assert set(links) <= set(ids)


def test_no_phone_number_and_no_recipient_is_in_it(source):
    assert "138****" not in source
    assert f"{7:032x}" not in source
    assert "s100" not in re.sub(r"<svg.*?</svg>", "", source, flags=re.DOTALL)


def test_a_reader_of_the_screen_is_served(page):
    assert ("lang", "en") in page.attributes
    assert page.tags.count("h1") == 1
    assert page.tags.count("table") == page.tags.count("caption")
    assert {"header", "main", "footer", "nav", "section", "figure", "figcaption"} <= set(page.tags)
    assert page.attributes.count(("role", "img")) == page.tags.count("svg")


def test_no_line_breaks_between_a_number_and_its_unit(source):
    """Of the tiles, the headlines, the figures in tables and the sentences."""
    shown = re.findall(r'<(strong|span|h3|p|td class="figure")>([^<]*)</', source)
    texts = " ".join(text for _, text in shown)
    assert re.search(r"90% within \d+\u00a0s", texts)
    assert re.findall(r"\d (?:s|min|h)\b", texts) == []


def test_every_svg_colour_has_its_dark_form(source):
    used = set(re.findall(r'<(?:path|line|text|rect)[^>]* (?:fill|stroke)="(#\w+)"', source))
    dark = set(re.findall(r'\.chart \[fill="(#\w+)"\]', source))
    assert used
    assert used <= dark


# --- the data itself ------------------------------------------------------------------------------


def test_words_that_nobody_knows_are_named(page):
    assert re.search(r"Unknown status words ! look \d messages: <i>HALF</i> \(\d\)", page.text)


def test_what_was_counted_elsewhere_is_shown_when_given(page, tmp_path):
    assert "In quarantine ! look 3 entries" in page.text
    assert "Source rows without a usable time ✓ fine none" in page.text
    assert not {"In quarantine", "Source rows without a usable time"} & set(found([], tmp_path))


@pytest.mark.parametrize(("extra", "of", "is_told"), [(2, 50, True), (1, 200, False)])
def test_many_receipts_of_unannounced_phones_are_a_reason_to_look_and_a_few_are_not(
    extra, of, is_told, tmp_path
):
    rows = [message(n, NOW - timedelta(hours=1), is_announced=n >= extra) for n in range(of)]
    extras = found(rows, tmp_path)["Receipts of phones nobody announced"]
    assert extras.found == f"{extra} beside {of - extra} announced, left out of the rates"
    assert ("`usms check` shows how its rows are read" in extras.advice) == is_told
    assert bool(extras.advice) == is_told


@pytest.fixture(scope="module")
def struck(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Make the page of three weeks with an outage in the last night."""
    now = datetime(2026, 11, 22, 10, tzinfo=UTC)
    world = World(36_000, 24, now, 3, Outage(now - timedelta(hours=20)))
    with watched_world.warehouse() as con:
        watched_world.fill(con, world.receipts(now))
        path = tmp_path_factory.mktemp("struck") / "report.html"
        options = {"generated_at": now, "settings_summary": {"USMS_TIMEZONE": "UTC"}}
        report.build(report.ask(con), path, **options)  # type: ignore[arg-type]
    return Page(path.read_text(encoding="utf-8"))


@pytest.mark.long
def test_what_is_out_of_line_is_said_at_the_top(struck, tmp_path):
    calm = of([message(n, NOW - timedelta(minutes=n)) for n in range(300)], tmp_path)
    assert re.search(
        r"Out of line More than usual: .* sending\. Operator China Unicom \(CN\), sent from 21 Nov "
        r"1\d:00 to \d\d:00 \(UTC\): \d+ of \d+ messages failed within an hour",
        struck.text,
    )
    assert "Out of line ! look 1 alert" in struck.text
    assert "Out of line ✓ fine none" in calm.text


@pytest.mark.long
def test_what_young_days_will_come_to_is_said(struck, page):
    said = r"still open are in, expect 9\d\.\d% \(19 times in 20: 9\d\.\d% – 9\d"
    assert re.search(said, struck.text)
    assert "Sent on Messages Expected So far At worst – at best Open" in page.text


def test_the_latest_settled_week_is_set_beside_the_one_before(struck, page):
    assert re.search(r"Of the messages sent 12 Nov – 18 Nov 2026 with an outcome, 9\d", struck.text)
    assert re.search(r"All messages 10,\d{3} 10,\d{3} 9\d\.\d% 9\d\.\d% [+−]\d\.\d", struck.text)
    assert "Shown once there are two whole weeks" in page.text


def test_how_complete_a_group_is_by_age(struck):
    (known,) = re.findall(r"Not delivered 5 min (9\d\.\d)% \d\.\d%", struck.text)
    assert float(known) > 90


def test_a_shift_of_whole_hours_names_the_settings_to_check(tmp_path):
    sent_at = NOW - timedelta(hours=9)
    late = {"received_at": sent_at + timedelta(hours=8, seconds=5), "delivery_seconds": 28_805.0}
    zones = found([message(n, sent_at, **late) for n in range(9)], tmp_path)["Time zones"]
    assert zones.found == "half of the delivered messages arrived within 8 h"
    assert "USMS_RECEIPT_TIMEZONE" in zones.advice


def test_first_asked_too_late_is_apart_from_never_reported(tmp_path):
    sent_at = NOW - timedelta(days=4)
    rows = [message(1, sent_at, "unknown"), message(2, sent_at),
            message(3, sent_at, "unknown", first_asked_at=NOW),
            message(4, sent_at, "invalid", first_asked_at=NOW)]  # fmt: skip
    made = found(rows, tmp_path)
    assert made["First asked too late"].found == "1 message"
    assert "the silence may be ours" in made["First asked too late"].advice
    assert made["Closed without an outcome, asked in time"].found == "1 message"


def test_conflicts_are_counted(tmp_path):
    rows = [message(1, NOW, conflicts=["failed"]), message(2, NOW)]
    assert found(rows, tmp_path)["Conflicting outcomes"].found == "1 message; the first counts"


# --- small and large ------------------------------------------------------------------------------


def test_without_messages_it_says_so(tmp_path):
    page = of([], tmp_path)
    assert "No messages yet." in page.text
    assert "usms check" in page.text
    assert "svg" not in page.tags


def test_messages_that_were_never_asked_about_make_a_report(tmp_path):
    silent = {"first_asked_at": None, "last_asked_at": None, "country": None, "operator": None}
    text = of([message(1, NOW, "pending", **silent)], tmp_path).text
    assert "answers up to – tell it" in text
    assert "So far – of the messages with an outcome" in text
    assert "between 0% and 100% of all did" in text
    assert "No message has failed" in text


@pytest.mark.long
def test_a_dimension_with_many_values_is_cut_and_says_so(tmp_path):
    rows = [message(n, NOW, template=f"t{n:03}") for n in range(40)]
    page = of(rows, tmp_path)
    assert "Delivery by template, the 30 largest of 40" in page.text


@pytest.mark.long
def test_long_history_shows_the_latest_days(tmp_path):
    rows = [message(n, NOW - timedelta(days=n)) for n in range(100)]
    page = of(rows, tmp_path)
    assert "Delivery by day of sending (Asia/Shanghai), the latest 92 days" in page.text
    assert "Messages 100 announced" in page.text


# --- writing --------------------------------------------------------------------------------------


def test_a_store_gets_report_html(tmp_path):
    settings = publish(tmp_path, [])
    with connect(settings.warehouse_path) as con:
        figures = report.ask(con)
    path = report.build(figures, Store(settings.data_dir), generated_at=NOW, settings_summary={})
    assert Path(path) == tmp_path / "report.html"
    assert "<h1>SMS delivery report</h1>" in Path(path).read_text()


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
