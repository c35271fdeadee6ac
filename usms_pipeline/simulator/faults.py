"""The faults that can be injected, each a named field, and their one-line syntax.

No fault happens here: see ``fate``, ``answers`` and ``replies`` for what each one does.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final


def _share(description: str, every: float = 0.0) -> Any:
    """Declare a probability, 0 to 1; ``every`` is its value in ``Faults.every()``."""
    return field(default=0.0, metadata={"about": description, "every": every, "max": 1.0})


def _amount(default: float, description: str, every: float | None = None) -> Any:
    """Declare a parameter >= 0 that is no probability."""
    given = default if every is None else every
    return field(default=default, metadata={"about": description, "every": given})


RETRY_AFTER: Final = ("any", "none", "seconds", "date")


@dataclass(frozen=True)
class Faults:
    """Faults of the simulated service. All off by default; shares are 0 to 1.

    Every fault but ``down``, ``auth_failure``, ``missing``, ``poison`` and ``unknown_words``
    leaves the truth within reach: a client that retries, splits and asks again gets all of it,
    and what those last three take away is left out of ``Simulator.truth`` too.
    """

    # What becomes of messages: shares of recipients, the same at every question.
    late: float = _share("receipts that the service shows hours after their time", 0.03)
    late_hours: float = _amount(6, "how late, at most, in hours")
    nightly: float = _share("operators whose delivered receipts come in one lot, the night after")
    uneven_days: float = _share("how unlike an operator's days are, in log odds of going wrong")
    missing: float = _share("messages that the service never says anything about", 0.01)
    unknown_words: float = _share("receipts with a status word that is documented nowhere", 0.01)
    regressing: float = _share("receipts that lose their final word again", 0.02)
    conflicting: float = _share("receipts that change to another final word", 0.02)
    poison: float = _share("session numbers for which a whole request is refused (215392)", 0.001)
    poison_ids: frozenset[str] = field(
        default=frozenset(), metadata={"about": "session numbers refused, with + between them"}
    )

    # Odd but readable answers: shares of items.
    duplicate: float = _share("items said twice in one answer", 0.02)
    array: float = _share("items whose Receipt is an array", 0.1)
    receipt_set: float = _share("items in the API's older form, ReceiptSet", 0.1)
    spellings: float = _share("phone numbers written in another way", 0.2)
    extra_fields: float = _share("items with fields documented nowhere", 0.05)
    left_out: float = _share("sessions without a receipt yet that the answer leaves out", 0.1)

    # Odd but readable answers: shares of requests.
    unasked: float = _share("answers that hold a session nobody asked about", 0.02)
    bad_items: float = _share("answers that also hold items of the wrong shape", 0.02)
    null_data: float = _share("answers with null Data, where no session has a receipt yet", 0.5)
    string_ret_code: float = _share("answers whose RetCode is text", 0.1)
    missing_message: float = _share("answers without Message", 0.1)
    gzip: float = _share("compressed answers, to clients that accept them", 0.2)

    # Useless answers: shares of requests, at most one of them a request.
    throttle: float = _share("HTTP 429", 0.02)
    retry_after: str = field(
        default="any", metadata={"about": "Retry-After of HTTP 429: any, none, seconds or date"}
    )
    retry_after_seconds: float = _amount(1, "the wait that Retry-After asks for, in seconds")
    ret_throttle: float = _share("RetCode 153, throttled", 0.01)
    server_error: float = _share("HTTP 500, 502, 503 or 504", 0.02)
    ret_server_error: float = _share("RetCode 215400, server error", 0.01)
    reset: float = _share("connections reset before the answer", 0.01)
    truncated: float = _share("answers that break off before their Content-Length", 0.01)
    cut_json: float = _share("answers whole in length with their JSON cut", 0.01)
    html: float = _share("HTTP 200 with a web page", 0.01)
    oversized: float = _share("answers blown up to oversized_mb", 0.002)
    oversized_mb: float = _amount(65, "size of an oversized answer, decompressed, in MB")
    relent_after: int = _amount(
        0, "a good answer after this many useless ones in a row to the same ids (0: never)", 3
    )

    # The whole service.
    slow: float = _share("answers that take slow_seconds longer", 0.02)
    slow_seconds: float = _amount(0.5, "how much longer a slow answer takes, in seconds")
    latency_seconds: float = _amount(0, "time that every answer takes, in seconds")
    rate_limit: float = _amount(0, "requests per second above which it throttles (0: none)", 200)
    uri_limit: float = _amount(0, "bytes of query above which it answers HTTP 414 (0: none)")
    auth_failure: float = _share("requests whose right credentials are refused")
    down: float = _share("requests that find the service down")

    def __post_init__(self) -> None:
        if self.retry_after not in RETRY_AFTER:
            raise ValueError(
                f"retry_after can't be {self.retry_after!r}; it is one of {', '.join(RETRY_AFTER)}"
            )
        for named in fields(self):
            value = getattr(self, named.name)
            most = named.metadata.get("max")
            if isinstance(value, int | float) and not 0 <= value <= (most or float("inf")):
                within = "from 0 to 1" if most else "0 or more"
                raise ValueError(f"{named.name} can't be {value:g}; it must be {within}")

    @classmethod
    def every(cls) -> Faults:
        """Return all faults, rare enough for a good client to end with the full truth.

        ``down`` and ``auth_failure`` stay off, as a good client stops at them; so do ``nightly``,
        which may tell after the cutoff, and ``uneven_days``, at which nothing is wrong.
        """
        return cls(**{f.name: f.metadata["every"] for f in fields(cls) if "every" in f.metadata})

    @classmethod
    def parse(cls, text: str) -> Faults:
        """Read ``"throttle=0.1,poison=0.01"``; a name alone is 1; ``every`` stands first.

        Raises ``ValueError`` with a sentence that lists the known faults.

        >>> Faults.parse("every,throttle=0.25").throttle
        0.25
        """
        faults = cls()
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, is_given, value = (piece.strip() for piece in part.partition("="))
            if name == "every" and not is_given:
                faults = cls.every()
            else:
                faults = replace(faults, **{_known(name): _read(name, value or "1")})
        return faults

    @classmethod
    def describe(cls) -> dict[str, str]:
        """Return each fault's name and one line about it, for a help text."""
        return {f.name: f.metadata["about"] for f in fields(cls)}


def _known(name: str) -> str:
    names = list(Faults.describe())
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"There is no fault {name!r}.{hint} Give name=value pairs with commas between them; "
        f"the faults are: every, {', '.join(names)}."
    )


def _read(name: str, text: str) -> Any:
    if name == "poison_ids":
        return frozenset(filter(None, text.split("+")))
    if name == "retry_after":
        return text
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{name} can't be {text!r}; it is a number, such as {name}=0.1") from None
    return int(number) if name == "relent_after" and number.is_integer() else number
