"""The command line: `python -m bench compare` or `documents`."""

import argparse
import shutil
import signal
import sys
from pathlib import Path

from bench import compare, documents, report
from bench.contenders import CONTENDERS
from hasher_tune.servers import Failed

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Do what the command line says."""
    options = parsed()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the servers end with it
    try:
        options.run(options)
    except Failed as failure:
        sys.exit(f"bench: {failure}.")
    except KeyboardInterrupt:
        sys.exit("bench: stopped.")


def require(**programs: str) -> None:
    """End, in one line, if one is missing; each with Debian's package of it."""
    if lacking := [name for name in programs if not shutil.which(name)]:
        packages = " ".join(programs[name] for name in lacking)
        sys.exit(f"{' and '.join(lacking)} must be on the PATH: apt-get install {packages}")


def run_comparison(options: argparse.Namespace) -> None:
    """Compare, keep the figures, and print the tables, which the documents show too.

    A comparison of some replaces no kept one of all: it is only printed.
    """
    require(wrk="wrk", taskset="util-linux")
    names = ("seconds", "rounds", "stored", "most", "only", "before")
    effort = compare.Effort(**{name: getattr(options, name) for name in names})
    is_kept = options.results.resolve() == RESULTS
    results = compare.compare(effort)
    if not (effort.only and is_kept):
        report.write(results, options.results)
        if is_kept:
            documents.update()
    print(report.markdown(results))


def parsed() -> argparse.Namespace:
    """The command line; `run` is the function for its command."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the figures go")
    commands = parser.add_subparsers(required=True)

    one = commands.add_parser("compare", help="hasher and its peers, side by side")
    one.add_argument("--seconds", type=positive, default=1, help="of each measurement")
    one.add_argument("--rounds", type=positive, default=5)
    one.add_argument("--stored", type=positive, default=1_000_000, help="in a full store")
    one.add_argument("--most", type=int, default=0, help="in a fuller SQLite; 0: not measured")
    one.add_argument("--before", default="", metavar="COMMIT", help="whose hasher takes part too")
    names = [contender.name for contender in CONTENDERS]
    one.add_argument("--only", action="append", default=[], choices=names, metavar="NAME")
    one.set_defaults(run=run_comparison)

    two = commands.add_parser("documents", help="put the kept tables into the documents")
    two.set_defaults(run=lambda _: documents.update())
    return parser.parse_args()


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


if __name__ == "__main__":
    main()
