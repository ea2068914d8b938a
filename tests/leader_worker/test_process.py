"""How a worker starts and stops: no request is lost, and none holds up the end."""

import os
import signal
import time
from collections import Counter
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest

from tests.leader_worker.load import Load
from tests.leader_worker.server import HELLO, Server
from tests.leader_worker.test_answers import request
from tests.leader_worker.test_faults import clients
from tests.support.servers import until
from tests.support.service import is_running


@pytest.mark.parametrize("new", [True, False], ids=["new connections", "kept-alive"])
def test_reloads_under_load_fail_nothing(tmp_path: Path, *, new: bool) -> None:
    with Server(tmp_path, "--threads", "4", "-w", "2") as server:
        with Load(server.address, new=new) as load:
            for number in range(1, 9):
                server.signal(signal.SIGHUP)
                until(lambda: len(server.workers()) >= 2 + 2 * number)  # noqa: B023
                sent = load.sent
                until(lambda: load.sent > sent + 20)  # noqa: B023
        assert load.outcomes.keys() == {"200"}


def test_a_stop_answers_what_is_in_hand_and_what_is_on_its_way(tmp_path: Path) -> None:
    with (
        Server(tmp_path, "--threads", "3") as server,
        server.connect() as busy,
        server.connect() as half,
        server.connect() as kept,
    ):
        kept.send(HELLO)
        assert kept.content() == b"hello"
        busy.send(request("/wait?1"))
        sent = request("/echo", body=b"foo", method="POST")
        half.send(sent[:-1])
        assert server.is_well()
        server.signal(signal.SIGTERM)
        until(lambda: "Handling signal: term" in server.log)
        half.send(sent[-1:])
        kept.send(HELLO)
        for client, content in ((busy, b"waited"), (half, b"foo"), (kept, b"hello")):
            answer = client.receive()
            assert answer.content == content
            assert client.is_closed()
        assert server.process.wait(10) == 0


@pytest.mark.parametrize(
    "sent", [b"", b"GET", HELLO, request("/echo", "Content-Length: 3")], ids=repr
)
def test_no_client_holds_up_a_stop(tmp_path: Path, sent: bytes) -> None:
    options = ("--threads", "2", "--graceful-timeout", "7")
    with Server(tmp_path, *options) as server, server.connect() as client:
        client.send(sent)
        assert server.is_well()
        server.signal(signal.SIGTERM)
        assert server.process.wait(9.5) == 0


def test_a_stop_ends_though_every_thread_is_held(tmp_path: Path) -> None:
    options = ("--threads", "2", "--graceful-timeout", "1")
    with (
        Server(tmp_path, *options) as server,
        server.connect() as first,
        server.connect() as second,
    ):
        for client in (first, second):
            client.send(request("/wait?60"))
        server.signal(signal.SIGTERM)
        assert server.process.wait(10) == 0


def test_those_who_have_connected_before_a_stop_are_answered(tmp_path: Path) -> None:
    with Server(tmp_path, "--threads", "2") as server, clients(server, 2, b"") as busy:
        assert server.is_well()
        for client in busy:
            client.send(request("/wait?1"))
        time.sleep(0.2)  # by then all threads wait in the application
        queued = [server.connect() for _ in range(700)]
        for client in queued:
            client.send(HELLO)
        server.signal(signal.SIGTERM)
        assert [client.content() for client in busy] == [b"waited"] * 2
        assert [client.content() for client in queued] == [b"hello"] * 700
        for client in queued:
            client.close()
        assert server.process.wait(10) == 0


def test_a_worker_that_is_told_to_stop_as_it_starts_does(tmp_path: Path) -> None:
    """At every moment from its fork on: each worker is told as soon as it can be found."""
    with Server(tmp_path, "--threads", "2", "--graceful-timeout", "30") as server:
        assert server.is_well()
        told = set(server.workers())

        def untold() -> set[int]:
            return children(server.process.pid) - told

        for _ in range(15):
            server.signal(signal.SIGHUP)
            new = until(untold).pop()
            told.add(new)
            with suppress(ProcessLookupError):
                os.kill(new, signal.SIGTERM)
            until(partial(has_ended, new), within=10)
            until(server.is_well)
            told.update(server.workers())


def children(pid: int) -> set[int]:
    """Return the process ids of a process's children."""
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def has_ended(pid: int) -> bool:
    """Return whether the process does not run any more."""
    return not is_running(pid)


def is_shared(server: Server) -> bool:
    """Whether each of two workers takes a part of a crowd.

    One that gets no core for some milliseconds takes none (test_shares.py has the order).
    """
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(60)]
        for client in clients:
            client.send(request("/process"))
        counts = Counter(client.content() for client in clients)
    return len(counts) == 2 and min(counts.values()) >= 10


def test_workers_share_the_connections(tmp_path: Path) -> None:
    with Server(tmp_path, "-w", "2", "--threads", "2") as server:
        until(lambda: len(server.workers()) == 2)
        until(lambda: is_shared(server))
        old = server.workers()
        server.signal(signal.SIGHUP)
        until(lambda: all(map(has_ended, old)))
        until(lambda: is_shared(server))


def test_a_worker_that_was_killed_has_no_share(tmp_path: Path) -> None:
    """Nobody waits for it to take connections, and the one that replaces it starts from none."""
    with Server(tmp_path, "-w", "2", "--threads", "2") as server:
        until(lambda: len({server.ask(request("/process")).content for _ in range(20)}) == 2)
        os.kill(server.workers()[0], signal.SIGKILL)
        until(lambda: len(server.workers()) == 3)
        until(lambda: len({server.ask(request("/process")).content for _ in range(20)}) == 2)


def test_a_worker_whose_master_is_killed_ends(tmp_path: Path) -> None:
    with Server(tmp_path, "--threads", "2") as server:
        assert server.is_well()
        (worker,) = server.workers()
        server.process.kill()
        server.process.wait()
        until(partial(has_ended, worker))


DRIPS = {
    "head": (b"GET / HTTP/1.1\r\nX: ", b"x"),
    "body": (request("/echo", "Content-Length: 99999"), b"x"),
    "chunks": (request("/echo", "Transfer-Encoding: chunked"), b"1\r\nx\r\n"),
}


@pytest.mark.parametrize("kind", DRIPS)
def test_what_drips_does_not_hold_up_the_stop(tmp_path: Path, kind: str) -> None:
    start, drip = DRIPS[kind]
    options = ("--graceful-timeout", "60")
    with Server(tmp_path, *options) as server, server.connect() as client:
        client.send(start)
        assert server.is_well()
        server.signal(signal.SIGTERM)
        deadline = time.monotonic() + 30
        while server.process.poll() is None:
            assert time.monotonic() < deadline
            with suppress(OSError):
                client.send(drip)
            time.sleep(0.05)  # between two drips
        assert server.process.wait() == 0
