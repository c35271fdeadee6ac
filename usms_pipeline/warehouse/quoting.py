"""Names and values as DuckDB is to read them, whatever they hold."""

from __future__ import annotations


def identifier(name: str) -> str:
    """Quote a name."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a text value, where it can't be a parameter."""
    return "'" + text.replace("'", "''") + "'"
