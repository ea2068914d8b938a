"""A gunicorn worker class: one thread leads, and answers requests until it has to wait.

Written against gunicorn 27. The process's main thread tells the master that the worker lives, and
waits for signals; what the other threads do is in threads.py.
"""

import gc
import os
import select
import signal
import socket
import ssl
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

GARBAGE = 50_000  # objects that are made before cycles among them are looked for
IGNORED = ("max_requests", "pre_request", "post_request")  # settings


class Fork:
    """Holds back the signals that stop a worker from its fork until it has handlers of its own.

    Until then it has the master's, and would take for one of its own what is sent to the worker.
    """

    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
    expected = False

    @classmethod
    def before(cls) -> None:
        """Hold them back, if it is a worker that is forked."""
        if cls.expected:
            signal.pthread_sigmask(signal.SIG_BLOCK, cls.signals)

    @classmethod
    def after(cls) -> None:
        """Let them come, in the master at once, in the worker when it is ready for them."""
        if cls.expected:
            cls.expected = False
            signal.pthread_sigmask(signal.SIG_UNBLOCK, cls.signals)


os.register_at_fork(before=Fork.before, after_in_parent=Fork.after)


class Worker(BaseWorker):
    """A threaded worker on which no client delays another.

    Subclass it to give its refusals a shape of your own: see `refusal` and `request_id`.
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
        """Refuse what this worker cannot do, and say what it leaves out."""
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
        """Return the header fields and the body of an answer that the application has not given."""
        fields = [("Content-Type", "text/plain; charset=utf-8"), ("X-Request-ID", request_id)]
        return fields, sentence.encode() + b"\n"

    def request_id(self) -> str:
        """Return a name for a request that the application has not answered."""
        return os.urandom(16).hex()

    def init_process(self) -> None:
        """Make what the threads share, then do as gunicorn's workers do."""
        most: int = self.cfg.worker_connections
        self.connections = Connections(self.sockets, most, self.share, self.log)
        self.lead = Lead(self.connections.leave_poller)
        self.tls = self.tls_context()
        super().init_process()

    def init_signals(self) -> None:
        """Take signals from here on."""
        super().init_signals()
        Fork.after()

    def load_wsgi(self) -> None:
        """Load the application, and leave out of garbage collection what is there by now."""
        super().load_wsgi()
        gc.freeze()
        gc.set_threshold(GARBAGE)

    def tls_context(self) -> ssl.SSLContext | None:
        """Return gunicorn's context, for sockets that never block; None without TLS."""
        if not self.cfg.is_ssl:
            return None
        context = sock.ssl_context(self.cfg)
        context.sslsocket_class = TLSSocket
        return context

    def run(self) -> None:
        """Let the threads answer until the worker is to stop, and then end what is in hand."""
        self.threads = threads = Threads(self, self.connections, self.lead)
        for number in range(self.cfg.threads):
            Thread(target=threads.serve, name=f"requests-{number}", daemon=True).start()
        while self.alive and self.has_parent():
            self.look_after(1.0)
        self.alive = False
        self.connections.stop()
        deadline = monotonic() + self.cfg.graceful_timeout
        while self.is_busy() and monotonic() < deadline:
            self.look_after(0.02)

    def has_parent(self) -> bool:
        """Return whether the master still runs."""
        if self.ppid == os.getppid():
            return True
        self.log.info("The master has gone: the worker stops.")
        return False

    def is_busy(self) -> bool:
        """Return whether there are connections, or may be new ones."""
        return not self.connections.closed or bool(self.connections.all)

    def look_after(self, seconds: float) -> None:
        """Tell the master that this worker lives, then wait for a signal."""
        self.notify()
        if self.threads.are_starved():
            self.cut_slow_clients()
        self.threads.use_free_places()
        if select.select([self.PIPE[0]], [], [], seconds)[0]:
            os.read(self.PIPE[0], 4096)

    def cut_slow_clients(self) -> None:
        """Cut those who have held a thread for long, since others wait for one.

        A client that sends or takes a byte now and then would otherwise keep its thread for ever.
        """
        since = monotonic() - STALL
        slow = [conn.sock for conn in list(self.connections.all) if conn.sock.has_waited(since)]
        if slow:
            self.log.warning("Cut %d slow clients: others waited for their threads.", len(slow))
        for connection in slow:
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
