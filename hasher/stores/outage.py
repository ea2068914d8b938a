"""While a store cannot be reached, requests fail at once instead of waiting for it."""

import time

PAUSE = 0.2  # seconds for which calls fail at once after one has timed out


class Outage:
    """An outage is known for a moment after a call has timed out.

    If every request waited for the time-out, requests in the queue would wait for many time-outs.
    """

    def __init__(self) -> None:
        self._until = 0.0
        self._reason = ""

    def begin(self, reason: str = "it did not answer in time just now") -> None:
        """Let calls fail with `reason` for PAUSE seconds from now."""
        self._reason = reason
        self._until = time.monotonic() + PAUSE

    def require_over(self) -> None:
        """Raise TimeoutError while it lasts."""
        if time.monotonic() < self._until:
            raise TimeoutError(self._reason)
