"""Makes ``tests/data/version-<n>``: a small dataset as this version's program leaves it.

Run ``python -m tests.make_old_dataset`` once for each version of the layout, before it changes, and
never again: what is stored must stay what the program of that time wrote. The phone numbers are
made up, and the key is no secret.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from tests.account import START, Account
from tests.conftest import Rehearsal
from usms_pipeline import schema
from usms_pipeline.queries import rates
from usms_pipeline.simulator import Faults, Population, Simulator, serve
from usms_pipeline.warehouse import connect

WHERE: Final = Path(__file__).parent / "data"
KEY: Final = "00112233445566778899aabbccddeeff" * 2
UNTIL: Final = START + timedelta(hours=2)
GIVEN: Final = {"dimensions": "template", "phone_key": KEY, "poll_minutes": "5,30"}
MESSAGES: Final = Population(40, days=0.8, until=START, group_share=0.2, group_size=4)


def make(folder: Path) -> None:
    """Collect for two hours, with bad items and a refused session; then forget somebody."""
    messages = MESSAGES.table()
    refused = frozenset({messages["session_no"][3].as_py()})
    faults = Faults(bad_items=0.3, late=0.2, unknown_words=0.05, poison_ids=refused)
    service = Simulator(messages, faults=faults)
    with serve(service) as url:

        def simulator(messages: Any, clock: Any, **options: Any) -> Rehearsal:
            service.clock = clock
            return Rehearsal(url, service, messages)

        account = Account(folder, simulator, messages, **GIVEN)
        while account.clock.now < UNTIL:
            account.run()
            account.clock.turn(minutes=40)
        account.clock.now = UNTIL
        account.run()
        account.pipeline.forget(phones=[messages["phone"][0].as_py()])


def figures(warehouse: Path) -> dict[str, Any]:
    """Give what a published file says: all figures, by everything that the rows are grouped by."""
    groups = (None, "sent_date", "country", "template", "provider_status")
    with connect(warehouse) as con:
        said = {str(by): rates(con, by).to_arrow_table().to_pylist() for by in groups}
    for rows in said.values():
        rows.sort(key=str)
    return json.loads(json.dumps(said, default=str))  # type: ignore[no-any-return]


def main() -> None:
    """Write the dataset, without what is made of it, and what its figures are."""
    place = WHERE / f"version-{schema.VERSION}"
    if place.exists():
        raise SystemExit(f"{place} is there already, and must stay as it is.")
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        made = Path(folder) / "data"
        said = figures(made / "usms.duckdb")
        left_out = shutil.ignore_patterns("usms.duckdb", ".locks", "report.html")
        shutil.copytree(made, place / "data", ignore=left_out)
        shutil.copy(Path(folder) / "source.parquet", place)
    (place / "figures.json").write_text(json.dumps(said, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
