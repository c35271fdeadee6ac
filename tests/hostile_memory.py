"""The worst answers there are, for a process of its own: ``python -m tests.hostile_memory WORK``.

Prints how much memory the process held at most beyond what it began with, in MB.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.scripted import DAY, Scripted
from tests.test_decode import DELIVERED, decode, item, response
from tests.test_decode import answer as said

MB = 1_000_000
DEEP = 1_000_000


def wrapped(receipts: bytes) -> bytes:
    return b'{"RetCode":0,"Data":[{"SessionNo":"a","Receipt":[%b]}]}' % receipts


def written(**fields: object) -> bytes:
    return json.dumps(said(item("a", [DELIVERED | fields]))).encode()


def many() -> Iterator[bytes]:
    """Too many of something."""
    yield b'{"RetCode":0,"Data":[' + b"1," * 1_900_000 + b"1]}"
    yield wrapped(b"{}," * 1_900_000 + b"{}")
    yield wrapped(b"{}," * 20_000_000 + b"{}")
    yield json.dumps(
        said(item("a", [DELIVERED | {"Phone": f"138{n:08}"} for n in range(100_000)]))
    ).encode()


def long() -> Iterator[bytes]:
    """Texts of 10 MB, in every field that is kept; and a word that a thousand receipts share."""
    for name in (*DELIVERED, "ReceiptCode", "ReceiptDesc", "ReceiptResult", "CostCount"):
        yield written(**{name: "1" * 10 * MB})
    yield json.dumps(said(item("a", [DELIVERED] * 1_000, Status="x" * 10 * MB))).encode()
    yield json.dumps(said(item("x" * 10 * MB), item("a", Receipt="x" * 10 * MB))).encode()
    yield written(ReceiptDesc="x" * 63 * MB)


def deep() -> Iterator[bytes]:
    """A million brackets, in every field."""
    for name in (*DELIVERED, "ReceiptTime", "CostCount", "Other"):
        body = written(**{name: "HERE"})
        yield body.replace(b'"HERE"', b"[" * DEEP + b"]" * DEEP)
        yield body.replace(b'"HERE"', b'{"a":' * DEEP)
    for name in ("SessionNo", "Status", "Receipt", "ReceiptSet"):
        body = json.dumps(
            said(item("a", **{name: "HERE"}) if name != "SessionNo" else {name: "HERE"})
        )
        yield body.encode().replace(b'"HERE"', b"[" * DEEP + b"]" * DEEP)


def decoded(bodies: Callable[[], Iterator[bytes]]) -> None:
    good = response(said(item("a", DELIVERED)), ["a"])
    for body in bodies():
        found = decode(good, response(body, ["a"]), good, good, good)
        assert found.observations.num_rows >= 5
        kept = found.observations.nbytes + found.rejects.nbytes
        assert kept < 20 * MB, f"{len(body)} bytes became {kept}"


def landed(folder: str) -> None:
    """What a run that was killed had been told: 480 MB."""
    account = Scripted(Path(folder))
    body = written(ReceiptDesc="x" * 12 * MB)
    account.land(*[account.told("a", body=body)] * 40, days=[DAY])


def folded(folder: str) -> None:
    """It is read a block at a time."""
    account = Scripted(Path(folder))
    account.row("a")
    account.refresh()
    [(status, told)] = account.shown("status", "provider_desc")
    assert (status, len(told)) == ("delivered", 1_000)


WORK: dict[str, Callable[..., None]] = {
    "many": partial(decoded, many), "long": partial(decoded, long), "deep": partial(decoded, deep),
    "landed": landed, "folded": folded,
}  # fmt: skip


def peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    before = peak_mb()
    WORK[sys.argv[1]](*sys.argv[2:])
    print(peak_mb() - before)
