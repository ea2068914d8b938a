"""Many threads, one commit: what they write at the same time shares the wait for a disk."""

from collections.abc import Callable, Sequence
from threading import Lock
from time import monotonic
from typing import Generic, TypeVar, cast

T = TypeVar("T")
R = TypeVar("R")


class Write(Generic[T, R]):
    """A call of `write` that waits for its result, or for its turn to commit for all."""

    def __init__(self, item: T, deadline: float) -> None:
        self.item, self.deadline = item, deadline
        self.result: R | None = None
        self.error: BaseException | None = None
        self.leads = False
        self.wake = Lock()
        self.wake.acquire()


class GroupCommit(Generic[T, R]):
    """Commits what several threads write in one step.

    `commit(items, deadline)` returns a result for each item, in their order; each of their threads
    raises its exception. It is called once at a time, in a thread that waits anyway. It should end
    by `deadline`, a time of `monotonic`: `patience` seconds after the oldest item came.
    """

    def __init__(
        self, commit: Callable[[Sequence[T], float], Sequence[R]], patience: float
    ) -> None:
        self._commit, self._patience = commit, patience
        self._lock = Lock()
        self._waiting: list[Write[T, R]] = []
        self._committing = False

    def write(self, item: T) -> R:
        """Write `item` together with those of other threads; return its result.

        TimeoutError after `patience` seconds, unless this thread is the one that commits: only that
        one is held up by a commit that hangs.
        """
        write: Write[T, R] = Write(item, monotonic() + self._patience)
        with self._lock:
            self._waiting.append(write)
            first, self._committing = not self._committing, True
            write.leads = first  # from here on, another thread may set it
        if not first and not write.wake.acquire(timeout=self._patience):
            self._give_up(write)
        if write.leads:
            self._commit_all()
        if write.error:
            raise write.error
        return cast("R", write.result)

    def _give_up(self, write: Write[T, R]) -> None:
        """Wait no longer, unless the turn of `write` has come just now."""
        with self._lock:
            if not write.leads:
                if write in self._waiting:
                    self._waiting.remove(write)
                raise TimeoutError("the turn to write did not come in time")
        write.wake.acquire()

    def _commit_all(self) -> None:
        """Commit the items of all waiting threads, then let the next thread do the same."""
        with self._lock:
            writes, self._waiting = self._waiting, []
        self._settle(writes)
        with self._lock:
            self._committing = bool(self._waiting)
            for write in self._waiting[:1]:
                write.leads = True
                writes.append(write)
        for write in writes:
            write.wake.release()

    def _settle(self, writes: Sequence[Write[T, R]]) -> None:
        """Give each of `writes` its result, or the exception that was raised instead."""
        try:
            results = self._commit([write.item for write in writes], writes[0].deadline)
        except BaseException as error:  # noqa: BLE001 - it is the outcome of each of them
            for write in writes:
                write.error = error
        else:
            for write, result in zip(writes, results, strict=True):
                write.result = result
