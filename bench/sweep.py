"""The search for the sweet spot: how many workers and threads answer the most on this machine.

It climbs rather than tries all: from one thread on it doubles the threads, and from one worker on
the workers, for as long as that answers more by more than the machine's own noise. The server
may use every core, and wrk shares them with it, as other programs of a machine do.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from bench import machine, seeds
from bench.compare import say, scratch
from bench.contenders import hasher
from bench.load import Failed, run, single
from bench.report import table

CONNECTIONS = 32
LOADS = [
    single("read-heavy", reads=95, connections=CONNECTIONS),
    single("mixed", reads=50, connections=CONNECTIONS),
    single("write-heavy", reads=5, connections=CONNECTIONS),
]
BEFORE, AFTER = 3, 1  # measurements of the defaults around each climb, which tell the noise
TOO_NOISY = 0.15
STEPS_OF_THREADS = 2  # without gain, before a climb ends: a second thread alone often costs
STEPS_OF_WORKERS = 1
RULE = (
    "Threads, then workers, are doubled for as long as that answers more requests a second, by "
    f"more than the noise, under any of the loads; {STEPS_OF_THREADS} steps of threads or "
    f"{STEPS_OF_WORKERS} of workers without gain end the climb: more would only add latency. The "
    "sweet spot is the one with the lowest p99 of those that answer as many as the best but for "
    "the noise. The noise is how far repeats of the same measurement differ. "
    f"wrk, with {CONNECTIONS} connections, shares the cores with the server."
)


@dataclass(frozen=True)
class Effort:
    """How far to search."""

    stores: tuple[str, ...] = ("memory", "sqlite", "redis")
    seconds: int = 2
    """Of every single measurement."""
    workers: int = 2 * (os.cpu_count() or 1)
    """At most so many."""
    threads: int = 32
    """At most so many in each worker."""


@dataclass(frozen=True)
class Point:
    """What one setting answered under one load: requests a second, and a p99 in ms."""

    store: str
    load: str
    pinned: bool
    workers: int
    threads: int
    rate: float
    p99: float


def noise_of(rates: Sequence[float]) -> float:
    """How far measurements of the same differ, as a share of their median."""
    return (max(rates) - min(rates)) / median(rates)


def exhausted(rates: Sequence[float], noise: float, patience: int) -> bool:
    """Whether the last `patience` steps have answered no more than the best before, but for noise.

    `rates` are those of a climb, step by step.
    """
    best, steps = rates[0], 0
    for rate in rates[1:]:
        gains = rate > best * (1 + noise)
        best, steps = (rate, 0) if gains else (best, steps + 1)
    return steps >= patience


def sweet_spot(points: Iterable[Point], noise: float) -> Point:
    """Of those that answer as many as the best but for the noise, the one with the lowest p99."""
    points = list(points)
    enough = max(point.rate for point in points) * (1 - noise)
    return min((point for point in points if point.rate >= enough), key=lambda point: point.p99)


def doublings(most: int) -> Iterator[int]:
    """1, 2, 4, … up to `most`."""
    number = 1
    while number <= most:
        yield number
        number *= 2


def measure(store: str, workers: int, threads: int, seconds: int, *, pinned: bool) -> list[Point]:
    """A point for each load, on one server."""
    env: dict[str, Any] = {
        "WEB_CONCURRENCY": str(workers),
        "HASHER_THREADS": str(threads),
        "HASHER_CPU_AFFINITY": str(int(pinned)),
    }
    points = []
    with scratch() as folder, hasher(folder, None, store, **env) as server:
        seeds.sow(server.port, folder / "digests")
        for load in LOADS:
            found = run(load, server.port, folder / "digests", seconds)
            points.append(Point(store, load.name, pinned, workers, threads, found.rate, found.p99))
    told = ", ".join(f"{p.load} {p.rate:,.0f}/s p99 {p.p99:.0f} ms" for p in points)
    say(f"{store}, {workers} × {threads}{', pinned' if pinned else ''}: {told}")
    return points


def climb(store: str, effort: Effort, noise: float, *, pinned: bool) -> list[Point]:
    """Every point on the way up. `memory://` has one worker, whatever is asked."""
    found: list[Point] = []
    tops: list[list[Point]] = []
    for workers in doublings(1 if store == "memory" else effort.workers):
        row = climb_threads(store, workers, effort, noise, pinned=pinned)
        found += [point for step in row for point in step]
        of_loads = zip(*row, strict=True)
        tops.append([max(of_load, key=lambda point: point.rate) for of_load in of_loads])
        if all_exhausted(tops, noise, STEPS_OF_WORKERS):
            break
    return found


def climb_threads(
    store: str, workers: int, effort: Effort, noise: float, *, pinned: bool
) -> list[list[Point]]:
    """The points of so many workers: a list for each number of threads, with an item a load."""
    row: list[list[Point]] = []
    for threads in doublings(effort.threads):
        row.append(measure(store, workers, threads, effort.seconds, pinned=pinned))
        if all_exhausted(row, noise, STEPS_OF_THREADS):
            break
    return row


def all_exhausted(steps: list[list[Point]], noise: float, patience: int) -> bool:
    """Whether no load gains any more."""
    return all(
        exhausted([point.rate for point in of_load], noise, patience)
        for of_load in zip(*steps, strict=True)
    )


def defaults(store: str, times: int, seconds: int) -> list[list[Point]]:
    """The same measurement, repeated: hasher's own settings."""
    workers = 1 if store == "memory" else len(os.sched_getaffinity(0))
    return [measure(store, workers, 8, seconds, pinned=False) for _ in range(times)]


def worst_noise(repeats: list[list[Point]]) -> float:
    """The noise under the load that suffers most of it."""
    return max(noise_of([p.rate for p in of_load]) for of_load in zip(*repeats, strict=True))


def search(store: str, effort: Effort) -> dict[str, Any]:
    """The points of a store, and its noise: {"noise": 0.05, "points": [...]}."""
    repeats = defaults(store, BEFORE, effort.seconds)
    noise = worst_noise(repeats)
    say(verdict(store, noise))
    points: list[Point] = []
    for pinned in (False, True):
        points += climb(store, effort, noise, pinned=pinned)
    repeats += defaults(store, AFTER, effort.seconds)
    return {"noise": worst_noise(repeats), "points": points}


def sweep(effort: Effort) -> dict[str, Any]:
    """What every store answered: {"machine": ..., "stores": {store: {"noise", "points"}}}."""
    with scratch() as folder:
        about = machine.describe(folder)
    found: dict[str, Any] = {}
    for store in effort.stores:
        try:
            found[store] = search(store, effort)
        except Failed as failure:
            say(f"{store}: {failure}")
    return {"machine": about, "effort": asdict(effort), "stores": found}


def spots(results: dict[str, Any]) -> Iterator[Point]:
    """The sweet spot of each store, load and pinning."""
    for found, load, pinned in product(results["stores"].values(), LOADS, (False, True)):
        yield sweet_spot(
            (p for p in found["points"] if p.load == load.name and p.pinned == pinned),
            found["noise"],
        )


def verdict(store: str, noise: float) -> str:
    """What the noise allows to say."""
    if noise > TOO_NOISY:
        return (
            f"{store}: too noisy to tell. The same measurement, repeated, differs by {noise:.0%} "
            f"here, more than {TOO_NOISY:.0%}: try again while nothing else runs."
        )
    return f"{store}: the same measurement, repeated, differs by {noise:.0%}."


def markdown(results: dict[str, Any]) -> str:
    """The sweet spots, as the variables to set; none of a store that is too noisy to tell."""
    noises = {store: found["noise"] for store, found in results["stores"].items()}
    rows = [
        [
            f"{spot.store}, {spot.load}",
            f"`WEB_CONCURRENCY={spot.workers} HASHER_THREADS={spot.threads}`",
            "1" if spot.pinned else "0",
            f"{spot.rate:,.0f}",
            f"{spot.p99:.1f}",
        ]
        for spot in spots(results)
        if noises[spot.store] <= TOO_NOISY
    ]
    head = ["", "sweet spot", "with `HASHER_CPU_AFFINITY=`", "requests/s", "p99, ms"]
    about = results["machine"]
    parts = [
        f"Measured on {about['date']}: {about['cpu']}, {about['cores']} cores. {RULE}",
        "\n".join(f"- {verdict(store, noise)}" for store, noise in noises.items()),
        table(head, rows) if rows else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def write(results: dict[str, Any], folder: Path) -> None:
    """sweep.json, sweep.md and sweep.svg in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {
        store: {**found, "points": [asdict(point) for point in found["points"]]}
        for store, found in results["stores"].items()
    }
    (folder / "sweep.json").write_text(json.dumps({**results, "stores": kept}, indent=1) + "\n")
    (folder / "sweep.md").write_text(markdown(results))
