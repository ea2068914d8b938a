"""A circuit breaker: requests do not wait for a store that does not answer."""

from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

GRACE = 0.1  # seconds that calls wait for a trial: a store that is well again answers sooner


class CircuitBreaker:
    """After a call has timed out, one thread at a time tries, and the calls of others fail.

    If every request waited for the time-out, requests in the queue would wait for many time-outs.
    The breaker closes as soon as a call does not time out. `timeouts` are the exceptions that count
    as a time-out.
    """

    def __init__(self, *timeouts: type[Exception]) -> None:
        self._timeouts: tuple[type[Exception], ...] = TimeoutError, *timeouts
        self._fault: str | None = None  # what the last time-out said, while the breaker is open
        self._trial = Lock()
        self._began = 0.0

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `function` returns. TimeoutError if it times out, or is not called."""
        is_trial = self._fault is not None and self._begin_trial(self._fault)
        try:
            return self._watch(function, *args, **kwargs)
        finally:
            if is_trial:
                self._trial.release()

    def _begin_trial(self, fault: str) -> bool:
        """Return whether to try for all. False if another thread has just done so, and well.

        TimeoutError if another thread still tries, GRACE after it began.
        """
        if not self._trial.locked():
            self._began = monotonic()
        if not self._trial.acquire(timeout=max(0.0, self._began + GRACE - monotonic())):
            raise TimeoutError(f"just now: {fault}")
        needed = self._fault is not None
        if not needed:
            self._trial.release()
        return needed

    def _watch(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            returned = function(*args, **kwargs)
        except BaseException as error:
            self._fault = str(error) if isinstance(error, self._timeouts) else None
            raise
        self._fault = None
        return returned
