"""One run of an account's job in this process, for the command line: no daemon, no web page.

The run is recorded in the Dagster instance of DAGSTER_HOME like any other.
"""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import date
from typing import Final
from uuid import uuid4

import dagster as dg

from usms_pipeline.contract import wording
from usms_pipeline.defs.account import RANGE_END, RANGE_START

_QUIET: Final = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
_STEPS: Final = {
    "collect": "responses",
    "warehouse": "warehouse",
    "delivery_rates": "delivery_rates",
}
"""Dagster's steps, and the asset that each begins with."""
_COUNTS: Final = {
    "sessions_due": "sessions asked about",
    "dagster/partition_row_count": "rows",
    "dagster/row_count": "rows",
    "delivered": "delivered",
    "open": "awaited",
}


def run_refresh(first: date, last: date, say: Callable[[str, str], None]) -> list[str]:
    """Run the account's job over days, both included; return what went wrong, in sentences.

    Settings are read from the environment and from .env. ``say(asset, detail)`` is called as the
    work goes on.
    """
    from usms_pipeline.components import ReceiptPipeline

    with warnings.catch_warnings():
        # What Dagster calls its own parameters is not the reader's business.
        warnings.simplefilter("ignore", (dg.BetaWarning, dg.PreviewWarning))
        component = ReceiptPipeline()
        job = component.build_defs().resolve_job_def(component.account().job_name)
    tags = {RANGE_START: first.isoformat(), RANGE_END: last.isoformat()}
    run_id, troubles = str(uuid4()), list[str]()
    sums: dict[str, Counter[str]] = defaultdict(Counter)

    def listen(entry: dg.EventLogEntry) -> None:
        step, event = (entry.step_key or "").rpartition("__")[2], entry.dagster_event
        if event is None or event.is_step_start:
            if step in _STEPS:
                say(_STEPS[step], entry.user_message.partition("\n")[0] if event is None else "")
        elif event.is_step_materialization and event.asset_key is not None:
            counted = sums[event.asset_key.path[-1]]
            told = event.step_materialization_data.materialization.metadata
            counted.update({name: told[name].value for name in _COUNTS if name in told})
            parts = (f"{wording.count(n)} {_COUNTS[name]}" for name, n in counted.items())
            say(event.asset_key.path[-1], ", ".join(parts))
        elif event.is_step_failure:
            troubles.append(_reason(event) or f"The step {step} failed.")

    with dg.DagsterInstance.get() as instance:
        instance.add_event_listener(run_id, listen)
        result = job.execute_in_process(
            run_config=_QUIET, tags=tags, run_id=run_id, instance=instance, raise_on_error=False
        )
    return troubles or ([] if result.success else [f"The job `{job.name}` failed."])


def _reason(event: dg.DagsterEvent) -> str | None:
    """Return the core's message, else the first line of the error."""
    failure = event.step_failure_data
    if failure.user_failure_data is not None:
        return failure.user_failure_data.description
    error = failure.error_display_string.strip().splitlines()
    return error[0] if error else None
