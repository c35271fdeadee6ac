"""The documents against the code, both ways: what they name exists, and what exists is named."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb
import pytest
import typer.main
import yaml
from typer.testing import CliRunner

from tests import readme_picture, readme_tables
from usms_pipeline import settings
from usms_pipeline.cli import app
from usms_pipeline.cli import simulate as made_up
from usms_pipeline.simulator import ACCESS_KEY_ID, ACCESS_KEY_SECRET
from usms_pipeline.warehouse.read import to_open

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in readme_tables.PAGES}
"""Every page that users read, by its name."""
READMES = [name for name in PAGES if name.startswith("README")]
DOCUMENTS = (*PAGES, "SECURITY.md", "CHANGELOG.md", ".env.example")
FENCED = re.compile(r"^([ ]*)```(\w+)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
MOST_WORDS = 900
"""Of the README: what a newcomer reads in five minutes. The rest is in docs/."""


def code(text: str) -> list[tuple[str, str]]:
    """Return the language and the text of every block of code on a page."""
    return [
        (kind, re.sub(f"^{at}", "", body, flags=re.M)) for at, kind, body in FENCED.findall(text)
    ]


def blocks(kind: str, text: str = README) -> list[str]:
    return [body for language, body in code(text) if language == kind]


def commands(shown: Iterable[str]) -> list[list[str]]:
    """Every command line in blocks, without its remark."""
    lines = [line for block in shown for line in block.replace("\\\n", "").splitlines()]
    return [shlex.split(line[2:], comments=True) for line in lines if line.startswith("$ ")]


def after(heading: str, text: str) -> str:
    """A page from a line on, to the next blank one after its table."""
    return text.split(f"{heading}\n", 1)[1].split("\n\n", 1)[0]


@pytest.mark.parametrize("name", READMES)
def test_a_readme_is_read_in_five_minutes(name: str) -> None:
    assert len(PAGES[name].split()) <= MOST_WORDS


@pytest.mark.parametrize("name", PAGES)
def test_every_block_of_commands_begins_by_naming_its_folder(name: str) -> None:
    assert [
        block for block in blocks("console", PAGES[name]) if not block.startswith("$ cd ")
    ] == []


@pytest.mark.parametrize("name", PAGES)
def test_a_pages_tables_are_those_of_the_code(name: str) -> None:
    text = PAGES[name]
    assert readme_tables.filled_in(text) == text, "run: python -m tests.readme_tables"


def test_every_table_made_from_the_code_is_on_one_page() -> None:
    marked = [found for text in PAGES.values() for found in re.findall(r"<!-- /([\w ]+) -->", text)]
    assert [name for name in readme_tables.TABLES if marked.count(name) != 1] == []


def test_every_variable_named_anywhere_is_a_setting() -> None:
    known = {f"USMS_{name.upper()}" for name in settings.Settings.model_fields}
    for name in DOCUMENTS:
        text = (ROOT / name).read_text("utf-8")
        assert set(re.findall(r"\bUSMS_[A-Z][A-Z_]*[A-Z]\b", text)) <= known, name


@pytest.mark.parametrize("name", PAGES)
def test_every_usms_command_shown_exists_with_its_options(name: str) -> None:
    group = typer.main.get_command(app)
    inline = re.findall(r"`(usms [a-z][^`]+)`", PAGES[name])
    lines = [line for line in commands(blocks("console", PAGES[name])) if line[0] == "usms"]
    lines += [shlex.split(line.split(" > ")[0]) for line in inline if "," not in line]
    for _, command_name, *arguments in lines:
        command = group.commands[command_name]  # type: ignore[attr-defined]
        options = {option for parameter in command.params for option in parameter.opts}
        shown = {a for a in arguments if a.startswith("--")}
        assert shown <= options, (command_name, arguments)


@pytest.mark.parametrize("name", PAGES)
def test_every_make_target_shown_exists(name: str) -> None:
    text = PAGES[name]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    shown = {line[1] for line in commands(blocks("console", text)) if line[0] == "make"}
    if name in READMES:
        assert shown == {"demo", "test"}, "two commands to begin with"
    assert shown | set(re.findall(r"`make ([\w-]+)`", text)) <= targets


@pytest.mark.parametrize("name", PAGES)
def test_every_file_named_exists(name: str) -> None:
    folder = (ROOT / name).parent
    linked = re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", PAGES[name])
    assert [path for path in linked if not (folder / path).exists()] == []
    quoted = re.findall(r"`((?:usms_pipeline|tests|notebooks|dagster_home)/[\w/.]*)`", PAGES[name])
    assert [path for path in quoted if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", PAGES)
def test_every_heading_that_a_link_names_exists(name: str) -> None:
    for page, heading in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", PAGES[name]):
        path = ((ROOT / name).parent / page).resolve() if page else ROOT / name
        headings = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}
        assert heading in anchors, (page, heading)


@pytest.mark.parametrize("name", [name for name in PAGES if "zh-CN" in name])
def test_a_page_in_chinese_shows_what_its_page_in_english_does(name: str) -> None:
    """The same commands, settings and links to other sites; its words are its own."""
    text, english = PAGES[name], PAGES[name.replace(".zh-CN", "").replace("zh-CN/", "")]
    for kind in ("console", "bash", "cron", "yaml", "text"):
        mine = [re.sub(r"\s*#.*", "", block) for block in blocks(kind, text)]
        assert mine == [re.sub(r"\s*#.*", "", block) for block in blocks(kind, english)]
    for shown in (r"`(USMS_\w+|[\w/]+\.\w+|docs/[^`]*)[`=]", r"\]\((http[^)]+)\)"):
        assert set(re.findall(shown, text)) <= set(re.findall(shown, english))
    assert name.startswith("README") or set(re.findall(r"`USMS_\w+", english)) <= {
        *re.findall(r"`USMS_\w+", text)
    }


def test_every_page_is_reached_from_the_readme() -> None:
    linked: set[str] = set()
    queue = ["README.md"]
    while queue:
        name = queue.pop()
        for path in re.findall(r"\]\((?!http)([^)#]+\.md)[^)]*\)", PAGES[name]):
            page = os.path.relpath((ROOT / name).parent / path, ROOT)
            if page in PAGES and page not in linked:
                linked.add(page)
                queue.append(page)
    assert sorted(set(PAGES) - linked - {"README.md"}) == []


def test_the_page_on_dagster_names_what_there_is() -> None:
    """Every attribute but the settings; and what it names an account's things is what they are."""
    from usms_pipeline.components import Attributes, ReceiptPipeline

    page = PAGES["docs/dagster.md"]
    named = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert named == set(Attributes.model_fields) - set(settings.Settings.model_fields)
    [block] = [text for text in blocks("yaml", page) if "type:" in text]
    shown = yaml.safe_load(block)
    assert shown["type"] == f"{ReceiptPipeline.__module__}.{ReceiptPipeline.__name__}"
    component = ReceiptPipeline.from_attributes_dict(attributes=shown["attributes"])
    defs = component.build_defs()
    things = {
        *(spec.key.to_user_string() for spec in defs.resolve_all_asset_specs() if spec.kinds),
        *(one.name for one in (*defs.jobs, *defs.schedules, *defs.sensors)),
        *defs.resources,
    }
    assert [name for name in things if f"`{name}`" not in page] == []


def test_a_published_file_has_what_the_page_on_sql_lists(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What begins with usms_ is the warehouse's own."""
    import usms_pipeline

    monkeypatch.chdir(published)
    with usms_pipeline.connect() as con:
        found = {name for _, name, _, _ in readme_tables.listed(con)}
    shown = re.findall(r"^\| (?:table|view|macro) \| `(\w+)", PAGES["docs/reference/sql.md"], re.M)
    assert sorted(shown) == sorted(found)


def test_every_module_has_its_place_in_the_layout() -> None:
    rows = after("| where | what |", PAGES["CONTRIBUTING.md"]).splitlines()
    shown = {
        name.rstrip("/") for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])
    }
    package = ROOT / "usms_pipeline"
    assert [name for name in sorted(shown) if not (package / name).exists()] == []
    modules = {path.name for path in package.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert {name for name in modules if not name.startswith("__")} == {
        name for name in shown if "/" not in name
    }


@pytest.mark.long
@pytest.mark.parametrize("name", READMES)
def test_five_variables_and_the_commands_shown_lead_to_a_delivery_rate(
    name: str, simulator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = PAGES[name]
    rehearsal = simulator(2_000)  # enough that some are still waiting, at night too
    made_up.write(rehearsal.messages, tmp_path / "shop.sqlite")
    [block] = blocks("bash", text)
    given = dict(re.findall(r"^export (\w+)=(\S+)", block, re.MULTILINE))
    assert len(given) == 5
    given |= {
        "USMS_BASE_URL": rehearsal.url,
        "USMS_ACCESS_KEY_ID": ACCESS_KEY_ID,
        "USMS_ACCESS_KEY_SECRET": ACCESS_KEY_SECRET,
        "USMS_SOURCE_URL": f"sqlite:///{tmp_path}/shop.sqlite",
        "USMS_SOURCE_TABLE": made_up.TABLE,
    }
    monkeypatch.chdir(tmp_path)
    shown = blocks("console", text)
    setup = commands(block for block in shown if "usms check" in block)
    lines = [*setup, *(line for line in commands(shown) if line not in setup)]
    said = ""
    for _, *arguments in (line for line in lines if line[0] == "usms"):
        done = CliRunner().invoke(app, arguments, env=given)
        assert done.exit_code == 0, (arguments, done.output)
        said += done.output
    assert "At worst and at best" in " ".join(said.split())


def test_the_launch_command_shown_is_the_one_that_test_dagster_runs() -> None:
    shown = blocks("console", PAGES["docs/schedule.md"])
    [launch] = [line for line in commands(shown) if line[0] == "dg"]
    assert launch[1:-1] == ["launch", "--job", "refresh_usms", "--partition-range"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d\.\.\.\d{4}-\d\d-\d\d", launch[-1])


def test_the_schedule_and_the_job_named_exist() -> None:
    from usms_pipeline.definitions import defs

    named = re.findall(r"`(refresh\w*)`", README + PAGES["docs/schedule.md"])
    found = defs() if callable(defs) else defs
    schedules = {schedule.name for schedule in found.schedules or ()}
    assert set(named) - {"refresh_usms"} == schedules


@pytest.mark.parametrize("name", PAGES)
def test_code_blocks_fit_80_columns(name: str) -> None:
    lines = [line for _, body in code(PAGES[name]) for line in body.splitlines()]
    assert [line for line in lines if len(line) > 80] == []


@pytest.mark.parametrize("name", re.findall(r"docs/[\w-]+\.png", README))
def test_a_picture_is_small_enough_for_a_page(name: str) -> None:
    drawn = (ROOT / name).read_bytes()
    assert drawn.startswith(b"\x89PNG")
    assert len(drawn) <= 200_000


@pytest.mark.long
def test_the_table_of_rates_is_what_the_command_prints(tmp_path: Path) -> None:
    rates = readme_picture.block(readme_picture.rehearsed(tmp_path))
    for name in READMES:
        text = PAGES[name]
        assert readme_picture.filled_in(text, rates) == text, "run: python -m tests.readme_picture"


PYTHON = [
    pytest.param(body, id=f"{name}-{number}")
    for name, text in PAGES.items()
    for number, body in enumerate(blocks("python", text))
    if not re.search("polars|duckdb_pandas", body)  # test_beside.py runs these
]


@pytest.mark.parametrize("shown", PYTHON)
def test_the_python_shown_runs(
    shown: str, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(published)
    namespace: dict[str, Any] = {}
    exec(compile(shown, "the page", "exec"), namespace)
    if "con" in namespace:
        namespace["con"].close()


SHOWN = re.compile(
    r"usms sql \\?\"(?P<asked>[^\"]+?)\\?\"|"
    r"[`'\"(](?P<text>(?:SELECT|FROM|CREATE VIEW|SHOW|DESCRIBE|SUMMARIZE|PIVOT)\b[^`\"]+?)[`\"]"
)
"""SQL that people are told to run, in code, messages and documents."""


def sql_shown() -> set[str]:
    found: set[str] = set()
    for name in DOCUMENTS:
        text = (ROOT / name).read_text("utf-8")
        found |= {text for one in SHOWN.finditer(text) for text in one.groups() if text}
    for path in sorted((ROOT / "usms_pipeline").rglob("*.py")):
        docstrings_and_messages = path.read_text("utf-8")
        found |= {one["asked"] for one in SHOWN.finditer(docstrings_and_messages) if one["asked"]}
    return found


def test_sql_is_found_where_people_are_told_to_run_it() -> None:
    assert {"FROM delivery_rate_daily", "SHOW TABLES", "DESCRIBE receipts"} <= sql_shown()


@pytest.mark.parametrize("query", sorted(sql_shown()))
def test_sql_that_people_are_told_to_run_runs(
    query: str, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest is in the pages' Python and in the notebooks, which are run whole."""
    monkeypatch.chdir(published)
    shown = CliRunner().invoke(app, ["sql", query])
    assert shown.exit_code == 0, shown.output


def test_the_command_that_opens_the_file_does(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB's own client is not a dependency: what it is told is what its library is told."""
    monkeypatch.chdir(published)
    assert to_open(Path("data/usms.duckdb")) in README
    [(call, path)] = re.findall(
        r'`(duckdb\.connect\("([^"]+)", read_only=True\))`', PAGES["docs/read.md"]
    )
    con = eval(call, {"duckdb": duckdb})
    with con:
        assert con.execute("SELECT count(*) FROM receipts").fetchall()
    assert not os.access(path, os.W_OK) or os.geteuid() == 0


def test_no_machine_path_or_registry_host_is_in_the_repository() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, check=True, text=True,
    ).stdout  # fmt: skip
    named = re.compile(r"pypi\.org|pythonhosted|/root/|/work/|file:///opt")
    found = [
        name
        for name in listed.split("\0")
        if name and name != f"tests/{Path(__file__).name}" and (ROOT / name).is_file()
        if named.search((ROOT / name).read_text("utf-8", errors="ignore"))
    ]
    assert found == []


def test_the_change_log_has_the_version_of_the_package_or_says_unreleased() -> None:
    from importlib.metadata import version

    log = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert "[Unreleased]" in log or version("usms-pipeline") in log


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_test_that_a_document_names_exists(document: str) -> None:
    text = (ROOT / document).read_text("utf-8")
    tests = sorted((ROOT / "tests").rglob("test_*.py"))
    defined = {path.name for path in tests}
    for path in tests:
        defined |= set(re.findall(r"^def (test_\w+)", path.read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"\btest_\w+(?:\.py)?", text))
    assert named <= defined, f"{document} names tests that there are not"
