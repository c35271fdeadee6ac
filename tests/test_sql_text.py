"""SQL is made of names and values that one function quotes, or of a few pieces named here.

Found in the source code itself: every text that is put together and looks like SQL.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "usms_pipeline"
SQL = re.compile(
    r"\b(SELECT|INSERT INTO|DELETE FROM|CREATE|ATTACH|SET|USE|FROM|WHERE|ORDER BY|GROUP BY|"
    r"COMMENT ON|UNION|CAST|DESCRIBE|DATE|TIMESTAMP|CASE|AND|OR|AS|read_csv|read_parquet)\b"
)
QUOTING = {
    "identifier", "literal", "text", "table_name", "quote", "_QUOTE", "as_text", "window",
    "select", "sql", "filled", "round", "as_numbers", "_listed",
}  # fmt: skip
"""Each makes one name or value of whatever it is given, or SQL that is looked at here."""

MADE_HERE = {
    ("cli/messages", "messages.schema.names"): "columns of the made-up table",
    ("cli/sample", "table"): "plain, or quoted as the user wrote it; is shown, not run",
    ("figures/queries", "str(error).splitlines()[0]"): "in a message, not in SQL",
    ("figures/queries", "sign"): "one of two signs, both in this function",
    ("figures/report/figures", "relation"): "a view of ours, or a macro of a quoted name",
    ("source/csv_files", "_read(form, [path])"): "made of quoted paths and names",
    ("source/csv_files", "form.lines_before"): "0 or 1",
    ("source/csv_files", "form.compression"): "one of two words, in this module",
    ("source/duckdb_files", "sql"): "made by query.select, of quoted names",
    ("source/duckdb_files", "_relation(connection, address)"): "made of quoted paths and names",
    ("source/postgresql", "limit"): "one of the names in this module, in a sentence",
    ("source/postgresql", "sql"): "made by query.select, of quoted names",
    ("source/query", "moment"): "a time, written in digits",
    ("source/query", "moment.microsecond"): "a number",
    ("source/query", "one"): "a condition on a quoted name, made in this function",
    ("source/query", "rows"): "a number",
    ("source/query", "table"): "made by table_name",
    ("source/query", "where"): "made by window",
    ("source/query", "first"): "a literal, or digits",
    ("source/query", "last"): "a literal, or digits",
    ("source/sqlite", "sql"): "made by query.select, of quoted names",
    ("warehouse/building", "table"): "one of two names, both in this module",
    ("warehouse/ddl", "options"): "a text in the caller's code",
    ("warehouse/ddl", "table"): "a name in the caller's code",
    ("warehouse/ddl", "_TYPES[field.type]"): "one of the texts in this module",
    ("warehouse/ddl", "name"): "a name in the caller's code",
}
"""Module and expression → why it holds nothing of somebody else's."""

Scope = dict[str, list[ast.expr]]


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield str(path.relative_to(PACKAGE).with_suffix("")), ast.parse(path.read_text("utf-8"))


def constant_text(node: ast.AST) -> str:
    """Give what is written out of a text that is put together."""
    if isinstance(node, ast.JoinedStr):
        return " ".join(str(v.value) for v in node.values if isinstance(v, ast.Constant))
    if isinstance(node, ast.BinOp):
        return f"{constant_text(node.left)} {constant_text(node.right)}"
    if isinstance(node, ast.Constant):
        return str(node.value)
    return ""


def put_in(node: ast.AST) -> list[ast.expr]:
    """Give what is put into a text."""
    if isinstance(node, ast.JoinedStr):
        return [v.value for v in node.values if isinstance(v, ast.FormattedValue)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
        return [node.left, node.right]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return [k.value for k in node.keywords] if node.func.attr == "format" else []
    return []


def scope_of(function: ast.AST) -> Scope:
    """Give what every name in a function, or in a module's own lines, is made of."""
    made: Scope = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.NamedExpr):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Name) and node.value is not None:
                    made.setdefault(target.id, []).append(node.value)
        elif isinstance(node, ast.For | ast.comprehension):
            target, source = node.target, node.iter
            if isinstance(source, ast.Call) and ast.unparse(source.func) == "enumerate":
                assert isinstance(target, ast.Tuple)
                made.setdefault(ast.unparse(target.elts[0]), []).append(ast.Constant(0))
                target, source = target.elts[1], source.args[0]
            made.setdefault(ast.unparse(target), []).append(source)
    return made


def unclean(node: ast.expr, scope: Scope, seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """Give the parts of an expression that no function quotes, as far as it can be followed."""

    def of(*parts: ast.expr) -> Iterator[str]:
        for part in parts:
            yield from unclean(part, scope, seen)

    match node:
        case ast.Constant():
            return
        case ast.JoinedStr() | ast.BinOp():
            yield from of(*put_in(node))
        case ast.IfExp():
            yield from of(node.body, node.orelse)
        case ast.BoolOp():
            yield from of(*node.values)
        case ast.List() | ast.Tuple():
            yield from of(*node.elts)
        case ast.Starred():
            yield from of(node.value)
        case ast.GeneratorExp() | ast.ListComp():
            yield from of(node.elt)
        case ast.Call(func=ast.Attribute(attr="join"), args=[joined]):
            yield from of(joined)
        case ast.Call() if ast.unparse(node.func).rpartition(".")[2] in QUOTING:
            return
        case ast.Name() if node.id in scope and node.id not in seen:
            for made in scope[node.id]:
                yield from unclean(made, scope, seen | {node.id})
        case _:
            yield ast.unparse(node)


def put_into_sql(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Give every expression that is put into a text of SQL, unless a function quotes it."""
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    own = ast.Module([n for n in tree.body if isinstance(n, ast.Assign | ast.AnnAssign)], [])
    outer = {id(n) for f in functions for n in ast.walk(f)}
    for function in [*functions, tree]:
        scope = scope_of(own) | (scope_of(function) if function is not tree else {})
        for node in ast.walk(function):
            if function is tree and id(node) in outer:
                continue
            is_sql = SQL.search(constant_text(node)) or "_COLUMNS.format" in ast.unparse(node)[:15]
            if is_sql and not _is_sentence(constant_text(node)):
                for expression in put_in(node):
                    yield from ((node.lineno, text) for text in unclean(expression, scope))


def _is_sentence(text: str) -> bool:
    """Tell the words that a person reads from SQL."""
    return bool(re.search(r"USMS_[A-Z]|Grant |: mend", text))


def unexplained(reasons: dict[tuple[str, str], str]) -> list[str]:
    return [
        f"{module}:{line}: {expression}"
        for module, tree in trees()
        for line, expression in put_into_sql(tree)
        if (module, expression) not in reasons
    ]


def test_whatever_is_put_into_sql_is_quoted_by_a_function_or_made_here() -> None:
    assert unexplained(MADE_HERE) == []


def test_every_reason_is_still_needed() -> None:
    met = {(module, e) for module, tree in trees() for _, e in put_into_sql(tree)}
    assert set(MADE_HERE) - met == set()


def test_a_name_put_into_sql_as_it_is_would_be_found() -> None:
    bad = ast.parse(
        "def f(con, settings):\n"
        "    name = settings.source_table\n"
        "    con.execute(f'SELECT * FROM {name}')\n"
        "    con.execute('SELECT * FROM ' + settings.source_table)\n"
        "    con.execute(f'SELECT {identifier(name)} FROM x WHERE a = {settings.value!r}')\n"
    )
    assert [found for _, found in put_into_sql(bad)] == [
        "settings.source_table",
        "settings.source_table",
        "settings.value",
    ]


def test_there_are_two_places_that_quote() -> None:
    """One for our own DuckDB, one for the databases of others."""
    found = [
        str(path.relative_to(PACKAGE))
        for path in sorted(PACKAGE.rglob("*.py"))
        if '.replace("\'", "\'\'")' in path.read_text("utf-8")
        or ".replace('\"', '\"\"')" in path.read_text("utf-8")
    ]
    assert found == ["source/query.py", "warehouse/quoting.py"]
