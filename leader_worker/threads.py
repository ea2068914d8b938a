"""The threads of a worker: each leads, reads what a client has sent, answers, and starts over."""

import io
import select
import socket
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic, sleep
from typing import Any

from gunicorn.http.errors import ConfigurationProblem, InvalidHeader, NoMoreData, ParseException
from gunicorn.http.wsgi import create

from leader_worker.connections import PAUSE, Connection, Connections
from leader_worker.lane import (
    Environ,
    Lane,
    Request,
    base_environ,
    can_wait,
    client_environ,
    fields_of,
)
from leader_worker.lead import Lead
from leader_worker.received import Received
from leader_worker.received import Request as WholeRequest
from leader_worker.refusals import Busy, Cut, Late, refusal_of, whole_response
from leader_worker.response import Response
from leader_worker.sockets import STALL, Gone, LeadersSocket, Stalled, TLSSocket
from leader_worker.unfinished import Unfinished

BEFORE_WAIT = "leader_worker.before_wait"  # in the environ
FEWEST = 2  # threads, so that one is left to lead
PATIENCE = 0.5  # seconds that requests wait if clients hold all threads
LINGER = 1.0  # seconds for which bytes that come after the last answer are discarded
POSTPONED = 1024  # connections that may wait for a place
TOO_LONG = 10.0  # seconds after which one that waits for a place is refused
UNTAKEN = 0.25  # seconds for which an answer that is not taken keeps its room if others need it
MOMENT = 0.02  # seconds that an answer waits for room
RECEIVE = 64 * 1024
REST = 64 * 1024  # bytes of a body that are read for an application that did not
LEFT = getattr(select, "POLLRDHUP", 0) | select.POLLHUP


class Threads:
    """The threads of `worker`, and what they share."""

    def __init__(self, worker: Any, connections: Connections, lead: Lead) -> None:
        self.worker, self.connections, self.lead = worker, connections, lead
        self.application, self.cfg, self.log = worker.wsgi, worker.cfg, worker.log
        self.keepalive: float = worker.cfg.keepalive
        self.lane = Lane(worker.cfg)
        self.tls = worker.tls
        self.count = max(FEWEST, worker.cfg.threads)
        self.most_slow = self.count - 1
        self.slow: set[object] = set()
        """A place for each thread that answers what the lane does not take."""
        self.postponed: deque[Connection] = deque()
        """Connections that wait for a place."""
        self.cuts = connections.cuts
        connections.listen(self.welcome, self.expire, self.look)

    def welcome(self, listener: Any) -> Callable[[socket.socket, Any], Connection]:
        """Return a function that makes a Connection of a socket that `listener` has accepted."""
        server = listener.getsockname()
        kind = (listener.family, listener.type, listener.proto)
        base = {**base_environ(self.cfg, listener), BEFORE_WAIT: self.lead.hand_over}

        def connect(accepted: socket.socket, client: Any) -> Connection:
            sock: LeadersSocket | TLSSocket = LeadersSocket(*kind, fileno=accepted.detach())
            sock.settimeout(0)
            if self.tls:
                sock = self.secured(sock)
            sock.hand_over = self.lead.hand_over
            return Connection(sock, client, server, client_environ(base, sock, client))

        return connect

    def secured(self, sock: socket.socket) -> TLSSocket:
        """Return a connection over TLS, whose handshake has yet to begin."""
        ragged: bool = self.cfg.suppress_ragged_eofs
        return self.tls.wrap_socket(  # type: ignore[no-any-return]
            sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=ragged
        )

    def serve(self) -> None:
        """Answer the next request, again and again."""
        while True:
            self.lead.take()
            try:
                conn = self.connections.next_ready()
            except Exception:
                self.log.exception("The next connection could not be taken.")
                sleep(PAUSE)
                continue
            try:
                self.go_on(conn)
            except BaseException as error:  # noqa: BLE001 - a thread that ends would keep the lead
                self.fail(conn, error)

    def go_on(self, conn: Connection) -> None:
        """Take the next step on a connection: its handshake, receiving, or an answer."""
        if conn.rest:
            self.send_rest(conn)
        elif conn.discards:
            self.discard(conn)
        elif conn.postponed:
            self.leave_to_gunicorn(conn, conn.unread)
        elif conn.unread:
            data, conn.unread = conn.unread, b""
            self.connections.hold_bytes(conn, 0)
            self.read(conn, data)
        elif conn.greeted:
            self.receive(conn)
        else:
            self.greet(conn)

    def greet(self, conn: Connection) -> None:
        """Go on with a TLS handshake, which takes as long as many requests."""
        conn.owes = True
        self.lead.hand_over()
        conn.greeted = conn.sock.greet()
        if conn.greeted:
            self.take_turns(conn)
        else:
            self.connections.keep(conn, STALL)

    def receive(self, conn: Connection) -> None:
        """Receive what the client has sent, and go on with it."""
        data = conn.sock.take(RECEIVE)
        if data is None:
            self.connections.keep(conn, STALL)
        elif not data:
            self.end_of_input(conn)
        elif conn.unfinished is None:
            self.read(conn, data)
        else:
            self.receive_more(conn, conn.unfinished, data)

    def receive_more(self, conn: Connection, unfinished: Unfinished, data: bytes) -> None:
        """Add `data` to an unfinished request, and answer it if it is whole."""
        unfinished.add(data)
        request = unfinished.request
        if request is None:
            self.read(conn, self.connections.take_unfinished(conn), unfinished.since)
        elif unfinished.missing > 0:
            self.wait_for_more(conn, unfinished)
        else:
            self.answer(conn, request, self.connections.take_unfinished(conn))

    def end_of_input(self, conn: Connection) -> None:
        """End a connection whose client sends no more. Cut if a body is not whole."""
        if conn.unfinished and conn.unfinished.request:
            raise Cut
        if conn.unfinished:
            self.leave_to_gunicorn(conn, b"")
        else:
            self.connections.end(conn)

    def read(self, conn: Connection, data: bytes, since: float | None = None) -> None:
        """Answer the request that starts `data`, or wait for the rest of it.

        `since` is the time from which on it has not got on, if some of it came before.
        """
        conn.owes = True
        end = data.find(b"\r\n\r\n")
        if self.lane.closed or (end < 0 and not can_wait(data)):
            self.leave_to_gunicorn(conn, data)
        elif end < 0:
            self.wait_for_more(conn, Unfinished(data, None, since))
        else:
            request = self.lane.read(data, end, conn.environ)
            if request is None:
                self.leave_to_gunicorn(conn, data)
            elif request.end > len(data):
                self.wait_for_more(conn, Unfinished(data, request, since))
            else:
                self.answer(conn, request, data)

    def wait_for_more(self, conn: Connection, unfinished: Unfinished) -> None:
        """Wait for the rest of a request, without a thread if there is room for it."""
        if not self.connections.hold(conn, unfinished):
            self.leave_to_gunicorn(conn, b"")
        elif conn.sock.pending():
            self.take_turns(conn)  # since no poller tells of what is left of a TLS record
        else:
            self.connections.keep(conn, STALL)

    def answer(self, conn: Connection, request: Request, data: bytes) -> None:
        """Answer a request that the lane has read, which starts `data`."""
        environ = request.take_environ()
        environ["wsgi.input"] = io.BytesIO(data[request.start : request.end])
        conn.unread = data[request.end :]
        conn.response = response = Response(request, conn.sock)
        environ["wsgi.early_hints"] = response.early_hints
        self.respond(response, environ)
        self.after(conn)

    def leave_to_gunicorn(self, conn: Connection, data: bytes) -> None:
        """Answer the request that starts `data`, or is unfinished, without the lead.

        It may take long, whatever it looks like: so it needs a place, and one thread has none. If
        all places are taken, it waits for one.
        """
        if len(self.slow) >= self.most_slow:
            self.postpone(conn, data)
            return
        conn.postponed, conn.unread = 0.0, b""
        data = data or self.connections.take_unfinished(conn)
        self.connections.hold_bytes(conn, 0)
        place = object()
        self.slow.add(place)
        self.lead.hand_over()
        try:
            self.answer_by_gunicorn(conn, data)
        except Exception as error:  # noqa: BLE001 - the place is given up after the refusal
            self.fail(conn, error)
        finally:
            self.slow.discard(place)
            self.resume()

    def postpone(self, conn: Connection, data: bytes) -> None:
        """Let a connection wait for a place, unread. Busy if too many wait, or for too long."""
        since = conn.postponed or monotonic()
        size = conn.unfinished.size if conn.unfinished else len(data)
        full = len(self.postponed) >= POSTPONED or not self.connections.fits(size - conn.held)
        conn.postponed = 0.0
        if full or monotonic() - since > TOO_LONG:
            raise Busy
        self.connections.unpoll(conn)
        self.connections.hold_bytes(conn, size)
        conn.unread, conn.postponed = data, since
        self.postponed.append(conn)
        if len(self.slow) < self.most_slow:
            self.resume()  # a thread may have looked for it just before

    def resume(self) -> None:
        """Queue the connection that was postponed first."""
        with suppress(IndexError):
            self.take_turns(self.postponed.popleft())

    def look(self) -> None:
        """Refuse connections that have waited for a place for too long, or whose clients left.

        One that waits since there was no room needs no place when there is some.
        """
        late, poll = monotonic() - TOO_LONG, select.poll()
        waiting = {conn.number: conn for conn in list(self.postponed)}
        for number in waiting:
            poll.register(number, LEFT)
        left = {number for number, _ in poll.poll(0)} if waiting else set()
        for number, conn in waiting.items():
            refused = number in left or conn.postponed < late
            if not (refused or (conn.unfinished and self.connections.make_room(RECEIVE))):
                continue
            try:
                self.postponed.remove(conn)
            except ValueError:  # it has a place by now
                continue
            conn.postponed = 0.0
            if refused:
                self.fail(conn, Busy())
            else:
                self.connections.keep(conn, STALL)

    def starved_since(self) -> float | None:
        """Return since when a request has waited for a thread, or None if that is not too long."""
        now = monotonic()
        free_since = self.lead.free_since()
        if now - free_since > PATIENCE and self.connections.has_waiting():
            return free_since
        waiting = next((conn.postponed for conn in list(self.postponed)), now)
        return now - STALL if now - waiting > STALL else None

    def answer_by_gunicorn(self, conn: Connection, data: bytes) -> None:
        """Answer the request that starts `data`, read by gunicorn's parser."""
        conn.count += 1
        received = Received(conn.sock, data)
        request: Any = WholeRequest(self.cfg, received, conn.client, conn.count)
        if request.version >= (1, 1) and "HOST" not in dict(request.headers):
            raise InvalidHeader("HOST", req=request)  # RFC 9112, section 3.2
        received.expect(request)
        try:
            self.respond_by_gunicorn(conn, request, received)
        finally:
            request.release()
        self.after(conn)

    def respond_by_gunicorn(self, conn: Connection, request: Any, received: Received) -> None:
        """Answer a request that gunicorn's parser has read, and find what comes behind it."""
        environ: Any
        conn.response, environ = create(
            request, conn.sock, conn.client, conn.server, self.cfg, response_class=Response
        )
        if environ["SCRIPT_NAME"] and environ["PATH_INFO"][:1] not in {"", "/"}:
            raise ConfigurationProblem("The path only begins as SCRIPT_NAME does")
        environ["wsgi.multithread"] = True
        environ[BEFORE_WAIT] = self.lead.hand_over
        self.respond(conn.response, environ)
        self.read_rest(conn, request, received)
        conn.unread = received.rest()

    def respond(self, response: Response, environ: Environ) -> None:
        """Call the application, and send its answer."""
        if not (self.keepalive and self.worker.alive):
            response.closes = True
        if self.log.access_log_enabled:
            self.respond_and_log(response, environ)
        else:
            response.answer(self.application, environ)

    def respond_and_log(self, response: Response, environ: Environ) -> None:
        """Call the application, send its answer, and write gunicorn's access log."""
        request: Any = response.req
        if isinstance(request, Request):
            request.headers = fields_of(environ)
        started = datetime.now(UTC)
        try:
            response.answer(self.application, environ)
        finally:
            self.log.access(response, request, environ, datetime.now(UTC) - started)

    def read_rest(self, conn: Connection, request: Any, received: Received) -> None:
        """Read what the application left of a body if that is little, and the client goes on."""
        body, response = request.body, conn.response
        if is_unread(body) and not response.closes:
            try:
                response.closes = received.expects or len(body.read(REST)) == REST
            except (OSError, ParseException):
                response.closes = True
        # After a body that could not be read, it is unknown where the next request begins.
        response.closes = response.closes or body.failed
        conn.discards = response.closes and (is_unread(body) or body.failed)

    def after(self, conn: Connection) -> None:
        """Let the client take the rest of an answer, then go on with its connection."""
        response, conn.response = conn.response, None  # it refers to the body
        conn.owes = False
        conn.closes = response.closes
        conn.sock.waits_since = None
        if response.rest:
            conn.rest, conn.since = response.rest, monotonic()
            self.hold_rest(conn)
        else:
            self.go_on_after(conn)

    def go_on_after(self, conn: Connection) -> None:
        """Wait for the next request, or end the connection."""
        if conn.closes:
            self.hang_up(conn)
        elif conn.unread:
            if self.connections.make_room(len(conn.unread)):
                self.connections.hold_bytes(conn, len(conn.unread))
                self.take_turns(conn)
            else:
                self.hang_up(conn)
        elif conn.sock.pending():
            self.take_turns(conn)
        else:
            self.connections.keep(conn, self.keepalive)

    def hold_rest(self, conn: Connection) -> None:
        """Let a client take the rest of its answer, without a thread. Stalled if there is no room.

        If there is none, this thread waits for a moment, in which others may make some.
        """
        self.connections.unpoll(conn)
        more = sum(map(len, conn.rest)) + len(conn.unread) - conn.held
        if not self.connections.make_room(more, UNTAKEN):
            self.lead.hand_over()
            conn.sock.is_ready(select.POLLOUT, MOMENT)
            if not self.connections.make_room(more, MOMENT):
                raise Stalled
        self.connections.hold_bytes(conn, conn.held + more)
        self.connections.keep(conn, STALL)

    def send_rest(self, conn: Connection) -> None:
        """Send what the client takes of an answer that it has not taken whole."""
        while conn.rest:
            sent = conn.sock.push(conn.rest[0])
            if sent:
                conn.get_on(sent)
            if sent < len(conn.rest[0]):
                conn.rest[0] = conn.rest[0][sent:]
                self.connections.keep(conn, STALL)
                return
            del conn.rest[0]
        self.connections.unpoll(conn)
        self.connections.hold_bytes(conn, 0)
        self.go_on_after(conn)

    def take_turns(self, conn: Connection) -> None:
        """Queue a connection of which more was received already, behind the others."""
        self.connections.again(conn)
        if not self.lead.is_mine():
            self.connections.ring()

    def hang_up(self, conn: Connection) -> None:
        """End a connection after its last answer.

        Closing over bytes that were not read makes the kernel send a reset, which can overtake the
        answer: what a client still sends is discarded for a while (RFC 9112, section 9.6).
        """
        with suppress(OSError):
            socket.socket.shutdown(conn.sock, socket.SHUT_WR)
        if conn.discards or conn.unread or has_come(conn.sock):
            conn.discards, conn.unread = True, b""
            self.connections.keep(conn, LINGER)
        else:
            self.connections.end(conn)

    def discard(self, conn: Connection) -> None:
        """Read what a client still sends, until it ends or its time is over."""
        left = conn.deadline - monotonic()
        try:
            ended = left <= 0 or not socket.socket.recv(conn.sock, RECEIVE)
        except BlockingIOError:
            ended = False
        except OSError:
            ended = True
        if ended:
            self.connections.end(conn)
        else:
            self.connections.keep(conn, left)

    def fail(self, conn: Connection, error: BaseException) -> None:
        """End a connection on which `error` was raised, with a refusal if an answer is owed."""
        response, conn.response = conn.response, None
        try:
            if isinstance(error, Stalled):
                self.cuts.append(f"it stalled for {STALL:.0f} s")
                self.connections.end(conn)
            elif has_gone(error):
                self.connections.end(conn)
            elif conn.owes and not (response and response.headers_sent):
                self.refuse(conn, error)
            else:
                self.log.error("An answer was broken off.", exc_info=error)
                self.connections.end(conn)
        except Exception:
            self.log.exception("A connection could not be ended.")

    def expire(self, conn: Connection) -> None:
        """End a connection whose client has had its time; the rest of a body is refused."""
        if conn.unfinished and conn.unfinished.request:
            self.fail(conn, Late())
        elif conn.unfinished or conn.rest or not (conn.greeted or conn.discards):
            self.fail(conn, Stalled())
        else:
            self.connections.end(conn)

    def refuse(self, conn: Connection, error: BaseException) -> None:
        """Refuse what is not HTTP, or a request that the application failed to answer."""
        refusal, name = refusal_of(error), self.worker.request_id()
        if refusal.status == 500:
            self.log.error("Request %s could not be handled.", name, exc_info=error)
        elif isinstance(error, (Busy, Late)):
            self.cuts.append(str(error))  # one line for all of a second
        else:
            peer = conn.environ["REMOTE_ADDR"]
            self.log.warning("Refused request %s from %s: %s", name, peer or "?", error)
        fields, body = self.worker.refusal(refusal.sentence, name)
        if refusal.status == 503:
            fields = [*fields, ("Retry-After", "1")]
        if conn.greeted:
            with suppress(OSError):
                conn.sock.push(whole_response(refusal, fields, body))
        self.connections.take_unfinished(conn)
        conn.owes, conn.discards = False, True
        self.hang_up(conn)


def is_unread(body: Any) -> bool:
    """Return whether gunicorn has not yet read all of a body from its connection."""
    reader = body.reader
    return getattr(reader, "length", 0) > 0 or getattr(reader, "parser", None) is not None


def has_come(sock: socket.socket) -> bool:
    """Return whether the client has sent more that was not read; some of it is discarded."""
    try:
        return bool(socket.socket.recv(sock, RECEIVE))
    except OSError:
        return False


def has_gone(error: BaseException) -> bool:
    """Return whether `error` says that the client has gone."""
    if isinstance(error, (Gone, NoMoreData, StopIteration)):
        return True
    return isinstance(error, ssl.SSLError) and bool(error.args[0] == ssl.SSL_ERROR_EOF)
