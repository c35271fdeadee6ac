"""``python -m benchmarks.at 2026-01-06T02:00:00+00:00``: a run as `usms run`, at that time."""

from __future__ import annotations

import json
import sys
from datetime import datetime

from usms_pipeline.cli import lean


def main() -> None:
    """Run at the time given; print how many sessions were asked about, and how many are open."""
    lean.load_pipeline()
    from usms_pipeline import settings
    from usms_pipeline.pipeline import Pipeline

    now = datetime.fromisoformat(sys.argv[1])
    pipeline = Pipeline(settings.load(["source", "api"]), clock=lambda: now)
    report = pipeline.run(pipeline.everything())
    print(json.dumps({"asked": report.stats.ids_asked, "open": report.open}))


if __name__ == "__main__":
    main()
