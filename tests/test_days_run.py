"""x"""
from pathlib import Path
from typing import Any
from tests.account import Account


def test_it(tmp_path: Path, simulator: Any) -> None:
    a = Account(tmp_path, simulator, 300, dimensions="template")
    r = a.run()
    print(r.warnings, r.buckets, r.stats)
    a.run_to_the_end()
    r = a.run()
    print(r.warnings, r.buckets, r.stats)
    assert a.pipeline.conservation() == []
    rows = a.rows()
    a.pipeline.rebuild()
    assert rows == a.rows()
