"""The pipeline, loaded without what its libraries would load beside it and no command uses.

That is 0.6 s of CPU, of the two and a half that a run of 100 messages took.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from threading import get_ident


def load_pipeline() -> None:
    """Load it, with Arrow but not pandas, and httpx but not its command line (click, pygments).

    For a process of ours alone, before anything else loads Arrow or httpx. A notebook that imports
    the pipeline keeps the whole of both.
    """
    # A thread a core, each of which spins a while: nothing here multiplies matrices.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with _uncollected():
        # Nothing avoids it but this: every pa.array, pa.scalar and pc.equal(column, "x") asks
        # whether it was given a Series. Arrow imports pandas when it is first asked and keeps a
        # no; where pandas is wanted, as by to_pandas, it tries again.
        with _not_found("pandas"):
            import pyarrow as pa

            pa.scalar(None)
        # Ends as without httpx[cli]: the rich and pygments that it finds are there for typer.
        with _not_found("httpx._main"):
            import httpx  # noqa: F401
        import usms_pipeline.pipeline  # noqa: F401


@contextmanager
def _uncollected() -> Iterator[None]:
    """Look for no garbage while the block runs: modules are none, and to learn that takes 0.1 s."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _not_found(name: str) -> Iterator[None]:
    """Let this thread not find a module, unless it is loaded already, while the block runs."""
    finder = _Denying(name)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Denying:
    # Not None in sys.modules: Arrow's compiled import statement takes that for the module.

    def __init__(self, name: str) -> None:
        self._name, self._thread = name, get_ident()

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        if name == self._name and get_ident() == self._thread:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None
