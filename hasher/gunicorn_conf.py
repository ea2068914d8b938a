"""How gunicorn serves hasher. Workers and threads are the main performance knob.

Their values come from the environment (hasher/settings.py); gunicorn's own command line
overrides what stands here. `hasher serve` reads this file; gunicorn finds it as gunicorn.conf.py.
Both run it again at every reload.
"""

import os
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.config import Config

from hasher.hooks import affinity, draining, metric_files, one_worker, start
from hasher.hooks.secrets import read
from hasher.hooks.worker import Worker
from hasher.settings import Settings

secrets = read(os.environ)
settings = Settings.from_environ({**os.environ, **secrets})

wsgi_app = "hasher:create_app()"  # unless the command line names one
bind = settings.bind
workers = settings.workers
threads = settings.threads
worker_class = Worker
worker_connections = start.connections(settings)

# Above the idle time-out of every common load balancer (60 s), which could otherwise send a request
# on a connection that is being closed.
keepalive = 75
# A request has 7 s to end when its worker stops, so that a stop takes less than 10 s.
graceful_timeout = 7
# All instances of one user would share one control socket.
control_socket_disable = True
# No header may rewrite a request's path or scheme, which gunicorn by default allows clients on this
# machine; so gunicorn need not check the client of each request. (The list of addresses also says
# who may speak HTTP/2 in clear, which is off: name the front here before you turn it on.)
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}
forwarded_allow_ips = "*"
# No max_requests: a worker that ends itself can hang on a half-sent request, and empties memory://.


def followed_by_worker(cfg: Config) -> dict[str, str]:
    """Return the variables of a worker: gunicorn's command line may have set other threads."""
    return {**secrets, "HASHER_THREADS": str(cfg.threads)}


def on_starting(server: Arbiter) -> None:
    """End a start that could not work, with one line that says why."""
    start.require_addresses(server)
    followed = Settings.from_environ({**os.environ, **followed_by_worker(server.cfg)})
    start.connections(followed)  # which raises the limit of open files as they need
    if settings.shared:
        start.examine_store(followed)
    if settings.metrics == "on":
        metric_files.open_for(server)


def on_reload(_server: Arbiter) -> None:
    """Repair, in the master, what the new workers need."""
    if settings.metrics == "on":
        metric_files.renew()


def when_ready(server: Arbiter) -> None:
    """Prepare for SIGTERM, and log what was started."""
    draining.drain_before_stop(server, settings.drain_seconds)
    start.announce(server, settings)


def pre_fork(server: Arbiter, worker: Any) -> None:
    """Prepare, in the master, for a new worker."""
    if not settings.shared:
        one_worker.await_end_of_last(server)
    if settings.metrics == "on":
        metric_files.assign(server, worker)
    if settings.cpu_affinity:
        affinity.choose(server, worker)


def post_fork(_server: Arbiter, worker: Any) -> None:
    """Prepare the worker's process for its application."""
    os.environ.update(followed_by_worker(worker.cfg))
    if settings.metrics == "on":
        metric_files.use(worker)
    if settings.cpu_affinity:
        affinity.pin(worker)


def post_worker_init(worker: Any) -> None:
    """Let the application's readiness see that the service is about to stop."""
    worker.app.wsgi().extensions["readiness"].draining = draining.has_begun


def worker_exit(_server: Arbiter, _worker: Any) -> None:
    """Keep, in the worker's process, what it has counted."""
    if settings.metrics == "on":
        metric_files.keep()


def child_exit(_server: Arbiter, worker: Any) -> None:
    """Tidy up after a worker."""
    if not settings.shared:
        one_worker.report_loss(worker)
    if settings.metrics == "on":
        metric_files.release(worker)


def on_exit(server: Arbiter) -> None:
    """Tidy up after all workers."""
    if settings.metrics == "on":
        metric_files.close_for(server)


if not settings.shared:
    nworkers_changed = one_worker.nworkers_changed
    pre_exec = one_worker.pre_exec
