"""`python -m bench`, `python -m bench sweep`, `python -m bench readme`."""

import argparse
import shutil
import sys
from pathlib import Path

from bench import compare, report
from bench.contenders import ROOT

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Do what the command line says."""
    options = parsed()
    if options.command != "readme" and (lacking := [x for x in NEEDED if not shutil.which(x)]):
        sys.exit(f"{' and '.join(lacking)} must be on the PATH: apt-get install wrk util-linux")
    options.run(options)


NEEDED = ("wrk", "taskset")


def run_comparison(options: argparse.Namespace) -> None:
    """Compare, keep the figures, and print the tables."""
    effort = compare.Effort(options.seconds, options.rounds, options.stored)
    report.write(compare.compare(effort), options.results)
    print((options.results / "bench.md").read_text())


def update_readme(options: argparse.Namespace) -> None:
    """Put the kept tables into README."""
    page = ROOT / "README.md"
    page.write_text(report.into(page.read_text(), (options.results / "bench.md").read_text()))


def parsed() -> argparse.Namespace:
    """The command line; `run` is the function for its command."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the figures go")
    commands = parser.add_subparsers(dest="command", required=True)
    comparison = commands.add_parser("compare", help="hasher and its peers, side by side")
    comparison.add_argument("--seconds", type=int, default=2, help="of each measurement")
    comparison.add_argument("--rounds", type=int, default=5)
    comparison.add_argument("--stored", type=int, default=1_000_000, help="in a full store")
    comparison.set_defaults(run=run_comparison)
    readme = commands.add_parser("readme", help="put the kept tables into README.md")
    readme.set_defaults(run=update_readme)
    return parser.parse_args()


if __name__ == "__main__":
    main()
