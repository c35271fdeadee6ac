"""The simulated service: what it sends, what becomes of it, and every way it misbehaves."""

from __future__ import annotations

import gzip
import http.client
import json
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import numpy as np
import phonenumbers
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.conftest import MakeRehearsal
from tests.examples import examples
from usms_pipeline.cli import simulate
from usms_pipeline.contract.errors import UsmsError
from usms_pipeline.contract.status import BUCKETS, FINAL
from usms_pipeline.people.phones import PhoneBook
from usms_pipeline.pipeline import Pipeline
from usms_pipeline.service.api import canonical
from usms_pipeline.settings import load
from usms_pipeline.simulator import (
    PATH,
    Faults,
    Outage,
    Population,
    Simulator,
    fate,
    serve,
)
from usms_pipeline.simulator.numbering import PLANS, origin, spelled, spellings, to_e164
from usms_pipeline.simulator.simulator import ids_of

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
LONG_AFTER = NOW + timedelta(days=4)
CHINA = ZoneInfo("Asia/Shanghai")
DEMO = "Basic " + b64encode(b"demo:demo-secret").decode()


def at(moment: datetime) -> Any:
    return lambda: moment


def population(messages: int = 400, **options: Any) -> pa.Table:
    return Population(messages, until=NOW, **options).table()


def query(ids: Iterable[str]) -> str:
    return "&".join(f"id={quote(one, safe='')}" for one in ids)


def get(
    url: str, ids: Iterable[str], authorization: str = DEMO, **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    """Ask once, on a connection of its own."""
    with closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)) as wire:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        wire.request(
            "GET", f"{PATH}?{query(ids)}", headers={"Authorization": authorization, **named}
        )
        response = wire.getresponse()
        return response, response.read()


def ask(service: Simulator, ids: Iterable[str]) -> Any:
    """Ask without the network; gives the JSON."""
    return json.loads(service.answer(query(ids).encode(), DEMO).body)


def rows(table: pa.Table) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["session_no"], row["phone"]): row for row in table.to_pylist()}


# The user's own table


OWN = {
    "CN": ["13800138000", "+1 (415) 555-0142", "(1) 415-555-0143", "00 44 7400 123456",
           "86-138-0013-8001", "(+86)13800138002", "０１０-1234-5678", "13800138003.0",
           "+49 (0)1511 2345678", "852 6123 4567"],
    "US": ["(415) 555-0142", "415.555.0143", "1-415-555-0144", "+86 138 0013 8000",
           "0086 13800138001"],
    "DE": ["01511 2345678", "0049 1511 2345679", "(49)15112345670", "+1 415 555 0142",
           "1511/2345671"],
    "BR": ["(11) 91234-5678", "+55 (21) 98765-4321", "005511912345679"],
}  # fmt: skip
"""Ways to write numbers that the pipeline reads, by the default region."""


def own(folder: Path, monkeypatch: pytest.MonkeyPatch, rows: list[Any], **given: str) -> Any:
    """Return the rehearsal of a table of (session, phone, recipients), and what is warned of."""
    sessions, phones, recipients = zip(*rows, strict=True)
    sent = [datetime.now(UTC) - timedelta(hours=5)] * len(rows)
    table = {"session_no": pa.array(sessions), "phone": pa.array(phones, pa.string()),
             "recipients": pa.array(recipients), "sent_at": sent}  # fmt: skip
    pq.write_table(pa.table(table), folder / "own.parquet")
    monkeypatch.chdir(folder)
    for name, value in {"source_url": "own.parquet", **given}.items():
        monkeypatch.setenv(f"USMS_{name.upper()}", value)
    messages, warnings = simulate._own_messages(seed=3)
    service = Simulator(messages, seed=3)
    with serve(service) as url:
        for name, value in {"base_url": url, "access_key_id": "demo",
                            "access_key_secret": "demo-secret"}.items():  # fmt: skip
            monkeypatch.setenv(f"USMS_{name.upper()}", value)
        report = Pipeline(load(["source", "api"])).run()
    return report, warnings, service


@examples(2, "region", [*OWN])
def test_own_rows_get_receipts_of_their_own_numbers_in_any_spelling(
    region: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [("together", text, 1) for text in OWN[region]]
    rows += [(f"s{n}", text, 1) for n, text in enumerate(OWN[region])]
    report, warnings, service = own(
        tmp_path, monkeypatch, rows, phone_column="phone", default_region=region
    )
    assert report.unannounced == 0
    assert report.buckets.total() == len(rows)
    assert warnings == []
    described = PhoneBook(b"", region, "masked").e164(pa.array(OWN[region])).to_pylist()
    assert None not in described
    known = service.truth(datetime.now(UTC))["phone"].to_pylist()
    assert sorted(known) == sorted(2 * described)


@examples(
    3,
    ("rows", "given", "said"),
    [
        ([("a", "13800138000", 1), ("b", None, 1)], {},
         ["Made-up numbers for 2 recipients whose own your table does not show; for receipts of "
          "your own numbers, name their column in USMS_PHONE_COLUMN."]),
        ([("a", "13800138000", 1), ("b", None, 1)], {"phone_column": "phone"},
         ["Made-up numbers for 1 recipient whose own your table does not show."]),
        ([("a", "13800138000", 3)], {"phone_column": "phone", "recipients_column": "recipients"},
         ["Made-up numbers for 2 recipients whose own your table does not show."]),
        ([("a", "139****4567", 1), ("a", "185XXX9057", 1), ("b", "13800138000", 1)],
         {"phone_column": "phone"},
         ["Made-up numbers for 2 recipients whose own your table does not show."]),
        ([("a", "reception", 1)], {"phone_column": "phone"}, []),
    ],
)  # fmt: skip
def test_own_says_what_it_makes_up_and_every_receipt_finds_its_row(
    rows: list[Any], given: dict[str, str], said: list[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    report, warnings, _ = own(tmp_path, monkeypatch, rows, **given)
    assert warnings == said
    assert report.unannounced == 0


# What was sent


def test_a_population_has_the_messages_asked_for_within_the_days_asked_for() -> None:
    table = population(5000, days=3)
    assert table.num_rows == 5000
    assert pc.count_distinct(table["session_no"]).as_py() == 5000
    sent_at = table["sent_at"].to_pylist()
    assert sent_at == sorted(sent_at)
    assert NOW - timedelta(days=3, minutes=1) <= sent_at[0]
    assert sent_at[-1] <= NOW
    assert population(0).num_rows == 0


def test_every_number_is_a_valid_mobile_number_of_its_country() -> None:
    table = population(4000)
    assert set(table["country"].to_pylist()) == set(PLANS)
    for phone, country in zip(
        table["phone"].to_pylist(), table["country"].to_pylist(), strict=True
    ):
        number = phonenumbers.parse(phone)
        assert phonenumbers.is_valid_number_for_region(number, country), phone
        assert phonenumbers.number_type(number) in (
            phonenumbers.PhoneNumberType.MOBILE,
            phonenumbers.PhoneNumberType.FIXED_LINE_OR_MOBILE,
        )


def test_a_group_shares_session_and_time() -> None:
    table = population(3000, group_share=0.5, group_size=10)
    assert table.num_rows == 3000
    groups = table.group_by("session_no").aggregate(
        [("phone", "count"), ("sent_at", "count_distinct"), ("template", "count_distinct")]
    )
    sizes = groups["phone_count"].to_pylist()
    assert max(sizes) <= 10
    assert sum(size for size in sizes if size > 1) == pytest.approx(1500, abs=10)
    assert set(groups["sent_at_count_distinct"].to_pylist()) == {1}
    assert set(groups["template_count_distinct"].to_pylist()) == {1}


def test_customers_get_several_messages_each_on_a_number_of_one_country() -> None:
    table = population(3000, customers=1000).select(["phone", "country"])
    by_phone = Counter(table["phone"].to_pylist())
    assert 900 < len(by_phone) < 1000
    assert 6 < max(by_phone.values()) < 15
    assert len(set(zip(*table.to_pydict().values(), strict=True))) == len(by_phone)


def test_every_spelling_of_a_number_is_the_same_number() -> None:
    for phone in population(500)["phone"].to_pylist():
        assert {to_e164(text) for text in (*spellings(phone), spelled(phone))} == {phone}


@pytest.mark.parametrize("text", ["", "n/a", "12", "+0", "+999", "十三八"])
def test_what_is_no_number_stays_as_it_is(text: str) -> None:
    assert to_e164(text) == text
    assert spelled(text)[-2:] == text[-2:]


# What becomes of it


def test_a_message_alone_fares_as_it_does_among_others() -> None:
    table, outage = population(600, group_share=0.2), Outage.before(NOW)
    among = rows(Simulator(table, seed=5, outage=outage).truth(LONG_AFTER))
    backwards = table.take(list(range(table.num_rows))[::-1])
    assert rows(Simulator(backwards, seed=5, outage=outage).truth(LONG_AFTER)) == among
    for row in table.slice(0, 40).to_batches()[0].to_pylist():
        alone = Simulator(
            [(row["session_no"], row["phone"], row["sent_at"])], seed=5, outage=outage
        )
        key = row["session_no"], row["phone"]
        assert rows(alone.truth(LONG_AFTER))[key] == among[key]
    other = rows(Simulator(table, seed=6, outage=outage).truth(LONG_AFTER))
    assert other != among


def test_nothing_is_final_before_it_is_revealed_nor_forgotten_after() -> None:
    service = Simulator(population(2000))
    known: dict[tuple[str, str], dict[str, Any]] = {}
    for hours in range(-120, 100, 20):
        moment = NOW + timedelta(hours=hours)
        for key, row in rows(service.truth(moment)).items():
            is_revealed = row["revealed_at"] is not None and row["revealed_at"] <= moment
            assert row["status"] == (row["final_status"] if is_revealed else "pending")
            assert row["status"] in BUCKETS
            assert (row["received_at"] is not None) == (row["status"] in FINAL)
            assert row["received_at"] is None or row["received_at"] >= row["sent_at"]
            if key in known:
                assert row["status"] == known[key]["status"]
                assert row["received_at"] == known[key]["received_at"]
            elif row["status"] in FINAL:
                known[key] = row
    assert len(known) > 1800


def test_a_customers_own_table_is_served_whatever_its_phones_look_like() -> None:
    sent = [
        ("a", "138 0013 8000", NOW),
        ("a", "(86)13900139000", NOW),
        ("a", "+8613800138000", NOW),  # the first one, once more
        ("b", None, NOW),
        ("c", "not a number", NOW),
        (None, "+8613800138000", NOW),
        (" ", "+8613800138000", NOW),
        ("d", "+6591234567", None),
    ]
    columns = dict(zip(("session_no", "phone", "sent_at"), zip(*sent, strict=True), strict=True))
    service = Simulator(pa.table({name: list(values) for name, values in columns.items()}))
    found = service.truth(NOW)
    assert found["session_no"].to_pylist() == ["a", "a", "b", "c"]
    phones = found["phone"].to_pylist()
    assert phones[:2] == ["+8613800138000", "+8613900139000"]
    assert phonenumbers.is_valid_number(phonenumbers.parse(phones[2]))
    assert phones[3] == "not a number"
    assert {item["SessionNo"] for item in ask(service, "abc")["Data"]} == set("abc")


def test_a_row_without_phones_has_as_many_as_its_recipients_column_says() -> None:
    table = pa.table(
        {"session_no": ["a", "b", "a"], "sent_at": [NOW] * 3, "recipients": [3, None, 2]}
    )
    for source in (table, table.to_reader(), table.to_batches()):
        found = Simulator(source).truth(NOW)
        assert Counter(found["session_no"].to_pylist()) == {"a": 5, "b": 1}
        assert pc.count_distinct(found["phone"]).as_py() == 6


def test_messages_and_faults_may_change_while_it_is_asked() -> None:
    table = population(3000)
    service = Simulator(table.slice(0, 100), clock=at(LONG_AFTER))
    ids = table["session_no"].to_pylist()
    with ThreadPoolExecutor(2) as pool:
        asking = pool.submit(lambda: [ask(service, ids[n % 2900 :][:100]) for n in range(300)])
        for start in range(100, 3000, 100):
            service.add(table.slice(start, 100))
            service.faults = Faults(late=start / 3000)
        assert {answer["RetCode"] for answer in asking.result()} == {0}
    service.faults = Faults()
    assert rows(service.truth(NOW)) == rows(Simulator(table, outage=service.outage).truth(NOW))


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        Simulator().truth(datetime(2026, 1, 1))


# What it says over HTTP


def test_a_delivered_message_looks_as_documented(simulator: MakeRehearsal) -> None:
    made = simulator(50, clock=at(LONG_AFTER))
    row = next(r for r in made.service.truth(LONG_AFTER).to_pylist() if r["status"] == "delivered")
    response, body = get(made.url, [row["session_no"]])
    assert response.status == 200
    assert response.headers["Content-Type"] == "application/json"
    content = json.loads(body)
    assert {**content, "Data": []} == {"RetCode": 0, "Message": "success", "Data": []}
    (item,) = content["Data"]
    assert (item["SessionNo"], item["Status"]) == (row["session_no"], "success")
    receipt = item["Receipt"]
    assert to_e164(receipt["Phone"]) == row["phone"]
    assert canonical(receipt["Status"]) == "delivered"
    local = datetime.strptime(receipt["ReceiveTime"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=CHINA)
    assert local == row["received_at"]


def test_before_its_time_a_receipt_is_null_or_empty_or_a_waiting_word() -> None:
    table = population(600)
    service = Simulator(table, clock=at(NOW - timedelta(days=9)))
    seen = set()
    for start in range(0, 600, 100):
        for item in ask(service, table["session_no"].to_pylist()[start : start + 100])["Data"]:
            receipt = item["Receipt"]
            assert canonical((receipt or {}).get("Status")) == "pending"
            assert not (receipt or {}).get("ReceiveTime")
            seen.add("null" if receipt is None else "word" if receipt else "empty")
    assert seen == {"null", "empty", "word"}


@pytest.mark.parametrize(
    "authorization",
    ["", "Basic", "Basic ", "Bearer x", "Basic " + b64encode(b"demo:wrong").decode(), "Basic é"],
)
def test_wrong_credentials_are_refused(simulator: MakeRehearsal, authorization: str) -> None:
    made = simulator(5)
    response, body = get(made.url, made.service.sessions, authorization=authorization)
    assert (response.status, json.loads(body)["RetCode"]) == (200, 215393)
    assert not made.service.counters.ids_asked


def test_other_credentials_may_be_set() -> None:
    service = Simulator([("a", None, NOW)], access_key_id="k", access_key_secret="s:é")
    right = "basic " + b64encode("k:s:é".encode()).decode()
    assert json.loads(service.answer(b"id=a", right).body)["RetCode"] == 0
    assert json.loads(service.answer(b"id=a", DEMO).body)["RetCode"] == 215393


@pytest.mark.parametrize(
    ("ids", "ret_code"),
    [
        ([], 215397),
        ([""], 215392),
        (["x" * 257], 215392),
        ([str(n) for n in range(101)], 215392),
        ([str(n) for n in range(100)] * 2, 0),
    ],
)
def test_a_request_has_1_to_100_distinct_ids(ids: list[str], ret_code: int) -> None:
    assert ask(Simulator(), ids)["RetCode"] == ret_code


def test_ids_are_decoded_as_in_any_query_string() -> None:
    assert ids_of(b"id=a%20b&id=%E4%B8%AD&id=c+d&x=1&id=a%20b") == ["a b", "中", "c d"]
    assert ids_of(b"id=%ff&id=a,b&ID=z&id") == ["�", "a,b", ""]
    assert ids_of(b"id=a,b&ID=z&id") == ["a,b", ""]
    assert ids_of(b"") == []
    odd = ["a&b=c", '"quoted"', "中 文", "x" * 256]
    service = Simulator([(one, None, NOW) for one in odd], clock=at(NOW))
    assert [item["SessionNo"] for item in ask(service, odd)["Data"]] == odd


def test_unknown_ids_get_an_empty_item_or_none() -> None:
    items = ask(Simulator(), [str(n) for n in range(100)])["Data"]
    assert 20 < len(items) < 80
    assert {item["Receipt"] for item in items} == {None}


def test_other_paths_and_methods_are_not_served(simulator: MakeRehearsal) -> None:
    host = simulator(1).url.removeprefix("http://")
    for method, path, status in (("GET", "/", 404), ("POST", PATH, 405)):
        with closing(http.client.HTTPConnection(host)) as wire:
            wire.request(method, path)
            assert wire.getresponse().status == status


def test_a_taken_port_is_told_in_words() -> None:
    with serve(Simulator()) as url:
        port = int(url.rpartition(":")[2])
        with pytest.raises(UsmsError, match=f"can't listen on 127.0.0.1:{port}.*another port"):
            serve(Simulator(), port=port).__enter__()


# Carriers and days that are not alike


def revealed(messages: pa.Table, faults: Faults) -> dict[tuple[str, str], list[datetime]]:
    """When the service says what it delivered, by country and operator."""
    drawn = fate.draws(
        4, messages["session_no"].to_pylist(), phones := messages["phone"].to_pylist(),
        sent := np.asarray(messages["sent_at"].cast(pa.int64())),
    )  # fmt: skip
    found = fate.fates(drawn, phones, sent, None, faults)
    told: dict[tuple[str, str], list[datetime]] = {}
    for phone, outcome, at_us in zip(phones, found.outcome, found.revealed_us, strict=True):
        if outcome != fate.SILENT and fate.OUTCOMES[outcome].status == "delivered":
            told.setdefault(origin(phone), []).append(
                datetime.fromtimestamp(int(at_us) / 1e6, CHINA)
            )
    return told


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_some_operators_tell_at_night_what_they_delivered(share: float) -> None:
    told = revealed(population(3_000), Faults(nightly=share))
    at_two = {one: {(at.hour, at.minute) == (2, 0) for at in times} for one, times in told.items()}
    large = [one for one, times in told.items() if len(times) > 20]
    assert all(len(at_two[one]) == 1 for one in large if share), "an operator does so or not"
    held = sum(at_two[one] == {True} for one in large) / len(large)
    assert abs(held - share) < 0.25


@pytest.mark.parametrize("spread", [pytest.param(0.0, marks=pytest.mark.long), 0.3])
def test_days_differ_by_more_than_chance_where_they_are_to(spread: float) -> None:
    messages = population(60_000, days=28)
    table = Simulator(messages, outage=None, faults=Faults(uneven_days=spread)).truth(LONG_AFTER)
    days = pa.table({
        "day": np.asarray(table["sent_at"].cast(pa.int64())) // (24 * 3600 * 10**6),
        "failed": pc.is_in(table["status"], pa.array(["failed", "rejected"])).cast(pa.int64()),
    }).group_by("day").aggregate([("failed", "sum"), ("failed", "count")])  # fmt: skip
    failed, count = (np.asarray(days[name], float) for name in ("failed_sum", "failed_count"))
    share = failed.sum() / count.sum()
    chi2 = ((failed - share * count) ** 2 / (count * share * (1 - share))).sum() / (len(count) - 1)
    assert (chi2 > 2) == bool(spread)


# Faults by name


def test_every_fault_is_on_but_those_at_which_a_good_client_stops() -> None:
    every = Faults.every()
    still_off = {
        f.name for f in fields(every) if f.metadata.get("max") and not getattr(every, f.name)
    }
    assert still_off == {"down", "auth_failure", "nightly", "uneven_days"}


def test_faults_are_read_from_a_line() -> None:
    assert Faults.parse(" throttle=0.1, poison = 0.01,down") == Faults(
        throttle=0.1, poison=0.01, down=1
    )
    assert Faults.parse("every,poison=0") == replace(Faults.every(), poison=0)
    assert Faults.parse("poison_ids=a+b,retry_after=date,relent_after=2") == Faults(
        poison_ids=frozenset("ab"), retry_after="date", relent_after=2
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("throtle=1", r"no fault 'throtle'. Did you mean 'throttle'\?.*the faults are: .*poison"),
        ("=1", "no fault ''"),
        ("reset=often", "reset can't be 'often'; it is a number, such as reset=0.1"),
        ("reset=2", "reset can't be 2; it must be from 0 to 1"),
        ("reset=nan", "must be from 0 to 1"),
        ("slow_seconds=-1", "slow_seconds can't be -1; it must be 0 or more"),
        ("retry_after=soon", "retry_after can't be 'soon'; it is one of any, none, seconds, date"),
    ],
)
def test_a_wrong_fault_is_told_in_words(line: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Faults.parse(line)


# Faults on the wire


def one_fault(simulator: MakeRehearsal, **faults: Any) -> tuple[str, list[str]]:
    made = simulator(100, clock=at(LONG_AFTER), faults=Faults(**faults))
    return made.url, made.service.sessions


@pytest.mark.parametrize("form", ["none", "seconds", "date"])
def test_throttling_is_a_429_with_retry_after_in_either_form(
    simulator: MakeRehearsal, form: str
) -> None:
    response, _ = get(*one_fault(simulator, throttle=1, retry_after=form, retry_after_seconds=7))
    assert response.status == 429
    value = response.headers["Retry-After"]
    if form == "none":
        assert value is None
    elif form == "seconds":
        assert value == "7"
    else:
        ahead = parsedate_to_datetime(value) - datetime.now(UTC)
        assert timedelta(0) < ahead <= timedelta(seconds=7)


@pytest.mark.parametrize(
    ("fault", "part", "seen"),
    [
        ("server_error", lambda reply: reply.status, {500, 502, 503, 504}),
        ("server_error", lambda reply: reply.body[:1], {b"", b"{", b"<"}),
        ("auth_failure", lambda reply: reply.status, {200, 401, 403}),
        ("html", lambda reply: (reply.status, reply.content_type), {(200, "text/html")}),
        ("down", lambda reply: (reply.ending, reply.status), {("reset", 200), ("whole", 503)}),
    ],
)
def test_a_fault_has_many_forms(fault: str, part: Callable[[Any], Any], seen: set[Any]) -> None:
    service = Simulator([("a", None, NOW)], faults=Faults(**{fault: 1}))
    assert {part(service.answer(b"id=a", DEMO)) for _ in range(60)} == seen


@pytest.mark.parametrize(
    ("fault", "error"), [("reset", ConnectionResetError), ("truncated", http.client.IncompleteRead)]
)
def test_an_answer_that_breaks_off(
    simulator: MakeRehearsal, fault: str, error: type[Exception]
) -> None:
    url, ids = one_fault(simulator, **{fault: 1})
    with pytest.raises(error) as raised:
        get(url, ids)
    assert raised.type is error  # http.client has a kind of its own for an orderly end


def test_cut_json_has_its_whole_content_length(simulator: MakeRehearsal) -> None:
    response, body = get(*one_fault(simulator, cut_json=1))
    assert int(response.headers["Content-Length"]) == len(body)
    assert body.startswith(b'{"RetCode":0')
    with pytest.raises(json.JSONDecodeError):
        json.loads(body)


@pytest.mark.parametrize("share", [0, 1])
def test_an_oversized_answer_is_as_large_as_asked_for(simulator: MakeRehearsal, share: int) -> None:
    url, ids = one_fault(simulator, oversized=1, oversized_mb=2.5, gzip=share)
    response, body = get(url, ids, Accept_Encoding="gzip")
    if share:
        assert response.headers["Content-Encoding"] == "gzip"
        assert len(body) < 100_000
        body = gzip.decompress(body)
    assert 2_500_000 < len(body) < 2_600_000
    assert json.loads(body)["RetCode"] == 0


def test_answers_are_compressed_for_those_who_accept_it_only(simulator: MakeRehearsal) -> None:
    url, ids = one_fault(simulator, gzip=1)
    response, body = get(url, ids, Accept_Encoding="gzip, deflate")
    assert response.headers["Content-Encoding"] == "gzip"
    plain, plain_body = get(url, ids)
    assert plain.headers["Content-Encoding"] is None
    assert gzip.decompress(body) == plain_body


def test_a_slow_answer_says_how_long_it_takes() -> None:
    service = Simulator(faults=Faults(slow=1, slow_seconds=2, latency_seconds=0.25))
    assert service.answer(b"id=a", DEMO).delay_seconds == 2.25


def test_a_long_query_may_be_refused() -> None:
    service = Simulator(faults=Faults(uri_limit=100))
    assert service.answer(b"id=" + b"a" * 98, DEMO).status == 414
    assert service.answer(b"id=" + b"a" * 97, DEMO).status == 200


def test_above_the_hidden_limit_it_throttles_by_429_or_153() -> None:
    service = Simulator(faults=Faults(rate_limit=0.001))
    found = [service.answer(b"id=a", DEMO) for _ in range(60)]
    assert found[0].status == 200
    assert {r.status for r in found[1:]} == {200, 429}
    assert {json.loads(r.body)["RetCode"] for r in found[1:]} == {153}
    assert service.counters.throttled == service.counters.faults["rate_limit"] == 59


def test_one_poisonous_id_spoils_its_request_until_it_stands_alone() -> None:
    service = Simulator(population(300), faults=Faults(poison=0.02, poison_ids=frozenset(["x"])))
    bad = {one for one in service.sessions if service.is_poison(one)}
    assert 0 < len(bad) < 20
    good = [one for one in service.sessions if one not in bad]
    assert ask(service, good[:100])["RetCode"] == 0
    assert ask(service, [*good[:99], "x"])["RetCode"] == 215392
    assert ask(service, [min(bad)])["RetCode"] == 215392
    refused = {r["session_no"] for r in service.truth(NOW).to_pylist() if r["status"] == "invalid"}
    assert refused == bad
    assert service.is_poison("x" * 257)


def test_injected_errors_stop_after_relent_after_requests() -> None:
    service = Simulator(faults=Faults(ret_server_error=1, relent_after=2))
    codes = [ask(service, ["a"])["RetCode"] for _ in range(6)]
    assert codes == [215400, 215400, 0] * 2


def test_faults_repeat_with_the_seed_whatever_the_order_of_questions() -> None:
    table, faults = population(500), Faults(ret_server_error=0.5)
    batches = [table["session_no"].to_pylist()[n : n + 50] for n in range(0, 500, 50)] * 2
    one, two = (Simulator(table, faults=faults, clock=at(NOW)) for _ in range(2))
    forth = [ask(one, batch) for batch in batches]
    halves = [*range(9, -1, -1), *range(19, 9, -1)]
    back = {n: ask(two, batches[n]) for n in halves}
    assert forth == [back[n] for n in range(20)]
    assert {answer["RetCode"] for answer in forth} == {0, 215400}


def content(**faults: Any) -> tuple[Any, Simulator, dict[str, dict[str, Any]]]:
    """Ask about 100 old messages under a fault; gives the JSON, the service and its truth."""
    table = population(100)
    service = Simulator(table, clock=at(LONG_AFTER), faults=Faults(**faults))
    truth = {row["session_no"]: row for row in service.truth(LONG_AFTER).to_pylist()}
    return ask(service, table["session_no"].to_pylist()), service, truth


@pytest.mark.parametrize(
    ("fault", "shows"),
    [
        ("string_ret_code", lambda answer, _: answer["RetCode"] == "0"),
        ("missing_message", lambda answer, _: "Message" not in answer),
        ("duplicate", lambda a, _: {*Counter(i["SessionNo"] for i in a["Data"]).values()} == {2}),
        ("array", lambda a, _: {type(item["Receipt"]) for item in a["Data"]} == {list}),
        ("extra_fields", lambda a, _: all("Trace" in item for item in a["Data"])),
        ("missing", lambda _, of: {row["final_status"] for row in of.values()} == {"pending"}),
    ],
)
def test_each_fault_shows_in_the_answer(fault: str, shows: Callable[..., bool]) -> None:
    answer, _, truth = content(**{fault: 1})
    assert shows(answer, truth)


def test_the_older_form_counts_time_in_epoch_seconds() -> None:
    answer, _, truth = content(receipt_set=1)
    told = 0
    for item in answer["Data"]:
        for receipt in item["ReceiptSet"]:
            row = truth[item["SessionNo"]]
            assert receipt["CostCount"] >= 1
            if receipt["ReceiptTime"]:
                told += 1
                assert datetime.fromtimestamp(receipt["ReceiptTime"], UTC) == row["received_at"]
                assert canonical(receipt["ReceiptResult"]) == row["status"]
    assert told > 80


def test_phones_may_be_spelled_in_several_ways() -> None:
    answer, _, truth = content(spellings=1)
    seen = set()
    for item in answer["Data"]:
        if item["Receipt"]:
            text = item["Receipt"]["Phone"]
            assert to_e164(text) == truth[item["SessionNo"]]["phone"]
            seen.add(text[0])
    assert {"+", "0", "1", "("} <= seen


def test_answers_may_hold_sessions_nobody_asked_about_and_bad_items() -> None:
    answer, service, truth = content(unasked=1, bad_items=1)
    well = [item for item in answer["Data"] if isinstance(item, dict)]
    numbers = {one for item in well if isinstance(one := item["SessionNo"], str)}
    assert len(numbers - set(truth)) == 1
    assert numbers - set(service.sessions) == numbers - set(truth)
    assert set(truth) <= numbers
    assert len(answer["Data"]) == 102


def test_an_unknown_word_is_the_truth_too() -> None:
    answer, _, truth = content(unknown_words=1)
    words = {canonical(item["Receipt"]["Status"]) for item in answer["Data"] if item["Receipt"]}
    assert words <= {"unrecognized", "unknown", "pending"}
    assert sum(row["status"] == "unrecognized" for row in truth.values()) > 80


def test_late_receipts_are_revealed_after_their_time() -> None:
    _, _, truth = content(late=1, late_hours=10)
    behind = [r["revealed_at"] - r["received_at"] for r in truth.values() if r["received_at"]]
    assert timedelta(hours=2) <= min(behind) < max(behind) <= timedelta(hours=10)


def test_data_is_null_and_sessions_are_left_out_only_where_nothing_is_to_be_told() -> None:
    table = population(100)
    ids = table["session_no"].to_pylist()
    young = at(NOW - timedelta(days=9))
    assert ask(Simulator(table, clock=young, faults=Faults(null_data=1)), ids[:1])["Data"] is None
    answer, _, truth = content(null_data=1, left_out=1, missing=0.3)
    told = {item["SessionNo"] for item in answer["Data"]}
    assert {number for number, row in truth.items() if row["status"] in FINAL} <= told
    assert len(told) < 100


@pytest.mark.parametrize(("fault", "is_final"), [("regressing", False), ("conflicting", True)])
def test_an_outcome_once_said_may_be_taken_back(fault: str, is_final: bool) -> None:
    table = population(100)
    ids = table["session_no"].to_pylist()
    service = Simulator(table, clock=at(LONG_AFTER), faults=Faults.parse(fault))
    truth = {r["session_no"]: r["status"] for r in service.truth(LONG_AFTER).to_pylist()}
    first, second = (
        [
            (item["SessionNo"], canonical(item["Receipt"]["Status"]))
            for item in ask(service, ids)["Data"]
            if item["Receipt"]
        ]
        for _ in range(2)
    )
    assert {(number, s) for number, s in truth.items() if s in FINAL} <= set(first)
    taken_back = [(number, status) for number, status in second if truth[number] in FINAL]
    assert len(taken_back) > 80
    assert all((status in FINAL) == is_final for _, status in taken_back)
    assert all(status != truth[number] for number, status in taken_back)


def test_a_conflicting_status_is_sent_only_after_its_time() -> None:
    sent = [("s", "+8613800138000", NOW)]
    clock = [LONG_AFTER]
    service = Simulator(sent, clock=lambda: clock[0], faults=Faults(conflicting=1))
    (row,) = service.truth(LONG_AFTER).to_pylist()
    said = []
    for seconds in (30, 31, 60, 61):
        clock[0] = row["revealed_at"] + timedelta(seconds=seconds)
        said.append(canonical(ask(service, ["s"])["Data"][0]["Receipt"]["Status"]))
    assert said[:2] == [row["status"]] * 2
    assert row["status"] not in said[2:]


def test_it_counts_questions_about_what_was_said_already() -> None:
    table = population(100)
    service = Simulator(table, clock=at(LONG_AFTER))
    final = [r["session_no"] for r in service.truth(LONG_AFTER).to_pylist() if r["status"] in FINAL]
    ask(service, service.sessions)
    assert not service.counters.asked_after_final
    ask(service, service.sessions)
    assert service.counters.asked_after_final == dict.fromkeys(final, 1)
    assert set(service.counters.ids_asked.values()) == {2}


def test_a_truncated_answer_does_not_count_as_answered() -> None:
    service = Simulator(population(50), clock=at(LONG_AFTER), faults=Faults(truncated=1))
    for _ in range(2):
        assert service.answer(query(service.sessions).encode(), DEMO).ending == "short"
    assert not service.counters.asked_after_final
    assert service.counters.answered == 0
