"""What the figures say: medians, ratios with their spread, and tables."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any

from bench.contenders import (
    AIOHTTP,
    BEFORE,
    FASTAPI,
    FRONT,
    GO,
    GTHREAD,
    HASHER,
    LEADER,
    TEXTBOOK,
    THREADS,
    TWO_WORKERS,
)
from bench.load import CROWD
from bench.seeds import SEEDS

Results = dict[str, Any]
Values = list[float | None]
BUSY = 0.1
WIDTH = 99
SATURATED = 0.9  # of a core: a load generator that takes more may be what is measured


@dataclass(frozen=True)
class Spread:
    """A median with the least and the most of the rounds."""

    median: float
    least: float
    most: float

    def __format__(self, spec: str) -> str:
        return f"{self.median:{spec}} ({self.least:{spec}}–{self.most:{spec}})"


def spread(values: Values) -> Spread | None:
    """Of the rounds that have a value; None where none has."""
    known = [value for value in values if value is not None]
    return Spread(median(known), min(known), max(known)) if known else None


def ratios(ours: Values, theirs: Values) -> Spread | None:
    """Ours to theirs, round by round: what slows the machine for a round slows both."""
    pairs = zip(ours, theirs, strict=False)
    return spread([a / b for a, b in pairs if a is not None and b])


def values(results: Results, contender: str, load: str, figure: str = "rate") -> Values:
    """A figure of one load of one contender, round by round; None where it was not measured."""
    rounds = results["contenders"].get(contender, {}).get(load, [])
    return [found and found[figure] for found in rounds]


MEMORY, SINGLE = HASHER["memory"], ("GET", "POST")
MILLION = 1_000_000
STORED = ("memory", "sqlite", "redis")  # the stores of the README's table


@dataclass(frozen=True)
class Bar:
    """What hasher wants to reach: at least, or at most."""

    what: str
    found: Spread | None
    least: float = 0
    most: float | None = None
    spec: str = ".2f"

    def row(self) -> list[str]:
        """A row of the table: what, the bar, what was measured, whether it is met."""
        wanted = f"≥ {self.least:,}" if self.most is None else f"≤ {self.most:,}"
        if self.found is None:
            return [self.what, wanted, "not measured", ""]
        return [self.what, wanted, f"{self.found:{self.spec}}", "yes" if self.met else "no"]

    @property
    def met(self) -> bool:
        """Whether the median reaches it."""
        found = self.found
        return bool(
            found
            and found.median >= self.least
            and (self.most is None or found.median <= self.most)
        )


def bars(results: Results) -> Iterator[Bar]:
    """Every bar, with what was measured."""

    def of(ours: str, theirs: str, load: str, figure: str = "cpu") -> Spread | None:
        """Ours to theirs, under one load."""
        return ratios(values(results, ours, load, figure), values(results, theirs, load, figure))

    def ours(load: str, figure: str) -> Values:
        return values(results, MEMORY, load, figure)

    for theirs, most in ((AIOHTTP, 1.1), (FASTAPI, 0.5), (TEXTBOOK, 0.25)):
        for load in SINGLE:
            yield Bar(f"{load}, memory: CPU against {theirs}", of(MEMORY, theirs, load), most=most)
    for load in SINGLE:
        name = f"{load}, browser"
        yield Bar(f"{name}'s fields: CPU against aiohttp", of(MEMORY, AIOHTTP, name), most=1.25)
    for load in SINGLE:
        name, found = f"{load}, 100 kB", partial(of, MEMORY, AIOHTTP, f"{load}, 100 kB")
        yield Bar(f"{name}: CPU against aiohttp", found(), most=1.2)
        yield Bar(f"{name}: p99 against aiohttp", found("p99"), most=1.5)
    for load in SINGLE:
        found_redis = of(HASHER["redis"], BEFORE["redis"], load)
        yield Bar(f"{load}, redis: CPU against hasher before", found_redis, most=0.55)
    p99 = of(MEMORY, BEFORE["memory"], "GET", "p99")
    yield Bar("GET, memory: p99 against hasher before", p99, most=1.0)
    durable = of(HASHER["sqlite"], TEXTBOOK, "POST", "rate")
    yield Bar(f"POST, sqlite, durable: rate against {TEXTBOOK}", durable, 1.3)
    crowd = ratios(ours(CROWD.name, "rate"), ours("GET", "rate"))
    yield Bar("GET, 400 connections: rate against 16", crowd, 0.9)
    waits = [rate and CROWD.connections / rate * 1000 for rate in ours(CROWD.name, "rate")]
    late = ratios(ours(CROWD.name, "p99"), waits)
    yield Bar("GET, 400 connections: p99 against the mean", late, most=2)
    constant = ratios(values(results, LEADER, "GET", "cpu"), values(results, GTHREAD, "GET", "cpu"))
    yield Bar("a constant: CPU, leader_worker against gthread", constant, most=0.2)
    one, two = (values(results, name, "GET", "cpu") for name in (HASHER["sqlite"], TWO_WORKERS))
    workers = ratios([cpu and 2 * cpu for cpu in one], two)
    yield Bar("GET, sqlite: what two workers' cores answer, against one's", workers, 1.8)
    yield Bar("GET, cached by nginx: rate against Go", of(FRONT, GO, "GET", "rate"), 1.1)
    yield from growing(results)
    yield Bar("start to the first answer, s", at_start(results, "start"), most=1.0)
    pss = at_start(results, "pss")
    yield Bar("master and one worker, idle: PSS in MB", pss, most=90, spec=".0f")


def growing(results: Results) -> Iterator[Bar]:
    """The bars of full stores."""
    for found in results["growth"]:
        store, count = found["store"], f"{found['stored']:,}"
        for load in SINGLE:
            many, few = ([x["rate"] for x in found[size][load]] for size in ("many", "few"))
            least = 0.95 if found["stored"] <= MILLION else 0.9
            yield Bar(f"{load}, {store}: {count} stored against few", ratios(many, few), least)
        if store == "sqlite" and found["stored"] > MILLION:
            rate = spread([found["import"].get("rate")])
            what = f"import of {count} messages into sqlite, messages a second"
            yield Bar(what, rate, 60_000, spec=",.0f")


def at_start(results: Results, figure: str) -> Spread | None:
    """What hasher takes to start, with its default store."""
    return spread(results["contenders"].get(MEMORY, {}).get(figure, []))


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; all columns but the first are aligned to the right."""
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])


def contender_rows(results: Results) -> Iterator[list[str]]:
    """A row for each contender that measured anything."""
    for name, found in results["contenders"].items():
        cells = [
            *(shown(spread(values(results, name, load, "cpu")), ",.0f") for load in SINGLE),
            *(middle(values(results, name, load), ",.0f") for load in SINGLE),
            *(middle(values(results, name, load, "p99"), ".1f") for load in SINGLE),
            middle(values(results, name, "bulk"), ",.0f"),
            middle(found.get("start", []), ".2f"),
            middle(found.get("pss", []), ".0f"),
        ]
        if any(cells):
            yield [name, *cells]


def brief(results: Results) -> str:
    """Return the CPU time of a request, for the contenders that the README names."""
    rows = [
        [name, *(middle(values(results, name, load, "cpu"), ",.0f") for load in SINGLE)]
        for name in (*(HASHER[store] for store in STORED), FRONT, GO, AIOHTTP, FASTAPI, TEXTBOOK)
        if name in results["contenders"]
    ]
    return table(["µs of one core", *SINGLE], rows)


def shown(found: Spread | None, spec: str) -> str:
    """A spread as a cell, empty where there is none."""
    return format(found, spec) if found else ""


def middle(found: Values, spec: str) -> str:
    """A median as a cell, empty where there is none."""
    known = spread(found)
    return format(known.median, spec) if known else ""


HEAD = [
    *("", "GET, µs", "POST, µs", "GET/s", "POST/s", "GET p99, ms", "POST p99, ms"),
    *("bulk, messages/s", "start, s", "PSS, MB"),
]


def setting(results: Results) -> str:
    """How it was measured, and on what."""
    machine, effort = results["machine"], results["effort"]
    programs = {**machine["packages"], **machine["programs"]}
    versions = ", ".join(f"{name} {number}" for name, number in programs.items() if number)
    compared = f" “Before” is the commit {effort['before']}." if effort["before"] else ""
    return (
        f"Measured on {machine['date']}: {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['system']}; syncing a page to the disk takes {machine['disk_sync_ms']} ms. "
        "“µs” is the CPU time of all the server's processes for one request, as the scheduler "
        "counts it: other programs change it less than they change the rates. "
        f"The server has one core and, if it has threads, {THREADS} of them; wrk has another "
        "core, with Redis, which keeps nothing on the disk; 16 connections that stay open, "
        f"messages of 100 bytes, each POST a new one; {effort['rounds']} interleaved rounds of "
        f"{effort['seconds']} s; medians, with the least and the most. A ratio is taken within "
        f"each round. Start and memory of “{FRONT}” are nginx's alone. “Few” stored are "
        f"{SEEDS:,}.{compared} Python {machine['python']}, {versions}."
    )


def remarks(results: Results) -> Iterator[str]:
    """What disturbed, what failed, and where the load generator may have been the limit."""
    if (busy := results["machine"]["busy"]) > BUSY:
        yield f"- Other programs took {busy:.0%} of the cores at the start: measure again without."
    for name, found in results["contenders"].items():
        yield from (f"- {name}: {failure}." for failure in dict.fromkeys(found["failures"]))
        yield from saturated(results, name)
    for found in results["growth"]:
        if "failure" in found:
            yield f"- {found['store']}, many stored: {found['failure']}."
        if found["import"]:
            told = "- {store}: `flask store import` of {stored:,} messages: ".format(**found)
            yield told + "{rate:,.0f} a second, at most {memory:.0f} MB.".format(**found["import"])


def saturated(results: Results, name: str) -> Iterator[str]:
    """The loads of a contender under which wrk had little left of its core."""
    for load in (*SINGLE, "bulk"):
        cpu = spread(values(results, name, load, "load_cpu"))
        if cpu and cpu.median > SATURATED:
            yield f"- {name}, {load}: wrk took {cpu.median:.0%} of its core; there may be more."


def markdown(results: Results) -> str:
    """The tables, as docs/performance.md shows them."""
    parts = [
        fill(setting(results), WIDTH),
        table(HEAD, list(contender_rows(results))),
        table(["bar", "wanted", "measured", "met"], [bar.row() for bar in bars(results)]),
        "\n".join(remarks(results)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def write(results: Results, folder: Path) -> None:
    """bench.json and bench.md in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "bench.md").write_text(markdown(results))
