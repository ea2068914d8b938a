"""How gunicorn serves hasher. Workers and threads are the main performance knob.

Their values come from the environment (hasher/settings.py); gunicorn's own command line
overrides what stands here.
"""

import os

from gunicorn.arbiter import Arbiter

from hasher.server import hooks
from hasher.server.worker import Worker
from hasher.settings import Settings

settings = Settings.from_environ(os.environ)

bind = settings.bind
workers = settings.workers
threads = settings.threads
worker_class = Worker  # gthread, hardened
worker_connections = hooks.connections(settings)

# Above the idle time-out of every common load balancer (60 s), which else would send a request
# on a connection that is being closed.
keepalive = 75
# A request has 8 s to end when its worker stops, so that a stop takes less than 10 s.
graceful_timeout = 8
# All instances of one user would share one control socket.
control_socket_disable = True
# By default any client on this machine could rewrite a request's path with headers of these names.
forwarder_headers = ""
# No max_requests: a worker that ends itself can hang on a half-sent request, and empties memory://.


def on_starting(server: Arbiter) -> None:
    """Refuse to start, in one line, where that could not work."""
    hooks.require_addresses(server)
    if settings.shared:
        hooks.examine_store(settings)


def when_ready(server: Arbiter) -> None:
    """Say what was started."""
    hooks.announce(server, settings)


if not settings.shared:
    from hasher.server.one_worker import (  # noqa: F401 - gunicorn finds hooks by their names
        child_exit,
        nworkers_changed,
        post_worker_init,
        pre_exec,
        pre_fork,
    )
