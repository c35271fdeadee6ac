"""Pieces of HTML for the report. Every text from outside is escaped here, and only here.

Functions take plain values and give ``Html``; what is not ``Html`` is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Container, Iterable, Sequence
from html import escape
from importlib.resources import files
from string import Template
from zlib import crc32

from usms_pipeline.figures.report.texts import Said


class Html(str):
    """Text that is markup already; any other text is escaped where it meets markup."""

    __slots__ = ()


def html(value: object) -> Html:
    """Escape a value, unless it is markup already; what is in both languages shows one of them."""
    if isinstance(value, Said):
        english, chinese = _coded(value), _coded(value.chinese)
        return Html(f'<span lang="en">{english}</span><span lang="zh-CN">{chinese}</span>')
    return value if isinstance(value, Html) else Html(escape(str(value), quote=True))


def _coded(text: str) -> str:
    """Escape a text, and set what stands between backticks as code."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", escape(text, quote=True))


def join(parts: Iterable[object]) -> Html:
    """Put pieces one after the other."""
    return Html("\n".join(html(part) for part in parts))


def section(anchor: str, title: str, *parts: object) -> Html:
    """Make a section with a heading, reachable as ``#anchor``."""
    return Html(
        f'<section aria-labelledby="{html(anchor)}-title">\n'
        f'<h2 id="{html(anchor)}-title">{html(title)}</h2>\n{join(parts)}\n</section>'
    )


def folded(title: str, *parts: object) -> Html:
    """Make a section that opens when it is asked for."""
    return Html(f"<details><summary>{html(title)}</summary>\n{join(parts)}\n</details>")


def paragraph(*parts: object) -> Html:
    """Make a paragraph of texts and markup."""
    return Html(f"<p>{''.join(html(part) for part in parts)}</p>")


def table(
    caption: str,
    headers: Sequence[str],
    rows: Iterable[Sequence[object]],
    texts: Container[int] = (0,),
) -> Html:
    """Make a table; the first column heads its row, all but the columns ``texts`` hold figures."""
    kinds = ["" if n in texts else ' class="figure"' for n in range(len(headers))]
    head = "".join(
        f'<th scope="col"{kind}>{html(header)}</th>'
        for header, kind in zip(headers, kinds, strict=True)
    )
    body = ""
    for row in rows:
        first, *others = (html(cell) for cell in row)
        cells = (f"<td{kind}>{cell}</td>" for cell, kind in zip(others, kinds[1:], strict=True))
        body += f'<tr><th scope="row">{first}</th>{"".join(cells)}</tr>\n'
    anchor = f"table-{crc32(caption.encode()):x}"
    return Html(
        f'<div class="scroll" role="region" tabindex="0" aria-labelledby="{anchor}">'
        f'<table><caption id="{anchor}">{html(caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}</tbody></table></div>"
    )


def page(
    title: str, lead: Html, fixed: Html, details: Html, foot: Html, data: tuple[str, str] | None
) -> Html:
    """Make the whole document: self-contained, nothing fetched, no script but its own.

    ``fixed`` is shown where no script runs. ``data`` is what the script draws, as JSON and packed;
    where there is none, there is no script either.
    """
    here = files(__package__)
    script = here.joinpath("page.js").read_text(encoding="utf-8") if data else ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    values = {
        "title": html(title),
        "lead": lead,
        "fixed": fixed,
        "folded": details,
        "foot": foot,
        "script_hash": f"'sha256-{digest}'" if data else "'none'",
        "data": "",
    }
    if data:
        values["data"] = (
            f'<script type="application/json" id="figures">{data[0]}</script>\n'
            f'<script type="text/plain" id="packed">{data[1]}</script>\n'
            f"<script>{script}</script>"
        )
    template = here.joinpath("page.html").read_text(encoding="utf-8")
    return Html(Template(template).substitute(values))
