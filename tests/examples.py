"""Many examples of one thing: the first few in ``make test``, all of them in ``make test-all``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest


def examples(quick: int, names: Any, cases: Sequence[Any], **more: Any) -> pytest.MarkDecorator:
    """Parametrize as pytest does; cases after the first ``quick`` ones are ``long``."""
    is_one = isinstance(names, str) and "," not in names
    later = [
        pytest.param(*([case] if is_one else case), marks=pytest.mark.long)
        for case in cases[quick:]
    ]
    return pytest.mark.parametrize(names, [*cases[:quick], *later], **more)
