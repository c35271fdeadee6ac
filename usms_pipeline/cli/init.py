"""``usms init``: from nothing to a ``.env`` that works, by questions or by options."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

import usms_pipeline
from usms_pipeline.cli import check
from usms_pipeline.cli.shell import out
from usms_pipeline.contract import wording
from usms_pipeline.contract.errors import SettingsError, SourceError

if TYPE_CHECKING:
    from usms_pipeline.source.kinds import Column

_ENV: Final = Path(".env")
_NONE: Final = "-"
_TABLES: Final = ("sms", "message|msg|短信", "send|sent|log")
_SESSIONS: Final = ("^session_?(no|id)$", "session|会话", "^(msg|message|send)_?id$")
_TIMES: Final = ("^sen[dt]_?(at|time|date)$|发送时间", "sen[dt]|submit", "creat", "time|date|时间")
_PHONES: Final = ("^phone", "phone|mobile|msisdn|手机", "recipient|^to$|tel|number|号码")
"""What tables and columns are called, the likeliest first."""
_PLAIN: Final = r"[\w./:@+,%=?&~*-]*"
_SHOWN: Final = 40

Text = str | None


def _option(name: str, meaning: str, variable: str | None = None) -> Any:
    """Return an option; a secret may come in a variable, which no list of processes shows."""
    return typer.Option(name, help=meaning, show_default=False, envvar=variable)


def init(
    base_url: Annotated[Text, _option("--url", "Address of the service.")] = None,
    key_id: Annotated[
        Text, _option("--key-id", "Public half of the access key.", "USMS_ACCESS_KEY_ID")
    ] = None,
    secret: Annotated[
        Text, _option("--key-secret", "Secret half of the access key.", "USMS_ACCESS_KEY_SECRET")
    ] = None,
    source_url: Annotated[
        Text, _option("--source", "Database URL, or path of a file.", "USMS_SOURCE_URL")
    ] = None,
    table: Annotated[Text, _option("--table", "Table of sent messages.")] = None,
    session: Annotated[Text, _option("--session-column", "Column of session numbers.")] = None,
    sent_at: Annotated[Text, _option("--sent-at-column", "Column of the send time.")] = None,
    phone: Annotated[Text, _option("--phone-column", "Column of phones; - for none.")] = None,
    dimensions: Annotated[Text, _option("--dimensions", "Columns to group by; - for none.")] = None,
    zone: Annotated[Text, _option("--timezone", "Time zone of send times that name none.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Replace .env if there is one.")] = False,
) -> int:
    """Ask for service, access key and table; write .env, readable only by you; check everything."""
    if _ENV.exists() and not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("There is a .env here already; use --yes to replace it.")
        typer.confirm(".env is there already. Replace it?", abort=True, err=True)
    from usms_pipeline import source
    from usms_pipeline.service import api

    found: list[str] = []
    columns: list[Column] = []

    def open_source(url: str) -> str:
        found[:] = source.tables(url)
        return url

    def open_table(name: str) -> str:
        columns[:] = source.columns(given["source_url"], name)
        return name

    address = _setting("base_url")
    given = {
        "base_url": _ask("Address of the service", "--url", base_url, address, api.BASE_URL),
        "access_key_id": _ask("Access key ID", "--key-id", key_id),
        "access_key_secret": _ask("Access key secret", "--key-secret", secret, is_hidden=True),
    }
    question = "Where your table is: a database URL, or a CSV or Parquet file"
    given["source_url"] = _ask(question, "--source", source_url, open_source)
    if found:
        _list("tables", found)
        guess = _guess(found, _TABLES)
        given["source_table"] = _ask("Table of messages", "--table", table, open_table, guess)
    else:
        open_table("")
    _list("columns", [f"{one.name} ({one.type})".removesuffix(" (untyped)") for one in columns])
    names = [one.name for one in columns]
    times = {one.name: one.time for one in columns if one.time is not None}
    for name, question, option, told, there, words in (
        ("session_column", "Column of the session number", "--session-column", session, names,
         _SESSIONS),
        ("sent_at_column", "Column of the send time", "--sent-at-column", sent_at,
         list(times), _TIMES),
        ("phone_column", f"Column of the phone, {_NONE} for none", "--phone-column", phone,
         [*names, _NONE], _PHONES),
        ("dimensions", f"Columns to group by, as a,b or {_NONE} for none", "--dimensions",
         dimensions, [*names, _NONE], ()),
    ):  # fmt: skip
        usable = _one_of(there, "," if name == "dimensions" else None)
        given[name] = _ask(question, option, told, usable, _guess(there, words))
    given = {name: text for name, text in given.items() if text != _NONE}
    if times[given["sent_at_column"]] != "aware":
        question = "Time zone of times that name none, as Asia/Shanghai"
        usable = _setting("source_timezone")
        given["source_timezone"] = _ask(question, "--timezone", zone, usable, "UTC")
    _write(given)
    out().print("[green]✓[/] .env is written. Checked:")
    code = check.check()
    then = "[bold]usms run[/], then [bold]usms rates[/]"
    if code:
        then = f"correct .env, until [bold]usms check[/] has no ✗; then {then}"
    out().print(f"next  {then}")
    return code


def _ask(
    question: str,
    option: str,
    given: str | None,
    usable: Callable[[str], str] = str,
    default: str | None = None,
    *,
    is_hidden: bool = False,
) -> str:
    """Return what an option says, else what is typed; asks again until it is usable."""

    def read(text: str) -> str:
        if not text.strip():
            raise typer.BadParameter("This one has no default: an answer is needed.")
        try:
            return usable(text.strip())
        except SourceError as error:
            raise typer.BadParameter(str(error)) from None

    if given is None and sys.stdin.isatty():
        answer: str = typer.prompt(
            question, default=default or "", show_default=bool(default), value_proc=read,
            hide_input=is_hidden, err=True,
        )  # fmt: skip
        return answer
    if (given := default if given is None else given) is None:
        raise typer.BadParameter(f"{option} is not given, and there is no terminal to ask at.")
    try:
        return read(given)
    except typer.BadParameter as error:
        raise typer.BadParameter(f"{option}: {error.message}") from None


def _setting(name: str) -> Callable[[str], str]:
    """Return what refuses a text that a setting can't be."""

    def usable(text: str) -> str:
        try:
            usms_pipeline.settings.load((), **{name: text})
        except SettingsError as error:
            for problem in error.problems:
                if problem.variable == usms_pipeline.settings.variable(name):
                    raise typer.BadParameter(f"{text!r} {problem.reason}.") from None
        return text

    return usable


def _one_of(names: Sequence[str], separator: str | None) -> Callable[[str], str]:
    def usable(text: str) -> str:
        for one in text.split(separator) if separator else [text]:
            if one.strip() not in names:
                near = wording.near(one, names) or names[:_SHOWN]
                raise typer.BadParameter(f"There is no {one!r}. Choose {' or '.join(near)}.")
        return text

    return usable


def _guess(names: Sequence[str], words: Sequence[str]) -> str | None:
    """Return the name that fits the first of some words; the only one, where there is one."""
    fitting = (name for word in words for name in names if re.search(word, name.casefold()))
    return names[0] if len(names) == 1 else next(fitting, _NONE if _NONE in names else None)


def _list(what: str, names: Sequence[str]) -> None:
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    if sys.stdin.isatty():
        typer.echo(wording.visible(f"Its {what}: {', '.join(names[:_SHOWN])}{more}"), err=True)


def _write(given: dict[str, str]) -> None:
    """Write .env whole or not at all, and for this account alone from the first byte on."""
    variable = usms_pipeline.settings.variable
    lines = [f"{variable(name)}={_quoted(text)}\n" for name, text in given.items()]
    new = _ENV.with_name(".env.new")
    new.unlink(missing_ok=True)
    with os.fdopen(
        os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", -1, "utf-8"
    ) as f:
        f.write("# Made by `usms init`; `usms check --example` prints every setting there is.\n")
        f.writelines(lines)
    new.replace(_ENV)


def _quoted(text: str) -> str:
    r"""Write a value so that it is read as it is.

    >>> print(_quoted("shop.csv"), _quoted("it's #1"))
    shop.csv 'it\'s #1'
    """
    if re.fullmatch(_PLAIN, text):
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
