"""How many CPUs this process may use: the default number of workers."""

import os
from contextlib import suppress
from pathlib import Path


def available_cpus(groups: Path = Path("/sys/fs/cgroup"), own: str | None = None) -> int:
    """Return how many CPUs this process may use.

    The least counts: its affinity, or the limit (cgroup v2, cpu.max) of a container or of a unit,
    or of what that is in; a part of a CPU counts as one. `own` is the group, or None: this
    process's.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    usable = [len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1]
    with suppress(OSError, ValueError):
        own = Path("/proc/self/cgroup").read_text().rpartition("0::")[2] if own is None else own
        path = groups / own.strip().lstrip("/")
        for folder in (path, *path.parents):
            with suppress(OSError, ValueError):  # "max" is no number: there is no limit
                quota, period = map(int, (folder / "cpu.max").read_text().split())
                usable.append(-(-quota // period))
    return max(1, min(usable))
