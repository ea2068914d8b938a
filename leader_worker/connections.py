"""The connections of a worker: which are idle, and which can be read.

A connection is idle, or belongs to the thread that has removed it from `idle`. Only the leader
polls, accepts, closes connections that are idle for too long, and closes the listeners. Any thread
may end a connection that belongs to it, or make it idle. The leader's connection stays in the
poller, since no thread polls while the leader is busy; it leaves the poller when the lead is handed
over.
"""

import errno
import os
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Lock
from time import monotonic
from typing import Any

from leader_worker.lane import Environ
from leader_worker.poller import poller
from leader_worker.shares import Share
from leader_worker.sockets import LeadersSocket, TLSSocket
from leader_worker.unfinished import Unfinished, progress

DRIP = 1024  # bytes
CROWD = 2048  # connections accepted at most before a stop: gunicorn's backlog
GRACE = 1.0  # seconds for which a request that does not get on keeps its room
GROWTH = 4  # a round of accepting adds a quarter of the present connections
FAREWELL = 2.0  # seconds that an idle connection has left when its worker stops
LOOK = 1.0  # seconds between two looks for connections that are idle for too long
PAUSE = 0.05  # seconds until accepting is tried again after it has failed
ROUND = 0.05  # seconds between two polls at most
FIRST = 3  # new connections that are answered before one of the others
SPARE = 8 * 1024 * 1024  # bytes of requests that wait for a place if that room is full
YIELD = 0.002  # seconds that a worker with fewer connections has to take the next one
ROOM = 16 * 1024 * 1024  # bytes of requests and answers that are kept without a thread

OUT_OF_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Connection:
    """A client's connection. Only the thread that it belongs to may use its attributes."""

    __slots__ = (
        "client",
        "closes",
        "count",
        "deadline",
        "discards",
        "environ",
        "greeted",
        "held",
        "number",
        "owes",
        "polled",
        "postponed",
        "response",
        "rest",
        "server",
        "since",
        "sock",
        "unfinished",
        "unread",
    )

    def __init__(
        self, sock: LeadersSocket | TLSSocket, client: Any, server: Any, environ: Environ
    ) -> None:
        self.sock, self.client, self.server = sock, client, server
        self.number = sock.fileno()
        self.environ = environ
        """The part of the environ that all its requests have in common."""
        self.greeted = isinstance(sock, LeadersSocket)
        """Whether a TLS handshake is done, or not needed."""
        self.unread = b""
        """What was received after the previous request, and was not looked at."""
        self.unfinished: Unfinished | None = None
        """A request of which more has yet to come."""
        self.held = 0
        """How many bytes it has of the worker's room for unfinished requests."""
        self.response: Any = None
        """The answer to the current request."""
        self.count = 0
        """How many requests gunicorn's parser has read."""
        self.deadline = 0.0
        self.owes = self.closes = False
        """Whether an answer is owed; whether the last one ends the connection."""
        self.rest: list[memoryview] = []
        """What the client has not taken of the last answer."""
        self.since = 0.0
        """Since when it has not taken any of it."""
        self.polled = False
        self.discards = False
        """Whether its last answer is sent, and what it still sends is discarded."""
        self.postponed = 0.0
        """Since when it has waited for a place, or 0."""

    def get_on(self, size: int) -> None:
        """Note that the client has taken `size` bytes of its answer."""
        self.since = progress(self.since, size, self.held)

    def late_since(self) -> float | None:
        """Return since when its request, or its answer, has not got on; None if it has neither."""
        if self.rest:
            return self.since
        return self.unfinished.since if self.unfinished else None


class Connections:
    """The connections of a worker, at most `most` at a time, from `listeners`."""

    def __init__(self, listeners: Sequence[Any], most: int, share: Share, log: Any) -> None:
        self.listeners, self.most, self.log = list(listeners), most, log
        self._share = share
        self._yields = False
        self.all: set[Connection] = set()
        self.idle: OrderedDict[Connection, None] = OrderedDict()
        self.closed = False
        """Whether the listeners are closed, so that no connection is added any more."""
        self._current: Connection | None = None
        self._stopping = False
        self._last_moment = 0.0
        self._fresh: deque[Connection] = deque()
        self._ready: deque[Connection] = deque()
        self._again: deque[Connection] = deque()
        self._numbers: dict[int, Connection] = {}
        self._poller = poller()
        self._alarm, self._bell = os.pipe()
        self._listens = False
        self._crowd = 0
        self._held = 0
        self._held_lock = Lock()
        self.cuts: deque[str] = deque()
        """Why clients were cut since that was last logged."""
        self._next_look = self._next_accept = 0.0
        self._rest = PAUSE
        self._next_poll = 0.0
        self._in_a_row = 0

    def listen(
        self,
        welcome: Callable[[Any], Callable[[Any, Any], Connection]],
        expire: Callable[[Connection], None],
        look: Callable[[], None],
    ) -> None:
        """Begin. `welcome(listener)` returns what makes a Connection of an accepted socket.

        `expire` ends a connection whose client has had its time; the leader calls `look` once a
        second.
        """
        self._expire, self._look_further = expire, look
        self._connect = {listener: welcome(listener) for listener in self.listeners}
        for listener in self.listeners:
            listener.settimeout(0)
        for end in (self._alarm, self._bell):
            os.set_blocking(end, False)
        self._poller.add(self._alarm)
        self._share.note(0)

    # For any thread.

    def ring(self) -> None:
        """Wake the leader up if it waits."""
        with suppress(BlockingIOError):
            os.write(self._bell, b"!")

    def stop(self) -> None:
        """Have the leader close the listeners."""
        self._last_moment = monotonic() + FAREWELL
        self._stopping = True
        self.ring()

    def keep(self, conn: Connection, seconds: float) -> None:
        """Let this thread's connection be idle, for `seconds` at most."""
        now = monotonic()
        conn.deadline = now + seconds
        if self._stopping:
            conn.deadline = min(conn.deadline, self._farewell_of(conn))
            if conn.deadline <= now:  # however often a client sends a byte
                self._expire(conn)
                return
        if not conn.polled:
            conn.polled = True
            self._poller.add(conn.sock.fileno(), writes=bool(conn.rest))
        self.idle[conn] = None  # from here on, another thread may have it

    def again(self, conn: Connection) -> None:
        """Queue a connection of which more was received already, behind the others.

        Call `ring` afterwards unless this thread leads.
        """
        self._again.append(conn)

    def take_unfinished(self, conn: Connection) -> bytes:
        """Return what was received of an unfinished request, which leaves its room."""
        unfinished, conn.unfinished = conn.unfinished, None
        self.hold_bytes(conn, 0)
        return unfinished.joined() if unfinished else b""

    def hold_bytes(self, conn: Connection, size: int) -> None:
        """Let this thread's connection hold `size` bytes of the worker's room."""
        if size != conn.held:
            with self._held_lock:
                self._held += size - conn.held
                conn.held = size

    def fits(self, more: int) -> bool:
        """Return whether `more` bytes of what waits for a place can be kept."""
        return self._held + more <= ROOM + SPARE

    def make_room(self, more: int, grace: float = GRACE) -> bool:
        """Make room for `more` bytes; return False if all clients that hold some get on."""
        while self._held + more > ROOM:
            if not self._cut_slowest(grace):
                return False
        return True

    def has_waiting(self) -> bool:
        """Return whether a client waits for the leader, if no thread leads."""
        return bool(self._ready or self._again or self._fresh or self._poller.wait(0, 1))

    def end(self, conn: Connection) -> None:
        """Close this thread's connection."""
        self.unpoll(conn)
        self.hold_bytes(conn, 0)
        if self._numbers.get(conn.number) is conn:
            del self._numbers[conn.number]
        with suppress(OSError):
            conn.sock.close()
        self.all.discard(conn)
        if not self.closed:
            self._share.note(len(self.all))

    def unpoll(self, conn: Connection) -> None:
        """Take this thread's connection out of the poller."""
        if conn.polled:
            conn.polled = False
            with suppress(OSError, ValueError):  # raised if the application has closed it
                self._poller.remove(conn.sock.fileno())

    # For the leader only.

    def leave_poller(self) -> None:
        """Take the leader's own connection out of the poller, since another will poll."""
        if self._current is not None:
            self.unpoll(self._current)

    def next_ready(self) -> Connection:
        """Return the next connection that may be readable, as soon as there is one.

        New connections come first, three at a time. Whatever requests cost, the leader polls and
        accepts every ROUND seconds.
        """
        while True:
            if monotonic() >= self._next_poll:
                self._poll()
            if self._fresh and not (self._ready and self._in_a_row == FIRST):
                self._in_a_row += 1
                return self._lead_on(self._fresh)
            if self._ready and (self._crowd <= 0 or self._in_a_row == FIRST):
                self._in_a_row = 0
                return self._lead_on(self._ready)
            if self._crowd > 0:
                self._accept()
            else:
                self._poll()

    def _lead_on(self, queue: deque[Connection]) -> Connection:
        self._current = conn = queue.popleft()
        return conn

    def hold(self, conn: Connection, unfinished: Unfinished) -> bool:
        """Let a connection hold an unfinished request; return False if there is no room for it.

        Clients whose requests do not get on make room.
        """
        conn.unfinished = unfinished
        more = unfinished.size - conn.held
        # What only drips is not taken out of turn: so it is known for what it is, and makes room.
        drips = 0 < more < DRIP and conn.held and self.fits(more)
        if not (self.make_room(more) or drips):
            return False
        self.hold_bytes(conn, unfinished.size)
        return True

    def _cut_slowest(self, grace: float) -> bool:
        """Cut the client that holds the most room for the longest; return False if all get on."""
        now = monotonic()
        late = {
            conn: now - since
            for conn in list(self.idle)
            if (since := conn.late_since()) is not None and now - since > grace
        }
        slowest = max(late, key=lambda conn: late[conn] * conn.held, default=None)
        if slowest is None or not self._claim(slowest):
            return False
        self.cuts.append("others needed the room that it held")
        self._expire(slowest)
        return True

    def _poll(self) -> None:
        """Find connections that are ready, and claim them before making room for new ones."""
        if self._stopping and not self.closed:
            self._close_listeners()
            return
        if not self._listens and not self.closed and monotonic() >= self._next_accept:
            self._listen()
        busy = self._again or self._ready or self._fresh or self._crowd > 0
        seconds = 0.0 if busy else LOOK if self._listens or self.closed else self._rest
        called = False
        for number in self._poller.wait(seconds, len(self._numbers) + 8):
            if number in self._numbers:
                self._note_ready(self._numbers[number])
            elif number == self._alarm:
                os.read(self._alarm, 4096)
            else:
                called = True
        for _ in range(len(self._again)):
            self._ready.append(self._again.popleft())
        now = monotonic()
        self._next_poll = now + ROUND
        if now >= self._next_look:
            self._look(now)
        if called and self._listens:
            self._let_in()

    def _note_ready(self, conn: Connection) -> None:
        """Queue a connection that is idle and can be read, or written to."""
        if self._claim(conn):
            self._ready.append(conn)

    def _let_in(self) -> None:
        """Accept some connections in this round, unless it is another worker's turn.

        The more there are already, the more are added: otherwise a crowd would have to wait.
        """
        self._yields = not self._yields and self._share.is_large()
        if self._yields:
            self._pause(YIELD)
        else:
            self._crowd = max(1, len(self.all) // GROWTH)

    def _claim(self, conn: Connection) -> bool:
        """Take a connection that is idle; return False if it belongs to another thread."""
        try:
            del self.idle[conn]
        except KeyError:
            return False
        return True

    def _look(self, now: float) -> None:
        """Cut connections that were idle for too long; those that are ready are claimed by now."""
        self._next_look = now + LOOK
        for conn in list(self.idle):
            if conn.deadline <= now and self._claim(conn):
                self._expire(conn)
        self._look_further()

    def _farewell_of(self, conn: Connection) -> float:
        """Return until when a connection may stay while the worker stops."""
        since = conn.late_since()
        if since is None or (conn.unfinished and conn.unfinished.request is None):
            return self._last_moment
        return max(self._last_moment, since + FAREWELL)

    def _listen(self) -> None:
        for listener in self.listeners:
            self._poller.add(listener.fileno())
        self._listens = True

    def _pause(self, seconds: float) -> None:
        """Accept no connection for `seconds`."""
        self._crowd = 0
        if self._listens:
            self._listens = False
            self._rest = seconds
            self._next_accept = monotonic() + seconds
            for listener in self.listeners:
                self._poller.remove(listener.fileno())

    def _accept(self) -> None:
        """Take a new connection from each listener."""
        self._crowd -= 1
        taken = [listener for listener in self.listeners if self._accept_from(listener)]
        if not taken:
            self._crowd = 0

    def _accept_from(self, listener: Any) -> bool:
        """Take a new connection; return False if there is none, or no room."""
        if len(self.all) >= self.most and not (self._stopping or self._make_room()):
            self._pause(PAUSE)
            return False
        try:
            accepted, client = listener.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno in OUT_OF_ROOM:
                self.log.error("A connection could not be accepted: %s.", error.strerror)  # noqa: TRY400
                if not self._make_room():
                    self._pause(PAUSE)
                return False
            return True  # the client has gone, for example
        try:
            conn = self._connect[listener](accepted, native(client))
        except OSError:
            accepted.close()
            return True
        self.all.add(conn)
        self._share.note(len(self.all))
        self._numbers[conn.number] = conn
        self._fresh.append(conn)
        return True

    def _make_room(self) -> bool:
        """Close the connection idle for the longest; return False if none is idle."""
        try:
            conn, _ = self.idle.popitem(last=False)
        except KeyError:
            return False
        self.end(conn)
        return True

    def _close_listeners(self) -> None:
        """Accept the queued connections, which closing would reset, and close the listeners.

        Idle connections stay for a moment: a request that is on its way is answered.
        """
        self._crowd = CROWD
        while self._crowd > 0:
            self._accept()
        for listener in self.listeners:
            if self._listens:
                self._poller.remove(listener.fileno())
            listener.close()
        self._listens, self.listeners = False, []
        for conn in list(self.idle):
            conn.deadline = min(conn.deadline, self._farewell_of(conn))
        self.closed = True
        self._share.leave()


def native(client: Any) -> Any:
    """Return a client's address with what a Unix socket is bound to as WSGI has it (PEP 3333)."""
    return client if isinstance(client, tuple) else os.fsencode(client).decode("latin-1")
