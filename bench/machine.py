"""The machine that measures: its cores, and what a reader of the figures must know of it."""

import os
import platform
import re
import shutil
import subprocess
import time
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

PACKAGES = [
    *("aiohttp", "falcon", "fastapi", "flask", "gunicorn", "hiredis", "msgspec"),
    *("prometheus-client", "uvicorn", "uvloop"),
]
PROGRAMS = {
    "go": ["go", "version"],
    "nginx": ["nginx", "-v"],
    "redis-server": ["redis-server", "--version"],
    "wrk": ["wrk", "--version"],
}


def cores() -> tuple[int, int]:
    """The core for the server and the one for the load: the same where there is only one."""
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
        "packages": dict(installed()),
        "programs": {name: told(command) for name, command in PROGRAMS.items()},
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
    return 1 - (spent[IDLE] + spent[IOWAIT]) / sum(spent)


IDLE, IOWAIT = 3, 4


def cpu_times() -> list[int]:
    """What all cores have spent their time on so far (proc_stat(5))."""
    return [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]


def disk_sync(folder: Path, times: int = 50) -> float:
    """Seconds that it takes to write and sync a page: the price of durability here, a median."""
    file = folder / "sync"
    taken = []
    with file.open("wb") as opened:
        for _ in range(times):
            started = time.perf_counter()
            opened.write(bytes(4096))
            opened.flush()
            os.fdatasync(opened.fileno())
            taken.append(time.perf_counter() - started)
    file.unlink()
    return median(taken)


def installed() -> list[tuple[str, str]]:
    """The versions of the packages that are compared, of those that are installed."""
    found = []
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found.append((name, version(name)))
    return found


def told(command: list[str]) -> str:
    """The version that a program tells of itself; an empty text where it is missing."""
    if not shutil.which(command[0]):
        return ""
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+(\.\d+)?", ended.stdout + ended.stderr)
    return found[0] if found else ""
