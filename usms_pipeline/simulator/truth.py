"""What a perfect connector would know: the simulator's own figures, for tests to compare with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import pyarrow as pa

from usms_pipeline.simulator.fate import NEVER, OUTCOMES, SILENT
from usms_pipeline.simulator.numbering import origin
from usms_pipeline.simulator.roster import TIME, Roster, times

SCHEMA: Final = pa.schema(
    [
        ("session_no", pa.string()),
        ("phone", pa.string()),  # E.164, or the customer's text where it is no number
        ("country", pa.string()),
        ("operator", pa.string()),
        ("sent_at", TIME),
        ("status", pa.string()),  # what the service lets know by then; no cutoff is applied
        ("received_at", TIME),  # null unless status is final
        ("provider_status", pa.string()),  # null while pending or invalid, as the rest
        ("provider_code", pa.string()),
        ("provider_desc", pa.string()),
        ("revealed_at", TIME),  # when the service comes to say it; null if never
        ("final_status", pa.string()),  # what status becomes in the end
    ]
)


def truth(roster: Roster, at_us: int, is_poison: Callable[[str], bool]) -> pa.Table:
    """Return a row a recipient (``SCHEMA``), in the order of the roster, as known at ``at_us``."""
    poisoned = {session_no for session_no in roster.recipients_of if is_poison(session_no)}
    is_refused = np.array([number in poisoned for number in roster.session_no], bool)
    outcome = np.array(roster.outcome, dtype=np.int64)
    revealed = np.array(roster.revealed_us, dtype=np.int64)
    is_known = (revealed <= at_us) & ~is_refused
    received = np.where(is_known, np.array(roster.received_us, dtype=np.int64), NEVER)
    origins = [origin(phone) for phone in roster.phone]
    columns = [
        pa.array(roster.session_no, pa.string()),
        pa.array(roster.phone, pa.string()),
        pa.array([o.country for o in origins], pa.string()),
        pa.array([o.operator for o in origins], pa.string()),
        times(roster.sent_us),
        _statuses(np.where(is_known, outcome, SILENT), is_refused),
        times(received),
        *(
            pa.array(np.array([getattr(o, name) for o in OUTCOMES])[outcome], mask=~is_known)
            for name in ("word", "code", "description")
        ),
        times(np.where(is_refused, NEVER, revealed)),
        _statuses(outcome, is_refused),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _statuses(outcome: np.ndarray, is_refused: np.ndarray) -> pa.Array:
    names = np.array([*(o.status for o in OUTCOMES), "pending"])  # SILENT is the last of them
    return pa.array(np.where(is_refused, "invalid", names[outcome]), pa.string())
