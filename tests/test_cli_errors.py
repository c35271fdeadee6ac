"""What a user reads for each mistake: an exit code and a sentence of what, where and what to do.

Never a traceback, a secret or a phone number.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.examples import examples
from tests.test_cli import Account, begun
from usms_pipeline.cli import simulate as made_up
from usms_pipeline.simulator import ACCESS_KEY_SECRET, Faults
from usms_pipeline.store.storage import Store

PASSWORD = "hunter2%2Fx"
KEY, OTHER_KEY = "1a" * 32, "2b" * 32
SECRETS = (ACCESS_KEY_SECRET, "WRONG-SECRET", PASSWORD, "hunter2", KEY, OTHER_KEY)


class Shop(Account):
    """An account with one thing at a time to get wrong."""

    def told(self, code: int, *arguments: str, **settings: str | None) -> str:
        """Run a command that must fail with a code; gives what it says on stderr."""
        result = self(*arguments, **settings)
        assert result.exit_code == code, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert_decent(result.stderr, self.phones())
        return result.stderr

    def phones(self) -> list[str]:
        with closing(sqlite3.connect(self.folder / "shop.sqlite")) as con:
            return [row[0] for row in con.execute(f"SELECT phone FROM {made_up.TABLE}").fetchall()]


def assert_decent(said: str, phones: list[str]) -> None:
    """Hold a message to what every message must be."""
    assert "Traceback" not in said
    assert "Unexpected" not in said
    assert 'File "' not in said
    for secret in SECRETS:
        assert secret not in said
    digits = re.sub(r"\D", "", said)
    assert not [phone for phone in phones if phone.lstrip("+") in digits]


def sentence(said: str) -> str:
    """The one line that an error of a run is."""
    (line,) = said.splitlines()
    assert line.startswith("✗ ")
    assert line.endswith((".", "?"))
    return line


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    with begun(tmp_path, monkeypatch, 40, seed=3) as (simulator, settings):
        yield Shop(tmp_path, simulator, settings)


NEEDED = ("access_key_id", "access_key_secret", "source_url", "source_table")


@pytest.mark.parametrize("command", ["run", "plan", "check"])
def test_without_settings_every_one_that_is_needed_is_named_with_an_example(
    command: str, shop: Shop
) -> None:
    result = shop(command, **dict.fromkeys(NEEDED))
    assert result.exit_code == 2
    assert_decent(result.output, [])
    needed = NEEDED[2:] if command == "plan" else NEEDED
    for name in needed:
        variable = f"USMS_{name.upper()}"
        assert f"{variable}: is not set (for example: {variable}=" in result.output


def test_settings_that_cannot_work_are_told_all_at_once(shop: Shop) -> None:
    said = shop.told(
        2, "run", base_url="http://api.uspeedo.com", timezone="Mars", batch_size="many",
        phone_key=KEY[:10], access_key_secret=None,
    )  # fmt: skip
    assert "5 settings to fix, in the environment or in .env" in said
    for name in ("BASE_URL", "TIMEZONE", "BATCH_SIZE", "PHONE_KEY", "ACCESS_KEY_SECRET"):
        assert f"USMS_{name}: " in said


@pytest.mark.parametrize("command", ["run", "rebuild", "forget --session x --yes", "check"])
@pytest.mark.parametrize("place", ["a file", "/dev/null/x", "/proc/usms"])
def test_a_data_directory_that_cannot_be_written(place: str, command: str, shop: Shop) -> None:
    (shop.folder / "a file").write_text("x")
    if command == "check":
        said = shop(command, data_dir=place).stdout
        assert_decent(said, shop.phones())
    else:
        said = sentence(shop.told(1, *command.split(), data_dir=place))
    assert place in said
    assert "USMS_DATA_DIR" in said
    if place == "a file":
        for one in (said, shop.told(1, "plan", data_dir=place)):
            assert "in 'a file': that is a file. Set USMS_DATA_DIR to a folder" in one
            assert "errno" not in one


@pytest.mark.parametrize("command", [["rates"], ["report"], ["sql", "FROM receipts"]])
def test_a_warehouse_that_is_not_there_yet(command: list[str], shop: Shop) -> None:
    said = sentence(shop.told(1, *command))
    assert "No warehouse is published at 'data/usms.duckdb' yet" in said
    assert "usms run" in said
    assert f"there is none in {shop.folder}" in said
    Path(".env").touch()
    assert "there is none" not in shop.told(1, *command)
    assert "there is none" not in shop.told(1, *command, warehouse=str(shop.folder / "w.duckdb"))


def test_a_warehouse_that_is_something_else(shop: Shop) -> None:
    (shop.folder / "data").mkdir()
    (shop.folder / "data/usms.duckdb").write_text("not a database " * 500)
    said = sentence(shop.told(1, "rates"))
    assert "can't be opened" in said
    assert "usms run" in said


@pytest.mark.parametrize("command", ["run", "plan", "rates", "rebuild"])
@pytest.mark.parametrize(
    ("days", "complaint"),
    [
        (["--from", "yesterday"], "'yesterday' is not a day from"),
        (["--to", "2026-02-30"], "'2026-02-30' is not a day"),
        (["--to", "9999-12-31"], "'9999-12-31' is not a day from 1970-01-01 to 2199-12-31"),
        (["--from", "2026-02-02", "--to", "2026-02-01"], "lies after --to 2026-02-01"),
    ],
)
def test_days_that_are_none_or_cross(
    command: str, days: list[str], complaint: str, shop: Shop
) -> None:
    assert complaint in shop.told(2, command, *days)
    assert shop.simulator.counters.requests == 0


@pytest.mark.parametrize("command", ["run", "plan"])
def test_days_that_no_run_reaches_are_told(command: str, shop: Shop) -> None:
    """Before the start date or after today, by one bound alone: nothing is asked."""
    said = shop.told(2, command, "--from", "2999-01-01")
    assert "2999-01-01" in said
    said = shop.told(2, command, "--to", "1999-01-01")
    assert "1999-01-01" in said
    assert "USMS_START_DATE" in said


@examples(
    2,
    "command",
    [
        "run",
        "plan",
        "rebuild",
        "forget --session x --yes",
        "quarantine replay --all",
        "quarantine dismiss --all",
    ],
)
def test_another_phone_key(command: str, shop: Shop) -> None:
    """It is refused by every command that writes, before the service is asked anything."""
    shop.simulator.faults = Faults(poison_ids=frozenset(shop.simulator.sessions[:1]))
    assert shop("run", phone_key=KEY).exit_code == 0
    asked = shop.simulator.counters.requests
    said = sentence(shop.told(2, *command.split(), phone_key=OTHER_KEY))
    assert "another phone key" in said
    assert "Set USMS_PHONE_KEY to the key it was made with" in said
    assert shop.simulator.counters.requests == asked
    assert not (shop.folder / "data/forgotten.json").exists()
    checked = shop("check", phone_key=OTHER_KEY)
    assert checked.exit_code == 2
    assert_decent(checked.output, shop.phones())


def test_another_phone_key_than_the_data_directorys(shop: Shop) -> None:
    assert shop("run").exit_code == 0
    said = sentence(shop.told(2, "rebuild", phone_key=OTHER_KEY))
    assert "unset it if that is phone.key there" in said
    (shop.folder / "data/phone.key").write_text("ab" * 32)
    said = sentence(shop.told(2, "rebuild"))
    assert "Set USMS_PHONE_KEY to the key it was made with" in said


@pytest.mark.parametrize("text", ["", "[]", '{"requests_per_second": "fa'])
def test_a_damaged_file_of_ours_is_named(text: str, shop: Shop) -> None:
    assert shop("run").exit_code == 0
    (shop.folder / "data/forgotten.json").write_text(text)
    assert "'forgotten.json'" in sentence(shop.told(1, "run"))


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_truncated_day_is_named(command: str, shop: Shop) -> None:
    assert shop("run").exit_code == 0
    path = shop.folder / "data" / Store("data").names("receipts")[0]
    path.write_bytes(path.read_bytes()[:100])
    result = shop(command)
    assert result.exit_code == 1
    assert path.parent.name.removeprefix("sent_date=") in result.output
    assert_decent(result.output, [])


def test_a_file_of_somebody_else_is_left_alone_and_told_of(shop: Shop) -> None:
    assert shop("run").exit_code == 0
    for name in ("receipts/sent_date=today/receipts.parquet", "responses/mine.parquet"):
        place = shop.folder / "data" / name
        place.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"a": [1]}), place)
    assert shop("run").exit_code == 0
    assert shop("rebuild").exit_code == 0
    told = shop("check").stdout
    assert "1 file in the responses' folder" in told
    assert "such as responses/mine.parquet" in told


@pytest.mark.parametrize("command", ["run", "quarantine replay --all"])
def test_credentials_that_the_service_refuses(command: str, shop: Shop) -> None:
    shop.simulator.faults = Faults(poison_ids=frozenset(shop.simulator.sessions[:1]))
    if command != "run":
        assert shop("run").exit_code == 0
    said = sentence(shop.told(3, *command.split(), access_key_secret="WRONG-SECRET"))
    assert "USMS_ACCESS_KEY_ID" in said
    assert "USMS_ACCESS_KEY_SECRET" in said
