"""The machine that measures: its cores, and what a reader of the figures must know of it."""

import os
import platform
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from tempfile import TemporaryFile
from typing import Any

PACKAGES = [
    *("aiohttp", "falcon", "fastapi", "flask", "gunicorn", "hiredis", "msgspec"),
    *("prometheus-client", "uvicorn", "uvloop"),
]
PROGRAMS = {"go": "version", "nginx": "-v", "redis-server": "--version", "wrk": "--version"}


def cores() -> tuple[int, int]:
    """The core for the server and the one for the load: the same if there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


def describe(folder: Path) -> dict[str, Any]:
    """What the figures depend on. `folder` is where stores keep their files."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "busy": round(busy(), 2),
        "disk_sync_ms": round(disk_sync(folder) * 1000, 2),
        "python": platform.python_version(),
        "versions": dict(installed()),
    }


def cpu_model() -> str:
    """The name that the CPU gives itself, or what kind it is."""
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def busy(seconds: float = 1.0) -> float:
    """The share of all cores that other programs take, for as long as this one waits."""
    before = cpu_times()
    time.sleep(seconds)
    spent = [now - then for now, then in zip(cpu_times(), before, strict=True)]
    return 1 - (spent[3] + spent[4]) / sum(spent)  # idle, and waiting for a disk


def cpu_times() -> list[int]:
    """What all cores have spent their time on so far (proc_stat(5))."""
    return [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]


def disk_sync(folder: Path, times: int = 50) -> float:
    """Seconds that it takes to write and sync a page: the price of durability here, a median."""
    taken = []
    with TemporaryFile(dir=folder) as file:
        for _ in range(times):
            begin = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - begin)
    return median(taken)


def installed() -> Iterator[tuple[str, str]]:
    """The versions of the packages and programs that are compared, of those that are installed."""
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            yield name, version(name)
    for name, option in PROGRAMS.items():
        with suppress(OSError):
            ended = subprocess.run([name, option], capture_output=True, text=True, check=False)
            if found := re.search(r"\d+\.\d+(\.\d+)?", ended.stdout + ended.stderr):
                yield name, found[0]
