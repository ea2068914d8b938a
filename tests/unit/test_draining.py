"""Who drains on SIGTERM: the master, and no worker that it has just forked."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from hasher.hooks import draining

MASTER: Any = SimpleNamespace(WORKERS={})


@pytest.fixture
def handlers() -> Iterator[list[str]]:
    """Make this process a master that writes its stop down, for a test."""
    stopped: list[str] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGALRM)}
    signal.signal(signal.SIGTERM, lambda *_: stopped.append("stopped"))
    yield stopped
    signal.setitimer(signal.ITIMER_REAL, 0)
    draining.begun[0] = 0
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_first_sigterm_drains_and_the_second_stops(handlers: list[str]) -> None:
    draining.drain_before_stop(MASTER, 3600)
    signal.raise_signal(signal.SIGTERM)
    assert draining.has_begun()
    assert handlers == []
    signal.raise_signal(signal.SIGTERM)
    assert handlers == ["stopped"]


def test_the_drain_ends_in_the_stop(handlers: list[str]) -> None:
    draining.drain_before_stop(MASTER, 3600)
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGALRM)
    assert handlers == ["stopped"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_worker_just_forked_ends_by_it_and_drains_nobody(handlers: list[str]) -> None:
    draining.drain_before_stop(MASTER, 3600)
    child = os.fork()
    if child == 0:
        signal.raise_signal(signal.SIGTERM)
        os._exit(1)  # it has swallowed the signal
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not draining.has_begun()
    assert handlers == []


def test_without_a_drain_the_first_sigterm_stops(handlers: list[str]) -> None:
    draining.drain_before_stop(MASTER, 0)
    signal.raise_signal(signal.SIGTERM)
    assert handlers == ["stopped"]
    assert not draining.has_begun()


@pytest.mark.parametrize("seconds", [0, 3600])
def test_a_stop_is_told_to_every_worker_at_once(handlers: list[str], seconds: int) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    end = [sys.executable, "-c", ""]
    with subprocess.Popen(sleep) as worker, subprocess.Popen(end) as gone:
        gone.wait()
        master: Any = SimpleNamespace(WORKERS={worker.pid: None, gone.pid: None})
        draining.drain_before_stop(master, seconds)
        signal.raise_signal(signal.SIGTERM)
        if seconds:
            assert worker.poll() is None
            signal.raise_signal(signal.SIGALRM)
        assert worker.wait(10) == -signal.SIGTERM
    assert handlers == ["stopped"]
