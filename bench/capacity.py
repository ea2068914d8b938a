"""The capacity model of docs/scaling.md: its formulae, and its tables, from what was measured.

Rates are a second, sizes in bytes. A core of nginx's or of hasher's is one that does nothing else.
"""

from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from bench.contenders import COLD_FRONT, FRONT, HASHER, TWO_WORKERS
from bench.report import spread, table, values

BYTES = {"memory": 267, "sqlite": 192, "redis": 261, "postgresql": 268}  # of a message of 100 bytes
OVERHEAD = 161  # of which in Redis, whatever the message's size
HEAD = 450  # bytes of an answer's head
USED = 0.6  # of each core: the rest is for bursts, and for the machine that is down
THREADS = 8
SPARE = 50  # connections to a Redis server, for replicas, monitoring and operators
SLOTS = 16384  # https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
NODE = 16 * 10**9  # `maxmemory` of a Redis server on a machine of 32 GB: the rest is for its saves
LOADS = {"GET": "`G`, reads", "POST": "`P`, writes", "bulk": "`B`, messages in bulk"}

Rates = dict[tuple[str, str], float]
"""What a core does in a second, as measured, by load and store; ("GET", "nginx") is its cache."""


@dataclass(frozen=True)
class Demand:
    """What a deployment is to carry; `hits` is the share of reads that caches answer."""

    messages: int
    reads: float
    writes: float
    hits: float
    size: int = 100

    @property
    def reach(self) -> float:
        """The reads that reach hasher."""
        return (1 - self.hits) * self.reads

    @property
    def room(self) -> int:
        """The bytes that the messages take in Redis."""
        return self.messages * (self.size + OVERHEAD)

    @property
    def masters(self) -> int:
        """The Redis servers that have room for the messages; a cluster has three at least."""
        needed = ceil(self.room / NODE)
        return 1 if needed == 1 else max(3, needed)

    def cores(self, get: float, post: float) -> int:
        """The cores for hasher's workers."""
        return ceil((self.reach / get + self.writes / post) / USED)


PLANET = Demand(messages=10**9, reads=1e6, writes=1000, hits=0)
HITS = (0, 0.9, 0.99, 0.999)


def workers(cores: float, rate: float, load: float = 0.0, count: int = 1) -> float:
    """The requests that `count` workers answer, each at `rate` on a core of its own.

    `load` is what another program takes for each request, in seconds of a core, on these cores.
    """
    return min(count * rate, cores / (1 / rate + load))


def connections(worker_processes: int, threads: int = THREADS) -> int:
    """Those that each Redis server must take."""
    return worker_processes * threads + SPARE


def rates(bench: dict[str, Any]) -> Rates:
    """The medians of `make bench`, of what it has measured."""
    names = {**HASHER, "nginx": FRONT}
    found = {(x, store): spread(values(bench, names[store], x)) for x in LOADS for store in names}
    return {place: rate.median for place, rate in found.items() if rate}


def rounded(rate: float | None) -> str:
    """A rate in two digits, which is what it is good for; what was not measured says so."""
    return f"{float(f'{rate:.2g}'):,.0f}" if rate else "not measured"


def tables(bench: dict[str, Any]) -> dict[str, str]:
    """The tables of docs/scaling.md, by name."""
    known = rates(bench)
    return {
        "one core": quantities(known),
        "the model": checks(bench),
        "given machines": given(known),
        "a billion messages": stored(),
        "a million reads": wanted(known),
    }


def checks(bench: dict[str, Any]) -> str:
    """What the model predicts, what was measured, and how far that is off.

    It predicts from what a request costs in CPU time, and from the size of a message.
    """
    rows = []
    front, two = ((values(bench, name, "GET", "rate")) for name in (COLD_FRONT, TWO_WORKERS))
    miss, one = (cost(bench, name, "cpu") for name in (COLD_FRONT, HASHER["sqlite"]))
    if one and miss and (measured := spread(front)):
        rows.append(("GET through nginx, not cached, requests/s", 1 / (miss + one), measured))
    if one and (measured := spread(two)):
        load = (cost(bench, TWO_WORKERS, "load_cpu") or 0) * 1e6 / measured.median
        predicted = workers(bench["machine"]["cores"], 1 / one, load, 2)
        rows.append(("GET, sqlite, two workers, requests/s", predicted, measured))
    for found in bench["growth"]:
        if found["store"] in BYTES and (measured := spread([found.get("bytes")])):
            what = f"{found['store']}, {found['stored']:,} messages of 100 bytes, bytes of each"
            rows.append((what, BYTES[found["store"]], measured))
    shown = [
        [what, f"{predicted:,.0f}", f"{measured:,.0f}", f"{measured.median / predicted - 1:+.0%}"]
        for what, predicted, measured in rows
    ]
    return table(["", "predicted", "measured", "measured against predicted"], shown)


def cost(bench: dict[str, Any], contender: str, figure: str) -> float | None:
    """A median under GET, of what is told in millionths."""
    found = spread(values(bench, contender, "GET", figure))
    return found.median / 1e6 if found else None


def quantities(known: Rates) -> str:
    """What a core does."""
    rows = [
        [name, *(rounded(known.get((load, store))) for store in HASHER), ""]
        for load, name in LOADS.items()
    ]
    hits = rounded(known.get(("GET", "nginx")))
    rows.append(["`H`, reads that nginx has cached", *("" for _ in HASHER), hits])
    return table(["of one core, a second", *HASHER, "nginx"], rows)


def given(known: Rates) -> str:
    """What given machines carry: two cores of hasher, and six behind two of nginx."""
    one, fleet = known["GET", "sqlite"] * 2, known["GET", "redis"] * 6 / (1 - 0.9)
    fleet = min(fleet, 2 * known.get(("GET", "nginx"), fleet))
    writes = [cores * known["POST", store] for cores, store in ((2, "sqlite"), (6, "redis"))]
    room = [f"{10**10 / BYTES[store] / 1e6:,.0f} million" for store in ("sqlite", "redis")]
    rows = [
        ["store", "sqlite", "redis"],
        ["cores of hasher `c`", "2", "6"],
        ["hit ratio `h`", "0", "0.9"],
        ["reads a second `ρ·min(c·G/(1−h), f·H)`", rounded(USED * one), rounded(USED * fleet)],
        ["or writes a second `ρ·c·P`", *(rounded(USED * rate) for rate in writes)],
        ["messages of 100 bytes in 10 GB `10¹⁰/b`", *room],
        ["connections to Redis `w·t + 50`", "", str(connections(6))],
    ]
    return table(["", "one small VM", "three machines behind nginx"], rows)


def wanted(known: Rates) -> str:
    """What a billion messages and a million reads a second take, by hit ratio."""
    demands = [replace(PLANET, hits=hits) for hits in HITS]
    cores = [demand.cores(known["GET", "cluster"], known["POST", "cluster"]) for demand in demands]
    m = PLANET.masters
    rows: dict[str, list[float]] = {
        "reads that reach hasher, a second": [demand.reach for demand in demands],
        "cores of hasher `c`, one worker each": [*cores],
        "instances of 8 workers": [ceil(number / 8) for number in cores],
        "Redis masters `m`": [m] * len(demands),
        "commands a master answers, a second": [(x.reach + x.writes) / m for x in demands],
        "connections of a master, 8 threads": [connections(number) for number in cores],
        "connections of a master, 2 threads": [connections(number, 2) for number in cores],
    }
    shown = [[name, *(f"{value:,.0f}" for value in row)] for name, row in rows.items()]
    bits = [f"{x.reach * (x.size + HEAD) * 8 / 1e9:,.3f}" for x in demands]
    shown.append(["from hasher to the caches, Gbit/s", *bits])
    return table(["hit ratio `h`", *(f"{hits:g}" for hits in HITS)], shown)


def stored() -> str:
    """What the messages of PLANET take in Redis, which no cache changes."""
    m = PLANET.masters
    rows = [
        ["memory `N·(s + 161)`", f"{PLANET.room / 1e9:,.0f} GB"],
        [f"masters `m`, of {NODE / 1e9:.0f} GB `maxmemory` each", f"{m}"],
        ["with a replica each: servers, machines of 32 GB", f"{2 * m}"],
        ["messages a master", f"{PLANET.messages / m / 1e6:,.0f} million"],
        ["slots a master", f"{SLOTS // m:,}"],
        ["messages a slot", f"{PLANET.messages / SLOTS:,.0f}"],
    ]
    return table(["a billion messages of 100 bytes", ""], rows)
