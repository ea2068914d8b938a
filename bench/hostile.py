"""Good clients beside hostile ones: `python -m bench.hostile` says which attacks are withstood.

Each attack meets a gunicorn of its own, without nginx before it. The exit status is 1 if a bar is
missed. `--checkout` measures the hasher of another folder, and `--worker-class` another worker.
"""

import argparse
import hashlib
import multiprocessing
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench import attackers, bystanders
from bench.attackers import Attack, Done, Target
from bench.attacks import ATTACKS
from bench.bystanders import Seen
from bench.contenders import ROOT, instance
from hasher_tune.servers import Failed, Server

P99, MOST = 0.1, 2.0  # seconds that good clients wait: one in a hundred, and any of them
MEMORY = 16 + 24  # MiB a worker: the documented room, and a margin
WARM = 1.0  # seconds of good requests before anything is measured
SETTLE = 2.5  # seconds that an attack has to unfold
QUIET = 2.0  # seconds for which CPU time is measured
IDLE = 6.0  # seconds after which idle connections cost nothing
MARGIN = 40.0  # seconds after which an attack ends by itself, beyond those of the good clients

FORK = multiprocessing.get_context("fork")
HEADINGS = "attack th w requests p50 p99 max failed MiB CPU"
LAYOUT = "{:<15} {:>3} {:>2} {:>8} {:>7} {:>7} {:>7} {:>6} {:>6} {:>6}  {:<3} {}"


@dataclass(frozen=True)
class Setup:
    """The server that is attacked."""

    checkout: Path
    worker_class: str | None
    threads: int
    workers: int


@dataclass
class Row:
    """What one attack has done to the good clients, and to the workers."""

    attack: Attack
    setup: Setup
    seen: Seen
    memory: float
    """MiB that the workers had at most, over what they had when idle."""
    cpu: float | None
    """The share of a core that they took without good clients, if that is the point."""
    done: Done | None
    has_traceback: bool

    @property
    def misses(self) -> list[str]:
        """Return the bars that were missed."""
        seen = self.seen
        found = {
            "p99": seen.within(0.99) > P99,
            "max": seen.within(1.0) > MOST,
            "failures": bool(seen.faults),
            "memory": self.memory > MEMORY * self.setup.workers,
            "CPU": self.cpu is not None and self.cpu > self.attack.most_cpu,
            "statuses": not self.statuses_are_right(),
            "traceback": self.has_traceback,
        }
        return [name for name, misses in found.items() if misses]

    def statuses_are_right(self) -> bool:
        """Return whether the hostile clients were answered as they should be."""
        wanted = self.attack.statuses
        if not wanted or self.done is None:
            return True
        return bool(self.done.statuses) and set(self.done.statuses) <= set(wanted)

    def __str__(self) -> str:
        times = [f"{self.seen.within(share) * 1000:.1f}" for share in (0.5, 0.99, 1.0)]
        cpu = "" if self.cpu is None else f"{self.cpu:.1%}"
        faults = [f"{n} × {fault}" for fault, n in Counter(self.seen.faults).most_common(2)]
        missed = [f"[{', '.join(self.misses)}]"] if self.misses else []
        return LAYOUT.format(
            self.attack.name,
            self.setup.threads,
            self.setup.workers,
            len(self.seen.seconds),
            *times,
            len(self.seen.faults),
            f"{self.memory:.1f}",
            cpu,
            "no" if self.misses else "ok",
            "; ".join([*missed, *faults, f"hostile: {self.done or 'did not end'}"]),
        )


@contextmanager
def started(setup: Setup, folder: Path) -> Iterator[Server]:
    """Start the server, and end it and all its processes."""
    store = "memory://" if setup.workers == 1 else f"sqlite:///{folder}/messages.db"
    settings = {"HASHER_THREADS": str(setup.threads), "WEB_CONCURRENCY": str(setup.workers)}
    if setup.worker_class:
        settings["GUNICORN_CMD_ARGS"] = f"--worker-class {setup.worker_class}"
    server = instance(folder, None, store, setup.checkout, settings)
    try:
        yield server.__enter__()
    finally:
        with suppress(AttributeError):  # it was never started
            server.kill()


def post(port: int, text: str) -> str:
    """Store a text, and return its path."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/messages", text, {"Content-Type": "text/plain"})
    answer = connection.getresponse()
    if answer.status not in {200, 201}:
        raise Failed(f"a message was answered with {answer.status}")
    connection.close()
    return f"/messages/{hashlib.sha256(text.encode()).hexdigest()}"


class Child:
    """A process of ours that sends one result."""

    def __init__(self, target: Any, *arguments: Any) -> None:
        self.mine, its = FORK.Pipe()
        self.process = FORK.Process(target=target, args=(*arguments, its), daemon=True)
        self.process.start()
        its.close()

    def result(self, within: float) -> Any:
        """Return what it sends; None if it does not in time."""
        with suppress(EOFError):
            if self.mine.poll(within):
                return self.mine.recv()
        return None

    def end(self) -> None:
        """End it."""
        self.process.join(0.5)
        self.process.kill()
        self.process.join()
        self.mine.close()


def good(port: int, seconds: float) -> Seen:
    """Return what good clients see for so long."""
    child = Child(bystanders.run, port, seconds)
    try:
        seen = child.result(seconds + 2 * bystanders.TIMEOUT)
    finally:
        child.end()
    if not isinstance(seen, Seen):
        raise Failed("the good clients did not end")
    return seen


def workers_of(server: Server) -> list[int]:
    """Return the ids of its worker processes."""
    return [pid for pid in server.pids() if pid != server.process.pid]


def resident(server: Server, field: str) -> float:
    """Return the MiB of its workers: VmRSS now, or VmHWM at most."""
    held = 0
    for pid in workers_of(server):
        with suppress(OSError):
            said = Path(f"/proc/{pid}/status").read_text()
            held += int(said.split(f"{field}:")[1].split()[0])
    return held / 1024


def forget_peak(server: Server) -> None:
    """Let the peak of memory begin anew (proc(5), clear_refs)."""
    for pid in workers_of(server):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def cpu_share(server: Server) -> float:
    """Return the share of a core that it takes for a while."""
    begin, before = time.monotonic(), server.cpu()
    time.sleep(QUIET)
    return (server.cpu() - before) / 1e9 / (time.monotonic() - begin)


def measure(attack: Attack, setup: Setup, seconds: float) -> Row:
    """Let one attack go on beside good clients."""
    with TemporaryDirectory(prefix="hasher-hostile-") as name, started(setup, Path(name)) as server:
        port = server.port
        target = Target(port, f"{post(port, 'x' * 1024 * 1024)}.txt", post(port, "small"))
        good(port, WARM)
        forget_peak(server)
        idle = resident(server, "VmRSS")
        child = Child(attackers.run, attack, target, seconds + MARGIN)
        try:
            seen, cpu = beside(attack, server, seconds)
            memory = resident(server, "VmHWM") - idle
            with suppress(OSError):
                child.mine.send("stop")
            done = child.result(5.0)
        finally:
            child.end()
        has_traceback = "Traceback" in server.log_file.read_text(errors="replace")
    return Row(attack, setup, seen, memory, cpu, done, has_traceback)


def beside(attack: Attack, server: Server, seconds: float) -> tuple[Seen, float | None]:
    """Return what good clients see beside an attack that has begun, and the CPU time of it."""
    cpu = None
    time.sleep(SETTLE)
    if attack.quiet == "before":
        cpu = cpu_share(server)
    seen = good(server.port, seconds)
    if attack.quiet == "after":
        time.sleep(max(0.5, IDLE - SETTLE - seconds))
        cpu = cpu_share(server)
    return seen, cpu


def parsed() -> argparse.Namespace:
    """Return the options of the command line."""
    names = [attack.name for attack in ATTACKS]
    parser = argparse.ArgumentParser("python -m bench.hostile", description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=8.0, help="for each attack")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--checkout", type=Path, default=ROOT, help="of the hasher to measure")
    parser.add_argument("--worker-class", help="instead of hasher's own")
    return parser.parse_args()


def main() -> None:
    """Measure, print a row for each attack, and end with 1 if one was not withstood."""
    options = parsed()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the servers end with it
    print(LAYOUT.format(*HEADINGS.split(), "", "times in ms"), flush=True)
    missed = 0
    for workers in options.workers:
        for threads in options.threads:
            setup = Setup(options.checkout.resolve(), options.worker_class, threads, workers)
            for attack in ATTACKS:
                if attack.name in options.only:
                    row = measure(attack, setup, options.seconds)
                    missed += bool(row.misses)
                    print(row, flush=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        sys.exit(f"bench: {failure}.")
    except KeyboardInterrupt:
        sys.exit("bench: stopped.")
