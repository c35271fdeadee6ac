"""When a session is asked about again. Pure: no I/O, the clock is an argument.

A session is due when one of its polling times lies after it was last asked and not after now. The
last is the cutoff: a look then closes it, unless its answer can't be read; that is due every day.
The service's own advice is to look after 5 to 10 minutes; comparable services close after 72 h.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

EARLY_OFFSETS: Final = tuple(timedelta(minutes=m) for m in (5, 10, 20, 40, 60, 120, 240))
LATE_EVERY: Final = timedelta(hours=6)
IN_VAIN_EVERY: Final = timedelta(days=1)
"""How often to ask past the cutoff, while no answer can be read."""
SHORTEST_STEP: Final = timedelta(minutes=1)
CLOCKS_DIFFER: Final = timedelta(minutes=5)
"""How much two clocks may differ; beyond that, one is wrong."""


def offsets(
    cutoff: timedelta,
    early: Sequence[timedelta] = EARLY_OFFSETS,
    late_every: timedelta = LATE_EVERY,
) -> list[timedelta]:
    """Return the polling times as offsets from ``sent_at``, ascending; the last is the cutoff.

    ``late_every`` shorter than a minute counts as one.

    >>> [int(o.total_seconds() // 60) for o in offsets(timedelta(hours=12))]
    [5, 10, 20, 40, 60, 120, 240, 600, 720]
    """
    times = [offset for offset in sorted(set(early)) if offset < cutoff]
    step = max(late_every, SHORTEST_STEP)
    late = (times[-1] if times else timedelta()) + step
    while late < cutoff:
        times.append(late)
        late += step
    return [*times, cutoff]
