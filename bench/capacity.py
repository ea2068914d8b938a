"""The capacity model of docs/scaling.md: its formulae, and its tables, from what was measured.

Rates are a second, sizes in bytes. A core of nginx's or of hasher's is one that does nothing else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from statistics import median
from typing import Any

from bench.contenders import FRONT, HASHER
from bench.report import table, values

Results = dict[str, Any]

BYTES = {"memory": 267, "sqlite": 192, "redis": 261}  # that a message of 100 bytes takes
OVERHEAD = 161  # of which in Redis, whatever the message's size
HEAD = 450  # bytes of an answer's head
USED = 0.6  # of each core: the rest is for bursts, and for the machine that is down
THREADS = 8
SPARE = 50  # connections to a Redis server, for replicas, monitoring and operators
SLOTS = 16384  # https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
NODE = 16 * 10**9  # `maxmemory` of a Redis server on a machine of 32 GB: the rest is for its saves


@dataclass(frozen=True)
class Demand:
    """What a deployment is to carry; `hits` is the share of reads that caches answer."""

    messages: int
    reads: float
    writes: float
    hits: float
    size: int = 100


def workers(cores: float, rate: float, load: float = 0.0, count: int = 1) -> float:
    """The requests that `count` workers answer, each at `rate` on a core of its own.

    `load` is what another program takes for each request, in seconds of a core, on these cores.
    """
    return min(count * rate, cores / (1 / rate + load))


def cached(origin: float, hits: float, hit: float, miss: float) -> float:
    """The reads that a front with one core answers before an origin that answers `origin`.

    `hit` and `miss` are the front's own seconds of that core for each.
    """
    front = 1 / (hits * hit + (1 - hits) * miss)
    return min(origin / (1 - hits), front) if hits < 1 else front


def cores(demand: Demand, get: float, post: float) -> int:
    """The cores for hasher's workers."""
    return ceil(((1 - demand.hits) * demand.reads / get + demand.writes / post) / USED)


def masters(demand: Demand) -> int:
    """The Redis servers that have room for the messages; a cluster has three at least."""
    needed = ceil(room(demand) / NODE)
    return 1 if needed == 1 else max(3, needed)


def room(demand: Demand) -> int:
    """The bytes that the messages take in Redis."""
    return demand.messages * (demand.size + OVERHEAD)


def connections(worker_processes: int, threads: int = THREADS) -> int:
    """Those that each Redis server must take."""
    return worker_processes * threads + SPARE


def network(rate: float, size: int) -> float:
    """Bits a second of so many answers."""
    return rate * (size + HEAD) * 8


@dataclass(frozen=True)
class Rates:
    """What a core does in a second, as measured: requests by load and store, and nginx's hits."""

    found: dict[tuple[str, str], float | None]
    hits: float | None

    def of(self, load: str, store: str) -> float:
        """A rate that is known; ValueError where it was not measured."""
        if (rate := self.found[load, store]) is None:
            raise ValueError(f"{load} on {store} was not measured: run make bench.")
        return rate


LOADS = ("GET", "POST", "bulk")


def rates(bench: Results) -> Rates:
    """The medians of `make bench`."""
    found = {
        (load, store): middle(values(bench, HASHER[store], load))
        for load in LOADS
        for store in HASHER
    }
    return Rates(found, middle(values(bench, FRONT, "GET")))


def middle(measured: Sequence[float | None]) -> float | None:
    """The median of the rounds that have a value."""
    known = [value for value in measured if value is not None]
    return median(known) if known else None


def quantities(known: Rates) -> str:
    """The table of what a core does."""
    symbols = {"GET": "`G`, reads", "POST": "`P`, writes", "bulk": "`B`, messages in bulk"}
    rows = [
        [symbols[load], *(rounded(known.found[load, store]) for store in HASHER), ""]
        for load in LOADS
    ]
    rows.append(["`H`, reads that nginx has cached", *("" for _ in HASHER), rounded(known.hits)])
    return table(["of one core, a second", *HASHER, "nginx"], rows)


def rounded(rate: float | None) -> str:
    """A rate in two digits, which is what it is good for; what was not measured says so."""
    return f"{float(f'{rate:.2g}'):,.0f}" if rate else "not measured"


def given(known: Rates) -> str:
    """The table of what given machines carry."""
    one = machines_carry(known, "sqlite", cores=2, hits=0)
    fleet = machines_carry(known, "redis", cores=6, hits=0.9)
    head = ["", "one small VM", "three machines behind nginx"]
    return table(head, [list(row) for row in zip(ROWS_OF_GIVEN, one, fleet, strict=True)])


ROWS_OF_GIVEN = (
    "store",
    "cores of hasher `c`",
    "hit ratio `h`",
    "reads a second `ρ·min(c·G/(1−h), f·H)`",
    "or writes a second `ρ·c·P`",
    "messages of 100 bytes in 10 GB `10¹⁰/b`",
    "connections to Redis `w·t + 50`",
)


def machines_carry(known: Rates, store: str, cores: int, hits: float) -> list[str]:
    """A column of `given`: what so many cores of hasher carry, and 2 of nginx where it caches."""
    reads = cores * known.of("GET", store) / (1 - hits)
    if hits and known.hits:
        reads = min(reads, 2 * known.hits)
    return [
        store,
        str(cores),
        f"{hits:g}",
        rounded(USED * reads),
        rounded(USED * cores * known.of("POST", store)),
        f"{10**10 / BYTES[store] / 1e6:,.0f} million",
        f"{connections(cores):,}" if store == "redis" else "",
    ]


PLANET = Demand(messages=10**9, reads=1e6, writes=1000, hits=0)
HITS = (0, 0.9, 0.99, 0.999)


def wanted(known: Rates) -> str:
    """The table of what a billion messages and a million reads a second take, by hit ratio."""
    get, post = known.of("GET", "cluster"), known.of("POST", "cluster")
    demands = [replace(PLANET, hits=hits) for hits in HITS]
    rows: list[tuple[str, Callable[[Demand], str]]] = [
        ("reads that reach hasher, a second", lambda x: f"{(1 - x.hits) * x.reads:,.0f}"),
        ("cores of hasher `c`, one worker each", lambda x: f"{cores(x, get, post):,}"),
        ("instances of 8 workers", lambda x: f"{ceil(cores(x, get, post) / 8):,}"),
        ("Redis masters `m`", lambda x: f"{masters(x):,}"),
        ("commands a master answers, a second", lambda x: f"{commands(x):,.0f}"),
        ("connections of a master, 8 threads", lambda x: f"{connections(cores(x, get, post)):,}"),
        (
            "connections of a master, 2 threads",
            lambda x: f"{connections(cores(x, get, post), 2):,}",
        ),
        ("from hasher to the caches, Gbit/s", lambda x: f"{leaving(x) / 1e9:,.3f}"),
    ]
    head = ["hit ratio `h`", *(f"{hits:g}" for hits in HITS)]
    return table(head, [[name, *(cell(demand) for demand in demands)] for name, cell in rows])


def commands(demand: Demand) -> float:
    """The commands that each Redis master is sent, a second."""
    return ((1 - demand.hits) * demand.reads + demand.writes) / masters(demand)


def leaving(demand: Demand) -> float:
    """Bits a second from hasher to whatever caches."""
    return network((1 - demand.hits) * demand.reads, demand.size)


def stored() -> str:
    """The table of what the messages of PLANET take in Redis, which no cache changes."""
    count = masters(PLANET)
    rows = [
        ["memory `N·(s + 161)`", f"{room(PLANET) / 1e9:,.0f} GB"],
        [f"masters `m`, of {NODE / 1e9:.0f} GB `maxmemory` each", f"{count}"],
        ["with a replica each: servers, machines of 32 GB", f"{2 * count}"],
        ["messages a master", f"{PLANET.messages / count / 1e6:,.0f} million"],
        ["slots a master", f"{SLOTS // count:,}"],
        ["messages a slot", f"{PLANET.messages / SLOTS:,.0f}"],
    ]
    return table(["a billion messages of 100 bytes", ""], rows)
