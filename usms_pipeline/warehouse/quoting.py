"""Names and values quoted for DuckDB: any text is safe."""

from __future__ import annotations


def identifier(name: str) -> str:
    """Quote a name."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a text value, where it can't be a parameter."""
    return "'" + text.replace("'", "''") + "'"
