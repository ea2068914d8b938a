"""What the benchmarks make of their figures: no server, no load."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as command
from bench import capacity, documents, report
from bench.capacity import Demand
from bench.contenders import COLD_FRONT, CONTENDERS, HASHER, TEXTBOOK, before
from bench.load import figures
from bench.report import Spread, ratios, spread
from hasher_tune.servers import Failed

ROOT = Path(__file__).parents[2]


def said(**changes: int) -> str:
    told = {"requests": 400, "duration": 2_000_000, "p50": 1500, "p99": 9000}
    line = json.dumps({**told, "refused": 0, "failed": 0, **changes})
    return f"Running 2s test\n  Latency  1ms\nRequests/sec: 1\n{line}\n"


def test_figures_are_a_second_and_in_milliseconds() -> None:
    found = figures(said(), messages=1, load_cpu=0.5, server_cpu=4_000_000)
    assert (found.rate, found.p50, found.p99, found.load_cpu) == (200, 1.5, 9, 0.25)
    assert found.cpu == 10  # microseconds for each of 400


def test_a_bulk_request_counts_its_messages() -> None:
    assert figures(said(), messages=5000, load_cpu=0, server_cpu=0).rate == 1_000_000


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"refused": 3}, "3 of 400 requests refused, 0 failed"),
        ({"failed": 1}, "0 of 400 requests refused, 1 failed"),
        ({"requests": 0}, "no request was answered"),
    ],
)
def test_what_was_not_answered_well_has_no_figure(change: dict[str, int], reason: str) -> None:
    with pytest.raises(Failed, match=reason):
        figures(said(**change), messages=1, load_cpu=0, server_cpu=0)


def test_a_ratio_is_taken_within_each_round() -> None:
    """A machine that is half as fast in one round changes no ratio."""
    assert ratios([200, 100, 220], [100, 50, 100]) == Spread(2.0, 2.0, 2.2)


def test_rounds_that_lack_one_of_the_two_are_left_out() -> None:
    assert ratios([200, None, 300], [100, 50, None]) == Spread(2.0, 2.0, 2.0)
    assert ratios([None], [1.0]) is None
    assert spread([]) is None


def result(**costs: float) -> dict[str, Any]:
    """What a contender measured in one round: microseconds by load."""
    loads = {
        load: [{"rate": 1e6 / cost, "cpu": cost, "p99": 1.0, "load_cpu": 0.95}]
        for load, cost in costs.items()
    }
    return {"failures": [], "start": [0.5], "pss": [40.0], **loads}


@pytest.fixture
def results() -> dict[str, Any]:
    """The least that tables are made of: two contenders, one round."""
    machine = {"date": "2026-01-01", "cpu": "a CPU", "cores": 2, "system": "Linux 6"}
    machine |= {
        "busy": 0.4,
        "disk_sync_ms": 1,
        "python": "3.11",
        "versions": {"flask": "3"},
    }
    failing = {**result(GET=50, POST=100), "failures": ["bulk: not offered"] * 2}
    full = {"store": "memory", "stored": 5000, "import": {}, "failure": "not offered"}
    return {
        "machine": machine,
        "effort": {"seconds": 1, "rounds": 1, "stored": 5, "before": ""},
        "contenders": {HASHER["memory"]: failing, TEXTBOOK: result(GET=250, POST=250)},
        "growth": [{**full, "few": {"GET": [], "POST": []}, "many": {"GET": [], "POST": []}}],
    }


def test_a_bar_says_what_was_measured_and_whether_it_is_met(results: dict[str, Any]) -> None:
    rows = {bar.what: bar.row()[1:] for bar in report.bars(results)}
    assert rows["GET, memory: CPU against textbook Flask"] == ["≤ 0.25", "0.20 (0.20–0.20)", "yes"]
    assert rows["POST, memory: CPU against textbook Flask"] == ["≤ 0.25", "0.40 (0.40–0.40)", "no"]
    assert rows["GET, memory: CPU against aiohttp"] == ["≤ 1.1", "not measured", ""]
    assert rows["master and one worker, idle: PSS in MB"] == ["≤ 90", "40 (40–40)", "yes"]


def test_what_failed_is_told_once_with_its_reason(results: dict[str, Any]) -> None:
    told = report.markdown(results)
    assert "- Other programs took 40% of the cores at the start" in told
    assert told.count("- hasher, memory: bulk: not offered.") == 1
    assert told.count("- memory, many stored: not offered.") == 1
    assert "- hasher, memory, GET: wrk took 95% of its core" in told


def test_tables_replace_those_between_their_comments() -> None:
    page = (
        "before\n<!-- figures of make bench: begin -->\nold\n<!-- figures of make bench: end -->\n"
    )
    new = documents.into(page, {"make bench": "new \\1\n"})
    assert new == page.replace("old", "new \\1")
    with pytest.raises(KeyError, match="make bench"):
        documents.into(page, {})


def test_the_documents_have_the_kept_tables() -> None:
    """If one has not, `.venv/bin/python -m bench documents` puts them there."""
    updated = list(documents.updated())
    assert [page.name for page, text in updated if page.read_text() != text] == []
    shown = "".join(text for _, text in updated)
    assert [name for name, table in documents.tables().items() if table not in shown] == []


def test_workers_add_up_until_the_cores_are_full() -> None:
    assert capacity.workers(cores=2, rate=1000, count=1) == 1000
    assert capacity.workers(cores=8, rate=1000, count=4) == 4000
    assert capacity.workers(cores=2, rate=1000, count=4) == 2000
    assert capacity.workers(cores=2, rate=1000, load=0.001, count=2) == 1000


def test_a_deployment_is_made_for_what_reaches_it() -> None:
    asked = Demand(messages=10**9, reads=1e6, writes=0, hits=0.99)
    assert asked.room == 261 * 10**9
    assert asked.masters == 17
    assert replace(asked, messages=10**6).masters == 1
    assert replace(asked, messages=10**8).masters == 3  # no cluster has two
    assert asked.cores(get=1000, post=1000) == 17  # 10,000 a second, of cores that are 60 % busy


def test_a_rate_that_was_not_measured_is_not_made_up() -> None:
    assert "not measured" in capacity.quantities({("GET", "memory"): 1000.0})
    assert "1,200" in capacity.quantities({("GET", "memory"): 1234.5})


def test_a_check_says_how_far_the_model_is_off(results: dict[str, Any]) -> None:
    """A core has 1e6 microseconds: 100 for hasher and 25 for nginx are 8,000 requests."""
    results["contenders"] |= {
        HASHER["sqlite"]: result(GET=100),
        COLD_FRONT: {"GET": [{"rate": 7200.0, "cpu": 25.0}]},
    }
    results["growth"][0] |= {"bytes": 270}
    told = capacity.checks(results)
    assert "not cached, requests/s | 8,000 | 7,200 (7,200–7,200) | -10% |" in told
    assert "| 267 | 270 (270–270) | +1% |" in told


def test_the_kept_tables_are_those_of_the_kept_figures() -> None:
    figures = json.loads((ROOT / "bench/results/bench.json").read_text())
    assert report.markdown(figures) == (ROOT / "bench/results/bench.md").read_text()
    names = [contender.name for contender in (*CONTENDERS, *before("HEAD"))]
    assert list(figures["contenders"]) == names


def test_nothing_of_hasher_is_imported() -> None:
    script = "import sys, bench.compare, hasher_tune.command; print(*sys.modules)"
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert not [name for name in ended.stdout.split() if name.split(".")[0] == "hasher"]


def test_a_comparison_of_some_is_printed_and_replaces_no_kept_one(
    results: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = (command.RESULTS / "bench.json").read_bytes()
    monkeypatch.setattr(sys, "argv", ["bench", "compare", "--only", HASHER["memory"]])
    monkeypatch.setattr(command, "require", lambda **_: None)
    monkeypatch.setattr("bench.compare.compare", lambda _: results)
    options = command.parsed()
    options.run(options)
    assert capsys.readouterr().out.startswith("Measured on 2026-01-01")
    assert (command.RESULTS / "bench.json").read_bytes() == kept
