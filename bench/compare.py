"""The comparison: every contender on the same core under the same load, in interleaved rounds."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench import machine, seeds
from bench.contenders import CONTENDERS, HASHER, ROOT, Contender, hasher
from bench.load import BULK, CONNECTIONS, GET, POST, Failed, Load, run
from bench.servers import Server
from bench.stores import STORES

Results = dict[str, Any]


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    seconds: int = 2
    """Of every single measurement."""
    rounds: int = 5
    stored: int = 1_000_000
    """How many messages a full store has."""
    only: tuple[str, ...] = ()
    """The names of those who take part; empty: all."""

    def takes_part(self, name: str) -> bool:
        """Whether the contender of that name does."""
        return not self.only or name in self.only


def compare(effort: Effort) -> Results:
    """Every figure, by contender and by store, as lists with an item for each round."""
    server_core, load_core = machine.cores()
    with scratch() as folder:
        about = machine.describe(folder)
    os.sched_setaffinity(0, {load_core})  # wrk and Redis inherit it
    stores = [store for store in STORES if effort.takes_part(HASHER[store])]
    return {
        "machine": about,
        "effort": {**asdict(effort), "connections": CONNECTIONS, "message_bytes": 100},
        "contenders": rounds(effort, server_core),
        "growth": {store: growth(store, effort, server_core) for store in stores},
    }


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder on the project's disk: /tmp may be in memory, where syncing is free."""
    with TemporaryDirectory(prefix=".bench-", dir=ROOT) as folder:
        yield Path(folder)


def rounds(effort: Effort, core: int) -> Results:
    """What each contender measured, round by round, each on a server of its own."""
    chosen = [contender for contender in CONTENDERS if effort.takes_part(contender.name)]
    found: Results = {contender.name: {"failures": []} for contender in chosen}
    for number in range(effort.rounds):
        for contender in chosen:
            say(f"round {number + 1} of {effort.rounds}: {contender.name}")
            collect(found[contender.name], one_round(contender, effort.seconds, core))
    return found


def collect(lists: Results, figures: Results) -> None:
    """Append each figure to its list; None keeps a place, so that rounds stay aligned."""
    lists["failures"] += figures.pop("failures")
    for name, value in figures.items():
        lists.setdefault(name, []).append(value)


def one_round(contender: Contender, seconds: int, core: int | None) -> Results:
    """One server's figures: {"start": s, "pss": MB, "rss": MB, "GET": {...}, ...}; None if failed.

    What failed is told in "failures".
    """
    found: Results = dict.fromkeys(["start", "pss", "rss", *(x.name for x in contender.loads)])
    found["failures"] = []
    if missing := contender.missing():
        found["failures"].append(f"missing: {', '.join(missing)}")
        return found
    try:
        with scratch() as folder, contender.start(folder, core) as server:
            found["start"] = server.seconds_to_start
            found["pss"], found["rss"] = server.memory()
            measure_all(contender, server, folder / "digests", seconds, found)
    except Failed as failure:
        found["failures"].append(str(failure))
    return found


def measure_all(
    contender: Contender, server: Server, digests: Path, seconds: int, found: Results
) -> None:
    """Put each of the contender's loads on its server, once that has proved to be right."""
    if contender.stores:
        seeds.check(server.port)
        seeds.sow(server.port, digests)
    else:
        seeds.write_digests(digests, range(seeds.SEEDS))
    for load in contender.loads:
        try:
            found[load.name] = measured(load, server.port, digests, seconds)
        except Failed as failure:
            found["failures"].append(f"{load.name}: {failure}")


def measured(load: Load, port: int, digests: Path, seconds: int) -> Results:
    """The figures of one load, as a dict."""
    if load is BULK:
        seeds.require_bulk(port)
    return asdict(run(load, port, digests, seconds))


def growth(store: str, effort: Effort, core: int) -> Results:
    """Rates with `effort.stored` messages against SEEDS, side by side: {"few": {"GET": [...]}}."""
    found: Results = {"few": {"GET": [], "POST": []}, "many": {"GET": [], "POST": []}}
    say(f"{effort.stored:,} messages: {HASHER[store]}")
    try:
        with ExitStack() as stack:
            servers = {}
            for size in found:
                folder = stack.enter_context(scratch())
                server = stack.enter_context(hasher(folder, core, store))
                servers[size] = (server.port, folder / "digests")
            seeds.sow(*servers["few"])
            seeds.sow_many(servers["many"][0], effort.stored, servers["many"][1])
            alternate(found, servers, effort)
    except Failed as failure:
        found["failure"] = str(failure)
    return found


def alternate(found: Results, servers: dict[str, tuple[int, Path]], effort: Effort) -> None:
    """Measure the servers in turn, load by load."""
    for _ in range(effort.rounds):
        for load in (GET, POST):
            for size, (port, digests) in servers.items():
                found[size][load.name].append(asdict(run(load, port, digests, effort.seconds)))


def say(what: str) -> None:
    """Tell whoever waits."""
    print(what, flush=True)
