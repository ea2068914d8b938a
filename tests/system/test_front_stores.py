"""Loads and faults through the shipped nginx, with each store that several instances share."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from hashlib import sha256

import pytest

from tests.support.front import Fleet, cached, refusals
from tests.support.load import Load, Reads
from tests.support.servers import until
from tests.support.service import is_running
from tests.support.stores import SERVERS

Record = Callable[[str, object], None]
NAME = "0" * 64


@pytest.fixture(scope="module", params=SERVERS)
def shared_fleet(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    """One fleet on each store in turn, for this module's tests."""
    folder = tmp_path_factory.mktemp("fleet")
    with Fleet(folder, SERVERS[request.param](folder)) as running:
        yield running


@pytest.fixture
def fleet(shared_fleet: Fleet) -> Fleet:
    """The fleet, whole again after what another test did to it."""
    shared_fleet.heal()
    return shared_fleet


def restart_each(fleet: Fleet) -> None:
    """A rolling restart."""
    for number, instance in enumerate(fleet.instances):
        instance.signal(signal.SIGTERM)
        assert instance.process.wait(10) == 0
        fleet.restart(number)


def kill_a_worker(fleet: Fleet) -> None:
    """End one worker of one instance, and wait for its replacement."""
    (worker,) = fleet.instances[0].workers()
    os.kill(worker, signal.SIGKILL)
    until(lambda: not is_running(worker) and fleet.instances[0].is_answering())


def kill_an_instance(fleet: Fleet) -> None:
    """End one instance as a power cut would, and start it after a while."""
    fleet.instances[1].kill()
    time.sleep(1)  # the load goes on without it for this long
    fleet.restart(1)


def stop_an_instance(fleet: Fleet) -> None:
    """Let one instance hang for 5 s."""
    processes = [fleet.instances[2].process.pid, *fleet.instances[2].workers()]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    time.sleep(5)  # is what the fault is
    for process in processes:
        os.kill(process, signal.SIGCONT)


def reload_three_times(fleet: Fleet) -> None:
    """SIGHUP each instance three times."""
    for _ in range(3):
        for instance in fleet.instances:
            old = instance.workers()
            instance.signal(signal.SIGHUP)
            until(lambda old=old: not any(map(is_running, old)))  # type: ignore[misc]


@pytest.mark.parametrize(
    "fault",
    [restart_each, kill_a_worker, kill_an_instance, stop_an_instance, reload_three_times],
)
def test_a_fault_of_an_instance_fails_no_request(
    fleet: Fleet, fault: Callable[[Fleet], None], record_property: Record
) -> None:
    texts = cached(fleet)
    with Load(fleet.front, clients=6) as load, Reads(fleet.front, texts, clients=2) as reads:
        until(lambda: load.has_sent(50))
        fault(fleet)
        sent = load.sent
        until(lambda: load.has_sent(sent + 50))
    lost = load.lost()
    record_property(f"front, {fault.__name__}", f"{load.said()}, {len(lost)} lost")
    record_property(f"front, {fault.__name__}, cached", reads.said())
    assert (load.failures, reads.failures, lost) == ({}, {}, [])


def test_a_well_instance_is_asked_however_lately_each_has_failed(fleet: Fleet) -> None:
    fleet.store.signal(signal.SIGSTOP)
    with Load(fleet.front, clients=8) as blip:
        until(lambda: blip.outcomes[503] > 16)
    fleet.store.signal(signal.SIGCONT)
    until(lambda: all(instance.get(NAME).status == 404 for instance in fleet.instances))
    fleet.instances[0].kill()
    fleet.instances[1].kill()
    with Load(fleet.front) as load:
        until(lambda: load.has_sent(100))
    assert (load.failures, load.lost()) == ({}, [])


def test_a_store_that_restarts_fails_no_cached_read_and_loses_nothing(
    fleet: Fleet, record_property: Record
) -> None:
    texts = cached(fleet)
    with Load(fleet.front, clients=6) as load, Reads(fleet.front, texts, clients=2) as reads:
        until(lambda: load.has_sent(50))
        fleet.store.kill()
        failed = load.outcomes[503]
        until(lambda: load.outcomes[503] > failed + 20)
        fleet.store.start()
        until(lambda: fleet.front.post(f"back {time.time_ns()}").status == 201, within=5)
        sent = load.sent
        until(lambda: load.has_sent(sent + 50))
    lost = load.lost()
    record_property("front, store restarted", f"{load.said()}, {len(lost)} lost")
    record_property("front, store restarted, cached", reads.said())
    assert (reads.failures, lost) == ({}, [])
    assert set(load.failures) <= {503}


def test_what_one_instance_stores_the_others_read(fleet: Fleet, record_property: Record) -> None:
    misses = 0
    for number in range(300):
        name = fleet.front.post(f"message {number}").json["digest"]
        misses += fleet.instances[number % 3].get(name).json != {"message": f"message {number}"}
    record_property("front, POST there and GET elsewhere x 300", f"{misses} misses")
    assert misses == 0


def test_everything_killed_and_started_has_every_message(
    fleet: Fleet, record_property: Record
) -> None:
    with Load(fleet.front) as load:
        until(lambda: load.has_sent(200))
        fleet.store.kill()
        for instance in fleet.instances:
            instance.kill()
    fleet.heal()
    lost = [text for text in load.acknowledged if not stored(fleet, text)]
    record_property("front, everything killed", f"{len(load.acknowledged)} kept, {len(lost)} lost")
    assert load.acknowledged
    assert lost == []


def stored(fleet: Fleet, text: str) -> bool:
    """Whether an instance has the message, whatever the cache has."""
    return fleet.instances[0].get(sha256(text.encode()).hexdigest()).status == 200


@pytest.mark.parametrize("fault", ["stopped", "paused"])
def test_the_store_unreachable_is_503_in_time(
    fleet: Fleet, fault: str, record_property: Record
) -> None:
    (text,) = cached(fleet, 1)
    if fault == "stopped":
        fleet.store.kill()
    else:
        fleet.store.signal(signal.SIGSTOP)
    slowest = 0.0
    until(lambda: fleet.front.request("GET", "/readyz").status == 503)
    for method, path in 5 * [("POST", "/messages"), ("GET", f"/messages/{NAME}")]:
        started = time.monotonic()
        body = b"new" if method == "POST" else None
        answer = fleet.front.request(method, path, body, {"Content-Type": "text/plain"})
        slowest = max(slowest, time.monotonic() - started)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert fleet.front.get(sha256(text.encode()).hexdigest()).status == 200
    record_property(f"front, store {fault}", f"503, slowest {slowest:.2f} s")
    assert slowest < 2
    for instance in fleet.instances:
        assert instance.request("GET", "/healthz").status == 200
        until(lambda i=instance: i.request("GET", "/readyz").status == 503)  # type: ignore[misc]
    if fault == "stopped":
        fleet.store.start()
    else:
        fleet.store.signal(signal.SIGCONT)
    fleet.front.assert_recovers(within=5)


def test_a_crowd_that_asks_for_one_message_is_refused_in_time(
    fleet: Fleet, record_property: Record
) -> None:
    fleet.store.signal(signal.SIGSTOP)
    waits = refusals(fleet.front)
    record_property("front, crowd, store stopped", f"slowest {max(waits):.2f} s")
    assert max(waits) < 2


def test_a_damaged_message_is_never_served(fleet: Fleet) -> None:
    text = f"damaged {time.time_ns()}"
    name = fleet.front.post(text).json["digest"]
    fleet.store.alter(name, "altered")
    answer = fleet.front.get(name)
    assert (answer.status, answer.headers["Cache-Control"]) == (500, "no-store")
    fleet.store.alter(name, text)
    assert fleet.front.get(name).json == {"message": text}
    line = f"Request {answer.headers['X-Request-ID']}: the message stored under {name} is damaged"
    assert any(line in instance.log for instance in fleet.instances)
