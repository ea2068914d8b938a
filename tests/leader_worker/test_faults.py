"""Clients that misbehave, on a server with three threads, delay nobody."""

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.leader_worker.server import HELLO, Client, Server
from tests.leader_worker.test_answers import request
from tests.support.servers import until

MANY = 20  # more than there are threads
HEAD = b"POST /echo HTTP/1.1\r\nHost: a\r\n"
STALLED = {
    "silent": b"",
    "line": b"GET / HT",
    "head": b"GET / HTTP/1.1\r\nHost: a\r\nX: ",
    "body": HEAD + b"Content-Length: 10\r\n\r\nx",
    "large body": HEAD + b"Content-Length: 1000000\r\n\r\n" + b"x" * 100_000,
}
CHUNKS = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@contextmanager
def clients(server: Server, count: int, sent: bytes) -> Iterator[list[Client]]:
    """Clients that have sent something, and that neither read nor hang up."""
    with ExitStack() as stack:
        made = [stack.enter_context(server.connect()) for _ in range(count)]
        for client in made:
            client.send(sent)
        yield made


@contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[None]:
    """Have something done again and again."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(0.02):
            with suppress(OSError):
                act()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("kind", STALLED)
def test_clients_that_stall_hold_no_thread(server: Server, kind: str) -> None:
    with clients(server, MANY, STALLED[kind]):
        for _ in range(20):
            assert server.is_well()


@pytest.mark.parametrize("kind", STALLED)
def test_clients_that_stall_are_cut(server: Server, kind: str) -> None:
    with clients(server, MANY, STALLED[kind]) as stalled:
        if "body" in kind:
            assert {client.status() for client in stalled} == {408}
        assert all(client.is_closed() for client in stalled)
    assert server.is_well()
    assert "Traceback" not in server.log


@pytest.mark.parametrize("kind", ["head", "body", "large body"])
def test_clients_that_send_byte_by_byte_hold_no_thread(server: Server, kind: str) -> None:
    with clients(server, MANY, STALLED[kind]) as slow:

        def drip() -> None:
            for client in slow:
                client.socket.sendall(b"x")

        with meanwhile(drip):
            for _ in range(20):
                assert server.is_well()


def test_who_waits_for_a_thread_is_answered(server: Server) -> None:
    """However many send chunks slowly, a thread is left; those who have held one are cut."""
    with clients(server, MANY, CHUNKS) as slow:

        def drip() -> None:
            for client in slow:
                client.socket.sendall(b"1\r\nx\r\n")

        with meanwhile(drip), clients(server, 20, HELLO) as waiting:
            assert [client.content() for client in waiting] == [b"hello"] * 20
            until(lambda: "slow clients: others waited for their threads." in server.log)
    until(server.is_well)


def test_with_one_thread_a_slow_client_delays_nobody(tmp_path: Path) -> None:
    """Nor is it cut, since nobody else needs its place."""
    with Server(tmp_path, "--threads", "1") as server, clients(server, 1, CHUNKS) as slow:
        for _ in range(8):
            slow[0].send(b"1\r\nx\r\n")
            time.sleep(1)  # in all, longer than a client that stalls has
            assert server.is_well()
        slow[0].send(b"0\r\n\r\n")
        assert slow[0].content() == b"x" * 8
        assert "Cut" not in server.log


def test_all_threads_are_held_as_long_as_nobody_waits_for_one(tmp_path: Path) -> None:
    options, large = ("--threads", "2"), request("/large?30000000")
    with Server(tmp_path, *options) as server, clients(server, 2, large) as slow:

        def sip() -> None:
            for client in slow:
                client.socket.recv(40_000)

        with meanwhile(sip):
            time.sleep(7)  # longer than those who wait would let them
            assert "Cut" not in server.log
            assert server.is_well()
        assert "slow clients: others waited for their threads." in server.log


def test_a_chunk_that_ends_as_a_body_does_holds_no_more_threads(server: Server) -> None:
    with clients(server, MANY, CHUNKS + b"ff\r\nx\r\n0\r\n\r\n"):
        for _ in range(20):
            assert server.is_well()


def test_slow_readers_hold_no_thread_for_ever(server: Server) -> None:
    with clients(server, 6, request("/large?30000000")) as slow:

        def sip() -> None:
            for client in slow:
                client.socket.recv(1000)

        with meanwhile(sip), clients(server, 10, HELLO) as waiting:
            assert [client.content() for client in waiting] == [b"hello"] * 10


def test_who_waits_for_the_application_is_not_cut(server: Server) -> None:
    with clients(server, 3, request("/wait?7")) as busy:
        with clients(server, 10, HELLO) as waiting:
            assert [client.content() for client in waiting] == [b"hello"] * 10
        assert [client.content() for client in busy] == [b"waited"] * 3


def test_who_waits_for_a_client_beside_others_is_served_on(server: Server) -> None:
    """A slow body is read to its end, however long it takes, if a thread is left for others."""
    with clients(server, 2, CHUNKS) as slow:
        for _ in range(10):
            for client in slow:
                client.send(b"1\r\nx\r\n")
            assert server.is_well()
        for client in slow:
            client.send(b"0\r\n\r\n")
            assert client.content() == b"x" * 10


def test_a_client_that_takes_nothing_is_cut(server: Server) -> None:
    with clients(server, 2, request("/large?30000000")), clients(server, 5, b""):
        for _ in range(20):
            assert server.is_well()
        until(lambda: "it stalled for 5 s." in server.log)


def test_a_client_that_sends_without_end_leaves_others_their_turn(server: Server) -> None:
    ended = threading.Event()

    def send(client: Client) -> None:
        with suppress(OSError):
            while not ended.is_set():
                client.socket.sendall(HELLO * 2000)

    def take(client: Client) -> None:
        with suppress(OSError):
            while client.socket.recv(2**16):
                pass

    with clients(server, 4, b"") as greedy:
        threads = [
            threading.Thread(target=act, args=(one,)) for one in greedy for act in (send, take)
        ]
        for thread in threads:
            thread.start()
        try:
            for _ in range(20):
                assert server.is_well()
        finally:
            ended.set()
            for client in greedy:
                client.socket.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()


@pytest.mark.parametrize(
    "sent",
    [b"no HTTP\r\n\r\n", request("/closes"), request("/unread", body=b"x" * 3_000_000)],
    ids=["refused", "closed", "unread"],
)
def test_clients_that_do_not_hang_up_delay_nobody(server: Server, sent: bytes) -> None:
    with clients(server, MANY, sent):
        for _ in range(20):
            assert server.is_well()


def test_a_client_that_goes_away_leaves_no_trace(server: Server) -> None:
    for sent in (*STALLED.values(), CHUNKS, request("/large?30000000"), HELLO * 100):
        with clients(server, 5, sent) as gone:
            for client in gone:
                linger = b"\1\0\0\0\0\0\0\0"  # so that closing sends a reset
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    until(server.is_well)
    assert "Traceback" not in server.log


def test_more_connections_than_there_is_room_for_make_room(tmp_path: Path) -> None:
    options = ("--threads", "2", "--worker-connections", "10")
    with Server(tmp_path, *options) as server, clients(server, 50, b""):
        for _ in range(10):
            assert server.is_well()


def test_connections_that_are_all_busy_let_others_wait(tmp_path: Path) -> None:
    options = ("--threads", "4", "--worker-connections", "2")
    with Server(tmp_path, *options) as server, clients(server, 2, request("/wait?1")) as busy:
        assert server.is_well()
        assert [client.content() for client in busy] == [b"waited"] * 2


def test_unfinished_requests_beyond_the_room_for_them_are_read_by_threads(tmp_path: Path) -> None:
    size = 1_000_000
    sent = request("/echo", body=b"x" * size, method="POST")
    with Server(tmp_path, "--threads", "4") as server, clients(server, 24, sent[:-1]) as slow:
        assert server.is_well()
        for client in slow:
            client.send(b"y")
        assert {client.content()[-1:] for client in slow} == {b"y"}


def test_clients_that_drip_make_room_for_others(tmp_path: Path) -> None:
    """Bodies that fill the room, and every thread, before their clients slow down."""
    drips = HEAD + b"Content-Length: 1000000\r\n\r\n" + b"x" * 90_000
    sent = request("/echo", body=b"x" * 100_000, method="POST")
    with Server(tmp_path, "--threads", "3") as server, clients(server, 200, drips) as slow:

        def drip() -> None:
            for client in slow:
                client.send(b"x")

        await_turns(server)  # by then there is no room
        with meanwhile(drip):
            for _ in range(3):
                with server.connect() as client:
                    client.send(sent[:-1])
                    assert server.is_well()
                    client.send(sent[-1:])
                    assert len(client.content()) == 100_000
        assert "others needed the room that it held." in server.log
        assert "others waited for their threads" not in server.log  # which takes longer


def test_a_slow_line_has_its_time_if_there_is_room(server: Server) -> None:
    """However long it takes: longer than a client that stalls, and than one that drips has."""
    sent = request("/echo", body=b"x" * 100_000, method="POST")
    with server.connect() as client:
        for part in range(0, len(sent), 16_000):
            client.send(sent[part : part + 16_000])
            time.sleep(1)  # is what the line is like
            assert server.is_well()
        assert len(client.content()) == 100_000


def test_what_was_unfinished_once_takes_no_room(tmp_path: Path) -> None:
    sent = request("/echo", body=b"x" * 1_000_000, method="POST")
    with Server(tmp_path, "--threads", "1") as server, server.connect() as client:
        for _ in range(20):
            client.send(sent[:900_000])
            assert server.is_well()
            client.send(sent[900_000:])
            assert len(client.content()) == 1_000_000
        with clients(server, 5, STALLED["large body"]):
            assert server.is_well()


def test_too_many_who_wait_for_a_thread_are_refused(tmp_path: Path) -> None:
    with Server(tmp_path, "--threads", "2") as server, clients(server, 200, CHUNKS) as slow:
        answer = slow[-1].receive()
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert server.is_well()


def test_a_place_that_is_not_needed_goes_to_the_next(tmp_path: Path) -> None:
    """Those who wait for a thread since there was no room need none when there is room again."""
    large = HEAD + b"Content-Length: 1048576\r\n\r\n" + b"x" * 1_040_000
    small = HEAD + b"Content-Length: 200000\r\n\r\n" + b"x" * 199_999
    with (
        Server(tmp_path, "--threads", "2") as server,
        clients(server, 1, CHUNKS) as slow,
        ExitStack() as stack,
    ):
        with clients(server, 16, large):
            await_turns(server)
            postponed = stack.enter_context(clients(server, 10, small))
            await_turns(server)
        slow[0].send(b"0\r\n\r\n")
        assert slow[0].content() == b""
        for client in postponed:
            client.send(b"y")
        assert [client.content()[-1:] for client in postponed] == [b"y"] * 10


def await_turns(server: Server) -> None:
    """Wait until each of the other connections has had many turns."""
    with server.connect() as client:
        for _ in range(200):
            client.send(HELLO)
            assert client.content() == b"hello"


def test_those_who_wait_for_a_thread_cost_nothing(tmp_path: Path) -> None:
    """What they send meanwhile wakes nobody up."""
    with Server(tmp_path, "--threads", "2") as server, clients(server, 50, CHUNKS) as slow:
        assert server.is_well()
        (worker,) = server.workers()
        for client in slow:
            client.send(b"1\r\nx\r\n")
        before = processor_time(worker)
        time.sleep(1)  # in which a worker that is woken up again and again does nothing else
        assert processor_time(worker) - before < 0.2


def processor_time(pid: int) -> float:
    """Return how many seconds of the processor a process has had."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(path.read_text().split()[0]) for path in tasks) / 1e9


def test_a_crowd_that_asks_again_and_again_is_let_in_at_once(tmp_path: Path) -> None:
    """Until everybody has an answer, few are given to those who have one."""
    crowd = 300
    with Server(tmp_path, "--threads", "4") as server, clients(server, crowd, HELLO) as asking:
        counts = [0] * crowd
        numbers = {client.socket.fileno(): number for number, client in enumerate(asking)}
        poll = select.poll()
        for number in numbers:
            poll.register(number, select.POLLIN)
        while min(counts) == 0:
            for number, _ in poll.poll(30_000):
                client = numbers[number]
                assert asking[client].content() == b"hello"
                counts[client] += 1
                asking[client].send(HELLO)
        assert sum(counts) < 8 * crowd, counts
