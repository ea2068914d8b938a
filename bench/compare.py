"""The comparison: every contender on the same core under the same load, in interleaved rounds."""

import os
import random
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench import machine, seeds
from bench.contenders import BIN, CONTENDERS, HASHER, ROOT, Contender, before, hasher
from bench.load import BULK, GET, POST, Load, run
from hasher_tune.servers import Failed, Server, environment
from hasher_tune.stores import ask

Results = dict[str, Any]
GROWING = ("memory", "sqlite", "redis", "postgresql")


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    seconds: int = 1
    """Of every single measurement."""
    rounds: int = 5
    stored: int = 1_000_000
    """How many messages a full store has."""
    most: int = 0
    """How many a fuller SQLite has; 0: none is measured."""
    only: list[str] = field(default_factory=list)
    """The names of those who take part; empty: all."""
    before: str = ""
    """A commit whose hasher takes part too."""

    def contenders(self) -> list[Contender]:
        """Those who take part."""
        everyone = [*CONTENDERS, *(before(self.before) if self.before else [])]
        return [one for one in everyone if not self.only or one.name in self.only]


def compare(effort: Effort) -> Results:
    """Every figure, by contender and by store, as lists with an item for each round."""
    server_core, load_core = machine.cores()
    with scratch() as folder:
        about = machine.describe(folder)
    os.sched_setaffinity(0, {load_core})  # wrk and Redis inherit it
    part = {one.name for one in effort.contenders()}
    sizes = [(store, effort.stored) for store in GROWING if HASHER.get(store) in part]
    if effort.most and HASHER["sqlite"] in part:
        sizes.append(("sqlite", effort.most))
    return {
        "machine": about,
        "effort": asdict(effort),
        "contenders": rounds(effort, str(server_core)),
        "growth": [growth(store, stored, effort, str(server_core)) for store, stored in sizes],
    }


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder on the project's disk: /tmp may be in memory, where syncing is free."""
    with TemporaryDirectory(prefix=".bench-", dir=ROOT) as folder:
        yield Path(folder)


@dataclass(frozen=True)
class Running:
    """A contender whose server runs, and its files of the digests to read, by message size."""

    contender: Contender
    server: Server
    digests: dict[int, Path]


def rounds(effort: Effort, core: str) -> Results:
    """What each contender measured, round by round.

    In a round all servers run, and wait; each load is put on one after the other, in random order,
    so that those that are compared meet the same seconds of the machine.
    """
    chosen = effort.contenders()
    found: Results = {one.name: {"failures": []} for one in chosen}
    loads = list(dict.fromkeys(load for one in chosen for load in one.loads))
    for number in range(effort.rounds):
        say(f"round {number + 1} of {effort.rounds}")
        with scratch() as folder, ExitStack() as stack:
            running = [start(one, folder, core, stack, found[one.name]) for one in chosen]
            for load in loads:
                asked = [one for one in running if one and load in one.contender.loads]
                for one in random.sample(asked, len(asked)):
                    measure(one, load, effort.seconds, found[one.contender.name])
    return found


def start(
    contender: Contender, folder: Path, core: str, stack: ExitStack, found: Results
) -> Running | None:
    """A server that has proved to be right, until `stack` ends; None if it failed to be so."""
    figures: Results = dict.fromkeys(["start", "pss", *(x.name for x in contender.loads)])
    for name in figures:
        found.setdefault(name, []).append(None)
    if missing := contender.missing():
        found["failures"].append(f"missing: {', '.join(missing)}")
        return None
    home = folder / re.sub(r"\W+", "-", contender.name)
    home.mkdir()
    try:
        server = stack.enter_context(contender.start(home, core))
        found["start"][-1] = server.seconds_to_start
        found["pss"][-1] = server.memory()
        return Running(contender, server, sown(contender, server, home))
    except Failed as failure:
        found["failures"].append(str(failure))
        return None


def sown(contender: Contender, server: Server, home: Path) -> dict[int, Path]:
    """Files of digests to read, once what they name is stored, by the size of the messages."""
    sizes = {load.size for load in contender.loads}
    files = {size: home / f"digests-{size}" for size in sizes}
    if contender.stores:
        seeds.check(server.port)
    for size, file in files.items():
        if contender.stores:
            seeds.sow(server.port, file, size)
        else:
            seeds.write_digests(file, range(seeds.SEEDS))
    return files


def measure(one: Running, load: Load, seconds: int, found: Results) -> None:
    """Put the load on the server, and keep the figures, or why there are none."""
    try:
        if load is BULK:
            seeds.store_bulk(one.server.port, range(2))
        figures = run(load, one.server.port, one.digests[load.size], seconds, one.server.cpu)
        found[load.name][-1] = asdict(figures)
    except Failed as failure:
        found["failures"].append(f"{load.name}: {failure}")


def growth(store: str, stored: int, effort: Effort, core: str) -> Results:
    """The figures with `stored` messages and with SEEDS, side by side.

    They are under "many" and "few", and what `flask store import` did under "import". If a store
    failed, that is told in "failure".
    """
    say(f"{stored:,} messages in {store}")
    found: Results = {"store": store, "stored": stored, "import": {}}
    found |= {size: {"GET": [], "POST": []} for size in ("few", "many")}
    with ExitStack() as stack:
        try:
            servers: dict[str, tuple[Server, Path]] = {}
            for size in ("few", "many"):
                folder = stack.enter_context(scratch())
                server = stack.enter_context(hasher(folder, core, store))
                servers[size] = server, folder / "digests"
            seeds.sow(servers["few"][0].port, servers["few"][1])
            before = taken(store, servers["many"][0])
            found["import"] = fill(store, stored, *servers["many"], core)
            found["bytes"] = (taken(store, servers["many"][0]) - before) / stored
            alternate(found, servers, effort)
        except Failed as failure:
            found["failure"] = str(failure)
    return found


def fill(store: str, stored: int, server: Server, digests: Path, core: str) -> Results:
    """Store so many messages: by `flask store import`, or over HTTP if only the server can.

    Return what the import took.
    """
    if store == "memory":
        seeds.sow_many(server.port, stored, digests)
        return {}
    export = digests.with_name("export")
    seeds.write_export(export, stored)
    took = imported(export, server.settings["HASHER_STORE"], stored, core)
    export.unlink()
    seeds.write_digests(digests, seeds.sample(stored))
    return took


def taken(store: str, server: Server) -> float:
    """The bytes that a store takes: of memory, or on the disk without SQLite's log."""
    url = server.settings["HASHER_STORE"]
    if store == "sqlite":
        return Path(url.removeprefix("sqlite:///")).stat().st_size
    if store == "redis":
        said = ask(int(url.rpartition(":")[2]), b"INFO memory")
        return int(re.findall(rb"used_memory:(\d+)", said)[0])
    if store == "postgresql":
        size = "SELECT pg_total_relation_size('hasher_messages')"
        return int(subprocess.check_output(["psql", url, "-Atc", size]))
    return server.memory() * 1e6


def alternate(found: Results, servers: dict[str, tuple[Server, Path]], effort: Effort) -> None:
    """Measure the servers in turn, load by load."""
    for _ in range(effort.rounds):
        for load in (GET, POST):
            for size, (server, digests) in servers.items():
                figures = run(load, server.port, digests, effort.seconds, server.cpu)
                found[size][load.name].append(asdict(figures))


def imported(export: Path, url: str, count: int, core: str) -> Results:
    """What `flask store import` of an export took: messages a second, and MB of memory."""
    command = ["taskset", "-c", core, f"{BIN}/flask", "--app", "wsgi", "store", "import"]
    env = environment({"HASHER_STORE": url})
    began = time.monotonic()
    with export.open("rb") as lines, export.with_name("log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=lines, stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
    if status:
        raise Failed(f"flask store import ended with {os.waitstatus_to_exitcode(status)}")
    return {"rate": count / (time.monotonic() - began), "memory": used.ru_maxrss * 1024 / 1e6}


def say(what: str) -> None:
    """Tell the user who waits."""
    print(what, flush=True)
