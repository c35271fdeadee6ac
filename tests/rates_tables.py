"""The tables of docs/rates.md: `python -m tests.rates_tables` writes them in, in some minutes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests import test_nowcast
from tests.readme_tables import put_in

PAGE = Path(__file__).parent.parent / "docs" / "rates.md"


def nowcast(swing: float = 0.0) -> Iterator[str]:
    """Give the table of the rates so far and the rates expected, by age."""
    yield "| age | awaited | rate so far: bias, usual error | expected: bias, usual error | interval | held | held, of all |"  # noqa: E501
    yield "|---|---|---|---|---|---|---|"
    for hours in test_nowcast.HOURS:
        found = test_nowcast.errors(hours, swing)
        age = f"{hours * 60:g} min" if hours < 1 else f"{hours:g} h"
        yield (
            f"| {age} | {found.open} of {found.cohorts} | {_error(found.naive)} "
            f"| {_error(found.expected)} | {found.width * 100:.1f} "
            f"| {found.open_held / found.open:.1%} | {found.held / found.cohorts:.1%} |"
        )


def unlike_days() -> Iterator[str]:
    """Give the same for days that differ by more than chance."""
    return nowcast(test_nowcast.SWINGS[-1])


def _error(error: test_nowcast.Error) -> str:
    bias = f"{error.bias * 100:+.2f} ± {error.bias_error * 100:.2f}"
    return f"{bias}, {error.median * 100:.2f}"


def main() -> None:
    """Fill the tables in between their markers."""
    text = PAGE.read_text("utf-8")
    for name, make in {"nowcast": nowcast, "unlike": unlike_days}.items():
        text = put_in(text, name, "\n".join(make()))
    PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
