"""Phone numbers: one recipient however written, nothing shown that need not be."""

from __future__ import annotations

import hashlib
import hmac
import random
import stat
from concurrent.futures import ThreadPoolExecutor

import phonenumbers
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phonenumbers import carrier

import usms_pipeline
from usms_pipeline.errors import StorageError
from usms_pipeline.numbering import NumberingPlan, read_slowly, settling_length
from usms_pipeline.phones import DESCRIPTION, PhoneBook, load_key, masked
from usms_pipeline.settings import Settings

KEY = bytes(range(32))
REGIONS = [
    "CN", "HK", "MO", "TW", "SG", "MY", "TH", "VN", "ID", "PH", "IN", "JP", "KR", "US", "CA", "GB",
    "DE", "FR", "IT", "ES", "BR", "MX", "AR", "NG", "ZA", "AE", "RU", "AU",
]  # fmt: skip
CHINESE = [
    "13800138000", "8613800138000", "(86)13800138000", "(0086)13800138000", "+8613800138000",
    "008613800138000", " +86 138-0013-8000 ", "138 0013 8000", "１３８００１３８０００",
    "+86 (138) 0013 8000",
    "（86）13800138000",
]  # fmt: skip


def book(region="CN", mode="masked", key=KEY):
    return PhoneBook(key, region, mode)


def described(texts, **options):
    return book(**options).describe(pa.array(texts, pa.string())).to_pylist()


@pytest.mark.parametrize("text", CHINESE)
def test_one_number_is_one_recipient_however_it_is_written(text):
    assert described([text]) == [
        {
            "recipient": hmac.new(KEY, b"+8613800138000", hashlib.sha256).hexdigest()[:32],
            "phone": "+86138****00",
            "country": "CN",
            "operator": "China Mobile",
            "number_type": "mobile",
        }
    ]


@pytest.mark.parametrize(
    ("bare", "e164", "country"),
    [
        ("8618512345678", "+8618512345678", "CN"),
        ("6591234567", "+6591234567", "SG"),
        ("85255311111", "+85255311111", "HK"),
        ("(852)55311111", "+85255311111", "HK"),
        ("0085255311111", "+85255311111", "HK"),
        ("66812345678", "+66812345678", "TH"),
        ("919876543210", "+919876543210", "IN"),
    ],
)
def test_a_country_code_without_a_plus_is_understood(bare, e164, country):
    seen = described([bare, e164], mode="clear")
    assert seen[0] == seen[1]
    assert (seen[0]["phone"], seen[0]["country"]) == (e164, country)


def test_a_bare_eleven_digit_number_is_chinese_only_where_china_is_the_default():
    assert described(["14155552671"], mode="clear")[0]["phone"] == "+8614155552671"
    assert described(["14155552671"], mode="clear", region="US")[0]["phone"] == "+14155552671"


def test_a_chinese_prefix_too_new_for_the_library_is_still_one_recipient():
    seen = described(["19412345678", "8619412345678", "+8619412345678"], mode="clear")
    assert {row["phone"] for row in seen} == {"+8619412345678"}


def test_an_area_code_in_brackets_is_not_a_country_code():
    assert described(["(212) 555-2368"], region="US", mode="clear")[0]["phone"] == "+12125552368"


@pytest.mark.parametrize("text", ["Alice", "10086", "+86", "95588", "x" * 5000])
def test_text_that_is_no_number_is_hashed_and_never_shown(text):
    (seen,) = described([f"  {text.upper()} "])
    expected = hmac.new(KEY, text.casefold().encode(), hashlib.sha256).hexdigest()[:32]
    assert seen == {
        "recipient": expected, "phone": "****", "country": None, "operator": None,
        "number_type": None,
    }  # fmt: skip


def test_null_and_blank_are_no_phone_at_all():
    assert described([None, "", " \t"]) == [None] * 3


def test_recipient_id_is_what_the_table_holds():
    texts = [*CHINESE, "Alice", "+6591234567"]
    assert [book().recipient_id(text) for text in texts] == [
        row["recipient"] for row in described(texts)
    ]


def test_another_key_gives_other_recipients_and_another_fingerprint():
    other = book(key=b"k" * 100)
    assert other.recipient_id("13800138000") != book().recipient_id("13800138000")
    expected = hmac.new(b"k" * 100, b"+8613800138000", hashlib.sha256).hexdigest()[:32]
    assert other.recipient_id("13800138000") == expected
    assert book().fingerprint == hashlib.sha256(b"usms-key:" + KEY).hexdigest()[:16]
    assert other.fingerprint != book().fingerprint


@given(st.integers(1, 999), st.text("0123456789", min_size=2, max_size=14))
def test_a_mask_shows_at_most_half_of_the_national_number(code, national):
    shown = masked(f"+{code}{national}", code)
    kept = shown.removeprefix(f"+{code}").replace("****", "")
    assert "****" in shown
    assert len(kept) <= len(national) / 2


def test_chunks_and_repeats_change_nothing():
    texts = ["13800138000", None, "Alice", "13800138000", "+6591234567"]
    pieces = pa.chunked_array([texts[:2], texts[2:]], pa.string())
    seen = book().describe(pieces)
    assert seen.type == DESCRIPTION
    assert seen.to_pylist() == described(texts)
    assert book().describe(pa.array([], pa.string())).to_pylist() == []


def library(e164):
    """Ask the library itself, number by number."""
    number = phonenumbers.parse(e164, None)
    country = phonenumbers.region_code_for_number(number)
    kind = phonenumbers.PhoneNumberType.to_string(phonenumbers.number_type(number)).lower()
    return (
        country if country and country.isalpha() else None,
        carrier.name_for_number(number, "en") or None,
        None if kind == "unknown" else kind,
        phonenumbers.is_valid_number(number),
        phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164),
    )


def numbers_like(region, rng, count):
    """Make numbers near a region's example of every kind of line."""
    kinds = range(0, 11)
    examples = [phonenumbers.example_number_for_type(region, kind) for kind in kinds]
    seeds = [
        phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164)
        for example in examples
        if example is not None
    ]
    made = []
    for _ in range(count):
        digits = list(rng.choice(seeds))
        code = len(str(phonenumbers.country_code_for_region(region)))
        first = rng.choice([code + 1, code + 2, code + 3, code + 5, len(digits) - 2])
        digits[first:] = [str(rng.randrange(10)) for _ in digits[first:]]
        made.append("".join(digits[: len(digits) - rng.choice([0, 0, 0, 0, 1])]))
    return made


def check_fast_is_slow(region, rng, count):
    plan = NumberingPlan(region)
    others = [region, rng.choice(REGIONS), "CN"]
    texts = []
    for e164 in numbers_like(rng.choice(others), rng, count):
        national = e164[1 + rng.choice([0, 1, 2, 3]) :]
        texts += [e164, e164[1:], national, "0" + national]
    for text in texts + texts[::-1]:
        seen = plan._plain(text)
        asked = read_slowly(text, region)
        assert (seen is None) == (asked is None), text
        if seen is not None and asked is not None:
            assert seen.e164 == asked.e164
            assert vars(seen.line) == vars(asked.line), text
    return plan


@pytest.mark.parametrize("region", REGIONS)
def test_the_fast_way_gives_the_librarys_answer(region):
    rng = random.Random(region)
    plan = NumberingPlan("CN")
    for text in numbers_like(region, rng, 150) * 2:
        number = plan.read(text)
        if number is not None:
            line = number.line
            seen = (line.country, line.operator, line.number_type, line.is_valid, number.e164)
            assert seen == library(text), text
    check_fast_is_slow(region, rng, 30)


def one_by_one(text, region, mode):
    """Ask the library about one text, and put the answer into words without a column."""
    plan = NumberingPlan(region)
    number = plan.read(text.strip()) if text and text.strip() else None
    if number is None:
        shown = (text or "").strip()
        return shown and {
            "recipient": hmac.new(KEY, shown.casefold().encode(), hashlib.sha256).hexdigest()[:32],
            "phone": shown if mode == "clear" else "****",
            **dict.fromkeys(("country", "operator", "number_type")),
        }
    line = number.line
    return {
        "recipient": hmac.new(KEY, number.e164.encode(), hashlib.sha256).hexdigest()[:32],
        "phone": number.e164 if mode == "clear" else masked(number.e164, line.country_code),
        "country": line.country,
        "operator": line.operator,
        "number_type": line.number_type,
    }


@pytest.mark.long
@pytest.mark.parametrize("region", [*REGIONS, "CL", "EG"])
def test_a_column_says_what_each_text_says_alone(region):
    """Numbers of 30 countries in every way of writing, and what is no number, in one column."""
    rng = random.Random(f"column {region}")
    texts = [
        None,
        "",
        " ",
        "Alice",
        "00",
        "+",
        "+0",
        "0" * 11,
        "1" * 20,
        "１３８００１３８０００",
        "12345",
    ]
    for e164 in numbers_like(region, rng, 100) + numbers_like(rng.choice(REGIONS), rng, 20):
        national = e164[rng.choice([1, 2, 3, 4]) :]
        texts += [
            e164,
            e164[1:],
            national,
            f"0{national}",
            f"00{e164[1:]}",
            f" {e164[:4]}-{e164[4:]}",
        ]
    rng.shuffle(texts)
    mode = rng.choice(["masked", "clear"])
    same_book = book(region, mode)
    expected = [one_by_one(text, region, mode) or None for text in texts]
    assert same_book.describe(pa.array(texts, pa.string())).to_pylist() == expected
    again = pa.array([*texts[::-1], "x"], pa.string()).slice(0, len(texts))
    assert same_book.describe(again).to_pylist() == expected[::-1]


def test_many_texts_are_hashed_as_few_are():
    texts = [f"138{n:08d}" for n in range(3_000)] + ["Äpfel", None]
    many = book().describe(pa.array(texts)).to_pylist()
    assert many[:5] + many[-2:] == described(texts[:5] + texts[-2:])
    assert [row["recipient"] for row in many[:50]] == [book().recipient_id(t) for t in texts[:50]]


def test_a_national_prefix_of_many_forms_is_never_taken_for_settled():
    for text in ("0800345045", "0802350455", "08003450455"):
        assert settling_length(text, "BR") is None


@pytest.mark.long
@pytest.mark.parametrize("region", REGIONS)
def test_the_fast_way_gives_the_librarys_answer_for_many(region):
    rng = random.Random(f"many {region}")
    for _ in range(2):
        check_fast_is_slow(region, rng, 300)


def test_a_thousand_alike_numbers_are_one_question_to_the_library():
    plan = NumberingPlan("CN")
    for number in range(1000):
        assert plan.read(f"+86138{number:08}").e164 == f"+86138{number:08}"
        assert plan.read(f"138{number:08}").e164 == f"+86138{number:08}"
    assert plan._size == 2


@settings(max_examples=200)
@given(st.text() | st.text("0123456789+()- ０１\u3000.x#*", max_size=24), st.sampled_from(REGIONS))
def test_no_text_is_too_odd(text, region):
    (row,) = described([text], region=region)
    assert (row is None) == (not text.strip())


def settings_for(folder, **given_values):
    return Settings(_env_file=None, data_dir=str(folder), **given_values)


def test_the_key_is_made_once_and_is_private(tmp_path):
    folder = tmp_path / "data"
    key = load_key(settings_for(folder))
    assert len(key) == 32
    assert load_key(settings_for(folder), folder) == key
    assert stat.S_IMODE((folder / "phone.key").stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == ["phone.key"]


def test_many_that_make_the_key_at_once_get_the_same_one(tmp_path):
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(lambda _: load_key(settings_for(tmp_path / "data")), range(64)))
    assert len(keys) == 1


def test_what_a_killed_maker_of_the_key_left_is_swept_away(tmp_path):
    key = load_key(settings_for(tmp_path))
    (tmp_path / ".phone.key.abc").write_text(key.hex())
    assert load_key(settings_for(tmp_path)) == key
    assert [path.name for path in tmp_path.iterdir()] == ["phone.key"]


def test_a_given_key_is_used_and_nothing_is_written(tmp_path):
    assert load_key(settings_for(tmp_path / "data", phone_key="ab" * 32)) == b"\xab" * 32
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("text", ["", "not hex", "abcd"])
def test_a_damaged_key_file_stops_with_a_sentence_that_does_not_show_it(tmp_path, text):
    (tmp_path / "phone.key").write_text(text)
    with pytest.raises(StorageError, match="USMS_PHONE_KEY") as caught:
        load_key(settings_for(tmp_path))
    assert not text or text not in str(caught.value)


def test_a_data_directory_that_can_not_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="USMS_DATA_DIR") as caught:
        load_key(settings_for(tmp_path / "file" / "data"))
    assert "USMS_PHONE_KEY" not in str(caught.value), "the next file could not be written either"


def test_who_only_reads_makes_no_key(tmp_path, monkeypatch):
    """A key made by the way would give hashes that match nothing."""
    monkeypatch.chdir(tmp_path)
    for name in ("USMS_PHONE_KEY", "USMS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StorageError, match=r"no phone key at 'data/phone.key': .*USMS_DATA_DIR"):
        usms_pipeline.recipient_id("13800138000")
    assert list(tmp_path.iterdir()) == []
    key = load_key(settings_for("data"))
    assert usms_pipeline.recipient_id("+86 138 0013 8000") == PhoneBook(
        key, "CN", "masked"
    ).recipient_id("13800138000")


def test_a_text_that_is_no_number_is_joined_by_the_text(tmp_path):
    """So that a row of the source that has such a text is found too."""
    given = {"data_dir": str(tmp_path), "phone_key": "ab" * 32}
    [told] = PhoneBook(b"\xab" * 32, "CN", "masked").describe(pa.array([" Abc "])).to_pylist()
    assert usms_pipeline.recipient_id("abc", **given) == told["recipient"]
