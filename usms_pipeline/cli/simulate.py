"""``usms simulate``: a USMS service to rehearse with, on this machine."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.markup import escape

import usms_pipeline
from usms_pipeline.cli.options import check_file
from usms_pipeline.cli.shell import out, warn
from usms_pipeline.cli.tables import facts_grid
from usms_pipeline.contract import wording

if TYPE_CHECKING:
    import pyarrow as pa

PORT: Final = 8765
TABLE: Final = "sms_log"
KINDS: Final = (".sqlite", ".parquet", ".csv")

Host = Annotated[str, typer.Option("--host", help="Address to listen on.")]
Port = Annotated[
    int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes any free one.")
]
Seed = Annotated[int, typer.Option("--seed", help="Random seed of messages and receipts.")]
Messages = Annotated[int, typer.Option("--messages", min=0, help="Number of messages.")]
Days = Annotated[
    float, typer.Option("--days", min=0.001, help="They were sent in the last n days.")
]
FaultsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--fault", metavar="NAME=RATE", help="Inject a fault; `every` injects all. Repeatable."
    ),
]
ListFaults = Annotated[bool, typer.Option("--list-faults", help="List the faults.")]
Own = Annotated[
    bool, typer.Option("--own", help="Answer for your own table (USMS_SOURCE_URL) instead.")
]
TableFile = Annotated[
    Path | None,
    typer.Option("--table", help="Also write the messages to this .sqlite, .parquet or .csv file."),
]


def simulate(
    host: Host = "127.0.0.1",
    port: Port = PORT,
    seed: Seed = 0,
    messages: Messages = 50_000,
    days: Days = 5,
    fault: FaultsOption = None,
    list_faults: ListFaults = False,
    own: Own = False,
    table: TableFile = None,
) -> None:
    """Run a simulated USMS service over HTTP until Ctrl-C, with faults if you like."""
    from usms_pipeline.simulator import Faults, Simulator, serve

    if list_faults:
        known = Faults.describe().items()
        named = ((f"[bold not dim]{name}[/]", escape(about)) for name, about in known)
        out().print(facts_grid(*named))
        return
    try:
        faults = Faults.parse(",".join(fault or []))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if table is not None:
        check_file("--table", table)
    sent: Any
    if own:
        sent, warnings = _own_messages(seed)
        warn(warnings)
    else:
        sent = made_up(messages, days, seed)
        if table is not None:
            write(sent, table)
    simulator = Simulator(sent, seed=seed, faults=faults)
    if not usms_pipeline.settings.is_loopback(host):
        warn([
            f"Anyone who reaches this machine on {host} can ask it about these messages and "
            "their phone numbers, over plain http: without --host only this machine can."
        ])  # fmt: skip
    with serve(simulator, port, host) as url, suppress(KeyboardInterrupt):
        _greet(url, len(simulator.sessions), table)
        threading.Event().wait()
    counters = simulator.counters
    counted = {
        name: getattr(counters, name) for name in ("requests", "answered", "refused", "throttled")
    }
    counted |= dict(counters.faults.most_common())
    out().print(facts_grid(*((name, wording.count(count)) for name, count in counted.items())))


def made_up(messages: int, days: float, seed: int) -> pa.Table:
    """Return made-up messages of the last days; most customers get two or three of them."""
    from usms_pipeline.simulator import Population

    return Population(messages, days, seed, customers=max(1, messages * 2 // 5)).table()


def write(messages: pa.Table, path: Path) -> None:
    """Write the messages to a file by its ending; an SQLite file has them in table ``sms_log``.

    Raises a usage error for another ending.
    """
    if path.suffix == ".sqlite":
        import adbc_driver_sqlite.dbapi
        import pyarrow.compute as pc

        path.unlink(missing_ok=True)
        # as most applications keep times: as naive text, in UTC
        sent_at = pc.strftime(messages["sent_at"], format="%Y-%m-%d %H:%M:%S")
        place = messages.schema.get_field_index("sent_at")
        with adbc_driver_sqlite.dbapi.connect(str(path)) as connection, connection.cursor() as it:
            it.adbc_ingest(TABLE, messages.set_column(place, "sent_at", sent_at))
            it.execute(f"CREATE INDEX {TABLE}_sent_at ON {TABLE} (sent_at)")
            connection.commit()
    elif path.suffix == ".parquet":
        from pyarrow import parquet

        parquet.write_table(messages, path)
    elif path.suffix == ".csv":
        from pyarrow import csv

        csv.write_csv(messages, path)
    else:
        raise typer.BadParameter(f"{path} must end in one of: {', '.join(KINDS)}.")


def _own_messages(seed: int) -> tuple[list[pa.RecordBatch], list[str]]:
    """Return the rows of the user's own table since the start date, and what is made up in them.

    The pipeline's reader reads the numbers, so that what it can read is what is answered for.
    """
    from datetime import UTC, datetime, time, timedelta

    import pyarrow as pa
    import pyarrow.compute as pc

    from usms_pipeline import source
    from usms_pipeline.people.phones import PhoneBook
    from usms_pipeline.simulator.numbering import unmasked

    settings = usms_pipeline.settings.load(["source"])
    book = PhoneBook(b"", settings.default_region, "masked")
    start = datetime.combine(settings.start_date, time(), UTC)
    batches: list[pa.RecordBatch] = []
    made_up = 0
    for batch in source.read(settings, start, datetime.now(UTC) + timedelta(days=1)):
        phones, numbers = batch["phone"], book.e164(batch["phone"])
        rows = (batch["session_no"].to_pylist(), phones.to_pylist(), numbers.to_pylist())
        digits = [
            unmasked(text, f"{seed}|{session_no}|{text}") if text and not number else None
            for session_no, text, number in zip(*rows, strict=True)
        ]
        filled = pa.array(digits, pa.string())
        numbers = pc.coalesce(numbers, book.e164(filled))
        unnamed = pc.sum(batch["recipients"]).as_py() - batch.num_rows + phones.null_count
        made_up += unnamed + batch.num_rows - filled.null_count
        numbers = pc.coalesce(numbers, phones)  # answered for as it stands
        batches.append(batch.set_column(batch.schema.get_field_index("phone"), "phone", numbers))
    if not made_up:
        return batches, []
    name = "" if settings.phone_column else (
        "; for receipts of your own numbers, name their column in USMS_PHONE_COLUMN"
    )  # fmt: skip
    people = wording.counted(made_up, "recipient")
    return batches, [f"Made-up numbers for {people} whose own your table does not show{name}."]


def _greet(url: str, sessions: int, table: Path | None) -> None:
    from usms_pipeline.simulator import ACCESS_KEY_ID, ACCESS_KEY_SECRET

    console = out()
    console.print(
        f"[green]✓[/] A simulated USMS service is on [bold]{url}[/] and knows "
        f"{wording.count(sessions)} sessions. Ctrl-C stops it."
    )
    given = {
        "base_url": url,
        "access_key_id": ACCESS_KEY_ID,
        "access_key_secret": ACCESS_KEY_SECRET,
    }
    if table is not None:
        is_sqlite = table.suffix == ".sqlite"
        given["source_url"] = f"sqlite:///{table}" if is_sqlite else str(table)
        given |= {"source_table": TABLE} if is_sqlite else {}
        given |= {"phone_column": "phone", "dimensions": "template,purpose,sender"}
    console.print("[dim]To use it, set in .env or export:[/]")
    for name, value in given.items():
        console.print(f"  {usms_pipeline.settings.variable(name)}={escape(value)}", soft_wrap=True)
