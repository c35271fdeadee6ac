"""``python -S launch.py costs.json megabytes command …``: run a program, and write what it took.

A process begins with its parent's peak of memory on its account, so the parent has to be small:
hence a program of its own, that imports next to nothing. ``megabytes``: of memory that the kernel
lets the program have (a control group; needs root), 0 for no limit.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_GROUPS = {
    "memory.max": Path("/sys/fs/cgroup"),
    "memory.limit_in_bytes": Path("/sys/fs/cgroup/memory"),
}
"""How the second and the first version of control groups call it, and where they are."""


def main(costs: str, megabytes: str, *command: str) -> int:
    """Run the command and write its seconds, CPU seconds and peak; gives its exit code."""
    started = time.monotonic()
    with _limited(int(megabytes)) as join:
        pid = os.fork()
        if not pid:
            join()
            os.execvp(command[0], command)
        _, status, used = os.wait4(pid, 0)
    seconds = time.monotonic() - started
    took = seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
    Path(costs).write_text(json.dumps(took))
    return os.waitstatus_to_exitcode(status)


@contextmanager
def _limited(megabytes: int) -> Iterator[Callable[[], object]]:
    """Make a control group with a limit, and give what a process does to be in it."""
    if not megabytes:
        yield lambda: None
        return
    name, root = next((n, r) for n, r in _GROUPS.items() if next(r.glob(f"*/{n}"), None))
    group = root / f"usms-bench-{os.getpid()}"
    group.mkdir()
    try:
        (group / name).write_text(str(megabytes << 20))
        yield lambda: (group / "cgroup.procs").write_text(str(os.getpid()))
    finally:
        group.rmdir()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
