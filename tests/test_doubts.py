"""What is odd about rows of the source, and what of it stops a run; and what must not."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from usms_pipeline.contract.errors import UsmsError
from usms_pipeline.days import doubts
from usms_pipeline.people.phones import PhoneBook
from usms_pipeline.settings import Settings
from usms_pipeline.source import Cells

START = datetime(2026, 3, 2, tzinfo=UTC)
Make = Callable[[int], str | None]


def phone(n: int) -> str:
    return f"1380013{n:04}"


def of(
    session: Make, phones: Make = phone, rows: int = 300, cells: Cells | None = None, **given: Any
) -> list[doubts.Doubt]:
    """Return the doubts about rows that were sent half an hour apart."""
    times = [START + timedelta(minutes=30 * n) for n in range(rows)]
    table = pa.table(
        {
            "session_no": pa.array(map(session, range(rows)), pa.string()),
            "phone": pa.array(map(phones, range(rows)), pa.string()),
            "sent_at": pa.array(times, pa.timestamp("us", "UTC")),
        }
    )
    settings = Settings(_env_file=None, **{"phone_column": "phone"} | given)
    return doubts.of_rows(table, cells or Cells(rows), settings, PhoneBook(b"", "CN", "masked"))


STOPPING: dict[str, tuple[Make, Make, str]] = {
    "one value": (lambda n: "otp", phone, "1 value of 'session_no' in rows sent more than a day"),
    "few": (lambda n: str(n % 5), phone, "5 values of 'session_no' in rows sent more than a day"),
    "templates": (lambda n: f"T-{n * n % 17}", phone, "does USMS_SESSION_COLUMN name the session"),
    "phones": (phone, lambda n: None, "look like phone numbers, and would be sent"),
    "phones of Germany": (
        lambda n: f"+49 1512 34{n:05}",
        lambda n: f"s-{n}",
        "or does USMS_PHONE_",
    ),
    "phones with +, valid nowhere": (lambda n: f"+999 {n:08}", lambda n: "x", "look like phone"),
    "lists of phones": (lambda n: f"{phone(n)};{phone(n + 1)}", lambda n: None, "look like phone"),
    "times": (lambda n: f"2026-03-02 10:{n % 60:02}:00", phone, "are times, not session numbers"),
    "times with a T": (lambda n: f"2026/3/{n % 28 + 1}T9:{n % 60:02}", phone, "are times, not"),
}


@pytest.mark.parametrize("name", STOPPING)
def test_a_column_that_can_hold_no_session_numbers_stops_a_run(name: str) -> None:
    session, phones, said = STOPPING[name]
    found = of(session, phones)
    stopping = next(one for one in found if one.stops)
    assert said in stopping.text
    with pytest.raises(UsmsError, match="Nothing was asked: ") as caught:
        doubts.notes(found)
    assert str(caught.value)[-1] in ".?"
    assert not str(caught.value).endswith("?.")


QUIET: dict[str, Make] = {
    "uuids": lambda n: str(uuid.UUID(int=n * 2**64 + 7)),
    "long numbers": lambda n: str(1_700_000_000_000 + 7 * n),
    "calendars and a count": lambda n: f"20260302{n:06}",
    "names": lambda n: f"otp-2026-{n}",
    "a few rows each": lambda n: f"s-{n // 4}",
    "none": lambda n: None,
    "one that was sent again": lambda n: f"s-{n % 299}",
}


@pytest.mark.parametrize("name", QUIET)
def test_real_session_numbers_of_any_kind_stop_no_run(name: str) -> None:
    assert [one for one in of(QUIET[name]) if one.stops] == []


def test_a_few_odd_values_are_told_and_stop_nothing() -> None:
    """As of what stands for "not sent"; the others are session numbers all the same."""
    told = of(lambda n: "failed" if n % 3 else f"s-{n}")
    assert [one.stops for one in told] == [False]
    assert "1 value of 'session_no'" in told[0].text
    assert not any(one.stops for one in of(lambda n: "otp", rows=90)), "too few to tell"


def test_a_session_of_more_rows_than_a_call_takes_is_told() -> None:
    [told] = of(lambda n: "s" if n < 1_001 else f"s-{n}", rows=3_000)
    assert (
        "one value of 'session_no' is in 1,001 rows, and one send call takes at most" in told.text
    )
    assert not told.stops


def test_numbers_that_look_like_phones_beside_phones_are_told_and_asked() -> None:
    """Ids that happen to look so: beside phones, masked ones too, or where no phones are named."""
    for phones, column in ((phone, "phone"), (lambda n: f"138****{n:04}", "phone"), (phone, None)):
        [told] = of(lambda n: str(13_512_000_000 + 31 * n), phones, phone_column=column)
        assert not told.stops
        assert "look like phone numbers: they are sent to the service as" in told.text


@pytest.mark.parametrize(
    ("phones", "is_told"),
    [(lambda n: f"c-{n}", True), (lambda n: phone(n) if n < 100 else f"c-{n}", True),
     (lambda n: "n/a" if n % 3 else phone(n), False), (lambda n: f"138****{n:04}", False),
     (lambda n: None, False), (lambda n: f"+1555{n:07}", False)],
)  # fmt: skip
def test_a_phone_column_without_phones_is_told(phones: Make, is_told: bool) -> None:
    found = of(lambda n: f"s-{n}", phones)
    assert [one.topic for one in found] == ["phones"] * is_told
    assert all("'phone' (USMS_PHONE_COLUMN) are not phone numbers" in one.text for one in found)


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (Cells(rows=300, uncounted=1), "1 of 300 rows has no whole number from 1 to 99,999 in 'n' "
         "(USMS_RECIPIENTS_COLUMN): each counts as 1 recipient"),
        (Cells(rows=300, uncounted=290), "290 of 300 rows have no whole number from 1 to 99,999 in "
         "'n' (USMS_RECIPIENTS_COLUMN): each counts as 1 recipient. Is that the column with "
         "the number of recipients per row?"),
        (Cells(rows=300, with_words=1), "1 cell of 'phone' holds words beside the numbers: the "
         "words in it are ignored"),
    ],
)  # fmt: skip
def test_what_cells_held_is_told(cells: Cells, said: str) -> None:
    [told] = of(lambda n: f"s-{n}", cells=cells, recipients_column="n")
    assert (told.text, told.stops) == (said, False)
