"""The documents against the code, both ways: what they name exists, and what exists is named."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer.main
import yaml

from tests import readme_tables
from usms_pipeline import metrics, schema, settings, status

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", ".env.example")
CODE = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks(kind: str) -> list[str]:
    return [body for language, body in CODE.findall(README) if language == kind]


def commands() -> list[list[str]]:
    """Every command line shown in the README, without its remark."""
    lines = [line for block in blocks("console") for line in block.splitlines()]
    return [shlex.split(line[2:], comments=True) for line in lines if line.startswith("$ ")]


def test_the_readmes_tables_are_those_of_the_code() -> None:
    assert readme_tables.filled_in(README) == README, "run: python -m tests.readme_tables"


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ("settings", [f"USMS_{name.upper()}" for name in settings.Settings.model_fields]),
        ("columns", [field.name for field in [*schema.receipts_fields(), schema.SENT_DATE]]),
        ("statuses", list(status.BUCKETS)),
        ("metrics", [metric.name for metric in metrics.METRICS]),
    ],
)
def test_a_table_has_exactly_what_exists(table: str, names: list[str]) -> None:
    shown = README.split(f"<!-- {table} -->")[1].split(f"<!-- /{table} -->")[0]
    assert re.findall(r"^\| `([^`]+)`", shown, re.MULTILINE) == names


def test_every_variable_named_anywhere_is_a_setting() -> None:
    known = {f"USMS_{name.upper()}" for name in settings.Settings.model_fields}
    for name in DOCUMENTS:
        text = (ROOT / name).read_text("utf-8")
        assert set(re.findall(r"\bUSMS_[A-Z][A-Z_]*[A-Z]\b", text)) <= known, name


def test_every_usms_command_shown_exists_with_its_options() -> None:
    from usms_pipeline.cli import app

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
    assert shown == {"demo", "test"}, "the README has two commands"
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


def test_every_view_and_macro_of_the_warehouse_is_in_the_readme(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import usms_pipeline

    monkeypatch.chdir(published)
    con = usms_pipeline.connect()
    views = con.sql("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
    macros = con.sql(
        "SELECT DISTINCT function_name FROM duckdb_functions() "
        "WHERE function_type = 'table_macro' AND NOT internal"
    ).fetchall()
    con.close()
    for (name,) in [*views, *macros]:
        assert name in README, f"{name} is in the warehouse and not in the README"


def test_the_readmes_python_runs(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(published)
    [code] = blocks("python")
    namespace: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), namespace)
    con = namespace["con"]
    con.close()  # type: ignore[attr-defined]


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
