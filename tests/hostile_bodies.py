"""Bodies that a broken or hostile service might send, made from a seed: for the fuzz tests.

Real answers of every documented shape, then damaged: in their bytes, or in one of their values.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

IDS = ("a", "b", "c", "d", "e")


class Raw(NamedTuple):
    """JSON that goes into a body as it is written, valid or not."""

    text: bytes


class Twice(NamedTuple):
    """An object's value that is said twice under its name."""

    first: Any
    second: Any


NEW = {
    "Phone": "13800138000", "Status": "delivered", "ReceiveTime": "2024-01-01 12:00:00",
    "ReceiptCode": "0", "ReceiptDesc": "用户已接收",
}  # fmt: skip
OLD = {
    "Phone": "(86)13800138000", "ReceiptResult": "UNDELIV", "ReceiptCode": "MK:0001",
    "ReceiptDesc": "空号", "ReceiptTime": 1704081600, "CostCount": 2, "UserId": "u",
    "CountryCode": "86", "BrevityCode": "x",
}  # fmt: skip


def _answer(*items: Any, **more: Any) -> dict[str, Any]:
    return {"RetCode": 0, "Message": "success", "Data": list(items)} | more


def _item(session: str, **more: Any) -> dict[str, Any]:
    return {"SessionNo": session, "Status": "success"} | more


REAL = [
    _answer(*(_item(session, Receipt=NEW) for session in IDS)),
    _answer(_item("a", Receipt=None), _item("b", Receipt={}), _item("c", Receipt=NEW)),
    _answer(_item("a", Receipt=[NEW, NEW | {"Phone": "8618512345678"}]), _item("b", Receipt=[])),
    _answer(_item("a", ReceiptSet=[OLD, OLD | {"ReceiptTime": 0}]), _item("b", ReceiptSet=[])),
    _answer(_item("a", Receipt=NEW), _item("a", ReceiptSet=[OLD]), _item("unasked", Receipt=NEW)),
    _answer(*(_item(s, Receipt=NEW, Trace={"Hops": [1, None]}) for s in "ab"), RetCode="0"),
    {"RetCode": 0, "Data": None},
    {"RetCode": 0, "Message": "success"},
    {"RetCode": 215392, "Message": "Invalid parameter [id]"},
]
"""Every shape of an answer that the service is known or said to have."""

DEEP = 2_000
ODD = [
    None, True, False, 0, 1, "", " ", "\x00", "x" * 3_000, [], {}, [[]], [{}], {"": ""}, "a", "b",
    "13800138000", "1" * 400, "delivered", " FAIL\t", "不存在", 10**30, 2**63, -(2**63) - 1, 1.5,
    [None] * 5, "0001-01-01 00:00:00", "9999-12-31 23:59:59", "2024-02-30 24:61:61", "1704081600",
    "9" * 19, "-1", "2024-01-01T00:00:00+23:59", "\ufeff", "\u2028", "😀",
    *map(
        Raw,
        [
            b"1e999", b"-1e999", b"-0", b"-0.0", b"1E400", b"9" * 400, b"9" * 5_000,
            b'"\\u0000"', b'"\\ud83d\\ude00"', b'"\\ud800"', b'"\\udc00"', b'"\\udc00\\ud800"',
            b'{"Phone":"1","Phone":"2","Status":"fail"}',
            b'{"Status":"fail","St\\u0061tus":"sent"}',
        ],
    ),
]  # fmt: skip
"""Values to put in the place of others: wrong types, absurd sizes and numbers."""

RUBBISH = [
    Raw(text)
    for text in [
        b"NaN", b"Infinity", b"-Infinity", b"0x10", b"01", b"1.", b".5", b"+1", b"-", b"'x'",
        b"nul", b'"\\u12"', b'"\\x41"', b'"\\', b'"\xff\xfe"', b'"\xed\xa0\x80"', b'"\xc0\x80"',
        b"\xff", b'"a\nb"', b'"a\tb"', b'"a\x00b"', b"[" * DEEP, b"[" * DEEP + b"]" * DEEP,
        b'{"a":' * DEEP + b"1" + b"}" * DEEP, b"[1,]", b'{"a":1,}', b"/**/1",
    ]
]  # fmt: skip
"""What is no JSON, or none that Python reads."""


PIECES = [
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u", b"null", b"\xff", b"\x00", b"\n",
    b"\xef\xbb\xbf", b"1e9", b"\\ud800", b'"SessionNo":', b'"Data":[]', b'"D\\u0061ta":[{}]',
    b"NaN", b"-", b"9" * 30, "空".encode(), "空".encode()[:2],
]  # fmt: skip


def written(value: Any) -> bytes:
    """Write JSON, with ``Raw`` texts as they are and ``Twice`` said twice."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, dict):
        pairs = ((key, one) for key, many in value.items() for one in _each(many))
        return b"{%b}" % b",".join(b"%b:%b" % (written(key), written(one)) for key, one in pairs)
    if isinstance(value, list):
        return b"[%b]" % b",".join(map(written, value))
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _each(value: Any) -> tuple[Any, ...]:
    return (*_each(value.first), *_each(value.second)) if isinstance(value, Twice) else (value,)


def bodies(seed: Any) -> Iterator[bytes]:
    """Yield bodies without end, the same for the same seed."""
    rng = Random(f"bodies {seed}")
    makers = (_noise, _damaged, _changed, _recoded)
    while True:
        [make] = rng.choices(makers, (1, 4, 13, 1))
        yield make(rng)


def _real(rng: Random) -> bytes:
    answer = rng.choice(REAL)
    return json.dumps(answer, indent=1).encode() if rng.random() < 0.2 else written(answer)


def _noise(rng: Random) -> bytes:
    return rng.randbytes(rng.choice([0, 1, 5, 40, 300]))


def _damaged(rng: Random) -> bytes:
    """Flip bytes, cut, splice in pieces, or parts of another answer."""
    body = bytearray(_real(rng))
    for _ in range(rng.randrange(5)):
        at = rng.randrange(len(body) + 1)
        length = rng.choice([0, 1, 1, 5, 60])
        if rng.random() < 0.2:
            other = _real(rng)
            start = rng.randrange(len(other))
            body[at : at + length] = other[start : start + 80]
        else:
            body[at : at + length] = rng.choice([b"", rng.choice(PIECES), rng.randbytes(2)])
    return bytes(body[: rng.randrange(len(body) + 1)] if rng.random() < 0.1 else body)


def _changed(rng: Random) -> bytes:
    """Put odd values in the place of others, or beside them under the same name."""
    answer = json.loads(json.dumps(rng.choice(REAL)))  # a copy in which no part is there twice
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        holder, key = rng.choice(list(_places(answer)))
        odd = copy.deepcopy(rng.choice(ODD if rng.random() < 0.7 else RUBBISH))
        is_doubled = isinstance(holder, dict) and rng.random() < 0.2
        holder[key] = Twice(odd, holder[key]) if is_doubled else odd
    return written(answer)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place of a value, as its holder and the key there."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys if isinstance(value, dict | list) else ():
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def _recoded(rng: Random) -> bytes:
    text = _real(rng).decode()
    codec = rng.choice(["utf-16", "utf-16-le", "utf-8-sig", "utf-32", "gb18030", "utf-7"])
    return text.encode(codec)
