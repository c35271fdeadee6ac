"""The reference pages' tables, made from the code: `python -m tests.readme_tables` writes them.

A page has a table wherever it has its markers. `test_docs.py` checks that all of them are current.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import duckdb
import typer.main

from tests import portable_sql
from usms_pipeline import settings
from usms_pipeline.contract import errors, metrics, schema, status
from usms_pipeline.warehouse import ddl

ROOT = Path(__file__).parent.parent
PAGES = [
    *sorted(ROOT.glob("README*.md")),
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
"""What a user reads, and may have a table between markers."""


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = [list(head), *map(list, rows)]
    cells.insert(1, ["---"] * len(cells[0]))
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


def settings_table() -> str:
    rows = (
        (f"`{settings.variable(name)}`", _default(field.default), str(field.description))
        for name, field in settings.Settings.model_fields.items()
    )
    return table(("variable", "default", ""), rows)


def _default(value: object) -> str:
    if value is None or value == ():
        return "–"
    if isinstance(value, tuple):
        return f"`{','.join(f'{part:g}' for part in value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def columns_table() -> str:
    fields = [*schema.receipts_fields(), schema.SENT_DATE]
    kinds = {"timestamp[us, tz=UTC]": "timestamp", "list<item: string>": "list of text"}
    rows = (
        (f"`{f.name}`", kinds.get(str(f.type), str(f.type)), f.unit, f.description) for f in fields
    )
    return table(("column", "type", "unit", "meaning"), rows)


def statuses_table() -> str:
    rows = (
        (f"`{meaning.status}`", "yes" if meaning.is_final else "no", meaning.description)
        for meaning in status.STATUSES
    )
    return table(("status", "final?", "meaning"), rows)


def metrics_table() -> str:
    rows = ((f"`{m.name}`", m.unit, m.description) for m in metrics.METRICS)
    return table(("metric", "unit", "meaning"), rows)


def errors_table() -> str:
    base = errors.UsmsError
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, base)]
    rows = (
        (f"`{k.__name__}`", str(k.exit_code), str(k.__doc__).splitlines()[0])
        for k in kinds
        if k is not base
    )
    return table(("error", "exit code", "meaning"), rows)


def commands_table() -> str:
    from usms_pipeline.cli import app

    group = typer.main.get_command(app)
    rows = []
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        below = " ".join(sorted(getattr(command, "commands", {}), key=str))
        shown = f"`usms {name} {below.replace(' ', ', ')}`" if below else f"`usms {name}`"
        rows.append((shown, (command.help or "").split("\n\n")[0].replace("\n", " ")))
    return table(("command", ""), rows)


def warehouse() -> duckdb.DuckDBPyConnection:
    """Open an empty warehouse in memory, with every view and macro."""
    con = duckdb.connect(":memory:")
    fields = ddl.columns(())
    con.execute(ddl.create_receipts(fields))
    con.execute(ddl.definitions(fields, settings.Settings(_env_file=None).cutoff))
    return con


_LISTED = """
    SELECT 1 AS rank, 'table' AS kind, table_name AS name, NULL AS parameters, comment
    FROM duckdb_tables() WHERE NOT internal AND schema_name = 'main'
    UNION ALL
    SELECT 2, 'view', view_name, NULL, comment
    FROM duckdb_views() WHERE NOT internal AND schema_name = 'main'
    UNION ALL
    SELECT 3, 'macro', function_name, parameters, comment
    FROM duckdb_functions()
    WHERE function_type LIKE '%macro' AND NOT internal AND schema_name = 'main'
"""


def listed(con: duckdb.DuckDBPyConnection) -> list[tuple[str, str, list[str] | None, str]]:
    """Return kind, name, parameters and comment of what people query; `usms_…` is internal."""
    return con.sql(f"""
        SELECT kind, name, any_value(parameters), any_value(comment) FROM ({_LISTED})
        WHERE NOT starts_with(name, 'usms_') GROUP BY rank, kind, name ORDER BY rank, name
    """).fetchall()


def sql_table() -> str:
    with warehouse() as con:
        rows = [
            (kind, f"`{name}({', '.join(of or ())})`" if kind == "macro" else f"`{name}`", what)
            for kind, name, of, what in listed(con)
        ]
    return table(("", "name", "what it returns"), rows)


def sql_columns() -> str:
    """Return the columns of every view that has not those of the metrics, a table each."""
    parts = []
    with warehouse() as con:
        views = [name for kind, name, _, _ in listed(con) if kind == "view"]
        for view in (name for name in views if not name.startswith("delivery_rate_")):
            columns = con.execute(
                "SELECT column_name, comment FROM duckdb_columns() "
                "WHERE table_name = ? AND NOT internal ORDER BY column_index",
                [view],
            ).fetchall()
            rows = ((f"`{name}`", comment or "–") for name, comment in columns)
            parts.append(f"## `{view}`\n\n{table(('column', 'meaning'), rows)}")
    return "\n\n".join(parts)


TABLES = {
    "settings": settings_table,
    "columns": columns_table,
    "statuses": statuses_table,
    "metrics": metrics_table,
    "errors": errors_table,
    "commands": commands_table,
    "sql": sql_table,
    "sql columns": sql_columns,
}


def put_in(text: str, name: str, part: str) -> str:
    """Return a page's text with this part between the markers of that name."""
    marked = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
    assert re.search(marked, text, re.DOTALL), f"there are no markers for {name}"
    return re.sub(marked, lambda m: f"{m[1]}{part}\n{m[2]}", text, flags=re.DOTALL)


def filled_in(text: str) -> str:
    """Return a page's text with the tables of today between its markers."""
    for name, make in TABLES.items():
        if f"<!-- {name} -->" in text:
            text = put_in(text, name, make())
    return text


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled_in(page.read_text("utf-8")), "utf-8")
    portable_sql.PAGE.write_text(portable_sql.made(), "utf-8")
