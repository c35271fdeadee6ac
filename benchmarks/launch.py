"""``python -S launch.py costs.json megabytes command …``: run a program, and write what it took.

A process begins with its parent's peak of memory on its account, so the parent has to be small:
hence a program of its own, that imports next to nothing. ``megabytes``: what the program may hold
of its own (``RLIMIT_DATA``), 0 for no limit.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path


def main(costs: str, megabytes: str, *command: str) -> int:
    """Run the command and write its seconds, CPU seconds and peak; gives its exit code."""
    started = time.monotonic()
    pid = os.fork()
    if not pid:
        if limit := int(megabytes) << 20:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        os.execvp(command[0], command)
    _, status, used = os.wait4(pid, 0)
    seconds = time.monotonic() - started
    took = seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
    Path(costs).write_text(json.dumps(took))
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
