"""The delivery figures in plain SQL, from `figures.sql`: `docs/reference/portable.sql`.

No macros, structs, FILTER or percentile functions, which engines spell in their own ways. DuckDB's
percentile is written out: a row number in each cohort, and the line between the two nearest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = ROOT / "docs/reference/portable.sql"
_SOURCE: Final = ROOT / "usms_pipeline/warehouse/sql/figures.sql"
_MACRO: Final = re.compile(r"CREATE OR REPLACE MACRO (\w+)\(([^)]*)\) AS (.*?);")
_OWN: Final = {"usms_cutoff()": "INTERVAL '72' HOUR", "'infinity'::DOUBLE": "1e300"}
_HEAD: Final = """\
-- The figures of delivery_rate_daily, over the Parquet dataset instead of usms.duckdb.
-- Made from usms_pipeline/warehouse/sql/figures.sql by `python -m tests.readme_tables`.
--
-- Change only what is marked, what to group by and what you call the table, and the 72 hours if
-- your USMS_CUTOFF_HOURS is another.
"""


def made() -> str:
    """Return the statement."""
    text = re.sub(r"--.*", "", _SOURCE.read_text("utf-8"))
    text = re.sub(r"(?<=\() | (?=\))", "", " ".join(text.split()))
    macros = {name: (given, body) for name, given, body in _MACRO.findall(text)}
    whole = macros.pop("delivery_figures")[1]
    counted, told = re.findall(r"\[\{(.*)\}\], lambda c: \{(.*)\}\)\[1\]", whole)[0]
    members, ranked, grouped, measured = _columns(dict(_items(counted)))
    figures = []
    for name, expression in _items(told):
        named = re.sub(r"\[(\d)\]", r"_\1", expression).replace("c.", "")
        plain = _expanded(named, macros)
        plain = plain.replace(" / ", " * 1e0 / ")  # of two whole numbers some make a whole one
        figures.append(name if plain == name else f"{plain} AS {name}")
    parts = {
        "members": (["sent_date AS cohort", *members], "receipts\n    WHERE is_announced"),
        "ranked": (["*", *ranked], "members"),
        "counted": (["cohort", *grouped], "ranked\n    GROUP BY cohort"),
        "measured": (["*", *measured], "counted"),
    }
    steps = ",\n".join(f"{name} AS (\n{_select(*part, '    ')}\n)" for name, part in parts.items())
    marked = steps.replace("AS cohort,", "AS cohort,  -- what to group by")
    marked = marked.replace("FROM receipts\n", "FROM receipts  -- the table\n")
    return f"{_HEAD}WITH {marked}\n{_select(['cohort', *figures], 'measured')}\nORDER BY cohort\n"


def _columns(counted: dict[str, str]) -> tuple[list[str], list[str], list[str], list[str]]:
    """Return what the four steps select: of a count its sum, of a percentile its two neighbours."""
    members = sorted(set(re.findall(r"\br\.(\w+)", " ".join(counted.values()))))
    ranked, grouped, measured = [], [], []
    for name, expression in counted.items():
        call, condition = re.findall(r"(.*) FILTER \((.*)\)", _own(expression))[0]
        if call == "count(*)":
            grouped.append(f"count(CASE WHEN {condition} THEN 1 END) AS {name}")
            continue
        value, shares = re.findall(r"quantile_cont\((.*), \[(.*)\]\)", call)[0]
        members += [
            f"CASE WHEN {condition} THEN 1 ELSE 0 END AS {name}_in",
            f"{value} AS {name}_value",
        ]
        same = f"OVER (PARTITION BY cohort, {name}_in"
        ranked += [
            f"row_number() {same} ORDER BY {name}_value) - 1 AS {name}_rank",
            f"count(*) {same}) - 1 AS {name}_last",
        ]
        for number, share in enumerate(shares.split(", "), 1):
            place, column = f"{share}e0 * {name}_last", f"{name}_{number}"
            grouped += [
                f"max(CASE WHEN {name}_in = 1 AND {name}_rank = {end}({place}) "
                f"THEN {name}_value END) AS {column}_{end}"
                for end in ("floor", "ceil")
            ]
            grouped.append(
                f"max(CASE WHEN {name}_in = 1 THEN {place} - floor({place}) END) AS {column}_part"
            )
            measured.append(
                f"{column}_floor + ({column}_ceil - {column}_floor) * {column}_part AS {column}"
            )
    return members, ranked, grouped, measured


def _select(columns: list[str], table: str, indent: str = "") -> str:
    listed = f",\n{indent}    ".join(columns)
    return f"{indent}SELECT\n{indent}    {listed}\n{indent}FROM {table}"


def _own(expression: str) -> str:
    for theirs, plain in _OWN.items():
        expression = expression.replace(theirs, plain)
    return re.sub(r"\br\.", "", expression)


def _expanded(expression: str, macros: dict[str, tuple[str, str]]) -> str:
    """Return an expression with the body of each macro in place of its call."""
    for name, (given, body) in macros.items():
        while found := re.search(rf"\b{name}\(", expression):
            inside = _to_its_end(expression[found.end() :])
            arguments = (
                one if re.fullmatch(r"[\w.-]+", one) else f"({one})" for one in _split(inside)
            )
            values = dict(zip(given.split(", "), arguments, strict=True))
            put = re.sub(r"\b\w+\b", lambda word, values=values: values.get(word[0], word[0]), body)
            rest = expression[found.end() + len(inside) + 1 :]
            expression = f"{expression[: found.start()]}({put}){rest}"
            expression = _expanded(expression, macros)
    return expression


def _items(struct: str) -> Iterator[tuple[str, str]]:
    for item in _split(struct):
        name, expression = item.split(": ", 1)
        yield name, expression


def _split(text: str) -> list[str]:
    """Return the parts between the commas that are in no brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _to_its_end(text: str) -> str:
    """Return what is before the bracket that closes one opened before the text."""
    depth = 1
    for end, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if not depth:
            return text[:end]
    raise ValueError(text)
