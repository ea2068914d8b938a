"""`hasher tune`: the command line of the search, and what it prints."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hasher_tune import answer, search, traffic
from hasher_tune.servers import Failed
from hasher_tune.stores import STORES
from hasher_tune.traffic import MIXES

STOPS = signal.SIGINT, signal.SIGTERM


def run(arguments: Sequence[str], cpus: int) -> None:
    """Search as the command line says, and print the answer.

    `cpus` is the number of CPUs that a service may use.
    """
    options = parsed(arguments, cpus)
    for stop in STOPS:
        signal.signal(stop, stop_once)
    try:
        tune(options, cpus)
    except (Failed, OSError) as failure:
        sys.exit(f"hasher tune: {failure}.")
    except KeyboardInterrupt:
        sys.exit("hasher tune: stopped.")


def stop_once(*_: object) -> None:
    """End the search, and let nothing stop it from ending its services."""
    for stop in STOPS:
        signal.signal(stop, signal.SIG_IGN)
    raise KeyboardInterrupt


def tune(options: argparse.Namespace, cpus: int) -> None:
    """Search, keep the figures if there is a folder for them, and print the answer."""
    mix = MIXES[options.load]
    if options.replay:
        with options.replay.open(errors="replace") as lines:
            mix = traffic.recorded(lines)
        print(f"The recorded load: {mix}.")
    question = search.Question(
        options.store,
        mix,
        options.aim,
        options.minutes,
        options.connections,
        options.cores,
        options.clients,
        cpus,
    )
    found = search.tune(question, say)
    print(answer.told(question, found), flush=True)
    if options.results:
        picture = answer.write(question, found, options.results)
        print(f"Figures and picture: {picture.with_suffix('.json')}, {picture}.")
    if options.write:
        answer.write_environment(options.write, found.answer)
        print(f"Written to {options.write}.")


def say(line: str) -> None:
    """Report progress."""
    print(line, file=sys.stderr, flush=True)


def parsed(arguments: Sequence[str], cpus: int) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(
        prog="hasher tune", description="The settings that serve the most on this machine."
    )
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="where the figures go")
    parser.add_argument(
        "--store", type=store, default="memory", help=f"{', '.join(STORES)}, or a URL"
    )
    parser.add_argument("--load", choices=MIXES, default="mixed", help="what is asked for (mixed)")
    parser.add_argument(
        "--replay", type=Path, metavar="LOG", help="an access log, whose mix is the load instead"
    )
    parser.add_argument(
        "--for",
        dest="aim",
        default=["throughput"],
        nargs="+",
        metavar="AIM",
        help="throughput (the most answered), or latency MS (the most offered with p99 below it)",
    )
    parser.add_argument("--minutes", type=time, default=3.0, help="about the most it takes (3)")
    parser.add_argument("--connections", type=positive, default=32, help="of the clients (32)")
    parser.add_argument(
        "--cores", type=cores, help="the server's, such as 0-2; the clients have the others"
    )
    parser.add_argument(
        "--clients", type=positive, default=max(1, cpus // 4), help="processes that ask"
    )
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="an environment file to set it in"
    )
    options = parser.parse_args(arguments)
    try:
        options.aim = aim(" ".join(options.aim))
    except ValueError as error:
        parser.error(str(error))
    return options


def positive(text: str) -> int:
    """Return a whole number of at least 1."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def time(text: str) -> float:
    """Return a number above 0."""
    if not (number := float(text)) > 0:
        raise ValueError
    return number


def cores(text: str) -> str:
    """Return a list of cores that this process may use."""
    usable = os.sched_getaffinity(0)
    with suppress(ValueError):
        if set() < search.listed(text) <= usable:
            return text
    raise argparse.ArgumentTypeError(f"{text} is no list such as 0,2-3, of {sorted(usable)}")


def store(text: str) -> str:
    """Return a name of STORES, or a URL."""
    if text == "memory://":
        return "memory"
    if text not in STORES and "://" not in text:
        raise argparse.ArgumentTypeError(f"{text} is none of {', '.join(STORES)}, and no URL")
    return text


def aim(text: str) -> float | None:
    """Return the highest p99 allowed, in seconds, or None for `throughput`."""
    what, _, limit = text.partition(" ")
    if what == "latency" and (not limit or limit.replace(".", "", 1).isdecimal()):
        return float(limit or 50) / 1000
    if text != "throughput":
        raise ValueError(f"--for takes throughput, or latency and milliseconds, not {text}")
    return None
