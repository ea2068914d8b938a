"""HASHER_CPU_AFFINITY, as the kernel sees it."""

import os
import re
import signal
from pathlib import Path

import pytest

from tests.support.servers import until
from tests.support.service import PROCFILE, Service, is_running

CORES = sorted(os.sched_getaffinity(0))
BOTH = sorted([CORES[0], CORES[1 % len(CORES)]])


def core_of(pid: int) -> int:
    """The only core that every thread of a process may use."""
    allowed = {
        match[1]
        for status in Path(f"/proc/{pid}/task").glob("*/status")
        if (match := re.search(r"^Cpus_allowed_list:\s*(\S+)$", status.read_text(), re.MULTILINE))
    }
    assert len(allowed) == 1
    return int(allowed.pop())


def pinned(service: Service) -> list[int]:
    """The workers that have been pinned and still run."""
    told = re.findall(r"Worker (\d+) stays on core \d+", service.log)
    return [int(pid) for pid in told if is_running(int(pid))]


def two_workers(tmp_path: Path, affinity: str) -> Service:
    url = f"sqlite:///{tmp_path}/messages.db"
    env = {"HASHER_STORE": url, "WEB_CONCURRENCY": "2", "HASHER_CPU_AFFINITY": affinity}
    return Service(tmp_path / "log", command=PROCFILE, limits=None, **env)


def test_each_worker_stays_on_a_core_and_its_replacement_takes_it(tmp_path: Path) -> None:
    with two_workers(tmp_path, "1") as service:
        until(lambda: len(pinned(service)) == 2)
        service.assert_well()
        lost, kept = pinned(service)
        assert sorted([core_of(lost), core_of(kept)]) == BOTH
        freed = core_of(lost)
        os.kill(lost, signal.SIGKILL)
        until(lambda: kept in pinned(service) and len(set(pinned(service)) - {lost, kept}) == 1)
        (new,) = set(pinned(service)) - {kept}
        assert core_of(new) == freed
        service.assert_well()


def test_a_reload_spreads_the_new_workers(tmp_path: Path) -> None:
    with two_workers(tmp_path, "1") as service:
        until(lambda: len(pinned(service)) == 2)
        old = set(pinned(service))
        service.signal(signal.SIGHUP)
        until(lambda: len(pinned(service)) == 2 and not old & set(pinned(service)))
        assert sorted(map(core_of, pinned(service))) == BOTH


@pytest.mark.parametrize("unset", ["", "0"])
def test_workers_use_every_core_by_default(tmp_path: Path, unset: str) -> None:
    with two_workers(tmp_path, unset) as service:
        until(lambda: len(service.workers()) == 2)
        assert [os.sched_getaffinity(pid) for pid in service.workers()] == [set(CORES)] * 2


def test_the_one_worker_of_memory_is_pinned_again_after_a_reload(tmp_path: Path) -> None:
    with Service(tmp_path / "log", HASHER_CPU_AFFINITY="1") as service:
        (old,) = pinned(service)
        assert core_of(old) == CORES[0]
        service.signal(signal.SIGHUP)
        until(lambda: pinned(service) not in ([], [old]))
        assert [core_of(pid) for pid in pinned(service)] == [CORES[0]]
        service.assert_well(within=10)
