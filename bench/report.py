"""What the figures say: medians, ratios with their spread, and tables."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any

from bench.contenders import FRONT, GO, HASHER, TEXTBOOK, THREADS
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


MEMORY, SQLITE, SINGLE = HASHER["memory"], HASHER["sqlite"], ("GET", "POST")
Measured = Callable[[Results], Spread | None]


@dataclass(frozen=True)
class Bar:
    """What hasher wants to reach: at least, or at most."""

    what: str
    measured: Measured
    least: float = 0
    most: float | None = None
    spec: str = ".2f"

    def row(self, results: Results) -> list[str]:
        """A row of the table: what, the bar, what was measured, whether it is met."""
        wanted = f"≥ {self.least:,}" if self.most is None else f"≤ {self.most:,}"
        found = self.measured(results)
        if found is None:
            return [self.what, wanted, "not measured", ""]
        return [self.what, wanted, f"{found:{self.spec}}", "yes" if self.met(found) else "no"]

    def met(self, found: Spread) -> bool:
        """Whether the median reaches it."""
        return found.median >= self.least and (self.most is None or found.median <= self.most)


def against(ours: str, theirs: str, load: str, our_load: str | None = None) -> Measured:
    """The ratio of two rates in the same round, under the same load unless ours is named."""
    return lambda results: ratios(
        values(results, ours, our_load or load), values(results, theirs, load)
    )


def growing(store: str, load: str) -> Measured:
    """The ratio of the rate with many stored to that with few, in the same round."""

    def measured(results: Results) -> Spread | None:
        found = results["growth"].get(store, {"few": {}, "many": {}})
        many, few = ([x["rate"] for x in found[size].get(load, [])] for size in ("many", "few"))
        return ratios(many, few)

    return measured


def at_start(figure: str) -> Measured:
    """What hasher takes to start, with its default store."""
    return lambda results: spread(results["contenders"].get(MEMORY, {}).get(figure, []))


def in_bulk(contender: str) -> Measured:
    """Messages a second in bulk."""
    return lambda results: spread(values(results, contender, "bulk"))


BARS = [
    *(
        Bar(f"{load}, memory, against {TEXTBOOK}", against(MEMORY, TEXTBOOK, load), 1.05)
        for load in SINGLE
    ),
    Bar("POST, SQLite, durable, against memory", against(SQLITE, MEMORY, "POST"), 0.85),
    Bar("GET, cached by nginx, against Go", against(FRONT, GO, "GET"), 1.1),
    Bar("bulk, memory, against Go's single POSTs", against(MEMORY, GO, "POST", "bulk"), 5),
    Bar("bulk, SQLite, durable, messages a second", in_bulk(SQLITE), 100_000, spec=",.0f"),
    *(
        Bar(f"{load}, {store}, many stored against few", growing(store, load), 0.95)
        for store in HASHER
        for load in SINGLE
    ),
    Bar("start to the first answer, s", at_start("start"), most=1.0),
    Bar("master and one worker, idle: PSS in MB", at_start("pss"), most=90, spec=".0f"),
    Bar("the same as RSS, which counts shared pages twice", at_start("rss"), most=90, spec=".0f"),
]


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; all columns but the first are aligned to the right."""
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])


def contender_rows(results: Results) -> Iterator[list[str]]:
    """A row for each contender that measured anything."""
    for name, found in results["contenders"].items():
        cells = [
            *(shown(spread(values(results, name, load)), ",.0f") for load in ("GET", "POST")),
            *(
                shown(ratios(values(results, name, load), values(results, TEXTBOOK, load)), ".2f")
                for load in ("GET", "POST")
            ),
            *(middle(values(results, name, load, "p99"), ".1f") for load in ("GET", "POST")),
            middle(values(results, name, "bulk"), ",.0f"),
            middle(found.get("start", []), ".2f"),
            middle(found.get("pss", []), ".0f"),
        ]
        if any(cells):
            yield [name, *cells]


def shown(found: Spread | None, spec: str) -> str:
    """A spread as a cell, empty where there is none."""
    return format(found, spec) if found else ""


def middle(found: Values, spec: str) -> str:
    """A median as a cell, empty where there is none."""
    known = spread(found)
    return format(known.median, spec) if known else ""


HEAD = [
    *("", "GET/s", "POST/s", "GET ×", "POST ×", "GET p99, ms", "POST p99, ms"),
    *("bulk, messages/s", "start, s", "PSS, MB"),
]


def setting(results: Results) -> str:
    """How it was measured, and on what."""
    machine, effort = results["machine"], results["effort"]
    programs = {**machine["packages"], **machine["programs"]}
    versions = ", ".join(f"{name} {number}" for name, number in programs.items() if number)
    return (
        f"Measured on {machine['date']}: {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['system']}; syncing a page to the disk takes {machine['disk_sync_ms']} ms. "
        f"The server has one core and, where it has threads, {THREADS} of them; wrk has another "
        f"core, with Redis, which keeps nothing on the disk; {effort['connections']} connections "
        f"that stay open, messages of {effort['message_bytes']} bytes, {effort['rounds']} "
        f"interleaved rounds of {effort['seconds']} s; medians, with the least and the most. "
        f"“×” is the ratio to “{TEXTBOOK}” in the same round. "
        f"Start and memory of “{FRONT}” are nginx's alone. "
        f"“Few” stored are {SEEDS:,}, “many” {effort['stored']:,}. "
        f"Python {machine['python']}, {versions}."
    )


def remarks(results: Results) -> Iterator[str]:
    """What disturbed, what failed, and where the load generator may have been the limit."""
    if (busy := results["machine"]["busy"]) > BUSY:
        yield f"- Other programs took {busy:.0%} of the cores at the start: measure again without."
    for name, found in results["contenders"].items():
        yield from (f"- {name}: {failure}." for failure in dict.fromkeys(found["failures"]))
        yield from saturated(results, name)
    for store, found in results["growth"].items():
        if "failure" in found:
            yield f"- {HASHER[store]}, many stored: {found['failure']}."


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
        table(["bar", "wanted", "measured", "met"], [bar.row(results) for bar in BARS]),
        "\n".join(remarks(results)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def write(results: Results, folder: Path) -> None:
    """bench.json and bench.md in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "bench.md").write_text(markdown(results))


def marks(command: str) -> tuple[str, str]:
    """The two between which a page shows what a command has measured."""
    return f"<!-- figures of {command}: begin -->", f"<!-- figures of {command}: end -->"


def into(page: str, tables: str, command: str = "make bench") -> str:
    """`page` with these tables between the two marks of `command`, instead of those there."""
    begin, end = marks(command)
    between = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
    if not between.search(page):
        raise ValueError(f"The page has no {begin} … {end}.")
    return between.sub(lambda _: f"{begin}\n{tables}{end}", page)
