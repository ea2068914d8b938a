"""A gunicorn worker class: one thread leads, and answers requests until it has to wait.

Written against gunicorn 27. The main thread of the process tells the master that the worker lives,
and waits for signals. The other threads serve (threads.py).
"""

import gc
import os
import select
import signal
import socket
import ssl
import sys
from collections import Counter
from contextlib import suppress
from threading import Thread
from time import monotonic
from typing import Any

from gunicorn import sock
from gunicorn.config import Config
from gunicorn.workers.base import Worker as BaseWorker

from leader_worker.connections import Connections
from leader_worker.lead import Lead
from leader_worker.shares import Share
from leader_worker.sockets import STALL, TLSSocket
from leader_worker.threads import Threads

GARBAGE = 50_000  # new objects between two garbage collections
# seconds for which a thread computes while the leader waits for the interpreter
SWITCH = 0.0005
IGNORED = ("max_requests", "pre_request", "post_request")  # settings that have no effect


class Fork:
    """Blocks the signals that stop a worker, from its fork until it has set its own handlers.

    Until then it has the master's handlers, which would treat the signal as one to the master.
    """

    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
    expected = False

    @classmethod
    def before(cls) -> None:
        """Block the signals if a worker is about to be forked."""
        if cls.expected:
            signal.pthread_sigmask(signal.SIG_BLOCK, cls.signals)

    @classmethod
    def after(cls) -> None:
        """Unblock the signals: in the master at once, in the worker when its handlers are set."""
        if cls.expected:
            cls.expected = False
            signal.pthread_sigmask(signal.SIG_UNBLOCK, cls.signals)


os.register_at_fork(before=Fork.before, after_in_parent=Fork.after)


class Worker(BaseWorker):
    """A threaded worker in which no client delays another.

    Subclass it and override `refusal` and `request_id` to give refusals a shape of your own.
    """

    connections: Connections
    lead: Lead
    threads: Threads

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.share = Share(self)
        Fork.expected = True

    @classmethod
    def check_config(cls, cfg: Config, log: Any) -> None:
        """Refuse settings that this worker cannot follow, and warn of those that it ignores."""
        if cfg.protocol != "http" or cfg.http_protocols != ["h1"] or cfg.http2_cleartext != "off":
            raise RuntimeError(
                "leader_worker speaks HTTP/1.1 only: leave protocol, http_protocols and "
                "http2_cleartext as gunicorn has them, or choose another worker class."
            )
        for name in IGNORED:
            setting = cfg.settings[name]
            if setting.get() != setting.default:
                log.warning("leader_worker does without %s: it has no effect.", name)

    def refusal(self, sentence: str, request_id: str) -> tuple[list[tuple[str, str]], bytes]:
        """Return the header fields and the body of an answer that the application did not give.

        `sentence` says what is wrong.
        """
        fields = [("Content-Type", "text/plain; charset=utf-8"), ("X-Request-ID", request_id)]
        return fields, sentence.encode() + b"\n"

    def request_id(self) -> str:
        """Return a new id for a request that the application has not answered."""
        return os.urandom(16).hex()

    def init_process(self) -> None:
        """Make what the threads share, then start as gunicorn's workers do."""
        most: int = self.cfg.worker_connections
        self.connections = Connections(self.sockets, most, self.share, self.log)
        self.lead = Lead(self.connections.leave_poller)
        sys.setswitchinterval(SWITCH)
        self.tls = self.tls_context()
        super().init_process()

    def init_signals(self) -> None:
        """Set the handlers of signals, and unblock them."""
        super().init_signals()
        Fork.after()

    def load_wsgi(self) -> None:
        """Load the application, and exclude what is loaded from garbage collection."""
        super().load_wsgi()
        gc.freeze()
        gc.set_threshold(GARBAGE)

    def tls_context(self) -> ssl.SSLContext | None:
        """Return gunicorn's context for sockets that never block, or None without TLS."""
        if not self.cfg.is_ssl:
            return None
        context = sock.ssl_context(self.cfg)
        context.sslsocket_class = TLSSocket
        return context

    def run(self) -> None:
        """Start the threads, wait until the worker is to stop, and let requests in hand end."""
        self.threads = threads = Threads(self, self.connections, self.lead)
        for number in range(threads.count):
            Thread(target=threads.serve, name=f"requests-{number}", daemon=True).start()
        while self.alive and self.has_parent():
            self.look_after(1.0)
        self.alive = False
        self.connections.stop()
        deadline = monotonic() + self.cfg.graceful_timeout
        while self.is_busy() and monotonic() < deadline:
            self.cut_slow_clients(monotonic() - STALL, "the worker stops")
            self.look_after(0.02)

    def has_parent(self) -> bool:
        """Return whether the master still runs."""
        if self.ppid == os.getppid():
            return True
        self.log.info("The master has gone: the worker stops.")
        return False

    def is_busy(self) -> bool:
        """Return whether there are connections, or new ones may come."""
        return not self.connections.closed or bool(self.connections.all)

    def look_after(self, seconds: float) -> None:
        """Tell the master that this worker lives, then wait `seconds` for a signal."""
        self.notify()
        self.report()
        if (since := self.threads.starved_since()) is not None:
            self.cut_slow_clients(since, "others waited for their threads")
        if select.select([self.PIPE[0]], [], [], seconds)[0]:
            os.read(self.PIPE[0], 4096)

    def report(self) -> None:
        """Log why clients were cut: one line for many."""
        cuts = self.connections.cuts
        for reason, count in Counter(cuts.popleft() for _ in range(len(cuts))).items():
            number = "a client" if count == 1 else f"{count} clients"
            self.log.warning("Cut %s: %s.", number, reason)

    def cut_slow_clients(self, since: float, reason: str) -> None:
        """Cut clients that have held a thread since before `since`.

        Otherwise a client that sends or takes a byte now and then would keep its thread forever.
        """
        slow = [conn.sock for conn in list(self.connections.all) if conn.sock.has_waited(since)]
        if slow:
            self.log.warning("Cut %d slow clients: %s.", len(slow), reason)
        for connection in slow:
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
