"""The README's tables, made from the code: `python -m tests.readme_tables` writes them in.

`test_docs.py` checks that they are in step.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import typer.main

from usms_pipeline import settings
from usms_pipeline.contract import errors, metrics, schema, status

README = Path(__file__).parent.parent / "README.md"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = [list(head), *map(list, rows)]
    cells.insert(1, ["---"] * len(cells[0]))
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


def settings_table() -> str:
    return table(
        ("variable", "default", ""),
        (
            (
                f"`USMS_{name.upper()}`",
                _default(field.default),
                str(field.description),
            )
            for name, field in settings.Settings.model_fields.items()
        ),
    )


def _default(value: object) -> str:
    if value is None or value == ():
        return "–"
    if isinstance(value, tuple):
        return f"`{','.join(f'{part:g}' for part in value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def columns_table() -> str:
    fields = [*schema.receipts_fields(), schema.SENT_DATE]
    kinds = {"timestamp[us, tz=UTC]": "timestamp", "list<item: string>": "list of text"}
    return table(
        ("column", "type", "unit", "meaning"),
        (
            (f"`{f.name}`", kinds.get(str(f.type), str(f.type)), f.unit, f.description)
            for f in fields
        ),
    )


def statuses_table() -> str:
    return table(
        ("status", "outcome?", "meaning"),
        (
            (f"`{meaning.status}`", "yes" if meaning.is_final else "no", meaning.description)
            for meaning in status.STATUSES
        ),
    )


def metrics_table() -> str:
    return table(
        ("metric", "unit", "meaning"),
        ((f"`{m.name}`", m.unit, m.description) for m in metrics.METRICS),
    )


def errors_table() -> str:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.UsmsError)
    ]
    return table(
        ("error", "exit code", "meaning"),
        (
            (f"`{k.__name__}`", str(k.exit_code), str(k.__doc__).splitlines()[0])
            for k in kinds
            if k is not errors.UsmsError
        ),
    )


def commands_table() -> str:
    from usms_pipeline.cli import app

    group = typer.main.get_command(app)
    rows = []
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        below = " ".join(sorted(getattr(command, "commands", {}), key=str))
        shown = f"`usms {name} {below.replace(' ', ', ')}`" if below else f"`usms {name}`"
        rows.append((shown, (command.help or "").split("\n\n")[0].replace("\n", " ")))
    return table(("command", ""), rows)


TABLES = {
    "settings": settings_table,
    "columns": columns_table,
    "statuses": statuses_table,
    "metrics": metrics_table,
    "errors": errors_table,
    "commands": commands_table,
}


def put_in(text: str, name: str, part: str) -> str:
    """Give a page's text with this part between the markers of that name."""
    marked = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
    assert re.search(marked, text, re.DOTALL), f"there are no markers for {name}"
    return re.sub(marked, lambda m: f"{m[1]}{part}\n{m[2]}", text, flags=re.DOTALL)


def filled_in(text: str) -> str:
    """The README's text with every table between its markers made anew."""
    for name, make in TABLES.items():
        text = put_in(text, name, make())
    return text


if __name__ == "__main__":
    README.write_text(filled_in(README.read_text("utf-8")), "utf-8")
