"""Which core a worker is given, and what is said where none can be."""

import logging
import os
from types import SimpleNamespace
from typing import Any

import pytest

from hasher.hooks import affinity


def chosen(cores: set[int], taken: list[int], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: cores)
    running = {pid: SimpleNamespace(core=core) for pid, core in enumerate(taken)}
    server: Any = SimpleNamespace(WORKERS=running)
    worker = SimpleNamespace()
    affinity.choose(server, worker)
    core: int = worker.core
    return core


@pytest.mark.parametrize(
    ("cores", "taken", "core"),
    [
        ({0, 1}, [], 0),
        ({0, 1}, [0], 1),
        ({0, 1}, [1], 0),
        ({0, 1}, [0, 1], 0),
        ({2, 5, 7}, [2, 7], 5),
        ({3}, [3, 3], 3),
        ({0, 1}, [0, 1, 0], 1),  # during a reload the old workers still count
    ],
)
def test_a_worker_gets_the_core_with_the_fewest(
    cores: set[int], taken: list[int], core: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chosen(cores, taken, monkeypatch) == core


def test_a_platform_without_it_is_told_once_a_worker(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    server: Any = SimpleNamespace(WORKERS={})
    worker = SimpleNamespace(pid=7)
    with caplog.at_level(logging.INFO, "gunicorn.error"):
        affinity.choose(server, worker)
        affinity.pin(worker)
    assert caplog.messages == [
        "HASHER_CPU_AFFINITY=1 does nothing: this platform cannot pin a process."
    ]
