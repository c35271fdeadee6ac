"""Arrow and httpx, loaded without what they would load and no command uses: 0.5 s of a small run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from threading import get_ident


def load_libraries() -> None:
    """Load Arrow without pandas, and httpx without its command line (click, pygments, rich).

    For a process of ours alone, before the pipeline is imported: a notebook that imports the
    pipeline keeps the whole of both.
    """
    # Nothing avoids it but this: every pa.array, pa.scalar and pc.equal(column, "x") asks whether
    # it was given a Series. Arrow imports pandas for the first that asks and keeps a no; where
    # pandas is wanted, as by to_pandas, it tries again.
    with _not_found("pandas"):
        import pyarrow as pa

        pa.scalar(None)
    with _not_found("httpx._main"):  # as without httpx[cli]: our rich and click would pass for it
        import httpx  # noqa: F401


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
