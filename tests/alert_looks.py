"""How often alerts are false, and what they find: the tables in docs/rates.md.

`python -m tests.alert_looks` draws a seed, looks at accounts of `tests/rate_worlds.py` by the real
macros, writes the tables in and prints the seed. It takes an hour of two quiet cores; `--days 122`
looks at a third of each year, `--part outages` makes one table alone.

What is counted of an hour of sending is the same at every later look (`test_alerts.py` holds that),
so the hours are counted once, some days of receipts at a time, and then looked at as of any hour.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import duckdb
import numpy as np

from tests.rate_worlds import Trouble, World, fill, micros, warehouse, with_trouble, world
from tests.readme_tables import put_in

PAGE: Final = Path(__file__).parent.parent / "docs" / "rates.md"
HISTORY: Final = 31 * 24
AT_ONCE: Final = 600_000
"""Messages whose receipts are made at a time: more take gigabytes."""
EVERY: Final = 2
"""Days between two looks of a year: each sees 72 hours of sending, so every hour is looked at."""
KINDS: Final = {"fail": "failing", "late": "silent"}
AFTER: Final = (1, 2, 3, 4, 6, 12, 24)
"""Hours after an outage began at which somebody looks."""
STRUCK: Final = "China Unicom"

SHARES: Final = (0.05, 0.1, 0.3, 1.0)
"""Of an operator's messages, those that an outage strikes."""

QUIET: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "stable": ("stable", {}),
    "weekdays and hours of the day": ("weekdays and hours", {}),
    "carriers that report at night": ("nightly lots", {}),
    "holidays": ("holiday", {"holidays": tuple(range(5, 365, 30))}),
    "pauses of 8 h": (
        "pipeline paused 8 h",
        {"pauses": tuple((24.0 * d, 8.0) for d in range(3, 365, 30))},
    ),
    "days and hours differ": ("days and hours differ", {}),
    "nights, weekdays, days differ": ("real life", {}),
}  # fmt: skip
"""Worlds of a year in which nothing fails: how they are called, and made."""

Row = dict[str, Any]


def hour_of(moment: datetime) -> int:
    """Return the hour since 1970 that a moment lies in."""
    return micros(moment) // 3_600_000_000


def at(hour: int) -> datetime:
    """Return the moment at which an hour since 1970 begins."""
    return datetime.fromtimestamp(hour * 3_600, tz=UTC)


def opened() -> duckdb.DuckDBPyConnection:
    """Open a warehouse with an empty table ``kept`` of counts, as ``usms_counts`` gives them."""
    con = warehouse()
    con.execute("SET threads = 1")  # of so few rows, two are no faster
    con.execute("CREATE TABLE kept AS FROM usms_counts() LIMIT 0")
    return con


def keep(con: duckdb.DuckDBPyConnection, account: World, first: int, last: int) -> None:
    """Count the hours of sending from first to last into ``kept``, each as it stands in the end."""
    step = max(24, min(26 * 24, int(AT_ONCE / account.per_day * 24)))
    for begin in range(first, last + 1, step):
        end = min(begin + step, last + 1)
        fill(con, account.receipts(min(at(end + 4 * 24), account.end), at(begin)))
        con.execute(f"INSERT INTO kept FROM usms_counts() WHERE hour >= {begin} AND hour < {end}")


def look(con: duckdb.DuckDBPyConnection, now: int) -> list[Row]:
    """Return the troubles that a look in the hour ``now`` finds, of what is kept."""
    found: list[Row] = (
        con.sql(f"""
        WITH counts AS MATERIALIZED (
            SELECT * REPLACE ({now} AS now) FROM kept WHERE hour > {now} - {HISTORY}
        ),
        kinds AS NOT MATERIALIZED (FROM usms_kinds(counts))
        FROM usms_alerts(kinds) WHERE kind <> 'mix'
    """)
        .to_arrow_table()
        .to_pylist()
    )
    return found


class Year(NamedTuple):
    """The number of looks, of those with an alert, and of different alerts in all."""

    looks: int
    alarmed: int
    alerts: int


def looked(account: World, days: int) -> Year:
    """Look at an account every two days, over its last ``days`` days."""
    with opened() as con:
        now = hour_of(account.end)
        keep(con, account, now - days * 24 - HISTORY, now - 1)
        found = [look(con, now - 24 * ago) for ago in range(0, days, EVERY)]
    told = {
        (row["by_column"], row["cohort"], row["since"].date()) for rows in found for row in rows
    }
    return Year(len(found), sum(map(bool, found)), len(told))


def quiet(name: str, days: int, seed: int, a_day: int) -> Year:
    """Look at a year in which nothing fails."""
    known, given = QUIET[name]
    return looked(world(known, seed, per_day=a_day, days=days + 33, **given), days)


def grown(accounts: int, seed: int, a_day: int, days: int = 30) -> Year:
    """Look for a month each at accounts that double every week, and fail a little more each day."""
    years = [
        looked(world("growing", seed + n, per_day=a_day, days=days + 33), days)
        for n in range(accounts)
    ]
    return Year(*(sum(counts) for counts in zip(*years, strict=True)))


def campaigns(seed: int, a_day: int, accounts: int = 10) -> Year:
    """Look at accounts that began to send to a new country 30 hours ago, five times since then."""
    found = []
    for n in range(accounts):
        account = world("new campaign", seed + n, per_day=a_day)
        with opened() as con:
            now = hour_of(account.end)
            keep(con, account, now - HISTORY - 30, now - 1)
            found.append([row for ago in range(0, 30, 6) for row in look(con, now - ago)])
    return Year(accounts, sum(map(bool, found)), sum(map(len, found)))


class Struck:
    """An account's 31 days before an hour in which an operator is to be struck.

    ``before`` are earlier troubles; each begins its hours before that hour.
    """

    def __init__(self, seed: int, a_day: int, *before: Trouble, name: str = "stable") -> None:
        self._name, self._seed, self._a_day, self._con = name, seed, a_day, opened()
        account = world(name, seed, per_day=a_day, days=33)
        self.hour = hour_of(account.end) - 26
        self._begins = (account.end - at(self.hour)) / timedelta(hours=1)
        earlier = [replace(one, begins=self._begins + one.begins) for one in before]
        keep(self._con, with_trouble(account, *earlier), self.hour - HISTORY, self.hour - 1)

    def strike(self, kind: str, share: float, hours: int = 1) -> Find:
        """Strike the operator, and look some hours after that began."""
        account = world(self._name, self._seed, per_day=self._a_day, days=29 / 24)
        trouble = Trouble(STRUCK, self._begins, hours, share, kind)
        self._con.execute(f"DELETE FROM kept WHERE hour >= {self.hour}")
        keep(self._con, with_trouble(account, trouble), self.hour, self.hour + 25)
        struck = (at(self.hour), at(self.hour + hours))
        for after in AFTER:
            for row in look(self._con, self.hour + after):
                if row["since"] < struck[1] and row["until"] > struck[0]:
                    is_named = str(row["cohort"]).startswith(STRUCK)
                    return Find(after, is_named, (row["since"], row["until"]) == struck)
        return Find(None, False, False)

    def usual(self, kind: str) -> tuple[int, float]:
        """Return how many messages of the operator an hour has, and the share usually affected."""
        ((messages, share),) = self._con.execute(
            "SELECT sum(messages), sum(affected) / sum(messages) FROM usms_kinds('kept') "
            f"WHERE by_column = 'operator' AND cohort LIKE '{STRUCK}%' AND age = 1 "
            f"AND kind = '{KINDS[kind]}' AND hour < {self.hour}"
        ).fetchall()
        return round(messages / (HISTORY - 1)), share


def possible(messages: int, usual: float, share: float) -> float:
    """Return the power of the best test of one hour at one false alarm a year over twenty groups.

    It knows what is usual; a share of the other messages is affected too.
    """
    from scipy.stats import binom  # only now: it takes a second to load

    fewest = binom.isf(1 / (20 * 8_766), messages, usual)
    return float(binom.sf(fewest, messages, usual + (1 - usual) * share))


class Find(NamedTuple):
    """After how many hours an outage was found, if it was; and whether the first alert named it."""

    after: int | None
    is_named: bool
    is_timed: bool


def found(finds: list[Find]) -> str:
    """Write how many of some outages were found within two hours, how many at all, and named."""
    soon = sum(find.after is not None and find.after <= 2 for find in finds)
    ever = [find for find in finds if find.after is not None]
    named = sum(find.is_named for find in ever)
    timed = sum(find.is_timed for find in ever)
    return f"{soon}, {len(ever)} ({named}, {timed})"


def quiet_lines(seed: int, days: int, volumes: tuple[int, ...] = (2_000, 20_000)) -> Iterator[str]:
    """Return the table of accounts in which nothing fails."""
    yield f"| nothing fails | {' | '.join(f'{n:,} a day' for n in volumes)} |"
    yield f"|---|{'---|' * len(volumes)}"
    months = max(1, days // 30)
    measured: dict[str, Callable[[int, int], Year]] = {
        **{name: partial(quiet, name, days) for name in QUIET},
        f"doubling every week, {months} accounts of a month": partial(grown, months),
        "a new country since 30 h, ten accounts": campaigns,
    }
    for name, count in measured.items():
        years = [count(seed, volume) for volume in volumes]
        cells = [f"{year.alarmed} of {year.looks} ({year.alerts})" for year in years]
        yield f"| {name} | {' | '.join(cells)} |"


def outage_lines(seed: int, _: int) -> Iterator[str]:
    """Return the table of outages of an hour."""
    yield "| messages a day | the operator's, an hour | struck | 5 % | 10 % | 30 % | 100 % |"
    yield "|---|---|---|---|---|---|---|"
    for a_day, times in ((2_000, 10), (20_000, 10), (200_000, 4)):
        finds: dict[tuple[str, float], list[Find]] = {}
        usual = {}
        for n in range(times):
            struck = Struck(seed + n, a_day)
            for kind in KINDS:
                usual[kind] = struck.usual(kind)
                for share in SHARES:
                    finds.setdefault((kind, share), []).append(struck.strike(kind, share))
        for kind, (messages, affected) in usual.items():
            cells = [
                f"{found(finds[kind, share])}; {times * possible(messages, affected, share):.1f}"
                for share in SHARES
            ]
            yield f"| {a_day:,} | {messages:,} | {times} × {kind} | {' | '.join(cells)} |"


def second_lines(seed: int, _: int, times: int = 10) -> Iterator[str]:
    """Return the table of outages ten days after another."""
    yield "| outage at 20,000 a day | alone | ten days after a day on which 30 % failed |"
    yield "|---|---|---|"
    first = Trouble(STRUCK, 240, 24, 0.3)
    for words, share, hours in (("13 % of one hour", 0.13, 1), ("5 % of six hours", 0.05, 6)):
        alone, second = (
            [Struck(seed + n, 20_000, *before).strike("fail", share, hours) for n in range(times)]
            for before in ((), (first,))
        )
        yield f"| {words} | {found(alone)} | {found(second)} |"


PARTS: Final = {"quiet": quiet_lines, "outages": outage_lines, "second": second_lines}


def main() -> None:
    """Write the tables of a drawn seed, or of the one given, into the page."""
    parser = ArgumentParser(prog="python -m tests.alert_looks")
    drawn = int(np.random.SeedSequence().generate_state(1)[0])
    parser.add_argument("--seed", type=int, default=drawn)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--part", choices=PARTS, action="append")
    given = parser.parse_args()
    print(f"seed {given.seed}")
    for part in given.part or PARTS:
        made = []
        for line in (*PARTS[part](given.seed, given.days), "", f"Seed {given.seed}."):
            print(line, flush=True)
            made.append(line)
        text = PAGE.read_text("utf-8")
        PAGE.write_text(put_in(text, f"alerts {part}", "\n".join(made)), "utf-8")


if __name__ == "__main__":
    main()
