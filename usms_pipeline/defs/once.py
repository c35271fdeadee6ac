"""One run of an account's job in this process, for the command line: no daemon, no web page.

The run is recorded in the Dagster instance of DAGSTER_HOME like any other.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import date
from typing import Any, Final
from uuid import uuid4

import dagster as dg

from usms_pipeline.defs.account import RANGE_END, RANGE_START

OnStep = Callable[[str, str, dict[str, Any]], None]
"""Called with a step's name and 'begun', 'said', 'done' or 'failed', or with an asset's name and
'counted'; and what was said (``message``), counted (metadata) or failed of (``error``)."""

_QUIET: Final = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def run_refresh(first: date, last: date, on_step: OnStep | None = None) -> bool:
    """Run the account's job over days, both included; return whether it succeeded.

    Settings are read from the environment and from .env. Errors of the core are told by the
    failed step: ``on_step(step, 'failed', {'error': sentence})``.
    """
    from usms_pipeline.components import ReceiptPipeline

    with warnings.catch_warnings():
        # What Dagster calls its own parameters is not the reader's business.
        warnings.simplefilter("ignore", (dg.BetaWarning, dg.PreviewWarning))
        component = ReceiptPipeline()
        job = component.build_defs().resolve_job_def(component.account().job_name)
    tags = {RANGE_START: first.isoformat(), RANGE_END: last.isoformat()}
    run_id = str(uuid4())
    with dg.DagsterInstance.get() as instance:
        if on_step is not None:
            instance.add_event_listener(run_id, lambda entry: _tell(on_step, entry))
        result = job.execute_in_process(
            run_config=_QUIET, tags=tags, run_id=run_id, instance=instance, raise_on_error=False
        )
    return bool(result.success)


def _tell(on_step: OnStep, entry: dg.EventLogEntry) -> None:
    step, event = (entry.step_key or "").rpartition("__")[2], entry.dagster_event
    if event is None:
        on_step(step, "said", {"message": entry.user_message})
    elif event.is_step_start:
        on_step(step, "begun", {})
    elif event.is_step_materialization and event.asset_key is not None:
        on_step(event.asset_key.path[-1], "counted", _figures(event))
    elif event.is_step_success:
        on_step(step, "done", {})
    elif event.is_step_failure:
        on_step(step, "failed", {"error": _reason(event)})


def _reason(event: dg.DagsterEvent) -> str | None:
    """Return the core's message, else the first line of the error."""
    failure = event.step_failure_data
    if failure.user_failure_data is not None:
        return failure.user_failure_data.description
    error = failure.error_display_string.strip().splitlines()
    return error[0] if error else None


def _figures(event: dg.DagsterEvent) -> dict[str, Any]:
    metadata = event.step_materialization_data.materialization.metadata
    return {name: value.value for name, value in metadata.items()}
