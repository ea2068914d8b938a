"""What the figures say: medians, ratios with their spread, and tables."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import inf
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any, Self

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

    @classmethod
    def of(cls, values: list[float]) -> Self:
        """Of so many values, one at least."""
        return cls(median(values), min(values), max(values))

    def __format__(self, spec: str) -> str:
        return f"{self.median:{spec}} ({self.least:{spec}}–{self.most:{spec}})"


def spread(values: Values) -> Spread | None:
    """Of the rounds that have a value; None if none has."""
    known = [value for value in values if value is not None]
    return Spread.of(known) if known else None


def ratios(ours: Values, theirs: Values) -> Spread | None:
    """Ours to theirs, round by round: what slows the machine for a round slows both."""
    pairs = zip(ours, theirs, strict=False)
    return spread([a / b for a, b in pairs if a is not None and b])


def values(results: Results, contender: str, load: str, figure: str = "rate") -> Values:
    """A figure of one load of one contender, round by round; None if it was not measured."""
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
        """A row of the table: what, the bar, what was measured, whether the median meets it."""
        wanted = f"≥ {self.least:,}" if self.most is None else f"≤ {self.most:,}"
        if self.found is None:
            return [self.what, wanted, "not measured", ""]
        met = self.least <= self.found.median <= (self.most or inf)
        return [self.what, wanted, f"{self.found:{self.spec}}", "yes" if met else "no"]


def bars(results: Results) -> Iterator[Bar]:
    """Every bar, with what was measured."""

    def of(name: str, load: str, figure: str = "cpu") -> Values:
        return values(results, name, load, figure)

    def versus(theirs: str, load: str, figure: str = "cpu", ours: str = MEMORY) -> Spread | None:
        return ratios(of(ours, load, figure), of(theirs, load, figure))

    for load, theirs in product(SINGLE, (AIOHTTP, FASTAPI, TEXTBOOK)):
        most = {AIOHTTP: 1.1, FASTAPI: 0.5, TEXTBOOK: 0.25}[theirs]
        yield Bar(f"{load}, memory: CPU against {theirs}", versus(theirs, load), most=most)
    for load in ("GET, browser", "POST, browser"):
        yield Bar(f"{load}'s fields: CPU against aiohttp", versus(AIOHTTP, load), most=1.25)
    for load in ("GET, 100 kB", "POST, 100 kB"):
        yield Bar(f"{load}: CPU against aiohttp", versus(AIOHTTP, load), most=1.2)
        yield Bar(f"{load}: p99 against aiohttp", versus(AIOHTTP, load, "p99"), most=1.5)
    for load in SINGLE:
        found = versus(BEFORE["redis"], load, ours=HASHER["redis"])
        yield Bar(f"{load}, redis: CPU against hasher before", found, most=0.55)
    found = versus(BEFORE["memory"], "GET", "p99")
    yield Bar("GET, memory: p99 against hasher before", found, most=1.0)
    found = versus(TEXTBOOK, "POST", "rate", HASHER["sqlite"])
    yield Bar(f"POST, sqlite, durable: rate against {TEXTBOOK}", found, 1.3)
    crowd = of(MEMORY, CROWD.name, "rate")
    found = ratios(crowd, of(MEMORY, "GET", "rate"))
    yield Bar("GET, 400 connections: rate against 16", found, 0.9)
    means = [rate and CROWD.connections / rate * 1000 for rate in crowd]
    found = ratios(of(MEMORY, CROWD.name, "p99"), means)
    yield Bar("GET, 400 connections: p99 against the mean", found, most=2)
    found = versus(GTHREAD, "GET", ours=LEADER)
    yield Bar("a constant: CPU, leader_worker against gthread", found, most=0.2)
    found = ratios([cpu and 2 * cpu for cpu in of(HASHER["sqlite"], "GET")], of(TWO_WORKERS, "GET"))
    yield Bar("GET, sqlite: what two workers' cores answer, against one's", found, 1.8)
    postgresql = HASHER["postgresql"]
    found = versus(HASHER["redis"], "GET", "rate", postgresql)
    yield Bar("GET, postgresql: rate against redis", found, 0.8)
    found = versus(HASHER["sqlite"], "POST", "rate", postgresql)
    yield Bar("POST, postgresql, durable: rate against sqlite", found, 0.9)
    found = spread(of(postgresql, "bulk", "rate"))
    yield Bar("bulk, postgresql, durable: messages a second", found, 50_000, spec=",.0f")
    found = versus(GO, "GET", "rate", FRONT)
    yield Bar("GET, cached by nginx: rate against Go", found, 1.1)
    yield from growing(results)
    start, pss = (
        spread(results["contenders"].get(MEMORY, {}).get(x, [])) for x in ("start", "pss")
    )
    yield Bar("start to the first answer, s", start, most=1.0)
    yield Bar("master and one worker, idle: PSS in MB", pss, most=90, spec=".0f")


def growing(results: Results) -> Iterator[Bar]:
    """The bars of full stores."""
    for found, load in product(results["growth"], SINGLE):
        what, is_most = "{store}: {stored:,} stored".format(**found), found["stored"] > MILLION
        many, few = ([x["rate"] for x in found[size][load]] for size in ("many", "few"))
        yield Bar(f"{load}, {what} against few", ratios(many, few), 0.9 if is_most else 0.95)
        if is_most and load == "POST":
            rate = spread([found["import"].get("rate")])
            yield Bar(f"import, {what}, messages a second", rate, 60_000, spec=",.0f")


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; all columns but the first are aligned to the right."""
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])


HEAD = ["", "GET, µs", "POST, µs", "GET/s", "POST/s", "GET p99, ms", "POST p99, ms"]
HEAD += ["bulk, messages/s", "start, s", "PSS, MB"]


def contender_rows(results: Results) -> Iterator[list[str]]:
    """A row for each contender that measured anything."""
    for name, found in results["contenders"].items():
        costs = [spread(values(results, name, load, "cpu")) for load in SINGLE]
        rest = [
            *((values(results, name, load), ",.0f") for load in SINGLE),
            *((values(results, name, load, "p99"), ".1f") for load in SINGLE),
            (values(results, name, "bulk"), ",.0f"),
            (found.get("start", []), ".2f"),
            (found.get("pss", []), ".0f"),
        ]
        cells = [f"{cost:,.0f}" if cost else "" for cost in costs]
        cells += [f"{known.median:{spec}}" if (known := spread(x)) else "" for x, spec in rest]
        if any(cells):
            yield [name, *cells]


def brief(results: Results) -> str:
    """The CPU time of a request, for the contenders that the README names."""
    rows = []
    for name in (*(HASHER[store] for store in STORED), FRONT, GO, AIOHTTP, FASTAPI, TEXTBOOK):
        costs = [spread(values(results, name, load, "cpu")) for load in SINGLE]
        if any(costs):
            rows.append([name, *(f"{cost.median:,.0f}" if cost else "" for cost in costs)])
    return table(["µs of one core", *SINGLE], rows)


def setting(results: Results) -> str:
    """How it was measured, and on what."""
    machine, effort = results["machine"], results["effort"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
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
        for load in (*SINGLE, "bulk"):
            cpu = spread(values(results, name, load, "load_cpu"))
            if cpu and cpu.median > SATURATED:
                yield f"- {name}, {load}: wrk took {cpu.median:.0%} of its core; there may be more."
    for found in results["growth"]:
        if "failure" in found:
            yield f"- {found['store']}, many stored: {found['failure']}."
        if found["import"]:
            told = "- {store}: `flask store import` of {stored:,} messages: ".format(**found)
            yield told + "{rate:,.0f} a second, at most {memory:.0f} MB.".format(**found["import"])


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
