"""The search for the settings that serve the most on this machine, and how sure that is.

Each candidate's service runs, and waits while another is measured. A race (race.py) drops
those that are certainly slower, and tries the neighbours of the best. What the answer gains over
the defaults is then measured anew, since the one that has won is flattered by having won.
"""

import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from math import exp, inf, log
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Self

from hasher_tune import limits, seeds
from hasher_tune.clients import Answers, Clients, Plan, Step
from hasher_tune.processes import free_ports
from hasher_tune.race import FIRST_LOOK, Interval, Race, paired
from hasher_tune.servers import Failed, Server
from hasher_tune.stores import opened
from hasher_tune.traffic import Mix, seeds_of

SLICE = 0.25  # seconds that a candidate is measured in a block
STEP = 0.2  # seconds at each rate, for --for latency
RISE = 1.07  # from one rate to the next
STEPS = 20  # at most, in one measurement
ANEW = 0.25  # of the time, for measuring the answer against the defaults
PAIRS = range(6, 61)  # how many measurements that is of each
THREADS = (2, 8)  # of the first candidates; a worker runs two at least
FEWEST, MOST = 2, 64  # threads
COMMAND = [sys.executable, "-m", "hasher", "serve"]
ROOM = str(8 * 2**30)  # for HASHER_MEMORY_LIMIT: what is written meanwhile must not fill the store
FEW = 5  # candidates left, at most, when others join: each takes its time in every block


@dataclass(frozen=True)
class Setting:
    """What an operator sets. The simpler of two is the lesser."""

    workers: int
    threads: int
    pinned: bool = False

    def __lt__(self, other: Self) -> bool:
        return (self.workers, self.threads) < (other.workers, other.threads)

    def variables(self) -> dict[str, str]:
        """Return the setting as environment variables."""
        return {
            "WEB_CONCURRENCY": str(self.workers),
            "HASHER_THREADS": str(self.threads),
            "HASHER_CPU_AFFINITY": str(int(self.pinned)),
        }

    def __str__(self) -> str:
        return f"{self.workers} × {self.threads}{', pinned' if self.pinned else ''}"


@dataclass(frozen=True)
class Question:
    """What is asked for, of which store, under which load."""

    store: str
    """One of STORES, or the URL of a store, which then keeps the messages that are written."""
    mix: Mix
    latency: float | None = None
    """Seconds: the most that is offered with a p99 below it; None: the most that is answered."""
    minutes: float = 3.0
    connections: int = 32
    cores: str | None = None
    """The server's, as taskset takes them; the clients have the others. None: all share all."""
    clients: int = 1
    """Processes that ask."""
    cpus: int = 1
    """The CPUs that a service may use, which are its default number of workers."""

    @property
    def server_cores(self) -> set[int]:
        """The cores that the server may use."""
        return listed(self.cores) if self.cores else os.sched_getaffinity(0)

    @property
    def client_cores(self) -> list[int]:
        """The cores that the clients may use: those left, or all if none is."""
        usable = os.sched_getaffinity(0)
        return sorted(usable - self.server_cores or usable)

    @property
    def most_workers(self) -> int:
        """The most workers to try; a dict in memory has one."""
        return 1 if self.store == "memory" else 2 * self.default().workers

    def default(self) -> Setting:
        """Return what hasher does by default."""
        workers = min(len(self.server_cores), self.cpus)
        return Setting(1 if self.store == "memory" else workers, 8)

    def first(self) -> list[Setting]:
        """Return the candidates of the first block."""
        workers = sorted({1, self.default().workers})
        return [Setting(*one) for one in product(workers, THREADS, (False, True))]

    def neighbours(self, of: Setting) -> list[Setting]:
        """Return what differs from `of` by one step, within what may be tried."""
        w, t = of.workers, of.threads
        near = [replace(of, workers=number) for number in (2 * w, w // 2)]
        near += [replace(of, threads=number) for number in (2 * t, t // 2)]
        near += [replace(of, pinned=not of.pinned)]
        return [
            one
            for one in near
            if 1 <= one.workers <= self.most_workers and FEWEST <= one.threads <= MOST
        ]


class Field:
    """The services of all candidates, on one store, for a `with` block."""

    def __init__(self, question: Question, url: str, folder: Path, clients: Clients) -> None:
        self.question, self.url, self.folder, self.clients = question, url, folder, clients
        self.servers: dict[Setting, Server] = {}
        self.answers: dict[Setting, list[Answers]] = defaultdict(list)
        """What every measurement of each came to; of a rising load, the last step that held."""
        self._start_at: dict[Setting, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(list(self.servers))

    def start(self, settings: list[Setting]) -> None:
        """Start these, two at a time, with the messages stored that will be read."""
        services = {setting: self.service(setting) for setting in settings}

        def enter(setting: Setting) -> None:
            self.servers[setting] = services[setting].__enter__()

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(enter, settings))
        for setting in settings if self.question.store == "memory" else settings[:1]:
            seeds.store_all(self.servers[setting].port, seeds_of(self.question.mix))

    def service(self, setting: Setting) -> Server:
        """Return a service to start."""
        (port,) = free_ports(1)
        settings = {
            "HASHER_STORE": self.url,
            "HASHER_MEMORY_LIMIT": ROOM,
            "HASHER_HOST": "127.0.0.1",
            "HASHER_DRAIN_SECONDS": "0",
            "PORT": str(port),
            **setting.variables(),
        }
        log, cores = self.folder / f"{port}.log", self.question.cores
        return Server(COMMAND, port, log, cores, None, **settings)

    def stop(self, settings: list[Setting]) -> None:
        """End services that are not needed any more."""
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(Server.terminate, [self.servers.pop(setting) for setting in settings]))

    def measure(self, setting: Setting) -> float:
        """Return the requests a second that were answered, or could be offered."""
        if self.question.latency is None:
            return self._answered(setting)
        return self._offered(setting, self.question.latency)

    def _answered(self, setting: Setting) -> float:
        (found,) = self.clients.run(self._plan(setting, Step(SLICE)))
        self.answers[setting].append(found)
        return max(found.rate, 1.0)

    def _offered(self, setting: Setting, latency: float) -> float:
        """Offer more and more; return the rate at which p99 passes `latency`."""
        if setting not in self._start_at:
            self._start_at[setting] = self._answered(setting) / 2
            self.answers[setting].clear()
        rates = [self._start_at[setting] * RISE**step for step in range(STEPS)]
        steps = (Step(STEP, rate) for rate in rates)
        found = self.clients.run(self._plan(setting, *steps))
        held = [step for step in found if step.p99 <= latency]
        self.answers[setting].append(held[-1] if held else found[0])
        reached = crossing(rates, [step.p99 for step in found], latency)
        self._start_at[setting] = max(10.0, reached * 0.75)
        return max(reached, 1.0)

    def _plan(self, setting: Setting, *steps: Step) -> Plan:
        patience = {"patience": self.question.latency} if self.question.latency else {}
        connections = self.question.connections * (4 if self.question.latency else 1)
        port = self.servers[setting].port
        return Plan(port, self.question.mix, steps, connections, **patience)

    def p99(self, setting: Setting) -> float:
        """Return the 99th percentile of latencies, in seconds: the median of all measurements."""
        return float(median([answers.p99 for answers in self.answers[setting]] or [inf]))


def listed(cores: str) -> set[int]:
    """Return the cores of a list such as 0,2-3, as taskset takes it."""
    found: set[int] = set()
    for part in cores.split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


@contextmanager
def scratch() -> Iterator[Path]:
    """Lend an empty folder in this one: /tmp may be in memory, where syncing is free."""
    with TemporaryDirectory(prefix=".tune-", dir=Path.cwd()) as folder:
        yield Path(folder)


def crossing(rates: list[float], p99s: list[float], latency: float) -> float:
    """Return the rate at which p99 passes `latency`, between two steps by their p99s."""
    for number, p99 in enumerate(p99s):
        if p99 > latency:
            if not number:
                return rates[0] / RISE
            below = p99s[number - 1]
            part = min(1.0, (latency - below) / (p99 - below))
            return rates[number - 1] * exp(part * log(rates[number] / rates[number - 1]))
    return rates[len(p99s) - 1]


@dataclass(frozen=True)
class Standing:
    """How a candidate compares with the best."""

    setting: Setting
    against_best: Interval
    is_left: bool


@dataclass(frozen=True)
class Found:
    """What came of a search."""

    answer: Setting
    default: Setting
    choice: Setting
    """What came out of the race: the answer, or what is not certain to be better than it."""
    gain: Interval
    """Of the choice over the defaults, measured anew, with 95 %."""
    rate: float
    p99: float
    """To expect of the answer; in seconds."""
    is_decided: bool
    """Whether none left is better than the choice by what matters; otherwise time was up."""
    standings: list[Standing]
    blocks: int
    seconds: float
    clients_share: float
    """Of all the machine's cores, while it was measured."""
    taken: str
    """Of connections and files, in words."""
    refused: list[str]
    """Candidates that a limit of this machine or of the store forbids, and why."""


Say = Callable[[str], None]


def tune(question: Question, say: Say) -> Found:
    """Search for the answer; `say` is told how it goes."""
    begin = time.monotonic()
    end = begin + question.minutes * 60
    with (
        scratch() as folder,
        opened(question.store, folder) as url,
        Clients(question.clients, question.client_cores) as clients,
        Field(question, url, folder, clients) as field,
    ):
        known = limits.of(url, question.connections)
        search = Search(field, known, say)
        search.run(end - (end - begin) * ANEW)
        return search.finish(begin, end)


class Search:
    """A race of the settings that the limits allow, with those that it makes worth trying."""

    def __init__(self, field: Field, known: limits.Limits, say: Say) -> None:
        self.field, self.limits, self.say = field, known, say
        self.refused: dict[Setting, str] = {}
        self.default = field.question.default()
        if reason := known.forbid(self.default.workers, self.default.threads):
            raise Failed(f"the defaults cannot run here: {reason}")
        self.race = Race(self.allowed(field.question.first()))
        self.tried = set(self.race.left)

    def allowed(self, settings: list[Setting]) -> list[Setting]:
        """Return the settings that no limit forbids."""
        reasons = {one: self.limits.forbid(one.workers, one.threads) for one in settings}
        self.refused |= {one: reason for one, reason in reasons.items() if reason}
        return [one for one, reason in reasons.items() if not reason]

    def run(self, until: float) -> None:
        """Race until the answer is decided or time is up."""
        self.field.start(self.race.left)
        while time.monotonic() < until:
            is_look = self.block()
            self.say(self.progress(until))
            if is_look and not self.changed() and self.race.is_decided:
                return

    def block(self) -> bool:
        """Measure each candidate left, in random order; return True if a look was due."""
        order = random.sample(self.race.left, len(self.race.left))
        return self.race.add({setting: self.field.measure(setting) for setting in order})

    def changed(self) -> bool:
        """Stop what has left, start what is worth trying; return whether any of it is new."""
        self.field.stop([*(set(self.field.servers) - set(self.race.left) - {self.default})])
        few = len(self.race.left) <= FEW or self.race.is_decided
        near = self.field.question.neighbours(self.race.best) if few else []
        fresh = self.allowed([one for one in near if one not in self.tried])
        self.tried |= set(near)
        self.field.start(fresh)
        for setting in fresh:
            self.race.join(setting)
        return any(self.race.rounds(one) < FIRST_LOOK for one in self.race.left)

    def progress(self, until: float) -> str:
        """Return the state of the race in a line."""
        best, left = self.race.best, max(0.0, until - time.monotonic())
        others = "; ".join(str(one) for one in sorted(self.race.left) if one != best)
        return (
            f"block {self.race.blocks}: {len(self.race.left)} of {len(self.tried)} left, "
            f"{left:.0f} s; best {best}" + (f"; also {others}" if others else "")
        )

    def finish(self, begin: float, end: float) -> Found:
        """Measure the answer anew, beside the defaults."""
        race, field, choice = self.race, self.field, self.choice()
        standings = [
            Standing(one, race.against(one, race.best), is_left=True) for one in sorted(race.left)
        ]
        standings += [Standing(one, how, is_left=False) for one, how in sorted(race.gone.items())]
        field.answers.clear()
        self.say(f"measuring {choice} (workers × threads) against the defaults, {self.default}")
        rates = self.measured_anew(choice, end)
        gain = paired(rates[choice], rates[self.default])
        answer = self.answered(gain, choice)
        p99, limit = field.p99(answer), field.question.latency
        if limit and p99 > limit:
            raise Failed(
                f"no rate was found at which {answer} keeps p99 below {limit * 1000:g} ms: at "
                f"{median(rates[answer]):,.0f} requests a second it was {p99 * 1000:.1f} ms; "
                "ask for a higher limit, or of a machine with less else to do"
            )
        return Found(
            answer=answer,
            default=self.default,
            choice=choice,
            gain=gain,
            rate=median(rates[answer]),
            p99=p99,
            is_decided=race.is_decided,
            standings=standings,
            blocks=race.blocks,
            seconds=time.monotonic() - begin,
            clients_share=field.clients.cpu / field.clients.seconds / (os.cpu_count() or 1),
            taken=self.limits.taken(field.servers[answer], answer.workers, answer.threads),
            refused=[f"{one}: {reason}" for one, reason in self.refused.items()],
        )

    def choice(self) -> Setting:
        """Return what came out of the race; of equally simple ones, that with the lower p99.

        If p99 is given, every candidate is measured where it has that: then the faster one.
        """
        choices = self.race.choices
        return choices[0] if self.field.question.latency else min(choices, key=self.field.p99)

    def answered(self, gain: Interval, choice: Setting) -> Setting:
        """What to set: the choice, or the defaults if they may still be as good."""
        is_uncertain = not self.race.is_decided and gain.low <= 1
        return self.default if is_uncertain or gain.high < 1 else choice

    def measured_anew(self, choice: Setting, end: float) -> dict[Setting, list[float]]:
        """Return new measurements of the choice and of the defaults, side by side."""
        pair = sorted({choice, self.default})
        rates: dict[Setting, list[float]] = {setting: [] for setting in pair}
        for done in range(PAIRS.stop):
            if done >= PAIRS.start and time.monotonic() > end:
                break
            for setting in random.sample(pair, len(pair)):
                rates[setting].append(self.field.measure(setting))
        return rates
