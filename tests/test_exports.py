"""Exports of a table, as a spreadsheet or pandas writes them: `usms run --all` reads every row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pandas as pd
import pyarrow as pa
from typer.testing import CliRunner

from tests.account import variables
from tests.conftest import MakeRehearsal
from tests.examples import examples
from usms_pipeline.cli import app
from usms_pipeline.simulator import Population

ROWS = 5_000
Row = dict[str, Any]


def messages(until: datetime) -> pa.Table:
    """Twenty days: among them is always one past the 12th, which shows where the month stands.

    The session numbers are digits, as a program may well take for a number.
    """
    table = Population(ROWS, days=20, until=until, seed=8, group_share=0.1).table()
    coded = table["session_no"].combine_chunks().dictionary_encode().indices.to_pylist()
    numbers = pa.array([str(1_700_000_000_000 + 7 * code) for code in coded])
    return table.set_column(0, "session_no", numbers)


def zh_spreadsheet(rows: list[Row], path: Path) -> dict[str, str]:
    """A spreadsheet in Chinese: a byte-order mark, no leading zeros, no seconds."""
    zone = ZoneInfo("Asia/Shanghai")
    lines = ["会话号,手机号码,发送时间,模板"]
    for row in rows:
        at = row["sent_at"].astimezone(zone)
        time = f"{at.year}/{at.month}/{at.day} {at.hour}:{at:%M}"
        lines.append(f"'{row['session_no']},{row['phone'][1:]},{time},{row['template']}")
    path.write_text("\r\n".join(lines), "utf-8-sig")
    return {
        "USMS_SESSION_COLUMN": "会话号", "USMS_PHONE_COLUMN": "手机号码",
        "USMS_SENT_AT_COLUMN": "发送时间", "USMS_DIMENSIONS": "模板",
        "USMS_SOURCE_TIMEZONE": zone.key, "USMS_TIMEZONE": zone.key,
    }  # fmt: skip


def eu_spreadsheet(rows: list[Row], path: Path) -> dict[str, str]:
    """A spreadsheet in German: semicolons, the day first, and numbers kept whole by a formula."""
    zone = ZoneInfo("Europe/Berlin")
    lines = ["sep=;", "Sitzung;Empfänger;Gesendet am;Preis"]
    for row in rows:
        at = row["sent_at"].astimezone(zone)
        marked = (f'"=""{row[name]}"""' for name in ("session_no", "phone"))
        lines.append(f"{';'.join(marked)};{at:%d.%m.%Y %H:%M:%S};0,05")
    path.write_text("\r\n".join(lines) + "\r\n", "utf-8")
    return {
        "USMS_SESSION_COLUMN": "Sitzung", "USMS_PHONE_COLUMN": "Empfänger",
        "USMS_SENT_AT_COLUMN": "Gesendet am", "USMS_DIMENSIONS": "Preis",
        "USMS_SOURCE_TIMEZONE": zone.key, "USMS_TIMEZONE": zone.key,
    }  # fmt: skip


def pandas_with_gaps(rows: list[Row], path: Path) -> dict[str, str]:
    """A data frame: numbers are floats where one is missing, and the index is a column."""
    frame = pd.DataFrame(rows)[["session_no", "phone", "sent_at", "template"]]
    frame["session_no"] = frame["session_no"].astype("float64")
    frame["phone"] = frame["phone"].str[1:].astype("float64")
    frame["sent_at"] = pd.to_datetime(frame["sent_at"], utc=True).astype("datetime64[ns, UTC]")
    frame.loc[::50, "session_no"] = None
    frame.loc[7::50, "phone"] = None
    frame.to_csv(path)
    return {"USMS_PHONE_COLUMN": "phone", "USMS_DIMENSIONS": "template"}


@examples(1, "export", [zh_spreadsheet, eu_spreadsheet, pandas_with_gaps])
def test_every_row_of_an_export_is_in_the_figures(
    export: Callable[[list[Row], Path], dict[str, str]], tmp_path: Path, simulator: MakeRehearsal
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    sent = messages(now - timedelta(hours=80))
    rehearsal = simulator(sent, clock=lambda: now)
    begin = (now - timedelta(days=40)).date()
    given = variables(
        rehearsal.url, tmp_path / "export.csv", data_dir=tmp_path / "data", start_date=begin
    )
    rows = sent.to_pylist()
    given |= export(rows, tmp_path / "export.csv")
    ran = CliRunner().invoke(app, ["run", "--all"], env=given)
    assert ran.exit_code == 0, ran.output
    assert "no usable time" not in ran.output

    zone = ZoneInfo(given.get("USMS_TIMEZONE", "UTC"))
    has_session = [n % 50 > 0 or export is not pandas_with_gaps for n in range(ROWS)]
    days = Counter(row["sent_at"].astimezone(zone).date() for row in rows)
    with duckdb.connect(str(tmp_path / "data/usms.duckdb"), read_only=True) as con:
        con.execute("SET TimeZone = 'UTC'")
        found = con.execute(
            "SELECT sent_date, count(*) FROM receipts WHERE is_announced GROUP BY 1"
        ).fetchall()
        [[invalid]] = con.execute(
            "FROM receipts SELECT count(*) WHERE session_no IS NULL"
        ).fetchall()
        delivered = con.execute(
            "SELECT session_no, count(*) FROM receipts WHERE status = 'delivered' GROUP BY 1"
        ).fetchall()
    if all(has_session):
        assert dict(found) == days
    assert sum(count for _, count in found) == ROWS
    assert invalid == ROWS - sum(has_session)
    asked = {row["session_no"] for row, has in zip(rows, has_session, strict=True) if has}
    wanted = Counter(
        one["session_no"]
        for one in rehearsal.service.truth(now).to_pylist()
        if one["status"] == "delivered" and one["session_no"] in asked
    )
    assert dict(delivered) == wanted
