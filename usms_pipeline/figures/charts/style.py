"""How every chart looks, and how one becomes an SVG or a PNG.

No figures here: what is drawn is in the modules beside this one. Altair and vl-convert are
imported where they are used, for they take seconds; neither needs a browser or the network.
"""

from __future__ import annotations

import hashlib
import re
import textwrap
import warnings
from collections.abc import Mapping
from typing import Any, Final

Chart = Any
"""One of Altair's top-level charts; to name them would be to import them."""

PALETTE: Final[Mapping[str, str]] = {
    "ink": "#1c2733",
    "muted": "#566473",
    "grid": "#e2e7ec",
    "delivered": "#0b6aa8",
    "band": "#bcd9ee",
    "lost": "#d9662b",
    "unheard": "#a9b4bf",
    "awaited": "#e9bd3f",
    "page": "#ffffff",
}
"""Role to colour. Blue, orange, yellow and grey differ in any colour blindness."""

WIDTH: Final = 720
"""Of every chart, in pixels."""

FONT: Final = "Arial, 'Liberation Sans', Helvetica, sans-serif"
"""Fonts of one metric, for an SVG is laid out here and shown elsewhere."""


def colour(role: str) -> str:
    """Return the colour of a role."""
    return PALETTE[role]


_TITLE_EM, _SUBTITLE_EM = 10.4, 7.4
"""Pixels of a character, of 16 bold and of 12: DejaVu Sans, where no narrower font is installed,
for what goes over the edge is cut."""


def dressed(plot: Chart, title: str, subtitle: str) -> Chart:
    """Return a plot with its title and theme, the title wrapped to the width."""
    import altair as alt

    return plot.properties(
        title=alt.TitleParams(
            text=textwrap.wrap(title, int(WIDTH / _TITLE_EM)),
            subtitle=textwrap.wrap(subtitle, int(WIDTH / _SUBTITLE_EM)),
        ),
        background=colour("page"),
        padding={"left": 4, "right": 10, "top": 4, "bottom": 4},
    ).configure(**_config())


def empty(text: str) -> Chart:
    """Draw a sentence where there is nothing to draw."""
    import altair as alt

    mark = alt.Chart(alt.InlineData(values=[{"nothing": 0}])).mark_text(
        text="nothing to draw", align="left", x=0, fontSize=13, color=colour("muted")
    )
    return dressed(mark.properties(width=WIDTH - 40, height=40), text, "")


def caption(chart: Chart) -> tuple[str, str]:
    """Return a chart's headline and the sentence below it, as plain text."""
    title = chart.title  # not from to_dict(), which checks the whole chart, slowly
    return " ".join(title.text), " ".join(title.subtitle)


def png(chart: Chart, scale: float = 2) -> bytes:
    """Render a chart, with its title, as PNG; ``scale`` is pixels of the image per pixel."""
    import vl_convert

    return bytes(vl_convert.vegalite_to_png(chart.to_dict(), scale=scale, **_offline()))


def hover(spec: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Draw a chart in a notebook, so that its marks say their figures when pointed at.

    A renderer of Altair's, which fetches nothing: ``altair.renderers.register("hover", hover)``.
    JupyterLab and VS Code draw it by their own Vega, others show the picture.
    """
    import vl_convert

    title = spec.get("title") or {}
    label = " ".join([*title.get("text", ()), *title.get("subtitle", ())])
    live = spec | {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",  # theirs, not Altair's v6
        "usermeta": {"embedOptions": {"actions": False}},  # a menu with links to the network
    }
    drawn = _own_ids(vl_convert.vegalite_to_svg(spec, **_offline()))
    return {
        "application/vnd.vegalite.v5+json": live,
        # not as HTML, which JupyterLab prefers to Vega
        "image/svg+xml": _with_tooltips(drawn, label),
    }


def zooming(chart: Chart) -> Chart:
    """Return a chart whose x axis the mouse zooms and moves, where ``hover`` draws it by Vega."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # panels share the zoom, and are meant to
        return chart.interactive(bind_y=False)


def _offline() -> dict[str, Any]:
    """Return options with the Vega-Lite version that Altair writes; nothing is fetched."""
    import altair as alt

    version = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    return {"vl_version": version, "allowed_base_urls": []}


_ID = re.compile(r'( id="|url\(#)(\w+)')


def _own_ids(text: str) -> str:
    """Make the clip paths' ids unlike those of other SVGs on a page; the same chart, the same ids.

    Vega counts them on for as long as the process lives.
    """
    found = dict.fromkeys(re.findall(r' id="(\w+)"', text))
    numbers = {name: str(number) for number, name in enumerate(found)}
    plain = _ID.sub(lambda m: m[1] + numbers.get(m[2], m[2]), text)
    key = hashlib.sha256(plain.encode()).hexdigest()[:8]
    return _ID.sub(rf"\g<1>clip-{key}-\2", plain)


_MARK = re.compile(
    r'<(path|line|text|circle|rect) aria-label="([^"]*)"([^>]*?)(?:/>|>([^<]*)</\1>)'
)
_ARIA = re.compile(r' (?:role|aria-[a-z]+)="[^"]*"')


def _with_tooltips(text: str, label: str) -> str:
    """Turn the marks' labels into native tooltips, and the whole into one image with a label.

    A screen reader gets the sentence here and the figures from the table beside the chart.
    """
    text = _MARK.sub(lambda m: f"<{m[1]}{m[3]}><title>{m[2]}</title>{m[4] or ''}</{m[1]}>", text)
    head, _, rest = _ARIA.sub("", text).partition(">")
    quoted = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return f'{head} role="img" aria-label="{quoted}">{rest}'


def _config() -> dict[str, Any]:
    ink, muted, grid = colour("ink"), colour("muted"), colour("grid")
    return {
        "font": FONT,
        "view": {"stroke": None},
        "title": {
            "anchor": "start", "frame": "bounds", "color": ink, "subtitleColor": muted,
            "fontSize": 16, "fontWeight": 600, "subtitleFontSize": 12, "offset": 14,
            "subtitlePadding": 6, "subtitleLineHeight": 16,
        },
        "axis": {
            "labelColor": muted, "titleColor": muted, "gridColor": grid, "domain": False,
            "ticks": False, "labelFontSize": 12, "titleFontSize": 12,
            "titleFontWeight": "normal", "labelPadding": 6, "titlePadding": 8,
        },
        "legend": {
            "labelColor": ink, "labelFontSize": 12, "symbolType": "square", "labelLimit": 300,
            "orient": "bottom", "title": None, "offset": 8, "columnPadding": 30,
        },
        "text": {"fontSize": 12, "color": ink},
    }  # fmt: skip
