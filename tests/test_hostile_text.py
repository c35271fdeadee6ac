"""Text that somebody else chose (names, words, descriptions) is shown everywhere and acts nowhere.

In a terminal, a spreadsheet, a web page, a picture and on Dagster's page.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner, Result

from tests import cohorts
from tests.cohorts import receipt
from tests.examples import examples
from tests.test_charts import as_svg, cohort, only_drawn
from tests.test_report import Page
from usms_pipeline.cli import app, output, shell
from usms_pipeline.cli.tables import rates_table
from usms_pipeline.contract import errors, wording
from usms_pipeline.defs import figures
from usms_pipeline.figures import charts, report
from usms_pipeline.store.storage import Store
from usms_pipeline.warehouse import connect, reconcile

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "</style></title></svg><svg onload=alert(1)>",
    '" onmouseover="alert(1)',
    "javascript:alert(1)",
    "[x](javascript:alert(1)) | `y` |",
    "![x](https://evil.example/?)",
    "[bold red]x[/] [link=https://evil.example]y[/link] :skull:",
    "[/]",
    "\x1b]0;owned\x07\x1b[2J\x1b[31m",
    "\x9b31m\x90q\x9c",
    "gpj.\u202efdp\u2066",
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\t=1+1",
    "＝1+1",
    "datum['x']; ${alert(1)} {{alert(1)}} $title",
    "&lt;b&gt;",
    "back\\",
    "quote'\"; DROP TABLE receipts; --",
)
COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
NAME = "'\"</script>[bold]\x1b[31m=x|`;--"
"""Of a dimension."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published dataset in which every text from outside is hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    rows = [
        receipt(
            outcome,
            session_no=text,
            operator=text,
            country=text,
            provider_status=text,
            provider_code=text,
            provider_desc=text,
            submit_status=text,
            **{NAME: text, "template": text},
        )
        for text in HOSTILE
        for outcome in ("delivered", "failed", "unrecognized")
    ]
    data = folder / "data"
    cohorts.write(Store(str(data)), rows, dimensions=(NAME, "template"))
    reconcile(Store(str(data)), cohorts.settings(data, dimensions=(NAME, "template")))
    return folder


def usms(folder: Path, *arguments: str) -> Result:
    given = {"USMS_DATA_DIR": str(folder / "data"), "USMS_SOURCE_URL": str(folder / "no.parquet")}
    return CliRunner().invoke(app, arguments, env={**given, "NO_COLOR": "1"})


# --- the terminal ---------------------------------------------------------------------------------


@examples(1, "column", [NAME, "template", "provider_desc", "operator"])
@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_no_name_commands_the_terminal(folder, column, form):
    result = usms(folder, "rates", "--by", column, "--format", form)
    assert result.exit_code == 0, result.output
    assert not COMMANDS.findall(result.output)
    for text in ("[bold red]x[/]", ":skull:", "javascript:alert(1)"):
        assert text in result.output, "it is shown as it is"


def test_no_name_is_markup_in_a_table():
    """The name of the column too."""
    row = {"x": "[bold]a[/bold]"} | dict.fromkeys(
        ("messages", "awaited", "delivery_rate", "delivery_rate_if_rest_failed",
         "delivery_rate_if_rest_arrived", "expected_rate", "latency_p50_seconds"), 1,
    )  # fmt: skip
    shown = io.StringIO()
    table = rates_table([row], row, "[red]column[/red]", 120)
    shell._Console(file=shown, width=120, force_terminal=False).print(table)
    assert "[red]column[/red]" in shown.getvalue()
    assert "[bold]a[/bold]" in shown.getvalue()


@pytest.mark.parametrize("text", HOSTILE)
def test_no_sentence_commands_the_terminal(text):
    """Errors and warnings, which quote what a source or the service said."""
    said = io.StringIO()

    def command() -> None:
        shell.warn([f"The source said {text}"])
        raise errors.SourceError(f"The service said {text}")

    with redirect_stderr(said), redirect_stdout(said):
        assert shell._outcome(command, []) == 2
    assert not COMMANDS.findall(said.getvalue())
    assert said.getvalue().expandtabs().count(wording.visible(text).strip()) == 2


def test_json_has_every_name_as_it_is(folder):
    result = usms(folder, "rates", "--by", NAME, "--format", "json")
    assert {row[NAME] for row in json.loads(result.output)} == set(HOSTILE)


# --- the spreadsheet ------------------------------------------------------------------------------


def test_no_name_is_a_formula_in_a_spreadsheet(folder):
    result = usms(folder, "rates", "--by", "template", "--format", "csv")
    cells = [cell for row in csv.reader(io.StringIO(result.output)) for cell in row]
    assert len({cell for cell in cells if "alert" in cell}) > 5
    for cell in cells:
        assert cell[:1] not in ("=", "+", "-", "@", "\t", "\r", "\n", "＝"), cell
    assert "'=cmd|' /C calc'!A0" in cells


def test_numbers_and_harmless_names_are_not_escaped_for_spreadsheets():
    assert [output._cell(value) for value in (-0.5, 3, None, "otp", "a=b", "验证码")] == [
        -0.5, 3, None, "otp", "a=b", "验证码",
    ]  # fmt: skip


# --- the page -------------------------------------------------------------------------------------

TAGS = {
    "a", "bdi", "body", "br", "button", "caption", "clippath", "code", "dd", "defs", "details",
    "div", "dl", "dt", "figcaption", "figure", "footer", "g", "h1", "h2", "h3", "head", "header",
    "html", "li", "line", "link", "main", "meta", "nav", "p", "path", "rect", "script", "section",
    "span", "strong", "style", "summary", "svg", "table", "tbody", "td", "text", "th", "thead",
    "title", "tr", "ul",
}  # fmt: skip


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    result = usms(folder, "report")
    assert result.exit_code == 0, result.output
    return Page((folder / "data/report.html").read_text("utf-8"))


@pytest.mark.long
def test_no_name_is_markup_in_the_report(page):
    assert set(page.tags) - TAGS == set()
    assert page.tags.count("script") == 3, "the figures, the packed counts and our own"
    names = {name for name, _ in page.attributes}
    assert not {name for name in names if name.startswith("on") or name in ("src", "srcdoc")}
    links = [value for name, value in page.attributes if "href" in name]
    assert links
    assert all(link.startswith("#") or link == "data:," for link in links)
    shown = "".join(page.words)
    [said] = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', page.source)
    drawn = "\n".join(_texts(json.loads(said)))  # as text nodes, by the script
    assert [h for h in HOSTILE if h.isprintable() and h not in shown + drawn] == []


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _texts(one)


@pytest.fixture(scope="module")
def drawn(folder: Path) -> Iterator[list[str]]:
    with connect(folder / "data/usms.duckdb") as con:
        groups = con.sql("FROM delivery_rate_by('template')").to_arrow_table()
        failures = con.sql("FROM failures").to_arrow_table()
        made = [charts.rate_by(groups, "template"), charts.failures_by_reason(failures)]
        yield [as_svg(one) for one in made]


def test_no_name_is_markup_or_an_expression_in_a_chart(drawn):
    """Vega shows a name as text: it neither looks one up nor evaluates it."""
    for svg in drawn:
        only_drawn(svg)


def test_an_expression_in_a_name_is_shown_as_it_is():
    name = "datum['x']; ${alert(1)} {{alert(1)}}"
    table = pa.Table.from_pylist([{"template": name, **cohort()}])
    assert name in as_svg(charts.rate_by(table, "template")).replace("&#39;", "'")


# --- Dagster's page -------------------------------------------------------------------------------


@pytest.mark.long
def test_the_markdown_on_dagsters_page_holds_no_text_from_outside(folder):
    """A picture, and a table of days and figures."""
    with connect(folder / "data/usms.duckdb") as con:
        settings = cohorts.settings(folder / "data")
        store = Store(str(folder / "data"))
        pipeline = SimpleNamespace(
            settings=settings, store=store, clock=lambda: cohorts.NOON,
            left_out=lambda: None,
        )  # fmt: skip
        shown = figures.delivery_rates(pipeline, report.ask(con))  # type: ignore[arg-type]
    table = shown["daily"].md_str
    assert re.fullmatch(r"[|\-:\w\s.,%–]*", table)
    assert len({row.count("|") for row in table.splitlines()}) == 1
    assert shown["chart"].value.endswith("delivery-rate.png")
    marked = {name for name, value in shown.items() if hasattr(value, "md_str")}
    assert marked == {"daily"}
