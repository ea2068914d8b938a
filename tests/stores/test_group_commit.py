"""Group commit: many threads, one commit, and nobody who waits in vain."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from hasher.stores import group_commit
from hasher.stores.group_commit import GroupCommit


@pytest.fixture
def impatient_threads() -> Iterator[None]:
    """Threads that are switched as often as the interpreter can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


class LaggingLock:
    """A lock after which its thread is overtaken by all others."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.acquire, self.release = self.lock.acquire, self.lock.release

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()
        time.sleep(0.0005)


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run `work` in so many threads at once, to the end of each."""
    threads = [
        threading.Thread(target=work, args=(number,), daemon=True) for number in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.usefixtures("impatient_threads")
@pytest.mark.parametrize("lock", [threading.Lock, LaggingLock])
@pytest.mark.parametrize("patience", [0.0005, 0.003, 0.01, 10])
def test_threads_that_give_up_leave_the_others_their_turns(
    monkeypatch: pytest.MonkeyPatch, patience: float, lock: Callable[[], Any]
) -> None:
    committed: Counter[int] = Counter()
    outcomes: list[int | None] = []

    def commit(items: Sequence[int], _deadline: float) -> list[int]:
        time.sleep(0.0003)  # as long as a disk takes
        committed.update(items)
        return [-item for item in items]

    group = GroupCommit(commit, patience)
    monkeypatch.setattr(group, "_lock", lock())

    def work(thread: int) -> None:
        for call in range(150):
            item = thread * 150 + call
            try:
                outcomes.append(item + group.write(item))
            except TimeoutError:
                outcomes.append(None)

    in_threads(16, work)
    counts = Counter(outcomes)
    assert counts.total() == 16 * 150
    assert set(counts) <= {0, None}  # each has its own result
    assert counts[0] <= len(committed)
    assert set(committed.values()) == {1}
    assert patience < 1 or counts[0] == 16 * 150


def test_threads_share_commits() -> None:
    groups: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    def commit(items: Sequence[int], _deadline: float) -> Sequence[int]:
        groups.append(len(items))
        begun.set()
        assert go_on.wait(30)
        return items

    group = GroupCommit(commit, 30)
    first = threading.Thread(target=group.write, args=(0,))
    first.start()
    assert begun.wait(30)
    others = [threading.Thread(target=group.write, args=(number,)) for number in range(1, 8)]
    for thread in others:
        thread.start()
    waiting: list[Any] = vars(group)["_waiting"]
    deadline = time.monotonic() + 30
    while len(waiting) < 7 and time.monotonic() < deadline:
        time.sleep(0.001)
    go_on.set()
    for thread in (first, *others):
        thread.join(30)
    assert groups == [1, 7]


def test_what_a_commit_raises_each_of_its_threads_raises_and_the_next_one_works() -> None:
    broken = True

    def commit(items: Sequence[int], _deadline: float) -> Sequence[int]:
        if broken:
            raise OSError("broken")
        return items

    group = GroupCommit(commit, 30)
    failed: list[str] = []

    def work(number: int) -> None:
        try:
            group.write(number)
        except OSError as error:
            failed.append(str(error))

    in_threads(8, work)
    assert failed == ["broken"] * 8
    broken = False
    assert group.write(1) == 1


def test_a_commit_that_hangs_holds_up_one_thread_and_no_other() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def commit(items: Sequence[int], _deadline: float) -> Sequence[int]:
        begun.set()
        assert go_on.wait(30)
        return items

    group = GroupCommit(commit, 0.05)
    hung = threading.Thread(target=group.write, args=(0,))
    hung.start()
    assert begun.wait(30)
    for number in range(3):
        with pytest.raises(TimeoutError, match="did not come in time"):
            group.write(number)
    go_on.set()
    hung.join(30)
    assert group.write(5) == 5


def test_the_oldest_item_sets_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "monotonic", lambda: 100.0)
    deadlines: list[float] = []

    def commit(items: Sequence[int], deadline: float) -> Sequence[int]:
        deadlines.append(deadline)
        return items

    GroupCommit(commit, 3).write(1)
    assert deadlines == [103.0]
