"""Why messages are not delivered, in a few families: what each means, and what to do about it.

The one table of codes. A carrier's code alone says little, so its words count first.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple


class Family(NamedTuple):
    """Reasons of one kind, found by their words and codes (lower case, trimmed)."""

    name: str
    pattern: str
    meaning: str
    whose: str
    remedy: str


FAMILIES: Final = (
    Family(
        "Number not in use",
        r"not in service|not exist|invalid number|unknown (subscriber|number)|unallocated|mistyped"
        r"|空号|号码(不存在|错误|无效)|mk:0012|mk:0001|mi:0013",
        "The number is mistyped, no longer in use, or never existed.",
        "Yours to fix",
        "Check numbers when they are entered; stop sending to those that fail again.",
    ),
    Family(
        "Blocked",
        r"block|black ?list|blackno|refused by|unsubscri|opt.?out|spam|complain"
        r"|黑名单|拒收|退订|拦截|mb:1042",
        "The recipient, the platform or the carrier blocks your messages.",
        "Yours to fix",
        "Stop sending to these recipients; if many are new, ask the provider which list they are "
        "on.",
    ),
    Family(
        "Content or signature",
        r"signature|template|content|keyword|sensitive|sign.?err|tpl.?err|模板|签名|内容|敏感|关键字",
        "The text was refused before it was sent.",
        "Yours to fix",
        "Register the signature and template, and send exactly what was approved.",
    ),
    Family(
        "Carrier or network",
        r"network|operator|gateway|congest|route|rout(ing|e)|system|time.?out|neterr|throttl|busy"
        r"|网络|网关|运营商|系统|超时|拥塞",
        "The route to the phone is down or overloaded.",
        "For the carrier and the provider to fix",
        "Send again later or over another route; open a ticket that names the hours and the "
        "carrier.",
    ),
    Family(
        "Phone off or out of reach",
        r"not reachable|absent|phone off|switched off|power.?off|out of (reach|coverage)|memory"
        r"|关机|停机|不在服务区|undeliv|mi:0024|db:0119|validity|有效期|expired|过期",
        "The phone was off, full or out of coverage for as long as the carrier tried.",
        "Nobody can fix it",
        "Offer another channel, such as a call; do not send again and again.",
    ),
)

OTHER: Final = Family(
    "Other or no reason given",
    "",
    "The carrier gave no reason, or one that is not in the table of codes.",
    "The provider knows",
    "Ask the provider what the code means.",
)


def family(code: str | None, description: str | None) -> int:
    """Return the place in ``FAMILIES`` of a reason; its length where none fits.

    >>> FAMILIES[family("EXPIRED", "超过有效期")].name
    'Phone off or out of reach'
    >>> family("X1", None) == len(FAMILIES)
    True
    """
    for text in (description, code):
        said = (text or "").strip().casefold()
        for place, one in enumerate(FAMILIES):
            if said and re.search(one.pattern, said):
                return place
    return len(FAMILIES)
