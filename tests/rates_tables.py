"""The tables of docs/rates.md: `python -m tests.rates_tables` writes them in, in some minutes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests import test_alerts, test_nowcast
from tests.readme_tables import put_in

PAGE = Path(__file__).parent.parent / "docs" / "rates.md"
_SEEDS = 20


def nowcast() -> Iterator[str]:
    """Give the table of the rates so far and the rates expected, by age."""
    yield "| age | rate so far: bias, error | rate expected: bias, error | interval | held |"
    yield "|---|---|---|---|---|"
    for hours in test_nowcast.HOURS:
        found = test_nowcast.errors(hours)
        age = f"{hours * 60:g} min" if hours < 1 else f"{hours:g} h"
        yield (
            f"| {age} | {found.naive_bias * 100:+.2f}, {found.naive_error * 100:.1f} "
            f"| {found.bias * 100:+.2f}, {found.error * 100:.1f} "
            f"| {found.width * 100:.1f} wide | {found.held:.1%} of {found.cohorts} |"
        )


def alerts() -> Iterator[str]:
    """Give the table of outages found, and the sentence on quiet days."""
    yield "| outage | messages a day | found | usually after |"
    yield "|---|---|---|---|"
    for size, (failed, late) in test_alerts.SIZES.items():
        for volume in (2_000, 20_000):
            after = [test_alerts.found_after(size, seed, volume) for seed in range(_SEEDS)]
            times = sorted(hours for hours in after if hours is not None)
            usual = f"{times[len(times) // 2]} h" if times else "–"
            yield (
                f"| {size}: {failed:.0%} fail, {late:.0%} come late | {volume:,} "
                f"| {len(times)} of {_SEEDS} | {usual} |"
            )
    yield ""
    quiet = []
    for volume in (1_000, 5_000):
        looks = [bool(out or bare) for _, out, bare in test_alerts.quiet_looks(365, volume, 1)]
        quiet.append(f"{sum(looks)} at {volume:,} messages a day")
    yield f"False alarms on 365 quiet days, looked at every two days: {' and '.join(quiet)}."


def main() -> None:
    """Fill the tables in between their markers."""
    text = PAGE.read_text("utf-8")
    for name, make in {"nowcast": nowcast, "alerts": alerts}.items():
        text = put_in(text, name, "\n".join(make()))
    PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
