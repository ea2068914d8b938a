"""Every contender that can run here runs, for a second, and does what hasher does."""

from pathlib import Path

import pytest

from bench.contenders import CONTENDERS, Contender, hasher
from bench.load import Failed, mixed, run
from bench.scaling import Effort, cached_service, reads_through
from bench.seeds import check, sow, write_digests
from tests.servers import program

HERE = [contender for contender in CONTENDERS if not contender.missing()]
HALF = mixed("half", reads=50)


@pytest.mark.parametrize("contender", HERE, ids=lambda contender: contender.name)
def test_a_contender_is_right_and_can_be_measured(contender: Contender, tmp_path: Path) -> None:
    program("wrk", "wrk")
    program("taskset", "util-linux")
    digests = tmp_path / "digests"
    with contender.start(tmp_path, None) as server:
        if contender.stores:
            check(server.port)
            sow(server.port, digests)
        else:
            write_digests(digests, range(10))
        figures = run(HALF, server.port, digests, seconds=1)
        pss, rss = server.memory()
    assert figures.rate > 0
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
        run(mixed("reads", reads=100), server.port, digests, seconds=1)
