from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st

from usms_pipeline import settings as config
from usms_pipeline.cli.check import REQUIRED, env_example
from usms_pipeline.contract.errors import SettingsError
from usms_pipeline.settings import Settings, load

ROOT = Path(__file__).parents[1]
SECRETS = {
    "access_key_id": "KEY-ID-IN-CLEAR",
    "access_key_secret": "KEY-SECRET-IN-CLEAR",
    "source_url": "postgresql://shop:PASSWORD-IN-CLEAR@db/shop",
    "phone_key": "c0ffee" * 8,
}
COMPLETE = {**SECRETS, "source_table": "sms_log"}


@pytest.fixture(autouse=True)
def _no_settings_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test starts in an empty folder, with no USMS_ variable set."""
    for name in Settings.model_fields:
        monkeypatch.delenv(config.variable(name), raising=False)
    monkeypatch.chdir(tmp_path)


def problems(*needs: config.Need, **given: object) -> dict[str, str]:
    with pytest.raises(SettingsError) as caught:
        load(needs, **given)
    return {problem.variable: problem.reason for problem in caught.value.problems}


def test_both_problems_of_object_storage_are_reported_and_a_column_that_is_two_things() -> None:
    assert set(problems(data_dir="s3://bucket/usms")) == {"USMS_PHONE_KEY", "USMS_WAREHOUSE"}
    found = problems(session_column="phone", phone_column="phone")
    assert found == {"USMS_SESSION_COLUMN": "names the same column as USMS_PHONE_COLUMN"}


def test_a_problem_names_variable_reason_and_a_value_that_works() -> None:
    with pytest.raises(SettingsError) as caught:
        load(batch_size=0)
    assert "USMS_BATCH_SIZE: should be greater than or equal to 1" in str(caught.value)
    assert "(for example: USMS_BATCH_SIZE=100)" in str(caught.value)


@pytest.mark.parametrize("name", [n for n in Settings.model_fields if n != "phone_key"])
def test_the_example_of_every_setting_is_accepted(name: str) -> None:
    given = {name: config.example(name)}
    assert getattr(load(**given), name) is not None


@pytest.mark.parametrize("url", ["sms.parquet", "/data/SMS.CSV"])
def test_a_file_needs_no_table(url: str) -> None:
    assert load(["source"], source_url=url).source_table is None


def test_secrets_are_shown_neither_in_repr_nor_in_errors() -> None:
    settings = load(**COMPLETE)
    shown = repr(settings) + str(settings) + settings.model_dump_json()
    with pytest.raises(SettingsError) as caught:
        load(**{**COMPLETE, "phone_key": "not-hex-KEY-IN-CLEAR", "base_url": "https://u:p@host"})
    told = f"{caught.value!s} {caught.value!r} {caught.value.problems}"
    for secret in (*SECRETS.values(), "IN-CLEAR", "u:p"):
        assert secret not in shown
        assert secret not in told


def test_secrets_are_found_however_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name's case does not matter, and .env may name other variables."""
    monkeypatch.setenv("DB_PASSWORD", "hunter2")
    monkeypatch.setenv("Usms_Phone_Key", "00" * 16)
    lines = ["usms_access_key_secret=topsecret", "USMS_SOURCE_URL=mysql://u:${DB_PASSWORD}@h/db"]
    (tmp_path / ".env").write_text("\n".join(lines))
    settings = load(["source"], source_table="t")
    used = (settings.source_url, settings.access_key_secret, settings.phone_key)
    values = ["mysql://u:hunter2@h/db", "topsecret", "00" * 16]
    assert [one.get_secret_value() for one in used if one] == values
    assert set(values) <= set(config.secrets())
    assert config.unknown_variables() == []
    assert config.is_secret_in_env_file()


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("USMS_ACCESS_KEY_SECRET=a${b}c#d", "access_key_secret", "a${b}c#d"),
        ("usms_access_key_id='${HOME}'", "access_key_id", "${HOME}"),
        ("USMS_ACCESS_KEY_SECRET=${OTHER:-x}y$z", "access_key_secret", "${OTHER:-x}y$z"),
        ("USMS_PHONE_KEY=" + "ab" * 32, "phone_key", "ab" * 32),
        ("USMS_SOURCE_URL=mysql://u:p${nowhere}@h/db", "source_url", "mysql://u:p${nowhere}@h/db"),
        ("USMS_SOURCE_URL=mysql://u:${OTHER}@h/db", "source_url", "mysql://u:known@h/db"),
        ("USMS_SOURCE_URL=mysql://u:${NONE:-p}@h/db", "source_url", "mysql://u:p@h/db"),
        ("USMS_SOURCE_URL='mysql://u:$a@h/db' # ours", "source_url", "mysql://u:$a@h/db"),
    ],
)
def test_a_secret_in_the_file_is_taken_as_it_stands(
    line: str, name: str, value: str, tmp_path: Path
) -> None:
    """But for a variable that there is, in the address of a database."""
    (tmp_path / ".env").write_text(f"OTHER=known\nUSMS_DATA_DIR=${{OTHER}}/x\n{line}\n")
    loaded = load()
    assert getattr(loaded, name).get_secret_value() == value
    assert loaded.data_dir == "known/x"
    assert value in config.secrets()


@pytest.mark.parametrize("quoted", ["'{}'", '"{}"', "“{}”", " '{}' ", "`{}`"])
@pytest.mark.parametrize(
    "name",
    ["access_key_id", "access_key_secret", "source_url", "phone_key", "base_url", "data_dir"],
)
def test_a_value_that_was_exported_with_its_quotes_is_told(
    name: str, quoted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = SECRETS.get(name, config.example(name))
    monkeypatch.setenv(config.variable(name), quoted.format(value))
    reason = problems()[config.variable(name)]
    assert reason == f"begins and ends with {quoted.strip()[0]}: take the quotes off"
    monkeypatch.setenv(config.variable(name), value)
    assert load()


@pytest.mark.parametrize("table", ['"sms.log"', '"public"."sms.log"', "`a`.`b`"])
def test_quotes_of_sql_in_a_table_stay(table: str) -> None:
    assert load(source_table=table).source_table == table


@pytest.mark.parametrize("has_file", [True, False])
def test_a_folder_without_a_settings_file_is_named(tmp_path: Path, has_file: bool) -> None:
    if has_file:
        (tmp_path / ".env").write_text("USMS_BATCH_SIZE=0\n")
    with pytest.raises(SettingsError) as caught:
        load(["source"])
    place = "" if has_file else f" (there is none in {tmp_path})"
    assert f"to fix, in the environment or in .env{place}:\n" in str(caught.value)


def test_an_argument_beats_the_environment_which_beats_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "USMS_BATCH_SIZE=10\nUSMS_MAX_CONCURRENCY=10\nUSMS_TIMEOUT_SECONDS=10\n"
    (tmp_path / ".env").write_text(lines)
    monkeypatch.setenv("USMS_BATCH_SIZE", "20")
    monkeypatch.setenv("USMS_MAX_CONCURRENCY", "20")
    settings = load(batch_size=30, max_concurrency=None)
    assert settings.batch_size == 30
    assert settings.max_concurrency == 20
    assert settings.timeout_seconds == 10


def test_a_blank_variable_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("USMS_DIMENSIONS=template\n")
    monkeypatch.setenv("USMS_DIMENSIONS", "")
    monkeypatch.setenv("USMS_BATCH_SIZE", "")
    monkeypatch.setenv("USMS_ACCESS_KEY_ID", "")
    monkeypatch.setenv("USMS_ACCESS_KEY_SECRET", " \t")
    assert (load().batch_size, load().dimensions) == (100, ("template",))
    assert set(problems("api")) == {"USMS_ACCESS_KEY_ID", "USMS_ACCESS_KEY_SECRET"}


def test_a_pasted_secret_loses_the_blanks_around_it() -> None:
    secret = load(access_key_secret=" pasted\n").access_key_secret
    assert secret is not None
    assert secret.get_secret_value() == "pasted"


@pytest.mark.parametrize(
    ("given", "dimensions"),
    [
        ("template_id, purpose ,", ("template_id", "purpose")),
        ('["price, EUR", "国家"]', ("price, EUR", "国家")),
        (["a", "b"], ("a", "b")),
    ],
)
def test_dimensions_are_a_comma_list_a_json_list_or_a_sequence(
    given: object, dimensions: tuple[str, ...]
) -> None:
    assert load(dimensions=given).dimensions == dimensions


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("base_url", "http://api.uspeedo.com", "must be https"),
        ("base_url", "ftp://api.uspeedo.com", "is not an https:// address"),
        ("base_url", "https://host:99999999", "is not a web address"),
        ("base_url", "https://key:secret@host", "must not hold credentials"),
        ("base_url", "https://host/?Action=x", "must end before any ?"),
        ("source_timezone", "../../etc/passwd", "is not a time zone"),
        ("source_timezone", "Asia/Shangai", "database; did you mean Asia/Shanghai?"),
        ("timezone", "new york", "database; did you mean America/New_York?"),
        ("timezone", "UTC+8", "where an offset has the other sign: Etc/GMT-8"),
        ("receipt_timezone", "gmt-03:00", "where an offset has the other sign: Etc/GMT+3"),
        ("default_region", "CHN", "is not a two-letter country code"),
        ("data_dir", "gs://bucket", "must be a local path or s3://bucket/folder"),
        ("data_dir", "s3://", "must be a local path or s3://bucket/folder"),
        ("data_dir", "s3://key:secret@bucket/x", "are read from the AWS_… variables"),
        ("data_dir", "s3://bucket/x?region=eu-west-3", "are read from the AWS_… variables"),
        ("data_dir", "s3://my bucket/x", "the name of a bucket"),
        ("data_dir", "s3://bucket//x", "must not have an empty folder"),
        ("data_dir", "~no-such-user/x", "a user who has no home folder"),
        ("data_dir", "", "is empty"),
        ("warehouse", "s3://bucket/usms.duckdb", "must be the path of a local file"),
        ("dimensions", "a,b,a", "names a column twice: a"),
        ("dimensions", "[a", "is neither a comma list nor a JSON list"),
        ("poll_minutes", "5,0", "every age must be greater than 0"),
        ("poll_minutes", "inf", "should be a finite number"),
        ("poll_every_hours", "0.001", "asks more than 1,000 times"),
        ("cutoff_hours", "inf", "should be a finite number"),
        ("phone_key", "abcd", "is shorter than 16 bytes"),
        ("phone_key", "zz" * 32, "is not hexadecimal"),
        ("session_column", "", "should have at least 1 character"),
        ("start_date", "yesterday", "should be a valid date"),
        ("start_date", "0001-01-01", "is not a day from 1970-01-01 to 2199-12-31"),
    ],
)
def test_a_value_that_cannot_work_is_refused_with_its_reason(
    name: str, value: str, reason: str
) -> None:
    assert reason in problems(**{name: value})[config.variable(name)]


@pytest.mark.parametrize("name", ["source_timezone", "timezone"])
def test_the_example_of_a_zone_is_one_with_a_place(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(**{name: "Beijing"})
    assert str(caught.value).endswith(f"(for example: {config.variable(name)}=Asia/Shanghai)")


def test_the_example_file_as_it_stands_is_no_set_of_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(env_example())
    with pytest.raises(SettingsError) as caught:
        config.load(["source", "api"])
    found = {one.variable: one.reason for one in caught.value.problems}
    assert found.keys() == {"USMS_ACCESS_KEY_ID", "USMS_ACCESS_KEY_SECRET", "USMS_SOURCE_URL"}
    assert {*found.values()} == {"is still that of .env.example: put your own there"}
    assert "for example" not in str(caught.value)
    for name in found:
        monkeypatch.setenv(name, "sqlite:///ours.db")
    assert config.load(["source", "api"]).source_table == "public.sms_log", "it may be yours"


def test_a_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert load(data_dir="~/usms").warehouse_path == Path("/home/someone/usms/usms.duckdb")


def test_variables_that_set_nothing_are_named_with_what_they_may_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("USMS_DATADIR=x\nUSMS_TIMEZONE=UTC\nOTHER=1\n")
    monkeypatch.setenv("USMS_ZZZZZZZ", "1")
    monkeypatch.setenv("USMS_DEBUG", "1")
    assert config.unknown_variables() == [
        ("USMS_DATADIR", "USMS_DATA_DIR"),
        ("USMS_ZZZZZZZ", None),
    ]


def test_the_polling_times_end_at_the_cutoff() -> None:
    offsets = load(poll_minutes="30,10", poll_every_hours=1, cutoff_hours=2).poll_offsets
    assert offsets == [timedelta(minutes=m) for m in (10, 30, 90, 120)]


def test_every_setting_has_a_description_and_stands_once_in_the_example_file() -> None:
    text = env_example()
    for name, field in Settings.model_fields.items():
        assert field.description
        assert text.count(f"{config.variable(name)}=") == 1


def test_the_example_file_in_the_repository_is_in_step() -> None:
    """Fix it with: usms check --example > .env.example."""
    assert (ROOT / ".env.example").read_text("utf-8") == env_example()


def test_the_example_file_gives_the_defaults_and_the_required_settings(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(env_example())
    settings = load()
    assert set(dotenv_values(tmp_path / ".env")) == {config.variable(name) for name in REQUIRED}
    for name, field in Settings.model_fields.items():
        assert name in REQUIRED or getattr(settings, name) == field.default


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "batch_size": st.integers(-5, 200),
            "default_region": st.text(max_size=3),
            "timezone": st.text(max_size=8),
            "cutoff_hours": st.floats(),
            "data_dir": st.text(max_size=8),
            "base_url": st.text(max_size=12) | st.just("https://[x"),
            "dimensions": st.text(max_size=8),
            "poll_minutes": st.text(max_size=8),
            "phone_key": st.text(max_size=40),
            "start_date": st.text(max_size=12) | st.just(date(2026, 1, 1)),
        },
    )
)
def test_whatever_is_given_either_loads_or_is_told_as_settings(given: dict[str, object]) -> None:
    try:
        assert load(**given).poll_offsets
    except SettingsError as error:
        told = {problem.variable for problem in error.problems}
        assert told <= {"USMS_POLL_EVERY_HOURS", "USMS_WAREHOUSE", "USMS_PHONE_KEY"} | {
            config.variable(name) for name in given
        }
