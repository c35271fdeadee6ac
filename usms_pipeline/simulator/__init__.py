"""A USMS service to rehearse with: real HTTP, receipts over time, faults on demand.

Part of the public interface. Nothing else in the package imports it but the command line.
"""

from usms_pipeline.simulator.fate import Outage
from usms_pipeline.simulator.faults import Faults
from usms_pipeline.simulator.population import Population
from usms_pipeline.simulator.server import serve
from usms_pipeline.simulator.simulator import (
    ACCESS_KEY_ID,
    ACCESS_KEY_SECRET,
    PATH,
    Counters,
    Simulator,
)

__all__ = [
    "ACCESS_KEY_ID", "ACCESS_KEY_SECRET", "PATH", "Counters", "Faults", "Outage", "Population",
    "Simulator", "serve",
]  # fmt: skip
