"""Group commit: many threads, one transaction, and nobody who waits in vain."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hasher.stores import Outcome, outage, sqlite
from hasher.stores.messages import digest_of as digest
from hasher.stores.sqlite import SQLiteDriver


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteDriver]:
    """A store on a file of this test's own."""
    with closing(SQLiteDriver(str(tmp_path / "messages.db"))) as opened:
        opened.prepare()
        yield opened


class LaggingLock:
    """A lock after which its thread is overtaken by all others."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()
        time.sleep(0.0005)


@pytest.mark.parametrize("lock", [threading.Lock, LaggingLock])
@pytest.mark.parametrize("patience", [0.0005, 0.003, 0.01, 1.5])
def test_threads_that_give_up_leave_the_others_their_turns(
    store: SQLiteDriver, monkeypatch: pytest.MonkeyPatch, patience: float, lock: Callable[[], Any]
) -> None:
    monkeypatch.setattr(sqlite, "PATIENCE", patience)
    monkeypatch.setattr(store, "_lock", lock())
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    outcomes: list[str] = []

    def work(thread: int) -> None:
        for call in range(150):
            message = b"%d" % ((call * 7 + thread * 3) % 900)
            try:
                outcomes.append(store.put(digest(message), message).value)
            except Exception as error:  # noqa: BLE001 - it is counted
                outcomes.append(type(error).__name__)

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(16)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    finally:
        sys.setswitchinterval(interval)
    assert not any(thread.is_alive() for thread in threads)
    counts = Counter(outcomes)
    assert counts.total() == 16 * 150
    assert set(counts) <= {"new", "repeated", "TimeoutError"}
    assert counts["new"] <= store.count()
    assert counts["new"] or patience < 1


def test_one_message_that_cannot_be_stored_fails_alone(
    store: SQLiteDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "PAUSE", 0)
    with monkeypatch.context() as broken:
        broken.setattr(sqlite, "ADD", "INSERT INTO missing VALUES (?, ?)")
        with pytest.raises(store.errors):
            store.put(digest(b"a"), b"a")
    assert store.put(digest(b"a"), b"a") is Outcome.NEW
