"""Every contender that can run here runs, for a second, and does what hasher does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.contenders import CONTENDERS, HASHER, Contender, hasher
from bench.load import Failed, run, single
from bench.scaling import Effort, cached_service, reads_through
from bench.seeds import check, sow, write_digests
from tests.support.documents import ROOT
from tests.support.servers import program, skip

HALF = single("half", reads=50)


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda contender: contender.name)
def test_a_contender_is_right_and_can_be_measured(contender: Contender, tmp_path: Path) -> None:
    program("wrk", "wrk")
    program("taskset", "util-linux")
    if missing := contender.missing():
        skip(f"{contender.name} needs {', '.join(missing)}.")
    digests = tmp_path / "digests"
    with contender.start(tmp_path, None) as server:
        if contender.stores:
            check(server.port)
            sow(server.port, digests)
        else:
            write_digests(digests, range(10))
        figures = run(HALF, server.port, digests, 1, server.cpu)
        pss, rss = server.memory()
    assert figures.rate > 0
    assert 1 < figures.cpu < 1e6 / figures.rate * (os.cpu_count() or 1)
    assert 0 < figures.p50 <= figures.p99
    assert 0 < pss <= rss


def test_what_reads_cost_through_nginx_is_told_apart_from_what_it_has_cached() -> None:
    program("wrk", "wrk")
    program("nginx", "nginx")
    with cached_service(Effort(seconds=1, rounds=1)) as (origin, front, digests):
        some = reads_through(front, origin, digests, hits=0.5, seconds=1)
        every = reads_through(front, origin, digests, hits=1, seconds=1)
    assert 0.3 < some.hits < 0.7
    assert every.hits == 1
    assert some.server > every.server == 0
    assert min(some.front, some.load, every.front, every.load) > 0


def test_a_server_that_ends_at_start_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(Failed, match="it ended at start: HASHER_THREADS must be a whole number"),
        hasher(tmp_path, None, HASHER_THREADS="0"),
    ):
        pass


def test_a_load_that_is_refused_is_no_figure(tmp_path: Path) -> None:
    program("wrk", "wrk")
    digests = tmp_path / "digests"
    write_digests(digests, range(10))  # which nobody has stored
    with hasher(tmp_path, None) as server, pytest.raises(Failed, match="requests refused"):
        run(single("reads", reads=100), server.port, digests, seconds=1)


SHORT = ["--seconds", "1", "--rounds", "1", "--stored", "2000"]
COMMANDS = {
    "compare": [*SHORT, "--only", HASHER["memory"]],
    "sweep": ["--seconds", "1", "--stores", "memory", "--workers", "1", "--threads", "1"],
    "scaling": SHORT,
}
WRITTEN = {
    "compare": ("bench", ["json", "md"]),
    "sweep": ("sweep", ["json", "md", "svg"]),
    "scaling": ("scaling", ["json", "md"]),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_measures_and_writes_what_it_found(command: str, tmp_path: Path) -> None:
    for name, package in {"wrk": "wrk", "nginx": "nginx", "redis-server": "redis-server"}.items():
        program(name, package)
    bench = [sys.executable, "-m", "bench", "--results", str(tmp_path), command]
    ended = subprocess.run(
        [*bench, *COMMANDS[command]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    stem, kinds = WRITTEN[command]
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"{stem}.{kind}" for kind in kinds]
    table = (tmp_path / f"{stem}.md").read_text()
    assert table in ended.stdout
    assert "memory" in table
