"""What can be asked of a published warehouse, each question as a DuckDB relation.

``from usms_pipeline import connect, queries``; then ``queries.rates(connect(), "country").df()``,
or ``.pl()``, ``.to_arrow_table()``, ``.show()``. Nothing is computed here: see ``sql/``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from importlib.resources import files
from typing import Final

import duckdb
import pyarrow as pa

from usms_pipeline.contract import wording
from usms_pipeline.contract.errors import BadQuery, OtherWarehouse, UnknownColumn
from usms_pipeline.contract.metrics import FAILURES
from usms_pipeline.warehouse.ddl import first_line, identifier, literal

_NEAR_SECONDS: Final = 300
_WITHOUT_NUMBER: Final = "recipient LIKE 'unheard-%'"
_OURS: Final = re.compile(r'.*"(There is no column .*)" was selected but .*')
"""A sentence of usms_column(), in DuckDB's own about a column of that name."""
_UNQUOTED: Final = re.compile(r'.*Failed to bind "(.*)" - COLUMNS expression can only contain .*')

Connection = duckdb.DuckDBPyConnection
Relation = duckdb.DuckDBPyRelation


def ask(con: Connection, query: str, **params: object) -> Relation:
    """Return any query of what is published.

    Raises ``OtherWarehouse`` where the file has not the views and macros of this version.
    """
    try:
        return con.sql(query, params=params or None)
    except (duckdb.CatalogException, duckdb.BinderException) as error:
        raise OtherWarehouse(
            "The warehouse has other views and macros than this version of usms-pipeline asks "
            "for. Check USMS_WAREHOUSE, and run `usms run`, which publishes it with this version. "
            f"DuckDB says: {first_line(error)}"
        ) from error


def written(name: str) -> str:
    """Return a query of ``sql/`` that is no view and no macro, as it is written there."""
    return files("usms_pipeline.warehouse").joinpath(f"sql/{name}.sql").read_text("utf-8")


def own(con: Connection, query: str, most: int | None = None) -> pa.Table | None:
    """Return the first ``most`` rows of the user's own query; None if it returns no table.

    Raises ``BadQuery``.
    """
    try:
        relation: Relation | None = con.sql(query)
        if relation is None:
            return None
        return (relation if most is None else relation.limit(most)).to_arrow_table()
    except duckdb.Error as error:
        reason = _OURS.sub(r"\1", str(error).splitlines()[0])
        reason = _UNQUOTED.sub(r"The column's name goes in single quotes: '\1'.", reason)
        raise BadQuery(
            f'This SQL can\'t be run: {reason} `usms sql "SHOW TABLES"` lists '
            'tables and views, `usms sql "DESCRIBE receipts"` the columns.'
        ) from None


def rates(
    con: Connection,
    by: str | Sequence[str] | None = None,
    first: date | None = None,
    last: date | None = None,
) -> Relation:
    """Return the delivery figures by columns of ``receipts``, or of everything (one row).

    ``first`` and ``last`` are local days of sending, both included; a ``datetime`` is a moment.
    Columns: those of ``by`` (an
    operator with its country, ``Orange (FR)``), then those of ``metrics.METRICS``. Days and times
    ascend; other groups come largest first.

    Raises ``UnknownColumn``, with similar names.
    """
    keys, order, sent = _grouped(con, by, first, last)
    key = "".join(f"r.{one}, " for one in keys)
    return ask(
        con,
        f"SELECT {key} unnest(delivery_figures(r)) FROM usms_named() AS r "
        f"WHERE r.is_announced {sent} {'GROUP BY ' * bool(keys)}{key.rstrip(', ')} {order}",
    )


def rates_expected(
    con: Connection,
    by: str | Sequence[str] | None = None,
    first: date | None = None,
    last: date | None = None,
) -> Relation:
    """Return the rows of ``rates``, each with what its delivery rate will be in the end.

    Three columns more: ``expected_rate`` with the ends of its 95 % interval, as in ``nowcast``; of
    a group that awaits nothing they are its rate. Raises ``UnknownColumn``.
    """
    keys, order, sent = _grouped(con, by, first, last)
    key = "".join(f"r.{one}, " for one in keys)
    group = f"to_json([{', '.join(f'r.{one}::VARCHAR' for one in keys) or 'NULL'}])::VARCHAR"
    return ask(
        con,
        f"""
        WITH members AS (
            SELECT r.*, {group} AS usms_group
            FROM usms_named() AS r WHERE r.is_announced {sent}
        ),
        guesses AS (FROM usms_nowcast_by(members, 'usms_group', 28)),
        figures AS (
            SELECT {key} any_value(r.usms_group) AS usms_group, delivery_figures(r) AS figures,
                row_number() OVER ({order}) AS place
            FROM members AS r {"GROUP BY " * bool(keys)}{key.rstrip(", ")}
        )
        SELECT {key} unnest(r.figures), g.expected_rate, g.expected_rate_low, g.expected_rate_high
        FROM figures AS r LEFT JOIN guesses AS g ON g.cohort = r.usms_group
        ORDER BY r.place
        """,
    )


def arranged(relation: Relation, sort: str | None = None, limit: int | None = None) -> Relation:
    """Return a relation's rows sorted by a column, ``-column`` for the largest first; or some.

    NULL comes last. Raises ``UnknownColumn``.
    """
    if sort is not None:
        name = sort.removeprefix("-")
        if name not in relation.columns:
            raise UnknownColumn(_no_column(name, "sort by", relation.columns))
        way = "DESC" if sort.startswith("-") else "ASC"
        relation = relation.order(f"{identifier(name)} {way} NULLS LAST")
    return relation if limit is None else relation.limit(limit)


def nowcast(con: Connection, by: str = "sent_date") -> Relation:
    """Return what the delivery rates will be in the end, by a column of ``receipts``.

    One row a ``cohort`` (text): ``messages``, ``awaited``, ``delivery_rate`` so far,
    ``known_share`` of the final statuses to come, ``expected_rate`` with the ends of its 95 %
    interval; shares are 0 to 1, NULL without history. Raises ``UnknownColumn``.
    """
    _known(con, by)
    return ask(con, f"FROM delivery_nowcast_by({literal(by)})")


def forecasts(con: Connection) -> Relation:
    """Return what was expected of the latest 14 settled days (UTC) as each ended, and its rate.

    The rows of ``delivery_nowcast_record``; none of a day that there was no history for.
    """
    return ask(con, "FROM main.delivery_nowcast_record")


def maturity(con: Connection) -> Relation:
    """Return how complete a group of messages usually is at an age (``age_seconds``)."""
    return ask(con, "FROM maturity()")


def curve(
    con: Connection,
    by: str | None = None,
    first: date | None = None,
    last: date | None = None,
) -> Relation:
    """Return the share delivered within n seconds: ``metrics.CURVE``, by column or of all.

    Days as in ``rates``. Raises ``UnknownColumn``.
    """
    ends = {"first": first, "last": last}
    days = ", ".join(f"{end} := {literal(day.isoformat())}" for end, day in ends.items() if day)
    if by is None:
        return ask(con, f"FROM delivery_curve({days})")
    _known(con, by)
    return ask(con, f"FROM delivery_curve_by({literal(by)}{', ' * bool(days)}{days})")


def failures(
    con: Connection,
    by: str | Sequence[str] | None = None,
    first: date | None = None,
    last: date | None = None,
) -> Relation:
    """Return what failed, by columns and the service's code and description: ``metrics.FAILURES``.

    ``share`` is of the failures of the same group. Days as in ``rates``. Raises ``UnknownColumn``.
    """
    keys, _, sent = _grouped(con, by, first, last)
    of_group = ", ".join(f"r.{key}" for key in keys)
    reason = map(identifier, ("provider_code", "provider_desc", "status"))
    group = ", ".join(f"r.{one}" for one in dict.fromkeys((*keys, *reason)))
    return ask(
        con,
        f"""
        SELECT {group}, count(*) AS messages,
            count(*) / sum(count(*)) OVER ({"PARTITION BY " * bool(keys)}{of_group}) AS share,
            min(coalesce(r.received_at, r.final_at)) AS first_seen_at,
            max(coalesce(r.received_at, r.final_at)) AS last_seen_at
        FROM usms_named() AS r
        WHERE r.is_announced AND r.status IN ('failed', 'rejected', 'expired') {sent}
        GROUP BY {group}
        ORDER BY messages DESC, {group}
        """,
    )


def by_code(failures: Relation, by: Sequence[str] = ()) -> Relation:
    """Return rows of ``failures`` with a code's texts in one, the three most frequent of them.

    ``by`` are the columns that they were grouped by.
    """
    if "provider_desc" in by:
        return failures
    figures = [metric.name for metric in FAILURES]
    keys = [one for one in failures.columns if one not in ("provider_desc", *figures)]
    key, texts = ", ".join(map(identifier, keys)), "list(provider_desc ORDER BY messages DESC)"
    return failures.aggregate(
        f"{key}, array_to_string({texts}[:3], ' · ') || if(count(*) > 3, ' · …', '') "
        "AS provider_desc, sum(messages)::BIGINT AS messages, round(sum(share), 12) AS share, "
        "min(first_seen_at) AS first_seen_at, max(last_seen_at) AS last_seen_at",
        key,
    ).order(f"messages DESC, {key}")


def costs(
    con: Connection,
    by: str | Sequence[str] | None = None,
    first: date | None = None,
    last: date | None = None,
) -> Relation:
    """Return what messages cost, by columns and by currency: ``metrics.COSTS``.

    The largest cost first. Days as in ``rates``. Raises ``UnknownColumn``.
    """
    keys, _, sent = _grouped(con, by, first, last)
    key = "".join(f"r.{one}, " for one in keys)
    return ask(
        con,
        f"""
        SELECT {key} r.currency, unnest(r.figures)
        FROM (
            SELECT {key} usms_currency(r) AS currency, cost_figures(r) AS figures
            FROM usms_named() AS r WHERE r.is_announced {sent} GROUP BY {key} usms_currency(r)
        ) AS r
        ORDER BY r.figures.cost DESC NULLS LAST, r.figures.messages DESC, {key} r.currency
        """,
    )


def change(con: Connection, by: str) -> Relation:
    """Return the latest settled week beside the one before it, by a column of ``receipts``.

    One row a ``cohort`` (text): rates and their ``change`` (0 to 1) with the ends of its 95 %
    interval. Raises ``UnknownColumn``.
    """
    _known(con, by)
    return ask(con, f"FROM delivery_rate_change_by({literal(by)})")


def alerts(con: Connection) -> Relation:
    """Return what is worse than usual in the last 72 hours: the rows of ``delivery_alerts``."""
    return ask(con, "FROM main.delivery_alerts")


def uncovered_days(con: Connection, share: float, days: int = 7) -> Relation:
    """Return those of the latest settled days (nothing is awaited) with too few final statuses.

    ``share`` (0 to 1) of the messages should have one. A day has too few where fewer have, and the
    chance of that, of the day or of all these days together (Chernoff's bound, exp(-n · KL)), is
    under one in a thousand, times how many are looked at, as in ``alerts``. Columns:
    ``sent_date``, ``messages``, ``with_evidence``.
    """
    return ask(con, written("uncovered_days"), share=share, days=days)


def copies_hint(con: Connection, days: Sequence[date] | None = None) -> str | None:
    """Return, without a period, that sessions have more rows than the service knows recipients.

    Of those without a phone, in sessions of several, an hour old when they were last asked about;
    of some days of sending, or of all. None where they are one in five or fewer of the rows: as
    many may be silent.
    """
    # the few sessions that may have such rows first: to group all of them takes 0.5 s a million
    asked = """
        FROM main.receipts
        WHERE is_announced AND last_asked_at - sent_at > INTERVAL 1 HOUR
            AND ($days IS NULL OR list_contains($days, sent_date))
    """
    grouped = """
        SELECT coalesce(sum(unknown), 0)::BIGINT, coalesce(sum(rows), 0)::BIGINT
        FROM (
            SELECT count(*) AS rows, count(provider_status) AS with_receipt,
                count(*) FILTER ({odd} AND phone IS NULL) AS unknown
            FROM (FROM asked {semi})
            GROUP BY session_no
        )
        WHERE with_receipt > 0 AND rows > 1
    """
    of_some = f"SEMI JOIN (FROM asked WHERE {_WITHOUT_NUMBER}) AS odd USING (session_no)"
    for semi in (of_some, ""):
        counted = grouped.format(odd=_WITHOUT_NUMBER, semi=semi)
        query = f"WITH asked AS NOT MATERIALIZED ({asked}) {counted}"
        ((unknown, rows),) = con.execute(query, {"days": days and [*days]}).fetchall()
        if not unknown:
            return None
    if 5 * unknown <= rows:
        return None
    return (
        f"{wording.counted(unknown, 'message')} without a phone and without a receipt, in sessions "
        "of which the service knows fewer recipients than there are rows: most likely copies of "
        "rows. Read the table without them, by SELECT DISTINCT"
    )


def timezone_hint(con: Connection) -> str | None:
    """Return a sentence: that receipts and sendings seem to be in different time zones.

    They do where the median of ``received_at - sent_at`` is negative, or within five minutes of a
    whole number of hours other than none. None where all is well or nothing was received.
    """
    query = "SELECT median(epoch(received_at - sent_at)) FROM main.receipts WHERE is_announced"
    ((seconds,),) = ask(con, query).fetchall()
    return None if seconds is None else zones_differ(seconds)


def zones_differ(seconds: float) -> str | None:
    """Return a sentence, from the median seconds to a receipt, that two zones are confused."""
    hours = round(seconds / 3600)
    is_whole_hours = hours != 0 and abs(seconds - hours * 3600) <= _NEAR_SECONDS
    if seconds >= 0 and not is_whole_hours:
        return None
    span = f"{abs(hours)} h" if is_whole_hours else f"{abs(seconds):.0f} s"
    return (
        f"Half of the receipts are dated {span} or more {'before' if seconds < 0 else 'after'} "
        "their message was sent: a time zone is probably wrong. Check USMS_RECEIPT_TIMEZONE (of "
        "the service's receipt times) and USMS_SOURCE_TIMEZONE (of your table's times)."
    )


def _grouped(
    con: Connection, by: str | Sequence[str] | None, first: date | None, last: date | None
) -> tuple[list[str], str, str]:
    """Return the columns to group by, quoted; the order of groups; a condition on the days."""
    names = list(dict.fromkeys([by] if isinstance(by, str) else by or ()))
    types = [_known(con, name) for name in names]
    is_time = any(one.startswith(("DATE", "TIMESTAMP")) for one in types)
    keys = [identifier(name) for name in names]
    places = ["count(*) DESC"] * (not is_time) + [f"r.{key}" for key in keys]
    days = [
        f"AND r.sent_at {sign} TIMESTAMPTZ {literal(day.isoformat())}"
        if isinstance(day, datetime)
        else f"AND r.sent_date {sign} DATE {literal(day.isoformat())}"
        for sign, day in ((">=", first), ("<=", last))
        if day is not None
    ]
    return keys, f"ORDER BY {', '.join(places)}" if keys else "", " ".join(days)


def _known(con: Connection, column: str) -> str:
    """Return the column's type; raises ``UnknownColumn`` where there is none of that very name."""
    # also ends a result of `con` that was left half read
    types = {row[0]: str(row[1]) for row in ask(con, "DESCRIBE main.receipts").fetchall()}
    if column not in types:
        raise UnknownColumn(_no_column(column, "group by", types))
    return types[column]


def _no_column(column: str, purpose: str, there: Iterable[str]) -> str:
    """Return a sentence: there is no such column, but near ones, or else all."""
    named = " or ".join(map(repr, wording.near(column, there))) or f"one of {', '.join(there)}"
    several = " For several columns repeat --by." if "," in column else ""
    return f"There is no column {column!r} to {purpose}. Try {named}.{several}"
