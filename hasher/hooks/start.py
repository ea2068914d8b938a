"""The checks before the start, and the line in the log that says what was started."""

import errno
import logging
import os
import resource
import socket
from contextlib import closing

from gunicorn.arbiter import Arbiter

from hasher.settings import InvalidSetting, Settings
from hasher.stores import Driver, Unusable

log = logging.getLogger("gunicorn.error")

CONNECTIONS = 4096  # that a worker keeps open at once, idle ones included
FILES_A_THREAD = 4  # what a store opens: a connection, or a file and its log
OTHER_FILES = 64  # standard streams, listeners, pipes, the store, and the interpreter's own


def connections(settings: Settings) -> int:
    """Return how many connections a worker may hold, after raising the limit of open files.

    A worker that holds so many stops accepting, and clients wait in the kernel's queue: so the
    store, whose threads need some descriptors of their own, never lacks one.
    """
    reserve = OTHER_FILES + settings.threads * FILES_A_THREAD
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + reserve
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted - reserve <= settings.threads:
        needed = reserve + settings.threads + 1
        raise InvalidSetting(
            f"The limit of open files is {wanted}, and {settings.threads} threads need {needed}: "
            f"raise it with ulimit -n {needed}, or lower HASHER_THREADS."
        )
    return wanted - reserve


def require_addresses(server: Arbiter) -> None:
    """Raise InvalidSetting if an address cannot be listened on; gunicorn would try for 5 s."""
    inherited = server.master_pid or "LISTEN_FDS" in os.environ or server.cfg.reuse_port
    for address in () if inherited else server.cfg.address:
        if isinstance(address, tuple):
            require_free(*address)


def require_free(host: str, port: int) -> None:
    """Raise InvalidSetting unless this process can listen on `host`:`port`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            fault = "is in use: stop what listens there, or set PORT to a free port"
        else:
            fault = f"cannot be listened on ({error.strerror}): set HASHER_HOST or PORT"
        raise InvalidSetting(f"{host}:{port} {fault}.") from None


def announce(server: Arbiter, settings: Settings) -> None:
    """Log in one line what was started, and warn if that is less than was asked for."""
    log.info(
        "hasher keeps messages in %s%s; workers: %d, threads each: %d, connections each: %d; "
        "largest body: %d bytes%s",
        settings.store,
        f" by {settings.store.engine}" if settings.store.engine else "",
        server.cfg.workers,
        server.cfg.threads,
        server.cfg.worker_connections,
        settings.max_message_bytes,
        ""
        if settings.shared
        else f"; memory limit: {settings.memory_limit} bytes; messages end with this process",
    )
    if not settings.shared and settings.web_concurrency > 1:
        log.warning(
            "WEB_CONCURRENCY=%d was lowered to 1, since memory:// keeps messages in one process: "
            "set HASHER_STORE=sqlite:///hasher.db, say, for several workers to share one store.",
            settings.web_concurrency,
        )
    if server.cfg.worker_connections < CONNECTIONS:
        log.warning(
            "The limit of open files leaves each worker %d connections instead of %d: "
            "raise it with ulimit -n.",
            server.cfg.worker_connections,
            CONNECTIONS,
        )


def examine_store(settings: Settings) -> None:
    """Raise InvalidSetting if the store cannot work; log a warning if it could lose messages.

    A server that is down does not prevent the start: /readyz says so until it is back.
    """
    try:
        with closing(settings.store.open(settings.resources)) as driver:
            remark = remark_of(driver)
    except Unusable as error:
        raise InvalidSetting(f"HASHER_STORE cannot be used: {error}.") from None
    if remark:
        log.warning("About %s: %s.", settings.store, remark)


def remark_of(driver: Driver) -> str | None:
    """Return what an operator should know of the store."""
    try:
        return driver.check()
    except driver.errors as error:
        return f"it cannot be reached yet ({error})"
