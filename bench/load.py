"""The load: wrk, its scripts, and what it measured (https://github.com/wg/wrk)."""

import json
import resource
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).parent / "lua"
CONNECTIONS = 16
TIMEOUT = 30  # seconds; wrk's own 2 s are too short for 20,000 messages in one request


class Failed(Exception):
    """A contender did not do what was asked of it, and so has no figure."""


@dataclass(frozen=True)
class Load:
    """What is asked of a server, over connections that stay open."""

    name: str
    script: str
    argument: str
    """What the script takes behind its tag."""
    messages: int = 1
    """How many messages a request carries."""
    connections: int = CONNECTIONS


@dataclass(frozen=True)
class Figures:
    """What one run measured: messages a second, latencies in ms, the share of a core wrk took."""

    rate: float
    p50: float
    p99: float
    load_cpu: float
    answered: int
    """How many messages that were."""


def mixed(name: str, reads: int, connections: int = CONNECTIONS) -> Load:
    """Single requests, of which `reads` in a hundred read, and the others write."""
    return Load(name, "messages.lua", str(reads), connections=connections)


GET = mixed("GET", reads=100)
POST = mixed("POST", reads=0)
BULK = Load("bulk", "bulk.lua", "20000", messages=20_000, connections=4)


def run(load: Load, port: int, digests: Path, seconds: int) -> Figures:
    """Put `load` on the server for so long; Failed where a single request was not answered well."""
    spent = cpu_of_children()
    ended = subprocess.run(
        [
            *("wrk", "--threads", "1", "--connections", str(load.connections)),
            *("--duration", f"{seconds}s", "--timeout", f"{TIMEOUT}s", "--script", load.script),
            *(f"http://127.0.0.1:{port}", "--", secrets.token_hex(8)),
            *(load.argument, str(digests)),
        ],
        cwd=SCRIPTS,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise Failed(f"wrk ended with {ended.returncode}: {ended.stderr.strip()}")
    return figures(ended.stdout, load.messages, cpu_of_children() - spent)


def figures(said: str, messages: int, cpu: float) -> Figures:
    """What the last line of wrk's output tells, for so many messages a request.

    `cpu` is in seconds. Failed where a request was refused, cut or not answered in time: what
    does not do the work cannot be compared.
    """
    told = json.loads(said.splitlines()[-1])
    if not told["requests"]:
        raise Failed("no request was answered")
    if told["refused"] or told["failed"]:
        raise Failed("{refused} of {requests} requests refused, {failed} failed".format(**told))
    seconds = told["duration"] / 1e6
    return Figures(
        rate=told["requests"] * messages / seconds,
        p50=told["p50"] / 1e3,
        p99=told["p99"] / 1e3,
        load_cpu=cpu / seconds,
        answered=told["requests"] * messages,
    )


def cpu_of_children() -> float:
    """The seconds of CPU that this process's children took, of those that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
