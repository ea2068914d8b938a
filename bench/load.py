"""The load: wrk, its scripts, and what it measured (https://github.com/wg/wrk)."""

import json
import resource
import secrets
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hasher_tune.servers import Failed

SCRIPTS = Path(__file__).parent / "lua"
TIMEOUT = 30  # seconds; wrk's own 2 s are too short for thousands of messages in one request


@dataclass(frozen=True)
class Load:
    """What is asked of a server, over connections that stay open."""

    name: str
    arguments: tuple[str, ...] = ()
    """What the script takes behind its tag and the file of digests."""
    script: str = "messages.lua"
    messages: int = 1
    """How many messages a request carries."""
    connections: int = 16
    size: int = 100
    """The bytes of a message."""


@dataclass(frozen=True)
class Figures:
    """What one run measured: messages a second, latencies in ms, and CPU time."""

    rate: float
    p50: float
    p99: float
    load_cpu: float
    """The share of a core that wrk took."""
    answered: int
    """How many messages that were."""
    cpu: float = 0.0
    """The server's microseconds of a core for each message."""


def single(name: str, reads: int, connections: int = 16, size: int = 100, fields: str = "") -> Load:
    """Single requests, of which `reads` in a hundred read, and the others write."""
    return Load(
        name, (str(reads), str(size), fields or "plain"), connections=connections, size=size
    )


GET, POST = single("GET", reads=100), single("POST", reads=0)
BROWSER_GET = single("GET, browser", reads=100, fields="browser")
BROWSER_POST = single("POST, browser", reads=0, fields="browser")
LARGE_GET = single("GET, 100 kB", reads=100, size=100_000)
LARGE_POST = single("POST, 100 kB", reads=0, size=100_000)
CROWD = single("GET, 400 connections", reads=100, connections=400)
BULK = Load("bulk", ("5000",), "bulk.lua", messages=5000, connections=2)


def run(
    load: Load, port: int, digests: Path, seconds: int, cpu: Callable[[], int] = lambda: 0
) -> Figures:
    """Put `load` on the server for so long; Failed if a single request was not answered well.

    `cpu` tells the nanoseconds of a core that the server has taken so far.
    """
    spent, before = resource.getrusage(resource.RUSAGE_CHILDREN), cpu()
    ended = subprocess.run(
        [
            *("wrk", "--threads", "1", "--connections", str(load.connections)),
            *("--duration", f"{seconds}s", "--timeout", f"{TIMEOUT}s", "--script", load.script),
            *(f"http://127.0.0.1:{port}", "--", secrets.token_hex(8)),
            *(str(digests), *load.arguments),
        ],
        cwd=SCRIPTS,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise Failed(f"wrk ended with {ended.returncode}: {ended.stderr.strip()}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    load_cpu = used.ru_utime - spent.ru_utime + used.ru_stime - spent.ru_stime
    return figures(ended.stdout, load.messages, load_cpu, cpu() - before)


def figures(said: str, messages: int, load_cpu: float, server_cpu: int) -> Figures:
    """What the last line of wrk's output tells, for so many messages a request.

    The load's CPU time is in seconds, the server's in nanoseconds. Failed if a request was refused,
    cut or not answered in time: what does not do the work cannot be compared.
    """
    told = json.loads(said.splitlines()[-1])
    if not told["requests"]:
        raise Failed("no request was answered")
    if told["refused"] or told["failed"]:
        raise Failed("{refused} of {requests} requests refused, {failed} failed".format(**told))
    seconds, answered = told["duration"] / 1e6, told["requests"] * messages
    return Figures(
        rate=answered / seconds,
        p50=told["p50"] / 1e3,
        p99=told["p99"] / 1e3,
        load_cpu=load_cpu / seconds,
        answered=answered,
        cpu=server_cpu / 1e3 / answered,
    )
