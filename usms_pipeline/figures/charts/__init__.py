"""The pictures: small Arrow tables of figures in, Altair charts out, and their PNG and SVG.

Pure: no database, no files, no network. Every chart has a headline that says what is seen, one
look, and one width.
"""

from __future__ import annotations

import os
from pathlib import Path

from usms_pipeline.figures.charts.curve import delivery_curve
from usms_pipeline.figures.charts.groups import failures_by_reason, group_name, rate_by, reason
from usms_pipeline.figures.charts.over_time import rate_over_time
from usms_pipeline.figures.charts.style import (
    PALETTE,
    Chart,
    caption,
    hover,
    png,
    zooming,
)
from usms_pipeline.figures.charts.tables import table

__all__ = [
    "PALETTE",
    "Chart",
    "caption",
    "delivery_curve",
    "failures_by_reason",
    "group_name",
    "hover",
    "png",
    "rate_by",
    "rate_over_time",
    "reason",
    "table",
    "zooming",
]

try:
    Path.home()
except RuntimeError:  # any uid in a container; Altair asks when it is imported, Docker sets this
    os.environ["HOME"] = "/"
