"""The provider's API: each path, header, code, status word and JSON key it has, and what it means.

No other module names any of them. (``simulator`` is the other side and keeps names of its own, so
that the tests compare two readings of the documentation.) No I/O and no state.
"""

from __future__ import annotations

from base64 import b64encode
from enum import Enum
from hashlib import sha256
from typing import Final
from unicodedata import category

# The request

BASE_URL: Final = "https://api.uspeedo.com"
METHOD: Final = "GET"
PATH: Final = "/api/v1/usms/USMSSendReceipt"
ID_PARAMETER: Final = "id"  # repeated, once for each session number
MAX_IDS: Final = 100
"""The most distinct ids that the service documents for one request."""

HEADERS: Final = {"Content-Type": "application/json", "Accept": "application/json"}


def authorization(key_id: str, secret: str) -> str:
    """Return the value of the header ``Authorization``."""
    return f"Basic {b64encode(f'{key_id}:{secret}'.encode()).decode('ascii')}"


# The answer: the name of each thing here, and its key in the JSON

ENVELOPE: Final = {"ret_code": "RetCode", "message": "Message", "data": "Data"}
"""The whole answer. ``data`` is a list of items, one for each session."""

ITEM: Final = {
    "session_no": "SessionNo",
    "submit_status": "Status",  # of the submission; it says nothing about delivery
    "receipt": "Receipt",  # a receipt, or a list of them, or null
    "receipt_set": "ReceiptSet",  # the older form: a list of them
}

RECEIPT: Final = {
    "phone": "Phone",
    "word": "Status",
    "older_word": "ReceiptResult",
    "time": "ReceiveTime",  # local time, without a zone
    "epoch": "ReceiptTime",  # the older form of it: seconds since 1970
    "code": "ReceiptCode",
    "description": "ReceiptDesc",
    "segments": "CostCount",
}
"""The keys of both forms of a receipt; each is understood in both."""

WHOLE_NUMBERS: Final = ("epoch", "segments")
"""The values of a receipt that are documented as whole numbers; all others are text."""

KEYS: Final = frozenset((*ENVELOPE.values(), *ITEM.values(), *RECEIPT.values()))

RECEIPT_TIMEZONE: Final = "Asia/Shanghai"
"""The zone of a receipt's ``time``."""

# What a receipt's word means

WORDS: Final[dict[str, tuple[str, ...]]] = {
    "delivered": ("delivered", "delivrd", "deliver", "success", "发送成功", "接收成功"),
    "failed": ("fail", "failed", "undelivered", "undeliv", "发送失败", "接收失败"),
    "rejected": ("submitfail", "rejectd", "rejected", "提交失败"),
    "expired": ("expired", "过期"),
    "pending": ("", "queued", "sending", "sent", "accepted", "acceptd", "enroute", "submitted"),
    "unknown": ("unknow", "unknown", "状态未知"),
}
"""The service's status words, by our status, from the receipt documentation and
the SDKs: trimmed and casefolded. Any other word is ``unrecognized``."""

WORDS_DIGEST: Final = sha256(repr(sorted(WORDS.items())).encode()).hexdigest()[:16]
"""Version of the table of words: a day made with another is made again."""

_BUCKET_OF: Final = {word: bucket for bucket, words in WORDS.items() for word in words}


def canonical(word: str | None) -> str:
    """Return the status that a receipt's word means; never ``failed`` without evidence.

    >>> canonical(" DELIVRD\\0"), canonical(None), canonical("BLACKLIST")
    ('delivered', 'pending', 'unrecognized')
    """
    word = word or ""
    bucket = _BUCKET_OF.get(word.strip().casefold())
    return bucket or _BUCKET_OF.get(bare(word).casefold(), "unrecognized")


_UNSEEN: Final = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})
_FILLERS: Final = frozenset("\u034f\u115f\u1160\u2800\u3164\uffa0\ufe0e\ufe0f")
"""Characters that Unicode counts as letters, marks or symbols, and that show nothing."""


def bare(text: str) -> str:
    """Strip invisible characters around a text: blanks, control and format characters."""
    seen = [
        place
        for place, one in enumerate(text)
        if category(one) not in _UNSEEN and one not in _FILLERS
    ]
    return text[seen[0] : seen[-1] + 1] if seen else ""


# What an answer asks of us


class Verdict(Enum):
    """What to do about an answer, from harmless to grave; of two, the graver one counts."""

    OK = "ok"
    UNKNOWN = "unknown"  # of no known kind: ask in halves where others are answered
    RETRY = "retry"  # passing: ask again after a pause, then in halves where others are answered
    SPLIT = "split"  # something in the batch: ask in halves
    THROTTLE = "throttle"  # too fast: slow down, ask again
    DENY = "deny"  # the key is refused, or just this request, if others are answered
    STOP = "stop"  # nothing will work until somebody fixes it


_GRAVITY: Final = {verdict: gravity for gravity, verdict in enumerate(Verdict)}

SUCCESSES: Final = frozenset(range(200, 300))
REDIRECTS: Final = frozenset(range(300, 400))
NOT_FOUND: Final = 404
FORBIDDEN: Final = 403

BY_STATUS: Final[dict[int, Verdict]] = {
    **dict.fromkeys(SUCCESSES, Verdict.OK),
    401: Verdict.STOP,
    FORBIDDEN: Verdict.DENY,  # with a Retry-After it is a limit
    # Also what only one maker of servers sends: 499, and those from 520 on.
    **dict.fromkeys((408, 421, 425, 499, *range(500, 600)), Verdict.RETRY),
    **dict.fromkeys((413, 414), Verdict.SPLIT),
    429: Verdict.THROTTLE,
}
"""By HTTP status; any other is ``UNKNOWN``."""

NO_ERROR: Final = 0
WRONG_CLOCK: Final = 215395

BY_CODE: Final[dict[int, Verdict]] = {
    NO_ERROR: Verdict.OK,
    # The service's own: parameters, then authentication, signature, token and clock.
    **dict.fromkeys((215392, 215396, 215397), Verdict.SPLIT),
    **dict.fromkeys((215393, 215394, WRONG_CLOCK, 215398, 215399), Verdict.DENY),
    215400: Verdict.RETRY,
    # The gateway's: time-outs and outages, throttling, credentials and addresses refused.
    **dict.fromkeys((110, 130, 150, 151, 200), Verdict.RETRY),
    153: Verdict.THROTTLE,
    **dict.fromkeys((*range(170, 175), *range(290, 300)), Verdict.DENY),
}
"""By return code, with any HTTP status; any other is ``UNKNOWN``."""


def classify(
    http_status: int | None, ret_code: int | None, *, has_retry_after: bool = False
) -> Verdict:
    """Return what to do about an answer.

    ``http_status`` is None when there was no answer at all, ``ret_code`` when the body had none
    that could be read. A success without a return code is no answer either: it is asked again.
    ``has_retry_after``: it says when to come back, as no service does that has refused a key.
    """
    if http_status is None:
        return Verdict.RETRY
    by_status = BY_STATUS.get(http_status, Verdict.UNKNOWN)
    if http_status == FORBIDDEN and has_retry_after:
        by_status = Verdict.THROTTLE
    if ret_code is None:
        return Verdict.RETRY if by_status is Verdict.OK else by_status
    by_code = BY_CODE.get(ret_code, Verdict.UNKNOWN)
    return max(by_status, by_code, key=_GRAVITY.__getitem__)


def label(http_status: int | None, ret_code: int | None) -> str:
    """Return the kind of an answer by its code: 'HTTP 503', 'RetCode 215392' or 'no answer'."""
    if ret_code not in (None, NO_ERROR):
        return f"{ENVELOPE['ret_code']} {ret_code}"
    return "no answer" if http_status is None else f"HTTP {http_status}"
