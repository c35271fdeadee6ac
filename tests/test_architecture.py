"""Who may import what. Breaking a rule fails with the rule's own words."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "usms_pipeline"

ALLOWED = {
    "dagster": ("components", "definitions", "defs"),
    "httpx": ("client", "transport"),
    "aiohttp": ("transport",),
    "duckdb": (
        "source",
        "scratch",
        "sessions",
        "seen",
        "due",
        "fold",
        "affected",
        "registers",
        "queries",
        "warehouse",
    ),
    "phonenumbers": ("phones", "setting_types", "simulator"),
    "starlette": ("simulator",),
    "uvicorn": ("simulator",),
    "typer": ("cli",),
    "rich": ("cli",),
    "altair": ("charts",),
    "vl_convert": ("charts",),
}
"""Third party → the only modules or folders of the package that may import it."""

PURE = ("status", "polling", "classify", "metrics")
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


def room(module: str) -> str:
    """The file or folder directly below the package that a module lives in."""
    return [*module.split("."), ""][1]


def rule_breakers(allowed: dict[str, tuple[str, ...]], trees: dict[str, ast.Module]) -> list[str]:
    return [
        f"{module} imports {third_party}: only {', '.join(rooms)} may"
        for module, tree in trees.items()
        for third_party, rooms in allowed.items()
        if any(name.split(".")[0] == third_party for name in imports(module, tree))
        and room(module) not in rooms
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


def test_third_parties_are_imported_only_where_the_rule_says(trees: dict[str, ast.Module]) -> None:
    assert rule_breakers(ALLOWED, trees) == []


def test_every_permission_is_used(trees: dict[str, ast.Module]) -> None:
    used = {
        (name.split(".")[0], room(module))
        for module, tree in trees.items()
        for name in imports(module, tree)
    }
    given = {(third_party, place) for third_party, rooms in ALLOWED.items() for place in rooms}
    assert given - used == set()


def test_a_module_that_breaks_the_rule_is_named() -> None:
    bad = {"usms_pipeline.status": ast.parse("def f():\n    from dagster import asset")}
    assert rule_breakers(ALLOWED, bad) == [
        "usms_pipeline.status imports dagster: only components, definitions, defs may"
    ]


def test_no_import_cycle(trees: dict[str, ast.Module]) -> None:
    assert cycle(import_graph(trees)) == []


def test_a_cycle_is_found() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]


def test_the_domain_is_pure(trees: dict[str, ast.Module]) -> None:
    for name in PURE:
        module = f"usms_pipeline.{name}"
        found = {target.split(".")[0] for target in imports(module, trees[module])}
        assert not found & WORLDLY, f"{module} must not do input or output"


def test_every_module_says_what_lives_in_it(trees: dict[str, ast.Module]) -> None:
    assert [name for name, tree in trees.items() if not ast.get_docstring(tree)] == []


def test_exceptions_a_caller_can_meet_are_defined_in_one_file(trees: dict[str, ast.Module]) -> None:
    strays = [
        f"{module}.{node.name}"
        for module, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any(ast.unparse(base).endswith(("Error", "Exception")) for base in node.bases)
        and module != "usms_pipeline.errors"
        and not node.name.startswith("_")  # never leaves its module
    ]
    assert strays == []
