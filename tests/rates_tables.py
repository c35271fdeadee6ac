"""The tables of docs/rates.md: `python -m tests.rates_tables` writes them in, in some minutes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests import test_alerts
from tests.readme_tables import put_in

PAGE = Path(__file__).parent.parent / "docs" / "rates.md"
_SEEDS = 20


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
    quiet, unlike = map(_alarms, (0.0, 0.06))
    yield f"False alarms on 365 quiet days, looked at every two days: {quiet}."
    yield f"On 365 days that differ by more than chance, as above: {unlike}."


def _alarms(swing: float) -> str:
    """Count the looks at 365 days without an outage that found something out of line."""
    counts = []
    for volume in (1_000, 5_000):
        said = test_alerts.quiet_looks(365, volume, 1, swing)
        found = sum(bool(out or bare) for _, out, bare in said)
        counts.append(f"{found} at {volume:,} messages a day")
    return " and ".join(counts)


def main() -> None:
    """Fill the tables in between their markers."""
    text = PAGE.read_text("utf-8")
    text = put_in(text, "alerts", "\n".join(alerts()))
    PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
