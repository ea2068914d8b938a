"""The documents that show kept figures: docs/performance.md and docs/scaling.md."""

import json
from collections.abc import Iterator
from pathlib import Path

from bench import capacity
from bench.contenders import ROOT
from bench.report import into

RESULTS = Path(__file__).parent / "results"
PERFORMANCE, SCALING = ROOT / "docs" / "performance.md", ROOT / "docs" / "scaling.md"


def update() -> None:
    """Put the kept tables into the documents."""
    for page, text in updated():
        page.write_text(text)


def updated() -> Iterator[tuple[Path, str]]:
    """Each document, and what it should say."""
    yield PERFORMANCE, into(PERFORMANCE.read_text(), (RESULTS / "bench.md").read_text())
    known = capacity.rates(json.loads((RESULTS / "bench.json").read_text()))
    text = SCALING.read_text()
    for name, table in {
        "one core": capacity.quantities(known),
        "given machines": capacity.given(known),
        "a billion messages": capacity.stored(),
        "a million reads": capacity.wanted(known),
    }.items():
        text = into(text, f"{table}\n", name)
    yield SCALING, into(text, (RESULTS / "scaling.md").read_text(), "make scaling")
