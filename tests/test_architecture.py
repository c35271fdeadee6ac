"""Who may import what. Breaking a rule fails with the rule's own words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from usms_pipeline.contract.status import BUCKETS
from usms_pipeline.service import api

PACKAGE = Path(__file__).parent.parent / "usms_pipeline"

ALLOWED = {
    "dagster": ("components", "definitions", "defs"),
    "httpx": ("service.client", "service.transport", "cli"),
    "pycurl": ("service.transport",),
    "duckdb": ("source", "figures.queries", "warehouse"),
    "obstore": ("store.objects",),
    "phonenumbers": ("people.phones", "contract.setting_types", "simulator"),
    "uvicorn": ("simulator",),
    "typer": ("cli",),
    "rich": ("cli",),
    "altair": ("figures.charts",),
    "vl_convert": ("figures.charts",),
}
"""Third party → the only modules or folders of the package that may import it."""

PURE = (
    "contract.status", "contract.polling", "contract.metrics", "service.api", "days.general"
)  # fmt: skip
"""Domain modules: no input or output, no clock."""

WORLDLY = {
    "os",
    "pathlib",
    "time",
    "socket",
    "subprocess",
    "asyncio",
    "tempfile",
    "duckdb",
    "httpx",
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        tree = WithoutTypeChecking().visit(ast.parse(path.read_text("utf-8")))
        yield name, tree


class WithoutTypeChecking(ast.NodeTransformer):
    """Drops what only the type checker reads."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)


def imports(name: str, tree: ast.Module, is_top_level_only: bool = False) -> set[str]:
    """Every module, and every name of a module, that a module imports when it runs."""
    found = set()
    for node in tree.body if is_top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import; this project's are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def is_in(module: str, place: str) -> bool:
    """Whether a module is a file, or in a folder, below the package."""
    return f"{module}.".startswith(f"usms_pipeline.{place}.")


def rule_breakers(allowed: dict[str, tuple[str, ...]], trees: dict[str, ast.Module]) -> list[str]:
    return [
        f"{module} imports {third_party}: only {', '.join(rooms)} may"
        for module, tree in trees.items()
        for third_party, rooms in allowed.items()
        if any(name.split(".")[0] == third_party for name in imports(module, tree))
        and not any(is_in(module, place) for place in rooms)
    ]


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """One import cycle, as the modules along it; empty when there is none."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for target in sorted(graph.get(module, ())):
            if found := visit(target, [*path, module]):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(graph) if (found := visit(module, []))), [])


def import_graph(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    return {
        module: {
            target
            for name in imports(module, tree, is_top_level_only=True)
            for target in (name, name.rpartition(".")[0])[: 1 if name in trees else 2]
            if target in trees and target != module
        }
        for module, tree in trees.items()
    }


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    return dict(modules())


def test_third_parties_are_imported_only_where_the_rule_says(trees):
    assert rule_breakers(ALLOWED, trees) == []


def test_every_permission_is_used(trees):
    given = {(third_party, place) for third_party, rooms in ALLOWED.items() for place in rooms}
    used = {
        (third_party, place)
        for third_party, place in given
        for module, tree in trees.items()
        if is_in(module, place)
        for name in imports(module, tree)
        if name.split(".")[0] == third_party
    }
    assert given - used == set()


def test_no_import_cycle(trees):
    graph = import_graph(trees)
    assert cycle(graph) == []
    ends = "usms_pipeline.contract.errors", "usms_pipeline.cli.run"
    assert cycle(graph | {ends[0]: {ends[1]}}), "it would be found"


def test_the_domain_is_pure(trees):
    for name in PURE:
        module = f"usms_pipeline.{name}"
        found = {target.split(".")[0] for target in imports(module, trees[module])}
        assert not found & WORLDLY, f"{module} must not do input or output"


def test_exceptions_a_caller_can_meet_are_defined_in_one_file(trees):
    strays = [
        f"{module}.{node.name}"
        for module, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any(ast.unparse(base).endswith(("Error", "Exception")) for base in node.bases)
        and module != "usms_pipeline.contract.errors"
        and not node.name.startswith("_")  # never leaves its module
    ]
    assert strays == []


# Only one file names the provider's API

OURS_TOO = {"Data", "Message", "Phone", "Receipt", "Status", "sent", "", *BUCKETS}
"""Keys and words of the API that are plain English or our own buckets."""

ROUND = {0, 500}
"""Codes that are sizes too."""

KEYS = "|".join(rf"\b{key}\b" for key in api.KEYS - OURS_TOO)
CODES = "|".join(str(code) for code in api.BY_CODE if code > 1000)
NAMED = re.compile(f"{KEYS}|{CODES}|{api.PATH}")
WORDS = {word for words in api.WORDS.values() for word in words} - OURS_TOO


def literals(tree: ast.Module) -> Iterator[tuple[str | int, int]]:
    """Every text, byte string and whole number in code, with its line; docstrings are none."""
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in documentation:
            value = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
            if type(value) in (str, int):
                yield value, node.lineno


def api_names(module: str, tree: ast.Module) -> list[str]:
    """What a module names of the API; what is ours too is looked for where answers are read."""
    is_near = is_in(module, "service")
    numbers = {*api.BY_CODE, *api.BY_STATUS, api.NOT_FOUND} - ROUND - api.SUCCESSES
    keys = api.KEYS if is_near else api.KEYS - OURS_TOO
    return [
        f"{module}:{line} names {value!r}: only service/api.py may"
        for value, line in literals(tree)
        if (
            (is_near or value > 1000) and value in numbers
            if isinstance(value, int)
            else value in keys or value.strip().casefold() in WORDS or NAMED.search(value)
        )
    ]


def test_only_one_file_names_the_providers_api(trees):
    others = {
        module: tree
        for module, tree in trees.items()
        if module != "usms_pipeline.service.api" and not is_in(module, "simulator")
    }
    assert [name for module, tree in others.items() for name in api_names(module, tree)] == []
    own = trees["usms_pipeline.service.api"]
    found = " ".join(api_names("usms_pipeline.pipeline", own))
    for name in ("SessionNo", "RetCode", "215400", "undeliv", "USMSSendReceipt"):
        assert name in found, "it would be found"
    assert "'Status'" not in found
    assert "'Status'" in " ".join(api_names("usms_pipeline.service.client", own))
