"""Quiet weeks whose days differ, judged by the real macro: the table in docs/rates.md.

`python -m tests.quiet_weeks` draws a seed, writes the table in and prints the seed; another number
after it is taken for the seed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Final

import duckdb
import numpy as np
import pyarrow as pa

from tests.rate_worlds import warehouse
from tests.readme_tables import put_in

PAGE: Final = Path(__file__).parent.parent / "docs" / "rates.md"
SWINGS: Final = (0.0, 0.15, 0.25, 0.35)
"""Standard deviations of a day's luck, on the logit scale."""
VOLUMES: Final = (1_000, 10_000, 100_000)
LAST_DAY: Final = date(2026, 11, 22)


def counts(
    random: np.random.Generator, weeks: int, a_day: int, swing: float, rate: float = 0.94
) -> pa.Table:
    """Return ``weeks`` groups of two weeks of one rate, as ``usms_changes`` reads them.

    A day has ``a_day`` messages with a final status, three fifths as many at weekends. The logit
    of its rate is normal around that of ``rate``.
    """
    volume = np.array([a_day] * 5 + [3 * a_day // 5] * 2 + [a_day] * 5 + [3 * a_day // 5] * 2)
    n = random.poisson(np.broadcast_to(volume, (weeks, 14)))
    logits = np.log(rate / (1 - rate)) + random.normal(0, swing, (weeks, 14))
    k = random.binomial(n, 1 / (1 + np.exp(-logits)))
    first = np.datetime64(LAST_DAY) - 13
    return pa.table(
        {
            "cohort": np.repeat(np.arange(weeks), 14).astype(str),
            "sent_date": pa.array(np.tile(first + np.arange(14), weeks)),
            "last_day": pa.array(np.full(14 * weeks, np.datetime64(LAST_DAY))),
            "messages": n.ravel(),
            "n": n.ravel(),
            "k": k.ravel(),
        }
    )


def said_to_change(con: duckdb.DuckDBPyConnection, given: pa.Table) -> float:
    """Return the share of the cohorts whose interval of the change does not hold 0."""
    con.register("given", given)
    query = "SELECT avg((change_low > 0 OR change_high < 0)::INT) FROM usms_changes('given')"
    ((share,),) = con.execute(query).fetchall()
    con.unregister("given")
    return float(share)


def lines(seed: int, weeks: int = 4_000) -> Iterator[str]:
    """Return the table's lines: swing by volume, the share of quiet weeks said to have changed."""
    random = np.random.default_rng(seed)
    yield f"| days differ (sd of the logit) | {' | '.join(f'{v:,} a day' for v in VOLUMES)} |"
    yield f"|---|{'---|' * len(VOLUMES)}"
    with warehouse() as con:
        for swing in SWINGS:
            shares = [
                said_to_change(con, counts(random, weeks, volume, swing)) for volume in VOLUMES
            ]
            yield f"| {swing:g} | {' | '.join(f'{share:.1%}' for share in shares)} |"
    yield ""
    yield f"Seed {seed}, {weeks:,} pairs of weeks each."


def main() -> None:
    """Write the table of a drawn seed, or of the one given, into the page."""
    seed = int(sys.argv[1]) if sys.argv[1:] else int(np.random.SeedSequence().generate_state(1)[0])
    table = "\n".join(lines(seed))
    PAGE.write_text(put_in(PAGE.read_text("utf-8"), "weeks", table), "utf-8")
    print(table)


if __name__ == "__main__":
    main()
