"""Phone numbers: one recipient however written, nothing shown that need not be."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path

import phonenumbers
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phonenumbers import carrier

import usms_pipeline
from tests.test_general import GENERATIONS
from usms_pipeline.contract.errors import StorageError
from usms_pipeline.days.general import Ends, _is_shown, _tail
from usms_pipeline.people import phones
from usms_pipeline.people.phone_key import load_key
from usms_pipeline.people.phones import DESCRIPTION, PREFIX_FILE, PhoneBook, masked
from usms_pipeline.settings import Settings
from usms_pipeline.store.storage import Store

KEY = bytes(range(32))
GOLDEN = json.loads((Path(__file__).parent / "data/phones.json").read_text("utf-8"))
REGIONS = [
    "CN", "HK", "MO", "TW", "SG", "MY", "TH", "VN", "ID", "PH", "IN", "JP", "KR", "US", "CA", "GB",
    "DE", "FR", "IT", "ES", "BR", "MX", "AR", "NG", "ZA", "AE", "RU", "AU",
]  # fmt: skip
CHINESE = [
    "13800138000", "8613800138000", "(86)13800138000", "(0086)13800138000", "+8613800138000",
    "008613800138000", " +86 138-0013-8000 ", "138 0013 8000", "１３８００１３８０００",
    "+86 (138) 0013 8000",
    "（86）13800138000", "13800138000.0", "8613800138000.0",
]  # fmt: skip


def book(region="CN", mode="masked", key=KEY):
    return PhoneBook(key, region, mode)


def described(texts, **options):
    rows = book(**options).describe(pa.array(texts, pa.string())).to_pylist()
    return [row and {name: row[name] for name in row if name != "digits"} for row in rows]


@pytest.mark.parametrize("text", CHINESE)
def test_one_number_is_one_recipient_however_it_is_written(text):
    assert described([text]) == [
        {
            "recipient": hmac.new(KEY, b"+8613800138000", hashlib.sha256).hexdigest()[:32],
            "phone": "+86138****00",
            "country": "CN",
            "operator": "China Mobile",
            "number_type": "mobile",
            "mask": None,
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


@pytest.mark.parametrize(
    ("region", "text", "e164"),
    [
        ("CN", "(49)1511234567", "+491511234567"),
        ("IN", "(44)7700 90012", "+44770090012"),
        ("BR", "(49)1511234567", "+491511234567"),
        ("BR", "(31) 8765-4321", "+553187654321"),
        ("BR", "(11) 08765-4321", "+5511087654321"),
        ("US", "(212) 055-1234", "+12120551234"),
        ("CA", "(268) 055-1234", "+12680551234"),
    ],
)
def test_a_mistyped_number_keeps_the_country_code_in_brackets_but_where_area_codes_stand_there(
    region, text, e164
):
    """Its receipt names it with a plus, or 00."""
    seen = described([text, e164], region=region, mode="clear")
    assert seen[0]["recipient"] == seen[1]["recipient"]
    assert seen[0]["number_type"] is None


@pytest.mark.parametrize("text", ["Alice", "10086", "+86", "95588", "x" * 5000])
def test_text_that_is_no_number_is_hashed_and_never_shown(text):
    (seen,) = described([f"  {text.upper()} "])
    expected = hmac.new(KEY, text.casefold().encode(), hashlib.sha256).hexdigest()[:32]
    assert seen == {
        "recipient": expected, "phone": "****", "country": None, "operator": None,
        "number_type": None, "mask": None,
    }  # fmt: skip


@pytest.mark.parametrize("text", ["12345678", "+8612345678", "14155552671", "20000000000"])
def test_a_number_that_is_valid_nowhere_has_no_country(text, way):
    """Least of all the default region's, in whose way it was read."""
    for seen in described([text] * 2):
        assert seen["recipient"]
        assert (seen["country"], seen["operator"], seen["number_type"]) == (None, None, None)


def test_describe_returns_the_digits_of_numbers():
    texts = pa.array(["138 0013 8000", "Alice", "+86", None, "", "138****8000", "+6591234567"])
    said = book().describe(texts)
    assert said.field("digits").to_pylist() == [
        "8613800138000", None, None, None, None, None, "6591234567",
    ]  # fmt: skip


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
    assert seen.equals(book().describe(pa.array(texts)))
    assert book().describe(pa.array([], pa.string())).to_pylist() == []


def library(e164):
    """Ask the library itself, number by number."""
    number = phonenumbers.parse(e164, None)
    is_valid = phonenumbers.is_valid_number(number)
    country = phonenumbers.region_code_for_number(number) if is_valid else None
    kind = phonenumbers.PhoneNumberType.to_string(phonenumbers.number_type(number)).lower()
    return (
        country if country and country.isalpha() else None,
        carrier.name_for_number(number, "en") or None,
        None if kind == "unknown" else kind,
        is_valid,
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


@pytest.fixture(params=["one by one", "by prefixes"])
def way(request, monkeypatch):
    """Read every number in one of the two ways, however few they are."""
    monkeypatch.setattr(phones, "_FEW", 0 if request.param == "by prefixes" else 10**9)


@pytest.mark.parametrize("region", GOLDEN)
def test_recipients_and_masks_are_what_they_have_always_been(region, way):
    """Datasets are joined by them: another hash of the same text would be another person."""
    said = described(GOLDEN[region], region=region) * 2
    assert [f"{row['recipient']} {row['phone']}" for row in said] == [*GOLDEN[region].values()] * 2


@pytest.mark.parametrize("region", REGIONS)
def test_what_is_said_of_a_number_is_the_librarys_answer(region, way):
    reader = phones._Reader("CN", None)
    for text in numbers_like(region, random.Random(region), 80) * 2:
        e164, facts = reader.read(text)
        if facts is not None:
            seen = (facts.country, facts.operator, facts.number_type)
            assert (*seen, facts.number_type is not None, e164) == library(text), text


def content(number):
    e164, facts = number
    return e164, facts and astuple(facts)


def check_prefixes(rng, count):
    """Learn the prefix of one number; any other with it is read as the library alone reads it."""
    countries = sorted(phonenumbers.SUPPORTED_REGIONS)
    settled = 0
    for _ in range(count):
        region = rng.choice([*REGIONS, *countries])
        of = rng.choice([region, region, *countries])
        code = len(str(phonenumbers.country_code_for_region(of)))
        [e164] = numbers_like(of, rng, 1)
        national = e164[1 + code :]
        text = rng.choice([e164, e164[1:], national, f"0{national}", f"1{national}", e164[2:]])
        reader = phones._Reader(region, None)
        assert content(reader.read(text)) == content(phones.ask(text, region)), (region, text)
        for length, (_, prefixes) in reader._learnt.items():
            [prefix] = prefixes
            settled += 1
            for digits in (*"019", *["0123456789"] * 7):
                other = prefix + "".join(rng.choice(digits) for _ in range(length - len(prefix)))
                seen, asked = reader.known(other), phones.ask(other, region)
                assert content(seen) == content(asked), (region, prefix, other)
    assert settled > count / 2


@pytest.mark.parametrize("count", [150, pytest.param(2_000, marks=pytest.mark.long)])
def test_one_answer_holds_for_all_numbers_with_the_prefix_that_settles_it(monkeypatch, count):
    """Numbers of all countries, read in any region, national and international, too short too."""
    monkeypatch.setattr(phones, "_FEW", 0)
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # shown where it fails
    check_prefixes(random.Random(seed), count)


def test_a_pattern_that_could_mean_something_else_settles_nothing():
    """A later library may have one: a negation, of which more digits match less."""
    with pytest.raises(ValueError, match="not a pattern of digits"):
        phones._opened(r"1(?!3)\d{9}", "is")


@pytest.mark.parametrize("text", ["0800345045", "0802350455", "08003450455"])
def test_a_national_prefix_of_many_forms_is_never_taken_for_settled(text):
    assert phones.settling(text, "BR") is None


def test_more_texts_than_are_described_at_once_are_described_in_order(monkeypatch):
    texts = [*(f"138{n:08d}" for n in range(50)), "Äpfel", None, "", *CHINESE]
    expected = described(texts)
    monkeypatch.setattr(phones, "_AT_ONCE", 7)
    assert described(texts) == expected


# --- masks, and the ends of numbers ---------------------------------------------------------------

NUMBER = "+8613800138000"
MASKS = [
    "138****8000", "138xxxx8000", "138XXXX8000", "138####8000", "+86138****8000", "86138****8000",
    "86-138****8000", "0086 138 **** 8000", "0138****8000", "(+86)138****8000", "138*8000",
    "13800138***", "*******8000", "1*", "*0", "1380013800*", "＊＊＊＊８０００", "138**1**000",
    "１３８ＸＸＸＸ８０００", "+8*0",
]  # fmt: skip


def fits(mask, number, **options):
    one = book(**options)
    [ends] = one.ends([number], with_heads=True)
    return _is_shown(one.mask_ends(mask), ends)


@pytest.mark.parametrize("text", MASKS)
def test_a_mask_fits_the_number_that_it_hides_and_is_nobody_elses(text):
    assert fits(text, NUMBER)
    [seen] = described([text])
    assert seen == {
        **dict.fromkeys(seen), "phone": seen["phone"], "mask": book().mask_ends(f" {text} "),
    }  # fmt: skip
    assert not book().national_digits(text)
    assert described([text], mode="clear")[0]["phone"] == text


@pytest.mark.parametrize(
    ("mask", "number"),
    [("+44 7700****00", "+447700900000"), ("07700****00", "+447700900000"),
     ("1 415***2671", "+14155552671"), ("(415)***-2671", "+14155552671"),
     ("06******68", "+390612345668"), ("+3906******68", "+390612345668")],
)  # fmt: skip
def test_a_mask_of_any_country_may_be_national_or_international(mask, number):
    assert fits(mask, number)


@pytest.mark.parametrize("text", ["139****8000", "138****8001", "+1138****8000", "8138****000"])
def test_a_mask_does_not_fit_another_number(text):
    assert book().mask_ends(text)
    assert not fits(text, NUMBER)


def test_a_mask_shows_its_ends_as_keyed_hashes_that_are_no_recipients():
    head, tail = book().mask_ends("138****8000").split("*")
    for shown, text in ((head, "HEAD 138"), (tail, "TAIL 8000")):
        assert shown == hmac.new(KEY, text.encode(), hashlib.sha256).hexdigest()[:16]
        assert not book().recipient_id(text).startswith(shown)
    assert book().mask_ends("138****") == f"{head}*"
    assert book().mask_ends("****8000") == f"*{tail}"
    assert book().mask_ends("****") == "*"
    assert book(key=b"k" * 32).mask_ends("138****8000") not in (None, f"{head}*{tail}")


@pytest.mark.parametrize("text", ["", "13800138000", "Max", "x#y", "1800FLOWERS", "*1*" * 2_000])
def test_a_text_that_is_no_mask_has_no_mask_ends(text):
    assert book().mask_ends(text) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("138****8000", "138****00"), ("+86138****8000", "+86138****00"), ("*0", "****"),
        ("1380013800*", "138****"), ("0086138****8000", "+86138****00"), ("138*8000", "13****00"),
        ("*8000", "****0"), ("+8*0", "8****"), ("****", "****"), ("****0013800138000", "****00"),
    ],
)  # fmt: skip
def test_of_a_mask_no_more_is_shown_than_of_a_number(text, shown):
    [seen] = described([text])
    assert seen["phone"] == shown
    again = book().remasked(pa.array([seen["phone"], text], pa.string()))
    assert again.to_pylist() == [shown, shown]


@given(st.text("0123456789", max_size=15), st.integers(1, 9), st.text("0123456789", max_size=15))
def test_a_mask_never_shows_more_than_half_nor_more_than_three_and_two(head, hidden, tail):
    text = f"{head}{'*' * hidden}{tail}"
    begun, _, ended = described([text])[0]["phone"].partition("****")
    code = len(begun) - len(begun.lstrip("+")) and 3
    assert len(begun.lstrip("+")) <= 3 + code
    assert len(ended) <= 2
    assert text.endswith(ended)
    if not begun.startswith("+"):
        assert text.startswith(begun) or text.startswith(f"00{begun}")
        assert len(begun + ended) <= len(text) / 2


def test_the_same_mask_in_two_sessions_is_two_recipients():
    masks = book().describe(pa.array(["138****8000", "138xxxx8000", None])).field("mask")
    hashed = book().masked_recipients(pa.array(["s", "s", "s"]), masks).to_pylist()
    other = book().masked_recipients(pa.array(["t", "t", "t"]), masks).to_pylist()
    assert hashed[0] == hashed[1] != other[0]
    assert (len(hashed[0]), hashed[2]) == (32, None)


def test_two_ways_to_write_a_number_share_the_ends_that_are_alike():
    old, new, none = book().ends(["+525512345678", "+5215512345678", "Alice"], with_heads=False)
    assert none is None
    assert old.heads == []
    assert (len(old.tails), len(new.tails)) == (13, 14)
    assert old.tails[:8] == [""] * 8
    assert all(len(one) == 16 for one in old.tails[8:])
    assert [n for n in range(8, 13) if old.tails[n] == new.tails[n]] == [8, 9, 10]
    [whole] = book().ends(["+525512345678"], with_heads=True)
    assert whole.tails[8:] == old.tails[8:]
    assert book().ends(["+2904567"], with_heads=False) == [Ends()], "too short to be told apart"


@pytest.mark.parametrize("plus", ["", "+"])
@pytest.mark.parametrize(("written", "told"), GENERATIONS)
def test_a_number_of_another_generation_ends_alike_though_the_library_knows_one_of_them(
    written, told, plus
):
    texts = [plus + written, plus + told]
    one, other = book().ends(texts, with_heads=False)
    same = [n for n in range(8, 16) if _tail(one, n) and _tail(one, n) == _tail(other, n)]
    assert same
    digits = book().describe(pa.array(texts)).field("digits").to_pylist()
    assert book().ends([f"+{one}" for one in digits], with_heads=False) == [one, other]


# --- what is kept of prefixes ---------------------------------------------------------------------

MANY = pa.array([f"+86138{n:08}" for n in range(400)] + [f"139{n:08}" for n in range(400)])


def kept_book(folder, region="CN"):
    return PhoneBook(KEY, region, "masked", Store(str(folder)))


def described_and_kept(folder, **options):
    one = kept_book(folder, **options)
    said = one.describe(MANY)
    one.keep_prefixes()
    return said


@pytest.fixture
def learnt(tmp_path):
    """Return what is said of many numbers, in a data directory where their prefixes are kept."""
    return described_and_kept(tmp_path)


def test_what_was_learnt_is_not_asked_again_by_the_next_process(tmp_path, learnt, monkeypatch):
    path = tmp_path / PREFIX_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.stat().st_ino
    monkeypatch.setattr(phones, "ask", lambda text, region: pytest.fail("asked again"))
    assert described_and_kept(tmp_path).equals(learnt)
    assert kept_book(tmp_path).recipient_id("13900000000") == learnt[400]["recipient"].as_py()
    assert path.stat().st_ino == before, "nothing new was learnt"


def test_no_number_is_in_the_file(tmp_path, learnt):
    for length, prefix, e164, _ in json.loads((tmp_path / PREFIX_FILE).read_text())["prefixes"]:
        assert len(prefix) <= length - 4
        assert "+86" + "1390000000"[:8] > e164


def test_few_numbers_leave_no_file(tmp_path):
    few = kept_book(tmp_path)
    few.describe(MANY.slice(0, 200))
    few.keep_prefixes()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-20],
        lambda text: text.replace("China Mobile", "China Mobill"),
        lambda text: text.replace("[14, ", "[13, "),
        lambda text: "[]",
        lambda text: '{"prefixes": 7}',
        lambda text: "\0\xff" * 9,
    ],
)
def test_a_damaged_file_is_passed_over_and_written_again(tmp_path, learnt, damage):
    path = tmp_path / PREFIX_FILE
    good = path.read_text()
    path.write_text(damage(good), "latin-1")
    assert described_and_kept(tmp_path).equals(learnt)
    assert path.read_text() == good


@pytest.mark.parametrize(
    ("name", "value"), [("_FORMAT", 99), ("phonenumbers.__version__", "99.0"), ("region", "SG")]
)
def test_what_another_release_or_region_learnt_is_passed_over(
    tmp_path, learnt, monkeypatch, name, value
):
    asked, ask = [], phones.ask
    monkeypatch.setattr(phones, "ask", lambda *text: asked.append(text) or ask(*text))
    if name != "region":
        monkeypatch.setattr(f"usms_pipeline.people.phones.{name}", value)
    described_and_kept(tmp_path, region=value if name == "region" else "CN")
    assert asked
    before = (tmp_path / PREFIX_FILE).read_text()
    asked.clear()
    described_and_kept(tmp_path, region=value if name == "region" else "CN")
    assert not asked
    assert (tmp_path / PREFIX_FILE).read_text() == before


def test_a_file_that_can_be_neither_read_nor_written_stops_nothing(tmp_path, learnt):
    (tmp_path / PREFIX_FILE).unlink()
    (tmp_path / PREFIX_FILE).mkdir()
    assert described_and_kept(tmp_path).equals(learnt)


def test_prefixes_above_the_limit_are_dropped(monkeypatch, tmp_path):
    monkeypatch.setattr(phones, "_MOST_PREFIXES", 3)
    monkeypatch.setattr(phones, "_FEW", 0)
    texts = [f"+861{n:02}{n:08}" for n in range(30, 100)]
    few = kept_book(tmp_path)
    assert few.describe(pa.array(texts)).equals(book().describe(pa.array(texts)))
    few.keep_prefixes()
    assert few._reader._size <= 3
    assert len(json.loads((tmp_path / PREFIX_FILE).read_text())["prefixes"]) <= 3


# --- no text is too odd ---------------------------------------------------------------------------


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
    assert load_key(settings_for(folder)) == key
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
