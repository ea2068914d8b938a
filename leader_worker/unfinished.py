"""Requests of which more has yet to come."""

from time import monotonic

from leader_worker.lane import Request

PART = 64  # bytes that Python needs for a part of a request, beside the part itself
PROGRESS = 16 * 1024  # bytes that make up for all the time before, of a client that holds few


class Unfinished:
    """What was received of a request of which more has yet to come.

    If its head is whole, `request` is what the lane has read, and `missing` bytes of its body are
    missing. `since` is the time from which on it has not got on: what comes moves it forward.
    """

    __slots__ = ("missing", "parts", "request", "since", "size")

    def __init__(self, data: bytes, request: Request | None, since: float | None) -> None:
        self.parts = [data]
        self.size = len(data) + PART
        self.request = request
        self.missing = request.end - len(data) if request else 0
        self.since = monotonic() if since is None else since

    def add(self, data: bytes) -> None:
        """Note that `data` has come.

        An eighth of what it holds, or PROGRESS, makes up for all the time before; less does for
        less of it. So a client that sends slowly and steadily is told from one that only drips.
        """
        size = len(data)
        self.since = progress(self.since, size, self.size)
        self.parts.append(data)
        self.size += size + PART
        self.missing -= size

    def joined(self) -> bytes:
        """Return what was received."""
        return b"".join(self.parts)


def progress(since: float, size: int, held: int) -> float:
    """Return from when on a client that holds `held` bytes has not got on, now that `size` came."""
    return since + (monotonic() - since) * min(1.0, size / max(PROGRESS, held / 8))
