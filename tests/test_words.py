"""One word, one thing, and no word that a reader must decode: in pages, messages, docstrings.

Names keep their names: what stands in `backquotes`, in blocks of code, and beside an underscore is
not looked at.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BANNED = {
    r"mend(s|ed|ing)?": "fix, correct",
    r"anew": "again",
    r"landed": "was received, was saved",
    r"unheard|heard": "no receipt yet; not known",
    r"announce[ds]?|announcing|unannounced": "sent, in your table; not in your table",
    r"whoever|whatever|whichever": "who, what, any; or leave it out",
    r"fates?": "final status",
    r"outcomes?": "final status",
    r"so many": "n, this many, how many",
    r"costs? itself": "say what it does not affect",
    r"(tell|told|tells|telling) of": "report, warn of",
    r"out of line": "worse than usual",
    r"amiss": "wrong",
    r"in vain": "without an answer",
    r"ours? to|yours? to": "say who does it",
    r"(?<=, )for (it|they|there|nobody|he) (is|are|has|have|can|was|would|may)": "because, since",
    r"(the|a) latter|(the|a) former": "name it",
    r"nowise|thereof|therein|hence|lest|besides": "plain words",
}
"""What is not to be written, and what to write."""

VERBS = ("Give", "Tell", "Say", "Name", "Take")
"""No docstring begins with these: Return, Raise, Report, List, Read ..."""

MOST_IN_GLOSSARY = 20
_FEWEST_WORDS = 4
_PATTERN = re.compile(rf"(?<!\w)({'|'.join(BANNED)})(?!\w)", re.IGNORECASE)
_NAMES = re.compile(
    r"^ *```.*?^ *```$|``[^`]*``|`[^`\n]*`|\]\([^)]*\)|<!--.*?-->", re.DOTALL | re.MULTILINE
)

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / ".env.example"]
CODE = [*(ROOT / "usms_pipeline").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
NOTEBOOKS = [*(ROOT / "notebooks").glob("*.ipynb")]
SQL = [*(ROOT / "usms_pipeline").rglob("*.sql")]
EVERYTHING = [*PAGES, *CODE, *NOTEBOOKS, *SQL]


def in_text(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the word of each banned word in prose."""
    prose = _NAMES.sub(lambda found: "\n" * found[0].count("\n"), text)
    for found in _PATTERN.finditer(prose):
        yield prose.count("\n", 0, found.start()) + 1, found[0]


def _sentence(node: ast.Constant | ast.JoinedStr) -> str:
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)


def in_code(text: str, *, messages: bool = True) -> Iterator[tuple[int, str]]:
    """Yield the line and the word of each banned word in docstrings, comments and messages."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            for _, word in in_text(token.string):
                yield token.start[0], word
    tree = ast.parse(text)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    first = [node.body[0] for node in ast.walk(tree) if isinstance(node, documented) and node.body]
    docstrings, inner = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docstrings.add(node.value)
            if node in first and str(node.value.value).split(" ")[0] in VERBS:
                yield node.lineno, str(node.value.value).split(" ")[0]
        elif isinstance(node, ast.JoinedStr):
            inner.update(node.values)
    for node in ast.walk(tree):
        if node in inner or not isinstance(node, ast.Constant | ast.JoinedStr):
            continue
        if isinstance(node, ast.Constant) and not isinstance(node.value, str):
            continue
        said = _sentence(node)
        if node in docstrings or (messages and len(said.split()) >= _FEWEST_WORDS):
            for line, word in in_text(said):
                yield node.lineno + line - 1, word


def in_sql(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the word of each banned word in what the SQL says of itself."""
    for found in re.finditer(r"--.*|'(?:[^']|'')*'", text):
        if len(found[0].split()) >= _FEWEST_WORDS:
            for line, word in in_text(found[0]):
                yield text.count("\n", 0, found.start()) + line, word


def found_in(path: Path) -> list[str]:
    """Return where banned words are in a file: of tests, not in messages."""
    name, text = path.relative_to(ROOT).as_posix(), path.read_text("utf-8")
    if path.suffix == ".py":
        found = in_code(text, messages=not name.startswith("tests/"))
    elif path.suffix == ".ipynb":
        found = (
            one for cell in json.loads(text)["cells"] for one in in_text("".join(cell["source"]))
        )
    else:
        found = in_sql(text) if path.suffix == ".sql" else in_text(text)
    return [f"{name}:{line}: {word}" for line, word in sorted(set(found))]


@pytest.mark.parametrize("path", EVERYTHING, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_is_written_in_a_banned_word(path: Path) -> None:
    assert found_in(path) == [], "see BANNED and VERBS in tests/test_words.py"


GLOSSARY = re.findall(
    r"^\| ([\w, ]+) \|",
    (ROOT / "CONTRIBUTING.md").read_text("utf-8").split("| word |")[1].split("\n\n")[0],
    re.MULTILINE,
)


def test_the_glossary_is_short() -> None:
    words = [word for row in GLOSSARY for word in row.split(", ")]
    assert len(words) == len(set(words)) <= MOST_IN_GLOSSARY


@pytest.mark.parametrize("word", GLOSSARY)
def test_a_word_of_the_glossary_is_in_use(word: str) -> None:
    said = "\n".join(path.read_text("utf-8") for path in CODE if "tests" not in path.parts)
    assert all(re.search(rf"\b{one}", said) for one in word.split(", "))


@pytest.mark.parametrize(
    ("kind", "text", "word"),
    [
        ("page", "Then mend the setting.", "mend"),
        ("page", "A list:\n\n- whatever was killed", "whatever"),
        ("docstring", '"""Give the rows of a day."""', "Give"),
        ("docstring", 'class Row:\n    """What has landed."""', "landed"),
        ("message", 'raise SourceError("Two rows to mend in the table.")', "mend"),
        ("message", 'raise SourceError(f"The rows of {day} are made anew.")', "anew"),
        ("comment", "x = 1  # so many at a time", "so many"),
        ("help", 'Field(0, description="Age without an outcome.")', "outcome"),
        ("sql", "COMMENT ON VIEW v IS 'messages whose fate is known';", "fate"),
    ],
)
def test_a_banned_word_is_found_in(kind: str, text: str, word: str) -> None:
    find = {"page": in_text, "sql": in_sql}.get(kind, in_code)
    assert [found for _, found in find(text)] == [word]


@pytest.mark.parametrize(
    "text",
    ["The column `is_announced` and ``outcome``.", "```\nmend()\n```\n", "See [it](mend.md)."],
)
def test_a_name_is_no_word(text: str) -> None:
    assert list(in_text(text)) == []


if __name__ == "__main__":
    print(*(line for path in EVERYTHING for line in found_in(path)), sep="\n")
