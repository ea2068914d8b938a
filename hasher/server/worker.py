"""gunicorn's threaded worker with another way to its threads, on which no client delays another.

Written against gunicorn 27. What answers a request is gunicorn's (`ThreadWorker.handle`); how
connections come to threads is not: one of the threads leads (hasher/server/lead.py), which takes
connections and requests alike. gunicorn's main loop only looks after the threads.
"""

import errno
import gc
import logging
import os
import select
import socket
import ssl
import struct
from collections import OrderedDict, deque
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from selectors import EVENT_READ
from threading import BoundedSemaphore, Thread
from time import monotonic, sleep
from typing import Any

from gunicorn.http.message import Request
from gunicorn.http.wsgi import create
from gunicorn.workers.gthread import TConn, ThreadWorker

from hasher.server.lead import Lead, LeadersSocket
from hasher.server.refusals import error_response, refusal
from hasher.server.response import WholeResponse
from hasher.telemetry.record import BEFORE_WAIT, request_id

LARGE = 64 * 1024  # bytes of a body that take as long as many requests
STALL = 5  # seconds for which a client may neither send nor take a byte before it is cut
GARBAGE = 50_000  # objects that are made before cycles among them are looked for
LINGER = 1.0  # seconds that a client has to stop sending what was refused
FAREWELL = 2.0  # seconds that an idle connection has left when its worker stops
PAUSE = 0.05  # seconds until that is tried again for which there was no room


class Connection(TConn):
    """gunicorn's connection, until when it may be idle, and whether it is in the poller."""

    sock: Any
    timeout: float
    parser: Any
    polled = False

    def has_more(self) -> bool:
        """Whether some of the next request was read already, of which the poller knows nothing."""
        if self.parser.unreader.buf.getbuffer().nbytes:
            return True
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0


class Worker(ThreadWorker):
    """A threaded worker on which a client that stalls, or does not hang up, delays nobody.

    A connection is idle, or in the hands of one thread: of whoever has removed it from `idle`.
    The leader's own stays in the poller meanwhile: nobody polls while the leader is busy.
    """

    def init_process(self) -> None:
        """Cut stalled clients: gthread's own time-outs end with a connection's first byte."""
        self.lead = Lead(before_hand_over=self.leave_poller)
        self.connections: set[Connection] = set()
        self.idle: OrderedDict[Connection, None] = OrderedDict()
        self.ready: deque[Connection] = deque()
        self.lingerers = BoundedSemaphore(max(1, self.cfg.threads // 4))
        self.is_tls = self.cfg.is_ssl
        for listener in self.sockets:
            cut_stalled_clients(listener)
        logging.getLogger("gunicorn.error").addFilter(stalls_in_one_line)
        super().init_process()

    def load_wsgi(self) -> None:
        """Load the application, which gunicorn then leaves no time to collect garbage."""
        super().load_wsgi()
        # What is loaded by now stays; and requests leave no cycles to be looked for often.
        gc.freeze()
        gc.set_threshold(GARBAGE)

    def run(self) -> None:
        """Let the threads answer, and look after them, until the worker is to stop."""
        for listener in self.sockets:
            listener.settimeout(0)
            self.poller.register(listener, EVENT_READ, self.accept)
        callbacks: Any = self.method_queue
        self.poller.register(callbacks, EVENT_READ, callbacks.run_callbacks)
        for number in range(self.cfg.threads):
            Thread(target=self.serve, name=f"requests-{number}", daemon=True).start()
        while self.alive and self.is_parent_alive():
            self.look_after(1.0)
        self.stop()

    def look_after(self, seconds: float) -> None:
        """Tell the master that this worker lives, and cut who is idle, then wait for a signal."""
        self.notify()
        now = monotonic()
        for conn in list(self.idle):
            if conn.timeout <= now and self.claim(conn):
                self.end(conn)
        if select.select([self.PIPE[0]], [], [], seconds)[0]:
            os.read(self.PIPE[0], 4096)

    def stop(self) -> None:
        """Take no connection any more, and give the requests in hand their time to end.

        Idle connections stay for a moment: a request that is on its way is answered.
        """
        for listener in self.sockets:
            self.poller.unregister(listener)
            listener.close()
        ends = monotonic() + FAREWELL
        for conn in list(self.idle):
            conn.timeout = min(conn.timeout, ends)
        deadline = monotonic() + self.cfg.graceful_timeout
        while self.connections and monotonic() < deadline:
            self.look_after(0.05)

    def serve(self) -> None:
        """What each of the threads does: answer the next request, again and again."""
        while True:
            self.lead.take()
            try:
                self.answer_next()
            except Exception:
                self.log.exception("A connection ended in an error.")
                sleep(PAUSE)

    def answer_next(self) -> None:
        """Answer a request, on a connection that ends where that fails."""
        self.current = conn = self.next_ready()
        try:
            self.answer(conn)
        except BaseException:
            self.end(conn)
            raise

    def next_ready(self) -> Connection:
        """The next connection on which a client has sent something. Only the leader asks.

        All of them are claimed before others are accepted, which may close who is idle.
        """
        while not self.ready:
            keys = [key for key, _ in self.poller.select()]
            found = [key.data for key in keys if isinstance(key.data, Connection)]
            self.ready += filter(self.claim, found)
            for key in keys:
                if not isinstance(key.data, Connection):
                    key.data(key.fileobj)
        return self.ready.popleft()

    def leave_poller(self) -> None:
        """Take the leader's own connection out of the poller, since another will poll."""
        self.unpoll(self.current)

    def answer(self, conn: Connection) -> None:
        """Answer one request, and wait for the next one, or end the connection.

        A next one that came together with it has its turn after those of others.
        """
        if self.is_tls:
            self.lead.hand_over()  # a TLS socket waits for its client by itself
        reuse = self.handle(conn)
        if reuse and conn.has_more():
            self.method_queue.defer(self.ready.append, conn)
        elif reuse:
            self.await_request(conn, self.cfg.keepalive if self.alive else FAREWELL)
        else:
            self.hang_up(conn)

    def handle_request(self, req: Request, conn: TConn) -> bool:
        """Have the application answer; whether the connection can be used again.

        As gunicorn's, without `max_requests` and the hooks around a request, which are not used.
        """
        response: WholeResponse
        parts = (req, conn.sock, conn.client, conn.server, self.cfg)
        response, environ = create(*parts, response_class=WholeResponse)  # type: ignore[assignment]
        environ["wsgi.multithread"] = True
        environ[BEFORE_WAIT] = self.lead.hand_over
        if not (self.alive and self.cfg.keepalive):
            response.force_close()
        if takes_long(environ):
            self.lead.hand_over()
        started = datetime.now(UTC)
        try:
            response.send(self.wsgi(environ, response.start_response))
        finally:
            self.log.access(response, req, environ, datetime.now(UTC) - started)
        return not response.should_close()

    def _keepalive_after(self, _conn: TConn, keepalive: bool) -> bool:  # noqa: FBT001 - gunicorn's
        """Whether the connection stays: what is left of a body need not be discarded for that.

        The application reads a body whole, or has the connection closed (hasher.media.sealed).
        """
        return keepalive

    def accept(self, listener: Any) -> None:
        """Take a new connection, where there is one and room for it."""
        if len(self.connections) >= self.worker_connections and not self.make_room():
            sleep(PAUSE)
            return
        try:
            accepted, address = listener.accept()
            client = LeadersSocket(accepted, self.lead)
            conn = Connection(self.cfg, client, address, listener.getsockname())
            conn.data_ready = True  # before a thread has it; gunicorn would wait in a thread
            self.await_request(conn, STALL)
            self.connections.add(conn)
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.ECONNABORTED, errno.EBADF}:
                self.log.error("A connection could not be accepted: %s.", error.strerror)  # noqa: TRY400
                if not self.make_room():
                    sleep(PAUSE)

    def make_room(self) -> bool:
        """Close the connection idle for the longest; False where none is idle."""
        try:
            conn, _ = self.idle.popitem(last=False)
        except KeyError:
            return False
        self.end(conn)
        return True

    def await_request(self, conn: Connection, seconds: float) -> None:
        """Let `conn` be idle for so long."""
        conn.timeout = monotonic() + seconds
        if not conn.polled:
            conn.polled = True
            self.poller.register(conn.sock, EVENT_READ, conn)
        self.idle[conn] = None  # from here on, another thread may have it

    def claim(self, conn: Connection) -> bool:
        """Have a connection that is idle; False where another thread has it."""
        try:
            del self.idle[conn]
        except KeyError:
            return False
        return True

    def unpoll(self, conn: Connection) -> None:
        """Take a connection that this thread has out of the poller."""
        if conn.polled:
            conn.polled = False
            self.poller.unregister(conn.sock)

    def hang_up(self, conn: Connection) -> None:
        """End a connection after its last answer.

        gunicorn waits up to 2 s for the client to do so, in its main loop: six clients that do not
        would keep everybody else waiting for 12 s.
        """
        if was_left_unread(conn):
            self.linger(conn.sock)
        with suppress(OSError):
            conn.sock.shutdown(socket.SHUT_RDWR)
        self.end(conn)

    def end(self, conn: Connection) -> None:
        """Close a connection that this thread has."""
        self.unpoll(conn)
        self.connections.discard(conn)
        conn.close()

    def handle_error(
        self,
        req: Request | None,  # noqa: ARG002 - gunicorn passes it
        client: socket.socket,
        addr: Any,
        exc: BaseException,
    ) -> None:
        """Refuse what is not HTTP as the application would: JSON, and no echo of what was sent."""
        status, reason, sentence = refusal(exc)
        name, peer = request_id(), addr[0] if addr else "?"
        if status == 500:
            self.log.error("Request %s could not be handled.", name, exc_info=exc)
        else:
            self.log.warning("Refused request %s from %s: %s", name, peer, exc)
        with suppress(OSError):
            client.sendall(error_response(status, reason, sentence, name))
            self.linger(client)

    def linger(self, client: socket.socket) -> None:
        """Discard what `client` still sends; in a few threads at once, so that others answer."""
        self.lead.hand_over()
        if self.lingerers.acquire(blocking=False):
            try:
                discard(client)
            finally:
                self.lingerers.release()


class TLSSocket(ssl.SSLSocket):
    """A TLS connection whose stalled client is cut: it would ask the kernel again and again."""

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 - a socket's own
        """As a socket's, with a time-out where it blocks."""
        self.settimeout(STALL if flag else 0)

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - a socket's own
        """As a socket's, with a time-out."""
        self.settimeout(STALL)
        super().do_handshake(block)


def tls(_config: Any, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """The context of gunicorn (its hook `ssl_context`), for such sockets."""
    context = default()
    context.sslsocket_class = TLSSocket
    return context


def cut_stalled_clients(listener: socket.socket) -> None:
    """Give the connections that `listener` accepts time-outs of the kernel's.

    Accepted sockets inherit SO_RCVTIMEO and SO_SNDTIMEO on Linux (socket(7)).
    """
    timeval = struct.pack("ll", STALL, 0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)


def stalls_in_one_line(record: logging.LogRecord) -> bool:
    """A log filter: that a client stalled is a line, where gunicorn logs a traceback."""
    if record.exc_info and isinstance(record.exc_info[1], (BlockingIOError, TimeoutError)):
        record.msg, record.args = "Cut a client that stalled for %d s.", (STALL,)
        record.exc_info = None
    return True


def takes_long(environ: MutableMapping[str, Any]) -> bool:
    """Whether the body of the request may be large."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    return length > LARGE or "HTTP_TRANSFER_ENCODING" in environ


def was_left_unread(conn: TConn) -> bool:
    """Whether the application closed the connection rather than read the whole body."""
    request = getattr(conn.parser, "mesg", None)  # no parser yet where the first byte never came
    return request is not None and request.must_close


def discard(client: socket.socket) -> None:
    """Read what `client` still sends, for LINGER seconds (RFC 9112, section 9.6).

    Closing over unread bytes makes the kernel send a reset, which can overtake the answer.
    """
    deadline = monotonic() + LINGER
    with suppress(OSError):
        client.shutdown(socket.SHUT_WR)
        while (left := deadline - monotonic()) > 0:
            client.settimeout(left)
            if not client.recv(65536):
                return
