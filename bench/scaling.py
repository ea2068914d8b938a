"""The capacity model held against this machine: what it predicts, what is measured, how far off.

What a request costs is measured in seconds of a core, not in requests a second: other programs
change the second more than the first. From these costs the model says how much more two workers
answer than one, and how much more a cache lets through; both are then measured.
"""

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any

from bench import capacity, machine, report, seeds
from bench.compare import say, scratch
from bench.contenders import hasher, instance, proxy
from bench.load import GET, Load, run
from hasher_tune.servers import Server
from hasher_tune.stores import STORES, ask

Results = dict[str, Any]
WORKERS = (1, 2)
HITS = (0.0, 0.5, 0.9)  # shares of reads that nginx has cached
COLD = 6000  # messages that are stored for each second of reads that nginx has not cached
STORED_FIRST = 5000  # messages, before memory is weighed: what a process takes for its first bulk
SETTLED = 0.1  # seconds in which no more reads come
ANSWERED = re.compile(r'hasher_requests_total\{method="GET",route="/messages/<digest>",.*\} (\S+)')


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    seconds: int = 2
    """Of every single measurement."""
    rounds: int = 5
    stored: int = 300_000
    """How many messages the stores are weighed with."""


@dataclass(frozen=True)
class Cost:
    """What was answered in a second, and what each answer took, in seconds of a core."""

    rate: float
    answered: int
    server: float
    load: float
    front: float = 0.0
    hits: float = 0.0
    """The share of reads that the front had cached."""


@dataclass(frozen=True)
class Check:
    """A prediction, and what was measured, round by round."""

    what: str
    unit: str
    predicted: float
    measured: list[float]


def scaling(effort: Effort) -> Results:
    """Every check: {"machine": ..., "effort": ..., "costs": {...}, "checks": [...]}."""
    with scratch() as folder:
        about = machine.describe(folder)
    costs: dict[str, float] = {}
    checks = [
        *of_workers(effort, costs),
        *of_cache(effort, costs),
        *(of_memory(store, effort.stored) for store in capacity.BYTES),
    ]
    return {
        "machine": about,
        "effort": {**asdict(effort), "connections": GET.connections},
        "costs": costs,
        "checks": [asdict(check) for check in checks],
    }


def weighed(load: Load, server: Server, digests: Path, seconds: int, front: Server | None) -> Cost:
    """Put `load` on `server`, through `front` where there is one; what that cost."""
    programs = [server, *([front] if front else [])]
    before = [program.cpu() for program in programs]
    found = run(load, (front or server).port, digests, seconds)
    spent = [program.cpu() - earlier for program, earlier in zip(programs, before, strict=True)]
    each = [cpu / 1e9 / found.answered for cpu in spent]
    return Cost(found.rate, found.answered, each[0], found.load_cpu / found.rate, sum(each[1:]))


def middle(costs: list[Cost], name: str) -> float:
    """The median of one of their figures."""
    return float(median(getattr(cost, name) for cost in costs))


def of_workers(effort: Effort, costs: dict[str, float]) -> list[Check]:
    """One worker and two on SQLite, with wrk on the same cores."""
    found: dict[int, list[Cost]] = {count: [] for count in WORKERS}
    for number in range(effort.rounds):
        for count in WORKERS:
            say(f"round {number + 1} of {effort.rounds}: {count} of SQLite's workers")
            found[count].append(reads_of(count, effort.seconds))
    costs["sqlite"], costs["wrk"] = middle(found[1], "server"), middle(found[1], "load")
    usable = len(os.sched_getaffinity(0))
    return [
        Check(
            f"GET, SQLite, workers: {count}",
            "requests/s",
            capacity.workers(usable, 1 / costs["sqlite"], costs["wrk"], count),
            [cost.rate for cost in found[count]],
        )
        for count in WORKERS
    ]


def reads_of(workers: int, seconds: int) -> Cost:
    """What reads cost with so many workers, which may use every core, as wrk may."""
    with (
        scratch() as folder,
        hasher(folder, None, "sqlite", WEB_CONCURRENCY=str(workers)) as server,
    ):
        seeds.sow(server.port, folder / "digests")
        return weighed(GET, server, folder / "digests", seconds, None)


def of_cache(effort: Effort, costs: dict[str, float]) -> list[Check]:
    """One worker behind nginx: hasher has a core, nginx and wrk another."""
    shares = (*HITS, 1.0)
    found: dict[float, list[Cost]] = {hits: [] for hits in shares}
    with cached_service(effort) as (origin, front, digests):
        for number in range(effort.rounds):
            for hits in shares:
                say(f"round {number + 1} of {effort.rounds}: {hits:.0%} of the reads are cached")
                found[hits].append(reads_through(front, origin, digests, hits, effort.seconds))
    costs["origin"] = middle(found[0.0], "server")
    costs["miss"], costs["hit"] = (middle(found[hits], "front") for hits in (0.0, 1.0))
    return [through_nginx(found[hits], costs) for hits in HITS]


def through_nginx(measured: list[Cost], costs: dict[str, float]) -> Check:
    """The check of reads of which nginx had cached a share, for the share that it really had.

    wrk has its core together with nginx.
    """
    hits, load = middle(measured, "hits"), middle(measured, "load")
    return Check(
        f"GET through nginx, of which it had cached: {hits:.0%}",
        "requests/s",
        capacity.cached(1 / costs["origin"], hits, costs["hit"] + load, costs["miss"] + load),
        [cost.rate for cost in measured],
    )


Digests = Iterator[Path]


@contextmanager
def cached_service(effort: Effort) -> Iterator[tuple[Server, Server, Digests]]:
    """hasher, nginx before it with seeds.SEEDS messages cached, and files of digests to read.

    Each file begins with those, and has others behind them that are in no other file.
    """
    server_core, load_core = machine.cores()
    usable = os.sched_getaffinity(0)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        origin = stack.enter_context(instance(folder, str(server_core), "memory://"))
        front = stack.enter_context(proxy(folder, str(load_core), [origin.port] * 3))
        stack.callback(os.sched_setaffinity, 0, usable)
        os.sched_setaffinity(0, {load_core})  # wrk inherits it
        each = COLD * effort.seconds
        seeds.sow(front.port, folder / "hot")
        runs = effort.rounds * (len(HITS) + 1)
        seeds.sow_many(origin.port, seeds.SEEDS + runs * each, folder / "sample")
        yield origin, front, digests_of(folder / "digests", each)


def digests_of(file: Path, each: int) -> Digests:
    """`file`, again and again, with the cached digests and so many that were in it never before."""
    start = seeds.SEEDS
    while True:
        seeds.write_digests(file, [*range(seeds.SEEDS), *range(start, start + each)])
        yield file
        start += each


def reads_through(
    front: Server, origin: Server, digests: Digests, hits: float, seconds: int
) -> Cost:
    """What reads cost of which nginx is to have cached that share.

    The cost to hasher is for each request that reached it.
    """
    before = answered_by(origin)
    load = Load(f"{hits:.0%} cached", (f"{hits * 100:.0f}",), "cached.lua")
    cost = weighed(load, origin, next(digests), seconds, front)
    reached = min(1.0, (answered_by(origin) - before) / cost.answered)  # nginx may ask it twice
    server = cost.server / reached if reached else 0.0
    return replace(cost, server=server, hits=1 - reached)


def answered_by(server: Server) -> float:
    """How many reads this instance has answered, once those that a run has left behind have come.

    nginx waits for what it is to cache, also when wrk has gone.
    """
    last, now = -1.0, counted(server)
    while now != last:
        time.sleep(SETTLED)
        last, now = now, counted(server)
    return now


def counted(server: Server) -> float:
    """The reads that its metrics tell of."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("GET", "/metrics")
        return sum(map(float, ANSWERED.findall(connection.getresponse().read().decode())))
    finally:
        connection.close()


def of_memory(store: str, count: int) -> Check:
    """What each of so many messages takes in a store."""
    say(f"{count:,} messages in {store}")
    with scratch() as folder, STORES[store](folder) as url, instance(folder, None, url) as server:
        seeds.sow_many(server.port, STORED_FIRST, folder / "digests")
        before = taken(store, server, url)
        seeds.sow_many(server.port, STORED_FIRST + count, folder / "digests")
        after = taken(store, server, url)
    return Check(
        f"{store}, {count:,} messages of 100 bytes",
        "bytes a message",
        capacity.BYTES[store],
        [(after - before) / count],
    )


def taken(store: str, server: Server, url: str) -> float:
    """The bytes that a store takes: of memory, or on the disk without SQLite's log."""
    if store == "memory":
        return server.memory()[0] * 1e6
    if store == "sqlite":
        return Path(url.removeprefix("sqlite:///")).stat().st_size
    port = int(url.rpartition(":")[2])
    (used,) = re.findall(rb"used_memory:(\d+)", ask(port, b"INFO memory"))
    return int(used)


def markdown(results: Results) -> str:
    """The checks as a table, with how far the model is off."""
    about, effort = results["machine"], results["effort"]
    told = (
        f"Measured on {about['date']}: {about['cpu']}, {about['cores']} cores, "
        f"{about['system']}; {effort['rounds']} interleaved rounds of {effort['seconds']} s, "
        f"{effort['connections']} connections; medians, with the least and the most. "
        f"Other programs took {about['busy']:.0%} of the cores at the start."
    )
    costs = ", ".join(
        f"{COSTS[name]} {seconds * 1e6:,.0f}" for name, seconds in results["costs"].items()
    )
    priced = f"A request's cost in millionths of a second of a core: {costs}."
    head = ["", "unit", "predicted", "measured", "measured against predicted"]
    rows = [row(Check(**check)) for check in results["checks"]]
    texts = [fill(text, report.WIDTH) for text in (told, priced)]
    return "\n\n".join([*texts, report.table(head, rows)]) + "\n"


COSTS = {
    "sqlite": "hasher on SQLite",
    "wrk": "wrk",
    "origin": "hasher on memory, behind nginx",
    "miss": "nginx, not cached",
    "hit": "nginx, cached",
}


def row(check: Check) -> list[str]:
    """A row of the table."""
    measured = report.Spread(median(check.measured), min(check.measured), max(check.measured))
    off = measured.median / check.predicted - 1
    return [check.what, check.unit, f"{check.predicted:,.0f}", f"{measured:,.0f}", f"{off:+.0%}"]


def write(results: Results, folder: Path) -> None:
    """scaling.json and scaling.md in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scaling.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "scaling.md").write_text(markdown(results))
