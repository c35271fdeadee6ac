"""How well the nowcast does: `python -m tests.forecasts_measured` makes the table of docs/rates.md.

Each look is an account of its own (``rate_worlds``), asked at its end: what is said of hours of
sending at six ages, of today and of yesterday, beside what became of them and what an oracle would
have said. `--looks 20 --worlds stable 'real life'` for a quick one; `--against main` sets another
revision's SQL beside it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from typing import Final, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa

from tests.cohorts import CUTOFF
from tests.rate_worlds import WORLDS, World, fill, micros, world
from usms_pipeline.warehouse import ddl

HOURS: Final = (0.25, 2, 4, 12, 24, 48)
"""Ages of a cohort: an hour of sending, so long after its end; no two overlap."""
_HOUR, _DAY = 3_600_000_000, 24 * 3_600_000_000
_ALPHA: Final = 0.05
LEFT_OUT: Final = ("holiday",)
"""A world that is for alerts alone."""

Said = tuple[float | None, float | None, float | None]


class Seen(NamedTuple):
    """What was said of a cohort, by whom (its place in what was asked), and what became of it."""

    kind: str  # 'today', 'yesterday' or 'hour'
    rate: float | None  # so far
    truth: float
    said: tuple[Said, ...]  # of the SQL, of the oracle, and of another revision's SQL


def look(account: World, cons: Sequence[duckdb.DuckDBPyConnection]) -> Iterator[Seen]:
    """Ask each warehouse about an account at its end; yield the cohorts that await something."""
    rows = account.receipts()
    is_final, is_delivered = account.truth()
    sent, end = account.sent_us[: rows.num_rows], micros(account.end)
    days = (end // _DAY - sent // _DAY).astype(np.int64)
    hours = np.full(len(sent), -1)
    for n, age in enumerate(HOURS):
        first, last = (end - int((age + more) * _HOUR) for more in (1, 0))
        hours[(sent >= first) & (sent < last)] = n
    labels = pa.array([*map(str, [*range(len(HOURS)), "none"])]).take(
        pa.array(np.where(hours < 0, len(HOURS), hours))
    )
    labelled = rows.set_column(rows.column_names.index("template"), "template", labels)
    answers = [_ask(con, labelled) for con in cons]
    groups = {str(n): ("hour", hours == n) for n in range(len(HOURS))}
    for name, age in (("today", 0), ("yesterday", 1)):
        groups[str((account.end - timedelta(days=age)).date())] = (name, days == age)
    awaited = {name: group for name, group in groups.items() if answers[0].get(name, (0,))[0]}
    known = account.oracle(account.end, rows, [mask for _, mask in awaited.values()])
    for (name, (kind, mask)), best in zip(awaited.items(), known, strict=True):
        if count := int(is_final[mask].sum()):
            ours, *others = (tuple(answer[name][2:]) for answer in answers)
            truth = float(is_delivered[mask].sum() / count)
            yield Seen(kind, answers[0][name][1], truth, (ours, best, *others))


def _ask(con: duckdb.DuckDBPyConnection, rows: pa.Table) -> dict[str, tuple[float | None, ...]]:
    names = [one[0] for one in con.execute("DESCRIBE receipts").fetchall()]
    fill(con, rows.select([name for name in rows.column_names if name in names]))
    found = con.execute(_QUESTION)
    return {row[0]: row[1:] for row in found.fetchall()}


_QUESTION: Final = """
WITH young AS NOT MATERIALIZED (
    FROM receipts WHERE sent_at > (SELECT max(sent_at) FROM receipts) - INTERVAL 3 DAYS
),
cohorts AS (
    SELECT *, template AS usms_cohort FROM young
    UNION ALL
    SELECT *, sent_date::VARCHAR FROM young
)
SELECT cohort, awaited, delivery_rate, expected_rate, expected_rate_low, expected_rate_high
FROM usms_nowcast_by(cohorts, 'usms_cohort', 28)
"""


# -- figures ----------------------------------------------------------------------------------


class Figures(NamedTuple):
    """Of some cohorts: how many were spoken of; held, width and interval score (0 to 1), bias."""

    cohorts: int
    said: int
    held: float
    width: float
    score: float
    bias: float


def figures(seen: Sequence[Seen], nth: int) -> Figures:
    """Sum up what the n-th of those who were asked said; what nothing is said of is left out."""
    rows = np.array([[one.truth, *one.said[nth]] for one in seen], float).reshape(-1, 4)
    truth, expected, low, high = rows[~np.isnan(rows).any(axis=1)].T
    missed = np.maximum(low - truth, 0) + np.maximum(truth - high, 0)
    return Figures(
        len(seen),
        len(truth),
        float(np.mean(missed < 1e-9)),
        float(np.mean(high - low)),
        float(np.mean(high - low + 2 / _ALPHA * missed)),
        float(np.mean(expected - truth)),
    )


@cache
def _connections(against: str | None) -> list[duckdb.DuckDBPyConnection]:
    """Return warehouses in memory: of this SQL, and of another revision's."""
    return [_opened(text) for text in _texts(against)]


@cache
def _texts(against: str | None) -> list[str]:
    if not against:
        return [_definitions()]
    with tempfile.TemporaryDirectory(prefix="revision-") as folder:
        archive = subprocess.run(
            ["git", "archive", against, "usms_pipeline"],
            cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, check=True,
        )  # fmt: skip
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        return [_definitions(), _definitions_in(folder)]


def _opened(definitions: str) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(":memory:", config={"threads": "1"})
    con.execute("SET TimeZone = 'UTC'")
    con.execute(definitions)
    return con


def _definitions() -> str:
    fields = ddl.columns(["template"], ["template"])
    return f"{ddl.create_receipts(fields)};{ddl.definitions(fields, CUTOFF)}"


def _definitions_in(folder: str) -> str:
    said = subprocess.run(
        [sys.executable, "-c", _PRINT], env={**os.environ, "PYTHONPATH": folder}, cwd=folder,
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return said.stdout


_PRINT: Final = """
from datetime import timedelta
from usms_pipeline.warehouse import ddl
fields = ddl.columns(["template"], ["template"])
print(ddl.create_receipts(fields) + ";" + ddl.definitions(fields, timedelta(hours=72)))
"""


def looks(name: str, against: str | None, seed: int) -> list[Seen]:
    """Return what was seen of one account."""
    return list(look(world(name, seed), _connections(against)))


def table(names: Iterable[str], seeds: Sequence[int], against: str | None) -> Iterator[str]:
    """Yield the lines of the table, a world each."""
    yield (
        "| world | looks | held: today, yesterday, hours | oracle's | width | oracle's | score |"
        f"{' before |' if against else ''} bias so far | bias | nothing said of |"
    )
    yield "|---" * (11 if against else 10) + "|"
    _texts(against)  # before there are other processes: the files may change meanwhile
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for name in names:
            found = pool.map(partial(looks, name, against), seeds, chunksize=2)
            seen = [one for account in found for one in account]
            yield _line(name, len(seeds), seen, bool(against))


def _line(name: str, count: int, seen: Sequence[Seen], has_before: bool) -> str:
    ours, best = (figures(seen, nth) for nth in range(2))
    so_far = np.mean([one.rate - one.truth for one in seen if one.rate is not None])
    cells = [
        name,
        str(count),
        _held(seen, 0),
        _held(seen, 1),
        f"{ours.width * 100:.2f}",
        f"{best.width * 100:.2f}",
        f"{ours.score * 100:.2f}",
        *([f"{figures(seen, 2).score * 100:.2f}"] if has_before else []),
        f"{so_far * 100:+.2f}",
        f"{ours.bias * 100:+.2f}",
        f"{ours.cohorts - ours.said} of {ours.cohorts}",
    ]
    return f"| {' | '.join(cells)} |"


def _held(seen: Sequence[Seen], nth: int) -> str:
    kinds = ("today", "yesterday", "hour")
    held = [figures([one for one in seen if one.kind == kind], nth).held for kind in kinds]
    return ", ".join(f"{share * 100:.0f}" for share in held)


def main() -> None:
    """Print the table, and the seeds that were drawn."""
    said = argparse.ArgumentParser(description=__doc__)
    said.add_argument("--looks", type=int, default=100)
    said.add_argument("--worlds", nargs="*", default=[n for n in WORLDS if n not in LEFT_OUT])
    said.add_argument("--first-seed", type=int, default=None)
    said.add_argument("--against", default=None)
    args = said.parse_args()
    first = args.first_seed
    if first is None:
        first = int(np.random.default_rng().integers(0, 10**6))
    print(f"seeds {first} to {first + args.looks - 1}", flush=True)
    for line in table(args.worlds, range(first, first + args.looks), args.against):
        print(line, flush=True)


if __name__ == "__main__":
    main()
