"""What to do about an answer: one pure table of HTTP statuses and return codes.

No I/O and no state: whoever retries, slows down or splits lives elsewhere.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class Verdict(Enum):
    """What an answer asks of us, from harmless to grave; of two, the graver one counts."""

    OK = "ok"
    SKIP = "skip"  # of no known kind: give this batch up, name it, go on
    RETRY = "retry"  # passing: ask again after a pause
    SPLIT = "split"  # something in the batch: ask in halves
    THROTTLE = "throttle"  # too fast: slow down, ask again
    STOP = "stop"  # nothing will work until somebody mends it


_GRAVITY: Final = {verdict: gravity for gravity, verdict in enumerate(Verdict)}

_BY_STATUS: Final[dict[int, Verdict]] = {
    **dict.fromkeys(range(200, 300), Verdict.OK),
    **dict.fromkeys((401, 403), Verdict.STOP),
    **dict.fromkeys((408, 425, 500, 502, 503, 504), Verdict.RETRY),
    **dict.fromkeys((413, 414), Verdict.SPLIT),
    429: Verdict.THROTTLE,
}

_BY_CODE: Final[dict[int, Verdict]] = {
    0: Verdict.OK,
    # The service's own: parameters, then authentication, signature, token and clock.
    **dict.fromkeys((215392, 215396, 215397), Verdict.SPLIT),
    **dict.fromkeys((215393, 215394, 215395, 215398, 215399), Verdict.STOP),
    215400: Verdict.RETRY,
    # The gateway's: time-outs and outages, throttling, credentials and addresses refused.
    **dict.fromkeys((110, 130, 150, 151, 200), Verdict.RETRY),
    153: Verdict.THROTTLE,
    **dict.fromkeys((*range(170, 175), *range(290, 300)), Verdict.STOP),
}


def classify(http_status: int | None, ret_code: int | None) -> Verdict:
    """Say what to do about an answer.

    ``http_status`` is None when there was no answer at all, ``ret_code`` when the body had none
    that could be read. A success without a return code is no answer either: it is asked again.
    """
    if http_status is None:
        return Verdict.RETRY
    by_status = _BY_STATUS.get(http_status, Verdict.SKIP)
    if ret_code is None:
        return Verdict.RETRY if by_status is Verdict.OK else by_status
    by_code = _BY_CODE.get(ret_code, Verdict.SKIP)
    return max(by_status, by_code, key=_GRAVITY.__getitem__)
