"""Pollers, which tell which of many file descriptors can be read, or written to."""

import select
import selectors


class Epoll:
    """The poller for Linux. One thread at a time waits; any thread may add and remove meanwhile."""

    def __init__(self) -> None:
        self._epoll = select.epoll()

    def add(self, number: int, *, writes: bool = False) -> None:
        """Tell of this file descriptor when it can be read, or written to."""
        self._epoll.register(number, select.EPOLLOUT if writes else select.EPOLLIN)

    def remove(self, number: int) -> None:
        """Tell of it no more."""
        self._epoll.unregister(number)

    def wait(self, seconds: float, most: int) -> list[int]:
        """Return at most `most` that are ready, as soon as there are any."""
        return [number for number, _ in self._epoll.poll(seconds, most)]


class Selector:
    """The poller for other platforms, with the mechanism that Python chooses."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def add(self, number: int, *, writes: bool = False) -> None:
        """Tell of this file descriptor when it can be read, or written to."""
        self._selector.register(number, selectors.EVENT_WRITE if writes else selectors.EVENT_READ)

    def remove(self, number: int) -> None:
        """Tell of it no more."""
        self._selector.unregister(number)

    def wait(self, seconds: float, most: int) -> list[int]:
        """Return at most `most` that are ready, as soon as there are any."""
        return [key.fd for key, _ in self._selector.select(seconds)[:most]]


def poller() -> Epoll | Selector:
    """Return the fastest poller that this platform has."""
    return Epoll() if hasattr(select, "epoll") else Selector()
