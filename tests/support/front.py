"""The shipped nginx configuration before three instances on one store, all real."""

import os
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from deploy.fleet import configured
from tests.support.description import DESCRIPTION, Answers
from tests.support.servers import free_ports, program, until
from tests.support.service import ROOT, Client, Service
from tests.support.stores import StoreServer

CONFIGURATION = (ROOT / "deploy" / "nginx.conf").read_text()
CACHE = {"schema": {"enum": ["MISS", "BYPASS", "EXPIRED", "STALE", "UPDATING", "HIT"]}}
OF_A_STATUS = {
    "405": {"Allow": {"required": True, "schema": {"type": "string"}}},
    "503": {"Retry-After": {"required": True, "schema": {"type": "integer", "const": 1}}},
}


def own_error(status: str, sentence: str) -> dict[str, Any]:
    """The description of an error of nginx's own."""
    headers = DESCRIPTION["components"]["responses"]["Failed"]["headers"]
    return {
        "headers": headers | OF_A_STATUS.get(status, {}),
        "content": {"application/json": {"schema": {"const": {"error": sentence}}}},
    }


def own_errors(configuration: str) -> dict[str, Any]:
    """The descriptions of nginx's own errors, by status, from a map in its configuration."""
    lines = re.search(r"map \$status \$error \{\n(.+?)\n    \}", configuration, re.DOTALL)
    assert lines
    sentences = re.findall(r"^ +(\d+|default) +\"(.+)\";$", lines[1], re.MULTILINE)
    assert len(sentences) == lines[1].count("\n") + 1
    named = {"400" if status == "default" else status: said for status, said in sentences}
    return {status: own_error(status, said) for status, said in named.items()}


# What nginx adds: X-Cache, and the errors in its configuration.
THROUGH_NGINX = Answers(headers={"X-Cache": CACHE}, own=own_errors(CONFIGURATION))


class Front(Service):
    """nginx with deploy/nginx.conf, with its files in a folder.

    Of the commented blocks, those that are named are used; `changes` are texts to be replaced.
    """

    answers = THROUGH_NGINX

    def __init__(self, folder: Path, instances: list[int], *blocks: str, **changes: str) -> None:
        executable = program("nginx", "nginx")
        self.folder, self.log_file = folder, folder / "error.log"
        (self.port,) = free_ports(1)
        text = configured(folder, self.port, instances)
        for block in blocks:
            text = text.replace(f"#{block} ", "")
        for old, new in changes.items():
            text = text.replace(old, new)
        (folder / "nginx.conf").write_text(text)
        command = [executable, "-c", f"{folder}/nginx.conf", "-e", str(self.log_file)]
        self.process = subprocess.Popen([*command, "-g", "daemon off;"], start_new_session=True)

    def is_listening(self) -> bool:
        """Whether it lives; that it answers is waited for by all services."""
        assert self.process.poll() is None, self.log
        return True


class Fleet:
    """A store's server, three instances, and nginx before them."""

    def __init__(self, folder: Path, store: StoreServer, **env: str) -> None:
        self.folder, self.env, self.store = folder, {"WEB_CONCURRENCY": "1", **env}, store
        self.ports = free_ports(3)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.store)
            self.instances = [stack.enter_context(self.instance(port)) for port in self.ports]
            self.front = stack.enter_context(Front(self.folder, self.ports))
            stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for service in (self.front, *self.instances):
            service.kill()
        self.store.__exit__()

    def instance(self, port: int) -> Service:
        """One gunicorn on the fleet's store, being started."""
        log = self.folder / f"{port}.log"
        env = {**self.env, "HASHER_STORE": self.store.url, "PORT": str(port)}
        return Service(log, **env)  # type: ignore[arg-type] # none of the names is an option's

    def restart(self, number: int) -> None:
        """Start an instance that has ended, on its port, and wait until it answers."""
        until(lambda: not listens(self.ports[number]))
        self.instances[number] = self.instance(self.ports[number]).__enter__()

    def heal(self) -> None:
        """Start again whatever a test has ended."""
        if not self.store.runs():
            self.store.start()
        self.store.signal(signal.SIGCONT)
        for number, instance in enumerate(self.instances):
            if instance.process.poll() is not None:
                self.restart(number)
            os.killpg(self.instances[number].process.pid, signal.SIGCONT)
        until(lambda: self.front.request("GET", "/readyz").status == 200)
        self.front.assert_recovers(within=10)


def cached(fleet: Fleet, count: int = 20) -> list[str]:
    """New messages that the front has in its cache."""
    texts = [f"cached {number} at {time.time_ns()}" for number in range(count)]
    for text in texts:
        name = fleet.front.post(text).json["digest"]
        assert fleet.front.get(name).headers["X-Cache"] == "MISS"
        await_hit(fleet.front, f"/messages/{name}")
    return texts


def await_hit(front: Front, path: str) -> None:
    """Read until it comes from the cache: nginx may answer before the file has its name."""
    until(lambda: front.request("GET", path).headers["X-Cache"] == "HIT")


def refusals(front: Front) -> list[float]:
    """How many seconds pass until each of a crowd is refused since nothing can be asked."""
    with ThreadPoolExecutor(20) as crowd:
        return list(crowd.map(lambda _: refusal(front), range(20)))


def refusal(front: Front) -> float:
    """How many seconds pass until a read is refused since nothing can be asked."""
    started = time.monotonic()
    assert front.get("0" * 64).status == 503
    return time.monotonic() - started


def listens(port: int) -> bool:
    """Whether somebody takes connections on the port."""
    try:
        Client(port).close()
    except OSError:
        return False
    return True
