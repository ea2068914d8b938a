"""The documents that show kept figures: those between two comments, wherever they stand."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from bench import capacity, report
from bench.contenders import ROOT

RESULTS = Path(__file__).parent / "results"
FIGURES = re.compile(
    r"(<!-- figures of (?P<name>[\w ]+): begin -->\n).*?(<!-- figures of (?P=name): end -->)",
    re.DOTALL,
)


def update() -> None:
    """Put the kept tables into the documents."""
    for page, text in updated():
        page.write_text(text)


def updated() -> Iterator[tuple[Path, str]]:
    """Each document with kept tables, and what it should say."""
    known = tables()
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        text = page.read_text()
        if FIGURES.search(text):
            yield page, into(text, known)


def tables() -> dict[str, str]:
    """The kept tables, by the name in their comments."""
    results = json.loads((RESULTS / "bench.json").read_text())
    known = {"a request": report.brief(results), **capacity.tables(results)}
    shown = {name: f"{table}\n" for name, table in known.items()}
    return {"make bench": (RESULTS / "bench.md").read_text(), **shown}


def into(text: str, known: dict[str, str]) -> str:
    """`text` with the tables that its comments name between these."""
    return FIGURES.sub(lambda found: f"{found[1]}{known[found['name']]}{found[3]}", text)
