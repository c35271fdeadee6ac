"""``usms simulate``: a USMS service to rehearse with, on this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.markup import escape

from usms_pipeline.cli import config
from usms_pipeline.cli import messages as made_up
from usms_pipeline.cli.shell import out, warn
from usms_pipeline.cli.tables import facts_grid
from usms_pipeline.contract import wording

if TYPE_CHECKING:
    import pyarrow as pa

PORT: Final = 8765

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
    from usms_pipeline.simulator import Faults, Population, Simulator, serve

    if list_faults:
        known = Faults.describe().items()
        named = ((f"[bold not dim]{name}[/]", escape(about)) for name, about in known)
        out().print(facts_grid(*named))
        return
    try:
        faults = Faults.parse(",".join(fault or []))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    sent: Any
    if own:
        sent = _OwnMessages(seed)
    else:
        sent = Population(messages, days, seed, customers=made_up.customers(messages)).table()
        if table is not None:
            made_up.write(sent, table)
    simulator = Simulator(sent, seed=seed, faults=faults)
    if own:
        warn(sent.warnings)
    if not config.is_loopback(host):
        warn(
            [
                f"Anyone who reaches this machine on {host} can ask it about these messages and "
                "their phone numbers, over plain http: without --host only this machine can."
            ]
        )
    with serve(simulator, port, host) as url, suppress(KeyboardInterrupt):
        _greet(url, len(simulator.sessions), table)
        threading.Event().wait()
    counters = simulator.counters
    counted = {
        name: getattr(counters, name) for name in ("requests", "answered", "refused", "throttled")
    }
    counted |= dict(counters.faults.most_common())
    out().print(facts_grid(*((name, wording.count(count)) for name, count in counted.items())))


class _OwnMessages:
    """The rows of the user's own table since the start date, in batches, and what is made up.

    The pipeline's reader reads the numbers, so that what it can read is what is answered for.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.settings = config.load(["source"])
        self.rows = self.without = self.masked = self.more = self.others = 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        from datetime import UTC, datetime, time, timedelta

        import pyarrow.compute as pc

        from usms_pipeline import source
        from usms_pipeline.people.phones import PhoneBook

        book = PhoneBook(b"", self.settings.default_region, "masked")
        start = datetime.combine(self.settings.start_date, time(), UTC)
        for batch in source.read(self.settings, start, datetime.now(UTC) + timedelta(days=1)):
            place = batch.schema.get_field_index("phone")
            phones, numbers = batch["phone"], book.e164(batch["phone"])
            made_up = self._unmasked(batch, numbers)
            numbers = pc.coalesce(numbers, book.e164(made_up))
            self.rows += batch.num_rows
            self.more += pc.sum(batch["recipients"]).as_py() - batch.num_rows
            self.without += phones.null_count
            self.masked += batch.num_rows - made_up.null_count
            self.others += numbers.null_count - phones.null_count
            numbers = pc.coalesce(numbers, phones)  # answered for as it stands
            yield batch.set_column(place, "phone", numbers)

    def _unmasked(self, batch: pa.RecordBatch, numbers: pa.Array) -> pa.Array:
        """Return a number for each mask, and NULL for what is none."""
        import pyarrow as pa

        from usms_pipeline.simulator.numbering import unmasked

        rows = (batch["session_no"].to_pylist(), batch["phone"].to_pylist(), numbers.to_pylist())
        found = [
            unmasked(text, f"{self._seed}|{session_no}|{text}") if text and not number else None
            for session_no, text, number in zip(*rows, strict=True)
        ]
        return pa.array(found, pa.string())

    @property
    def warnings(self) -> list[str]:
        """Report how many numbers are made up, or are none."""
        name = "" if self.settings.phone_column else (
            "; for receipts of your own numbers, name their column in USMS_PHONE_COLUMN"
        )  # fmt: skip
        rows = f"of your {wording.counted(self.rows, 'row')}"
        count = wording.count
        said = {
            f"No phone in {count(self.without)} {rows}: made-up numbers there{name}.": self.without,
            f"Your rows count {count(self.more)} recipients more than they name: made-up numbers "
            "for these.": self.more,
            f"Hidden digits in {count(self.masked)} {rows}: made-up ones there.": self.masked,
            f"A phone that says no number in {count(self.others)} {rows}: answered as it stands.":
            self.others,
        }  # fmt: skip
        return [sentence for sentence, is_so in said.items() if is_so]


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
        given |= {"source_table": made_up.TABLE} if is_sqlite else {}
        given |= {"phone_column": "phone", "dimensions": "template,purpose,sender"}
    console.print("[dim]To use it, set in .env or export:[/]")
    for name, value in given.items():
        console.print(f"  {config.variable(name)}={escape(value)}", soft_wrap=True)
