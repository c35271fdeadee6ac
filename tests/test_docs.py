"""The documents against the code, both ways: what they name exists, and what exists is named."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
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
from usms_pipeline.cli import messages as made_up
from usms_pipeline.simulator import ACCESS_KEY_ID, ACCESS_KEY_SECRET
from usms_pipeline.warehouse.read import to_open

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", ".env.example")
CODE = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks(kind: str) -> list[str]:
    return [body for language, body in CODE.findall(README) if language == kind]


def commands(block: str | None = None) -> list[list[str]]:
    """Every command line shown in the README, or in one block of it, without its remark."""
    shown = blocks("console") if block is None else [block]
    lines = [line for block in shown for line in block.splitlines()]
    return [shlex.split(line[2:], comments=True) for line in lines if line.startswith("$ ")]


def after(heading: str) -> str:
    """The README from a line on, to the next blank one after its table."""
    return README.split(f"{heading}\n", 1)[1].split("\n\n", 1)[0]


def test_the_readmes_tables_are_those_of_the_code() -> None:
    assert readme_tables.filled_in(README) == README, "run: python -m tests.readme_tables"


def test_every_variable_named_anywhere_is_a_setting() -> None:
    known = {f"USMS_{name.upper()}" for name in settings.Settings.model_fields}
    for name in DOCUMENTS:
        text = (ROOT / name).read_text("utf-8")
        assert set(re.findall(r"\bUSMS_[A-Z][A-Z_]*[A-Z]\b", text)) <= known, name


def test_every_usms_command_shown_exists_with_its_options() -> None:
    group = typer.main.get_command(app)
    inline = re.findall(r"`(usms [^`]+)`", README + (ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    lines = [line for line in commands() if line[0] == "usms"]
    lines += [shlex.split(line.split(" > ")[0]) for line in inline if "," not in line]
    for _, name, *arguments in lines:
        command = group.commands[name]  # type: ignore[attr-defined]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {a for a in arguments if a.startswith("--")} <= options, (name, arguments)


def test_every_make_target_shown_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    shown = {line[1] for line in commands() if line[0] == "make"}
    assert shown == {"demo", "test"}, "two commands to begin with"
    assert shown | set(re.findall(r"`make (\w+)`", README)) <= targets


def test_every_file_named_exists() -> None:
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text("utf-8")
        linked = re.findall(r"\]\((?!http)([^)#]+)\)", text)
        quoted = re.findall(r"`((?:usms_pipeline|tests|notebooks|dagster_home)/[\w/.]*)`", text)
        assert [path for path in (*linked, *quoted) if not (ROOT / path).exists()] == []


def test_the_readmes_component_has_only_attributes_that_exist() -> None:
    from usms_pipeline.components import ReceiptPipeline

    [block] = blocks("yaml")
    shown = yaml.safe_load(block)
    assert shown["type"] == f"{ReceiptPipeline.__module__}.{ReceiptPipeline.__name__}"
    model = ReceiptPipeline.get_model_cls()
    assert model is not None
    assert set(shown["attributes"]) <= set(model.model_fields)


def test_the_page_on_dagster_names_what_there_is() -> None:
    """Every attribute but the settings; and what it names an account's things is what they are."""
    from usms_pipeline.components import ReceiptPipeline

    page = (ROOT / "docs/dagster.md").read_text("utf-8")
    model = ReceiptPipeline.get_model_cls()
    named = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert named == set(model.model_fields) - set(settings.Settings.model_fields)
    [shown] = [text for kind, text in CODE.findall(page) if kind == "yaml" and "type:" in text]
    component = ReceiptPipeline.from_attributes_dict(attributes=yaml.safe_load(shown)["attributes"])
    defs = component.build_defs()
    things = {
        *(spec.key.to_user_string() for spec in defs.resolve_all_asset_specs() if spec.kinds),
        *(one.name for one in (*defs.jobs, *defs.schedules, *defs.sensors)),
        *defs.resources,
    }
    assert [name for name in things if f"`{name}`" not in page] == []


def test_the_warehouse_has_exactly_the_views_and_macros_of_the_readme(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those whose names begin with usms_ are the warehouse's own."""
    import usms_pipeline

    monkeypatch.chdir(published)
    with usms_pipeline.connect() as con:
        found = con.sql("""
            SELECT view_name FROM duckdb_views() WHERE NOT internal
            UNION SELECT table_name FROM duckdb_tables() WHERE NOT internal
            UNION SELECT function_name FROM duckdb_functions()
            WHERE function_type LIKE '%macro' AND NOT internal
        """).fetchall()
    named = [
        line.split("|")[1] for line in after("| in the warehouse | what it gives |").splitlines()
    ]
    shown = {name for cell in named for name in re.findall(r"`(\w+)", cell)}
    assert shown == {name for (name,) in found if not name.startswith("usms_")}


def test_every_module_has_its_place_in_the_readmes_layout() -> None:
    named = [line.split("|")[1] for line in after("| where | what |").splitlines()]
    shown = {name.rstrip("/") for cell in named for name in re.findall(r"`([^`]+)`", cell)}
    package = ROOT / "usms_pipeline"
    assert [name for name in sorted(shown) if not (package / name).exists()] == []
    modules = {path.name for path in package.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert {name for name in modules if not name.startswith("__")} == {
        name for name in shown if "/" not in name
    }


@pytest.mark.long
def test_five_variables_and_the_commands_shown_lead_to_a_delivery_rate(
    simulator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearsal = simulator(2_000)  # so many that some are still awaited, at night too
    made_up.write(rehearsal.messages, tmp_path / "shop.sqlite")
    [block] = blocks("bash")
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
    setup = next(block for block in blocks("console") if "usms check" in block)
    rest = [line for line in commands() if line[0] == "usms" and line not in commands(setup)]
    said = ""
    for _, *arguments in [*commands(setup), *rest]:
        done = CliRunner().invoke(app, arguments, env=given)
        assert done.exit_code == 0, (arguments, done.output)
        said += done.output
    assert "At worst and at best" in " ".join(said.split())


def test_the_launch_command_shown_is_the_one_that_test_dagster_runs() -> None:
    [launch] = [line for line in commands() if line[0] == "dg"]
    assert launch[1:-1] == ["launch", "--job", "refresh_usms", "--partition-range"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d\.\.\.\d{4}-\d\d-\d\d", launch[-1])


def test_the_schedule_and_the_job_named_exist() -> None:
    from usms_pipeline.definitions import defs

    named = re.findall(r"`(refresh\w*)`", README)
    found = defs() if callable(defs) else defs
    schedules = {schedule.name for schedule in found.schedules or ()}
    assert set(named) - {"refresh_usms"} == schedules


def test_code_blocks_fit_80_columns() -> None:
    lines = [line for _, body in CODE.findall(README) for line in body.splitlines()]
    assert [line for line in lines if len(line) > 80] == []


@pytest.mark.parametrize("name", re.findall(r"docs/[\w-]+\.png", README))
def test_a_picture_is_small_enough_for_a_page(name: str) -> None:
    drawn = (ROOT / name).read_bytes()
    assert drawn.startswith(b"\x89PNG")
    assert len(drawn) <= 200_000


@pytest.mark.long
def test_the_table_of_rates_is_what_the_command_prints(tmp_path: Path) -> None:
    rates = readme_picture.block(readme_picture.rehearsed(tmp_path))
    assert readme_picture.filled_in(README, rates) == README, "run: python -m tests.readme_picture"


def test_the_readmes_python_runs(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(published)
    [code] = blocks("python")
    namespace: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), namespace)
    con = namespace["con"]
    con.close()  # type: ignore[attr-defined]


SHOWN = re.compile(
    r"usms sql \\?\"(?P<asked>[^\"]+?)\\?\"|"
    r"[`'\"(](?P<text>(?:SELECT|FROM|CREATE VIEW|SHOW|DESCRIBE|SUMMARIZE|PIVOT)\b[^`\"]+?)[`\"]"
)
"""SQL that people are told to run, in code, messages and documents."""


def sql_shown() -> set[str]:
    found = {text for one in SHOWN.finditer(README) for text in one.groups() if text}
    for name in (*DOCUMENTS[1:], "docs/reliability.md", "docs/rates.md"):
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
    """The rest is in the README's Python and in the notebooks, which are run whole."""
    monkeypatch.chdir(published)
    shown = CliRunner().invoke(app, ["sql", query])
    assert shown.exit_code == 0, shown.output


def test_the_command_that_opens_the_file_does(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB's own client is not a dependency: what it is told is what its library is told."""
    monkeypatch.chdir(published)
    assert to_open(Path("data/usms.duckdb")) in README
    [(call, path)] = re.findall(r'`(duckdb\.connect\("([^"]+)", read_only=True\))`', README)
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


@pytest.mark.parametrize("document", [*DOCUMENTS, "docs/reliability.md", "docs/rates.md"])
def test_every_test_that_a_document_names_exists(document: str) -> None:
    text = (ROOT / document).read_text("utf-8")
    tests = sorted((ROOT / "tests").rglob("test_*.py"))
    defined = {path.name for path in tests}
    for path in tests:
        defined |= set(re.findall(r"^def (test_\w+)", path.read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"\btest_\w+(?:\.py)?", text))
    assert named <= defined, f"{document} names tests that there are not"
