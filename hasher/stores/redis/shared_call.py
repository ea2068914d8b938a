"""A slow call that many threads need at once, such as asking a name server."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from time import monotonic
from typing import Generic, TypeVar

T = TypeVar("T")

LATE = 1.0  # seconds after which a call that has not returned is made once more


class SharedCall(Generic[T]):
    """A call that runs in a thread of its own; all threads that wait for it share its outcome.

    So no thread waits longer than it wants to, and a call that hangs is not made by each of them.
    `late` says what has not happened in time.
    """

    def __init__(self, call: Callable[[], T], late: str) -> None:
        self._call, self._late = call, late
        self._lock = threading.Lock()
        self._outcome: Future[T] = Future()
        self._outcome.cancel()
        self._began = 0.0

    def begin(self) -> tuple["Future[T]", float]:
        """Start the call, unless it is running; return its outcome and when it began."""
        with self._lock:
            if self._outcome.done() or monotonic() > self._began + LATE:
                self._outcome, self._began = Future(), monotonic()
                threading.Thread(target=self._run, args=(self._outcome,), daemon=True).start()
            return self._outcome, self._began

    def result(self, seconds: float) -> T:
        """Return what the call returns, or raise what it raises.

        TimeoutError if it takes more than `seconds`, counted from its beginning: a thread that
        comes later waits less.
        """
        outcome, began = self.begin()
        wait([outcome], max(0, began + seconds - monotonic()))
        if not outcome.done():
            raise TimeoutError(self._late)
        return outcome.result()

    def _run(self, outcome: "Future[T]") -> None:
        try:
            outcome.set_result(self._call())
        except Exception as error:  # noqa: BLE001 - it is raised where the call is waited for
            outcome.set_exception(error)
