"""A circuit breaker: requests do not wait for a server that does not answer."""

from collections.abc import Callable
from threading import Lock
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class CircuitBreaker:
    """Fails calls at once after one has timed out; one thread at a time still tries.

    If every request waited for the time-out, requests in the queue would wait for many time-outs.
    The breaker closes as soon as the thread that tries does not time out.
    """

    def __init__(self) -> None:
        self._open = False
        self._trial = Lock()

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `function` returns. TimeoutError if it times out, or is not called."""
        if not self._open:
            return self._watch(function, *args, **kwargs)
        if not self._trial.acquire(blocking=False):
            raise TimeoutError("it did not answer in time just now")
        try:
            return self._watch(function, *args, **kwargs)
        finally:
            self._trial.release()

    def _watch(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            returned = function(*args, **kwargs)
        except BaseException as error:
            self._open = isinstance(error, TimeoutError)
            raise
        self._open = False
        return returned
