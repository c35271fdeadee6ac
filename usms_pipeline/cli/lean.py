"""Loads the pipeline without what its libraries would load beside it and no command uses.

That saves 0.6 s of CPU, of the two and a half that a run of 100 messages took.
"""

from __future__ import annotations

import gc
import os
import sys
from importlib.machinery import ModuleSpec
from typing import Final

_UNUSED: Final = ("pandas", "httpx._main")


def load_pipeline() -> None:
    """Load it, with Arrow but not pandas, and httpx but not its command line (click, pygments).

    For a process of ours alone, before anything else loads Arrow or httpx. A notebook that imports
    the pipeline keeps the whole of both.
    """
    # A thread a core, each of which spins a while: nothing here multiplies matrices.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    finder = _NotFound()
    sys.meta_path.insert(0, finder)
    gc.disable()  # modules are no garbage: to look for some among them takes 0.1 s
    try:
        import pyarrow as pa

        # Arrow looks for pandas when it is first given a value, and remembers if there is none;
        # where pandas is wanted, as by to_pandas, it tries again.
        pa.scalar(None)
        # Ends as without httpx[cli]: the rich and pygments that it finds are there for typer.
        import httpx  # noqa: F401
    finally:
        sys.meta_path.remove(finder)
    import usms_pipeline.pipeline  # noqa: F401

    gc.enable()


class _NotFound:
    """Hides modules that are not loaded yet. Arrow would take a None in sys.modules for one."""

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        if name in _UNUSED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None
