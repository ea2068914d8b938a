"""A service on a Redis Cluster, one of whose masters is lost."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.load import Load
from tests.support.servers import RedisCluster, RedisServer, until
from tests.support.service import Service


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RedisCluster]:
    """A cluster of this test's own."""
    with RedisCluster(tmp_path / "cluster") as running:
        yield running


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_master_loses_nothing_that_was_acknowledged(
    tmp_path: Path,
    cluster: RedisCluster,
    record_property: Callable[[str, object], None],
    fault: signal.Signals,
) -> None:
    url = f"{cluster.url}?replicas=1"
    with Service(tmp_path / "log", HASHER_STORE=url, WEB_CONCURRENCY="2") as service:
        with Load(service) as load:
            until(lambda: load.has_sent(300))
            os.kill(cluster.nodes[0].pid, fault)
            until(lambda: has_replaced_the_first(cluster))
            until(lambda: load.lost() == [], within=5)
            # Its place is taken by its replica, which has none now: writes to it wait for one.
            bring_back(cluster, fault)
            until(lambda: is_steady(load))
        record_property(f"Redis Cluster, a master lost by {fault.name}", load.said())
        assert load.outcomes[503] > 0
        assert set(load.outcomes) <= {200, 201, 503}
        assert load.slowest < 2.5
        assert load.lost() == []
        until(lambda: service.request("GET", "/readyz").status == 200)
        service.assert_recovers()


def test_a_paused_cluster_is_503_until_it_goes_on(
    tmp_path: Path, cluster: RedisCluster, record_property: Callable[[str, object], None]
) -> None:
    with Service(tmp_path / "log", HASHER_STORE=cluster.url) as service:
        service.assert_well()
        for node in cluster.nodes:
            os.kill(node.pid, signal.SIGSTOP)
        with Load(service, clients=64) as load:
            until(lambda: load.outcomes[503] >= 512)
        record_property("Redis Cluster, all of it paused", load.said())
        assert set(load.outcomes) == {503}
        assert load.slowest < 2
        assert service.request("GET", "/healthz").status == 200
        for node in cluster.nodes:
            os.kill(node.pid, signal.SIGCONT)
        until(lambda: service.request("GET", "/readyz").status == 200)
        service.assert_recovers()


def bring_back(cluster: RedisCluster, fault: signal.Signals) -> None:
    """Let the lost server come back, as a replica."""
    if fault == signal.SIGSTOP:
        os.kill(cluster.nodes[0].pid, signal.SIGCONT)
    else:
        cluster.nodes[0].kill()
        cluster.nodes[0].start()


def has_replaced_the_first(cluster: RedisCluster) -> bool:
    """Whether another server has taken the place of the first, in the eyes of all others."""
    return all(sees_replacement(node, lost=cluster.nodes[0].port) for node in cluster.nodes[1:])


def sees_replacement(node: RedisServer, lost: int) -> bool:
    """Whether `node` takes the server at port `lost` for failed, and the cluster for whole."""
    with closing(node.client()) as client:
        info = client.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]
        nodes = client.execute_command("CLUSTER NODES")  # type: ignore[no-untyped-call]
    flags = {address: seen["flags"] for address, seen in nodes.items()}
    gone = any(address.endswith(f":{lost}") and "fail" in flags[address] for address in flags)
    masters = [seen for seen in flags.values() if "master" in seen and "fail" not in seen]
    return gone and info["cluster_state"] == "ok" and len(masters) == 3


def is_steady(load: Load) -> bool:
    """Whether 200 requests in a row were answered without a 503."""
    refused, sent = load.outcomes[503], load.sent
    until(lambda: load.has_sent(sent + 200))
    return load.outcomes[503] == refused
